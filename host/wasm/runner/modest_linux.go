package runner

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// niceness is that of a child; the server has 0. Where both want a processor, a child gets about a tenth.
const niceness = 10

// standBack has the system give the processor to the server first. It comes before the wall, which sees to memory. Whatever
// the system refuses it says in the error.
func standBack() error {
	// Priorities are of threads. A child leads a process group of its own, so all of its threads are meant, and nobody else.
	if unix.Getpgrp() == os.Getpid() {
		if err := unix.Setpriority(unix.PRIO_PGRP, 0, niceness); err != nil {
			return fmt.Errorf("lower the priority: %w", err)
		}
	}
	return nil
}
