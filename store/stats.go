package store

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a store has counted since it was opened, and how it stands.
type Stats struct {
	SamplesStored   int64 // rows handed to the database, conflicts included
	SamplesDropped  int64 // writes of the samples lane that found it full
	SamplesInvalid  int64 // with a series or a tick that cannot be; states of checkers that are too long among them
	SamplesOrphaned int64 // of a series without a monitor
	SamplesLate     int64 // of an hour that was sealed already; stored nowhere
	SampleConflicts int64 // of a tick that the series had already
	SamplesPoisoned int64 // writes of the samples lane that the database refused
	Commits         int64
	CommitRetries   int64
	CommitTime      time.Duration // of all commits
	CommitMax       time.Duration
	MustQueue       int // must writes waiting
	SampleQueue     int // writes of the samples lane waiting
	Series          int // series in memory
	DatabaseBytes   int64
	WALBytes        int64
	SealedUntil     time.Time // every hour before is sealed; zero: none is
	SealSlices      int64
	SealTime        time.Duration
	SealMax         time.Duration // of one slice
	Prunes          int64         // rounds of the pruner that came to their end
	PruneTime       time.Duration // of all slices
	PruneMax        time.Duration // of one slice
	CommitHistogram []CommitBucket
}

// CommitBucket counts the commits that took no longer than UpTo; the last bucket's UpTo is 0 and counts all.
type CommitBucket struct {
	UpTo  time.Duration
	Count int64 // cumulative
}

// counters is the live form of Stats.
type counters struct {
	stored, invalid, unknown, late, conflicts, poisoned, retries atomic.Int64

	mu                    sync.Mutex
	commits               int64
	commitTime, commitMax time.Duration
	histogram             [10]int64
	sealSlices, prunes    int64
	sealTime, sealMax     time.Duration
	pruneTime, pruneMax   time.Duration
}

func commitBounds() [9]time.Duration {
	const ms = time.Millisecond
	return [9]time.Duration{ms, 2 * ms, 5 * ms, 10 * ms, 20 * ms, 50 * ms, 100 * ms, 500 * ms, 2000 * ms}
}

func (c *counters) committed(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits++
	c.commitTime += d
	c.commitMax = max(c.commitMax, d)
	for i, bound := range commitBounds() {
		if d <= bound {
			c.histogram[i]++
			return
		}
	}
	c.histogram[len(c.histogram)-1]++
}

func (c *counters) sealSlice(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealSlices++
	c.sealTime += d
	c.sealMax = max(c.sealMax, d)
}

func (c *counters) pruneSlice(d time.Duration, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ended {
		c.prunes++
	}
	c.pruneTime += d
	c.pruneMax = max(c.pruneMax, d)
}

// Stats returns what the store has counted.
func (s *Store) Stats() Stats {
	c := &s.stats
	out := Stats{
		SamplesStored: c.stored.Load(), SamplesDropped: s.queue.dropped.Load(), SamplesInvalid: c.invalid.Load(),
		SamplesOrphaned: c.unknown.Load(), SamplesLate: c.late.Load(), SampleConflicts: c.conflicts.Load(),
		SamplesPoisoned: c.poisoned.Load(), CommitRetries: c.retries.Load(), Series: s.heads.len(),
		DatabaseBytes: fileSize(s.path), WALBytes: fileSize(walPath(s.path)),
	}
	out.MustQueue, out.SampleQueue = s.queue.lengths()
	if hour := s.sealed.Load(); hour > 0 {
		out.SealedUntil = msTime(hourStart(hour))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Commits, out.CommitTime, out.CommitMax = c.commits, c.commitTime, c.commitMax
	out.SealSlices, out.SealTime, out.SealMax = c.sealSlices, c.sealTime, c.sealMax
	out.Prunes, out.PruneTime, out.PruneMax = c.prunes, c.pruneTime, c.pruneMax
	bounds, sum := commitBounds(), int64(0)
	for i, n := range c.histogram {
		sum += n
		b := CommitBucket{Count: sum}
		if i < len(bounds) {
			b.UpTo = bounds[i]
		}
		out.CommitHistogram = append(out.CommitHistogram, b)
	}
	return out
}

// fileSize returns the length of a file, 0 when there is none.
func fileSize(path string) int64 {
	if path == "" {
		return 0
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func walPath(path string) string {
	if path == "" {
		return ""
	}
	return path + "-wal"
}
