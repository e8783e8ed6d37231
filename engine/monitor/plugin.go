package monitor

import (
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Plugin is an installed plugin as it is stored: which build runs, what it was granted, and whether it may run at all.
type Plugin struct {
	Name    string
	Active  Build // the build that runs
	Pending Build // the build that runs once it is granted; the zero value is none
	Grant   PluginGrant
	Limits  sdk.Limits // what the operator set in place of the manifest's limits; zero fields are the manifest's

	Disabled       bool
	DisabledReason string // for a person; empty when an operator did it and gave none

	InstalledAt time.Time
	UpdatedAt   time.Time
}

// Build is one build of a plugin, named by the digest of its files.
type Build struct {
	Version string
	Digest  string
}

// IsZero reports whether it is none.
func (b Build) IsZero() bool { return b == Build{} }

// PluginGrant is what an operator granted to one build of a plugin. The zero value was never given.
type PluginGrant struct {
	Digest       string    // of the build that was looked at; empty: nobody has decided yet
	Permissions  []string  // as in a manifest: tcp://{target}
	AllowPrivate bool      // what the manifest itself names may be loopback or private
	At           time.Time // when
	By           string    // who
}

// PluginCondition is whether a plugin can be used.
type PluginCondition string

// The conditions of a plugin.
const (
	PluginReady    PluginCondition = "ready"
	PluginWaiting  PluginCondition = "waiting"  // nobody has granted it yet
	PluginDisabled PluginCondition = "disabled" // by an operator, or because it had to be stopped again and again
	PluginBroken   PluginCondition = "broken"   // its files, its compilation or the sandbox failed
)

// PluginRemoved is told of a plugin that is installed no more.
const PluginRemoved PluginCondition = "removed"

// PluginConditions lists every condition of an installed plugin.
func PluginConditions() []PluginCondition {
	return []PluginCondition{PluginReady, PluginWaiting, PluginDisabled, PluginBroken}
}

// InstalledPlugin is a plugin with all that is known of it at the moment.
type InstalledPlugin struct {
	Plugin
	Condition PluginCondition
	Why       string // when it is not ready: the cause and the remedy
	Manifest  sdk.Manifest
	Asks      []PluginAsk // of the active build
	// PendingManifest and PendingAsks are of the build that waits for its grant; nil when none does.
	PendingManifest *sdk.Manifest
	PendingAsks     []PluginAsk
	InForce         sdk.Limits     // what the operator set, else the manifest's
	Sandbox         []SandboxLayer // as its last runner reported them; empty before its first start
	Degraded        bool           // it runs although a required layer is missing
	Usage           PluginUsage
}

// PluginAsk is one permission that a build asks for.
type PluginAsk struct {
	Allow   string // tcp://{target}
	Words   string // for a person: open TCP connections to the monitor's target
	Reason  string // the author's
	Granted bool
}

// SandboxLayer is one part of the wall around a plugin's process.
type SandboxLayer struct {
	Name   string
	Holds  bool
	Detail string // why it does not hold, or how it does
}

// PluginUsage is what a plugin did and used since the server started.
type PluginUsage struct {
	Calls        uint64        // that ended, whatever came of them
	Failures     uint64        // of them that answered with an error, crashed, or answered nonsense
	Kills        uint64        // times that a runner had to be killed
	Starts       uint64        // times that a runner was started
	Running      int           // calls under way
	Runners      int           // processes
	Latency      time.Duration // of all calls together
	CPU          time.Duration // processor time of all its processes, ended ones included
	Memory       int64         // resident bytes of its processes
	BytesRead    uint64        // from the network
	BytesWritten uint64
	Denied       uint64 // connections that were refused
}

// PluginInstall is how a plugin is to be installed.
type PluginInstall struct {
	Grant        bool // all that the manifest asks for
	AllowPrivate bool // with Grant: what the manifest names may be loopback or private
	By           string
}

// PluginDecision is what an operator grants.
type PluginDecision struct {
	Permissions  []string // nil: all that the manifest asks for
	AllowPrivate bool
	By           string
}
