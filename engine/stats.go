package engine

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// counters is what the engine counts as it goes.
type counters struct {
	lateness    histogram
	panics      atomic.Int64
	transitions atomic.Int64

	results sync.Map // kind to *[4]atomic.Int64, by status
}

func (c *counters) result(kind string, status sdk.Status) {
	row, ok := c.results.Load(kind)
	if !ok {
		row, _ = c.results.LoadOrStore(kind, new([4]atomic.Int64))
	}
	row.(*[4]atomic.Int64)[status].Add(1) //nolint:forcetypeassert // only this type is stored
}

// Histogram counts observations by size. Its buckets grow by a quarter from 100 µs to about two minutes.
type Histogram struct {
	Counts []int64 // by bucket; the last has what is above every bound
	Sum    time.Duration
	Count  int64
}

const (
	histogramFirst   = 100 * time.Microsecond
	histogramGrowth  = 1.25
	histogramBuckets = 64
)

// Bound returns the upper bound of bucket i.
func (h Histogram) Bound(i int) time.Duration {
	if i >= histogramBuckets-1 {
		return math.MaxInt64
	}
	return time.Duration(float64(histogramFirst) * math.Pow(histogramGrowth, float64(i)))
}

// Quantile returns the bound below which the share q (0 to 1) of the observations lies, 0 when there are none. It is at most
// a quarter too large.
func (h Histogram) Quantile(q float64) time.Duration {
	if h.Count == 0 {
		return 0
	}
	rank := int64(math.Ceil(q * float64(h.Count)))
	var seen int64
	for i, n := range h.Counts {
		if seen += n; seen >= rank {
			return h.Bound(i)
		}
	}
	return math.MaxInt64
}

// Sub returns what was observed since an earlier reading of the same histogram.
func (h Histogram) Sub(before Histogram) Histogram {
	d := Histogram{Counts: make([]int64, len(h.Counts)), Sum: h.Sum - before.Sum, Count: h.Count - before.Count}
	for i := range h.Counts {
		d.Counts[i] = h.Counts[i]
		if i < len(before.Counts) {
			d.Counts[i] -= before.Counts[i]
		}
	}
	return d
}

type histogram struct {
	counts [histogramBuckets]atomic.Int64
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	if d > histogramFirst {
		i = int(math.Ceil(math.Log(float64(d)/float64(histogramFirst)) / math.Log(histogramGrowth)))
	}
	h.counts[min(i, histogramBuckets-1)].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() Histogram {
	r := Histogram{Counts: make([]int64, histogramBuckets), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		r.Counts[i] = h.counts[i].Load()
		r.Count += r.Counts[i]
	}
	return r
}

// Stats is what the engine has done and has before it.
type Stats struct {
	Monitors    map[monitor.Condition]int // by condition
	Results     map[string][4]int64       // by kind, then sdk.Status
	Lateness    Histogram                 // start of a check minus its due time
	Running     int                       // checks under way
	Waiting     int                       // checks due that wait for a worker or for room in their kind
	Workers     int
	Overruns    int64 // checks that were due while the one before still ran
	Panics      int64 // of checkers
	Transitions int64 // changes of condition
	Unrecorded  int   // transitions on their way to the store
	Delivery    alert.DeliveryStats
}

// Stats returns what the engine has done so far.
func (e *Engine) Stats() Stats {
	s := Stats{
		Monitors:    e.conditions(),
		Results:     make(map[string][4]int64),
		Lateness:    e.stats.lateness.read(),
		Running:     int(e.schedule.running.Load()),
		Overruns:    e.schedule.overruns.Load(),
		Panics:      e.stats.panics.Load(),
		Transitions: e.stats.transitions.Load(),
		Unrecorded:  e.recorder.waiting(),
		Delivery:    e.delivery.Stats(),
	}
	s.Waiting, s.Workers = e.schedule.depth()
	e.stats.results.Range(func(kind, row any) bool {
		var counts [4]int64
		for i := range counts {
			counts[i] = row.(*[4]atomic.Int64)[i].Load() //nolint:forcetypeassert // only this type is stored
		}
		s.Results[kind.(string)] = counts //nolint:forcetypeassert // only strings are keys
		return true
	})
	return s
}
