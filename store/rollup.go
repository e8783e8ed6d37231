package store

import (
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Times inside the store are Unix ms. Hours and days are counted from the first tick, which is a midnight in UTC.
const (
	epochMS   = 1577836800000 // 2020-01-01T00:00:00Z, the time of tick 0
	hourMS    = 3600 * 1000
	hoursADay = 24
	maxSeries = 1<<24 - 1
)

func hourOf(t monitor.Tick) uint32        { return uint32(t / ticksPerHour) }
func hourStart(hour uint32) int64         { return epochMS + int64(hour)*hourMS }
func hourTick(hour uint32) monitor.Tick   { return monitor.Tick(hour) * ticksPerHour }
func tickMS(t monitor.Tick) int64         { return epochMS + int64(t)*10 }
func rowID(slot uint64, s uint32) int64   { return int64(slot<<24 | uint64(s)) }
func rowSeries(id int64) uint32           { return uint32(id) & maxSeries }
func rowSlot(id int64) uint64             { return uint64(id) >> 24 }
func msTime(ms int64) time.Time           { return time.UnixMilli(ms).UTC() }
func millis(d time.Duration) int64        { return d.Milliseconds() }
func ticksOf(d time.Duration) uint32      { return uint32(d / monitor.TickLength) }
func asDuration(ms int64) time.Duration   { return time.Duration(ms) * time.Millisecond }
func microseconds(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

// hourAt returns the hour that a time in Unix ms falls into; a time before the first hour is hour 0.
func hourAt(ms int64) uint32 {
	if ms <= epochMS {
		return 0
	}
	return uint32(min((ms-epochMS)/hourMS, int64(hourOf(monitor.MaxTick))))
}

// stamp returns a time as it is stored: Unix ms, 0 for the zero time.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// unstamp reads what stamp wrote.
func unstamp(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return msTime(ms)
}

// rollup sums the samples of a span of time.
type rollup struct {
	counts         [4]int64 // samples by status
	held           [4]int64 // ms by condition
	latN, latSum   int64    // latencies of up and degraded samples, µs
	latMin, latMax int64
}

func (r *rollup) empty() bool { return *r == rollup{} }

func (r *rollup) addLatency(us int64) {
	if r.latN == 0 || us < r.latMin {
		r.latMin = us
	}
	r.latMax = max(r.latMax, us)
	r.latN++
	r.latSum += us
}

func (r *rollup) add(o *rollup) {
	for i := range r.counts {
		r.counts[i] += o.counts[i]
		r.held[i] += o.held[i]
	}
	if o.latN == 0 {
		return
	}
	if r.latN == 0 || o.latMin < r.latMin {
		r.latMin = o.latMin
	}
	r.latMax = max(r.latMax, o.latMax)
	r.latN += o.latN
	r.latSum += o.latSum
}

// share returns the part of a roll-up that falls to part of its whole length, for spans whose samples are gone.
func (r *rollup) share(part, whole int64) rollup {
	out := rollup{latMin: r.latMin, latMax: r.latMax, latN: r.latN * part / whole, latSum: r.latSum * part / whole}
	for i := range r.counts {
		out.counts[i] = r.counts[i] * part / whole
		out.held[i] = r.held[i] * part / whole
	}
	if out.latN == 0 {
		out.latSum, out.latMin, out.latMax = 0, 0, 0
	}
	return out
}

// stretch is a row of points that follow each other without a gap between stored hours, with what went before.
type stretch struct {
	start  int64 // ms: what the carry counts from
	carry  carry
	points []point
	hold   int64
}

// sum returns the roll-up of [from, to), both in ms. A sample's time ends with the next sample or after hold.
func (st *stretch) sum(sc *scale, from, to int64) rollup {
	var r rollup
	if to <= from {
		return r
	}
	held := func(bucket uint8, a, b int64) {
		a, b = max(a, from), min(b, to)
		if b > a {
			r.held[bucket] += b - a
		}
	}
	next := to
	if len(st.points) > 0 {
		next = tickMS(st.points[0].tick)
	}
	held(st.carry.bucket, st.start, min(st.carry.until, next))
	for i, p := range st.points {
		at := tickMS(p.tick)
		if at >= to {
			break
		}
		end := at + st.hold
		if i+1 < len(st.points) {
			end = min(end, tickMS(st.points[i+1].tick))
		}
		held(stateBucket(p.state), at, end)
		if at < from {
			continue
		}
		status := stateStatus(p.state)
		if status == sdk.Unknown && stateCondition(p.state) == monitor.Paused {
			continue // no result: it marks where the time of the one before ends
		}
		r.counts[status]++
		if hasLatency(p) {
			r.addLatency(sc.us(p.latency))
		}
	}
	return r
}

// hasLatency reports whether a point's latency counts: of up and degraded results, where there is one.
func hasLatency(p point) bool {
	s := stateStatus(p.state)
	return p.latency != 0 && (s == 1 || s == 2)
}

// carryOver returns what the stretch leaves behind at a time that is after all of its points.
func (st *stretch) carryOver(at int64) carry {
	c := st.carry
	if n := len(st.points); n > 0 {
		last := st.points[n-1]
		c = carry{until: tickMS(last.tick) + st.hold, bucket: stateBucket(last.state)}
	}
	if c.until <= at {
		return carry{}
	}
	return c
}

// bucket returns the roll-up as the API's noun.
func (r *rollup) bucket(from, to time.Time) monitor.Bucket {
	b := monitor.Bucket{From: from, To: to, Counts: r.counts}
	for i, ms := range r.held {
		b.Held[i] = asDuration(ms)
	}
	b.Latency = monitor.Latency{
		Count: r.latN, Sum: microseconds(r.latSum), Min: microseconds(r.latMin), Max: microseconds(r.latMax),
	}
	return b
}
