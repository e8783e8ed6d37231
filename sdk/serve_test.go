package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain runs the tests, or Main when a test starts this very file as a plugin.
func TestMain(m *testing.M) {
	if os.Getenv("TOCSIN_TEST_PLUGIN") != "" {
		if os.Getenv("TOCSIN_TEST_PLUGIN") == "registered" {
			Register(Plugin{Check: func(_ context.Context, r CheckRequest) (Result, error) {
				return Result{Status: Up, Message: r.Target}, nil
			}})
		}
		Main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, errors.New("no") }
func (failing) Write([]byte) (int, error) { return 0, errors.New("no") }

func respond(t *testing.T, p Plugin, call, request string) (response, log string) {
	t.Helper()
	var out, errs strings.Builder
	if err := p.answer(call, strings.NewReader(request), &out, &errs); err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String()
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	p := Plugin{
		Check: func(ctx context.Context, r CheckRequest) (Result, error) {
			switch r.Target {
			case "error":
				return Result{Status: Up}, errors.New("a\nb")
			case "panic":
				panic("at the disco")
			case "deadline":
				_, ok := ctx.Deadline()
				return Result{Status: Up, Message: r.Timeout.String()}, map[bool]error{false: errors.New("none")}[ok]
			}
			var c struct{ Port int }
			if err := Config(r.Config, &c); err != nil {
				return Result{}, err
			}
			return Result{Status: Up, Message: r.Target, Latency: time.Duration(c.Port) * time.Microsecond}, nil
		},
		Notify: func(_ context.Context, r NotifyRequest) error {
			switch r.Notification.Text {
			case "permanent":
				return Permanent(errors.New("gone"))
			case "panic":
				panic(errors.New("oh"))
			}
			return nil
		},
	}
	for _, tt := range []struct{ call, request, want, log string }{
		{"check", `{"api":1,"call":"check","target":"x","config":{"port":5}}`, `{"status":"up","message":"x","latency_us":5}`, ""},
		{"check", `{"api":1,"call":"check","target":"x","config":{"prot":5}}`, `{"status":"unknown","message":"read config: json: unknown field \"prot\""}`, ""},
		{"check", `{"api":1,"call":"check","target":"error"}`, `{"status":"unknown","message":"a b"}`, ""},
		{"check", `{"api":1,"call":"check","target":"panic"}`, `{"status":"unknown","message":"the plugin panicked: at the disco"}`, "E! the plugin panicked: at the disco\nE! goroutine "},
		{"check", `{"api":1,"call":"check","target":"deadline","timeout_ms":5000}`, `{"status":"up","message":"5s"}`, ""},
		{"check", `{"api":1,"call":"check","target":"deadline"}`, `{"status":"unknown","message":"none"}`, ""},
		{"check", `{"api":2,"call":"check"}`, `{"status":"unknown","message":"read request: api is 2, this plugin speaks 1"}`, ""},
		{"check", `{`, `{"status":"unknown","message":"unexpected end of JSON input"}`, ""},
		{"check", ``, `{"status":"unknown","message":"unexpected end of JSON input"}`, ""},
		{"notify", `{"api":1,"call":"notify","notification":{}}`, `{"ok":true}`, ""},
		{"notify", `{"api":1,"call":"notify","notification":{"text":"permanent"}}`, `{"error":{"message":"gone","permanent":true,"retry_after_ms":0}}`, ""},
		{"notify", `{"api":1,"call":"notify","notification":{"text":"panic"}}`, `{"error":{"message":"the plugin panicked: oh","permanent":false,"retry_after_ms":0}}`, "E! the plugin panicked: oh\n"},
		{"notify", `[]`, `{"error":{"message":"read notify request: json: cannot unmarshal array into Go value of type sdk.notifyRequestJSON","permanent":true,"retry_after_ms":0}}`, ""},
	} {
		got, log := respond(t, p, tt.call, tt.request)
		want := tt.want
		if tt.request == "{" || tt.request == "" {
			want = strings.Replace(want, "unexpected", "read check request: unexpected", 1)
		}
		if got != want || !strings.HasPrefix(log, tt.log) || tt.log == "" && log != "" {
			t.Errorf("%s: %s, log %q\nwant %s", tt.request, got, log, want)
		}
		for line := range strings.Lines(log) {
			if !strings.HasPrefix(line, "E! ") {
				t.Errorf("%s: line %q has no level", tt.request, line)
			}
		}
	}
	for call, want := range map[string]string{
		"check":  `{"status":"unknown","message":"the plugin does not answer this call"}`,
		"notify": `{"error":{"message":"the plugin does not answer this call","permanent":false,"retry_after_ms":0}}`,
	} {
		if got, _ := respond(t, Plugin{}, call, `{"api":1,"call":"`+call+`"}`); got != want {
			t.Errorf("%s of a plugin that does not answer it: %s", call, got)
		}
	}
	if err := p.answer("check", failing{}, io.Discard, io.Discard); err == nil || err.Error() != "read the request: no" {
		t.Error(err)
	}
	if err := p.answer("check", strings.NewReader(""), failing{}, io.Discard); err == nil || err.Error() != "write the answer: no" {
		t.Error(err)
	}
	if err := warm(); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	type config struct {
		Port int    `json:"port"`
		Host string `json:"host"`
	}
	for text, want := range map[string]config{"": {Port: 80}, "{}": {Port: 80}, `{"port":1}`: {Port: 1}, ` {"host":"h"} `: {80, "h"}} {
		got := config{Port: 80}
		if err := Config(json.RawMessage(text), &got); err != nil || got != want {
			t.Errorf("%q is read as %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"{", "[]", `{"port":"x"}`, `{"prot":1}`, `{} {}`, `{}]`} {
		var got config
		if err := Config(json.RawMessage(text), &got); err == nil || !strings.HasPrefix(err.Error(), "read config: ") {
			t.Errorf("%q is read as %+v, %v", text, got, err)
		}
	}
}

func TestRegister(t *testing.T) {
	refused := func(name string, p Plugin) {
		t.Helper()
		defer func() {
			if v := recover(); v == nil {
				t.Errorf("%s was registered", name)
			}
		}()
		Register(p)
	}
	refused("nothing", Plugin{})
	t.Cleanup(func() { registered = Plugin{} })
	p := Plugin{Notify: func(context.Context, NotifyRequest) error { return nil }}
	Register(p)
	refused("a second plugin", p)
}

// TestMainIsCommand runs Main as an author does on his own system.
func TestMainIsCommand(t *testing.T) {
	t.Parallel()
	const request = `{"api":1,"call":"check","target":"x"}`
	for _, tt := range []struct {
		mode           string
		args           []string
		stdout, stderr string
	}{
		{"registered", []string{"check"}, `{"status":"up","message":"x"}`, ""},
		{"registered", nil, "", "E! want one argument, check or notify, got []; this is a plugin of Tocsin, which runs it\n"},
		{"registered", []string{"serve"}, "", "E! want one argument, check or notify, got [\"serve\"]; this is a plugin of Tocsin, which runs it\n"},
		{"none", []string{"check"}, "", "E! no plugin is registered; call sdk.Register in an init function\n"},
	} {
		cmd := exec.Command(os.Args[0], tt.args...)
		cmd.Env = []string{"TOCSIN_TEST_PLUGIN=" + tt.mode}
		cmd.Stdin = strings.NewReader(request)
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if stdout.String() != tt.stdout || stderr.String() != tt.stderr || (err != nil) != (tt.stderr != "") || err != nil && cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%s %q: %v, %q, %q", tt.mode, tt.args, err, stdout.String(), stderr.String())
		}
	}
}
