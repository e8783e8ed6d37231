package wasm

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Value types.
const (
	tI32  = 0x7f
	tI64  = 0x7e
	tF32  = 0x7d
	tF64  = 0x7c
	tV128 = 0x7b
	tFunc = 0x70
)

// guest builds a module by hand. Imports must be added before functions.
type guest struct {
	types, imports, funcs, tables, globals, exports, elems, bodies, datas [][]byte
	custom                                                                [][]byte
	memory                                                                []byte
	start                                                                 []byte
	imported                                                              int
	noMemory                                                              bool
	dataCount                                                             bool
}

func u(v int) []byte { return appendU32(nil, uint32(v)) }

func vec(items [][]byte) []byte {
	b := u(len(items))
	for _, i := range items {
		b = append(b, i...)
	}
	return b
}

func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case byte:
			b = append(b, p)
		case []byte:
			b = append(b, p...)
		case string:
			b = append(b, p...)
		}
	}
	return b
}

func (g *guest) typ(params, results string) int {
	g.types = append(g.types, cat(0x60, u(len(params)), params, u(len(results)), results))
	return len(g.types) - 1
}

func sig(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = tI32
	}
	return string(b)
}

// wasi imports a function of WASI with parameters of 32 bits, but for those given as types.
func (g *guest) wasi(name, params string) int {
	return g.importFunc(wasiModule, name, params, sig(1))
}

func (g *guest) importFunc(module, name, params, results string) int {
	t := g.typ(params, results)
	g.imports = append(g.imports, cat(u(len(module)), module, u(len(name)), name, 0, u(t)))
	g.imported++
	return g.imported - 1
}

// fn adds a function without parameters and results; locals are of type i32.
func (g *guest) fn(export string, locals int, code ...any) int {
	return g.body(export, cat(u(1), u(locals), tI32), code...)
}

func (g *guest) body(export string, locals []byte, code ...any) int {
	g.funcs = append(g.funcs, u(g.typ("", "")))
	b := cat(append([]any{locals}, append(code, 0x0b)...)...)
	g.bodies = append(g.bodies, cat(u(len(b)), b))
	i := g.imported + len(g.funcs) - 1
	if export != "" {
		g.export(export, externFunc, i)
	}
	return i
}

func (g *guest) export(name string, kind, index int) {
	g.exports = append(g.exports, cat(u(len(name)), name, kind, u(index)))
}

func (g *guest) global(value byte, mutable int, init []byte) int {
	g.globals = append(g.globals, cat(value, mutable, init, 0x0b))
	return len(g.globals) - 1
}

func (g *guest) data(form int, at int, s string) {
	if form == 0 {
		g.datas = append(g.datas, cat(0, konst(at), 0x0b, u(len(s)), s))
		return
	}
	g.datas = append(g.datas, cat(1, u(len(s)), s))
}

func (g *guest) bytes() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	put := func(id int, body []byte, use bool) {
		if use {
			b = append(b, cat(id, u(len(body)), body)...)
		}
	}
	for _, c := range g.custom {
		put(secCustom, c, true)
	}
	put(secType, vec(g.types), true)
	put(secImport, vec(g.imports), len(g.imports) > 0)
	put(secFunction, vec(g.funcs), true)
	put(secTable, vec(g.tables), len(g.tables) > 0)
	if g.memory == nil {
		g.memory = cat(0, 1)
	}
	put(secMemory, cat(1, g.memory), !g.noMemory)
	put(secGlobal, vec(g.globals), len(g.globals) > 0)
	put(secExport, vec(g.exports), len(g.exports) > 0)
	put(secStart, g.start, g.start != nil)
	put(secElement, vec(g.elems), len(g.elems) > 0)
	put(secDataCount, u(len(g.datas)), g.dataCount)
	put(secCode, vec(g.bodies), true)
	put(secData, vec(g.datas), len(g.datas) > 0)
	return b
}

// Instructions.

func konst(v int) []byte {
	b := []byte{0x41}
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c < 0x40 || v == -1 && c >= 0x40 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func konst64(v byte) []byte { return cat(0x42, v&0x3f) }

func konstF32(v float32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{0x43}, math.Float32bits(v))
}

func konstF64(v float64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{0x44}, math.Float64bits(v))
}

func konstV128(v byte) []byte { return cat(0xfd, 0x0c, v, make([]byte, 15)) }

func call(f int) []byte             { return cat(0x10, u(f)) }
func globalGet(i int) []byte        { return cat(0x23, u(i)) }
func globalSet(i int) []byte        { return cat(0x24, u(i)) }
func load8(at int) []byte           { return cat(konst(at), 0x2d, 0, 0) }
func load32(at int) []byte          { return cat(konst(at), 0x28, 2, 0) }
func store(at int, v []byte) []byte { return cat(konst(at), v, 0x36, 2, 0) }
func add(a, b []byte) []byte        { return cat(a, b, 0x6a) }

const drop = 0x1a

// printer makes a guest with a function that writes the number on the stack to standard output, as a byte from '0' on.
// It uses memory up to 64.
func printer() (g *guest, say int) {
	g = &guest{}
	write := g.wasi("fd_write", sig(4))
	return g, g.sayer(write)
}

func (g *guest) sayer(write int) int {
	g.funcs = append(g.funcs, u(g.typ(sig(1), "")))
	code := cat(0,
		konst(32), 0x20, 0, konst('0'), 0x6a, 0x3a, 0, 0, // i32.store8
		store(0, konst(32)), store(4, konst(1)),
		konst(1), konst(0), konst(1), konst(8), call(write), drop, 0x0b)
	g.bodies = append(g.bodies, cat(u(len(code)), code))
	return g.imported + len(g.funcs) - 1
}

// echo reads standard input until its end and writes it to standard output, as a C program would with read and write.
func echo(entry string) []byte {
	g := &guest{}
	read := g.wasi("fd_read", sig(4))
	write := g.wasi("fd_write", sig(4))
	g.fn(entry, 0,
		0x03, 0x40, // loop
		store(0, konst(1024)), store(4, konst(4096)),
		konst(0), konst(0), konst(1), konst(8), call(read), drop,
		load32(8), 0x45, 0x45, // is anything read?
		0x04, 0x40, // if
		store(4, load32(8)),
		konst(1), konst(0), konst(1), konst(12), call(write), drop,
		0x0c, 1, // br to the loop
		0x0b, 0x0b)
	return g.bytes()
}

// goGuest compiles a guest of testdata to Wasm.
func goGuest(t testing.TB, name string) []byte {
	t.Helper()
	// Reading the source makes the cache of test results depend on it.
	if _, err := os.ReadFile(filepath.Join("testdata", name, "main.go")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), name+".wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, "./testdata/"+name)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
