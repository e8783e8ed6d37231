package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Limits of one transaction.
const (
	batchRows  = 2000                 // samples
	batchMusts = 256                  // must writes
	batchTime  = 5 * time.Millisecond // how long samples alone are gathered
)

// The states of a must write. A caller whose context ends withdraws a write that is still queued.
const (
	mustQueued int32 = iota
	mustBegun
	mustWithdrawn
)

// must is one write of the must lane: it runs in a savepoint of its own, and its caller waits for done.
type must struct {
	op    string
	ctx   context.Context //nolint:containedctx // The caller's: it lives no longer than the call that waits for done.
	run   func(ctx context.Context, t *tx) error
	after uint64 // how many samples had been enqueued before it
	state atomic.Int32
	done  chan struct{}
	err   error // once done is closed
}

// touch is the last use of a token.
type touch struct {
	token string
	at    time.Time
}

// lane is what the samples lane carries.
type lane struct {
	samples []monitor.Sample
	logs    []monitor.LogLine
	healths []monitor.Health
	touches []touch
	opaques map[uint32]monitor.Opaque // by series: only the newest of each is written
}

func (l *lane) len() int {
	return len(l.samples) + len(l.logs) + len(l.healths) + len(l.touches) + len(l.opaques)
}

// batch is what one transaction writes.
type batch struct {
	lane
	musts []*must
}

// queue holds what waits for the writer. Both lanes share one lock, so that what came first is known.
type queue struct {
	mu      sync.Mutex
	lane    lane
	musts   []*must
	pushed  uint64 // samples ever enqueued
	taken   uint64 // samples ever taken
	limit   int
	closed  bool
	wake    chan struct{}
	dropped atomic.Int64 // writes of the samples lane that found it full
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// room reports whether the samples lane takes one more write; the lock must be held.
func (q *queue) room() bool {
	if q.closed {
		return false
	}
	if q.lane.len() >= q.limit {
		q.dropped.Add(1)
		return false
	}
	return true
}

func (q *queue) pushSample(s monitor.Sample) bool {
	q.mu.Lock()
	if !q.room() {
		q.mu.Unlock()
		return false
	}
	q.lane.samples = append(q.lane.samples, s)
	q.pushed++
	n := len(q.lane.samples)
	q.mu.Unlock()
	if n == 1 || n == batchRows {
		q.signal()
	}
	return true
}

// pushOther enqueues what add appends to the samples lane.
func (q *queue) pushOther(add func(*lane)) bool {
	q.mu.Lock()
	ok := q.room()
	if ok {
		add(&q.lane)
	}
	q.mu.Unlock()
	if ok {
		q.signal()
	}
	return ok
}

func (q *queue) pushMust(m *must) error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return monitor.ErrClosed
	}
	m.after = q.pushed
	q.musts = append(q.musts, m)
	q.mu.Unlock()
	q.signal()
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

// lengths returns how many writes wait in each lane.
func (q *queue) lengths() (musts, samples int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.musts), q.lane.len()
}

// next waits until there is something to commit, or it is woken, at most for idle, and puts it into b. It returns false once the queue is
// closed and empty. Samples alone are gathered for batchTime; with gather false, what is there is taken at once.
func (q *queue) next(b *batch, idle time.Duration, gather bool) bool {
	var timeout <-chan time.Time
	var gathering, woken bool
	for {
		q.mu.Lock()
		full := len(q.musts) > 0 || len(q.lane.samples) >= batchRows || q.closed
		some := q.lane.len() > 0
		if full || some && !gather || !some && (woken || idle == 0) {
			more := q.take(b)
			q.mu.Unlock()
			return more
		}
		q.mu.Unlock()
		if some && !gathering {
			gathering, timeout = true, time.After(batchTime)
		} else if timeout == nil {
			timeout = time.After(idle)
		}
		select {
		case <-q.wake:
			woken = true
		case <-timeout:
			q.mu.Lock()
			more := q.take(b)
			q.mu.Unlock()
			return more
		}
	}
}

// take moves the next batch out of the queue; the lock must be held. A must write goes with all samples enqueued before it,
// or waits until those have gone.
func (q *queue) take(b *batch) bool {
	n := min(len(q.lane.samples), batchRows)
	b.samples = append(b.samples[:0], q.lane.samples[:n]...)
	clear(q.lane.samples[:n])
	if n == len(q.lane.samples) {
		q.lane.samples = q.lane.samples[:0]
	} else {
		q.lane.samples = q.lane.samples[n:]
	}
	q.taken += uint64(n)
	b.logs = takeSome(b.logs, &q.lane.logs)
	b.healths = takeSome(b.healths, &q.lane.healths)
	b.touches = takeSome(b.touches, &q.lane.touches)
	b.opaques = takeOpaques(b.opaques, q.lane.opaques)
	clear(b.musts)
	b.musts = b.musts[:0]
	i := 0
	for ; i < len(q.musts) && i < batchMusts && q.musts[i].after <= q.taken; i++ {
		b.musts = append(b.musts, q.musts[i])
	}
	rest := copy(q.musts, q.musts[i:])
	clear(q.musts[rest:])
	q.musts = q.musts[:rest]
	return !q.closed || b.len() > 0 || len(b.musts) > 0 || q.lane.len() > 0 || len(q.musts) > 0
}

func takeSome[T any](into []T, from *[]T) []T {
	const most = 500
	n := min(len(*from), most)
	into = append(into[:0], (*from)[:n]...)
	rest := copy(*from, (*from)[n:])
	clear((*from)[rest:])
	*from = (*from)[:rest]
	return into
}
