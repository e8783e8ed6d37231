//go:build linux && !nosnapshot

package wasm

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

var _ resettable = (*memory)(nil)

// memory is a linear memory in a region of address space that is reserved whole, so that it never moves. Behind it
// stands nothing at first, and a sealed memfd, mapped private, once there is a snapshot. It is used by one goroutine at
// a time.
type memory struct {
	region []byte
	size   uint64  // that the guest has
	image  *sealed // the snapshot it stands on, or nil
}

// newMemory reserves room for limit bytes, of which the guest has none yet.
func newMemory(limit uint64) (linear, error) {
	region, err := unix.Mmap(-1, 0, int(max(limit, pageSize)), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for a linear memory: %w", limit, err)
	}
	return &memory{region: region}, nil
}

// Reallocate implements experimental.LinearMemory. It gives nil, so that the guest's memory.grow fails, when the size
// is over the limit or the system has no more memory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.region)) {
		return nil
	}
	if size > m.size {
		if unix.Mprotect(m.region[m.size:size], unix.PROT_READ|unix.PROT_WRITE) != nil {
			return nil
		}
		m.size = size
	}
	return m.region[:size:len(m.region)]
}

// Free implements experimental.LinearMemory. It may be called twice.
func (m *memory) Free() {
	if m.region == nil {
		return
	}
	// The region is as Mmap gave it, so the only fault possible is one of this file; what is left then is a leak.
	_ = unix.Munmap(m.region)
	m.region = nil
}

func (m *memory) snapshot() (image, error) {
	fd, err := unix.MemfdCreate("tocsin-snapshot", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a memfd for the snapshot: %w", err)
	}
	s := &sealed{file: os.NewFile(uintptr(fd), "snapshot"), bytes: m.size}
	if err := s.fill(m.region[:m.size]); err != nil {
		s.close()
		return nil, fmt.Errorf("write the snapshot: %w", err)
	}
	return s, nil
}

// adopt puts the snapshot behind the memory, in place of what was there.
func (m *memory) adopt(i image) error {
	s, ok := i.(*sealed)
	if !ok || m.size != s.bytes {
		return fmt.Errorf("a snapshot of %d bytes does not fit a memory of %d", i.size(), m.size)
	}
	if m.image = s; m.size == 0 {
		return nil
	}
	_, err := unix.MmapPtr(int(s.file.Fd()), 0, unsafe.Pointer(&m.region[0]), uintptr(m.size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		return fmt.Errorf("map the snapshot: %w", err)
	}
	return nil
}

// reset makes the snapshot show again, as the plan of the snapshot says. It reports false when the memory cannot be used
// again, because it grew or because the system refused.
func (m *memory) reset() bool {
	if m.image == nil || m.size != m.image.bytes {
		return false
	}
	return m.size == 0 || m.image.restore(m.region[:m.size])
}

// sealed is a snapshot in a memfd that nobody can write to any more.
type sealed struct {
	file  *os.File
	bytes uint64
	view  []byte // read-only, of all bytes
	hot   hot
}

func (s *sealed) size() uint64 { return s.bytes }

func (s *sealed) close() {
	if s.view != nil {
		_ = unix.Munmap(s.view) // as in Free
		s.view = nil
	}
	s.file.Close()
}

// fill writes what is not zero, a run of pages at a time: the rest stays a hole, which costs nothing.
func (s *sealed) fill(from []byte) error {
	if err := s.file.Truncate(int64(len(from))); err != nil {
		return err
	}
	zero := make([]byte, hostPage)
	for off := 0; off < len(from); off += hostPage {
		page := from[off:min(off+hostPage, len(from))]
		if bytes.Equal(page, zero[:len(page)]) {
			continue
		}
		if _, err := s.file.WriteAt(page, int64(off)); err != nil {
			return err
		}
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(s.file.Fd(), unix.F_ADD_SEALS, seals); err != nil || len(from) == 0 {
		return err
	}
	var err error
	s.view, err = unix.Mmap(int(s.file.Fd()), 0, len(from), unix.PROT_READ, unix.MAP_PRIVATE)
	return err
}
