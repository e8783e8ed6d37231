package storetest_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/store"
)

// counter is a checker that adds a letter to its state at every check and says which state it was given.
type counter chan string

func (c counter) New(check.Spec) (check.Checker, error) { return c, nil }

func (c counter) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	select {
	case c <- req.State:
	case <-ctx.Done():
		return sdk.Result{}, ctx.Err()
	}
	return sdk.Result{Status: sdk.Up, State: req.State + "x"}, nil
}

// TestStateOverRestarts runs an engine over a store three times. Its checker goes on with the state that it had, until the
// monitor's target changes while nothing runs.
func TestStateOverRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tocsin.db")
	alerts, err := alert.NewRegistry(alert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	given := func(change func(*store.Store)) string {
		t.Helper()
		s, err := store.Open(t.Context(), path, store.Options{Sealer: reverse{}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(context.Background()); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		change(s)
		c := make(counter)
		e, err := engine.New(engine.Options{Store: s, Outbox: s, Checks: c, Alerts: alerts})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		first := <-c
		if second := <-c; second != first+"x" {
			t.Errorf("the second check was given %q after %q", second, first)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return first
	}
	m := monitor.Monitor{
		ID: "m", Name: "m", Kind: "counter", Target: "here", Interval: time.Second, Timeout: time.Second, RetryInterval: time.Second,
		Config: json.RawMessage(`{"a":1}`),
	}
	if got := given(func(s *store.Store) {
		if err := s.CreateMonitor(t.Context(), &m); err != nil {
			t.Fatal(err)
		}
	}); got != "" {
		t.Errorf("the first check of all was given %q", got)
	}
	// The engine may have stopped before or after it took the result of its last check.
	if got := given(func(*store.Store) {}); got != "x" && got != "xx" {
		t.Errorf("the first check after the restart was given %q", got)
	}
	if got := given(func(s *store.Store) {
		all, err := s.Opaques(t.Context())
		if err != nil || len(all) != 1 || !strings.HasPrefix(all[m.Series].State, "xx") {
			t.Errorf("stored is %v, %v", all, err)
		}
		m.Target = "elsewhere"
		if err := s.UpdateMonitor(t.Context(), &m); err != nil {
			t.Fatal(err)
		}
	}); got != "" {
		t.Errorf("the first check of another target was given %q", got)
	}
}
