// Package wasm runs the Wasm modules of plugins: programs for WASI preview 1 that get a request on standard input and
// give a response on standard output. It refuses modules that are outside the static limits, runs the others, and
// starts every call from the same clean state.
//
// It is the core of the runner, a process of its own that the host kills when a call outlives its deadline: nothing in
// this package stops a guest that loops.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	esys "github.com/tetratelabs/wazero/experimental/sys"
)

// ErrClosed is the error of a call on a module that was closed.
var ErrClosed = errors.New("the module is closed")

// ErrNoCall is the error of a call that the module does not have.
var ErrNoCall = errors.New("the module has no such call")

// ExitError is the error of a guest that ended itself with a status other than 0.
type ExitError struct{ Code uint32 }

// Error implements error.
func (e *ExitError) Error() string { return fmt.Sprintf("the plugin exited with status %d", e.Code) }

// TrapError is the error of a guest that did what no guest may: it divided by zero, ran out of stack, reached beyond
// its memory and the like.
type TrapError struct {
	// Reason is one line.
	Reason string
	// Stack is the guest's stack, many lines, with the names of functions where the module has them.
	Stack string
}

// Error implements error.
func (e *TrapError) Error() string { return "the plugin crashed: " + e.Reason }

// Defaults of Options.
const (
	DefaultResponse = 1 << 20
	DefaultLog      = 64 << 10
)

// Options says how a module is run. The zero value runs one call at a time.
type Options struct {
	Limits
	// Name is the guest's first argument. Empty is "plugin".
	Name string
	// Instances is how many calls may run at the same time; others wait. Zero is 1.
	Instances int
	// Response and Log are how many bytes of standard output and error are kept per call; the rest is cut. Zero is
	// DefaultResponse and DefaultLog.
	Response, Log int
	// Cache is a directory with compiled code, which a directory that cannot be written to serves as well, once Compile
	// has filled it. Empty keeps it in memory only. Whoever can write to it can run native code in this process.
	Cache string
	// Shared uses an instance again as a call left it, so that every call may see what earlier ones left in its memory,
	// those of other monitors included. An instance that trapped, exited or left a file open is still thrown away. It
	// changes nothing for a command, which gets a fresh instance in any case.
	Shared bool
	// Engine makes the module, an interpreter, answer calls. Nil is a module that answers them itself. It sets Script.
	Engine Engine
	// Loaded is called by New when the code is loaded and none of the module's has run yet; from then on this package opens no
	// file and makes no memory executable. Its error is New's. Nil is fine.
	Loaded func() error
}

// Call is one call of a plugin.
type Call struct {
	// Name is "check" or "notify".
	Name string
	// Request is what the guest reads on standard input. It must not change until Call returns.
	Request []byte
	// Deadline is when the guest's sleep ends at the latest. Zero sets no limit. It does not stop the guest.
	Deadline time.Time
	// FS is what the guest finds in /net, during this call. Nil refuses every open. Files that the guest leaves open
	// are closed when the call ends.
	FS esys.FS
}

// Reply is what came of a call. It is filled in as far as the guest got, even when there is an error.
type Reply struct {
	// Response is what the guest wrote to standard output. It belongs to the caller.
	Response []byte
	// Cut says that the guest wrote more than was kept of it.
	Cut bool
	// Log is what the guest wrote to standard error.
	Log []LogLine
	// LogCut says that the guest logged more than was kept of it.
	LogCut bool
}

// Module is a compiled module with its instances. It may be used by many goroutines at once.
type Module struct {
	opts     Options
	info     Info
	globals  []string // names of the exports of mutable globals
	memory   uint64   // most bytes of linear memory
	cache    wazero.CompilationCache
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	snapshot *snapshot // nil: every call gets a fresh instance, unless they are shared
	program  Program   // that copies of the snapshot have; nil without an engine
	startLog []LogLine

	slots  chan struct{} // one for each call under way
	ended  chan struct{} // closed by Close
	mu     sync.Mutex
	closed bool
	idle   []*instance
	busy   int
	adding bool // a clone is being made in the background
	work   sync.WaitGroup
	done   chan struct{} // closed when everything has been given back; nil before Close
}

// New inspects, compiles and starts a module. A reactor's _initialize runs now, on the one instance that all others are
// copied from, and the engine loads its script. Refusals are *RefusedError, faults of _initialize and of a script are
// *ExitError, *TrapError and *ScriptError; the error of code that is not valid is the compiler's. New does not heed the end of ctx while it compiles, and cannot stop an _initialize
// that loops: the caller must be ready to end the process.
func New(ctx context.Context, module []byte, opts Options) (*Module, error) {
	opts = opts.withDefaults()
	l, info, err := read(module, opts)
	if err != nil {
		return nil, err
	}
	m := &Module{opts: opts, info: info, ended: make(chan struct{})}
	m.slots = make(chan struct{}, m.opts.Instances)
	limit := opts.pages()
	if declared := l.memories[0]; declared.capped {
		limit = min(limit, declared.max)
	}
	m.memory = uint64(limit) * pageSize
	if err := m.load(ctx, l); err != nil {
		m.release(ctx)
		return nil, err
	}
	return m, nil
}

// read holds a module against the limits.
func read(module []byte, opts Options) (*layout, Info, error) {
	l, err := parse(module)
	if err != nil {
		return nil, Info{}, err
	}
	info, err := l.info(opts.Limits)
	return l, info, err
}

func (o Options) withDefaults() Options {
	o.Script = o.Script || o.Engine != nil
	if o.Name == "" {
		o.Name = "plugin"
	}
	if o.Response <= 0 {
		o.Response = DefaultResponse
	}
	if o.Log <= 0 {
		o.Log = DefaultLog
	}
	o.Instances = max(o.Instances, 1)
	return o
}

func (m *Module) load(ctx context.Context, l *layout) (err error) {
	if err := m.compile(ctx, l); err != nil {
		return err
	}
	if err := instantiateWASI(ctx, m.runtime); err != nil {
		return err
	}
	if m.opts.Engine != nil {
		env := m.runtime.NewHostModuleBuilder("env")
		m.opts.Engine.Imports(env)
		if _, err := env.Instantiate(ctx); err != nil {
			return fmt.Errorf("instantiate the functions of the script engine: %w", err)
		}
	}
	if m.opts.Loaded != nil {
		if err := m.opts.Loaded(); err != nil {
			return err
		}
	}
	if m.info.Command {
		return m.tryInstantiate(ctx)
	}
	i, err := m.start(ctx)
	if err != nil {
		return err
	}
	text, _ := i.log.take()
	m.startLog = lines(text)
	if i.program != nil {
		m.info.Calls = slices.Sorted(slices.Values(i.program.Calls()))
	}
	if len(m.info.Fresh) == 0 {
		s, err := i.take()
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			i.close(ctx)
			return err
		}
		m.snapshot, m.program = s, i.program
	}
	if m.snapshot == nil && !m.opts.Shared {
		i.close(ctx)
		return nil
	}
	m.idle = append(m.idle, i)
	return nil
}

// tryInstantiate shows now what would fail in every call, such as an import that WASI does not have.
func (m *Module) tryInstantiate(ctx context.Context) error {
	i, err := m.instantiate(ctx)
	if err != nil {
		return err
	}
	i.close(ctx)
	return nil
}

// Info gives what Inspect found. The calls of a module with an engine are those of its script.
func (m *Module) Info() Info {
	i := m.info
	i.Calls, i.Fresh = slices.Clone(i.Calls), slices.Clone(i.Fresh)
	return i
}

// StartLog gives what _initialize logged.
func (m *Module) StartLog() []LogLine { return slices.Clone(m.startLog) }

// Snapshot reports whether instances are copies of a snapshot; otherwise each is made and started by itself.
func (m *Module) Snapshot() bool { return m.snapshot != nil }

// Call makes one call and returns when the guest has ended it. It cannot stop the guest: neither the deadline nor the
// end of ctx does anything to code that loops, and while it loops the collector of this process may stand still. The
// caller's supervisor must end the process when Call outlives its deadline.
//
// The context counts while the call waits for an instance and when the guest sleeps. Errors are *ExitError, *TrapError,
// *ScriptError, ErrNoCall, ErrClosed, and the context's while waiting.
func (m *Module) Call(ctx context.Context, c Call) (Reply, error) {
	entry := c.Name
	if m.info.Command {
		entry = "_start"
	}
	if c.Name != "check" && c.Name != "notify" || !m.info.Command && !slices.Contains(m.info.Calls, c.Name) {
		return Reply{}, fmt.Errorf("call %q: %w", c.Name, ErrNoCall)
	}
	select {
	case m.slots <- struct{}{}:
	case <-m.ended:
		return Reply{}, ErrClosed
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("wait for an instance: %w", ctx.Err())
	}
	defer func() { <-m.slots }()
	i, err := m.acquire(ctx, c.Name)
	if err != nil {
		return Reply{}, err
	}
	r, clean, err := i.serve(ctx, entry, c)
	m.giveBack(ctx, i, clean)
	return r, err
}

// acquire gives an instance that is as _initialize left it.
func (m *Module) acquire(ctx context.Context, call string) (i *instance, err error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	m.work.Add(1)
	m.busy++
	if n := len(m.idle); n > 0 {
		i, m.idle = m.idle[n-1], m.idle[:n-1]
	}
	m.ahead()
	m.mu.Unlock()

	switch {
	case i != nil:
		return i, nil
	case m.snapshot != nil:
		i, err = m.clone(ctx)
	case m.info.Command:
		i, err = m.instantiate(ctx, call)
	default:
		if i, err = m.start(ctx); err == nil {
			i.log.take() // it is in the start log, once
		}
	}
	if err != nil {
		m.mu.Lock()
		m.busy--
		m.mu.Unlock()
		m.work.Done()
		return nil, err
	}
	return i, nil
}

// giveBack cleans the instance for the next call, or throws it away.
func (m *Module) giveBack(ctx context.Context, i *instance, clean bool) {
	defer m.work.Done()
	var keep bool
	switch {
	case !clean || m.info.Command:
	case m.opts.Shared:
		keep = true
	case m.snapshot != nil:
		keep = i.reset(m.snapshot)
	}
	if !keep {
		i.close(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy--
	if keep {
		m.idle = append(m.idle, i)
	}
	m.ahead()
}

// ahead has a clone made in the background when none is idle and there may be one more. It runs no code of the guest,
// so it cannot hang. Its faults are found again by the next call, which has somebody to tell. The caller holds mu.
func (m *Module) ahead() {
	if m.snapshot == nil || m.closed || m.adding || len(m.idle) > 0 || m.busy >= m.opts.Instances {
		return
	}
	m.adding = true
	m.work.Go(func() {
		ctx := context.Background()
		i, err := m.clone(ctx)
		m.mu.Lock()
		m.adding = false
		if err == nil && !m.closed && m.busy+len(m.idle) < m.opts.Instances {
			m.idle, i = append(m.idle, i), nil
		}
		m.mu.Unlock()
		if i != nil {
			i.close(ctx)
		}
	})
}

// Close refuses new calls, waits for those under way and gives everything back. When ctx ends first it returns the
// context's error; what is left is then given back when the last call ends. Closing again waits again.
func (m *Module) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		m.done = make(chan struct{})
		close(m.ended)
		go func() {
			defer close(m.done)
			m.work.Wait()
			m.release(context.WithoutCancel(ctx))
		}()
	}
	m.mu.Unlock()
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for calls under way: %w", ctx.Err())
	}
}

// release gives everything back. Nothing may be under way.
func (m *Module) release(ctx context.Context) {
	for _, i := range m.idle {
		i.close(ctx)
	}
	m.idle = nil
	if m.snapshot != nil {
		m.snapshot.image.close()
	}
	// These report nothing but faults of closing what has been closed above.
	if m.runtime != nil {
		_ = m.runtime.Close(ctx)
	}
	if m.cache != nil {
		_ = m.cache.Close(ctx)
	}
}
