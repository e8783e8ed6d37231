package wasm

import (
	"errors"
	"unicode/utf8"
)

var errTruncated = errors.New("it ends too early")

// reader walks over a part of a module. The first fault sticks: every read after it gives zero, so that callers look
// at err once per thing they read. Its numbers are those of the binary format, WebAssembly Core 2.0, chapter 5.2.
type reader struct {
	b   []byte
	pos int
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.pos = len(r.b)
}

func (r *reader) left() int { return len(r.b) - r.pos }

func (r *reader) byte() byte {
	if r.pos >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

func (r *reader) peek() byte {
	if r.pos >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	return r.b[r.pos]
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(r.left()) {
		r.fail(errTruncated)
		return nil
	}
	p := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return p
}

// u32 reads an unsigned LEB128 number of at most 32 bits and 5 bytes.
func (r *reader) u32() uint32 {
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			break
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.fail(errors.New("a number has more than 32 bits"))
	return 0
}

// signed skips a signed LEB128 number of at most bits bits. Its value is of no interest here; the compiler checks it.
func (r *reader) signed(bits int) {
	for n := (bits + 6) / 7; n > 0; n-- {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail(errors.New("a number is too long"))
}

func (r *reader) name() string {
	p := r.bytes(r.u32())
	if !utf8.Valid(p) {
		r.fail(errors.New("a name is not valid UTF-8"))
	}
	return string(p)
}

// count reads the length of a vector whose elements have at least size bytes each. A length that cannot fit into what
// is left is refused here, before anybody makes room for it.
func (r *reader) count(size int) uint32 {
	n := r.u32()
	if uint64(n)*uint64(size) > uint64(r.left()) {
		r.fail(errTruncated)
		return 0
	}
	return n
}

// appendU32 appends v as an unsigned LEB128 number.
func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendName(b []byte, s string) []byte {
	b = appendU32(b, uint32(len(s)))
	return append(b, s...)
}
