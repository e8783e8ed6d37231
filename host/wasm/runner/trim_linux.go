package runner

import (
	"bufio"
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// span is a range of addresses.
type span struct{ from, to uintptr }

// programPages gives where the read-only parts of this program lie in memory. It reads /proc, so it comes before the wall.
func programPages() []span {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil // then the pages stay, which costs memory and nothing else
	}
	var found []span
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 || fields[5] != self || fields[1] != "r--p" && fields[1] != "r-xp" {
			continue
		}
		first, last, _ := strings.Cut(fields[0], "-")
		from, err := strconv.ParseUint(first, 16, 64)
		to, err2 := strconv.ParseUint(last, 16, 64)
		if err == nil && err2 == nil {
			found = append(found, span{uintptr(from), uintptr(to)})
		}
	}
	return found
}

// trim gives back the memory that only the start needed: garbage, and the pages of a large program of which a runner uses a
// small part. Those that it does use come back from the page cache when they are touched.
func trim(program []span) {
	debug.FreeOSMemory()
	for _, s := range program {
		// Pages that are only read lose nothing. A system that refuses keeps them.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED)
	}
}
