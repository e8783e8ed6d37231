package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// counting is a checker whose state is how often it was called since it had none.
type counting struct {
	mu   sync.Mutex
	seen []string // the state of each request
	next func(req sdk.CheckRequest) (sdk.Result, error)
}

func (c *counting) Check(_ context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, req.State)
	if c.next != nil {
		return c.next(req)
	}
	return sdk.Result{Status: sdk.Up, State: more(req.State)}, nil
}

// more adds one to a count of secret steps.
func more(state string) string { return state + "hush." }

func (c *counting) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return "never called"
	}
	return c.seen[len(c.seen)-1]
}

func (s *memory) puts() []opaquePut {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]opaquePut(nil), s.put...)
}

func (s *memory) fill(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// TestStateIsWrittenOnceAMinute has states that change with every check: each is written at most once a minute, as it is then,
// and the newest when the engine stops. After a restart the next check is given it.
func TestStateIsWrittenOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		store, checks := &memory{}, scripted{"silent": always(sdk.Up)}
		all := make([]*counting, n)
		for i := range n {
			target := fmt.Sprint(i)
			all[i] = &counting{}
			checks[target] = all[i]
			store.monitors = append(store.monitors, spec(i+1, target))
		}
		store.monitors = append(store.monitors, spec(n+1, "silent"))
		e := start(t, store, checks, nil)
		advance(10*time.Minute + 7*time.Second)
		before := len(store.puts())
		e.stop()

		writes := make(map[uint32][]opaquePut)
		for i, p := range store.puts() {
			if earlier := writes[p.Series]; i < before && len(earlier) > 0 {
				if gap := p.at.Sub(earlier[len(earlier)-1].at); gap < time.Minute {
					t.Errorf("the state of series %d was written twice within %s", p.Series, gap)
				}
			}
			writes[p.Series] = append(writes[p.Series], p)
		}
		for i, c := range all {
			series := uint32(i + 1)
			if got := len(writes[series]); got < 9 || got > 11 {
				t.Errorf("series %d: %d writes in ten minutes", series, got)
			}
			if want := more(c.last()); store.opaques[series].State != want {
				t.Errorf("series %d: after the stop %d bytes are stored, want %d", series, len(store.opaques[series].State), len(want))
			}
		}
		if len(writes[n+1]) > 0 {
			t.Errorf("a state of a checker that has none was written: %v", writes[n+1])
		}

		want := make([]string, n)
		for i, c := range all {
			want[i] = store.opaques[uint32(i+1)].State
			c.seen = nil
		}
		second := start(t, store, checks, nil)
		advance(10 * time.Second)
		second.stop()
		for i, c := range all {
			if len(c.seen) == 0 || c.seen[0] != want[i] {
				t.Errorf("series %d: the first check after a restart was given %q, want what was stored", i+1, c.seen)
			}
		}
	})
}

// TestStateThatStays is written once, and not again at the stop; one that a checker gives up is taken away.
func TestStateThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		state := "steady"
		say := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			state = s
		}
		c := &counting{next: func(sdk.CheckRequest) (sdk.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			return sdk.Result{Status: sdk.Up, State: state}, nil
		}}
		store := &memory{monitors: []monitor.Monitor{spec(1, "t")}}
		e := start(t, store, scripted{"t": c}, nil)
		advance(10 * time.Minute)
		if got := store.puts(); len(got) != 1 || got[0].State != "steady" {
			t.Errorf("a state that stays was written %d times", len(got))
		}
		say("")
		advance(2 * time.Minute)
		if got := store.puts(); len(got) != 2 || got[1].State != "" {
			t.Errorf("the end of a state was written as %v", got)
		}
		say(strings.Repeat("x", sdk.MaxState+1))
		advance(2 * time.Minute)
		e.stop()
		if got := store.puts(); len(got) != 2 || c.last() != "" {
			t.Errorf("a state that is too long was kept: %d writes, the next check was given %d bytes", len(got), len(c.last()))
		}
	})
}

// TestStateIsOfWhatWasChecked changes a monitor in every way that makes its state another's, while the engine runs and while
// it does not.
func TestStateIsOfWhatWasChecked(t *testing.T) {
	for name, one := range map[string]struct {
		change func(*monitor.Monitor)
		keeps  bool
	}{
		"kind":           {change: func(m *monitor.Monitor) { m.Kind = "other" }},
		"target":         {change: func(m *monitor.Monitor) { m.Target = "u" }},
		"config":         {change: func(m *monitor.Monitor) { m.Config = json.RawMessage(`{"db":2}`) }},
		"kind to target": {change: func(m *monitor.Monitor) { m.Kind, m.Target = m.Kind+m.Target, "" }},
		"labels": {keeps: true, change: func(m *monitor.Monitor) {
			m.Labels, m.Name, m.Timeout, m.Retries, m.Assert = map[string]string{"a": "b"}, "new", time.Second, 3, []string{"up"}
		}},
		"empty config": {keeps: true, change: func(m *monitor.Monitor) { m.Config = nil }},
	} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &counting{}
					checks := scripted{"t": c, "u": c, "": c}
					m := spec(1, "t")
					store := &memory{monitors: []monitor.Monitor{m}}
					e := start(t, store, checks, nil)
					advance(2 * time.Minute)
					before := c.last()
					if before == "" || store.opaques[1].State == "" {
						t.Fatal("there is no state yet")
					}
					one.change(&m)
					m.Revision++
					if running {
						if err := e.Put(m); err != nil {
							t.Fatal(err)
						}
						advance(0)
					} else {
						e.stop()
						store.monitors = []monitor.Monitor{m}
						e = start(t, store, checks, nil)
						advance(10 * time.Second)
					}
					if got := c.last(); (got != "") != one.keeps {
						t.Errorf("the first check after the change was given %q", got)
					}
					advance(time.Minute) // half of what was before, so a count that began anew is shorter
					e.stop()
					if got := store.opaques[1]; got.Of != fingerprint(&m) || (len(got.State) > len(before)) != one.keeps {
						t.Errorf("stored is %q", got.State)
					}
				})
			})
		}
	}
}

// TestStaleStateIsTakenAway has a state of another target in the store, and a checker that gives none.
func TestStaleStateIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, elsewhere := spec(1, "t"), spec(1, "elsewhere")
		m.Paused = true
		store := &memory{monitors: []monitor.Monitor{m}, opaques: map[uint32]monitor.Opaque{
			1: {Series: 1, Of: fingerprint(&elsewhere), State: "hush"}, 2: {Series: 2, Of: fingerprint(&m), State: "of nobody"},
		}}
		e := start(t, store, scripted{"t": always(sdk.Up)}, nil)
		advance(2 * time.Minute)
		e.stop()
		if got := store.puts(); len(got) != 1 || got[0].Series != 1 || got[0].State != "" {
			t.Errorf("written were %v", got)
		}
	})
}

// TestStateOfAnOldCheckIsNotTaken has a check under way whose monitor is changed or removed meanwhile.
func TestStateOfAnOldCheckIsNotTaken(t *testing.T) {
	for _, remove := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := &counting{next: func(sdk.CheckRequest) (sdk.Result, error) {
				time.Sleep(time.Second)
				return sdk.Result{Status: sdk.Up, State: "of t"}, nil
			}}
			fresh := &counting{next: func(sdk.CheckRequest) (sdk.Result, error) { return sdk.Result{Status: sdk.Up}, nil }}
			store := &memory{}
			e := start(t, store, scripted{"t": c, "u": fresh}, nil)
			synctest.Wait()
			m := spec(1, "t")
			if err := e.Put(m); err != nil {
				t.Fatal(err)
			}
			advance(10500 * time.Millisecond) // a state is there, and the next check is under way or soon is
			if remove {
				e.Remove(m.ID)
			} else {
				m.Target, m.Revision = "u", 2
				if err := e.Put(m); err != nil {
					t.Fatal(err)
				}
			}
			advance(5 * time.Minute)
			e.stop()
			for _, p := range store.puts() {
				if p.State != "" || remove {
					t.Errorf("%q was written after the monitor was changed or removed", p.State)
				}
			}
			if !remove && fresh.last() != "" {
				t.Errorf("the other target was checked with %q", fresh.last())
			}
		})
	}
}

// TestStateOutlivesFaults: a check that could not be made, or panicked, leaves the state as it was.
func TestStateOutlivesFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := &counting{next: func(sdk.CheckRequest) (sdk.Result, error) {
			switch calls++; calls {
			case 1:
				return sdk.Result{Status: sdk.Up, State: "hush"}, nil
			case 2:
				return sdk.Result{State: "lost"}, errors.New("too many open files")
			}
			panic("spanner in the works")
		}}
		store := &memory{monitors: []monitor.Monitor{spec(1, "t")}}
		e := start(t, store, scripted{"t": c}, nil)
		advance(2 * time.Minute)
		if got := c.last(); got != "hush" {
			t.Errorf("the check after those that could not be made was given %q", got)
		}
		e.stop()
		if got := store.puts(); len(got) != 1 || got[0].State != "hush" {
			t.Errorf("written were %v", got)
		}
	})
}

// TestStateOfAFullStore: what the store drops is tried again a minute later, and at the stop until the drain is over.
func TestStateOfAFullStore(t *testing.T) {
	for _, recovers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := &counting{}
			store := &memory{monitors: []monitor.Monitor{spec(1, "t")}, full: true}
			e := start(t, store, scripted{"t": c}, func(o *Options) { o.DrainTimeout = 4 * time.Second })
			advance(5 * time.Minute)
			if len(store.puts()) > 0 {
				t.Fatal("a full store took a state")
			}
			if recovers {
				store.fill(false)
				advance(time.Minute)
				if got := store.puts(); len(got) != 1 || len(got[0].State) < 5*len(more("")) {
					t.Errorf("%d writes a minute after the store had room again", len(got))
				}
				store.fill(true)
				advance(time.Minute)
			}
			begin, want := time.Now(), more(c.last())
			if recovers {
				time.AfterFunc(time.Second, func() { store.fill(false) })
			}
			e.stop()
			took := time.Since(begin)
			lost := strings.Contains(e.log.String(), "states of checkers were lost")
			switch {
			case recovers && (store.opaques[1].State != want || lost || took < time.Second || took > 2*time.Second):
				t.Errorf("after %s stored is %q, logged %v", took, store.opaques[1].State, lost)
			case !recovers && (!lost || took < 3*time.Second || took > 5*time.Second):
				t.Errorf("the stop of an engine with a full store took %s, logged %v", took, lost)
			}
			if strings.Contains(e.log.String(), "hush") {
				t.Errorf("the log has\n%s", e.log.String())
			}
		})
	}
}

// TestStateIsNobodysBusiness looks for a state in all that the engine tells others.
func TestStateIsNobodysBusiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := &counting{next: func(req sdk.CheckRequest) (sdk.Result, error) {
			calls++
			status := sdk.Up
			if calls%3 == 0 {
				status = sdk.Down
			}
			return sdk.Result{Status: status, Message: status.String(), State: more(req.State)}, nil
		}}
		m := spec(1, "t")
		store := &memory{monitors: []monitor.Monitor{m}}
		e := start(t, store, scripted{"t": c}, nil)
		synctest.Wait()
		all := e.Subscribe(SubscribeOptions{})
		defer all.Close()
		advance(5 * time.Minute)
		last, err := e.CheckNow(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		live, _ := e.Live(m.ID)
		told := []any{last, live, live.Last, e.Stats()}
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			message, err := all.Next(ctx)
			cancel()
			if err != nil {
				break
			}
			told = append(told, message)
		}
		e.stop()
		for _, one := range append(told, store.taken(), store.transitions, e.log.String()) {
			written, err := json.Marshal(one)
			if err != nil {
				t.Fatal(err)
			}
			if text := fmt.Sprintf("%+v %s", one, written); strings.Contains(text, "hush") {
				t.Errorf("a state was told: %s", text)
			}
		}
		if !strings.Contains(c.last(), "hush") || len(told) < 10 {
			t.Errorf("%d things were told, and the last check was given %q", len(told), c.last())
		}
		if data, err := json.Marshal(monitor.Opaque{State: "hush"}); err != nil || strings.Contains(string(data), "hush") {
			t.Errorf("as JSON a state is %s, %v", data, err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	base := spec(1, "t")
	seen := map[[32]byte]string{}
	for _, one := range []struct{ kind, target, config string }{
		{"script", "t", "{}"}, {"script", "", "{}"}, {"scriptt", "", "{}"}, {"", "scriptt", "{}"}, {"script", "t{}", " "}, {"script", "t", `{"a":1}`},
	} {
		m := base
		m.Kind, m.Target, m.Config = one.kind, one.target, json.RawMessage(one.config)
		of := fingerprint(&m)
		if other, twice := seen[of]; twice {
			t.Errorf("%v has the fingerprint of %s", one, other)
		}
		seen[of] = fmt.Sprint(one)
	}
	same := base
	same.Config, same.ID, same.Series, same.Revision = nil, "other", 2, 9
	if diff := cmp.Diff(fingerprint(&base), fingerprint(&same)); diff != "" {
		t.Errorf("fingerprints of one thing differ: %s", diff)
	}
}
