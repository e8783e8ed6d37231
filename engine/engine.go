// Package engine decides when to check, what results mean and whom to tell. It states what it needs of a store, holds no
// package-level state, and starts nothing before Run: several engines can live in one process.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Store is what the engine needs to remember.
type Store interface {
	Monitors(ctx context.Context) ([]monitor.Monitor, error)
	States(ctx context.Context) ([]monitor.State, error)
	Channels(ctx context.Context) ([]monitor.Channel, error)
	// Last returns the newest sample of each series, its message with it.
	Last(ctx context.Context) (map[uint32]monitor.Sample, error)
	// Append hands over a sample without waiting; false says that it was dropped, which the store counts.
	Append(s monitor.Sample) bool
	// Opaques returns what was last put of the states that checkers keep, by series.
	Opaques(ctx context.Context) (map[uint32]monitor.Opaque, error)
	// PutOpaque hands over such a state without waiting, to take the place of the one of the same series; false means that it
	// was dropped, which the store counts. What is put of a monitor that is not there is dropped silently.
	PutOpaque(o monitor.Opaque) bool
	// Record writes a transition with all that belongs to it, after every sample appended before it. It is called from
	// several goroutines at once. Writing the same transition again changes nothing.
	Record(ctx context.Context, t monitor.Transition) error
}

// Checks makes the checker of a monitor; *check.Registry is one, and *check.Late is one whose checkers follow kinds that come
// and go.
type Checks interface {
	New(spec check.Spec) (check.Checker, error)
}

// Options is what New needs. Store, Outbox, Checks and Alerts must be set.
type Options struct {
	Store  Store
	Outbox alert.Outbox
	Checks Checks
	Alerts *alert.Registry
	Log    *slog.Logger // nil discards

	// PublicURL is the address under which people reach this server, for the links in messages; empty leaves links out.
	PublicURL string
	// Workers is how many checks may run at once; 0 is DefaultWorkers.
	Workers int
	// KindLimits is how many checks of a kind may run at once, so that one slow kind does not starve the rest. A kind that
	// is not in it may take half of the workers.
	KindLimits map[string]int
	// Watchdog says when the process was starved or suspended; nil makes one. It is shared with the registry of checks,
	// which asks it before a time-out is believed.
	Watchdog *Watchdog
	// Now is the wall clock, for what is stored and told; nil is time.Now. Scheduling uses the monotonic clock only.
	Now func() time.Time
	// DrainTimeout is how long Run waits for records, states of checkers and deliveries under way once its context has ended;
	// 0 is 10 s.
	DrainTimeout time.Duration
}

// DefaultWorkers is how many checks may run at once when Options does not say.
const DefaultWorkers = 4096

// Engine checks monitors, judges the results and tells the channels. Its methods are safe for concurrent use.
type Engine struct {
	opts     Options
	log      *slog.Logger
	now      func() time.Time
	born     time.Time // origin of the monotonic times of the schedule
	schedule *schedule
	recorder *recorder
	keeper   *keeper
	delivery *alert.Delivery
	feed     *feed
	stats    counters
	watchdog *Watchdog

	running atomic.Bool
	loaded  chan struct{} // closed once every stored monitor has its entry
	stopped chan struct{} // closed once no more checks begin

	// Whoever holds mu may take an entry's lock, never the other way round.
	mu      sync.RWMutex
	entries map[string]*entry // by monitor id
	tokens  map[string]*entry // passive ones, by token

	channelsMu sync.RWMutex
	channels   map[string]monitor.Channel
}

// New returns an engine that has not started.
func New(o Options) (*Engine, error) {
	if o.Store == nil || o.Outbox == nil || o.Checks == nil || o.Alerts == nil {
		return nil, errors.New("make engine: store, outbox, checks and alerts must all be set")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 10 * time.Second
	}
	if o.Watchdog == nil {
		o.Watchdog = NewWatchdog()
	}
	e := &Engine{
		opts:     o,
		log:      o.Log,
		now:      o.Now,
		born:     time.Now(),
		feed:     newFeed(o.Now()),
		watchdog: o.Watchdog,
		entries:  make(map[string]*entry),
		tokens:   make(map[string]*entry),
		channels: make(map[string]monitor.Channel),
		loaded:   make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	e.schedule = newSchedule(o.Workers, o.KindLimits, e.clock)
	e.delivery = alert.NewDelivery(alert.DeliveryOptions{
		Outbox: o.Outbox, Registry: o.Alerts, Log: o.Log, Now: o.Now, DrainTimeout: o.DrainTimeout,
	})
	e.recorder = newRecorder(o.Store, o.Log, e.recorded)
	e.keeper = newKeeper(o.Store, o.Log, e.clock)
	return e, nil
}

// clock returns the monotonic time since the engine was made.
func (e *Engine) clock() time.Duration { return time.Since(e.born) }

// Run loads what the store has, then checks, judges and delivers until ctx ends. Checks under way are cancelled with it and
// their results dropped; records and deliveries under way, and the states of checkers, may take Options.DrainTimeout to reach the
// store. It returns nil when ctx ended, and an error when the store could not be read. An engine runs once.
func (e *Engine) Run(ctx context.Context) error {
	if !e.running.CompareAndSwap(false, true) {
		return errors.New("run engine: it has run already")
	}
	if err := e.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("load engine: %w", err)
	}
	var group sync.WaitGroup
	group.Go(func() { e.watchdog.run(ctx) })
	group.Go(func() {
		if err := e.delivery.Run(ctx); err != nil {
			e.log.Error("delivery stopped", "error", err)
		}
	})
	lastCheck := make(chan time.Time, 1) // sent once no check runs: until when the rest may take
	group.Go(func() {
		e.keeper.run(ctx)
		e.keeper.drain(<-lastCheck)
	})
	recordCtx, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecording()
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		e.recorder.run(recordCtx)
	}()

	e.schedule.run(ctx, e.perform)
	close(e.stopped)
	// Their contexts have ended, so they end at once, unless one does not listen to its context.
	deadline := time.Now().Add(e.opts.DrainTimeout)
	if n := e.schedule.wait(e.opts.DrainTimeout / 2); n > 0 {
		e.log.Error("checks did not end with their context and are left behind", "checks", n)
	}
	lastCheck <- deadline

	drain := time.NewTimer(time.Until(deadline))
	defer drain.Stop()
	e.recorder.close()
	select {
	case <-recorded:
	case <-drain.C:
		e.log.Error("transitions were not recorded before the drain timeout", "waiting", e.recorder.waiting())
		stopRecording()
		<-recorded
	}
	group.Wait()
	e.feed.close()
	return nil
}

// load makes an entry for every stored monitor. Nothing is due before its phase, so that a start makes no burst.
func (e *Engine) load(ctx context.Context) error {
	channels, err := e.opts.Store.Channels(ctx)
	if err != nil {
		return fmt.Errorf("read channels: %w", err)
	}
	for _, c := range channels {
		if err := e.PutChannel(c); err != nil {
			e.log.Error("channel cannot deliver", "channel", c.Name, "error", err)
		}
	}
	monitors, err := e.opts.Store.Monitors(ctx)
	if err != nil {
		return fmt.Errorf("read monitors: %w", err)
	}
	stored, err := e.opts.Store.States(ctx)
	if err != nil {
		return fmt.Errorf("read states: %w", err)
	}
	states := make(map[string]monitor.State, len(stored))
	for _, s := range stored {
		states[s.MonitorID] = s
	}
	last, err := e.opts.Store.Last(ctx)
	if err != nil {
		return fmt.Errorf("read newest samples: %w", err)
	}
	opaques, err := e.opts.Store.Opaques(ctx)
	if err != nil {
		return fmt.Errorf("read states of checkers: %w", err)
	}
	for i := range monitors {
		m := &monitors[i]
		w := was{opaque: opaques[m.Series]}
		var ok bool
		if w.state, ok = states[m.ID]; !ok {
			w.state = monitor.State{MonitorID: m.ID, Condition: monitor.Pending, Since: m.CreatedAt}
		}
		w.last, w.seen = last[m.Series]
		if err := e.restore(m, w); err != nil {
			e.log.Error("monitor cannot be checked", "monitor", m.Name, "id", m.ID, "error", err)
		}
	}
	close(e.loaded)
	return nil
}

// Loaded returns a channel that is closed once Run has loaded what the store has.
func (e *Engine) Loaded() <-chan struct{} { return e.loaded }

// Healthy returns nil while the engine has loaded its monitors and its schedule moves.
func (e *Engine) Healthy() error {
	select {
	case <-e.loaded:
	default:
		return errors.New("engine: monitors are being loaded")
	}
	if late := e.schedule.stuck(); late > stuckAfter {
		return fmt.Errorf("engine: the schedule has not moved for %s", late.Round(time.Second))
	}
	return nil
}

const stuckAfter = 10 * time.Second

// Last is the newest result of a monitor.
type Last struct {
	Result sdk.Result
	At     time.Time
}

// Live is what the engine holds of a monitor.
type Live struct {
	State     monitor.State
	Last      *Last  // nil before the first result
	PushToken string // of a passive monitor
}

// Live returns what the engine holds of a monitor, and false when it does not know it.
func (e *Engine) Live(id string) (Live, bool) {
	en := e.entry(id)
	if en == nil {
		return Live{}, false
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	return en.live(), true
}

func (e *Engine) entry(id string) *entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.entries[id]
}

// Put adds a monitor or replaces the one with its id. It takes effect at once: a new or changed monitor is checked now and
// then joins its phase. A revision older than the one that runs is ignored. The error is monitor.Faults when no checker can
// be made of it; then every check of it is unknown, with that cause.
func (e *Engine) Put(m monitor.Monitor) error {
	return e.put(&m)
}

// Remove forgets a monitor; a check of it under way is cancelled. An unknown id is not an error.
func (e *Engine) Remove(id string) {
	e.mu.Lock()
	en := e.entries[id]
	if en == nil {
		e.mu.Unlock()
		return
	}
	delete(e.entries, id)
	en.mu.Lock()
	e.forgetToken(en)
	e.mu.Unlock()
	en.removed = true
	e.ended(en)
	if en.cancel != nil {
		en.cancel()
	}
	en.mu.Unlock()
	e.schedule.remove(&en.item)
}

// forgetToken takes the token of a passive monitor out of the table, if it is its own. Both locks are held.
func (e *Engine) forgetToken(en *entry) {
	if en.passive != nil && e.tokens[en.passive.Token()] == en {
		delete(e.tokens, en.passive.Token())
	}
}

// PutChannel adds a channel or replaces the one with its id. The error is monitor.Faults when its provider or its
// configuration is bad; what is due to it then waits.
func (e *Engine) PutChannel(c monitor.Channel) error {
	e.channelsMu.Lock()
	e.channels[c.ID] = c
	e.channelsMu.Unlock()
	return e.delivery.Put(c)
}

// RemoveChannel forgets a channel. An unknown id is not an error.
func (e *Engine) RemoveChannel(id string) {
	e.channelsMu.Lock()
	delete(e.channels, id)
	e.channelsMu.Unlock()
	e.delivery.Remove(id)
}

// TestChannel sends a test notification through a channel, once and now, and returns what came of it.
func (e *Engine) TestChannel(ctx context.Context, id string) error {
	e.channelsMu.RLock()
	c, ok := e.channels[id]
	e.channelsMu.RUnlock()
	if !ok {
		return fmt.Errorf("test channel %s: %w", id, monitor.ErrNotFound)
	}
	return e.delivery.Test(ctx, id, e.testNotification(c))
}

// ChannelHealth returns how a channel has fared.
func (e *Engine) ChannelHealth(id string) monitor.Health { return e.delivery.Health(id) }
