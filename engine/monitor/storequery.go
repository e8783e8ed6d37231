package monitor

import (
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Bar is one of the last samples of a monitor, as drawn in a row of bars. Its latency is within 0.5 %.
type Bar struct {
	At        time.Time
	Status    sdk.Status
	Condition Condition
	Latency   time.Duration
}

// EventQuery selects events, newest first.
type EventQuery struct {
	MonitorID  string // empty: of all monitors
	IncidentID string // empty: of any incident, and of none
	Limit      int    // 1 to 1000; 0 is 100
	Cursor     string // opaque, from a Page
}

// SampleQuery selects the samples of one series with From <= time < To, oldest first.
type SampleQuery struct {
	Series   uint32
	From, To time.Time // a zero To is now and after
	After    Tick      // only later ticks, when it is not 0: the last one of the page before
	Limit    int       // 1 to 10,000; 0 is 1000
}

// MaxBuckets is how many buckets one query may ask for.
const MaxBuckets = 10_000

// BucketQuery sums the samples of one series in steps from From to To; the last bucket ends at To.
type BucketQuery struct {
	Series    uint32
	From, To  time.Time
	Step      time.Duration // at least 1 s, and such that there are at most MaxBuckets buckets
	Quantiles bool          // P50, P95 and P99 are wanted: every sample of the range is read
}

// UptimeQuery sums one range of time of one monitor.
type UptimeQuery struct {
	MonitorID string
	Series    uint32
	From, To  time.Time
	Quantiles bool // P50, P95 and P99 are wanted: every sample of the range is read
}
