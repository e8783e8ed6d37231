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
	last time.Time // the newest tick; zero while nobody runs the watchdog
}

type gap struct {
	from, to time.Time
}

const (
	watchTick = 50 * time.Millisecond
	watchLate = 25 * time.Millisecond // a tick that is later than this is a gap

	stoodStill = 250 * time.Millisecond // a gap after which beats may lie unread
	catchUp    = 2 * time.Second        // how long they have after it
)

// NewWatchdog returns a watchdog that has seen no gap. The engine that it is given to runs it.
func NewWatchdog() *Watchdog { return &Watchdog{} }

// run notes gaps until ctx ends.
func (w *Watchdog) run(ctx context.Context) {
	ticker := time.NewTicker(watchTick)
	defer ticker.Stop()
	w.tick(time.Now())
	defer w.tick(time.Time{})
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.tick(time.Now())
	}
}

// tick notes the gap since the tick before, if there is one.
func (w *Watchdog) tick(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g, ok := between(w.last, now); ok {
		w.gaps[w.next] = g
		w.next = (w.next + 1) % len(w.gaps)
	}
	w.last = now
}

// between returns the gap between two ticks, when they are too far apart. A suspended machine stops the monotonic clock and
// shows in the wall clock alone.
func between(last, now time.Time) (gap, bool) {
	if last.IsZero() || now.IsZero() {
		return gap{}, false
	}
	ran := now.Sub(last)
	wall := now.Round(0).Sub(last.Round(0))
	if max(ran, wall) <= watchTick+watchLate {
		return gap{}, false
	}
	from := last.Add(watchTick)
	if wall > ran {
		from = now.Add(watchTick - wall) // keeps the monotonic reading
	}
	return gap{from: from, to: now}, true
}

// each calls f with every gap that is remembered, the one that may just be ending among them: whoever runs first after a
// stop may be quicker than the watchdog.
func (w *Watchdog) each(now time.Time, f func(gap)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.gaps {
		if !g.to.IsZero() {
			f(g)
		}
	}
	if g, ok := between(w.last, now); ok {
		f(g)
	}
}

// Gapped reports whether the process stood still for more than a quarter of timeout in a single gap that touches the time
// from start to end.
func (w *Watchdog) Gapped(start, end time.Time, timeout time.Duration) bool {
	gapped := false
	w.each(end, func(g gap) {
		if !g.to.Before(start) && !g.from.After(end.Add(watchTick)) && g.to.Sub(g.from) > timeout/4 {
			gapped = true
		}
	})
	return gapped
}

// resumed returns when the process last went on after it had stood still for a while, and false when it never did.
func (w *Watchdog) resumed(now time.Time) (time.Time, bool) {
	var newest time.Time
	w.each(now, func(g gap) {
		if g.to.Sub(g.from) >= stoodStill && g.to.After(newest) {
			newest = g.to
		}
	})
	return newest, !newest.IsZero()
}
