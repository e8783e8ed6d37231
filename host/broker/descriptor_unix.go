//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package broker

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// pair makes two connected stream sockets, closed on exec until a child is given the second.
func pair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	child := os.NewFile(uintptr(fds[1]), "broker")
	sock, err := streamSocket(os.NewFile(uintptr(fds[0]), "broker"))
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return sock, child, nil
}

// rights is the control message that carries a descriptor.
func rights(fd int) []byte { return syscall.UnixRights(fd) }

// received takes the one descriptor, if any, out of the control messages that a read got. When there are more, all are
// closed. There is none, too, when this process has no room for one more: the system then drops it. The net package has
// marked it to be closed on exec.
func received(oob []byte, flags int) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: its control message: %w", ErrProtocol, err)
	}
	var fds []int
	for i := range messages {
		more, err := syscall.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, more...)
		}
	}
	if len(fds) > 1 || len(fds) == 1 && flags&syscall.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
		return nil, fmt.Errorf("%w: more than one descriptor came with it", ErrProtocol)
	}
	if len(fds) == 0 {
		return nil, nil
	}
	return os.NewFile(uintptr(fds[0]), "brokered"), nil
}
