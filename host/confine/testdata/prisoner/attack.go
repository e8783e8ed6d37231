package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call makes a system call whose arguments are numbers, strings and byte slices. A descriptor that it gives is left open.
func call(number uintptr, args ...any) func() error {
	return func() error {
		_, err := raw(number, args...)
		return err
	}
}

func raw(number uintptr, args ...any) (uintptr, error) {
	var a [6]uintptr
	keep := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			b := append([]byte(v), 0)
			a[i], keep[i] = uintptr(unsafe.Pointer(&b[0])), b
		case []byte:
			a[i], keep[i] = uintptr(unsafe.Pointer(&v[0])), v
		case int:
			a[i] = uintptr(v)
		case unsafe.Pointer:
			a[i] = uintptr(v)
		default:
			panic(fmt.Sprintf("argument %T", arg))
		}
	}
	r, _, e := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	for _, k := range keep {
		_ = k
	}
	if e != 0 {
		return r, e
	}
	return r, nil
}

const at = unix.AT_FDCWD

// bytes for the kernel to read or to write to.
func room() []byte { return make([]byte, 4096) }

// attack tries everything that must not be possible. What could do harm where it is, or could not be survived, is tried only
// by the reckless.
func attack(job Job, list *[]Attempt) {
	do := func(name string, f func() error) { try(list, name, f) }
	wild := func(name string, f func() error) {
		if job.Reckless {
			do(name, f)
		}
	}
	ppid, pid := os.Getppid(), os.Getpid()
	sockets(job, do)
	files(job, ppid, do, wild)
	programs(do, wild)
	processes(ppid, pid, do, wild)
	system(do, wild)
	old(do, wild)
	if job.Seal {
		loading(job, do)
	}
}

// loading is what a process that loads its code may, and a sealed one may not.
func loading(job Job, do func(string, func() error)) {
	for _, name := range []string{"file", "folder", "folder/inside"} {
		do("sealed: open "+name, call(unix.SYS_OPENAT, at, filepath.Join(job.Dir, name), unix.O_RDONLY, 0))
	}
	do("sealed: look at a file", func() error {
		var stat unix.Stat_t
		return unix.Fstatat(at, job.Dir+"/secret", &stat, 0)
	})
	do("sealed: look at a descriptor by path", func() error {
		var stat unix.Stat_t
		return unix.Fstatat(0, "", &stat, unix.AT_EMPTY_PATH)
	})
	do("sealed: map code", func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	})
	do("sealed: map code of a file in memory", func() error {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, 4096); err != nil {
			return err
		}
		_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		return err
	})
	do("sealed: make code of data", func() error {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
	})
	do("sealed: make code writable", func() error {
		// The page of a function is mapped from the program, so that a copy of it would be this process's alone.
		page := reflect.ValueOf(loading).Pointer() &^ 4095
		return call(unix.SYS_MPROTECT, int(page), 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC)()
	})
	do("sealed: one more filter", func() error {
		code := []unix.SockFilter{{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}}
		prog := unix.SockFprog{Len: 1, Filter: &code[0]}
		return call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, unsafe.Pointer(&prog))()
	})
	do("sealed: a filter that asks", func() error {
		code := []unix.SockFilter{{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}}
		prog := unix.SockFprog{Len: 1, Filter: &code[0]}
		return call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, unsafe.Pointer(&prog))()
	})
}

func sockets(job Job, do func(string, func() error)) {
	for family := range 46 {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW} {
			do(fmt.Sprintf("socket family %d type %d", family, kind), call(unix.SYS_SOCKET, family, kind, 0))
		}
	}
	do("MPTCP socket", call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 262))
	do("socketpair", call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, room()))
	do("sendto over the inherited socket", call(unix.SYS_SENDTO, 3, "x", 0, 0, 0, 0))
	do("connect the inherited socket", call(unix.SYS_CONNECT, 3, append([]byte{1, 0}, job.Sockets+"/s\x00"...), 2+len(job.Sockets)+3))
	do("bind the inherited socket", call(unix.SYS_BIND, 3, append([]byte{1, 0}, job.Sockets+"/x\x00"...), 2+len(job.Sockets)+3))
	do("listen on the inherited socket", call(unix.SYS_LISTEN, 3, 1))
	do("pass a descriptor out", func() error { return unix.Sendmsg(3, []byte{1}, unix.UnixRights(0), nil, 0) })
	do("sendmmsg", call(unix.SYS_SENDMMSG, 3, room(), 1, 0))
	do("recvfrom", call(unix.SYS_RECVFROM, 3, room(), 1, unix.MSG_DONTWAIT, 0, 0))
	do("attach a filter to a socket", func() error {
		code := []unix.SockFilter{{Code: 6, K: 1}}
		prog := unix.SockFprog{Len: 1, Filter: &code[0]}
		return unix.SetsockoptSockFprog(3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	})
	do("SO_MARK", func() error { return unix.SetsockoptInt(3, unix.SOL_SOCKET, unix.SO_MARK, 1) })
	do("SO_BINDTODEVICE", func() error { return unix.BindToDevice(3, "lo") })
	do("the peer's pidfd", func() error { _, err := unix.GetsockoptInt(3, unix.SOL_SOCKET, 77); return err })
	do("the peer's credentials", func() error { _, err := unix.GetsockoptUcred(3, unix.SOL_SOCKET, unix.SO_PEERCRED); return err })
	do("list the interfaces", call(unix.SYS_IOCTL, 3, unix.SIOCGIFCONF, room()))
	do("how much is there to read", call(unix.SYS_IOCTL, 3, unix.TIOCINQ, room()))
}

func files(job Job, ppid int, do, wild func(string, func() error)) {
	p := "/proc/" + strconv.Itoa(ppid)
	for _, path := range []string{
		"/", "/etc/passwd", "/etc/shadow", "/etc/hostname", "/root", "/root/.ssh", "/home", "/tmp", "/var", "/boot", "/run", "/usr/bin", "/bin/true",
		"/proc", "/proc/1/environ", "/proc/1/mem", "/proc/self/mem", "/proc/self/environ", "/proc/self/maps", "/proc/self/status", "/proc/self/fd",
		"/proc/self/exe", "/proc/self/root/etc/passwd", "/proc/self/cwd", "/proc/self/ns/net", "/proc/self/attr/current", "/proc/version", "/proc/kallsyms",
		p + "/environ", p + "/mem", p + "/maps", p + "/cmdline", p + "/root", p + "/cwd", p + "/fd/0", p + "/ns/net", p + "/root/etc/passwd",
		"/proc/net/tcp", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/kcore", "/sys", "/sys/kernel", "/sys/class/net",
		"/dev", "/dev/mem", "/dev/kmsg", "/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx", "/dev/shm", "/dev/kvm", "/dev/net/tun", "/dev/fuse", "/dev/urandom",
		job.Dir, job.Dir + "/secret", job.Dir + "/folder/link", job.Dir + "/folder/../secret", job.Dir + "/writable/../secret", "/proc/self/root" + job.Dir + "/secret",
		job.Sockets, job.Sockets + "/s",
	} {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			continue // not in this system; what is not there is no attempt
		}
		do("open "+path, call(unix.SYS_OPENAT, at, path, unix.O_RDONLY|unix.O_NONBLOCK, 0))
		do("open for writing "+path, call(unix.SYS_OPENAT, at, path, unix.O_WRONLY|unix.O_NONBLOCK, 0))
	}
	do("the leaked descriptor", call(unix.SYS_PREAD64, 77, room(), 10, 0))
	do("open with O_PATH", call(unix.SYS_OPENAT, at, "/etc", unix.O_PATH, 0))
	do("openat2", call(unix.SYS_OPENAT2, at, "/etc/passwd", room()[:24], 24))
	do("name_to_handle_at", call(unix.SYS_NAME_TO_HANDLE_AT, at, "/etc/passwd", append([]byte{128, 0, 0, 0}, room()...), room(), 0))
	do("open_by_handle_at", call(unix.SYS_OPEN_BY_HANDLE_AT, at, room(), 0))
	dirs := []string{job.Dir, job.Dir + "/folder", job.Sockets}
	if job.Reckless {
		dirs = append(dirs, "/tmp", "/dev/shm", "/", "/etc", "/var/tmp", "/proc/self")
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		x := dir + "/tocsin-prisoner"
		do("create in "+dir, call(unix.SYS_OPENAT, at, x, unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o600))
		do("create without a name in "+dir, call(unix.SYS_OPENAT, at, dir, unix.O_TMPFILE|unix.O_RDWR, 0o600))
		do("mkdir in "+dir, call(unix.SYS_MKDIRAT, at, x+"d", 0o700))
		do("mknod in "+dir, call(unix.SYS_MKNODAT, at, x+"n", unix.S_IFIFO|0o600, 0))
		do("symlink in "+dir, call(unix.SYS_SYMLINKAT, "/etc/passwd", at, x+"l"))
		do("link in "+dir, call(unix.SYS_LINKAT, at, job.Dir+"/file", at, x+"h", 0))
	}
	for _, name := range []string{"file", "folder/inside", "secret"} {
		f := filepath.Join(job.Dir, name)
		do("write "+name, call(unix.SYS_OPENAT, at, f, unix.O_WRONLY, 0))
		do("read and write "+name, call(unix.SYS_OPENAT, at, f, unix.O_RDWR, 0))
		do("append to "+name, call(unix.SYS_OPENAT, at, f, unix.O_RDONLY|unix.O_APPEND|unix.O_TRUNC, 0))
		do("truncate "+name, call(unix.SYS_TRUNCATE, f, 1))
		do("rename "+name, call(unix.SYS_RENAMEAT2, at, f, at, f+".x", 0))
		do("unlink "+name, call(unix.SYS_UNLINKAT, at, f+".x", 0))
		do("chmod "+name, call(unix.SYS_FCHMODAT, at, f, 0o777))
		do("chown "+name, call(unix.SYS_FCHOWNAT, at, f, os.Getuid(), os.Getgid(), 0))
		do("touch "+name, call(unix.SYS_UTIMENSAT, at, f, 0, 0))
		do("setxattr "+name, call(unix.SYS_SETXATTR, f, "user.x", "x", 1, 0))
		do("getxattr "+name, call(unix.SYS_GETXATTR, f, "security.selinux", room(), 10))
		do("access "+name, call(unix.SYS_FACCESSAT, at, f, unix.R_OK))
	}
	do("readlink", call(unix.SYS_READLINKAT, at, "/proc/self/exe", room(), 4096))
	do("statx", call(unix.SYS_STATX, at, "/etc/passwd", 0, 0xfff, room()))
	do("statfs", call(unix.SYS_STATFS, "/", room()))
	do("getcwd", call(unix.SYS_GETCWD, room(), 4096))
	do("chdir", call(unix.SYS_CHDIR, "/"))
	wild("chroot", call(unix.SYS_CHROOT, "/tmp"))
	do("inotify", call(unix.SYS_INOTIFY_INIT1, 0))
	do("fanotify", call(unix.SYS_FANOTIFY_INIT, 0, 0))
	do("flock", call(unix.SYS_FLOCK, 0, unix.LOCK_SH))
	for _, c := range []struct {
		name     string
		cmd, arg int
	}{
		{"F_SETOWN of the parent", unix.F_SETOWN, ppid},
		{"F_SETSIG", unix.F_SETSIG, 9},
		{"F_SETLEASE", unix.F_SETLEASE, unix.F_RDLCK},
		{"F_DUPFD without close-on-exec", unix.F_DUPFD, 10},
		{"F_SETPIPE_SZ", unix.F_SETPIPE_SZ, 1 << 20},
		{"F_GETOWN", unix.F_GETOWN, 0},
	} {
		do("fcntl "+c.name, call(unix.SYS_FCNTL, 4, c.cmd, c.arg))
	}
	do("more descriptors than allowed", func() error {
		var open []uintptr
		defer func() {
			for _, fd := range open {
				unix.Close(int(fd))
			}
		}()
		for range 600 {
			fd, err := raw(unix.SYS_FCNTL, 4, unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return errors.Join(err, unix.EPERM) // in the words of the others
			}
			open = append(open, fd)
		}
		return nil
	})
	do("ioctl TIOCSTI", call(unix.SYS_IOCTL, 0, unix.TIOCSTI, "x"))
	do("splice", call(unix.SYS_SPLICE, 4, 0, 1, 0, 1, unix.SPLICE_F_NONBLOCK))
	do("sendfile", call(unix.SYS_SENDFILE, 1, 4, 0, 1))
	do("tee", call(unix.SYS_TEE, 4, 1, 1, unix.SPLICE_F_NONBLOCK))
	do("vmsplice", call(unix.SYS_VMSPLICE, 1, room(), 1, 0))
	do("pipe", call(unix.SYS_PIPE2, room(), 0))
	do("io_setup", call(unix.SYS_IO_SETUP, 1, room()))
	do("fadvise", call(unix.SYS_FADVISE64, 0, 0, 0, 0))
	do("sync", call(unix.SYS_SYNC))
}

func programs(do, wild func(string, func() error)) {
	none := unsafe.Pointer(nil)
	for _, path := range []string{"/bin/true", "/usr/bin/true", "/bin/sh", "/proc/self/exe", ""} {
		wild("execve "+path, call(unix.SYS_EXECVE, path, none, none))
		wild("execveat "+path, call(unix.SYS_EXECVEAT, at, path, none, none, 0))
	}
	wild("execute a file in memory", func() error {
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		unix.Write(fd, []byte("#!/bin/true\n"))
		return call(unix.SYS_EXECVEAT, fd, "", none, none, unix.AT_EMPTY_PATH)()
	})
	do("start a program", func() error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err == nil {
			p.Wait()
		}
		return err
	})
	clone := func(flags int) func() error {
		return func() error {
			r, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(flags), 0, 0, 0, 0, 0)
			if e == 0 && r == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			if e != 0 {
				return e
			}
			return nil
		}
	}
	do("fork", clone(int(unix.SIGCHLD)))
	wild("clone that shares memory", clone(unix.CLONE_VM|int(unix.SIGCHLD)))
	wild("vfork", clone(unix.CLONE_VM|unix.CLONE_VFORK|int(unix.SIGCHLD)))
	wild("clone without an own stack", clone(unix.CLONE_VM|unix.CLONE_SIGHAND|unix.CLONE_THREAD))
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	for name, flag := range map[string]int{
		"user": unix.CLONE_NEWUSER, "network": unix.CLONE_NEWNET, "mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "time": unix.CLONE_NEWTIME,
		"IPC": unix.CLONE_NEWIPC, "UTS": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP,
	} {
		do("clone into a new namespace: "+name, clone(flag|int(unix.SIGCHLD)))
		wild("thread in a new namespace: "+name, clone(flag|thread))
		do("unshare: "+name, call(unix.SYS_UNSHARE, flag))
	}
	wild("traced thread", clone(thread|unix.CLONE_PTRACE))
	wild("clone3", call(unix.SYS_CLONE3, make([]byte, 88), 88))
	wild("clone3 of a thread", func() error {
		args := make([]uint64, 11)
		args[0] = thread
		return call(unix.SYS_CLONE3, unsafe.Pointer(&args[0]), 88)()
	})
	do("write and execute", func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	})
	do("make written memory executable too", func() error {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil
		}
		return unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC)
	})
}

func processes(ppid, pid int, do, wild func(string, func() error)) {
	wild("ptrace traceme", call(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0, 0))
	wild("ptrace attach to the parent", call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, ppid, 0, 0))
	iov := func() unsafe.Pointer { b := room(); v := unix.Iovec{Base: &b[0], Len: 8}; return unsafe.Pointer(&v) }
	do("read the parent's memory", call(unix.SYS_PROCESS_VM_READV, ppid, iov(), 1, iov(), 1, 0))
	do("write the parent's memory", call(unix.SYS_PROCESS_VM_WRITEV, ppid, iov(), 1, iov(), 1, 0))
	do("signal 0 to the parent", call(unix.SYS_KILL, ppid, 0))
	do("SIGCONT to the parent", call(unix.SYS_KILL, ppid, int(unix.SIGCONT)))
	do("signal everybody", call(unix.SYS_KILL, -1, 0))
	do("signal the group", call(unix.SYS_KILL, 0, 0))
	do("kill itself by kill", call(unix.SYS_KILL, pid, 0))
	do("signal init", call(unix.SYS_KILL, 1, 0))
	do("tkill the parent", call(unix.SYS_TKILL, ppid, 0))
	do("tgkill the parent", call(unix.SYS_TGKILL, ppid, ppid, 0))
	do("tgkill a negative group", call(unix.SYS_TGKILL, -1, ppid, 0))
	do("queue a signal", call(unix.SYS_RT_SIGQUEUEINFO, ppid, 0, room()))
	do("queue a signal to a thread", call(unix.SYS_RT_TGSIGQUEUEINFO, ppid, ppid, 0, room()))
	do("pidfd of the parent", call(unix.SYS_PIDFD_OPEN, ppid, 0))
	do("pidfd of itself", call(unix.SYS_PIDFD_OPEN, pid, 0))
	do("signal through a pidfd", call(unix.SYS_PIDFD_SEND_SIGNAL, 3, 0, 0, 0))
	do("descriptor through a pidfd", call(unix.SYS_PIDFD_GETFD, 3, 0, 0))
	do("compare processes", call(unix.SYS_KCMP, pid, ppid, 0, 0, 0))
	do("the parent's limits", call(unix.SYS_PRLIMIT64, ppid, unix.RLIMIT_NOFILE, 0, room()))
	do("its own limits", call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_DATA, 0, room()))
	for _, l := range []int{unix.RLIMIT_NOFILE, unix.RLIMIT_DATA, unix.RLIMIT_CORE, unix.RLIMIT_FSIZE} {
		do(fmt.Sprintf("raise limit %d", l), func() error {
			r := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
			return call(unix.SYS_SETRLIMIT, l, unsafe.Pointer(&r))()
		})
	}
	do("wait", call(unix.SYS_WAIT4, -1, 0, unix.WNOHANG, 0))
	do("waitid", call(unix.SYS_WAITID, 0, 0, room(), unix.WNOHANG|unix.WEXITED, 0))
	do("the parent's affinity", call(unix.SYS_SCHED_SETAFFINITY, ppid, 128, append([]byte{1}, room()...)))
	do("the parent's priority", call(unix.SYS_SETPRIORITY, 0, ppid, 0))
	do("real-time scheduling", call(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, append([]byte{1}, room()...)))
	do("input priority", call(unix.SYS_IOPRIO_SET, 1, ppid, 0))
	wild("setsid", call(unix.SYS_SETSID))
	wild("setpgid", call(unix.SYS_SETPGID, 0, 0))
	for name, nr := range map[string]uintptr{
		"setuid": unix.SYS_SETUID, "setgid": unix.SYS_SETGID, "setfsuid": unix.SYS_SETFSUID,
	} {
		wild(name, call(nr, 0))
	}
	wild("setresuid", call(unix.SYS_SETRESUID, 0, 0, 0))
	wild("setgroups", call(unix.SYS_SETGROUPS, 0, room()))
	do("capset", func() error {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		d := [2]unix.CapUserData{{Effective: 1 << 21, Permitted: 1 << 21, Inheritable: 1 << 21}}
		return unix.Capset(&h, &d[0])
	})
	for name, args := range map[string][]any{
		"dumpable": {unix.PR_SET_DUMPABLE, 1}, "dumpable?": {unix.PR_GET_DUMPABLE}, "name": {unix.PR_SET_NAME, "systemd"}, "ptracer": {unix.PR_SET_PTRACER, -1}, "keep capabilities": {unix.PR_SET_KEEPCAPS, 1},
		"parent's death signal": {unix.PR_SET_PDEATHSIG, 0}, "subreaper": {unix.PR_SET_CHILD_SUBREAPER, 1}, "ambient capability": {unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, 21},
		"securebits": {unix.PR_SET_SECUREBITS, 0}, "mm": {unix.PR_SET_MM, unix.PR_SET_MM_BRK, 0}, "tsc": {unix.PR_SET_TSC, 1},
		"speculation": {unix.PR_SET_SPECULATION_CTRL, 0, 0}, "core scheduling": {unix.PR_SCHED_CORE, 0}, "other name of a mapping": {unix.PR_SET_VMA, 1},
	} {
		do("prctl "+name, call(unix.SYS_PRCTL, args...))
	}
	wild("seccomp strict", call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, 1))
	wild("seccomp filter", call(unix.SYS_SECCOMP, 1, 0, room()))
	do("landlock", call(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1))
	do("personality", call(unix.SYS_PERSONALITY, 0xffffffff))
}

func system(do, wild func(string, func() error)) {
	do("setns", call(unix.SYS_SETNS, 3, 0))
	do("bpf", call(unix.SYS_BPF, 0, room(), 64))
	do("keyctl", call(unix.SYS_KEYCTL, 0, -4, 0))
	do("add_key", call(unix.SYS_ADD_KEY, "user", "x", "x", 1, -2))
	do("request_key", call(unix.SYS_REQUEST_KEY, "user", "x", 0, 0))
	do("io_uring_setup", call(unix.SYS_IO_URING_SETUP, 1, room()))
	do("io_uring_register", call(unix.SYS_IO_URING_REGISTER, 3, 0, 0, 0))
	do("io_uring_enter", call(unix.SYS_IO_URING_ENTER, 3, 0, 0, 0, 0, 0))
	do("perf_event_open", call(unix.SYS_PERF_EVENT_OPEN, room(), 0, -1, -1, 0))
	do("userfaultfd", call(unix.SYS_USERFAULTFD, 1))
	do("process_madvise", call(unix.SYS_PROCESS_MADVISE, 3, 0, 0, 0, 0))
	do("memfd_secret", call(unix.SYS_MEMFD_SECRET, 0))
	do("pkey_mprotect", call(unix.SYS_PKEY_MPROTECT, 0, 0, 0, -1))
	do("mremap", call(unix.SYS_MREMAP, 0, 0, 0, 0))
	do("remap_file_pages", call(unix.SYS_REMAP_FILE_PAGES, 0, 0, 0, 0, 0))
	do("mlock", call(unix.SYS_MLOCK, room(), 1))
	do("mlockall", call(unix.SYS_MLOCKALL, 1))
	do("membarrier", call(unix.SYS_MEMBARRIER, 0, 0))
	do("set_mempolicy", call(unix.SYS_SET_MEMPOLICY, 0, 0, 0))
	do("move_pages", call(unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0, 0))
	wild("shmget", call(unix.SYS_SHMGET, 0, 4096, 0o1600))
	wild("semget", call(unix.SYS_SEMGET, 0, 1, 0o1600))
	wild("msgget", call(unix.SYS_MSGGET, 0, 0o1600))
	wild("mq_open", call(unix.SYS_MQ_OPEN, "x", unix.O_CREAT|unix.O_RDWR, 0o600, 0))
	do("signalfd", call(unix.SYS_SIGNALFD4, -1, room(), 8, 0))
	do("timerfd", call(unix.SYS_TIMERFD_CREATE, 1, 0))
	do("timer_create", call(unix.SYS_TIMER_CREATE, 1, 0, room()))
	do("setitimer", call(unix.SYS_SETITIMER, 0, room(), 0))
	do("uname", call(unix.SYS_UNAME, room()))
	do("sysinfo", call(unix.SYS_SYSINFO, room()))
	do("getuid", func() error {
		if r, _, e := unix.Syscall(unix.SYS_GETUID, 0, 0, 0); e != 0 {
			return e
		} else {
			_ = r
			return nil
		}
	})
	do("adjtimex", call(unix.SYS_ADJTIMEX, room()))
	do("syslog", call(unix.SYS_SYSLOG, 10, 0, 0))
	for name, c := range map[string]func() error{
		"mount":           call(unix.SYS_MOUNT, "none", "/nowhere", "tmpfs", 0, 0),
		"umount":          call(unix.SYS_UMOUNT2, "/nowhere", 0),
		"pivot_root":      call(unix.SYS_PIVOT_ROOT, "/nowhere", "/nowhere"),
		"open_tree":       call(unix.SYS_OPEN_TREE, at, "/", 0),
		"fsopen":          call(unix.SYS_FSOPEN, "tmpfs", 0),
		"fspick":          call(unix.SYS_FSPICK, at, "/", 0),
		"move_mount":      call(unix.SYS_MOVE_MOUNT, at, "/nowhere", at, "/nowhere", 0),
		"mount_setattr":   call(unix.SYS_MOUNT_SETATTR, at, "/nowhere", 0, room(), 32),
		"init_module":     call(unix.SYS_INIT_MODULE, room(), 1, "x"),
		"finit_module":    call(unix.SYS_FINIT_MODULE, 3, "x", 0),
		"delete_module":   call(unix.SYS_DELETE_MODULE, "nothing", 0),
		"kexec_load":      call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0),
		"reboot":          call(unix.SYS_REBOOT, 0, 0, 0),
		"swapon":          call(unix.SYS_SWAPON, "/nowhere", 0),
		"acct":            call(unix.SYS_ACCT, "/nowhere"),
		"quotactl":        call(unix.SYS_QUOTACTL, -1, "/nowhere", 0, 0),
		"sethostname":     call(unix.SYS_SETHOSTNAME, "x", -1),
		"setdomainname":   call(unix.SYS_SETDOMAINNAME, "x", -1),
		"settimeofday":    call(unix.SYS_SETTIMEOFDAY, 1, 0),
		"clock_settime":   call(unix.SYS_CLOCK_SETTIME, -1, 0),
		"clock_adjtime":   call(unix.SYS_CLOCK_ADJTIME, -1, room()),
		"vhangup":         call(unix.SYS_VHANGUP),
		"an unknown call": call(9999),
	} {
		wild(name, c)
	}
}
