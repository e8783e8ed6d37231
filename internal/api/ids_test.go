package api

import (
	"strings"
	"testing"
)

// What can be no id is not there, on every route: it never gets as far as the database.
func TestMalformedIDs(t *testing.T) {
	s := start(t)
	for _, route := range s.api.engine.Routes() {
		var param string
		for _, p := range []string{":id", ":name", ":token"} {
			if strings.Contains(route.Path, p) {
				param = p
			}
		}
		if param == "" {
			continue
		}
		for _, id := range []string{
			"%00", "a%00b", "%ff", "%0a", "x", "01J0000000000000000000000", "01J00000000000000000000000%00", "01J0000000000000000000000%00",
			"01J0000000000000000000000U", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "%F0%9F%94%94", "..%2e", strings.Repeat("x", 5000),
		} {
			body := ""
			if route.Method == "PUT" || route.Method == "PATCH" {
				body = `{"name":"x"}`
			}
			path := strings.ReplaceAll(route.Path, param, id)
			if a := s.do(route.Method, path, body); a.status != 404 {
				t.Errorf("%s %q: got %d: %s", route.Method, path, a.status, a.text)
			}
		}
	}
	if log := s.log.String(); strings.Contains(log, "request failed") {
		t.Errorf("the server was at fault: %s", log)
	}
	// Who may not ask learns nothing else.
	if a := s.as("").do("GET", "/api/v1/monitors/%00", ""); a.status != 401 {
		t.Errorf("got %d", a.status)
	}
}

// A name that could be an id would make "show X" ambiguous.
func TestNamesAreNoIDs(t *testing.T) {
	s := start(t)
	id := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
	c := s.must(201, s.do("POST", "/api/v1/channels", `{"name":"c","provider":"webhook","config":{"url":"http://127.0.0.1:1/"}}`)).str("id")
	for _, name := range []string{id, strings.ToLower(id), "01J00000000000000000000000", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"} {
		for _, r := range []struct{ method, path, body string }{
			{"POST", "/monitors", `{"name":"` + name + `","kind":"tcp","target":"127.0.0.1:1"}`},
			{"PATCH", "/monitors/" + id, `{"name":"` + name + `"}`},
			{"POST", "/channels", `{"name":"` + name + `","provider":"webhook","config":{"url":"http://127.0.0.1:1/"}}`},
			{"PATCH", "/channels/" + c, `{"name":"` + name + `"}`},
			{"POST", "/tokens", `{"name":"` + name + `","role":"viewer"}`},
		} {
			a := s.do(r.method, "/api/v1"+r.path, r.body)
			if a.status != 422 || !strings.Contains(a.faults(t)["body.name"], "the form of an id") {
				t.Errorf("%s %s %s: got %d: %s", r.method, r.path, r.body, a.status, a.text)
			}
		}
	}
	s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"01J0000000000000000000000","kind":"tcp","target":"127.0.0.1:1","paused":true}`))
}

// Clients send on the cursor that they have, at first an empty one.
func TestAnEmptyCursorIsTheFirstPage(t *testing.T) {
	s := start(t)
	id := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
	for _, path := range []string{"/monitors?cursor=", "/incidents?cursor=", "/log?cursor=", "/monitors/" + id + "/samples?cursor=", "/monitors/" + id + "/incidents?cursor=&limit=1"} {
		s.must(200, s.do("GET", "/api/v1"+path, ""))
	}
	if a := s.must(200, s.do("GET", "/api/v1/monitors?cursor=", "")); a.str("items.0.name") != "m" {
		t.Errorf("got %s", a.text)
	}
	s.must(422, s.do("GET", "/api/v1/monitors?limit=", ""))
	s.must(422, s.do("GET", "/api/v1/monitors?cursor=&cursor=", ""))
}

func TestShapesOfFigures(t *testing.T) {
	s := start(t)
	id := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
	stats := s.must(200, s.do("GET", "/api/v1/stats", ""))
	store, _ := stats.get("store").(map[string]any)
	for _, name := range []string{"test_commits", `test_rows{lane="must"}`} {
		if store[name] == nil {
			t.Errorf("there is no %s in %v", name, store)
		}
	}
	for _, path := range []string{"/samples", "/samples?step=1h", "/uptime", "/samples?from=2026-01-02T03:04:05.123456789Z"} {
		a := s.must(200, s.do("GET", "/api/v1/monitors/"+id+path, ""))
		for _, field := range []string{"from", "to"} {
			if _, part, _ := strings.Cut(strings.TrimSuffix(a.str(field), "Z"), "."); len(part) > 3 {
				t.Errorf("%s: %s is %s", path, field, a.str(field))
			}
		}
	}
}
