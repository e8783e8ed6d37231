//go:build unix && !linux

package process

import (
	"os"
	"os/exec"
	"syscall"
)

const unixSockets = true

// maxSocketDir is how long the name of the folder of sockets may be; sun_path of the BSDs is the shorter one.
const maxSocketDir = 103 - len("/plugin-dir4294967295/plugin4294967295")

// ownGroup puts a process into a group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// mainThread matters on Linux alone.
func mainThread() bool { return false }

func killGroup(p *os.Process) {
	// It can only fail when nothing of the group is left.
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
}

// reap waits for the process. Its number could be another's by the time that ended is called, which needs that all numbers
// were given out in the meantime.
func reap(cmd *exec.Cmd, ended func()) error {
	err := cmd.Wait()
	ended()
	return err
}
