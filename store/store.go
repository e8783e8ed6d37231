// Package store keeps everything that Tocsin knows in one database: monitors, channels and tokens, states, incidents, events
// and the outbox, samples and what is summed from them, and the server's log lines.
//
// One goroutine owns all writing (writer.go). It takes writes from two lanes and commits what is queued in one transaction.
// Writes of the must lane are never dropped, and their callers wait for the commit; samples, log lines, channel health and the
// states of checkers are enqueued without blocking, and dropped and counted when the lane is full. Readers use connections of
// their own and wait for no writer.
//
// New samples are rows of a table in the order of time, which only serves to fill memory again after a restart. In memory
// every series has a head: its samples of the current hour, encoded as the block that is written once the hour has ended.
// What is older is read from blocks and from roll-ups of hours and days.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Sealer encrypts what may hold secrets: the configurations of monitors and channels, and the states of checkers.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// Options says how a Store works. Its zero value lacks a Sealer, and all else has a default.
type Options struct {
	Sealer Sealer           // needed, unless Plain is set
	Plain  bool             // configurations are stored as they are: for tests
	Log    *slog.Logger     // nil: nothing is logged. Its lines may come back through AppendLog
	Now    func() time.Time // nil: time.Now

	SampleLane int // how many writes wait in the samples lane at most; 0: 65,536

	PruneEvery     time.Duration // 0: 10 min
	KeepSamples    time.Duration // how long samples are kept; 0: 90 days; negative: for ever
	KeepNewest     int           // how many samples of a series are kept at most, to the hour; 0: any number
	KeepHours      time.Duration // how long hourly roll-ups are kept; 0: 2 years; negative: for ever. Daily ones always are
	KeepLogLines   int           // newest log lines kept; 0: 10,000; negative: all
	KeepEvents     int           // newest events and ended incidents kept; 0: 100,000; negative: all
	KeepDeliveries time.Duration // how long done rows of the outbox are kept; 0: 7 days; negative: for ever

	WALCeiling int64 // bytes above which the write-ahead log is cut; 0: 64 MiB
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	orElse(&o.SampleLane, 65536)
	orElse(&o.PruneEvery, 10*time.Minute)
	orElse(&o.KeepSamples, 90*24*time.Hour)
	orElse(&o.KeepHours, 2*365*24*time.Hour)
	orElse(&o.KeepLogLines, 10_000)
	orElse(&o.KeepEvents, 100_000)
	orElse(&o.KeepDeliveries, 7*24*time.Hour)
	orElse(&o.WALCeiling, 64<<20)
}

func orElse[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// Store is an open database. Its methods are safe for use by many goroutines.
type Store struct {
	opts  Options
	log   *slog.Logger
	now   func() time.Time
	scale *scale
	path  string // empty for a database in memory

	writeDB *bun.DB // one connection
	read    *bun.DB
	conn    conn // the writer's own

	queue      *queue
	halt       context.CancelFunc // interrupts the writer
	stop       context.CancelFunc // ends the helpers: rebuild, checkpoints, the check of the file
	helpers    sync.WaitGroup
	writerDone chan struct{}
	closeOnce  sync.Once
	closeErr   error

	heads       *heads
	sealed      atomic.Uint32 // every hour below is sealed
	rebuilt     atomic.Bool   // heads are complete; set by the writer
	ready       chan struct{} // closed when rebuilt is set or rebuilding failed
	rebuildErr  error         // once ready is closed
	rebuildDone chan error    // from the goroutine that rebuilds to the writer

	trouble    atomic.Pointer[string] // why the batch under way cannot be committed yet
	checking   atomic.Bool            // the file is being checked after an unclean stop
	damage     atomic.Pointer[string] // what that check found
	batchSince atomic.Int64           // Unix ns at which the batch under way began; 0: none
	dirty      atomic.Bool            // committed since the last checkpoint
	recounts   atomic.Int64           // that memory has followed
	stats      counters

	// The writer's own.
	pending    []pendingWrite // what was committed before the heads were complete
	complained map[string]time.Time
	poisoned   struct { // lines about refused writes in the minute under way
		since time.Time
		lines int
	}
	upkeepPlan upkeep
	lost       struct{ samples, musts int }
}

// stuckAfter is how long a batch may take before the store counts as stuck.
const stuckAfter = 10 * time.Second

// Ready returns nil when the store answers and writes as it should: the schema is current, heads are complete, the file was
// found whole if it had to be checked, and no batch is stuck. Otherwise the error says what is amiss.
func (s *Store) Ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return wrap("ready", err)
	}
	select {
	case <-s.writerDone:
		return errors.New("the writer has stopped")
	default:
	}
	if why := s.trouble.Load(); why != nil {
		return fmt.Errorf("nothing can be written: %s", *why)
	}
	if since := s.batchSince.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > stuckAfter {
			return fmt.Errorf("the writer has been busy with one batch for %s", d.Round(time.Second))
		}
	}
	if d := s.damage.Load(); d != nil {
		return fmt.Errorf("the database is damaged: %s", *d)
	}
	if s.checking.Load() {
		return errors.New("checking the database after an unclean stop")
	}
	select {
	case <-s.ready:
		if s.rebuildErr != nil {
			return fmt.Errorf("recent samples could not be read: %w", s.rebuildErr)
		}
	default:
		return errors.New("reading recent samples")
	}
	return nil
}

// awaitHeads waits until the heads are complete. A reader must never see a part of them.
func (s *Store) awaitHeads(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.writerDone:
		return monitor.ErrClosed
	default:
	}
	select {
	case <-s.ready:
		return s.rebuildErr
	default:
	}
	select {
	case <-s.ready:
		return s.rebuildErr
	case <-s.writerDone:
		return monitor.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close refuses new writes, commits every queued one until ctx ends, then interrupts the running statement, and closes the
// database. Its error says how many writes of each lane were lost. Closing twice is fine: the second call waits for the first
// and returns the same.
func (s *Store) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.shut(ctx) })
	return s.closeErr
}

func (s *Store) shut(ctx context.Context) error {
	s.queue.close()
	s.stop()
	select {
	case <-s.writerDone:
	case <-ctx.Done():
		s.halt()
		<-s.writerDone
	}
	s.halt()
	s.helpers.Wait()
	var lost error
	if s.lost.musts > 0 || s.lost.samples > 0 {
		lost = fmt.Errorf("close store: %d must writes and %d writes of the samples lane were lost: %w",
			s.lost.musts, s.lost.samples, ctx.Err())
	}
	return errors.Join(lost, s.shutFile(lost == nil))
}
