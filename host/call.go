package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tocsinhq/tocsin/host/process"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
	wire "github.com/tocsinhq/tocsin/sdk/process"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// Checker gives the checker of a monitor whose kind is the plugin. The error says why there is none now. The checker follows
// the plugin: it runs whatever build is active, and refuses while the plugin cannot be used.
func (h *Host) Checker(name string) (sdk.Checker, error) {
	p, err := h.usable(name, "check")
	if err != nil {
		return nil, err
	}
	return &checking{p}, nil
}

// Notifier gives the notifier of a channel whose provider is the plugin, with the channel's configuration.
func (h *Host) Notifier(name string, config json.RawMessage) (sdk.Notifier, error) {
	p, err := h.usable(name, "notify")
	if err != nil {
		return nil, err
	}
	return &notifying{p, config}, nil
}

// CheckTarget says what is wrong with a target that no call of the plugin could reach. It is nil when the plugin asks to
// reach no target, or is not there.
func (h *Host) CheckTarget(name, target string) error {
	p, err := h.lookup(name)
	if err != nil {
		return nil //nolint:nilerr // that is told by whoever looks for the plugin
	}
	p.mu.Lock()
	asks := p.manifest.Asks
	p.mu.Unlock()
	return reach.CheckTarget(asks, target)
}

// usable finds a plugin that can be used for a call, and has its runner started ahead of the first one.
func (h *Host) usable(name, call string) (*plugin, error) {
	p, err := h.lookup(name)
	if err != nil {
		return nil, err
	}
	if err := p.refusal(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	provides := p.manifest.Provided(call)
	p.mu.Unlock()
	if !provides {
		return nil, fmt.Errorf("plugin %s does not provide %s", name, call)
	}
	return p, nil
}

// Warm has the runner of a plugin started ahead of its first call. It does not wait.
func (h *Host) Warm(name string) {
	if p, err := h.lookup(name); err == nil {
		// Why it cannot be started is told to the first call.
		_, _ = p.runnerFor("")
	}
}

type checking struct{ p *plugin }

var _ sdk.Checker = (*checking)(nil)

// Check makes one check. It keeps the request's timeout itself, from when a runner is ready: a runner that starts counts
// neither against the deadline nor into the latency, so Check may return after the deadline of ctx. It heeds the
// cancellation of ctx.
func (c *checking) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	var result sdk.Result
	err := c.p.call(ctx, work{
		monitor: req.Monitor.ID, name: req.Monitor.Name, timeout: req.Timeout, again: true,
		fill: reach.Call{Target: req.Target, Config: req.Config},
		do: func(ctx context.Context, r *child, id uint64, left time.Duration) (*proto.Report, error) {
			inner := req
			inner.Timeout = left
			message := wire.CheckRequestToProto(inner)
			message.Call = id
			began := time.Now()
			answer, err := r.proc.Check(ctx, message)
			if err != nil {
				return nil, err
			}
			parsed, err := wire.CheckResponseFromProto(answer)
			if err == nil {
				result = parsed.Result
				if result.Latency == 0 {
					result.Latency = time.Since(began)
				}
			}
			return answer.GetReport(), err
		},
	})
	return result, err
}

type notifying struct {
	p      *plugin
	config json.RawMessage
}

var _ sdk.Notifier = (*notifying)(nil)

// notifyTimeout is the time of a notification when its context has no deadline.
const notifyTimeout = 30 * time.Second

// Notify delivers one notification. Whatever stops it on the way is an error that the outbox tries again.
func (n *notifying) Notify(ctx context.Context, note sdk.Notification) error {
	timeout := notifyTimeout
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	return n.p.call(ctx, work{
		monitor: "notifications", name: "notifications", timeout: timeout, fill: reach.Call{Config: n.config},
		do: func(ctx context.Context, r *child, id uint64, left time.Duration) (*proto.Report, error) {
			message := wire.NotifyRequestToProto(sdk.NotifyRequest{Config: n.config, Notification: note, Timeout: left})
			message.Call = id
			answer, err := r.proc.Notify(ctx, message)
			if err != nil {
				return nil, err
			}
			parsed, err := wire.NotifyResponseFromProto(answer)
			if err == nil {
				err = parsed.Err
			}
			return answer.GetReport(), err
		},
	})
}

// work is one call, whatever it is.
type work struct {
	monitor, name string // whose call it is: id and name
	timeout       time.Duration
	fill          reach.Call
	again         bool // it may be made again when its runner was stopped because of something else
	do            func(ctx context.Context, r *child, id uint64, left time.Duration) (*proto.Report, error)
}

// errInterrupted is the fate of a call whose runner ended because of something else.
var errInterrupted = errors.New("its runner was stopped because of another call")

// call makes a call and sees to it that it ends.
func (p *plugin) call(ctx context.Context, w work) error {
	ctx, release := untilCancelled(ctx)
	defer release()
	p.note(w.monitor)
	if w.timeout <= 0 { // it would be stopped for what it never had
		return fmt.Errorf("plugin %s: no time is left: %w", p.name, context.DeadlineExceeded)
	}
	p.mu.Lock()
	w.timeout = min(w.timeout, time.Duration(p.limits().Timeout))
	slots, apart := p.slots, p.setApart(w.monitor)
	hide := &mask{schema: p.schema, config: w.fill.Config}
	p.mu.Unlock()
	if !apart {
		if err := p.slot(ctx, slots, w.timeout); err != nil {
			return err
		}
		defer func() { <-slots }()
	}
	p.tally.running.Add(1)
	err := p.attempt(ctx, w, hide)
	if w.again && errors.Is(err, errInterrupted) {
		err = p.attempt(ctx, w, hide)
	}
	p.tally.running.Add(-1)
	p.tally.calls.Add(1)
	if err != nil {
		p.tally.failures.Add(1)
	}
	return err
}

// slot waits for one of the calls that may be under way at the same time.
func (p *plugin) slot(ctx context.Context, slots chan struct{}, patience time.Duration) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("plugin %s is busy: %d calls at the same time are its limit", p.name, cap(slots))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note remembers who uses the plugin, and how often it is called.
func (p *plugin) note(id string) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users[id] = now
	if !p.called.IsZero() {
		p.longest = max(p.longest-p.longest/8, min(now.Sub(p.called), 2*24*time.Hour)) // a pause is forgotten in time
	}
	p.called = now
}

// untilCancelled gives a context that ends when ctx is cancelled, but not with its deadline: a plugin's deadline is its own.
// Release it.
func untilCancelled(ctx context.Context) (context.Context, func()) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) { // whatever the cause
			cancel()
		}
	})
	return inner, func() {
		stop()
		cancel()
	}
}

// attempt makes a call once. The context ends only when nobody waits for the call any more.
func (p *plugin) attempt(ctx context.Context, w work, hide *mask) error {
	c, k, id, err := p.enter(ctx, w, hide)
	if err != nil {
		return err
	}
	killer := time.AfterFunc(w.timeout+killAfter, func() { c.kill(errDeadline, k) })
	began := time.Now()
	report, err := w.do(ctx, c, id, time.Until(k.deadline))
	p.tally.latency.Add(int64(time.Since(began)))
	killer.Stop()
	if errors.Is(err, process.ErrEnded) {
		<-c.over // who was under way when it ended is looked at before this call leaves
	}
	c.leave(id)
	if ctx.Err() != nil {
		// The guest goes on, and nobody can tell when it ends: its runner takes no more calls and ends with the others.
		p.mu.Lock()
		p.drop(c)
		p.mu.Unlock()
		c.retire()
		return ctx.Err()
	}
	p.report(report, k)
	return p.judged(c, k, err)
}

// entries is how many runners a call tries to enter. Each may be retired just before.
const entries = 5

// enter waits for a runner and makes the call one of those under way in it.
func (p *plugin) enter(ctx context.Context, w work, hide *mask) (c *child, k *call, id uint64, err error) {
	for range entries {
		if c, err = p.ready(ctx, w.monitor); errors.Is(err, errInterrupted) {
			continue
		} else if err != nil {
			return nil, nil, 0, err
		}
		k = &call{monitor: w.monitor, name: w.name, fill: w.fill, deadline: ioDeadline(time.Now().Add(w.timeout), w.timeout), mask: hide}
		id = p.host.calls.Add(1)
		if c.enter(id, k) {
			return c, k, id, nil
		}
	}
	return nil, nil, 0, fmt.Errorf("plugin %s: %w", p.name, errInterrupted)
}

// ioDeadline is when a guest's input, output and sleep end, so that it still has time to say so.
func ioDeadline(deadline time.Time, timeout time.Duration) time.Time {
	return deadline.Add(-min(timeout/10, 500*time.Millisecond))
}

// ready waits for the runner of a monitor.
func (p *plugin) ready(ctx context.Context, id string) (*child, error) {
	c, err := p.runnerFor(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c.fault == nil {
		return c, nil
	}
	switch cause := c.ending(); {
	case errors.Is(cause, errStopping):
		return nil, fmt.Errorf("plugin %s: %w", p.name, cause)
	case errors.Is(cause, errRetired):
		return nil, fmt.Errorf("plugin %s: %w (%w)", p.name, errInterrupted, cause)
	}
	return nil, fmt.Errorf("start plugin %s: %w", p.name, c.fault)
}

// judged says what came of a call: the error of the plugin, or why its runner ended under it.
func (p *plugin) judged(c *child, k *call, err error) error {
	if err == nil {
		p.failed.succeed()
		return nil
	}
	if !errors.Is(err, process.ErrEnded) {
		return fmt.Errorf("plugin %s: %w", p.name, masked{err, k.mask})
	}
	c.mu.Lock()
	cause, guilty := c.cause, c.guilty
	c.mu.Unlock()
	switch {
	case guilty == k:
		return fmt.Errorf("plugin %s %w", p.name, cause)
	case errors.Is(cause, errStopping):
		return fmt.Errorf("plugin %s: %w", p.name, cause)
	}
	return fmt.Errorf("plugin %s: %w (%w)", p.name, errInterrupted, cause)
}

// mostBytes is what is believed of a runner that tells how many bytes a call sent or received.
const mostBytes = 1 << 40

// report takes what the runner adds to an answer.
func (p *plugin) report(r *proto.Report, k *call) {
	if r == nil {
		return
	}
	p.tally.read.Add(min(r.GetBytesRead(), mostBytes))
	p.tally.written.Add(min(r.GetBytesWritten(), mostBytes))
	if p.host.hear == nil && !p.host.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	said := wire.ReportFromProto(r)
	for _, line := range said.Log {
		if p.host.hear != nil {
			p.host.hear(line.Level, line.Text)
		}
		p.host.log.Debug("a plugin says", "plugin", p.name, "monitor", k.name, "level", line.Level.String(), "text", k.mask.Replace(line.Text))
	}
	for _, note := range said.Notes {
		if p.host.hear != nil {
			p.host.hear(slog.LevelWarn, note)
		}
		p.host.log.Debug("about a plugin's answer", "plugin", p.name, "monitor", k.name, "text", k.mask.Replace(note))
	}
}

// masked is an error whose text has no secrets of the call.
type masked struct {
	error
	mask *mask
}

func (m masked) Error() string { return m.mask.Replace(m.error.Error()) }
func (m masked) Unwrap() error { return m.error }
