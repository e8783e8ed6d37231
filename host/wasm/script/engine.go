package script

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	// stack is how many bytes of the engine's 1 MiB of stack a script may use before it gets a RangeError.
	stack = 256 << 10
	// maxReason is how many bytes are kept of the one line that says what a script threw.
	maxReason = 700
	// maxText is how much of a text for the log is copied; of that the log keeps what it has room for.
	maxText = 1 << 20
)

// engine runs one script. It never changes.
type engine struct {
	source []byte
	name   string
}

// Engine gives what wasm.Options need to run a script with Module. The name is that of its file, for the places in
// messages. Limits.Memory is the script's with the engine's own need of about 2 MiB in it.
func Engine(source []byte, name string) wasm.Engine {
	return engine{bytes.TrimPrefix(source, []byte("\uFEFF")), filepath.Base(name)}
}

// program is a loaded script: addresses of functions of the prelude.
type program struct {
	name           string
	calls          []string
	call, describe value
}

// Start implements wasm.Engine.
func (e engine) Start(ctx context.Context, g *wasm.Guest) (wasm.Program, error) {
	if !utf8.Valid(e.source) {
		return nil, &wasm.ScriptError{Reason: e.name + " is not UTF-8 text"}
	}
	s := begin(ctx, g, e.name)
	defer s.end()
	s.loading = true
	p := &program{name: e.name}
	err := e.load(s, p)
	if s.err != nil {
		err = s.err
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (e engine) load(s *session, p *program) error {
	v := &s.vm
	if v.call("qjs_init") != 0 {
		return fmt.Errorf("start the engine: %w", errNoMemory)
	}
	v.call("qjs_set_max_stack_size", stack)
	v.call("qjs_set_module_loader", 1)
	if limit, now := v.g.Limit(), uint64(v.g.Memory().Size()); limit > now {
		// A sixteenth is left for what the host puts there, so that it can still say what the script did.
		v.call("qjs_set_memory_limit", (limit-now)/16*15)
	}
	build, thrown := v.eval(prelude, "<tocsin>", evalGlobal)
	if v.err != nil || thrown != 0 {
		return fmt.Errorf("the prelude threw %s", v.text(thrown))
	}
	inside, thrown := v.apply(build, s.functions())
	if v.err != nil || thrown != 0 {
		return fmt.Errorf("the prelude threw %s", v.text(thrown))
	}
	adopt := v.property(inside, "adopt")
	p.call, p.describe = v.property(inside, "call"), v.property(inside, "describe")

	promise, thrown := v.eval(e.source, e.name, evalModule)
	if thrown != 0 {
		return s.fault(p, e.name, thrown)
	}
	exports, thrown := v.settle(promise)
	switch {
	case v.err != nil:
		return v.err
	case thrown != 0:
		return s.fault(p, e.name, thrown)
	case exports == 0:
		return &wasm.ScriptError{Reason: e.name + " never finished loading: it awaits what nothing brings about"}
	}
	calls, thrown := v.apply(adopt, exports)
	if thrown != 0 {
		return s.fault(p, e.name, thrown)
	}
	p.calls = strings.Fields(v.text(calls))
	if v.err == nil && len(p.calls) == 0 {
		return &wasm.ScriptError{Reason: e.name + " exports neither check nor notify"}
	}
	v.free(calls, build, inside, adopt)
	v.call("qjs_run_gc")
	e.reserve(v)
	return v.err
}

// reserve has the engine get memory ahead, since an instance that grows in a call is of no use for the next one, and
// keeps the collector from running in a call that needs little.
func (engine) reserve(v *vm) {
	n := min((v.g.Limit()-uint64(v.g.Memory().Size()))/4, 4<<20)
	if at := v.call("wasm_malloc", n); at != 0 {
		v.drop(at)
	}
	v.call("qjs_set_gc_threshold", max(n, 256<<10))
}

// Calls implements wasm.Program.
func (p *program) Calls() []string { return slices.Clone(p.calls) }

// Call implements wasm.Program.
func (p *program) Call(ctx context.Context, g *wasm.Guest, name string) error {
	s := begin(ctx, g, p.name)
	defer s.end()
	v := &s.vm
	result, thrown := v.apply(p.call, v.str([]byte(name)), v.str(g.Request()))
	if v.err == nil && thrown == 0 && v.is("promise", result) {
		result, thrown = v.settle(result)
		if v.err == nil && thrown == 0 && result == 0 {
			return &wasm.ScriptError{Reason: name + " never finished: it awaits what nothing brings about"}
		}
	}
	if v.err != nil {
		return v.err
	}
	if thrown != 0 {
		return s.fault(p, name, thrown)
	}
	v.withText(result, func(text []byte) { _, _ = g.Stdout().Write(text) }) // it never fails
	v.free(result)
	return v.err
}

// fault makes an error of what the script threw, writes its stack to the log, and frees it.
func (s *session) fault(p *program, doing string, thrown value) error {
	v := &s.vm
	said, again := v.apply(p.describe, v.str([]byte(doing)), thrown)
	var text string
	v.withText(said, func(b []byte) { text = string(b[:min(len(b), maxText)]) })
	v.free(said, again)
	if v.err != nil {
		return v.err
	}
	if text == "" {
		text = doing + " threw what cannot be described"
	}
	reason, stack, _ := strings.Cut(text, "\n")
	reason = sdk.CleanText(reason, maxReason)
	if stack = strings.TrimSpace(stack); stack != "" {
		s.log('E', reason+"\n"+stack)
	}
	return &wasm.ScriptError{Reason: reason}
}
