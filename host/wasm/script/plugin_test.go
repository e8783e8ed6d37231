package script

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/sdk"
)

// answers gives a network whose server always answers the same.
func answers(status int, body string, asked *map[string]any) *network {
	return &network{answer: func(request map[string]any) (any, *failure) {
		*asked = request
		return map[string]any{
			"status": status, "body": body, "headers": map[string]any{},
			"timing_us": map[string]int{"total": 12_300, "first_byte": 9_500},
			"tls":       map[string]any{"not_after": "2030-01-02T03:04:05Z"},
		}, nil
	}}
}

// The example plugin, against servers of every kind.
func TestGraphQLHealth(t *testing.T) {
	source, err := os.ReadFile("../../../plugins/graphql-health/check.js")
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, string(source), wasm.Options{})
	for _, tt := range []struct {
		name   string
		config string
		status int
		body   string
		want   string // status and message
		errors float64
	}{
		{name: "up", status: 200, body: `{"data":{"__typename":"Query"}}`, want: "up answered without errors"},
		{name: "slow", config: `{"max_latency_ms":10}`, status: 200, body: `{"data":{}}`, want: "degraded slower than 10 ms"},
		{name: "fast", config: `{"max_latency_ms":12}`, status: 200, body: `{"data":{}}`, want: "up answered without errors"},
		{name: "errors", status: 200, body: `{"errors":[{"message":"no such field"}]}`, want: "down HTTP 200, error: no such field", errors: 1},
		{name: "errors, null", status: 400, body: `{"data":null,"errors":[{"message":"a"},{"message":"b"}]}`, want: "down HTTP 400, 2 errors, the first: a", errors: 2},
		{name: "partial", status: 200, body: `{"data":{"a":null},"errors":[{"message":"a is off"}]}`, want: "degraded error: a is off", errors: 1},
		{name: "odd errors", status: 200, body: `{"data":{},"errors":[null]}`, want: "degraded error: no message", errors: 1},
		{name: "null", status: 200, body: `{"data":null}`, want: "down HTTP 200, no data and no error"},
		{name: "page", status: 502, body: `<html>Bad Gateway</html>`, want: "down HTTP 502, no GraphQL answer"},
		{name: "other JSON", status: 200, body: `{"ok":true}`, want: "down HTTP 200, no GraphQL answer"},
		{name: "JSON null", status: 200, body: `null`, want: "down HTTP 200, no GraphQL answer"},
		{name: "data and 500", status: 500, body: `{"data":{}}`, want: "down HTTP 500"},
		{name: "expected", config: `{"expect":{"path":"shop.orders.0","value":{"b":[1],"a":2}}}`, status: 200, body: `{"data":{"shop":{"orders":[{"a":2,"b":[1]}]}}}`, want: "up answered without errors"},
		{name: "unexpected", config: `{"expect":{"path":"shop.open","value":true}}`, status: 200, body: `{"data":{"shop":{"open":"true"}}}`, want: `down shop.open is "true", not true`},
		{name: "missing", config: `{"expect":{"path":"shop.open"}}`, status: 200, body: `{"data":{"shop":null}}`, want: "down shop.open is not there"},
		{name: "there", config: `{"expect":{"path":"shop.open"}}`, status: 200, body: `{"data":{"shop":{"open":0}}}`, want: "up answered without errors"},
		{name: "inherited", config: `{"expect":{"path":"constructor"}}`, status: 200, body: `{"data":{}}`, want: "down constructor is not there"},
	} {
		var asked map[string]any
		if tt.config == "" {
			tt.config = "{}"
		}
		request := `{"target":"https://shop.example.com/graphql","config":` + tt.config + `}`
		got, _ := call(m, request, answers(tt.status, tt.body, &asked))
		parsed, err := sdk.ParseCheckResponse([]byte(got))
		if err != nil {
			t.Errorf("%s: %v: %s", tt.name, err, got)
			continue
		}
		r := parsed.Result
		if text := r.Status.String() + " " + r.Message; text != tt.want || len(r.Metrics) != 3 || r.Metrics[0].Value != tt.errors ||
			r.Metrics[1].Value != 9.5 || r.Latency.Microseconds() != 12_300 || r.ExpiresAt.Year() != 2030 || len(parsed.Notes) > 0 {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

func TestGraphQLHealthAsks(t *testing.T) {
	source, err := os.ReadFile("../../../plugins/graphql-health/check.js")
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, string(source), wasm.Options{})
	const accept = "application/graphql-response+json, application/json;q=0.9"
	for request, want := range map[string]map[string]any{
		`{"target":"shop.example.com/graphql","config":{}}`: {
			"method": "POST", "url": "https://shop.example.com/graphql", "body": `{"query":"{__typename}"}`,
			"headers": map[string]any{"Content-Type": "application/json", "Accept": accept},
		},
		`{"target":"http://[::1]:4000/","config":{"query":"query A($n:Int){a(n:$n)}","variables":{"n":1},"token":"secret","headers":{"X-A":"b"}}}`: {
			"method": "POST", "url": "http://[::1]:4000/", "body": `{"query":"query A($n:Int){a(n:$n)}","variables":{"n":1}}`,
			"headers": map[string]any{"Content-Type": "application/json", "Accept": accept, "X-A": "b", "Authorization": "Bearer secret"},
		},
	} {
		var asked map[string]any
		got, r := call(m, request, answers(200, `{"data":{}}`, &asked))
		if d := cmp.Diff(want, asked); d != "" {
			t.Errorf("%s\n%s", got, d)
		}
		if said, err := json.Marshal(r.Log); err != nil || strings.Contains(string(said)+got, "secret") {
			t.Errorf("the token is in %s%s", said, got)
		}
	}

	for kind, want := range map[string]string{
		"refused": `{"status":"down","message":"why"}`,
		"timeout": `{"status":"down","message":"why"}`,
		"denied":  "error: check threw NetError: why (check.js:17:80)",
		"busy":    "error: check threw NetError: why (check.js:17:80)",
	} {
		n := &network{answer: func(map[string]any) (any, *failure) { return nil, &failure{"open", "/net/http", kind, "why"} }}
		if got, _ := call(m, `{"target":"a","config":{}}`, n); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}
