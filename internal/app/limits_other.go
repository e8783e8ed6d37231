//go:build !unix

package app

// raiseFileLimit does nothing: this system has no such limit.
func (s *server) raiseFileLimit() {}

// lockDatabase does nothing: SQLite's own locks keep a second server from writing.
func lockDatabase(string) (unlock func() error, err error) { return func() error { return nil }, nil }
