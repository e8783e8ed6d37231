// Package storetest is the suite that every store must pass: what is written is read back, the same before and after a
// restart, and what is summed is what a plain program sums from the same samples.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Monitors keeps what is watched.
type Monitors interface {
	CreateMonitor(ctx context.Context, m *monitor.Monitor) error
	UpdateMonitor(ctx context.Context, m *monitor.Monitor) error
	DeleteMonitor(ctx context.Context, id string, last *monitor.Transition) error
	Monitor(ctx context.Context, id string) (monitor.Monitor, error)
	MonitorByName(ctx context.Context, name string) (monitor.Monitor, error)
	Monitors(ctx context.Context) ([]monitor.Monitor, error)
	ListMonitors(ctx context.Context, q monitor.Query) (monitor.Page[monitor.Listed], error)
}

// Channels keeps where notifications go.
type Channels interface {
	CreateChannel(ctx context.Context, c *monitor.Channel) error
	UpdateChannel(ctx context.Context, c *monitor.Channel) error
	DeleteChannel(ctx context.Context, id string) error
	Channel(ctx context.Context, id string) (monitor.Channel, error)
	ChannelByName(ctx context.Context, name string) (monitor.Channel, error)
	Channels(ctx context.Context) ([]monitor.Channel, error)
}

// Tokens keeps who may use the API.
type Tokens interface {
	CreateToken(ctx context.Context, k *monitor.Token) error
	Tokens(ctx context.Context) ([]monitor.Token, error)
	DeleteToken(ctx context.Context, id string) error
	TokenByHash(ctx context.Context, hash []byte) (monitor.Token, error)
	TouchToken(id string, at time.Time) bool
}

// Judged keeps what the engine makes of results.
type Judged interface {
	Append(s monitor.Sample) bool
	Record(ctx context.Context, t monitor.Transition) error
	States(ctx context.Context) ([]monitor.State, error)
	Last(ctx context.Context) (map[uint32]monitor.Sample, error)
	Opaques(ctx context.Context) (map[uint32]monitor.Opaque, error)
	PutOpaque(o monitor.Opaque) bool
}

// History is what is read of samples.
type History interface {
	Samples(ctx context.Context, q monitor.SampleQuery) ([]monitor.Sample, error)
	Buckets(ctx context.Context, q monitor.BucketQuery) ([]monitor.Bucket, error)
	Uptime(ctx context.Context, q monitor.UptimeQuery) (monitor.Uptime, error)
	Bars(ctx context.Context, series []uint32) (map[uint32][]monitor.Bar, error)
}

// Timeline is what is read of outages and events.
type Timeline interface {
	Incidents(ctx context.Context, q monitor.IncidentQuery) (monitor.Page[monitor.Incident], error)
	Incident(ctx context.Context, id string) (monitor.Incident, error)
	Events(ctx context.Context, q monitor.EventQuery) (monitor.Page[monitor.Event], error)
}

// Outbox keeps notifications until they are delivered.
type Outbox interface {
	Due(ctx context.Context, now time.Time, busy []string, limit int) ([]monitor.Notification, error)
	NextDue(ctx context.Context) (time.Time, bool, error)
	Attempted(ctx context.Context, a monitor.Attempt) error
	PutHealth(h monitor.Health) bool
	Healths(ctx context.Context) ([]monitor.Health, error)
	OutboxCounts(ctx context.Context) (pending, failed int64, oldest time.Time, err error)
}

// Logs keeps the server's own log.
type Logs interface {
	AppendLog(l monitor.LogLine) bool
	LogLines(ctx context.Context, q monitor.LogQuery) ([]monitor.LogLine, error)
}

// Life is what a store is asked as a whole. Maintain does now what timers do: it seals what has ended and prunes.
type Life interface {
	Ready(ctx context.Context) error
	Maintain(ctx context.Context) error
	Close(ctx context.Context) error
}

// Store is everything that the suite tests.
type Store interface {
	Monitors
	Channels
	Tokens
	Judged
	History
	Timeline
	Outbox
	Logs
	Plugins
	Life
}

// Config is what a store is opened with. A second store opened in the same folder after the first was closed has what the
// first had.
type Config struct {
	Dir string
	Now func() time.Time
}

// Run tests a store. open is called many times and ends the test when it fails; the suite closes what it opened.
func Run(t *testing.T, open func(t *testing.T, c Config) Store) {
	for _, one := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"monitors", testMonitors},
		{"monitor lists", testLists},
		{"bad queries", testBadQueries},
		{"channels", testChannels},
		{"tokens", testTokens},
		{"plugins", testPlugins},
		{"samples", testSamples},
		{"messages", testMessages},
		{"states of checkers", testOpaques},
		{"bars", testBars},
		{"sums", testSums},
		{"recounts", testRecounts},
		{"transitions", testTransitions},
		{"farewell", testFarewell},
		{"timeline pages", testTimeline},
		{"outbox", testOutbox},
		{"deleted monitor", testDeleted},
		{"log lines", testLogLines},
		{"restart", testRestart},
		{"ended context", testEndedContext},
		{"closed", testClosed},
	} {
		t.Run(one.name, func(t *testing.T) {
			b := &bench{open: open, dir: t.TempDir(), at: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)}
			b.start(t)
			t.Cleanup(func() { b.stop(t) })
			one.test(t, b)
		})
	}
}

// bench is one store under test, its folder and its clock.
type bench struct {
	Store
	open func(t *testing.T, c Config) Store
	dir  string

	mu sync.Mutex
	at time.Time
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *bench) set(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = at
}

func (b *bench) start(t *testing.T) {
	t.Helper()
	b.Store = b.open(t, Config{Dir: filepath.Clean(b.dir), Now: b.now})
}

func (b *bench) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func (b *bench) restart(t *testing.T) {
	t.Helper()
	b.stop(t)
	b.start(t)
}

// flush waits for all that was enqueued: a must write is committed with what came before it.
func (b *bench) flush(t *testing.T) {
	t.Helper()
	if err := b.DeleteToken(t.Context(), "none"); !errors.Is(err, monitor.ErrNotFound) {
		t.Fatalf("flush: %v", err)
	}
}

func (b *bench) maintain(t *testing.T) {
	t.Helper()
	no(t, b.Maintain(t.Context()))
}

func (b *bench) monitor(t *testing.T, name string, change ...func(*monitor.Monitor)) monitor.Monitor {
	t.Helper()
	m := monitor.Monitor{
		ID: "M-" + name, Name: name, Kind: "http", Target: "http://127.0.0.1/" + name, Interval: time.Minute,
		Timeout: 10 * time.Second, RetryInterval: 20 * time.Second, Config: json.RawMessage(`{"token":"hush"}`),
	}
	for _, c := range change {
		c(&m)
	}
	no(t, b.CreateMonitor(t.Context(), &m))
	return m
}

func (b *bench) channel(t *testing.T, name string) monitor.Channel {
	t.Helper()
	c := monitor.Channel{ID: "C-" + name, Name: name, Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1/"}`)}
	no(t, b.CreateChannel(t.Context(), &c))
	return c
}

func (b *bench) append(t *testing.T, samples ...monitor.Sample) {
	t.Helper()
	for _, s := range samples {
		if !b.Append(s) {
			t.Fatal("a sample was dropped")
		}
	}
}

func sample(series uint32, at time.Time, status sdk.Status, message string) monitor.Sample {
	return monitor.Sample{
		Series: series, Tick: monitor.TickOf(at), Status: status, Condition: monitor.Condition(status), Code: 200,
		Latency: 1500 * time.Microsecond, Message: message,
	}
}

func no(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func same[T any](t *testing.T, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0)); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

func faulty(t *testing.T, err error, field string) {
	t.Helper()
	var faults monitor.Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != field {
		t.Fatalf("error %v, want a fault of %s", err, field)
	}
}

func id(format string, args ...any) string { return fmt.Sprintf(format, args...) }
