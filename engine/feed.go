package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// The types of message that a subscription gets.
const (
	MessageState    = "state"    // Data is a StateChange
	MessageIncident = "incident" // Data is a monitor.Incident, once it is stored
	MessageResult   = "result"   // Data is a Seen; kept only while somebody wants results, and not resumed
	MessagePlugin   = "plugin"   // Data is a PluginChange
	MessageLog      = "log"      // Data is a monitor.LogLine
	MessageReset    = "reset"    // what was asked for is no longer there: read everything anew
	MessageLost     = "lost"     // Data is how many messages the reader was too slow for (int)
)

// Message is one thing that happened.
type Message struct {
	ID   string // resumes after it; opaque
	Type string
	Data any
}

// StateChange says that a monitor's condition changed.
type StateChange struct {
	MonitorID, Name string
	From, To        monitor.Condition
	Since           time.Time
	Incident        string // id of the open incident; empty when there is none
	Message         string // of the result that changed it
}

// Seen says what a check found.
type Seen struct {
	MonitorID string
	Status    sdk.Status
	Condition monitor.Condition
	Latency   time.Duration
	Message   string
	At        time.Time
}

// PluginChange says that something about a plugin changed: its build, its grant, its limits, or whether it can be used.
type PluginChange struct {
	Name      string
	Condition monitor.PluginCondition // monitor.PluginRemoved: it is gone
	Why       string                  // when it is not ready: the cause and the remedy
	Version   string                  // of the build that runs; empty when it is gone
}

// SubscribeOptions says what a subscription gets. Its zero value gets everything from now on.
type SubscribeOptions struct {
	After string   // the id of the last message that was read; empty: from now on
	Types []string // empty: all
}

const feedSize = 10_000

// ring keeps the newest messages of a sort.
type ring struct {
	messages []Message
	next     uint64 // number of the next message
}

func (r *ring) add(m Message) {
	if len(r.messages) < feedSize {
		r.messages = append(r.messages, m)
	} else {
		r.messages[r.next%feedSize] = m
	}
	r.next++
}

// oldest is the number of the oldest message that is kept.
func (r *ring) oldest() uint64 { return r.next - uint64(len(r.messages)) }

// feed keeps the newest messages. Readers keep their own place in it: a slow one loses messages, is told how many, and holds
// up nobody. Results have a ring of their own, which is filled only while somebody wants them: at thousands a second they
// would push out what a reader that comes back needs to find.
type feed struct {
	boot int64 // ids of an earlier run of the server do not match

	mu      sync.Mutex
	news    ring
	results ring
	changed chan struct{}
	readers int
	wanting int // readers that want results
	closed  bool
}

func newFeed(now time.Time) *feed {
	return &feed{boot: now.UnixMilli(), changed: make(chan struct{})}
}

func (f *feed) publish(typ string, data any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return // nobody reads any more
	}
	m := Message{Type: typ, Data: data}
	if typ == MessageResult {
		f.results.add(m)
	} else {
		f.news.add(m)
	}
	if f.readers > 0 {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// heard reports whether anybody wants results.
func (f *feed) heard() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanting > 0
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.changed)
	}
}

// before is the id after which a reader gets message n. A result has the id of the message before it: who resumes after it
// gets what is not a result.
func (f *feed) before(n uint64) string { return fmt.Sprintf("%x-%d", f.boot, int64(n)-1) } //nolint:gosec // counts messages of one run

// Subscription reads messages. It is used by one goroutine.
type Subscription struct {
	feed    *feed
	types   []string
	results bool
	next    uint64 // of the news
	result  uint64 // next of the results
	reset   bool
	once    sync.Once
}

// Subscribe begins to read what happens. Close must be called. A slow reader loses messages and is told how many.
func (e *Engine) Subscribe(o SubscribeOptions) *Subscription {
	f := e.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &Subscription{feed: f, types: o.Types, next: f.news.next, result: f.results.next}
	s.results = s.wants(MessageResult)
	f.readers++
	if s.results {
		f.wanting++
	}
	if o.After == "" {
		return s
	}
	var boot, n int64
	next := int64(f.news.next) //nolint:gosec // counts messages of one run
	if _, err := fmt.Sscanf(o.After, "%x-%d", &boot, &n); err != nil || boot != f.boot || n < -1 || n >= next || next-n > feedSize {
		s.reset = true
		return s
	}
	s.next = uint64(n + 1)
	return s
}

func (s *Subscription) wants(typ string) bool {
	return len(s.types) == 0 || slices.Contains(s.types, typ)
}

// Next returns the next message. It waits for one until ctx ends; after Close, or when the engine has ended, the error is
// monitor.ErrClosed.
func (s *Subscription) Next(ctx context.Context) (Message, error) {
	for {
		s.feed.mu.Lock()
		m, ok := s.take()
		changed, closed := s.feed.changed, s.feed.closed
		s.feed.mu.Unlock()
		if ok {
			return m, nil
		}
		if closed {
			return Message{}, fmt.Errorf("read events: %w", monitor.ErrClosed)
		}
		select {
		case <-ctx.Done():
			return Message{}, fmt.Errorf("read events: %w", ctx.Err())
		case <-changed:
		}
	}
}

// take returns the next message that is there. The feed's lock is held.
func (s *Subscription) take() (Message, bool) {
	f := s.feed
	if s.reset {
		s.reset = false
		return Message{ID: f.before(f.news.next), Type: MessageReset}, true
	}
	lost := 0
	if oldest := f.news.oldest(); s.next < oldest {
		lost, s.next = int(oldest-s.next), oldest //nolint:gosec // far below the bounds of int
	}
	if oldest := f.results.oldest(); s.results && s.result < oldest {
		lost, s.result = lost+int(oldest-s.result), oldest //nolint:gosec // far below the bounds of int
	}
	if lost > 0 {
		return Message{ID: f.before(s.next), Type: MessageLost, Data: lost}, true
	}
	for s.next < f.news.next {
		m := f.news.messages[s.next%feedSize]
		s.next++
		if s.wants(m.Type) {
			m.ID = f.before(s.next)
			return m, true
		}
	}
	if s.results && s.result < f.results.next {
		m := f.results.messages[s.result%feedSize]
		s.result++
		m.ID = f.before(s.next)
		return m, true
	}
	return Message{}, false
}

// Close ends the subscription. Calling it twice is fine.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
		s.feed.readers--
		if s.results {
			s.feed.wanting--
		}
	})
}

// Publish puts a message of another part of the server into the feed, a log line for one.
func (e *Engine) Publish(typ string, data any) { e.feed.publish(typ, data) }

// publishState tells listeners that a condition changed. The entry's lock is held.
func (e *Engine) publishState(en *entry, from monitor.Condition, message string) {
	e.feed.publish(MessageState, StateChange{
		MonitorID: en.spec.ID, Name: en.spec.Name, From: from, To: en.state.Condition, Since: en.state.Since,
		Incident: en.state.Incident, Message: message,
	})
}

// publishResult tells listeners what a check found. The entry's lock is held.
func (e *Engine) publishResult(en *entry, s monitor.Sample) {
	if !e.feed.heard() {
		return
	}
	e.feed.publish(MessageResult, Seen{
		MonitorID: en.spec.ID, Status: s.Status, Condition: s.Condition, Latency: s.Latency, Message: s.Message, At: s.Tick.Time(),
	})
}
