package confine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An attempt is one try to do what must not be possible. It gives nil when it was.
type attempt struct {
	what string
	err  error
}

// refused reports whether the system said no, rather than that there is nothing to say no to.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// judge proves a layer: nothing may have succeeded, and something must have been refused.
func judge(attempts []attempt) (holds, succeeded bool, detail string) {
	var said []string
	for _, a := range attempts {
		switch {
		case a.err == nil:
			return false, true, a.what + ": it can"
		case refused(a.err):
			holds = true
		}
		said = append(said, fmt.Sprintf("%s: %v", a.what, a.err))
	}
	return holds, false, strings.Join(said, "; ")
}

// noSockets tries to make sockets of every kind that leads somewhere. It is not enough that they would be of an empty network
// namespace: a Unix socket finds files, whatever its namespace, and a kernel is attacked through sockets that lead nowhere.
func noSockets() []attempt {
	var all []attempt
	for _, s := range []struct {
		what             string
		domain, sort, ip int
	}{
		{"IPv4", unix.AF_INET, unix.SOCK_STREAM, 0},
		{"IPv6", unix.AF_INET6, unix.SOCK_DGRAM, 0},
		{"Unix", unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{"netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0},
		{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	} {
		fd, err := unix.Socket(s.domain, s.sort|unix.SOCK_CLOEXEC, s.ip)
		if err == nil {
			_ = unix.Close(fd) // it should not be there at all
		}
		all = append(all, attempt{s.what, err})
	}
	return all
}

// noFiles tries to open files that everyone may read, and that the parent may.
func noFiles(parent int) []attempt {
	var all []attempt
	for _, path := range []string{"/", "/etc/passwd", "/proc/self/status", fmt.Sprintf("/proc/%d/environ", parent)} {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd) // it should not be there at all
		}
		all = append(all, attempt{"open " + path, err})
	}
	return all
}

// sealed tries what only loading code needed: to open what the policy leaves, to look at a file, and to make code.
func sealed(p Policy, parent int) []attempt {
	all := noFiles(parent)
	for _, path := range p.Read {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd) // it should not be there at all
		}
		all = append(all, attempt{"open " + path, err})
	}
	var stat unix.Stat_t
	all = append(all, attempt{"look at /", unix.Fstatat(unix.AT_FDCWD, "/", &stat, 0)})
	for _, way := range []struct {
		what  string
		first int // how it is mapped
	}{{"map code", unix.PROT_READ | unix.PROT_EXEC}, {"make code of data", unix.PROT_READ | unix.PROT_WRITE}} {
		page, err := unix.Mmap(-1, 0, os.Getpagesize(), way.first, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			err = unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC)
			_ = unix.Munmap(page) // a page that stays harms nobody
		}
		all = append(all, attempt{way.what, err})
	}
	return all
}

// noPrograms tries to execute. The first try names no program, so it fails in any case, and differently when it was looked
// at: where that is refused nothing else needs to be tried.
func noPrograms() []attempt {
	empty := []byte{0}
	_, _, e := unix.Syscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(&empty[0])), 0, 0)
	if refused(e) {
		return []attempt{{"execute", e}}
	}
	var all []attempt
	for _, path := range []string{"/bin/true", "/usr/bin/true", "/proc/self/exe"} {
		pid, err := syscall.ForkExec(path, []string{"true", "-h"}, &syscall.ProcAttr{})
		if err == nil {
			err = reap(pid)
		}
		all = append(all, attempt{"execute " + path, err})
		if err == nil || refused(err) { // the program itself is only tried where there is no other
			break
		}
	}
	return all
}

// reap ends a program that could be started after all.
func reap(pid int) error {
	// It may have ended already; and whether it did is what waiting tells.
	_ = unix.Kill(pid, unix.SIGKILL)
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			return nil
		}
	}
}

// noSignals tries to signal the parent, with signals that do nothing to one that runs.
func noSignals(parent int) []attempt {
	if parent < 1 { // it is in another namespace of processes, and 0 would mean ourselves
		return []attempt{{"look for the first process", unix.Kill(1, 0)}}
	}
	return []attempt{
		{"look for the parent", unix.Kill(parent, 0)},
		{"signal the parent", unix.Kill(parent, unix.SIGCONT)},
		{"signal its thread", unix.Tgkill(parent, parent, 0)},
	}
}

// prove tries from inside what the layers promise. A layer that was put up and lets through what it is there for is not one.
func prove(b *builder, parent int) {
	for _, p := range []struct {
		layer, by string
		attempts  func() []attempt
	}{
		{LayerNoSockets, LayerSeccomp, noSockets},
		{LayerNoFiles, LayerLandlock, func() []attempt { return noFiles(parent) }},
		{LayerNoPrograms, LayerSeccomp, noPrograms},
		{LayerNoSignals, LayerSeccomp, func() []attempt { return noSignals(parent) }},
	} {
		b.add(p.layer, func() (bool, string) {
			holds, succeeded, detail := judge(p.attempts())
			if succeeded {
				b.revoke(p.by, "it was put up, but "+detail)
			}
			return holds, detail
		})
	}
}
