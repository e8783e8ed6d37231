package host

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// tally counts what a plugin did. Its zero value is ready; it is safe for concurrent use.
type tally struct {
	calls, failures, kills, starts, denied atomic.Uint64
	read, written                          atomic.Uint64
	running                                atomic.Int64
	latency                                atomic.Int64 // nanoseconds
	cpuEnded                               atomic.Int64 // nanoseconds, of processes that have ended
}

func (t *tally) usage() monitor.PluginUsage {
	return monitor.PluginUsage{
		Calls: t.calls.Load(), Failures: t.failures.Load(), Kills: t.kills.Load(), Starts: t.starts.Load(),
		Running: int(t.running.Load()), Latency: time.Duration(t.latency.Load()), CPU: time.Duration(t.cpuEnded.Load()),
		BytesRead: t.read.Load(), BytesWritten: t.written.Load(), Denied: t.denied.Load(),
	}
}

// addTo adds what a runner uses at the moment.
func (c *child) addTo(u *monitor.PluginUsage) {
	proc := c.running()
	if proc == nil {
		return
	}
	u.Runners++
	u.CPU += proc.CPU()
	u.Memory += int64(proc.Memory())
}

// backoff spaces out what failed. Its zero value lets the first try through at once.
type backoff struct {
	mu    sync.Mutex
	fails int
	until time.Time
	why   error
}

// Bounds of the time between two tries.
const (
	minBackoff = time.Second
	maxBackoff = 5 * time.Minute
)

// wait is how long from now the next try has to wait, and why; zero lets it through.
func (b *backoff) wait(now time.Time) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.until.Sub(now), 0), b.why
}

// fail notes a failure. The first free ones do not delay the next try.
func (b *backoff) fail(now time.Time, why error, free int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fails++
	b.why = why
	if n := b.fails - free; n > 0 {
		b.until = now.Add(min(minBackoff<<min(n-1, 20), maxBackoff))
	}
}

// succeed forgets the failures.
func (b *backoff) succeed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fails, b.until, b.why = 0, time.Time{}, nil
}
