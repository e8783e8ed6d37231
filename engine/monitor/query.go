package monitor

import (
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Query selects monitors. Its zero value selects the first 100 by name.
type Query struct {
	Condition *Condition
	Kind      string
	Labels    map[string]string // each must be equal
	Text      string            // found in name, target or labels, whatever the case
	Sort      Sort
	Limit     int    // 1 to 1000; 0 is 100
	Cursor    string // opaque, from a Page
}

// Sort is the order of a list of monitors, always ascending by name within equals.
type Sort string

// The orders.
const (
	SortName  Sort = "name"
	SortState Sort = "state" // down, degraded, unknown, pending, maintenance, paused, up: worst first
	SortKind  Sort = "kind"
)

// Page is a part of a list. Next is the cursor of the following page; empty at the end.
type Page[T any] struct {
	Items []T
	Next  string
}

// Listed is a monitor with the state that was committed last.
type Listed struct {
	Monitor Monitor
	State   State
}

// IncidentQuery selects incidents, newest first.
type IncidentQuery struct {
	MonitorID string // empty: of all monitors
	Open      *bool
	Limit     int // 1 to 1000; 0 is 100
	Cursor    string
}

// Bucket sums the samples of one span of time.
type Bucket struct {
	From, To time.Time
	Counts   [4]int64         // samples by sdk.Status
	Held     [4]time.Duration // time by condition: unknown (pending, paused, maintenance included), up, degraded, down
	Latency  Latency
}

// Known is the time in which the condition was known: up, degraded or down.
func (b *Bucket) Known() time.Duration {
	return b.Held[sdk.Up] + b.Held[sdk.Degraded] + b.Held[sdk.Down]
}

// Latency sums the latencies of the up and degraded samples of a span. Its zero value has none.
type Latency struct {
	Count    int64
	Sum      time.Duration
	Min, Max time.Duration
	// Quantiles of the same samples, within 1 %; zero where they cannot be had any more.
	P50, P95, P99 time.Duration
}

// Uptime is what a range of time amounts to for one monitor.
type Uptime struct {
	Bucket                 // of the whole range
	Outages  int           // incidents that began in the range or before it and lasted into it
	Downtime time.Duration // Held[Down]
}

// Ratio is the share of known time in which the confirmed condition was not down, 0 to 1, and false when no time is known.
func (u *Uptime) Ratio() (float64, bool) {
	known := u.Known()
	if known <= 0 {
		return 0, false
	}
	return 1 - float64(u.Held[sdk.Down])/float64(known), true
}

// SuccessRatio is the share of results, unknown ones left out, that were not down, and false when there are none.
func (u *Uptime) SuccessRatio() (float64, bool) {
	n := u.Counts[sdk.Up] + u.Counts[sdk.Degraded] + u.Counts[sdk.Down]
	if n == 0 {
		return 0, false
	}
	return 1 - float64(u.Counts[sdk.Down])/float64(n), true
}

// LogQuery selects log lines, newest first.
type LogQuery struct {
	Level  string // lowest level: DEBUG, INFO, WARN, ERROR; empty: all
	Text   string
	Before int64 // only lines with a smaller id; 0: from the newest
	Limit  int   // 1 to 1000; 0 is 100
}
