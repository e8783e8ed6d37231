package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/confine"
	"github.com/tocsinhq/tocsin/host/process"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/script"
)

// Records is where the host keeps which plugins are installed.
type Records interface {
	Plugins(ctx context.Context) ([]monitor.Plugin, error)
	PutPlugin(ctx context.Context, p monitor.Plugin) error
	DeletePlugin(ctx context.Context, name string) error
}

// Options is what New needs. Dir and Records must be set.
type Options struct {
	Dir     string // folder of its own for installed files and compiled code; made when missing
	Records Records
	// Program is the command that children are started with; nil is this executable. A hidden word and its argument follow it.
	Program []string
	Policy  netpolicy.Policy // which addresses may be connected to at all
	// Ping sends one ICMP echo; nil refuses those of plugins.
	Ping func(ctx context.Context, addr netip.Addr) (broker.Echo, error)
	// Lookup gives the addresses of a name; nil asks the system's resolver.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// CompileTimeout bounds the compilation of a module; 0 is a minute.
	CompileTimeout time.Duration
	AllowDegraded  bool // run plugins although a required layer of the sandbox is missing
	// Taken says why a plugin may not have a name, such as that a built-in kind has it; empty: it may. Nil: it may.
	Taken func(name string, provides []string) string
	// Changed is called when a plugin came, went, or can or cannot be used any more; one call after the other. It may read the
	// host, and must not change it before it returns. Nil is fine.
	Changed func(name string)
	// Trace hears of every connection that a plugin asks for, with the verdict. Nil is fine.
	Trace func(plugin string, t broker.Trace)
	Log   *slog.Logger // nil discards
}

// Host keeps the installed plugins and runs them. It is safe for concurrent use.
type Host struct {
	opts    Options
	log     *slog.Logger
	program []string
	engine  string // name of the compiled code of the script engine

	spawner  *process.Spawner
	spaces   confine.Namespaces // that children get
	sockets  string             // folder of the sockets of runners
	life     *os.File           // children hold it; it ends when the server does
	lifeHeld *os.File           // the end that keeps them alive
	calls    atomic.Uint64
	hear     func(slog.Level, string) // gets the lines of plugins too; nil is fine

	mu      sync.RWMutex
	plugins map[string]*plugin

	telling sync.Mutex // held while the owner is told of a change, so that what it read last is what is

	begin  sync.Mutex // held while something in the background begins; no other lock is taken under it
	closed bool
	alive  map[*child]struct{} // every runner that has not ended, whoever still knows of it
	work   sync.WaitGroup      // everything in the background
	stop   context.CancelFunc
	ctx    context.Context //nolint:containedctx // ends the background work of the host, which outlives any call
}

// pollEvery is the time between two looks at the memory and the idleness of runners.
const pollEvery = 250 * time.Millisecond

// New opens the folder and loads what is installed. A plugin that cannot be used is kept, and says why. Close gives all back.
func New(ctx context.Context, o Options) (*Host, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CompileTimeout <= 0 {
		o.CompileTimeout = compileTimeout
	}
	engine, err := wasm.CompiledName(script.Module())
	if err != nil {
		return nil, fmt.Errorf("read the script engine: %w", err)
	}
	h := &Host{opts: o, log: o.Log, program: o.Program, engine: engine, plugins: map[string]*plugin{}, alive: map[*child]struct{}{}}
	if h.program == nil {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program, which plugins are run with: %w", err)
		}
		h.program = []string{self}
	}
	if h.opts.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("find the folder of plugins: %w", err)
	}
	for _, dir := range []string{"installed", "compiled"} {
		if err := os.MkdirAll(filepath.Join(h.opts.Dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of plugins: %w", err)
		}
	}
	if h.sockets, err = socketDir(h.opts.Dir); err != nil {
		return nil, err
	}
	if h.life, h.lifeHeld, err = os.Pipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("make the pipe that tells runners of the server's end: %w", err), os.RemoveAll(h.sockets))
	}
	h.spaces = confine.Probe().ByThread()
	h.spawner = process.NewSpawnerIn(h.spaces.Enter)
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := h.load(ctx); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	h.background(h.watch)
	return h, nil
}

// maxSocketPath keeps paths of sockets below the 108 bytes of sockaddr_un.
const maxSocketPath = 60

// socketDir makes an empty private folder for sockets: below dir, unless that path is too long for a socket.
func socketDir(dir string) (string, error) {
	path := filepath.Join(dir, "run")
	if len(path) > maxSocketPath {
		path, err := os.MkdirTemp("", "tocsin-")
		if err != nil {
			return "", fmt.Errorf("make the folder of plugin sockets: %w", err)
		}
		return path, nil
	}
	if err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700)); err != nil {
		return "", fmt.Errorf("make the folder of plugin sockets: %w", err)
	}
	return path, nil
}

// load makes the plugins of the records. The error is about reading the records only.
func (h *Host) load(ctx context.Context) error {
	records, err := h.opts.Records.Plugins(ctx)
	if err != nil {
		return fmt.Errorf("read the installed plugins: %w", err)
	}
	for _, r := range records {
		p := h.newPlugin(r.Name)
		active, err := h.read(r.Name, r.Active.Digest)
		if err != nil {
			p.broken = err.Error()
			h.log.Error("a plugin cannot be used", "plugin", r.Name, "error", err)
		}
		var pending *Manifest
		if !r.Pending.IsZero() {
			if m, err := h.read(r.Name, r.Pending.Digest); err == nil {
				pending = &m
			} else {
				h.log.Error("the new version of a plugin cannot be used", "plugin", r.Name, "version", r.Pending.Version, "error", err)
			}
		}
		if active.Name == "" { // so that it can at least be named
			active.Name, active.Version = r.Name, r.Active.Version
		}
		p.adopt(r, active, pending)
		h.plugins[r.Name] = p
	}
	h.sweep(records)
	return nil
}

func (h *Host) newPlugin(name string) *plugin {
	return &plugin{
		host: h, name: name, private: map[string]*child{}, apart: map[string]*strikes{}, users: map[string]time.Time{},
		slots: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
}

// read reads the files of a build and holds them to the digest that was installed.
func (h *Host) read(name, digest string) (Manifest, error) {
	contents, err := ReadDir(h.buildDir(name, digest))
	if err != nil {
		return Manifest{}, fmt.Errorf("its files cannot be read, install it again: %w", err)
	}
	if got := contents.Digest(); got != digest {
		return Manifest{}, fmt.Errorf("its files were changed since it was installed (SHA-256 %s, want %s); install it again", got, digest)
	}
	m, err := contents.Manifest()
	if err != nil {
		return Manifest{}, fmt.Errorf("its manifest cannot be used: %w", err)
	}
	return m, nil
}

// sweep removes the files of builds that no record names: those of an install that was cut short.
func (h *Host) sweep(records []monitor.Plugin) {
	keep := map[string]bool{}
	for _, r := range records {
		keep[h.buildDir(r.Name, r.Active.Digest)] = true
		keep[h.buildDir(r.Name, r.Pending.Digest)] = true
		keep[filepath.Join(h.opts.Dir, "compiled", r.Active.Digest)] = true
		keep[filepath.Join(h.opts.Dir, "compiled", r.Pending.Digest)] = true
	}
	keep[filepath.Join(h.opts.Dir, "compiled", scriptEngine)] = true
	found, err := filepath.Glob(filepath.Join(h.opts.Dir, "installed", "*", "*"))
	compiled, err2 := filepath.Glob(filepath.Join(h.opts.Dir, "compiled", "*"))
	unfinished, err3 := filepath.Glob(filepath.Join(h.opts.Dir, "compiled", "*", ".new-*"))
	if err := errors.Join(err, err2, err3); err != nil { // only a bad pattern
		h.log.Warn("look for left-over files of plugins", "error", err)
	}
	for _, dir := range slices.Concat(found, compiled, unfinished) {
		if keep[dir] {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			h.log.Warn("remove left-over files of a plugin", "error", err)
		}
	}
}

// lookup finds a plugin by name.
func (h *Host) lookup(name string) (*plugin, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if p, ok := h.plugins[name]; ok && !p.reserved() {
		return p, nil
	}
	return nil, fmt.Errorf("plugin %q: %w", name, monitor.ErrNotFound)
}

// all lists the plugins by name.
func (h *Host) all() []*plugin {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := make([]*plugin, 0, len(h.plugins))
	for _, name := range slices.Sorted(maps.Keys(h.plugins)) {
		if p := h.plugins[name]; !p.reserved() {
			list = append(list, p)
		}
	}
	return list
}

// Plugins lists the installed plugins by name.
func (h *Host) Plugins() []monitor.InstalledPlugin {
	all := h.all()
	list := make([]monitor.InstalledPlugin, len(all))
	for i, p := range all {
		list[i] = p.view()
	}
	return list
}

// Plugin returns one installed plugin; the error wraps monitor.ErrNotFound.
func (h *Host) Plugin(name string) (monitor.InstalledPlugin, error) {
	p, err := h.lookup(name)
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	return p.view(), nil
}

// watch looks after the runners until the host closes.
func (h *Host) watch() {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			for _, c := range h.runners() {
				c.weigh()
			}
			for _, p := range h.all() {
				p.tend(now)
			}
		case <-h.ctx.Done():
			return
		}
	}
}

// background runs f beside everything else. It reports false, and does not run it, when the host is closed.
func (h *Host) background(f func()) bool {
	h.begin.Lock()
	defer h.begin.Unlock()
	if h.closed {
		return false
	}
	h.work.Go(f)
	return true
}

// raise runs the life of a runner in the background, and knows the runner until it ends. It reports false when the host is
// closed.
func (h *Host) raise(c *child, life func()) bool {
	h.begin.Lock()
	defer h.begin.Unlock()
	if h.closed {
		return false
	}
	h.alive[c] = struct{}{}
	h.work.Go(func() {
		life()
		h.begin.Lock()
		defer h.begin.Unlock()
		delete(h.alive, c)
	})
	return true
}

// runners lists every runner that has not ended.
func (h *Host) runners() []*child {
	h.begin.Lock()
	defer h.begin.Unlock()
	return slices.Collect(maps.Keys(h.alive))
}

// Close ends all runners and waits for the background work until ctx ends. Calls under way fail. Closing twice is fine.
func (h *Host) Close(ctx context.Context) error {
	h.begin.Lock()
	if h.closed {
		h.begin.Unlock()
		return nil
	}
	h.closed = true
	h.begin.Unlock()
	for _, c := range h.runners() {
		c.end(errStopping)
	}
	h.stop()
	done := make(chan struct{})
	go func() {
		h.work.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("wait for the runners of plugins to end: %w", ctx.Err())
	}
	h.spawner.Close()
	return errors.Join(err, h.life.Close(), h.lifeHeld.Close(), os.RemoveAll(h.sockets))
}

// changed tells the owner about a plugin. What it reads of the host while it is told is at least as new as the change.
func (h *Host) changed(name string) {
	if h.opts.Changed == nil {
		return
	}
	h.telling.Lock()
	defer h.telling.Unlock()
	h.opts.Changed(name)
}
