package store

import (
	"context"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

const (
	upkeepEvery = time.Second           // how often the writer looks whether there is upkeep to do
	sliceTime   = 20 * time.Millisecond // what one slice of upkeep should take
	sliceStart  = 1000                  // rows of the first slice
	sliceLeast  = 50
	sliceMost   = 20000
	sealGrace   = time.Minute // after an hour's end, for results that come late
)

// slice is how many rows a slice of upkeep changes; it adapts, so that a slice takes about sliceTime.
type slice struct{ rows int }

func (l *slice) size() int {
	if l.rows == 0 {
		l.rows = sliceStart
	}
	return l.rows
}

// took adapts the size after a slice of n rows.
func (l *slice) took(n int, d time.Duration) {
	if n < l.rows/2 {
		return
	}
	next := sliceMost
	if d > 0 {
		next = int(float64(n) * float64(sliceTime) / float64(d))
	}
	l.rows = min(max(next, l.rows/4, sliceLeast), 2*l.rows, sliceMost)
}

// upkeep is what the writer does between batches: sealing, pruning, and saying what was dropped.
type upkeep struct {
	checkAt   time.Time // when to look again for an hour to seal
	retryAt   time.Time // after a failure
	pruneAt   time.Time
	reportAt  time.Time
	reported  int64 // drops already reported
	reportedL int64 // late samples already reported
	sealing   []uint32
	hour      uint32 // that is being sealed
	seal      slice
	clear     slice
	clearing  bool // hot rows of sealed hours are there
	prune     *pruning
	pruneSize slice
	waiting   []chan<- error // of Maintain
}

func (u *upkeep) begin(now time.Time) {
	u.checkAt, u.pruneAt, u.reportAt = now, now.Add(time.Minute), now
	u.clearing = true
}

// upkeep does one slice of what is due and reports whether there is more.
func (s *Store) upkeep(ctx context.Context) bool {
	u := &s.upkeepPlan
	select {
	case err := <-s.rebuildDone:
		s.adoptHeads(err)
		close(s.ready)
	default:
	}
	now := s.now()
	s.reportDrops(now)
	if !s.rebuilt.Load() || !reached(now, u.retryAt, time.Minute) {
		return false
	}
	more, err := s.upkeepSlice(ctx, now)
	if err != nil {
		if ctx.Err() == nil {
			s.stats.retries.Add(1)
			s.complain("seal or prune", err)
		}
		u.retryAt = now.Add(5 * time.Second)
		u.tell(err)
		return false
	}
	if !more {
		u.tell(nil)
	}
	return more
}

// reached reports whether a time has come. A clock that was set back must not put it off: no time is further away than most.
func reached(now, at time.Time, most time.Duration) bool {
	return !now.Before(at) || at.Sub(now) > most
}

func (s *Store) upkeepSlice(ctx context.Context, now time.Time) (bool, error) {
	u := &s.upkeepPlan
	if len(u.sealing) == 0 && reached(now, u.checkAt, 2*sealGrace) {
		s.planSeal(now)
	}
	switch {
	case len(u.sealing) > 0:
		return true, s.sealSlice(ctx)
	case u.clearing:
		return true, s.clearSlice(ctx)
	case u.prune == nil && reached(now, u.pruneAt, max(s.opts.PruneEvery, time.Minute)):
		u.prune = &pruning{now: now}
		u.pruneAt = now.Add(s.opts.PruneEvery)
	}
	if u.prune != nil {
		return s.pruneSlice(ctx)
	}
	return false, nil
}

// reportDrops notes once a minute how many samples were not stored: because the lane was full, or because their hour had
// been sealed already, as after a clock was set back.
func (s *Store) reportDrops(now time.Time) {
	u := &s.upkeepPlan
	dropped, late := s.queue.dropped.Load(), s.stats.late.Load()
	if dropped == u.reported && late == u.reportedL || !reached(now, u.reportAt, time.Minute) {
		return
	}
	s.log.Warn("store: samples were dropped", "lane_full", dropped-u.reported, "too_late", late-u.reportedL)
	u.reported, u.reportedL, u.reportAt = dropped, late, now.Add(time.Minute)
}

// Maintain seals every hour that has ended and prunes, now instead of when the timers say so, and returns when both are done.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.awaitHeads(ctx); err != nil {
		return wrap("maintain", err)
	}
	done := make(chan error, 1)
	err := s.do(ctx, "maintain", func(_ context.Context, t *tx) error {
		t.then(func() { s.upkeepPlan.hurry(done) })
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err = <-done:
		return wrap("maintain", err)
	case <-s.writerDone:
		return wrap("maintain", monitor.ErrClosed)
	case <-ctx.Done():
		return wrap("maintain", ctx.Err())
	}
}

// hurry makes everything due and has done told once it is over.
func (u *upkeep) hurry(done chan<- error) {
	u.checkAt, u.pruneAt, u.retryAt = time.Time{}, time.Time{}, time.Time{}
	u.waiting = append(u.waiting, done)
}

func (u *upkeep) tell(err error) {
	for _, done := range u.waiting {
		done <- err
	}
	u.waiting = nil
}
