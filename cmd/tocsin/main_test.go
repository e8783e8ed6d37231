package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tocsin": func() { os.Exit(run()) }})
}

const (
	adminToken = "tcs_admin_0123456789abcdefghij" // of the servers that scripts start, and of nothing else
	patience   = 30 * time.Second                 // how long a script waits for what must happen
)

// TestScripts drives the real program. Each script has a free port, an administrator's token, a page that works ($PAGE/ok),
// one that fails ($PAGE/fail), and a receiver of notifications ($HOOK).
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts(t, "testdata/script"))
}

func scripts(t *testing.T, dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			port, err := freePort(t.Context())
			if err != nil {
				return err
			}
			received := make(chan string, 100)
			page := httptest.NewServer(pages(received))
			env.Defer(page.Close)
			closed, err := freePort(t.Context())
			if err != nil {
				return err
			}
			env.Values["received"] = received
			env.Setenv("LISTEN", "127.0.0.1:"+port)
			env.Setenv("TOCSIN_URL", "http://127.0.0.1:"+port)
			env.Setenv("TOCSIN_TOKEN", adminToken)
			env.Setenv("TOCSIN_ADMIN_TOKEN", adminToken)
			env.Setenv("TOCSIN_DATA", env.WorkDir+"/data")
			env.Setenv("PAGE", page.URL)
			env.Setenv("HOOK", page.URL+"/hook")
			env.Setenv("CLOSED", "127.0.0.1:"+closed)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": ready, "code": code, "state": state, "received": receivedText, "term": term,
			"kill9": kill9, "runners": runners, "message": message,
		},
	}
}

// freePort returns a port on which nobody listens.
func freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func pages(received chan<- string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ok":true}`) })
	mux.HandleFunc("/fail", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusServiceUnavailable) })
	mux.HandleFunc("/hook", func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			received <- string(body)
		}
	})
	return mux
}

// until tries something, again and again, until it is true.
func until(ts *testscript.TestScript, what string, try func(context.Context) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !try(ctx) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ts.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func get(ctx context.Context, ts *testscript.TestScript, path string) (int, []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ts.Getenv("TOCSIN_URL")+path, nil)
	ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, body
}

// ready waits until the server is.
func ready(ts *testscript.TestScript, _ bool, _ []string) {
	until(ts, "the server is ready", func(ctx context.Context) bool {
		status, _ := get(ctx, ts, "/readyz")
		return status == http.StatusOK
	})
}

// code runs a command that must end with an exit code: code 2 tocsin …
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// term sends SIGTERM to what runs in the background.
func term(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		if cmd.ProcessState == nil {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
		}
	}
}

// state waits until a monitor is in a state: state NAME down
func state(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: state NAME STATE")
	}
	until(ts, args[0]+" is "+args[1], func(ctx context.Context) bool {
		_, body := get(ctx, ts, "/api/v1/monitors")
		var list struct {
			Items []struct{ Name, State string }
		}
		if json.Unmarshal(body, &list) != nil {
			return false
		}
		for _, m := range list.Items {
			if m.Name == args[0] && m.State == args[1] {
				return true
			}
		}
		return false
	})
}

// receivedText waits until the receiver gets a notification that matches: received REGEXP
func receivedText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: received REGEXP")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	received, ok := ts.Value("received").(chan string)
	if !ok {
		ts.Fatalf("no receiver")
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var seen []string
	for {
		select {
		case body := <-received:
			if want.MatchString(body) {
				return
			}
			seen = append(seen, body)
		case <-timer.C:
			ts.Fatalf("no notification matches %s; there came\n%s", want, strings.Join(seen, "\n"))
		}
	}
}
