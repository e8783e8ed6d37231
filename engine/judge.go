package engine

import (
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// verdict is what a result changed besides the state.
type verdict struct {
	moved    bool // the condition changed
	from     monitor.Condition
	event    sdk.Transition // empty: nothing worth telling
	audience sdk.Transition // what a channel must ask for to be told
	opened   bool           // an outage was confirmed: an incident begins at state.Since
	closed   bool           // the outage of state.Incident is over
	retry    bool           // a change for the worse waits for further results: check again at the retry interval
}

// unknownsBefore is how many unknown results in a row make a monitor's condition unknown.
func unknownsBefore(retries int) int { return max(3, retries+1) }

// judge says what a result makes of a state. It is pure: at is the time of the sample.
//
// Two things are confirmed on their own: that a monitor is at least degraded (Bad) and that it is down (Fail). Each turns
// true after retries+1 results in a row that say so and false after recoveries+1 in a row that say otherwise; unknown
// results neither count nor break a row. The condition is what the two say, hidden by unknown, paused or pending until a
// result agrees with it. An incident begins when Fail is confirmed and ends when the condition is up again: a degraded
// spell in between does not split it. docs/states.md shows this as a table.
func judge(m *monitor.Monitor, s monitor.State, status sdk.Status, at time.Time) (monitor.State, verdict) {
	if status == sdk.Unknown {
		return judgeUnknown(m, s, at)
	}
	s.Unknowns = 0
	s.BadRun, s.BadSince = count(s.BadRun, s.BadSince, status != sdk.Up, at)
	s.FailRun, s.FailSince = count(s.FailRun, s.FailSince, status == sdk.Down, at)
	bad, fail := s.Bad, s.Fail
	s.Bad = confirm(s.Bad, s.BadRun, m.Retries, m.Recoveries)
	s.Fail = confirm(s.Fail, s.FailRun, m.Retries, m.Recoveries)
	s.Known = s.Known || status == sdk.Up || s.Bad

	v := verdict{from: s.Condition, retry: retrying(s)}
	confirmed := confirmedCondition(s)
	if s.Condition == confirmed {
		return s, v
	}
	flipped := s.Bad != bad || s.Fail != fail
	if hidden(s.Condition) {
		if !s.Known || !flipped && monitor.Condition(status) != confirmed {
			return s, v
		}
	}
	v.moved = true
	s.Condition, s.Since = confirmed, at
	switch {
	case s.Fail && !fail:
		s.Since = s.FailSince
	case s.Bad && !bad:
		s.Since = s.BadSince
	}
	outage := s.Incident != ""
	v.event, v.audience = told(v.from, confirmed, outage, flipped)
	v.opened = confirmed == monitor.Down && !outage
	v.closed = confirmed == monitor.Up && outage
	return s, v
}

// hidden reports whether a condition stands before what is confirmed.
func hidden(c monitor.Condition) bool {
	return c != monitor.Up && c != monitor.Degraded && c != monitor.Down
}

func judgeUnknown(m *monitor.Monitor, s monitor.State, at time.Time) (monitor.State, verdict) {
	s.Unknowns++
	if s.Condition == monitor.Unknown || s.Unknowns < unknownsBefore(m.Retries) {
		return s, verdict{retry: retrying(s)}
	}
	v := verdict{moved: true, from: s.Condition, event: sdk.WentUnknown, audience: sdk.WentUnknown, retry: retrying(s)}
	s.Condition, s.Since = monitor.Unknown, at
	return s, v
}

// retrying reports whether a change for the worse waits for further results.
func retrying(s monitor.State) bool { return s.BadRun > 0 && !s.Bad || s.FailRun > 0 && !s.Fail }

// count continues a row of results that are (positive) or are not (negative) as bad as is asked.
func count(run int, since time.Time, bad bool, at time.Time) (int, time.Time) {
	switch {
	case bad && run > 0:
		return run + 1, since
	case bad:
		return 1, at
	case run < 0:
		return run - 1, time.Time{}
	default:
		return -1, time.Time{}
	}
}

// confirm returns what a row of results makes of a confirmed value.
func confirm(confirmed bool, run, retries, recoveries int) bool {
	switch {
	case run > retries:
		return true
	case -run > recoveries:
		return false
	default:
		return confirmed
	}
}

func confirmedCondition(s monitor.State) monitor.Condition {
	switch {
	case s.Fail:
		return monitor.Down
	case s.Bad:
		return monitor.Degraded
	default:
		return monitor.Up
	}
}

// told returns the event for a change of condition and who is told. What only ends or interrupts something is told to those
// who were told of that: the end of degraded to those who asked for degraded, and an outage that goes on after an unknown
// or degraded spell not again to those who know of it. flipped says that something was confirmed by this very result. A first
// up is no event.
func told(from, to monitor.Condition, outage, flipped bool) (event, audience sdk.Transition) {
	switch {
	case to == monitor.Down && !outage:
		return sdk.WentDown, sdk.WentDown
	case to == monitor.Down && flipped:
		return sdk.WentDown, sdk.WentDegraded
	case to == monitor.Down:
		return sdk.WentDown, toldOf(from)
	case to == monitor.Degraded && flipped:
		return sdk.WentDegraded, sdk.WentDegraded
	case to == monitor.Degraded:
		return sdk.WentDegraded, toldOf(from)
	case outage:
		return sdk.WentUp, sdk.WentUp
	case toldOf(from) == "":
		return "", ""
	default:
		return sdk.WentUp, toldOf(from)
	}
}

// toldOf returns the transition that told of a condition which now ends; none for pending and paused, which nobody was told
// of.
func toldOf(from monitor.Condition) sdk.Transition {
	switch from {
	case monitor.Unknown:
		return sdk.WentUnknown
	case monitor.Degraded:
		return sdk.WentDegraded
	default:
		return ""
	}
}
