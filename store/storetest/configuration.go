package storetest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func testMonitors(t *testing.T, b *bench) {
	ctx := t.Context()
	ops, chat := b.channel(t, "ops"), b.channel(t, "chat")
	full := func(m *monitor.Monitor) {
		m.Retries, m.Recoveries, m.Paused = 3, 2, true
		m.Interval = 1500 * time.Millisecond
		m.Timeout = 10*time.Millisecond + 7
		m.Assert, m.Degrade = []string{"status == 200", "body contains 'x'"}, []string{"latency < 300ms"}
		m.Labels = map[string]string{"team": "web", `a"b.c`: "d=e"}
		m.Channels = []string{chat.ID, ops.ID}
	}
	one := b.monitor(t, "one", full)
	two := b.monitor(t, "two")
	if one.Series != 1 || two.Series != 2 || one.Revision != 1 || !one.CreatedAt.Equal(b.now()) || !one.UpdatedAt.Equal(b.now()) {
		t.Fatalf("created: %+v, %+v", one, two)
	}
	got, err := b.Monitor(ctx, one.ID)
	no(t, err)
	same(t, got, one)
	got, err = b.MonitorByName(ctx, "two")
	no(t, err)
	same(t, got, two)
	all, err := b.Monitors(ctx)
	no(t, err)
	same(t, all, []monitor.Monitor{one, two})

	_, err = b.Monitor(ctx, "none")
	is(t, err, monitor.ErrNotFound)
	_, err = b.MonitorByName(ctx, "none")
	is(t, err, monitor.ErrNotFound)
	twin := two
	twin.ID = "M-twin"
	is(t, b.CreateMonitor(ctx, &twin), monitor.ErrConflict)
	same(t, twin.Series, two.Series)
	twin.Name, twin.Channels = "twin", []string{ops.ID, "none"}
	faulty(t, b.CreateMonitor(ctx, &twin), "channels[1]")
	_, err = b.MonitorByName(ctx, "twin")
	is(t, err, monitor.ErrNotFound)

	b.set(b.now().Add(time.Minute))
	two.Name, two.Target, two.Channels, two.Series = "deux", "http://127.0.0.1/deux", []string{ops.ID}, 77
	no(t, b.UpdateMonitor(ctx, &two))
	if two.Revision != 2 || two.Series != 2 || !two.UpdatedAt.Equal(b.now()) || !two.CreatedAt.Equal(b.now().Add(-time.Minute)) {
		t.Fatalf("updated: %+v", two)
	}
	got, err = b.Monitor(ctx, two.ID)
	no(t, err)
	same(t, got, two)
	old := two
	old.Revision = 1
	is(t, b.UpdateMonitor(ctx, &old), monitor.ErrStale)
	clash := two
	clash.Name = "one"
	is(t, b.UpdateMonitor(ctx, &clash), monitor.ErrConflict)
	same(t, clash.Revision, two.Revision)
	none := two
	none.ID = "none"
	is(t, b.UpdateMonitor(ctx, &none), monitor.ErrNotFound)

	no(t, b.DeleteMonitor(ctx, two.ID, nil))
	is(t, b.DeleteMonitor(ctx, two.ID, nil), monitor.ErrNotFound)
	_, err = b.Monitor(ctx, two.ID)
	is(t, err, monitor.ErrNotFound)
	if three := b.monitor(t, "three"); three.Series != 3 {
		t.Fatalf("series %d, want 3: the one of a deleted monitor is never used again", three.Series)
	}
}

func testLists(t *testing.T, b *bench) {
	ctx := t.Context()
	conditions := []monitor.Condition{
		monitor.Down, monitor.Degraded, monitor.Unknown, monitor.Pending, monitor.Maintenance, monitor.Paused, monitor.Up,
	}
	var byState []string
	for i, c := range conditions {
		for _, letter := range []string{"b", "a"} {
			name := id("%s%d", letter, 9-i)
			m := b.monitor(t, name, func(m *monitor.Monitor) {
				m.Labels = map[string]string{"n": id("%d", i), "ÄÖ": "Straße"}
				if i%2 == 1 {
					m.Kind = "tcp"
				}
			})
			if c != monitor.Pending {
				no(t, b.Record(ctx, monitor.Transition{State: monitor.State{MonitorID: m.ID, Condition: c, Since: b.now()}}))
			}
		}
		byState = append(byState, id("a%d", 9-i), id("b%d", 9-i))
	}
	walk := func(q monitor.Query) (names []string) {
		t.Helper()
		for range 100 {
			page, err := b.ListMonitors(ctx, q)
			no(t, err)
			for _, one := range page.Items {
				names = append(names, one.Monitor.Name)
				if one.State.MonitorID != one.Monitor.ID {
					t.Fatalf("state %+v of %s", one.State, one.Monitor.ID)
				}
			}
			if q.Cursor = page.Next; page.Next == "" {
				return names
			}
		}
		t.Fatal("the pages do not end")
		return nil
	}
	for limit := range 16 {
		same(t, walk(monitor.Query{Sort: monitor.SortState, Limit: limit}), byState)
	}
	same(t, walk(monitor.Query{Limit: 4}), []string{
		"a3", "a4", "a5", "a6", "a7", "a8", "a9", "b3", "b4", "b5", "b6", "b7", "b8", "b9",
	})
	same(t, walk(monitor.Query{Sort: monitor.SortKind, Limit: 3}), []string{
		"a3", "a5", "a7", "a9", "b3", "b5", "b7", "b9", "a4", "a6", "a8", "b4", "b6", "b8",
	})
	for i, c := range conditions {
		same(t, walk(monitor.Query{Condition: &c}), []string{id("a%d", 9-i), id("b%d", 9-i)})
	}
	same(t, walk(monitor.Query{Kind: "tcp", Text: "/A"}), []string{"a4", "a6", "a8"})
	same(t, walk(monitor.Query{Labels: map[string]string{"n": "2", "ÄÖ": "Straße"}}), []string{"a7", "b7"})
	same(t, walk(monitor.Query{Labels: map[string]string{"n": "2", "ÄÖ": "straße"}}), []string{})
	same(t, walk(monitor.Query{Text: "äö=STRAßE", Kind: "tcp", Limit: 2}), []string{"a4", "a6", "a8", "b4", "b6", "b8"})
	same(t, walk(monitor.Query{Text: "%"}), nil)
	same(t, walk(monitor.Query{Text: "a\x00"}), nil)
}

func testBadQueries(t *testing.T, b *bench) {
	ctx := t.Context()
	m := b.monitor(t, "one")
	b.monitor(t, "two")
	page, err := b.ListMonitors(ctx, monitor.Query{Limit: 1})
	no(t, err)
	for _, c := range []string{"x", "!!!", "bm8", page.Next + "A", page.Next[1:]} {
		_, err := b.ListMonitors(ctx, monitor.Query{Cursor: c})
		faulty(t, err, "cursor")
		_, err = b.Incidents(ctx, monitor.IncidentQuery{Cursor: c})
		faulty(t, err, "cursor")
		_, err = b.Events(ctx, monitor.EventQuery{Cursor: c})
		faulty(t, err, "cursor")
	}
	_, err = b.ListMonitors(ctx, monitor.Query{Cursor: page.Next, Sort: monitor.SortKind})
	faulty(t, err, "cursor")
	_, err = b.ListMonitors(ctx, monitor.Query{Sort: "size"})
	faulty(t, err, "sort")
	for _, limit := range []int{-1, 1001, 10_001} {
		_, err = b.ListMonitors(ctx, monitor.Query{Limit: limit})
		faulty(t, err, "limit")
		_, err = b.Incidents(ctx, monitor.IncidentQuery{Limit: limit})
		faulty(t, err, "limit")
		_, err = b.Events(ctx, monitor.EventQuery{Limit: limit})
		faulty(t, err, "limit")
		_, err = b.LogLines(ctx, monitor.LogQuery{Limit: limit})
		faulty(t, err, "limit")
	}
	_, err = b.Samples(ctx, monitor.SampleQuery{Series: m.Series, Limit: 10_001})
	faulty(t, err, "limit")
	_, err = b.LogLines(ctx, monitor.LogQuery{Level: "LOUD"})
	faulty(t, err, "level")
	now := b.now()
	_, err = b.Uptime(ctx, monitor.UptimeQuery{Series: m.Series, From: now, To: now})
	faulty(t, err, "from")
	_, err = b.Buckets(ctx, monitor.BucketQuery{Series: m.Series, From: now, To: now, Step: time.Hour})
	faulty(t, err, "from")
	_, err = b.Buckets(ctx, monitor.BucketQuery{Series: m.Series, From: now, To: now.Add(time.Hour)})
	faulty(t, err, "step")
	_, err = b.Buckets(ctx, monitor.BucketQuery{Series: m.Series, From: now, To: now.AddDate(1, 0, 0), Step: time.Minute})
	faulty(t, err, "step")
}

func testChannels(t *testing.T, b *bench) {
	ctx := t.Context()
	ops := monitor.Channel{
		ID: "C1", Name: "ops", Provider: "ntfy", Config: json.RawMessage(`{"topic":"t","token":"hush"}`), Disabled: true,
		Filter: monitor.Filter{Transitions: []sdk.Transition{sdk.WentDown}, Labels: map[string]string{"team": "web"}},
	}
	no(t, b.CreateChannel(ctx, &ops))
	if ops.Revision != 1 || !ops.CreatedAt.Equal(b.now()) {
		t.Fatalf("created: %+v", ops)
	}
	got, err := b.Channel(ctx, "C1")
	no(t, err)
	same(t, got, ops)
	got, err = b.ChannelByName(ctx, "ops")
	no(t, err)
	same(t, got, ops)
	twin := monitor.Channel{ID: "C2", Name: "ops", Provider: "ntfy"}
	is(t, b.CreateChannel(ctx, &twin), monitor.ErrConflict)
	b.set(b.now().Add(time.Second))
	ops.Name, ops.Disabled, ops.Filter = "night", false, monitor.Filter{}
	no(t, b.UpdateChannel(ctx, &ops))
	if ops.Revision != 2 || !ops.UpdatedAt.Equal(b.now()) {
		t.Fatalf("updated: %+v", ops)
	}
	old := ops
	old.Revision = 1
	is(t, b.UpdateChannel(ctx, &old), monitor.ErrStale)
	old.ID = "none"
	is(t, b.UpdateChannel(ctx, &old), monitor.ErrNotFound)
	all, err := b.Channels(ctx)
	no(t, err)
	same(t, all, []monitor.Channel{ops})
	for _, name := range []string{"m1", "m2", "m3", "m4", "m5", "m6"} {
		b.monitor(t, name, func(m *monitor.Monitor) { m.Channels = []string{"C1"} })
	}
	err = b.DeleteChannel(ctx, "C1")
	is(t, err, monitor.ErrConflict)
	same(t, err.Error(), "delete channel: it is used by m1, m2, m3, m4, m5 and others: conflict")
	for _, name := range []string{"m1", "m2", "m3", "m4", "m5", "m6"} {
		no(t, b.DeleteMonitor(ctx, "M-"+name, nil))
	}
	no(t, b.DeleteChannel(ctx, "C1"))
	is(t, b.DeleteChannel(ctx, "C1"), monitor.ErrNotFound)
	_, err = b.Channel(ctx, "C1")
	is(t, err, monitor.ErrNotFound)
	_, err = b.ChannelByName(ctx, "night")
	is(t, err, monitor.ErrNotFound)
}

func testTokens(t *testing.T, b *bench) {
	ctx := t.Context()
	ci := monitor.Token{ID: "T1", Name: "ci", Role: monitor.Editor, Hash: []byte("hash of ci"), ExpiresAt: b.now().Add(time.Hour)}
	no(t, b.CreateToken(ctx, &ci))
	for _, twin := range []monitor.Token{
		{ID: "T2", Name: "ci", Role: monitor.Viewer, Hash: []byte("another")},
		{ID: "T2", Name: "another", Role: monitor.Viewer, Hash: []byte("hash of ci")},
	} {
		is(t, b.CreateToken(ctx, &twin), monitor.ErrConflict)
	}
	got, err := b.TokenByHash(ctx, []byte("hash of ci"))
	no(t, err)
	same(t, got, ci)
	_, err = b.TokenByHash(ctx, []byte("hash of c"))
	is(t, err, monitor.ErrNotFound)
	if !b.TouchToken("T1", b.now().Add(time.Minute)) || !b.TouchToken("T1", b.now()) || !b.TouchToken("none", b.now()) {
		t.Fatal("a touch was dropped")
	}
	b.flush(t)
	ci.LastUsedAt = b.now().Add(time.Minute)
	all, err := b.Tokens(ctx)
	no(t, err)
	same(t, all, []monitor.Token{ci})
	no(t, b.DeleteToken(ctx, "T1"))
	is(t, b.DeleteToken(ctx, "T1"), monitor.ErrNotFound)
	_, err = b.TokenByHash(ctx, []byte("hash of ci"))
	is(t, err, monitor.ErrNotFound)
}
