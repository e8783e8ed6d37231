package service

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Kinds lists what can be checked.
func (s *Service) Kinds(ctx context.Context) ([]check.Kind, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return nil, err
	}
	return s.opts.Kinds.Kinds(), nil
}

// Kind returns one kind. The error is monitor.ErrNotFound when there is none with the name.
func (s *Service) Kind(ctx context.Context, name string) (check.Kind, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return check.Kind{}, err
	}
	k, ok := s.opts.Kinds.Kind(name)
	if !ok {
		return check.Kind{}, fmt.Errorf("kind: %w", monitor.ErrNotFound)
	}
	return k, nil
}

// Providers lists what can deliver notifications.
func (s *Service) Providers(ctx context.Context) ([]alert.Provider, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return nil, err
	}
	return s.opts.Providers.Providers(), nil
}

// Provider returns one provider. The error is monitor.ErrNotFound when there is none with the name.
func (s *Service) Provider(ctx context.Context, name string) (alert.Provider, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return alert.Provider{}, err
	}
	p, ok := s.opts.Providers.Provider(name)
	if !ok {
		return alert.Provider{}, fmt.Errorf("provider: %w", monitor.ErrNotFound)
	}
	return p, nil
}

// What a subscription reads; see the engine.
//
//nolint:revive // the engine documents them
type (
	Message      = engine.Message
	StateChange  = engine.StateChange
	Seen         = engine.Seen
	PluginChange = engine.PluginChange
	Subscription = engine.Subscription
	Current      = engine.Current
)

// The types of message.
const (
	MessageState    = engine.MessageState
	MessageIncident = engine.MessageIncident
	MessageResult   = engine.MessageResult
	MessagePlugin   = engine.MessagePlugin
	MessageLog      = engine.MessageLog
	MessageReset    = engine.MessageReset
	MessageLost     = engine.MessageLost
)

// EventTypes lists the types of message that who asks may read: log lines are for admins, for they say who did what and
// from where.
func EventTypes(ctx context.Context) []string {
	types := []string{engine.MessageState, engine.MessageIncident, engine.MessageResult, engine.MessagePlugin}
	if Can(ctx, monitor.Admin) {
		types = append(types, engine.MessageLog)
	}
	return types
}

// Subscribe begins to read what happens, after the message with the id after, or from now on when that is empty. With no
// types it gets all that who asks may read. The subscription must be closed.
func (s *Service) Subscribe(ctx context.Context, after string, types []string) (*engine.Subscription, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return nil, err
	}
	allowed := EventTypes(ctx)
	if len(types) == 0 {
		types = allowed
	}
	for _, t := range types {
		switch {
		case slices.Contains(allowed, t):
		case t == engine.MessageLog:
			return nil, Allow(ctx, monitor.Admin)
		default:
			return nil, monitor.Faults{{Field: "types", Value: shown(t), Message: "must be one of " + strings.Join(allowed, ", ")}}
		}
	}
	// Messages about the subscription itself are never left out.
	types = append(slices.Clone(types), engine.MessageReset, engine.MessageLost)
	return s.opts.Engine.Subscribe(engine.SubscribeOptions{After: after, Types: types}), nil
}

// mostLogLines is how many lines the store gives at once; a page that long may be followed by an empty one.
const mostLogLines = 1000

// LogRange selects lines of the server's log.
type LogRange struct {
	Level  string // lowest: DEBUG, INFO, WARN, ERROR; empty: all
	Text   string
	Limit  int // 1 to 1000; 0 is 100
	Cursor string
}

// Log lists lines of the server's log, newest first: those that are stored, and those that are only in memory, because they
// are of a lower level, or not stored yet, or were dropped. It needs an admin.
func (s *Service) Log(ctx context.Context, r LogRange) (monitor.Page[monitor.LogLine], error) {
	var page monitor.Page[monitor.LogLine]
	if err := Allow(ctx, monitor.Admin); err != nil {
		return page, err
	}
	if r.Limit == 0 {
		r.Limit = 100
	}
	before, until, ok := logCursor(r.Cursor)
	if !ok {
		return page, monitor.Faults{{Field: "cursor", Value: shown(r.Cursor), Message: "is not one that this list gave"}}
	}
	stored, err := s.opts.Store.LogLines(ctx, monitor.LogQuery{Level: r.Level, Text: r.Text, Before: before, Limit: min(r.Limit+1, mostLogLines)})
	if err != nil {
		return page, fmt.Errorf("list log lines: %w", err)
	}
	lines := stored
	if s.opts.Ring != nil {
		lines = merge(stored, s.opts.Ring.Lines(monitor.LogQuery{Level: r.Level, Text: r.Text, Limit: 100_000}), until)
	}
	if len(lines) > r.Limit || len(stored) == mostLogLines {
		lines = lines[:min(len(lines), r.Limit)]
		oldest := lines[len(lines)-1].At
		lowest := before
		for i := range lines {
			if id := lines[i].ID; id > 0 && (lowest == 0 || id < lowest) {
				lowest = id
			}
		}
		page.Next = strconv.FormatInt(lowest, 36) + "." + strconv.FormatInt(oldest.UnixNano(), 36)
	}
	page.Items = lines
	return page, nil
}

// merge joins stored lines with those of the ring that are not among them and older than until. Both are newest first, and
// so is the answer. Those of the ring get the id 0: ids are the store's.
func merge(stored, ring []monitor.LogLine, until time.Time) []monitor.LogLine {
	type same struct {
		at    int64
		level string
		text  string
		attrs string
	}
	seen := make(map[same]bool, len(stored))
	key := func(l *monitor.LogLine) same { return same{l.At.UnixMilli(), l.Level, l.Message, l.Attrs} }
	for i := range stored {
		seen[key(&stored[i])] = true
	}
	lines := slices.Clone(stored)
	for i := range ring {
		l := ring[i]
		if seen[key(&l)] || !until.IsZero() && !l.At.Before(until) {
			continue
		}
		l.ID = 0
		lines = append(lines, l)
	}
	slices.SortStableFunc(lines, func(a, b monitor.LogLine) int { return b.At.Compare(a.At) })
	return lines
}

func logCursor(cursor string) (before int64, until time.Time, ok bool) {
	if cursor == "" {
		return 0, time.Time{}, true
	}
	id, at, found := strings.Cut(cursor, ".")
	before, err := strconv.ParseInt(id, 36, 64)
	nanos, err2 := strconv.ParseInt(at, 36, 64)
	if !found || err != nil || err2 != nil || before < 0 {
		return 0, time.Time{}, false
	}
	return before, time.Unix(0, nanos), true
}

// Figure is one number about the server, for /metrics and /stats.
type Figure struct {
	Name    string            // as in /metrics: tocsin_store_queue_rows, in base units
	Help    string            // one sentence
	Counter bool              // only ever goes up; else it is a gauge
	Labels  map[string]string // nil: none
	Value   float64
}

// Stats is how the server fares.
type Stats struct {
	Version string
	Started time.Time
	Engine  engine.Stats
	Outbox  Outbox
	Process Process
	Figures []Figure // of the store, see Options.Figures
}

// MetricsLabel is the label, with the value "true", of monitors that have series of their own among the metrics. Without it
// a monitor is counted only: labels at 100,000 monitors would be a bomb for whoever scrapes them.
const MetricsLabel = "metrics"

// Measured lists the monitors that have the label MetricsLabel with the value "true".
func (s *Service) Measured(ctx context.Context) ([]Current, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return nil, err
	}
	return s.opts.Engine.Labelled(MetricsLabel, "true"), nil
}

// Outbox is what waits to be delivered.
type Outbox struct {
	Pending, Failed int64
	Oldest          time.Time // when the oldest pending notification was made; zero when there is none
}

// Process is what the process uses.
type Process struct {
	Goroutines int
	HeapBytes  uint64
	GC         uint64 // collections so far
}

// process reads figures that cost no pause: runtime.ReadMemStats would stop every check.
func process() Process {
	read := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(read)
	p := Process{Goroutines: runtime.NumGoroutine()}
	if read[0].Value.Kind() == metrics.KindUint64 {
		p.HeapBytes = read[0].Value.Uint64()
	}
	if read[1].Value.Kind() == metrics.KindUint64 {
		p.GC = read[1].Value.Uint64()
	}
	return p
}

// Stats returns how the server fares.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return Stats{}, err
	}
	var out Outbox
	var err error
	if out.Pending, out.Failed, out.Oldest, err = s.opts.Store.OutboxCounts(ctx); err != nil {
		return Stats{}, fmt.Errorf("count notifications: %w", err)
	}
	st := Stats{
		Version: s.opts.Version, Started: s.born.UTC(), Engine: s.opts.Engine.Stats(), Outbox: out,
		Process: process(),
	}
	if s.opts.Figures != nil {
		st.Figures = s.opts.Figures()
		slices.SortStableFunc(st.Figures, func(a, b Figure) int { return cmp.Compare(a.Name, b.Name) })
	}
	return st, nil
}

// Readiness says what keeps the server from doing its work: an error by part, nil for a part that is well. Anybody may ask;
// the errors are for the log and not for whoever asks.
type Readiness struct{ Store, Engine error }

// Ready reports whether the server does its work.
func (s *Service) Ready(ctx context.Context) Readiness {
	r := Readiness{Store: s.opts.Store.Ready(ctx), Engine: s.opts.Engine.Healthy()}
	if r.Store == nil {
		s.settleRest(ctx)
		if n := len(s.doubts.list()); n > 0 {
			r.Store = fmt.Errorf("%d changes are not settled: nobody knows whether they were made", n)
		}
	}
	return r
}

// Key names the figure: its name, and its labels in braces.
func (f Figure) Key() string {
	if len(f.Labels) == 0 {
		return f.Name
	}
	pairs := make([]string, 0, len(f.Labels))
	for _, name := range keys(f.Labels) {
		pairs = append(pairs, name+"="+strconv.Quote(f.Labels[name]))
	}
	return f.Name + "{" + strings.Join(pairs, ",") + "}"
}
