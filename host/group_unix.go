//go:build !windows

package host

import (
	"os"
	"syscall"
)

// killGroup ends a process and all that it started; it was started as the first of a group.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
