package service

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Bounds of what is asked for at once.
const (
	MaxSamples   = 10_000
	MaxBuckets   = 5_000
	MinStep      = time.Minute
	MaxRange     = 10 * 366 * 24 * time.Hour
	defaultRange = 24 * time.Hour
	// Quantiles read every sample: beyond this there are sums only.
	quantileRange = 31 * 24 * time.Hour
)

// SampleRange selects the samples of one monitor. A zero To is now, and a zero From a day before it. Both are cut to
// milliseconds.
type SampleRange struct {
	From, To time.Time
	Step     time.Duration // 0: each sample; else sums per step
	Limit    int           // 0 is 1000, of samples
	Cursor   string        // from Samples.Next
}

// Samples are the samples of one monitor, oldest first: each, or sums of them.
type Samples struct {
	From, To time.Time
	Step     time.Duration
	Items    []monitor.Sample // when Step is 0
	Buckets  []monitor.Bucket // when it is not
	Next     string           // cursor of what follows; empty at the end
}

// Samples returns what was seen of a monitor. The error is monitor.Faults, with fields named after the query's, when the
// range makes no sense.
func (s *Service) Samples(ctx context.Context, id string, r SampleRange) (Samples, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return Samples{}, err
	}
	faults := s.span(&r.From, &r.To)
	var after monitor.Tick
	if r.Cursor != "" {
		n, err := strconv.ParseUint(r.Cursor, 36, 40)
		if err != nil || r.Step != 0 {
			faults.Add("cursor", shown(r.Cursor), "is not one that this list gave")
		}
		after = monitor.Tick(n)
		if err == nil && (after < monitor.TickOf(r.From) || after > monitor.TickOf(r.To)) {
			faults.Add("cursor", shown(r.Cursor), "is not one that this list gave for this range")
		}
	}
	if r.Limit == 0 {
		r.Limit = 1000
	}
	if r.Limit < 1 || r.Limit > MaxSamples {
		faults.Add("limit", r.Limit, "must be between 1 and %d", MaxSamples)
	}
	switch length := r.To.Sub(r.From); {
	case r.Step == 0:
	case r.Step < MinStep:
		faults.Add("step", short(r.Step), "must be at least %s", short(MinStep))
	case length/r.Step >= MaxBuckets:
		faults.Add("step", short(r.Step), "gives more than %d steps; take a longer one, or a shorter range", MaxBuckets)
	}
	if err := faults.Err(); err != nil {
		return Samples{}, err
	}
	m, err := s.opts.Store.Monitor(ctx, id)
	if err != nil {
		return Samples{}, fmt.Errorf("read monitor %s: %w", id, err)
	}
	out := Samples{From: r.From, To: r.To, Step: r.Step}
	if r.Step > 0 {
		out.Buckets, err = s.opts.Store.Buckets(ctx, monitor.BucketQuery{
			Series: m.Series, From: r.From, To: r.To, Step: r.Step, Quantiles: r.To.Sub(r.From) <= quantileRange,
		})
		if err != nil {
			return Samples{}, fmt.Errorf("sum samples of monitor %s: %w", id, err)
		}
		return out, nil
	}
	q := monitor.SampleQuery{Series: m.Series, From: r.From, To: r.To, After: after, Limit: r.Limit}
	if out.Items, err = s.opts.Store.Samples(ctx, q); err != nil {
		return Samples{}, fmt.Errorf("read samples of monitor %s: %w", id, err)
	}
	if len(out.Items) >= r.Limit {
		out.Next = strconv.FormatUint(uint64(out.Items[len(out.Items)-1].Tick), 36)
	}
	return out, nil
}

// Uptime returns what a range of time amounts to for a monitor: length up to now.
func (s *Service) Uptime(ctx context.Context, id string, length time.Duration) (monitor.Uptime, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return monitor.Uptime{}, err
	}
	if length < time.Minute || length > MaxRange {
		return monitor.Uptime{}, monitor.Faults{{Field: "range", Value: short(length), Message: "must be between 1m and 3660d"}}
	}
	m, err := s.opts.Store.Monitor(ctx, id)
	if err != nil {
		return monitor.Uptime{}, fmt.Errorf("read monitor %s: %w", id, err)
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	u, err := s.opts.Store.Uptime(ctx, monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: now.Add(-length), To: now})
	if err != nil {
		return monitor.Uptime{}, fmt.Errorf("sum up monitor %s: %w", id, err)
	}
	return u, nil
}

// span fills in what a range leaves out and checks it.
func (s *Service) span(from, to *time.Time) monitor.Faults {
	var faults monitor.Faults
	if to.IsZero() {
		*to = s.now()
	}
	if from.IsZero() {
		*from = to.Add(-defaultRange)
	}
	*from, *to = from.UTC().Truncate(time.Millisecond), to.UTC().Truncate(time.Millisecond)
	switch {
	case !from.Before(*to):
		faults.Add("from", from.Format(time.RFC3339), "must lie before to, %s", to.Format(time.RFC3339))
	case to.Sub(*from) > MaxRange:
		faults.Add("from", from.Format(time.RFC3339), "must lie at most 3660 days before to")
	}
	return faults
}

// Incidents lists incidents, newest first. With a MonitorID that is unknown the error is monitor.ErrNotFound.
func (s *Service) Incidents(ctx context.Context, q monitor.IncidentQuery) (monitor.Page[monitor.Incident], error) {
	var none monitor.Page[monitor.Incident]
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return none, err
	}
	if q.MonitorID != "" {
		if _, err := s.opts.Store.Monitor(ctx, q.MonitorID); err != nil {
			return none, fmt.Errorf("read monitor %s: %w", q.MonitorID, err)
		}
	}
	page, err := s.opts.Store.Incidents(ctx, q)
	if err != nil {
		return none, fmt.Errorf("list incidents: %w", err)
	}
	return page, nil
}

// IncidentView is an incident with its timeline.
type IncidentView struct {
	monitor.Incident
	Events []monitor.Event // oldest first
}

const maxTimeline = 1000 // events of an incident that are shown

// Incident returns one incident with what happened in it.
func (s *Service) Incident(ctx context.Context, id string) (IncidentView, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return IncidentView{}, err
	}
	inc, err := s.opts.Store.Incident(ctx, id)
	if err != nil {
		return IncidentView{}, fmt.Errorf("read incident %s: %w", id, err)
	}
	events, err := s.opts.Store.Events(ctx, monitor.EventQuery{IncidentID: id, Limit: maxTimeline})
	if err != nil {
		return IncidentView{}, fmt.Errorf("list events of incident %s: %w", id, err)
	}
	v := IncidentView{Incident: inc, Events: make([]monitor.Event, 0, len(events.Items))}
	for i := len(events.Items) - 1; i >= 0; i-- {
		v.Events = append(v.Events, events.Items[i])
	}
	return v, nil
}
