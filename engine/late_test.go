package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const pluginSchema = `{"type":"object","properties":{"token":{"type":"string","writeOnly":true},"db":{"default":3}}}`

// plugin is a kind that a plugin would give.
func plugin(checker check.Checker, refusal error) check.Kind {
	return check.DefineRaw("redis", "Pings.", "h:1", json.RawMessage(pluginSchema), func(string, json.RawMessage) (check.Checker, error) {
		return checker, refusal
	})
}

func redis(n int) monitor.Monitor {
	m := spec(n, "h:1")
	m.Kind, m.Config = "redis", json.RawMessage(`{"token":"s3cret"}`)
	return m
}

// TestKindsComeAndGo has a monitor that is loaded before its kind is there, and sees it through everything that can happen to
// the kind. The monitor is never touched, never down, and well again by itself.
func TestKindsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := check.NewRegistry(check.Options{})
		defer registry.Close()
		m := redis(1)
		store := &memory{monitors: []monitor.Monitor{m}}
		e := start(t, store, check.NewLate(registry), nil)
		put := func(checker check.Checker, refusal error) {
			t.Helper()
			if err := registry.Put(plugin(checker, refusal)); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(after time.Duration, want monitor.Condition, message string) {
			t.Helper()
			advance(after)
			live, ok := e.Live(m.ID)
			if !ok || live.Last == nil || live.State.Condition != want || live.Last.Result.Message != message {
				t.Errorf("got %+v, want %s %q", live, want, message)
			}
		}
		const gone = "monitor cannot be checked: there is no kind redis; install the plugin of that name, or choose another kind"
		expect(10*time.Second, monitor.Pending, gone)
		put(always(sdk.Up), nil)
		expect(10*time.Second, monitor.Up, "always up")
		put(checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			return sdk.Result{Status: sdk.Up, Message: "my token is s3cret"}, nil
		}), nil)
		expect(10*time.Second, monitor.Up, "my token is ••••")
		put(nil, errors.New("plugin redis is disabled: it was stopped again and again"))
		expect(10*time.Second, monitor.Up, "monitor cannot be checked: kind: plugin redis is disabled: it was stopped again and again")
		registry.Remove("redis")
		expect(time.Hour, monitor.Unknown, gone)
		put(always(sdk.Up), nil)
		expect(10*time.Second, monitor.Up, "always up")
		e.stop()
		for _, s := range store.taken() {
			if s.Status == sdk.Down || s.Condition == monitor.Down {
				t.Errorf("a check says down: %+v", s)
			}
		}
		for _, told := range store.events() {
			if strings.HasPrefix(told, "down") {
				t.Errorf("somebody was told %q", told)
			}
		}
		if logged := e.log.String(); strings.Contains(logged, "s3cret") || strings.Contains(logged, "cannot be checked") {
			t.Errorf("the log has\n%s", logged)
		}
	})
}

// TestPluginRequests sees that a plugin is asked with all that a monitor's next check knows of the last one.
func TestPluginRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := check.NewRegistry(check.Options{})
		defer registry.Close()
		var mu sync.Mutex
		var requests []sdk.CheckRequest
		if err := registry.Put(plugin(checkFunc(func(_ context.Context, req sdk.CheckRequest) (sdk.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			requests = append(requests, req)
			return sdk.Result{Status: sdk.Down, State: req.State + "x"}, nil
		}), nil)); err != nil {
			t.Fatal(err)
		}
		m := redis(1)
		m.Retries, m.Labels = 2, map[string]string{"a": "b"}
		e := start(t, &memory{monitors: []monitor.Monitor{m}}, check.NewLate(registry), nil)
		advance(20 * time.Second)
		e.stop()
		if len(requests) < 3 {
			t.Fatalf("%d requests", len(requests))
		}
		for i, req := range requests[:3] {
			if req.Attempt != i+1 || req.State != strings.Repeat("x", i) || string(req.Config) != string(m.Config) || req.Target != m.Target ||
				req.Timeout != m.Timeout || req.Monitor.ID != m.ID || req.Monitor.Kind != "redis" || req.Monitor.Labels["a"] != "b" {
				t.Errorf("request %d is %+v", i, req)
			}
		}
	})
}

// TestLateResultsCount has checks that take longer than their timeout and even their interval: what they return counts, since a
// plugin's process may have had to be started first. The next check begins in its phase, not on top.
func TestLateResultsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := check.NewRegistry(check.Options{})
		defer registry.Close()
		running := 0
		slow := checkFunc(func(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
			running++
			defer func() { running-- }()
			if running > 1 {
				t.Error("two checks of one monitor at the same time")
			}
			if d, ok := ctx.Deadline(); ok {
				t.Errorf("a plugin's check has the deadline %s", d)
			}
			time.Sleep(12 * time.Second)
			return sdk.Result{Status: sdk.Up, Message: "late", Latency: time.Millisecond}, nil
		})
		if err := registry.Put(plugin(slow, nil)); err != nil {
			t.Fatal(err)
		}
		m := redis(1)
		store := &memory{monitors: []monitor.Monitor{m}}
		e := start(t, store, check.NewLate(registry), nil)
		advance(100 * time.Second)
		samples, stats := store.taken(), e.Stats()
		e.stop()
		advance(15 * time.Second) // the check under way heeds nothing
		if len(samples) < 3 || len(samples) > 5 || stats.Overruns == 0 {
			t.Errorf("%d samples, %d overruns in 100 s with checks of 12 s at 10 s", len(samples), stats.Overruns)
		}
		for _, s := range samples {
			if s.Status != sdk.Up || s.Message != "late" || s.Latency != time.Millisecond || s.Condition != monitor.Up {
				t.Errorf("sample %+v", s)
			}
		}
	})
}

// TestLateResultOfOtherChecker is the same for a checker that has a deadline and does not heed it.
func TestLateResultOfOtherChecker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{monitors: []monitor.Monitor{spec(1, "deaf")}}
		e := start(t, store, scripted{"deaf": checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
			time.Sleep(7 * time.Second)
			return sdk.Result{Status: sdk.Up, Message: "late"}, nil
		})}, nil)
		advance(30 * time.Second)
		e.stop()
		advance(15 * time.Second) // the check under way heeds nothing
		samples := store.taken()
		if len(samples) == 0 || samples[0].Status != sdk.Up || samples[0].Message != "late" {
			t.Errorf("samples %+v", samples)
		}
	})
}

// TestLateChecksAreCancelled stops an engine, and removes a monitor, while a plugin's check runs past its timeout: the check ends
// at once and says nothing.
func TestLateChecksAreCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := check.NewRegistry(check.Options{})
		defer registry.Close()
		var mu sync.Mutex
		ended := 0
		if err := registry.Put(plugin(checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			ended++
			return sdk.Result{Status: sdk.Down, Message: "called off"}, nil
		}), nil)); err != nil {
			t.Fatal(err)
		}
		store := &memory{}
		e := start(t, store, check.NewLate(registry), nil)
		for i := range 2 {
			if err := e.Put(redis(i + 1)); err != nil {
				t.Fatal(err)
			}
		}
		advance(time.Minute)
		if ended != 0 {
			t.Errorf("%d checks ended by themselves", ended)
		}
		e.Remove(redis(1).ID)
		synctest.Wait()
		if ended != 1 {
			t.Errorf("%d checks ended with their monitor", ended)
		}
		begin := time.Now()
		e.stop()
		if took := time.Since(begin); took > time.Second || ended != 2 {
			t.Errorf("the engine took %s to stop, %d checks ended", took, ended)
		}
		if samples := store.taken(); len(samples) > 0 {
			t.Errorf("checks that were called off left %+v", samples)
		}
	})
}
