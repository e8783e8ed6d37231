package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// Stats is how the server fares.
type Stats struct {
	Version       string             `json:"version"`
	StartedAt     time.Time          `json:"started_at"`
	Monitors      map[string]int     `json:"monitors" doc:"By state."`
	Plugins       map[string]int     `json:"plugins" doc:"By condition."`
	Results       map[string]Counts  `json:"results" doc:"Results since the start, by kind and status."`
	Schedule      ScheduleStats      `json:"schedule"`
	Notifications NotificationStats  `json:"notifications"`
	Process       ProcessStats       `json:"process"`
	Store         map[string]float64 `json:"store" doc:"Figures of the store, named as in /metrics, without tocsin_ and _total."`
}

// ScheduleStats is how the schedule fares.
type ScheduleStats struct {
	Running         int   `json:"running" doc:"Checks under way."`
	Waiting         int   `json:"waiting" doc:"Checks that are due and wait for room."`
	Workers         int   `json:"workers"`
	Overruns        int64 `json:"overruns" doc:"Checks that were due while the one before still ran."`
	Panics          int64 `json:"panics"`
	Transitions     int64 `json:"transitions"`
	Unrecorded      int   `json:"unrecorded" doc:"Transitions on their way to the store."`
	LatenessP50US   int64 `json:"lateness_p50_us"`
	LatenessP99US   int64 `json:"lateness_p99_us"`
	LatenessSamples int64 `json:"lateness_samples"`
}

// NotificationStats is how delivery fares.
type NotificationStats struct {
	Pending  int64      `json:"pending"`
	Failed   int64      `json:"failed" doc:"Given up, and still kept."`
	OldestAt *time.Time `json:"oldest_at" doc:"When the oldest pending one was made; null when there is none."`
}

// ProcessStats is what the process uses.
type ProcessStats struct {
	Goroutines int    `json:"goroutines"`
	HeapBytes  uint64 `json:"heap_bytes"`
	GC         uint64 `json:"gc" doc:"Collections since the start."`
}

// LogLine is one line of the server's log.
type LogLine struct {
	At      time.Time `json:"at"`
	Level   string    `json:"level" enum:"DEBUG,INFO,WARN,ERROR"`
	Message string    `json:"message"`
	Attrs   object    `json:"attrs" doc:"Secrets are masked."`
}

func logLineOf(l *monitor.LogLine) LogLine {
	line := LogLine{At: l.At.UTC(), Level: l.Level, Message: l.Message}
	if json.Valid([]byte(l.Attrs)) && strings.HasPrefix(l.Attrs, "{") {
		line.Attrs = object(l.Attrs)
	}
	return line
}

type (
	statsOut struct{ Body Stats }
	logList  struct {
		StrictQuery
		Level  string `query:"level" enum:"debug,info,warn,error" doc:"The lowest level. Left out: all."`
		Q      string `query:"q" maxLength:"200" doc:"Only lines with this text."`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Cursor string `query:"cursor" maxLength:"100" doc:"The next_cursor of the page before."`
	}
	logOut struct{ Body page[LogLine] }
)

func (a *API) statusRoutes() {
	handle(a, route{
		id: "get-stats", method: http.MethodGet, path: "/stats", tag: "server", role: monitor.Viewer,
		summary: "How the server fares",
	}, a.getStats)
	handle(a, route{
		id: "list-log", method: http.MethodGet, path: "/log", tag: "server", role: monitor.Admin,
		summary: "The server's log, newest first",
	}, func(ctx context.Context, in *logList) (*logOut, error) {
		found, err := a.svc.Log(ctx, service.LogRange{Level: strings.ToUpper(in.Level), Text: in.Q, Limit: in.Limit, Cursor: in.Cursor})
		if err != nil {
			return nil, located("query", err)
		}
		return &logOut{pageOf(found.Items, found.Next, logLineOf)}, nil
	})
}

func (a *API) getStats(ctx context.Context, _ *anything) (*statsOut, error) {
	s, err := a.svc.Stats(ctx)
	if err != nil {
		return nil, err
	}
	plugins, err := a.svc.ListPlugins(ctx)
	if err != nil {
		return nil, err
	}
	out := Stats{
		Version: s.Version, StartedAt: s.Started, Monitors: map[string]int{}, Plugins: map[string]int{}, Results: map[string]Counts{}, Store: map[string]float64{},
		Schedule: ScheduleStats{
			Running: s.Engine.Running, Waiting: s.Engine.Waiting, Workers: s.Engine.Workers, Overruns: s.Engine.Overruns,
			Panics: s.Engine.Panics, Transitions: s.Engine.Transitions, Unrecorded: s.Engine.Unrecorded,
			LatenessP50US: s.Engine.Lateness.Quantile(0.5).Microseconds(), LatenessP99US: s.Engine.Lateness.Quantile(0.99).Microseconds(),
			LatenessSamples: s.Engine.Lateness.Count,
		},
		Notifications: NotificationStats{Pending: s.Outbox.Pending, Failed: s.Outbox.Failed, OldestAt: when(s.Outbox.Oldest)},
		Process:       ProcessStats{Goroutines: s.Process.Goroutines, HeapBytes: s.Process.HeapBytes, GC: s.Process.GC},
	}
	for _, c := range monitor.Conditions() {
		out.Monitors[c.String()] = s.Engine.Monitors[c]
	}
	for _, c := range monitor.PluginConditions() {
		out.Plugins[string(c)] = 0
	}
	for i := range plugins {
		out.Plugins[string(plugins[i].Condition)]++
	}
	for kind, counts := range s.Engine.Results {
		out.Results[kind] = countsOf(counts)
	}
	for _, f := range s.Figures {
		f.Name = strings.TrimSuffix(strings.TrimPrefix(f.Name, "tocsin_"), "_total")
		out.Store[f.Key()] = f.Value
	}
	return &statsOut{out}, nil
}

// healthz says that the process answers.
func (a *API) healthz(c *gin.Context) { a.answer(c, http.StatusOK, map[string]string{"status": "ok"}) }

// readyz says whether the server does its work, and if not which part and why. Anybody may ask, so a part's own words are
// shortened to one line; the log has them in full.
func (a *API) readyz(c *gin.Context) {
	ready := a.svc.Ready(c.Request.Context())
	parts, status := map[string]string{}, http.StatusOK
	for name, err := range map[string]error{"store": ready.Store, "engine": ready.Engine} {
		parts[name] = "ok"
		if err != nil {
			parts[name], status = sdk.CleanText(err.Error(), 200), http.StatusServiceUnavailable
			a.log.Debug("not ready", "part", name, "error", err)
		}
	}
	text := "ready"
	if status != http.StatusOK {
		text = "not ready"
	}
	a.answer(c, status, map[string]any{"status": text, "parts": parts})
}

// answer writes JSON outside of huma.
func (a *API) answer(c *gin.Context, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		a.fail(c, err)
		return
	}
	c.Header("Content-Type", jsonType)
	c.Status(status)
	if _, err := c.Writer.Write(append(body, '\n')); err != nil {
		a.log.Debug("answer was not read", "error", err)
	}
}
