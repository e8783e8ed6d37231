package confine

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// emptyNetwork reports whether the network namespace of the process has nothing in it that is up, not even loopback. That is
// what Prepare gives a child, and what counts; whose namespace it is cannot be asked without rights over the parent.
func emptyNetwork() (holds bool, detail string) {
	// The file lists every interface after two lines of headings: "  lo: 0 0 …".
	list, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return false, fmt.Sprintf("list the network's interfaces: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Sprintf("look at the network's interfaces: %v", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written to it
	names := 0
	for line := range strings.Lines(string(list)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		names++
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr)
		}
		if err != nil {
			return false, fmt.Sprintf("look at the interface %s: %v", name, err)
		}
		if ifr.Uint16()&unix.IFF_UP != 0 {
			return false, fmt.Sprintf("there is a network: %s is up", name)
		}
	}
	return true, fmt.Sprintf("nothing is up in it; interfaces: %d", names)
}
