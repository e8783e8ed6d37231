//go:build darwin || netbsd || openbsd

package confine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// setLimits takes core dumps and bounds the descriptors. Memory is for the parent to watch on this system.
func setLimits(p Policy) (holds bool, detail string) {
	for _, l := range []struct {
		what  string
		which int
		most  uint64
	}{{"core dumps", unix.RLIMIT_CORE, 0}, {"descriptors", unix.RLIMIT_NOFILE, p.files()}} {
		var now unix.Rlimit
		err := unix.Getrlimit(l.which, &now)
		if err == nil {
			now.Max = min(now.Max, l.most)
			now.Cur = now.Max
			err = unix.Setrlimit(l.which, &now)
		}
		if err != nil {
			return false, fmt.Sprintf("limit %s: %v", l.what, err)
		}
	}
	return true, "core dumps and descriptors only"
}
