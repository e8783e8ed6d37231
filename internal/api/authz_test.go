package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// lowest says who may use each route: "" is anybody. A route that is not in it fails the test.
func lowest() map[string]monitor.Role {
	return map[string]monitor.Role{
		"GET /healthz": "", "GET /readyz": "", "GET /push/:token": "", "POST /push/:token": "", "GET /api/push/:token": "", "POST /api/push/:token": "",
		"GET /metrics": monitor.Viewer, "GET /docs": monitor.Viewer, "GET /openapi.json": monitor.Viewer, "GET /openapi.yaml": monitor.Viewer,
		"GET /api/v1/monitors": monitor.Viewer, "POST /api/v1/monitors": monitor.Editor, "GET /api/v1/monitors/:id": monitor.Viewer,
		"PUT /api/v1/monitors/:id": monitor.Editor, "PATCH /api/v1/monitors/:id": monitor.Editor, "DELETE /api/v1/monitors/:id": monitor.Editor,
		"POST /api/v1/monitors/:id/check": monitor.Editor, "GET /api/v1/monitors/:id/samples": monitor.Viewer,
		"GET /api/v1/monitors/:id/uptime": monitor.Viewer, "GET /api/v1/monitors/:id/incidents": monitor.Viewer,
		"GET /api/v1/incidents": monitor.Viewer, "GET /api/v1/incidents/:id": monitor.Viewer,
		"GET /api/v1/kinds": monitor.Viewer, "GET /api/v1/kinds/:name": monitor.Viewer,
		"GET /api/v1/providers": monitor.Viewer, "GET /api/v1/providers/:name": monitor.Viewer,
		"GET /api/v1/channels": monitor.Viewer, "POST /api/v1/channels": monitor.Editor, "GET /api/v1/channels/:id": monitor.Viewer,
		"PUT /api/v1/channels/:id": monitor.Editor, "PATCH /api/v1/channels/:id": monitor.Editor, "DELETE /api/v1/channels/:id": monitor.Editor,
		"POST /api/v1/channels/:id/test": monitor.Editor,
		"GET /api/v1/plugins":            monitor.Viewer, "POST /api/v1/plugins": monitor.Admin, "GET /api/v1/plugins/:name": monitor.Viewer,
		"PATCH /api/v1/plugins/:name": monitor.Admin, "DELETE /api/v1/plugins/:name": monitor.Admin,
		"POST /api/v1/plugins/:name/grant": monitor.Admin, "POST /api/v1/plugins/:name/enable": monitor.Admin,
		"POST /api/v1/plugins/:name/disable": monitor.Admin,
		"GET /api/v1/tokens":                 monitor.Admin, "POST /api/v1/tokens": monitor.Admin, "DELETE /api/v1/tokens/:id": monitor.Admin,
		"GET /api/v1/me": monitor.Viewer, "GET /api/v1/stats": monitor.Viewer, "GET /api/v1/log": monitor.Admin, "GET /api/v1/events": monitor.Viewer,
	}
}

func (s *server) newToken(role string) string {
	s.t.Helper()
	return s.must(201, s.do("POST", "/api/v1/tokens", fmt.Sprintf(`{"name":%q,"role":%q}`, role+time.Now().String(), role))).str("token")
}

func TestEveryRouteHasAnAuthorizationDecision(t *testing.T) {
	s := start(t)
	roles := []struct {
		name  string
		rank  int
		token string
	}{{"anonymous", 0, ""}, {"viewer", 1, s.newToken("viewer")}, {"editor", 2, s.newToken("editor")}, {"admin", 3, s.newToken("admin")}}
	need := map[monitor.Role]int{"": 0, monitor.Viewer: 1, monitor.Editor: 2, monitor.Admin: 3}
	table, seen := lowest(), map[string]bool{}
	for _, r := range s.api.engine.Routes() {
		key := r.Method + " " + r.Path
		seen[key] = true
		role, ok := table[key]
		if !ok {
			t.Errorf("%s has no row in the table", key)
			continue
		}
		path := strings.NewReplacer(":id", "nosuch", ":name", "nosuch", ":token", "nosuch-token").Replace(r.Path)
		for _, who := range roles {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			req, err := http.NewRequestWithContext(ctx, r.Method, s.http.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if who.token != "" {
				req.Header.Set("Authorization", "Bearer "+who.token)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			cancel()
			denied := res.StatusCode == 401 || res.StatusCode == 403
			want := 0
			if who.rank < need[role] {
				want = 403
				if who.rank == 0 {
					want = 401
				}
			}
			if want == 0 && denied || want != 0 && res.StatusCode != want {
				t.Errorf("%s as %s: got %d, want %d", key, who.name, res.StatusCode, want)
			}
			if res.StatusCode == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: WWW-Authenticate is %q", key, res.Header.Get("WWW-Authenticate"))
			}
		}
	}
	for key := range table {
		if !seen[key] {
			t.Errorf("%s is in the table, and no route", key)
		}
	}
	for path, item := range s.paths {
		for method := range item.(map[string]any) {
			gin := strings.ToUpper(method) + " " + strings.NewReplacer("{", ":", "}", "").Replace(path)
			if !seen[gin] {
				t.Errorf("%s is in the document, and no route", gin)
			}
		}
	}
}

func TestTokens(t *testing.T) {
	s := start(t)
	made := s.must(201, s.do("POST", "/api/v1/tokens", `{"name":"ci","role":"editor","expires_at":"2100-01-01T00:00:00Z"}`))
	token, id := made.str("token"), made.str("id")
	if !strings.HasPrefix(token, "tcs_") || len(token) != 4+43 {
		t.Errorf("token is %q", token)
	}
	if list := s.must(200, s.do("GET", "/api/v1/tokens", "")); strings.Contains(list.text, token) || strings.Contains(list.text, "hash") {
		t.Errorf("the list shows the token: %s", list.text)
	}
	ci := s.as(token)
	if me := s.must(200, ci.do("GET", "/api/v1/me", "")); me.str("role") != "editor" || me.str("name") != "ci" || me.str("token_id") != id {
		t.Errorf("me: %s", me.text)
	}
	s.must(204, s.do("DELETE", "/api/v1/tokens/"+id, ""))
	a := s.must(401, ci.do("GET", "/api/v1/me", ""))
	if strings.Contains(a.text, token) || strings.Contains(s.log.String(), token) || strings.Contains(s.log.String(), adminToken) {
		t.Error("a token is shown")
	}
	for _, header := range []string{"", "Bearer", "Bearer ", "Basic " + adminToken, adminToken, "Bearer " + adminToken + "x", "Bearer " + strings.Repeat("x", 600)} {
		if a := s.as("").do("GET", "/api/v1/me", "", "Authorization", header); a.status != 401 {
			t.Errorf("%.40q: %d", header, a.status)
		}
	}
	s.must(200, s.as("").do("GET", "/api/v1/me", "", "Authorization", "bearer "+adminToken))
}

func TestWrongTokensAreLimited(t *testing.T) {
	s := start(t, func(o *Options) { o.FailuresPerMinute = 5 })
	s.must(200, s.do("GET", "/api/v1/me", ""))
	for range 5 {
		s.must(401, s.as("tcs_wrong").do("GET", "/api/v1/me", ""))
	}
	a := s.must(429, s.as("tcs_wrong").do("GET", "/api/v1/me", ""))
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.must(200, s.do("GET", "/api/v1/me", "")) // one that was good still is
}

func TestLimiterIsBounded(t *testing.T) {
	l := newLimiter(2, time.Hour)
	l.limit = 100
	for i := range 1000 {
		l.count(fmt.Sprintf("10.0.%d.%d", i/256, i%256))
	}
	if len(l.seen) > 100 {
		t.Errorf("%d addresses are kept", len(l.seen))
	}
	l = newLimiter(2, time.Hour)
	l.count("2001:db8::1")
	l.count("2001:db8::2")
	if l.wait("2001:db8::3") == 0 || l.wait("2001:db8:0:1::1") != 0 {
		t.Error("IPv6 addresses are not counted by network")
	}
	l.count("::ffff:192.0.2.1")
	l.count("192.0.2.1")
	if l.wait("192.0.2.1") == 0 {
		t.Error("a mapped address is another one")
	}
}
