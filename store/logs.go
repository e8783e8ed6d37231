package store

import (
	"context"
	"strings"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

type logRow struct {
	bun.BaseModel `bun:"table:log_lines,alias:l"`

	ID      int64  `bun:"id,pk,autoincrement"`
	At      int64  `bun:"at"`
	Level   int    `bun:"level"`
	Message string `bun:"message"`
	Attrs   string `bun:"attrs"`
}

// levels lists the levels of log lines in the order of their stored numbers, from 0.
func levels() [4]string { return [4]string{"DEBUG", "INFO", "WARN", "ERROR"} }

// levelNumber returns the stored number of a level; one that is not known counts as INFO.
func levelNumber(level string) (int, bool) {
	for i, one := range levels() {
		if one == strings.ToUpper(level) {
			return i, true
		}
	}
	return 1, false
}

func logRowOf(l *monitor.LogLine) logRow {
	level, _ := levelNumber(l.Level)
	// A line comes with what others said in it: nothing may make the database refuse it.
	return logRow{
		At: stamp(l.At), Level: level, Message: sdk.CleanText(l.Message, 4096), Attrs: sdk.CleanText(l.Attrs, 16384),
	}
}

// AppendLog enqueues a line of the server's log and never blocks; false: the lane was full and it was dropped. The line's id
// is given by the store.
func (s *Store) AppendLog(l monitor.LogLine) bool {
	return s.queue.pushOther(func(to *lane) { to.logs = append(to.logs, l) })
}

// LogLines returns stored lines, newest first.
func (s *Store) LogLines(ctx context.Context, q monitor.LogQuery) ([]monitor.LogLine, error) {
	limit, err := limitOf(q.Limit, 100, 1000)
	if err != nil {
		return nil, err
	}
	var rows []logRow
	sel := s.read.NewSelect().Model(&rows).Order("id DESC").Limit(int64(limit))
	if q.Level != "" {
		level, ok := levelNumber(q.Level)
		if !ok {
			return nil, monitor.Faults{{Field: "level", Value: q.Level, Message: "must be DEBUG, INFO, WARN or ERROR"}}
		}
		sel = sel.Where("level >= ?", level)
	}
	if q.Text != "" {
		sel = sel.Where("instr(lower(message), lower(?)) > 0 OR instr(lower(attrs), lower(?)) > 0",
			searchable(q.Text), searchable(q.Text))
	}
	if q.Before > 0 {
		sel = sel.Where("id < ?", q.Before)
	}
	if err := sel.Scan(ctx); err != nil {
		return nil, wrap("read log lines", err)
	}
	out := make([]monitor.LogLine, len(rows))
	for i, r := range rows {
		out[i] = monitor.LogLine{
			ID: r.ID, At: unstamp(r.At), Level: levels()[min(max(r.Level, 0), 3)], Message: r.Message, Attrs: r.Attrs,
		}
	}
	return out, nil
}
