// Package check makes checks: the kinds that are built in, one file each, and the registry through which the engine, the
// services and the command line find them.
package check

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Checker makes the checks of one monitor. A target that is down is a Result. An error means that the check could not be
// made: it is recorded as unknown and never opens an outage.
type Checker interface {
	Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error)
}

// Passive is a Checker that is told what it would have asked: a heartbeat. The engine does not call its Check. It takes
// beats for its token and, when none has come for the monitor's interval and the grace time, records what Missed returns.
type Passive interface {
	Checker
	// Token is the secret part of the address that beats are sent to.
	Token() string
	// Grace is how long after the interval a beat may still come.
	Grace() time.Duration
	// Missed returns the result for a beat that did not come; since is the time of the last beat, zero when none is known.
	Missed(since, now time.Time) sdk.Result
	// Beat returns a beat's result with the monitor's expressions applied: one that is up can become degraded or down.
	Beat(result sdk.Result) sdk.Result
}

// Spec is the part of a monitor that decides how it is checked.
type Spec struct {
	Kind    string
	Target  string
	Config  json.RawMessage // nil is the kind's defaults
	Assert  []string
	Degrade []string
	Timeout time.Duration // of a check; a config that cannot be gone through in it is a fault. 0: that is not looked at
}
