package wasm

import (
	"context"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	wasi "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// The descriptors that every instance starts with: standard input, output and error, and the directory of the network.
const lastFixed = 3

// maxDescriptor bounds the number a guest may give a descriptor: the runtime keeps a table as long as the largest.
const maxDescriptor = 4 * maxOpen

// instantiateWASI gives the runtime WASI preview 1, with a guard before the functions that could change what the next
// call finds behind descriptors 0 to 3.
func instantiateWASI(ctx context.Context, rt wazero.Runtime) error {
	ctx = experimental.WithFunctionListenerFactory(ctx, guards{})
	if _, err := wasi.Instantiate(ctx, rt); err != nil {
		return fmt.Errorf("instantiate %s: %w", wasiModule, err)
	}
	return nil
}

// guards gives the functions of WASI that need one a guard, and no other function a listener, which would cost time.
type guards struct{}

// NewFunctionListener implements experimental.FunctionListenerFactory.
func (guards) NewFunctionListener(def api.FunctionDefinition) experimental.FunctionListener {
	for _, name := range def.ExportNames() {
		switch name {
		case "fd_close", "fd_fdstat_set_flags", "fd_readdir":
			return guard{descriptors: 1}
		case "fd_renumber":
			return guard{descriptors: 2}
		}
	}
	return nil
}

// guard puts a descriptor that is never open in place of those that a function may not touch, so that the guest gets
// EBADF. The parameters a listener gets are those the function gets after it; the tests hold the runtime to that.
type guard struct{ descriptors int }

// Before implements experimental.FunctionListener.
func (g guard) Before(_ context.Context, _ api.Module, _ api.FunctionDefinition, params []uint64, _ experimental.StackIterator) {
	for i := range g.descriptors {
		if fd := uint32(params[i]); fd <= lastFixed || g.descriptors > 1 && fd > maxDescriptor {
			params[i] = math.MaxUint32
		}
	}
}

// After implements experimental.FunctionListener.
func (guard) After(context.Context, api.Module, api.FunctionDefinition, []uint64) {}

// Abort implements experimental.FunctionListener.
func (guard) Abort(context.Context, api.Module, api.FunctionDefinition, error) {}
