package wasm

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"testing"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// fileFS has any file, with its own path for content.
type fileFS struct{ esys.UnimplementedFS }

func (fileFS) OpenFile(path string, _ esys.Oflag, _ fs.FileMode) (esys.File, esys.Errno) {
	return &pathFile{left: path}, 0
}

func (fileFS) Stat(string) (sys.Stat_t, esys.Errno) { return sys.Stat_t{Mode: 0o600}, 0 }

type pathFile struct {
	esys.UnimplementedFile
	left string
}

func (f *pathFile) IsDir() (bool, esys.Errno)      { return false, 0 }
func (f *pathFile) Stat() (sys.Stat_t, esys.Errno) { return sys.Stat_t{Mode: 0o600}, 0 }
func (f *pathFile) Close() esys.Errno              { return 0 }
func (f *pathFile) Read(p []byte) (int, esys.Errno) {
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, 0
}

func open(t testing.TB, module []byte, o Options) *Module {
	t.Helper()
	m, err := New(context.Background(), module, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// rememberer is a guest that says what it found and then changes it.
type rememberer struct {
	name  string
	build func() []byte
	want  string // what it says in every call
	fresh string // part of the reason why it needs a fresh instance; empty when it does not
	fails bool   // every call ends in an error
}

func rememberers() []rememberer {
	simple := func(code func(g *guest, say int) []any) func() []byte {
		return func() []byte {
			g, say := printer()
			g.fn("check", 1, code(g, say)...)
			return g.bytes()
		}
	}
	// with gives a guest with one more function of WASI.
	with := func(name, params string, code func(g *guest, fn, say int) []any) func() []byte {
		return func() []byte {
			g := &guest{}
			fn := g.wasi(name, params)
			say := g.sayer(g.wasi("fd_write", sig(4)))
			g.fn("check", 1, code(g, fn, say)...)
			return g.bytes()
		}
	}
	table := func(g *guest, limits ...any) {
		g.tables = append(g.tables, cat(append([]any{tFunc}, limits...)...))
	}
	elem := func(g *guest) { // a passive segment with function 0
		g.elems = append(g.elems, cat(1, 0, 1, 0))
	}
	const open4 = "\x7f\x7f\x7f\x7f\x7f\x7e\x7e\x7f\x7f"
	pathOpen := func(fn, path, n int) []byte {
		return cat(konst(3), konst(0), konst(path), konst(n), konst(0), konst64(2), konst64(2), konst(0), konst(16), call(fn))
	}
	return []rememberer{
		{name: "memory", want: "0", build: simple(func(_ *guest, say int) []any {
			return []any{load8(1000), call(say), store(1000, add(load8(1000), konst(1)))}
		})},
		{name: "all of memory", want: "0", build: simple(func(_ *guest, say int) []any {
			return []any{load8(65000), call(say), konst(64), konst(7), konst(65400), 0xfc, 11, 0}
		})},
		{name: "data segment", want: "5", build: func() []byte {
			g, say := printer()
			g.data(0, 2000, "\x05")
			g.fn("check", 0, load8(2000), call(say), store(2000, konst(9)))
			return g.bytes()
		}},
		{name: "private i32 global", want: "3", build: simple(func(g *guest, say int) []any {
			i := g.global(tI32, 1, konst(3))
			return []any{globalGet(i), call(say), globalSetTo(i, add(globalGet(i), konst(1)))}
		})},
		{name: "private i64 global", want: "3", build: simple(func(g *guest, say int) []any {
			i := g.global(tI64, 1, konst64(3))
			return []any{globalGet(i), 0xa7, call(say), globalSetTo(i, cat(globalGet(i), konst64(1), 0x7c))}
		})},
		{name: "private f32 global", want: "3", build: simple(func(g *guest, say int) []any {
			i := g.global(tF32, 1, konstF32(3))
			return []any{globalGet(i), 0xa8, call(say), globalSetTo(i, cat(globalGet(i), konstF32(1), 0x92))}
		})},
		{name: "private f64 global", want: "3", build: simple(func(g *guest, say int) []any {
			i := g.global(tF64, 1, konstF64(3))
			return []any{globalGet(i), 0xaa, call(say), globalSetTo(i, cat(globalGet(i), konstF64(1), 0xa0))}
		})},
		{name: "v128 global", want: "3", fresh: "v128", build: simple(func(g *guest, say int) []any {
			i := g.global(tV128, 1, konstV128(3))
			return []any{globalGet(i), 0xfd, 0x1b, 0, call(say), konstV128(4), globalSet(i)}
		})},
		{name: "reference global", want: "1", fresh: "reference", build: simple(func(g *guest, say int) []any {
			i := g.global(tFunc, 1, cat(0xd0, tFunc))
			elem(g)
			return []any{globalGet(i), 0xd1, call(say), 0xd2, 0, globalSet(i)}
		})},
		{name: "table.set", want: "1", fresh: "table.set", build: simple(func(g *guest, say int) []any {
			table(g, 0, 2)
			elem(g)
			return []any{konst(0), 0x25, 0, 0xd1, call(say), konst(0), 0xd2, 0, 0x26, 0}
		})},
		{name: "table.grow", want: "2", fresh: "table.grow", build: simple(func(g *guest, say int) []any {
			table(g, 0, 2)
			return []any{0xfc, 16, 0, call(say), 0xd0, tFunc, konst(1), 0xfc, 15, 0, drop}
		})},
		{name: "table.fill", want: "1", fresh: "table.fill", build: simple(func(g *guest, say int) []any {
			table(g, 0, 2)
			elem(g)
			return []any{konst(1), 0x25, 0, 0xd1, call(say), konst(0), 0xd2, 0, konst(2), 0xfc, 17, 0}
		})},
		{name: "table.copy", want: "1", fresh: "table.copy", build: simple(func(g *guest, say int) []any {
			table(g, 0, 2)
			g.elems = append(g.elems, cat(0, konst(1), 0x0b, 1, 0)) // active at 1
			return []any{konst(0), 0x25, 0, 0xd1, call(say), konst(0), konst(1), konst(1), 0xfc, 14, 0, 0}
		})},
		{name: "elem.drop", want: "1", fresh: "elem.drop", build: simple(func(g *guest, say int) []any {
			table(g, 0, 2)
			elem(g)
			return []any{konst(0), konst(0), konst(1), 0xfc, 12, 0, 0, konst(1), call(say), 0xfc, 13, 0}
		})},
		{name: "data.drop", want: "7", fresh: "data.drop", build: func() []byte {
			g, say := printer()
			g.dataCount = true
			g.data(1, 0, "\x07")
			g.fn("check", 0, konst(900), konst(0), konst(1), 0xfc, 8, 0, 0, load8(900), call(say), 0xfc, 9, 0)
			return g.bytes()
		}},
		{name: "memory.grow", want: "1", build: simple(func(_ *guest, say int) []any {
			return []any{0x3f, 0, call(say), konst(1), 0x40, 0, drop}
		})},
		{name: "trap", want: "0", fails: true, build: simple(func(_ *guest, say int) []any {
			return []any{load8(1000), call(say), store(1000, konst(1)), 0x00}
		})},
		{name: "proc_exit", want: "0", build: func() []byte {
			g := &guest{}
			exit := g.importFunc(wasiModule, "proc_exit", sig(1), "")
			say := g.sayer(g.wasi("fd_write", sig(4)))
			g.fn("check", 0, load8(1000), call(say), store(1000, konst(1)), konst(0), call(exit))
			return g.bytes()
		}},
		{name: "fd_close of stdout", want: "8", build: with("fd_close", sig(1), func(_ *guest, fn, say int) []any {
			return []any{konst(1), call(fn), call(say)}
		})},
		{name: "fd_close of stdin, stderr and the directory", want: "888", build: with("fd_close", sig(1), func(_ *guest, fn, say int) []any {
			return []any{konst(0), call(fn), call(say), konst(2), call(fn), call(say), konst(3), call(fn), call(say)}
		})},
		{name: "fd_fdstat_set_flags", want: "8888", build: with("fd_fdstat_set_flags", sig(2), func(_ *guest, fn, say int) []any {
			var code []any
			for fd := range 4 {
				code = append(code, konst(fd), konst(4), call(fn), call(say))
			}
			return code
		})},
		{name: "fd_readdir of the directory", want: "8", build: with("fd_readdir", "\x7f\x7f\x7f\x7e\x7f", func(_ *guest, fn, say int) []any {
			return []any{konst(3), konst(64), konst(512), konst64(2), konst(16), call(fn), call(say)}
		})},
		{name: "fd_renumber", want: "0888", build: func() []byte {
			g := &guest{}
			opens := g.wasi("path_open", open4)
			fn := g.wasi("fd_renumber", sig(2))
			say := g.sayer(g.wasi("fd_write", sig(4)))
			g.data(0, 100, "x")
			g.fn("check", 0, pathOpen(opens, 100, 1), call(say), konst(4), konst(1), call(fn), call(say),
				konst(0), konst(4), call(fn), call(say), konst(4), konst(1<<30), call(fn), call(say))
			return g.bytes()
		}},
		{name: "descriptor", want: "04", build: with("path_open", open4, func(g *guest, fn, say int) []any {
			g.data(0, 100, "x")
			return []any{pathOpen(fn, 100, 1), call(say), load32(16), call(say)}
		})},
		{name: "descriptor of the directory", want: "22", build: with("path_open", open4, func(g *guest, fn, say int) []any {
			g.data(0, 100, "./")
			return []any{pathOpen(fn, 100, 1), call(say), pathOpen(fn, 100, 2), call(say)}
		})},
	}
}

func globalSetTo(i int, v []byte) []byte { return cat(v, globalSet(i)) }

// Two instances, 2,000 calls, and a collector that never rests: every call finds what the first one found.
func TestEveryCallIsTheFirst(t *testing.T) {
	for _, r := range rememberers() {
		t.Run(r.name, func(t *testing.T) {
			m := open(t, r.build(), Options{Instances: 2})
			if got := strings.Join(m.Info().Fresh, ", "); r.fresh == "" && got != "" || !strings.Contains(got, r.fresh) {
				t.Fatalf("needs fresh instances for %q, want %q", got, r.fresh)
			}
			underPressure(func() {
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for n := range 1000 {
							a, err := m.Call(context.Background(), Call{Name: "check", FS: fileFS{}})
							if (err != nil) != r.fails || string(a.Response) != r.want {
								t.Errorf("call %d says %q and %v, want %q", n, a.Response, err, r.want)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

func underPressure(f func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			keep = append(keep, make([]byte, 1<<16))
			if len(keep) > 64 {
				keep = nil
				runtime.GC()
			}
		}
	}()
	f()
	close(stop)
	<-done
}

// Without the reset the guests of the corpus do remember: the test above can fail.
func TestCorpusRemembersWithoutReset(t *testing.T) {
	remembers := 0
	for _, r := range rememberers() {
		m := open(t, r.build(), Options{})
		i, err := m.start(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			if i.mod.IsClosed() { // by proc_exit: there is nothing to remember with
				break
			}
			a, _, err := i.serve(context.Background(), "check", Call{Name: "check", FS: fileFS{}})
			if n == 1 && (string(a.Response) != r.want || (err != nil) != r.fails) {
				remembers++
			}
		}
		i.close(context.Background())
	}
	// The rest are those whose way to remember is refused or taken away outside of the reset.
	if want := len(rememberers()) - 7; remembers < want {
		t.Errorf("%d guests remember, want %d", remembers, want)
	}
}

func TestTraps(t *testing.T) {
	for want, code := range map[string][]byte{
		"unreachable":                 {0x00},
		"stack overflow":              call(2), // itself
		"integer divide by zero":      cat(konst(1), konst(0), 0x6d, drop),
		"out of bounds memory access": store(1<<30, konst(1)),
	} {
		g, _ := printer()
		g.fn("check", 0, code)
		m := open(t, g.bytes(), Options{})
		for range 3 {
			_, err := m.Call(context.Background(), Call{Name: "check"})
			var trap *TrapError
			if !errors.As(err, &trap) || trap.Reason != want {
				t.Errorf("error %v, want %s", err, want)
			}
		}
	}
}
