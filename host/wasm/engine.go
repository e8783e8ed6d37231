package wasm

import (
	"context"
	"fmt"
	"io"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	esys "github.com/tetratelabs/wazero/experimental/sys"
)

// Engine makes a plugin of a module that is an interpreter: it gives the interpreter what it imports, has it load a
// script before the snapshot is taken, and translates calls. It may be used by many goroutines at once.
type Engine interface {
	// Imports adds the functions that the module imports from "env". It is called once for each Module.
	Imports(env wazero.HostModuleBuilder)
	// Start loads the script into an instance whose _initialize has run. It is called for the instance that is
	// snapshotted, and where there are no snapshots for every instance. There is no network yet.
	Start(ctx context.Context, g *Guest) (Program, error)
}

// Program is a script that an engine has loaded. It knows where things are in the memory of the instance it was loaded
// into, which is where they are in all copies of it, and nothing else: it serves all copies at once, and what it
// remembered no reset would clear.
type Program interface {
	// Calls gives the names of the calls that the script answers: "check", "notify" or both.
	Calls() []string
	// Call makes one of these calls.
	Call(ctx context.Context, g *Guest, name string) error
}

// ScriptError is the error of a script that failed as scripts do: it threw, or did not do what the contract says. The
// instance is none the worse for it.
type ScriptError struct {
	// Reason is one line.
	Reason string
}

// Error implements error.
func (e *ScriptError) Error() string { return e.Reason }

// Guest is an instance as its engine sees it. It is used by one goroutine at a time, and not after the method of Engine
// or Program that got it has returned.
type Guest struct{ i *instance }

// Call calls a function that the module exports and gives its result, or 0 when it has none. The error is a *TrapError
// or an *ExitError, unless there is no such function. A function that is being called cannot be called again from
// within a function that it called.
func (g *Guest) Call(ctx context.Context, function string, params ...uint64) (uint64, error) {
	f := g.i.calls[function]
	if f == nil {
		if f = g.i.mod.ExportedFunction(function); f == nil {
			return 0, fmt.Errorf("the engine has no function %q", function)
		}
		g.i.calls[function] = f
	}
	if len(params) == 0 {
		params = []uint64{0} // room for the result
	}
	if err := f.CallWithStack(ctx, params); err != nil {
		return 0, fault(err)
	}
	return params[0], nil
}

// Memory gives the instance's linear memory. What it holds is the guest's: none of it can be trusted.
func (g *Guest) Memory() api.Memory { return g.i.mod.Memory() }

// Limit gives the most bytes that the memory may have.
func (g *Guest) Limit() uint64 { return g.i.limit }

// Request gives the request of the call under way. It must not be changed.
func (g *Guest) Request() []byte { return g.i.request }

// Stdout is where the response goes. What is over the limit is cut; writing never fails.
func (g *Guest) Stdout() io.Writer { return &g.i.out }

// Stderr is where lines of the log go. What is over the limit is cut; writing never fails.
func (g *Guest) Stderr() io.Writer { return &g.i.log }

// Open opens a file of the network, for reading and writing; path is without /net/. Outside of calls, and in a call
// without a network, it is EACCES, and EAGAIN when too many files are open. Files that are open when the call ends are
// closed, and cost the instance.
func (g *Guest) Open(path string) (esys.File, esys.Errno) {
	return g.i.net.OpenFile(path, esys.O_RDWR, 0)
}

// interpret makes a call of the program.
func (i *instance) interpret(ctx context.Context, call string) error {
	i.done = ctx.Done()
	defer func() { i.done = nil }()
	return i.program.Call(ctx, &Guest{i}, call)
}
