//go:build !linux

package runner

import "runtime/debug"

type span struct{}

func programPages() []span { return nil }

// trim gives back the memory that only the start needed.
func trim([]span) { debug.FreeOSMemory() }
