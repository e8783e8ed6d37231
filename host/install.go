package host

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/runner"
	"github.com/tocsinhq/tocsin/sdk"
)

// compileTimeout bounds the compilation of a module, unless the options say otherwise.
const compileTimeout = 60 * time.Second

// Install unpacks an archive, compiles its module, tries to start it, and keeps it. A new plugin waits for its grant unless
// the install grants it. A new build of a plugin that asks for no more than was granted runs at once; one that asks for more
// waits beside the old one. What is wrong with the archive is monitor.Faults about "archive"; nothing has changed then.
// Installing what is installed already changes nothing.
func (h *Host) Install(ctx context.Context, archive io.Reader, o monitor.PluginInstall) (monitor.InstalledPlugin, error) {
	contents, err := ReadArchive(archive)
	if err != nil {
		return monitor.InstalledPlugin{}, inArchive(err)
	}
	return h.install(ctx, contents, o)
}

// inArchive makes the one fault of an archive.
func inArchive(err error) error {
	var faults monitor.Faults
	faults.Add("archive", nil, "%v", err)
	return faults
}

func (h *Host) install(ctx context.Context, contents *Contents, o monitor.PluginInstall) (monitor.InstalledPlugin, error) {
	none := monitor.InstalledPlugin{}
	m, err := contents.Manifest()
	if err != nil {
		return none, inArchive(err)
	}
	if err := h.acceptable(m, contents); err != nil {
		return none, inArchive(err)
	}
	p, done, err := h.reserve(ctx, m.Name)
	if err != nil {
		return none, err
	}
	defer done()
	defer h.unreserve(p)
	digest := contents.Digest()
	p.mu.Lock()
	same := p.record.Active.Digest == digest && p.broken == ""
	p.mu.Unlock()
	var tried *trial
	if !same {
		if tried, err = h.prepare(ctx, m, contents); err != nil {
			return none, h.undo(p, digest, err)
		}
	}
	p.storing.Lock()
	defer p.storing.Unlock()
	p.mu.Lock()
	record := advance(p.record, m, monitor.Build{Version: m.Version, Digest: digest}, o)
	p.mu.Unlock()
	if err := h.keep(ctx, p, record, map[string]Manifest{digest: m}); err != nil {
		return none, h.undo(p, digest, err)
	}
	if tried != nil {
		p.mu.Lock()
		p.sandbox, p.degraded = tried.layers, tried.degraded
		p.mu.Unlock()
	}
	h.log.Info("a plugin was installed", "plugin", m.Name, "version", m.Version, "by", o.By, "digest", digest)
	return p.view(), nil
}

// advance gives the record of a plugin with a new build.
func advance(record monitor.Plugin, m Manifest, build monitor.Build, o monitor.PluginInstall) monitor.Plugin {
	now := time.Now()
	if record.Name == "" {
		record = monitor.Plugin{Name: m.Name, InstalledAt: now}
	}
	record.UpdatedAt = now
	granted := reach.Grant{}
	for _, text := range record.Grant.Permissions {
		if permission, err := reach.ParsePermission(text); err == nil {
			granted.Permissions = append(granted.Permissions, permission)
		}
	}
	switch {
	case o.Grant:
		record.Active, record.Pending = build, monitor.Build{}
		record.Grant = grantOf(m, build, monitor.PluginDecision{AllowPrivate: o.AllowPrivate, By: o.By}, now)
	case record.Grant.Digest == "":
		record.Active, record.Pending = build, monitor.Build{}
	case len(granted.Missing(m.Asks)) == 0:
		record.Active, record.Pending = build, monitor.Build{}
		record.Grant.Digest = build.Digest
	case record.Active.Digest != build.Digest:
		record.Pending = build
	}
	return record
}

// acceptable refuses what cannot run here whatever is granted.
func (h *Host) acceptable(m Manifest, contents *Contents) error {
	if m.Runtime != "wasm" {
		return fmt.Errorf("runtime %s cannot be run: this server runs plugins in its sandbox only; build the plugin for runtime wasm", m.Runtime)
	}
	if h.opts.Taken != nil {
		if why := h.opts.Taken(m.Name, m.Provides); why != "" {
			return errors.New(why)
		}
	}
	if m.Script != "" {
		return nil
	}
	module, _ := contents.File(m.Entry.One)
	info, err := wasm.Inspect(module, wasm.Limits{Memory: int64(m.Limits.Memory)})
	if err != nil {
		return fmt.Errorf("module %s: %w", m.Entry.One, err)
	}
	for _, call := range m.Provides {
		if !info.Command && !slices.Contains(info.Calls, call) {
			return fmt.Errorf("module %s does not export %s, which its manifest says it provides", m.Entry.One, call)
		}
	}
	return nil
}

// reserve finds the plugin, or makes one that is not there for anybody else before it is kept, and takes the turn to change its
// files, which done ends.
func (h *Host) reserve(ctx context.Context, name string) (p *plugin, done func(), err error) {
	for {
		h.mu.Lock()
		p, ok := h.plugins[name]
		if !ok {
			p = h.newPlugin(name)
			p.removed = true
			h.plugins[name] = p
		}
		h.mu.Unlock()
		done, err := p.take(ctx)
		if err != nil {
			return nil, nil, err
		}
		if h.has(p) {
			return p, done, nil
		}
		done() // it was removed while this waited
	}
}

// has reports whether the plugin is still one of the host's.
func (h *Host) has(p *plugin) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.plugins[p.name] == p
}

// unreserve takes back a reservation that came to nothing.
func (h *Host) unreserve(p *plugin) {
	p.mu.Lock()
	empty := p.record.Name == ""
	p.mu.Unlock()
	if !empty {
		return // it was kept, now or before
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.plugins[p.name] == p {
		delete(h.plugins, p.name)
	}
}

// prepare puts the files of a build in place, compiles it and starts it once.
func (h *Host) prepare(ctx context.Context, m Manifest, contents *Contents) (*trial, error) {
	digest := contents.Digest()
	dir := h.buildDir(m.Name, digest)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("install plugin %s: %w", m.Name, err)
	}
	unpacked, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return nil, fmt.Errorf("install plugin %s: %w", m.Name, err)
	}
	if err := contents.Write(unpacked); err != nil {
		return nil, errors.Join(err, os.RemoveAll(unpacked))
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(unpacked, dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("install plugin %s: %w", m.Name, err), os.RemoveAll(unpacked))
	}
	if err := h.compiled(ctx, m, digest); err != nil {
		return nil, err
	}
	return h.try(ctx, m, digest)
}

// undo removes the files of a build that is not kept.
func (h *Host) undo(p *plugin, digest string, cause error) error {
	p.mu.Lock()
	inUse := p.record.Active.Digest == digest || p.record.Pending.Digest == digest
	p.mu.Unlock()
	if inUse {
		return cause
	}
	err := errors.Join(cause, os.RemoveAll(h.buildDir(p.name, digest)), os.RemoveAll(filepath.Join(h.opts.Dir, "compiled", digest)))
	// Other builds may be in it.
	_ = os.Remove(filepath.Join(h.opts.Dir, "installed", p.name))
	return err
}

// compiled sees to it that the module of a build is compiled, and compiles it unless it is.
func (h *Host) compiled(ctx context.Context, m Manifest, digest string) error {
	cache, err := h.cacheOf(h.setupOf(m, digest), digest)
	if err != nil {
		return inArchive(err)
	}
	if _, err := os.Stat(cache); err == nil {
		return nil
	}
	return h.compile(ctx, m, digest)
}

// compile compiles the module of a build. The code takes its place when it is complete, unless the same is there already.
func (h *Host) compile(ctx context.Context, m Manifest, digest string) error {
	setup := h.setupOf(m, digest)
	cache, err := h.cacheOf(setup, digest)
	if err != nil {
		return inArchive(err)
	}
	if err := os.MkdirAll(filepath.Dir(cache), 0o700); err != nil {
		return fmt.Errorf("make the folder of compiled code: %w", err)
	}
	if setup.Cache, err = os.MkdirTemp(filepath.Dir(cache), ".new-"); err != nil {
		return fmt.Errorf("make the folder of compiled code: %w", err)
	}
	if err := h.compileInto(ctx, setup); err != nil {
		return errors.Join(err, os.RemoveAll(setup.Cache))
	}
	// Somebody else may have compiled the same meanwhile.
	if err := os.Rename(setup.Cache, cache); err != nil && !errors.Is(err, os.ErrExist) {
		return errors.Join(fmt.Errorf("keep the compiled code: %w", err), os.RemoveAll(setup.Cache))
	}
	h.forsake(cache)
	return os.RemoveAll(setup.Cache)
}

// forsake removes what was compiled of the same module by another version of the server.
func (h *Host) forsake(cache string) {
	found, err := filepath.Glob(filepath.Join(filepath.Dir(cache), "[0-9a-f]*"))
	for _, dir := range found {
		if dir != cache {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	if err != nil {
		h.log.Warn("remove code that was compiled by another version", "error", err)
	}
}

// compileInto compiles a module in a process of its own, which has a time limit and a memory limit.
func (h *Host) compileInto(ctx context.Context, setup runner.Setup) error {
	argument, err := json.Marshal(setup)
	if err != nil {
		return fmt.Errorf("write the setup of the compiler: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, h.opts.CompileTimeout)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	args := append(append([]string{}, h.program[1:]...), runner.CompileWord, string(argument))
	cmd := exec.CommandContext(limited, h.program[0], args...) //nolint:gosec // it is this program
	var said tail
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = &said, &said, []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	h.spaces.Prepare(cmd.SysProcAttr)
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	cmd.WaitDelay = time.Second
	if err = h.spawner.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	last := said.lastLine()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("compile plugin %s: %w", setup.Name, ctx.Err())
	case h.ctx.Err() != nil:
		return fmt.Errorf("compile plugin %s: %w", setup.Name, errStopping)
	case cmd.Process == nil:
		return fmt.Errorf("start the compiler of plugins: %w", err)
	case limited.Err() != nil:
		return inArchive(fmt.Errorf("compiling it took longer than %s, so it was stopped", h.opts.CompileTimeout))
	case cmd.ProcessState.ExitCode() == runner.WallExit:
		return fmt.Errorf("%w: plugin %s cannot be compiled: %w", monitor.ErrConflict, setup.Name, sandboxError([]string{last}))
	case cmd.ProcessState.ExitCode() == runner.FileExit:
		return fmt.Errorf("compile plugin %s: %s", setup.Name, last)
	case last != "":
		return inArchive(fmt.Errorf("compile it: %s", last))
	}
	return inArchive(fmt.Errorf("compiling it failed, most likely because it needs too much memory: %w", err))
}

// tail is a writer that keeps the last 8 KiB of what is written to it.
type tail struct{ kept []byte }

const maxTail = 8 << 10

// Write implements io.Writer; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-maxTail):]...)
	if over := len(t.kept) - maxTail; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// lastLine is the last line that is not empty, as it can be shown.
func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(string(t.kept)), "\n")
	return sdk.CleanText(strings.TrimSpace(lines[len(lines)-1]), sdk.MaxMessage)
}

// trial is what came of starting a build.
type trial struct {
	layers   []monitor.SandboxLayer
	degraded bool
}

// try starts a build once and ends it again, so that what cannot start is found now and not at the first call.
func (h *Host) try(ctx context.Context, m Manifest, digest string) (*trial, error) {
	p := h.newPlugin(m.Name)
	p.record.Active = monitor.Build{Version: m.Version, Digest: digest}
	p.manifest = m
	p.trial = true
	p.mu.Lock()
	c := p.start("")
	p.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("start plugin %s: %w", m.Name, errStopping)
	}
	defer c.end(errRetired)
	select {
	case <-c.started:
	case <-ctx.Done():
		return nil, fmt.Errorf("start plugin %s: %w", m.Name, ctx.Err())
	}
	var broken *brokenError
	switch {
	case c.fault == nil:
		return &trial{c.layers(), len(c.missing()) > 0}, nil
	case errors.As(c.fault, &broken): // no plugin can run on this machine: that is no fault of the archive
		return nil, fmt.Errorf("%w: plugin %s cannot be started: %w", monitor.ErrConflict, m.Name, c.fault)
	case errors.Is(c.ending(), errStopping):
		return nil, fmt.Errorf("start plugin %s: %w", m.Name, errStopping)
	}
	return nil, inArchive(fmt.Errorf("it does not start: %w", c.fault))
}

// keep stores a record and has the plugin follow it; when it cannot be stored nothing has changed. The caller holds storing.
// known are manifests by digest, of builds that were read and compiled just now, besides those that the plugin has already.
func (h *Host) keep(ctx context.Context, p *plugin, record monitor.Plugin, known map[string]Manifest) error {
	if err := h.opts.Records.PutPlugin(ctx, record); err != nil {
		return fmt.Errorf("keep plugin %s: %w", record.Name, err)
	}
	p.mu.Lock()
	old := p.record
	manifest := func(digest string) Manifest {
		if m, ok := known[digest]; ok {
			return m
		}
		if p.pending != nil && digest == old.Pending.Digest {
			return *p.pending
		}
		return p.manifest
	}
	active := manifest(record.Active.Digest)
	if _, ok := known[record.Active.Digest]; ok || record.Active.Digest != old.Active.Digest {
		p.broken = "" // its files were read, compiled and tried just now, or when it was installed
	}
	var pending *Manifest
	if !record.Pending.IsZero() {
		m := manifest(record.Pending.Digest)
		pending = &m
	}
	p.removed = false
	p.adopt(record, active, pending)
	p.apart = map[string]*strikes{}
	p.failed.succeed()
	for _, c := range p.children() {
		p.drop(c)
	}
	grant := p.grant
	p.mu.Unlock()
	for _, c := range h.runners() {
		switch {
		case c.p != p:
		case record.Disabled:
			c.end(errRetired)
		default:
			c.narrow(grant)
			c.retire()
		}
	}
	for _, build := range []monitor.Build{old.Active, old.Pending} {
		if !build.IsZero() && build.Digest != record.Active.Digest && build.Digest != record.Pending.Digest {
			h.discard(p.name, build.Digest)
		}
	}
	h.changed(p.name)
	return nil
}

// discard removes the files of a build that is not used any more. What cannot be removed now is swept at the next start.
func (h *Host) discard(name, digest string) {
	if err := errors.Join(os.RemoveAll(h.buildDir(name, digest)), os.RemoveAll(filepath.Join(h.opts.Dir, "compiled", digest))); err != nil {
		h.log.Warn("remove the files of an old plugin", "plugin", name, "error", err)
	}
}

// Pack writes the archive of a plugin's directory, which ReadArchive reads. The same files make the same bytes.
func Pack(dir string, w io.Writer) error {
	contents, err := ReadDir(dir)
	if err != nil {
		return err
	}
	if _, err := contents.Manifest(); err != nil {
		return err
	}
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	for _, name := range contents.Names() {
		data, _ := contents.File(name)
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if contents.files[name].executable {
			header.Mode = 0o755
		}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := archive.Write(data); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return nil
}
