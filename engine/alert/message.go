package alert

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tocsinhq/tocsin/sdk"
)

// message gives the placeholders of a provider's data their values.
type message struct {
	n      sdk.Notification
	config Values
	tables map[string]table
	escape *strings.Replacer // nil: none
	cut    int               // characters of a value from outside; 0: any
}

// table gives a scalar for each transition.
type table map[sdk.Transition]any

var _ source = (*message)(nil)

// placeholderDoc is one placeholder for the documentation. Outside is set when the value comes from what is monitored or
// from a monitor's author: such values are escaped and cut.
type placeholderDoc struct {
	name, doc string
	outside   bool
}

// placeholders lists every placeholder except config.NAME and table.NAME.
func placeholders() []placeholderDoc {
	return []placeholderDoc{
		{"event.id", "the event's id, the same in every retry", false},
		{"key", "what the notification is about: the incident's id for down, the event's for a test, MONITOR-expiring for an " +
			"expiry, else the monitor's id", false},
		{"transition", "down, up, degraded, unknown, expiring or test", false},
		{"at", "when it happened, as 2026-01-02T03:04:05Z", false},
		{"url", "where to read more; absent when the server does not know its own address", false},
		{"text", "the whole message", true},
		{"title", "the first line of the message", true},
		{"body", "the message without its first line", true},
		{"source", "the monitor's name, or Tocsin when there is none", true},
		{"monitor.id", "the monitor's id", false},
		{"monitor.name", "", true},
		{"monitor.kind", "absent when it has none", true},
		{"monitor.target", "absent when it has none", true},
		{"monitor.labels", "as a=b, c=d; absent when there are none", true},
		{"incident.id", "absent when the event belongs to none", false},
		{"incident.started_at", "absent when the event belongs to none", false},
		{"incident.ended_at", "absent while the incident lasts", false},
		{"incident.duration", "in words; absent when the event belongs to none", false},
		{"result.status", "up, degraded, down or unknown", false},
		{"result.message", "absent when it is empty", true},
		{"result.latency_ms", "a whole number; absent when none was measured", false},
	}
}

// outside reports whether the named value comes from what is monitored or from a monitor's author.
func outside(name string) bool {
	for _, p := range placeholders() {
		if p.name == name {
			return p.outside
		}
	}
	return false
}

// value returns what the placeholder stands for. Texts are valid UTF-8.
func (m *message) value(name string) (any, bool) {
	if field, ok := strings.CutPrefix(name, "config."); ok {
		v, ok := m.config[field]
		return v, ok
	}
	if t, ok := strings.CutPrefix(name, "table."); ok {
		v, ok := m.tables[t][m.n.Transition]
		return v, ok
	}
	v, ok := m.fact(name)
	text, isText := v.(string)
	if !isText {
		return v, ok
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if outside(name) {
		if m.cut > 0 {
			text = cutRunes(text, m.cut)
		}
		if m.escape != nil {
			text = m.escape.Replace(text)
		}
	}
	return text, ok
}

// fact returns a part of the notification.
func (m *message) fact(name string) (any, bool) {
	n := &m.n
	title, body, _ := strings.Cut(n.Text, "\n")
	switch name {
	case "event.id":
		return n.ID, true
	case "key":
		return key(n), true
	case "transition":
		return string(n.Transition), true
	case "at":
		return stamp(n.At)
	case "url":
		return present(n.URL)
	case "text":
		return n.Text, true
	case "title":
		return title, true
	case "body":
		return body, true
	case "source":
		if n.Monitor.Name == "" {
			return "Tocsin", true
		}
		return n.Monitor.Name, true
	case "monitor.id":
		return n.Monitor.ID, true
	case "monitor.name":
		return n.Monitor.Name, true
	case "monitor.kind":
		return present(n.Monitor.Kind)
	case "monitor.target":
		return present(n.Monitor.Target)
	case "monitor.labels":
		return present(labelText(n.Monitor.Labels))
	case "result.status":
		return n.Result.Status.String(), true
	case "result.message":
		return present(n.Result.Message)
	case "result.latency_ms":
		return (n.Result.LatencyUS + 500) / 1000, n.Result.LatencyUS > 0
	}
	return incidentFact(n.Incident, name)
}

// key returns an id that is the same for notifications about the same thing, so that a receiver can close what it opened.
func key(n *sdk.Notification) string {
	switch {
	case n.Transition == sdk.WentDown && n.Incident != nil && n.Incident.ID != "":
		return n.Incident.ID
	case n.Transition == sdk.Expiring:
		return n.Monitor.ID + "-expiring"
	case n.Transition == sdk.Test:
		return n.ID
	}
	return n.Monitor.ID
}

func incidentFact(o *sdk.Outage, name string) (any, bool) {
	if o == nil {
		return "", false
	}
	switch name {
	case "incident.id":
		return present(o.ID)
	case "incident.started_at":
		return stamp(o.StartedAt)
	case "incident.ended_at":
		return stamp(o.EndedAt)
	case "incident.duration":
		return words(o.Duration), true
	}
	return "", false
}

func present(s string) (any, bool) { return s, s != "" }

// stamp writes a time as RFC 3339 in UTC with whole seconds.
func stamp(t time.Time) (any, bool) {
	if t.IsZero() {
		return "", false
	}
	return t.UTC().Format(time.RFC3339), true
}

func labelText(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for _, k := range sortedKeys(labels) {
		pairs = append(pairs, k+"="+labels[k])
	}
	return strings.Join(pairs, ", ")
}

// cutRunes returns text with at most limit characters; what is cut is marked with an ellipsis.
func cutRunes(text string, limit int) string {
	if len(text) <= limit || utf8.RuneCountInString(text) <= limit {
		return text
	}
	kept := 0
	for i := range text {
		if kept == limit-1 {
			return text[:i] + "…"
		}
		kept++
	}
	return text
}

// words writes a length of time for a person: 5 min 3 s, 2 h 5 min, 3 d 4 h. Less than a second is 0 s.
func words(d time.Duration) string {
	seconds := int64(max(d, 0) / time.Second)
	units := [...]struct {
		seconds int64
		name    string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}}
	for i, u := range units {
		if seconds < u.seconds && u.seconds > 1 {
			continue
		}
		text := strconv.FormatInt(seconds/u.seconds, 10) + " " + u.name
		if rest := seconds % u.seconds; rest > 0 {
			if small := rest / units[i+1].seconds; small > 0 {
				text += " " + strconv.FormatInt(small, 10) + " " + units[i+1].name
			}
		}
		return text
	}
	return "0 s"
}
