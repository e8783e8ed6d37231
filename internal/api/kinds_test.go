package api

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/sdk"
)

type checkFunc func(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error)

func (f checkFunc) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	return f(ctx, req)
}

type notifyFunc func(ctx context.Context, n sdk.Notification) error

func (f notifyFunc) Notify(ctx context.Context, n sdk.Notification) error { return f(ctx, n) }

// TestKindsAndProvidersComeAndGo has a kind and a provider of the same name come, change and go while the server runs.
func TestKindsAndProvidersComeAndGo(t *testing.T) {
	s := start(t)
	const config = `{"host":"h","token":"CANARY-token"}`
	const form = `{"type":"object","additionalProperties":false,"required":["token"],"properties":{"host":{"type":"string"},"token":{"type":"string","writeOnly":true}}}`
	put := func(message string, refusal error) {
		t.Helper()
		if err := s.checks.Put(check.DefineRaw("redis", "Pings.", "h:1", json.RawMessage(form), func(string, json.RawMessage) (check.Checker, error) {
			return checkFunc(func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
				return sdk.Result{Status: sdk.Up, Message: message + " with CANARY-token"}, nil
			}), refusal
		})); err != nil {
			t.Fatal(err)
		}
		if err := s.alerts.Put(alert.DefineRaw("redis", "Publishes.", json.RawMessage(form), func(json.RawMessage) (alert.Notifier, error) {
			return notifyFunc(func(context.Context, sdk.Notification) error { return errors.New(message + " with CANARY-token") }), refusal
		})); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(location, message string) {
		t.Helper()
		for path, body := range map[string]string{
			"/api/v1/monitors": `{"name":"m2","kind":"redis","target":"h:1","config":` + config + `}`,
			"/api/v1/channels": `{"name":"c2","provider":"redis","config":` + config + `}`,
		} {
			at := location
			if at == "" {
				at = map[string]string{"/api/v1/monitors": "body.kind", "/api/v1/channels": "body.provider"}[path]
			}
			a := s.must(422, s.do("POST", path, body))
			s.noCanary(path, a)
			if got := a.faults(t)[at]; !strings.Contains(got, message) {
				t.Errorf("%s: got %s, want %q at %s", path, a.text, message, at)
			}
		}
	}
	refused("", "unknown")
	put("one", nil)
	for _, path := range []string{"/api/v1/kinds/redis", "/api/v1/providers/redis"} {
		if a := s.must(200, s.do("GET", path, "")); a.get("schema.properties.token.writeOnly") != true {
			t.Errorf("%s: %s", path, a.text)
		}
	}
	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"redis","target":"h:1","interval":"1h","config":`+config+`}`))
	c := s.must(201, s.do("POST", "/api/v1/channels", `{"name":"c","provider":"redis","config":`+config+`}`))
	monitor, channel := "/api/v1/monitors/"+m.str("id"), "/api/v1/channels/"+c.str("id")
	views := func(host, message, lastError string) {
		t.Helper()
		for _, path := range []string{monitor, channel} {
			a := s.must(200, s.do("GET", path, ""))
			s.noCanary(path, a)
			if a.str("config.token") != "••••" || a.str("config.host") != host {
				t.Errorf("%s: %s", path, a.text)
			}
		}
		checked := s.must(200, s.do("POST", monitor+"/check", ""))
		s.noCanary("check", checked)
		if got := checked.str("message"); !strings.Contains(got, message) {
			t.Errorf("a check says %q, want %q", got, message)
		}
		tested := s.do("POST", channel+"/test", "")
		s.noCanary("test", tested)
		if !strings.Contains(tested.text, lastError) {
			t.Errorf("a test says %s, want %q", tested.text, lastError)
		}
	}
	views("h", "one with ••••", "one with ••••")
	put("two", nil)
	views("h", "two with ••••", "two with ••••")
	put("", errors.New("plugin redis is disabled: enable it"))
	refused("", "plugin redis is disabled: enable it")
	views("h", "plugin redis is disabled: enable it", "plugin redis is disabled: enable it")
	s.checks.Remove("redis")
	s.alerts.Remove("redis")
	refused("", "unknown")
	views("••••", "there is no kind redis", "there is no provider redis")
	s.must(404, s.do("GET", "/api/v1/kinds/redis", ""))

	// Back again, what was stored is still there, and the mask stands for it.
	put("three", nil)
	views("h", "three with ••••", "three with ••••")
	s.must(200, s.do("PATCH", monitor, `{"name":"m renamed"}`))
	s.must(200, s.do("PUT", channel, `{"name":"c renamed","provider":"redis","config":{"host":"h","token":"••••"}}`))
	views("h", "three with ••••", "three with ••••")
	if a := s.must(422, s.do("PATCH", monitor, `{"config":{"host":"elsewhere"}}`)); a.faults(t)["body.config.token"] != "must be sent again, because config.host changed" {
		t.Errorf("a secret may be sent elsewhere: %s", a.text)
	}
	a := s.must(422, s.do("PATCH", monitor, `{"config":{"token":7}}`))
	if a.faults(t)["body.config.token"] != "must be text, not a number" {
		t.Errorf("got %s", a.text)
	}
}
