package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/wasm/runner"
	"github.com/tocsinhq/tocsin/sdk"
)

// Child runs a child of the server, such as the runner of a plugin, when the arguments of the program ask for one, and
// returns its exit code. It reports false when they do not.
func Child(args []string) (code int, ok bool) { return runner.Child(args) }

// openPlugins loads the installed plugins and offers them as kinds and providers.
func (s *server) openPlugins(ctx context.Context) error {
	set := &s.Settings
	if set.PluginDegraded {
		s.log.Warn("plugins run even where a required layer of their sandbox is missing, as plugins.allow_degraded_sandbox says")
	}
	o := host.Options{
		Dir: filepath.Join(set.Data, "plugins"), Records: s.store, Program: s.Program,
		Policy: netpolicy.Policy{Allow: set.PluginAllow, Setting: "plugins.allow_addresses"},
		Ping:   s.ping, AllowDegraded: set.PluginDegraded, Taken: s.taken, Changed: s.changed, Log: s.log,
	}
	if s.hosting != nil {
		s.hosting(&o)
	}
	var err error
	if s.plugins, err = host.New(ctx, o); err != nil {
		return fmt.Errorf("load the plugins: %w", err)
	}
	s.closeLater("plugins", s.plugins.Close)
	for _, p := range s.plugins.Plugins() {
		s.offer(p.Name)
	}
	return nil
}

// ping sends an echo request for a plugin.
func (s *server) ping(ctx context.Context, addr netip.Addr) (broker.Echo, error) {
	rtt, err := s.checks.Ping(ctx, addr)
	return broker.Echo{RTT: rtt, Addr: addr}, err
}

// taken says why a plugin cannot have a name.
func (s *server) taken(name string, _ []string) string {
	switch {
	case s.checks.Builtin(name):
		return fmt.Sprintf("its name %q is that of a built-in kind; a plugin must have another", name)
	case s.alerts.Builtin(name):
		return fmt.Sprintf("its name %q is that of a built-in provider; a plugin must have another", name)
	}
	return ""
}

// changed follows a plugin that changed, and tells who listens.
func (s *server) changed(name string) {
	s.offer(name)
	e := s.feed.Load()
	if e == nil {
		return // while the server starts nobody listens
	}
	p, err := s.plugins.Plugin(name)
	if err != nil {
		p = monitor.InstalledPlugin{Condition: monitor.PluginRemoved}
	}
	e.Publish(engine.MessagePlugin, engine.PluginChange{Name: name, Condition: p.Condition, Why: p.Why, Version: p.Active.Version})
}

// offer makes the kind and the provider of a plugin what the plugin is now.
func (s *server) offer(name string) {
	p, err := s.plugins.Plugin(name)
	if err != nil { // it is gone
		s.checks.Remove(name)
		s.alerts.Remove(name)
		return
	}
	doc := p.Manifest.Summary
	if p.Manifest.Target.Doc != "" {
		doc += ". Target: " + p.Manifest.Target.Doc
	}
	doc += ". A plugin, version " + p.Active.Version + "."
	if p.Manifest.Provided("check") {
		err = errors.Join(err, s.checks.Put(check.DefineRaw(name, doc, p.Manifest.Target.Example, p.Manifest.Config,
			func(target string, _ json.RawMessage) (check.Checker, error) {
				c, err := s.plugins.Checker(name)
				if err != nil {
					return nil, err
				}
				if err := s.plugins.CheckTarget(name, target); err != nil {
					var faults monitor.Faults
					faults.Add("target", sdk.CleanText(target, 100), "cannot be reached by the plugin: %v", err)
					return nil, faults
				}
				s.plugins.Warm(name)
				return c, nil
			})))
	} else {
		s.checks.Remove(name)
	}
	if p.Manifest.Provided("notify") {
		err = errors.Join(err, s.alerts.Put(alert.DefineRaw(name, p.Manifest.Summary+". A plugin, version "+p.Active.Version+".", p.Manifest.Config,
			func(config json.RawMessage) (alert.Notifier, error) { return s.plugins.Notifier(name, config) })))
	} else {
		s.alerts.Remove(name)
	}
	if err != nil {
		s.log.Error("a plugin cannot be offered", "plugin", name, "error", err)
	}
}
