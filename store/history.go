package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// storedBlock is a row of blocks.
type storedBlock struct {
	hour uint32
	data []byte
}

// readBlocks returns the blocks of a series with from <= hour < to, oldest first.
func readBlocks(ctx context.Context, db bun.IDB, series, from, to uint32) ([]storedBlock, error) {
	var out []storedBlock
	for from < to {
		end := min(to, from+idsAtOnce)
		rows, err := db.QueryContext(ctx, "SELECT id, data FROM blocks WHERE id IN ("+idList(series, from, end)+") ORDER BY id")
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var id int64
			var b storedBlock
			if err := rows.Scan(&id, &b.data); err != nil {
				return nil, joinClose(err, rows)
			}
			b.hour = uint32(rowSlot(id))
			out = append(out, b)
		}
		if err := joinClose(rows.Err(), rows); err != nil {
			return nil, err
		}
		from = end
	}
	return out, nil
}

// readHours returns the hourly roll-ups of a series with from <= hour < to, by hour.
func readHours(ctx context.Context, db bun.IDB, series, from, to uint32) (map[uint32]rollup, error) {
	return readRollups(ctx, db, rollupRange{"hours", series, from, to})
}

type rollupRange struct {
	table            string
	series, from, to uint32
}

func readRollups(ctx context.Context, db bun.IDB, q rollupRange) (map[uint32]rollup, error) {
	out := make(map[uint32]rollup)
	for q.from < q.to {
		end := min(q.to, q.from+idsAtOnce)
		rows, err := db.QueryContext(ctx, "SELECT id, "+rollupColumns+" FROM "+q.table+
			" WHERE id IN ("+idList(q.series, q.from, end)+")")
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var id int64
			var r rollup
			err := rows.Scan(&id, &r.counts[0], &r.counts[1], &r.counts[2], &r.counts[3], &r.held[0], &r.held[1], &r.held[2],
				&r.held[3], &r.latN, &r.latSum, &r.latMin, &r.latMax)
			if err != nil {
				return nil, joinClose(err, rows)
			}
			out[uint32(rowSlot(id))] = r
		}
		if err := joinClose(rows.Err(), rows); err != nil {
			return nil, err
		}
		q.from = end
	}
	return out, nil
}

// oldestHour returns the hour of the oldest block, or the first hour of all when there is none.
func oldestHour(ctx context.Context, db bun.IDB) (uint32, error) {
	var id int64
	err := db.QueryRowContext(ctx, "SELECT coalesce((SELECT id FROM blocks ORDER BY id LIMIT 1), 0)").Scan(&id)
	return uint32(rowSlot(id)), err
}

// view is what a read of one series sees of memory: what is not sealed, and up to where it is.
type view struct {
	stretch
	sealed uint32
}

// look returns the view of a series, and false when it has no monitor.
func (s *Store) look(ctx context.Context, series uint32) (view, bool, error) {
	if err := s.awaitHeads(ctx); err != nil {
		return view{}, false, err
	}
	var v view
	there := s.heads.read(series, func(hd *head) {
		v.sealed = max(s.sealed.Load(), hd.sealed)
		v.stretch = hd.stretch(v.sealed)
	})
	return v, there, nil
}

// Samples returns stored samples of one series, oldest first, with their messages. Latencies are within 0.5 %. It waits until
// recent samples have been read after a start. A series without a monitor has none.
func (s *Store) Samples(ctx context.Context, q monitor.SampleQuery) ([]monitor.Sample, error) {
	const op = "read samples"
	limit, err := limitOf(q.Limit, 1000, 10_000)
	if err != nil {
		return nil, err
	}
	from, to := max(monitor.TickOf(q.From), 0), monitor.MaxTick
	if !q.To.IsZero() {
		to = tickUpTo(q.To)
	}
	if !q.From.IsZero() {
		from = tickUpTo(q.From)
	}
	if q.After > 0 {
		from = max(from, q.After+1)
	}
	v, there, err := s.look(ctx, q.Series)
	if err != nil || !there || from >= to {
		return nil, wrap(op, err)
	}
	points, err := s.sealedPoints(ctx, q.Series, v.sealed, tickRange{from, to, limit})
	if err != nil {
		return nil, wrap(op, err)
	}
	for _, p := range v.points {
		if p.tick >= from && p.tick < to && len(points) < limit {
			points = append(points, p)
		}
	}
	return s.withMessages(ctx, q.Series, points)
}

// tickUpTo returns the first tick that begins at t or later.
func tickUpTo(t time.Time) monitor.Tick {
	tick := monitor.TickOf(t)
	if tick.Time().Before(t) {
		tick++
	}
	return tick
}

type tickRange struct {
	from, to monitor.Tick
	limit    int
}

// sealedPoints returns points from blocks, oldest first.
func (s *Store) sealedPoints(ctx context.Context, series, sealed uint32, r tickRange) ([]point, error) {
	first, last := hourOf(r.from), min(sealed, hourOf(r.to-1)+1)
	if first >= last {
		return nil, nil
	}
	oldest, err := oldestHour(ctx, s.read)
	if err != nil {
		return nil, err
	}
	var out, scratch []point
	step := uint32(24)
	for hour := max(first, oldest); hour < last && len(out) < r.limit; {
		end := min(last, hour+step)
		blocks, err := readBlocks(ctx, s.read, series, hour, end)
		if err != nil {
			return nil, err
		}
		for _, b := range blocks {
			if scratch, _, err = decodeBlock(scratch[:0], b.data); err != nil {
				return nil, fmt.Errorf("block %d of series %d: %w", b.hour, series, err)
			}
			for _, p := range scratch {
				if p.tick >= r.from && p.tick < r.to && len(out) < r.limit {
					out = append(out, p)
				}
			}
		}
		hour, step = end, min(2*step, idsAtOnce)
	}
	return out, nil
}

// withMessages makes samples of points that are in order and fills in what they said.
func (s *Store) withMessages(ctx context.Context, series uint32, points []point) ([]monitor.Sample, error) {
	if len(points) == 0 {
		return nil, nil
	}
	rows, err := s.read.QueryContext(ctx, `SELECT n.tick, coalesce(t.text, '') FROM notes AS n LEFT JOIN texts AS t ON t.id = n.text_id
		WHERE n.series = ? AND n.tick <= ? AND n.tick >= coalesce((SELECT max(tick) FROM notes WHERE series = ? AND tick <= ?), 0)
		ORDER BY n.tick`, series, int64(points[len(points)-1].tick), series, int64(points[0].tick))
	if err != nil {
		return nil, wrap("read messages", err)
	}
	defer rows.Close()
	out := make([]monitor.Sample, len(points))
	text, next, more := "", int64(-1), true
	var nextText string
	for i, p := range points {
		for more && next <= int64(p.tick) {
			if next >= 0 {
				text = nextText
			}
			if more = rows.Next(); more {
				if err := rows.Scan(&next, &nextText); err != nil {
					return nil, wrap("read messages", err)
				}
			}
		}
		out[i] = s.sampleOf(series, p)
		out[i].Message = text
	}
	return out, wrap("read messages", rows.Err())
}

func (s *Store) sampleOf(series uint32, p point) monitor.Sample {
	return monitor.Sample{
		Series: series, Tick: p.tick, Status: stateStatus(p.state), Condition: stateCondition(p.state),
		Code: stateCode(p.state), Latency: s.scale.latency(p.latency),
	}
}

// Bars returns the last samples of each series, at most 60, oldest first. A series without samples is left out. It waits
// until recent samples have been read after a start.
func (s *Store) Bars(ctx context.Context, series []uint32) (map[uint32][]monitor.Bar, error) {
	const op = "read bars"
	if err := s.awaitHeads(ctx); err != nil {
		return nil, wrap(op, err)
	}
	out := make(map[uint32][]monitor.Bar, len(series))
	var scratch []point
	for _, one := range series {
		if err := s.fillTail(ctx, one, barLength); err != nil {
			return nil, wrap(op, err)
		}
		var points []point
		s.heads.read(one, func(hd *head) {
			points = hd.bar(scratch)
			scratch = points
		})
		if len(points) == 0 {
			continue
		}
		bars := make([]monitor.Bar, len(points))
		for i, p := range points {
			bars[i] = monitor.Bar{
				At: p.tick.Time(), Status: stateStatus(p.state), Condition: stateCondition(p.state), Latency: s.scale.latency(p.latency),
			}
		}
		out[one] = bars
	}
	return out, nil
}

// fillTail reads the tail of a series from its blocks where memory has fewer than want points. That is once after a start.
func (s *Store) fillTail(ctx context.Context, series uint32, want int) error {
	for {
		need, sealed, recounts := false, uint32(0), s.recounts.Load()
		s.heads.read(series, func(hd *head) {
			have := 0
			for i := range hd.spans {
				have += int(hd.spans[i].count)
			}
			sealed = max(s.sealed.Load(), hd.sealed)
			need = !hd.whole && sealed > 0 && have < want && (want > 1 || have+len(hd.tail) == 0)
		})
		if !need {
			return nil
		}
		oldest, err := oldestHour(ctx, s.read)
		if err != nil {
			return err
		}
		points, err := s.newestPoints(ctx, blockWalk{series: series, below: sealed, floor: min(oldest, sealed), want: barLength})
		if err != nil {
			return err
		}
		done := false
		there := s.heads.update(series, func(hd *head) {
			// What was sealed or corrected meanwhile may not be in what was read.
			if max(s.sealed.Load(), hd.sealed) == sealed && s.recounts.Load() == recounts {
				hd.setTail(points)
				if len(points) > 0 {
					hd.last = max(hd.last, points[len(points)-1].tick)
				}
				hd.whole, done = true, true
			}
		})
		if done || !there {
			return nil
		}
	}
}

// Last returns the newest sample of each series with its message. It waits until recent samples have been read after a start.
func (s *Store) Last(ctx context.Context) (map[uint32]monitor.Sample, error) {
	const op = "read newest samples"
	if err := s.awaitHeads(ctx); err != nil {
		return nil, wrap(op, err)
	}
	type newest struct {
		point point
		text  int64
	}
	found := make(map[uint32]newest, s.heads.len())
	var bare []uint32
	collect := func(series uint32, hd *head) {
		if p, ok := hd.newest(); ok {
			found[series] = newest{p, hd.text}
		} else if !hd.whole {
			bare = append(bare, series)
		}
	}
	s.heads.each(collect)
	for _, series := range slices.Clone(bare) {
		if err := s.fillTail(ctx, series, 1); err != nil {
			return nil, wrap(op, err)
		}
		s.heads.read(series, func(hd *head) { collect(series, hd) })
	}
	texts := make(map[int64]string)
	for _, n := range found {
		texts[n.text] = ""
	}
	if err := s.readTexts(ctx, texts); err != nil {
		return nil, wrap(op, err)
	}
	out := make(map[uint32]monitor.Sample, len(found))
	for series, n := range found {
		sample := s.sampleOf(series, n.point)
		sample.Message = texts[n.text]
		out[series] = sample
	}
	return out, nil
}

// readTexts fills in the texts of the ids that are the keys.
func (s *Store) readTexts(ctx context.Context, texts map[int64]string) error {
	ids := make([]int64, 0, len(texts))
	for id := range texts {
		ids = append(ids, id)
	}
	for part := range slices.Chunk(ids, idsAtOnce) {
		var rows []struct {
			ID   int64
			Text string
		}
		err := s.read.NewSelect().Table("texts").Column("id", "text").Where("id IN (?)", bun.List(part)).Scan(ctx, &rows)
		if err != nil {
			return err
		}
		for _, r := range rows {
			texts[r.ID] = r.Text
		}
	}
	return nil
}
