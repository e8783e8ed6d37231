package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/sys"
)

// linear is the memory behind an instance. Free may be called twice.
type linear interface {
	experimental.LinearMemory
}

// resettable is a linear memory that can go back to a snapshot.
type resettable interface {
	linear
	// snapshot copies the memory as it is.
	snapshot() (image, error)
	// adopt makes the memory, of the same size, show the image.
	adopt(image) error
	// reset brings the adopted image back. It reports false when the memory must be thrown away.
	reset() bool
}

// image is a linear memory as it was when the snapshot was taken. It never changes.
type image interface {
	size() uint64
	close()
}

// snapshot is all that an instance needs to be as it was after _initialize.
type snapshot struct {
	image   image
	globals []uint64
}

// instance is one copy of a module. It serves one call at a time.
type instance struct {
	mod     api.Module
	mem     linear
	globals []api.MutableGlobal
	calls   map[string]api.Function // by name; those of an engine are added when they are needed
	program Program                 // nil without an engine
	limit   uint64                  // most bytes of memory

	request  []byte // of the call under way
	in       bytes.Reader
	out, log limitedWriter
	net      mount
	deadline time.Time       // ends sleep; zero between calls, or none
	done     <-chan struct{} // ends sleep too
}

// sleep is what the guest's sleeping does: it ends with the call's deadline or context at the latest.
func (i *instance) sleep(ns int64) {
	d := time.Duration(ns)
	if !i.deadline.IsZero() {
		d = min(d, time.Until(i.deadline))
	}
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-i.done:
	}
}

// instantiate makes an instance without running any of its code.
func (m *Module) instantiate(ctx context.Context, args ...string) (i *instance, err error) {
	mem, err := newMemory(m.memory)
	if err != nil {
		return nil, err
	}
	i = &instance{mem: mem, limit: m.memory}
	i.out.limit, i.log.limit = m.opts.Response, m.opts.Log
	defer func() {
		// The runtime panics when there is no memory for what a module starts with.
		if r := recover(); r != nil {
			err = fmt.Errorf("instantiate the module: %v", r)
		}
		if err != nil {
			mem.Free()
			i = nil
		}
	}()
	config := wazero.NewModuleConfig().
		WithName("").
		WithStartFunctions().
		WithArgs(append([]string{m.opts.Name}, args...)...).
		WithStdin(&i.in).WithStdout(&i.out).WithStderr(&i.log).
		WithRandSource(rand.Reader).
		WithSysWalltime().
		WithSysNanotime(). // of the process, not of the instance: it must not go back behind the snapshot's
		WithNanosleep(i.sleep).
		WithOsyield(runtime.Gosched).
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(&i.net, "/net"))
	ctx = experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		return mem
	}))
	if i.mod, err = m.runtime.InstantiateModule(ctx, m.compiled, config); err != nil {
		return nil, fmt.Errorf("instantiate the module: %w", err)
	}
	i.calls = map[string]api.Function{}
	for _, name := range []string{"_start", "_initialize", "check", "notify"} {
		if f := i.mod.ExportedFunction(name); f != nil {
			i.calls[name] = f
		}
	}
	for _, name := range m.globals {
		g, ok := i.mod.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			i.close(ctx)
			return nil, fmt.Errorf("instantiate the module: global %q is not mutable", name)
		}
		i.globals = append(i.globals, g)
	}
	return i, nil
}

// start makes an instance, runs its _initialize, if it has one, and has the engine load its script.
func (m *Module) start(ctx context.Context) (*instance, error) {
	i, err := m.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	i.deadline, _ = ctx.Deadline()
	if i.calls["_initialize"] != nil {
		if err := i.run(ctx, "_initialize"); err != nil {
			text := lines(i.log.buf.Bytes())
			i.close(ctx)
			if len(text) > 0 {
				return nil, fmt.Errorf("_initialize: %w; it said: %s", err, text[len(text)-1].Text)
			}
			return nil, fmt.Errorf("_initialize: %w", err)
		}
	}
	if m.opts.Engine != nil {
		if i.program, err = m.opts.Engine.Start(ctx, &Guest{i}); err != nil {
			i.close(ctx)
			return nil, fmt.Errorf("load the script: %w", err)
		}
	}
	i.out.take()
	i.deadline = time.Time{}
	return i, nil
}

// take makes a snapshot of the instance, on which the instance itself then stands.
func (i *instance) take() (*snapshot, error) {
	mem, ok := i.mem.(resettable)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	img, err := mem.snapshot()
	if err != nil {
		return nil, err
	}
	s := &snapshot{image: img}
	for _, g := range i.globals {
		s.globals = append(s.globals, g.Get())
	}
	if err := mem.adopt(img); err != nil {
		img.close()
		return nil, err
	}
	return s, nil
}

// clone makes an instance that is as the one was of which the snapshot was taken. It runs none of the guest's code.
func (m *Module) clone(ctx context.Context) (*instance, error) {
	i, err := m.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	mem, ok := i.mem.(resettable)
	if !ok {
		err = errors.ErrUnsupported
	}
	if more := uint32(m.snapshot.image.size()/pageSize) - i.mod.Memory().Size()/pageSize; err == nil && more > 0 {
		if _, ok := i.mod.Memory().Grow(more); !ok {
			err = errors.New("there is no memory for it")
		}
	}
	if err == nil {
		err = mem.adopt(m.snapshot.image)
	}
	if err != nil {
		i.close(ctx)
		return nil, fmt.Errorf("clone an instance: %w", err)
	}
	i.restore(m.snapshot)
	i.program = m.program
	return i, nil
}

func (i *instance) restore(s *snapshot) {
	for n, g := range i.globals {
		g.Set(s.globals[n])
	}
}

// reset makes the instance as it was when the snapshot was taken. It reports false when that cannot be done.
func (i *instance) reset(s *snapshot) bool {
	mem, ok := i.mem.(resettable)
	if !ok || i.mod.IsClosed() || !mem.reset() {
		return false
	}
	i.restore(s)
	return true
}

// serve makes one call. The instance may be used again only when clean is true, and only after a reset.
func (i *instance) serve(ctx context.Context, entry string, c Call) (r Reply, clean bool, err error) {
	i.request = c.Request
	i.in.Reset(c.Request)
	i.deadline = c.Deadline
	i.net.begin(c.FS)
	if i.program == nil {
		err = i.run(ctx, entry)
	} else {
		err = i.interpret(ctx, c.Name)
	}
	left := i.net.end()
	i.deadline = time.Time{}
	i.in.Reset(nil)
	i.request = nil
	r.Response, r.Cut = i.out.take()
	var text []byte
	text, r.LogCut = i.log.take()
	r.Log = lines(text)
	_, script := errors.AsType[*ScriptError](err)
	return r, (err == nil || script) && !left && !i.mod.IsClosed(), err
}

// run calls an exported function. proc_exit with status 0 is no error.
func (i *instance) run(ctx context.Context, entry string) error {
	i.done = ctx.Done()
	err := i.calls[entry].CallWithStack(ctx, nil)
	i.done = nil
	return fault(err)
}

// fault makes an error of this package of what the runtime says about a call.
func fault(err error) error {
	if err == nil {
		return nil
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() == 0 {
			return nil
		}
		return &ExitError{Code: exit.ExitCode()}
	}
	reason, stack, _ := strings.Cut(err.Error(), "\n")
	return &TrapError{Reason: strings.TrimPrefix(reason, "wasm error: "), Stack: stack}
}

// close gives back all that the instance has.
func (i *instance) close(ctx context.Context) {
	// What a module's closing can report is that a file did not close; end has closed them all.
	_ = i.mod.Close(ctx)
	i.mem.Free()
}
