package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Plugins keeps which plugins are installed.
type Plugins interface {
	Plugins(ctx context.Context) ([]monitor.Plugin, error)
	PutPlugin(ctx context.Context, p monitor.Plugin) error
	DeletePlugin(ctx context.Context, name string) error
}

func testPlugins(t *testing.T, b *bench) {
	ctx := t.Context()
	all := func(want ...monitor.Plugin) {
		t.Helper()
		got, err := b.Plugins(ctx)
		no(t, err)
		same(t, got, want)
	}
	all()
	is(t, b.DeletePlugin(ctx, "redis"), monitor.ErrNotFound)
	if err := b.PutPlugin(ctx, monitor.Plugin{}); err == nil {
		t.Fatal("a plugin without a name was stored")
	}

	full := monitor.Plugin{
		Name: "redis", Active: monitor.Build{Version: "1.2.0", Digest: "aa"}, Pending: monitor.Build{Version: "1.3.0-rc.1+x", Digest: "bb"},
		Grant: monitor.PluginGrant{
			Digest: "aa", Permissions: []string{"tcp://{target}", `https://*.example.com:443,8443`, `"'; --`}, AllowPrivate: true,
			At: b.now().Add(-time.Hour), By: "Ünï",
		},
		Limits:   sdk.Limits{Memory: sdk.MaxMemory, Timeout: sdk.Duration(1500*time.Millisecond + 7), Concurrency: 64},
		Disabled: true, DisabledReason: "it had to be stopped again and again", InstalledAt: b.now(), UpdatedAt: b.now().Add(time.Second),
	}
	bare := monitor.Plugin{Name: "ntp", Active: monitor.Build{Version: "0.0.1", Digest: "cc"}, InstalledAt: b.now(), UpdatedAt: b.now()}
	no(t, b.PutPlugin(ctx, full))
	no(t, b.PutPlugin(ctx, bare))
	all(bare, full) // by name
	b.restart(t)
	all(bare, full)

	// What replaces a plugin replaces all of it: no part of the old grant stays.
	replaced := monitor.Plugin{
		Name: "redis", Active: full.Pending, Grant: monitor.PluginGrant{Digest: "bb", At: b.now(), By: "ops"},
		InstalledAt: full.InstalledAt, UpdatedAt: b.now().Add(time.Minute),
	}
	no(t, b.PutPlugin(ctx, replaced))
	all(bare, replaced)
	no(t, b.DeletePlugin(ctx, "ntp"))
	is(t, b.DeletePlugin(ctx, "ntp"), monitor.ErrNotFound)
	is(t, b.DeletePlugin(ctx, "REDIS"), monitor.ErrNotFound)
	all(replaced)
	b.restart(t)
	all(replaced)
	no(t, b.DeletePlugin(ctx, "redis"))
	all()
}
