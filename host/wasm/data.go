package wasm

import (
	"cmp"
	"errors"
	"slices"
)

// segment is one of the data section.
type segment struct {
	raw    []byte // all of it
	active bool   // it goes to the constant offset when the module is instantiated
	offset uint32
	bytes  []byte
}

func (s segment) end() uint64 { return uint64(s.offset) + uint64(len(s.bytes)) }

func (l *layout) dataSegment(r *reader) {
	var s segment
	begin := r.pos
	switch r.u32() {
	case 0:
		s.offset, s.active = r.offset()
	case 1:
	case 2:
		if r.u32() != 0 {
			r.fail(errors.New("a segment names a second memory"))
		}
		s.offset, s.active = r.offset()
	default:
		r.fail(errors.New("the form of a segment is not known"))
	}
	s.bytes = r.bytes(r.u32())
	if r.err == nil {
		s.raw = r.b[begin:r.pos]
		l.data = append(l.data, s)
	}
}

// offset reads a constant expression and gives its value, and false when it is more than one i32.const.
func (r *reader) offset() (value uint32, known bool) {
	begin := r.pos
	r.constant()
	if r.err != nil {
		return 0, false
	}
	e := &reader{b: r.b[begin:r.pos]}
	if e.byte() != 0x41 {
		return 0, false
	}
	var v uint64
	for shift := 0; ; shift += 7 {
		c := e.byte()
		v |= uint64(c&0x7f) << shift
		if c >= 0x80 {
			continue
		}
		if c&0x40 != 0 { // negative: what is above is ones
			v |= ^uint64(0) << (shift + 7)
		}
		break
	}
	return uint32(v), e.byte() == 0x0b && e.left() == 0
}

// Bounds of what merging may add to a module, in bytes.
const (
	maxGap    = 128
	maxFiller = 4 << 20
)

// mergedData gives the data section with neighbours joined into one segment each. Zeros go between them, which is what memory
// begins with, where no other segment lies. The runtime keeps something for every segment of every instance, and the Go linker
// makes tens of thousands. Segments that code refers to by number stay as they are. It gives the number of segments too.
func (l *layout) mergedData() (body []byte, count uint32) {
	if len(l.stateful) > 0 {
		return nil, 0
	}
	lie := extentsOf(l.data)
	var merged []segment
	filler := 0
	for _, s := range l.data {
		if n := len(merged); n > 0 && s.active && merged[n-1].active {
			before := &merged[n-1]
			from, to := before.end(), uint64(s.offset)
			if gap := int64(to) - int64(from); gap == 0 || gap > 0 && gap <= maxGap && filler+int(gap) <= maxFiller && lie.free(from, to) {
				filler += int(gap)
				if before.raw != nil { // the bytes are still the module's
					before.bytes, before.raw = slices.Clone(before.bytes), nil
				}
				before.bytes = append(append(before.bytes, make([]byte, gap)...), s.bytes...)
				continue
			}
		}
		merged = append(merged, s)
	}
	body = appendU32(nil, uint32(len(merged)))
	for _, s := range merged {
		if s.raw != nil {
			body = append(body, s.raw...)
			continue
		}
		body = append(body, 0, 0x41)
		body = appendS32(body, int32(s.offset))
		body = append(body, 0x0b)
		body = appendU32(body, uint32(len(s.bytes)))
		body = append(body, s.bytes...)
	}
	return body, uint32(len(merged))
}

// extents is where segments lie in memory.
type extents struct {
	ordered []extent // by begin; an end is the highest of its segment's and those before it
	unknown bool     // a segment goes to where nobody knows
}

type extent struct{ begin, end uint64 }

func extentsOf(data []segment) extents {
	s := extents{ordered: make([]extent, 0, len(data))}
	for _, x := range data {
		s.unknown = s.unknown || !x.active
		s.ordered = append(s.ordered, extent{uint64(x.offset), x.end()})
	}
	slices.SortFunc(s.ordered, func(a, b extent) int { return cmp.Compare(a.begin, b.begin) })
	for i := 1; i < len(s.ordered); i++ {
		s.ordered[i].end = max(s.ordered[i].end, s.ordered[i-1].end)
	}
	return s
}

// free reports whether no segment has a byte from one address up to another.
func (s extents) free(from, to uint64) bool {
	next, _ := slices.BinarySearchFunc(s.ordered, from, func(a extent, from uint64) int { return cmp.Compare(a.begin, from) })
	return !s.unknown && (next == 0 || s.ordered[next-1].end <= from) && (next == len(s.ordered) || s.ordered[next].begin >= to)
}

// appendS32 appends v as a signed LEB128 number.
func appendS32(b []byte, v int32) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
