package engine

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

var update = flag.Bool("update", false, "write the generated documents anew")

// epoch is when the results of judge tests begin.
func epoch() time.Time { return time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC) }

// story is one line of docs/states.md: results one minute apart, written u (up), g (degraded), d (down), ? (unknown) and p
// (paused and resumed before the next result).
type story struct {
	title               string
	retries, recoveries int
	results             string
	want                []string // after each result: the condition, then what happened
}

func stories() []story {
	return []story{
		{"the first good result", 0, 0, "u", []string{"up"}},
		{"the first result is bad, without retries", 0, 0, "d", []string{"down, told down, outage begins now"}},
		{"the first results are bad, with a retry", 1, 0, "dd", []string{"pending, retry", "down, told down, outage began 1 result ago"}},
		{"down at once", 0, 0, "ud", []string{"up", "down, told down, outage begins now"}},
		{"retries must agree", 2, 0, "uddd", []string{"up", "up, retry", "up, retry", "down, told down, outage began 2 results ago"}},
		{"a retry clears a failure", 2, 0, "uddud", []string{"up", "up, retry", "up, retry", "up", "up, retry"}},
		{"recovery at once", 0, 0, "udu", []string{"up", "down, told down, outage begins now", "up, told up, outage ends"}},
		{"recoveries must agree", 0, 1, "uduudu", []string{
			"up", "down, told down, outage begins now", "down", "up, told up, outage ends", "down, told down, outage begins now", "down",
		}},
		{"degraded opens no outage", 0, 0, "ugu", []string{"up", "degraded, told degraded", "up, told up to those who ask for degraded"}},
		{"degraded follows the same counts", 1, 1, "ugguu", []string{
			"up", "up, retry", "degraded, told degraded", "degraded", "up, told up to those who ask for degraded",
		}},
		{"down counts as at least degraded", 1, 0, "ugdd", []string{
			"up", "up, retry", "degraded, told degraded, retry", "down, told down, outage began 1 result ago",
		}},
		{"degraded does not split an outage", 0, 0, "udgdu", []string{
			"up", "down, told down, outage begins now", "degraded, told degraded", "down, told down to those who ask for degraded",
			"up, told up, outage ends",
		}},
		{"an outage that ends by way of degraded", 0, 0, "udgu", []string{
			"up", "down, told down, outage begins now", "degraded, told degraded", "up, told up, outage ends",
		}},
		{"unknown results neither count nor break a row", 1, 0, "ud?d", []string{
			"up", "up, retry", "up, retry", "down, told down, outage began 2 results ago",
		}},
		{"three unknown results in a row", 0, 0, "u???u", []string{
			"up", "up", "up", "unknown, told unknown", "up, told up to those who ask for unknown",
		}},
		{"more retries, more unknown results", 4, 0, "u?????", []string{"up", "up", "up", "up", "up", "unknown, told unknown"}},
		{"unknown never ends an outage", 0, 0, "ud???du", []string{
			"up", "down, told down, outage begins now", "down", "down", "unknown, told unknown",
			"down, told down to those who ask for unknown", "up, told up, outage ends",
		}},
		{"an outage that ends while it was unknown", 0, 0, "ud???u", []string{
			"up", "down, told down, outage begins now", "down", "down", "unknown, told unknown", "up, told up, outage ends",
		}},
		{"down after unknown needs its retries", 1, 0, "u???dd", []string{
			"up", "up", "up", "unknown, told unknown", "unknown, retry", "down, told down, outage began 1 result ago",
		}},
		{"pause and resume of what is up", 0, 0, "upu", []string{"up", "pending", "up"}},
		{"pause and resume of what stays down", 0, 0, "udpdu", []string{
			"up", "down, told down, outage begins now", "pending", "down, told nobody", "up, told up, outage ends",
		}},
		{"pause and resume of what came back", 0, 0, "udpu", []string{
			"up", "down, told down, outage begins now", "pending", "up, told up, outage ends",
		}},
		{"never known, only unknown", 0, 0, "???u", []string{"pending", "pending", "unknown, told unknown", "up, told up to those who ask for unknown"}},
	}
}

// play judges a story's results and describes each step.
func play(t interface{ Fatalf(string, ...any) }, st story) []string {
	m := &monitor.Monitor{Retries: st.retries, Recoveries: st.recoveries}
	s := monitor.State{Condition: monitor.Pending}
	var got []string
	for i, r := range st.results {
		at := epoch().Add(time.Duration(i) * time.Minute)
		var status sdk.Status
		switch r {
		case 'u':
			status = sdk.Up
		case 'g':
			status = sdk.Degraded
		case 'd':
			status = sdk.Down
		case '?':
			status = sdk.Unknown
		case 'p':
			s.Condition, s.BadRun, s.FailRun, s.Unknowns = monitor.Pending, 0, 0, 0
			got = append(got, s.Condition.String())
			continue
		default:
			t.Fatalf("story %q: no result is written %q", st.title, r)
		}
		next, v := judge(m, s, status, at)
		got = append(got, describe(next, v, at))
		switch {
		case v.opened:
			next.Incident = "incident"
		case v.closed:
			next.Incident = ""
		}
		s = next
	}
	return got
}

func describe(s monitor.State, v verdict, at time.Time) string {
	words := []string{s.Condition.String()}
	if v.event != "" {
		told := "told " + string(v.event)
		switch v.audience {
		case v.event:
		case "":
			told = "told nobody"
		default:
			told += " to those who ask for " + string(v.audience)
		}
		words = append(words, told)
	}
	if v.opened {
		switch n := int(at.Sub(s.Since) / time.Minute); n {
		case 0:
			words = append(words, "outage begins now")
		case 1:
			words = append(words, "outage began 1 result ago")
		default:
			words = append(words, fmt.Sprintf("outage began %d results ago", n))
		}
	}
	if v.closed {
		words = append(words, "outage ends")
	}
	if v.retry {
		words = append(words, "retry")
	}
	return strings.Join(words, ", ")
}

func TestJudgeStories(t *testing.T) {
	t.Parallel()
	for _, st := range stories() {
		if diff := cmp.Diff(st.want, play(t, st)); diff != "" {
			t.Errorf("%s (retries %d, recoveries %d, %s): -want +got\n%s", st.title, st.retries, st.recoveries, st.results, diff)
		}
	}
}

// TestStatesDocument holds docs/states.md to the judge; -update writes it.
func TestStatesDocument(t *testing.T) {
	t.Parallel()
	const path = "../docs/states.md"
	want := statesDocument(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil { //nolint:gosec // a document everyone may read
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is out of date; run make generate: -want +got\n%s", path, diff)
	}
}

func statesDocument(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# How results become states

<!-- Generated from the tables in engine/judge_test.go by make generate. Do not edit. -->

A check's result is up, degraded, down or unknown. A monitor's state is what has been confirmed: up turns to down after
` + "`retries`" + ` further results that agree, and back after ` + "`recoveries`" + ` further ones. Unknown results say that the check could not be
made: they neither open nor close an outage, and do not break a row of results.

## State and result

What one more result makes of each state, for a monitor without retries and recoveries. *told* names the event; an event that
only ends or interrupts something goes to the channels that were told of that.

| state | up | degraded | down | third unknown in a row |
|---|---|---|---|---|
`)
	for _, row := range []struct{ name, history string }{
		{"pending", ""},
		{"up", "u"},
		{"degraded", "g"},
		{"down", "d"},
		{"degraded within an outage", "dg"},
		{"unknown, was up", "u???"},
		{"unknown, was degraded", "g???"},
		{"unknown, was down", "d???"},
		{"resumed, was up", "up"},
		{"resumed, was down", "dp"},
	} {
		fmt.Fprintf(&b, "| %s |", row.name)
		for _, r := range []string{"u", "g", "d", "???"} {
			steps := play(t, story{title: row.name, results: row.history + r})
			fmt.Fprintf(&b, " %s |", steps[len(steps)-1])
		}
		b.WriteString("\n")
	}
	b.WriteString(`
## Stories

Each line is a row of results, one a check: ` + "`u`" + ` up, ` + "`g`" + ` degraded, ` + "`d`" + ` down, ` + "`?`" + ` unknown, ` + "`p`" + ` paused and resumed. *retry* says that the
next check is made after ` + "`retry_interval`" + `.

| what | retries | recoveries | results | after each |
|---|---|---|---|---|
`)
	for _, st := range stories() {
		fmt.Fprintf(&b, "| %s | %d | %d | `%s` | %s |\n", st.title, st.retries, st.recoveries, st.results, strings.Join(play(t, st), "; "))
	}
	return b.String()
}

// model is the judge written the slow way: it keeps all results and looks back.
type model struct {
	retries, recoveries int
	known               []sdk.Status // unknown ones left out
	bad, fail           bool
}

func (m *model) add(status sdk.Status) {
	m.known = append(m.known, status)
	m.bad = m.decide(m.bad, func(s sdk.Status) bool { return s != sdk.Up })
	m.fail = m.decide(m.fail, func(s sdk.Status) bool { return s == sdk.Down })
}

func (m *model) decide(now bool, is func(sdk.Status) bool) bool {
	tail := func(n int, want bool) bool {
		if len(m.known) < n {
			return false
		}
		for _, s := range m.known[len(m.known)-n:] {
			if is(s) != want {
				return false
			}
		}
		return true
	}
	switch {
	case tail(m.retries+1, true):
		return true
	case tail(m.recoveries+1, false):
		return false
	}
	return now
}

func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &monitor.Monitor{Retries: rapid.IntRange(0, 4).Draw(t, "retries"), Recoveries: rapid.IntRange(0, 4).Draw(t, "recoveries")}
		results := rapid.SliceOfN(rapid.SampledFrom(sdk.Statuses()), 1, 60).Draw(t, "results")
		ref := model{retries: m.Retries, recoveries: m.Recoveries}
		s := monitor.State{Condition: monitor.Pending}
		open, unknowns := false, 0
		var failing []time.Time // of the failing results since the last one that was not, unknown ones left out
		for i, status := range results {
			at := epoch().Add(time.Duration(i) * time.Minute)
			next, v := judge(m, s, status, at)
			if again, av := judge(m, s, status, at); !cmp.Equal(again, next) || av != v {
				t.Fatalf("judge is not pure: %+v %+v, then %+v %+v", next, v, again, av)
			}
			switch status {
			case sdk.Unknown:
				unknowns++
				if v.opened || v.closed || next.Fail != s.Fail || next.Bad != s.Bad {
					t.Fatalf("result %d: unknown changed what is confirmed", i)
				}
				if want := unknowns >= max(3, m.Retries+1); want != (next.Condition == monitor.Unknown) && s.Condition != monitor.Unknown {
					t.Fatalf("result %d: %d unknowns in a row make %s", i, unknowns, next.Condition)
				}
			case sdk.Down:
				failing = append(failing, at)
				unknowns = 0
			default:
				failing, unknowns = nil, 0
			}
			if status != sdk.Unknown {
				ref.add(status)
				if next.Bad != ref.bad || next.Fail != ref.fail {
					t.Fatalf("result %d: confirmed bad %v fail %v, the model says %v %v", i, next.Bad, next.Fail, ref.bad, ref.fail)
				}
			}
			if v.moved != (next.Condition != s.Condition) || v.from != s.Condition && v.moved {
				t.Fatalf("result %d: moved %v from %s, condition %s to %s", i, v.moved, v.from, s.Condition, next.Condition)
			}
			if v.opened {
				if open || next.Condition != monitor.Down || v.event != sdk.WentDown || v.audience != sdk.WentDown {
					t.Fatalf("result %d: outage opened in %s while open is %v, event %q", i, next.Condition, open, v.event)
				}
				if len(failing) < m.Retries+1 || !next.Since.Equal(failing[0]) {
					t.Fatalf("result %d: outage since %s, the failing results are %v", i, next.Since, failing)
				}
				open, next.Incident = true, "incident"
			}
			if v.closed {
				if !open || next.Condition != monitor.Up || v.event != sdk.WentUp || v.audience != sdk.WentUp {
					t.Fatalf("result %d: outage closed in %s while open is %v, event %q", i, next.Condition, open, v.event)
				}
				open, next.Incident = false, ""
			}
			if next.Condition == monitor.Down && !open {
				t.Fatalf("result %d: down without an outage", i)
			}
			if next.Condition == monitor.Up && (next.Bad || open) {
				t.Fatalf("result %d: up while bad %v, outage open %v", i, next.Bad, open)
			}
			if v.retry && (next.BadRun <= 0 || next.Fail) {
				t.Fatalf("result %d: retry in %+v", i, next)
			}
			s = next
		}
	})
}
