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
	opaqueBytes  = 4096 // of a checker's own state
	mostMetrics  = 100
)

// perform makes one check and settles its result. It runs on a worker.
func (e *Engine) perform(ctx context.Context, j job) {
	en := j.item.entry
	en.mu.Lock()
	began, at := e.clock(), e.now()
	beatCame := en.passive != nil && began < en.beaten+en.spec.Interval+en.passive.Grace()
	if en.removed || en.spec.Paused || beatCame {
		en.mu.Unlock()
		e.schedule.release(j.item)
		return
	}
	spec, checker, passive := en.spec, en.checker, en.passive
	req := sdk.CheckRequest{
		Monitor: reference(spec), Target: spec.Target, Timeout: spec.Timeout, Config: spec.Config, Attempt: 1 + max(0, en.state.BadRun),
	}
	if en.last != nil {
		req.State = en.last.Result.State
	}
	ctx, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	en.cancel = cancel
	beat := en.beat
	en.mu.Unlock()

	e.stats.lateness.observe(began - j.due)
	var result sdk.Result
	if passive != nil {
		result = passive.Missed(beat, at)
	} else {
		var err error
		result, err = e.guard(ctx, checker, req)
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.Canceled) {
			e.schedule.release(j.item)
			return // the engine stops, or the monitor was removed or paused: there is nothing to say of its target
		}
		if err != nil {
			result = sdk.Result{Status: sdk.Unknown, Message: err.Error(), State: req.State}
		}
	}
	e.settle(en, finished{spec: spec, began: began, at: at, result: result})
}

// guard makes a check and turns a panic of the checker into an error: the process and all other checks go on.
func (e *Engine) guard(ctx context.Context, c check.Checker, req sdk.CheckRequest) (r sdk.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.stats.panics.Add(1)
			e.log.Error("checker panicked", "kind", req.Monitor.Kind, "monitor", req.Monitor.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			r, err = sdk.Result{}, fmt.Errorf("the %s check panicked: %v", req.Monitor.Kind, p)
		}
	}()
	return c.Check(ctx, req)
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
	f.result = bounded(f.result)
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.removed {
		return
	}
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
		e.opts.Store.Append(sample)
		return
	}
	en.judged = f.began
	state, v := judge(en.spec, en.state, f.result.Status, tick.Time())
	en.last = &Last{Result: f.result, At: tick.Time()}
	sample.Condition = state.Condition
	e.opts.Store.Append(sample)
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
	r.Message = monitor.CleanText(r.Message, messageBytes)
	if len(r.State) > opaqueBytes {
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
	began, at := e.clock(), e.now()
	en.mu.Lock()
	if en.spec.Paused || en.removed || en.passive == nil {
		en.mu.Unlock()
		return nil
	}
	en.beat, en.beaten = at, began
	spec, passive := en.spec, en.passive
	en.mu.Unlock()
	message := b.Message
	if message == "" {
		message = "heartbeat " + b.Status.String()
	}
	e.settle(en, finished{
		spec: spec, began: began, at: at, beat: true,
		result: passive.Beat(sdk.Result{Status: b.Status, Message: message, Latency: b.Ping}),
	})
	return nil
}
