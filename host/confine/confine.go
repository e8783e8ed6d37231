// Package confine is the second wall around a plugin: what the system takes from a process before it runs a stranger's code.
// WebAssembly is the first wall; this one is built as if a guest might one day get through it.
//
// The parent calls Probe once and Namespaces.Prepare for every child. The child calls CloseInherited as the first thing in its
// main function, opens what it needs while it still can (its listening socket, the trusted certificates), and then calls
// Apply. What Apply took away never comes back. Once its code is loaded, and before a stranger's runs, it calls Seal, which takes
// what only loading needed. Both look from inside at what really holds, and say so in a Report.
//
// Everything here reaches all threads of a Go program only when that was built with CGO_ENABLED=0. In one that was built with
// cgo the layers that need it are left out, reported as not holding, and Report.Missing names what is required.
package confine

import (
	"errors"
	"runtime"
	"slices"
)

// Names of the layers.
const (
	LayerProcess    = "process"     // a process of its own with an empty environment, and no descriptor that was not meant for it
	LayerPrivileges = "privileges"  // no new privileges, no capabilities, not dumpable
	LayerLimits     = "limits"      // on descriptors, sizes, memory and core dumps
	LayerNetwork    = "network"     // a network namespace of its own, with nothing in it
	LayerLandlock   = "landlock"    // no files but those that were named
	LayerSeccomp    = "seccomp"     // only the system calls that it needs
	LayerSealed     = "sealed"      // since its code is loaded: it opens and looks at no file at all, and makes no more code
	LayerNoSockets  = "no sockets"  // proved: it can make no socket
	LayerNoFiles    = "no files"    // proved: it can open no file of the system
	LayerNoPrograms = "no programs" // proved: it can execute nothing
	LayerNoSignals  = "no signals"  // proved: it can signal no other process
)

// missingFilter stands in the list of what is missing when neither of the two holds.
const missingFilter = LayerLandlock + " or " + LayerSeccomp

// ErrParentGone is returned when the process that started this one has ended: there is nobody left to work for.
var ErrParentGone = errors.New("the process that started this one has ended")

// Policy says what a process needs, which is all that it keeps. Everything that it does not name is taken away.
type Policy struct {
	// Read lists files and folders, with all below them, that may be read. Each must exist.
	Read []string
	// Write lists folders in which files may be read, made, written, renamed and removed: the compiler's. Each must exist.
	// When it is empty the process can open nothing at all for writing.
	Write []string
	// Memory bounds the writable data of the process, in bytes: the heap, stacks of threads and memories of guests. It
	// counts address space that may be written, used or not. 0 sets no limit, and then LayerLimits does not hold.
	Memory uint64
	// FileSize bounds every file that is written, in bytes, and with it a snapshot, which is a file in memory. 0 is Memory.
	FileSize uint64
	// Files bounds the open descriptors; 0 is 512.
	Files uint64
	// Keep lists the inherited descriptors that stay open besides 0 to 2. What the process opened itself always stays.
	Keep []int
	// Env lists the names that may be in the environment; one that ends in * stands for all that begin so. With any other
	// LayerProcess does not hold.
	Env []string
	// Parent is the pid that the parent has for itself. Apply fails with ErrParentGone when it is another by now. 0: it is
	// not looked at.
	Parent int
	// Without names layers that are left out, and reported as not holding. Only tests use it, to see that a missing layer
	// is noticed.
	Without []string
}

// files is the limit on open descriptors.
func (p Policy) files() uint64 {
	if p.Files == 0 {
		return 512
	}
	return p.Files
}

// fileSize is the limit on the size of a file, in bytes.
func (p Policy) fileSize() uint64 {
	if p.FileSize == 0 {
		return p.Memory
	}
	return p.FileSize
}

// Layer is one part of the wall.
type Layer struct {
	Name   string `json:"name"`
	Holds  bool   `json:"holds"`
	Detail string `json:"detail,omitempty"` // why it does not hold, or how it does
}

// Report says which layers hold.
type Report struct {
	System string  `json:"system,omitempty"` // as Go names it: linux, darwin …; empty is taken for linux
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

// Missing lists the required layers that do not hold, and is empty when a stranger's code may be run. On Linux these are the
// process, the limits, no sockets, no files, and Landlock or seccomp; on other systems, whose isolation is basic, the process
// alone. Where there is no Landlock, no files holds from Seal on. An empty report lacks everything.
func (r Report) Missing() []string {
	required := []string{LayerProcess}
	if r.full() {
		required = append(required, LayerLimits, LayerNoSockets, LayerNoFiles)
	}
	missing := slices.DeleteFunc(required, r.Holds)
	if r.full() && !r.Holds(LayerLandlock) && !r.Holds(LayerSeccomp) {
		missing = append(missing, missingFilter)
	}
	return missing
}

// full reports whether the system is one on which all layers can be had.
func (r Report) full() bool { return r.System == "" || r.System == "linux" }

// Isolation sums the report up in a word: "full" when every layer holds, "partial" when only some that are not required do
// not, "degraded" when a required one does not, and "basic" on systems that have few of them.
func (r Report) Isolation() string {
	switch {
	case len(r.Missing()) > 0:
		return "degraded"
	case !r.full():
		return "basic"
	case slices.ContainsFunc(r.Layers, func(l Layer) bool { return !l.Holds }):
		return "partial"
	}
	return "full"
}

// builder collects a report.
type builder struct {
	without []string
	report  Report
}

func newBuilder(without []string) *builder {
	return &builder{without: without, report: Report{System: runtime.GOOS}}
}

// resume goes on with a report.
func resume(r Report, without []string) *builder {
	return &builder{without: without, report: Report{System: r.System, Layers: slices.Clone(r.Layers)}}
}

// add puts a layer up and says how it went, unless it is to be left out. up gives why the layer does not hold, or how it does.
func (b *builder) add(name string, up func() (holds bool, detail string)) {
	l := Layer{Name: name, Detail: "left out"}
	if !slices.Contains(b.without, name) {
		l.Holds, l.Detail = up()
	}
	b.report.Layers = append(b.report.Layers, l)
}

// again looks once more whether a layer holds that did not.
func (b *builder) again(name string, look func() (holds bool, detail string)) {
	for i := range b.report.Layers {
		if l := &b.report.Layers[i]; l.Name == name && !l.Holds && !slices.Contains(b.without, name) {
			l.Holds, l.Detail = look()
		}
	}
}

// revoke takes back that a layer holds.
func (b *builder) revoke(name, why string) {
	for i := range b.report.Layers {
		if l := &b.report.Layers[i]; l.Name == name && l.Holds {
			l.Holds, l.Detail = false, why
		}
	}
}
