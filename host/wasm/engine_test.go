package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"
	esys "github.com/tetratelabs/wazero/experimental/sys"
)

// interpreter is an engine whose module exports run, crash and twice; the script is one byte at address 1000.
type interpreter struct {
	script byte
	fails  error
}

func interpreterModule() []byte {
	g := &guest{}
	host := g.importFunc("env", "host_seen", sig(1), "")
	say := g.sayer(g.wasi("fd_write", sig(4)))
	i := g.global(tI32, 1, konst(0))
	// It says what it finds, and changes it.
	g.fn("run", 0, load8(1000), call(say), globalGet(i), call(say), konst(7), call(host),
		store(1000, konst(9)), konst(9), globalSet(i))
	g.fn("crash", 0, store(1000, konst(9)), 0x00)
	g.fn("_initialize", 0, konst(2), globalSet(i))
	return g.bytes()
}

func (e interpreter) Imports(env wazero.HostModuleBuilder) {
	env.NewFunctionBuilder().WithFunc(func(context.Context, uint32) {}).Export("host_seen")
}

func (e interpreter) Start(_ context.Context, g *Guest) (Program, error) {
	if _, errno := g.Open("tcp/x:1"); errno != esys.EACCES {
		return nil, errors.New("a file could be opened while the script was loaded")
	}
	fmt.Fprintln(g.Stderr(), "W! loading")
	fmt.Fprint(g.Stdout(), "nobody reads this")
	g.Memory().WriteByte(1000, e.script)
	return loaded{}, e.fails
}

type loaded struct{}

func (loaded) Calls() []string { return []string{"notify", "check"} }

func (loaded) Call(ctx context.Context, g *Guest, name string) error {
	if _, err := g.Call(ctx, "run"); err != nil {
		return err
	}
	word, _, _ := strings.Cut(string(g.Request()), " ")
	switch word {
	case "throw":
		return &ScriptError{Reason: "it threw"}
	case "crash":
		_, err := g.Call(ctx, "crash")
		return err
	case "missing":
		_, err := g.Call(ctx, "fly")
		return err
	case "leave", "close":
		f, errno := g.Open("dns/A/example.com")
		if errno != 0 {
			return errno
		}
		if word == "close" {
			defer f.Close()
		}
		b := make([]byte, 100)
		n, _ := f.Read(b)
		g.Stdout().Write(b[:n])
	case "grow":
		g.Memory().Grow(1)
	}
	fmt.Fprint(g.Stdout(), name)
	return nil
}

func TestEngine(t *testing.T) {
	m := open(t, interpreterModule(), Options{Engine: interpreter{script: 5}, Instances: 2})
	if d := cmp.Diff([]string{"check", "notify"}, m.Info().Calls); d != "" || m.Info().Command {
		t.Error(d)
	}
	if log := m.StartLog(); len(log) != 1 || log[0].Text != "loading" {
		t.Errorf("it logged %v", log)
	}
	// Whatever a call does, the next one finds what Start left.
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				for request, want := range map[string][2]string{
					"": {"52check"}, "throw": {"52", "it threw"}, "crash": {"52", "the plugin crashed: unreachable"},
					"missing": {"52", `the engine has no function "fly"`}, "grow": {"52check"},
					"leave": {"52dns/A/example.comcheck"}, "close": {"52dns/A/example.comcheck"},
				} {
					r, err := m.Call(context.Background(), Call{Name: "check", Request: []byte(request), FS: fileFS{}})
					if string(r.Response) != want[0] || want[1] == "" && err != nil || want[1] != "" && (err == nil || err.Error() != want[1]) {
						t.Errorf("%q: %q, %v", request, r.Response, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if r, err := m.Call(context.Background(), Call{Name: "notify"}); err != nil || string(r.Response) != "52notify" {
		t.Errorf("notify: %q, %v", r.Response, err)
	}
	_, err := m.Call(context.Background(), Call{Name: "check", Request: []byte("close")})
	if !errors.Is(err, esys.EACCES) {
		t.Errorf("without a network: %v", err)
	}
}

func TestEngineThatCannotStart(t *testing.T) {
	why := &ScriptError{Reason: "line 3 is odd"}
	_, err := New(context.Background(), interpreterModule(), Options{Engine: interpreter{fails: why}})
	var failed *ScriptError
	if !errors.As(err, &failed) || failed != why || err.Error() != "load the script: line 3 is odd" {
		t.Error(err)
	}
	if _, err := New(context.Background(), interpreterModule(), Options{}); err == nil {
		t.Error("a module that imports from env was loaded without an engine")
	}
}

// A shared instance keeps what a call leaves, until it crashes.
func TestShared(t *testing.T) {
	g, say := printer()
	g.fn("check", 0, load8(1000), call(say), store(1000, add(load8(1000), konst(1))))
	g.fn("notify", 0, 0x00)
	m := open(t, g.bytes(), Options{Shared: true})
	calls := func(m *Module, want string, requests ...string) {
		t.Helper()
		var got string
		for _, request := range requests {
			name, request, _ := strings.Cut(request, " ")
			r, err := m.Call(context.Background(), Call{Name: name, Request: []byte(request), FS: fileFS{}})
			got += string(r.Response)
			if err != nil {
				got += "!"
			}
		}
		if got != want {
			t.Errorf("%q gave %q, want %q", requests, got, want)
		}
	}
	calls(m, "012!01!0", "check", "check", "check", "notify", "check", "check", "notify", "check")
	calls(open(t, interpreterModule(), Options{Shared: true, Engine: interpreter{script: 5}}),
		"52check99check99!99check99!52check", "check", "check", "check throw", "check", "check crash", "check")

	// One that keeps state where a reset does not reach is shared as well.
	g, say = printer()
	i := g.global(tV128, 1, konstV128(3))
	lane := func() []byte { return cat(globalGet(i), 0xfd, 0x1b, 0) }
	g.fn("check", 0, lane(), call(say), konstV128(4), globalSet(i))
	m = open(t, g.bytes(), Options{Shared: true})
	if len(m.Info().Fresh) == 0 || m.Snapshot() {
		t.Errorf("it needs no fresh instances: %+v", m.Info())
	}
	calls(m, "344", "check", "check", "check")

	// A command has nothing to share.
	calls(open(t, echo("_start"), Options{Shared: true}), "ab", "check a", "check b")
}
