//go:build !unix

package app

// raiseFileLimit does nothing: this system has no such limit.
func (s *server) raiseFileLimit() {}

// lockFolder does nothing: SQLite's own locks keep a second server from writing.
func lockFolder(string) (unlock func() error, err error) { return func() error { return nil }, nil }
