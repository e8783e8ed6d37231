package wasm

import (
	"errors"
	"fmt"
)

// Section numbers of the binary format.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
)

func sectionName(id byte) string {
	names := [...]string{
		"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code",
		"data", "data count",
	}
	if int(id) < len(names) {
		return names[id]
	}
	return fmt.Sprint(id)
}

// Kinds of imports and exports.
const (
	externFunc   = 0
	externTable  = 1
	externMemory = 2
	externGlobal = 3
)

type section struct {
	id   byte
	name string // of a custom section
	body []byte // of a custom section with its name
}

type funcType struct{ params, results int }

type importedFunc struct {
	module, name string
	typ          uint32
}

type tableType struct {
	ref      byte
	min, max uint32
	capped   bool // max was given
}

type memoryType struct {
	min, max uint32 // in pages of 64 KiB
	capped   bool
}

type globalType struct {
	value   byte
	mutable bool
}

// numeric reports whether the global's value fits into the 64 bits that the runtime lets a host read and write.
func (g globalType) numeric() bool { return g.value >= 0x7c && g.value <= 0x7f }

type export struct {
	name  string
	kind  byte
	index uint32
}

// layout is what the sections of a module say, as far as the rules and the rewriting need it.
type layout struct {
	sections []section
	types    []funcType
	imports  []importedFunc
	funcs    []uint32 // types of the module's own functions
	tables   []tableType
	memories []memoryType
	globals  []globalType
	exports  []export
	elements uint32 // entries of all element segments
	data     []segment
	stateful []string
	bodies   int // largest function body, in bytes
	locals   int // most locals of a function
}

// parse reads a module. What it returns is either complete or an error; faults of form and of the rules that must hold
// before anything is counted are *RefusedError.
func parse(module []byte) (*layout, error) {
	if len(module) > maxModule {
		return nil, refused("size", "module", "%d bytes, at most %d", len(module), maxModule)
	}
	r := &reader{b: module}
	if string(r.bytes(8)) != "\x00asm\x01\x00\x00\x00" {
		return nil, refused("format", "module", "it is not a WebAssembly module of version 1")
	}
	l := &layout{}
	last := 0
	for r.left() > 0 {
		id := r.byte()
		body := r.bytes(r.u32())
		if r.err != nil {
			return nil, refused("format", sectionName(id)+" section", "%v", r.err)
		}
		s := section{id: id, body: body}
		sr := &reader{b: body}
		if id == secCustom {
			s.name = sr.name()
		} else {
			place := sectionOrder(id)
			if place <= last {
				return nil, refused("format", sectionName(id)+" section", "it is out of place or unknown")
			}
			last = place
			if err := l.section(id, sr); err != nil {
				return nil, err
			}
			if sr.err == nil && sr.left() != 0 {
				sr.fail(errors.New("it is longer than what it holds"))
			}
		}
		if sr.err != nil {
			return nil, refused("format", sectionName(id)+" section", "%v", sr.err)
		}
		l.sections = append(l.sections, s)
	}
	return l, nil
}

// sectionOrder gives the place of a section, from 1 on; 0 is unknown. The data count stands before the code.
func sectionOrder(id byte) int {
	switch {
	case id >= secType && id <= secElement:
		return int(id)
	case id == secDataCount:
		return secElement + 1
	case id == secCode || id == secData:
		return int(id) + 1
	}
	return 0
}

func (l *layout) section(id byte, r *reader) error {
	switch id {
	case secType:
		return l.typeSection(r)
	case secImport:
		return l.importSection(r)
	case secFunction:
		return each(r, secFunction, maxFunctions, 1, func(int) error { l.funcs = append(l.funcs, r.u32()); return nil })
	case secTable:
		return each(r, secTable, maxTables, 2, func(int) error {
			t := tableType{ref: r.byte()}
			if t.ref != 0x70 && t.ref != 0x6f {
				r.fail(fmt.Errorf("table type 0x%02x is not known", t.ref))
			}
			t.min, t.max, t.capped = r.limits()
			l.tables = append(l.tables, t)
			return nil
		})
	case secMemory:
		return each(r, secMemory, 1, 2, func(int) error {
			var m memoryType
			m.min, m.max, m.capped = r.limits()
			l.memories = append(l.memories, m)
			return nil
		})
	case secGlobal:
		return each(r, secGlobal, maxGlobals, 4, func(int) error {
			g := globalType{value: r.valueType()}
			m := r.byte()
			if m > 1 {
				r.fail(fmt.Errorf("mutability 0x%02x is not known", m))
			}
			g.mutable = m == 1
			l.globals = append(l.globals, g)
			r.constant()
			return nil
		})
	case secExport:
		return each(r, secExport, maxExports, 3, func(int) error {
			l.exports = append(l.exports, export{name: r.name(), kind: r.byte(), index: r.u32()})
			return nil
		})
	case secStart:
		return refused("start", "start section", "a module must not have one: export _initialize instead")
	case secElement:
		return each(r, secElement, maxSegments, 2, func(i int) error { return l.element(r, i) })
	case secCode:
		return l.codeSection(r)
	case secData:
		return each(r, secData, maxSegments, 2, func(int) error { l.dataSegment(r); return nil })
	case secDataCount:
		r.u32()
	}
	return nil
}

// each reads a vector of at most limit elements of at least size bytes.
func each(r *reader, id byte, limit, size int, read func(i int) error) error {
	n := r.count(size)
	if uint64(n) > uint64(limit) {
		return refused("count", sectionName(id)+" section", "%d entries, at most %d", n, limit)
	}
	for i := 0; i < int(n) && r.err == nil; i++ {
		if err := read(i); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) typeSection(r *reader) error {
	return each(r, secType, maxTypes, 3, func(i int) error {
		if r.byte() != 0x60 {
			r.fail(fmt.Errorf("type %d is not that of a function", i))
		}
		var t funcType
		for _, n := range []*int{&t.params, &t.results} {
			k := r.count(1)
			if k > maxLocals {
				return refused("locals", fmt.Sprintf("type %d", i), "%d parameters or results, at most %d", k, maxLocals)
			}
			for range k {
				r.valueType()
			}
			*n = int(k)
		}
		l.types = append(l.types, t)
		return nil
	})
}

func (l *layout) importSection(r *reader) error {
	return each(r, secImport, maxImports, 4, func(int) error {
		f := importedFunc{module: r.name(), name: r.name()}
		kind := r.byte()
		f.typ = r.u32()
		if kind != externFunc && r.err == nil {
			return refused("imports", "import section", "%q.%q is not a function", f.module, f.name)
		}
		l.imports = append(l.imports, f)
		return nil
	})
}

func (l *layout) element(r *reader, i int) error {
	form := r.u32()
	if form > 7 {
		r.fail(fmt.Errorf("the form of segment %d is not known", i))
		return nil
	}
	if form&1 == 0 { // active
		if form&2 != 0 {
			r.u32()
		}
		r.constant()
	}
	if form&3 != 0 {
		switch t := r.byte(); {
		case form&4 == 0 && t != 0, form&4 != 0 && t != 0x70 && t != 0x6f:
			r.fail(fmt.Errorf("the type of segment %d is not known", i))
		}
	}
	n := r.count(1)
	if l.elements += n; n > maxTableEntries || l.elements > maxTableEntries {
		return refused("table-entries", fmt.Sprintf("element segment %d", i), "more than %d entries", maxTableEntries)
	}
	for ; n > 0 && r.err == nil; n-- {
		if form&4 != 0 {
			r.constant()
		} else {
			r.u32()
		}
	}
	return nil
}

func (l *layout) codeSection(r *reader) error {
	n := 0
	err := each(r, secCode, maxFunctions, 2, func(i int) error {
		n++
		where := fmt.Sprintf("function %d", len(l.imports)+i)
		size := r.u32()
		if size > maxBody {
			return refused("function-size", where, "a body of %d bytes, at most %d", size, maxBody)
		}
		body := &reader{b: r.bytes(size), err: r.err}
		if i >= len(l.funcs) {
			return refused("format", where, "it has a body but no type")
		}
		if t := l.funcs[i]; uint64(t) >= uint64(len(l.types)) {
			return refused("format", where, "type %d does not exist", t)
		}
		l.bodies = max(l.bodies, len(body.b))
		locals := uint64(l.types[l.funcs[i]].params)
		for k := body.count(2); k > 0 && body.err == nil; k-- {
			locals += uint64(body.u32())
			body.valueType()
		}
		if locals > maxLocals {
			return refused("locals", where, "%d locals and parameters, at most %d", locals, maxLocals)
		}
		l.locals = max(l.locals, int(locals))
		if err := scanCode(body, func(op string) { l.note(op) }); err != nil {
			return refused("format", where, "%v", err)
		}
		return nil
	})
	if err == nil && r.err == nil && n != len(l.funcs) {
		return refused("format", "code section", "%d bodies for %d functions", n, len(l.funcs))
	}
	return err
}

func (l *layout) note(op string) {
	for _, s := range l.stateful {
		if s == op {
			return
		}
	}
	l.stateful = append(l.stateful, op)
}

// limits reads the size of a table or memory. Shared memory is not known here.
func (r *reader) limits() (low, high uint32, capped bool) {
	switch r.byte() {
	case 0:
		return r.u32(), 0, false
	case 1:
		return r.u32(), r.u32(), true
	}
	r.fail(errors.New("a limit is of a form that is not known"))
	return 0, 0, false
}

// constant skips a constant expression: one instruction and its end.
func (r *reader) constant() {
	switch op := r.byte(); op {
	case 0x41:
		r.signed(32)
	case 0x42:
		r.signed(64)
	case 0x43:
		r.bytes(4)
	case 0x44:
		r.bytes(8)
	case 0x23, 0xd2: // global.get, ref.func
		r.u32()
	case 0xd0:
		r.byte()
	case 0xfd: // v128.const
		if r.byte() != 0x0c {
			r.fail(errors.New("a constant expression is not known"))
		}
		r.bytes(16)
	default:
		r.fail(fmt.Errorf("instruction 0x%02x in a constant expression is not known", op))
	}
	if r.byte() != 0x0b {
		r.fail(errors.New("a constant expression does not end"))
	}
}
