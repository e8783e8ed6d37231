package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func transition(m *monitor.Monitor, n int, at time.Time, channels ...string) monitor.Transition {
	in := &monitor.Incident{ID: id("I%s%d", m.Name, n), MonitorID: m.ID, MonitorName: m.Name, Cause: "refused", StartedAt: at}
	return monitor.Transition{
		State:    monitor.State{MonitorID: m.ID, Condition: monitor.Down, Since: at, Incident: in.ID, IncidentSince: at, IncidentCause: "refused", Told: channels, Beat: at, Bad: true, Fail: true, Known: true},
		Incident: in,
		Event: &monitor.Event{
			ID: id("E%s%d", m.Name, n), MonitorID: m.ID, IncidentID: in.ID, Kind: sdk.WentDown, From: monitor.Up, To: monitor.Down, At: at,
			Message: "refused", Payload: sdk.Notification{
				ID: id("E%s%d", m.Name, n), Transition: sdk.WentDown, Text: "it is down", At: at,
				Monitor: sdk.Ref{ID: m.ID, Name: m.Name}, Incident: &sdk.Outage{ID: in.ID, StartedAt: at},
			},
		},
		Channels: channels,
	}
}

func testTransitions(t *testing.T, b *bench) {
	ctx := t.Context()
	ops := b.channel(t, "ops")
	m := b.monitor(t, "one", func(m *monitor.Monitor) { m.Channels = []string{ops.ID} })
	down := transition(&m, 1, b.now(), ops.ID, "none")
	for range 3 { // writing the same again changes nothing
		no(t, b.Record(ctx, down))
	}
	states, err := b.States(ctx)
	no(t, err)
	same(t, states, []monitor.State{down.State})
	listed, err := b.ListMonitors(ctx, monitor.Query{})
	no(t, err)
	same(t, listed.Items[0].State, down.State)
	in, err := b.Incident(ctx, down.Incident.ID)
	no(t, err)
	same(t, in, *down.Incident)
	_, err = b.Incident(ctx, "none")
	is(t, err, monitor.ErrNotFound)
	events, err := b.Events(ctx, monitor.EventQuery{MonitorID: m.ID})
	no(t, err)
	same(t, events.Items, []monitor.Event{*down.Event})
	pending, _, _, err := b.OutboxCounts(ctx)
	no(t, err)
	same(t, pending, int64(1))

	b.set(b.now().Add(10 * time.Minute))
	up := transition(&m, 1, down.Incident.StartedAt)
	up.Incident.EndedAt = b.now()
	up.Event = nil
	up.State = monitor.State{MonitorID: m.ID, Condition: monitor.Up, Since: b.now(), Known: true}
	ended := *up.Incident
	up.Incident.Cause = "" // how it began stays as it is
	no(t, b.Record(ctx, up))
	in, err = b.Incident(ctx, up.Incident.ID)
	no(t, err)
	same(t, in, ended)
	states, err = b.States(ctx)
	no(t, err)
	same(t, states, []monitor.State{up.State})
	for _, r := range []struct {
		from, to time.Duration
		want     int
	}{{-time.Hour, -time.Minute, 0}, {-time.Hour, time.Minute, 1}, {time.Minute, 2 * time.Minute, 1}, {10 * time.Minute, time.Hour, 0}} {
		got, err := b.Uptime(ctx, monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: in.StartedAt.Add(r.from), To: in.StartedAt.Add(r.to)})
		no(t, err)
		same(t, got.Outages, r.want)
	}
}

// testFarewell deletes a monitor in the middle of an outage with the news of its end.
func testFarewell(t *testing.T, b *bench) {
	ctx := t.Context()
	ops := b.channel(t, "ops")
	m := b.monitor(t, "one", func(m *monitor.Monitor) { m.Channels = []string{ops.ID} })
	down := transition(&m, 1, b.now(), ops.ID)
	no(t, b.Record(ctx, down))
	b.set(b.now().Add(time.Minute))
	last := transition(&m, 2, down.Incident.StartedAt, ops.ID)
	last.Incident.ID, last.Incident.EndedAt = down.Incident.ID, b.now()
	last.Event.Kind, last.Event.IncidentID = sdk.WentUp, down.Incident.ID
	no(t, b.DeleteMonitor(ctx, m.ID, &last))
	in, err := b.Incident(ctx, down.Incident.ID)
	no(t, err)
	same(t, in.EndedAt.Equal(b.now()), true)
	pending, _, _, err := b.OutboxCounts(ctx)
	no(t, err)
	same(t, pending, int64(2))
	states, err := b.States(ctx)
	no(t, err)
	same(t, len(states), 0)
}

func testTimeline(t *testing.T, b *bench) {
	ctx := t.Context()
	one, two := b.monitor(t, "one"), b.monitor(t, "two")
	start := b.now()
	for i := range 25 {
		m := &one
		if i%5 == 0 {
			m = &two
		}
		tr := transition(m, i, start.Add(time.Duration(i/2)*time.Minute))
		if i%3 == 0 {
			tr.Incident.EndedAt = tr.Incident.StartedAt.Add(time.Minute)
		}
		no(t, b.Record(ctx, tr))
	}
	open, ended := true, false
	for _, c := range []struct {
		q    monitor.IncidentQuery
		want int
	}{{monitor.IncidentQuery{}, 25}, {monitor.IncidentQuery{MonitorID: two.ID}, 5}, {monitor.IncidentQuery{Open: &open}, 16}, {monitor.IncidentQuery{Open: &ended}, 9}} {
		for _, limit := range []int{0, 1, 4, 25} {
			c.q.Limit, c.q.Cursor = limit, ""
			var got []monitor.Incident
			for range 30 {
				page, err := b.Incidents(ctx, c.q)
				no(t, err)
				got = append(got, page.Items...)
				if c.q.Cursor = page.Next; page.Next == "" {
					break
				}
			}
			same(t, len(got), c.want)
			for i := 1; i < len(got); i++ {
				if got[i].StartedAt.After(got[i-1].StartedAt) || got[i].ID == got[i-1].ID {
					t.Fatalf("incident %d is newer than the one before", i)
				}
			}
		}
	}
	var events []monitor.Event
	q := monitor.EventQuery{MonitorID: one.ID, Limit: 3}
	for range 30 {
		page, err := b.Events(ctx, q)
		no(t, err)
		events = append(events, page.Items...)
		if q.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	same(t, len(events), 20)
	page, err := b.Events(ctx, monitor.EventQuery{IncidentID: "Itwo0"})
	no(t, err)
	same(t, len(page.Items), 1)
}

func testOutbox(t *testing.T, b *bench) {
	ctx := t.Context()
	ops, chat := b.channel(t, "ops"), b.channel(t, "chat")
	one, two := b.monitor(t, "one"), b.monitor(t, "two")
	start := b.now()
	if _, some, err := b.NextDue(ctx); err != nil || some {
		t.Fatalf("next due of an empty outbox: %v, %v", some, err)
	}
	for i, m := range []*monitor.Monitor{&one, &two, &one} {
		no(t, b.Record(ctx, transition(m, i, start, ops.ID, chat.ID)))
	}
	due := func(at time.Time, busy ...string) (ids []string, first monitor.Notification) {
		t.Helper()
		got, err := b.Due(ctx, at, busy, 10)
		no(t, err)
		for _, n := range got {
			ids = append(ids, n.EventID+" "+n.ChannelID)
		}
		if len(got) > 0 {
			first = got[0]
		}
		return ids, first
	}
	ids, first := due(start)
	same(t, ids, []string{"Eone0 C-ops", "Eone0 C-chat", "Etwo1 C-ops", "Etwo1 C-chat"})
	if first.Attempts != 0 || !first.CreatedAt.Equal(start) || !first.DueAt.Equal(start) || first.MonitorID != one.ID || first.Payload.Text != "it is down" {
		t.Fatalf("due: %+v", first)
	}
	limited, err := b.Due(ctx, start, nil, 1)
	no(t, err)
	same(t, len(limited), 1)
	ids, _ = due(start.Add(-time.Second))
	same(t, ids, nil)
	ids, chatFirst := due(start, ops.ID)
	same(t, ids, []string{"Eone0 C-chat", "Etwo1 C-chat"})

	// A retry holds back what is younger for the same channel and monitor, and nothing else.
	no(t, b.Attempted(ctx, monitor.Attempt{NotificationID: first.ID, At: start, Outcome: monitor.Retry, Error: "503", RetryAt: start.Add(time.Minute)}))
	ids, _ = due(start, chat.ID)
	same(t, ids, []string{"Etwo1 C-ops"})
	next, some, err := b.NextDue(ctx)
	no(t, err)
	if !some || !next.Equal(start) {
		t.Fatalf("next due %v, %v", next, some)
	}
	no(t, b.Attempted(ctx, monitor.Attempt{NotificationID: chatFirst.ID, At: start, Outcome: monitor.GivenUp, Error: "410"}))
	ids, _ = due(start, ops.ID)
	same(t, ids, []string{"Etwo1 C-chat", "Eone2 C-chat"})
	_, retried := due(start.Add(time.Minute), chat.ID)
	if retried.ID != first.ID || retried.Attempts != 1 || !retried.DueAt.Equal(start.Add(time.Minute)) {
		t.Fatalf("retried: %+v", retried)
	}
	no(t, b.Attempted(ctx, monitor.Attempt{NotificationID: first.ID, At: start, Outcome: monitor.Sent}))
	// What was recorded as sent stays so.
	no(t, b.Attempted(ctx, monitor.Attempt{NotificationID: first.ID, At: start, Outcome: monitor.Retry, RetryAt: start}))
	ids, _ = due(start, chat.ID)
	same(t, ids, []string{"Etwo1 C-ops", "Eone2 C-ops"})
	is(t, b.Attempted(ctx, monitor.Attempt{NotificationID: 9999, At: start, Outcome: monitor.Sent}), monitor.ErrNotFound)
	pending, failed, oldest, err := b.OutboxCounts(ctx)
	no(t, err)
	if pending != 4 || failed != 1 || !oldest.Equal(start) {
		t.Fatalf("counts: %d pending, %d failed, oldest %v", pending, failed, oldest)
	}
	b.restart(t)
	ids, _ = due(start)
	same(t, ids, []string{"Etwo1 C-ops", "Etwo1 C-chat", "Eone2 C-ops", "Eone2 C-chat"})
	no(t, b.DeleteChannel(ctx, chat.ID))
	ids, _ = due(start)
	same(t, ids, []string{"Etwo1 C-ops", "Eone2 C-ops"})

	healths := []monitor.Health{
		{ChannelID: chat.ID, LastErrorAt: start, LastError: "503 from chat", Streak: 2},
		{ChannelID: ops.ID, LastSuccessAt: start, LastErrorAt: start.Add(-time.Hour), LastError: "timeout"},
	}
	for _, h := range healths {
		if !b.PutHealth(monitor.Health{ChannelID: h.ChannelID}) || !b.PutHealth(h) {
			t.Fatal("a channel's health was dropped")
		}
	}
	b.flush(t)
	got, err := b.Healths(ctx)
	no(t, err)
	same(t, got, healths)
}

func testDeleted(t *testing.T, b *bench) {
	ctx := t.Context()
	ops := b.channel(t, "ops")
	m := b.monitor(t, "one", func(m *monitor.Monitor) { m.Channels = []string{ops.ID} })
	b.append(t, sample(m.Series, b.now(), sdk.Down, "refused"))
	no(t, b.Record(ctx, transition(&m, 1, b.now(), ops.ID)))
	b.set(b.now().Add(time.Minute))
	no(t, b.DeleteMonitor(ctx, m.ID, nil))
	// A check that was under way when the monitor went.
	b.append(t, sample(m.Series, b.now(), sdk.Down, "refused"))
	no(t, b.Record(ctx, transition(&m, 2, b.now(), ops.ID)))
	b.flush(t)
	states, err := b.States(ctx)
	no(t, err)
	same(t, states, nil)
	for _, incident := range []string{"Ione1", "Ione2"} {
		in, err := b.Incident(ctx, incident)
		no(t, err)
		if !in.EndedAt.Equal(b.now()) {
			t.Fatalf("the incident of a deleted monitor is open: %+v", in)
		}
	}
	last, err := b.Last(ctx)
	no(t, err)
	same(t, len(last), 0)
	for i := range 2 {
		b.set(b.now().Add(2 * time.Hour))
		b.maintain(t)
		due, err := b.Due(ctx, b.now(), nil, 10)
		no(t, err)
		if len(due) != 1 || due[0].EventID != id("Eone%d", i+1) {
			t.Fatalf("due after the deletion: %+v", due)
		}
		no(t, b.Attempted(ctx, monitor.Attempt{NotificationID: due[0].ID, At: b.now(), Outcome: monitor.Sent}))
		b.restart(t)
	}
	b.maintain(t)
	events, err := b.Events(ctx, monitor.EventQuery{})
	no(t, err)
	same(t, len(events.Items), 0)
	incidents, err := b.Incidents(ctx, monitor.IncidentQuery{})
	no(t, err)
	same(t, len(incidents.Items), 0)
	if again := b.monitor(t, "one"); again.Series == m.Series {
		t.Fatal("the series of a deleted monitor was used again")
	}
}

func testLogLines(t *testing.T, b *bench) {
	ctx := t.Context()
	levels := []string{"DEBUG", "INFO", "WARN", "ERROR"}
	for i := range 40 {
		line := monitor.LogLine{At: b.now(), Level: levels[i%4], Message: id("line %d", i), Attrs: `{"key":"Value"}`}
		if !b.AppendLog(line) {
			t.Fatal("a line was dropped")
		}
	}
	b.flush(t)
	all, err := b.LogLines(ctx, monitor.LogQuery{})
	no(t, err)
	same(t, len(all), 40)
	first := all[39]
	first.ID = 0
	same(t, first, monitor.LogLine{At: b.now(), Level: "DEBUG", Message: "line 0", Attrs: `{"key":"Value"}`})
	for i := 1; i < len(all); i++ {
		if all[i].ID >= all[i-1].ID {
			t.Fatal("the lines are not newest first")
		}
	}
	for _, c := range []struct {
		q    monitor.LogQuery
		want int
	}{
		{monitor.LogQuery{Level: "WARN"}, 20},
		{monitor.LogQuery{Text: "LINE 3"}, 11},
		{monitor.LogQuery{Text: "value"}, 40},
		{monitor.LogQuery{Before: all[29].ID}, 10},
		{monitor.LogQuery{Limit: 7}, 7},
		{monitor.LogQuery{Level: "ERROR", Text: "line 3", Before: all[5].ID}, 2},
	} {
		got, err := b.LogLines(ctx, c.q)
		no(t, err)
		if len(got) != c.want {
			t.Errorf("%+v: %d lines, want %d", c.q, len(got), c.want)
		}
	}
	b.restart(t)
	again, err := b.LogLines(ctx, monitor.LogQuery{})
	no(t, err)
	same(t, again, all)
}

// testRestart writes some of everything and compares all that can be read before and after a restart.
func testRestart(t *testing.T, b *bench) {
	ctx := t.Context()
	ops := b.channel(t, "ops")
	m := b.monitor(t, "one", func(m *monitor.Monitor) { m.Channels = []string{ops.ID} })
	token := monitor.Token{ID: "T", Name: "ci", Role: monitor.Admin, Hash: []byte("h")}
	no(t, b.CreateToken(ctx, &token))
	start := b.now()
	for i := range 200 {
		b.append(t, sample(m.Series, start.Add(time.Duration(i)*time.Minute), sdk.Status(1+i/100*2), id("text %d", i/50)))
	}
	b.PutHealth(monitor.Health{ChannelID: ops.ID, LastSuccessAt: start})
	b.AppendLog(monitor.LogLine{At: start, Level: "INFO", Message: "started", Attrs: "{}"})
	tr := transition(&m, 1, start.Add(100*time.Minute), ops.ID)
	tr.Recount = &monitor.Recount{Series: m.Series, From: monitor.TickOf(start.Add(95 * time.Minute)), Before: monitor.TickOf(start.Add(100 * time.Minute)), Condition: monitor.Down}
	no(t, b.Record(ctx, tr))
	b.set(start.Add(200 * time.Minute))
	b.maintain(t)
	read := func() map[string]any {
		t.Helper()
		out := make(map[string]any)
		keep := func(name string, v any, err error) {
			t.Helper()
			no(t, err)
			out[name] = v
		}
		monitors, err := b.Monitors(ctx)
		keep("monitors", monitors, err)
		channels, err := b.Channels(ctx)
		keep("channels", channels, err)
		tokens, err := b.Tokens(ctx)
		keep("tokens", tokens, err)
		states, err := b.States(ctx)
		keep("states", states, err)
		last, err := b.Last(ctx)
		keep("last", last, err)
		samples, err := b.Samples(ctx, monitor.SampleQuery{Series: m.Series})
		keep("samples", samples, err)
		bars, err := b.Bars(ctx, []uint32{m.Series})
		keep("bars", bars, err)
		uptime, err := b.Uptime(ctx, monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: start, To: b.now(), Quantiles: true})
		keep("uptime", uptime, err)
		buckets, err := b.Buckets(ctx, monitor.BucketQuery{Series: m.Series, From: start, To: b.now(), Step: 10 * time.Minute})
		keep("buckets", buckets, err)
		incidents, err := b.Incidents(ctx, monitor.IncidentQuery{})
		keep("incidents", incidents, err)
		events, err := b.Events(ctx, monitor.EventQuery{})
		keep("events", events, err)
		due, err := b.Due(ctx, b.now(), nil, 10)
		keep("due", due, err)
		healths, err := b.Healths(ctx)
		keep("healths", healths, err)
		lines, err := b.LogLines(ctx, monitor.LogQuery{})
		keep("log", lines, err)
		return out
	}
	before := read()
	b.restart(t)
	same(t, read(), before)
	b.set(start.Add(48 * time.Hour))
	b.maintain(t)
	b.set(start.Add(200 * time.Minute))
	same(t, read(), before)
	b.restart(t)
	same(t, read(), before)
}

// calls is every method that takes a context.
func calls(b *bench) map[string]func(ctx context.Context) error {
	now := b.now()
	return map[string]func(ctx context.Context) error{
		"CreateMonitor": func(ctx context.Context) error {
			return b.CreateMonitor(ctx, &monitor.Monitor{ID: "new", Name: "new", Interval: time.Minute})
		},
		"UpdateMonitor": func(ctx context.Context) error { return b.UpdateMonitor(ctx, &monitor.Monitor{ID: "M-one", Name: "x"}) },
		"DeleteMonitor": func(ctx context.Context) error { return b.DeleteMonitor(ctx, "M-one", nil) },
		"Monitor":       func(ctx context.Context) error { _, err := b.Monitor(ctx, "M-one"); return err },
		"MonitorByName": func(ctx context.Context) error { _, err := b.MonitorByName(ctx, "one"); return err },
		"Monitors":      func(ctx context.Context) error { _, err := b.Monitors(ctx); return err },
		"ListMonitors":  func(ctx context.Context) error { _, err := b.ListMonitors(ctx, monitor.Query{}); return err },
		"CreateChannel": func(ctx context.Context) error {
			return b.CreateChannel(ctx, &monitor.Channel{ID: "new", Name: "new"})
		},
		"UpdateChannel": func(ctx context.Context) error { return b.UpdateChannel(ctx, &monitor.Channel{ID: "C-ops"}) },
		"DeleteChannel": func(ctx context.Context) error { return b.DeleteChannel(ctx, "C-ops") },
		"Channel":       func(ctx context.Context) error { _, err := b.Channel(ctx, "C-ops"); return err },
		"ChannelByName": func(ctx context.Context) error { _, err := b.ChannelByName(ctx, "ops"); return err },
		"Channels":      func(ctx context.Context) error { _, err := b.Channels(ctx); return err },
		"CreateToken": func(ctx context.Context) error {
			return b.CreateToken(ctx, &monitor.Token{ID: "new", Name: "new", Hash: []byte("new")})
		},
		"Tokens":      func(ctx context.Context) error { _, err := b.Tokens(ctx); return err },
		"DeleteToken": func(ctx context.Context) error { return b.DeleteToken(ctx, "none") },
		"TokenByHash": func(ctx context.Context) error { _, err := b.TokenByHash(ctx, []byte("x")); return err },
		"Plugins":     func(ctx context.Context) error { _, err := b.Plugins(ctx); return err },
		"PutPlugin":   func(ctx context.Context) error { return b.PutPlugin(ctx, monitor.Plugin{Name: "redis"}) },
		"DeletePlugin": func(ctx context.Context) error {
			return b.DeletePlugin(ctx, "none")
		},
		"Record":  func(ctx context.Context) error { return b.Record(ctx, monitor.Transition{}) },
		"States":  func(ctx context.Context) error { _, err := b.States(ctx); return err },
		"Opaques": func(ctx context.Context) error { _, err := b.Opaques(ctx); return err },
		"Samples": func(ctx context.Context) error { _, err := b.Samples(ctx, monitor.SampleQuery{Series: 1}); return err },
		"Buckets": func(ctx context.Context) error {
			_, err := b.Buckets(ctx, monitor.BucketQuery{Series: 1, From: now.Add(-time.Hour), To: now, Step: time.Minute})
			return err
		},
		"Uptime": func(ctx context.Context) error {
			_, err := b.Uptime(ctx, monitor.UptimeQuery{Series: 1, From: now.Add(-time.Hour), To: now})
			return err
		},
		"Incidents":    func(ctx context.Context) error { _, err := b.Incidents(ctx, monitor.IncidentQuery{}); return err },
		"Incident":     func(ctx context.Context) error { _, err := b.Incident(ctx, "none"); return err },
		"Events":       func(ctx context.Context) error { _, err := b.Events(ctx, monitor.EventQuery{}); return err },
		"Due":          func(ctx context.Context) error { _, err := b.Due(ctx, now, nil, 1); return err },
		"NextDue":      func(ctx context.Context) error { _, _, err := b.NextDue(ctx); return err },
		"Attempted":    func(ctx context.Context) error { return b.Attempted(ctx, monitor.Attempt{Outcome: monitor.Sent}) },
		"Healths":      func(ctx context.Context) error { _, err := b.Healths(ctx); return err },
		"OutboxCounts": func(ctx context.Context) error { _, _, _, err := b.OutboxCounts(ctx); return err },
		"LogLines":     func(ctx context.Context) error { _, err := b.LogLines(ctx, monitor.LogQuery{}); return err },
		"Ready":        func(ctx context.Context) error { return b.Ready(ctx) },
		"Maintain":     func(ctx context.Context) error { return b.Maintain(ctx) },
	}
}

func testEndedContext(t *testing.T, b *bench) {
	b.channel(t, "ops")
	b.monitor(t, "one")
	// Once the newest samples have been read a read of bars or of the last samples may need no database at all.
	b.flush(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(b) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that has ended: %v", name, err)
		}
	}
	all, err := b.Monitors(t.Context())
	no(t, err)
	same(t, len(all), 1)
}

func testClosed(t *testing.T, b *bench) {
	b.channel(t, "ops")
	b.monitor(t, "one")
	b.stop(t)
	b.stop(t)
	for name, call := range calls(b) {
		if err := call(t.Context()); err == nil {
			t.Errorf("%s of a closed store is no error", name)
		}
	}
	if err := b.CreateChannel(t.Context(), &monitor.Channel{ID: "x", Name: "x"}); !errors.Is(err, monitor.ErrClosed) {
		t.Errorf("a write to a closed store: %v", err)
	}
	if b.Append(sample(1, b.now(), sdk.Up, "")) || b.AppendLog(monitor.LogLine{}) || b.PutHealth(monitor.Health{}) || b.TouchToken("x", b.now()) ||
		b.PutOpaque(monitor.Opaque{Series: 1, State: "s"}) {
		t.Error("a closed store takes writes")
	}
}
