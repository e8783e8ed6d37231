package api

import (
	"net/netip"
	"sync"
	"time"
)

// limiter counts what addresses do wrong, in windows of a fixed length. Its memory is bounded: when it is full of addresses
// it forgets those whose window is over, and when that does not help, all.
type limiter struct {
	most   int
	window time.Duration

	mu    sync.Mutex
	seen  map[netip.Prefix]*window
	limit int // addresses
}

type window struct {
	start time.Time
	count int
}

func newLimiter(most int, length time.Duration) *limiter {
	return &limiter{most: most, window: length, seen: make(map[netip.Prefix]*window), limit: 10_000}
}

// of returns what is counted together: an IPv4 address, or an IPv6 network of 64 bits, of which one host has all.
func of(address string) netip.Prefix {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// count notes one more.
func (l *limiter) count(address string) {
	now, key := time.Now(), of(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.seen[key]
	if w == nil || now.Sub(w.start) >= l.window {
		if w == nil && len(l.seen) >= l.limit {
			l.forget(now)
		}
		w = &window{start: now}
		l.seen[key] = w
	}
	w.count++
}

func (l *limiter) forget(now time.Time) {
	for key, w := range l.seen {
		if now.Sub(w.start) >= l.window {
			delete(l.seen, key)
		}
	}
	if len(l.seen) >= l.limit {
		clear(l.seen)
	}
}

// wait returns how many seconds an address has to wait, 0 when it need not.
func (l *limiter) wait(address string) int {
	now, key := time.Now(), of(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.seen[key]
	if w == nil || w.count < l.most {
		return 0
	}
	left := l.window - now.Sub(w.start)
	if left <= 0 {
		return 0
	}
	return int(left/time.Second) + 1
}
