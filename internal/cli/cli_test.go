package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeServer stands for the server that cmd/tocsin hands in; scripts there drive the real one.
type fakeServer struct {
	got ServeRequest
	err error
}

func (f *fakeServer) Settings() []Setting {
	return []Setting{
		{Flag: "listen", Type: "text", Default: ":8080", Env: "TOCSIN_LISTEN", Doc: "where"},
		{Flag: "demo", Type: "true|false", Env: "TOCSIN_DEMO", Doc: "show", Bool: true},
		{Flag: "allow", Type: "addresses", Env: "TOCSIN_ALLOW", Doc: "which"},
		{Env: "TOCSIN_KEY", Doc: "a secret"},
	}
}

func (f *fakeServer) Serve(_ context.Context, r ServeRequest) error {
	f.got = r
	return f.err
}

type ran struct {
	code           int
	stdout, stderr string
	server         *fakeServer
}

func execute(t *testing.T, environ []string, args ...string) ran {
	t.Helper()
	var stdout, stderr strings.Builder
	server := &fakeServer{}
	code := Main(t.Context(), Options{
		Args: args, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Environ: environ, Version: "v1.2.3", Server: server,
	})
	return ran{code, stdout.String(), stderr.String(), server}
}

func TestServe(t *testing.T) {
	r := execute(t, []string{"A=b"}, "serve", "--demo", "--listen=:1", "--allow", "10.0.0.1", "--allow", "10.0.0.2", "--config", "x.yaml")
	if r.code != ExitOK {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	got := r.server.got
	if fmt.Sprint(got.Flags) != "map[allow:10.0.0.1,10.0.0.2 demo:true listen::1]" || got.ConfigFile != "x.yaml" || got.Version != "v1.2.3" {
		t.Errorf("asked %+v", got)
	}
	help := execute(t, nil, "serve", "--help").stdout
	for _, want := range []string{"(default :8080)", "[TOCSIN_LISTEN]", "TOCSIN_KEY", "a secret", "--demo"} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in:\n%s", want, help)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"", 0, ""},
		{"version", 0, ""},
		{"version extra", 2, `"extra" is one argument too many`},
		{"nonsense", 2, `unknown command "nonsense"; there is`},
		{"monitor ad", 2, `unknown command "ad"; there is add`},
		{"monitor add", 2, "NAME is missing"},
		{"monitor rm", 2, "NAME is missing"},
		{"monitor list --label x", 2, "--label must be key=value"},
		{"monitor rm x", 2, "--yes"},
		{"--nope", 2, "unknown flag: --nope"},
		{"monitor list --text x --sort", 2, "unknown flag: --sort"},
		{"monitor list --text x", 1, "no server answers at http://127.0.0.1:1 (connection refused); is TOCSIN_URL right?\n"},
	} {
		r := execute(t, []string{"TOCSIN_URL=http://127.0.0.1:1"}, strings.Fields(tt.args)...)
		if r.code != tt.code || !strings.Contains(r.stderr, tt.says) {
			t.Errorf("%q: exit code %d, want %d; said %q, want %q", tt.args, r.code, tt.code, r.stderr, tt.says)
		}
	}
}

// TestAnswers gives the client what servers, proxies and things that are neither may answer.
func TestAnswers(t *testing.T) {
	const secret = "tcs_very_secret_token"
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		code    int
		says    string
	}{
		{"faults", problemAnswer(422, `{"detail":"2 faults","errors":[{"location":"body.interval","message":"must be at least 1s","value":"1ms"},{"location":"body","message":"no"}]}`), 1, "2 faults (422)\n  interval: must be at least 1s (got 1ms)\n  no"},
		{"unauthorised", problemAnswer(401, `{"detail":"the token is not valid"}`), 4, "the token is not valid (401)"},
		{"forbidden", problemAnswer(403, `{"detail":"this needs the role editor"}`), 4, "this needs the role editor"},
		{"bare status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, 1, "Bad Gateway (502)"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, 1, "is http://127.0.0.1"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		}, 1, "sends on to https://elsewhere.example/"},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 1, "reach the server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			r := execute(t, []string{"TOCSIN_URL=" + srv.URL, "TOCSIN_TOKEN=" + secret}, "monitor", "list")
			if r.code != tt.code || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("exit code %d, want %d; said %q, want %q", r.code, tt.code, r.stderr, tt.says)
			}
			if r.stdout != "" || strings.Contains(r.stderr, secret) {
				t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
			}
		})
	}
}

func problemAnswer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestPages follows a list over its pages.
func TestPages(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			_, _ = io.WriteString(w, `{"items":[{"name":"one","state":"up"}],"next_cursor":"2"}`)
		default:
			_, _ = io.WriteString(w, `{"items":[{"name":"two\u001b[31m","state":"down"}],"next_cursor":null}`)
		}
	}))
	defer srv.Close()
	r := execute(t, []string{"TOCSIN_URL=" + srv.URL + "/"}, "monitor", "list")
	if r.code != 0 || !strings.Contains(r.stdout, "one") || !strings.Contains(r.stdout, "two") || strings.Contains(r.stdout, "\x1b") {
		t.Errorf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func TestEnvironment(t *testing.T) {
	for _, bad := range []string{"TOCSIN_URL=127.0.0.1:8080", "TOCSIN_URL=http://user:pass@x", "TOCSIN_TOKEN=a\nb"} {
		if r := execute(t, []string{bad}, "monitor", "list"); r.code != ExitUsage || strings.Contains(r.stderr, "pass") {
			t.Errorf("%q: exit code %d, said %q", bad, r.code, r.stderr)
		}
	}
}

// TestMistypedVariable sees that a slip in the client's variables is told, and what belongs to the server is not.
func TestMistypedVariable(t *testing.T) {
	for variable, says := range map[string]string{
		"TOCSIN_TOKN=secret-token":   "TOCSIN_TOKN: no setting has this name; did you mean TOCSIN_TOKEN?",
		"TOCSIN_URI=http://x":        "TOCSIN_URI: no setting has this name; did you mean TOCSIN_URL?",
		"TOCSIN_ULR=":                "did you mean TOCSIN_URL?",
		"TOCSIN_Token=x":             "did you mean TOCSIN_TOKEN?",
		"TOCSIN_LISTEN=:1":           "no server answers",
		"TOCSIN_KEY=x":               "no server answers",
		"TOCSIN_CONFIG=x":            "no server answers",
		"TOCSIN_PORT=tcp://10.0.0.1": "no server answers",
		"TOCSIN_SERVICE_HOST=x":      "no server answers",
		"TOCSIN_VERSION=x":           "no server answers",
		"XTOCSIN_URI=x":              "no server answers",
	} {
		r := execute(t, []string{"TOCSIN_URL=http://127.0.0.1:1", variable}, "monitor", "list")
		code := ExitUsage
		if says == "no server answers" {
			code = ExitError
		}
		if r.code != code || !strings.Contains(r.stderr, says) || strings.Contains(r.stderr, "secret-token") {
			t.Errorf("%s: exit code %d, said %q, want %d, %q", variable, r.code, r.stderr, code, says)
		}
	}
	// A check on its own and the server, which tells of its own, do not mind.
	if r := execute(t, []string{"TOCSIN_TOKN=x"}, "version"); r.code != ExitOK {
		t.Errorf("version: %q", r.stderr)
	}
}

// TestUnreachable tells in a line why no server was reached, without the request's address.
func TestUnreachable(t *testing.T) {
	for base, says := range map[string]string{
		"http://127.0.0.1:1":                       "tocsin: no server answers at http://127.0.0.1:1 (connection refused); is TOCSIN_URL right?\n",
		"http://tocsin-no-such-host.invalid:8080/": "no server answers at http://tocsin-no-such-host.invalid:8080 (",
	} {
		r := execute(t, []string{"TOCSIN_URL=" + base}, "monitor", "list", "--kind", "http")
		if r.code != ExitError || !strings.Contains(r.stderr, says) || strings.Contains(r.stderr, "kind=") || strings.Contains(r.stderr, "api/v1") {
			t.Errorf("%s: exit code %d, said %q", base, r.code, r.stderr)
		}
	}
}

// catalogue is a server with some monitors; it notes what is changed.
type catalogue struct {
	*httptest.Server
	changed []string
	fails   string // id of the monitor that cannot be changed
}

func newCatalogue(t *testing.T, names ...string) *catalogue {
	t.Helper()
	c := &catalogue{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/api/v1/kinds":
			_, _ = io.WriteString(w, `{"items":[{"name":"http"},{"name":"smoke"}]}`)
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `{"id":"1","name":"beat","push_url":"/push/abc"}`)
		case r.Method != http.MethodGet && strings.HasSuffix(r.URL.Path, "/id-"+c.fails):
			problemAnswer(503, `{"detail":"not now"}`)(w, r)
		case r.Method != http.MethodGet:
			c.changed = append(c.changed, r.Method+" "+r.URL.Path)
			_, _ = io.WriteString(w, `{}`)
		case strings.HasPrefix(r.URL.Path, "/api/v1/monitors/"):
			_, _ = io.WriteString(w, `{"id":"1","name":"beat","config":{},"push_url":"/push/abc"}`)
		default:
			var items []string
			for _, name := range names {
				if q := r.URL.Query(); q.Get("kind") == "" && q.Get("state") == "" && strings.Contains(name, q.Get("q")) {
					items = append(items, fmt.Sprintf(`{"id":"id-%s","name":%q}`, name, name))
				}
			}
			_, _ = io.WriteString(w, `{"items":[`+strings.Join(items, ",")+`]}`)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *catalogue) run(t *testing.T, args ...string) ran {
	t.Helper()
	return execute(t, []string{"TOCSIN_URL=" + c.URL}, args...)
}

// TestNothingMatches tells a filter that matches nothing from a server without monitors.
func TestNothingMatches(t *testing.T) {
	some, none := newCatalogue(t, "a"), newCatalogue(t)
	for args, says := range map[string]string{
		"monitor list --kind http":              "none match\n",
		"monitor list --kind htp":               `none match: the server has no kind "htp"; there is http, smoke` + "\n",
		"monitor list --state down --kind none": `the server has no kind "none"`,
		"monitor list --text zzz":               "none match\n",
		"monitor list --state up":               "none match\n",
	} {
		if r := some.run(t, strings.Fields(args)...); r.code != ExitOK || !strings.HasSuffix(r.stderr, says) && !strings.Contains(r.stderr, says) || r.stdout != "" {
			t.Errorf("%s: exit code %d, said %q, want %q", args, r.code, r.stderr, says)
		}
	}
	for args, says := range map[string]string{"monitor list": "there are no monitors\n", "channel list": "there are no channels\n"} {
		if r := none.run(t, strings.Fields(args)...); r.code != ExitOK || r.stderr != says {
			t.Errorf("%s: exit code %d, said %q", args, r.code, r.stderr)
		}
	}
}

// TestSeveralNames sees that nothing is changed when one of the names is not there.
func TestSeveralNames(t *testing.T) {
	for _, verb := range []string{"pause", "resume", "rm"} {
		c := newCatalogue(t, "a", "b", "c")
		args := []string{"monitor", verb, "a", "nope", "b", "neither"}
		if verb == "rm" {
			args = append(args, "--yes")
		}
		r := c.run(t, args...)
		if want := "there is no monitor named \"nope\" or \"neither\"; nothing was changed"; r.code != ExitError || !strings.Contains(r.stderr, want) || len(c.changed) > 0 || r.stdout != "" {
			t.Errorf("%s: exit code %d, said %q, changed %v", verb, r.code, r.stderr, c.changed)
		}
	}
	c := newCatalogue(t, "a", "b", "c")
	if r := c.run(t, "monitor", "rm", "a", "b", "a", "--yes"); r.code != ExitOK || len(c.changed) != 2 {
		t.Errorf("the same name twice: %q, changed %v", r.stderr, c.changed)
	}
	c = newCatalogue(t, "a", "b", "c")
	c.fails = "b"
	r := c.run(t, "monitor", "pause", "a", "b", "c")
	if r.code != ExitError || !strings.Contains(r.stderr, "b: not now (503)") || !strings.Contains(r.stderr, "not tried any more: c") || r.stdout != "paused monitor a\n" {
		t.Errorf("a refusal half-way: exit code %d, said %q, %q", r.code, r.stdout, r.stderr)
	}
}

func TestPushAddress(t *testing.T) {
	c := newCatalogue(t, "beat")
	if r := c.run(t, "monitor", "add", "beat", "push"); !strings.Contains(r.stdout, "send beats to "+c.URL+"/push/abc\n") {
		t.Errorf("add said %q, %q", r.stdout, r.stderr)
	}
	if r := c.run(t, "monitor", "show", "beat"); !strings.Contains(r.stdout, c.URL+"/push/abc\n") {
		t.Errorf("show said %q, %q", r.stdout, r.stderr)
	}
}

// TestCheckSecrets takes a secret from a file and from standard input, so that no list of processes shows it.
func TestCheckSecrets(t *testing.T) {
	var got string
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Authorization") }))
	defer target.Close()
	path := t.TempDir() + "/token"
	if err := os.WriteFile(path, []byte("hush-hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := execute(t, nil, "check", "http", target.URL, "--config-file", "bearer="+path); r.code != ExitOK || got != "Bearer hush-hush" {
		t.Errorf("exit code %d, said %q, the target got %q", r.code, r.stdout, got)
	}
	var stdout, stderr strings.Builder
	code := Main(t.Context(), Options{
		Args: []string{"check", "http", target.URL, "--config-file", "basic.password=-", "--basic-username=joe"}, Stdin: strings.NewReader("s3cret\n"),
		Stdout: &stdout, Stderr: &stderr, Server: &fakeServer{},
	})
	if code != ExitOK || got != "Basic am9lOnMzY3JldA==" {
		t.Errorf("exit code %d, said %q, the target got %q", code, &stdout, got)
	}
	for arg, says := range map[string]string{
		"bearer=" + path + ".none": "UNKNOWN: read bearer: ", "nonsense": "must be key=path", "odd=" + path: "UNKNOWN: config.odd: ",
	} {
		if r := execute(t, nil, "check", "http", target.URL, "--config-file", arg); r.code != exitUnknown || !strings.Contains(r.stdout, says) || strings.Contains(r.stdout, "hush") {
			t.Errorf("%s: exit code %d, said %q", arg, r.code, r.stdout)
		}
	}
}

// TestCheckTimeout refuses a config that does not fit into the timeout.
func TestCheckTimeout(t *testing.T) {
	r := execute(t, nil, "check", "icmp", "127.0.0.1", "--count", "100", "--timeout", "1s")
	if r.code != exitUnknown || !strings.Contains(r.stdout, "UNKNOWN: config.count: 100 requests") {
		t.Errorf("exit code %d, said %q", r.code, r.stdout)
	}
}

func TestCompletion(t *testing.T) {
	for flag, want := range map[string]string{"--state": "degraded\n", "--kind": "icmp\n"} {
		if r := execute(t, nil, "__complete", "monitor", "list", flag, ""); r.code != ExitOK || !strings.Contains(r.stdout, want) || !strings.Contains(r.stdout, ":4\n") {
			t.Errorf("%s is completed with %q", flag, r.stdout)
		}
	}
}

// brokenWriter is standard output whose reader went away.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestBrokenOutput(t *testing.T) {
	var stderr strings.Builder
	code := Main(t.Context(), Options{Args: []string{"version"}, Stdin: strings.NewReader(""), Stdout: brokenWriter{}, Stderr: &stderr, Server: &fakeServer{}})
	if code != ExitError || !strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("exit code %d, said %q", code, &stderr)
	}
}

func TestRelative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for want, at := range map[string]time.Time{
			"5 s ago": now.Add(-5 * time.Second), "3 min ago": now.Add(-3*time.Minute - 20*time.Second), "47 h ago": now.Add(-47 * time.Hour),
			"in 12 days": now.Add(12*24*time.Hour + time.Hour),
		} {
			if got := relative(at, now); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}
