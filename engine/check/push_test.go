package check

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/sdk"
)

const testToken = "abcdefghijklmnop-_09"

func newPush(t testing.TB, s Spec) Passive {
	t.Helper()
	s.Kind = "push"
	c, err := newRegistry(t).New(s)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := c.(Passive)
	if !ok {
		t.Fatalf("push is a %T", c)
	}
	return p
}

func TestPush(t *testing.T) {
	t.Parallel()
	p := newPush(t, Spec{Target: "backup", Config: []byte(`{"token":"` + testToken + `"}`)})
	if p.Token() != testToken || p.Grace() != 5*time.Second {
		t.Errorf("got %q, %s", p.Token(), p.Grace())
	}
	since := time.Date(2026, 3, 1, 3, 0, 0, 5e8, time.FixedZone("", 3600))
	want := sdk.Result{Status: sdk.Down, Message: "no beat since 2026-03-01 02:00:00 UTC"}
	for _, later := range []time.Duration{time.Minute, time.Hour} {
		if diff := cmp.Diff(want, p.Missed(since, since.Add(later))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if _, err := p.Check(t.Context(), sdk.CheckRequest{}); err == nil {
		t.Error("a push monitor made a check")
	}
	beat := sdk.Result{Status: sdk.Up, Message: "all\x1b[31m fine\n", Latency: time.Second}
	if got := p.Beat(beat); got.Status != sdk.Up || got.Message != "all[31m fine " || got.Latency != time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestPushRules(t *testing.T) {
	t.Parallel()
	p := newPush(t, Spec{
		Config: []byte(`{"token":"` + testToken + `","grace":"1h"}`), Assert: []string{`not (message contains "error")`}, Degrade: []string{"latency < 30s"},
	})
	if p.Grace() != time.Hour {
		t.Errorf("the grace time is %s", p.Grace())
	}
	tests := []struct {
		beat sdk.Result
		want sdk.Status
		text string
	}{
		{sdk.Result{Status: sdk.Up, Message: "fine", Latency: time.Second}, sdk.Up, "fine"},
		{sdk.Result{Status: sdk.Up, Message: "an error", Latency: time.Second}, sdk.Down, `assertion failed: not (message contains "error") (message = "an error")`},
		{sdk.Result{Status: sdk.Up, Message: "slow", Latency: time.Minute}, sdk.Degraded, "degraded: not latency < 30s (latency = 1m0s)"},
		{sdk.Result{Status: sdk.Down, Message: "it says so"}, sdk.Down, "it says so"},
	}
	for _, tt := range tests {
		if got := p.Beat(tt.beat); got.Status != tt.want || got.Message != tt.text {
			t.Errorf("%+v: got %s %q, want %s %q", tt.beat, got.Status, got.Message, tt.want, tt.text)
		}
	}
}

func TestPushFaults(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for config, want := range map[string]string{
		`{}`:                                  "config.token: must be 16 to 128 characters",
		`{"token":"short"}`:                   "config.token: must be 16 to 128 characters",
		`{"token":"aaaaaaaaaaaa/a?aaaaaaaa"}`: "config.token: must be 16 to 128 characters",
		`{"token":"` + strings.Repeat("a", 129) + `"}`:               "config.token: must be at most 128 characters long",
		`{"token":"` + testToken + `","grace":"-1s"}`:                "config.grace: must be between 0s and 168h (got -1s)",
		`{"token":"` + testToken + `","grace":"169h"}`:               "config.grace: must be between 0s and 168h (got 169h)",
		`{"token":"` + testToken + `","tokens":"` + testToken + `"}`: "config.tokens: is unknown; did you mean token?",
	} {
		_, err := r.New(Spec{Kind: "push", Config: []byte(config)})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), testToken) {
			t.Errorf("%s\n got %v\nwant %s", config, err, want)
		}
	}
	if _, err := r.New(Spec{Kind: "push", Target: "a b", Config: []byte(`{"token":"` + testToken + `"}`), Assert: []string{"status == 200"}}); err == nil ||
		err.Error() != "assert[0]: is no valid expression: there is no status; known are latency, message (got status == 200)" {
		t.Errorf("got %v", err)
	}
}
