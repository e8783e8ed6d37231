package confine

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces says which namespaces of its own a child can be given on this system. The zero value gives none.
type Namespaces struct {
	flags uintptr
}

const (
	ownNamespaces  = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	userNamespaces = ownNamespaces | unix.CLONE_NEWUSER // for those who may make none but in a user namespace of their own
)

// Probe tries what this process may give its children, which takes about a millisecond. Call it once.
func Probe() Namespaces {
	for _, flags := range []uintptr{ownNamespaces, userNamespaces} {
		n := Namespaces{flags: flags}
		attr := &syscall.SysProcAttr{}
		n.Prepare(attr)
		// There is no such program, so all that can succeed is what comes before executing it.
		_, err := syscall.ForkExec("/dev/null/none", []string{"none"}, &syscall.ProcAttr{Sys: attr})
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) {
			return n
		}
	}
	return Namespaces{}
}

// Prepare sets what only the parent can set about a child: a process group of its own, its death together with the thread
// that started it, and its namespaces.
func (n Namespaces) Prepare(attr *syscall.SysProcAttr) {
	attr.Setpgid = true
	attr.Pdeathsig = syscall.SIGKILL
	attr.Cloneflags |= n.flags
	if n.flags&unix.CLONE_NEWUSER != 0 {
		// The child is in there who it is outside, and no more: execve leaves it none of a new namespace's capabilities
		// unless it is root, and from that one Apply takes them.
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
}

// String says what a child gets.
func (n Namespaces) String() string {
	switch {
	case n.flags == 0:
		return "no namespaces of its own"
	case n.flags&unix.CLONE_NEWUSER != 0:
		return "its own network, IPC, host name and user namespace"
	}
	return "its own network, IPC and host name namespace"
}
