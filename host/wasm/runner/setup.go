// Package runner is the process that a sandboxed plugin runs in, and the one that compiles it. Both are this program,
// executed again by the host with a hidden word as its first argument.
package runner

import "github.com/tocsinhq/tocsin/host/confine"

// Words that begin the arguments of this program when it is a child of the host.
const (
	RunWord     = "plugin-runner"
	CompileWord = "plugin-compiler"
)

// Exit statuses of a child whose plugin is not at fault. The last line that it writes says more.
const (
	WallExit = 3 // required layers of its sandbox are missing, which the line lists
	FileExit = 4 // a file could not be read or written
)

// Descriptors that a runner inherits besides the standard three.
const (
	BrokerFD = 3 // the runner's end of the broker's socket
	LifeFD   = 4 // a pipe that ends when the server is gone
)

// Setup is what the host tells a runner or a compiler: JSON, the one argument behind the word. There are no secrets in it.
type Setup struct {
	Name   string `json:"name"`             // of the plugin
	Module string `json:"module,omitempty"` // file of the module; empty: the bundled script engine
	Script string `json:"script,omitempty"` // file of the script
	Cache  string `json:"cache"`            // folder of the compiled code; only the compiler writes to it
	Memory int64  `json:"memory"`           // bytes of one instance
	Calls  int    `json:"calls"`            // at the same time
	TLS    bool   `json:"tls,omitempty"`    // connections with TLS may be granted, so roots are needed
	Parent int    `json:"parent"`           // pid of the server
	// AllowDegraded starts the plugin although a required layer of the wall is missing.
	AllowDegraded bool `json:"allow_degraded,omitempty"`
}

// Hello is what a runner tells the host through the broker. The first one has the sandbox: it comes when the wall is up, the
// code is loaded, and none of it has run. A second and last one says that the code is ready. When it cannot start, the
// one that says why is the last.
type Hello struct {
	Sandbox confine.Report `json:"sandbox,omitzero"`
	Ready   bool           `json:"ready,omitempty"`
	Failed  string         `json:"failed,omitempty"` // why it ends: one line, the plugin's fault or the system's
}
