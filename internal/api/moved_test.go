package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An editor who does not know a secret must not have it sent to where he likes: whatever could change where it goes, or in
// what it is wrapped, needs the secret again.
func TestKeptSecretsStayWhereTheyWere(t *testing.T) {
	s := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != canary {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer target.Close()
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), canary) {
				t.Errorf("the thief got the header %s", name)
			}
		}
		if r.Header.Get("X-Tocsin-Signature") != "" {
			t.Error("the thief got a signature")
		}
	}))
	defer thief.Close()
	s.must(201, s.do("POST", "/api/v1/channels", `{"name":"other","provider":"webhook","config":{"url":"`+target.URL+`"}}`))
	editor := s.as(s.newToken("editor"))

	monitor := "/api/v1/monitors/" + s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"http","target":"`+target.URL+`","config":{
	  "headers":{"X-Key":"`+canary+`"},"basic":{"username":"u","password":"`+canary+`"},"expect_status":"200"}}`)).str("id")
	channel := "/api/v1/channels/" + s.must(201, s.do("POST", "/api/v1/channels", `{"name":"c","provider":"webhook","config":{"url":"`+target.URL+
		`/","headers":{"X-Key":"`+canary+`"},"signing_secret":"`+canary+`"}}`)).str("id")
	mail := "/api/v1/channels/" + s.must(201, s.do("POST", "/api/v1/channels", `{"name":"mail","provider":"email","config":{
	  "host":"127.0.0.1","from":"a@example.com","to":["b@example.com"],"username":"u","password":"`+canary+`"}}`)).str("id")

	both := []string{"body.config.basic.password", "body.config.headers.X-Key"}
	hook := []string{"body.config.headers.X-Key", "body.config.signing_secret"}
	for _, tt := range []struct {
		path, patch, why string
		where            []string
	}{
		{monitor, `{"target":"` + thief.URL + `"}`, "the target changed", both},
		{monitor, `{"config":{"proxy":"` + thief.URL + `"}}`, "config.proxy changed", both},
		{monitor, `{"config":{"server_name":"thief.example"}}`, "config.server_name changed", both},
		{monitor, `{"config":{"insecure_skip_verify":true}}`, "config.insecure_skip_verify changed", both},
		{monitor, `{"config":{"expect_status":null}}`, "config.expect_status changed", both},
		{monitor, `{"config":{"headers":{"Host":"thief.example"}}}`, "config.headers.Host changed", both},
		{monitor, `{"target":"` + thief.URL + `","config":{"headers":{"X-Key":"mine"}}}`, "the target, config.headers.X-Key changed", both[:1]},
		{monitor, `{"config":{"headers":{"X-Key":"mine"},"basic":{"username":"v"}}}`, "config.basic.username, config.headers.X-Key changed", both[:1]},
		{monitor, `{"kind":"tls","target":"127.0.0.1:1"}`, "the kind, the target changed", both},
		{channel, `{"config":{"url":"` + thief.URL + `"}}`, "config.url changed", hook},
		{channel, `{"config":{"url":"` + thief.URL + `","signing_secret":null}}`, "config.signing_secret, config.url changed", hook[:1]},
		{channel, `{"provider":"gotify"}`, "the provider changed", hook},
		{mail, `{"config":{"host":"127.0.0.2"}}`, "config.host changed", []string{"body.config.password"}},
	} {
		for name, who := range map[string]*server{"editor": editor, "admin": s} {
			a := who.do("PATCH", tt.path, tt.patch)
			if a.status != 422 {
				t.Errorf("%s: PATCH %s %s: got %d: %s", name, tt.path, tt.patch, a.status, a.text)
				continue
			}
			s.noCanary(tt.patch, a)
			faults := a.faults(t)
			if len(faults) != len(tt.where) {
				t.Errorf("%s: got %v, want faults at %v", tt.patch, faults, tt.where)
			}
			for _, where := range tt.where {
				if want := "must be sent again, because " + tt.why; faults[where] != want {
					t.Errorf("%s: %s: got %q, want %q", tt.patch, where, faults[where], want)
				}
			}
		}
	}
	// A PUT with masks is no other way around.
	s.must(422, s.do("PUT", monitor, `{"name":"m","kind":"http","target":"`+thief.URL+`","config":{"headers":{"X-Key":"••••"}}}`))
	if r := s.must(200, s.do("POST", monitor+"/check", "")); r.str("status") != "up" {
		t.Errorf("the monitor was changed: %s", r.text)
	}

	for path, patches := range map[string][]string{
		monitor: {
			`{"name":"renamed","labels":{"a":"b"},"interval":"50s","timeout":"9s","retries":3,"retry_interval":"3s","recoveries":1}`,
			`{"assert":["status == 200"],"degrade":["latency < 300ms"],"channels":["other"],"paused":true}`, `{"paused":false}`,
			`{"kind":"http","target":"` + target.URL + `","config":{"expect_status":"200","method":"GET","proxy":"","json":null}}`, // as it was
		},
		channel: {`{"name":"renamed","disabled":true}`, `{"disabled":false,"filter":{"transitions":["down"],"labels":{"a":"b"}}}`},
		mail:    {`{"name":"letters"}`},
	} {
		for _, patch := range patches {
			s.must(200, editor.do("PATCH", path, patch))
		}
	}
	if r := s.must(200, s.do("POST", monitor+"/check", "")); r.str("status") != "up" {
		t.Errorf("a harmless change lost a secret: %s", r.text)
	}
	// Whoever knows the secrets may send them anywhere.
	s.must(200, editor.do("PATCH", channel, `{"config":{"url":"`+target.URL+`/x","headers":{"X-Key":"new"},"signing_secret":"new"}}`))
	s.must(200, editor.do("PATCH", mail, `{"config":{"host":"127.0.0.2","password":"new"}}`))

	// What the server makes up goes nowhere.
	push := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"job","kind":"push","interval":"1h"}`))
	kept := s.must(200, editor.do("PATCH", "/api/v1/monitors/"+push.str("id"), `{"target":"nightly","config":{"grace":"1m"}}`))
	if kept.str("push_url") != push.str("push_url") {
		t.Errorf("the push address changed: %s", kept.text)
	}
}
