package alert

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsinhq/tocsin/sdk"
)

// answerWith is a notifier that always gives the same error.
type answer struct{ err error }

func answerWith(err error) Notifier { return answer{err} }

func (a answer) Notify(context.Context, sdk.Notification) error { return a.err }

func TestText(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	plain := sdk.Notification{
		Transition: sdk.WentDown, At: start.Add(20 * time.Second), URL: "https://t.example/monitors/1",
		Monitor:  sdk.Ref{Name: "api", Target: "http://10.0.0.7/"},
		Incident: &sdk.Outage{StartedAt: start, Duration: 20 * time.Second},
		Result:   sdk.Seen{Status: sdk.Down, Message: "expected status 200-299, got 503 Service Unavailable"},
	}
	with := func(change func(*sdk.Notification)) sdk.Notification {
		n := plain
		o := *plain.Incident
		n.Incident = &o
		change(&n)
		return n
	}
	tests := []struct {
		name string
		n    sdk.Notification
		want string
	}{
		{"down", plain, "DOWN api: expected status 200-299, got 503 Service Unavailable\nTarget http://10.0.0.7/ since 2026-01-02 02:04:05 UTC, for 20 s\nhttps://t.example/monitors/1"},
		{"down, just now", with(func(n *sdk.Notification) { n.Incident.Duration = 0; n.URL = "" }), "DOWN api: expected status 200-299, got 503 Service Unavailable\nTarget http://10.0.0.7/ since 2026-01-02 02:04:05 UTC"},
		{"up", with(func(n *sdk.Notification) {
			n.Transition, n.Result.Message = sdk.WentUp, "200 OK"
			n.Incident.Duration = 26*time.Hour + 3*time.Minute
			n.Incident.EndedAt = start.Add(n.Incident.Duration)
		}), "UP api after 1 d 2 h down: 200 OK\nTarget http://10.0.0.7/ was down from 2026-01-02 02:04:05 UTC to 2026-01-03 04:07:05 UTC\nhttps://t.example/monitors/1"},
		{"up without an end", with(func(n *sdk.Notification) { n.Transition, n.Result.Message = sdk.WentUp, "" }), "UP api after 20 s down\nTarget http://10.0.0.7/ was down from 2026-01-02 02:04:05 UTC to 2026-01-02 02:04:25 UTC\nhttps://t.example/monitors/1"},
		{"up without an incident", with(func(n *sdk.Notification) { n.Transition, n.Incident = sdk.WentUp, nil }), "UP api: expected status 200-299, got 503 Service Unavailable\nTarget http://10.0.0.7/ at 2026-01-02 02:04:25 UTC\nhttps://t.example/monitors/1"},
		{"degraded, the outage is over", with(func(n *sdk.Notification) {
			n.Transition, n.Result.Message = sdk.WentDegraded, "slow"
			n.Incident.EndedAt = n.At
		}), "DEGRADED api after 20 s down: slow\nTarget http://10.0.0.7/ was down from 2026-01-02 02:04:05 UTC to 2026-01-02 02:04:25 UTC\nhttps://t.example/monitors/1"},
		{"push has no target", with(func(n *sdk.Notification) { n.Monitor.Target, n.URL = "", "" }), "DOWN api: expected status 200-299, got 503 Service Unavailable\nSince 2026-01-02 02:04:05 UTC, for 20 s"},
		{"hostile", with(func(n *sdk.Notification) {
			n.Monitor.Name, n.Result.Message, n.Monitor.Target = "a\nb\x1b[31m", "x\r\n\x00\u202ey", "t\n\u2028u"
		}), "DOWN a b[31m: x  y\nTarget t u since 2026-01-02 02:04:05 UTC, for 20 s\nhttps://t.example/monitors/1"},
		{"test", sdk.Notification{Transition: sdk.Test, At: start, Result: sdk.Seen{Message: "this is a test"}}, "TEST: this is a test\nAt 2026-01-02 02:04:05 UTC"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, Text(tt.n)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestTextBounds holds for any input: first line at most 300 characters, no control characters, the whole cause somewhere.
func TestTextBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := sdk.Notification{
			Transition: rapid.SampledFrom(sdk.Transitions()).Draw(t, "transition"), At: base,
			Monitor: sdk.Ref{Name: rapid.String().Draw(t, "name"), Target: rapid.String().Draw(t, "target")},
			Result:  sdk.Seen{Message: strings.Repeat(rapid.String().Draw(t, "message"), rapid.IntRange(0, 40).Draw(t, "times"))},
		}
		if rapid.Bool().Draw(t, "incident") {
			n.Incident = &sdk.Outage{StartedAt: base, Duration: time.Duration(rapid.Int64().Draw(t, "duration"))}
		}
		text := Text(n)
		first, rest, ok := strings.Cut(text, "\n")
		if utf8.RuneCountInString(first) > maxFirstLine || !ok || rest == "" || !utf8.ValidString(text) || len(text) > 4500 {
			t.Fatalf("text %q", text)
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }); i >= 0 {
			t.Fatalf("control character at %d of %q", i, text)
		}
		if strings.Count(text, "\n") > 2 {
			t.Fatalf("lines were injected: %q", text)
		}
	})
}

func TestWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0 s", 0: "0 s", 999 * time.Millisecond: "0 s", time.Second: "1 s", 59 * time.Second: "59 s", time.Minute: "1 min",
		303 * time.Second: "5 min 3 s", time.Hour: "1 h", time.Hour + time.Second: "1 h", 125 * time.Minute: "2 h 5 min",
		100 * time.Hour: "4 d 4 h", 24*time.Hour + time.Minute: "1 d",
	} {
		if got := words(d); got != want {
			t.Errorf("words(%v) = %q, want %q", d, got, want)
		}
	}
}
