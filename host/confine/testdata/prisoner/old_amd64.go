package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// old tries calls that newer architectures do not have.
func old(do, wild func(string, func() error)) {
	do("old open", call(unix.SYS_OPEN, "/etc/passwd", unix.O_RDONLY, 0))
	wild("old creat", call(unix.SYS_CREAT, "/tmp/tocsin-prisoner-old", 0o600))
	wild("old mkdir", call(unix.SYS_MKDIR, "/tmp/tocsin-prisoner-oldd", 0o700))
	do("old readlink", call(unix.SYS_READLINK, "/proc/self/exe", room(), 100))
	do("old stat", call(unix.SYS_STAT, "/etc/passwd", room()))
	do("old access", call(unix.SYS_ACCESS, "/etc/passwd", 0))
	do("old accept", call(unix.SYS_ACCEPT, 3, 0, 0))
	do("old pipe", call(unix.SYS_PIPE, room()))
	do("old dup2", call(unix.SYS_DUP2, 0, 99))
	do("old inotify_init", call(unix.SYS_INOTIFY_INIT))
	do("old signalfd", call(unix.SYS_SIGNALFD, -1, room(), 8))
	do("old alarm", func() error {
		if _, _, e := unix.Syscall(unix.SYS_ALARM, 0, 0, 0); e != 0 {
			return e
		}
		return nil
	})
	wild("old fork", call(unix.SYS_FORK))
	wild("old vfork", call(unix.SYS_VFORK))
	wild("iopl", call(unix.SYS_IOPL, 3))
	wild("ioperm", call(unix.SYS_IOPERM, 0, 1, 1))
	do("modify_ldt", call(unix.SYS_MODIFY_LDT, 0, room(), 16))
	do("arch_prctl", call(unix.SYS_ARCH_PRCTL, 0x1003, room()))
	do("uselib", call(unix.SYS_USELIB, "/nowhere"))
}

// otherArch calls getpid as a program for 32 bits does.
func otherArch() {
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(0, err)
	copy(code, "\xb8\x14\x00\x00\x00\xcd\x80\xc3") // mov eax, 20; int 0x80; ret
	must(0, unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC))
	entry := uintptr(unsafe.Pointer(&code[0]))
	at := &entry
	(*(*func())(unsafe.Pointer(&at)))()
}

const x32 = 0x40000000
