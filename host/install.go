package host

import (
	"archive/tar"
	"bytes"
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
	p := h.reserve(m.Name)
	defer p.installing.Unlock()
	defer h.unreserve(p)
	digest := contents.Digest()
	p.mu.Lock()
	same := p.record.Active.Digest == digest && p.broken == ""
	p.mu.Unlock()
	if !same {
		if err := h.prepare(ctx, p, m, contents); err != nil {
			return none, h.undo(p, digest, err)
		}
	}
	p.storing.Lock()
	defer p.storing.Unlock()
	if !h.has(p) {
		return none, h.undo(p, digest, fmt.Errorf("%w: plugin %s was removed meanwhile", monitor.ErrConflict, m.Name))
	}
	p.mu.Lock()
	record := advance(p.record, m, monitor.Build{Version: m.Version, Digest: digest}, o)
	p.mu.Unlock()
	if err := h.keep(ctx, p, record, map[string]Manifest{digest: m}); err != nil {
		return none, err
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

// reserve finds the plugin, or makes one that is not there for anybody else before it is kept, and takes its turn to install.
func (h *Host) reserve(name string) *plugin {
	for {
		h.mu.Lock()
		p, ok := h.plugins[name]
		if !ok {
			p = h.newPlugin(name)
			p.removed = true
			h.plugins[name] = p
		}
		h.mu.Unlock()
		p.installing.Lock()
		if h.has(p) {
			return p
		}
		p.installing.Unlock() // it was removed while this waited
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
func (h *Host) prepare(ctx context.Context, p *plugin, m Manifest, contents *Contents) error {
	digest := contents.Digest()
	dir := h.buildDir(m.Name, digest)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("install plugin %s: %w", m.Name, err)
	}
	unpacked, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return fmt.Errorf("install plugin %s: %w", m.Name, err)
	}
	if err := contents.Write(unpacked); err != nil {
		return errors.Join(err, os.RemoveAll(unpacked))
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(unpacked, dir)); err != nil {
		return errors.Join(fmt.Errorf("install plugin %s: %w", m.Name, err), os.RemoveAll(unpacked))
	}
	if err := h.compile(ctx, m, digest); err != nil {
		return err
	}
	layers, err := h.try(ctx, m, digest)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.sandbox = layers
	p.mu.Unlock()
	return nil
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

// compile compiles the module of a build in a process of its own, which has a time limit and a memory limit.
func (h *Host) compile(ctx context.Context, m Manifest, digest string) error {
	setup := h.setupOf(m, digest)
	if err := os.MkdirAll(setup.Cache, 0o700); err != nil {
		return fmt.Errorf("make the folder of compiled code: %w", err)
	}
	argument, err := json.Marshal(setup)
	if err != nil {
		return fmt.Errorf("write the setup of the compiler: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, h.opts.CompileTimeout)
	defer cancel()
	args := append(append([]string{}, h.program[1:]...), runner.CompileWord, string(argument))
	cmd := exec.CommandContext(limited, h.program[0], args...) //nolint:gosec // it is this program
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = &said, &said, []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	h.spaces.Prepare(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := h.spawner.Start(cmd); err != nil {
		return fmt.Errorf("start the compiler of plugins: %w", err)
	}
	err = cmd.Wait()
	last := lastLine(said.String())
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("compile plugin %s: %w", m.Name, ctx.Err())
	case limited.Err() != nil:
		return inArchive(fmt.Errorf("compiling it took longer than %s, so it was stopped", h.opts.CompileTimeout))
	case last != "":
		return inArchive(fmt.Errorf("compile it: %s", last))
	}
	return inArchive(fmt.Errorf("compiling it failed, most likely because it needs too much memory: %w", err))
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// try starts a build once and ends it again, so that what cannot start is found now and not at the first call. It
// gives the layers of its sandbox.
func (h *Host) try(ctx context.Context, m Manifest, digest string) ([]monitor.SandboxLayer, error) {
	p := h.newPlugin(m.Name)
	p.record.Active = monitor.Build{Version: m.Version, Digest: digest}
	p.manifest = m
	p.trial = true
	p.mu.Lock()
	c := p.start("")
	p.mu.Unlock()
	defer c.end(errRetired)
	select {
	case <-c.started:
	case <-ctx.Done():
		return nil, fmt.Errorf("start plugin %s: %w", m.Name, ctx.Err())
	}
	var broken *brokenError
	if errors.As(c.fault, &broken) { // no plugin can run on this machine: that is no fault of the archive
		return nil, fmt.Errorf("%w: plugin %s cannot be started: %w", monitor.ErrConflict, m.Name, c.fault)
	}
	if c.fault != nil {
		return nil, inArchive(fmt.Errorf("it does not start: %w", c.fault))
	}
	return c.layers(), nil
}

// keep stores a record and has the plugin follow it. The caller holds storing. known are manifests by digest, besides those
// that the plugin has already.
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
	if _, ok := known[record.Active.Digest]; ok {
		p.broken = "" // its files were read, compiled and tried just now
	}
	var pending *Manifest
	if !record.Pending.IsZero() {
		m := manifest(record.Pending.Digest)
		pending = &m
	}
	p.removed = false
	p.adopt(record, active, pending)
	p.apart, p.failed = map[string]*strikes{}, backoff{}
	children := p.children()
	for _, c := range children {
		p.drop(c)
	}
	p.mu.Unlock()
	for _, c := range children {
		c.retire()
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
