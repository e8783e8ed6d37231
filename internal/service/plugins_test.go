package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/testkit/fakehost"
	"github.com/tocsinhq/tocsin/sdk"
)

// userStore knows who uses plugins; the rest of a Store is not there.
type userStore struct {
	Store
	mu       sync.Mutex
	monitors []monitor.Monitor
	channels []monitor.Channel
	err      error
}

func (s *userStore) ListMonitors(_ context.Context, q monitor.Query) (page monitor.Page[monitor.Listed], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.monitors {
		if m.Kind == q.Kind && len(page.Items) < q.Limit {
			page.Items = append(page.Items, monitor.Listed{Monitor: m})
		}
	}
	return page, s.err
}

func (s *userStore) Channels(context.Context) ([]monitor.Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.channels), s.err
}

func pluginService(store *userStore, host Plugins) *Service {
	return &Service{
		opts: Options{Store: store, Plugins: host}, log: slog.New(slog.DiscardHandler), now: time.Now, pluginTurn: make(chan struct{}, 1),
	}
}

func as(ctx context.Context, role monitor.Role) context.Context {
	return WithPrincipal(ctx, Principal{Name: "somebody", Role: role})
}

const redis = `{"api":1,"name":"redis","version":"1.0.0","permissions":[{"allow":"tcp://{target}"}]}`

func TestPluginsNeedRoles(t *testing.T) {
	s := pluginService(&userStore{}, fakehost.New(time.Now))
	if _, err := s.InstallPlugin(admin(t.Context()), strings.NewReader(redis), PluginInstall{}); err != nil {
		t.Fatal(err)
	}
	ignore := func(_ any, err error) error { return err }
	reads := map[string]func(context.Context) error{
		"list": func(ctx context.Context) error { return ignore(s.ListPlugins(ctx)) },
		"get":  func(ctx context.Context) error { return ignore(s.Plugin(ctx, "redis")) },
	}
	writes := map[string]func(context.Context) error{
		"install": func(ctx context.Context) error {
			return ignore(s.InstallPlugin(ctx, strings.NewReader(redis), PluginInstall{Grant: true}))
		},
		"grant":   func(ctx context.Context) error { return ignore(s.GrantPlugin(ctx, "redis", PluginGrant{})) },
		"enable":  func(ctx context.Context) error { return ignore(s.EnablePlugin(ctx, "redis")) },
		"disable": func(ctx context.Context) error { return ignore(s.DisablePlugin(ctx, "redis", "")) },
		"limits": func(ctx context.Context) error {
			return ignore(s.SetPluginLimits(ctx, "redis", sdk.Limits{}, PluginLimits{}))
		},
		"remove": func(ctx context.Context) error { return s.RemovePlugin(ctx, "redis") },
	}
	for name, call := range writes {
		if err := call(t.Context()); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s as nobody: %v", name, err)
		}
		for _, role := range []monitor.Role{monitor.Viewer, monitor.Editor, "root", ""} {
			if err := call(as(t.Context(), role)); !errors.Is(err, ErrForbidden) {
				t.Errorf("%s as %q: %v", name, role, err)
			}
		}
	}
	for name, call := range reads {
		if err := call(t.Context()); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s as nobody: %v", name, err)
		}
		if err := call(as(t.Context(), monitor.Viewer)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, err := s.GrantPlugin(as(t.Context(), monitor.Admin), "redis", PluginGrant{})
	if err != nil || p.Grant.By != "somebody" {
		t.Errorf("granted by %q, %v", p.Grant.By, err)
	}
}

// Changes are made one at a time and outlive the client; but one that waits its turn is given up with the client, and a
// plugin is disabled whatever is going on.
func TestPluginChangesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := fakehost.New(time.Now)
		s := pluginService(&userStore{}, host)
		if _, err := s.InstallPlugin(admin(t.Context()), strings.NewReader(redis), PluginInstall{Grant: true}); err != nil {
			t.Fatal(err)
		}
		compiled := make(chan struct{})
		var mu sync.Mutex
		var done []string
		host.Gate(func(ctx context.Context, doing string) error {
			mu.Lock()
			done = append(done, doing)
			mu.Unlock()
			if doing != "install" {
				return nil
			}
			select {
			case <-compiled:
				return ctx.Err()
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		ctx, gone := context.WithCancel(admin(t.Context()))
		first := make(chan error, 1)
		go func() {
			_, err := s.InstallPlugin(ctx, strings.NewReader(strings.Replace(redis, "1.0.0", "1.1.0", 1)), PluginInstall{})
			first <- err
		}()
		synctest.Wait()
		second := make(chan error, 1)
		go func() {
			_, err := s.GrantPlugin(ctx, "redis", PluginGrant{})
			second <- err
		}()
		synctest.Wait()
		if p, err := s.DisablePlugin(admin(t.Context()), "redis", "now"); err != nil || p.Condition != monitor.PluginDisabled {
			t.Errorf("disabled meanwhile: %v, %v", p.Condition, err)
		}
		gone()
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Errorf("what waited: %v", err)
		}
		synctest.Wait()
		close(compiled)
		if err := <-first; err != nil {
			t.Errorf("what was under way: %v", err)
		}
		if p, err := s.Plugin(admin(t.Context()), "redis"); err != nil || p.Active.Version != "1.1.0" {
			t.Errorf("got %s, %v", p.Active.Version, err)
		}
		// One that does not end is given up, and the next has its turn.
		compiled = make(chan struct{})
		began := time.Now()
		if _, err := s.InstallPlugin(admin(t.Context()), strings.NewReader(redis), PluginInstall{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an end: %v", err)
		}
		if took := time.Since(began); took != compileTimeout {
			t.Errorf("given up after %s", took)
		}
		if _, err := s.EnablePlugin(admin(t.Context()), "redis"); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(done); got != "[install disable install enable]" {
			t.Errorf("the host was asked %s", got)
		}
	})
}

func TestRemovePlugin(t *testing.T) {
	ctx, host, store := admin(t.Context()), fakehost.New(time.Now), &userStore{}
	s := pluginService(store, host)
	if err := s.RemovePlugin(ctx, "redis"); !errors.Is(err, monitor.ErrNotFound) {
		t.Fatalf("none: %v", err)
	}
	if _, err := s.InstallPlugin(ctx, strings.NewReader(redis), PluginInstall{Grant: true}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"the channel c0", "the channels c0, c1", "the channels c0, c1, c2"} {
		store.channels = append(store.channels, monitor.Channel{Name: fmt.Sprintf("c%d", i), Provider: "redis"}, monitor.Channel{Name: "x", Provider: "webhook"})
		err := s.RemovePlugin(ctx, "redis")
		if !errors.Is(err, monitor.ErrConflict) || err.Error() != "remove plugin redis: it is used by "+want+": conflict" {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	store.channels = nil
	// Nobody knows: then it stays.
	store.err = errors.New("the disk is on fire")
	if err := s.RemovePlugin(ctx, "redis"); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("got %v", err)
	}
	store.err = nil
	// A monitor that is being written is waited for.
	s.channelUse.RLock()
	ended := make(chan error, 1)
	go func() { ended <- s.RemovePlugin(ctx, "redis") }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.channelUse.TryRLock() { // until the removal waits for us
		s.channelUse.RUnlock()
		<-tick.C
	}
	store.mu.Lock()
	store.monitors = append(store.monitors, monitor.Monitor{Name: "late", Kind: "redis"})
	store.mu.Unlock()
	s.channelUse.RUnlock()
	if err := <-ended; !errors.Is(err, monitor.ErrConflict) || !strings.Contains(err.Error(), "the monitor late") {
		t.Errorf("got %v", err)
	}
	store.monitors = nil
	if err := s.RemovePlugin(ctx, "redis"); err != nil {
		t.Error(err)
	}
}

func TestPluginInput(t *testing.T) {
	ctx, host := admin(t.Context()), fakehost.New(time.Now)
	s := pluginService(&userStore{}, host)
	field := func(err error) string {
		var faults monitor.Faults
		if errors.As(err, &faults) && len(faults) == 1 {
			return faults[0].Field
		}
		return fmt.Sprint(err)
	}
	if _, err := s.InstallPlugin(ctx, strings.NewReader(redis), PluginInstall{AllowPrivate: true}); field(err) != "allow_private" {
		t.Errorf("private without a grant: %v", err)
	}
	if _, err := s.InstallPlugin(ctx, strings.NewReader("x"), PluginInstall{}); field(err) != "archive" {
		t.Errorf("no archive: %v", err)
	}
	if _, err := s.InstallPlugin(ctx, strings.NewReader(redis), PluginInstall{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DisablePlugin(ctx, "redis", "a\x1b[31m"); field(err) != "reason" {
		t.Errorf("reason: %v", err)
	}
	if _, err := s.GrantPlugin(ctx, "redis", PluginGrant{Permissions: []string{"tcp://{target}", "x"}}); field(err) != "permissions[1]" {
		t.Errorf("permissions: %v", err)
	}
	memory, none := sdk.Size(1), 0
	for want, in := range map[string]PluginLimits{"limits.memory": {Memory: &memory}, "limits.concurrency": {Concurrency: &none}} {
		if _, err := s.SetPluginLimits(ctx, "redis", sdk.Limits{}, in); field(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := s.SetPluginLimits(ctx, "redis", sdk.Limits{Concurrency: 3}, PluginLimits{}); !errors.Is(err, monitor.ErrStale) {
		t.Errorf("limits that somebody else changed: %v", err)
	}
}

func TestServerWithoutPlugins(t *testing.T) {
	ctx, s := admin(t.Context()), pluginService(&userStore{}, noPlugins{})
	if all, err := s.ListPlugins(ctx); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
	if _, err := s.InstallPlugin(ctx, strings.NewReader(redis), PluginInstall{}); !errors.Is(err, monitor.ErrConflict) {
		t.Errorf("install: %v", err)
	}
	_, grant := s.GrantPlugin(ctx, "redis", PluginGrant{})
	_, enable := s.EnablePlugin(ctx, "redis")
	_, disable := s.DisablePlugin(ctx, "redis", "")
	_, get := s.Plugin(ctx, "redis")
	for _, err := range []error{grant, enable, disable, get, s.RemovePlugin(ctx, "redis")} {
		if !errors.Is(err, monitor.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
}
