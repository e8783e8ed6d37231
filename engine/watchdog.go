package engine

import (
	"context"
	"sync"
	"time"
)

// Watchdog notices when the process did not run: starved of processor time, stopped or suspended. A check that timed out
// meanwhile says nothing about its target. The zero value is not ready; use NewWatchdog.
type Watchdog struct {
	mu   sync.Mutex
	gaps [64]gap // the newest, in a ring
	next int
}

type gap struct {
	from, to time.Time
}

const (
	watchTick = 50 * time.Millisecond
	watchLate = 25 * time.Millisecond // a tick that is later than this is a gap
)

// NewWatchdog returns a watchdog that has seen no gap. The engine that it is given to runs it.
func NewWatchdog() *Watchdog { return &Watchdog{} }

// run notes gaps until ctx ends.
func (w *Watchdog) run(ctx context.Context) {
	ticker := time.NewTicker(watchTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		w.note(last, now)
		last = now
	}
}

// note records that nothing ran between two ticks, when that was too long. A suspended machine stops the monotonic clock and
// shows in the wall clock alone.
func (w *Watchdog) note(last, now time.Time) {
	ran := now.Sub(last)
	wall := now.Round(0).Sub(last.Round(0))
	if max(ran, wall) <= watchTick+watchLate {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	from := last.Add(watchTick)
	if wall > ran {
		from = now.Add(watchTick - wall) // keeps the monotonic reading
	}
	w.gaps[w.next] = gap{from: from, to: now}
	w.next = (w.next + 1) % len(w.gaps)
}

// Gapped reports whether the process stood still for more than a quarter of timeout in a single gap that touches the time
// from start to end.
func (w *Watchdog) Gapped(start, end time.Time, timeout time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.gaps {
		if g.to.IsZero() || g.to.Before(start) || g.from.After(end.Add(watchTick)) {
			continue
		}
		if g.to.Sub(g.from) > timeout/4 {
			return true
		}
	}
	return false
}
