package confine

import "syscall"

// Prepare is Probe and Namespaces.Prepare in one, for whoever starts few children.
func Prepare(attr *syscall.SysProcAttr) { Probe().Prepare(attr) }
