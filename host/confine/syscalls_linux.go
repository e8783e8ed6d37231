package confine

import (
	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// The system calls that are left, for every argument. Whoever adds one says here who needs it.
var (
	// The Go runtime: memory, threads, signals to itself, time, the poller; and in a shared way all the rest.
	runtimeCalls = [...]string{
		"futex", "nanosleep", "clock_nanosleep", "clock_gettime", "sched_yield", "sched_getaffinity", "getrandom",
		"munmap", "madvise", "mincore", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
		"gettid", "getpid", "getppid", "exit", "exit_group", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2",
	}
	// Descriptors that are open: the gRPC socket, connections that the server passed, a module, a snapshot.
	descriptorCalls = [...]string{
		"read", "write", "writev", "pread64", "pwrite64", "lseek", "close", "fstat", "ftruncate",
		"accept4", "recvmsg", "shutdown", "getsockname", "getpeername",
	}
	// The snapshot of a guest's memory.
	snapshotCalls = [...]string{"memfd_create"}
	// Writing files: the compiler's. Where, Landlock says; so there is none among them that it does not look at, such as chmod.
	writingCalls = [...]string{
		"openat", "mkdirat", "unlinkat", "renameat", "renameat2", "fsync", "fdatasync", "getdents64",
	}
	// Calls that fail as if the kernel were too old for them: Go, and its libraries, then take another way.
	absentCalls = [...]string{
		"clone3", "openat2", "statx", "faccessat2", "close_range", "splice", "sendfile", "copy_file_range", "rseq",
	}
)

const (
	// goThread is what Go's runtime asks of clone: a thread that shares everything (runtime/os_linux.go).
	goThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	// notReading are the flags of open of which none may be given where nothing may be written. O_TMPFILE is named by its own
	// bit: unix.O_TMPFILE has that of O_DIRECTORY as well. O_PATH would get past Landlock, though only to a name.
	notReading = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND | unix.O_TMPFILE&^unix.O_DIRECTORY | unix.O_PATH
	absent     = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
)

// when allows a call whose arguments are as given.
func when(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: conditions}
}

func is(argument uint32, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.Equal, Value: value}
}

func without(argument uint32, bits uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.BitsNotSet, Value: bits}
}

// each allows a call for every one of some values of an argument, with the other conditions.
func each(name string, argument uint32, values []uint64, conditions ...seccomp.Condition) []seccomp.NameWithConditions {
	var all []seccomp.NameWithConditions
	for _, v := range values {
		all = append(all, when(name, append(conditions[:len(conditions):len(conditions)], is(argument, v))...))
	}
	return all
}

// syscallPolicy is the list of what is left: the runner's, and for the compiler, which writes, with some more.
func syscallPolicy(writes bool, pid int, goarch string) seccomp.Policy {
	names := append(append(runtimeCalls[:], descriptorCalls[:]...), snapshotCalls[:]...)
	names = append(names, fstatat(goarch))
	limited := []seccomp.NameWithConditions{
		// Memory is written or executed, never both at once: wazero writes its code and then makes it executable.
		when("mmap", without(2, unix.PROT_WRITE)), when("mmap", without(2, unix.PROT_EXEC)),
		when("mprotect", without(2, unix.PROT_WRITE)), when("mprotect", without(2, unix.PROT_EXEC)),
		// New threads, and nothing else that clone makes.
		when("clone", is(0, goThread)), when("clone", is(0, goThread|unix.CLONE_SETTLS)),
		// Go's preemption signals threads of its own process.
		when("tgkill", is(0, uint64(pid))),
		// Go names its mappings.
		when("prctl", is(0, unix.PR_SET_VMA), is(1, unix.PR_SET_VMA_ANON_NAME)),
	}
	// F_SETOWN, which makes the kernel send signals to others, is not among these.
	limited = append(limited, each("fcntl", 1, []uint64{
		unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_ADD_SEALS, unix.F_GET_SEALS,
	})...)
	// What Go's net package asks and sets on a connection that was handed to it.
	limited = append(limited, each("getsockopt", 2, []uint64{
		unix.SO_TYPE, unix.SO_ERROR, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ACCEPTCONN, unix.SO_SNDBUF, unix.SO_RCVBUF,
	}, is(1, unix.SOL_SOCKET))...)
	limited = append(limited, each("setsockopt", 2, []uint64{
		unix.SO_KEEPALIVE, unix.SO_LINGER, unix.SO_SNDBUF, unix.SO_RCVBUF,
	}, is(1, unix.SOL_SOCKET))...)
	limited = append(limited, each("setsockopt", 2, []uint64{
		unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT,
	}, is(1, unix.IPPROTO_TCP))...)
	if writes {
		names = append(names, writingCalls[:]...)
	} else {
		limited = append(limited, when("openat", without(2, notReading)),
			// Seal puts one more filter on all threads, which can only take away, and then this call too.
			when("seccomp", is(0, unix.SECCOMP_SET_MODE_FILTER), is(1, unix.SECCOMP_FILTER_FLAG_TSYNC)))
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: limited},
			{Action: absent, Names: absentCalls[:]},
		},
	}
}

// fstatat is the name of the call that looks at a file by its path. Landlock knows nothing of it.
func fstatat(goarch string) string {
	if goarch == "arm64" {
		return "fstatat"
	}
	return "newfstatat"
}

// sealPolicy is what is taken away when the code is loaded.
func sealPolicy(goarch string) seccomp.Policy {
	executable := seccomp.Condition{Argument: 2, Operation: seccomp.BitsSet, Value: unix.PROT_EXEC}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{
			Action:             seccomp.ActionErrno,
			Names:              []string{"openat", fstatat(goarch), "seccomp"},
			NamesWithCondtions: []seccomp.NameWithConditions{when("mmap", executable), when("mprotect", executable)},
		}},
	}
}
