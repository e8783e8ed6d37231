package alert

import (
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a message for a person.
const (
	maxFirstLine  = 300  // characters
	maxTextName   = 120  // characters of the monitor's name in the first line
	maxTextTarget = 300  // characters
	maxMessage    = 1024 // bytes, as a result's message is bounded
)

// Text returns the message for a person: what happened in the first line (at most 300 characters), then the target, since
// when or how long, and the link. A recovery says how long the monitor was down. It reads every part of n but Text. Names and
// messages come from outside: they are one line each, without control characters.
func Text(n sdk.Notification) string {
	name := cutRunes(sdk.CleanText(n.Monitor.Name, 4*maxTextName), maxTextName)
	result := sdk.CleanText(n.Result.Message, maxMessage)
	first := headline(n, name)
	if result != "" {
		first += ": " + result
	}
	lines := []string{cutRunes(first, maxFirstLine)}
	if lines[0] != first {
		lines = append(lines, result)
	}
	lines = append(lines, circumstances(n))
	if n.URL != "" {
		lines = append(lines, sdk.CleanText(n.URL, maxMessage))
	}
	return strings.Join(lines, "\n")
}

// headline is the part of the first line before the result's message.
func headline(n sdk.Notification, name string) string {
	head := "EVENT"
	switch n.Transition {
	case sdk.WentDown:
		head = "DOWN"
	case sdk.WentUp:
		head = "UP"
	case sdk.WentDegraded:
		head = "DEGRADED"
	case sdk.WentUnknown:
		head = "UNKNOWN"
	case sdk.Expiring:
		head = "EXPIRING"
	case sdk.Test:
		head = "TEST"
	}
	if name != "" {
		head += " " + name
	}
	if ended(n) {
		head += " after " + words(n.Incident.Duration) + " down"
	}
	return head
}

// ended reports whether n tells of the end of an incident.
func ended(n sdk.Notification) bool {
	return n.Incident != nil && (n.Transition == sdk.WentUp || !n.Incident.EndedAt.IsZero())
}

// circumstances is the line that says what is watched and since when.
func circumstances(n sdk.Notification) string {
	var b strings.Builder
	if target := cutRunes(sdk.CleanText(n.Monitor.Target, 4*maxTextTarget), maxTextTarget); target != "" {
		b.WriteString("Target " + target + " ")
	}
	o := n.Incident
	switch {
	case ended(n) && !o.StartedAt.IsZero():
		end := o.EndedAt
		if end.IsZero() {
			end = n.At
		}
		b.WriteString("was down from " + moment(o.StartedAt) + " to " + moment(end))
	case o != nil && !o.StartedAt.IsZero():
		b.WriteString("since " + moment(o.StartedAt))
		if o.Duration >= time.Second {
			b.WriteString(", for " + words(o.Duration))
		}
	default:
		b.WriteString("at " + moment(n.At))
	}
	text := b.String()
	return strings.ToUpper(text[:1]) + text[1:]
}

// moment writes a time for a person, in UTC.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
