package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
)

const (
	writeTimeout = 10 * time.Second // of one message to a stream
	recheckEvery = 5 * time.Second  // how often a stream's token is looked at again
)

type eventsIn struct {
	StrictQuery
	Types  []string `query:"types" maxItems:"10" doc:"Only these, with commas: state, incident, result, plugin, log (for admins). Left out: all."`
	LastID string   `header:"Last-Event-ID" maxLength:"100" doc:"Go on after this message; when it is no longer there a reset comes first."`
}

// StateEvent says that a monitor's state changed.
type StateEvent struct {
	MonitorID  string    `json:"monitor_id"`
	Name       string    `json:"name"`
	From       string    `json:"from"`
	To         string    `json:"to"`
	Since      time.Time `json:"since"`
	IncidentID *string   `json:"incident_id"`
	Message    string    `json:"message"`
}

// ResultEvent says what a check found.
type ResultEvent struct {
	MonitorID string    `json:"monitor_id"`
	Status    string    `json:"status"`
	State     string    `json:"state"`
	LatencyUS int64     `json:"latency_us"`
	Message   string    `json:"message"`
	At        time.Time `json:"at"`
}

// PluginEvent says that something about a plugin changed: its build, its grant, its limits, or whether it can be used.
type PluginEvent struct {
	Name      string  `json:"name"`
	Condition string  `json:"condition"` // as in Plugin, or removed
	Why       *string `json:"why"`       // null when it is ready, or removed
	Version   *string `json:"version"`   // of the build that runs; null when it is removed
}

func (a *API) eventRoutes() {
	handle(a, route{
		id: "stream-events", method: http.MethodGet, path: "/events", tag: "server", role: monitor.Viewer,
		summary: "What happens, as it happens",
		description: "Server-sent events (text/event-stream). The event is the type: state, incident, result, plugin (one came, changed " +
			"or went), log, reset (read everything anew), lost (this reader was too slow for so many messages); the data is JSON. A comment comes when nothing else does.",
		responses: map[string]*huma.Response{"200": {
			Description: "A stream of messages.",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, a.events)
}

func (a *API) events(ctx context.Context, in *eventsIn) (*huma.StreamResponse, error) {
	select {
	case a.streams <- struct{}{}:
	default:
		return nil, newProblem(http.StatusServiceUnavailable, "", "too many clients read events").with("Retry-After", "30")
	}
	sub, err := a.svc.Subscribe(ctx, in.LastID, in.Types)
	if err != nil {
		<-a.streams
		return nil, located("query", err)
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer func() { <-a.streams }()
		defer sub.Close()
		c := humagin.Unwrap(hc)
		h := c.Writer.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("X-Accel-Buffering", "no") // else nginx keeps messages back
		c.Status(http.StatusOK)
		s := stream{w: c.Writer, control: http.NewResponseController(c.Writer)}
		err := s.write("retry: 3000\n\n")
		if err == nil {
			err = a.pump(ctx, &s, sub)
		}
		a.log.Debug("stream ended", "cause", err)
	}}, nil
}

// pump writes messages until the client goes, its token does, or the server ends.
func (a *API) pump(ctx context.Context, s *stream, sub *service.Subscription) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with ctx, which ends with this function
		select {
		case <-a.closing:
			cancel(monitor.ErrClosed)
		case <-ctx.Done():
		}
	}()
	beat, checked := time.Now().Add(a.opts.Heartbeat), time.Now()
	for {
		wait, done := context.WithDeadline(ctx, earlier(beat, checked.Add(a.recheck)))
		m, err := sub.Next(wait)
		done()
		now := time.Now()
		if now.Sub(checked) >= a.recheck {
			if err := a.svc.Still(ctx); err != nil {
				return err
			}
			checked = now
		}
		switch {
		case err == nil:
			err = s.message(m)
			beat = now.Add(a.opts.Heartbeat)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		case now.Before(beat):
			continue
		default:
			err = s.write(": alive\n\n")
			beat = now.Add(a.opts.Heartbeat)
		}
		if err != nil {
			return err
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// stream writes to one reader, each message under a deadline of its own.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s *stream) write(text string) error {
	// A writer that knows no deadlines has the server's, if any.
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return fmt.Errorf("write to stream: %w", err)
	}
	if err := s.control.Flush(); err != nil {
		return fmt.Errorf("flush stream: %w", err)
	}
	return nil
}

func (s *stream) message(m service.Message) error {
	data, err := json.Marshal(payload(m.Data))
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	var b strings.Builder
	b.WriteString("id: " + m.ID + "\nevent: " + m.Type + "\ndata: ")
	b.Write(data) // JSON has no line breaks
	b.WriteString("\n\n")
	return s.write(b.String())
}

// payload is what a message looks like on the wire.
func payload(data any) any {
	switch d := data.(type) {
	case service.StateChange:
		return StateEvent{
			MonitorID: d.MonitorID, Name: d.Name, From: d.From.String(), To: d.To.String(), Since: d.Since.UTC(),
			IncidentID: textOrNil(d.Incident), Message: d.Message,
		}
	case service.Seen:
		return ResultEvent{
			MonitorID: d.MonitorID, Status: d.Status.String(), State: d.Condition.String(), LatencyUS: d.Latency.Microseconds(),
			Message: d.Message, At: d.At.UTC(),
		}
	case service.PluginChange:
		return PluginEvent{Name: d.Name, Condition: string(d.Condition), Why: textOrNil(d.Why), Version: textOrNil(d.Version)}
	case monitor.Incident:
		return incidentOf(&d)
	case monitor.LogLine:
		return logLineOf(&d)
	case int:
		return map[string]int{"lost": d}
	default:
		return map[string]any{}
	}
}
