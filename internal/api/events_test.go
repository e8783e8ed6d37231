package api

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/monitor"
)

// message is one server-sent event; a comment has no type.
type message struct{ id, typ, data string }

// listen reads a stream until the test ends or the server ends it, which closes the channel.
func (s *server) listen(path string, headers ...string) (<-chan message, *http.Response) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", s.http.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { res.Body.Close() })
	out := make(chan message, 1000)
	go func() {
		defer close(out)
		lines, m := bufio.NewScanner(res.Body), message{}
		for lines.Scan() {
			switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
			case "id":
				m.id = value
			case "event":
				m.typ = value
			case "data":
				m.data = value
			case "retry":
				m.typ = "retry"
			case "":
				if value != "" {
					m.typ = "comment"
				} else {
					out <- m
					m = message{}
				}
			}
		}
	}()
	return out, res
}

func next(t testing.TB, in <-chan message, typ string) message {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case m, ok := <-in:
			if !ok {
				t.Fatalf("the stream ended before a %s", typ)
			}
			if m.typ == typ {
				return m
			}
		case <-deadline:
			t.Fatalf("no %s came", typ)
		}
	}
}

func TestEvents(t *testing.T) {
	s := start(t, func(o *Options) { o.Heartbeat = 20 * time.Millisecond })
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	defer target.Close()
	all, res := s.listen("/api/v1/events")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %d %v", res.StatusCode, res.Header)
	}
	next(t, all, "comment")
	states, _ := s.listen("/api/v1/events?types=state,incident")
	next(t, states, "retry")
	id := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"http","target":"`+target.URL+`"}`)).str("id")
	first := next(t, states, "state")
	if !strings.Contains(first.data, `"monitor_id":"`+id+`"`) || !strings.Contains(first.data, `"to":"up"`) {
		t.Errorf("state: %s", first.data)
	}
	if r := next(t, all, "result"); !strings.Contains(r.data, `"status":"up"`) {
		t.Errorf("result: %s", r.data)
	}
	s.must(200, s.do("PATCH", "/api/v1/monitors/"+id, `{"assert":["status == 500"],"retries":0}`))
	if m := next(t, states, "state"); !strings.Contains(m.data, `"to":"down"`) {
		t.Errorf("state: %s", m.data)
	}
	if m := next(t, states, "incident"); !strings.Contains(m.data, `"monitor_name":"m"`) || !strings.Contains(m.data, `"ended_at":null`) {
		t.Errorf("incident: %s", m.data)
	}
	inc := s.must(200, s.do("GET", "/api/v1/incidents?open=true&monitor="+id, ""))
	one := s.must(200, s.do("GET", "/api/v1/incidents/"+inc.str("items.0.id"), ""))
	if one.str("timeline.0.kind") != "down" || one.str("cause") == "" {
		t.Errorf("incident: %s", one.text)
	}

	resumed, _ := s.listen("/api/v1/events?types=state", "Last-Event-ID", first.id)
	if m := next(t, resumed, "state"); !strings.Contains(m.data, `"to":"down"`) {
		t.Errorf("resumed with %s", m.data)
	}
	stale, _ := s.listen("/api/v1/events?types=state", "Last-Event-ID", "long-gone")
	next(t, stale, "reset")

	s.api.Close()
	for _, in := range []<-chan message{all, states, resumed, stale} {
		for range in { // ends when the server ends the stream
		}
	}
}

func TestPluginEvents(t *testing.T) {
	s := start(t)
	viewer := s.as(s.newToken("viewer"))
	all, _ := viewer.listen("/api/v1/events")
	some, _ := viewer.listen("/api/v1/events?types=state,plugin")
	others, _ := viewer.listen("/api/v1/events?types=state")
	for _, in := range []<-chan message{all, some, others} {
		next(t, in, "retry")
	}
	for _, tt := range []struct {
		change engine.PluginChange
		want   string
	}{
		{
			engine.PluginChange{Name: "redis", Condition: monitor.PluginWaiting, Why: `nobody has granted "redis" yet`, Version: "1.2.0"},
			`{"name":"redis","condition":"waiting","why":"nobody has granted \"redis\" yet","version":"1.2.0"}`,
		},
		{
			engine.PluginChange{Name: "redis", Condition: monitor.PluginReady, Version: "1.2.0"},
			`{"name":"redis","condition":"ready","why":null,"version":"1.2.0"}`,
		},
		{
			engine.PluginChange{Name: "redis", Condition: monitor.PluginRemoved},
			`{"name":"redis","condition":"removed","why":null,"version":null}`,
		},
	} {
		s.eng.Publish(engine.MessagePlugin, tt.change)
		for _, in := range []<-chan message{all, some} {
			if got := next(t, in, "plugin"); got.data != tt.want || got.id == "" {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
		}
	}
	s.eng.Publish(engine.MessageState, engine.StateChange{Name: "m"})
	if m := <-others; m.typ != "state" {
		t.Errorf("who asked for states got %+v", m)
	}
	a := viewer.must(422, viewer.do("GET", "/api/v1/events?types=plugins", ""))
	if got := a.faults(t)["query.types"]; !strings.Contains(got, "must be one of state, incident, result, plugin") || strings.Contains(got, "log") {
		t.Errorf("an unknown type: %s", a.text)
	}
}

func TestEventsAndRoles(t *testing.T) {
	s := start(t)
	viewer := s.as(s.newToken("viewer"))
	s.must(403, viewer.do("GET", "/api/v1/events?types=log", ""))
	s.eng.Publish("log", "x")
	logs, _ := s.listen("/api/v1/events?types=log")
	next(t, logs, "retry")
	s.eng.Publish("log", "x")
	next(t, logs, "log")
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	s := start(t, func(o *Options) { o.Heartbeat = 20 * time.Millisecond })
	s.api.recheck = 20 * time.Millisecond
	made := s.must(201, s.do("POST", "/api/v1/tokens", `{"name":"x","role":"viewer"}`))
	in, _ := s.as(made.str("token")).listen("/api/v1/events")
	next(t, in, "comment")
	s.must(204, s.do("DELETE", "/api/v1/tokens/"+made.str("id"), ""))
	timeout := time.After(15 * time.Second)
	for {
		select {
		case _, ok := <-in:
			if !ok {
				return
			}
		case <-timeout:
			t.Fatal("the stream lives on")
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := start(t, func(o *Options) { o.MaxStreams = 1 })
	in, _ := s.listen("/api/v1/events")
	next(t, in, "retry")
	s.must(503, s.do("GET", "/api/v1/events", ""))
}
