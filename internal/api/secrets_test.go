package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

const canary = "canary-7f3a9c"

func (s *server) noCanary(what string, a answer) {
	s.t.Helper()
	if strings.Contains(a.text, canary) {
		s.t.Errorf("%s: the answer has the secret: %s", what, a.text)
	}
	for name, values := range a.header {
		if strings.Contains(strings.Join(values, " "), canary) {
			s.t.Errorf("%s: the header %s has the secret", what, name)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	s := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != canary {
			w.WriteHeader(401)
		}
	}))
	defer target.Close()
	var hooks []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hooks = append(hooks, r.Header.Get("X-Key")) }))
	defer hook.Close()

	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"http","target":"`+target.URL+`","config":{"headers":{"X-Key":"`+canary+`"}}}`))
	s.noCanary("create", m)
	if m.str("config.headers.X-Key") != "••••" {
		t.Errorf("config is %v", m.get("config"))
	}
	one := "/api/v1/monitors/" + m.str("id")
	put := `{"name":"m2","kind":"http","target":"` + target.URL + `","config":{"headers":{"X-Key":"••••"}}}`
	s.noCanary("put", s.must(200, s.do("PUT", one, put)))
	s.noCanary("patch", s.must(200, s.do("PATCH", one, `{"labels":{"a":"b"}}`)))
	if r := s.must(200, s.do("POST", one+"/check", "")); r.str("status") != "up" {
		t.Errorf("the stored secret was lost: %s", r.text)
	}
	refused := s.must(422, s.do("PATCH", one, `{"config":{"headers":{"X-New":"••••"}}}`))
	if refused.faults(t)["body.config.headers.X-New"] == "" {
		t.Errorf("a mask without a secret: %s", refused.text)
	}
	s.must(200, s.do("PATCH", one, `{"config":{"headers":{"X-Key":"changed"}}}`))
	if r := s.must(200, s.do("POST", one+"/check", "")); r.str("status") != "down" {
		t.Errorf("the new secret was not taken: %s", r.text)
	}
	s.must(200, s.do("PATCH", one, `{"config":{"headers":{"X-Key":"`+canary+`"}}}`))

	c := s.must(201, s.do("POST", "/api/v1/channels", `{"name":"c","provider":"webhook","config":{"url":"`+hook.URL+`","headers":{"X-Key":"`+canary+`"}}}`))
	s.noCanary("channel", c)
	s.noCanary("channel patch", s.must(200, s.do("PATCH", "/api/v1/channels/"+c.str("id"), `{"name":"d"}`)))
	s.must(200, s.do("POST", "/api/v1/channels/"+c.str("id")+"/test", ""))
	if len(hooks) != 1 || hooks[0] != canary {
		t.Errorf("the hook got %v", hooks)
	}
	for _, path := range []string{"/monitors", "/channels", "/log", "/stats", "/kinds", "/incidents", "/monitors/" + m.str("id"), "/monitors/" + m.str("id") + "/samples"} {
		s.noCanary(path, s.must(200, s.do("GET", "/api/v1"+path, "")))
	}
	s.noCanary("metrics", s.must(200, s.do("GET", "/metrics", "")))

	q := `"` + canary + `"`
	for _, body := range []string{
		`{"name":"x","kind":"http","target":"http://127.0.0.1:1/","config":` + q + `}`,
		`{"name":"x","kind":"http","target":"http://127.0.0.1:1/","config":{"passwrd":` + q + `}}`,
		`{"name":"x","kind":"http","target":"http://127.0.0.1:1/","config":{"headers":{"X-Key":"` + canary + `\u0000"}}}`,
		`{"name":"x","kind":"http","target":"http://127.0.0.1:1/","config":{"headers":` + q + `}}`,
		`{"name":"x","kind":"http","target":"http://127.0.0.1:1/","config":{"headers":[` + q + `]}}`,
		`{"name":"x","kind":"http","target":"http://127.0.0.1:1/","config":{"bearer":{"a":` + q + `},"basic":` + q + `,"client_key":` + q + `}}`,
		`{"name":"x","kind":"http","target":"http://u:` + canary + `@127.0.0.1:99999/"}`,
		`{"name":"x","kind":"push","config":{"token":"` + canary + ` !"}}`,
		`{"name":"x","kind":"nosuch","config":{"password":` + q + `}}`,
		`{"name":"x","password":` + q + `}`, q, `[` + q + `]`, `{"name":"x",` + q + `}`, `{"name":"x","config":{"a":` + q, `{"config":{"a":` + q + `,"a":1}}`,
	} {
		a := s.do("POST", "/api/v1/monitors", body)
		if a.status < 400 {
			t.Errorf("%s: %d", body, a.status)
		}
		s.noCanary(body, a)
		s.noCanary(body, s.do("PUT", one, body))
		s.noCanary(body, s.do("PATCH", one, body))
	}
	for _, p := range s.must(200, s.do("GET", "/api/v1/providers", "")).get("items").([]any) {
		provider := p.(map[string]any)
		properties := provider["schema"].(map[string]any)["properties"].(map[string]any)
		for field := range properties {
			body := `{"name":"x","provider":"` + provider["name"].(string) + `","config":{"` + field + `":"` + canary + `\u0000","nosuch":` + q + `}}`
			a := s.do("POST", "/api/v1/channels", body)
			if a.status != 422 {
				t.Errorf("%s: %d: %s", body, a.status, a.text)
			}
			if secret, _ := properties[field].(map[string]any)["writeOnly"].(bool); secret {
				s.noCanary(body, a)
			}
		}
	}
	if strings.Contains(s.log.String(), canary) {
		t.Error("the log has the secret")
	}
}

func TestPush(t *testing.T) {
	s := start(t, func(o *Options) { o.FailuresPerMinute = 3 })
	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"job","kind":"push","interval":"1h"}`))
	url := m.str("push_url")
	if !strings.HasPrefix(url, "/push/") || len(url) < 40 || m.str("config.token") != "••••" {
		t.Fatalf("push_url is %q: %s", url, m.text)
	}
	one := "/api/v1/monitors/" + m.str("id")
	viewer := s.as(s.newToken("viewer"))
	if a := s.must(200, viewer.do("GET", one, "")); a.str("push_url") != "" {
		t.Error("a viewer gets the push address")
	}
	if a := s.must(200, viewer.do("GET", "/api/v1/monitors", "")); strings.Contains(a.text, "push_url") {
		t.Error("a viewer gets the push address in the list")
	}
	if a := s.must(200, s.do("PUT", one, `{"name":"job","kind":"push","interval":"2h"}`)); a.str("push_url") != url {
		t.Errorf("the push address changed to %s", a.str("push_url"))
	}
	anyone := s.as("")
	for _, path := range []string{url, "/api" + url} {
		for _, method := range []string{"GET", "POST"} {
			a := s.must(200, anyone.do(method, path+"?status=up&msg=OK&ping=12.5", ""))
			if strings.TrimSpace(a.text) != `{"ok":true}` {
				t.Errorf("got %s", a.text)
			}
		}
	}
	if a := s.must(200, s.do("GET", one, "")); a.str("state") != "up" || a.str("last.message") != "OK" || a.get("last.latency_us") == nil {
		t.Errorf("monitor: %s", a.text)
	}
	s.must(200, anyone.do("GET", url+"?status=down&msg=broken", ""))
	if a := s.must(200, s.do("GET", one, "")); a.str("state") != "down" {
		t.Errorf("monitor: %s", a.text)
	}
	for _, query := range []string{"status=sideways", "status=unknown", "ping=x", "ping=-1", "ping=NaN", "ping=1e300", "msg=%ff"} {
		s.must(422, anyone.do("GET", url+"?"+query, ""))
	}
	token := strings.TrimPrefix(url, "/push/")
	taken := s.must(422, s.do("POST", "/api/v1/monitors", `{"name":"thief","kind":"push","config":{"token":"`+token+`"}}`))
	if taken.faults(t)["body.config.token"] == "" || strings.Contains(taken.text, token) {
		t.Errorf("a taken token: %s", taken.text)
	}
	for range 9 {
		s.must(404, anyone.do("GET", "/push/nosuch", ""))
	}
	s.must(429, anyone.do("GET", "/push/nosuch", ""))
	s.must(200, anyone.do("GET", url, "")) // the right one is taken all the same
	if strings.Contains(s.log.String(), token) {
		t.Error("the log has the push token")
	}
}

type panicky struct{ text string }

func (p panicky) Error() string { panic(p.text) }

func TestFaultsOfTheServer(t *testing.T) {
	s := start(t)
	body := `{"name":"m","kind":"tcp","target":"127.0.0.1:1"}`
	const one = "/monitors/01J00000000000000000000000"
	internal := "SQL logic error near /var/lib/tocsin"
	for _, op := range []struct{ method, path, body string }{
		{"GET", "/monitors", ""},
		{"GET", one, ""},
		{"POST", "/monitors", body},
		{"PUT", one, body},
		{"PATCH", one, `{}`},
		{"DELETE", one, ""},
		{"GET", one + "/samples", ""},
		{"POST", one + "/check", ""},
	} {
		for _, tt := range []struct {
			err    error
			status int
		}{{errors.New(internal), 500}, {monitor.ErrClosed, 503}, {monitor.ErrUncertain, 500}, {panicky{internal}, 500}} {
			s.store.fail(tt.err)
			a := s.do(op.method, "/api/v1"+op.path, op.body)
			s.store.fail(nil)
			if a.status != tt.status {
				t.Errorf("%s %s: got %d, want %d: %s", op.method, op.path, a.status, tt.status, a.text)
			}
			if strings.Contains(a.text, "SQL") || strings.Contains(a.text, "/var/lib") || strings.Contains(a.text, "goroutine") {
				t.Errorf("%s %s: something internal is shown: %s", op.method, op.path, a.text)
			}
			if id := a.str("id"); id == "" || !strings.Contains(s.log.String(), id) {
				t.Errorf("%s %s: the log does not have the id %q", op.method, op.path, id)
			}
		}
	}
	if !strings.Contains(s.log.String(), internal) {
		t.Error("the log does not say what happened")
	}
	s.must(200, s.do("GET", "/api/v1/monitors", ""))
	s.must(201, s.do("POST", "/api/v1/monitors", body))
}

func TestAudit(t *testing.T) {
	s := start(t)
	editor := s.as(s.newToken("editor"))
	m := s.must(201, editor.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1"}`)).str("id")
	s.must(204, editor.do("DELETE", "/api/v1/monitors/"+m, ""))
	log := s.must(200, s.do("GET", "/api/v1/log?q=monitor.", ""))
	var actions []string
	for _, item := range log.get("items").([]any) {
		line := item.(map[string]any)
		attrs, _ := line["attrs"].(map[string]any)
		if attrs["object_id"] == m {
			actions = append(actions, attrs["action"].(string))
			if who, _ := attrs["who"].(string); !strings.HasPrefix(who, "editor") || attrs["from"] != "127.0.0.1" {
				t.Errorf("line: %v", line)
			}
		}
	}
	if strings.Join(actions, " ") != "monitor.delete monitor.create" {
		t.Errorf("actions are %v: %s", actions, log.text)
	}
}
