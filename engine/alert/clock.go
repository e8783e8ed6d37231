package alert

import (
	"sync"
	"time"
)

// clock tells the time for what is due. It never runs backwards and never slower than the machine's steady clock: when the
// wall clock is set back by an hour, what was due in five seconds is still due in five seconds.
type clock struct {
	source func() time.Time

	mu     sync.Mutex
	last   time.Time // what now returned last, of the wall
	steady time.Time // the steady clock at that moment
}

func newClock(source func() time.Time) *clock {
	c := &clock{source: source, steady: time.Now()}
	c.last = c.wall()
	return c
}

// wall returns the time as the wall clock has it, for what people read.
func (c *clock) wall() time.Time { return c.source().Round(0) }

// now returns the time to compare due times with.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	steady := time.Now()
	elapsed := c.last.Add(steady.Sub(c.steady))
	if wall := c.wall(); wall.After(elapsed) {
		elapsed = wall
	}
	c.last, c.steady = elapsed, steady
	return elapsed
}
