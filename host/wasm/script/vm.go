package script

import (
	"context"
	"errors"
	"fmt"

	"github.com/tocsinhq/tocsin/host/wasm"
)

// Flags of qjs_eval, which are those of JS_Eval.
const (
	evalGlobal = 0
	evalModule = 1 << 0
)

// States of a promise, as qjs_promise_state gives them.
const (
	pending   = 0
	fulfilled = 1
)

// value is the address of a JavaScript value in the memory of the engine. Those that the engine gave us are ours to
// free; 0 is none.
type value uint32

// vm speaks the engine's C interface in one instance. Its first error sticks: everything after it does nothing and gives
// nothing.
type vm struct {
	ctx context.Context
	g   *wasm.Guest
	err error
}

func (v *vm) call(function string, params ...uint64) uint32 {
	return uint32(v.call64(function, params...))
}

func (v *vm) call64(function string, params ...uint64) uint64 {
	if v.err != nil {
		return 0
	}
	result, err := v.g.Call(v.ctx, function, params...)
	if err != nil {
		v.fail(err) // unless a function of the host has, which knows better
		return 0
	}
	return result
}

// value calls a function that gives a value, which is never 0 unless there is no memory for it.
func (v *vm) value(function string, params ...uint64) value {
	a := value(v.call(function, params...))
	if a == 0 {
		v.fail(errNoMemory)
	}
	return a
}

var errNoMemory = errors.New("the script's memory is used up")

func (v *vm) fail(err error) {
	if v.err == nil {
		v.err = err
	}
}

func (v *vm) free(values ...value) {
	for _, a := range values {
		if a != 0 {
			v.call("qjs_free_value", uint64(a))
		}
	}
}

func (v *vm) is(what string, a value) bool {
	return v.call("qjs_is_"+what, uint64(a)) != 0
}

// bytes gives the engine's memory itself, not a copy.
func (v *vm) bytes(at, n uint32) []byte {
	b, ok := v.g.Memory().Read(at, n)
	if !ok {
		v.fail(fmt.Errorf("the engine gave %d bytes at %#x, which are not in its memory", n, at))
		return nil
	}
	return b
}

func (v *vm) word(at uint32) uint32 {
	w, ok := v.g.Memory().ReadUint32Le(at)
	if !ok {
		v.fail(fmt.Errorf("the engine gave the address %#x, which is not in its memory", at))
	}
	return w
}

// put copies data into memory of the engine, with a zero behind it. It must be given to wasm_free.
func (v *vm) put(data []byte) uint32 {
	at := v.call("wasm_malloc", uint64(len(data))+1)
	if at == 0 {
		v.fail(errNoMemory)
	}
	if v.err != nil {
		return 0
	}
	m := v.g.Memory()
	if !m.Write(at, data) || !m.WriteByte(at+uint32(len(data)), 0) {
		v.fail(fmt.Errorf("the engine gave %d bytes at %#x, which are not in its memory", len(data)+1, at))
	}
	return at
}

func (v *vm) drop(at uint32) {
	if at != 0 {
		v.call("wasm_free", uint64(at))
	}
}

// str makes a string of UTF-8.
func (v *vm) str(text []byte) value {
	at := v.put(text)
	s := v.value("qjs_new_string", uint64(at), uint64(len(text)))
	v.drop(at)
	return s
}

// buffer makes an ArrayBuffer.
func (v *vm) buffer(data []byte) value {
	at := v.put(data)
	b := v.value("qjs_new_array_buffer", uint64(at), uint64(len(data)))
	v.drop(at)
	return b
}

// withText calls f with the UTF-8 of a string, which is only there for that time. Surrogates without their partners are
// in it as three bytes each, which is not valid. Another value than a string is not converted, because that would run
// code of the script; f is then not called and the result is false.
func (v *vm) withText(a value, f func(text []byte)) bool {
	if a == 0 || !v.is("string", a) {
		return false
	}
	room := v.put(make([]byte, 4))
	at := v.call("qjs_get_string_len", uint64(a), uint64(room))
	if v.err == nil && at == 0 {
		v.fail(errNoMemory)
	}
	if v.err == nil {
		if b := v.bytes(at, v.word(room)); v.err == nil {
			f(b)
		}
		v.call("qjs_free_cstring", uint64(at))
	}
	v.drop(room)
	return v.err == nil
}

// text gives a copy of a string; of another value it is "".
func (v *vm) text(a value) (s string) {
	v.withText(a, func(b []byte) { s = string(b) })
	return s
}

// view gives the bytes from off of an ArrayBuffer, n of them, or fewer when it is shorter: the engine's memory itself.
func (v *vm) view(a value, off, n uint32) []byte {
	if !v.is("array_buffer", a) {
		return nil
	}
	room := v.put(make([]byte, 4))
	at := v.call("qjs_get_array_buffer", uint64(a), uint64(room))
	size := v.word(room)
	v.drop(room)
	if v.err != nil || at == 0 || off >= size {
		return nil
	}
	b := v.bytes(at, size)
	if v.err != nil {
		return nil
	}
	return b[off:min(uint64(off)+uint64(n), uint64(size))]
}

// property gives a property of an object that runs no code of the script.
func (v *vm) property(a value, name string) value {
	at := v.put([]byte(name))
	p := v.value("qjs_get_prop_string", uint64(a), uint64(at))
	v.drop(at)
	return p
}

func (v *vm) setProperty(a value, name string, to value) {
	at := v.put([]byte(name))
	v.call("qjs_set_prop_string", uint64(a), uint64(at), uint64(to))
	v.drop(at)
}

// eval evaluates a source; a module gives a promise of what it exports. What it threw is the second result.
func (v *vm) eval(source []byte, name string, flags uint64) (result, thrown value) {
	code, file := v.put(source), v.put([]byte(name))
	result = v.value("qjs_eval", uint64(code), uint64(len(source)), uint64(file), flags)
	v.drop(code)
	v.drop(file)
	return v.outcome(result)
}

// apply calls a function of JavaScript and frees the arguments. What it threw is the second result.
func (v *vm) apply(function value, args ...value) (result, thrown value) {
	list := make([]byte, 0, 4*len(args))
	for _, a := range args {
		list = append(list, byte(a), byte(a>>8), byte(a>>16), byte(a>>24))
	}
	at, this := v.put(list), v.value("qjs_get_undefined")
	result = v.value("qjs_call", uint64(function), uint64(this), uint64(len(args)), uint64(at))
	v.drop(at)
	v.free(append(args, this)...)
	return v.outcome(result)
}

func (v *vm) outcome(a value) (result, thrown value) {
	if v.err != nil || !v.is("exception", a) {
		return a, 0
	}
	v.free(a)
	return 0, v.value("qjs_get_exception")
}

// settle runs pending jobs until a promise has its result, and frees it. Without jobs and without a result it gives
// neither; then the promise waits for something that nothing brings about.
func (v *vm) settle(promise value) (result, thrown value) {
	defer v.free(promise)
	for v.err == nil {
		switch state := v.call("qjs_promise_state", uint64(promise)); {
		case v.err != nil:
		case state == fulfilled:
			return v.value("qjs_promise_result", uint64(promise)), 0
		case state != pending:
			return 0, v.value("qjs_promise_result", uint64(promise))
		case v.call("qjs_is_job_pending") == 0:
			return 0, 0
		case int32(v.call("qjs_execute_pending_job")) < 0:
			return 0, v.value("qjs_get_exception")
		}
	}
	return 0, 0
}
