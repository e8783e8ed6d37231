package store

import (
	"context"
	"strings"
	"time"
)

// checkpointEvery is how often what has been committed is carried into the database file. It also bounds what a power cut can
// cost of samples that were committed without a sync.
const checkpointEvery = time.Second

// checkpoints moves the write-ahead log into the database, on a connection of its own, until ctx ends. PASSIVE waits for
// nobody. Above the ceiling the log is cut, which needs a moment without readers and is given up after a short wait.
func (s *Store) checkpoints(ctx context.Context) {
	if s.path == "" {
		return
	}
	db := openDB(fileDSN(s.path, "busy_timeout(50)"), 1)
	defer func() {
		if err := db.Close(); err != nil {
			s.log.Error("store: the checkpoint connection did not close", "error", wrap("close", err))
		}
	}()
	ticker := time.NewTicker(checkpointEvery)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !s.dirty.Swap(false) {
			continue
		}
		mode := "PASSIVE"
		if fileSize(walPath(s.path)) > s.opts.WALCeiling {
			mode = "TRUNCATE"
		}
		_, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint("+mode+")")
		if err != nil && ctx.Err() == nil {
			s.dirty.Store(true)
			if !failing {
				s.log.Error("store: a checkpoint failed and is tried again", "error", wrap("checkpoint", err))
			}
		}
		failing = err != nil
	}
}

// checkFile looks through the whole file after an unclean stop, on a read connection, while all else goes on.
func (s *Store) checkFile(ctx context.Context) {
	defer s.checking.Store(false)
	began := time.Now()
	var faults []string
	err := s.read.NewRaw("PRAGMA quick_check(5)").Scan(ctx, &faults)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		text := wrap("check", err).Error()
		s.damage.Store(&text)
		s.log.Error("store: the database could not be checked after an unclean stop", "error", text)
	case len(faults) != 1 || faults[0] != "ok":
		text := strings.Join(faults, "; ")
		s.damage.Store(&text)
		s.log.Error("store: the database is damaged", "found", text)
	default:
		s.log.Info("store: the database is whole after an unclean stop", "took", time.Since(began).Round(time.Millisecond))
	}
}
