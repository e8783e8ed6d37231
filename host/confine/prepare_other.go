//go:build !unix

package confine

import "syscall"

// Namespaces says which namespaces of its own a child can be given. This system has none.
type Namespaces struct{}

// Probe gives the zero value on this system.
func Probe() Namespaces { return Namespaces{} }

// ByThread changes nothing on this system.
func (n Namespaces) ByThread() Namespaces { return n }

// Enter does nothing on this system.
func (Namespaces) Enter() error { return nil }

// Prepare does nothing on this system.
func (Namespaces) Prepare(*syscall.SysProcAttr) {}

// String says what a child gets.
func (Namespaces) String() string { return "no namespaces of its own" }
