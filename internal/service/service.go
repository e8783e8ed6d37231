// Package service is what a user can do: it validates, authorises, notes who changed what, and then calls the store and the
// engine. The faces call it and each other never; a rule that is here is nowhere else.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Monitors is what the service needs of the store to keep monitors.
type Monitors interface {
	CreateMonitor(ctx context.Context, m *monitor.Monitor) error
	UpdateMonitor(ctx context.Context, m *monitor.Monitor) error
	// DeleteMonitor records last, the end of an open outage, in the same transaction; nil when there is none.
	DeleteMonitor(ctx context.Context, id string, last *monitor.Transition) error
	Monitor(ctx context.Context, id string) (monitor.Monitor, error)
	MonitorByName(ctx context.Context, name string) (monitor.Monitor, error)
	ListMonitors(ctx context.Context, q monitor.Query) (monitor.Page[monitor.Listed], error)
}

// Channels is what the service needs of the store to keep channels.
type Channels interface {
	CreateChannel(ctx context.Context, c *monitor.Channel) error
	UpdateChannel(ctx context.Context, c *monitor.Channel) error
	DeleteChannel(ctx context.Context, id string) error
	Channel(ctx context.Context, id string) (monitor.Channel, error)
	ChannelByName(ctx context.Context, name string) (monitor.Channel, error)
	Channels(ctx context.Context) ([]monitor.Channel, error)
}

// Tokens is what the service needs of the store to keep API tokens.
type Tokens interface {
	CreateToken(ctx context.Context, t *monitor.Token) error
	Tokens(ctx context.Context) ([]monitor.Token, error)
	DeleteToken(ctx context.Context, id string) error
	TokenByHash(ctx context.Context, hash []byte) (monitor.Token, error)
	TouchToken(id string, at time.Time) bool
}

// History is what the service needs of the store to tell what has been.
type History interface {
	Incidents(ctx context.Context, q monitor.IncidentQuery) (monitor.Page[monitor.Incident], error)
	Incident(ctx context.Context, id string) (monitor.Incident, error)
	Events(ctx context.Context, q monitor.EventQuery) (monitor.Page[monitor.Event], error)
	Samples(ctx context.Context, q monitor.SampleQuery) ([]monitor.Sample, error)
	Buckets(ctx context.Context, q monitor.BucketQuery) ([]monitor.Bucket, error)
	Uptime(ctx context.Context, q monitor.UptimeQuery) (monitor.Uptime, error)
}

// Backlog is what the service needs of the store to tell how it fares.
type Backlog interface {
	LogLines(ctx context.Context, q monitor.LogQuery) ([]monitor.LogLine, error)
	OutboxCounts(ctx context.Context) (pending, failed int64, oldest time.Time, err error)
	Ready(ctx context.Context) error
}

// Store is everything the service needs of the store, by area.
type Store interface {
	Monitors
	Channels
	Tokens
	History
	Backlog
}

// Schedule is what the service needs of the engine to have monitors checked.
type Schedule interface {
	Put(m monitor.Monitor) error
	Remove(id string)
	CheckNow(ctx context.Context, id string) (engine.Last, error)
	Beat(token string, b engine.Beat) error
	Live(id string) (engine.Live, bool)
	Farewell(id string) *monitor.Transition
}

// Delivery is what the service needs of the engine to have notifications sent.
type Delivery interface {
	PutChannel(c monitor.Channel) error
	RemoveChannel(id string)
	TestChannel(ctx context.Context, id string) error
	ChannelHealth(id string) monitor.Health
}

// Feed is what the service needs of the engine to tell what is going on.
type Feed interface {
	Subscribe(o engine.SubscribeOptions) *engine.Subscription
	Labelled(key, value string) []engine.Current
	Stats() engine.Stats
	Healthy() error
}

// Engine is everything the service needs of the engine, by area.
type Engine interface {
	Schedule
	Delivery
	Feed
}

// Kinds is the registry of what can be checked.
type Kinds interface {
	Kinds() []check.Kind
	Kind(name string) (check.Kind, bool)
	New(spec check.Spec) (check.Checker, error)
}

// Providers is the registry of what can deliver notifications.
type Providers interface {
	Providers() []alert.Provider
	Provider(name string) (alert.Provider, bool)
	New(provider string, config json.RawMessage) (alert.Notifier, error)
}

// Ring keeps the newest lines of the server's log, newest first.
type Ring interface {
	Lines(q monitor.LogQuery) []monitor.LogLine
}

// Options is what New needs. Store, Engine, Kinds and Providers must be set.
type Options struct {
	Store     Store
	Engine    Engine
	Kinds     Kinds
	Providers Providers
	Plugins   Plugins      // nil: this server has none, and takes none
	Ring      Ring         // nil: only stored log lines are listed
	Log       *slog.Logger // nil discards
	// PublicURL is the address under which people reach this server, without a slash at the end; empty makes push
	// addresses relative.
	PublicURL string
	Version   string
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// Figures returns what is to be measured beside the engine's own figures: the store's. It may be nil.
	Figures func() []Figure
}

// Service does what users ask. Every method finds out who asks from its context, see WithPrincipal, and may be called by
// many goroutines at once.
type Service struct {
	opts  Options
	log   *slog.Logger
	now   func() time.Time
	born  time.Time
	masks masks
	auth  tokenCache

	// channelUse is held for reading while a monitor is written, and for writing while a channel is: a channel cannot go
	// between the moment its name is looked up and the one its id is stored.
	channelUse sync.RWMutex
	names      channelNames
	// tokenUse is held while a push token that somebody chose is written, see choosing. It is taken after channelUse and
	// before changing.
	tokenUse sync.Mutex
	// pluginTurn holds one thing while a plugin is changed, see changingPlugin. It is taken before channelUse.
	pluginTurn chan struct{}
	// changing serialises the changes to one object, so that the engine hears of them in the order of the store.
	changing [64]sync.Mutex
	seed     maphash.Seed
	doubts   doubts
}

// New returns a service. It starts nothing.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Engine == nil || o.Kinds == nil || o.Providers == nil {
		return nil, errors.New("make service: store, engine, kinds and providers must all be set")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Plugins == nil {
		o.Plugins = noPlugins{}
	}
	s := &Service{opts: o, log: o.Log, now: o.Now, born: o.Now(), masks: masks{o.Kinds, o.Providers}, seed: maphash.MakeSeed()}
	s.pluginTurn = make(chan struct{}, 1)
	s.auth.known = make(map[[32]byte]*knownToken)
	return s, nil
}

// Version is the version of the program, as Options has it.
func (s *Service) Version() string { return s.opts.Version }

// writeTimeout bounds a write that has begun: it is not given up when the client goes away, for then nobody would know
// whether the engine has what the store has.
const writeTimeout = 15 * time.Second

func writing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
}

// lock serialises changes to the object with the id and returns what ends it.
func (s *Service) lock(id string) func() {
	m := &s.changing[maphash.String(s.seed, id)%uint64(len(s.changing))]
	m.Lock()
	return m.Unlock
}
