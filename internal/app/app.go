// Package app puts the server together and takes it apart again: settings in, a running engine with its store and its faces
// out. It is the only package that knows all others, and a whole server can run inside a test.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host"
	"github.com/tocsinhq/tocsin/internal/api"
	"github.com/tocsinhq/tocsin/internal/config"
	"github.com/tocsinhq/tocsin/internal/logs"
	"github.com/tocsinhq/tocsin/internal/seal"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/store"
)

// Options is what Run needs of the process.
type Options struct {
	Settings config.Settings
	Stdout   io.Writer // what a person is to read: the first token, the demo's words
	Stderr   io.Writer // the log
	Version  string
	// Program is the command that the processes of plugins are started with; nil is this executable.
	Program []string
	// Ready is called once the server listens; nil is fine.
	Ready func(Running)
	// For tests: hosting changes how plugins are run, and bundled is where the demo finds archives of plugins instead of beside
	// this program. Neither needs to be set.
	hosting func(*host.Options)
	bundled string
}

// Running is a server that has started.
type Running struct {
	URL   string // where it is reached from this machine: http://127.0.0.1:8080
	Token string // the token that this start made or was given; empty when there was one already
}

// server is one run.
type server struct {
	Options
	log      *slog.Logger
	lines    *logs.Log
	store    *store.Store
	checks   *check.Registry
	alerts   *alert.Registry
	plugins  *host.Host
	engine   *engine.Engine
	feed     atomic.Pointer[engine.Engine] // engine, once it is there: plugins can change before
	service  *service.Service
	api      *api.API
	front    *front
	requests atomic.Int64
	closers  []closer
}

// closer takes apart what was built. The closers run in reverse order.
type closer struct {
	name  string
	close func(context.Context) error
}

func (s *server) closeLater(name string, f func(context.Context) error) {
	s.closers = append(s.closers, closer{name, f})
}

// minClose is the time that closing gets even when draining used up its own: the store's queue must reach the disk.
const minClose = 2 * time.Second

// Run builds the server, runs it until ctx ends, drains it and takes it apart. It returns nil after an orderly end.
func Run(ctx context.Context, o Options) (err error) {
	s := &server{Options: o}
	s.openLog()
	var deadline time.Time
	defer func() {
		if deadline.Before(time.Now().Add(minClose)) {
			deadline = time.Now().Add(minClose)
		}
		closeCtx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
		for i := len(s.closers) - 1; i >= 0; i-- {
			if closeErr := s.closers[i].close(closeCtx); closeErr != nil {
				err = errors.Join(err, fmt.Errorf("close %s: %w", s.closers[i].name, closeErr))
			}
		}
		if err == nil {
			s.log.Info("stopped")
		}
	}()
	s.log.Info("starting", "version", o.Version, "data", o.Settings.Data)
	s.raiseFileLimit()
	if err := s.build(ctx); err != nil {
		return err
	}
	if err := s.listen(ctx); err != nil {
		return err
	}
	deadline, err = s.run(ctx)
	return err
}

// openLog makes the log: lines go to stderr, to the ring that the API shows and, once there is one, to the store.
func (s *server) openLog() {
	opts := &slog.HandlerOptions{Level: s.Settings.LogLevel}
	var next slog.Handler = slog.NewTextHandler(s.Stderr, opts)
	if s.Settings.LogFormat == "json" {
		next = slog.NewJSONHandler(s.Stderr, opts)
	}
	s.lines = logs.New(logs.Options{Next: next})
	s.log = slog.New(s.lines)
}

// storeMark is in every line that the store writes. Such lines are not stored: a store in trouble would feed itself.
const storeMark = `"part":"store"`

func (s *server) build(ctx context.Context) error {
	set := &s.Settings
	if err := os.MkdirAll(set.Data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	unlock, err := lockDatabase(s.databaseFile())
	if err != nil {
		return err
	}
	s.closeLater("lock of the database", func(context.Context) error { return unlock() })
	sealer, err := s.openSeal()
	if err != nil {
		return err
	}
	s.store, err = store.Open(ctx, set.DSN(), store.Options{
		Sealer: sealer, Log: s.log.With("part", "store"),
		PruneEvery: set.PruneEvery, KeepSamples: set.KeepSamples, KeepHours: set.KeepHourly,
		KeepEvents: set.KeepEvents, KeepLogLines: set.KeepLogLines, KeepDeliveries: set.KeepOutbox,
	})
	if errors.Is(err, seal.ErrWrongKey) {
		return fmt.Errorf("%w: put back the %s that was in %s when the database was made, or set TOCSIN_SECRET_KEY to it", err, seal.KeyFile, set.Data)
	}
	if err != nil {
		return err
	}
	s.closeLater("store", s.store.Close)

	watchdog := engine.NewWatchdog()
	agent := "Tocsin/" + s.Version
	s.checks = check.NewRegistry(check.Options{
		Policy: netpolicy.Policy{Allow: set.CheckAllow, Setting: "checks.allow_addresses"},
		Log:    s.log, UserAgent: agent, Gapped: watchdog.Gapped,
	})
	s.closeLater("checks", func(context.Context) error { return s.checks.Close() })
	s.alerts, err = alert.NewRegistry(alert.Options{
		Policy: netpolicy.Policy{Allow: set.AlertAllow, Setting: "alerts.allow_addresses"}, UserAgent: agent,
	})
	if err != nil {
		return fmt.Errorf("load the providers: %w", err)
	}
	if err := s.openPlugins(ctx); err != nil {
		return err
	}
	s.checkLimits()
	s.engine, err = engine.New(engine.Options{
		Store: s.store, Outbox: s.store, Checks: check.NewLate(s.checks), Alerts: s.alerts, Log: s.log,
		PublicURL: strings.TrimRight(set.PublicURL, "/"), Workers: set.Workers, KindLimits: set.KindLimits,
		Watchdog: watchdog, DrainTimeout: set.DrainTimeout * 2 / 3,
	})
	if err != nil {
		return err
	}
	s.feed.Store(s.engine)
	s.lines.Attach(func(l monitor.LogLine) bool {
		s.engine.Publish("log", l)
		return strings.Contains(l.Attrs, storeMark) || s.store.AppendLog(l)
	})
	s.service, err = service.New(service.Options{
		Store: s.store, Engine: s.engine, Kinds: s.checks, Providers: s.alerts, Plugins: s.plugins, Ring: s.lines, Log: s.log,
		PublicURL: strings.TrimRight(set.PublicURL, "/"), Version: s.Version, Figures: s.figures,
	})
	if err != nil {
		return err
	}
	proxies := make([]string, len(set.TrustedProxies))
	for i, p := range set.TrustedProxies {
		proxies[i] = p.String()
	}
	s.api, err = api.New(api.Options{Service: s.service, Log: s.log, TrustedProxies: proxies})
	return err
}

// databaseFile is the path in the DSN.
func (s *server) databaseFile() string { return strings.TrimPrefix(s.Settings.DSN(), "file:") }

// openSeal opens the key that seals secrets. A new one is made for a new database only: beside an old one it would open
// nothing, and hide that the right one is missing.
func (s *server) openSeal() (*seal.Sealer, error) {
	set := &s.Settings
	_, keyErr := os.Stat(filepath.Join(set.Data, seal.KeyFile))
	database, err := os.Stat(s.databaseFile())
	if set.SecretKey == "" && errors.Is(keyErr, os.ErrNotExist) && err == nil && database.Size() > 0 {
		return nil, fmt.Errorf("the database %s is there, but not the key %s that opens its secrets: put your copy of it into %s, or set TOCSIN_SECRET_KEY",
			s.databaseFile(), seal.KeyFile, set.Data)
	}
	sealer, err := seal.Open(set.Data, string(set.SecretKey))
	if err != nil {
		return nil, fmt.Errorf("open the key that seals secrets: %w", err)
	}
	return sealer, nil
}

// checkLimits warns of limits for kinds that are not there: they may be those of plugins that are not installed yet.
func (s *server) checkLimits() {
	for _, kind := range slices.Sorted(maps.Keys(s.Settings.KindLimits)) {
		if _, ok := s.checks.Kind(kind); !ok {
			s.log.Warn("checks.kind_limits names a kind that is not there; the limit counts once a plugin of that name is installed", "kind", kind)
		}
	}
}

// run runs all parts until ctx ends or one of them fails, then drains. It returns until when closing may take.
func (s *server) run(ctx context.Context) (deadline time.Time, err error) {
	minted, err := s.service.SeedAdmin(ctx, string(s.Settings.AdminToken))
	if err != nil {
		return time.Time{}, fmt.Errorf("set up the first administrator: %w", err)
	}
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	group, groupCtx := errgroup.WithContext(engineCtx)
	group.Go(func() error { return s.engine.Run(groupCtx) })
	select { // who asks before is answered after: what the API shows is then complete
	case <-s.engine.Loaded():
	case <-groupCtx.Done():
	case <-ctx.Done():
	}
	s.front.serve(group)
	if s.Settings.Demo {
		demo, err := s.startDemo(groupCtx, &minted)
		if err != nil {
			stopEngine()
			return time.Time{}, errors.Join(err, s.front.close(), group.Wait())
		}
		group.Go(func() error { return demo.run(groupCtx) })
	} else if minted != "" {
		s.greet(minted)
	}
	s.log.Info("listening", "url", s.front.url(), "workers", cmp.Or(s.Settings.Workers, engine.DefaultWorkers))
	if s.Ready != nil {
		s.Ready(Running{URL: s.front.url(), Token: minted})
	}

	select {
	case <-ctx.Done():
	case <-groupCtx.Done():
		s.log.Error("a part of the server failed, so it stops")
	}
	began := time.Now()
	deadline = began.Add(s.Settings.DrainTimeout)
	stats := s.engine.Stats()
	s.log.Info("stopping", "within", s.Settings.DrainTimeout.String(), "requests", s.requests.Load(),
		"checks", stats.Running, "deliveries", stats.Delivery.InFlight, "unrecorded", stats.Unrecorded)
	s.api.Close()
	stopEngine()
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	s.front.shut(ctx, began.Add(s.Settings.DrainTimeout*2/3)) // beside the engine; the rest is the store's
	front := time.Now()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case err = <-ended:
	case <-timer.C:
		stats = s.engine.Stats()
		s.log.Error("the drain timeout is over and something still runs",
			"checks", stats.Running, "deliveries", stats.Delivery.InFlight, "unrecorded", stats.Unrecorded)
		return deadline, fmt.Errorf("the engine did not end within %s", s.Settings.DrainTimeout)
	}
	s.log.Info("drained", "requests_took", front.Sub(began).Round(time.Millisecond).String(), "all_took", time.Since(began).Round(time.Millisecond).String())
	return deadline, err
}

// greet shows the first administrator's token, the only time that anybody can see it.
func (s *server) greet(token string) {
	fmt.Fprintf(s.Stdout, `The first administrator's token, shown only now:

  export TOCSIN_URL=%[1]s
  export TOCSIN_TOKEN=%[2]s
  curl -H "Authorization: Bearer $TOCSIN_TOKEN" $TOCSIN_URL/api/v1/monitors

`, s.front.url(), token)
}
