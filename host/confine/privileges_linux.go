package confine

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cgo reports whether the program was built with cgo: the runtime then does not know all threads, and a setting of a thread
// cannot be made on every one.
func cgo() bool {
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	return e == syscall.ENOTSUP
}

const cgoDetail = "built with cgo: settings would not reach all threads; build with CGO_ENABLED=0"

// onAllThreads makes a system call on every thread. One that starts later inherits from the one that started it.
func onAllThreads(number uintptr, args ...uintptr) error {
	var a [3]uintptr
	copy(a[:], args)
	if _, _, e := syscall.AllThreadsSyscall6(number, a[0], a[1], a[2], 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

type capabilities struct {
	header unix.CapUserHeader
	data   [2]unix.CapUserData
}

func (c *capabilities) get() error {
	c.header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return unix.Capget(&c.header, &c.data[0])
}

// dropPrivileges takes what root has over others, and every way to get something back.
func dropPrivileges() (holds bool, detail string) {
	var c capabilities
	steps := []struct {
		what string
		do   func() error
	}{
		{"set no_new_privs", func() error { return onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1) }},
		{"read the capabilities", c.get},
		{"drop the bounding set", func() error {
			if c.data[0].Effective&(1<<unix.CAP_SETPCAP) == 0 {
				return nil // it cannot; and with no_new_privs no program gives it anything out of this set
			}
			for n := uintptr(0); ; n++ {
				has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
				if err != nil {
					return nil //nolint:nilerr // past the last one that the system knows
				}
				if has == 0 {
					continue
				}
				if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n); err != nil {
					return fmt.Errorf("capability %d: %w", n, err)
				}
			}
		}},
		{"clear the ambient set", func() error {
			return onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
		}},
		{"drop the capabilities", func() error {
			none := capabilities{header: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}
			_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
				uintptr(unsafe.Pointer(&none.header)), uintptr(unsafe.Pointer(&none.data[0])), 0)
			if e != 0 {
				return e
			}
			return nil
		}},
		{"set not dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
		{"look at them again", func() error {
			if err := c.get(); err != nil {
				return err
			}
			if c.data != [2]unix.CapUserData{} {
				return fmt.Errorf("capabilities are left: %+v", c.data)
			}
			if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 1 {
				return fmt.Errorf("no_new_privs is %d: %w", n, err)
			}
			if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 0 {
				return fmt.Errorf("dumpable is %d: %w", n, err)
			}
			return nil
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return false, fmt.Sprintf("%s: %v", s.what, err)
		}
	}
	return true, "no capabilities, and no way to new ones"
}
