package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// moody does what its target says: answer, loop, crash, throw, or answer late.
const moody = `
export function check(request) {
  switch (request.target) {
  case "loop": for (;;);
  case "throw": throw new Error("the author's mistake");
  case "late": { const end = Date.now() + 700; while (Date.now() < end); break; }
  case "hoard": { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }
  }
  return {status: "up", message: "fine"};
}`

// short is a request with a timeout of 300 ms.
func short(target string) sdk.CheckRequest {
	r := request(target)
	r.Timeout = 300 * time.Millisecond
	return r
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	b.mustCheck("moody", request("ok"))
	began := time.Now()
	_, err := b.check("moody", short("loop"))
	if err == nil || err.Error() != "plugin moody exceeded its deadline and was stopped" {
		t.Errorf("a call that loops: %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("it was stopped after %s, before its deadline", took)
	}
	b.mustCheck("moody", request("ok"))
	v, err := b.Plugin("moody")
	if err != nil || v.Usage.Kills != 1 || v.Usage.Starts < 2 {
		t.Errorf("usage %+v, error %v", v.Usage, err)
	}
}

func TestNeighbourIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	b.mustCheck("moody", request("ok"))
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := b.check("moody", short("loop")); err == nil {
			t.Error("a call that loops answered")
		}
	})
	for i := range 3 {
		wg.Go(func() {
			r := request("late")
			r.Monitor.ID = fmt.Sprint("neighbour", i)
			if result, err := b.check("moody", r); err != nil || result.Status != sdk.Up {
				t.Errorf("neighbour %d: %v %v", i, result, err)
			}
		})
	}
	wg.Wait()
}

func TestRunnerOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	for _, name := range []string{"a", "b", "c"} { // others use it, so it is not hopeless
		r := request("ok")
		r.Monitor.ID = name
		b.mustCheck("moody", r)
	}
	for range 2 {
		if _, err := b.check("moody", short("loop")); err == nil {
			t.Fatal("a call that loops answered")
		}
	}
	_, err := b.check("moody", short("loop"))
	if err == nil || !strings.Contains(err.Error(), `runs apart for the monitor "the loop" after it was stopped 2 times`) {
		t.Errorf("the third call: %v", err)
	}
	b.mustCheck("moody", request("ok"))
	p, err := b.lookup("moody")
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.apart["m-loop"].back = backoff{}
	p.mu.Unlock()
	b.mustCheck("moody", func() sdk.CheckRequest { r := request("ok"); r.Monitor.ID = "m-loop"; return r }())
	p.mu.Lock()
	own := p.private["m-loop"] != nil && p.shared != nil
	p.mu.Unlock()
	if !own {
		t.Error("its next call did not run in a runner of its own")
	}
}

func TestDisabledAfterThree(t *testing.T) {
	t.Parallel()
	changed := make(chan string, 100)
	b := newBed(t, func(o *Options) { o.Changed = func(name string) { changed <- name } })
	b.install(scripted("moody", moody))
	for i := range 3 {
		r := request("ok")
		r.Monitor.ID = fmt.Sprint("good", i)
		b.mustCheck("moody", r)
	}
	for i := range 3 {
		r := short("loop")
		r.Monitor.ID, r.Monitor.Name = fmt.Sprint("bad", i), fmt.Sprint("bad ", i)
		if _, err := b.check("moody", r); err == nil {
			t.Fatal("a call that loops answered")
		}
	}
	v, err := b.Plugin("moody")
	if err != nil || v.Condition != monitor.PluginDisabled || !strings.Contains(v.Why, `"bad 2" exceeded its deadline`) {
		t.Fatalf("condition %s, why %q, error %v", v.Condition, v.Why, err)
	}
	if _, err := b.check("moody", request("ok")); err == nil || !strings.Contains(err.Error(), "plugin moody is disabled") {
		t.Errorf("a check of a disabled plugin: %v", err)
	}
	for stored := false; !stored; { // it is stored in the background
		<-changed
		list, err := b.records.Plugins(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored = list[0].Disabled
	}
	if _, err := b.Enable(t.Context(), "moody"); err != nil {
		t.Fatal(err)
	}
	b.mustCheck("moody", request("ok"))
}

func TestMemory(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody, "limits: {memory: 16MiB, concurrency: 2}"))
	for range 2 {
		if _, err := b.check("moody", request("hoard")); err == nil {
			t.Fatal("hoarding memory was no error")
		}
	}
	b.mustCheck("moody", request("ok"))
	p, err := b.lookup("moody")
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	c := p.shared
	p.mu.Unlock()
	c.limit.Store(1 << 20) // as if it had taken more than it may
	c.weigh()
	<-c.over
	if !errors.Is(c.cause, errMemory) {
		t.Errorf("it ended because of %v", c.cause)
	}
	b.mustCheck("moody", request("ok"))
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	b.mustCheck("moody", request("ok"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	c, err := b.Checker("moody")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := c.Check(ctx, request("loop"))
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	v := b.install(scripted("moody", moody))
	b.close()
	b.open()
	b.mustCheck("moody", request("ok"))
	b.close()
	path := filepath.Join(b.buildDir("moody", v.Active.Digest), "check.js")
	if err := os.WriteFile(path, []byte(moody+" "), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	got, err := b.Plugin("moody")
	if err != nil || got.Condition != monitor.PluginBroken || !strings.Contains(got.Why, "its files were changed since it was installed") {
		t.Errorf("after its file was changed: %s, %q, error %v", got.Condition, got.Why, err)
	}
	if _, err := b.check("moody", request("ok")); err == nil {
		t.Error("a changed plugin runs")
	}
	b.install(scripted("moody", moody))
	b.mustCheck("moody", request("ok"))
}
