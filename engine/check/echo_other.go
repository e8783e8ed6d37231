//go:build !linux

package check

import "syscall"

// widen does nothing: the system's own size has to do.
func widen(syscall.Conn) error { return nil }
