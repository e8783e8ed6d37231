package api

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bad is a body of a resource with one thing wrong, and where the fault is said to be.
type bad struct {
	field string // of the resource, as the DTO has it
	json  string // put in the place of the field's value
	where string // location; empty: body.<field>
	says  string // a part of the message
}

func long(n int) string { return `"` + strings.Repeat("x", n) + `"` }

func badMonitors() []bad {
	type b = bad
	all := []bad{
		b{"name", `""`, "", "required"},
		b{"name", `null`, "", "required"},
		b{"name", `7`, "", "must be a text"},
		b{"name", `["a"]`, "", "must be a text"},
		b{"name", long(10_000), "", "has 10000 characters, and must have at most 200"},
		b{"name", `"a\u0000b"`, "", "control characters"},
		b{"name", `"a\nb"`, "", "control characters"},
		b{"name", `"a\u001b[31mb"`, "", "control characters"},
		b{"name", `"a\u202eb"`, "", "control characters"},
		b{"name", `" a"`, "", "white space"},
		b{"name", `"taken"`, "", "another monitor has this name"},
		b{"kind", `""`, "", "known are"},
		b{"kind", `"gopher"`, "", "known are dns, http, icmp, push, tcp, tls"},
		b{"kind", `"HTTP"`, "", "known are"},
		b{"kind", `{}`, "", "must be a text"},
		b{"kind", `null`, "", "required"},
		b{"target", `7`, "", "must be a text"},
		b{"target", `""`, "", ""},
		b{"target", long(10_000), "", "at most 2000"},
		b{"target", `"http://a\u0000b/"`, "", "control characters"},
		b{"target", `"gopher://example.com/"`, "", "http"},
		b{"target", `"http://127.0.0.1:0/"`, "", "port"},
		b{"target", `"http://127.0.0.1:65536/"`, "", "port"},
		b{"target", `"http://127.0.0.1:x/"`, "", ""},
		b{"retries", `-1`, "", "between 0 and 100"},
		b{"retries", `101`, "", "between 0 and 100"},
		b{"retries", `1.5`, "", "whole number"},
		b{"retries", `1e3`, "", "whole number"},
		b{"retries", `99999999999999999999`, "", "whole number"},
		b{"retries", `"1"`, "", "whole number"},
		b{"recoveries", `-1`, "", "between 0 and 100"},
		b{"recoveries", `true`, "", "whole number"},
		b{"config", `[]`, "", "must be an object"},
		b{"config", `"x"`, "", "must be an object"},
		b{"config", `{"methd":"GET"}`, "body.config.methd", "method"},
		b{"config", `{"method":7}`, "body.config.method", ""},
		b{"config", `{"method":"G\u0000T"}`, "body.config.method", ""},
		b{"config", `{"max_body_bytes":-1}`, "body.config.max_body_bytes", ""},
		b{"assert", `"status == 200"`, "", "must be a list"},
		b{"assert", `[7]`, "body.assert[0]", "must be a text"},
		b{"assert", `["status =="]`, "body.assert[0]", ""},
		b{"assert", `["status == 200", "nosuch > 1"]`, "body.assert[1]", ""},
		b{"assert", `["a\u0000"]`, "body.assert[0]", "control characters"},
		b{"assert", `[` + long(2001) + `]`, "body.assert[0]", "at most 2000"},
		b{"assert", `[` + strings.TrimSuffix(strings.Repeat(`"true",`, 51), ",") + `]`, "", "at most 50"},
		b{"degrade", `["latency <"]`, "body.degrade[0]", ""},
		b{"degrade", `{}`, "", "must be a list"},
		b{"channels", `["nosuch"]`, "body.channels[0]", "no channel has this name; there are: ops"},
		b{"channels", `["ops","ops"]`, "body.channels[1]", "named twice"},
		b{"channels", `[["ops"]]`, "body.channels[0]", "must be a text"},
		b{"channels", `"ops"`, "", "must be a list"},
		b{"labels", `[]`, "", "must be an object"},
		b{"labels", `{"a":1}`, "body.labels.a", "must be a text"},
		b{"labels", `{"":"x"}`, "", "letters"},
		b{"labels", `{"a b":"x"}`, "", "letters"},
		b{"labels", `{"` + strings.Repeat("k", 64) + `":"x"}`, "", "1 to 63"},
		b{"labels", `{"a":` + long(201) + `}`, "body.labels.a", "at most 200"},
		b{"labels", `{"a":"x\u0000"}`, "body.labels.a", "control characters"},
		b{"paused", `"yes"`, "", "must be true or false"},
		b{"paused", `1`, "", "must be true or false"},
		b{"nosuch", `1`, "", "is unknown; known are"},
		b{"Name", `"x"`, "", "did you mean name?"},
		b{"intervall", `"30s"`, "", "did you mean interval?"},
		b{"id", `"01J0000000000000000000000"`, "", "is read-only"},
		b{"revision", `7`, "", "is read-only"},
		b{"state", `"up"`, "", "is read-only"},
		b{"created_at", `"2020-01-01T00:00:00Z"`, "", "is read-only"},
		b{"series", `7`, "", "is unknown"},
	}
	for _, field := range []string{"interval", "timeout", "retry_interval"} {
		for _, value := range []string{`7`, `"x"`, `"7"`, `""`, `true`, `"1h 5m"`, `"1d"`, `"30s\u0000"`} {
			all = append(all, b{field, value, "", "duration such as"})
		}
		for _, value := range []string{`"0s"`, `"-5s"`, `"24h1s"`, `"1ns"`} {
			all = append(all, b{field, value, "", "between"})
		}
		all = append(all, b{field, `"99999999999999999h"`, "", "duration"})
	}
	return append(all, b{"interval", `"999ms"`, "", "between 1s and 24h"}, b{"timeout", `"31s"`, "", "between 10ms and the interval, 30s"},
		b{"timeout", `"9ms"`, "", "between 10ms"}, b{"retry_interval", `"31s"`, "", "between 1s and the interval"})
}

func badChannels() []bad {
	type b = bad
	return []bad{
		b{"name", `""`, "", "required"},
		b{"name", `{}`, "", "must be a text"},
		b{"name", long(10_000), "", "at most 200"},
		b{"name", `"a\u0000"`, "", "control characters"},
		b{"name", `"taken"`, "", "another channel has this name"},
		b{"provider", `"pigeon"`, "", "known are"},
		b{"provider", `7`, "", "must be a text"},
		b{"provider", `null`, "", "required"},
		b{"config", `{}`, "body.config.url", "required"},
		b{"config", `[1]`, "", "must be an object"},
		b{"config", `{"url":"ftp://x/"}`, "body.config.url", ""},
		b{"config", `{"url":7}`, "body.config.url", ""},
		b{"config", `{"url":"http://127.0.0.1:65536/"}`, "body.config.url", ""},
		b{"config", `{"url":"http://127.0.0.1/","uri":"x"}`, "body.config.uri", ""},
		b{"filter", `[]`, "", "must be an object"},
		b{"filter", `{"transitions":"down"}`, "body.filter.transitions", "must be a list"},
		b{"filter", `{"transitions":["sideways"]}`, "body.filter.transitions[0]", "must be one of down, up"},
		b{"filter", `{"transitions":["expiring"]}`, "body.filter.transitions[0]", "must be one of down, up"},
		b{"filter", `{"transitions":["down","down"]}`, "body.filter.transitions[1]", "named twice"},
		b{"filter", `{"labels":{"a b":"c"}}`, "body.filter.labels", "letters"},
		b{"filter", `{"labels":{"a":7}}`, "body.filter.labels.a", "must be a text"},
		b{"filter", `{"label":{}}`, "body.filter.label", "did you mean labels?"},
		b{"disabled", `"no"`, "", "must be true or false"},
		b{"health", `{}`, "", "is read-only"},
		b{"url", `"http://x/"`, "", "is unknown"},
	}
}

func badTokens() []bad {
	type b = bad
	return []bad{
		b{"name", `""`, "", "required"},
		b{"name", long(101), "", "at most 100"},
		b{"name", `7`, "", "must be a text"},
		b{"name", `"seed"`, "", "another token has this name"},
		b{"role", `"root"`, "", "must be one of admin, editor, viewer"},
		b{"role", `null`, "", "required"},
		b{"role", `7`, "", "must be a text"},
		b{"expires_at", `"tomorrow"`, "", "must be a time such as"},
		b{"expires_at", `"2020-01-01T00:00:00Z"`, "", "must lie in the future"},
		b{"expires_at", `7`, "", "must be a text"},
		b{"hash", `"x"`, "", "is unknown"},
		b{"token", `"x"`, "", "is read-only"},
	}
}

// body replaces one field of a good body.
func body(good map[string]string, b bad) string {
	fields := maps.Clone(good)
	if b.field == "Name" { // both would be a repeated key
		delete(fields, "name")
	}
	fields[b.field] = b.json
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		parts = append(parts, fmt.Sprintf("%q:%s", name, fields[name]))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestEveryFieldOfEveryResource(t *testing.T) {
	s := start(t)
	s.must(201, s.do("POST", "/api/v1/channels", `{"name":"ops","provider":"webhook","config":{"url":"http://127.0.0.1:1/"}}`))
	s.must(201, s.do("POST", "/api/v1/channels", `{"name":"taken","provider":"webhook","config":{"url":"http://127.0.0.1:1/"}}`))
	s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"taken","kind":"tcp","target":"127.0.0.1:1","paused":true}`))
	for _, r := range []struct {
		path  string
		dto   reflect.Type
		good  map[string]string
		cases []bad
		edits bool
	}{
		{"/monitors", reflect.TypeFor[MonitorSpec](), map[string]string{
			"name": `"good"`, "kind": `"http"`, "target": `"http://127.0.0.1:1/"`, "interval": `"30s"`, "timeout": `"5s"`,
			"retry_interval": `"5s"`, "paused": "true",
		}, badMonitors(), true},
		{"/channels", reflect.TypeFor[ChannelSpec](), map[string]string{
			"name": `"good"`, "provider": `"webhook"`, "config": `{"url":"http://127.0.0.1:1/"}`,
		}, badChannels(), true},
		{"/tokens", reflect.TypeFor[TokenSpec](), map[string]string{"name": `"good"`, "role": `"viewer"`}, badTokens(), false},
	} {
		path := "/api/v1" + r.path
		t.Run(r.path[1:], func(t *testing.T) {
			s := *s
			s.t = t
			tried := map[string]bool{}
			for _, b := range r.cases {
				tried[b.field] = true
			}
			for i := range r.dto.NumField() {
				name, _, _ := strings.Cut(r.dto.Field(i).Tag.Get("json"), ",")
				if !tried[name] {
					t.Errorf("no bad value is tried for %s", name)
				}
			}
			before := s.must(200, s.do("GET", path, "")).text
			for _, b := range r.cases {
				s.refuse(http.MethodPost, path, body(r.good, b), b)
			}
			if after := s.must(200, s.do("GET", path, "")).text; after != before && r.edits {
				t.Errorf("something changed:\n%s\n%s", before, after)
			}
			if !r.edits {
				return
			}
			made := s.must(201, s.do("POST", path, body(r.good, bad{"name", r.good["name"], "", ""})))
			one := path + "/" + made.str("id")
			before = s.must(200, s.do("GET", one, "")).text
			for _, b := range r.cases {
				s.refuse(http.MethodPut, one, body(r.good, b), b)
				if b.json == "null" || b.field == "config" && b.json == "{}" {
					continue // in a patch: takes the field back to its default; changes nothing
				}
				s.refuse(http.MethodPatch, one, fmt.Sprintf("{%q:%s}", b.field, b.json), b)
			}
			if after := s.must(200, s.do("GET", one, "")).text; after != before {
				t.Errorf("something changed:\n%s\n%s", before, after)
			}
			s.refuse(http.MethodPatch, one, `{"name":null}`, bad{"name", "", "", "is required"})
			s.must(200, s.do(http.MethodPut, one, body(r.good, bad{"name", `"renamed"`, "", ""})))
		})
	}
}

func (s *server) refuse(method, path, body string, b bad) {
	s.t.Helper()
	a := s.do(method, path, body)
	where := b.where
	if where == "" {
		where = "body." + b.field
	}
	shown := body
	if len(shown) > 300 {
		shown = shown[:300] + "…"
	}
	if a.status != http.StatusUnprocessableEntity {
		s.t.Errorf("%s %s %s: %d: %s", method, path, shown, a.status, a.text)
		return
	}
	faults := a.faults(s.t)
	if message, ok := faults[where]; !ok || !strings.Contains(message, b.says) {
		s.t.Errorf("%s %s %s:\n  want a fault at %s with %q, got %v", method, path, shown, where, b.says, faults)
	}
	// One wrong thing is one fault, but for a field that others are measured against.
	if len(faults) > 1 && b.field != "kind" && b.field != "provider" && b.field != "Name" {
		s.t.Errorf("%s %s %s: more than one fault: %v", method, path, shown, faults)
	}
	if len(a.text) > 4000 {
		s.t.Errorf("%s %s: the answer has %d bytes", method, path, len(a.text))
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	s := start(t)
	a := s.must(422, s.do("POST", "/api/v1/monitors", `{"kind":"http","target":"http://127.0.0.1:0/","interval":"10s","timeout":"1m","retries":"x",
	  "retry_interval":"zzz","recoveries":-1,"config":{"method":7,"nosuch":1},"assert":["status =="],"channels":["a","b"],"labels":{"x y":"z"},"typo":1}`))
	got := slices.Sorted(maps.Keys(a.faults(t)))
	want := []string{
		"body.assert[0]", "body.channels[0]", "body.channels[1]", "body.config.method", "body.config.nosuch", "body.labels", "body.name",
		"body.recoveries", "body.retries", "body.retry_interval", "body.target", "body.timeout", "body.typo",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestUnreadableBodies(t *testing.T) {
	s := start(t)
	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
	c := s.must(201, s.do("POST", "/api/v1/channels", `{"name":"c","provider":"webhook","config":{"url":"http://127.0.0.1:1/"}}`)).str("id")
	for _, op := range []struct{ method, path string }{
		{"POST", "/monitors"},
		{"PUT", "/monitors/" + m},
		{"PATCH", "/monitors/" + m},
		{"POST", "/channels"},
		{"PUT", "/channels/" + c},
		{"PATCH", "/channels/" + c},
		{"POST", "/tokens"},
	} {
		path := "/api/v1" + op.path
		for _, tt := range []struct {
			body   string
			status int
			says   string
		}{
			{`{"name":"canary","name":"canary"}`, 400, "the key is repeated in the same object: byte 17, line 1, column 18"},
			{`{"name":"canary","NAME":"canary"}`, 400, "differs only in case"},
			{"{\"name\":\"canary\"\n,}", 400, "line 2, column 2"},
			{`{"name":"canary"} {"canary":1}`, 400, "something follows"},
			{"{\"name\":\"canary\xff\"}", 400, "not valid UTF-8"},
			{"{\"name\":\"canary\x00\"}", 400, "control character"},
			{`canary`, 400, "a JSON value is expected"},
			{strings.Repeat(`{"canary":`, 70), 400, "nested"},
			{`{"name":"` + strings.Repeat("canary", 200_000) + `"}`, 413, ""},
			{`"canary"`, 422, "must be an object"},
			{`["canary"]`, 422, "must be an object"},
			{`null`, 422, "must be an object"},
		} {
			a := s.do(op.method, path, tt.body)
			if a.status != tt.status || !strings.Contains(a.text, tt.says) {
				t.Errorf("%s %s %.60q: got %d, want %d with %q: %s", op.method, path, tt.body, a.status, tt.status, tt.says, a.text)
			}
			if strings.Contains(a.text, "canary") {
				t.Errorf("%s %s: the answer quotes the body: %s", op.method, path, a.text)
			}
		}
		if a := s.do(op.method, path, ""); a.status != 400 || !strings.Contains(a.text, "empty") {
			t.Errorf("%s %s without a body: %d: %s", op.method, path, a.status, a.text)
		}
		for _, header := range [][2]string{
			{"Content-Type", "application/x-www-form-urlencoded"},
			{"Content-Type", "text/plain"},
			{"Content-Type", "application/json; charset=latin1"},
			{"Content-Type", ";;"},
			{"Content-Encoding", "gzip"},
		} {
			if a := s.do(op.method, path, `{}`, header[0], header[1]); a.status != 415 {
				t.Errorf("%s %s with %v: %d: %s", op.method, path, header, a.status, a.text)
			}
		}
		if op.method != "POST" {
			for _, tag := range []string{`1`, `"x`, `W/"1"`} {
				if a := s.do(op.method, path, `{}`, "If-Match", tag); a.status != 422 || a.faults(t)["header.If-Match"] == "" {
					t.Errorf("%s %s with If-Match %s: %d: %s", op.method, path, tag, a.status, a.text)
				}
			}
			for _, tag := range []string{`"99"`, `"abc"`, `"0"`} {
				if a := s.do(op.method, path, `{"name":"z","kind":"tcp","target":"127.0.0.1:1"}`, "If-Match", tag); a.status != 412 && !strings.Contains(path, "channels") {
					t.Errorf("%s %s with If-Match %s: %d: %s", op.method, path, tag, a.status, a.text)
				}
			}
		}
	}
	if strings.Contains(s.log.String(), "canary") {
		t.Error("the log has a body")
	}
}

func TestBadQueries(t *testing.T) {
	s := start(t)
	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
	for query, where := range map[string]string{
		"/monitors?limit=0": "query.limit", "/monitors?limit=1001": "query.limit", "/monitors?limit=x": "query.limit",
		"/monitors?limit=-1": "query.limit", "/monitors?limit=99999999999999999999": "query.limit", "/monitors?limit=": "query.limit",
		"/monitors?limit=1&limit=2": "query.limit", "/monitors?nosuch=1": "query.nosuch", "/monitors?state=sideways": "query.state",
		"/monitors?sort=age": "query.sort", "/monitors?cursor=x": "query.cursor", "/monitors?label=x": "query.label",
		"/monitors?label=:x": "query.label", "/monitors?label=a:1&label=a:2": "query.label", "/monitors?q=%00": "query.q",
		"/monitors?q=%ff": "query.q", "/monitors?q=" + strings.Repeat("x", 201): "query.q", "/monitors?%zz=1": "query",
		"/monitors?kind=" + strings.Repeat("x", 101): "query.kind",
		"/monitors/" + m + "?x=1":                    "query.x", "/monitors/" + m + "/samples?from=yesterday": "query.from",
		"/monitors/" + m + "/samples?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z":         "query.from",
		"/monitors/" + m + "/samples?from=1990-01-01T00:00:00Z":                                 "query.from",
		"/monitors/" + m + "/samples?to=2026-13-01T00:00:00Z":                                   "query.to",
		"/monitors/" + m + "/samples?step=1s":                                                   "query.step",
		"/monitors/" + m + "/samples?step=x":                                                    "query.step",
		"/monitors/" + m + "/samples?step=-1h":                                                  "query.step",
		"/monitors/" + m + "/samples?from=2025-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&step=1m": "query.step",
		"/monitors/" + m + "/samples?limit=10001":                                               "query.limit",
		"/monitors/" + m + "/samples?cursor=~":                                                  "query.cursor",
		"/monitors/" + m + "/uptime?range=0s":                                                   "query.range", "/monitors/" + m + "/uptime?range=x": "query.range",
		"/monitors/" + m + "/uptime?range=9999d": "query.range", "/monitors/" + m + "/uptime?range=-1d": "query.range",
		"/monitors/" + m + "/incidents?open=maybe": "query.open", "/incidents?limit=0": "query.limit", "/incidents?cursor=x": "query.cursor",
		"/incidents?open=1": "query.open", "/log?level=loud": "query.level", "/log?cursor=x": "query.cursor", "/log?limit=0": "query.limit",
		"/events?types=nosuch": "query.types", "/events?typos=state": "query.typos", "/kinds?x=1": "query.x", "/stats?x=1": "query.x",
		"/me?x=1": "query.x", "/tokens?x=1": "query.x", "/providers?x=1": "query.x", "/channels?limit=1": "query.limit",
		"/plugins?limit=1": "query.limit",
	} {
		a := s.do("GET", "/api/v1"+query, "")
		if a.status != 422 || a.faults(t)[where] == "" {
			t.Errorf("%s: got %d, want a fault at %s: %s", query, a.status, where, a.text)
		}
	}
	a := s.must(422, s.do("GET", "/api/v1/monitors?limit=0&nosuch=1&state=x&sort=y", ""))
	if got := len(a.faults(t)); got != 4 {
		t.Errorf("%d faults, want 4: %s", got, a.text)
	}
}

func TestWrongPathsAndMethods(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/", "/api", "/api/v1", "/api/v2/monitors", "/api/v1/monitor", "/api/v1/monitors/", "/api/v1//monitors", "/push", "/favicon.ico"} {
		if a := s.do("GET", path, ""); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	for _, tt := range []struct{ method, path, allow string }{
		{"DELETE", "/api/v1/monitors", "GET, POST"},
		{"POST", "/api/v1/kinds", "GET"},
		{"PUT", "/healthz", "GET"},
		{"DELETE", "/push/x", "GET, POST"},
		{"POST", "/api/v1/monitors/x", "DELETE, GET, PATCH, PUT"},
		{"GET", "/api/v1/monitors/x/check", "POST"},
		{"TRACE", "/metrics", "GET"},
		{"OPTIONS", "/api/v1/monitors", "GET, POST"},
		{"HEAD", "/api/v1/events", "GET"},
	} {
		if tt.method == "HEAD" {
			continue // has no body to look at
		}
		a := s.do(tt.method, tt.path, "")
		allow := strings.Split(a.header.Get("Allow"), ", ")
		slices.Sort(allow)
		if a.status != 405 || strings.Join(allow, ", ") != tt.allow {
			t.Errorf("%s %s: %d, Allow %v", tt.method, tt.path, a.status, allow)
		}
	}
	for _, path := range []string{"/monitors/x", "/monitors/01J00000000000000000000000", "/channels/x", "/incidents/x", "/kinds/x", "/providers/x", "/plugins/x", "/monitors/x/samples", "/monitors/x/uptime", "/monitors/x/incidents"} {
		s.must(404, s.do("GET", "/api/v1"+path, ""))
	}
	for _, path := range []string{"/monitors/x", "/channels/x", "/tokens/x"} {
		s.must(404, s.do("DELETE", "/api/v1"+path, ""))
	}
	good := `{"name":"z","kind":"tcp","target":"127.0.0.1:1","provider":"webhook"}`
	for _, path := range []string{"/monitors/x", "/channels/x"} {
		s.must(404, s.do("PUT", "/api/v1"+path, good))
		s.must(404, s.do("PATCH", "/api/v1"+path, `{}`))
	}
	s.must(404, s.do("POST", "/api/v1/monitors/x/check", ""))
	s.must(404, s.do("POST", "/api/v1/channels/x/test", ""))
}
