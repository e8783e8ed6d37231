package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// die does what the process should not survive, and says so when it does.
func die(job Job) {
	switch job.Mode {
	case "other architecture":
		otherArch()
	case "x32":
		unix.RawSyscall(x32|unix.SYS_GETPID, 0, 0, 0)
	case "memory":
		debug.SetGCPercent(-1)
		var keep [][]byte
		for range int(job.Policy.Memory>>20) + 64 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			keep = append(keep, b)
		}
		_ = keep
	case "mapped memory":
		for range job.Policy.Memory>>20 + 64 {
			if _, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
				fmt.Fprintln(os.Stderr, "no more:", err)
				os.Exit(4)
			}
		}
	case "file size":
		fd := must(unix.MemfdCreate("x", 0))
		must(0, unix.Ftruncate(fd, int64(job.Policy.Memory)+1))
	case "core":
		debug.SetTraceback("crash")
		panic("on purpose")
	default:
		panic("mode " + job.Mode)
	}
	fmt.Fprintln(os.Stderr, "SURVIVED")
}
