package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// tx is the transaction that a must write runs in.
type tx struct {
	bun.IDB
	store   *Store
	rows    []sampleRow // the samples that the same transaction has inserted
	effects []func()    // what memory does once the transaction is committed, in order
}

// then has memory follow once the transaction is committed; it is forgotten when the write is rolled back.
func (t *tx) then(f func()) { t.effects = append(t.effects, f) }

// do enqueues a must write and waits until it is committed, has failed, or ctx ends: before its batch began, the write is
// withdrawn; after that, the error is monitor.ErrUncertain.
func (s *Store) do(ctx context.Context, op string, run func(ctx context.Context, t *tx) error) error {
	if err := ctx.Err(); err != nil {
		return wrap(op, err)
	}
	m := &must{op: op, ctx: ctx, run: run, done: make(chan struct{})}
	if err := s.queue.pushMust(m); err != nil {
		return wrap(op, err)
	}
	select {
	case <-m.done:
		return wrap(op, m.err)
	case <-ctx.Done():
	}
	if m.state.CompareAndSwap(mustQueued, mustWithdrawn) {
		return wrap(op, ctx.Err())
	}
	select {
	case <-m.done:
		return wrap(op, m.err)
	default:
		return fmt.Errorf("%s: %w: %w", op, monitor.ErrUncertain, ctx.Err())
	}
}

// write is the writer: the one goroutine that changes the database. It ends once the queue is closed and empty, or halt ends.
func (s *Store) write(halt context.Context) {
	defer close(s.writerDone)
	var b batch
	more := false
	for {
		idle := upkeepEvery
		if more {
			idle = 0
		}
		if !s.queue.next(&b, idle, !more) {
			return
		}
		if b.len() > 0 || len(b.musts) > 0 {
			s.commit(halt, &b)
		}
		if halt.Err() != nil {
			s.abandon(&b)
			return
		}
		more = s.upkeep(halt)
	}
}

// commit writes a batch and tells the callers. It tries again, with growing pauses, as long as the reason can pass.
func (s *Store) commit(halt context.Context, b *batch) {
	b.musts = beginMusts(b.musts)
	if b.len() == 0 && len(b.musts) == 0 {
		return
	}
	s.batchSince.Store(time.Now().UnixNano())
	defer s.batchSince.Store(0)
	defer s.trouble.Store(nil)
	s.commitBegun(halt, b)
}

// commitBegun is commit for writes that can no longer be withdrawn.
func (s *Store) commitBegun(halt context.Context, b *batch) {
	pause := 10 * time.Millisecond
	for halt.Err() == nil && b.len()+len(b.musts) > 0 {
		err := s.try(halt, b)
		switch {
		case err == nil:
			return
		case halt.Err() != nil:
		case !isTransient(err):
			s.split(halt, b, err)
			return
		default:
			s.stats.retries.Add(1)
			s.complain("commit", err)
			why := wrap("commit", err).Error()
			s.trouble.Store(&why)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-halt.Done():
			}
			timer.Stop()
			pause = min(2*pause, time.Second)
			b.musts = dropAbandoned(b.musts)
		}
	}
	s.lose(b)
}

// beginMusts marks the writes as begun and leaves out those that were withdrawn.
func beginMusts(musts []*must) []*must {
	kept := musts[:0]
	for _, m := range musts {
		if m.state.CompareAndSwap(mustQueued, mustBegun) {
			kept = append(kept, m)
		}
	}
	return kept
}

// dropAbandoned leaves out the writes whose callers have gone: nothing of them is committed, and they were told that it is
// uncertain.
func dropAbandoned(musts []*must) []*must {
	kept := musts[:0]
	for _, m := range musts {
		if err := m.ctx.Err(); err != nil {
			m.finish(err)
			continue
		}
		kept = append(kept, m)
	}
	return kept
}

func (m *must) finish(err error) {
	m.err = err
	close(m.done)
}

// try writes a batch in one transaction. When it returns an error nothing of it is committed and nobody has been told.
func (s *Store) try(ctx context.Context, b *batch) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.release()
	began := time.Now()
	if err := c.begin(ctx, len(b.musts) > 0); err != nil {
		return err
	}
	t, verdicts, rows, err := s.fill(ctx, c, b)
	if err == nil {
		err = c.exec(ctx, "COMMIT")
	}
	if err != nil {
		if undo := c.rollback(); undo != nil {
			s.discard(undo)
		}
		return err
	}
	s.dirty.Store(true)
	s.stats.committed(time.Since(began))
	s.applied(rows)
	for _, f := range t.effects {
		f()
	}
	for i, m := range b.musts {
		m.finish(verdicts[i])
	}
	return nil
}

// fill runs all writes of a batch in the transaction that has begun.
func (s *Store) fill(ctx context.Context, c *conn, b *batch) (*tx, []error, *prepared, error) {
	rows := s.prepare(b.samples)
	t := &tx{IDB: c.bun, store: s, rows: rows.rows}
	if err := c.insertSamples(ctx, rows); err != nil {
		return t, nil, rows, err
	}
	if err := s.insertLane(ctx, c, &b.lane); err != nil {
		return t, nil, rows, err
	}
	verdicts := make([]error, len(b.musts))
	for i, m := range b.musts {
		if err := c.exec(ctx, "SAVEPOINT one"); err != nil {
			return t, nil, rows, err
		}
		effects := len(t.effects)
		verdict := m.run(ctx, t)
		if verdict != nil {
			if isTransient(verdict) || ctx.Err() != nil {
				return t, nil, rows, verdict
			}
			t.effects = t.effects[:effects]
			if err := c.exec(ctx, "ROLLBACK TO one"); err != nil {
				return t, nil, rows, err
			}
		}
		if err := c.exec(ctx, "RELEASE one"); err != nil {
			return t, nil, rows, err
		}
		verdicts[i] = verdict
	}
	return t, verdicts, rows, nil
}

// split writes what a batch of which something cannot be written holds: samples in ever smaller parts until the poisoned one
// is alone, which is counted and logged, the rest one by one.
func (s *Store) split(halt context.Context, b *batch, cause error) {
	if b.len()+len(b.musts) == 1 || isDamage(cause) {
		s.refused(b, cause)
		return
	}
	var parts []batch
	if n := len(b.samples); n > 0 && len(b.logs)+len(b.healths)+len(b.touches)+len(b.opaques)+len(b.musts) == 0 {
		parts = append(parts, batch{lane: lane{samples: b.samples[:n/2]}}, batch{lane: lane{samples: b.samples[n/2:]}})
	} else {
		parts = append(parts, batch{lane: lane{samples: b.samples}})
		for i := range b.logs {
			parts = append(parts, batch{lane: lane{logs: b.logs[i : i+1]}})
		}
		for i := range b.healths {
			parts = append(parts, batch{lane: lane{healths: b.healths[i : i+1]}})
		}
		for i := range b.touches {
			parts = append(parts, batch{lane: lane{touches: b.touches[i : i+1]}})
		}
		for series, o := range b.opaques {
			parts = append(parts, batch{lane: lane{opaques: map[uint32]monitor.Opaque{series: o}}})
		}
		for i := range b.musts {
			parts = append(parts, batch{musts: b.musts[i : i+1]})
		}
	}
	for i := range parts {
		s.commitBegun(halt, &parts[i])
	}
}

// refused gives up what the database does not take: the callers are told, the rest is counted and logged.
func (s *Store) refused(b *batch, cause error) {
	for _, m := range b.musts {
		m.finish(cause)
	}
	if b.len() == 0 {
		return
	}
	s.stats.poisoned.Add(int64(b.len()))
	const linesAMinute = 10
	if now := time.Now(); now.Sub(s.poisoned.since) > time.Minute {
		s.poisoned.since, s.poisoned.lines = now, 0
	}
	if s.poisoned.lines++; s.poisoned.lines > linesAMinute {
		return
	}
	attrs := []any{"writes", b.len(), "error", wrap("write", cause)}
	if len(b.samples) > 0 {
		attrs = append(attrs, "series", b.samples[0].Series, "at", b.samples[0].Tick.Time())
	}
	s.log.Error("store: a write of the samples lane was refused and is dropped", attrs...)
}

// lose tells the callers of a batch that was given up because the store closes, and counts it.
func (s *Store) lose(b *batch) {
	s.lost.samples += b.len()
	s.lost.musts += len(b.musts)
	for _, m := range b.musts {
		m.finish(fmt.Errorf("not written: %w", monitor.ErrClosed))
	}
	b.lane = lane{}
	b.musts = nil
}

// abandon gives up all that is queued.
func (s *Store) abandon(b *batch) {
	for s.queue.next(b, 0, false) {
		b.musts = beginMusts(b.musts)
		s.lose(b)
	}
}

// complain logs that something the writer did failed and is tried again, at most once a minute for the same thing.
func (s *Store) complain(doing string, err error) {
	now := time.Now()
	if last, ok := s.complained[doing]; ok && now.Sub(last) < time.Minute {
		return
	}
	s.complained[doing] = now
	s.log.Error("store: the writer failed and tries again", "error", wrap(doing, err))
}
