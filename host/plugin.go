package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/runner"
	"github.com/tocsinhq/tocsin/sdk"
)

// plugin is one installed plugin. Its locks are taken in the order turn, storing, Host.telling, Host.mu, mu, those of its
// runners, Host.begin. mu is never held while something waits.
type plugin struct {
	host *Host
	name string

	turn    chan struct{} // whoever changes its files has the one place, which may be for a minute
	storing sync.Mutex    // held while the record is changed and stored

	mu       sync.Mutex
	record   monitor.Plugin
	manifest Manifest // of the active build
	pending  *Manifest
	grant    reach.Grant
	schema   *schema.Schema // of the configuration; nil when the manifest could not be read
	broken   string         // why its files, its compilation or its sandbox cannot be used; empty when they can
	sandbox  []monitor.SandboxLayer
	degraded bool
	removed  bool
	trial    bool // it is only started to see whether it starts

	shared  *child               // nil: none was started, or it was retired
	private map[string]*child    // by monitor: those that are kept apart
	apart   map[string]*strikes  // by monitor: those that caused kills lately
	users   map[string]time.Time // by monitor: when it called last
	slots   chan struct{}        // one for each call in the shared runner
	failed  backoff
	longest time.Duration // between two calls, for the idle stop
	called  time.Time     // when the last call came
	tally   tally
}

// limits are those in force. The caller holds mu.
func (p *plugin) limits() sdk.Limits {
	l, own := p.manifest.Limits, p.record.Limits
	if own.Memory != 0 {
		l.Memory = own.Memory
	}
	if own.Timeout != 0 {
		l.Timeout = own.Timeout
	}
	if own.Concurrency != 0 {
		l.Concurrency = own.Concurrency
	}
	return l.WithDefaults()
}

// condition says whether the plugin can be used, and why not. The caller holds mu.
func (p *plugin) condition() (monitor.PluginCondition, string) {
	switch {
	case p.removed:
		return monitor.PluginBroken, "it was removed"
	case p.broken != "":
		return monitor.PluginBroken, p.broken
	case p.record.Disabled && p.record.DisabledReason != "":
		return monitor.PluginDisabled, p.record.DisabledReason
	case p.record.Disabled:
		return monitor.PluginDisabled, "an operator disabled it; enable it again to use it"
	case p.record.Grant.Digest == "":
		return monitor.PluginWaiting, "nobody has granted what it asks for; look at it and grant it"
	}
	return monitor.PluginReady, ""
}

// refusal is why the plugin cannot be used now, or nil.
func (p *plugin) refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, why := p.condition(); c != monitor.PluginReady {
		return fmt.Errorf("plugin %s is %s: %s", p.name, c, why)
	}
	return nil
}

// adopt takes over a record and the manifests that go with it. The caller holds mu.
func (p *plugin) adopt(r monitor.Plugin, active Manifest, pending *Manifest) {
	p.record, p.manifest, p.pending = r, active, pending
	// The manifest was held to it when it was read.
	p.schema, _ = schema.Compile(active.Config)
	p.grant = reach.Grant{Digest: r.Grant.Digest, AllowPrivate: r.Grant.AllowPrivate}
	for _, text := range r.Grant.Permissions {
		// What is stored was parsed before it was stored; what a later version no longer understands is not granted.
		if permission, err := reach.ParsePermission(text); err == nil {
			p.grant.Permissions = append(p.grant.Permissions, permission)
		}
	}
	if n := p.limits().Concurrency; cap(p.slots) != n {
		p.slots = make(chan struct{}, n)
	}
}

// reserved reports whether the plugin is only being installed.
func (p *plugin) reserved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed
}

// view is what is known of the plugin.
func (p *plugin) view() monitor.InstalledPlugin {
	p.mu.Lock()
	v := monitor.InstalledPlugin{
		Plugin: p.record, Manifest: p.manifest.Manifest, Asks: asks(p.manifest, p.grant), InForce: p.limits(),
		Sandbox: slices.Clone(p.sandbox), Degraded: p.degraded,
	}
	v.Condition, v.Why = p.condition()
	if p.pending != nil {
		v.PendingManifest, v.PendingAsks = &p.pending.Manifest, asks(*p.pending, p.grant)
	}
	p.mu.Unlock()
	v.Usage = p.tally.usage()
	for _, c := range p.host.runners() {
		if c.p == p {
			c.addTo(&v.Usage)
		}
	}
	return v
}

// take waits for the turn to change the files of the plugin, which done ends.
func (p *plugin) take(ctx context.Context) (done func(), err error) {
	select {
	case p.turn <- struct{}{}:
		return func() { <-p.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another change of plugin %s: %w", p.name, ctx.Err())
	}
}

// children lists the runners that take calls. The caller holds mu.
func (p *plugin) children() []*child {
	var all []*child
	if p.shared != nil {
		all = append(all, p.shared)
	}
	for _, i := range p.private {
		all = append(all, i)
	}
	return all
}

// asks says in words what a build asks for, and what of it is granted.
func asks(m Manifest, granted reach.Grant) []monitor.PluginAsk {
	list := make([]monitor.PluginAsk, 0, len(m.Asks))
	for i, p := range m.Asks {
		list = append(list, monitor.PluginAsk{
			Allow: p.String(), Words: p.Words(), Reason: sdk.CleanText(m.Permissions[i].Reason, maxText),
			Granted: len(granted.Missing([]reach.Permission{p})) == 0,
		})
	}
	return list
}

// setup is what a runner of the active build is told. The caller holds mu.
func (p *plugin) setup() runner.Setup {
	limits := p.limits()
	s := p.host.setupOf(p.manifest, p.record.Active.Digest)
	s.Memory, s.Calls = int64(limits.Memory), limits.Concurrency
	return s
}

// setupOf is what the children of a build are told, with the manifest's own limits; only the cache is left out.
func (h *Host) setupOf(m Manifest, digest string) runner.Setup {
	dir := h.buildDir(m.Name, digest)
	s := runner.Setup{
		Name: m.Name, Memory: int64(m.Limits.Memory), Calls: m.Limits.Concurrency,
		AllowDegraded: h.opts.AllowDegraded, Parent: os.Getpid(),
		TLS: slices.ContainsFunc(m.Asks, func(p reach.Permission) bool {
			return slices.Contains([]string{"tls", "https", "http", "cert", "tcp"}, p.Scheme)
		}),
	}
	if m.Script != "" {
		s.Script = filepath.Join(dir, filepath.FromSlash(m.Script))
	} else {
		s.Module = filepath.Join(dir, filepath.FromSlash(m.Entry.One))
	}
	return s
}

// cacheOf is the folder of the compiled code of what a setup names. It is there once the code has been compiled.
func (h *Host) cacheOf(s runner.Setup, digest string) (string, error) {
	if s.Script != "" {
		return filepath.Join(h.opts.Dir, "compiled", scriptEngine, h.engine), nil
	}
	module, err := os.ReadFile(s.Module)
	if err != nil {
		return "", fmt.Errorf("read the module: %w", err)
	}
	name, err := wasm.CompiledName(module)
	if err != nil {
		return "", err
	}
	return filepath.Join(h.opts.Dir, "compiled", digest, name), nil
}

// scriptEngine is the folder of the compiled code that all scripts share.
const scriptEngine = "script-engine"

// buildDir is where the files of a build are.
func (h *Host) buildDir(name, digest string) string {
	return filepath.Join(h.opts.Dir, "installed", name, digest)
}
