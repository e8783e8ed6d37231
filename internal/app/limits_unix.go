//go:build unix

package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// raiseFileLimit lets the process open as many files as the system allows it: each check under way takes one or two.
func (s *server) raiseFileLimit() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		s.log.Warn("the limit of open files is not known", "error", err)
		return
	}
	if limit.Cur < limit.Max {
		raised := limit
		raised.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			s.log.Warn("the limit of open files could not be raised", "limit", limit.Cur, "ceiling", limit.Max, "error", err)
			return
		}
		limit = raised
	}
	s.log.Info("open files", "ceiling", limit.Cur)
}

// lockFolder makes sure that no other server uses the data folder. The lock goes with the process, however it ends.
func lockFolder(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("another tocsin uses the data folder %s: stop it, or choose another with --data", dir), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock the data folder: %w", err), f.Close())
	}
	return f.Close, nil
}
