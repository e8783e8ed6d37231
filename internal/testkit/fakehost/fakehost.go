// Package fakehost stands for the host of plugins in tests of what is above it: it keeps plugins in memory and runs none.
//
// It behaves as the host does towards the service: an archive that it cannot read is a fault of the field archive; a new
// plugin waits until it is granted; another build of a granted one takes its place at once when it asks for nothing that was
// not granted, and else waits beside it; a grant is for the build that waits, takes the place of the grant before, and may not
// have what was not asked for; the digest of a grant is that of its build. An archive is the JSON of a manifest here.
package fakehost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Host keeps plugins. It is safe for concurrent use.
type Host struct {
	now func() time.Time

	mu      sync.Mutex
	plugins map[string]*plugin
	gate    func(ctx context.Context, doing string) error
}

type plugin struct {
	record   monitor.Plugin
	manifest sdk.Manifest
	pending  *sdk.Manifest
	broken   string
	usage    monitor.PluginUsage
	layers   []monitor.SandboxLayer
	degraded bool
}

// New returns a host without plugins. now is its clock.
func New(now func() time.Time) *Host { return &Host{now: now, plugins: map[string]*plugin{}} }

// Gate has every change call f first, with install, remove, grant, enable, disable or limits; its error is that of the change.
func (h *Host) Gate(f func(ctx context.Context, doing string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = f
}

// Report sets what the plugin's processes report. The plugin must be there.
func (h *Host) Report(name string, usage monitor.PluginUsage, layers []monitor.SandboxLayer, degraded bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.plugins[name]
	p.usage, p.layers, p.degraded = usage, layers, degraded
}

// Break makes the plugin, which must be there, one that cannot be used; an empty reason mends it.
func (h *Host) Break(name, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plugins[name].broken = why
}

// Plugins lists the plugins by name.
func (h *Host) Plugins() []monitor.InstalledPlugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]monitor.InstalledPlugin, 0, len(h.plugins))
	for _, name := range slices.Sorted(maps.Keys(h.plugins)) {
		list = append(list, h.plugins[name].view())
	}
	return list
}

// Plugin returns one plugin, or monitor.ErrNotFound.
func (h *Host) Plugin(name string) (monitor.InstalledPlugin, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.plugins[name]
	if p == nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("plugin %q: %w", name, monitor.ErrNotFound)
	}
	return p.view(), nil
}

// Install reads an archive, the JSON of a manifest, and adds what it is.
func (h *Host) Install(ctx context.Context, archive io.Reader, in monitor.PluginInstall) (monitor.InstalledPlugin, error) {
	if err := h.enter(ctx, "install"); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	data, err := io.ReadAll(archive)
	if err != nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("read the archive: %w", err)
	}
	var m sdk.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return monitor.InstalledPlugin{}, monitor.Faults{{Field: "archive", Message: "is no gzip file"}}
	}
	if m.Name == "" || m.Name == "http" {
		return monitor.InstalledPlugin{}, monitor.Faults{{Field: "archive", Message: "the name is that of a built-in kind"}}
	}
	sum := sha256.Sum256(data)
	build := monitor.Build{Version: m.Version, Digest: hex.EncodeToString(sum[:])}
	h.mu.Lock()
	defer h.mu.Unlock()
	p, now := h.plugins[m.Name], h.now().UTC().Truncate(time.Millisecond)
	if p == nil {
		p = &plugin{record: monitor.Plugin{Name: m.Name, InstalledAt: now}}
		h.plugins[m.Name] = p
	}
	p.record.UpdatedAt = now
	switch {
	case in.Grant:
		p.run(build, m)
		p.record.Grant = monitor.PluginGrant{
			Digest: build.Digest, Permissions: asked(m), AllowPrivate: in.AllowPrivate, At: now, By: in.By,
		}
	case p.record.Grant.Digest == "":
		p.run(build, m)
	case len(missing(m, p.record.Grant)) == 0:
		p.run(build, m)
		p.record.Grant.Digest = build.Digest
	default:
		p.record.Pending, p.pending = build, &m
	}
	return p.view(), nil
}

func (p *plugin) run(b monitor.Build, m sdk.Manifest) {
	p.record.Active, p.manifest, p.record.Pending, p.pending = b, m, monitor.Build{}, nil
}

// Remove forgets a plugin.
func (h *Host) Remove(ctx context.Context, name string) error {
	_, err := h.change(ctx, "remove", name, func(*plugin) error {
		delete(h.plugins, name)
		return nil
	})
	return err
}

// Grant grants.
func (h *Host) Grant(ctx context.Context, name string, d monitor.PluginDecision) (monitor.InstalledPlugin, error) {
	return h.change(ctx, "grant", name, func(p *plugin) error {
		m, build := p.manifest, p.record.Active
		if p.pending != nil {
			m, build = *p.pending, p.record.Pending
		}
		may, permissions := asked(m), d.Permissions
		if permissions == nil {
			permissions = may
		}
		var faults monitor.Faults
		for i, one := range permissions {
			if !slices.Contains(may, one) {
				faults.Add(fmt.Sprintf("permissions[%d]", i), sdk.CleanText(one, 100), "the plugin does not ask for it")
			}
		}
		if err := faults.Err(); err != nil {
			return err
		}
		p.run(build, m)
		p.record.Grant = monitor.PluginGrant{
			Digest: build.Digest, Permissions: slices.Clone(permissions), AllowPrivate: d.AllowPrivate, At: h.now().UTC(), By: d.By,
		}
		return nil
	})
}

// Enable lets a plugin be used again.
func (h *Host) Enable(ctx context.Context, name string) (monitor.InstalledPlugin, error) {
	return h.change(ctx, "enable", name, func(p *plugin) error {
		p.record.Disabled, p.record.DisabledReason = false, ""
		return nil
	})
}

// Disable keeps a plugin from being used.
func (h *Host) Disable(ctx context.Context, name, reason string) (monitor.InstalledPlugin, error) {
	return h.change(ctx, "disable", name, func(p *plugin) error {
		p.record.Disabled, p.record.DisabledReason = true, reason
		return nil
	})
}

// SetLimits sets limits.
func (h *Host) SetLimits(ctx context.Context, name string, l sdk.Limits) (monitor.InstalledPlugin, error) {
	return h.change(ctx, "limits", name, func(p *plugin) error {
		p.record.Limits = l
		return nil
	})
}

func (h *Host) enter(ctx context.Context, doing string) error {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate == nil {
		return ctx.Err()
	}
	return gate(ctx, doing)
}

func (h *Host) change(ctx context.Context, doing, name string, f func(*plugin) error) (monitor.InstalledPlugin, error) {
	if err := h.enter(ctx, doing); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.plugins[name]
	if p == nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("plugin %q: %w", name, monitor.ErrNotFound)
	}
	if err := f(p); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	p.record.UpdatedAt = h.now().UTC().Truncate(time.Millisecond)
	return p.view(), nil
}

func asked(m sdk.Manifest) []string {
	list := make([]string, len(m.Permissions))
	for i, p := range m.Permissions {
		list[i] = p.Allow
	}
	return list
}

func missing(m sdk.Manifest, g monitor.PluginGrant) []string {
	return slices.DeleteFunc(asked(m), func(allow string) bool { return slices.Contains(g.Permissions, allow) })
}

func asks(m sdk.Manifest, g monitor.PluginGrant) []monitor.PluginAsk {
	list := make([]monitor.PluginAsk, len(m.Permissions))
	for i, p := range m.Permissions {
		list[i] = monitor.PluginAsk{
			Allow: p.Allow, Words: "reach " + p.Allow, Reason: p.Reason, Granted: slices.Contains(g.Permissions, p.Allow),
		}
	}
	return list
}

func (p *plugin) view() monitor.InstalledPlugin {
	v := monitor.InstalledPlugin{
		Plugin: p.record, Condition: monitor.PluginReady, Manifest: p.manifest, Asks: asks(p.manifest, p.record.Grant),
		Sandbox: slices.Clone(p.layers), Degraded: p.degraded, Usage: p.usage, InForce: p.manifest.Limits,
	}
	v.Grant.Permissions = slices.Clone(p.record.Grant.Permissions)
	if p.pending != nil {
		m := *p.pending
		v.PendingManifest, v.PendingAsks = &m, asks(m, p.record.Grant)
	}
	switch {
	case p.broken != "":
		v.Condition, v.Why = monitor.PluginBroken, p.broken
	case p.record.Disabled && p.record.DisabledReason != "":
		v.Condition, v.Why = monitor.PluginDisabled, p.record.DisabledReason
	case p.record.Disabled:
		v.Condition, v.Why = monitor.PluginDisabled, "an operator disabled it"
	case p.record.Grant.Digest == "":
		v.Condition, v.Why = monitor.PluginWaiting, "nobody has granted what it asks for"
	}
	own := p.record.Limits
	if own.Memory != 0 {
		v.InForce.Memory = own.Memory
	}
	if own.Timeout != 0 {
		v.InForce.Timeout = own.Timeout
	}
	if own.Concurrency != 0 {
		v.InForce.Concurrency = own.Concurrency
	}
	v.InForce = v.InForce.WithDefaults()
	return v
}
