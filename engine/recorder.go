package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// recorder brings transitions into the store without a check ever waiting for it. Those of one monitor form a chain and go in
// order; several chains go side by side, so that the store can write them together. What the store does not take is tried
// again until it does, and holds up nothing but its own chain; that it may have been written by a try that seemed to fail
// does no harm.
type recorder struct {
	store Store
	log   *slog.Logger
	done  func(monitor.Transition)

	mu     sync.Mutex
	more   *sync.Cond // ready or closed changed, or the context ended
	chains map[uint32]*chain
	ready  fifo[*chain]
	count  int // transitions that are not recorded
	closed bool

	complained time.Time // when it was last logged that the store does not take them
}

// chain is what waits of one monitor. It is in ready, with a worker, or waits for its next try.
type chain struct {
	series uint32
	queue  fifo[monitor.Transition]
	wait   time.Duration // before the next try; 0 while all goes well
}

const (
	recordWorkers   = 32
	recordTimeout   = 30 * time.Second // for one write
	recordFirstWait = 100 * time.Millisecond
	recordMostWait  = 5 * time.Second
)

func newRecorder(store Store, log *slog.Logger, done func(monitor.Transition)) *recorder {
	r := &recorder{store: store, log: log, done: done, chains: make(map[uint32]*chain)}
	r.more = sync.NewCond(&r.mu)
	return r
}

// add takes a transition of a series. It never blocks.
func (r *recorder) add(series uint32, t monitor.Transition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	c := r.chains[series]
	if c == nil {
		c = &chain{series: series}
		r.chains[series] = c
		r.ready.push(c)
		r.more.Signal()
	}
	c.queue.push(t)
}

// close lets run end once everything is recorded.
func (r *recorder) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.more.Broadcast()
}

// waiting returns how many transitions are not yet recorded.
func (r *recorder) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// run records until close has been called and everything is recorded, or ctx ends.
func (r *recorder) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.more.Broadcast()
	})()
	var group sync.WaitGroup
	for range recordWorkers {
		group.Go(func() {
			for {
				c, t, ok := r.take(ctx)
				if !ok {
					return
				}
				once, cancel := context.WithTimeout(ctx, recordTimeout)
				err := r.store.Record(once, t)
				cancel()
				if err == nil {
					r.done(t)
				}
				r.settle(ctx, c, t, err)
			}
		})
	}
	group.Wait()
}

// take waits for a chain and returns its first transition, which stays in it until it is settled.
func (r *recorder) take(ctx context.Context) (*chain, monitor.Transition, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ctx.Err() == nil {
		if c, ok := r.ready.pop(); ok {
			return c, *c.queue.first(), true
		}
		if r.closed && r.count == 0 {
			break
		}
		r.more.Wait()
	}
	return nil, monitor.Transition{}, false
}

// settle says what becomes of a chain after a try.
func (r *recorder) settle(ctx context.Context, c *chain, t monitor.Transition, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
	case errors.Is(err, monitor.ErrConflict): // no later try can be better, and others wait behind it
		r.log.Error("transition was refused and is lost", "monitor", t.State.MonitorID, "condition", t.State.Condition.String(), "error", err)
	case errors.Is(err, monitor.ErrClosed) || ctx.Err() != nil:
		r.log.Error("transition was lost: the server stops and the store did not take it", "monitor", t.State.MonitorID,
			"condition", t.State.Condition.String(), "error", err)
	default:
		c.wait = min(max(2*c.wait, recordFirstWait), recordMostWait)
		if now := time.Now(); now.Sub(r.complained) >= time.Minute {
			r.complained = now
			r.log.Error("the store does not take transitions; they wait in memory", "waiting", r.count, "monitor", t.State.MonitorID, "error", err)
		}
		time.AfterFunc(c.wait, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ready.push(c)
			r.more.Signal()
		})
		return
	}
	c.wait = 0
	c.queue.pop()
	r.count--
	if c.queue.len() > 0 {
		r.ready.push(c)
		r.more.Signal()
		return
	}
	delete(r.chains, c.series)
	if r.count == 0 && r.closed {
		r.more.Broadcast()
	}
}
