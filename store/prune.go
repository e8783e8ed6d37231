package store

import (
	"context"
	"fmt"
	"time"
)

// pruning is one round of the pruner. Its steps follow each other; each deletes in slices until a slice finds less than it
// may delete.
type pruning struct {
	now  time.Time
	step int
	dead []deadSeries // still to be cleared away
	read bool         // dead has been read
	at   uint32       // the hour that the first of dead is cleared up to
	pos  int64        // where a step that looks through a table goes on
}

// pruneStep deletes at most n rows and reports whether there is more.
type pruneStep func(ctx context.Context, c *conn, p *pruning, n int) (more bool, rows int64, err error)

func (s *Store) pruneSteps() []pruneStep {
	return []pruneStep{
		s.pruneDead, s.pruneBlocks, s.pruneNewest, s.pruneHours, s.pruneNotes, s.pruneTexts,
		s.pruneLog, s.pruneOutbox, s.pruneEvents, s.pruneIncidents, s.pruneHealths,
	}
}

// pruneSlice does one slice of the round under way and reports whether there is more. The round ends with vacuum steps, which
// give the pages of what was deleted back to the file system.
func (s *Store) pruneSlice(ctx context.Context) (bool, error) {
	u := &s.upkeepPlan
	p := u.prune
	began := time.Now()
	steps := s.pruneSteps()
	if p.step == len(steps) {
		more, err := s.vacuumSlice(ctx)
		if !more || err != nil {
			u.prune = nil
		}
		s.stats.pruneSlice(time.Since(began), !more)
		return more, err
	}
	n := u.pruneSize.size()
	var more bool
	var rows int64
	step := *p
	err := s.inTransaction(ctx, func(c *conn) error {
		var err error
		more, rows, err = steps[step.step](ctx, c, &step, n)
		return err
	})
	if err != nil {
		u.prune = nil
		return false, fmt.Errorf("prune step %d: %w", step.step, err)
	}
	if !more {
		step.step, step.pos = step.step+1, 0
	}
	*p = step
	took := time.Since(began)
	u.pruneSize.took(int(rows), took)
	s.stats.pruneSlice(took, false)
	return true, nil
}

// vacuumSlice gives some free pages back.
func (s *Store) vacuumSlice(ctx context.Context) (bool, error) {
	const pages, keep = 200, 200
	c, err := s.connect(ctx)
	if err != nil {
		return false, err
	}
	defer c.release()
	var free int64
	if err := c.bun.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&free); err != nil {
		return false, err
	}
	if free <= keep || s.path == "" {
		return false, nil
	}
	if _, err := c.bun.ExecContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", min(pages, free-keep))); err != nil {
		return false, err
	}
	s.dirty.Store(true)
	return true, nil
}

// before returns the time in Unix ms that something must be younger than to be kept, and false when it is kept for ever.
func (p *pruning) before(keep time.Duration) (int64, bool) {
	if keep < 0 {
		return 0, false
	}
	return p.now.Add(-keep).UnixMilli(), true
}

// deleteSome runs a DELETE whose last argument is how many rows it may delete.
func (c *conn) deleteSome(ctx context.Context, n int, text string, args ...int64) (bool, int64, error) {
	gone, err := c.change(ctx, text, append(args, int64(n))...)
	return gone >= int64(n), gone, err
}

func (s *Store) pruneBlocks(ctx context.Context, c *conn, p *pruning, n int) (bool, int64, error) {
	before, ok := p.before(s.opts.KeepSamples)
	if !ok {
		return false, 0, nil
	}
	return c.deleteSome(ctx, n, "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks WHERE id < ? ORDER BY id LIMIT ?)",
		rowID(uint64(hourAt(before)), 0))
}

func (s *Store) pruneHours(ctx context.Context, c *conn, p *pruning, n int) (bool, int64, error) {
	before, ok := p.before(s.opts.KeepHours)
	if !ok {
		return false, 0, nil
	}
	return c.deleteSome(ctx, n, "DELETE FROM hours WHERE id IN (SELECT id FROM hours WHERE id < ? ORDER BY id LIMIT ?)",
		rowID(uint64(hourAt(before)), 0))
}

// pruneNewest deletes, one series a slice, the blocks behind the newest samples of a series. It counts samples in the hours'
// roll-ups, from the newest back.
func (s *Store) pruneNewest(ctx context.Context, c *conn, p *pruning, _ int) (bool, int64, error) {
	if s.opts.KeepNewest <= 0 {
		return false, 0, nil
	}
	var series int64
	err := c.bun.QueryRowContext(ctx, "SELECT coalesce(min(series), 0) FROM monitors WHERE series > ?", p.pos).Scan(&series)
	if err != nil || series == 0 {
		return false, 0, err
	}
	p.pos = series
	oldest, err := oldestHour(ctx, c.bun)
	if err != nil {
		return false, 0, err
	}
	kept := 0
	s.heads.read(uint32(series), func(hd *head) {
		for i := range hd.spans {
			kept += int(hd.spans[i].count)
		}
	})
	var gone int64
	for to := s.sealed.Load(); to > oldest; {
		from := to - min(to-oldest, idsAtOnce)
		if kept >= s.opts.KeepNewest {
			n, err := c.deleteIDs(ctx, "blocks", uint32(series), from, to)
			if err != nil {
				return false, gone, err
			}
			gone, to = gone+n, from
			continue
		}
		hours, err := readHours(ctx, c.bun, uint32(series), from, to)
		if err != nil {
			return false, gone, err
		}
		for kept < s.opts.KeepNewest && to > from {
			to--
			if r, ok := hours[to]; ok {
				kept += int(r.counts[0] + r.counts[1] + r.counts[2] + r.counts[3])
			}
		}
	}
	return true, gone, nil
}

// deleteIDs deletes the rows of a series in slots [from, to) of a table.
func (c *conn) deleteIDs(ctx context.Context, table string, series, from, to uint32) (int64, error) {
	if from >= to {
		return 0, nil
	}
	res, err := c.bun.ExecContext(ctx, "DELETE FROM "+table+" WHERE id IN ("+idList(series, from, to)+")")
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// deadSeries is a series whose monitor was deleted.
type deadSeries struct {
	Series              uint32
	MonitorID           string
	FirstHour, LastHour uint32
}

// pruneDead deletes what a deleted monitor has left: its blocks, roll-ups and notes, and once no notification of it is
// pending its events and incidents.
func (s *Store) pruneDead(ctx context.Context, c *conn, p *pruning, _ int) (bool, int64, error) {
	if !p.read {
		rows, err := c.bun.QueryContext(ctx, "SELECT series, monitor_id, first_hour, last_hour FROM dead_series ORDER BY series")
		if err != nil {
			return false, 0, err
		}
		defer rows.Close()
		var dead []deadSeries
		for rows.Next() {
			var d deadSeries
			if err := rows.Scan(&d.Series, &d.MonitorID, &d.FirstHour, &d.LastHour); err != nil {
				return false, 0, err
			}
			dead = append(dead, d)
		}
		if err := rows.Err(); err != nil {
			return false, 0, err
		}
		p.dead, p.read = dead, true
		return len(dead) > 0, 0, nil
	}
	if len(p.dead) == 0 {
		return false, 0, nil
	}
	d := p.dead[0]
	p.at = max(p.at, d.FirstHour)
	if p.at <= d.LastHour {
		to := min(p.at+idsAtOnce, d.LastHour+1)
		var gone int64
		for _, part := range []struct {
			table    string
			from, to uint32
		}{{"blocks", p.at, to}, {"hours", p.at, to}, {"days", p.at / hoursADay, (to-1)/hoursADay + 1}} {
			n, err := c.deleteIDs(ctx, part.table, d.Series, part.from, part.to)
			if err != nil {
				return false, gone, err
			}
			gone += n
		}
		p.at = to
		return true, gone, nil
	}
	more, gone, err := c.deleteSome(ctx, sliceStart, `DELETE FROM notes WHERE series = ? AND tick IN
		(SELECT tick FROM notes WHERE series = ? LIMIT ?)`, int64(d.Series), int64(d.Series))
	if err != nil || more {
		return true, gone, err
	}
	p.dead, p.at = p.dead[1:], 0
	return true, gone, s.pruneTimeline(ctx, c, d)
}

// pruneTimeline deletes the incidents and events of a deleted monitor, unless one of its notifications is still pending:
// then the next round tries again.
func (s *Store) pruneTimeline(ctx context.Context, c *conn, d deadSeries) error {
	var pending bool
	err := c.bun.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM outbox WHERE monitor_id = ? AND done_at = 0)", d.MonitorID).
		Scan(&pending)
	if err != nil || pending {
		return err
	}
	for _, text := range []string{
		"DELETE FROM outbox WHERE monitor_id = ?", "DELETE FROM events WHERE monitor_id = ?",
		"DELETE FROM incidents WHERE monitor_id = ?", "DELETE FROM dead_series WHERE monitor_id = ?",
	} {
		if _, err := c.bun.ExecContext(ctx, text, d.MonitorID); err != nil {
			return err
		}
	}
	return nil
}

// prunedToday reports whether the notes and texts have been gone through on the day of this round already. They are many and
// change little, so once a day is enough.
func (c *conn) prunedToday(ctx context.Context, p *pruning) (bool, error) {
	var last int64
	err := c.bun.QueryRowContext(ctx, "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'texts_pruned'").Scan(&last)
	return last == p.day(), err
}

func (p *pruning) day() int64 { return int64(hourAt(p.now.UnixMilli()) / hoursADay) }

// pruneNotes deletes the notes of samples that are gone, but keeps the newest of those in each series: the samples after it
// share its text. One slice goes through some series.
func (s *Store) pruneNotes(ctx context.Context, c *conn, p *pruning, n int) (bool, int64, error) {
	before, ok := p.before(s.opts.KeepSamples)
	if !ok {
		return false, 0, nil
	}
	if p.pos == 0 {
		if done, err := c.prunedToday(ctx, p); err != nil || done {
			return false, 0, err
		}
	}
	const seriesAtOnce = 200
	var all int64
	for range seriesAtOnce {
		var series int64
		err := c.bun.QueryRowContext(ctx, "SELECT coalesce(min(series), 0) FROM notes WHERE series > ?", p.pos).Scan(&series)
		if err != nil || series == 0 {
			return false, all, err
		}
		more, gone, err := c.deleteSome(ctx, n, `DELETE FROM notes WHERE series = ? AND tick IN (SELECT tick FROM notes
			WHERE series = ? AND tick < (SELECT max(tick) FROM notes WHERE series = ? AND tick <= ?) LIMIT ?)`,
			series, series, series, int64(hourTick(hourAt(before))))
		if all += gone; err != nil || more {
			return true, all, err
		}
		p.pos = series
		if all >= int64(n) {
			break
		}
	}
	return true, all, nil
}

// pruneTexts deletes texts that no note refers to.
func (s *Store) pruneTexts(ctx context.Context, c *conn, p *pruning, n int) (bool, int64, error) {
	if p.pos == 0 {
		if done, err := c.prunedToday(ctx, p); err != nil || done {
			return false, 0, err
		}
	}
	var end int64
	err := c.bun.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM (SELECT id FROM texts WHERE id > ? ORDER BY id LIMIT ?)",
		p.pos, n).Scan(&end)
	if err != nil {
		return false, 0, err
	}
	if end == 0 {
		return false, 0, c.exec(ctx, "INSERT OR REPLACE INTO meta VALUES ('texts_pruned', ?)", p.day())
	}
	_, err = c.change(ctx, `DELETE FROM texts WHERE id > ? AND id <= ?
		AND NOT EXISTS (SELECT 1 FROM notes WHERE notes.text_id = texts.id)`, p.pos, end)
	p.pos = end
	return true, int64(n), err
}

func (s *Store) pruneLog(ctx context.Context, c *conn, _ *pruning, n int) (bool, int64, error) {
	if s.opts.KeepLogLines < 0 {
		return false, 0, nil
	}
	return c.deleteSome(ctx, n, `DELETE FROM log_lines WHERE id IN (SELECT id FROM log_lines
		WHERE id <= (SELECT id FROM log_lines ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?)`, int64(s.opts.KeepLogLines))
}

func (s *Store) pruneOutbox(ctx context.Context, c *conn, p *pruning, n int) (bool, int64, error) {
	before, ok := p.before(s.opts.KeepDeliveries)
	if !ok {
		return false, 0, nil
	}
	return c.deleteSome(ctx, n, `DELETE FROM outbox WHERE id IN (SELECT id FROM outbox
		WHERE done_at <> 0 AND done_at < ? ORDER BY done_at LIMIT ?)`, before)
}

// pruneEvents deletes all but the newest events, never one that is still to be delivered or that belongs to an open incident.
func (s *Store) pruneEvents(ctx context.Context, c *conn, _ *pruning, n int) (bool, int64, error) {
	if s.opts.KeepEvents < 0 {
		return false, 0, nil
	}
	return c.deleteSome(ctx, n, `DELETE FROM events WHERE id IN (SELECT e.id FROM events AS e
		WHERE e.at < (SELECT at FROM events ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?)
		AND NOT EXISTS (SELECT 1 FROM outbox AS o WHERE o.event_id = e.id AND o.done_at = 0)
		AND NOT EXISTS (SELECT 1 FROM incidents AS i WHERE i.id = e.incident_id AND i.ended_at = 0)
		ORDER BY e.at, e.id LIMIT ?)`, int64(s.opts.KeepEvents)-1)
}

// pruneIncidents deletes all but the newest incidents that have ended.
func (s *Store) pruneIncidents(ctx context.Context, c *conn, _ *pruning, n int) (bool, int64, error) {
	if s.opts.KeepEvents < 0 {
		return false, 0, nil
	}
	return c.deleteSome(ctx, n, `DELETE FROM incidents WHERE id IN (SELECT i.id FROM incidents AS i
		WHERE i.ended_at <> 0 AND i.started_at < (SELECT started_at FROM incidents ORDER BY started_at DESC, id DESC LIMIT 1 OFFSET ?)
		AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.incident_id = i.id) ORDER BY i.started_at LIMIT ?)`, int64(s.opts.KeepEvents)-1)
}

func (s *Store) pruneHealths(ctx context.Context, c *conn, _ *pruning, n int) (bool, int64, error) {
	return c.deleteSome(ctx, n, `DELETE FROM healths WHERE channel_id IN (SELECT channel_id FROM healths
		WHERE channel_id NOT IN (SELECT id FROM channels) LIMIT ?)`)
}
