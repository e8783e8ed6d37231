package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Outbox is what delivery needs of the store.
type Outbox interface {
	// Due returns notifications that are pending and due at now, oldest first, at most limit, without those of the busy
	// channels, and never one of which an older one for the same channel and monitor is still pending: a recovery does not
	// overtake its outage.
	Due(ctx context.Context, now time.Time, busy []string, limit int) ([]monitor.Notification, error)
	// NextDue returns the earliest time at which a pending notification is due, and false when none is pending.
	NextDue(ctx context.Context) (time.Time, bool, error)
	// Attempted records what came of an attempt; it returns nil once that is committed.
	Attempted(ctx context.Context, a monitor.Attempt) error
	// PutHealth records a channel's health without blocking; false: it was dropped.
	PutHealth(h monitor.Health) bool
	// Healths returns the health of every channel that has one.
	Healths(ctx context.Context) ([]monitor.Health, error)
}

// DeliveryOptions says what a Delivery works with. Outbox and Registry are required.
type DeliveryOptions struct {
	Outbox       Outbox
	Registry     *Registry
	Log          *slog.Logger     // nil discards
	Now          func() time.Time // nil is time.Now; it may step
	DrainTimeout time.Duration    // for attempts under way when Run's context ends; 0 is 10 s
}

// The bounds of delivery.
const (
	maxPerChannel   = 4                // attempts of one channel at a time; 1 while it is failing
	maxAttempts     = 64               // attempts of all channels at a time
	maxUnrecorded   = 1000             // attempts that the outbox has not taken yet; nothing new is begun above it
	defaultDrain    = 10 * time.Second //
	recordGrace     = 3 * time.Second  // after the drain, for the outbox to take what is not recorded
	longestSleep    = time.Minute      // between two looks into the outbox
	heldPoll        = time.Second      // between two looks while notifications of busy channels are due
	faultyRetry     = 5 * time.Minute  // longest pause between attempts for a channel that is set up wrong
	unknownGrace    = 10 * time.Minute // how long a notification waits for a channel that nobody has put in
	firstOutboxWait = time.Second      // after an error of the outbox, doubling to lastOutboxWait
	lastOutboxWait  = 30 * time.Second
)

// DeliveryStats counts since the start.
type DeliveryStats struct {
	Sent, Retried, GivenUp int64
	InFlight               int // attempts under way
	Unrecorded             int // attempts made that the outbox has not taken yet
}

// Delivery takes due notifications out of the outbox and delivers them, at least once, each channel by itself: a receiver
// that hangs delays neither checks nor other channels. All methods are safe for concurrent use.
type Delivery struct {
	outbox   Outbox
	registry *Registry
	log      *slog.Logger
	clock    *clock
	drain    time.Duration

	wake chan struct{} // holds one signal

	mu       sync.Mutex
	channels map[string]*channel
	removed  map[string]bool
	held     map[int64]bool // notifications that are being attempted or recorded
	released map[int64]bool // those recorded since the outbox was last asked: its answer may be older than the record
	health   map[string]monitor.Health
	unsaved  map[string]bool // channels whose health the outbox has not taken
	stats    DeliveryStats
	started  time.Time // of Run, monotonic

	unreadable, unwritable bool // the outbox's last answer was an error
}

// channel is a channel as delivery sees it.
type channel struct {
	spec     monitor.Channel
	provider *Provider // that the notifier was made by
	notifier Notifier  // nil when none could be made; then it is tried again at each attempt
	running  int       // attempts under way
	failing  bool      // the last attempt failed: one attempt at a time until one succeeds
	quiet    time.Time // monotonic; nothing is begun before it, since the receiver asked so
}

// NewDelivery returns a delivery without channels. It starts nothing.
func NewDelivery(opts DeliveryOptions) *Delivery {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.DrainTimeout <= 0 {
		opts.DrainTimeout = defaultDrain
	}
	return &Delivery{
		outbox: opts.Outbox, registry: opts.Registry, log: opts.Log, clock: newClock(opts.Now), drain: opts.DrainTimeout,
		wake:     make(chan struct{}, 1),
		channels: make(map[string]*channel), removed: make(map[string]bool), held: make(map[int64]bool), released: make(map[int64]bool),
		health: make(map[string]monitor.Health), unsaved: make(map[string]bool),
	}
}

// Wake tells delivery that something new is in the outbox. It never blocks.
func (d *Delivery) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Put adds a channel or replaces it. The error is a monitor.Faults when its provider or configuration is bad: what is to be
// delivered to it then stays pending, is tried at least every five minutes, and is given up after 24 hours. A provider that
// comes, changes or goes afterwards is noticed at the next attempt.
func (d *Delivery) Put(c monitor.Channel) error {
	provider := d.registry.find(c.Provider)
	notifier, err := d.registry.New(c.Provider, c.Config)
	d.mu.Lock()
	ch := d.channels[c.ID]
	if ch == nil {
		ch = &channel{}
		d.channels[c.ID] = ch
	}
	ch.spec, ch.provider, ch.notifier = c, provider, notifier
	ch.failing, ch.quiet = false, time.Time{}
	delete(d.removed, c.ID)
	d.mu.Unlock()
	d.Wake()
	return err
}

// notifierOf returns the notifier of a channel, made anew when the channel has none or its provider is no longer the one that
// made it. The error says what is wrong with the channel now.
func (d *Delivery) notifierOf(ch *channel) (Notifier, error) {
	d.mu.Lock()
	spec, made, notifier := ch.spec, ch.provider, ch.notifier
	d.mu.Unlock()
	provider := d.registry.find(spec.Provider)
	switch {
	case provider == nil:
		return nil, fmt.Errorf("there is no provider %s; install the plugin of that name, or give the channel another provider", sdk.CleanText(spec.Provider, 100))
	case provider == made && notifier != nil:
		return notifier, nil
	}
	notifier, err := provider.New(spec.Config)
	if err != nil {
		return nil, fmt.Errorf("the channel is set up wrong: %w", err)
	}
	d.mu.Lock()
	if ch.spec.Provider == spec.Provider && bytes.Equal(ch.spec.Config, spec.Config) {
		ch.provider, ch.notifier = provider, notifier
	}
	d.mu.Unlock()
	return notifier, nil
}

// Remove takes a channel out. Attempts under way end as they would; what is still pending for it is given up.
func (d *Delivery) Remove(channelID string) {
	d.mu.Lock()
	delete(d.channels, channelID)
	delete(d.health, channelID)
	delete(d.unsaved, channelID)
	d.removed[channelID] = true
	d.mu.Unlock()
	d.Wake()
}

// Test delivers n to the channel now, once, within 30 seconds, whether or not the channel is disabled, and records its health.
// The error wraps monitor.ErrNotFound for an unknown channel.
func (d *Delivery) Test(ctx context.Context, channelID string, n sdk.Notification) error {
	d.mu.Lock()
	ch := d.channels[channelID]
	d.mu.Unlock()
	if ch == nil {
		return fmt.Errorf("channel %s: %w", channelID, monitor.ErrNotFound)
	}
	notifier, err := d.notifierOf(ch)
	if err != nil {
		return err
	}
	err = d.notify(ctx, channelID, notifier, n)
	if ctx.Err() == nil || err == nil {
		d.setHealth(channelID, err)
	}
	return err
}

// Health returns how the channel has fared; only the id is set when it has had no attempt.
func (d *Delivery) Health(channelID string) monitor.Health {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.health[channelID]
	h.ChannelID = channelID
	return h
}

// Stats returns the counters.
func (d *Delivery) Stats() DeliveryStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Unrecorded = len(d.held) - s.InFlight
	return s
}

// notify calls the provider under the deadline of one attempt.
func (d *Delivery) notify(ctx context.Context, channelID string, notifier Notifier, n sdk.Notification) error {
	limited, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	err := notifier.Notify(limited, n)
	var p *panicError
	if errors.As(err, &p) {
		d.log.Error("provider panicked", "channel", channelID, "provider", p.provider, "cause", p.cause, "stack", p.stack)
	}
	if ctx.Err() == nil && limited.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", words(attemptTimeout))
	}
	return err
}

// setHealth notes what came of an attempt and hands it to the outbox.
func (d *Delivery) setHealth(channelID string, err error) {
	now := d.clock.wall()
	d.mu.Lock()
	defer d.mu.Unlock()
	ch := d.channels[channelID]
	if ch == nil {
		return
	}
	h := d.health[channelID]
	h.ChannelID = channelID
	before := h.Streak
	if err == nil {
		h.LastSuccessAt, h.Streak, ch.failing = now, 0, false
		if before > 0 {
			d.log.Info("channel works again", "channel", ch.spec.Name, "failures", before)
		}
	} else {
		h.LastErrorAt, h.LastError, ch.failing = now, sdk.CleanText(err.Error(), maxError), true
		h.Streak++
		if before == 0 {
			d.log.Warn("channel fails", "channel", ch.spec.Name, "provider", ch.spec.Provider, "error", h.LastError)
		}
	}
	d.health[channelID] = h
	d.saveHealth(h)
}

// saveHealth offers h to the outbox and notes when it was not taken. The caller holds mu.
func (d *Delivery) saveHealth(h monitor.Health) {
	if d.outbox.PutHealth(h) {
		delete(d.unsaved, h.ChannelID)
	} else {
		d.unsaved[h.ChannelID] = true
	}
}

// saveUnsaved offers again what was not taken.
func (d *Delivery) saveUnsaved() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.unsaved {
		d.saveHealth(d.health[id])
	}
}

// loadHealth reads what was known before the start. What has been seen since is newer and stays.
func (d *Delivery) loadHealth(ctx context.Context) error {
	stored, err := d.outbox.Healths(ctx)
	if err != nil {
		return fmt.Errorf("read the channels' health: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range stored {
		if _, ok := d.health[h.ChannelID]; !ok && !d.removed[h.ChannelID] {
			d.health[h.ChannelID] = h
		}
	}
	return nil
}
