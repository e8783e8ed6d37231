package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// recorder brings transitions into the store without a check ever waiting for it. Those of one monitor go in order; those of
// different monitors go side by side, so that the store can write them together. What the store does not take is tried
// again until it does.
type recorder struct {
	store  Store
	log    *slog.Logger
	done   func(monitor.Transition)
	shards [recordShards]recordShard
}

const (
	recordShards    = 32
	recordTimeout   = 30 * time.Second // for one write
	recordFirstWait = 100 * time.Millisecond
	recordMostWait  = 5 * time.Second
)

type recordShard struct {
	mu     sync.Mutex
	queue  fifo[monitor.Transition]
	busy   bool
	closed bool
	more   chan struct{}
}

func newRecorder(store Store, log *slog.Logger, done func(monitor.Transition)) *recorder {
	r := &recorder{store: store, log: log, done: done}
	for i := range r.shards {
		r.shards[i].more = make(chan struct{}, 1)
	}
	return r
}

// add takes a transition of a series. It never blocks.
func (r *recorder) add(series uint32, t monitor.Transition) {
	s := &r.shards[series%recordShards]
	s.mu.Lock()
	s.queue.push(t)
	s.mu.Unlock()
	s.wake()
}

func (s *recordShard) wake() {
	select {
	case s.more <- struct{}{}:
	default: // it has been told already
	}
}

// close lets run end once everything is recorded.
func (r *recorder) close() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.wake()
	}
}

// waiting returns how many transitions are not yet recorded.
func (r *recorder) waiting() int {
	n := 0
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += s.queue.len()
		if s.busy {
			n++
		}
		s.mu.Unlock()
	}
	return n
}

// run records until close has been called and everything is recorded, or ctx ends.
func (r *recorder) run(ctx context.Context) {
	var group sync.WaitGroup
	for i := range r.shards {
		group.Go(func() { r.work(ctx, &r.shards[i]) })
	}
	group.Wait()
}

func (r *recorder) work(ctx context.Context, s *recordShard) {
	for {
		s.mu.Lock()
		t, ok := s.queue.pop()
		s.busy = ok
		closed := s.closed
		s.mu.Unlock()
		if ok {
			if !r.record(ctx, t) {
				return
			}
			continue
		}
		if closed {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-s.more:
		}
	}
}

// record writes one transition, again and again until it is in; false when ctx ended first.
func (r *recorder) record(ctx context.Context, t monitor.Transition) bool {
	wait := recordFirstWait
	for {
		once, cancel := context.WithTimeout(ctx, recordTimeout)
		err := r.store.Record(once, t)
		cancel()
		switch {
		case err == nil, errors.Is(err, monitor.ErrConflict) && t.Event != nil: // the event is in: an earlier try did reach the disk
			r.done(t)
			return true
		case errors.Is(err, monitor.ErrConflict), errors.Is(err, monitor.ErrNotFound):
			r.log.Warn("transition was refused", "monitor", t.State.MonitorID, "error", err)
			return true
		case errors.Is(err, monitor.ErrClosed), ctx.Err() != nil:
			r.log.Error("transition was lost: the store is closed", "monitor", t.State.MonitorID, "condition", t.State.Condition.String())
			return false
		}
		r.log.Error("transition is not recorded yet", "monitor", t.State.MonitorID, "error", err, "retry_in", wait.String())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
		wait = min(2*wait, recordMostWait)
	}
}
