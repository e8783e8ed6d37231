package logs

import (
	"bytes"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

func messages(lines []monitor.LogLine) []string {
	var found []string
	for _, l := range lines {
		found = append(found, l.Message)
	}
	return found
}

func TestRingKeepsTheNewest(t *testing.T) {
	l := New(Options{Size: 3})
	log := slog.New(l)
	for i := range 7 {
		log.Info(strconv.Itoa(i))
	}
	if diff := cmp.Diff([]string{"6", "5", "4"}, messages(l.Lines(monitor.LogQuery{}))); diff != "" {
		t.Error(diff)
	}
	lines := l.Lines(monitor.LogQuery{Limit: 1})
	if len(lines) != 1 || lines[0].ID != 7 {
		t.Errorf("got %v", lines)
	}
	if diff := cmp.Diff([]string{"5", "4"}, messages(l.Lines(monitor.LogQuery{Before: 7}))); diff != "" {
		t.Error(diff)
	}
}

func TestFilter(t *testing.T) {
	var out bytes.Buffer
	l := New(Options{Next: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})})
	log := slog.New(l)
	log.Debug("a")
	log.Info("b", "who", "Ops")
	log.Warn("c")
	log.Error("d")
	for level, want := range map[string][]string{
		"": {"d", "c", "b", "a"}, "DEBUG": {"d", "c", "b", "a"}, "INFO": {"d", "c", "b"}, "WARN": {"d", "c"}, "ERROR": {"d"},
	} {
		if diff := cmp.Diff(want, messages(l.Lines(monitor.LogQuery{Level: level}))); diff != "" {
			t.Errorf("%s: %s", level, diff)
		}
	}
	if diff := cmp.Diff([]string{"b"}, messages(l.Lines(monitor.LogQuery{Text: "ops"}))); diff != "" {
		t.Error(diff)
	}
}

func TestSinksGetInfoAndAbove(t *testing.T) {
	l := New(Options{})
	log := slog.New(l)
	log.Info("before")
	var got []string
	l.Attach(func(line monitor.LogLine) bool { got = append(got, line.Level+" "+line.Message); return true })
	l.Attach(func(monitor.LogLine) bool { return false })
	log.Debug("debug")
	log.Info("info")
	log.Error("error")
	if diff := cmp.Diff([]string{"INFO info", "ERROR error"}, got); diff != "" {
		t.Error(diff)
	}
	if l.Dropped() != 2 {
		t.Errorf("dropped is %d", l.Dropped())
	}
}

type secretError struct{}

func (secretError) LogValue() slog.Value {
	return slog.GroupValue(slog.String("token", "canary"), slog.Int("n", 1))
}

type panicking struct{}

func (panicking) String() string { panic("no") }

func TestSecretsAreMasked(t *testing.T) {
	var out bytes.Buffer
	l := New(Options{Next: slog.NewJSONHandler(&out, nil)})
	log := slog.New(l)
	log.Info("m", "password", "canary", "Authorization", "canary", "api_key", "canary", "key", "canary",
		slog.Group("tls", "private_key", "canary", "name", "n"), slog.Group("secret", "x", "canary"), "err", secretError{})
	log.With("client-secret", "canary").WithGroup("cookie").With("a", "canary").Info("m", "b", "canary")
	for _, line := range l.Lines(monitor.LogQuery{}) {
		if strings.Contains(line.Attrs, "canary") {
			t.Errorf("in the ring: %s", line.Attrs)
		}
	}
	if strings.Contains(out.String(), "canary") {
		t.Errorf("in the next handler: %s", out.String())
	}
	if !strings.Contains(out.String(), Masked) {
		t.Error("nothing was masked")
	}
}

func TestSecretNames(t *testing.T) {
	for name, want := range map[string]bool{
		"token": true, "push_token": true, "Password": true, "smtpPassword": true, "X-Api-Key": true, "set-cookie": true,
		"token_id": false, "key_file": false, "monitor": false, "channel": false, "keyword": false, "token_name": false,
		"author": false, "auth": true, "tokens": true, "push_url": true,
	} {
		if got := Secret(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAttrs(t *testing.T) {
	l := New(Options{})
	slog.New(l).With("a", 1).WithGroup("g").Info("two\nlines", "b", true, "d", 2*time.Second, "e", errors.New("bad \x1b[31m"),
		"t", time.Unix(0, 0), "p", panicking{}, slog.Group("h", "u", uint64(3), "b", "x"), "b", "again")
	line := l.Lines(monitor.LogQuery{})[0]
	if line.Message != "two lines" {
		t.Errorf("message is %q", line.Message)
	}
	want := `{"a":1,"g.d":"2s","g.e":"bad [31m","g.t":"1970-01-01T00:00:00Z","g.p":"%!v(PANIC=String method: no)",` +
		`"g.h.u":3,"g.h.b":"x","g.b":"again"}`
	if diff := cmp.Diff(want, line.Attrs); diff != "" {
		t.Error(diff)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	l := New(Options{})
	long := strings.Repeat("x", 100_000)
	slog.New(l).Info(long, "a", long, "b", long, "c", long, "d", long, "e", long)
	line := l.Lines(monitor.LogQuery{})[0]
	if len(line.Message) > maxMessage || len(line.Attrs) > maxAttrs+1 {
		t.Errorf("message has %d bytes, attributes %d", len(line.Message), len(line.Attrs))
	}
}

func TestManyAtOnce(t *testing.T) {
	l := New(Options{Size: 10})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			log := slog.New(l)
			for range 200 {
				log.Info("x", "n", 1)
				l.Lines(monitor.LogQuery{})
			}
		})
	}
	wg.Wait()
	lines := l.Lines(monitor.LogQuery{})
	if len(lines) != 10 || lines[0].ID != 1600 || lines[9].ID != 1591 {
		t.Errorf("got %d lines, newest %d", len(lines), lines[0].ID)
	}
}
