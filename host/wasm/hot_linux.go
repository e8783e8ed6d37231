//go:build linux && !nosnapshot

package wasm

import (
	"bytes"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// hostPage is the step in which memory is compared. Plans are made in pages of the system, which are multiples.
	hostPage = 4096
	// lessons is how many resets are watched before the plan is made.
	lessons = 8
	// maxHot is how many bytes of written pages an instance may keep between calls.
	maxHot = 640 << 10
	// bridge is how many pages between two hot ones are taken for hot as well: copying them costs less than a system call.
	bridge = 2
)

// hot learns which pages of a memory most calls write. Those are restored by copying, all others by dropping them: a
// page that was dropped costs a fault when it is written again, four to ten times as much as copying it. What it learns
// decides the cost of a reset and never its result, as every plan restores every byte.
type hot struct {
	plan atomic.Pointer[plan]
	mu   sync.Mutex
	seen int      // resets watched
	hits []uint16 // by page: in how many of them it differed
}

type plan struct{ copied, dropped []span }

type span struct{ from, to int }

// restore makes the memory, which stands on the snapshot, equal to it. It reports false when the system refused.
func (s *sealed) restore(mem []byte) bool {
	p := s.hot.plan.Load()
	if p == nil {
		if p = s.learn(mem); p == nil {
			return unix.Madvise(mem, unix.MADV_DONTNEED) == nil
		}
	}
	for _, d := range p.dropped {
		if unix.Madvise(mem[d.from:d.to], unix.MADV_DONTNEED) != nil {
			return false
		}
	}
	for _, c := range p.copied {
		copy(mem[c.from:c.to], s.view[c.from:c.to])
	}
	return true
}

// learn looks at what a call wrote. It gives the plan once it has seen enough.
func (s *sealed) learn(mem []byte) *plan {
	h := &s.hot
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.plan.Load(); p != nil {
		return p
	}
	size := os.Getpagesize()
	if h.hits == nil {
		h.hits = make([]uint16, len(mem)/size)
	}
	// Only pages that are there are looked at: looking at a hole of a memfd fills it.
	there := make([]byte, len(h.hits))
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&there[0])))
	if e != 0 {
		return nil // it drops all pages, as long as this fails
	}
	for i := range h.hits {
		if there[i]&1 != 0 && !bytes.Equal(mem[i*size:(i+1)*size], s.view[i*size:(i+1)*size]) {
			h.hits[i]++
		}
	}
	if h.seen++; h.seen < lessons {
		return nil
	}
	p := makePlan(h.hits, size)
	h.plan.Store(p)
	h.hits = nil
	return p
}

// makePlan copies the pages that at least half of the calls wrote, the lowest first, as far as maxHot allows.
func makePlan(hits []uint16, size int) *plan {
	p := &plan{}
	end, room := 0, maxHot/size // end of what is planned, in pages
	for i, n := range hits {
		if n < lessons/2 {
			continue
		}
		from := i
		if len(p.copied) > 0 && i-end <= bridge {
			from = end
		}
		if room -= i + 1 - from; room < 0 {
			break
		}
		if from == end && len(p.copied) > 0 {
			p.copied[len(p.copied)-1].to = (i + 1) * size
		} else {
			if from > end {
				p.dropped = append(p.dropped, span{end * size, from * size})
			}
			p.copied = append(p.copied, span{from * size, (i + 1) * size})
		}
		end = i + 1
	}
	if end < len(hits) {
		p.dropped = append(p.dropped, span{end * size, len(hits) * size})
	}
	return p
}
