package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// memory is an Outbox in memory, to the letter of the interface's comments. Its faults are switched on by tests.
type memory struct {
	mu        sync.Mutex
	rows      []*row // by id
	healths   map[string]monitor.Health
	failRead  error
	failWrite error
	reads     int
	writes    int
	full      bool // PutHealth drops
}

type row struct {
	monitor.Notification
	attempts []monitor.Attempt
	done     bool
}

var errDisk = errors.New("disk is full")

func newMemory() *memory { return &memory{healths: map[string]monitor.Health{}} }

// add puts a notification in and returns its id.
func (m *memory) add(channelID, monitorID string, at time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := int64(len(m.rows) + 1)
	m.rows = append(m.rows, &row{Notification: monitor.Notification{
		ID: id, EventID: fmt.Sprint("event", id), MonitorID: monitorID, ChannelID: channelID, CreatedAt: at, DueAt: at,
		Payload: sdk.Notification{ID: fmt.Sprint("event", id), Transition: sdk.WentDown, Monitor: sdk.Ref{ID: monitorID}},
	}})
	return id
}

func (m *memory) Due(ctx context.Context, now time.Time, busy []string, limit int) ([]monitor.Notification, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if err := errors.Join(ctx.Err(), m.failRead); err != nil {
		return nil, err
	}
	blocked := map[string]bool{}
	var due []monitor.Notification
	for _, r := range m.rows {
		lane := r.ChannelID + "/" + r.MonitorID
		if r.done {
			continue
		}
		if len(due) < limit && !blocked[lane] && !r.DueAt.After(now) && !slices.Contains(busy, r.ChannelID) {
			due = append(due, r.Notification)
		}
		blocked[lane] = true
	}
	return due, nil
}

func (m *memory) NextDue(ctx context.Context) (time.Time, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(ctx.Err(), m.failRead); err != nil {
		return time.Time{}, false, err
	}
	var next time.Time
	found := false
	for _, r := range m.rows {
		if !r.done && (!found || r.DueAt.Before(next)) {
			next, found = r.DueAt, true
		}
	}
	return next, found, nil
}

func (m *memory) Attempted(ctx context.Context, a monitor.Attempt) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if err := errors.Join(ctx.Err(), m.failWrite); err != nil {
		return err
	}
	if a.NotificationID < 1 || a.NotificationID > int64(len(m.rows)) {
		return monitor.ErrNotFound
	}
	r := m.rows[a.NotificationID-1]
	r.attempts = append(r.attempts, a)
	r.Attempts++
	r.DueAt = a.RetryAt
	r.done = a.Outcome != monitor.Retry
	return nil
}

func (m *memory) PutHealth(h monitor.Health) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return false
	}
	m.healths[h.ChannelID] = h
	return true
}

func (m *memory) Healths(context.Context) ([]monitor.Health, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failRead != nil {
		return nil, m.failRead
	}
	var all []monitor.Health
	for _, h := range m.healths {
		all = append(all, h)
	}
	return all, nil
}

func (m *memory) set(change func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *memory) count(of *int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *of
}

func (m *memory) health(id string) monitor.Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.healths[id]
}

// outcome returns the last outcome of a row and the number of its attempts.
func (m *memory) outcome(id int64) (last monitor.Attempt, attempts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rows[id-1]
	if len(r.attempts) == 0 {
		return monitor.Attempt{}, 0
	}
	return r.attempts[len(r.attempts)-1], len(r.attempts)
}

// receivers is a provider whose channels do what tests say.
type receivers struct {
	mu      sync.Mutex
	calls   []string // "channel event" in order of arrival, failed ones too
	got     []string // those that were taken
	running map[string]int
	peak    map[string]int
	answer  map[string]func(ctx context.Context, n sdk.Notification) error
}

func newReceivers() *receivers {
	return &receivers{
		running: map[string]int{}, peak: map[string]int{},
		answer: map[string]func(context.Context, sdk.Notification) error{},
	}
}

type receiver struct {
	all  *receivers
	name string
}

func (r receiver) Notify(ctx context.Context, n sdk.Notification) error {
	a := r.all
	a.mu.Lock()
	a.calls = append(a.calls, r.name+" "+n.ID)
	a.running[r.name]++
	a.peak[r.name] = max(a.peak[r.name], a.running[r.name])
	answer := a.answer[r.name]
	a.mu.Unlock()
	var err error
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running[r.name]--
		if err == nil {
			a.got = append(a.got, r.name+" "+n.ID)
		}
	}()
	if answer != nil {
		err = errors.New("panicked")
		err = answer(ctx, n)
	}
	return err
}

func (a *receivers) on(name string, answer func(ctx context.Context, n sdk.Notification) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer[name] = answer
}

// taken returns how often each "channel event" was taken.
func (a *receivers) taken() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts := map[string]int{}
	for _, g := range a.got {
		counts[g]++
	}
	return counts
}

// count returns the number of calls, failed ones too.
func (a *receivers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

// order returns what was taken, in order.
func (a *receivers) order() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// most returns the largest number of calls under way at a time.
func (a *receivers) most(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.peak[name]
}

func (a *receivers) provider() Provider {
	return Provider{
		Name: "fake", Doc: "Is for tests.",
		Fields: []Field{{Name: "name", Type: TypeText, Required: true, Doc: "Whom to call."}},
		Build:  func(v Values) (Notifier, error) { return receiver{a, v.Text("name")}, nil },
	}
}

// bench is a delivery with its outbox and receivers.
type bench struct {
	*Delivery
	box  *memory
	recv *receivers
	stop context.CancelFunc
	done chan error
}

// deliver starts a delivery with the named channels. The test ends it with b.end.
func deliver(t *testing.T, opts DeliveryOptions, channels ...string) *bench {
	t.Helper()
	b := &bench{box: newMemory(), recv: newReceivers(), done: make(chan error, 1)}
	registry, err := NewRegistry(Options{Extra: []Provider{b.recv.provider()}})
	if err != nil {
		t.Fatal(err)
	}
	opts.Outbox, opts.Registry = b.box, registry
	b.Delivery = NewDelivery(opts)
	for _, name := range channels {
		if err := b.Put(fakeChannel(name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.stop = cancel
	go func() { b.done <- b.Run(ctx) }()
	return b
}

func fakeChannel(name string) monitor.Channel {
	return monitor.Channel{ID: name, Name: name, Provider: "fake", Config: json.RawMessage(`{"name":"` + name + `"}`)}
}

// end stops the delivery and waits for it.
func (b *bench) end(t *testing.T) {
	t.Helper()
	b.stop()
	if err := <-b.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
