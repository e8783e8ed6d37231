//go:build !linux && !darwin && !netbsd && !openbsd

package confine

import "runtime"

// setLimits can do nothing on this system.
func setLimits(Policy) (holds bool, detail string) { return false, "not on " + runtime.GOOS }
