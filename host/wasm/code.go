package wasm

import (
	"errors"
	"fmt"
)

// statefulOp names the instruction when it changes state that a reset cannot restore: tables and dropped segments.
// memory.init itself keeps nothing, but it is only of use to code that goes on to drop the segment.
func statefulOp(misc uint32) string {
	switch misc {
	case 8:
		return "memory.init"
	case 9:
		return "data.drop"
	case 12:
		return "table.init"
	case 13:
		return "elem.drop"
	case 14:
		return "table.copy"
	case 15:
		return "table.grow"
	case 17:
		return "table.fill"
	}
	return ""
}

// maxDepth bounds the nesting of blocks in a function: the compiler recurses over it.
const maxDepth = 1_000

// scanCode walks over the instructions of one function body, after its locals, and calls found for each that keeps
// state outside memory and globals. It knows the instructions of WebAssembly 2.0 and refuses all others, so nothing
// that it read wrongly can hide one: a body must end exactly where its outermost block does.
func scanCode(r *reader, found func(op string)) error {
	depth := 1
	for r.err == nil {
		op := r.byte()
		switch {
		case op == 0x02 || op == 0x03 || op == 0x04: // block, loop, if
			blockType(r)
			if depth++; depth > maxDepth {
				return fmt.Errorf("blocks are nested deeper than %d", maxDepth)
			}
		case op == 0x0b: // end
			if depth--; depth == 0 {
				if r.err == nil && r.left() != 0 {
					return errors.New("there is code after its end")
				}
				return r.err
			}
		case op == 0x0c || op == 0x0d || op == 0x10: // br, br_if, call
			r.u32()
		case op == 0x0e: // br_table
			for n := r.count(1); n > 0 && r.err == nil; n-- {
				r.u32()
			}
			r.u32()
		case op == 0x11: // call_indirect: type, table
			r.u32()
			r.u32()
		case op == 0x1c: // select with types
			for n := r.count(1); n > 0 && r.err == nil; n-- {
				r.valueType()
			}
		case op >= 0x20 && op <= 0x24: // local.get … global.set
			r.u32()
		case op == 0x25: // table.get
			r.u32()
		case op == 0x26:
			r.u32()
			found("table.set")
		case op >= 0x28 && op <= 0x3e: // loads and stores
			memArg(r)
		case op == 0x3f || op == 0x40: // memory.size, memory.grow
			if r.byte() != 0 {
				r.fail(errors.New("it names a second memory"))
			}
		case op == 0x41:
			r.signed(32)
		case op == 0x42:
			r.signed(64)
		case op == 0x43:
			r.bytes(4)
		case op == 0x44:
			r.bytes(8)
		case op == 0xd0: // ref.null
			if t := r.byte(); t != 0x70 && t != 0x6f {
				r.fail(fmt.Errorf("reference type 0x%02x is not known", t))
			}
		case op == 0xd2: // ref.func
			r.u32()
		case op == 0xfc:
			if err := miscOp(r, found); err != nil {
				return err
			}
		case op == 0xfd:
			if err := vectorOp(r); err != nil {
				return err
			}
		case op <= 0x01, op == 0x05, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
			// unreachable, nop, else, return, drop, select, the numeric ones, ref.is_null: no immediates
		default:
			return fmt.Errorf("instruction 0x%02x is not known", op)
		}
	}
	return r.err
}

func blockType(r *reader) {
	switch r.peek() {
	case 0x40, 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
		r.byte()
	default:
		r.signed(33)
	}
}

// valueType reads the type of a value: i32, i64, f32, f64, v128, funcref or externref.
func (r *reader) valueType() byte {
	t := r.byte()
	switch t {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
		return t
	}
	if r.err == nil {
		r.fail(fmt.Errorf("value type 0x%02x is not known", t))
	}
	return 0
}

func memArg(r *reader) {
	if align := r.u32(); align > 4 {
		r.fail(fmt.Errorf("alignment 2^%d is not known", align))
	}
	r.u32()
}

// miscOp reads what follows the prefix 0xfc.
func miscOp(r *reader, found func(op string)) error {
	op := r.u32()
	switch {
	case op <= 7: // saturating truncations
	case op == 8: // memory.init: segment, memory
		r.u32()
		r.byte()
	case op == 10: // memory.copy
		r.byte()
		r.byte()
	case op == 11: // memory.fill
		r.byte()
	case op == 9, op == 13, op == 15, op == 16, op == 17: // data.drop, elem.drop, table.grow, table.size, table.fill
		r.u32()
	case op == 12, op == 14: // table.init, table.copy
		r.u32()
		r.u32()
	default:
		return fmt.Errorf("instruction 0xfc %d is not known", op)
	}
	if name := statefulOp(op); name != "" && r.err == nil {
		found(name)
	}
	return r.err
}

// vectorOp reads what follows the prefix 0xfd. The compiler reads only the first byte of the number, and takes the 1
// that ends a longer one for a nop; both readings agree when every longer number ends in 1 after two bytes.
func vectorOp(r *reader) error {
	op := r.byte()
	if op >= 0x80 && r.byte() != 0x01 {
		r.fail(errors.New("a vector instruction is not known"))
	}
	switch {
	case op <= 0x0b, op == 0x5c, op == 0x5d: // loads, store
		memArg(r)
	case op == 0x0c, op == 0x0d: // const, shuffle
		r.bytes(16)
	case op >= 0x15 && op <= 0x22: // lanes
		r.byte()
	case op >= 0x54 && op <= 0x5b: // loads and stores of a lane
		memArg(r)
		r.byte()
	}
	return r.err
}
