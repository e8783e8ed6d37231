package engine

import (
	"container/heap"
	"context"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"
)

// schedule says when each monitor is checked. One heap is keyed by the next due time, one timer is armed for its top, and a
// pool of workers that grows to a bound and shrinks when idle makes the checks. All times are monotonic, from the engine's
// birth.
type schedule struct {
	clock func() time.Duration
	wake  chan struct{} // the heap's top came nearer

	mu      sync.Mutex
	queue   itemHeap
	lanes   map[string]*lane
	limits  map[string]int
	ready   fifo[job]
	idle    []*worker
	workers int
	most    int // workers at once
	stopped bool
	moved   time.Duration // when the loop last looked

	group    sync.WaitGroup
	overruns atomic.Int64
	running  atomic.Int64
}

// item is an entry's place in the schedule. Its fields are guarded by the schedule's lock.
type item struct {
	entry    *entry
	kind     string
	interval time.Duration
	anchor   time.Duration // a time of its phase: it is due at anchor + n × interval
	due      time.Duration
	index    int // in the heap; -1 when it is in none
	epoch    int // counts the specs: a check begun under an older one does not keep the next from starting
	running  bool
	passive  bool
	waiting  []chan Last // told of the result of the check under way
}

// job is one check to be made.
type job struct {
	item  *item
	lane  *lane
	epoch int
	due   time.Duration
}

// lane bounds how many checks of one kind run at once, so that one slow kind does not starve the rest.
type lane struct {
	limit   int
	running int
	waiting fifo[job]
}

type worker struct{ jobs chan job }

const (
	idleWorker = 15 * time.Second // a worker that had nothing to do for this long ends
	lookAgain  = time.Second      // the loop looks at least this often, to show that it lives
)

func newSchedule(workers int, limits map[string]int, clock func() time.Duration) *schedule {
	return &schedule{
		clock: clock, wake: make(chan struct{}, 1), lanes: make(map[string]*lane), limits: limits, most: workers,
	}
}

// phase spreads monitors over their interval by a hash of their id, so that neither a start nor a reload makes a burst and a
// restart keeps every monitor's place.
func phase(id string, interval time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // a hash's Write never fails
	x := h.Sum64()
	// FNV's low bits are weak for ids that differ in their last letters; a final mix (MurmurHash3's) spreads them.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(interval))
}

// untilPhase returns how long it is from the wall-clock time now until id's next turn.
func untilPhase(id string, interval time.Duration, now time.Time) time.Duration {
	into := time.Duration(now.UnixNano() % int64(interval))
	wait := phase(id, interval) - into
	if wait < 0 {
		wait += interval
	}
	return wait
}

// run hands out what falls due until ctx ends.
func (s *schedule) run(ctx context.Context, perform func(context.Context, job)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(s.handOut(ctx, perform))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.wake:
		}
	}
	s.mu.Lock()
	s.stopped = true
	for _, w := range s.idle {
		close(w.jobs)
	}
	s.idle = nil
	s.mu.Unlock()
}

// wait waits for the checks under way, at most for patience. It returns how many did not end.
func (s *schedule) wait(patience time.Duration) int {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.group.Wait()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
		return 0
	case <-timer.C:
		return int(s.running.Load())
	}
}

// handOut starts everything that is due and returns how long it is until something is.
func (s *schedule) handOut(ctx context.Context, perform func(context.Context, job)) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	s.moved = now
	for len(s.queue) > 0 && s.queue[0].due <= now {
		it := s.queue[0]
		j := job{item: it, lane: s.lane(it.kind), epoch: it.epoch, due: it.due}
		it.due = it.next(now)
		heap.Fix(&s.queue, 0)
		if it.running {
			s.overruns.Add(1)
			continue
		}
		it.running = true
		s.admit(ctx, j, perform)
	}
	if len(s.queue) == 0 {
		return lookAgain
	}
	return min(s.queue[0].due-now, lookAgain)
}

// next returns the first time of the item's phase after now. A passive one has no phase: it is due an interval later.
func (it *item) next(now time.Duration) time.Duration {
	if it.passive {
		return now + it.interval
	}
	if now < it.anchor {
		return it.anchor
	}
	return now + it.interval - (now-it.anchor)%it.interval
}

// admit gives a job to a worker when its kind has room, else lets it wait for that.
func (s *schedule) admit(ctx context.Context, j job, perform func(context.Context, job)) {
	if j.lane.running >= j.lane.limit {
		j.lane.waiting.push(j)
		return
	}
	j.lane.running++
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle = s.idle[:n-1]
		w.jobs <- j
		return
	}
	if s.workers < s.most {
		s.workers++
		s.group.Go(func() { s.work(ctx, j, perform) })
		return
	}
	s.ready.push(j)
}

func (s *schedule) lane(kind string) *lane {
	l := s.lanes[kind]
	if l == nil {
		limit := s.limits[kind]
		if limit <= 0 {
			limit = max(1, s.most/2)
		}
		l = &lane{limit: limit}
		s.lanes[kind] = l
	}
	return l
}

// work makes checks until there has been none for a while.
func (s *schedule) work(ctx context.Context, j job, perform func(context.Context, job)) {
	w := &worker{jobs: make(chan job, 1)}
	timer := time.NewTimer(idleWorker)
	defer timer.Stop()
	for {
		s.running.Add(1)
		perform(ctx, j)
		s.running.Add(-1)
		next, ok := s.done(j, w)
		if ok {
			j = next
			continue
		}
		timer.Reset(idleWorker)
		select {
		case j, ok = <-w.jobs:
			if !ok {
				return
			}
		case <-timer.C:
			if s.retire(w) {
				return
			}
			if j, ok = <-w.jobs; !ok {
				return
			}
		}
	}
}

// done ends a job and returns the next one for the same worker; false means that the worker is now idle.
func (s *schedule) done(j job, w *worker) (job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.item.epoch == j.epoch {
		j.item.running = false
	}
	l := j.lane
	l.running--
	if s.stopped {
		s.workers--
		close(w.jobs)
		return job{}, false
	}
	if next, ok := l.waiting.pop(); ok {
		l.running++
		s.ready.push(next)
	}
	if next, ok := s.ready.pop(); ok {
		return next, true
	}
	s.idle = append(s.idle, w)
	return job{}, false
}

// retire takes an idle worker out; false says that it was given a job in the meantime.
func (s *schedule) retire(w *worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.idle {
		if s.idle[i] == w {
			s.idle = append(s.idle[:i], s.idle[i+1:]...)
			s.workers--
			return true
		}
	}
	return false
}

// turn is when and how an item is due.
type turn struct {
	kind             string
	passive          bool
	interval, anchor time.Duration
	due              time.Duration // below zero: not at all
}

// put sets when an item is due after its spec changed. A check under way no longer keeps the next from starting.
func (s *schedule) put(it *item, t turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.kind, it.passive, it.interval, it.anchor = t.kind, t.passive, t.interval, t.anchor
	it.epoch++
	it.running = false
	s.place(it, t.due)
	if t.due < 0 {
		it.release()
	}
}

// stale reports whether the spec has changed since the job was handed out, or its item has been removed.
func (s *schedule) stale(j job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return j.epoch != j.item.epoch
}

// move sets when an item is due next; one that is in no heap stays out unless enter is set.
func (s *schedule) move(it *item, due time.Duration, enter bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.index >= 0 || enter {
		s.place(it, due)
	}
}

// hasten makes an item due at due, unless it is due sooner.
func (s *schedule) hasten(it *item, due time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.index >= 0 && due < it.due {
		s.place(it, due)
	}
}

func (s *schedule) remove(it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.epoch++
	s.place(it, -1)
	it.release()
}

// release tells those who wait for the result of a job that there will be none, unless a newer one is on its way.
func (s *schedule) release(j job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.epoch == j.item.epoch {
		j.item.release()
	}
}

func (it *item) release() {
	for _, w := range it.waiting {
		close(w)
	}
	it.waiting = nil
}

// place puts an item where due says and wakes the loop when it became the first.
func (s *schedule) place(it *item, due time.Duration) {
	if due < 0 {
		if it.index >= 0 {
			heap.Remove(&s.queue, it.index)
		}
		return
	}
	it.due = due
	if it.index < 0 {
		heap.Push(&s.queue, it)
	} else {
		heap.Fix(&s.queue, it.index)
	}
	if s.queue[0] == it {
		select {
		case s.wake <- struct{}{}:
		default: // the loop will look anyway
		}
	}
}

// await returns a channel that gets the result of the check under way, or of one that begins now. The channel is closed
// without a result when the monitor is or gets paused or removed.
func (s *schedule) await(it *item) <-chan Last {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := make(chan Last, 1)
	if !it.running && it.index < 0 {
		close(result) // it was paused or removed
		return result
	}
	it.waiting = append(it.waiting, result)
	if !it.running {
		s.place(it, s.clock())
	}
	return result
}

// tell hands a result to those who wait for it.
func (s *schedule) tell(it *item, last Last) {
	s.mu.Lock()
	waiting := it.waiting
	it.waiting = nil
	s.mu.Unlock()
	for _, w := range waiting {
		w <- last
	}
}

// stuck returns for how long the loop has not looked at what is due.
func (s *schedule) stuck() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock() - s.moved
}

// depth returns how many jobs wait for a worker or for room in their kind, and how many workers there are.
func (s *schedule) depth() (waiting, workers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting = s.ready.len()
	for _, l := range s.lanes {
		waiting += l.waiting.len()
	}
	return waiting, s.workers
}

// itemHeap orders items by due time (container/heap).
type itemHeap []*item

func (h itemHeap) Len() int           { return len(h) }
func (h itemHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h itemHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *itemHeap) Push(x any) {
	it := x.(*item) //nolint:forcetypeassert // container/heap's interface; only items are pushed
	it.index = len(*h)
	*h = append(*h, it)
}

func (h *itemHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.index = -1
	return it
}

// fifo is a queue that gives back the room of what was taken.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

// first returns the item that pop would take; the queue must not be empty.
func (q *fifo[T]) first() *T { return &q.items[q.head] }

func (q *fifo[T]) push(x T) { q.items = append(q.items, x) }

func (q *fifo[T]) pop() (T, bool) {
	var zero T
	if q.head == len(q.items) {
		return zero, false
	}
	x := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	} else if q.head > 1024 && q.head > len(q.items)/2 {
		q.items = append([]T(nil), q.items[q.head:]...)
		q.head = 0
	}
	return x, true
}
