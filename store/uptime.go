package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// past reads what one series was in a range of time: whole days and hours from their roll-ups, hours that a range cuts from
// their blocks, and what is not sealed from memory. What was read is kept while the range is gone through.
type past struct {
	store   *Store
	series  uint32
	view    view
	now     int64
	days    map[uint32]rollup
	hours   map[uint32]rollup
	blocks  map[uint32]*stretch // nil: there is none
	oldest  uint32              // hour of the oldest block
	floor   uint32              // hour before which there is nothing
	counted []int64             // samples by latency index, when quantiles are wanted
}

func (s *Store) openPast(ctx context.Context, series uint32) (*past, error) {
	v, there, err := s.look(ctx, series)
	if err != nil {
		return nil, err
	}
	p := &past{store: s, series: series, view: v, now: s.now().UnixMilli(), blocks: make(map[uint32]*stretch)}
	if !there {
		p.view.sealed = 0
	}
	if p.oldest, err = oldestHour(ctx, s.read); err != nil {
		return nil, err
	}
	var day int64
	err = s.read.QueryRowContext(ctx, "SELECT coalesce((SELECT id FROM days ORDER BY id LIMIT 1), 0)").Scan(&day)
	p.floor = uint32(rowSlot(day)) * hoursADay
	return p, err
}

// load reads the roll-ups that sums inside [from, to) can need.
func (p *past) load(ctx context.Context, from, to int64) error {
	first, last := max(p.floor, hourAt(from)), min(p.view.sealed, hourAt(to)+1)
	var err error
	firstDay, lastDay := first/hoursADay, last/hoursADay
	if p.days, err = readRollups(ctx, p.store.read, rollupRange{"days", p.series, firstDay, lastDay}); err != nil {
		return err
	}
	p.hours, err = readHours(ctx, p.store.read, p.series, first, last)
	return err
}

// loadEdges reads the roll-ups that one sum over [from, to) needs: whole days, and the hours before and after those.
func (p *past) loadEdges(ctx context.Context, from, to int64) error {
	from = max(from, hourStart(p.floor))
	first, last := hourAt(from), min(p.view.sealed, hourAt(to)+1)
	// A day counts whole only when to does not lie within it.
	firstDay, lastDay := (first+hoursADay-1)/hoursADay, min(p.view.sealed, hourAt(to))/hoursADay
	if from > hourStart(firstDay*hoursADay) {
		firstDay++
	}
	if firstDay >= lastDay {
		p.days = map[uint32]rollup{}
		var err error
		p.hours, err = readHours(ctx, p.store.read, p.series, first, last)
		return err
	}
	var err error
	if p.days, err = readRollups(ctx, p.store.read, rollupRange{"days", p.series, firstDay, lastDay}); err != nil {
		return err
	}
	if p.hours, err = readHours(ctx, p.store.read, p.series, first, firstDay*hoursADay); err != nil {
		return err
	}
	after, err := readHours(ctx, p.store.read, p.series, lastDay*hoursADay, last)
	for hour, r := range after {
		p.hours[hour] = r
	}
	return err
}

// sum returns the roll-up of [from, to).
func (p *past) sum(ctx context.Context, from, to int64) (rollup, error) {
	var out rollup
	from, to = max(from, hourStart(p.floor)), min(to, p.now)
	boundary := hourStart(p.view.sealed)
	for at := from; at < min(to, boundary); {
		hour := hourAt(at)
		start, end := hourStart(hour), hourStart(hour+1)
		if at == start && hour%hoursADay == 0 {
			if dayEnd := hourStart(hour + hoursADay); dayEnd <= min(to, boundary) {
				r := p.days[hour/hoursADay]
				out.add(&r)
				at = dayEnd
				continue
			}
		}
		if at == start && end <= to {
			r := p.hours[hour]
			out.add(&r)
			at = end
			continue
		}
		r, err := p.part(ctx, hour, at, min(end, to))
		if err != nil {
			return out, err
		}
		out.add(&r)
		at = min(end, to)
	}
	if to > boundary {
		r := p.view.sum(p.store.scale, max(from, boundary), to)
		out.add(&r)
	}
	return out, nil
}

// part returns the roll-up of a part of a sealed hour.
func (p *past) part(ctx context.Context, hour uint32, from, to int64) (rollup, error) {
	st, err := p.block(ctx, hour)
	if err != nil {
		return rollup{}, err
	}
	if st != nil {
		return st.sum(p.store.scale, from, to), nil
	}
	whole := p.hours[hour]
	if whole.counts != [4]int64{} {
		return whole.share(to-from, hourMS), nil // its samples have been pruned
	}
	// Without samples all of the hour's time was left behind by an earlier one, from the hour's start on.
	var out rollup
	for i, ms := range whole.held {
		end := hourStart(hour) + ms
		out.held[i] = max(0, min(end, to)-from)
	}
	return out, nil
}

// block returns a sealed hour's samples as a stretch, nil when it has none.
func (p *past) block(ctx context.Context, hour uint32) (*stretch, error) {
	if st, ok := p.blocks[hour]; ok || hour < p.oldest {
		return st, nil
	}
	blocks, err := readBlocks(ctx, p.store.read, p.series, hour, hour+1)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if p.blocks[hour], err = decodeStretch(p.series, b); err != nil {
			return nil, err
		}
	}
	if len(blocks) == 0 {
		p.blocks[hour] = nil
	}
	return p.blocks[hour], nil
}

func decodeStretch(series uint32, b storedBlock) (*stretch, error) {
	points, h, err := decodeBlock(nil, b.data)
	if err != nil {
		return nil, fmt.Errorf("block %d of series %d: %w", b.hour, series, err)
	}
	st := &stretch{start: hourStart(b.hour), carry: h.carry, points: points, hold: h.hold}
	if st.carry.until > 0 {
		st.carry.until += st.start
	}
	return st, nil
}

// quantiles fills in P50, P95 and P99 of [from, to), and leaves them zero where samples of it have been pruned.
func (p *past) quantiles(ctx context.Context, from, to int64, l *monitor.Latency) error {
	if l.Count == 0 {
		return nil
	}
	if p.counted == nil {
		p.counted = make([]int64, scaleSize)
	}
	clear(p.counted)
	var n int64
	count := func(points []point) {
		for _, pt := range points {
			if at := tickMS(pt.tick); at >= from && at < to && hasLatency(pt) {
				p.counted[pt.latency]++
				n++
			}
		}
	}
	first, last := max(hourAt(from), p.oldest), min(p.view.sealed, hourAt(to-1)+1)
	for hour := first; hour < last; {
		if st, ok := p.blocks[hour]; ok {
			if st != nil {
				count(st.points)
			}
			hour++
			continue
		}
		end := min(last, hour+idsAtOnce)
		blocks, err := readBlocks(ctx, p.store.read, p.series, hour, end)
		if err != nil {
			return err
		}
		for _, b := range blocks {
			st, err := decodeStretch(p.series, b)
			if err != nil {
				return err
			}
			count(st.points)
		}
		hour = end
	}
	count(p.view.points)
	if n < l.Count {
		return nil
	}
	l.P50, l.P95, l.P99 = p.rank(n, 50), p.rank(n, 95), p.rank(n, 99)
	return nil
}

// rank returns the latency that a share of n samples, in per cent, does not exceed.
func (p *past) rank(n, percent int64) time.Duration {
	want := (n*percent + 99) / 100
	var sum int64
	for i, c := range p.counted {
		if sum += c; sum >= want {
			return p.store.scale.latency(uint16(i))
		}
	}
	return 0
}

// Uptime sums a range of time of one monitor. It waits until recent samples have been read after a start.
func (s *Store) Uptime(ctx context.Context, q monitor.UptimeQuery) (monitor.Uptime, error) {
	const op = "read uptime"
	var out monitor.Uptime
	if !q.From.Before(q.To) {
		return out, monitor.Faults{{Field: "from", Message: "must be before to"}}
	}
	p, err := s.openPast(ctx, q.Series)
	if err != nil {
		return out, wrap(op, err)
	}
	from, to := q.From.UnixMilli(), q.To.UnixMilli()
	if err := p.loadEdges(ctx, from, to); err != nil {
		return out, wrap(op, err)
	}
	sums, err := p.sum(ctx, from, to)
	if err != nil {
		return out, wrap(op, err)
	}
	out.Bucket = sums.bucket(q.From, q.To)
	out.Downtime = out.Held[monitor.Down]
	if q.Quantiles {
		if err := p.quantiles(ctx, from, to, &out.Latency); err != nil {
			return out, wrap(op, err)
		}
	}
	outages, err := s.read.NewSelect().Table("incidents").Where("monitor_id = ?", q.MonitorID).
		Where("started_at < ?", to).Where("ended_at = 0 OR ended_at > ?", from).Count(ctx)
	out.Outages = int(outages)
	return out, wrap(op, err)
}

// Buckets sums the samples of one series in steps. A step without samples is an empty bucket. It waits until recent samples
// have been read after a start.
func (s *Store) Buckets(ctx context.Context, q monitor.BucketQuery) ([]monitor.Bucket, error) {
	const op = "read buckets"
	var faults monitor.Faults
	if !q.From.Before(q.To) {
		faults.Add("from", nil, "must be before to")
	}
	if q.Step < time.Second {
		faults.Add("step", q.Step, "must be at least 1s")
	} else if q.To.Sub(q.From)/q.Step >= monitor.MaxBuckets {
		faults.Add("step", q.Step, "must be long enough for at most %d steps", monitor.MaxBuckets)
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	p, err := s.openPast(ctx, q.Series)
	if err != nil {
		return nil, wrap(op, err)
	}
	if err := p.load(ctx, q.From.UnixMilli(), q.To.UnixMilli()); err != nil {
		return nil, wrap(op, err)
	}
	if q.Step%time.Hour != 0 || q.From.UnixMilli()%hourMS != 0 || q.Quantiles {
		if err := p.loadBlocks(ctx, q.From.UnixMilli(), q.To.UnixMilli()); err != nil {
			return nil, wrap(op, err)
		}
	}
	var out []monitor.Bucket
	for at := q.From; at.Before(q.To); at = at.Add(q.Step) {
		end := at.Add(q.Step)
		if end.After(q.To) {
			end = q.To
		}
		sums, err := p.sum(ctx, at.UnixMilli(), end.UnixMilli())
		if err != nil {
			return nil, wrap(op, err)
		}
		b := sums.bucket(at, end)
		if q.Quantiles {
			if err := p.quantiles(ctx, at.UnixMilli(), end.UnixMilli(), &b.Latency); err != nil {
				return nil, wrap(op, err)
			}
		}
		out = append(out, b)
	}
	return slices.Clip(out), nil
}

// loadBlocks reads every block of [from, to) at once.
func (p *past) loadBlocks(ctx context.Context, from, to int64) error {
	first, last := max(hourAt(from), p.oldest), min(p.view.sealed, hourAt(to)+1)
	blocks, err := readBlocks(ctx, p.store.read, p.series, first, last)
	if err != nil {
		return err
	}
	for hour := first; hour < last; hour++ {
		p.blocks[hour] = nil
	}
	for _, b := range blocks {
		if p.blocks[b.hour], err = decodeStretch(p.series, b); err != nil {
			return err
		}
	}
	return nil
}
