package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/confine"
	"github.com/tocsinhq/tocsin/host/process"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm/runner"
)

// Times of a runner.
const (
	startTimeout = 10 * time.Second       // from the start of the process until it has loaded the module
	killAfter    = 250 * time.Millisecond // behind the deadline of a call
	endTimeout   = 2 * time.Second        // for an orderly end
)

// Why a runner ends.
var (
	errStopping = errors.New("the server stops")
	errRetired  = errors.New("the plugin was changed, disabled or removed")
	errDeadline = errors.New("exceeded its deadline and was stopped")
	errMemory   = errors.New("used more memory than its limit and was stopped")
)

// child is one runner of a plugin: its process, its side of the broker, and the calls under way in it.
type child struct {
	p     *plugin
	apart string // the monitor whose calls alone it takes; empty: everyone's
	build string // digest of the build it runs

	loaded  chan struct{} // closed when the runner told that it has loaded the module
	started chan struct{} // closed when it is ready, or will never be
	over    chan struct{} // closed when its process has ended, or never was
	fault   error         // why it never was ready; set before started is closed
	proc    *process.Process
	reaches bool  // it was granted something on the network
	limit   int64 // resident bytes over which it is killed

	mu      sync.Mutex
	calls   map[uint64]*call
	cause   error // why it was ended; nil while nobody ended it
	guilty  *call // the call that made it be ended, when it was one
	retired bool
	sandbox runner.Hello
	used    time.Time // when its last call ended
}

// call is one call under way in a runner.
type call struct {
	monitor  string // whose it is, for blame
	name     string // of that monitor, for people
	fill     reach.Call
	deadline time.Time
	mask     *mask
}

// start begins to start a runner and returns at once.
func (p *plugin) start(apart string) *child {
	c := &child{
		p: p, apart: apart, build: p.record.Active.Digest, loaded: make(chan struct{}), started: make(chan struct{}), over: make(chan struct{}),
		calls: map[uint64]*call{}, used: time.Now(),
	}
	setup, manifest, grant := p.setup(), p.manifest, p.grant
	if apart != "" {
		setup.Calls = 1
	}
	c.reaches = len(grant.Permissions) > 0
	c.limit = setup.Memory*int64(setup.Calls) + memoryOfRunner
	p.tally.starts.Add(1)
	p.host.work.Go(func() {
		err := c.launch(p.host.ctx, setup, manifest, grant)
		c.fault = err
		close(c.started)
		if err != nil {
			close(c.over)
			p.failedStart(c, err)
			return
		}
		p.watched(c)
		<-c.proc.Done()
		c.finish()
		close(c.over)
		p.ended(c)
	})
	return c
}

// memoryOfRunner is what a runner may use besides the memory of its instances.
const memoryOfRunner = 64 << 20

// launch starts the process and returns when it is ready.
func (c *child) launch(ctx context.Context, setup runner.Setup, m Manifest, grant reach.Grant) error {
	h := c.p.host
	if _, err := h.read(m.Name, c.build); err != nil {
		return err
	}
	argument, err := json.Marshal(setup)
	if err != nil {
		return fmt.Errorf("write the setup of a runner: %w", err)
	}
	conn, theirs, err := broker.Pair()
	if err != nil {
		return fmt.Errorf("make the sockets of the broker: %w", err)
	}
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	server := broker.NewServer(broker.ServerOptions{
		Policy: h.opts.Policy, Lookup: h.opts.Lookup, Ping: h.opts.Ping, Log: h.log,
		Calls: func(id uint64) (broker.Call, bool) { return c.brokered(id, grant) },
		Told:  c.told,
	})
	served := make(chan struct{})
	h.work.Go(func() {
		defer close(served)
		// It ends with the runner. One that speaks nonsense gets no more answers.
		if err := server.Serve(h.ctx, conn); errors.Is(err, broker.ErrProtocol) {
			h.log.Error("the runner of a plugin asked for what no runner asks for", "plugin", m.Name, "error", err)
		}
	})
	c.proc, err = process.Start(ctx, process.Options{
		Spawner: h.spawner, Command: append(append([]string{}, h.program...), runner.RunWord, string(argument)),
		Env: childEnv(), Files: []*os.File{theirs, h.life}, SocketDir: h.sockets, StartTimeout: startTimeout, Log: h.log,
		Configure: func(cmd *exec.Cmd) { h.spaces.Prepare(cmd.SysProcAttr) },
	})
	if err == nil {
		err = c.accept(ctx)
		if err != nil {
			c.proc.Kill()
			<-c.proc.Done()
		}
		return err
	}
	closeErr := conn.Close()
	<-served
	c.mu.Lock()
	failed := c.sandbox.Failed
	c.mu.Unlock()
	switch {
	case failed != "":
		err = errors.New(failed)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was not ready within %s", startTimeout)
	}
	return errors.Join(err, closeErr)
}

// childEnv is the whole environment of a child: nothing of the server's but the place of the system's certificates.
func childEnv() []string {
	var env []string
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// accept waits until the runner has told that it is ready, and holds it to the sandbox it reported.
func (c *child) accept(ctx context.Context) error {
	select {
	case <-c.loaded:
	case <-c.proc.Done():
		return c.proc.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	missing := c.sandboxMissing()
	if c.reaches && !slices.Contains(missing, confine.LayerSeccomp) && !c.holds(confine.LayerSeccomp) {
		// A socket that is handed over lives in the server's network: only this layer keeps it from being connected elsewhere.
		missing = append(missing, confine.LayerSeccomp)
	}
	if len(missing) == 0 {
		return nil
	}
	if !c.p.host.opts.AllowDegraded {
		return sandboxError(missing)
	}
	c.p.host.log.Warn("a plugin runs in a sandbox with holes, as plugins.allow_degraded_sandbox says", "plugin", c.p.name, "missing", strings.Join(missing, ", "))
	return nil
}

// sandboxError says what is missing and what can be done.
func sandboxError(missing []string) error {
	return &brokenError{fmt.Sprintf("the sandbox is incomplete on this machine, missing: %s; run it on a system that has them, or set plugins.allow_degraded_sandbox", strings.Join(missing, ", "))}
}

// brokenError is a fault that stays until somebody does something about it.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// told takes a note of the runner.
func (c *child) told(note json.RawMessage) {
	var hello runner.Hello
	if err := json.Unmarshal(note, &hello); err != nil {
		c.p.host.log.Warn("the runner of a plugin sent what is no note", "plugin", c.p.name, "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(hello.Sandbox.Layers) == 0 {
		hello.Sandbox = c.sandbox.Sandbox
	}
	ready := hello.Ready && !c.sandbox.Ready
	c.sandbox = hello
	if ready {
		close(c.loaded)
	}
}

// brokered gives the broker a call under way, with what it may reach.
func (c *child) brokered(id uint64, grant reach.Grant) (broker.Call, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call, ok := c.calls[id]
	if !ok {
		return broker.Call{}, false
	}
	p := c.p
	return broker.Call{Grant: grant, Fill: call.fill, Deadline: call.deadline, Trace: func(t broker.Trace) {
		if t.Err != nil && t.Err.Kind == broker.Denied {
			p.tally.denied.Add(1)
		}
		if p.host.opts.Trace != nil {
			p.host.opts.Trace(p.name, t)
		}
	}}, true
}

// running returns the process while there is one.
func (c *child) running() *process.Process {
	select {
	case <-c.started:
	default:
		return nil
	}
	select {
	case <-c.over:
		return nil
	default:
		return c.proc // nil when it never was ready
	}
}

// enter notes a call under way. It reports false when the runner takes none any more.
func (c *child) enter(id uint64, k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil || c.retired {
		return false
	}
	c.calls[id] = k
	return true
}

// leave ends a call. The last one of a retired runner ends it.
func (c *child) leave(id uint64) {
	c.mu.Lock()
	delete(c.calls, id)
	c.used = time.Now()
	end := c.retired && len(c.calls) == 0 && c.cause == nil
	c.mu.Unlock()
	if end {
		c.end(errRetired)
	}
}

// retire takes no more calls, and ends the runner when the last one has ended.
func (c *child) retire() {
	c.mu.Lock()
	c.retired = true
	idle := len(c.calls) == 0 && c.cause == nil
	c.mu.Unlock()
	if idle {
		c.end(errRetired)
	}
}

// end stops the runner at once. The first cause counts.
func (c *child) end(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.mu.Unlock()
	c.p.host.work.Go(func() {
		<-c.started // a start under way ends with the host, or with its own time limit
		if c.proc != nil {
			c.proc.Kill()
		}
	})
}

// kill ends the runner because of a call, or because of all of them when k is nil.
func (c *child) kill(cause error, k *call) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = cause
	if k == nil && len(c.calls) == 1 {
		for _, only := range c.calls {
			k = only
		}
	}
	c.guilty = k
	c.mu.Unlock()
	c.proc.Kill()
	c.p.tally.kills.Add(1)
	c.p.killed(c, cause, k)
}

// finish settles why the process ended when nobody ended it: it died of what its guest did.
func (c *child) finish() {
	c.mu.Lock()
	unasked := c.cause == nil
	var only *call
	if unasked {
		c.cause = c.proc.Err()
		if c.cause == nil {
			c.cause = errors.New("its process ended by itself")
		}
		if len(c.calls) == 1 {
			for _, k := range c.calls {
				only = k
			}
		}
		c.guilty = only
	}
	cause := c.cause
	c.mu.Unlock()
	if unasked {
		c.p.host.log.Log(context.Background(), slog.LevelWarn, "the runner of a plugin died", "plugin", c.p.name, "error", cause)
		c.p.killed(c, cause, only)
	}
}

// holds reports whether the runner told that a layer of its sandbox holds.
func (c *child) holds(layer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sandbox.Sandbox.Holds(layer)
}

// layers are those of the sandbox as the runner reported them.
func (c *child) layers() []monitor.SandboxLayer {
	c.mu.Lock()
	defer c.mu.Unlock()
	layers := make([]monitor.SandboxLayer, len(c.sandbox.Sandbox.Layers))
	for i, l := range c.sandbox.Sandbox.Layers {
		layers[i] = monitor.SandboxLayer{Name: l.Name, Holds: l.Holds, Detail: l.Detail}
	}
	return layers
}
