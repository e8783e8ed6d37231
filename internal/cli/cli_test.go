package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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
		{"monitor list", 1, "is it running?"},
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
