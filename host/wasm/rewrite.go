package wasm

import (
	"slices"
	"strconv"
	"strings"
)

// rewrite gives the module with an export for every mutable numeric global, so that a snapshot can hold their values,
// and the names of these exports. It changes more that no guest notices: tables that could grow
// without end are capped, so that all of them together hold at most maxTableEntries, and custom sections other than
// the names of functions are left out, so that nobody parses them. Data segments are joined; see mergedData. A module that gets through Inspect stays valid.
func (l *layout) rewrite() (module []byte, globals []string) {
	prefix := "tocsin:"
	for slices.ContainsFunc(l.exports, func(e export) bool { return strings.HasPrefix(e.name, prefix) }) {
		prefix += ":"
	}
	exports := l.exports
	for i, g := range l.globals {
		if g.mutable && g.numeric() {
			name := prefix + strconv.Itoa(i)
			globals = append(globals, name)
			exports = append(exports[:len(exports):len(exports)], export{name: name, kind: externGlobal, index: uint32(i)})
		}
	}

	data, segments := l.mergedData()
	module = []byte("\x00asm\x01\x00\x00\x00")
	put := func(id byte, body []byte) {
		module = append(module, id)
		module = appendU32(module, uint32(len(body)))
		module = append(module, body...)
	}
	exported := len(globals) == 0 // nothing to add: the section stays as it is
	for _, s := range l.sections {
		if s.id == secCustom {
			if names := functionNames(s); names != nil {
				put(secCustom, names)
			}
			continue
		}
		if !exported && sectionOrder(s.id) >= sectionOrder(secExport) {
			put(secExport, encodeExports(exports))
			exported = true
			if s.id == secExport {
				continue
			}
		}
		switch {
		case s.id == secTable:
			put(s.id, l.encodeTables())
		case s.id == secData && segments > 0:
			put(s.id, data)
		case s.id == secDataCount && segments > 0:
			put(s.id, appendU32(nil, segments))
		default:
			put(s.id, s.body)
		}
	}
	if !exported {
		put(secExport, encodeExports(exports))
	}
	return module, globals
}

func encodeExports(exports []export) []byte {
	b := appendU32(nil, uint32(len(exports)))
	for _, e := range exports {
		b = appendName(b, e.name)
		b = append(b, e.kind)
		b = appendU32(b, e.index)
	}
	return b
}

// encodeTables shares what the tables leave of the limit among those that may grow.
func (l *layout) encodeTables() []byte {
	free, growing := uint32(maxTableEntries), uint32(0)
	for _, t := range l.tables {
		free -= min(free, t.min)
		if !t.capped || t.max > t.min {
			growing++
		}
	}
	b := appendU32(nil, uint32(len(l.tables)))
	for _, t := range l.tables {
		high := t.min
		if !t.capped || t.max > t.min {
			high += free / growing
		}
		if t.capped {
			high = min(high, t.max)
		}
		b = append(b, t.ref, 1)
		b = appendU32(b, t.min)
		b = appendU32(b, high)
	}
	return b
}

// functionNames gives the name section with nothing in it but the names of functions, for the sake of stack traces. It
// is nil for other sections and for one that is malformed: names never make a module invalid.
func functionNames(s section) []byte {
	r := &reader{b: s.body}
	if r.name() != "name" {
		return nil
	}
	for r.err == nil && r.left() > 0 {
		id := r.byte()
		names := r.bytes(r.u32())
		if id != 1 {
			continue
		}
		n := &reader{b: names}
		for k := n.count(2); k > 0 && n.err == nil; k-- {
			n.u32()
			n.name()
		}
		if n.err != nil || n.left() != 0 || r.err != nil {
			return nil
		}
		b := append(appendName(nil, "name"), 1)
		b = appendU32(b, uint32(len(names)))
		return append(b, names...)
	}
	return nil
}
