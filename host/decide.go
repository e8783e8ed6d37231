package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

// grantOf makes the grant of a decision that has been checked.
func grantOf(m Manifest, build monitor.Build, d monitor.PluginDecision, now time.Time) monitor.PluginGrant {
	g := monitor.PluginGrant{Digest: build.Digest, AllowPrivate: d.AllowPrivate, At: now, By: d.By, Permissions: []string{}}
	if d.Permissions == nil {
		for _, p := range m.Asks {
			g.Permissions = append(g.Permissions, p.String())
		}
		return g
	}
	for _, text := range d.Permissions {
		if p, err := reach.ParsePermission(text); err == nil {
			g.Permissions = append(g.Permissions, p.String())
		}
	}
	return g
}

// checkDecision finds what is granted although nobody asked for it, and what cannot be read.
func checkDecision(m Manifest, d monitor.PluginDecision) error {
	var faults monitor.Faults
	asked := reach.Grant{Permissions: m.Asks}
	for i, text := range d.Permissions {
		field := fmt.Sprintf("permissions[%d]", i)
		p, err := reach.ParsePermission(text)
		switch {
		case err != nil:
			faults.Add(field, sdk.CleanText(text, 100), "%v", err)
		case len(asked.Missing([]reach.Permission{p})) > 0:
			faults.Add(field, sdk.CleanText(text, 100), "is not among what the plugin asks for")
		}
	}
	return faults.Err()
}

// Grant decides what a plugin may reach: the build that waits, if there is one, which then becomes the active one, else the
// active build. The decision replaces the one before.
func (h *Host) Grant(ctx context.Context, name string, d monitor.PluginDecision) (monitor.InstalledPlugin, error) {
	return h.change(ctx, name, nil, func(p *plugin, r *monitor.Plugin) error {
		m, build := p.manifest, r.Active
		if p.pending != nil {
			m, build = *p.pending, r.Pending
		}
		if m.Runtime == "" { // its files cannot be read, so nobody knows what it asks for
			return fmt.Errorf("%w: plugin %s: %s", monitor.ErrConflict, name, p.broken)
		}
		if err := checkDecision(m, d); err != nil {
			return err
		}
		r.Active, r.Pending = build, monitor.Build{}
		r.Grant = grantOf(m, build, d, time.Now())
		return nil
	})
}

// Enable lets a disabled plugin run again, and one that was broken be tried again.
func (h *Host) Enable(ctx context.Context, name string) (monitor.InstalledPlugin, error) {
	p, err := h.lookup(name)
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	done, err := p.take(ctx)
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	defer done()
	p.mu.Lock()
	digest := p.record.Active.Digest
	p.mu.Unlock()
	m, err := h.read(name, digest)
	if err != nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("%w: plugin %s: %w", monitor.ErrConflict, name, err)
	}
	if err := h.compile(ctx, m, digest); err != nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("%w: plugin %s: %w", monitor.ErrConflict, name, err)
	}
	// The record may have moved on to another build meanwhile, which was tried when it was installed.
	return h.change(ctx, name, map[string]Manifest{digest: m}, func(_ *plugin, r *monitor.Plugin) error {
		r.Disabled, r.DisabledReason = false, ""
		return nil
	})
}

// Disable stops a plugin, calls under way included, and keeps it from running. An empty reason is fine.
func (h *Host) Disable(ctx context.Context, name, reason string) (monitor.InstalledPlugin, error) {
	return h.change(ctx, name, nil, func(_ *plugin, r *monitor.Plugin) error {
		r.Disabled, r.DisabledReason = true, sdk.CleanText(reason, maxText)
		return nil
	})
}

// SetLimits puts limits in place of the manifest's; zero fields are the manifest's again.
func (h *Host) SetLimits(ctx context.Context, name string, l sdk.Limits) (monitor.InstalledPlugin, error) {
	var faults monitor.Faults
	if l.Memory != 0 && (l.Memory < sdk.MinMemory || l.Memory > sdk.MaxMemory) {
		faults.Add("limits.memory", l.Memory.String(), "must be between %s and %s", sdk.MinMemory, sdk.MaxMemory)
	}
	if l.Timeout != 0 && (l.Timeout < sdk.MinTimeout || l.Timeout > sdk.MaxTimeout) {
		faults.Add("limits.timeout", l.Timeout.String(), "must be between %s and %s", sdk.MinTimeout, sdk.MaxTimeout)
	}
	if l.Concurrency != 0 && (l.Concurrency < sdk.MinConcurrency || l.Concurrency > sdk.MaxConcurrency) {
		faults.Add("limits.concurrency", l.Concurrency, "must be between %d and %d", sdk.MinConcurrency, sdk.MaxConcurrency)
	}
	if err := faults.Err(); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	return h.change(ctx, name, nil, func(_ *plugin, r *monitor.Plugin) error {
		r.Limits = l
		return nil
	})
}

// change changes the record of a plugin; see changeOf.
func (h *Host) change(ctx context.Context, name string, known map[string]Manifest, f func(p *plugin, r *monitor.Plugin) error) (monitor.InstalledPlugin, error) {
	p, err := h.lookup(name)
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	return h.changeOf(ctx, p, known, f)
}

// changeOf changes a record under its lock. The function is called with the plugin's lock held, must not wait, and changes
// nothing but the record: when that cannot be stored, nothing has changed. known is as in keep.
func (h *Host) changeOf(ctx context.Context, p *plugin, known map[string]Manifest, f func(p *plugin, r *monitor.Plugin) error) (monitor.InstalledPlugin, error) {
	p.storing.Lock()
	defer p.storing.Unlock()
	p.mu.Lock()
	record := p.record
	record.UpdatedAt = time.Now()
	if p.removed {
		p.mu.Unlock()
		return monitor.InstalledPlugin{}, fmt.Errorf("plugin %q: %w", p.name, monitor.ErrNotFound)
	}
	err := f(p, &record)
	p.mu.Unlock()
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	if err := h.keep(ctx, p, record, known); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	return p.view(), nil
}

// Remove ends a plugin and removes its files. It waits for an install of it that is under way. Whoever calls sees to it that
// nobody uses the plugin any more.
func (h *Host) Remove(ctx context.Context, name string) error {
	p, err := h.lookup(name)
	if err != nil {
		return err
	}
	done, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	p.storing.Lock()
	defer p.storing.Unlock()
	if !h.has(p) || p.reserved() {
		return fmt.Errorf("plugin %q: %w", name, monitor.ErrNotFound)
	}
	if err := h.opts.Records.DeletePlugin(ctx, name); err != nil {
		return fmt.Errorf("remove plugin %s: %w", name, err)
	}
	p.mu.Lock()
	p.removed = true
	for _, c := range p.children() {
		p.drop(c)
	}
	builds := []monitor.Build{p.record.Active, p.record.Pending}
	p.mu.Unlock()
	h.mu.Lock()
	delete(h.plugins, name)
	h.mu.Unlock()
	for _, c := range h.runners() {
		if c.p == p {
			c.end(errRetired)
		}
	}
	for _, b := range builds {
		if !b.IsZero() {
			h.discard(name, b.Digest)
		}
	}
	// It is empty unless a build could not be removed, which was told.
	if err := os.Remove(filepath.Join(h.opts.Dir, "installed", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.log.Warn("remove the folder of a plugin", "plugin", name, "error", err)
	}
	h.changed(name)
	return nil
}

// disableTimeout bounds the write that keeps a plugin disabled.
const disableTimeout = 15 * time.Second

// disableBadly stores that a plugin was disabled because it had to be stopped too often, which is so already.
func (h *Host) disableBadly(p *plugin, reason string) {
	h.log.Error("a plugin was disabled", "plugin", p.name, "reason", reason)
	h.background(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), disableTimeout)
		defer cancel()
		_, err := h.changeOf(ctx, p, nil, func(_ *plugin, r *monitor.Plugin) error {
			r.Disabled, r.DisabledReason = true, reason
			return nil
		})
		if err != nil && !errors.Is(err, monitor.ErrNotFound) {
			h.log.Error("a disabled plugin could not be stored as such; it runs again after a restart", "plugin", p.name, "error", err)
			h.changed(p.name)
		}
	})
}
