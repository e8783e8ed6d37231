package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTour(t *testing.T) {
	s := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	defer target.Close()
	hooks := make(chan struct{}, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hooks <- struct{}{} }))
	defer hook.Close()

	c := s.must(201, s.do("POST", "/api/v1/channels", `{"name":"ops","provider":"webhook","config":{"url":"`+hook.URL+`/hook"}}`))
	if c.header.Get("ETag") != `"1"` || c.header.Get("Location") != "/api/v1/channels/"+c.str("id") {
		t.Errorf("headers are %v", c.header)
	}
	test := s.must(200, s.do("POST", "/api/v1/channels/"+c.str("id")+"/test", ""))
	if test.get("ok") != true {
		t.Errorf("test: %s", test.text)
	}
	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"api","kind":"http","target":"`+target.URL+`/","interval":"10s","timeout":"5s",
	  "retries":1,"retry_interval":"2s","config":{"method":"GET"},"assert":["status == 200"],"channels":["ops"],"labels":{"team":"web"}}`))
	id := m.str("id")
	r := s.must(200, s.do("POST", "/api/v1/monitors/"+id+"/check", ""))
	if r.str("status") != "up" {
		t.Errorf("check: %s", r.text)
	}
	got := s.must(200, s.do("GET", "/api/v1/monitors/"+id, ""))
	if got.str("state") != "up" || got.str("last.status") != "up" || got.str("interval") != "10s" || got.str("channels.0") != "ops" {
		t.Errorf("monitor: %s", got.text)
	}
	for _, path := range []string{
		"/monitors?state=up&kind=http&label=team:web&q=api&sort=state&limit=5", "/monitors/" + id + "/samples", "/monitors/" + id + "/samples?step=1h",
		"/monitors/" + id + "/uptime?range=7d", "/monitors/" + id + "/incidents", "/incidents", "/incidents?open=true",
		"/kinds", "/kinds/http", "/providers", "/providers/webhook", "/channels", "/channels/" + c.str("id"), "/stats", "/log", "/tokens", "/me",
	} {
		s.must(200, s.do("GET", "/api/v1"+path, ""))
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml", "/docs"} {
		s.must(200, s.do("GET", path, ""))
	}
	p := s.must(200, s.do("PATCH", "/api/v1/monitors/"+id, `{"paused":true,"labels":{"team":null,"env":"prod"}}`, "If-Match", `"1"`))
	if p.str("state") != "paused" || p.get("labels.team") != nil || p.str("labels.env") != "prod" || p.header.Get("ETag") != `"2"` {
		t.Errorf("patch: %s", p.text)
	}
	s.must(412, s.do("PATCH", "/api/v1/monitors/"+id, `{"paused":false}`, "If-Match", `"1"`))
	if a := s.must(409, s.do("DELETE", "/api/v1/channels/"+c.str("id"), "")); a.str("detail") != "it is used by api" {
		t.Errorf("in use: %s", a.text)
	}
	if a := s.must(409, s.do("POST", "/api/v1/monitors/"+id+"/check", "")); a.str("detail") != "the monitor is paused; resume it first" {
		t.Errorf("paused: %s", a.text)
	}
	s.must(204, s.do("DELETE", "/api/v1/monitors/"+id, ""))
	s.must(404, s.do("GET", "/api/v1/monitors/"+id, ""))
	s.must(204, s.do("DELETE", "/api/v1/channels/"+c.str("id"), ""))
}

func TestDocuments(t *testing.T) {
	s := start(t)
	page := s.must(200, s.do("GET", "/docs", ""))
	for _, want := range []string{"POST /api/v1/monitors", "If-Match", "retry_interval", "a day before to"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	csp := page.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") || strings.Contains(csp, "unsafe") || strings.Contains(page.text, "http://") ||
		strings.Contains(page.text, "<script") {
		t.Errorf("policy is %q", csp)
	}
	doc := s.must(200, s.do("GET", "/openapi.json", ""))
	if doc.str("openapi") != "3.1.0" || doc.get("components.schemas.ErrorModel") != nil {
		t.Errorf("the document is %.200s", doc.text)
	}
	if yaml := s.must(200, s.do("GET", "/openapi.yaml", "")); !strings.Contains(yaml.text, "/api/v1/monitors:") {
		t.Errorf("the YAML is %.200s", yaml.text)
	}
}

func TestHead(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/healthz", "/api/v1/monitors"} {
		if a := s.do("HEAD", path, ""); a.status != 200 || a.text != "" {
			t.Errorf("%s: %d %q", path, a.status, a.text)
		}
	}
}

func TestAnyAcceptGetsJSON(t *testing.T) {
	s := start(t)
	for _, accept := range []string{"", "*/*", "text/html", "application/json;q=0.1, text/html", "application/problem+json", "application/cbor", ";;;"} {
		s.must(200, s.do("GET", "/api/v1/me", "", "Accept", accept))
		s.must(404, s.do("GET", "/api/v1/monitors/x", "", "Accept", accept))
		s.must(422, s.do("GET", "/api/v1/monitors?limit=0", "", "Accept", accept))
	}
}

func TestReadiness(t *testing.T) {
	s := start(t)
	a := s.must(200, s.as("").do("GET", "/readyz", ""))
	if a.str("status") != "ready" || a.str("parts.store") != "ok" || a.str("parts.engine") != "ok" {
		t.Errorf("got %s", a.text)
	}
	s.store.fail(errors.New("the writer is stuck"))
	if a = s.must(503, s.as("").do("GET", "/readyz", "")); a.str("status") != "not ready" || a.str("parts.store") != "the writer is stuck" {
		t.Errorf("got %s", a.text)
	}
	s.must(200, s.as("").do("GET", "/healthz", "")) // a restart would not help
}

func TestPatchesOfOneMonitorAtOnce(t *testing.T) {
	s := start(t)
	one := "/api/v1/monitors/" + s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if a := s.do("PATCH", one, fmt.Sprintf(`{"labels":{"l%d":"x"}}`, i)); a.status != 200 {
				t.Errorf("%d: %s", a.status, a.text)
			}
		})
	}
	wg.Wait()
	a := s.must(200, s.do("GET", one, ""))
	if labels := a.get("labels").(map[string]any); len(labels) != 4 || a.header.Get("ETag") != `"5"` {
		t.Errorf("a change was lost: %s", a.text)
	}
}

func TestMassAssignment(t *testing.T) {
	s := start(t)
	for _, field := range []string{"id", "series", "revision", "created_at", "updated_at", "state", "since", "last", "owner", "role", "push_url"} {
		a := s.do("POST", "/api/v1/monitors", fmt.Sprintf(`{"name":"m","kind":"tcp","target":"127.0.0.1:1",%q:"1"}`, field))
		if a.status != 422 || a.faults(t)["body."+field] == "" {
			t.Errorf("%s: %d: %s", field, a.status, a.text)
		}
	}
}

// The list of 1,000 monitors is one query, and quick. The time is printed and not asserted.
func BenchmarkListMonitors(b *testing.B) {
	s := start(b)
	for i := range 1000 {
		s.must(201, s.do("POST", "/api/v1/monitors", fmt.Sprintf(
			`{"name":"m%d","kind":"http","target":"http://127.0.0.1:1/","paused":true,"config":{"headers":{"X-Key":"secret"}},"labels":{"a":"b"}}`, i)))
	}
	handler := s.api.Handler()
	for b.Loop() {
		r := httptest.NewRequest("GET", "/api/v1/monitors?limit=1000", nil)
		r.Header.Set("Authorization", "Bearer "+adminToken)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// The names that other tools depend on. A field may be added here; none may go or change.
func TestShapes(t *testing.T) {
	s := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer target.Close()
	s.must(201, s.do("POST", "/api/v1/channels", `{"name":"ops","provider":"webhook","config":{"url":"http://127.0.0.1:1/"}}`))
	one := "/monitors/" + s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"http","target":"`+target.URL+`"}`)).str("id")
	s.must(200, s.do("POST", "/api/v1"+one+"/check", ""))
	tick := time.NewTicker(time.Millisecond) // samples are stored behind the check's back
	defer tick.Stop()
	for s.do("GET", "/api/v1"+one+"/samples", "").get("items.0") == nil {
		<-tick.C
	}
	for path, want := range map[string]map[string]string{
		one: {
			"": "assert channels config created_at degrade id incident_id interval kind labels last name paused recoveries retries " +
				"retry_interval revision since state target timeout updated_at",
			"last": "address at code latency_us message metrics status timing_us",
		},
		"/monitors": {"": "items next_cursor"},
		one + "/samples": {
			"": "from items next_cursor resolution to", "items.0": "at code latency_us message state status",
		},
		one + "/samples?step=1h": {"items.0": "at counts to"},
		one + "/uptime": {
			"":        "counts from known_percent latency mtbf_seconds mttr_seconds outages seconds success_percent to uptime_percent",
			"seconds": "degraded down unknown up",
		},
		"/channels":           {"items.0": "config created_at disabled filter health id name provider revision updated_at"},
		"/tokens":             {"items.0": "created_at expires_at id last_used_at name role"},
		"/me":                 {"": "name role token_id"},
		"/kinds/http":         {"": "doc name schema target variables"},
		"/providers/webhook":  {"": "doc name schema"},
		"/log":                {"items.0": "at attrs level message"},
		"/monitors?limit=0":   {"": "detail errors id status title type", "errors.0": "location message value"},
		"/monitors/nosuch":    {"": "detail id status title type"},
		"/incidents?limit=10": {"": "items next_cursor"},
	} {
		a := s.do("GET", "/api/v1"+path, "")
		for at, names := range want {
			tree := a.tree
			if at != "" {
				tree = a.get(at)
			}
			object, ok := tree.(map[string]any)
			if got := strings.Join(sortedKeys(object), " "); !ok || got != names {
				t.Errorf("%s at %q:\n got %s\nwant %s", path, at, got, names)
			}
		}
	}
}
