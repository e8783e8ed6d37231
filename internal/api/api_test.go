package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
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
		t.Log(path)
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
	s.must(409, s.do("DELETE", "/api/v1/channels/"+c.str("id"), ""))
	s.must(409, s.do("POST", "/api/v1/monitors/"+id+"/check", ""))
	s.must(204, s.do("DELETE", "/api/v1/monitors/"+id, ""))
	s.must(404, s.do("GET", "/api/v1/monitors/"+id, ""))
	s.must(204, s.do("DELETE", "/api/v1/channels/"+c.str("id"), ""))
}
