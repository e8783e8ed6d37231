//go:build unix

package app

import (
	"errors"
	"fmt"
	"os"

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

// lockDatabase makes sure that no other server uses a database file. The lock goes with the process, however it ends.
func lockDatabase(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("another tocsin uses the database %s: stop it, or choose another folder with --data", path), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock the database: %w", err), f.Close())
	}
	return f.Close, nil
}
