package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	wasi "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"pgregory.net/rapid"
)

func plain(change func(g *guest)) []byte {
	g, say := printer()
	g.fn("check", 0, konst(1), call(say))
	change(g)
	return g.bytes()
}

func nops(n int) []byte { return bytes.Repeat([]byte{0x01}, n) }

func TestInspect(t *testing.T) {
	got, err := Inspect(plain(func(g *guest) {
		g.export("notify", externFunc, 2)
		g.tables = append(g.tables, cat(tFunc, 0, u(300)))
		g.global(tI32, 1, konst(0))
		g.global(tI32, 0, konst(0))
		g.fn("", 7, nops(100))
	}), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Calls: []string{"check", "notify"}, Memory: pageSize, Functions: 3, Body: 104, Locals: 7, Tables: 300, Globals: 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if i, err := Inspect(echo("_start"), Limits{}); err != nil || !i.Command || i.Calls != nil {
		t.Errorf("a command is %+v, %v", i, err)
	}
}

func TestInspectRefuses(t *testing.T) {
	huge := bytes.Repeat([]byte{1}, maxModule)
	for _, c := range []struct {
		name   string
		module []byte
		limits Limits
		want   string // the error without what all have
	}{
		{name: "nothing", module: nil, want: "module: it is not a WebAssembly module of version 1 (rule format)"},
		{name: "text", module: []byte("(module)"), want: "module: it is not a WebAssembly module of version 1 (rule format)"},
		{
			name: "component", module: []byte("\x00asm\x0d\x00\x01\x00"),
			want: "module: it is not a WebAssembly module of version 1 (rule format)",
		},
		{name: "size", module: append(echo("check"), huge...), want: fmt.Sprintf("module: %d bytes, at most 33554432 (rule size)", len(echo("check"))+maxModule)},
		{name: "cut", module: echo("check")[:60], want: "import section: it ends too early (rule format)"},
		{
			name: "body", module: plain(func(g *guest) { g.fn("", 0, nops(maxBody)) }),
			want: "function 3: a body of 262148 bytes, at most 262144 (rule function-size)",
		},
		{
			name: "locals", module: plain(func(g *guest) { g.fn("", 1001) }),
			want: "function 3: 1001 locals and parameters, at most 1000 (rule locals)",
		},
		{
			name: "many locals", module: plain(func(g *guest) { g.body("", cat(u(2), u(1<<31), tI32, u(1<<31), tI64)) }),
			want: "function 3: 4294967296 locals and parameters, at most 1000 (rule locals)",
		},
		{
			name: "parameters", module: plain(func(g *guest) { g.typ(sig(1001), "") }),
			want: "type 3: 1001 parameters or results, at most 1000 (rule locals)",
		},
		{
			name: "tables", module: plain(func(g *guest) {
				g.tables = append(g.tables, cat(tFunc, 0, u(60_000)), cat(tFunc, 0, u(40_001)))
			}),
			want: "table 1: 100001 entries in all, at most 100000 (rule table-entries)",
		},
		{
			name: "elements", module: plain(func(g *guest) {
				g.elems = append(g.elems, cat(1, 0, u(60_000), make([]byte, 60_000)), cat(1, 0, u(40_001), make([]byte, 40_001)))
			}),
			want: "element segment 1: more than 100000 entries (rule table-entries)",
		},
		{
			name: "elements that are not there", module: plain(func(g *guest) { g.elems = append(g.elems, cat(1, 0, u(1<<31))) }),
			want: "element section: it ends too early (rule format)",
		},
		{
			name: "globals", module: plain(func(g *guest) {
				for range maxGlobals + 1 {
					g.global(tI32, 1, konst(0))
				}
			}), want: "global section: 10001 entries, at most 10000 (rule count)",
		},
		{name: "no memory", module: plain(func(g *guest) { g.noMemory = true }), want: "memory section: 0 memories, exactly 1 is wanted (rule memory)"},
		{
			name: "two memories", module: bytes.Replace(plain(func(*guest) {}), []byte{secMemory, 3, 1, 0, 1}, []byte{secMemory, 5, 2, 0, 1, 0, 1}, 1),
			want: "memory section: 2 entries, at most 1 (rule count)",
		},
		{
			name: "memory", module: plain(func(g *guest) { g.memory = cat(0, 17) }), limits: Limits{Memory: 1 << 20},
			want: "memory section: it starts with 1114112 bytes of memory, its limit is 1048576 (rule memory)",
		},
		{
			name: "memory by default", module: plain(func(g *guest) { g.memory = cat(0, u(513)) }),
			want: "memory section: it starts with 33619968 bytes of memory, its limit is 33554432 (rule memory)",
		},
		{
			name: "shared memory", module: plain(func(g *guest) { g.memory = cat(3, 1, 1) }),
			want: "memory section: a limit is of a form that is not known (rule format)",
		},
		{
			name: "start", module: plain(func(g *guest) { g.start = u(2) }),
			want: "start section: a module must not have one: export _initialize instead (rule start)",
		},
		{
			name: "import", module: plain(func(g *guest) { g.importFunc("env", "host_open", "", "") }),
			want: `import section: it imports "env"."host_open"; only wasi_snapshot_preview1 is there (rule imports)`,
		},
		{
			name: "import of a script", module: plain(func(g *guest) { g.importFunc("env", "system", "", "") }), limits: Limits{Script: true},
			want: `import section: it imports "env"."system"; only wasi_snapshot_preview1 is there (rule imports)`,
		},
		{
			name: "imported memory", module: plain(func(g *guest) { g.imports = append(g.imports, cat(1, "m", 1, "m", externMemory, 0, 1)) }),
			want: `import section: "m"."m" is not a function (rule imports)`,
		},
		{
			name: "no exports", module: plain(func(g *guest) { g.exports = nil }),
			want: "export section: it exports neither _start nor check nor notify (rule exports)",
		},
		{
			name: "type", module: plain(func(g *guest) { g.export("notify", externFunc, 1) }),
			want: `export section: "notify" has parameters or results; it must have neither (rule exports)`,
		},
		{
			name: "kind", module: plain(func(g *guest) { g.export("notify", externMemory, 0) }),
			want: `export section: "notify" is not a function (rule exports)`,
		},
		{
			name: "no such function", module: plain(func(g *guest) { g.export("notify", externFunc, 99) }),
			want: `export section: "notify" is function 99, which does not exist (rule format)`,
		},
		{
			name: "twice", module: plain(func(g *guest) { g.export("check", externFunc, 2) }),
			want: `export section: "check" is exported twice (rule format)`,
		},
		{
			name: "unknown instruction", module: plain(func(g *guest) { g.fn("", 0, 0xfe, 0, 0, 0) }),
			want: "function 3: instruction 0xfe is not known (rule format)",
		},
		{
			name: "hidden behind the end", module: plain(func(g *guest) { g.fn("", 0, 0x0b, 0x26, 0) }),
			want: "function 3: there is code after its end (rule format)",
		},
		{
			name: "nesting", module: plain(func(g *guest) { g.fn("", 0, bytes.Repeat([]byte{0x02, 0x40}, 1000)) }),
			want: "function 3: blocks are nested deeper than 1000 (rule format)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Inspect(c.module, c.limits)
			var r *RefusedError
			if !errors.As(err, &r) {
				t.Fatalf("error %v", err)
			}
			if got := strings.TrimPrefix(err.Error(), "module refused: "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if _, err := New(context.Background(), c.module, Options{Limits: c.limits}); !errors.As(err, &r) {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestInspectAtTheLimit(t *testing.T) {
	for name, module := range map[string][]byte{
		"body":     plain(func(g *guest) { g.fn("", 0, nops(maxBody-4)) }),
		"locals":   plain(func(g *guest) { g.fn("", 1000) }),
		"tables":   plain(func(g *guest) { g.tables = append(g.tables, cat(tFunc, 0, u(100_000))) }),
		"memory":   plain(func(g *guest) { g.memory = cat(0, u(512)) }),
		"no limit": plain(func(g *guest) { g.memory = cat(1, 1, u(1<<16)) }),
	} {
		if _, err := Inspect(module, Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	script := func(g *guest) []byte {
		g.importFunc("env", "host_open", "", "")
		g.fn("run", 0)
		return g.bytes()
	}(&guest{})
	if _, err := Inspect(script, Limits{Script: true}); err != nil {
		t.Error(err)
	}
}

// Every stateful instruction is found in every place that code can be in, and no other is taken for one.
func TestScanFindsStatefulInstructions(t *testing.T) {
	for op, code := range map[string][]byte{
		"table.set": {0x26, 0}, "memory.init": {0xfc, 8, 0, 0}, "data.drop": {0xfc, 9, 0}, "table.init": {0xfc, 12, 0, 0},
		"elem.drop": {0xfc, 13, 0}, "table.copy": {0xfc, 14, 0, 0}, "table.grow": {0xfc, 15, 0}, "table.fill": {0xfc, 17, 0},
		"data.drop, written long": {0xfc, 0x89, 0x00, 0},
	} {
		for _, before := range [][]byte{
			nil, konst(-1), konst64(5), konstF64(1), konstV128(0x26),
			{0x02, 0x40, 0x0b},
			{0x0e, 2, 0x26, 0, 0},
			{0x28, 2, 0x80, 0x80, 0x01},
			{0xfd, 0x80, 0x01},
			{0xfd, 0x0d, 17: 0xfc},
			{0x1c, 1, tI32},
			{0xfd, 0x54, 0, 0, 3},
			{0x11, 0, 0},
			{0xd0, tFunc},
			{0xd2, 0},
			{0xfc, 10, 0, 0},
			{0xfc, 16, 0},
			{0x3f, 0},
		} {
			var found []string
			err := scanCode(&reader{b: cat(before, code, 0x0b)}, func(s string) { found = append(found, s) })
			want, _, _ := strings.Cut(op, ",")
			if err != nil || !slices.Equal(found, []string{want}) {
				t.Errorf("%s after %x: found %v, %v", op, before, found, err)
			}
		}
	}
}

// output runs a module without any of this package's care and gives what it printed and its exported results.
func output(ctx context.Context, module []byte) (string, error) {
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	wasi.MustInstantiate(ctx, rt)
	c, err := rt.CompileModule(ctx, module)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	m, err := rt.InstantiateModule(ctx, c, wazero.NewModuleConfig().WithName("").WithStartFunctions().WithStdout(&out))
	if err != nil {
		return "", err
	}
	for range 3 {
		if _, err := m.ExportedFunction("check").Call(ctx); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// Whatever globals and exports a module has: rewritten, it is valid, prints the same, and every mutable numeric global
// can be read and written from outside.
func TestRewriteKeepsBehaviour(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		g, say := printer()
		type global struct{ index, value int }
		var mutable []global
		var code []any
		for i := range rapid.IntRange(0, 40).Draw(t, "globals") {
			v := rapid.IntRange(0, 60).Draw(t, "value")
			mut := rapid.IntRange(0, 1).Draw(t, "mutable")
			switch rapid.SampledFrom([]byte{tI32, tI64, tF64, tV128, tFunc}).Draw(t, "type") {
			case tI32:
				g.global(tI32, mut, konst(v))
				code = append(code, globalGet(i), call(say))
				if mut == 1 {
					code = append(code, globalSetTo(i, add(globalGet(i), konst(1))))
					mutable = append(mutable, global{i, v})
				}
			case tI64:
				g.global(tI64, mut, konst64(byte(v)))
				if mut == 1 {
					mutable = append(mutable, global{i, v})
				}
			case tF64:
				g.global(tF64, 0, konstF64(float64(v)))
			case tV128:
				g.global(tV128, mut, konstV128(byte(v)))
			case tFunc:
				g.global(tFunc, mut, cat(0xd0, tFunc))
			}
			if rapid.Bool().Draw(t, "exported") {
				g.export(rapid.SampledFrom([]string{"", "tocsin:", "g"}).Draw(t, "prefix")+fmt.Sprint(i), externGlobal, i)
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "tables") {
			low := rapid.IntRange(0, 100).Draw(t, "low")
			g.tables = append(g.tables, rapid.SampledFrom([][]byte{
				cat(tFunc, 0, u(low)), cat(tFunc, 1, u(low), u(low+50)), cat(tFunc, 1, u(low), u(1<<30)),
			}).Draw(t, "limits"))
			code = append(code, 0xfc, 16, len(g.tables)-1, konst(0x7f), 0x71, call(say))
		}
		if rapid.Bool().Draw(t, "custom") {
			g.custom = append(g.custom, cat(4, "name", 1, 4, 1, 1, 1, "f"), cat(6, ".debug", "x"))
		}
		g.fn("check", 0, code...)
		module := g.bytes()
		l, err := parse(module)
		if err != nil {
			t.Fatal(err)
		}
		again, names := l.rewrite()
		if len(names) != len(mutable) {
			t.Fatalf("%d globals exported, want %d", len(names), len(mutable))
		}
		want, err := output(ctx, module)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := output(ctx, again); err != nil || got != want {
			t.Fatalf("rewritten: %q, %v, want %q", got, err, want)
		}
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		defer rt.Close(ctx)
		wasi.MustInstantiate(ctx, rt)
		m, err := rt.Instantiate(ctx, again)
		if err != nil {
			t.Fatal(err)
		}
		for n, name := range names {
			x, ok := m.ExportedGlobal(name).(api.MutableGlobal)
			if !ok || x.Get() != uint64(mutable[n].value) {
				t.Fatalf("export %q is %v, want %d", name, m.ExportedGlobal(name), mutable[n].value)
			}
		}
	})
}

// However the data of a module is cut into segments: joined, memory begins with the same bytes.
func TestRewriteJoinsData(t *testing.T) {
	memory := func(t *rapid.T, module []byte) []byte {
		ctx := context.Background()
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		defer rt.Close(ctx)
		m, err := rt.Instantiate(ctx, module)
		if err != nil {
			if !strings.Contains(err.Error(), "out of bounds") {
				t.Fatal(err)
			}
			return nil
		}
		all, _ := m.Memory().Read(0, m.Memory().Size())
		return slices.Clone(all)
	}
	joined := 0
	rapid.Check(t, func(t *rapid.T) {
		g := &guest{}
		at := rapid.SampledFrom([]int{0, 300}).Draw(t, "from")
		n := rapid.IntRange(0, 12).Draw(t, "segments")
		for range n {
			at += rapid.SampledFrom([]int{0, 0, 1, 7, 40, maxGap, maxGap + 1, 5000, -3, -40, -200}).Draw(t, "gap")
			if rapid.IntRange(0, 40).Draw(t, "elsewhere") == 0 {
				at = rapid.SampledFrom([]int{65530, -1, -65536}).Draw(t, "at")
			}
			text := rapid.StringN(0, 8, 30).Draw(t, "bytes")
			g.data(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(t, "form"), at, text)
			at += len(text)
		}
		g.dataCount = rapid.Bool().Draw(t, "count")
		g.fn("check", 0)
		module := g.bytes()
		l, err := parse(module)
		if err != nil {
			t.Fatal(err)
		}
		_, left := l.mergedData()
		joined += n - int(left)
		again, _ := l.rewrite()
		if want, got := memory(t, module), memory(t, again); !bytes.Equal(got, want) {
			t.Fatalf("joined to %d of %d segments, memory differs", left, n)
		}
	})
	if joined == 0 {
		t.Error("nothing was joined")
	}
}

// What lies between two segments may have been written by one before them.
func TestRewriteKeepsWhatLiesBetween(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	for name, at := range map[string][]int{
		"below and above": {100, 50, 120},
		"over its end":    {100, 102, 20, 110},
		"joined before":   {100, 104, 20, 60, 110},
	} {
		g := &guest{}
		for _, a := range at {
			g.data(0, a, "kept")
		}
		g.fn("check", 0)
		l, err := parse(g.bytes())
		if err != nil {
			t.Fatal(err)
		}
		again, _ := l.rewrite()
		var memory [2]string
		for i, module := range [][]byte{g.bytes(), again} {
			m, err := rt.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatal(err)
			}
			all, _ := m.Memory().Read(0, 200)
			memory[i] = string(all)
		}
		if memory[0] != memory[1] {
			t.Errorf("%s: memory begins as %q, want %q", name, memory[1], memory[0])
		}
	}
}

func TestRewriteCapsTables(t *testing.T) {
	l := &layout{tables: []tableType{
		{ref: 0x70, min: 1000},
		{ref: 0x70, min: 10, max: 10, capped: true},
		{ref: 0x70, min: 0, max: 1 << 31, capped: true},
		{ref: 0x6f, min: 5, max: 7, capped: true},
	}}
	r := &reader{b: l.encodeTables()}
	got := &layout{}
	if err := got.section(secTable, r); err != nil || r.err != nil {
		t.Fatal(err, r.err)
	}
	var total uint32
	for i, x := range got.tables {
		total += x.max
		if !x.capped || x.min != l.tables[i].min || x.max < x.min {
			t.Errorf("table %d is %+v", i, x)
		}
	}
	if total > maxTableEntries || got.tables[0].max < 30_000 || got.tables[1].max != 10 || got.tables[3].max != 7 {
		t.Errorf("tables %+v", got.tables)
	}
}

func corpus() [][]byte {
	all := [][]byte{echo("_start"), echo("check"), plain(func(g *guest) {
		g.custom = append(g.custom, cat(4, "name", 1, 4, 1, 1, 1, "f"))
		g.tables = append(g.tables, cat(tFunc, 1, 1, 9))
		g.elems = append(g.elems, cat(0, konst(0), 0x0b, 1, 0), cat(5, 0x70, 1, 0xd2, 0, 0x0b))
		g.data(0, 100, "hello")
		g.data(1, 0, "passive")
	}), plain(func(g *guest) {
		for _, at := range []int{100, 50, 120, 124} {
			g.data(0, at, "data")
		}
	})}
	for _, r := range rememberers() {
		all = append(all, r.build())
	}
	return all
}

// FuzzInspect: no bytes make Inspect or the rewriting panic, and what the compiler accepted before the rewriting it
// accepts after it, with the same memory to begin with.
func FuzzInspect(f *testing.F) {
	for _, m := range corpus() {
		f.Add(m)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
	f.Cleanup(func() { rt.Close(ctx) })
	wasi.MustInstantiate(ctx, rt)
	compile := func(b []byte) error {
		c, err := rt.CompileModule(ctx, b)
		if err == nil {
			c.Close(ctx)
		}
		return err
	}
	memory := func(b []byte) []byte { // nil when a segment lies outside
		m, err := rt.InstantiateWithConfig(ctx, b, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			return nil
		}
		defer m.Close(ctx)
		all, _ := m.Memory().Read(0, m.Memory().Size())
		return slices.Clone(all)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Inspect(b, Limits{Memory: 1 << 20})
		if err != nil {
			return
		}
		l, err := parse(b)
		if err != nil {
			t.Fatal("parsed once, not twice")
		}
		again, names := l.rewrite()
		if compile(b) != nil {
			return
		}
		if err := compile(again); err != nil {
			t.Fatalf("valid before, not after: %v", err)
		}
		after, err := Inspect(again, Limits{Memory: 1 << 20})
		if err != nil || cmp.Diff(info, after) != "" || len(names) > info.Globals {
			t.Fatalf("after: %+v, %v, before: %+v, %d exports", after, err, info, len(names))
		}
		if !bytes.Equal(memory(b), memory(again)) {
			t.Fatal("memory begins with other bytes after it")
		}
	})
}

// FuzzScan: no bytes make the decoder panic or run past the end, and it agrees with itself about where a body ends.
func FuzzScan(f *testing.F) {
	f.Add(cat(konst(1), drop, 0x0b))
	f.Add(cat(0x02, 0x40, 0x0e, 2, 0, 0, 0, 0x0b, konstV128(3), drop, 0x0b))
	f.Add(cat(0xfc, 8, 0, 0, 0xfc, 14, 0, 0, 0x26, 0, 0x0b))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		if scanCode(&reader{b: b}, func(string) { n++ }) != nil {
			return
		}
		if n > len(b)/2 {
			t.Fatalf("%d instructions in %d bytes", n, len(b))
		}
		if scanCode(&reader{b: append(b[:len(b):len(b)], 0x01)}, func(string) {}) == nil {
			t.Fatal("a longer body is accepted too")
		}
		if scanCode(&reader{b: b[:len(b)-1]}, func(string) {}) == nil {
			t.Fatal("a shorter body is accepted too")
		}
	})
}
