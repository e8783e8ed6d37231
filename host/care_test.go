//go:build linux

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// both is a plugin that checks and notifies; see escaped.plugin.
func (e *escaped) both(name string, more ...string) pluginFiles {
	f := e.plugin(name, more...)
	f[sdk.ManifestFile] = strings.Replace(f[sdk.ManifestFile], "[check]", "[check, notify]", 1)
	return f
}

// notify delivers a notification with which the escapee does something.
func (e *escaped) notify(ctx context.Context, name string, j escapeJob) error {
	config, err := json.Marshal(j)
	if err != nil {
		return err
	}
	n, err := e.Notifier(name, config)
	if err != nil {
		return err
	}
	return n.Notify(ctx, sdk.Notification{})
}

// runner is the runner that all share, once it is ready.
func (b *bed) runner(name string) *child {
	b.t.Helper()
	p, err := b.lookup(name)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := p.ready(b.t.Context(), "")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// entered waits until so many calls are under way in a runner.
func (c *child) entered(t *testing.T, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		c.mu.Lock()
		there := len(c.calls)
		c.mu.Unlock()
		if there == n {
			return
		}
		<-tick.C
	}
	t.Fatalf("%d calls did not come to be under way", n)
}

// forgive forgets all blame.
func (p *plugin) forgive() map[string]*strikes {
	p.mu.Lock()
	defer p.mu.Unlock()
	blamed := p.apart
	p.apart = map[string]*strikes{}
	p.failed.succeed()
	return blamed
}

// A runner that dies by itself is blamed on the call that was under way, and on none when there were several; a notification
// in it is to be tried again by whoever sent it.
func TestBlameForACrash(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.both("x"))
	p, err := e.lookup("x")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		err := e.notify(t.Context(), "x", escapeJob{Do: "die"})
		if err == nil || !strings.HasPrefix(err.Error(), "plugin x crashed: ") || sdk.IsPermanent(err) {
			t.Fatalf("a notification that crashes: %v", err)
		}
		if blamed := p.forgive(); len(blamed) != 1 {
			t.Fatalf("blamed: %v", blamed)
		}
	}
	for range 20 {
		c := e.runner("x")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				err := e.notify(t.Context(), "x", escapeJob{Do: "stuck"})
				if !errors.Is(err, errInterrupted) || sdk.IsPermanent(err) {
					t.Errorf("a notification beside: %v", err)
				}
			})
		}
		c.entered(t, 3)
		if err := e.notify(t.Context(), "x", escapeJob{Do: "die"}); !errors.Is(err, errInterrupted) || sdk.IsPermanent(err) {
			t.Errorf("a notification that crashes among others: %v", err)
		}
		wg.Wait()
		if blamed := p.forgive(); len(blamed) > 0 {
			t.Fatalf("blamed: %v", blamed)
		}
	}
}

// Whoever hears that a runner was killed finds the kill noted, and a new runner.
func TestMemoryOfSeveral(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.both("x"))
	c := e.runner("x")
	var wg sync.WaitGroup
	wg.Go(func() {
		err := e.notify(t.Context(), "x", escapeJob{Do: "stuck"})
		if !errors.Is(err, errInterrupted) || !errors.Is(err, errMemory) || sdk.IsPermanent(err) {
			t.Errorf("a notification: %v", err)
		}
	})
	wg.Go(func() {
		e.mustCheck("x", e.job(escapeJob{Do: "slow", Times: 500})) // it is made again
	})
	c.entered(t, 2)
	c.limit.Store(1)
	c.weigh()
	wg.Wait()
	if v, err := e.Plugin("x"); err != nil || v.Usage.Kills != 1 {
		t.Errorf("usage %+v, error %v", v.Usage, err)
	}
	// A call that has ended does nothing to the runner.
	c = e.runner("x")
	c.kill(errDeadline, &call{monitor: "gone"})
	if c.ending() != nil {
		t.Error("a call that has ended ended its runner")
	}
}

// A runner that takes no more calls is still held to its limit.
func TestRetiredRunnerIsWeighed(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.both("x"))
	c, done := e.runner("x"), make(chan error)
	go func() { done <- e.notify(t.Context(), "x", escapeJob{Do: "stuck"}) }()
	c.entered(t, 1)
	if _, err := e.SetLimits(t.Context(), "x", sdk.Limits{Concurrency: 2}); err != nil {
		t.Fatal(err)
	}
	c.limit.Store(1)
	if err := <-done; !errors.Is(err, errMemory) {
		t.Errorf("its call: %v", err)
	}
}

// What a crash writes may hold secrets of any call that was under way.
func TestSecretInACrash(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.both("x", `config: {type: object, properties: {Secret: {type: string, writeOnly: true}}}`))
	c := e.runner("x")
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.notify(t.Context(), "x", escapeJob{Do: "stuck"}); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("a call beside: %v", err)
		}
	})
	c.entered(t, 1)
	for range 2 {
		err := e.notify(t.Context(), "x", escapeJob{Do: "die", Secret: "canary"})
		if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "fatal: ••••") {
			t.Errorf("a call that crashes: %v", err)
		}
		wg.Wait()
	}
	if strings.Contains(e.log.String(), "canary") {
		t.Errorf("the log has it:\n%s", e.log)
	}
}

// The records of a plugin change while calls end well.
func TestChangesBesideCalls(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.plugin("x"))
	p, err := e.lookup("x")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				p.failed.succeed() // as every call does that ends well
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := e.check("x", e.job(escapeJob{})); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 50 {
		if _, err := e.SetLimits(t.Context(), "x", sdk.Limits{Concurrency: 4 + i%4}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// closeWithin closes the host, which must not take as long as any of its calls.
func (b *bed) closeWithin(limit time.Duration) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), limit)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		b.t.Errorf("close the host: %v", err)
	}
	if left := b.runners(); len(left) > 0 {
		b.t.Errorf("%d runners are left", len(left))
	}
}

// The end of the server ends everything, whatever it is in the middle of.
func TestCloseInTheMiddle(t *testing.T) {
	t.Parallel()
	t.Run("of a call in a retired runner", func(t *testing.T) {
		t.Parallel()
		e := newEscaped(t, nil)
		e.install(e.plugin("x"))
		c := e.runner("x")
		done := make(chan error)
		go func() {
			_, err := e.check("x", e.job(escapeJob{Do: "stuck"}))
			done <- err
		}()
		c.entered(t, 1)
		if _, err := e.SetLimits(t.Context(), "x", sdk.Limits{Concurrency: 2}); err != nil {
			t.Fatal(err)
		}
		e.closeWithin(5 * time.Second)
		if err := <-done; !errors.Is(err, errStopping) {
			t.Errorf("the call: %v", err)
		}
	})
	for lie, want := range map[string]error{"silence": errStopping, "compiler": errStopping} {
		t.Run("of an install: "+lie, func(t *testing.T) {
			t.Parallel()
			e := newEscaped(t, nil, "lie="+lie)
			archive, done := e.plugin("x").archive(t), make(chan error)
			go func() {
				_, err := e.Install(t.Context(), archive, monitor.PluginInstall{Grant: true})
				done <- err
			}()
			e.underWay(lie)
			e.closeWithin(5 * time.Second)
			if err := <-done; !errors.Is(err, want) {
				t.Errorf("the install: %v, want %v", err, want)
			}
			e.nothingLeft()
			if _, err := e.Install(t.Context(), e.plugin("x").archive(t), monitor.PluginInstall{}); err == nil {
				t.Error("a closed host installs")
			}
			e.nothingLeft()
		})
	}
}

// underWay waits until an install has come to where its child hangs.
func (e *escaped) underWay(lie string) {
	e.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 20_000 {
		compiled, err := filepath.Glob(filepath.Join(e.opts.Dir, "compiled", "*"))
		if err != nil {
			e.t.Fatal(err)
		}
		if lie == "compiler" && len(compiled) > 0 || lie != "compiler" && len(e.runners()) > 0 {
			return
		}
		<-tick.C
	}
	e.t.Fatal("the install does not get on")
}

// nothingLeft holds the host to having no files of any plugin.
func (e *escaped) nothingLeft() {
	e.t.Helper()
	for _, pattern := range []string{"installed/*", "compiled/*"} {
		if left, err := filepath.Glob(filepath.Join(e.opts.Dir, pattern)); err != nil || len(left) > 0 {
			e.t.Errorf("left behind: %v, error %v", left, err)
		}
	}
	if all := e.Plugins(); len(all) > 0 {
		e.t.Errorf("installed: %+v", all)
	}
}

// An install that is cancelled leaves nothing, and keeps nobody waiting.
func TestCancelledInstall(t *testing.T) {
	t.Parallel()
	for _, lie := range []string{"silence", "compiler"} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			e := newEscaped(t, nil, "lie="+lie)
			ctx, cancel := context.WithCancel(t.Context())
			archive, second, done := e.plugin("x").archive(t), e.plugin("x").archive(t), make(chan error, 2)
			go func() {
				_, err := e.Install(ctx, archive, monitor.PluginInstall{Grant: true})
				done <- err
			}()
			e.underWay(lie)
			waiting, giveUp := context.WithCancel(t.Context())
			giveUp()
			if _, err := e.Install(waiting, second, monitor.PluginInstall{}); !errors.Is(err, context.Canceled) {
				t.Errorf("an install that waits for another: %v", err)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("the install: %v", err)
			}
			e.nothingLeft()
			for _, c := range e.runners() {
				<-c.over // it ends without anybody's doing
			}
		})
	}
}

// Disabling, removing and granting less count for calls under way.
func TestChangesCountAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*escaped) error
		want   string
	}{
		"disable": {func(e *escaped) error { _, err := e.Disable(t.Context(), "x", "enough"); return err }, "plugin x is disabled: enough"},
		"remove":  {func(e *escaped) error { return e.Remove(t.Context(), "x") }, "it was removed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEscaped(t, nil)
			e.install(e.plugin("x"))
			r, done := e.runner("x"), make(chan error)
			go func() {
				_, err := e.check("x", e.job(escapeJob{Do: "stuck"}))
				done <- err
			}()
			r.entered(t, 1)
			if err := c.change(e); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the call: %v, want %q", err, c.want)
			}
		})
	}
	t.Run("grant less", func(t *testing.T) {
		t.Parallel()
		e := newEscaped(t, nil)
		e.install(e.plugin("x", granted))
		r, done := e.runner("x"), make(chan error)
		go func() {
			_, err := e.check("x", e.job(escapeJob{Do: "hold"}))
			done <- err
		}()
		<-e.target.arrived
		if _, err := e.Grant(t.Context(), "x", monitor.PluginDecision{Permissions: []string{"udp://{target}"}}); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		left := fmt.Sprint(r.grant.Permissions)
		r.mu.Unlock()
		if left != "[udp://{target}]" {
			t.Errorf("the call under way may still reach %s", left)
		}
		e.target.hangUp()
		if err := <-done; err != nil {
			t.Errorf("the call: %v", err)
		}
	})
}

// Whoever removes a plugin while it is installed anew waits, and then nothing is left.
func TestRemoveDuringInstall(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.plugin("x"))
	e.opts.Program = append(e.opts.Program, "lie=silence")
	e.close()
	e.open()
	ctx, cancel := context.WithCancel(t.Context())
	archive, done := e.plugin("x", granted).archive(t), make(chan error)
	go func() {
		_, err := e.Install(ctx, archive, monitor.PluginInstall{Grant: true})
		done <- err
	}()
	e.underWay("silence")
	brief, giveUp := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer giveUp()
	if err := e.Remove(brief, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a removal that waits for the install: %v", err)
	}
	if _, err := e.Disable(t.Context(), "x", ""); err != nil { // waits for nobody
		t.Error(err)
	}
	removed := make(chan error)
	go func() { removed <- e.Remove(t.Context(), "x") }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the install: %v", err)
	}
	if err := <-removed; err != nil {
		t.Errorf("the removal: %v", err)
	}
	e.nothingLeft()
}

// stubborn are records that cannot be stored.
type stubborn struct {
	*memory
	mu  sync.Mutex
	err error
}

func (s *stubborn) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// PutPlugin implements Records.
func (s *stubborn) PutPlugin(ctx context.Context, p monitor.Plugin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return s.memory.PutPlugin(ctx, p)
}

// DeletePlugin implements Records.
func (s *stubborn) DeletePlugin(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return s.memory.DeletePlugin(ctx, name)
}

// What cannot be stored has not happened.
func TestRecordsThatCannotBeStored(t *testing.T) {
	t.Parallel()
	records := &stubborn{memory: &memory{}}
	e := newEscaped(t, func(o *Options) { o.Records = records })
	full := errors.New("the disk is full")
	records.refuse(full)
	if _, err := e.Install(t.Context(), e.plugin("x", granted).archive(t), monitor.PluginInstall{Grant: true}); !errors.Is(err, full) {
		t.Errorf("an install: %v", err)
	}
	e.nothingLeft()
	records.refuse(nil)
	e.install(e.plugin("x", granted))
	if _, err := e.Disable(t.Context(), "x", "tired"); err != nil {
		t.Fatal(err)
	}
	p, err := e.lookup("x")
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.broken = "it was broken"
	p.mu.Unlock()
	before, err := e.Plugin("x")
	if err != nil {
		t.Fatal(err)
	}
	records.refuse(full)
	for name, change := range map[string]func() error{
		"enable": func() error { _, err := e.Enable(t.Context(), "x"); return err },
		"grant": func() error {
			_, err := e.Grant(t.Context(), "x", monitor.PluginDecision{Permissions: []string{}})
			return err
		},
		"limits": func() error { _, err := e.SetLimits(t.Context(), "x", sdk.Limits{Concurrency: 1}); return err },
		"upgrade": func() error {
			_, err := e.Install(t.Context(), e.plugin("x", granted, "license: MIT").archive(t), monitor.PluginInstall{Grant: true})
			return err
		},
		"remove": func() error { return e.Remove(t.Context(), "x") },
	} {
		if err := change(); !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
		after, err := e.Plugin("x")
		if err != nil || after.Condition != before.Condition || after.Why != before.Why || after.UpdatedAt != before.UpdatedAt || len(after.Grant.Permissions) != 2 {
			t.Errorf("after %s: %s, %q, %+v, error %v", name, after.Condition, after.Why, after.Plugin, err)
		}
		if builds, err := filepath.Glob(filepath.Join(e.opts.Dir, "*ed", "*", "*")); err != nil || len(builds) != 2 {
			t.Errorf("after %s there are %v, error %v", name, builds, err)
		}
	}
	records.refuse(nil)
	if _, err := e.Enable(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	e.mustCheck("x", e.job(escapeJob{}))
}

// A plugin whose files were changed is mended by the build that waits for its grant, and nothing is granted to what cannot
// be read.
func TestBrokenPluginIsMended(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	v := e.install(e.plugin("x"))
	if _, err := e.Install(t.Context(), e.plugin("x", granted).archive(t), monitor.PluginInstall{}); err != nil {
		t.Fatal(err)
	}
	e.close()
	module := filepath.Join(e.buildDir("x", v.Active.Digest), "check.wasm")
	if err := os.WriteFile(module, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.open()
	if v, err := e.Plugin("x"); err != nil || v.Condition != monitor.PluginBroken || v.PendingManifest == nil {
		t.Fatalf("%+v, error %v", v, err)
	}
	if v, err := e.Grant(t.Context(), "x", monitor.PluginDecision{}); err != nil || v.Condition != monitor.PluginReady {
		t.Fatalf("%s, %q, error %v", v.Condition, v.Why, err)
	}
	e.mustCheck("x", e.job(escapeJob{}))
	v, err := e.Plugin("x")
	if err != nil {
		t.Fatal(err)
	}
	e.close()
	if err := os.WriteFile(filepath.Join(e.buildDir("x", v.Active.Digest), "check.wasm"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.open()
	if v, err := e.Grant(t.Context(), "x", monitor.PluginDecision{}); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("a grant for what cannot be read: %+v, error %v", v.Grant, err)
	}
}

// A call without time is not made, and one that is given up for whatever cause ends.
func TestNoTimeAndNobodyWaits(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.both("x"))
	c := e.runner("x")
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if err := e.notify(late, "x", escapeJob{Do: "stuck"}); !errors.Is(err, context.DeadlineExceeded) || sdk.IsPermanent(err) {
		t.Errorf("a notification without time: %v", err)
	}
	if c.ending() != nil {
		t.Errorf("it ended the runner: %v", c.ending())
	}
	ctx, giveUp := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- e.notify(ctx, "x", escapeJob{Do: "stuck"}) }()
	c.entered(t, 1)
	giveUp(errors.New("the channel was removed"))
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a notification that nobody waits for: %v", err)
	}
	<-c.over
}

// Two hosts in one process do not know of each other.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	a, b := newEscaped(t, nil), newEscaped(t, nil)
	a.install(a.plugin("x"))
	b.install(b.plugin("x"))
	a.mustCheck("x", a.job(escapeJob{}))
	b.mustCheck("x", b.job(escapeJob{}))
	a.closeWithin(5 * time.Second)
	b.mustCheck("x", b.job(escapeJob{}))
}

// A full disk refuses an install, and leaves nothing of it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tocsin-test", dir, "tmpfs", 0, "size=96k"); err != nil {
		t.Logf("this user cannot make a small disk: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := newEscaped(t, func(o *Options) { o.Dir = filepath.Join(dir, "p") })
	e.install(e.plugin("x"))
	for name, size := range map[string]int{"unpacked": 200 << 10, "compiled": 76 << 10} {
		f := e.plugin("big")
		f["more"] = strings.Repeat(name, size/len(name))
		_, err := e.Install(t.Context(), f.archive(t), monitor.PluginInstall{Grant: true})
		var faults monitor.Faults
		if err == nil || errors.As(err, &faults) || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: %v", name, err)
		}
		for _, pattern := range []string{"installed/*", "compiled/*"} {
			if left, err := filepath.Glob(filepath.Join(e.opts.Dir, pattern)); err != nil || len(left) != 1 {
				t.Errorf("%s: there are %v, error %v", name, left, err)
			}
		}
	}
	e.mustCheck("x", e.job(escapeJob{}))
}

func TestTail(t *testing.T) {
	t.Parallel()
	var said tail
	for i := range 1000 {
		if n, err := fmt.Fprintf(&said, "%s%d\n", strings.Repeat("x", i*37%20_000), i); n == 0 || err != nil {
			t.Fatal(n, err)
		}
		if len(said.kept) > maxTail {
			t.Fatalf("it keeps %d bytes", len(said.kept))
		}
		if line := said.lastLine(); len(line) > sdk.MaxMessage || i*37%20_000 < 100 && !strings.HasSuffix(line, fmt.Sprint("x", i)) && i > 0 {
			t.Fatalf("its last line is %q", line)
		}
	}
	fmt.Fprint(&said, "\x1b[31mred\x00\n\n")
	if line := said.lastLine(); line != "[31mred" {
		t.Errorf("its last line is %q", line)
	}
}
