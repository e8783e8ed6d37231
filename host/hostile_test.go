package host

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// pulse measures how long this process, and beside it one that does nothing else, were kept from running.
type pulse struct {
	t    *testing.T
	in   io.WriteCloser
	out  *bufio.Reader
	mu   sync.Mutex
	most time.Duration
}

func newPulse(t *testing.T) *pulse {
	t.Helper()
	p := &pulse{t: t}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(filepath.Dir(os.Getenv(programEnv)), "ticker"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for last := time.Now(); ; {
			select {
			case <-ticker.C:
				now := time.Now()
				p.mu.Lock()
				p.most = max(p.most, now.Sub(last))
				p.mu.Unlock()
				last = now
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		ticking.Wait()
		if err := errors.Join(p.in.Close(), cmd.Wait()); err != nil {
			t.Errorf("the ticker beside: %v", err)
		}
	})
	return p
}

// gaps gives the largest gap of each since the last time.
func (p *pulse) gaps() (own, beside time.Duration) {
	p.t.Helper()
	p.mu.Lock()
	own, p.most = p.most, 0
	p.mu.Unlock()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		p.t.Fatal(err)
	}
	var us int64
	if _, err := fmt.Fscanln(p.out, &us); err != nil {
		p.t.Fatal(err)
	}
	return own, time.Duration(us) * time.Microsecond
}

// Bounds that a hostile guest must not break, on a machine that lets this process run.
const (
	mostGap  = 50 * time.Millisecond
	mostOver = 500 * time.Millisecond // behind the deadline
)

// TestHostileGuests runs every guest of the corpus behind all walls, with a well-behaved plugin beside it.
func TestHostileGuests(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://denied.test/", http.StatusFound))
	defer server.Close()
	b := newBed(t, func(o *Options) {
		o.CompileTimeout = 5 * time.Second
		o.Lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
			if name == "metadata.test" {
				return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
			}
			return nil, fmt.Errorf("no such host %q", name)
		}
	})
	b.install(moduled("good", string(readGuest(t, "good", "good.wasm"))))
	b.mustCheck("good", request("anything"))
	beat := newPulse(t)
	for _, g := range hostileGuests(t) {
		t.Run(g.name(), func(t *testing.T) {
			g.Target = strings.ReplaceAll(g.Target, "{server}", server.URL)
			b.t = t
			b.suffer(g, beat)
		})
	}
	b.t = t
	if v, err := b.Plugin("good"); err != nil || v.Usage.Kills > 0 || v.Usage.Failures > 0 {
		t.Errorf("the well-behaved plugin: %+v, error %v", v.Usage, err)
	}
}

// suffer installs and calls a hostile guest and holds it to the four things that must be true whatever it does.
func (b *bed) suffer(g hostileGuest, beat *pulse) {
	t := b.t
	manifest := []string{}
	if len(g.Permissions) > 0 {
		manifest = append(manifest, "permissions:")
		for _, p := range g.Permissions {
			manifest = append(manifest, "  - {allow: \""+p+"\"}")
		}
	}
	name := strings.ReplaceAll(g.name(), "_", "-")
	beat.gaps()
	_, err := b.Install(t.Context(), moduled(name, string(g.module(t)), manifest...).archive(t), monitor.PluginInstall{Grant: true})
	b.unmoved(beat, "its install")
	var faults monitor.Faults
	if g.Ends == "refused" {
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), g.Text) {
			t.Errorf("its install: %v, want a refusal with %q", err, g.Text)
		}
		return
	}
	if err != nil {
		t.Fatalf("its install: %v", err)
	}
	p, err := b.lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ready(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	beat.gaps()
	var wg sync.WaitGroup
	wg.Go(func() { b.mustCheckIn(t, "good") })
	req := request(g.Target)
	req.Timeout = 500 * time.Millisecond
	began := time.Now()
	result, err := b.check(name, req)
	took := time.Since(began)
	wg.Wait()
	_, beside := b.unmoved(beat, "its call")
	if over := took - req.Timeout; over > mostOver+beside {
		t.Errorf("its call ended %s behind its deadline, while the machine stood still for %s", over, beside)
	}
	message, status := result.Message, result.Status.String()
	if err != nil {
		message, status = err.Error(), sdk.Unknown.String()
	}
	want := g.Ends
	if want == "killed" {
		want = sdk.Unknown.String()
	}
	if status != want || !strings.Contains(message, g.Text) {
		t.Errorf("its call: %s %q, want %s %q", status, message, want, g.Text)
	}
	if err := b.Remove(t.Context(), name); err != nil {
		t.Error(err)
	}
}

// unmoved holds this process to having run all the time, as far as the machine let it.
func (b *bed) unmoved(beat *pulse, while string) (own, beside time.Duration) {
	b.t.Helper()
	own, beside = beat.gaps()
	if own > mostGap+2*beside {
		b.t.Errorf("during %s this process stood still for %s, the machine for %s", while, own, beside)
	}
	return own, beside
}

func (b *bed) mustCheckIn(t *testing.T, name string) {
	t.Helper()
	c, err := b.Checker(name)
	if err != nil {
		t.Error(err)
		return
	}
	if r, err := c.Check(t.Context(), request("anything")); err != nil || r.Status != sdk.Up {
		t.Errorf("the well-behaved plugin's call: %v %q, error %v", r.Status, r.Message, err)
	}
}

// TestThousandKills kills a runner in the middle of a call a thousand times, and looks for what is left.
func TestThousandKills(t *testing.T) {
	b := newBed(t, nil)
	b.install(scripted("moody", moody))
	b.mustCheck("moody", request("ok"))
	p, err := b.lookup("moody")
	if err != nil {
		t.Fatal(err)
	}
	round := func() {
		c, err := p.ready(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		checker, err := b.Checker("moody")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			r := request("loop")
			_, err := checker.Check(t.Context(), r)
			done <- err
		}()
		for entered := false; !entered; {
			c.mu.Lock()
			entered = len(c.calls) > 0
			c.mu.Unlock()
		}
		c.kill(errDeadline, b.only(c))
		if err := <-done; err == nil || !strings.Contains(err.Error(), "exceeded its deadline") {
			t.Fatalf("a killed call: %v", err)
		}
		<-c.over
		p.mu.Lock() // as if each kill had been alone for a long time
		p.apart, p.failed = map[string]*strikes{}, backoff{}
		p.mu.Unlock()
	}
	for range 20 {
		round()
	}
	before := b.leftovers()
	kills := 1000
	if testing.Short() {
		kills = 100
	}
	for range kills {
		round()
	}
	if after := b.leftovers(); after.files > before.files || after.sockets > before.sockets || after.children > before.children || after.heap > before.heap+10<<20 {
		t.Errorf("after %d kills there is %+v, before there was %+v", kills, after, before)
	}
	b.mustCheck("moody", request("ok"))
}

// only is the one call under way in a runner.
func (b *bed) only(c *child) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		return k
	}
	b.t.Fatal("no call is under way")
	return nil
}

// leftovers is what kills may leave behind.
type leftovers struct {
	files, sockets, children int
	heap                     uint64
}

func (b *bed) leftovers() leftovers {
	b.t.Helper()
	count := func(pattern string) int {
		found, err := filepath.Glob(pattern)
		if err != nil {
			b.t.Fatal(err)
		}
		return len(found)
	}
	children, err := os.ReadFile("/proc/thread-self/children")
	if err != nil {
		b.t.Fatal(err)
	}
	return leftovers{count("/proc/self/fd/*"), count(filepath.Join(b.sockets, "*")), len(bytes.Fields(children)), heapInUse()}
}
