package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// auditArch is the number by which a filter knows the architecture that a call is made for, and x32 the bit that marks calls
// of the third of a kernel for amd64. Only architectures whose list of calls was tried are here.
func auditArch(goarch string) (number uint32, x32, ok bool) {
	switch goarch {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, true, true
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, false, true
	}
	return 0, false, false
}

// filterSyscalls leaves the process the system calls that it needs; all others fail with EPERM, or with ENOSYS where Go then
// takes another way. A call in the fashion of another architecture, whose numbers mean something else, kills the process.
func filterSyscalls(p Policy) (holds bool, detail string) {
	policy := syscallPolicy(len(p.Write) > 0, unix.Getpid(), runtime.GOARCH)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, fmt.Sprintf("set no_new_privs: %v", err)
	}
	if err := install(policy); err != nil {
		return false, err.Error()
	}
	n := 0
	for _, g := range policy.Syscalls {
		if g.Action == seccomp.ActionAllow {
			n += len(g.Names)
			seen := map[string]bool{}
			for _, c := range g.NamesWithCondtions {
				seen[c.Name] = true
			}
			n += len(seen)
		}
	}
	return true, fmt.Sprintf("%d system calls are left", n)
}

// install makes a filter of a policy and puts it on all threads, besides those that are there.
func install(policy seccomp.Policy) error {
	arch, x32, ok := auditArch(runtime.GOARCH)
	if !ok {
		return fmt.Errorf("there is no list of system calls for %s", runtime.GOARCH)
	}
	instructions, err := policy.Assemble()
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	filter := guard(arch, x32)
	for _, in := range instructions {
		raw, err := in.Assemble()
		if err != nil {
			return fmt.Errorf("assemble the filter: %w", err)
		}
		filter = append(filter, unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K})
	}
	return load(filter)
}

// guard are the instructions that stand before all others: see struct seccomp_data in linux/seccomp.h, where the number of the
// call is at offset 0 and the architecture at 4.
func guard(arch uint32, x32 bool) []unix.SockFilter {
	const (
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		answer  = unix.BPF_RET | unix.BPF_K
	)
	kill := unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_KILL_PROCESS}
	g := []unix.SockFilter{{Code: load, K: 4}, {Code: equal, Jt: 1, K: arch}, kill}
	if x32 {
		g = append(g, unix.SockFilter{Code: load, K: 0}, unix.SockFilter{Code: atLeast, Jf: 1, K: 0x40000000}, kill)
	}
	return g
}

// load puts the filter on all threads. It needs no_new_privs on the thread that it is called on. The library's own way to load does not look at the number that the
// kernel returns when there is a thread that it could not put the filter on.
func load(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return fmt.Errorf("load the filter: %w", e)
	}
	if thread != 0 {
		return fmt.Errorf("load the filter: thread %d did not take it", thread)
	}
	return nil
}
