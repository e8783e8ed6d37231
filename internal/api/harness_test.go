package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/logs"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/internal/testkit/fakehost"
)

const adminToken = "admin-token-of-the-tests"

// server is the whole API over a real store, engine and registries. Its client holds every answer to the OpenAPI document.
type server struct {
	t       testing.TB
	api     *API
	svc     *service.Service
	checks  *check.Registry
	alerts  *alert.Registry
	eng     *engine.Engine
	store   *faulty
	plugins *fakehost.Host // runs none, and behaves towards the service as the host does
	http    *httptest.Server
	log     *lockedBuffer
	schemas *jsonschema.Compiler
	paths   map[string]any // of the OpenAPI document
	holding *sync.Mutex    // the compiler of schemas takes one at a time

	token string
}

// lockedBuffer takes the log of many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func start(t testing.TB, change ...func(*Options)) *server {
	t.Helper()
	s := &server{t: t, token: adminToken, log: &lockedBuffer{}, holding: &sync.Mutex{}, plugins: fakehost.New(time.Now)}
	ring := logs.New(logs.Options{Next: slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})})
	log := slog.New(ring)
	base := openStore(t, log)
	s.store = &faulty{Store: base}
	checks := check.NewRegistry(check.Options{Log: log})
	alerts, err := alert.NewRegistry(alert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.eng, err = engine.New(engine.Options{Store: base, Outbox: base, Checks: check.NewLate(checks), Alerts: alerts, Log: log}); err != nil {
		t.Fatal(err)
	}
	s.checks, s.alerts = checks, alerts
	s.svc, err = service.New(service.Options{
		Store: s.store, Engine: s.eng, Kinds: checks, Providers: alerts, Plugins: s.plugins, Ring: ring, Log: log, Version: "test",
		Figures: func() []service.Figure {
			return []service.Figure{
				{Name: "tocsin_test_rows", Help: "Rows.", Labels: map[string]string{"lane": "must"}, Value: 7},
				{Name: "tocsin_test_commits_total", Help: "Commits.", Value: 3, Counter: true},
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.svc.SeedAdmin(t.Context(), adminToken); err != nil {
		t.Fatal(err)
	}
	o := Options{Service: s.svc, Log: log, FailuresPerMinute: 1000}
	for _, c := range change {
		c(&o)
	}
	if s.api, err = New(o); err != nil {
		t.Fatal(err)
	}
	s.http = httptest.NewServer(s.api.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.eng.Run(ctx) }()
	t.Cleanup(func() {
		s.api.Close()
		http.DefaultClient.CloseIdleConnections()
		s.http.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := checks.Close(); err != nil {
			t.Error(err)
		}
	})
	ready := time.NewTicker(time.Millisecond)
	defer ready.Stop()
	for s.eng.Healthy() != nil {
		<-ready.C
	}
	s.readDocument()
	return s
}

// readDocument compiles what the server says of itself.
func (s *server) readDocument() {
	s.t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.api.docs.json))
	if err != nil {
		s.t.Fatal(err)
	}
	s.schemas = jsonschema.NewCompiler()
	s.schemas.DefaultDraft(jsonschema.Draft2020)
	if err := s.schemas.AddResource("api.json", doc); err != nil {
		s.t.Fatal(err)
	}
	s.paths = doc.(map[string]any)["paths"].(map[string]any)
}

type answer struct {
	status int
	header http.Header
	text   string
	tree   any
}

// do sends a request and holds the answer to the document.
func (s *server) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.http.URL+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, text: string(text)}
	if method == http.MethodHead {
		return a
	}
	if strings.Contains(res.Header.Get("Content-Type"), "json") {
		if a.tree, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
			s.t.Errorf("%s %s: %d: not JSON: %v: %s", method, path, a.status, err, text)
		}
	}
	s.hold(method, path, a)
	return a
}

// hold fails the test when the answer is not what the document says.
func (s *server) hold(method, path string, a answer) {
	s.t.Helper()
	s.holding.Lock()
	defer s.holding.Unlock()
	media := a.header.Get("Content-Type")
	if a.status >= 400 && path != "/readyz" { // which says more than that something is wrong
		if media != problemType {
			s.t.Errorf("%s %s: %d with content type %q", method, path, a.status, media)
		}
		if err := s.compile("#/components/schemas/Problem").Validate(a.tree); err != nil {
			s.t.Errorf("%s %s: %d: %v\n%s", method, path, a.status, err, a.text)
		}
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY"} {
		if got := a.header.Get(name); got != want {
			s.t.Errorf("%s %s: %s is %q", method, path, name, got)
		}
	}
	route, op := s.operation(method, path)
	if op == nil || a.status == 405 {
		return
	}
	pointer, status := "", fmt.Sprint(a.status)
	responses := op["responses"].(map[string]any)
	if _, ok := responses[status]; !ok {
		if a.status < 400 {
			s.t.Errorf("%s %s: %d is not in the document", method, path, a.status)
		}
		status = "default"
	}
	response := responses[status].(map[string]any)
	content, _ := response["content"].(map[string]any)
	if content == nil {
		if a.text != "" {
			s.t.Errorf("%s %s: %d has a body that is not in the document", method, path, a.status)
		}
		return
	}
	if content[media] == nil {
		s.t.Errorf("%s %s: %d: content type %q is not in the document", method, path, a.status, media)
		return
	}
	if a.tree == nil {
		return
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	pointer = "#/paths/" + escape.Replace(route) + "/" + strings.ToLower(method) + "/responses/" + status + "/content/" +
		escape.Replace(media) + "/schema"
	if err := s.compile(pointer).Validate(a.tree); err != nil {
		s.t.Errorf("%s %s: %d: %v\n%s", method, path, a.status, err, a.text)
	}
}

func (s *server) compile(pointer string) *jsonschema.Schema {
	s.t.Helper()
	schema, err := s.schemas.Compile("api.json" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer))
	if err != nil {
		s.t.Fatalf("%s: %v", pointer, err)
	}
	return schema
}

// operation finds what the document calls a request.
func (s *server) operation(method, path string) (string, map[string]any) {
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(path, "/")
	best, params := "", 100
	for route := range s.paths {
		names := strings.Split(route, "/")
		if len(names) != len(parts) {
			continue
		}
		n, match := 0, true
		for i := range names {
			if strings.HasPrefix(names[i], "{") {
				n++
			} else if names[i] != parts[i] {
				match = false
			}
		}
		if match && n < params {
			best, params = route, n
		}
	}
	if best == "" {
		return "", nil
	}
	op, _ := s.paths[best].(map[string]any)[strings.ToLower(method)].(map[string]any)
	return best, op
}

func (s *server) must(status int, a answer) answer {
	s.t.Helper()
	if a.status != status {
		s.t.Fatalf("got %d, want %d: %s", a.status, status, a.text)
	}
	return a
}

func (s *server) as(token string) *server {
	other := *s
	other.token = token
	return &other
}

func (a answer) get(path string) any {
	at := a.tree
	for _, part := range strings.Split(path, ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[part]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i >= len(v) {
				return nil
			}
			at = v[i]
		default:
			return nil
		}
	}
	return at
}

func (a answer) str(path string) string {
	text, _ := a.get(path).(string)
	return text
}

// faults returns location to message of a problem.
func (a answer) faults(t testing.TB) map[string]string {
	t.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(a.text), &p); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range p.Errors {
		found[f.Location] = f.Message
	}
	return found
}

// faulty is a store that fails when it is told to.
type faulty struct {
	service.Store
	mu      sync.Mutex
	err     error
	doubts  int    // so many writes of monitors and channels end uncertain
	made    bool   // and are made all the same
	pending func() // what is made when the next write comes: writes are made one after the other
}

// doubt has so many writes end uncertain, and be made or not once the caller has been told.
func (f *faulty) doubt(times int, made bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.doubts, f.made = times, made
}

// write is a write that may be uncertain.
func (f *faulty) write(write func(ctx context.Context) error) (done bool, err error) {
	f.mu.Lock()
	before := f.pending
	f.pending = nil
	uncertain := f.doubts > 0
	if uncertain {
		f.doubts--
	}
	if uncertain && f.made {
		f.pending = func() {
			if err := write(context.Background()); err != nil && !errors.Is(err, monitor.ErrNotFound) {
				panic(err)
			}
		}
	}
	f.mu.Unlock()
	if before != nil {
		before()
	}
	if uncertain {
		return true, monitor.ErrUncertain
	}
	return false, nil
}

func (f *faulty) UpdateMonitor(ctx context.Context, m *monitor.Monitor) error {
	later := *m
	if done, err := f.write(func(ctx context.Context) error { return f.Store.UpdateMonitor(ctx, &later) }); done {
		return err
	}
	return f.Store.UpdateMonitor(ctx, m)
}

func (f *faulty) DeleteMonitor(ctx context.Context, id string, last *monitor.Transition) error {
	if done, err := f.write(func(ctx context.Context) error { return f.Store.DeleteMonitor(ctx, id, last) }); done {
		return err
	}
	return f.Store.DeleteMonitor(ctx, id, last)
}

func (f *faulty) CreateChannel(ctx context.Context, c *monitor.Channel) error {
	later := *c
	if done, err := f.write(func(ctx context.Context) error { return f.Store.CreateChannel(ctx, &later) }); done {
		return err
	}
	return f.Store.CreateChannel(ctx, c)
}

func (f *faulty) UpdateChannel(ctx context.Context, c *monitor.Channel) error {
	later := *c
	if done, err := f.write(func(ctx context.Context) error { return f.Store.UpdateChannel(ctx, &later) }); done {
		return err
	}
	return f.Store.UpdateChannel(ctx, c)
}

func (f *faulty) DeleteChannel(ctx context.Context, id string) error {
	if done, err := f.write(func(ctx context.Context) error { return f.Store.DeleteChannel(ctx, id) }); done {
		return err
	}
	return f.Store.DeleteChannel(ctx, id)
}

func (f *faulty) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *faulty) now() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *faulty) Monitor(ctx context.Context, id string) (monitor.Monitor, error) {
	if err := f.now(); err != nil {
		return monitor.Monitor{}, err
	}
	return f.Store.Monitor(ctx, id)
}

func (f *faulty) ListMonitors(ctx context.Context, q monitor.Query) (monitor.Page[monitor.Listed], error) {
	if err := f.now(); err != nil {
		return monitor.Page[monitor.Listed]{}, err
	}
	return f.Store.ListMonitors(ctx, q)
}

func (f *faulty) CreateMonitor(ctx context.Context, m *monitor.Monitor) error {
	if err := f.now(); err != nil {
		return err
	}
	later := *m
	if done, err := f.write(func(ctx context.Context) error { return f.Store.CreateMonitor(ctx, &later) }); done {
		return err
	}
	return f.Store.CreateMonitor(ctx, m)
}

func (f *faulty) Ready(ctx context.Context) error {
	if err := f.now(); err != nil {
		return err
	}
	return f.Store.Ready(ctx)
}
