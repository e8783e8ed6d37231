//go:build linux && !nosnapshot

package wasm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mappings counts the lines of this process's address space, and those of snapshots among them.
func mappings(t *testing.T) (all, snapshots int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n")), strings.Count(string(b), "tocsin-snapshot")
}

// A thousand instances come and go, by trap, exit and growth: no mapping, no descriptor and no memory stays.
func TestMemoryReturns(t *testing.T) {
	for _, name := range []string{"trap", "proc_exit", "memory.grow", "descriptor", "table.grow"} {
		t.Run(name, func(t *testing.T) {
			var module []byte
			for _, r := range rememberers() {
				if r.name == name {
					module = r.build()
				}
			}
			m, err := New(context.Background(), module, Options{Instances: 2})
			if err != nil {
				t.Fatal(err)
			}
			before, _ := mappings(t)
			for range 1000 {
				_, _ = m.Call(context.Background(), Call{Name: "check", FS: fileFS{}}) // the corpus tests what comes of it
			}
			after, _ := mappings(t)
			if after > before+40 {
				t.Errorf("%d mappings before, %d after", before, after)
			}
			if err := m.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, left := mappings(t); left > 0 {
				t.Errorf("%d mappings of snapshots are left", left)
			}
			fds, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			for _, fd := range fds {
				if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(to, "tocsin-snapshot") {
					t.Errorf("descriptor %s is left: %s", fd.Name(), to)
				}
			}
		})
	}
}

// Nobody can change a snapshot, whoever gets hold of its descriptor.
func TestSnapshotIsSealed(t *testing.T) {
	m := open(t, echo("check"), Options{})
	s, ok := m.snapshot.image.(*sealed)
	if !ok {
		t.Fatalf("the snapshot is a %T", m.snapshot.image)
	}
	if _, err := s.file.WriteAt([]byte{1}, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	if err := s.file.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v", err)
	}
	b, err := unix.Mmap(int(s.file.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		t.Errorf("map for writing: %v", unix.Munmap(b))
	}
}

// A memory that stands on another size than its snapshot is not taken.
func TestAdoptRefusesAnotherSize(t *testing.T) {
	a, err := newMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Free()
	if a.Reallocate(pageSize) == nil || a.Reallocate(2<<20) != nil {
		t.Error("the limit does not hold")
	}
	img, err := a.(resettable).snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer img.close()
	a.Reallocate(2 * pageSize)
	if err := a.(resettable).adopt(img); err == nil {
		t.Error("a snapshot of another size is adopted")
	}
	a.Free()
	a.Free()
}
