// Package logs keeps the newest lines of the server's own log at hand, hides secrets in them, and passes them on.
package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Masked is what stands in the place of a secret.
const Masked = "••••"

const (
	maxMessage = 4 << 10  // bytes of a line's message
	maxValue   = 4 << 10  // bytes of one attribute
	maxAttrs   = 16 << 10 // bytes of all attributes of a line
)

// Options is what New needs.
type Options struct {
	Size int          // how many lines are kept; 0 is 1000
	Next slog.Handler // where every line goes as well, secrets masked; nil: nowhere
}

// Log is a slog.Handler that keeps a ring of the newest lines, masks attribute values whose key looks like a secret's, and
// passes lines on: all that the next handler wants to that, those of INFO and above to the attached sinks. It may be
// used by many goroutines at once.
type Log struct {
	ring   *ring
	next   slog.Handler
	prefix string // names of the open groups, each with a dot
	hidden bool   // an open group's name looks secret
	attrs  []attr // given by WithAttrs
}

type attr struct {
	key   string
	value any // of JSON's types
}

type ring struct {
	mu    sync.Mutex
	lines []monitor.LogLine // oldest at start, once it is full
	start int
	last  int64
	sinks atomic.Pointer[[]func(monitor.LogLine) bool]
	lost  atomic.Int64
}

// New returns a Log. It starts nothing.
func New(opts Options) *Log {
	if opts.Size <= 0 {
		opts.Size = 1000
	}
	return &Log{ring: &ring{lines: make([]monitor.LogLine, 0, opts.Size)}, next: opts.Next}
}

// Attach adds a sink for the lines of INFO and above that come from now on. A sink must not block and must not log; it
// returns false when it dropped the line, which Dropped counts.
func (l *Log) Attach(sink func(monitor.LogLine) bool) {
	l.ring.mu.Lock()
	defer l.ring.mu.Unlock()
	var sinks []func(monitor.LogLine) bool
	if old := l.ring.sinks.Load(); old != nil {
		sinks = append(sinks, *old...)
	}
	sinks = append(sinks, sink)
	l.ring.sinks.Store(&sinks)
}

// Dropped is how many lines the sinks refused.
func (l *Log) Dropped() int64 { return l.ring.lost.Load() }

// Lines returns the lines that are kept and match, newest first, as the store does with lines it has kept: their ids are
// the ring's own, which increase from 1 at each start.
func (l *Log) Lines(q monitor.LogQuery) []monitor.LogLine {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	text := strings.ToLower(q.Text)
	lowest := levelOf(q.Level)
	r := l.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []monitor.LogLine
	for i := len(r.lines) - 1; i >= 0 && len(found) < q.Limit; i-- {
		line := r.lines[(r.start+i)%len(r.lines)]
		switch {
		case q.Before > 0 && line.ID >= q.Before:
		case levelOf(line.Level) < lowest:
		case text != "" && !strings.Contains(strings.ToLower(line.Message+"\n"+line.Attrs), text):
		default:
			found = append(found, line)
		}
	}
	return found
}

// Enabled reports whether a line of the level goes anywhere: INFO and above always do.
func (l *Log) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || l.next != nil && l.next.Enabled(ctx, level)
}

// Handle keeps one line and passes it on. Its error is the next handler's.
func (l *Log) Handle(ctx context.Context, rec slog.Record) error {
	masked := slog.NewRecord(rec.Time, rec.Level, rec.Message, rec.PC)
	attrs := make([]attr, len(l.attrs), len(l.attrs)+rec.NumAttrs())
	copy(attrs, l.attrs)
	rec.Attrs(func(a slog.Attr) bool {
		a = mask(a, l.hidden)
		masked.AddAttrs(a)
		attrs = flatten(attrs, l.prefix, a)
		return true
	})
	at := rec.Time
	if at.IsZero() {
		at = time.Now()
	}
	line := monitor.LogLine{
		At: at.UTC(), Level: levelName(rec.Level),
		Message: sdk.CleanText(rec.Message, maxMessage), Attrs: encode(attrs),
	}
	l.ring.keep(line)
	if l.next != nil && l.next.Enabled(ctx, rec.Level) {
		return l.next.Handle(ctx, masked)
	}
	return nil
}

// keep adds the line to the ring and hands it to the sinks outside the lock, so that a sink may read the ring.
func (r *ring) keep(line monitor.LogLine) {
	r.mu.Lock()
	r.last++
	line.ID = r.last
	if len(r.lines) < cap(r.lines) {
		r.lines = append(r.lines, line)
	} else {
		r.lines[r.start] = line
		r.start = (r.start + 1) % len(r.lines)
	}
	r.mu.Unlock()
	if levelOf(line.Level) < slog.LevelInfo {
		return
	}
	if sinks := r.sinks.Load(); sinks != nil {
		for _, sink := range *sinks {
			if !sink(line) {
				r.lost.Add(1)
			}
		}
	}
}

// WithAttrs returns a Log that adds the attributes to each line and shares the ring.
func (l *Log) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return l
	}
	with := *l
	with.attrs = append([]attr(nil), l.attrs...)
	masked := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		masked[i] = mask(a, l.hidden)
		with.attrs = flatten(with.attrs, l.prefix, masked[i])
	}
	if l.next != nil {
		with.next = l.next.WithAttrs(masked)
	}
	return &with
}

// WithGroup returns a Log whose further attributes belong to a group and that shares the ring.
func (l *Log) WithGroup(name string) slog.Handler {
	if name == "" {
		return l
	}
	with := *l
	with.prefix += name + "."
	with.hidden = l.hidden || Secret(name)
	if l.next != nil {
		with.next = l.next.WithGroup(name)
	}
	return &with
}

// Secret reports whether a name looks like that of a secret: api_key, Authorization, clientSecret. Names of things that are
// only about secrets (token_id, key_file) do not.
func Secret(name string) bool {
	lower := strings.NewReplacer("_", "", "-", "", ".", "", " ", "").Replace(strings.ToLower(name))
	for _, end := range []string{"id", "file", "name", "count", "at", "hash", "prefix", "path"} {
		if len(lower) > len(end) && strings.HasSuffix(lower, end) {
			return false
		}
	}
	for _, part := range []string{
		"token", "password", "passwd", "passphrase", "secret", "authorization", "cookie", "credential", "apikey", "privatekey",
		"accesskey", "bearer", "webhookurl", "dsn", "pushurl",
	} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return lower == "key" || lower == "auth"
}

// mask returns the attribute, its value hidden when its name or that of a group around it looks secret.
func mask(a slog.Attr, hidden bool) slog.Attr {
	hidden = hidden || Secret(a.Key)
	a.Value = a.Value.Resolve()
	if a.Value.Kind() == slog.KindGroup {
		group := a.Value.Group()
		masked := make([]slog.Attr, len(group))
		for i := range group {
			masked[i] = mask(group[i], hidden)
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(masked...)}
	}
	if hidden {
		return slog.String(a.Key, Masked)
	}
	return a
}

// flatten appends the attribute as JSON values, a group's members under their dotted names.
func flatten(to []attr, prefix string, a slog.Attr) []attr {
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, m := range a.Value.Group() {
			to = flatten(to, prefix, m)
		}
		return to
	}
	if a.Key == "" {
		return to
	}
	return append(to, attr{prefix + a.Key, value(a.Value)})
}

func value(v slog.Value) any {
	switch v.Kind() {
	case slog.KindBool:
		return v.Bool()
	case slog.KindInt64:
		return v.Int64()
	case slog.KindUint64:
		return v.Uint64()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindDuration:
		return v.Duration().String()
	case slog.KindAny:
		return sdk.CleanText(fmt.Sprint(v.Any()), maxValue) // fmt survives a panicking String or Error
	default:
		return sdk.CleanText(v.String(), maxValue)
	}
}

// encode writes the attributes as one JSON object, in order; of two with one name the later stands.
func encode(attrs []attr) string {
	if len(attrs) == 0 {
		return "{}"
	}
	var b strings.Builder
	b.WriteByte('{')
	for i, a := range attrs {
		if later(attrs[i+1:], a.key) {
			continue
		}
		key, kerr := json.Marshal(sdk.CleanText(a.key, 200))
		val, verr := json.Marshal(a.value)
		if kerr != nil || verr != nil { // neither can be: both are plain text and numbers
			continue
		}
		if b.Len()+len(key)+len(val) > maxAttrs {
			break
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(val)
	}
	b.WriteByte('}')
	return b.String()
}

func later(attrs []attr, key string) bool {
	for _, a := range attrs {
		if a.key == key {
			return true
		}
	}
	return false
}

func levelName(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "DEBUG"
	case level < slog.LevelWarn:
		return "INFO"
	case level < slog.LevelError:
		return "WARN"
	default:
		return "ERROR"
	}
}

func levelOf(name string) slog.Level {
	switch name {
	case "INFO":
		return slog.LevelInfo
	case "WARN":
		return slog.LevelWarn
	case "ERROR":
		return slog.LevelError
	default:
		return slog.LevelDebug
	}
}

var _ slog.Handler = (*Log)(nil)
