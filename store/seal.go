package store

import (
	"context"
	"fmt"
	"time"
)

// planSeal finds the first hour that has something to seal and, if it has ended, the series that have.
func (s *Store) planSeal(now time.Time) {
	u := &s.upkeepPlan
	sealed := s.sealed.Load()
	first, found := uint32(0), false
	s.heads.each(func(_ uint32, hd *head) {
		if hour, ok := hd.due(sealed); ok && (!found || hour < first) {
			first, found = hour, true
		}
	})
	u.checkAt = now.Add(upkeepEvery)
	if !found {
		return
	}
	end := msTime(hourStart(first + 1)).Add(sealGrace)
	if now.Before(end) {
		// A sample of an earlier hour can still come in, so the wait is never longer than the grace.
		u.checkAt = now.Add(min(end.Sub(now), sealGrace))
		return
	}
	u.hour = first
	s.heads.each(func(series uint32, hd *head) {
		if hour, ok := hd.due(sealed); ok && hour == first {
			u.sealing = append(u.sealing, series)
		}
	})
}

// sealedHead is what one series writes when an hour is sealed.
type sealedHead struct {
	series uint32
	block  []byte // nil when the hour has no samples
	sums   rollup
	left   carry
}

// sealHead computes what a head writes for an hour that has ended, and false when it has nothing.
func (s *Store) sealHead(series, hour uint32) (sealedHead, bool) {
	out := sealedHead{series: series}
	there := s.heads.read(series, func(hd *head) {
		st := stretch{start: hourStart(hour), carry: hd.carry, hold: hd.hold}
		if len(hd.spans) > 0 && hd.spans[0].hour == hour {
			enc := &hd.spans[0].encoder
			st.points = enc.points(nil)
			h := blockHead{interval: enc.interval, hold: hd.hold}
			if hd.carry.until > st.start {
				h.carry = carry{until: hd.carry.until - st.start, bucket: hd.carry.bucket}
			}
			out.block = enc.seal(h)
		}
		out.sums = st.sum(s.scale, st.start, hourStart(hour+1))
		out.left = st.carryOver(hourStart(hour + 1))
	})
	return out, there
}

// sealSlice writes the blocks and roll-ups of some heads in one transaction. Once all heads of the hour are written, a
// transaction of its own advances sealed_until, and only then may hot rows go.
func (s *Store) sealSlice(ctx context.Context) error {
	u := &s.upkeepPlan
	began := time.Now()
	n := min(u.seal.size(), len(u.sealing))
	done := make([]sealedHead, 0, n)
	err := s.inTransaction(ctx, func(c *conn) error {
		done = done[:0]
		for _, series := range u.sealing[:n] {
			one, there := s.sealHead(series, u.hour)
			if !there {
				continue
			}
			if err := c.writeSealed(ctx, u.hour, &one); err != nil {
				return err
			}
			done = append(done, one)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	for i := range done {
		s.heads.update(done[i].series, func(hd *head) { hd.rollOver(u.hour, done[i].left) })
	}
	u.sealing = u.sealing[n:]
	took := time.Since(began)
	u.seal.took(n, took)
	s.stats.sealSlice(took)
	if len(u.sealing) > 0 {
		return nil
	}
	return s.advance(ctx)
}

// advance moves sealed_until behind the hour that was being sealed, unless a sample of it or of an earlier one came in
// meanwhile for a series that had none.
func (s *Store) advance(ctx context.Context) error {
	u := &s.upkeepPlan
	u.sealing = nil
	u.checkAt = time.Time{}
	sealed, left := s.sealed.Load(), false
	s.heads.each(func(_ uint32, hd *head) {
		if hour, ok := hd.due(sealed); ok && hour <= u.hour {
			left = true
		}
	})
	if left {
		return nil
	}
	err := s.inTransaction(ctx, func(c *conn) error {
		return c.exec(ctx, "UPDATE meta SET value = ? WHERE name = 'sealed_until'", int64(u.hour)+1)
	})
	if err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	s.sealed.Store(u.hour + 1)
	u.clearing = true
	return nil
}

// clearSlice deletes some of the hot rows of sealed hours.
func (s *Store) clearSlice(ctx context.Context) error {
	u := &s.upkeepPlan
	began := time.Now()
	n := u.clear.size()
	var gone int64
	err := s.inTransaction(ctx, func(c *conn) error {
		var err error
		gone, err = c.change(ctx, `DELETE FROM samples WHERE id IN (SELECT id FROM samples WHERE id < ? ORDER BY id LIMIT ?)`,
			int64(hourTick(s.sealed.Load()))<<24, int64(n))
		return err
	})
	if err != nil {
		return fmt.Errorf("delete sealed rows: %w", err)
	}
	took := time.Since(began)
	u.clear.took(int(gone), took)
	s.stats.sealSlice(took)
	u.clearing = gone == int64(n)
	return nil
}

// inTransaction runs f in a transaction that is not synced.
func (s *Store) inTransaction(ctx context.Context, f func(c *conn) error) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.release()
	if err := c.begin(ctx, false); err != nil {
		return err
	}
	if err = f(c); err == nil {
		err = c.exec(ctx, "COMMIT")
	}
	if err != nil {
		if undo := c.rollback(); undo != nil {
			s.discard(undo)
		}
		return err
	}
	s.dirty.Store(true)
	return nil
}

const rollupColumns = "c0, c1, c2, c3, h0, h1, h2, h3, ln, ls, lmin, lmax"

// writeSealed writes what one series has for an hour.
func (c *conn) writeSealed(ctx context.Context, hour uint32, one *sealedHead) error {
	id := rowID(uint64(hour), one.series)
	if one.block != nil {
		c.bind(id)
		c.bind(one.block)
		if _, err := c.run(ctx, "INSERT OR REPLACE INTO blocks VALUES (?,?)"); err != nil {
			return err
		}
	}
	if one.sums.empty() {
		return nil
	}
	if err := c.putRollup(ctx, "INSERT OR REPLACE INTO hours VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", id, &one.sums); err != nil {
		return err
	}
	return c.addToDay(ctx, hour/hoursADay, one.series, &one.sums)
}

func (c *conn) putRollup(ctx context.Context, text string, id int64, r *rollup) error {
	return c.exec(ctx, text, id, r.counts[0], r.counts[1], r.counts[2], r.counts[3], r.held[0], r.held[1], r.held[2], r.held[3],
		r.latN, r.latSum, r.latMin, r.latMax)
}

// addToDay adds an hour's roll-up, or the change of one, to its day's.
func (c *conn) addToDay(ctx context.Context, day, series uint32, r *rollup) error {
	return c.putRollup(ctx, `INSERT INTO days VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
		c0 = c0 + excluded.c0, c1 = c1 + excluded.c1, c2 = c2 + excluded.c2, c3 = c3 + excluded.c3,
		h0 = h0 + excluded.h0, h1 = h1 + excluded.h1, h2 = h2 + excluded.h2, h3 = h3 + excluded.h3,
		lmin = CASE WHEN ln = 0 THEN excluded.lmin WHEN excluded.ln = 0 THEN lmin ELSE min(lmin, excluded.lmin) END,
		lmax = max(lmax, excluded.lmax), ln = ln + excluded.ln, ls = ls + excluded.ls`, rowID(uint64(day), series), r)
}
