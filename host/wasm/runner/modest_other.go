//go:build !linux

package runner

// standBack does nothing on this system.
func standBack() error { return nil }
