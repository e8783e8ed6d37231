package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// recount gives stored samples another condition: in the hot table, in memory, and where they are sealed in the blocks and
// the roll-ups of hours and days.
func (t *tx) recount(ctx context.Context, rc monitor.Recount) error {
	s := t.store
	if rc.From >= rc.Before {
		return nil
	}
	if !s.rebuilt.Load() {
		return t.recountBlind(ctx, rc)
	}
	var ticks []monitor.Tick
	var sealed uint32
	there := s.heads.read(rc.Series, func(hd *head) {
		sealed = max(s.sealed.Load(), hd.sealed)
		for _, p := range hd.points(nil) {
			if p.tick >= rc.From && p.tick < rc.Before {
				ticks = append(ticks, p.tick)
			}
		}
	})
	if !there {
		return nil
	}
	for i := range t.rows {
		if r := &t.rows[i]; r.series == rc.Series && r.point.tick >= rc.From && r.point.tick < rc.Before {
			ticks = append(ticks, r.point.tick)
		}
	}
	if err := t.recountRows(ctx, rc, ticks); err != nil {
		return err
	}
	if hourOf(rc.From) < sealed {
		if err := t.recountSealed(ctx, rc, sealed); err != nil {
			return err
		}
	}
	t.then(func() {
		s.heads.update(rc.Series, func(hd *head) { hd.recount(rc.From, rc.Before, rc.Condition) })
		s.recounts.Add(1)
	})
	return nil
}

// recountBlind is recount while the heads are being read: the hot table is looked through.
func (t *tx) recountBlind(ctx context.Context, rc monitor.Recount) error {
	s := t.store
	_, err := t.ExecContext(ctx, fmt.Sprintf("UPDATE samples SET value = %s WHERE id >= %d AND id < %d AND id & %d = %d",
		newCondition(rc.Condition), int64(rc.From)<<24, int64(rc.Before)<<24, maxSeries, rc.Series))
	if err != nil {
		return err
	}
	if sealed := s.sealed.Load(); hourOf(rc.From) < sealed {
		if err := t.recountSealed(ctx, rc, sealed); err != nil {
			return err
		}
	}
	t.then(func() { s.pending = append(s.pending, pendingWrite{recount: &rc}) })
	return nil
}

func newCondition(c monitor.Condition) string {
	return fmt.Sprintf("(value & ~(7 << %d)) | (%d << %d)", conditionShift, c&7, conditionShift)
}

func (t *tx) recountRows(ctx context.Context, rc monitor.Recount, ticks []monitor.Tick) error {
	for len(ticks) > 0 {
		n := min(len(ticks), idsAtOnce)
		ids := make([]string, n)
		for i, tick := range ticks[:n] {
			ids[i] = strconv.FormatInt(rowID(uint64(tick), rc.Series), 10)
		}
		_, err := t.ExecContext(ctx, "UPDATE samples SET value = "+newCondition(rc.Condition)+
			" WHERE id IN ("+strings.Join(ids, ",")+")")
		if err != nil {
			return err
		}
		ticks = ticks[n:]
	}
	return nil
}

// recountSealed corrects sealed hours. What an hour leaves behind changes the next, until an hour is reached that neither has
// samples to change nor gets anything else from before.
func (t *tx) recountSealed(ctx context.Context, rc monitor.Recount, sealed uint32) error {
	oldest, err := oldestHour(ctx, t.IDB)
	if err != nil {
		return err
	}
	var left *carry // from the hour before, when it differs from what was there
	for hour := max(hourOf(rc.From), oldest); hour < sealed; hour++ {
		if left == nil && hourTick(hour) >= rc.Before {
			return nil
		}
		blocks, err := readBlocks(ctx, t.IDB, rc.Series, hour, hour+1)
		if err != nil {
			return err
		}
		switch {
		case len(blocks) > 0:
			left, err = t.recountBlock(ctx, rc, blocks[0], left)
		case left != nil:
			left, err = t.recountEmpty(ctx, rc.Series, hour, *left)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recountBlock corrects one block, and the roll-ups by the difference.
func (t *tx) recountBlock(ctx context.Context, rc monitor.Recount, b storedBlock, before *carry) (*carry, error) {
	points, h, err := decodeBlock(nil, b.data)
	if err != nil {
		// The transition that this belongs to must not fail because of it: somebody waits for the alarm.
		t.store.log.Error("store: a block is damaged and cannot be corrected", "series", rc.Series, "hour", msTime(hourStart(b.hour)), "error", err)
		return nil, nil
	}
	from, to := hourStart(b.hour), hourStart(b.hour+1)
	st := stretch{start: from, carry: h.carry, points: points, hold: h.hold}
	if st.carry.until > 0 {
		st.carry.until += from
	}
	was, leftWas := st.sum(t.store.scale, from, to), st.carryOver(to)
	if before != nil && h.carry.until > 0 {
		st.carry.bucket, h.carry.bucket = before.bucket, before.bucket
	}
	st.points = recounted(points, rc.From, rc.Before, rc.Condition)
	is, left := st.sum(t.store.scale, from, to), st.carryOver(to)
	enc := encodePoints(st.points, h.interval)
	if _, err := t.ExecContext(ctx, "UPDATE blocks SET data = ? WHERE id = ?", enc.seal(h),
		rowID(uint64(b.hour), rc.Series)); err != nil {
		return nil, err
	}
	if err := t.moveHeld(ctx, rc.Series, b.hour, was, is); err != nil {
		return nil, err
	}
	if left == leftWas {
		return nil, nil
	}
	return &left, nil
}

// recountEmpty corrects an hour without samples, all of whose time was left behind by an earlier one.
func (t *tx) recountEmpty(ctx context.Context, series, hour uint32, before carry) (*carry, error) {
	hours, err := readHours(ctx, t.IDB, series, hour, hour+1)
	if err != nil {
		return nil, err
	}
	was, ok := hours[hour]
	if !ok {
		return nil, nil
	}
	is := was
	is.held = [4]int64{}
	for _, ms := range was.held {
		is.held[before.bucket] += ms
	}
	if err := t.moveHeld(ctx, series, hour, was, is); err != nil {
		return nil, err
	}
	if before.until <= hourStart(hour+1) {
		return nil, nil
	}
	return &before, nil
}

// moveHeld moves time in the roll-ups of an hour and of its day.
func (t *tx) moveHeld(ctx context.Context, series, hour uint32, was, is rollup) error {
	if was == is {
		return nil
	}
	var d [4]int64
	for i := range d {
		d[i] = is.held[i] - was.held[i]
	}
	unknown := is.counts[0] - was.counts[0] // the mark of a pause counts as a result once it is none any more
	for _, row := range []struct {
		table string
		slot  uint32
	}{{"hours", hour}, {"days", hour / hoursADay}} {
		_, err := t.ExecContext(ctx, "UPDATE "+row.table+" SET c0 = c0 + ?, h0 = h0 + ?, h1 = h1 + ?, h2 = h2 + ?, h3 = h3 + ? WHERE id = ?",
			unknown, d[0], d[1], d[2], d[3], rowID(uint64(row.slot), series))
		if err != nil {
			return err
		}
	}
	return nil
}
