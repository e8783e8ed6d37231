package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// A checker may answer "down" because its context was cancelled: that says nothing of the target.
func TestResultOfCancelledCheckIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		e := start(t, store, scripted{"t": checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
			<-ctx.Done()
			return sdk.Result{Status: sdk.Down, Message: "cut off"}, nil
		})}, nil)
		synctest.Wait()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		advance(time.Second)
		e.stop()
		if got := store.taken(); len(got) != 0 {
			t.Errorf("stored %+v of a check that the stop cut off", got)
		}
	})
}

// A process that stood still finds the beats of that time unread: their deadline waits until they can have been read.
func TestBeatsHaveTimeAfterStandstill(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := spec(1, "p")
			e := start(t, &memory{monitors: []monitor.Monitor{m}}, scripted{"p": heart{token: "tick", grace: 5 * time.Second}}, nil)
			synctest.Wait()
			beat := func() {
				t.Helper()
				if err := e.Beat("tick", Beat{Status: sdk.Up}); err != nil {
					t.Fatal(err)
				}
			}
			beat()
			advance(14900 * time.Millisecond)
			e.watchdog.mu.Lock()
			e.watchdog.gaps[0] = gap{from: time.Now().Add(-4 * time.Second), to: time.Now()}
			e.watchdog.mu.Unlock()
			advance(time.Second)
			if got := condition(t, e.Engine, m.ID); got != monitor.Up {
				t.Fatalf("a second after the standstill the condition is %s, want up", got)
			}
			want := monitor.Down
			if !late {
				beat()
				want = monitor.Up
			}
			advance(3 * time.Second)
			if got := condition(t, e.Engine, m.ID); got != want {
				t.Errorf("with the beat missing for good: %v; the condition is %s, want %s", late, got, want)
			}
			e.stop()
		})
	}
}

// A store that takes no samples costs history, and nothing else.
func TestFullQueueMakesNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{full: true, monitors: []monitor.Monitor{spec(1, "t")}}
		e := start(t, store, scripted{"t": always(sdk.Up)}, nil)
		advance(5 * time.Minute)
		if got := condition(t, e.Engine, spec(1, "").ID); got != monitor.Up || len(store.events()) != 0 {
			t.Errorf("condition %s, told %v", got, store.events())
		}
		e.stop()
	})
}

func TestStuckTransitionHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{refuse: errors.New("cannot be written"), refuseFor: spec(1, "").ID}
		e := start(t, store, scripted{"t": always(sdk.Down)}, func(o *Options) { o.DrainTimeout = time.Second })
		synctest.Wait()
		for n := range 100 {
			if err := e.Put(spec(n+1, "t")); err != nil {
				t.Fatal(err)
			}
		}
		advance(time.Minute)
		if got := len(store.events()); got != 99 {
			t.Errorf("%d of the 99 other outages were recorded", got)
		}
		if got := e.Stats().Unrecorded; got != 1 {
			t.Errorf("%d transitions wait, want the one that is refused", got)
		}
		e.stop()
	})
}

func TestCheckerThatIgnoresItsContextDoesNotHoldTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := start(t, &memory{}, scripted{"t": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			<-release
			return sdk.Result{Status: sdk.Down}, nil
		})}, func(o *Options) { o.DrainTimeout = 2 * time.Second })
		synctest.Wait()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		advance(0)
		begin := time.Now()
		e.stop()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("the stop took %s", took)
		}
		close(release)
		synctest.Wait()
	})
}

// Who was told of an outage is told of its end, also when the channel was taken off the monitor or the monitor was deleted.
func TestEndReachesAllWhoWereTold(t *testing.T) {
	webhook := func(id string, wants ...sdk.Transition) monitor.Channel {
		return monitor.Channel{
			ID: id, Name: id, Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1:9/"}`),
			Filter: monitor.Filter{Transitions: wants},
		}
	}
	for name, end := range map[string]func(e *Engine, m monitor.Monitor) error{
		"taken off": func(e *Engine, m monitor.Monitor) error {
			m.Channels, m.Target, m.Revision = []string{"late"}, "good", 2
			return e.Put(m)
		},
		"deleted": func(e *Engine, m monitor.Monitor) error {
			last := e.Farewell(m.ID)
			e.Remove(m.ID)
			return e.opts.Store.Record(context.Background(), *last)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &memory{channels: []monitor.Channel{webhook("ops"), webhook("only-down", sdk.WentDown), webhook("late")}}
				e := start(t, store, scripted{"bad": always(sdk.Down), "good": always(sdk.Up)}, nil)
				synctest.Wait()
				m := spec(1, "bad")
				m.Channels = []string{"ops", "only-down"}
				if err := e.Put(m); err != nil {
					t.Fatal(err)
				}
				advance(time.Second)
				if err := end(e.Engine, m); err != nil {
					t.Fatal(err)
				}
				advance(time.Second)
				e.stop()
				want := map[string][]string{
					"taken off": {"down ops,only-down", "up late,ops"},
					"deleted":   {"down ops,only-down", "up ops"},
				}[name]
				if diff := cmp.Diff(want, store.events()); diff != "" {
					t.Errorf("told: -want +got\n%s", diff)
				}
				closing := store.transitions[len(store.transitions)-1]
				if in := closing.Incident; in == nil || in.EndedAt.IsZero() || in.Cause != "always down" {
					t.Errorf("the incident at the end is %+v, want its end and its cause", in)
				}
			})
		})
	}
}

// An outage that goes on over a restart keeps its start, its cause and those who were told.
func TestOutageOverRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spec(1, "bad")
		m.Channels = []string{"ops"}
		store := &memory{monitors: []monitor.Monitor{m}, channels: []monitor.Channel{
			{ID: "ops", Name: "ops", Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1:9/"}`)},
		}}
		first := start(t, store, scripted{"bad": always(sdk.Down)}, nil)
		advance(11 * time.Second)
		first.stop()
		opened := store.transitions[0].Incident
		advance(time.Hour)
		second := start(t, store, scripted{"bad": always(sdk.Up)}, nil)
		advance(11 * time.Second)
		second.stop()
		closed := store.transitions[len(store.transitions)-1]
		if diff := cmp.Diff([]string{"down ops", "up ops"}, store.events()); diff != "" {
			t.Fatalf("told: -want +got\n%s", diff)
		}
		if closed.Incident.ID != opened.ID || !closed.Incident.StartedAt.Equal(opened.StartedAt) || closed.Incident.Cause != opened.Cause {
			t.Errorf("the incident ended as %+v, began as %+v", closed.Incident, opened)
		}
		if d := closed.Event.Payload.Incident.Duration; d < time.Hour || d > time.Hour+time.Minute {
			t.Errorf("told of a downtime of %s, want a little over an hour", d)
		}
	})
}

// A change that does not touch what is checked goes on counting: many such changes must not keep an outage from being seen.
func TestEditsDoNotHoldUpAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &memory{}, scripted{"t": always(sdk.Down), "p": heart{token: "tick", grace: time.Second}}, nil)
		synctest.Wait()
		asked, told := spec(1, "t"), spec(2, "p")
		asked.Retries = 5
		for _, m := range []monitor.Monitor{asked, told} {
			if err := e.Put(m); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Beat("tick", Beat{Status: sdk.Up}); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			advance(1500 * time.Millisecond)
			for _, m := range []*monitor.Monitor{&asked, &told} {
				m.Revision++
				m.Labels = map[string]string{"edit": time.Now().String()}
				if err := e.Put(*m); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, m := range []monitor.Monitor{asked, told} {
			if got := condition(t, e.Engine, m.ID); got != monitor.Down {
				t.Errorf("%s after 30 s of edits is %s, want down", m.Name, got)
			}
		}
		// A change of what is checked does begin anew.
		asked.Revision++
		asked.Config = json.RawMessage(`{"other":true}`)
		if err := e.Put(asked); err != nil {
			t.Fatal(err)
		}
		live, _ := e.Live(asked.ID)
		if live.State.FailRun > 1 {
			t.Errorf("the counters went on over a change of the config: %+v", live.State)
		}
		e.stop()
	})
}

// The last beat is known after a restart, also when missed ones came after it.
func TestLastBeatOverRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spec(1, "p")
		store := &memory{monitors: []monitor.Monitor{m}}
		first := start(t, store, scripted{"p": heart{token: "tick"}}, nil)
		synctest.Wait()
		beat := wall()
		if err := first.Beat("tick", Beat{Status: sdk.Up}); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		first.stop()
		store.mu.Lock()
		store.last = map[uint32]monitor.Sample{1: store.samples[len(store.samples)-1]}
		store.mu.Unlock()
		second := start(t, store, scripted{"p": heart{token: "tick"}}, nil)
		advance(11 * time.Second)
		live, _ := second.Live(m.ID)
		want := "no heartbeat for " + wall().Sub(beat).Round(time.Second).String()
		if live.State.Condition != monitor.Down || live.Last == nil || !strings.HasPrefix(live.Last.Result.Message, want[:len(want)-2]) {
			t.Errorf("after the restart: %s, %+v; want %q", live.State.Condition, live.Last, want)
		}
		second.stop()
	})
}

// Results in between do not make a reader lose what it comes back for.
func TestResumeBesideResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &memory{}, scripted{"t": replay(sdk.Up, sdk.Up, sdk.Up, sdk.Down)}, nil)
		synctest.Wait()
		all := e.Subscribe(SubscribeOptions{})
		defer all.Close()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		first, err := all.Next(t.Context())
		if err != nil || first.Type != MessageState {
			t.Fatalf("first came %+v, %v", first, err)
		}
		for range 2 * feedSize {
			e.Publish(MessageResult, Seen{})
		}
		advance(time.Minute)
		back := e.Subscribe(SubscribeOptions{After: first.ID, Types: []string{MessageState}})
		defer back.Close()
		m, err := back.Next(t.Context())
		if err != nil || m.Type != MessageState || m.Data.(StateChange).To != monitor.Down {
			t.Errorf("after coming back: %+v, %v; want the change to down", m, err)
		}
		if m, err := all.Next(t.Context()); err != nil || m.Type != MessageLost {
			t.Errorf("the slow reader of results got %+v, %v; want to be told what it lost", m, err)
		}
		e.stop()
	})
}
