package app

import "github.com/tocsinhq/tocsin/internal/service"

// figures are the store's and the log's, for /metrics and /stats.
func (s *server) figures() []service.Figure {
	st := s.store.Stats()
	gauge := func(name, help string, value float64) service.Figure {
		return service.Figure{Name: "tocsin_" + name, Help: help, Value: value}
	}
	counter := func(name, help string, value float64) service.Figure {
		return service.Figure{Name: "tocsin_" + name + "_total", Help: help, Value: value, Counter: true}
	}
	return []service.Figure{
		counter("store_samples_stored", "Samples handed to the database.", float64(st.SamplesStored)),
		counter("store_samples_dropped", "Writes that found the samples lane full.", float64(st.SamplesDropped)),
		counter("store_samples_late", "Samples of an hour that was sealed already.", float64(st.SamplesLate)),
		counter("store_samples_refused", "Samples that were invalid, orphaned or refused by the database.", float64(st.SamplesInvalid+st.SamplesOrphaned+st.SamplesPoisoned)),
		counter("store_sample_conflicts", "Samples of a time that the series had already.", float64(st.SampleConflicts)),
		counter("store_commits", "Transactions that were committed.", float64(st.Commits)),
		counter("store_commit_seconds", "Time spent in commits.", st.CommitTime.Seconds()),
		gauge("store_commit_max_seconds", "Longest commit since the start.", st.CommitMax.Seconds()),
		counter("store_commit_retries", "Commits that were tried again.", float64(st.CommitRetries)),
		gauge("store_must_queue_writes", "Writes waiting that are never dropped.", float64(st.MustQueue)),
		gauge("store_sample_queue_writes", "Samples, log lines and channel health waiting to be written.", float64(st.SampleQueue)),
		gauge("store_series", "Series in memory.", float64(st.Series)),
		gauge("store_database_bytes", "Size of the database file.", float64(st.DatabaseBytes)),
		gauge("store_wal_bytes", "Size of the write-ahead log.", float64(st.WALBytes)),
		counter("store_seal_seconds", "Time spent sealing hours.", st.SealTime.Seconds()),
		gauge("store_seal_slice_max_seconds", "Longest slice of sealing since the start.", st.SealMax.Seconds()),
		counter("store_prunes", "Rounds of the pruner.", float64(st.Prunes)),
		counter("store_prune_seconds", "Time spent pruning.", st.PruneTime.Seconds()),
		counter("log_lines_dropped", "Log lines that were not stored.", float64(s.lines.Dropped())),
	}
}
