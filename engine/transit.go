package engine

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// transit turns a verdict into everything that is recorded of it, and hands that to the recorder. state gets the id of the
// incident that begins or loses the one that ends. The entry's lock is held.
func (e *Engine) transit(en *entry, state *monitor.State, v verdict, sample monitor.Sample) {
	m := en.spec
	at := sample.Tick.Time()
	t := monitor.Transition{}
	var outage *sdk.Outage
	if from := monitor.TickOf(state.Since); from < sample.Tick {
		t.Recount = &monitor.Recount{Series: m.Series, From: from, Before: sample.Tick, Condition: state.Condition}
	}
	incident := state.Incident
	switch {
	case v.opened:
		incident = ulid.Make().String()
		state.Incident, state.IncidentSince = incident, state.Since
		t.Incident = &monitor.Incident{
			ID: incident, MonitorID: m.ID, MonitorName: m.Name, Cause: sample.Message, StartedAt: state.Since,
		}
	case v.closed:
		t.Incident = &monitor.Incident{
			ID: incident, MonitorID: m.ID, MonitorName: m.Name, StartedAt: state.IncidentSince, EndedAt: at,
		}
	}
	if incident != "" {
		outage = &sdk.Outage{ID: incident, StartedAt: state.IncidentSince, Duration: max(0, at.Sub(state.IncidentSince))}
		if v.closed {
			outage.EndedAt = at
			state.Incident, state.IncidentSince = "", time.Time{}
		}
	}
	t.State = *state
	if v.event != "" {
		t.Event, t.Channels = e.event(m, v, *state, sample, outage)
	}
	e.stats.transitions.Add(1)
	e.recorder.add(m.Series, t)
}

// event makes the event of a verdict and finds the channels that are told of it.
func (e *Engine) event(m *monitor.Monitor, v verdict, state monitor.State, sample monitor.Sample, outage *sdk.Outage) (*monitor.Event, []string) {
	ev := &monitor.Event{
		ID: ulid.Make().String(), MonitorID: m.ID, Kind: v.event, Audience: v.audience,
		From: v.from, To: state.Condition, At: sample.Tick.Time(), Message: sample.Message,
		Payload: sdk.Notification{
			Transition: v.event, Monitor: reference(m), Incident: outage, At: sample.Tick.Time(), URL: e.link("/monitors/" + m.ID),
			Result: sdk.Seen{Status: sample.Status, Message: sample.Message, LatencyUS: sample.Latency.Microseconds()},
		},
	}
	ev.Payload.ID = ev.ID
	if outage != nil {
		ev.IncidentID = outage.ID
	}
	ev.Payload.Text = alert.Text(ev.Payload)
	return ev, e.audience(ev, m)
}

// audience returns the channels of a monitor that take an event.
func (e *Engine) audience(ev *monitor.Event, m *monitor.Monitor) []string {
	e.channelsMu.RLock()
	defer e.channelsMu.RUnlock()
	var ids []string
	for _, id := range m.Channels {
		if c, ok := e.channels[id]; ok && !c.Disabled && c.Filter.Takes(ev, m.Labels) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (e *Engine) link(path string) string {
	if e.opts.PublicURL == "" {
		return ""
	}
	return e.opts.PublicURL + path
}

func (e *Engine) testNotification(c monitor.Channel) sdk.Notification {
	n := sdk.Notification{
		ID: ulid.Make().String(), Transition: sdk.Test, At: e.now().UTC(), URL: e.link("/channels/" + c.ID),
		Monitor: sdk.Ref{Name: "Tocsin"},
		Result:  sdk.Seen{Status: sdk.Up, Message: "this is a test of the channel " + c.Name},
	}
	n.Text = alert.Text(n)
	return n
}

// recorded is called by the recorder once a transition is in the store.
func (e *Engine) recorded(t monitor.Transition) {
	if t.Incident != nil {
		e.feed.publish(MessageIncident, *t.Incident)
	}
	if len(t.Channels) > 0 {
		e.delivery.Wake()
	}
}
