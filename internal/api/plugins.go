package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// Plugin is an installed plugin as answers have it.
type Plugin struct {
	Name        string                `json:"name" doc:"The kind, the provider or both that it gives."`
	Version     string                `json:"version" doc:"Of the build that runs."`
	Summary     string                `json:"summary"`
	License     string                `json:"license" doc:"SPDX identifier; empty when its manifest has none."`
	Runtime     string                `json:"runtime" doc:"wasm: in the sandbox; process: a program of its own."`
	Provides    []string              `json:"provides" nullable:"false" doc:"check, notify or both."`
	Target      PluginTarget          `json:"target" doc:"What a monitor's target looks like."`
	Condition   string                `json:"condition" enum:"ready,waiting,disabled,broken" doc:"waiting: nobody has granted it yet. disabled: by an operator, or because it had to be stopped again and again. broken: its files, its compilation or the sandbox failed."`
	Why         *string               `json:"why" doc:"What keeps it from being ready, and the remedy; null when it is."`
	Asks        []PluginAsk           `json:"asks" nullable:"false" doc:"What the build that runs asks to reach. It reaches nothing else."`
	Grant       orNull[PluginGrant]   `json:"grant" doc:"What it was granted; null: nobody has decided yet."`
	Pending     orNull[PluginPending] `json:"pending" doc:"The build that runs once it is granted; null when none waits."`
	Limits      PluginLimits          `json:"limits"`
	Sandbox     PluginSandbox         `json:"sandbox"`
	Usage       PluginUsage           `json:"usage" doc:"Since the server started."`
	Digest      string                `json:"digest" doc:"SHA-256 of the files of the build that runs."`
	InstalledAt time.Time             `json:"installed_at"`
	UpdatedAt   time.Time             `json:"updated_at"`
}

// PluginTarget is what a monitor's target looks like.
type PluginTarget struct {
	Example string `json:"example" doc:"Empty when its manifest has none."`
	Doc     string `json:"doc"`
}

// PluginAsk is one permission that a build asks for.
type PluginAsk struct {
	Allow   string `json:"allow" doc:"As its manifest writes it." example:"tcp://{target}"`
	Words   string `json:"words" doc:"The same for a person."`
	Reason  string `json:"reason" doc:"Why, says its author."`
	Granted bool   `json:"granted"`
}

// PluginGrant is what an operator granted.
type PluginGrant struct {
	Permissions  []string  `json:"permissions" nullable:"false"`
	AllowPrivate bool      `json:"allow_private" doc:"What the manifest itself names may be loopback or private."`
	At           time.Time `json:"at"`
	By           string    `json:"by" doc:"The name of the token."`
}

// PluginPending is a build that waits for its grant.
type PluginPending struct {
	Version string      `json:"version"`
	Digest  string      `json:"digest"`
	Asks    []PluginAsk `json:"asks" nullable:"false"`
}

// PluginLimits is what bounds a plugin.
type PluginLimits struct {
	Memory      size     `json:"memory" doc:"Of one instance."`
	Timeout     duration `json:"timeout" doc:"The longest time of one call."`
	Concurrency int      `json:"concurrency" doc:"Calls at the same time."`
	Set         []string `json:"set" nullable:"false" enum:"memory,timeout,concurrency" doc:"Which of them an operator set; the others are the manifest's."`
}

// PluginSandbox is the wall around a plugin's process.
type PluginSandbox struct {
	Layers   []SandboxLayer `json:"layers" nullable:"false" doc:"As its last process reported them; empty before its first start."`
	Degraded bool           `json:"degraded" doc:"It runs although a required layer is missing, because the server's settings allow it."`
}

// SandboxLayer is one part of the wall.
type SandboxLayer struct {
	Name   string `json:"name"`
	Holds  bool   `json:"holds"`
	Detail string `json:"detail" doc:"Why it does not hold, or how it does."`
}

// PluginUsage is what a plugin did and used.
type PluginUsage struct {
	Calls          uint64 `json:"calls" doc:"That ended, whatever came of them."`
	Failures       uint64 `json:"failures" doc:"Calls that answered with an error, crashed, or answered nonsense."`
	Kills          uint64 `json:"kills" doc:"Times that a process had to be killed."`
	Starts         uint64 `json:"starts" doc:"Times that a process was started."`
	Running        int    `json:"running" doc:"Calls under way."`
	Runners        int    `json:"runners" doc:"Processes."`
	LatencyUSTotal int64  `json:"latency_us_total" doc:"Of all calls together."`
	CPUMS          int64  `json:"cpu_ms" doc:"Processor time of all its processes, in milliseconds."`
	MemoryBytes    int64  `json:"memory_bytes" doc:"Resident, of its processes."`
	BytesRead      uint64 `json:"bytes_read" doc:"From the network."`
	BytesWritten   uint64 `json:"bytes_written" doc:"To the network."`
	Denied         uint64 `json:"denied" doc:"Connections that were refused."`
}

func asksOf(asks []monitor.PluginAsk) []PluginAsk {
	list := make([]PluginAsk, len(asks))
	for i, a := range asks {
		list[i] = PluginAsk{Allow: a.Allow, Words: a.Words, Reason: a.Reason, Granted: a.Granted}
	}
	return list
}

func pluginOf(p *monitor.InstalledPlugin) Plugin {
	m := &p.Manifest
	out := Plugin{
		Name: p.Name, Version: p.Active.Version, Summary: m.Summary, License: m.License, Runtime: m.Runtime,
		Provides: append([]string{}, m.Provides...), Target: PluginTarget{Example: m.Target.Example, Doc: m.Target.Doc},
		Condition: string(p.Condition), Why: textOrNil(p.Why), Asks: asksOf(p.Asks), Digest: p.Active.Digest,
		Limits: PluginLimits{
			Memory: size(p.InForce.Memory.String()), Timeout: duration(p.InForce.Timeout.String()), Concurrency: p.InForce.Concurrency,
			Set: []string{},
		},
		Sandbox:     PluginSandbox{Layers: make([]SandboxLayer, len(p.Sandbox)), Degraded: p.Degraded},
		InstalledAt: p.InstalledAt.UTC(), UpdatedAt: p.UpdatedAt.UTC(),
	}
	if g := p.Grant; g.Digest != "" {
		out.Grant.is = &PluginGrant{
			Permissions: append([]string{}, g.Permissions...), AllowPrivate: g.AllowPrivate, At: g.At.UTC(), By: g.By,
		}
	}
	if !p.Pending.IsZero() {
		out.Pending.is = &PluginPending{Version: p.Pending.Version, Digest: p.Pending.Digest, Asks: asksOf(p.PendingAsks)}
	}
	for _, limit := range []struct {
		name string
		set  bool
	}{{"memory", p.Limits.Memory != 0}, {"timeout", p.Limits.Timeout != 0}, {"concurrency", p.Limits.Concurrency != 0}} {
		if limit.set {
			out.Limits.Set = append(out.Limits.Set, limit.name)
		}
	}
	for i, l := range p.Sandbox {
		out.Sandbox.Layers[i] = SandboxLayer{Name: l.Name, Holds: l.Holds, Detail: l.Detail}
	}
	u := &p.Usage
	out.Usage = PluginUsage{
		Calls: u.Calls, Failures: u.Failures, Kills: u.Kills, Starts: u.Starts, Running: u.Running, Runners: u.Runners,
		LatencyUSTotal: u.Latency.Microseconds(), CPUMS: u.CPU.Milliseconds(), MemoryBytes: u.Memory,
		BytesRead: u.BytesRead, BytesWritten: u.BytesWritten, Denied: u.Denied,
	}
	return out
}

// PluginGrantSpec is what a person writes to grant.
type PluginGrantSpec struct {
	Permissions  []string `json:"permissions,omitempty" nullable:"false" doc:"Some of those that it asks for, as its manifest writes them, or parts of them; [] grants none. Left out: all." example:"[\"tcp://{target}\"]"`
	AllowPrivate bool     `json:"allow_private,omitempty" doc:"What the manifest itself names may be loopback or private. What is entered as a target or in a config may be in any case."`
	Digest       string   `json:"digest,omitempty" doc:"Of the build that you looked at: 412 when the grant would be for another one. Left out: whatever build waits, or runs."`
}

// PluginDisableSpec is what a person writes to disable.
type PluginDisableSpec struct {
	Reason string `json:"reason,omitempty" maxLength:"200" doc:"For people; one line."`
}

// PluginSpec is what a person sets of a plugin.
type PluginSpec struct {
	Limits PluginLimitsSpec `json:"limits,omitempty" doc:"Left out: the manifest's."`
}

// PluginLimitsSpec is what a person sets in place of the manifest's limits.
type PluginLimitsSpec struct {
	Memory      *size     `json:"memory,omitempty" doc:"Of one instance: 1MiB to 1GiB."`
	Timeout     *duration `json:"timeout,omitempty" doc:"The longest time of one call: 100ms to 5m."`
	Concurrency *int      `json:"concurrency,omitempty" doc:"Calls at the same time: 1 to 64."`
}

func (s *PluginSpec) input(faults *[]Fault) service.PluginLimits {
	return service.PluginLimits{
		Memory: s.Limits.Memory.read("body.limits.memory", faults), Concurrency: s.Limits.Concurrency,
		Timeout: (*sdk.Duration)(s.Limits.Timeout.read("body.limits.timeout", faults)),
	}
}

// limitsSpec is what a person would have written to have the limits as an operator set them.
func limitsSpec(l sdk.Limits) PluginSpec {
	var s PluginSpec
	if l.Memory != 0 {
		memory := size(l.Memory.String())
		s.Limits.Memory = &memory
	}
	if l.Timeout != 0 {
		timeout := duration(l.Timeout.String())
		s.Limits.Timeout = &timeout
	}
	if l.Concurrency != 0 {
		s.Limits.Concurrency = &l.Concurrency
	}
	return s
}

// size is a number of bytes on the wire: "32MiB".
type size string

const (
	sizePattern = `^[0-9]+(B|KiB|MiB|GiB)$`
	sizeWords   = "a size such as 32MiB (units B, KiB, MiB, GiB)"
)

// Schema describes a size.
func (size) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: sizePattern, PatternDescription: sizeWords, Examples: []any{"32MiB"}}
}

// read adds a fault when there are more bytes than can be counted.
func (s *size) read(field string, faults *[]Fault) *sdk.Size {
	if s == nil {
		return nil
	}
	parsed, err := sdk.ParseSize(string(*s))
	if err != nil {
		*faults = append(*faults, Fault{Location: field, Message: "must be " + sizeWords, Value: string(*s)})
		return nil
	}
	return &parsed
}

type (
	pluginsOut struct{ Body page[Plugin] }
	pluginOut  struct{ Body Plugin }
	installed  struct {
		Location string `header:"Location"`
		Body     Plugin
	}
	installIn struct {
		StrictQuery
		Grant        bool `query:"grant" doc:"Grant all that its manifest asks for."`
		AllowPrivate bool `query:"allow_private" doc:"With grant: what the manifest itself names may be loopback or private."`
	}
)

func (a *API) pluginRoutes() {
	handle(a, route{
		id: "list-plugins", method: http.MethodGet, path: "/plugins", tag: "plugins", role: monitor.Viewer,
		summary: "List the installed plugins",
	}, func(ctx context.Context, _ *anything) (*pluginsOut, error) {
		found, err := a.svc.ListPlugins(ctx)
		if err != nil {
			return nil, err
		}
		return &pluginsOut{pageOf(found, "", pluginOf)}, nil
	})
	handle(a, route{
		id: "install-plugin", method: http.MethodPost, path: "/plugins", tag: "plugins", role: monitor.Admin, status: http.StatusCreated,
		summary: "Install a plugin, or another build of one", archive: true,
		description: "The body is the archive itself, a tar.gz of at most 64 MiB. Without grant the plugin waits until it is granted; " +
			"a newer build of one that asks for more waits, and the older one stays. Compiling may take a minute.",
	}, a.installPlugin)
	handle(a, route{
		id: "get-plugin", method: http.MethodGet, path: "/plugins/{name}", tag: "plugins", role: monitor.Viewer,
		summary: "Show one plugin: what it asked for, what it got, and what it uses",
	}, func(ctx context.Context, in *byName) (*pluginOut, error) {
		return pluginAnswer(a.svc.Plugin(ctx, in.Name))
	})
	handle(a, route{
		id: "patch-plugin", method: http.MethodPatch, path: "/plugins/{name}", tag: "plugins", role: monitor.Admin,
		summary: "Set the limits of a plugin", body: reflect.TypeFor[PluginSpec](), types: []string{patchType},
		description: "A merge patch (RFC 7396): null takes a limit back to the manifest's.",
	}, a.patchPlugin)
	handle(a, route{
		id: "delete-plugin", method: http.MethodDelete, path: "/plugins/{name}", tag: "plugins", role: monitor.Admin,
		summary: "Remove a plugin", description: "409 while monitors or channels use it.",
	}, func(ctx context.Context, in *byName) (*nothing, error) {
		return nil, a.svc.RemovePlugin(ctx, in.Name)
	})
	handle(a, route{
		id: "grant-plugin", method: http.MethodPost, path: "/plugins/{name}/grant", tag: "plugins", role: monitor.Admin,
		summary: "Grant what a plugin asks for, or a part of it", body: reflect.TypeFor[PluginGrantSpec](), optional: true,
		description: "Takes the place of what was granted before. The build that waits for a grant runs from then on. " +
			"Without a body all is granted that it asks for, and nothing private.",
	}, a.grantPlugin)
	handle(a, route{
		id: "enable-plugin", method: http.MethodPost, path: "/plugins/{name}/enable", tag: "plugins", role: monitor.Admin,
		summary: "Let a plugin run that was disabled",
	}, func(ctx context.Context, in *byName) (*pluginOut, error) {
		return pluginAnswer(a.svc.EnablePlugin(ctx, in.Name))
	})
	handle(a, route{
		id: "disable-plugin", method: http.MethodPost, path: "/plugins/{name}/disable", tag: "plugins", role: monitor.Admin,
		summary: "Stop a plugin until it is enabled", body: reflect.TypeFor[PluginDisableSpec](), optional: true,
		description: "Monitors that use it are unknown until then, and notifications wait.",
	}, a.disablePlugin)
}

// pluginAnswer is the answer with a plugin, when there was no error.
func pluginAnswer(p monitor.InstalledPlugin, err error) (*pluginOut, error) {
	if err != nil {
		return nil, err
	}
	return &pluginOut{pluginOf(&p)}, nil
}

func (a *API) installPlugin(ctx context.Context, in *installIn) (*installed, error) {
	p, err := a.svc.InstallPlugin(ctx, archiveOf(ctx), service.PluginInstall{Grant: in.Grant, AllowPrivate: in.AllowPrivate})
	if err != nil {
		return nil, archiveFaults(err)
	}
	return &installed{Location: prefix + "/plugins/" + p.Name, Body: pluginOf(&p)}, nil
}

// archiveFaults says where the faults that err may be lie: the archive is the body. Other errors pass.
func archiveFaults(err error) error {
	var faults monitor.Faults
	if !errors.As(err, &faults) {
		return err
	}
	found := faultsIn("body", faults)
	for i := range found {
		switch rest, inside := strings.CutPrefix(faults[i].Field, "archive"); {
		case faults[i].Field == "allow_private":
			found[i].Location = "query.allow_private"
		case inside:
			found[i].Location = "body" + rest
		}
	}
	return invalid(found)
}

func (a *API) grantPlugin(ctx context.Context, in *byName) (*pluginOut, error) {
	if _, err := a.svc.Plugin(ctx, in.Name); err != nil {
		return nil, err // 404 comes before 422
	}
	d, err := decode[PluginGrantSpec](ctx, a)
	if err != nil {
		return nil, err
	}
	if len(d.Faults) > 0 {
		return nil, invalid(d.Faults)
	}
	return pluginAnswer(a.svc.GrantPlugin(ctx, in.Name, service.PluginGrant{
		Permissions: d.Value.Permissions, AllowPrivate: d.Value.AllowPrivate, Digest: d.Value.Digest,
	}))
}

func (a *API) disablePlugin(ctx context.Context, in *byName) (*pluginOut, error) {
	if _, err := a.svc.Plugin(ctx, in.Name); err != nil {
		return nil, err
	}
	d, err := decode[PluginDisableSpec](ctx, a)
	if err != nil {
		return nil, err
	}
	if len(d.Faults) > 0 {
		d.also(faultsIn("body", a.svc.CheckReason(d.Value.Reason)))
		return nil, invalid(d.Faults)
	}
	return pluginAnswer(a.svc.DisablePlugin(ctx, in.Name, d.Value.Reason))
}

func (a *API) patchPlugin(ctx context.Context, in *byName) (*pluginOut, error) {
	for try := 1; ; try++ {
		p, err := a.svc.Plugin(ctx, in.Name)
		if err != nil {
			return nil, err
		}
		d, err := patched(ctx, a, limitsSpec(p.Limits))
		if err != nil {
			return nil, err
		}
		limits := d.Value.input(&d.Faults)
		if len(d.Faults) > 0 {
			d.also(faultsIn("body", a.svc.CheckPluginLimits(limits)))
			return nil, invalid(d.Faults)
		}
		p, err = a.svc.SetPluginLimits(ctx, in.Name, p.Limits, limits)
		if errors.Is(err, monitor.ErrStale) && try < patchTries {
			continue
		}
		return pluginAnswer(p, err)
	}
}
