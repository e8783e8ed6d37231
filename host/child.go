package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/confine"
	"github.com/tocsinhq/tocsin/host/process"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm/runner"
	"github.com/tocsinhq/tocsin/sdk"
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
	errRogue    = errors.New("did what no runner does and was stopped")
)

// child is one runner of a plugin: its process, its side of the broker, and the calls under way in it.
type child struct {
	p      *plugin
	apart  string // the monitor whose calls alone it takes; empty: everyone's
	build  string // digest of the build it runs
	cancel func() // ends a start under way

	loaded  chan struct{} // closed when the runner told that it has loaded the module
	started chan struct{} // closed when it is ready, or will never be
	over    chan struct{} // closed when its process has ended, or never was, and the plugin knows
	fault   error         // why it never was ready; set before started is closed
	proc    *process.Process
	reaches bool         // it was granted something on the network
	limit   atomic.Int64 // resident bytes over which it is killed

	mu      sync.Mutex
	calls   map[uint64]*call
	grant   reach.Grant // what its calls may reach; it only ever becomes less
	cause   error       // why it was ended; nil while nobody ended it
	guilty  *call       // the call that made it be ended, when it was one
	retired bool
	sandbox confine.Report // as it told before a stranger's code ran in it
	notes   int            // that it told
	settled bool           // it told how its start went, and has nothing more to tell
	failed  string         // what it told that failed
	used    time.Time      // when its last call ended
}

// call is one call under way in a runner.
type call struct {
	monitor  string // whose it is, for blame
	name     string // of that monitor, for people
	fill     reach.Call
	deadline time.Time
	mask     *mask
}

// start begins to start a runner and returns at once. The caller holds mu. It gives nil when the host is closed.
func (p *plugin) start(apart string) *child {
	ctx, cancel := context.WithCancel(p.host.ctx)
	c := &child{
		p: p, apart: apart, build: p.record.Active.Digest, cancel: cancel, grant: p.grant,
		loaded: make(chan struct{}), started: make(chan struct{}), over: make(chan struct{}),
		calls: map[uint64]*call{}, used: time.Now(),
	}
	setup, manifest := p.setup(), p.manifest
	if apart != "" {
		setup.Calls = 1
	}
	c.reaches = len(c.grant.Permissions) > 0
	c.limit.Store(setup.Memory*int64(setup.Calls) + memoryOfRunner)
	if !p.host.raise(c, func() {
		defer cancel()
		c.live(ctx, setup, manifest)
	}) {
		cancel()
		return nil
	}
	p.tally.starts.Add(1)
	return c
}

// live is the life of a runner, from its start until nothing of it is left.
func (c *child) live(ctx context.Context, setup runner.Setup, m Manifest) {
	c.fault = c.launch(ctx, setup, m)
	if c.fault != nil {
		say := c.p.failedStart(c, c.fault)
		close(c.over)
		close(c.started)
		say()
		return
	}
	c.p.watched(c)
	close(c.started)
	if c.ending() != nil { // meanwhile, and whoever ended it saw no process yet
		c.proc.Kill()
	}
	<-c.proc.Done()
	c.finish()
	c.p.ended(c)
	close(c.over)
}

// memoryOfRunner is what a runner may use besides the memory of its instances.
const memoryOfRunner = 64 << 20

// launch starts the process and returns when it is ready.
func (c *child) launch(ctx context.Context, setup runner.Setup, m Manifest) error {
	h := c.p.host
	if _, err := h.read(m.Name, c.build); err != nil {
		return err
	}
	// It is compiled already, unless this program or the machine is another one than when it was installed, or the folder was
	// not part of a backup. This does not count as a part of the start.
	if err := h.compiled(ctx, m, c.build); err != nil {
		return fmt.Errorf("compile it again: %w", err)
	}
	cache, err := h.cacheOf(setup, c.build)
	if err != nil {
		return err
	}
	setup.Cache = cache
	argument, err := json.Marshal(setup)
	if err != nil {
		return fmt.Errorf("write the setup of a runner: %w", err)
	}
	conn, theirs, err := broker.Pair()
	if err != nil {
		return fmt.Errorf("make the sockets of the broker: %w", err)
	}
	defer theirs.Close() // again, after an error before the process was started
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	server := broker.NewServer(broker.ServerOptions{
		Policy: h.opts.Policy, Lookup: h.opts.Lookup, Ping: h.opts.Ping, Log: h.log.With("plugin", m.Name),
		Calls: c.brokered,
		Told:  c.told,
	})
	served := make(chan struct{})
	if !h.background(func() {
		err := server.Serve(h.ctx, conn)
		close(served)
		c.unplugged(err)
	}) {
		return errors.Join(errStopping, conn.Close())
	}
	c.proc, err = process.Start(ctx, process.Options{
		Spawner: h.spawner, Command: append(append([]string{}, h.program...), runner.RunWord, string(argument)),
		Env: childEnv(), Files: []*os.File{theirs, h.life}, SocketDir: h.sockets, StartTimeout: startTimeout, Log: h.log,
		Configure: func(cmd *exec.Cmd) { h.spaces.Prepare(cmd.SysProcAttr) },
	})
	theirs.Close() //nolint:errcheck // the process has its own
	if err == nil {
		if err = c.accept(ctx); err == nil {
			return nil
		}
		c.proc.Kill()
		<-c.proc.Done()
	}
	// What the process told last is still to be read. Then its end is read, since nobody else holds the other side.
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-served:
	case <-timer.C:
	}
	closeErr := conn.Close()
	<-served
	if errors.Is(closeErr, net.ErrClosed) {
		closeErr = nil
	}
	return errors.Join(c.whyNot(ctx, err), closeErr)
}

// whyNot says why a start failed: what the runner told, if it did.
func (c *child) whyNot(ctx context.Context, err error) error {
	missing := c.missing()
	c.mu.Lock()
	failed, cause := c.failed, c.cause
	c.mu.Unlock()
	var broken *brokenError
	switch {
	case errors.Is(cause, errRogue):
		return cause
	case failed != "" && len(missing) > 0 && !c.p.host.opts.AllowDegraded:
		return sandboxError(missing)
	case failed != "":
		return errors.New(failed)
	case errors.As(err, &broken):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("it was not ready within %s", startTimeout)
	}
	return err
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
	missing := c.missing()
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

// told takes a note of the runner. A start has two: the sandbox, and whether the code is ready. Only the first one is believed
// about the sandbox: no stranger's code had run when it was written.
func (c *child) told(note json.RawMessage) {
	var hello runner.Hello
	err := json.Unmarshal(note, &hello)
	c.mu.Lock()
	c.notes++
	last := hello.Ready || hello.Failed != ""
	if err == nil && (c.settled || c.notes > 1 && !last) {
		err = errors.New("one note more than there are")
	}
	if err == nil {
		if c.notes == 1 {
			c.sandbox = hello.Sandbox
		}
		c.settled, c.failed = last, sdk.CleanText(hello.Failed, sdk.MaxMessage)
		if hello.Ready {
			close(c.loaded)
		}
	}
	c.mu.Unlock()
	if err != nil {
		c.rogue(fmt.Errorf("a note that cannot be taken: %w", err))
	}
}

// missing are the layers of the sandbox that do not hold and must.
func (c *child) missing() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := c.sandbox.Missing()
	if c.reaches && !slices.Contains(missing, confine.LayerSeccomp) && !c.sandbox.Holds(confine.LayerSeccomp) && c.sandbox.System == "linux" {
		// A socket that is handed over lives in the server's network: only this layer keeps it from being connected elsewhere.
		missing = append(missing, confine.LayerSeccomp)
	}
	return missing
}

// brokered gives the broker a call under way, with what it may reach.
func (c *child) brokered(id uint64) (broker.Call, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call, ok := c.calls[id]
	if !ok {
		return broker.Call{}, false
	}
	p := c.p
	return broker.Call{Grant: c.grant, Fill: call.fill, Deadline: call.deadline, Trace: func(t broker.Trace) {
		if t.Err != nil && t.Err.Kind == broker.Denied {
			p.tally.denied.Add(1)
		}
		if p.host.opts.Trace != nil {
			p.host.opts.Trace(p.name, t)
		}
	}}, true
}

// narrow leaves the calls under way no more than is granted now.
func (c *child) narrow(now reach.Grant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := reach.Grant{Digest: c.grant.Digest, AllowPrivate: c.grant.AllowPrivate && now.AllowPrivate}
	for _, p := range c.grant.Permissions {
		if len(now.Missing([]reach.Permission{p})) == 0 {
			left.Permissions = append(left.Permissions, p)
		}
	}
	c.grant = left
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

// end stops the runner at once, and a start of it that is under way. The first cause counts.
func (c *child) end(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.mu.Unlock()
	c.cancel()
	select {
	case <-c.started:
		if c.fault == nil {
			c.proc.Kill()
		}
	default: // live looks at the cause once there is a process
	}
}

// ending is why the runner was ended, or nil.
func (c *child) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// kill ends the runner, which was ready, because of a call, or because of all of them when k is nil. It does nothing when the
// call has ended.
func (c *child) kill(cause error, k *call) {
	c.mu.Lock()
	if c.cause != nil || k != nil && !c.busyWith(k) {
		c.mu.Unlock()
		return
	}
	c.cause = cause
	if k == nil {
		k = c.only()
	}
	c.guilty = k
	c.mu.Unlock()
	// Whoever hears of its end finds it blamed and replaced. What is written about it comes later: a log may stand still.
	say := c.p.killed(c, cause, k)
	c.p.tally.kills.Add(1)
	c.proc.Kill()
	say()
}

// busyWith reports whether a call is under way. The caller holds mu.
func (c *child) busyWith(k *call) bool {
	for _, other := range c.calls {
		if other == k {
			return true
		}
	}
	return false
}

// only is the call under way when there is no other. The caller holds mu.
func (c *child) only() *call {
	if len(c.calls) == 1 {
		for _, k := range c.calls {
			return k
		}
	}
	return nil
}

// finish settles why the process ended when nobody ended it: it died of what its guest did.
func (c *child) finish() {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	cause := fmt.Errorf("crashed: %w", c.proc.Err())
	for _, k := range c.calls { // what it wrote last may hold what any of them was given
		cause = masked{cause, k.mask}
	}
	only := c.only()
	c.cause, c.guilty = cause, only
	c.mu.Unlock()
	say := c.p.killed(c, cause, only)
	c.p.host.log.Warn("the runner of a plugin died", "plugin", c.p.name, "error", cause)
	say()
}

// rogue ends a runner that does what none does: something else than the runner is at work in it.
func (c *child) rogue(what error) {
	if c.ending() != nil {
		return
	}
	c.p.host.log.Error("the runner of a plugin did what no runner does", "plugin", c.p.name, "error", what)
	select {
	case <-c.started:
		c.kill(errRogue, nil)
	default:
		c.end(errRogue)
	}
}

// unplugged sees to it that a runner does not go on without the broker.
func (c *child) unplugged(err error) {
	if errors.Is(err, broker.ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
		c.rogue(err)
		return
	}
	// It ends mostly because the process does, which is known in a moment.
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-c.over:
	case <-c.p.host.ctx.Done():
	case <-timer.C:
		c.rogue(errors.Join(errors.New("it closed its connection to the server"), err))
	}
}

// weigh ends the runner when it uses more memory than it may.
func (c *child) weigh() {
	if proc := c.running(); proc != nil && int64(proc.Memory()) > c.limit.Load() {
		c.kill(errMemory, nil)
	}
}

// layers are those of the sandbox as the runner reported them.
func (c *child) layers() []monitor.SandboxLayer {
	c.mu.Lock()
	defer c.mu.Unlock()
	layers := make([]monitor.SandboxLayer, len(c.sandbox.Layers))
	for i, l := range c.sandbox.Layers {
		layers[i] = monitor.SandboxLayer{Name: l.Name, Holds: l.Holds, Detail: l.Detail}
	}
	return layers
}
