package check

import "syscall"

// widen asks for a receive buffer that holds the replies of thousands of checks: what does not fit would count as lost on
// the way. A process with the right to go past the system's limit does; any other gets as much as the limit allows.
func widen(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		if set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, echoBuffer); set != nil {
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, echoBuffer)
		}
	}); err != nil {
		return err
	}
	return set
}
