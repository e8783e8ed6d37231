package broker

import (
	"context"
	"time"
)

// pace is how much a runner may send.
type pace struct {
	rate  float64 // per second, sustained
	burst float64 // at once, after a pause
}

// The usual pace is above what a plugin needs: its every check makes a request or two. It is below what would cost the server
// much: a request takes it some 50 µs.
const (
	usualRate  = 2_000
	usualBurst = 4_000
)

// costOf is what a message of so many bytes counts for: 1, and 1 more for every 4 KiB.
func costOf(size int) float64 { return float64(1 + size/(4<<10)) }

// bucket holds a runner to its pace. It is for one goroutine.
type bucket struct {
	pace
	level float64 // below zero it is being waited for
	at    time.Time
}

func (p pace) full() *bucket { return &bucket{p, p.burst, time.Now()} }

// take takes out n. While there is not so much in it, it waits, until ctx ends with an error. It reports whether it waited.
func (b *bucket) take(ctx context.Context, n float64) (waited bool, err error) {
	now := time.Now()
	b.level = min(b.level+b.rate*now.Sub(b.at).Seconds(), b.burst) - n
	b.at = now
	if b.level >= 0 {
		return false, nil
	}
	timer := time.NewTimer(time.Duration(-b.level / b.rate * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
}
