package sdk

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// reserve is how many bytes a call can allocate before the module's memory grows. An instance whose memory grew is not used
	// again.
	reserve = 4 << 20
	// memoryLimit is where the collector begins to work: below the default limit of a plugin, by what the stack and the
	// program's data take.
	memoryLimit = int64(DefaultMemory) * 3 / 4
)

// This prepares what every call of a reactor begins with. A command begins anew each time, so for it only the collector is
// set.
func init() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	if len(os.Args) > 1 {
		return
	}
	reserved = make([]byte, reserve) // fresh memory, which nothing touches
	reserved = nil
	runtime.GC() // the collector is off, so this gives the reserve back to the heap, and what warming up left with it
	if err := warm(); err != nil {
		fmt.Fprintln(os.Stderr, "E! sdk: "+err.Error())
	}
}

// reserved keeps the compiler from leaving the reserve out.
var reserved []byte

//go:wasmexport check
func exportedCheck() { serveCall("check") }

//go:wasmexport notify
func exportedNotify() { serveCall("notify") }

// serveCall panics when the request cannot be read or the answer cannot be written: the runner says so, with the reason.
func serveCall(call string) {
	if err := registered.answer(call, os.Stdin, os.Stdout, os.Stderr); err != nil {
		panic(err)
	}
}
