// Package confine is the second wall around a plugin: what the system takes from a process before it runs a stranger's code.
// WebAssembly is the first wall; this one is built as if a guest might one day get through it.
package confine

// Names of the layers.
const (
	LayerProcess    = "process"     // a process of its own with an empty environment
	LayerPrivileges = "privileges"  // no new privileges, no capabilities, not dumpable
	LayerLimits     = "limits"      // on files, sizes, memory, processes and core dumps
	LayerNetwork    = "network"     // a network namespace of its own, with nothing in it
	LayerLandlock   = "landlock"    // no files but those that were named
	LayerSeccomp    = "seccomp"     // only the system calls that it needs
	LayerNoSockets  = "no sockets"  // proved: it can make no socket
	LayerNoFiles    = "no files"    // proved: it can open no file of the system
	LayerNoPrograms = "no programs" // proved: it can execute nothing
	LayerNoSignals  = "no signals"  // proved: it can signal no other process
)

// Layer is one part of the wall.
type Layer struct {
	Name   string `json:"name"`
	Holds  bool   `json:"holds"`
	Detail string `json:"detail,omitempty"` // why it does not hold, or how it does
}

// Report says which layers hold.
type Report struct {
	Layers []Layer `json:"layers"`
}

// Holds reports whether a layer holds.
func (r Report) Holds(name string) bool {
	for _, l := range r.Layers {
		if l.Name == name {
			return l.Holds
		}
	}
	return false
}
