package confine

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseInherited closes every descriptor that the process inherited, except 0 to 2 and those given, which are marked so that
// no program inherits them further. It closes nothing that this process opened: a descriptor that came through execve is one
// without FD_CLOEXEC (with it, execve would have closed it), and Go opens none without. So the runtime's own descriptors stay,
// and it may be called at any time, but belongs at the start of main.
func CloseInherited(keep ...int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the open descriptors: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("list the open descriptors: %w", err)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd < 3 || err != nil || flags&unix.FD_CLOEXEC != 0 { // an error: it was the one that the list was read from
			continue
		}
		if slices.Contains(keep, fd) {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC); err != nil {
				return fmt.Errorf("mark descriptor %d: %w", fd, err)
			}
		} else if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close the inherited descriptor %d: %w", fd, err)
		}
	}
	return nil
}
