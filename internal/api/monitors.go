package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// MonitorSpec is what a person writes of a monitor.
type MonitorSpec struct {
	Name          string            `json:"name" minLength:"1" maxLength:"200" doc:"Unique among monitors; one line; not of the form of an id (ULID)." example:"api"`
	Kind          string            `json:"kind" doc:"What sort of check it is; see /kinds." example:"http"`
	Target        string            `json:"target,omitempty" maxLength:"2000" doc:"What is watched, in the kind's own form." example:"https://example.com/"`
	Interval      *duration         `json:"interval,omitempty" doc:"How often it is checked: 1s to 24h. Left out: 60s."`
	Timeout       *duration         `json:"timeout,omitempty" doc:"How long a check may take: 10ms to the interval. Left out: 10s, or the interval if that is shorter."`
	Retries       int               `json:"retries,omitempty" minimum:"0" maximum:"100" doc:"How many further results must agree before up turns to down. Left out: 0."`
	RetryInterval *duration         `json:"retry_interval,omitempty" doc:"Between those results: 1s to the interval. Left out: 20s, or the interval if that is shorter."`
	Recoveries    int               `json:"recoveries,omitempty" minimum:"0" maximum:"100" doc:"How many further results must agree before down turns to up. Left out: 0."`
	Config        object            `json:"config,omitempty" doc:"What the kind's schema describes. Secrets are shown as ••••, and ••••, sent back, keeps the one that is stored, as long as the kind, the target and the rest of config stay as they are."`
	Assert        []string          `json:"assert,omitempty" nullable:"false" maxItems:"50" doc:"Expressions; one that is false makes the result down." example:"[\"status == 200\"]"`
	Degrade       []string          `json:"degrade,omitempty" nullable:"false" maxItems:"50" doc:"Expressions; one that is false makes the result degraded." example:"[\"latency < 300ms\"]"`
	Channels      []string          `json:"channels,omitempty" nullable:"false" maxItems:"50" doc:"Names of the channels that are told." example:"[\"ops\"]"`
	Labels        map[string]string `json:"labels,omitempty" doc:"At most 50. Names have 1 to 63 letters, digits, '.', '_', '-' or '/', values at most 200 characters."`
	Paused        bool              `json:"paused,omitempty" doc:"A paused monitor is not checked."`
}

func (m *MonitorSpec) input(faults *[]Fault) service.MonitorInput {
	return service.MonitorInput{
		Name: m.Name, Kind: m.Kind, Target: m.Target,
		Interval: m.Interval.read("body.interval", faults), Timeout: m.Timeout.read("body.timeout", faults),
		Retries: m.Retries, RetryInterval: m.RetryInterval.read("body.retry_interval", faults), Recoveries: m.Recoveries,
		Config: json.RawMessage(m.Config), Assert: m.Assert, Degrade: m.Degrade, Channels: m.Channels, Labels: m.Labels, Paused: m.Paused,
	}
}

// Monitor is a monitor as answers have it.
type Monitor struct {
	ID            string            `json:"id" doc:"A ULID."`
	Name          string            `json:"name"`
	Kind          string            `json:"kind"`
	Target        string            `json:"target"`
	Interval      duration          `json:"interval"`
	Timeout       duration          `json:"timeout"`
	Retries       int               `json:"retries"`
	RetryInterval duration          `json:"retry_interval"`
	Recoveries    int               `json:"recoveries"`
	Config        object            `json:"config" doc:"Secrets are shown as ••••."`
	Assert        []string          `json:"assert" nullable:"false"`
	Degrade       []string          `json:"degrade" nullable:"false"`
	Channels      []string          `json:"channels" nullable:"false" doc:"Names."`
	Labels        map[string]string `json:"labels"`
	Paused        bool              `json:"paused"`
	Revision      int64             `json:"revision" doc:"1 when created, one more at each change; the ETag."`
	CreatedAt     time.Time         `json:"created_at"`
	UpdatedAt     time.Time         `json:"updated_at"`
	State         string            `json:"state" enum:"unknown,up,degraded,down,pending,paused,maintenance" doc:"The confirmed condition."`
	Since         *time.Time        `json:"since" doc:"When the state began."`
	IncidentID    *string           `json:"incident_id" doc:"The open incident; null when there is none."`
	PushURL       string            `json:"push_url,omitempty" doc:"Where heartbeats go, of monitors that wait for them; only for editors and admins."`
	Last          *Result           `json:"last,omitempty" doc:"The newest result; missing before the first."`
}

// Result is what one check found.
type Result struct {
	Status    string       `json:"status" enum:"unknown,up,degraded,down"`
	Message   string       `json:"message"`
	LatencyUS int64        `json:"latency_us" doc:"Microseconds of the whole check; 0 when there is none."`
	Code      uint16       `json:"code,omitempty" doc:"The protocol's own number: HTTP status, DNS rcode."`
	Address   string       `json:"address,omitempty" doc:"The address that answered."`
	ExpiresAt *time.Time   `json:"expires_at,omitempty" doc:"When the certificate that was seen ends."`
	At        time.Time    `json:"at"`
	Metrics   []sdk.Metric `json:"metrics" nullable:"false"`
	TimingUS  Timing       `json:"timing_us" doc:"Where the time went, in microseconds; parts that did not take place are missing."`
}

// Timing is where a check's time went, in microseconds.
type Timing struct {
	DNS       int64 `json:"dns,omitempty"`
	Connect   int64 `json:"connect,omitempty"`
	TLS       int64 `json:"tls,omitempty"`
	FirstByte int64 `json:"first_byte,omitempty"`
	Total     int64 `json:"total,omitempty"`
}

func resultOf(r *sdk.Result, at time.Time) Result {
	out := Result{
		Status: r.Status.String(), Message: r.Message, LatencyUS: r.Latency.Microseconds(), Code: r.Code, Address: r.Address,
		ExpiresAt: when(r.ExpiresAt), At: at.UTC(), Metrics: r.Metrics,
		TimingUS: Timing{
			DNS: r.Timing.DNS.Microseconds(), Connect: r.Timing.Connect.Microseconds(), TLS: r.Timing.TLS.Microseconds(),
			FirstByte: r.Timing.FirstByte.Microseconds(), Total: r.Timing.Total.Microseconds(),
		},
	}
	if out.Metrics == nil {
		out.Metrics = []sdk.Metric{}
	}
	return out
}

func monitorOf(v *service.MonitorView) Monitor {
	m := Monitor{
		ID: v.ID, Name: v.Name, Kind: v.Kind, Target: v.Target, Interval: durationOf(v.Interval), Timeout: durationOf(v.Timeout),
		Retries: v.Retries, RetryInterval: durationOf(v.RetryInterval), Recoveries: v.Recoveries, Config: object(v.Config),
		Assert: list(v.Assert), Degrade: list(v.Degrade), Channels: list(v.Channels), Labels: v.Labels, Paused: v.Paused,
		Revision: v.Revision, CreatedAt: v.CreatedAt.UTC(), UpdatedAt: v.UpdatedAt.UTC(),
		State: v.State.Condition.String(), Since: when(v.State.Since), IncidentID: textOrNil(v.State.Incident), PushURL: v.PushURL,
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	if v.Last != nil {
		last := resultOf(&v.Last.Result, v.Last.At)
		m.Last = &last
	}
	return m
}

// spec is what a person would have written to have the monitor as it is.
func (m *Monitor) spec() MonitorSpec {
	return MonitorSpec{
		Name: m.Name, Kind: m.Kind, Target: m.Target, Interval: &m.Interval, Timeout: &m.Timeout, Retries: m.Retries,
		RetryInterval: &m.RetryInterval, Recoveries: m.Recoveries, Config: m.Config, Assert: m.Assert, Degrade: m.Degrade,
		Channels: m.Channels, Labels: m.Labels, Paused: m.Paused,
	}
}

func list(items []string) []string {
	if items == nil {
		return []string{}
	}
	return items
}

type (
	monitorList struct {
		StrictQuery
		State  string   `query:"state" enum:"unknown,up,degraded,down,pending,paused,maintenance" doc:"Only those in this state."`
		Kind   string   `query:"kind" maxLength:"100" doc:"Only those of this kind."`
		Label  []string `query:"label,explode" maxItems:"50" doc:"Only those with this label, as key:value; may be repeated, and then all must be there."`
		Q      string   `query:"q" maxLength:"200" doc:"Only those with this text in name, target or labels, whatever the case."`
		Sort   string   `query:"sort" enum:"name,state,kind" default:"name" doc:"By state: the worst first."`
		Limit  int      `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Cursor string   `query:"cursor" maxLength:"2000" doc:"The next_cursor of the page before."`
	}
	monitorsOut struct{ Body page[Monitor] }
	resultOut   struct{ Body Result }
	nothing     struct{}
	anything    struct{ StrictQuery }
)

func (a *API) monitorRoutes() {
	spec := reflect.TypeFor[MonitorSpec]()
	r := resource[MonitorSpec, service.MonitorInput, service.MonitorView, Monitor]{
		api: a, path: "/monitors/", find: a.svc.Monitor, check: a.svc.CheckMonitor, create: a.svc.CreateMonitor, replace: a.svc.ReplaceMonitor,
		remove: a.svc.DeleteMonitor, input: (*MonitorSpec).input, body: monitorOf, spec: (*Monitor).spec,
		identity: func(b *Monitor) (string, int64) { return b.ID, b.Revision },
	}
	handle(a, route{
		id: "list-monitors", method: http.MethodGet, path: "/monitors", tag: "monitors", role: monitor.Viewer,
		summary: "List monitors with their states and newest results",
	}, a.listMonitors)
	handle(a, route{
		id: "create-monitor", method: http.MethodPost, path: "/monitors", tag: "monitors", role: monitor.Editor, status: http.StatusCreated,
		summary: "Have something watched", body: spec, description: "It is checked at once.",
	}, r.post)
	handle(a, route{
		id: "get-monitor", method: http.MethodGet, path: "/monitors/{id}", tag: "monitors", role: monitor.Viewer,
		summary: "Show one monitor",
	}, r.get)
	handle(a, route{
		id: "replace-monitor", method: http.MethodPut, path: "/monitors/{id}", tag: "monitors", role: monitor.Editor,
		summary: "Replace what is watched, and how", body: spec, description: "What is left out takes its default.",
	}, r.put)
	handle(a, route{
		id: "patch-monitor", method: http.MethodPatch, path: "/monitors/{id}", tag: "monitors", role: monitor.Editor,
		summary: "Change a part of a monitor", body: spec, types: []string{patchType},
		description: `A merge patch (RFC 7396): null takes a field back to its default. {"paused": true} pauses. Nothing is required here.`,
	}, r.patch)
	handle(a, route{
		id: "delete-monitor", method: http.MethodDelete, path: "/monitors/{id}", tag: "monitors", role: monitor.Editor,
		summary: "Stop watching", description: "Its samples and incidents are deleted within minutes, after what was to be told of it.",
	}, r.delete)
	handle(a, route{
		id: "check-monitor", method: http.MethodPost, path: "/monitors/{id}/check", tag: "monitors", role: monitor.Editor,
		summary: "Check now", description: "Waits for the result, which is stored and counts like any other.",
	}, a.checkMonitor)
}

func (a *API) listMonitors(ctx context.Context, in *monitorList) (*monitorsOut, error) {
	labels, err := labelPairs(in.Label)
	if err != nil {
		return nil, err
	}
	q := monitor.Query{Kind: in.Kind, Labels: labels, Text: in.Q, Sort: monitor.Sort(in.Sort), Limit: in.Limit, Cursor: in.Cursor}
	if in.State != "" {
		c, _ := monitor.ParseCondition(in.State) // the enum above knows no other
		q.Condition = &c
	}
	found, err := a.svc.Monitors(ctx, q)
	if err != nil {
		return nil, located("query", err)
	}
	return &monitorsOut{pageOf(found.Items, found.Next, monitorOf)}, nil
}

func (a *API) checkMonitor(ctx context.Context, in *ByID) (*resultOut, error) {
	last, err := a.svc.CheckNow(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &resultOut{resultOf(&last.Result, last.At)}, nil
}
