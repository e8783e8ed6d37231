package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	messageBytes = 1024 // of a result, in UTF-8
	mostMetrics  = 100
)

// perform makes one check and settles its result. It runs on a worker.
func (e *Engine) perform(ctx context.Context, j job) {
	en := j.item.entry
	en.mu.Lock()
	began, at := e.clock(), e.now()
	if en.removed || en.spec.Paused || e.beatMayCome(en, began) || e.schedule.stale(j) {
		en.mu.Unlock()
		return
	}
	spec, checker, passive, beat, starved := en.spec, en.checker, en.passive, en.beat, en.held > mostHeld
	en.held = 0
	req := sdk.CheckRequest{
		Monitor: reference(spec), Target: spec.Target, Timeout: spec.Timeout, Config: spec.Config, Attempt: 1,
		State: en.opaque,
	}
	if retrying(en.state) {
		req.Attempt += en.state.BadRun
	}
	ctx, cancel := timed(ctx, checker, spec.Timeout)
	defer cancel()
	en.cancel = cancel
	en.mu.Unlock()

	e.stats.lateness.observe(began - j.due)
	result, err := e.guard(req.Monitor, func() (sdk.Result, error) {
		switch {
		case starved:
			return sdk.Result{}, errors.New("this machine stands still again and again, so a beat may have come and not been read")
		case passive != nil:
			return passive.Missed(beat, at), nil
		}
		return checker.Check(ctx, req)
	})
	if errors.Is(context.Cause(ctx), context.Canceled) {
		e.schedule.release(j)
		return // the engine stops, or the monitor was removed or paused: there is nothing to say of its target
	}
	if err != nil {
		result = sdk.Result{Status: sdk.Unknown, Message: err.Error(), State: req.State}
	}
	e.settle(en, finished{spec: spec, began: began, at: at, result: result})
}

// timed returns the context of one check. A checker that keeps its own time gets no deadline: a plugin's process may have to be
// started first, and behind a deadline that has passed nobody could call the check off any more.
func timed(ctx context.Context, checker check.Checker, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := checker.(check.SelfTimed); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// beatMayCome reports whether it is too early to miss a beat: one came after this was due, or the process stood still and
// has not had the time to read what came meanwhile. Then it is looked at again later. The entry's lock is held.
func (e *Engine) beatMayCome(en *entry, now time.Duration) bool {
	if en.passive == nil {
		return false
	}
	if now < en.beaten+en.spec.Interval+en.passive.Grace() {
		return true
	}
	here := time.Now()
	resumed, ok := e.watchdog.resumed(here)
	if !ok || here.Sub(resumed) >= catchUp {
		return false
	}
	if en.held++; en.held > mostHeld {
		return false
	}
	e.schedule.move(&en.item, now+catchUp-here.Sub(resumed), false)
	return true
}

// mostHeld is how often in a row a missed beat is given more time; after that it is unknown.
const mostHeld = 5

// beatCode is the code of samples that came from a beat, to tell them from those of missed ones.
const beatCode = 1

// guard calls code of a checker and turns a panic of it into an error: the process and all other checks go on.
func (e *Engine) guard(m sdk.Ref, call func() (sdk.Result, error)) (r sdk.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.stats.panics.Add(1)
			e.log.Error("checker panicked", "kind", m.Kind, "monitor", m.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			r, err = sdk.Result{}, fmt.Errorf("the %s check panicked: %v", m.Kind, p)
		}
	}()
	return call()
}

func reference(m *monitor.Monitor) sdk.Ref {
	return sdk.Ref{ID: m.ID, Name: m.Name, Kind: m.Kind, Target: m.Target, Labels: m.Labels}
}

// finished is a check that has been made.
type finished struct {
	spec   *monitor.Monitor // as it was when the check began
	began  time.Duration    // on the engine's clock
	at     time.Time        // the same on the wall clock
	result sdk.Result
	beat   bool // it came from outside: a heartbeat
}

// settle stores a result, judges it, and passes on what it changed.
func (e *Engine) settle(en *entry, f finished) {
	en.mu.Lock()
	defer en.mu.Unlock()
	e.settleLocked(en, f)
}

// settleLocked is settle for a caller that holds the entry's lock.
func (e *Engine) settleLocked(en *entry, f finished) {
	if en.removed {
		return
	}
	f.result = bounded(f.result)
	opaque := f.result.State
	f.result.State = "" // it may hold secrets, and nobody but the next check needs it
	e.stats.result(f.spec.Kind, f.result.Status)
	tick := max(monitor.TickOf(f.at), en.tick+1)
	en.tick = tick
	sample := monitor.Sample{
		Series: en.spec.Series, Tick: tick, Status: f.result.Status, Code: f.result.Code,
		Latency: min(max(f.result.Latency, 0), maxLatency).Truncate(time.Microsecond), Message: f.result.Message,
	}
	// A result that is overtaken, or that answers an older spec, is kept but decides nothing.
	if f.began < en.judged || f.spec.Revision != en.spec.Revision {
		sample.Condition = en.state.Condition
		e.keep(sample)
		return
	}
	en.judged = f.began
	state, v := judge(en.spec, en.state, f.result.Status, tick.Time())
	en.last = &Last{Result: f.result, At: tick.Time()}
	e.remember(en, opaque)
	sample.Condition = state.Condition
	e.keep(sample)
	if v.moved {
		e.transit(en, &state, v, sample)
	}
	en.state = state
	if v.moved {
		e.publishState(en, v.from, f.result.Message)
	}
	e.publishResult(en, sample)
	e.schedule.tell(&en.item, *en.last)
	e.reschedule(en, f, v)
}

// keep hands a sample to the store, which counts it when it has to drop it. The one place after the end of time has no row.
func (e *Engine) keep(s monitor.Sample) {
	if s.Tick <= monitor.MaxTick {
		e.opts.Store.Append(s)
	}
}

// reschedule moves the next check where the result asks for that. The entry's lock is held.
func (e *Engine) reschedule(en *entry, f finished, v verdict) {
	switch {
	case f.beat && en.passive != nil:
		e.schedule.move(&en.item, f.began+en.spec.Interval+en.passive.Grace(), true)
	case v.retry:
		e.schedule.hasten(&en.item, e.clock()+en.spec.RetryInterval)
	}
}

// maxLatency is the most that a sample has bits for.
const maxLatency = time.Duration(1<<40-1) * time.Microsecond

// bounded cuts what a checker returned to what is kept.
func bounded(r sdk.Result) sdk.Result {
	r.Message = sdk.CleanText(r.Message, messageBytes)
	if len(r.State) > sdk.MaxState {
		r.State = ""
	}
	if len(r.Metrics) > mostMetrics {
		r.Metrics = r.Metrics[:mostMetrics]
	}
	if r.Status > sdk.Down {
		r.Status, r.Message = sdk.Unknown, fmt.Sprintf("the check returned a status that does not exist (%d)", r.Status)
	}
	return r
}

// CheckNow makes a check of a monitor now, or waits for the one under way, and returns its result, which counts like any
// other. The error wraps monitor.ErrNotFound when the monitor is unknown and monitor.ErrConflict when it is paused or waits
// for beats.
func (e *Engine) CheckNow(ctx context.Context, id string) (Last, error) {
	en := e.entry(id)
	if en == nil {
		return Last{}, fmt.Errorf("check monitor %s: %w", id, monitor.ErrNotFound)
	}
	en.mu.Lock()
	paused, passive := en.spec.Paused, en.passive != nil
	en.mu.Unlock()
	switch {
	case paused:
		return Last{}, fmt.Errorf("%w: the monitor is paused; resume it first", monitor.ErrConflict)
	case passive:
		return Last{}, fmt.Errorf("%w: the monitor waits for heartbeats; send one to its push address instead", monitor.ErrConflict)
	}
	select {
	case last, ok := <-e.schedule.await(&en.item):
		if !ok {
			return Last{}, fmt.Errorf("%w: the monitor was changed, paused or removed meanwhile", monitor.ErrConflict)
		}
		return last, nil
	case <-e.stopped:
		return Last{}, fmt.Errorf("check monitor %s: the engine stops: %w", id, monitor.ErrClosed)
	case <-ctx.Done():
		return Last{}, fmt.Errorf("check monitor %s: %w", id, ctx.Err())
	}
}

// Beat is a heartbeat: what a passive monitor is told from outside.
type Beat struct {
	Status  sdk.Status // Unknown is not allowed
	Message string
	Ping    time.Duration // stored as the latency; 0 when there is none
}

// Beat takes a heartbeat. The error wraps monitor.ErrNotFound when no monitor has the token. The beat of a paused monitor is
// taken and ignored.
func (e *Engine) Beat(token string, b Beat) error {
	e.mu.RLock()
	en := e.tokens[token]
	e.mu.RUnlock()
	if en == nil {
		return fmt.Errorf("take heartbeat: %w", monitor.ErrNotFound)
	}
	message := b.Message
	if message == "" {
		message = "heartbeat " + b.Status.String()
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.spec.Paused || en.removed || en.passive == nil {
		return nil
	}
	result, err := e.guard(reference(en.spec), func() (sdk.Result, error) {
		return en.passive.Beat(sdk.Result{Status: b.Status, Message: message, Latency: b.Ping}), nil
	})
	if err != nil {
		result = sdk.Result{Status: sdk.Unknown, Message: err.Error()}
	}
	// The clock is read under the lock: a check for a missed beat that runs at this moment is then clearly before or after.
	began, at := e.clock(), e.now()
	en.beat, en.beaten, en.held = at, began, 0
	en.state.Beat = at
	result.Code = beatCode
	e.settleLocked(en, finished{spec: en.spec, began: began, at: at, beat: true, result: result})
	return nil
}
