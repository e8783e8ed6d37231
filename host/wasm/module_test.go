package wasm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCommand(t *testing.T) {
	g := &guest{}
	args := g.wasi("args_get", sig(2))
	sizes := g.wasi("args_sizes_get", sig(2))
	write := g.wasi("fd_write", sig(4))
	g.fn("_start", 0,
		konst(100), konst(200), call(args), drop, konst(16), konst(20), call(sizes), drop,
		store(0, konst(200)), store(4, load32(20)), konst(1), konst(0), konst(1), konst(8), call(write), drop)
	m := open(t, g.bytes(), Options{Name: "ntp"})
	for _, name := range []string{"check", "notify", "check"} {
		r, err := m.Call(context.Background(), Call{Name: name})
		if want := "ntp\x00" + name + "\x00"; err != nil || string(r.Response) != want {
			t.Errorf("got %q, %v, want %q", r.Response, err, want)
		}
	}
	if m.Snapshot() {
		t.Error("a command has a snapshot")
	}
}

func TestRequestAndResponse(t *testing.T) {
	for _, entry := range []string{"check", "_start"} {
		m := open(t, echo(entry), Options{Response: 10_000})
		for _, n := range []int{0, 1, 190, 4096, 4097, 10_000, 10_001, 1 << 20} {
			req := bytes.Repeat([]byte("x"), n)
			r, err := m.Call(context.Background(), Call{Name: "check", Request: req})
			if err != nil || !bytes.Equal(r.Response, req[:min(n, 10_000)]) || r.Cut != (n > 10_000) {
				t.Errorf("%s, %d bytes: %d came back, cut %v, %v", entry, n, len(r.Response), r.Cut, err)
			}
		}
	}
}

func TestNoSuchCall(t *testing.T) {
	m := open(t, echo("check"), Options{})
	for _, name := range []string{"notify", "_start", "memory", ""} {
		if _, err := m.Call(context.Background(), Call{Name: name}); !errors.Is(err, ErrNoCall) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// logger writes n times what is in the data to standard error.
func logger(text string, n int) []byte {
	g := &guest{}
	write := g.wasi("fd_write", sig(4))
	g.memory = cat(0, 4)
	g.data(0, 64, text)
	g.fn("check", 1, store(0, konst(64)), store(4, konst(len(text))),
		0x03, 0x40, konst(2), konst(0), konst(1), konst(8), call(write), drop,
		0x20, 0, konst(1), 0x6a, 0x22, 0, konst(n), 0x49, 0x0d, 0, 0x0b)
	return g.bytes()
}

func TestLog(t *testing.T) {
	text := "plain\nE! broken\nW! odd\nI! so\nD! detail\r\nX! what\n\n  \nE!\nnul\x00 \x1b[31mred\ttab \xff\nlast"
	m := open(t, logger(text, 1), Options{})
	r, err := m.Call(context.Background(), Call{Name: "check"})
	if err != nil || r.LogCut {
		t.Fatal(err, r.LogCut)
	}
	want := []LogLine{
		{slog.LevelInfo, "plain"},
		{slog.LevelError, "broken"},
		{slog.LevelWarn, "odd"},
		{slog.LevelInfo, "so"},
		{slog.LevelDebug, "detail"},
		{slog.LevelInfo, "X! what"},
		{slog.LevelInfo, "nul [31mred tab \uFFFD"},
		{slog.LevelInfo, "last"},
	}
	if d := cmp.Diff(want, r.Log); d != "" {
		t.Error(d)
	}

	flood := open(t, logger(strings.Repeat("a", 999)+"\n", 1000), Options{})
	for range 2 {
		r, err = flood.Call(context.Background(), Call{Name: "check"})
		if err != nil || !r.LogCut || len(r.Log) != 66 {
			t.Errorf("%d lines, cut %v, %v", len(r.Log), r.LogCut, err)
		}
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("E! a\nb\x00\xff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range lines(b) {
			if l.Text == "" || strings.ContainsAny(l.Text, "\n\x00\r\x1b") || l.Text != clean([]byte(l.Text)) {
				t.Errorf("line %q", l.Text)
			}
		}
	})
}

func TestExit(t *testing.T) {
	for _, entry := range []string{"check", "_start"} {
		for code, want := range []string{"<nil>", "the plugin exited with status 1"} {
			g := &guest{}
			exit := g.importFunc(wasiModule, "proc_exit", sig(1), "")
			say := g.sayer(g.wasi("fd_write", sig(4)))
			g.fn(entry, 0, konst(5), call(say), konst(code), call(exit))
			r, err := open(t, g.bytes(), Options{}).Call(context.Background(), Call{Name: "check"})
			if fmt.Sprint(err) != want || string(r.Response) != "5" {
				t.Errorf("%s: %q, %v, want %s", entry, r.Response, err, want)
			}
		}
	}
}

func TestFaultsOfStarting(t *testing.T) {
	initialize := func(code ...any) []byte {
		return plain(func(g *guest) { g.fn("_initialize", 0, code...) })
	}
	for want, module := range map[string][]byte{
		"_initialize: the plugin crashed: unreachable":             initialize(0x00),
		`"fd_fly" is not exported in module "wasi_snapshot_pre`:    func() []byte { g := &guest{}; g.wasi("fd_fly", ""); g.fn("_start", 0); return g.bytes() }(),
		"compile the module: invalid function[2]":                  initialize(0x1a),
		"instantiate the module: data[0]: out of bounds memory ac": plain(func(g *guest) { g.data(0, 1<<20, "x") }),
	} {
		if m, err := New(context.Background(), module, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
			if m != nil {
				m.Close(context.Background())
			}
		}
	}
}

// _initialize may grow the memory and set globals: clones have what it did.
func TestClonesAreAsInitializeLeftThem(t *testing.T) {
	g, say := printer()
	i := g.global(tI32, 1, konst(0))
	g.memory = cat(0, 1)
	g.fn("_initialize", 0, konst(3), 0x40, 0, drop, store(3*pageSize+8, konst(6)), konst(7), globalSet(i))
	// A call says what it finds, spoils it, and grows the memory, so that the next one gets a clone.
	g.fn("check", 0, 0x3f, 0, call(say), load8(3*pageSize+8), call(say), globalGet(i), call(say),
		store(3*pageSize+8, konst(1)), konst(1), globalSet(i), konst(1), 0x40, 0, drop)
	m := open(t, g.bytes(), Options{Instances: 3})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 200 {
				if r, err := m.Call(context.Background(), Call{Name: "check"}); err != nil || string(r.Response) != "467" {
					t.Errorf("%q, %v", r.Response, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// sleeper sleeps for a number of seconds.
func sleeper(seconds int) []byte {
	g := &guest{}
	poll := g.wasi("poll_oneoff", sig(4))
	clock := g.wasi("clock_time_get", "\x7f\x7e\x7f")
	say := g.sayer(g.wasi("fd_write", sig(4)))
	now := func(at int) []byte { return cat(konst(1), konst64(0), konst(at), call(clock), drop) }
	ns := binaryTime(time.Duration(seconds) * time.Second)
	g.data(0, 100+24, ns)
	g.fn("check", 0, now(600), konst(100), konst(300), konst(1), konst(400), call(poll), drop, now(608),
		// whole tenths of seconds that went by
		konst(608), 0x29, 3, 0, konst(600), 0x29, 3, 0, 0x7d, 0x42, 0x80, 0xc2, 0xd7, 0x2f, 0x7f, 0xa7, call(say))
	return g.bytes()
}

func binaryTime(d time.Duration) string {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(d >> (8 * i))
	}
	return string(b)
}

func TestSleepIsRealAndEndsAtTheDeadline(t *testing.T) {
	m := open(t, sleeper(3600), Options{})
	r, err := m.Call(context.Background(), Call{Name: "check", Deadline: time.Now().Add(250 * time.Millisecond)})
	if err != nil || r.Response[0] < '1' || r.Response[0] > '9' {
		t.Errorf("it slept for %q tenths of a second, %v", r.Response, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if r, err := m.Call(ctx, Call{Name: "check"}); err != nil || len(r.Response) != 1 {
		t.Errorf("ended by the context: %q, %v", r.Response, err)
	}
	if r, err := m.Call(context.Background(), Call{Name: "check", Deadline: time.Now().Add(-time.Hour)}); err != nil || string(r.Response) != "0" {
		t.Errorf("after the deadline: %q, %v", r.Response, err)
	}
}

func TestWaitingForAnInstance(t *testing.T) {
	m := open(t, sleeper(3600), Options{Instances: 1})
	long, end := context.WithCancel(context.Background())
	started := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		close(started)
		if _, err := m.Call(long, Call{Name: "check"}); err != nil {
			t.Error(err)
		}
	})
	<-started
	for len(m.slots) == 0 {
		runtime.Gosched()
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.Call(short, Call{Name: "check"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := m.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if _, err := m.Call(context.Background(), Call{Name: "check"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	end()
	wg.Wait()
	if err := m.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// Randomness and clocks are real: two calls differ.
func TestRandom(t *testing.T) {
	g := &guest{}
	random := g.wasi("random_get", sig(2))
	write := g.wasi("fd_write", sig(4))
	g.fn("check", 0, konst(64), konst(16), call(random), drop, store(0, konst(64)), store(4, konst(16)),
		konst(1), konst(0), konst(1), konst(8), call(write), drop)
	m := open(t, g.bytes(), Options{})
	seen := map[string]bool{}
	for range 10 {
		r, err := m.Call(context.Background(), Call{Name: "check"})
		if err != nil || len(r.Response) != 16 {
			t.Fatal(r, err)
		}
		seen[string(r.Response)] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d different answers", len(seen))
	}
}

func TestTooManyOpenFiles(t *testing.T) {
	g := &guest{}
	opens := g.wasi("path_open", "\x7f\x7f\x7f\x7f\x7f\x7e\x7e\x7f\x7f")
	say := g.sayer(g.wasi("fd_write", sig(4)))
	g.data(0, 100, "x")
	var code []any
	for range maxOpen + 1 {
		code = append(code, konst(3), konst(0), konst(100), konst(1), konst(0), konst64(2), konst64(2), konst(0), konst(16), call(opens), call(say))
	}
	g.fn("check", 0, code...)
	m := open(t, g.bytes(), Options{})
	for range 3 {
		r, err := m.Call(context.Background(), Call{Name: "check", FS: fileFS{}})
		if want := strings.Repeat("0", maxOpen) + string(rune('0'+6)); err != nil || string(r.Response) != want { // 6 is EAGAIN
			t.Errorf("%q, %v, want %q", r.Response, err, want)
		}
	}
	r, err := m.Call(context.Background(), Call{Name: "check"})
	if want := strings.Repeat("2", maxOpen+1); err != nil || string(r.Response) != want { // 2 is EACCES
		t.Errorf("without a file system: %q, %v", r.Response, err)
	}
}

func TestTableBomb(t *testing.T) {
	g, say := printer()
	g.tables = append(g.tables, cat(tFunc, 0, 1))
	g.fn("check", 0, 0xd0, tFunc, konst(maxTableEntries-1), 0xfc, 15, 0, call(say),
		0xd0, tFunc, konst(1), 0xfc, 15, 0, konst(2), 0x6a, call(say))
	r, err := open(t, g.bytes(), Options{}).Call(context.Background(), Call{Name: "check"})
	if err != nil || string(r.Response) != "11" { // from 1 entry, and -1
		t.Errorf("%q, %v", r.Response, err)
	}
}

func TestCacheOfCompiledCode(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		m := open(t, echo("check"), Options{Cache: dir})
		if r, err := m.Call(context.Background(), Call{Name: "check", Request: []byte("hi")}); err != nil || string(r.Response) != "hi" {
			t.Errorf("%q, %v", r.Response, err)
		}
	}
	if _, err := New(context.Background(), echo("check"), Options{Cache: "/dev/null/x"}); err == nil {
		t.Error("a cache that cannot be")
	}
}

func TestGoGuest(t *testing.T) {
	m := open(t, goGuest(t, "goguest"), Options{Instances: 2, Limits: Limits{Memory: 64 << 20}})
	t.Logf("%+v", m.Info())
	if len(m.Info().Fresh) > 0 {
		t.Errorf("Go code needs fresh instances: %v", m.Info().Fresh)
	}
	ask := func(req string) (map[string]any, Reply, error) {
		r, err := m.Call(context.Background(), Call{Name: "check", Request: []byte(req), FS: fileFS{}, Deadline: time.Now().Add(5 * time.Second)})
		var a map[string]any
		if err == nil {
			err = json.Unmarshal(r.Response, &a)
		}
		return a, r, err
	}
	first := map[string]any{"calls": 1.0, "seen": 1.0, "target": "x"}
	t.Run("clean", func(t *testing.T) {
		underPressure(func() {
			var wg sync.WaitGroup
			for w := range 2 {
				wg.Go(func() {
					for n := range 1000 {
						req := `{"target":"x"}`
						switch {
						case n%100 == w:
							req = `{"target":"x","panic":true}`
						case n%50 == w:
							req = `{"target":"x","grow":8000000}`
						case n%75 == w:
							req = `{"target":"x","exit":0}`
						}
						a, r, err := ask(req)
						var trap *TrapError
						if n%100 == w {
							if !errors.As(err, &trap) || len(r.Log) < 2 || r.Log[1].Text != "panic: as asked" {
								t.Errorf("a panic is %v, %q", err, r.Log)
							}
						} else if d := cmp.Diff(first, a); err != nil || d != "" {
							t.Errorf("call %d: %v\n%s", n, err, d)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	})
	t.Run("log", func(t *testing.T) {
		_, r, err := ask(`{"target":"x"}`)
		if d := cmp.Diff([]LogLine{{slog.LevelWarn, "careful"}}, r.Log); err != nil || d != "" {
			t.Error(err, d)
		}
	})
	t.Run("sleep", func(t *testing.T) {
		if a, _, err := ask(`{"target":"x","sleep_ms":30}`); err != nil || a["slept"] != true {
			t.Error(a, err)
		}
	})
	t.Run("files", func(t *testing.T) {
		if a, _, err := ask(`{"target":"x","open":"/net/tcp/example.com:80"}`); err != nil || a["read"] != "tcp/example.com:80" {
			t.Error(a, err)
		}
		for _, path := range []string{"/etc/passwd", "/net/../etc/passwd", "/"} {
			if a, _, err := ask(fmt.Sprintf(`{"target":"x","open":%q}`, path)); err != nil || a["open"] == nil || a["open"] == "" {
				t.Errorf("%s: %v, %v", path, a, err)
			}
		}
	})
	t.Run("exit", func(t *testing.T) {
		var failed *ExitError
		if _, r, err := ask(`{"target":"x","exit":3}`); !errors.As(err, &failed) || failed.Code != 3 || len(r.Response) == 0 {
			t.Error(r, err)
		}
	})
}
