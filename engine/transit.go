package engine

import (
	"slices"
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
		state.Incident, state.IncidentSince, state.IncidentCause = incident, state.Since, sample.Message
		t.Incident = openIncident(m, *state)
	case v.closed:
		t.Incident = openIncident(m, *state)
		t.Incident.EndedAt = at
	}
	if incident != "" {
		outage = &sdk.Outage{ID: incident, StartedAt: state.IncidentSince, Duration: max(0, at.Sub(state.IncidentSince))}
		if v.closed {
			outage.EndedAt = at
		}
	}
	if v.event != "" {
		t.Event = e.event(m, v, state.Condition, sample, outage)
		t.Channels = e.audience(t.Event, m)
	}
	switch {
	case v.opened:
		state.Told = t.Channels
	case v.closed:
		t.Channels = e.withTold(t.Channels, state.Told)
		state.Incident, state.IncidentSince, state.IncidentCause, state.Told = "", time.Time{}, "", nil
	}
	t.State = *state
	e.stats.transitions.Add(1)
	e.recorder.add(m.Series, t)
}

// openIncident returns the open incident of a state.
func openIncident(m *monitor.Monitor, state monitor.State) *monitor.Incident {
	return &monitor.Incident{
		ID: state.Incident, MonitorID: m.ID, MonitorName: m.Name, Cause: state.IncidentCause, StartedAt: state.IncidentSince,
	}
}

// event makes the event of a verdict that led to a condition.
func (e *Engine) event(m *monitor.Monitor, v verdict, to monitor.Condition, sample monitor.Sample, outage *sdk.Outage) *monitor.Event {
	ev := &monitor.Event{
		ID: ulid.Make().String(), MonitorID: m.ID, Kind: v.event, Audience: v.audience,
		From: v.from, To: to, At: sample.Tick.Time(), Message: sample.Message,
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
	return ev
}

// withTold adds the channels that were told of an outage to those that are told of its end: also when they were taken off
// the monitor meanwhile, so that nothing stays open at a receiver. Channels that want no ends, and disabled ones, are left
// out.
func (e *Engine) withTold(ids, told []string) []string {
	e.channelsMu.RLock()
	defer e.channelsMu.RUnlock()
	for _, id := range told {
		c, ok := e.channels[id]
		wants := len(c.Filter.Transitions) == 0 || slices.Contains(c.Filter.Transitions, sdk.WentUp)
		if ok && !c.Disabled && wants && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Farewell returns the transition that ends the open outage of a monitor which is about to be deleted: those who were told of
// it are told that it is not watched any more. It is nil when there is no outage, or no such monitor.
func (e *Engine) Farewell(id string) *monitor.Transition {
	en := e.entry(id)
	if en == nil {
		return nil
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	state := en.state
	if state.Incident == "" {
		return nil
	}
	now := monitor.TickOf(e.now()).Time()
	incident := openIncident(en.spec, state)
	incident.EndedAt = now
	told := e.withTold(nil, state.Told)
	outage := &sdk.Outage{ID: incident.ID, StartedAt: incident.StartedAt, EndedAt: now, Duration: max(0, now.Sub(incident.StartedAt))}
	v := verdict{from: state.Condition, event: sdk.WentUp, audience: sdk.WentUp}
	sample := monitor.Sample{Tick: monitor.TickOf(now), Message: "the monitor was deleted; its target is not watched any more"}
	ev := e.event(en.spec, v, monitor.Unknown, sample, outage)
	state.Incident, state.IncidentSince, state.IncidentCause, state.Told = "", time.Time{}, "", nil
	return &monitor.Transition{State: state, Incident: incident, Event: ev, Channels: told}
}

// ended tells listeners that the outage of a removed monitor is over. The entry's lock is held.
func (e *Engine) ended(en *entry) {
	if en.state.Incident == "" {
		return
	}
	incident := openIncident(en.spec, en.state)
	incident.EndedAt = monitor.TickOf(e.now()).Time()
	e.feed.publish(MessageIncident, *incident)
	e.delivery.Wake()
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
