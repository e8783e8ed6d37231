package store

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock(at time.Time) *clock { return &clock{at: at} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

// noon is where most tests begin: the middle of a day in UTC.
func noon() time.Time { return time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC) }

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func testOptions(t *testing.T, c *clock) Options {
	return Options{Plain: true, Now: c.now, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
}

// openFile opens a store in a folder and closes it with the test.
func openFile(t *testing.T, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(dir, "tocsin.db"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func newMonitor(t *testing.T, s *Store, name string) monitor.Monitor {
	t.Helper()
	m := monitor.Monitor{
		ID: "id-" + name, Name: name, Kind: "http", Target: "http://127.0.0.1/" + name, Interval: time.Minute, Timeout: 10 * time.Second,
		RetryInterval: 10 * time.Second, Config: json.RawMessage(`{"method":"GET"}`),
	}
	if err := s.CreateMonitor(t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func sampleAt(series uint32, at time.Time, status sdk.Status) monitor.Sample {
	return monitor.Sample{
		Series: series, Tick: monitor.TickOf(at), Status: status, Condition: monitor.Condition(status), Code: 200,
		Latency: 1234 * time.Microsecond, Message: "200 OK",
	}
}

// flush waits until all that was enqueued before is committed.
func flush(t *testing.T, s *Store) {
	t.Helper()
	if err := s.do(t.Context(), "flush", func(context.Context, *tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s *Store, samples ...monitor.Sample) {
	t.Helper()
	for _, one := range samples {
		if !s.Append(one) {
			t.Fatal("a sample was dropped")
		}
	}
}

func TestThread(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	ctx := t.Context()
	s := openFile(t, dir, testOptions(t, c))
	ch := monitor.Channel{ID: "ch", Name: "ops", Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1/"}`)}
	if err := s.CreateChannel(ctx, &ch); err != nil {
		t.Fatal(err)
	}
	m := newMonitor(t, s, "one")
	for i := range 100 {
		one := sampleAt(m.Series, noon().Add(time.Duration(i)*time.Minute), sdk.Up)
		if i > 50 {
			one.Status, one.Message = sdk.Down, "connection refused"
		}
		put(t, s, one)
	}
	in := monitor.Incident{ID: "in", MonitorID: m.ID, MonitorName: m.Name, StartedAt: noon().Add(51 * time.Minute), Cause: "connection refused"}
	tr := monitor.Transition{
		State:    monitor.State{MonitorID: m.ID, Condition: monitor.Down, Since: in.StartedAt, Incident: "in", Fail: true},
		Incident: &in,
		Event:    &monitor.Event{ID: "ev", MonitorID: m.ID, IncidentID: "in", Kind: sdk.WentDown, At: noon(), Payload: sdk.Notification{ID: "ev", Text: "down"}},
		Channels: []string{"ch", "gone"},
		Recount:  &monitor.Recount{Series: m.Series, From: monitor.TickOf(in.StartedAt), Before: monitor.TickOf(noon().Add(100 * time.Minute)), Condition: monitor.Down},
	}
	for range 2 {
		if err := s.Record(ctx, tr); err != nil {
			t.Fatal(err)
		}
	}
	due, err := s.Due(ctx, noon().Add(time.Hour), nil, 10)
	if err != nil || len(due) != 1 || due[0].Payload.Text != "down" {
		t.Fatalf("due: %+v, %v", due, err)
	}
	if err := s.Attempted(ctx, monitor.Attempt{NotificationID: due[0].ID, At: noon(), Outcome: monitor.Sent}); err != nil {
		t.Fatal(err)
	}
	if due, err = s.Due(ctx, noon().Add(time.Hour), nil, 10); err != nil || len(due) != 0 {
		t.Fatalf("due: %+v, %v", due, err)
	}
	c.set(noon().Add(100 * time.Minute))
	check := func(s *Store) {
		t.Helper()
		got, err := s.Samples(ctx, monitor.SampleQuery{Series: m.Series, From: noon()})
		if err != nil || len(got) != 100 {
			t.Fatalf("%d samples, %v", len(got), err)
		}
		for i, one := range got {
			want := "200 OK"
			cond := monitor.Up
			if i > 50 {
				want, cond = "connection refused", monitor.Down
			}
			if one.Message != want || one.Condition != cond {
				t.Fatalf("sample %d: %+v", i, one)
			}
		}
		up, err := s.Uptime(ctx, monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: noon(), To: noon().Add(100 * time.Minute), Quantiles: true})
		if err != nil {
			t.Fatal(err)
		}
		if up.Held[monitor.Up] != 51*time.Minute || up.Held[monitor.Down] != 49*time.Minute || up.Outages != 1 {
			t.Fatalf("uptime: %+v", up)
		}
		bars, err := s.Bars(ctx, []uint32{m.Series})
		if err != nil || len(bars[m.Series]) != 60 {
			t.Fatalf("bars: %d, %v", len(bars[m.Series]), err)
		}
		last, err := s.Last(ctx)
		if err != nil || last[m.Series].Message != "connection refused" {
			t.Fatalf("last: %+v, %v", last, err)
		}
	}
	check(s)
	c.set(noon().Add(100 * time.Minute))
	if err := s.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().SealedUntil; !got.Equal(noon().Add(time.Hour)) {
		t.Fatalf("sealed until %v", got)
	}
	check(s)
	shut(t, s)
	s = openFile(t, dir, testOptions(t, c))
	check(s)
}
