package confine

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestByThread gives a thread a network namespace of its own, twice, where the system lets a thread have one; where it does not,
// it is Prepare that asks for it. This process keeps its own.
func TestByThread(t *testing.T) {
	network := func(of string) string {
		t.Helper()
		name, err := os.Readlink("/proc/" + of + "/ns/net")
		if err != nil {
			t.Error(err)
		}
		return name
	}
	n := Probe().ByThread()
	before := network("self")
	err := onThread(func() error {
		seen := []string{network("thread-self")}
		for range 2 {
			if err := n.Enter(); err != nil {
				t.Error(err)
			}
			seen = append(seen, network("thread-self"))
		}
		changed := seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]
		attr := &syscall.SysProcAttr{}
		n.Prepare(attr)
		asked := (attr.Cloneflags|attr.Unshareflags)&unix.CLONE_NEWNET != 0
		if n.byThread != changed || n.byThread && asked || !n.byThread && asked != (n.flags != 0) {
			t.Errorf("%s, by thread %v: the thread was in %q, and Prepare asks for a network: %v", n, n.byThread, seen, asked)
		}
		if attr.Cloneflags&unix.CLONE_NEWNET != 0 {
			t.Error("the network is made in the middle of a fork, which the whole process waits for")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if after := network("self"); after != before {
		t.Errorf("this process was in %s and is in %s", before, after)
	}
}
