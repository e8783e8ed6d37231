package process

import (
	"math"
	"os"
	"os/exec"
	"syscall"
)

const unixSockets = false

const maxSocketDir = math.MaxInt

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
}

// killGroup ends the process alone; there are no groups to signal.
// mainThread matters on Linux alone.
func mainThread() bool { return false }

func killGroup(p *os.Process) {
	_ = p.Kill() // it fails only when the process has ended
}

func reap(cmd *exec.Cmd, ended func()) error {
	err := cmd.Wait()
	ended()
	return err
}
