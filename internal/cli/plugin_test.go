package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pluginServer is a server with one plugin, which notes what it is asked and sent.
type pluginServer struct {
	*httptest.Server
	asked  []string // method, path and query
	sent   []string // bodies
	media  string   // of the last body
	fields map[string]any
}

// newPluginServer returns a server whose plugin waits for its first grant.
func newPluginServer(t *testing.T, change ...func(plugin map[string]any)) *pluginServer {
	t.Helper()
	s := &pluginServer{fields: map[string]any{}}
	if err := json.Unmarshal([]byte(`{
	  "name":"redis","version":"1.2.0","summary":"PING of a Redis server","license":"MIT","runtime":"wasm","provides":["check","notify"],
	  "target":{"example":"redis.example.com:6379","doc":"host:port"},"condition":"waiting","why":"nobody has granted what it asks for","digest":"d1",
	  "asks":[{"allow":"tcp://{target}","words":"open TCP connections to the monitor's target","reason":"talks to the server","granted":false},
	          {"allow":"tcp://10.0.0.1:1","words":"open TCP connections to 10.0.0.1 (in a private network)","reason":"","granted":false}],
	  "grant":null,"pending":null,"limits":{"memory":"32MiB","timeout":"10s","concurrency":8,"set":["memory"]},
	  "sandbox":{"layers":[],"degraded":false},
	  "usage":{"calls":0,"failures":0,"kills":0,"starts":0,"running":0,"runners":0,"latency_us_total":0,"cpu_ms":0,"memory_bytes":0,"bytes_read":0,"bytes_written":0,"denied":0},
	  "installed_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z"}`), &s.fields); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(s.fields)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

func (s *pluginServer) answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.asked = append(s.asked, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), "/api/v1/plugins"))
	if len(body) > 0 {
		s.sent, s.media = append(s.sent, string(body)), r.Header.Get("Content-Type")
	}
	grant := func() {
		var only struct{ Permissions []string }
		if json.Unmarshal(body, &only) == nil && only.Permissions != nil { // the first is granted, whatever it is
			s.fields["condition"], s.fields["why"] = "ready", nil
			s.fields["grant"] = map[string]any{"permissions": []string{"tcp://{target}"}, "allow_private": false, "at": time.Now(), "by": "ops"}
			s.fields["asks"].([]any)[0].(map[string]any)["granted"] = true
			return
		}
		s.fields["condition"], s.fields["why"] = "ready", nil
		s.fields["grant"] = map[string]any{"permissions": []string{"tcp://{target}", "tcp://10.0.0.2:2"}, "allow_private": false, "at": time.Now(), "by": "ops"}
		asks, _ := s.fields["asks"].([]any)
		for _, ask := range asks {
			ask.(map[string]any)["granted"] = true
		}
		if pending, ok := s.fields["pending"].(map[string]any); ok {
			s.fields["version"], s.fields["pending"] = pending["version"], nil
		}
	}
	var out any = s.fields
	switch at := strings.TrimPrefix(r.URL.Path, "/api/v1/plugins"); {
	case r.Method == http.MethodPost && at == "":
		if r.URL.Query().Get("grant") == "true" {
			grant()
		}
		w.WriteHeader(http.StatusCreated)
	case at == "":
		out = map[string]any{"items": []any{s.fields}, "next_cursor": nil}
	case !strings.HasPrefix(at, "/redis"):
		problemAnswer(404, `{"detail":"there is nothing with this name or id"}`)(w, r)
		return
	case at == "/redis/grant":
		grant()
	case at == "/redis/disable":
		s.fields["condition"], s.fields["why"] = "disabled", "an operator disabled it"
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		panic(err)
	}
}

func (s *pluginServer) run(t *testing.T, args ...string) ran {
	t.Helper()
	s.asked, s.sent = nil, nil
	return execute(t, []string{"TOCSIN_URL=" + s.URL, "TOCSIN_TOKEN=t"}, append([]string{"plugin"}, args...)...)
}

func archiveFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "redis-1.2.0.tar.gz")
	if err := os.WriteFile(path, []byte("the archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPluginCommands(t *testing.T) {
	file := archiveFile(t)
	for _, tt := range []struct {
		args  string
		asked string // joined with ", "
		sent  string
		says  string // part of standard output
		code  int
		err   string
	}{
		{args: "list", asked: "GET ", says: "CONDITION  NAME   VERSION  PROVIDES       SUMMARY\nwaiting    redis  1.2.0    check, notify  nobody has granted"},
		{args: "inspect redis", asked: "GET /redis", says: "redis 1.2.0: PING of a Redis server\n"},
		{args: "inspect nosuch", asked: "GET /nosuch", code: 1, err: `there is no plugin named "nosuch"`},
		{args: "inspect a/b", asked: "GET /a%2Fb", code: 1, err: `there is no plugin named "a/b"`},
		{args: "inspect", code: 2, err: "NAME is missing"},
		{args: "install " + file, asked: "POST ", sent: "the archive", says: "It waits until you grant that:\n  tocsin plugin grant redis\n"},
		{args: "install " + file + " --grant", asked: "POST ?grant=true", sent: "the archive", says: "Plugin redis 1.2.0 may\n  • open TCP connections to the monitor's target\n    tcp://{target}\n    its author says: talks to the server\n  • reach tcp://10.0.0.2:2\n"},
		{args: "install " + file + " --grant --allow-private", asked: "POST ?allow_private=true&grant=true", sent: "the archive", says: "may\n"},
		{args: "install " + file + " --allow-private", code: 2, err: "give --grant as well"},
		{args: "install " + file + " --yes", asked: "POST , POST /redis/grant", sent: `the archive|{"allow_private":false,"digest":"d1"}`, says: "tcp://10.0.0.1:1\n\ngranted that to plugin redis 1.2.0\n"},
		{args: "install " + file + " --yes --allow-private", asked: "POST , POST /redis/grant", sent: `the archive|{"allow_private":true,"digest":"d1"}`},
		{args: "install /nosuch/file", code: 1, err: "read the plugin: "},
		{args: "install /dev/null", code: 1, err: "neither a file nor a directory"},
		{args: "install", code: 2, err: "FILE is missing"},
		{args: "grant redis", asked: "GET /redis, POST /redis/grant", sent: `{"allow_private":false,"digest":"d1"}`, says: "Plugin redis 1.2.0 may\n"},
		{
			args: "grant redis --only tcp://{target} --only x --allow-private", asked: "GET /redis, POST /redis/grant",
			sent: `{"allow_private":true,"digest":"d1","permissions":["tcp://{target}","x"]}`,
			says: "    its author says: talks to the server\n\nIt may not\n  • open TCP connections to 10.0.0.1 (in a private network)\n    tcp://10.0.0.1:1\n",
		},
		{args: "grant nosuch", asked: "GET /nosuch", code: 1, err: `there is no plugin named "nosuch"`},
		{args: "enable redis", asked: "POST /redis/enable", says: "enabled plugin redis 1.2.0; it is waiting: nobody has granted what it asks for\n"},
		{args: "disable redis", asked: "POST /redis/disable", sent: "{}", says: "disabled plugin redis\n"},
		{args: "disable redis --reason loud", asked: "POST /redis/disable", sent: `{"reason":"loud"}`},
		{args: "limits redis", asked: "GET /redis", says: "memory 32MiB (set by an operator), timeout 10s, concurrency 8\n"},
		{args: "limits redis --memory 64MiB --timeout 5s --concurrency 4", asked: "PATCH /redis", sent: `{"limits":{"concurrency":4,"memory":"64MiB","timeout":"5s"}}`},
		{args: "limits redis --memory default --concurrency default", asked: "PATCH /redis", sent: `{"limits":{"concurrency":null,"memory":null}}`},
		{args: "limits redis --concurrency x", code: 2, err: "--concurrency must be a whole number or default"},
		{args: "remove redis", code: 2, err: "--yes"},
		{args: "remove redis --yes", asked: "DELETE /redis", says: "removed plugin redis\n"},
		{args: "remove nosuch --yes", asked: "DELETE /nosuch", code: 1, err: `there is no plugin named "nosuch"`},
		{args: "nonsense", code: 2, err: `unknown command "nonsense"`},
	} {
		s := newPluginServer(t)
		r := s.run(t, strings.Fields(tt.args)...)
		if r.code != tt.code || !strings.Contains(r.stdout, tt.says) || !strings.Contains(r.stderr, tt.err) || tt.err == "" && r.stderr != "" {
			t.Errorf("%s: exit code %d\n%s%s", tt.args, r.code, r.stdout, r.stderr)
		}
		if said := strings.Count(r.stdout, "tcp://{target}"); said > 1 || strings.HasPrefix(r.stdout, "\n") {
			t.Errorf("%s: a permission is said %d times:\n%s", tt.args, said, r.stdout)
		}
		if got := strings.Join(s.asked, ", "); got != tt.asked {
			t.Errorf("%s: asked %s, want %s", tt.args, got, tt.asked)
		}
		if got := strings.Join(s.sent, "|"); tt.sent != "" && got != tt.sent {
			t.Errorf("%s: sent %s, want %s", tt.args, got, tt.sent)
		}
		if tt.code != 0 || tt.asked == "" {
			continue
		}
		// The same with --json: one object and nothing else.
		s = newPluginServer(t)
		r = s.run(t, append(strings.Fields(tt.args), "--json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != 0 || r.stderr != "" {
			t.Errorf("%s --json: exit code %d, %v\n%s%s", tt.args, r.code, err, r.stdout, r.stderr)
		}
	}
}

func TestNoPlugins(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"items":[],"next_cursor":null}`)
	}))
	defer srv.Close()
	if r := execute(t, []string{"TOCSIN_URL=" + srv.URL}, "plugin", "list"); r.code != ExitOK || r.stderr != "there are no plugins\n" || r.stdout != "" {
		t.Errorf("exit code %d, said %q, %q", r.code, r.stdout, r.stderr)
	}
}

// TestPluginInspect sees that everything is said in words, whatever the terminal shows of signs and colours.
func TestPluginInspect(t *testing.T) {
	s := newPluginServer(t, func(p map[string]any) {
		p["condition"], p["why"] = "disabled", "three monitors caused kills"
		p["asks"].([]any)[0].(map[string]any)["granted"] = true
		p["grant"] = map[string]any{
			"allow_private": true, "at": "2026-01-03T00:00:00Z", "by": "ops", "permissions": []string{"tcp://{target}", "tcp://10.0.0.1:1\x1b[2J"},
		}
		p["pending"] = map[string]any{"version": "1.3.0", "digest": "d2", "asks": []any{map[string]any{
			"allow": "dns://*.example.com", "words": "ask the DNS about every name below example.com", "reason": "it must", "granted": false,
		}}}
		p["sandbox"] = map[string]any{"degraded": true, "layers": []any{
			map[string]any{"name": "landlock", "holds": true, "detail": "ABI 4"}, map[string]any{"name": "seccomp", "holds": false, "detail": "the kernel has none"},
		}}
		p["usage"] = map[string]any{
			"calls": 4, "failures": 1, "kills": 2, "starts": 3, "running": 5, "runners": 6, "latency_us_total": 10000, "cpu_ms": 1500,
			"memory_bytes": 1572864, "bytes_read": 1023, "bytes_written": 2048, "denied": 7,
		}
	})
	got := s.run(t, "inspect", "redis").stdout
	for _, want := range []string{
		"condition  disabled: three monitors caused kills\n", "provides   check, notify\n", "target     redis.example.com:6379 (host:port)\n",
		"license    MIT\n", "digest     d1\n", "installed  2026-01-02T03:04:05Z (", "limits     memory 32MiB (set by an operator), timeout 10s, concurrency 8\n",
		"✓ granted      open TCP connections to the monitor's target\n                 tcp://{target}\n                 its author says: talks to the server\n",
		"✗ not granted  open TCP connections to 10.0.0.1", "✓ granted      a part: tcp://10.0.0.1:1[2J\n", "decided by ops at 2026-01-03T00:00:00Z (", "may be private\n",
		"Version 1.3.0 waits for its grant and asks to\n  • ask the DNS about every name below example.com\n", "grant it with: tocsin plugin grant redis\n",
		"✓ holds          landlock  ABI 4\n", "✗ does not hold  seccomp   the kernel has none\n", "although a required layer is missing",
		"calls      4, 2.5 ms on average; 1 failed, 5 under way\n", "processes  6 of 3 that were started; 2 had to be killed\n", "processor  1.5s\n",
		"memory     1.5 MiB\n", "network    1023 B read, 2.0 KiB written, 7 connections refused\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in:\n%s", want, got)
		}
	}
}

// TestHostileManifest gives the terminal what a stranger may have written: none of it is obeyed.
func TestHostileManifest(t *testing.T) {
	const evil = "\x1b]52;c;ZXZpbA==\a\x1b[2J\x1b[31mgranted\x1b[0m\r\x9b1A\u202etxt.exe\u2066\x00\nTocsin says: safe"
	hostile := func(p map[string]any) {
		for _, name := range []string{"name", "version", "summary", "license", "condition", "why", "digest", "runtime"} {
			p[name] = evil
		}
		p["provides"] = []string{evil}
		p["target"] = map[string]any{"example": evil, "doc": evil}
		ask := map[string]any{"allow": evil, "words": evil, "reason": evil, "granted": true}
		p["asks"] = []any{ask}
		p["grant"] = map[string]any{"allow_private": false, "at": "2026-01-03T00:00:00Z", "by": evil}
		p["pending"] = map[string]any{"version": evil, "digest": evil, "asks": []any{ask}}
		p["limits"] = map[string]any{"memory": evil, "timeout": evil, "concurrency": 1, "set": []string{evil}}
		p["sandbox"] = map[string]any{"layers": []any{map[string]any{"name": evil, "holds": true, "detail": evil}}}
	}
	file := archiveFile(t)
	for _, args := range []string{"list", "inspect redis", "install " + file, "grant redis", "enable redis", "disable redis", "limits redis"} {
		s := newPluginServer(t, hostile)
		r := s.run(t, strings.Fields(args)...)
		if r.code != 0 {
			t.Errorf("%s: exit code %d: %s", args, r.code, r.stderr)
		}
		if strings.ContainsAny(r.stdout, "\x1b\a\r\x00\u009b\u202e\u2066") || strings.Contains(r.stdout, "\nTocsin says") {
			t.Errorf("%s: the terminal gets %q", args, r.stdout)
		}
	}
	refused, err := json.Marshal(map[string]any{
		"title": evil, "detail": evil, "errors": []any{map[string]any{"location": "body" + evil, "message": evil, "value": evil}},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(problemAnswer(422, string(refused)))
	defer srv.Close()
	r := execute(t, []string{"TOCSIN_URL=" + srv.URL}, "plugin", "install", file)
	if r.code != ExitError || strings.ContainsAny(r.stderr, "\x1b\a\r\x00\u009b\u202e\u2066") || strings.Contains(r.stderr, "\nTocsin says") {
		t.Errorf("a refusal: %q", r.stderr)
	}
}

// TestInstallDirectory packs a directory before it is sent, and says what is wrong with one that is no plugin.
func TestInstallDirectory(t *testing.T) {
	dir := t.TempDir()
	s := newPluginServer(t)
	if r := s.run(t, "install", dir); r.code != ExitError || !strings.Contains(r.stderr, "tocsin-plugin.yaml") || len(s.asked) > 0 {
		t.Errorf("no plugin: exit code %d, %q, asked %v", r.code, r.stderr, s.asked)
	}
	for name, text := range map[string]string{
		"tocsin-plugin.yaml": "api: 1\nname: redis\nversion: 1.2.0\nsummary: PING\nprovides: [check]\nruntime: wasm\nscript: check.js\n",
		"check.js":           "export function check() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := s.run(t, "install", dir)
	if r.code != 0 || len(s.sent) != 1 || !strings.HasPrefix(s.sent[0], "\x1f\x8b") || s.media != "application/gzip" {
		t.Errorf("exit code %d, %s, sent %d bodies of %s", r.code, r.stderr, len(s.sent), s.media)
	}
}

// TestUpgradeThatAsksForMore says that the old version goes on, and grants the new one by its digest.
func TestUpgradeThatAsksForMore(t *testing.T) {
	pending := func(p map[string]any) {
		p["condition"], p["why"] = "ready", nil
		p["grant"] = map[string]any{"allow_private": false, "at": "2026-01-03T00:00:00Z", "by": "ops"}
		p["pending"] = map[string]any{"version": "1.3.0", "digest": "d2", "asks": []any{
			map[string]any{"allow": "tcp://{target}", "words": "open TCP connections", "reason": "", "granted": true},
			map[string]any{"allow": "dns://*.example.com", "words": "ask the DNS about every name below example.com", "reason": "", "granted": false},
		}}
	}
	s := newPluginServer(t, pending)
	r := s.run(t, "install", archiveFile(t))
	for _, want := range []string{"installed plugin redis 1.3.0: ", "It asks for more than version 1.2.0 was granted, which goes on until you decide.\n", "• open TCP connections (granted already)\n", "• ask the DNS about every name below example.com\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("there is no %q in:\n%s", want, r.stdout)
		}
	}
	if r = s.run(t, "grant", "redis"); r.code != 0 || fmt.Sprint(s.sent) != `[{"allow_private":false,"digest":"d2"}]` {
		t.Errorf("granted with %v: %s", s.sent, r.stderr)
	}
}
