package check

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

func TestRewriteDurations(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		`latency < 300ms`:                `latency < duration("300ms")`,
		`latency<1.5s and latency>1m30s`: `latency<duration("1.5s") and latency>duration("1m30s")`,
		`latency < 5µs`:                  `latency < duration("5µs")`,
		`body == "300ms" or '5s' in x`:   `body == "300ms" or '5s' in x`,
		"body == `1s`":                   "body == `1s`",
		`body == "a\"1s" && 1s`:          `body == "a\"1s" && duration("1s")`,
		`json.a5s == 1`:                  `json.a5s == 1`,
		`json.x1s`:                       `json.x1s`,
		`1..2`:                           `1..2`,
		`status in 200..299`:             `status in 200..299`,
		`0x1f == 31`:                     `0x1f == 31`,
		`1e3 < 5`:                        `1e3 < 5`,
		`5sec`:                           `5sec`,
		`3h /* 3h */ // 3h`:              `duration("3h") /* 3h */ // 3h`,
		`"unclosed 1s`:                   `"unclosed 1s`,
		`5`:                              `5`,
		``:                               ``,
	} {
		if got := rewriteDurations(src); got != want {
			t.Errorf("%s\n got %s\nwant %s", src, got, want)
		}
	}
}

func httpSeen() seen {
	return seen{
		Result: sdk.Result{Status: sdk.Up, Message: "200 OK", Code: 200, Latency: 120 * time.Millisecond, Address: "192.0.2.1:443"},
		body:   []byte(`{"ok":true,"count":3,"name":"a\nb","items":[{"id":1,"tags":["x"]},{"id":2,"tags":["y"]}],"none":null,"long":"` + strings.Repeat("z", 500) + `"}`),
		header: http.Header{"Content-Type": {"application/json"}, "X-Two": {"a", "b"}},
		cert: &x509.Certificate{
			NotAfter: time.Now().Add(10*24*time.Hour + time.Hour), Subject: pkix.Name{CommonName: "example.org"}, Issuer: pkix.Name{CommonName: "CA"},
		},
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	kind, _ := newRegistry(t).Kind("http")
	tests := []struct{ text, want string }{ // want is the reason when the rule does not hold
		{`status == 200`, ""},
		{`status in 200..299`, ""},
		{`status in [200, 204]`, ""},
		{`status == 204`, "status = 200"},
		{`latency < 300ms`, ""},
		{`latency < 100ms`, "latency = 120ms"},
		{`latency < 0.1s or status != 200`, "latency = 120ms, status = 200"},
		{`json.ok == true`, ""},
		{`json.ok`, ""},
		{`not json.ok`, "json.ok = true"},
		{`json.ok == false`, "json.ok = true"},
		{`json.count == 3`, ""},
		{`json.count > 3`, "json.count = 3"},
		{`json.count`, "it is not true or false, json.count = 3"},
		{`json.missing == 1`, "json.missing = missing"},
		{`json.missing.deeper == 1`, "cannot fetch deeper from <nil>, json.missing.deeper = missing"},
		{`json.missing?.deeper == nil`, ""},
		{`json.name > 3`, `invalid operation: string > int, json.name = "a b"`},
		{`json.items[0].id == 1`, ""},
		{`json.items[5].id == 1`, "index out of range: 5 (array length is 2), json.items[5].id = missing"},
		{`all(json.items, .id > 0)`, ""},
		{`any(json.items, .id == 7)`, `json.items = [{"id":1,"tags":["x"]},{"id":2,"tags":["y"]}]`},
		{`any(json.items, any(.tags, # == "y"))`, ""},
		{`len(json.items) == 2`, ""},
		{`body contains "ok"`, ""},
		{`body matches "\"count\":[0-9]+"`, ""},
		{`json.long == ""`, `json.long = "` + strings.Repeat("z", 98) + "…"},
		{`headers["content-type"] == "application/json"`, ""},
		{`headers["Content-Type"] startsWith "application/"`, ""},
		{`headers["x-two"] == "a, b"`, ""},
		{`headers["x-none"] == ""`, ""},
		{`headers["X-Two"] == "c"`, `headers["X-Two"] = "a, b"`},
		{`cert.days_left > 7`, ""},
		{`cert.days_left > 14`, "cert.days_left = 10"},
		{`cert.subject contains "example.org"`, ""},
		{`ip == "192.0.2.1"`, ""},
		{`1 == 2`, "it is false"},
	}
	for _, tt := range tests {
		text, want := tt.text, tt.want
		one, err := compileRule(kind.variables, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		s := httpSeen()
		(&rules{assert: []*rule{one}, need: one.need}).apply(&s)
		if want == "" {
			if s.Status != sdk.Up || s.Message != "200 OK" {
				t.Errorf("%s: got %s", text, s.Message)
			}
			continue
		}
		if want = "assertion failed: " + text + " (" + want + ")"; s.Status != sdk.Down || s.Message != want {
			t.Errorf("%s:\n got %s\nwant %s", text, s.Message, want)
		}
	}
}

func TestRulesWithoutWhatTheyNeed(t *testing.T) {
	t.Parallel()
	kind, _ := newRegistry(t).Kind("http")
	for text, want := range map[string]string{
		`json.ok`:            "assertion failed: json.ok (the body is no JSON: invalid character 'p' looking for beginning of value)",
		`cert.days_left > 1`: "assertion failed: cert.days_left > 1 (no certificate was seen)",
	} {
		one, err := compileRule(kind.variables, text)
		if err != nil {
			t.Fatal(err)
		}
		s := seen{Result: sdk.Result{Status: sdk.Up}, body: []byte("plain")}
		(&rules{assert: []*rule{one}, need: one.need}).apply(&s)
		if s.Message != want {
			t.Errorf("%s:\n got %s\nwant %s", text, s.Message, want)
		}
	}
}

func TestBadRules(t *testing.T) {
	t.Parallel()
	kind, _ := newRegistry(t).Kind("http")
	for text, want := range map[string]string{
		``:                                  "is empty",
		`   `:                               "is empty",
		strings.Repeat("1+", 1000) + "1":    "at most 2000 characters",
		"status == 200\x00":                 "one line of text",
		"status ==\n200":                    "one line of text",
		`status ==`:                         "unexpected token EOF",
		`status`:                            "must be true or false",
		`"text"`:                            "must be true or false",
		`latency < 300`:                     "a duration has a unit",
		`status == "200"`:                   "mismatched types int and string",
		`stauts == 200`:                     "there is no stauts; known are status, body, json",
		`dns.rcode == "NOERROR"`:            "there is no dns",
		`cert.days > 3`:                     "there is no cert.days; known are",
		`cert`:                              "cert alone is no value",
		`metrics.loss == 0`:                 "there is no metrics",
		`body matches "["`:                  "no regular expression",
		`body matches body`:                 "in quotes",
		`let x = 1; x == 1`:                 "no let",
		`foo(1)`:                            "there is no function foo",
		`repeat(body, 1000) == ""`:          "the function repeat cannot be used",
		`replace(body, "", "x") == ""`:      "the function replace cannot be used",
		`len(1..100000) > 1`:                "a range can stand only after in",
		`any(json.a, any(json.b, # == 1))`:  "json.b cannot be used inside a loop",
		`any(json.a, # in json.b)`:          "json.b cannot be used inside a loop",
		`any(json.a, any([1,2], # == 1))`:   "a list can stand only after in",
		`any(json.a, any(ip, # == 1))`:      "only go over a part of the outer entry",
		`body + "x" == ""`:                  "texts cannot be joined",
		`len({"a": 1}) == 1`:                "no maps",
		strings.Repeat("status+", 41) + "1": "no more than 40 values",
	} {
		if one, err := compileRule(kind.variables, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, %v, want an error with %q", text, one, err, want)
		}
	}
}

func FuzzRule(f *testing.F) {
	for _, seed := range []string{
		`latency < 300ms and status in 200..299`, `any(json.items, .id == 1)`, `headers["a"] matches "^x"`, "body == `1s`", `1m30s > 5µs`,
		`json.a.b[0] ?? false`, `cert.days_left > 14 ? true : false`,
	} {
		f.Add(seed)
	}
	r := newRegistry(f)
	kind, _ := r.Kind("http")
	f.Fuzz(func(t *testing.T, text string) {
		one, err := compileRule(kind.variables, text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the error has several lines: %q", err)
			}
			return
		}
		s := httpSeen()
		(&rules{assert: []*rule{one}, degrade: []*rule{one}, need: one.need}).apply(&s)
		if s.Status == sdk.Unknown || s.Message == "" {
			t.Errorf("%q gives %+v", text, s.Result)
		}
	})
}

func FuzzDurations(f *testing.F) {
	f.Add(`latency < 300ms && body == "5s"`)
	f.Fuzz(func(t *testing.T, src string) {
		once := rewriteDurations(src)
		if again := rewriteDurations(once); again != once {
			t.Errorf("%q becomes %q and then %q", src, once, again)
		}
	})
}
