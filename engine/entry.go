package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// entry is what the engine holds of one monitor. The lock guards everything but item, which the schedule guards; whoever
// holds the entry's lock may take the schedule's, never the other way round.
type entry struct {
	item item

	mu      sync.Mutex
	spec    *monitor.Monitor // replaced, never written to
	checker check.Checker
	passive check.Passive // the same checker, when it waits for beats
	state   monitor.State
	last    *Last
	tick    monitor.Tick  // of the newest sample
	judged  time.Duration // when the newest judged check began
	beat    time.Time     // of the newest beat that is known, zero when none is; for messages
	held    int           // how often in a row a missed beat was given more time because the process had stood still
	beaten  time.Duration // the newest beat, or the start, on the engine's clock: what a missed one is reckoned from
	cancel  context.CancelFunc
	opaque  string // the checker's own state, which nobody else sees

	removed   bool
	unwritten bool // opaque is not what the store has, and the keeper knows
}

// broken is the checker of a monitor of which none could be made: every check says why.
type broken struct{ err error }

var _ check.Checker = broken{}

func (b broken) Check(context.Context, sdk.CheckRequest) (sdk.Result, error) {
	return sdk.Result{}, fmt.Errorf("monitor cannot be checked: %w", b.err)
}

// checker makes the checker of a spec. With an error the checker says so at every check.
func (e *Engine) checker(m *monitor.Monitor) (check.Checker, check.Passive, error) {
	c, err := e.opts.Checks.New(check.Spec{
		Kind: m.Kind, Target: m.Target, Config: m.Config, Assert: m.Assert, Degrade: m.Degrade, Timeout: m.Timeout,
	})
	if err != nil {
		return broken{err}, nil, fmt.Errorf("make checker of monitor %q: %w", m.Name, err)
	}
	passive, _ := c.(check.Passive)
	return c, passive, nil
}

// was is what the store has of a monitor.
type was struct {
	state  monitor.State
	last   monitor.Sample
	seen   bool // there is a last sample
	opaque monitor.Opaque
}

// restore makes the entry of a stored monitor as it was before the restart, due in its phase.
func (e *Engine) restore(m *monitor.Monitor, w was) error {
	state, last, seen := w.state, w.last, w.seen
	checker, passive, err := e.checker(m)
	now := e.now()
	// What was being counted is counted anew, so that no result from before the restart makes an outage after it.
	state.BadRun, state.FailRun, state.Unknowns = 0, 0, 0
	state.BadSince, state.FailSince = time.Time{}, time.Time{}
	en := &entry{spec: m, checker: checker, passive: passive, state: state, beaten: e.clock()}
	en.item.entry, en.item.index = en, -1
	if seen {
		en.tick = last.Tick
	}
	if seen && last.Condition != monitor.Paused { // that sample is no result
		en.last = &Last{
			At: last.Tick.Time(),
			Result: sdk.Result{
				Status: last.Status, Message: last.Message, Latency: last.Latency, Code: last.Code,
			},
		}
	}
	if en.beat = state.Beat; seen && last.Code == beatCode && last.Tick.Time().After(en.beat) {
		en.beat = last.Tick.Time()
	}
	stale := w.opaque.State != "" && w.opaque.Of != fingerprint(m)
	if !stale {
		en.opaque = w.opaque.State
	}
	e.mu.Lock()
	if e.entries[m.ID] != nil {
		e.mu.Unlock()
		return err // it was put while the store was read, and is newer
	}
	e.entries[m.ID] = en
	if passive != nil {
		e.tokens[passive.Token()] = en
	}
	e.mu.Unlock()

	en.mu.Lock()
	defer en.mu.Unlock()
	if stale {
		e.keeper.changed(en)
	}
	e.reconcilePause(en, now)
	clock := e.clock()
	wait := untilPhase(m.ID, m.Interval, now)
	t := turn{kind: m.Kind, passive: passive != nil, interval: m.Interval, anchor: clock + wait, due: clock + wait}
	switch {
	case m.Paused:
		t.due = -1
	case passive != nil && !state.Known:
		t.due = -1 // it has never had a beat: pending
	case passive != nil:
		t.due = clock + m.Interval + passive.Grace()
	case wait > soon && (!seen || now.Sub(last.Tick.Time()) > m.Interval):
		t.due = clock + phase(m.ID, soon)
	}
	e.schedule.put(&en.item, t)
	return err
}

// soon is within what time of a start a monitor is checked whose last sample has grown old and whose phase is far off.
const soon = time.Minute

// reconcilePause makes state and spec agree on pause. The entry's lock is held.
func (e *Engine) reconcilePause(en *entry, now time.Time) {
	paused := en.state.Condition == monitor.Paused
	if paused == en.spec.Paused {
		return
	}
	if en.spec.Paused {
		en.state.Condition = monitor.Paused
	} else {
		en.state.Condition = monitor.Pending
	}
	from := monitor.Pending
	if !en.spec.Paused {
		from = monitor.Paused
	}
	en.state.Since = now
	en.state.BadRun, en.state.FailRun, en.state.Unknowns = 0, 0, 0
	en.state.BadSince, en.state.FailSince = time.Time{}, time.Time{}
	if en.spec.Paused {
		// A sample of its own ends the time that the last result stands for: what is paused is neither up nor down.
		tick := max(monitor.TickOf(now), en.tick+1)
		en.tick = tick
		e.keep(monitor.Sample{
			Series: en.spec.Series, Tick: tick, Status: sdk.Unknown, Condition: monitor.Paused, Message: "paused",
		})
	}
	e.recorder.add(en.spec.Series, monitor.Transition{State: en.state})
	e.publishState(en, from, "")
}

// put adds or replaces the entry of a monitor.
func (e *Engine) put(m *monitor.Monitor) error {
	checker, passive, err := e.checker(m)
	now := e.now()
	e.mu.Lock()
	en := e.entries[m.ID]
	if en == nil {
		en = &entry{
			state:  monitor.State{MonitorID: m.ID, Condition: monitor.Pending, Since: now},
			beaten: e.clock(),
		}
		en.item.entry, en.item.index = en, -1
		e.entries[m.ID] = en
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	old := en.spec
	if old != nil && old.Revision > m.Revision {
		e.mu.Unlock()
		return nil
	}
	e.forgetToken(en)
	if passive != nil {
		e.tokens[passive.Token()] = en
	}
	e.mu.Unlock()

	en.spec, en.checker, en.passive = m, checker, passive
	if old != nil && !sameCheck(old, m) {
		en.state.BadRun, en.state.FailRun, en.state.Unknowns = 0, 0, 0
		en.state.BadSince, en.state.FailSince = time.Time{}, time.Time{}
	}
	if old != nil && en.opaque != "" && fingerprint(old) != fingerprint(m) {
		e.remember(en, "")
	}
	e.reconcilePause(en, now)
	clock := e.clock()
	t := turn{
		kind: m.Kind, passive: passive != nil, interval: m.Interval,
		anchor: clock + untilPhase(m.ID, m.Interval, now), due: clock,
	}
	switch {
	case m.Paused:
		t.due = -1
		if en.cancel != nil {
			en.cancel()
		}
	case passive != nil && !en.state.Known:
		t.due = -1
	case passive != nil:
		if old == nil || old.Paused || old.Kind != m.Kind {
			en.beaten = clock // nothing was waited for until now
		}
		t.due = max(clock, en.beaten+m.Interval+passive.Grace())
	}
	e.schedule.put(&en.item, t)
	return err
}

// sameCheck reports whether a changed monitor is still checked and judged in the same way, so that results before and after
// the change count together.
func sameCheck(a, b *monitor.Monitor) bool {
	return a.Kind == b.Kind && a.Target == b.Target && bytes.Equal(a.Config, b.Config) && slices.Equal(a.Assert, b.Assert) &&
		slices.Equal(a.Degrade, b.Degrade) && a.Retries == b.Retries && a.Recoveries == b.Recoveries
}
