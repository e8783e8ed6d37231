package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces says which namespaces of its own a child can be given on this system. The zero value gives none.
type Namespaces struct {
	flags    uintptr
	byThread bool
}

const (
	ownNamespaces  = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	userNamespaces = ownNamespaces | unix.CLONE_NEWUSER // for those who may make none but in a user namespace of their own
)

// Probe tries what this process may give its children, which takes about a millisecond. Call it once.
func Probe() Namespaces {
	direct := Namespaces{flags: ownNamespaces, byThread: true}
	if onThread(direct.Enter) == nil {
		direct.byThread = false
		return direct
	}
	n := Namespaces{flags: userNamespaces}
	attr := &syscall.SysProcAttr{}
	n.Prepare(attr)
	// There is no such program, so all that can succeed is what comes before executing it.
	_, err := syscall.ForkExec("/dev/null/none", []string{"none"}, &syscall.ProcAttr{Sys: attr})
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) {
		return n
	}
	return Namespaces{}
}

// onThread calls f on a thread that ends afterwards. It is not the first one of the process, which the system shows as the
// whole of it.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			result <- f()
			return
		}
		result <- onThread(f) // while this goroutine holds the first thread, the next one gets another
		runtime.UnlockOSThread()
	}()
	return <-result
}

// ByThread has Enter give the namespaces to a thread, which its children inherit, where the system lets it. The kernel can take
// seconds to make a network namespace while others end. In the middle of a fork, Go's runtime waits for it, and with the
// runtime every goroutine of this process; in Enter nobody waits but the thread.
func (n Namespaces) ByThread() Namespaces {
	n.byThread = n.flags != 0 && n.flags&unix.CLONE_NEWUSER == 0
	return n
}

// Enter gives the calling thread namespaces of its own when ByThread was asked for and this system lets a thread have them;
// else it does nothing, as Prepare does it. The goroutine must be locked to its thread for ever.
func (n Namespaces) Enter() error {
	if !n.byThread {
		return nil
	}
	if err := unix.Unshare(int(n.flags)); err != nil {
		return fmt.Errorf("make the namespaces of a child: %w", err)
	}
	return nil
}

// Prepare sets what only the parent can set about a child: a process group of its own, its death together with the thread
// that started it, and its namespaces unless the thread has them already.
func (n Namespaces) Prepare(attr *syscall.SysProcAttr) {
	attr.Setpgid = true
	attr.Pdeathsig = syscall.SIGKILL
	switch {
	case n.byThread:
	case n.flags&unix.CLONE_NEWUSER != 0:
		// The child makes all but the first itself, when the fork is over; see ByThread.
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.Unshareflags |= n.flags &^ unix.CLONE_NEWUSER
		// The child is in there who it is outside, and no more: execve leaves it none of a new namespace's capabilities
		// unless it is root, and from that one Apply takes them.
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	default:
		attr.Cloneflags |= n.flags
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
