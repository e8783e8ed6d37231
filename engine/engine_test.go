package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a store that keeps everything in memory, for tests of time; the real store passes the same conformance suite.
type memory struct {
	mu          sync.Mutex
	monitors    []monitor.Monitor
	states      map[string]monitor.State
	channels    []monitor.Channel
	last        map[uint32]monitor.Sample
	samples     []monitor.Sample
	transitions []monitor.Transition
	order       []string      // "sample" and "transition", as they came
	refuse      error         // what Record answers
	full        bool          // Append drops everything
	refuseFor   string        // id of the only monitor that refuse is for; empty: all
	hang        chan struct{} // Record waits for it
	opaques     map[uint32]monitor.Opaque
	put         []opaquePut
}

func (s *memory) Monitors(context.Context) ([]monitor.Monitor, error) { return s.monitors, nil }
func (s *memory) Channels(context.Context) ([]monitor.Channel, error) { return s.channels, nil }
func (s *memory) Last(context.Context) (map[uint32]monitor.Sample, error) {
	return s.last, nil
}

func (s *memory) States(context.Context) ([]monitor.State, error) {
	var all []monitor.State
	for _, st := range s.states {
		all = append(all, st)
	}
	return all, nil
}

func (s *memory) Append(x monitor.Sample) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return false
	}
	s.samples = append(s.samples, x)
	s.order = append(s.order, "sample")
	return true
}

func (s *memory) Opaques(context.Context) (map[uint32]monitor.Opaque, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.opaques), nil
}

// opaquePut is a state as it was handed over.
type opaquePut struct {
	monitor.Opaque
	at time.Time
}

func (s *memory) PutOpaque(o monitor.Opaque) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return false
	}
	s.put = append(s.put, opaquePut{o, time.Now()})
	if s.opaques == nil {
		s.opaques = make(map[uint32]monitor.Opaque)
	}
	if s.opaques[o.Series] = o; o.State == "" {
		delete(s.opaques, o.Series)
	}
	return true
}

func (s *memory) Record(ctx context.Context, t monitor.Transition) error {
	s.mu.Lock()
	hang, refuse := s.hang, s.refuse
	s.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if refuse != nil && (s.refuseFor == "" || s.refuseFor == t.State.MonitorID) {
		return refuse
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transitions = append(s.transitions, t)
	s.order = append(s.order, "transition")
	if s.states == nil {
		s.states = make(map[string]monitor.State)
	}
	s.states[t.State.MonitorID] = t.State
	return nil
}

func (s *memory) Due(context.Context, time.Time, []string, int) ([]monitor.Notification, error) {
	return nil, nil
}

func (s *memory) NextDue(context.Context) (time.Time, bool, error)  { return time.Time{}, false, nil }
func (s *memory) Attempted(context.Context, monitor.Attempt) error  { return nil }
func (s *memory) PutHealth(monitor.Health) bool                     { return true }
func (s *memory) Healths(context.Context) ([]monitor.Health, error) { return nil, nil }

// events returns what was told, oldest first: "down to ops".
func (s *memory) events() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var told []string
	for _, t := range s.transitions {
		if t.Event != nil {
			told = append(told, strings.TrimSpace(string(t.Event.Kind)+" "+strings.Join(t.Channels, ",")))
		}
	}
	return told
}

func (s *memory) taken() []monitor.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.samples)
}

// scripted makes checkers out of functions, by target.
type scripted map[string]check.Checker

func (s scripted) New(spec check.Spec) (check.Checker, error) {
	c, ok := s[spec.Target]
	if !ok {
		return nil, monitor.Faults{{Field: "target", Message: "no such script"}}
	}
	return c, nil
}

type checkFunc func(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error)

func (f checkFunc) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	return f(ctx, req)
}

func always(s sdk.Status) checkFunc {
	return func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
		return sdk.Result{Status: s, Message: "always " + s.String()}, nil
	}
}

// replay answers with one status after another, and the last for ever.
func replay(statuses ...sdk.Status) checkFunc {
	var mu sync.Mutex
	n := 0
	return func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		s := statuses[min(n, len(statuses)-1)]
		n++
		return sdk.Result{Status: s, Message: s.String()}, nil
	}
}

var _ check.Passive = heart{}

// heart is a passive checker.
type heart struct {
	token string
	grace time.Duration
}

func (heart) Check(context.Context, sdk.CheckRequest) (sdk.Result, error) {
	return sdk.Result{}, errors.New("a passive checker is never called")
}
func (h heart) Token() string        { return h.token }
func (h heart) Grace() time.Duration { return h.grace }
func (h heart) Missed(since, now time.Time) sdk.Result {
	return sdk.Result{Status: sdk.Down, Message: fmt.Sprintf("no heartbeat for %s", now.Sub(since).Round(time.Second))}
}

func (heart) Beat(r sdk.Result) sdk.Result { return r }

func spec(n int, target string) monitor.Monitor {
	return monitor.Monitor{
		ID: fmt.Sprintf("01J%023d", n), Series: uint32(n), Revision: 1, Name: fmt.Sprintf("m%d", n), Kind: "script", Target: target,
		Interval: 10 * time.Second, Timeout: 5 * time.Second, RetryInterval: 2 * time.Second, Config: json.RawMessage("{}"),
	}
}

type harness struct {
	*Engine
	log  *bytes.Buffer
	stop func()
}

// start runs an engine until the test calls stop or ends.
func start(t *testing.T, store *memory, checks Checks, change func(*Options)) *harness {
	t.Helper()
	alerts, err := alert.NewRegistry(alert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var logged lockedBuffer
	o := Options{Now: wall, Store: store, Outbox: store, Checks: checks, Alerts: alerts, Log: slog.New(slog.NewTextHandler(&logged, nil))}
	if change != nil {
		change(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	h := &harness{Engine: e, log: &logged.Buffer}
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func condition(t *testing.T, e *Engine, id string) monitor.Condition {
	t.Helper()
	live, ok := e.Live(id)
	if !ok {
		t.Fatalf("the engine does not know monitor %s", id)
	}
	return live.State.Condition
}

// wall is the wall clock of a test: virtual time begins in the year 2000, before the first tick.
func wall() time.Time { return time.Now().AddDate(26, 0, 0) }

// advance lets virtual time pass.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLoadMakesNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		var mu sync.Mutex
		var starts []time.Duration
		begin := time.Now()
		checks := scripted{"t": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Since(begin))
			return sdk.Result{Status: sdk.Up}, nil
		})}
		store := &memory{}
		for i := range n {
			store.monitors = append(store.monitors, spec(i+1, "t"))
		}
		e := start(t, store, checks, nil)
		advance(10*time.Second + time.Millisecond)
		e.stop()
		if len(starts) < n || len(starts) > n+2 {
			t.Fatalf("%d checks in one interval, want %d", len(starts), n)
		}
		slots := make([]int, 20)
		for _, s := range starts {
			slots[min(int(s/(500*time.Millisecond)), 19)]++
		}
		for i, got := range slots {
			if got < n/20/2 || got > n/20*2 {
				t.Errorf("half second %d has %d starts of %d: want about %d", i, got, n, n/20)
			}
		}
	})
}

func TestRestartKeepsPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var starts []time.Time
		checks := scripted{"t": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Now())
			return sdk.Result{Status: sdk.Up}, nil
		})}
		store := &memory{monitors: []monitor.Monitor{spec(1, "t")}}
		first := start(t, store, checks, nil)
		advance(25 * time.Second)
		first.stop()
		advance(3333 * time.Millisecond)
		second := start(t, store, checks, nil)
		advance(25 * time.Second)
		second.stop()
		for _, s := range starts[1:] {
			if got := s.Sub(starts[0]) % (10 * time.Second); got != 0 {
				t.Errorf("a check began %s after the first: not a multiple of the interval", s.Sub(starts[0]))
			}
		}
		if len(starts) < 4 {
			t.Errorf("%d checks in 50 s at 10 s", len(starts))
		}
	})
}

func TestPutChecksAtOnceThenJoinsPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		checks := scripted{"t": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			starts = append(starts, time.Now())
			return sdk.Result{Status: sdk.Up}, nil
		})}
		e := start(t, &memory{}, checks, nil)
		synctest.Wait()
		begin := time.Now()
		untilTurn := untilPhase(spec(7, "t").ID, 10*time.Second, wall())
		if err := e.Put(spec(7, "t")); err != nil {
			t.Fatal(err)
		}
		advance(21 * time.Second)
		e.stop()
		if len(starts) < 3 || !starts[0].Equal(begin) {
			t.Fatalf("put at %s, checks began %v: want the first at once", begin, starts)
		}
		want := begin.Add(untilTurn)
		if !starts[1].Equal(want) || !starts[2].Equal(want.Add(10*time.Second)) {
			t.Errorf("after the first, checks began %v, want the phase %s and an interval later", starts[1:], want)
		}
	})
}

func TestOldSampleIsCheckedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := wall()
		store := &memory{last: make(map[uint32]monitor.Sample)}
		for i := range 50 {
			m := spec(i+1, "t")
			m.Interval, m.Timeout = 12*time.Hour, time.Second
			store.monitors = append(store.monitors, m)
			store.last[m.Series] = monitor.Sample{Series: m.Series, Tick: monitor.TickOf(begin.Add(-24 * time.Hour)), Status: sdk.Up}
		}
		e := start(t, store, scripted{"t": always(sdk.Up)}, nil)
		advance(time.Minute)
		e.stop()
		if got := len(store.taken()); got < 50 {
			t.Errorf("%d of 50 monitors whose sample is a day old were checked within a minute of the start", got)
		}
	})
}

func TestRetriesAndEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spec(1, "t")
		m.Retries, m.Channels = 1, []string{"ops", "quiet", "off"}
		store := &memory{channels: []monitor.Channel{
			{ID: "ops", Name: "ops", Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1:9/"}`)},
			{
				ID: "quiet", Name: "quiet", Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1:9/"}`),
				Filter: monitor.Filter{Transitions: []sdk.Transition{sdk.WentUp}},
			},
			{ID: "off", Name: "off", Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1:9/"}`), Disabled: true},
		}}
		e := start(t, store, scripted{"t": replay(sdk.Up, sdk.Down, sdk.Down, sdk.Down, sdk.Up)}, nil)
		synctest.Wait()
		if err := e.Put(m); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		e.stop()
		if diff := cmp.Diff([]string{"down ops", "up ops,quiet"}, store.events()); diff != "" {
			t.Errorf("told: -want +got\n%s", diff)
		}
		samples := store.taken()
		if gap := samples[2].Tick - samples[1].Tick; gap != monitor.Tick(m.RetryInterval/monitor.TickLength) {
			t.Errorf("the retry came %d ticks after the first failure, want %s", gap, m.RetryInterval)
		}
		var opened monitor.Transition
		for _, tr := range store.transitions {
			if tr.Incident != nil && tr.Incident.EndedAt.IsZero() {
				opened = tr
			}
		}
		if opened.Incident == nil || !opened.Incident.StartedAt.Equal(samples[1].Tick.Time()) {
			t.Errorf("the incident is %+v, want one that starts with the first failing sample at %s", opened.Incident, samples[1].Tick.Time())
		}
		want := &monitor.Recount{Series: 1, From: samples[1].Tick, Before: samples[2].Tick, Condition: monitor.Down}
		if diff := cmp.Diff(want, opened.Recount); diff != "" {
			t.Errorf("recount: -want +got\n%s", diff)
		}
		if i := slices.Index(store.order, "transition"); i < 1 {
			t.Errorf("order %v: a transition came before its sample", store.order)
		}
	})
}

func TestSlowCheckIsNotStartedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		checks := scripted{"t": checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(25 * time.Second) // a checker that ignores its deadline
			mu.Lock()
			running--
			mu.Unlock()
			return sdk.Result{Status: sdk.Up}, nil
		})}
		e := start(t, &memory{monitors: []monitor.Monitor{spec(1, "t")}}, checks, nil)
		advance(time.Minute)
		e.stop()
		if most != 1 {
			t.Errorf("%d checks of one monitor ran at once", most)
		}
		if got := e.Stats().Overruns; got < 2 {
			t.Errorf("%d overruns counted in a minute of 25 s checks at 10 s", got)
		}
	})
}

func TestKindLimitKeepsOthersOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := scripted{
			"slow": checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
				<-ctx.Done()
				return sdk.Result{Status: sdk.Down}, nil
			}),
			"fast": always(sdk.Up),
		}
		store := &memory{}
		for i := range 50 {
			m := spec(i+1, "slow")
			m.Kind = "slow"
			store.monitors = append(store.monitors, m, spec(i+1001, "fast"))
		}
		e := start(t, store, checks, func(o *Options) { o.Workers, o.KindLimits = 8, map[string]int{"slow": 4} })
		advance(30 * time.Second)
		stats := e.Stats()
		e.stop()
		if got := stats.Results["script"][sdk.Up]; got < 149 {
			t.Errorf("%d checks of the fast kind in three intervals of 50 monitors", got)
		}
		if stats.Workers > 8 {
			t.Errorf("%d workers, want at most 8", stats.Workers)
		}
		if stats.Waiting == 0 {
			t.Error("no check of the slow kind waits, although only four of fifty may run")
		}
	})
}

func TestPanicIsUnknownAndLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := scripted{"t": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) { panic("spanner in the works") })}
		m := spec(1, "t")
		m.Channels = []string{"ops"}
		store := &memory{}
		e := start(t, store, checks, nil)
		synctest.Wait()
		if err := e.Put(m); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		e.stop()
		if got := condition(t, e.Engine, m.ID); got != monitor.Unknown {
			t.Errorf("condition after panics = %s, want unknown", got)
		}
		for _, s := range store.taken() {
			if s.Status != sdk.Unknown || !strings.Contains(s.Message, "spanner in the works") {
				t.Errorf("a panic was stored as %s %q", s.Status, s.Message)
			}
		}
		if diff := cmp.Diff([]string{"unknown"}, store.events()); diff != "" {
			t.Errorf("told: -want +got\n%s", diff)
		}
		if log := e.log.String(); !strings.Contains(log, "spanner in the works") || !strings.Contains(log, "engine_test.go") {
			t.Errorf("the log does not have the panic and its stack:\n%s", log)
		}
	})
}

func TestErrorIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := scripted{"t": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			return sdk.Result{Status: sdk.Down}, errors.New("too many open files")
		})}
		store := &memory{monitors: []monitor.Monitor{spec(1, "t"), spec(2, "no checker can be made of this")}}
		e := start(t, store, checks, nil)
		advance(5 * time.Minute)
		e.stop()
		for _, s := range store.taken() {
			if s.Status != sdk.Unknown {
				t.Errorf("a check that could not be made was stored as %s %q", s.Status, s.Message)
			}
		}
		for _, id := range []string{spec(1, "").ID, spec(2, "").ID} {
			if got := condition(t, e.Engine, id); got != monitor.Unknown {
				t.Errorf("condition of %s = %s, want unknown", id, got)
			}
		}
	})
}

func TestWrongClockMakesNoOutage(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var skew time.Duration
			now := func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return wall().Add(skew)
			}
			store := &memory{}
			e := start(t, store, scripted{"t": always(sdk.Up), "p": heart{token: "tick", grace: time.Second}}, func(o *Options) { o.Now = now })
			synctest.Wait()
			for _, m := range []monitor.Monitor{spec(1, "t"), spec(2, "p")} {
				if err := e.Put(m); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 60 {
				if i == 20 {
					mu.Lock()
					skew = step
					mu.Unlock()
				}
				if i == 40 {
					mu.Lock()
					skew = 0
					mu.Unlock()
				}
				if err := e.Beat("tick", Beat{Status: sdk.Up}); err != nil {
					t.Fatal(err)
				}
				advance(10 * time.Second)
			}
			e.stop()
			if events := store.events(); len(events) != 0 {
				t.Errorf("clock step of %s: told %v", step, events)
			}
			newest := make(map[uint32]monitor.Tick)
			for _, s := range store.taken() {
				if s.Tick <= newest[s.Series] {
					t.Fatalf("clock step of %s: tick %d of series %d follows %d", step, s.Tick, s.Series, newest[s.Series])
				}
				newest[s.Series] = s.Tick
			}
			if got := len(store.taken()); got < 118 {
				t.Errorf("clock step of %s: %d samples in 600 s of two monitors at 10 s", step, got)
			}
		})
	}
}

func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spec(1, "p")
		m.Channels = []string{"ops"}
		store := &memory{monitors: []monitor.Monitor{m}, channels: []monitor.Channel{
			{ID: "ops", Name: "ops", Provider: "webhook", Config: json.RawMessage(`{"url":"http://127.0.0.1:9/"}`)},
		}}
		checks := scripted{"p": heart{token: "tick", grace: 5 * time.Second}}
		e := start(t, store, checks, nil)
		advance(5 * time.Minute)
		if got := condition(t, e.Engine, m.ID); got != monitor.Pending || len(store.taken()) != 0 {
			t.Fatalf("without a beat ever the condition is %s with %d samples, want pending with none", got, len(store.taken()))
		}
		if err := e.Beat("nobody", Beat{Status: sdk.Up}); !errors.Is(err, monitor.ErrNotFound) {
			t.Errorf("Beat with an unknown token = %v, want ErrNotFound", err)
		}
		beat := func(s sdk.Status) {
			t.Helper()
			if err := e.Beat("tick", Beat{Status: s, Ping: time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		beat(sdk.Up)
		advance(14 * time.Second)
		if got := condition(t, e.Engine, m.ID); got != monitor.Up {
			t.Errorf("within interval and grace the condition is %s", got)
		}
		beat(sdk.Up)
		advance(15 * time.Second)
		if got := condition(t, e.Engine, m.ID); got != monitor.Down {
			t.Errorf("after interval and grace without a beat the condition is %s", got)
		}
		beat(sdk.Up)
		if got := condition(t, e.Engine, m.ID); got != monitor.Up {
			t.Errorf("after the beat came back the condition is %s", got)
		}
		beat(sdk.Down)
		advance(0)
		if diff := cmp.Diff([]string{"down ops", "up ops", "down ops"}, store.events()); diff != "" {
			t.Errorf("told: -want +got\n%s", diff)
		}
		beat(sdk.Up)
		advance(time.Second)
		e.stop()

		// A restart after a long stop pages nobody: the clock starts anew.
		advance(time.Hour)
		told := len(store.events())
		again := start(t, store, checks, nil)
		advance(14 * time.Second)
		if got := condition(t, again.Engine, m.ID); got != monitor.Up || len(store.events()) != told {
			t.Errorf("14 s after a restart the condition is %s and %v was told", got, store.events()[told:])
		}
		advance(2 * time.Second)
		if got := condition(t, again.Engine, m.ID); got != monitor.Down {
			t.Errorf("16 s after a restart without a beat the condition is %s, want down", got)
		}
		again.stop()
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		e := start(t, store, scripted{"t": replay(sdk.Up, sdk.Down, sdk.Down, sdk.Up)}, nil)
		synctest.Wait()
		m := spec(1, "t")
		put := func(paused bool) {
			t.Helper()
			m.Paused = paused
			if err := e.Put(m); err != nil {
				t.Fatal(err)
			}
			m.Revision++
			advance(0)
		}
		put(false)
		advance(10 * time.Second)
		if got := condition(t, e.Engine, m.ID); got != monitor.Down {
			t.Fatalf("condition = %s, want down", got)
		}
		put(true)
		if got := condition(t, e.Engine, m.ID); got != monitor.Paused {
			t.Errorf("condition after pause = %s", got)
		}
		n := len(store.taken())
		if s := store.taken()[n-1]; s.Condition != monitor.Paused || s.Status != sdk.Unknown {
			t.Errorf("the pause left the sample %+v, want one that ends the time of the result before", s)
		}
		advance(time.Hour)
		if got := len(store.taken()); got != n {
			t.Errorf("%d checks were made while paused", got-n)
		}
		if _, err := e.CheckNow(t.Context(), m.ID); !errors.Is(err, monitor.ErrConflict) {
			t.Errorf("CheckNow of a paused monitor = %v, want ErrConflict", err)
		}
		put(false)
		advance(20 * time.Second)
		e.stop()
		if got := condition(t, e.Engine, m.ID); got != monitor.Up {
			t.Errorf("condition after resume = %s, want up", got)
		}
		if diff := cmp.Diff([]string{"down", "down", "up"}, store.events()); diff != "" {
			// the second down is an event for the timeline only: nobody is told of it again
			t.Errorf("events: -want +got\n%s", diff)
		}
	})
}

func TestRemoveCancelsCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cancelled := make(chan struct{})
		checks := scripted{"t": checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
			<-ctx.Done()
			close(cancelled)
			return sdk.Result{}, ctx.Err()
		})}
		store := &memory{}
		e := start(t, store, checks, nil)
		synctest.Wait()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		e.Remove(spec(1, "t").ID)
		<-cancelled
		advance(time.Minute)
		if got := len(store.taken()); got != 0 {
			t.Errorf("%d samples of a removed monitor", got)
		}
		if _, ok := e.Live(spec(1, "t").ID); ok {
			t.Error("the engine still knows a removed monitor")
		}
		e.stop()
	})
}

func TestChangeTakesEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		checks := scripted{
			"old": checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
				<-release
				return sdk.Result{Status: sdk.Down, Message: "old"}, nil
			}),
			"new": always(sdk.Up),
		}
		store := &memory{}
		e := start(t, store, checks, nil)
		synctest.Wait()
		m := spec(1, "old")
		if err := e.Put(m); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.Target, m.Revision = "new", 2
		if err := e.Put(m); err != nil {
			t.Fatal(err)
		}
		advance(0)
		if got := condition(t, e.Engine, m.ID); got != monitor.Up {
			t.Errorf("condition right after the change = %s, want up by the new target", got)
		}
		close(release)
		advance(0)
		if got := condition(t, e.Engine, m.ID); got != monitor.Up {
			t.Errorf("the result of the old target made it %s", got)
		}
		if got := len(store.taken()); got != 2 {
			t.Errorf("%d samples, want the new result and the old one, which is kept but not judged", got)
		}
		if err := e.Put(spec(1, "old")); err != nil {
			t.Fatal(err)
		}
		advance(0)
		if got := condition(t, e.Engine, m.ID); got != monitor.Up {
			t.Errorf("an older revision replaced a newer one: %s", got)
		}
		e.stop()
	})
}

func TestCheckNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{monitors: []monitor.Monitor{spec(1, "t")}}
		e := start(t, store, scripted{"t": always(sdk.Degraded), "p": heart{token: "x"}}, nil)
		synctest.Wait()
		last, err := e.CheckNow(t.Context(), spec(1, "t").ID)
		if err != nil || last.Result.Status != sdk.Degraded {
			t.Errorf("CheckNow = %+v, %v", last, err)
		}
		if _, err := e.CheckNow(t.Context(), "nobody"); !errors.Is(err, monitor.ErrNotFound) {
			t.Errorf("CheckNow of an unknown id = %v, want ErrNotFound", err)
		}
		if err := e.Put(spec(2, "p")); err != nil {
			t.Fatal(err)
		}
		if _, err := e.CheckNow(t.Context(), spec(2, "p").ID); !errors.Is(err, monitor.ErrConflict) {
			t.Errorf("CheckNow of a passive monitor = %v, want ErrConflict", err)
		}
		e.stop()
		if _, err := e.CheckNow(t.Context(), spec(1, "t").ID); !errors.Is(err, monitor.ErrClosed) {
			t.Errorf("CheckNow of a stopped engine = %v, want ErrClosed", err)
		}
	})
}

func TestStoreTroubleHoldsUpNoCheckAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{refuse: errors.New("database is locked")}
		e := start(t, store, scripted{"t": replay(sdk.Up, sdk.Down, sdk.Up, sdk.Down, sdk.Down, sdk.Up)}, nil)
		synctest.Wait()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		if got := len(store.taken()); got < 6 {
			t.Errorf("%d checks were made in a minute in which the store refused", got)
		}
		if got := condition(t, e.Engine, spec(1, "t").ID); got != monitor.Up {
			t.Errorf("condition = %s, want up", got)
		}
		store.mu.Lock()
		store.refuse = nil
		store.mu.Unlock()
		advance(10 * time.Second)
		if diff := cmp.Diff([]string{"down", "up", "down", "up"}, store.events()); diff != "" {
			t.Errorf("recorded once the store took them: -want +got\n%s", diff)
		}
		e.stop()
	})
}

func TestTransitionsArePassedOnDespiteHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{hang: make(chan struct{})}
		e := start(t, store, scripted{"t": replay(sdk.Up, sdk.Down)}, func(o *Options) { o.DrainTimeout = 3 * time.Second })
		synctest.Wait()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		if got := len(store.taken()); got < 5 {
			t.Errorf("%d checks in a minute in which the store hung", got)
		}
		begin := time.Now()
		e.stop()
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("Run ended %s after its context, want at most the drain timeout", took)
		}
		if !strings.Contains(e.log.String(), "not recorded") {
			t.Errorf("nothing is said of what was not recorded:\n%s", e.log)
		}
	})
}

func TestTwoEnginesShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &memory{}, &memory{}
		first := start(t, a, scripted{"t": always(sdk.Up)}, nil)
		second := start(t, b, scripted{"t": always(sdk.Down)}, nil)
		synctest.Wait()
		for _, e := range []*harness{first, second} {
			if err := e.Put(spec(1, "t")); err != nil {
				t.Fatal(err)
			}
		}
		advance(30 * time.Second)
		if x, y := condition(t, first.Engine, spec(1, "t").ID), condition(t, second.Engine, spec(1, "t").ID); x != monitor.Up || y != monitor.Down {
			t.Errorf("conditions %s and %s, want up and down", x, y)
		}
		first.stop()
		before := len(b.taken())
		advance(30 * time.Second)
		if len(b.taken()) <= before {
			t.Error("stopping one engine stopped the other")
		}
		second.stop()
	})
}

func TestRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &memory{}, scripted{}, nil)
		synctest.Wait()
		e.stop()
		if err := e.Run(t.Context()); err == nil {
			t.Error("a second Run did not fail")
		}
	})
}

func TestIdleWorkersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		for i := range 200 {
			store.monitors = append(store.monitors, spec(i+1, "t"))
		}
		slow := checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
			time.Sleep(4 * time.Second)
			return sdk.Result{Status: sdk.Up}, nil
		})
		e := start(t, store, scripted{"t": slow}, nil)
		advance(12 * time.Second)
		if got := e.Stats().Workers; got < 50 {
			t.Errorf("%d workers for 200 checks of 4 s at 10 s", got)
		}
		for i := range store.monitors {
			e.Remove(store.monitors[i].ID)
		}
		advance(time.Minute)
		if got := e.Stats().Workers; got != 0 {
			t.Errorf("%d workers a minute after the last check", got)
		}
		e.stop()
	})
}

func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &memory{}, scripted{"t": replay(sdk.Up, sdk.Down)}, nil)
		synctest.Wait()
		sub := e.Subscribe(SubscribeOptions{Types: []string{MessageState}})
		defer sub.Close()
		if err := e.Put(spec(1, "t")); err != nil {
			t.Fatal(err)
		}
		var got []string
		var ids []string
		for range 2 {
			m, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c := m.Data.(StateChange)
			got = append(got, c.From.String()+" to "+c.To.String())
			ids = append(ids, m.ID)
		}
		if diff := cmp.Diff([]string{"pending to up", "up to down"}, got); diff != "" {
			t.Errorf("states: -want +got\n%s", diff)
		}

		resumed := e.Subscribe(SubscribeOptions{After: ids[0], Types: []string{MessageState}})
		defer resumed.Close()
		if m, err := resumed.Next(t.Context()); err != nil || m.ID != ids[1] {
			t.Errorf("resumed after %s = %+v, %v; want %s", ids[0], m, err, ids[1])
		}
		for _, id := range []string{"1-5", "garbage", fmt.Sprintf("%x-%d", e.feed.boot, 1_000_000)} {
			gone := e.Subscribe(SubscribeOptions{After: id})
			if m, err := gone.Next(t.Context()); err != nil || m.Type != MessageReset {
				t.Errorf("resumed after %s = %+v, %v; want a reset", id, m, err)
			}
			gone.Close()
		}

		slow := e.Subscribe(SubscribeOptions{Types: []string{"flood"}})
		defer slow.Close()
		for range feedSize + 500 {
			e.Publish("flood", 1)
		}
		m, err := slow.Next(t.Context())
		if err != nil || m.Type != MessageLost || m.Data.(int) < 500 {
			t.Errorf("a slow reader got %+v, %v; want to be told of at least 500 lost messages", m, err)
		}
		if m, err := slow.Next(t.Context()); err != nil || m.Type != "flood" {
			t.Errorf("then it got %+v, %v; want what is still there", m, err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		quiet := e.Subscribe(SubscribeOptions{Types: []string{"never sent"}})
		defer quiet.Close()
		if _, err := quiet.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next past its context = %v", err)
		}
		e.stop()
		for {
			if _, err = resumed.Next(t.Context()); err != nil {
				break
			}
		}
		if !errors.Is(err, monitor.ErrClosed) {
			t.Errorf("Next after the engine ended = %v, want ErrClosed", err)
		}
		e.Publish("flood", 1) // a line that is logged after the end harms nobody
	})
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	w := NewWatchdog()
	base := time.Now()
	at := func(d time.Duration) time.Time { return base.Add(d) }
	w.tick(at(0))
	w.tick(at(50 * time.Millisecond))
	if w.Gapped(at(0), at(60*time.Millisecond), 40*time.Millisecond) {
		t.Error("a tick in time counts as a gap")
	}
	w.tick(time.Time{})
	w.tick(at(time.Second))
	if !w.Gapped(at(time.Second), at(3*time.Second), time.Second) {
		t.Error("a gap that the watchdog has not noted yet does not count")
	}
	w.tick(at(3 * time.Second))
	w.tick(time.Time{})
	if got, ok := w.resumed(at(4 * time.Second)); !ok || !got.Equal(at(3*time.Second)) {
		t.Errorf("resumed = %v, %v, want the end of the gap", got, ok)
	}
	for _, tt := range []struct {
		from, to, timeout time.Duration
		want              bool
	}{
		{500 * time.Millisecond, 2 * time.Second, time.Second, true},
		{0, 900 * time.Millisecond, time.Second, false}, // ended before it
		{4 * time.Second, 5 * time.Second, time.Second, false},
		{500 * time.Millisecond, 4 * time.Second, 10 * time.Second, false}, // shorter than a quarter
	} {
		if got := w.Gapped(at(tt.from), at(tt.to), tt.timeout); got != tt.want {
			t.Errorf("Gapped(%s, %s, %s) = %v, want %v", tt.from, tt.to, tt.timeout, got, tt.want)
		}
	}
}

func TestNewRefusesMissingParts(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{}); err == nil {
		t.Error("New without a store did not fail")
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	for i := range 1000 {
		h.observe(time.Duration(i) * time.Millisecond)
	}
	r := h.read()
	if p := r.Quantile(0.5); p < 490*time.Millisecond || p > 650*time.Millisecond {
		t.Errorf("median of 0 to 999 ms = %s", p)
	}
	if p := r.Quantile(0.99); p < 980*time.Millisecond || p > 1300*time.Millisecond {
		t.Errorf("99th percentile of 0 to 999 ms = %s", p)
	}
	if r.Count != 1000 || (Histogram{}).Quantile(0.5) != 0 {
		t.Errorf("count %d, empty quantile %s", r.Count, Histogram{}.Quantile(0.5))
	}
	if d := r.Sub(r); d.Count != 0 || d.Quantile(0.9) != 0 {
		t.Errorf("a histogram less itself has %d", d.Count)
	}
}
