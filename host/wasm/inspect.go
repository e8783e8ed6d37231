package wasm

import (
	"fmt"
	"slices"
	"strings"
)

// The static limits. The first five are part of the contract with authors; the others only keep what the runtime
// allocates for each entry in proportion, and honest modules stay far below them as well.
const (
	maxModule       = 32 << 20
	maxBody         = 256 << 10
	maxLocals       = 1_000
	maxTableEntries = 100_000
	pageSize        = 64 << 10

	maxTables    = 64
	maxGlobals   = 10_000
	maxImports   = 1_000
	maxExports   = 100_000
	maxTypes     = 100_000
	maxFunctions = 500_000
	maxSegments  = 100_000
)

// DefaultMemory is the limit on the linear memory of an instance, in bytes, where none is given.
const DefaultMemory = 32 << 20

// wasiModule is the only module that guests may import from, besides the script engine.
const wasiModule = "wasi_snapshot_preview1"

// Limits is what a module is held against. The zero value is that of a plugin whose manifest says nothing.
type Limits struct {
	// Memory is the most linear memory an instance may have, in bytes. Zero is DefaultMemory; it is rounded down to
	// pages of 64 KiB, and 4 GiB is the most there is.
	Memory int64
	// Script allows what the bundled script engine has and plugins have not: the imports env.host_*, and that it exports
	// no call.
	Script bool
}

func (l Limits) pages() uint32 {
	if l.Memory <= 0 {
		l.Memory = DefaultMemory
	}
	return uint32(min(l.Memory/pageSize, 1<<16))
}

// Info is what Inspect found in a module.
type Info struct {
	// Command is true of a module that exports _start and runs once per call. The others are reactors.
	Command bool
	// Calls are the calls a reactor exports, sorted: "check", "notify" or both. It is empty for a command, which
	// learns from its argument which call it is.
	Calls []string
	// Memory is the size that linear memory starts with, in bytes.
	Memory int64
	// Functions, Body and Locals are the number of functions of the module, the bytes of the largest body and the
	// most locals, parameters included.
	Functions, Body, Locals int
	// Tables is the number of entries that its tables start with.
	Tables int
	// Globals is the number of mutable globals.
	Globals int
	// Fresh says why every call needs a fresh instance: it names the instructions and types that keep state where a
	// reset does not reach. It is empty when resetting is enough.
	Fresh []string
}

// RefusedError says which rule a module breaks and where.
type RefusedError struct {
	// Rule is one of format, size, function-size, locals, table-entries, count, memory, start, imports, exports.
	Rule string
	// Where is the function, segment or section.
	Where string
	// Reason is a sentence part for people.
	Reason string
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("module refused: %s: %s (rule %s)", e.Where, e.Reason, e.Rule)
}

func refused(rule, where, format string, a ...any) error {
	return &RefusedError{Rule: rule, Where: where, Reason: fmt.Sprintf(format, a...)}
}

// Inspect holds a module against the static limits, without compiling or running any of it. The error is a
// *RefusedError. It does not validate the code: compiling does. It never panics, and its work and memory are bounded by
// the module's size. It may be called by many goroutines at once.
func Inspect(module []byte, limits Limits) (Info, error) {
	l, err := parse(module)
	if err != nil {
		return Info{}, err
	}
	return l.info(limits)
}

func (l *layout) info(limits Limits) (Info, error) {
	if len(l.funcs) > 0 && l.bodies == 0 {
		return Info{}, refused("format", "code section", "%d functions have no body", len(l.funcs))
	}
	i := Info{Functions: len(l.funcs), Body: l.bodies, Locals: l.locals, Fresh: slices.Clone(l.stateful)}
	if err := l.checkImports(limits); err != nil {
		return Info{}, err
	}
	if err := l.checkSizes(limits, &i); err != nil {
		return Info{}, err
	}
	for _, g := range l.globals {
		if !g.mutable {
			continue
		}
		i.Globals++
		if !g.numeric() && !slices.Contains(i.Fresh, "mutable v128 or reference global") {
			i.Fresh = append(i.Fresh, "mutable v128 or reference global")
		}
	}
	return i, l.checkExports(limits, &i)
}

func (l *layout) checkImports(limits Limits) error {
	for _, f := range l.imports {
		ok := f.module == wasiModule || limits.Script && f.module == "env" && strings.HasPrefix(f.name, "host_")
		if !ok {
			return refused("imports", "import section", "it imports %q.%q; only %s is there", f.module, f.name, wasiModule)
		}
		if uint64(f.typ) >= uint64(len(l.types)) {
			return refused("format", "import section", "type %d does not exist", f.typ)
		}
	}
	return nil
}

func (l *layout) checkSizes(limits Limits, i *Info) error {
	var total uint64
	for n, t := range l.tables {
		total += uint64(t.min)
		if total > maxTableEntries {
			return refused("table-entries", fmt.Sprintf("table %d", n), "%d entries in all, at most %d", total, maxTableEntries)
		}
		if t.capped && t.max < t.min {
			return refused("format", fmt.Sprintf("table %d", n), "its maximum is below its minimum")
		}
	}
	i.Tables = int(total)
	if len(l.memories) != 1 {
		return refused("memory", "memory section", "%d memories, exactly 1 is wanted", len(l.memories))
	}
	m := l.memories[0]
	i.Memory = int64(m.min) * pageSize
	if m.min > limits.pages() {
		return refused("memory", "memory section", "it starts with %d bytes of memory, its limit is %d", i.Memory, int64(limits.pages())*pageSize)
	}
	if m.capped && m.max < m.min || m.max > 1<<16 {
		return refused("format", "memory section", "its maximum is below its minimum or above 4 GiB")
	}
	return nil
}

func (l *layout) checkExports(limits Limits, i *Info) error {
	seen := map[string]bool{}
	for _, e := range l.exports {
		if seen[e.name] {
			return refused("format", "export section", "%q is exported twice", e.name)
		}
		seen[e.name] = true
		entry := e.name == "_start" || e.name == "_initialize" || e.name == "check" || e.name == "notify"
		if !entry {
			continue
		}
		if e.kind != externFunc {
			return refused("exports", "export section", "%q is not a function", e.name)
		}
		t, ok := l.typeOf(e.index)
		if !ok {
			return refused("format", "export section", "%q is function %d, which does not exist", e.name, e.index)
		}
		if t != (funcType{}) {
			return refused("exports", "export section", "%q has parameters or results; it must have neither", e.name)
		}
	}
	i.Command = seen["_start"]
	for _, call := range []string{"check", "notify"} {
		if seen[call] {
			i.Calls = append(i.Calls, call)
		}
	}
	switch {
	case i.Command: // a program of Go that is no reactor exports the calls too, which work only while its main waits
		i.Calls = nil
	case !i.Command && len(i.Calls) == 0 && !limits.Script:
		return refused("exports", "export section", "it exports neither _start nor check nor notify")
	}
	return nil
}

func (l *layout) typeOf(fn uint32) (funcType, bool) {
	var t uint32
	switch n := uint64(len(l.imports)); {
	case uint64(fn) < n:
		t = l.imports[fn].typ
	case uint64(fn) < n+uint64(len(l.funcs)):
		t = l.funcs[uint64(fn)-n]
	default:
		return funcType{}, false
	}
	if uint64(t) >= uint64(len(l.types)) {
		return funcType{}, false
	}
	return l.types[t], true
}
