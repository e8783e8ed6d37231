package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Installed is what the service needs of the host to have plugins come and go. What is wrong with an archive is
// monitor.Faults with the field archive, or one of the manifest; a plugin that is not there is monitor.ErrNotFound.
type Installed interface {
	Plugins() []monitor.InstalledPlugin // by name
	Plugin(name string) (monitor.InstalledPlugin, error)
	// Install adds a plugin, or puts another build in the place of one; see monitor.PluginInstall.
	Install(ctx context.Context, archive io.Reader, in monitor.PluginInstall) (monitor.InstalledPlugin, error)
	Remove(ctx context.Context, name string) error
}

// Permitted is what the service needs of the host to say what a plugin may. What cannot be done as things are is
// monitor.ErrConflict; what was asked for wrongly is monitor.Faults with the fields permissions[0] or limits.memory.
type Permitted interface {
	Grant(ctx context.Context, name string, d monitor.PluginDecision) (monitor.InstalledPlugin, error)
	Enable(ctx context.Context, name string) (monitor.InstalledPlugin, error)
	Disable(ctx context.Context, name, reason string) (monitor.InstalledPlugin, error)
	SetLimits(ctx context.Context, name string, l sdk.Limits) (monitor.InstalledPlugin, error)
}

// Plugins is the host of plugins, by area. Its methods are safe for use by many goroutines.
type Plugins interface {
	Installed
	Permitted
}

// PluginLimits is what an operator sets in place of a manifest's limits. A nil field is the manifest's.
type PluginLimits struct {
	Memory      *sdk.Size
	Timeout     *sdk.Duration
	Concurrency *int
}

const (
	// compileTimeout bounds a change that may compile a module, which alone may take a minute.
	compileTimeout = 75 * time.Second
	maxReason      = 200 // characters of why a plugin was disabled
	mostUsers      = 5   // monitors and channels that are named as users of a plugin, each
)

// ListPlugins lists the installed plugins by name.
func (s *Service) ListPlugins(ctx context.Context) ([]monitor.InstalledPlugin, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return nil, err
	}
	return s.opts.Plugins.Plugins(), nil
}

// Plugin returns one installed plugin. The error is monitor.ErrNotFound when there is none with the name.
func (s *Service) Plugin(ctx context.Context, name string) (monitor.InstalledPlugin, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	return s.opts.Plugins.Plugin(name)
}

// PluginInstall is how somebody wants a plugin installed.
type PluginInstall struct {
	Grant        bool // all that its manifest asks for
	AllowPrivate bool // with Grant: what the manifest names may be loopback or private
}

// InstallPlugin installs a plugin, or another build of one, from its archive. Installs wait for each other: compiling takes a
// processor and a good part of the memory. The error is monitor.Faults when the archive is refused, with the field
// allow_private when that is asked for without a grant. It needs an admin.
func (s *Service) InstallPlugin(ctx context.Context, archive io.Reader, in PluginInstall) (monitor.InstalledPlugin, error) {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	if in.AllowPrivate && !in.Grant {
		return monitor.InstalledPlugin{}, monitor.Faults{{Field: "allow_private", Message: "is a part of a grant; it needs grant=true"}}
	}
	wctx, done, err := s.changingPlugin(ctx, compileTimeout)
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	defer done()
	p, err := s.opts.Plugins.Install(wctx, archive, monitor.PluginInstall{Grant: in.Grant, AllowPrivate: in.AllowPrivate, By: who(ctx)})
	if err != nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("install plugin: %w", err)
	}
	s.audit(ctx, "plugin.install", append(aboutPlugin(&p), slog.Bool("grant", in.Grant))...)
	return p, nil
}

// PluginGrant is what somebody wants a plugin to have.
type PluginGrant struct {
	Permissions  []string // as its manifest writes them; nil: all that it asks for
	AllowPrivate bool     // what the manifest names may be loopback or private
	// Digest is of the build that was looked at. The error is monitor.ErrStale when the grant would be for another one; empty:
	// whatever build is there.
	Digest string
}

// GrantPlugin gives a plugin what it asks for or a part of that, and takes away all that was given before. The build that
// waits for a grant is the one that gets it. It needs an admin.
func (s *Service) GrantPlugin(ctx context.Context, name string, in PluginGrant) (monitor.InstalledPlugin, error) {
	return s.changePlugin(ctx, pluginChange{"grant", name, compileTimeout, func(ctx context.Context) (monitor.InstalledPlugin, error) {
		p, err := s.opts.Plugins.Plugin(name)
		if err != nil {
			return p, err
		}
		build := p.Active
		if !p.Pending.IsZero() {
			build = p.Pending
		}
		if in.Digest != "" && in.Digest != build.Digest {
			return p, monitor.ErrStale
		}
		return s.opts.Plugins.Grant(ctx, name, monitor.PluginDecision{
			Permissions: in.Permissions, AllowPrivate: in.AllowPrivate, By: who(ctx),
		})
	}})
}

// EnablePlugin lets a plugin run that was disabled. It needs an admin.
func (s *Service) EnablePlugin(ctx context.Context, name string) (monitor.InstalledPlugin, error) {
	return s.changePlugin(ctx, pluginChange{"enable", name, compileTimeout, func(ctx context.Context) (monitor.InstalledPlugin, error) {
		return s.opts.Plugins.Enable(ctx, name)
	}})
}

// DisablePlugin stops a plugin, whatever it is doing, and waits for no other change. The reason is for people and may be
// empty. Monitors that use it are unknown until it is enabled. It needs an admin.
func (s *Service) DisablePlugin(ctx context.Context, name, reason string) (monitor.InstalledPlugin, error) {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	if err := s.CheckReason(reason).Err(); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	wctx, cancel := writing(ctx)
	defer cancel()
	p, err := s.opts.Plugins.Disable(wctx, name, reason)
	if err != nil {
		return p, fmt.Errorf("disable plugin %s: %w", name, err)
	}
	s.audit(ctx, "plugin.disable", append(aboutPlugin(&p), slog.String("reason", reason))...)
	return p, nil
}

// CheckReason returns what is wrong with the reason for which a plugin is to be disabled.
func (s *Service) CheckReason(reason string) monitor.Faults {
	var faults monitor.Faults
	checkText(&faults, "reason", reason, maxReason)
	return faults
}

// CheckPluginLimits returns what is wrong with limits.
func (s *Service) CheckPluginLimits(in PluginLimits) monitor.Faults {
	var faults monitor.Faults
	if m := in.Memory; m != nil && (*m < sdk.MinMemory || *m > sdk.MaxMemory) {
		faults.Add("limits.memory", m.String(), "must be between %s and %s", sdk.MinMemory, sdk.MaxMemory)
	}
	if d := in.Timeout; d != nil && (*d < sdk.MinTimeout || *d > sdk.MaxTimeout) {
		faults.Add("limits.timeout", d.String(), "must be between %s and %s", sdk.MinTimeout, sdk.MaxTimeout)
	}
	if n := in.Concurrency; n != nil && (*n < sdk.MinConcurrency || *n > sdk.MaxConcurrency) {
		faults.Add("limits.concurrency", *n, "must be between %d and %d", sdk.MinConcurrency, sdk.MaxConcurrency)
	}
	return faults
}

// SetPluginLimits replaces the limits that an operator has set for a plugin. was is what the caller saw: the error is
// monitor.ErrStale when they have changed since. It needs an admin.
func (s *Service) SetPluginLimits(ctx context.Context, name string, was sdk.Limits, in PluginLimits) (monitor.InstalledPlugin, error) {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	if err := s.CheckPluginLimits(in).Err(); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	var limits sdk.Limits
	if in.Memory != nil {
		limits.Memory = *in.Memory
	}
	if in.Timeout != nil {
		limits.Timeout = *in.Timeout
	}
	if in.Concurrency != nil {
		limits.Concurrency = *in.Concurrency
	}
	return s.changePlugin(ctx, pluginChange{"limit", name, writeTimeout, func(ctx context.Context) (monitor.InstalledPlugin, error) {
		p, err := s.opts.Plugins.Plugin(name)
		if err != nil {
			return p, err
		}
		if p.Limits != was {
			return p, monitor.ErrStale
		}
		return s.opts.Plugins.SetLimits(ctx, name, limits)
	}})
}

// RemovePlugin removes a plugin that no monitor and no channel uses; else the error is monitor.ErrConflict and names some
// that do. It needs an admin.
func (s *Service) RemovePlugin(ctx context.Context, name string) error {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return err
	}
	s.settleRest(ctx)
	wctx, done, err := s.changingPlugin(ctx, writeTimeout)
	if err != nil {
		return err
	}
	defer done()
	// A monitor or a channel must not come between the look at who uses the plugin and its end.
	s.channelUse.Lock()
	defer s.channelUse.Unlock()
	p, err := s.opts.Plugins.Plugin(name)
	if err != nil {
		return fmt.Errorf("remove plugin %s: %w", name, err)
	}
	users, err := s.pluginUsers(wctx, name)
	if err != nil {
		return err
	}
	if users != "" {
		return fmt.Errorf("remove plugin %s: it is used by %s: %w", name, users, monitor.ErrConflict)
	}
	if err := s.opts.Plugins.Remove(wctx, name); err != nil {
		return fmt.Errorf("remove plugin %s: %w", name, err)
	}
	s.audit(ctx, "plugin.remove", aboutPlugin(&p)...)
	return nil
}

// pluginUsers names monitors whose kind the plugin is and channels whose provider it is; empty: there are none. Whether its
// newest build provides both does not matter: an older one may have.
func (s *Service) pluginUsers(ctx context.Context, name string) (string, error) {
	page, err := s.opts.Store.ListMonitors(ctx, monitor.Query{Kind: name, Limit: mostUsers + 1})
	if err != nil {
		return "", fmt.Errorf("list the monitors of kind %s: %w", name, err)
	}
	var monitors, channels []string
	for i := range page.Items {
		monitors = append(monitors, page.Items[i].Monitor.Name)
	}
	all, err := s.opts.Store.Channels(ctx)
	if err != nil {
		return "", fmt.Errorf("list channels: %w", err)
	}
	for i := range all {
		if all[i].Provider == name {
			channels = append(channels, all[i].Name)
		}
	}
	slices.Sort(channels)
	var users []string
	for _, u := range []struct {
		what  string
		names []string
	}{{"monitor", monitors}, {"channel", channels}} {
		switch n := len(u.names); {
		case n == 1:
			users = append(users, "the "+u.what+" "+u.names[0])
		case n > mostUsers:
			users = append(users, "the "+u.what+"s "+strings.Join(u.names[:mostUsers], ", ")+" and others")
		case n > 0:
			users = append(users, "the "+u.what+"s "+strings.Join(u.names, ", "))
		}
	}
	return strings.Join(users, " and "), nil
}

// pluginChange is one change to a plugin that is there.
type pluginChange struct {
	verb, name string
	limit      time.Duration // it may take
	make       func(context.Context) (monitor.InstalledPlugin, error)
}

// changePlugin makes a change that needs an admin.
func (s *Service) changePlugin(ctx context.Context, c pluginChange) (monitor.InstalledPlugin, error) {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return monitor.InstalledPlugin{}, err
	}
	wctx, done, err := s.changingPlugin(ctx, c.limit)
	if err != nil {
		return monitor.InstalledPlugin{}, err
	}
	defer done()
	p, err := c.make(wctx)
	if err != nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("%s plugin %s: %w", c.verb, c.name, err)
	}
	s.audit(ctx, "plugin."+c.verb, aboutPlugin(&p)...)
	return p, nil
}

// changingPlugin waits until no other plugin is being changed, as long as the client does. Then the change is no longer given
// up when the client goes away, but after limit; see writing. done ends it.
func (s *Service) changingPlugin(ctx context.Context, limit time.Duration) (changing context.Context, done func(), err error) {
	select {
	case s.pluginTurn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for another plugin to be changed: %w", ctx.Err())
	}
	changing, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	return changing, func() {
		cancel()
		<-s.pluginTurn
	}, nil
}

// who is the name of the principal.
func who(ctx context.Context) string {
	p, _ := PrincipalOf(ctx)
	return p.Name
}

func aboutPlugin(p *monitor.InstalledPlugin) []slog.Attr {
	return []slog.Attr{
		slog.String("name", p.Name), slog.String("version", p.Active.Version), slog.String("digest", p.Active.Digest),
		slog.String("pending", p.Pending.Version), slog.String("condition", string(p.Condition)), slog.Any("granted", p.Grant.Permissions),
		slog.Bool("allow_private", p.Grant.AllowPrivate),
	}
}

// noPlugins stands for the host where there is none.
type noPlugins struct{}

var errNoPlugins = fmt.Errorf("this server takes no plugins: %w", monitor.ErrConflict)

var _ Plugins = noPlugins{}

func (noPlugins) Plugins() []monitor.InstalledPlugin { return nil }

func (noPlugins) Plugin(string) (p monitor.InstalledPlugin, err error) { return p, monitor.ErrNotFound }

func (noPlugins) Install(context.Context, io.Reader, monitor.PluginInstall) (p monitor.InstalledPlugin, err error) {
	return p, errNoPlugins
}

func (noPlugins) Remove(context.Context, string) error { return monitor.ErrNotFound }

func (noPlugins) Grant(context.Context, string, monitor.PluginDecision) (p monitor.InstalledPlugin, err error) {
	return p, monitor.ErrNotFound
}

func (noPlugins) Enable(context.Context, string) (p monitor.InstalledPlugin, err error) {
	return p, monitor.ErrNotFound
}

func (noPlugins) Disable(context.Context, string, string) (p monitor.InstalledPlugin, err error) {
	return p, monitor.ErrNotFound
}

func (noPlugins) SetLimits(context.Context, string, sdk.Limits) (p monitor.InstalledPlugin, err error) {
	return p, monitor.ErrNotFound
}
