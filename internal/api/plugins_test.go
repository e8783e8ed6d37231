package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const plugins = "/api/v1/plugins"

// archive is what the fake host takes for one: a manifest.
func archive(name, version string, allow ...string) string {
	m := sdk.Manifest{
		API: 1, Name: name, Version: version, Summary: "watches " + name, License: "MIT", Provides: []string{"check", "notify"}, Runtime: "wasm",
		Target: sdk.ManifestTarget{Example: "redis.example.com:6379", Doc: "host:port"}, Limits: sdk.Limits{Memory: 48 * sdk.MiB},
	}
	for _, a := range allow {
		m.Permissions = append(m.Permissions, sdk.Permission{Allow: a, Reason: "it must"})
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (s *server) install(query, archive string) answer {
	s.t.Helper()
	return s.do("POST", plugins+query, archive, "Content-Type", "application/gzip")
}

func TestPlugin(t *testing.T) {
	s := start(t)
	if a := s.must(200, s.do("GET", plugins, "")); a.text != `{"items":[],"next_cursor":null}`+"\n" {
		t.Errorf("no plugins: %s", a.text)
	}
	ops := s.as(s.newToken("admin"))
	a := ops.must(201, ops.install("", archive("redis", "1.2.0", "tcp://{target}", "https://10.0.0.1")))
	if a.header.Get("Location") != plugins+"/redis" || a.str("condition") != "waiting" || a.get("grant") != nil || a.get("pending") != nil ||
		!strings.Contains(a.str("why"), "nobody") || len(a.str("digest")) != 64 || a.get("asks.0.granted") != false {
		t.Errorf("installed: %s", a.text)
	}
	one := plugins + "/redis"
	a = ops.must(200, ops.do("POST", one+"/grant", `{"permissions":["tcp://{target}"]}`))
	if a.str("condition") != "ready" || a.get("why") != nil || a.get("asks.0.granted") != true || a.get("asks.1.granted") != false ||
		!strings.HasPrefix(a.str("grant.by"), "admin") || a.str("grant.permissions.0") != "tcp://{target}" || a.get("grant.allow_private") != false {
		t.Errorf("granted a part: %s", a.text)
	}
	if a = s.must(200, s.do("POST", one+"/grant", `{"permissions":[]}`)); len(a.get("grant.permissions").([]any)) != 0 || a.get("asks.0.granted") != false {
		t.Errorf("granted nothing: %s", a.text)
	}
	// Neither of the two has a body, and both grant all.
	if a = s.must(200, s.do("POST", one+"/grant", "")); len(a.get("grant.permissions").([]any)) != 2 || a.get("grant.allow_private") != false {
		t.Errorf("granted all: %s", a.text)
	}
	a = s.must(200, s.do("POST", one+"/grant", `{"allow_private":true,"permissions":null}`))
	if len(a.get("grant.permissions").([]any)) != 2 || a.get("grant.allow_private") != true || a.str("grant.by") != "seed" {
		t.Errorf("granted all, private too: %s", a.text)
	}

	a = s.must(201, s.install("", archive("redis", "1.3.0", "tcp://{target}", "dns://*.example.com")))
	if a.str("version") != "1.2.0" || a.str("pending.version") != "1.3.0" || a.get("pending.asks.0.granted") != true ||
		a.get("pending.asks.1.granted") != false || a.str("pending.asks.1.words") == "" || a.str("condition") != "ready" {
		t.Errorf("a build that asks for more: %s", a.text)
	}
	running, waiting := a.str("digest"), a.str("pending.digest")
	for _, digest := range []string{running, "x"} {
		s.must(412, s.do("POST", one+"/grant", `{"digest":"`+digest+`"}`))
	}
	a = s.must(200, s.do("POST", one+"/grant", `{"digest":"`+waiting+`"}`))
	s.must(200, s.do("POST", one+"/grant", `{"digest":"`+waiting+`"}`)) // which runs now
	if a.str("version") != "1.3.0" || a.get("pending") != nil || a.get("grant.allow_private") != false {
		t.Errorf("granted the build that waited: %s", a.text)
	}
	if a = s.must(201, s.install("?grant=true&allow_private=true", archive("redis", "1.4.0", "tcp://10.0.0.1:1"))); a.get("grant.allow_private") != true {
		t.Errorf("installed and granted: %s", a.text)
	}

	a = s.must(200, s.do("POST", one+"/disable", `{"reason":"it is too loud"}`))
	if a.str("condition") != "disabled" || a.str("why") != "it is too loud" {
		t.Errorf("disabled: %s", a.text)
	}
	if a = s.must(200, s.do("POST", one+"/enable", "")); a.str("condition") != "ready" {
		t.Errorf("enabled: %s", a.text)
	}
	s.must(200, s.do("POST", one+"/disable", ""))
	if a = s.must(200, s.do("GET", "/api/v1/stats", "")); fmt.Sprint(a.get("plugins.disabled")) != "1" || fmt.Sprint(a.get("plugins.ready")) != "0" {
		t.Errorf("counted: %s", a.text)
	}
	s.plugins.Break("redis", "its files were changed")
	if a = s.must(200, s.do("GET", plugins, "")); a.str("items.0.condition") != "broken" || a.str("items.0.why") != "its files were changed" {
		t.Errorf("broken: %s", a.text)
	}
	s.must(204, s.do("DELETE", one, ""))
	for _, r := range []string{"GET ", "DELETE ", "PATCH ", "POST /grant", "POST /enable", "POST /disable"} {
		method, path, _ := strings.Cut(r, " ")
		body := ""
		if method == "PATCH" {
			body = `{"limits":{"memory":"nonsense"}}` // 404 comes before 422
		}
		s.must(404, s.do(method, one+path, body))
	}
	for _, action := range []string{"plugin.install", "plugin.grant", "plugin.disable", "plugin.enable", "plugin.remove"} {
		if !strings.Contains(s.log.String(), "action="+action+" who=") {
			t.Errorf("the log does not have %s", action)
		}
	}
}

func TestPluginShape(t *testing.T) {
	s := start(t)
	s.must(201, s.install("?grant=true", archive("redis", "1.2.0", "tcp://{target}")))
	s.must(201, s.install("", archive("redis", "1.3.0", "tcp://{target}:1-9")))
	s.plugins.Report("redis", monitor.PluginUsage{
		Calls: 7, Failures: 1, Kills: 2, Starts: 3, Running: 4, Runners: 5, Latency: 1500 * time.Microsecond, CPU: 2500 * time.Millisecond,
		Memory: 6, BytesRead: 8, BytesWritten: 9, Denied: 10,
	}, []monitor.SandboxLayer{{Name: "landlock", Holds: true, Detail: "ABI 4"}, {Name: "seccomp", Detail: "the kernel has none"}}, true)
	a := s.must(200, s.do("GET", plugins+"/redis", ""))
	for at, want := range map[string]string{
		"":       "asks condition digest grant installed_at license limits name pending provides runtime sandbox summary target updated_at usage version why",
		"asks.0": "allow granted reason words", "grant": "allow_private at by permissions", "pending": "asks digest version",
		"pending.asks.0": "allow granted reason words", "limits": "concurrency memory set timeout", "sandbox": "degraded layers",
		"sandbox.layers.1": "detail holds name", "target": "doc example",
		"usage": "bytes_read bytes_written calls cpu_ms denied failures kills latency_us_total memory_bytes runners running starts",
	} {
		tree := a.tree
		if at != "" {
			tree = a.get(at)
		}
		object, _ := tree.(map[string]any)
		if got := strings.Join(sortedKeys(object), " "); got != want {
			t.Errorf("at %q:\n got %s\nwant %s", at, got, want)
		}
	}
	for path, want := range map[string]string{
		"limits.memory": "48MiB", "limits.timeout": "10s", "limits.concurrency": "8", "limits.set": "[]", "sandbox.layers.0.holds": "true",
		"sandbox.layers.1.detail": "the kernel has none", "sandbox.degraded": "true", "usage.cpu_ms": "2500", "usage.latency_us_total": "1500",
		"usage.denied": "10", "provides": "[check notify]", "target.doc": "host:port", "license": "MIT", "runtime": "wasm",
	} {
		if got := fmt.Sprint(a.get(path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

func TestPluginLimits(t *testing.T) {
	s := start(t)
	one := plugins + "/redis"
	s.must(201, s.install("", archive("redis", "1.2.0")))
	for _, step := range []struct{ patch, memory, timeout, concurrency, set string }{
		{`{}`, "48MiB", "10s", "8", "[]"},
		{`{"limits":{"memory":"64MiB"}}`, "64MiB", "10s", "8", "[memory]"},
		{`{"limits":{"timeout":"5m","concurrency":64}}`, "64MiB", "5m", "64", "[memory timeout concurrency]"},
		{`{"limits":{"memory":null}}`, "48MiB", "5m", "64", "[timeout concurrency]"},
		{`{"limits":{"timeout":"100ms","memory":"1024KiB"}}`, "1MiB", "100ms", "64", "[memory timeout concurrency]"},
		{`{"limits":null}`, "48MiB", "10s", "8", "[]"},
	} {
		a := s.must(200, s.do("PATCH", one, step.patch, "Content-Type", patchType))
		got := []string{a.str("limits.memory"), a.str("limits.timeout"), fmt.Sprint(a.get("limits.concurrency")), fmt.Sprint(a.get("limits.set"))}
		if want := []string{step.memory, step.timeout, step.concurrency, step.set}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", step.patch, got, want)
		}
	}
	// Of several at once none is lost.
	var wg sync.WaitGroup
	for _, patch := range []string{`{"limits":{"memory":"2MiB"}}`, `{"limits":{"timeout":"2s"}}`, `{"limits":{"concurrency":2}}`} {
		wg.Go(func() {
			if a := s.do("PATCH", one, patch); a.status != 200 {
				t.Errorf("%s: %d: %s", patch, a.status, a.text)
			}
		})
	}
	wg.Wait()
	if a := s.must(200, s.do("GET", one, "")); fmt.Sprint(a.get("limits.set")) != "[memory timeout concurrency]" {
		t.Errorf("a change was lost: %s", a.text)
	}
}

// pluginBodies are the bodies of JSON that are about a plugin.
func pluginBodies() []struct {
	method, path string
	dto          reflect.Type
	cases        []bad
} {
	type b = bad
	return []struct {
		method, path string
		dto          reflect.Type
		cases        []bad
	}{
		{"POST", "/grant", reflect.TypeFor[PluginGrantSpec](), []bad{
			b{"permissions", `"tcp://{target}"`, "", "must be a list"},
			b{"permissions", `{}`, "", "must be a list"},
			b{"permissions", `[7]`, "body.permissions[0]", "must be a text"},
			b{"permissions", `[null]`, "body.permissions[0]", "must be a text"},
			b{"permissions", `["tcp://{target}","tcp://elsewhere:1"]`, "body.permissions[1]", "does not ask for it"},
			b{"permissions", `["TCP://{target}"]`, "body.permissions[0]", "does not ask for it"},
			b{"permissions", `["\u001b[31m"]`, "body.permissions[0]", "does not ask for it"},
			b{"permissions", `[""]`, "body.permissions[0]", "does not ask for it"},
			b{"allow_private", `"yes"`, "", "must be true or false"},
			b{"allow_private", `1`, "", "must be true or false"},
			b{"grant", `true`, "", "is unknown"},
			b{"permission", `[]`, "", "did you mean permissions?"},
			b{"by", `"somebody else"`, "", "is unknown"},
			b{"digest", `7`, "", "must be a text"},
		}},
		{"POST", "/disable", reflect.TypeFor[PluginDisableSpec](), []bad{
			b{"reason", `7`, "", "must be a text"},
			b{"reason", `["x"]`, "", "must be a text"},
			b{"reason", long(201), "", "at most 200"},
			b{"reason", `"a\nb"`, "", "control characters"},
			b{"reason", `"a\u001b]52;c;eA==\u0007"`, "", "control characters"},
			b{"reason", `"a\u202eb"`, "", "control characters"},
			b{"why", `"x"`, "", "is unknown"},
		}},
		{"PATCH", "", reflect.TypeFor[PluginSpec](), []bad{
			b{"limits", `7`, "", "must be an object"},
			b{"limits", `[]`, "", "must be an object"},
			b{"limits", `{"memory":64}`, "body.limits.memory", "a size such as 32MiB"},
			b{"limits", `{"memory":"64"}`, "body.limits.memory", "a size such as 32MiB"},
			b{"limits", `{"memory":"64MB"}`, "body.limits.memory", "a size such as 32MiB"},
			b{"limits", `{"memory":"-1MiB"}`, "body.limits.memory", "a size such as 32MiB"},
			b{"limits", `{"memory":"9999999999999999GiB"}`, "body.limits.memory", "a size such as 32MiB"},
			b{"limits", `{"memory":"1023KiB"}`, "body.limits.memory", "between 1MiB and 1GiB"},
			b{"limits", `{"memory":"0B"}`, "body.limits.memory", "between 1MiB and 1GiB"},
			b{"limits", `{"memory":"1048577KiB"}`, "body.limits.memory", "between 1MiB and 1GiB"},
			b{"limits", `{"timeout":5}`, "body.limits.timeout", "duration such as"},
			b{"limits", `{"timeout":"99ms"}`, "body.limits.timeout", "between 100ms and 5m"},
			b{"limits", `{"timeout":"0s"}`, "body.limits.timeout", "between 100ms and 5m"},
			b{"limits", `{"timeout":"-5s"}`, "body.limits.timeout", "between 100ms and 5m"},
			b{"limits", `{"timeout":"301s"}`, "body.limits.timeout", "between 100ms and 5m"},
			b{"limits", `{"timeout":"99999999999999999h"}`, "body.limits.timeout", "duration such as"},
			b{"limits", `{"concurrency":0}`, "body.limits.concurrency", "between 1 and 64"},
			b{"limits", `{"concurrency":65}`, "body.limits.concurrency", "between 1 and 64"},
			b{"limits", `{"concurrency":-1}`, "body.limits.concurrency", "between 1 and 64"},
			b{"limits", `{"concurrency":1.5}`, "body.limits.concurrency", "whole number"},
			b{"limits", `{"concurrency":"8"}`, "body.limits.concurrency", "whole number"},
			b{"limits", `{"memry":"1MiB"}`, "body.limits.memry", "did you mean memory?"},
			b{"limits", `{"set":["memory"]}`, "body.limits.set", "is unknown"},
			b{"version", `"9.9.9"`, "", "is unknown"},
			b{"condition", `"ready"`, "", "is unknown"},
			b{"grant", `{}`, "", "is unknown"},
		}},
	}
}

func TestEveryFieldOfPlugins(t *testing.T) {
	s := start(t)
	s.must(201, s.install("?grant=true", archive("redis", "1.2.0", "tcp://{target}")))
	before := s.must(200, s.do("GET", plugins, "")).text
	for _, r := range pluginBodies() {
		tried := map[string]bool{}
		for _, b := range r.cases {
			tried[b.field] = true
			s.refuse(r.method, plugins+"/redis"+r.path, fmt.Sprintf("{%q:%s}", b.field, b.json), b)
		}
		for i := range r.dto.NumField() {
			if name, _, _ := strings.Cut(r.dto.Field(i).Tag.Get("json"), ","); !tried[name] {
				t.Errorf("no bad value is tried for %s of %s", name, r.path)
			}
		}
		for body, status := range map[string]int{
			`{"name":"canary","name":"canary"}`: 400, `{"limits":{},"Limits":{}}`: 400, `{} {"canary":1}`: 400, "{\"canary\xff\":1}": 400,
			`canary`: 400, `{"reason":"` + strings.Repeat("canary", 200_000) + `"}`: 413, `"canary"`: 422, `["canary"]`: 422, `null`: 422,
		} {
			a := s.do(r.method, plugins+"/redis"+r.path, body)
			if a.status != status || strings.Contains(a.text, "canary") && status != 422 {
				t.Errorf("%s %s %.60q: got %d, want %d: %s", r.method, r.path, body, a.status, status, a.text)
			}
		}
		for _, header := range [][2]string{{"Content-Type", "text/plain"}, {"Content-Type", "application/gzip"}, {"Content-Encoding", "gzip"}} {
			if a := s.do(r.method, plugins+"/redis"+r.path, `{}`, header[0], header[1]); a.status != 415 {
				t.Errorf("%s %s with %v: %d: %s", r.method, r.path, header, a.status, a.text)
			}
		}
	}
	if a := s.do("PATCH", plugins+"/redis", ""); a.status != 400 {
		t.Errorf("a patch without a body: %d", a.status)
	}
	if after := s.must(200, s.do("GET", plugins, "")).text; after != before {
		t.Errorf("something changed:\n%s\n%s", before, after)
	}
}

func TestBadInstalls(t *testing.T) {
	s := start(t)
	good := archive("redis", "1.2.0")
	for query, where := range map[string]string{
		"?grant=maybe": "query.grant", "?grant=": "query.grant", "?grant=true&grant=true": "query.grant", "?allow_private=1x&grant=true": "query.allow_private",
		"?allow_private=true": "query.allow_private", "?allow_private=true&grant=false": "query.allow_private", "?nosuch=1": "query.nosuch",
	} {
		if a := s.install(query, good); a.status != 422 || a.faults(t)[where] == "" {
			t.Errorf("%s: got %d, want a fault at %s: %s", query, a.status, where, a.text)
		}
	}
	for body, status := range map[string]int{"no archive": 422, archive("http", "1.0.0"): 422, "": 400} {
		a := s.install("", body)
		if a.status != status || status == 422 && a.faults(t)["body"] == "" {
			t.Errorf("%.40q: got %d, want %d: %s", body, a.status, status, a.text)
		}
	}
	for _, header := range [][2]string{
		{"Content-Type", "application/json"},
		{"Content-Type", "multipart/form-data; boundary=x"},
		{"Content-Type", ";;"},
		{"Content-Encoding", "gzip"},
	} {
		if a := s.do("POST", plugins, good, "Content-Type", "application/gzip", header[0], header[1]); a.status != 415 {
			t.Errorf("%v: %d: %s", header, a.status, a.text)
		}
	}
	for _, media := range []string{"application/octet-stream", "application/x-gzip", "application/gzip; q=1"} {
		s.must(201, s.do("POST", plugins, good, "Content-Type", media))
	}
	s.must(204, s.do("DELETE", plugins+"/redis", ""))

	send := func(body io.Reader, length int64) int {
		r := httptest.NewRequestWithContext(t.Context(), "POST", plugins, body)
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+adminToken)
		r.Header.Set("Content-Type", "application/gzip")
		w := httptest.NewRecorder()
		s.api.Handler().ServeHTTP(w, r)
		return w.Code
	}
	if got := send(bytes.NewReader(nil), maxArchive+1); got != 413 {
		t.Errorf("a length above the bound: %d", got)
	}
	if got := send(bytes.NewReader(make([]byte, maxArchive+1)), -1); got != 413 {
		t.Errorf("a body above the bound: %d", got)
	}
	if got := send(io.MultiReader(strings.NewReader(good), failing{}), -1); got != 400 {
		t.Errorf("a body that breaks off: %d", got)
	}
	if a := s.must(200, s.do("GET", plugins, "")); a.get("items.0") != nil {
		t.Errorf("something was installed: %s", a.text)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Archives are held in memory: only some are taken at once.
func TestUploadsAreBounded(t *testing.T) {
	s := start(t)
	begun, proceed := make(chan string, 4), make(chan struct{})
	s.plugins.Gate(func(_ context.Context, doing string) error {
		begun <- doing
		<-proceed
		return nil
	})
	codes := make(chan int, maxUploads)
	for i := range maxUploads {
		go func() { codes <- s.install("", archive(fmt.Sprintf("p%d", i), "1.0.0")).status }()
	}
	<-begun
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(s.api.uploads) < maxUploads {
		<-tick.C
	}
	if a := s.install("", archive("late", "1.0.0")); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d: %s", a.status, a.text)
	}
	if a := s.as("").install("", archive("late", "1.0.0")); a.status != 401 { // before anything of it is read
		t.Errorf("without a token: %d", a.status)
	}
	if len(begun) > 0 {
		t.Error("two are installed at once")
	}
	close(proceed)
	for range maxUploads {
		if got := <-codes; got != http.StatusCreated {
			t.Errorf("got %d", got)
		}
	}
	s.must(201, s.install("", archive("late", "1.0.0")))
}

func TestUsedPluginStays(t *testing.T) {
	s := start(t)
	s.must(201, s.install("?grant=true", archive("redis", "1.2.0")))
	one := plugins + "/redis"
	put := func(name string) {
		t.Helper()
		m := monitor.Monitor{
			ID: newID(), Name: name, Kind: "redis", Target: "127.0.0.1:1", Interval: time.Minute, Timeout: time.Second, RetryInterval: time.Minute, Paused: true,
		}
		if err := s.store.Store.CreateMonitor(t.Context(), &m); err != nil {
			t.Fatal(err)
		}
	}
	used := func(want string) {
		t.Helper()
		if a := s.must(409, s.do("DELETE", one, "")); a.str("detail") != "it is used by "+want {
			t.Errorf("got %q, want %q", a.str("detail"), want)
		}
	}
	put("m1")
	used("the monitor m1")
	if err := s.store.Store.CreateChannel(t.Context(), &monitor.Channel{ID: newID(), Name: "night", Provider: "redis"}); err != nil {
		t.Fatal(err)
	}
	used("the monitor m1 and the channel night")
	for i := range 5 {
		put(fmt.Sprintf("m%d", i+2))
	}
	used("the monitors m1, m2, m3, m4, m5 and others and the channel night")
	s.must(200, s.do("GET", one, ""))
}
