package runner

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	niceness = 10  // of a child; the server has 0. Where both want a processor, a child gets about a tenth.
	oomScore = 500 // of 1000, added to what a child's memory makes; see proc(5), oom_score_adj
)

// standBack has the system prefer the server: it gets the processor first, and when memory runs out a child ends and not the
// server. It comes before the wall. Whatever the system refuses it says in the error.
func standBack() error {
	// Priorities are of threads. A child leads a process group of its own, so all of its threads are meant, and nobody else.
	if unix.Getpgrp() == os.Getpid() {
		if err := unix.Setpriority(unix.PRIO_PGRP, 0, niceness); err != nil {
			return fmt.Errorf("lower the priority: %w", err)
		}
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, oomScore), 0); err != nil {
		return fmt.Errorf("offer to end first when memory runs out: %w", err)
	}
	return nil
}
