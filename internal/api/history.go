package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// Samples are what was seen of a monitor, oldest first.
type Samples struct {
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Resolution string    `json:"resolution" doc:"raw: items are samples; else the length of a step, and items are sums."`
	Items      []Sample  `json:"items" nullable:"false"`
	NextCursor *string   `json:"next_cursor" doc:"Send it as cursor to get what follows; null at the end."`
}

// Sample is one result, or with a step the sum of several.
type Sample struct {
	At        time.Time `json:"at" doc:"When it was seen, or when the step begins."`
	Status    string    `json:"status,omitempty" enum:"unknown,up,degraded,down"`
	State     string    `json:"state,omitempty" enum:"unknown,up,degraded,down,pending,paused,maintenance" doc:"The confirmed condition after it."`
	Code      uint16    `json:"code,omitempty"`
	LatencyUS *int64    `json:"latency_us,omitempty"`
	Message   string    `json:"message,omitempty" doc:"Kept where a result is not up or differs from the one before."`

	To      *time.Time     `json:"to,omitempty" doc:"When the step ends."`
	Counts  *Counts        `json:"counts,omitempty" doc:"Results by status."`
	Latency *LatencyFigure `json:"latency,omitempty" doc:"Of the up and degraded results; missing when there are none."`
}

// Counts are numbers by status.
type Counts struct {
	Up       int64 `json:"up"`
	Degraded int64 `json:"degraded"`
	Down     int64 `json:"down"`
	Unknown  int64 `json:"unknown"`
}

// LatencyFigure sums latencies up, in microseconds.
type LatencyFigure struct {
	AvgUS int64  `json:"avg_us"`
	MinUS int64  `json:"min_us"`
	MaxUS int64  `json:"max_us"`
	P50US *int64 `json:"p50_us" doc:"null where it cannot be had any more."`
	P95US *int64 `json:"p95_us"`
	P99US *int64 `json:"p99_us"`
}

func countsOf(c [4]int64) Counts {
	return Counts{Up: c[sdk.Up], Degraded: c[sdk.Degraded], Down: c[sdk.Down], Unknown: c[sdk.Unknown]}
}

func latencyOf(l monitor.Latency) *LatencyFigure {
	if l.Count == 0 {
		return nil
	}
	f := &LatencyFigure{
		AvgUS: (l.Sum / time.Duration(l.Count)).Microseconds(), MinUS: l.Min.Microseconds(), MaxUS: l.Max.Microseconds(),
	}
	quantile := func(d time.Duration) *int64 {
		if d <= 0 {
			return nil
		}
		us := d.Microseconds()
		return &us
	}
	f.P50US, f.P95US, f.P99US = quantile(l.P50), quantile(l.P95), quantile(l.P99)
	return f
}

func samplesOf(s *service.Samples) Samples {
	out := Samples{From: s.From, To: s.To, Resolution: "raw", NextCursor: textOrNil(s.Next), Items: []Sample{}}
	for i := range s.Items {
		m := &s.Items[i]
		us := m.Latency.Microseconds()
		out.Items = append(out.Items, Sample{
			At: m.Tick.Time(), Status: m.Status.String(), State: m.Condition.String(), Code: m.Code, LatencyUS: &us, Message: m.Message,
		})
	}
	if s.Step == 0 {
		return out
	}
	out.Resolution = string(durationOf(s.Step))
	for i := range s.Buckets {
		b := &s.Buckets[i]
		counts := countsOf(b.Counts)
		out.Items = append(out.Items, Sample{At: b.From.UTC(), To: when(b.To), Counts: &counts, Latency: latencyOf(b.Latency)})
	}
	return out
}

// Uptime is what a range of time amounts to.
type Uptime struct {
	From           time.Time      `json:"from"`
	To             time.Time      `json:"to"`
	UptimePercent  *float64       `json:"uptime_percent" doc:"Share of the known time in which the confirmed state was not down; null when no time is known."`
	SuccessPercent *float64       `json:"success_percent" doc:"Share of the results, unknown ones left out, that were not down; null when there are none."`
	KnownPercent   float64        `json:"known_percent" doc:"Share of the range in which the state was known."`
	Seconds        Seconds        `json:"seconds" doc:"Time by confirmed state; unknown has the beginning of pauses as well. Time without results is in none."`
	Counts         Counts         `json:"counts" doc:"Results by status."`
	Outages        int            `json:"outages" doc:"Incidents that began in the range, or before it and lasted into it."`
	MTTRSeconds    *float64       `json:"mttr_seconds" doc:"Mean time to recovery: time down by outage; null without outages."`
	MTBFSeconds    *float64       `json:"mtbf_seconds" doc:"Mean time between failures: time not down by outage; null without outages."`
	Latency        *LatencyFigure `json:"latency,omitempty"`
}

// Seconds are lengths of time by status.
type Seconds struct {
	Up       float64 `json:"up"`
	Degraded float64 `json:"degraded"`
	Down     float64 `json:"down"`
	Unknown  float64 `json:"unknown"`
}

func uptimeOf(u *monitor.Uptime) Uptime {
	out := Uptime{
		From: u.From.UTC(), To: u.To.UTC(), Counts: countsOf(u.Counts), Outages: u.Outages, Latency: latencyOf(u.Latency),
		Seconds: Seconds{
			Up: u.Held[sdk.Up].Seconds(), Degraded: u.Held[sdk.Degraded].Seconds(), Down: u.Held[sdk.Down].Seconds(),
			Unknown: u.Held[sdk.Unknown].Seconds(),
		},
	}
	percent := func(ratio float64, ok bool) *float64 {
		if !ok {
			return nil
		}
		ratio *= 100
		return &ratio
	}
	out.UptimePercent = percent(u.Ratio())
	out.SuccessPercent = percent(u.SuccessRatio())
	if length := u.To.Sub(u.From); length > 0 {
		out.KnownPercent = min(100, 100*u.Known().Seconds()/length.Seconds())
	}
	if u.Outages > 0 {
		repair := u.Downtime.Seconds() / float64(u.Outages)
		between := (u.Known() - u.Held[sdk.Down]).Seconds() / float64(u.Outages)
		out.MTTRSeconds, out.MTBFSeconds = &repair, &between
	}
	return out
}

// Incident is a confirmed outage.
type Incident struct {
	ID          string     `json:"id" doc:"A ULID."`
	MonitorID   string     `json:"monitor_id"`
	MonitorName string     `json:"monitor_name" doc:"As it was when the incident began."`
	Cause       string     `json:"cause" doc:"The message of the result that began it."`
	StartedAt   time.Time  `json:"started_at" doc:"When the first failing result was seen."`
	EndedAt     *time.Time `json:"ended_at" doc:"null while it lasts."`
}

// IncidentDetail is an incident with its timeline.
type IncidentDetail struct {
	Incident
	Timeline []Event `json:"timeline" nullable:"false" doc:"Oldest first."`
}

// Event is something that was worth telling.
type Event struct {
	ID      string    `json:"id" doc:"A ULID: what receivers got as the notification's id."`
	Kind    string    `json:"kind" doc:"The transition: down, up, degraded, unknown, test."`
	From    string    `json:"from" doc:"The state before."`
	To      string    `json:"to" doc:"The state after."`
	At      time.Time `json:"at"`
	Message string    `json:"message"`
}

func incidentOf(i *monitor.Incident) Incident {
	return Incident{
		ID: i.ID, MonitorID: i.MonitorID, MonitorName: i.MonitorName, Cause: i.Cause, StartedAt: i.StartedAt.UTC(), EndedAt: when(i.EndedAt),
	}
}

type (
	sampleList struct {
		ByID
		From   time.Time `query:"from" doc:"Left out: a day before to."`
		To     time.Time `query:"to" doc:"Not included. Left out: now."`
		Step   string    `query:"step" maxLength:"30" doc:"Sum up per step, such as 5m, 1h or 1d; at least 1m. Left out: each sample."`
		Limit  int       `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"Of samples; a step is not limited by it."`
		Cursor string    `query:"cursor" maxLength:"100" doc:"The next_cursor of the answer before."`
	}
	uptimeIn struct {
		ByID
		Range string `query:"range" maxLength:"30" default:"24h" doc:"Up to now: 24h, 7d, 30d, 1h30m."`
	}
	incidentList struct {
		StrictQuery
		Open    string `query:"open" enum:"true,false" doc:"Only those that last, or only those that are over."`
		Monitor string `query:"monitor" maxLength:"40" doc:"Only those of the monitor with this id."`
		Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Cursor  string `query:"cursor" maxLength:"2000" doc:"The next_cursor of the page before."`
	}
	monitorIncidents struct {
		ByID
		Open   string `query:"open" enum:"true,false" doc:"Only those that last, or only those that are over."`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Cursor string `query:"cursor" maxLength:"2000" doc:"The next_cursor of the page before."`
	}
	samplesOut   struct{ Body Samples }
	uptimeOut    struct{ Body Uptime }
	incidentsOut struct{ Body page[Incident] }
	incidentOut  struct{ Body IncidentDetail }
)

func (a *API) historyRoutes() {
	handle(a, route{
		id: "list-samples", method: http.MethodGet, path: "/monitors/{id}/samples", tag: "history", role: monitor.Viewer,
		summary: "What was seen of a monitor, oldest first",
	}, a.listSamples)
	handle(a, route{
		id: "get-uptime", method: http.MethodGet, path: "/monitors/{id}/uptime", tag: "history", role: monitor.Viewer,
		summary: "What a range of time amounts to",
	}, a.getUptime)
	handle(a, route{
		id: "list-monitor-incidents", method: http.MethodGet, path: "/monitors/{id}/incidents", tag: "history", role: monitor.Viewer,
		summary: "The outages of a monitor, newest first",
	}, func(ctx context.Context, in *monitorIncidents) (*incidentsOut, error) {
		return a.incidents(ctx, monitor.IncidentQuery{MonitorID: in.ID, Open: truth(in.Open), Limit: in.Limit, Cursor: in.Cursor})
	})
	handle(a, route{
		id: "list-incidents", method: http.MethodGet, path: "/incidents", tag: "history", role: monitor.Viewer,
		summary: "Outages, newest first",
	}, func(ctx context.Context, in *incidentList) (*incidentsOut, error) {
		return a.incidents(ctx, monitor.IncidentQuery{MonitorID: in.Monitor, Open: truth(in.Open), Limit: in.Limit, Cursor: in.Cursor})
	})
	handle(a, route{
		id: "get-incident", method: http.MethodGet, path: "/incidents/{id}", tag: "history", role: monitor.Viewer,
		summary: "One outage with its timeline",
	}, a.getIncident)
}

func truth(text string) *bool {
	if text == "" {
		return nil
	}
	yes := text == "true"
	return &yes
}

func (a *API) listSamples(ctx context.Context, in *sampleList) (*samplesOut, error) {
	r := service.SampleRange{From: in.From, To: in.To, Limit: in.Limit, Cursor: in.Cursor}
	if in.Step != "" {
		step, ok := longDuration(in.Step)
		if !ok || step <= 0 {
			return nil, invalid([]Fault{{Location: "query.step", Message: "must be a duration such as 5m, 1h or 1d", Value: in.Step}})
		}
		r.Step = step
	}
	s, err := a.svc.Samples(ctx, in.ID, r)
	if err != nil {
		return nil, located("query", err)
	}
	return &samplesOut{samplesOf(&s)}, nil
}

func (a *API) getUptime(ctx context.Context, in *uptimeIn) (*uptimeOut, error) {
	length, ok := longDuration(in.Range)
	if !ok {
		return nil, invalid([]Fault{{Location: "query.range", Message: "must be a length of time such as 24h, 7d or 30d", Value: in.Range}})
	}
	u, err := a.svc.Uptime(ctx, in.ID, length)
	if err != nil {
		return nil, located("query", err)
	}
	return &uptimeOut{uptimeOf(&u)}, nil
}

// longDuration reads what time.ParseDuration reads, and whole days: 7d.
func longDuration(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 100_000 {
			return 0, false
		}
		return time.Duration(n) * 24 * time.Hour, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

func (a *API) incidents(ctx context.Context, q monitor.IncidentQuery) (*incidentsOut, error) {
	found, err := a.svc.Incidents(ctx, q)
	if err != nil {
		return nil, located("query", err)
	}
	return &incidentsOut{pageOf(found.Items, found.Next, incidentOf)}, nil
}

func (a *API) getIncident(ctx context.Context, in *ByID) (*incidentOut, error) {
	v, err := a.svc.Incident(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &incidentOut{IncidentDetail{Incident: incidentOf(&v.Incident), Timeline: make([]Event, len(v.Events))}}
	for i := range v.Events {
		e := &v.Events[i]
		out.Body.Timeline[i] = Event{
			ID: e.ID, Kind: string(e.Kind), From: e.From.String(), To: e.To.String(), At: e.At.UTC(), Message: e.Message,
		}
	}
	return out, nil
}
