package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// oldestFirst holds for a pending row when no older one for the same channel and monitor is pending: down is told before up.
const oldestFirst = `NOT EXISTS (SELECT 1 FROM outbox AS p WHERE p.done_at = 0 AND p.channel_id = o.channel_id
	AND p.monitor_id = o.monitor_id AND p.id < o.id)`

// Due returns at most limit pending notifications that are due, oldest first, none of the busy channels, and never one of
// which an older one for the same channel and monitor is still pending.
func (s *Store) Due(ctx context.Context, now time.Time, busy []string, limit int) ([]monitor.Notification, error) {
	const op = "read due notifications"
	var rows []struct {
		outboxRow
		Payload []byte `bun:"payload"`
		Kind    string `bun:"kind"`
		At      int64  `bun:"at"`
		Message string `bun:"message"`
	}
	sel := s.read.NewSelect().TableExpr("outbox AS o").Join("JOIN events AS e ON e.id = o.event_id").
		ColumnExpr("o.id, o.event_id, o.monitor_id, o.channel_id, o.attempts, o.created_at, o.due_at, e.payload, e.kind, e.at, e.message").
		Where("o.done_at = 0").Where("o.due_at <= ?", now.UnixMilli()).Where(oldestFirst).OrderExpr("o.id").Limit(int64(limit))
	if len(busy) > 0 {
		sel = sel.Where("o.channel_id NOT IN (?)", bun.List(busy))
	}
	if err := sel.Scan(ctx, &rows); err != nil {
		return nil, wrap(op, err)
	}
	out := make([]monitor.Notification, len(rows))
	for i := range rows {
		r := &rows[i]
		out[i] = monitor.Notification{
			ID: r.ID, EventID: r.EventID, MonitorID: r.MonitorID, ChannelID: r.ChannelID, Attempts: r.Attempts,
			CreatedAt: unstamp(r.CreatedAt), DueAt: unstamp(r.DueAt),
		}
		if err := json.Unmarshal(r.Payload, &out[i].Payload); err != nil {
			// What can still be said is sent: one damaged row must not hold up its alarm, nor those behind it.
			s.log.Error("store: the payload of an event is damaged; only its message is sent", "event", r.EventID)
			out[i].Payload = sdk.Notification{
				ID: r.EventID, Transition: sdk.Transition(r.Kind), At: unstamp(r.At), Monitor: sdk.Ref{ID: r.MonitorID},
				Result: sdk.Seen{Message: r.Message}, Text: r.Message,
			}
		}
	}
	return out, nil
}

// NextDue returns when the next pending notification that Due could return is due, and false when none is pending.
func (s *Store) NextDue(ctx context.Context) (time.Time, bool, error) {
	var due sql.NullInt64
	err := s.read.NewSelect().TableExpr("outbox AS o").ColumnExpr("min(o.due_at)").Where("o.done_at = 0").Where(oldestFirst).
		Scan(ctx, &due)
	if err != nil || !due.Valid {
		return time.Time{}, false, wrap("read next due notification", err)
	}
	return unstamp(due.Int64), true, nil
}

// Attempted records what came of one try to deliver a notification. One that is done already stays as it is.
func (s *Store) Attempted(ctx context.Context, a monitor.Attempt) error {
	return s.do(ctx, "record attempt", func(ctx context.Context, t *tx) error {
		done, due := stamp(a.At), sql.NullInt64{}
		switch a.Outcome {
		case monitor.Sent, monitor.GivenUp:
		case monitor.Retry:
			done, due = 0, sql.NullInt64{Int64: stamp(a.RetryAt), Valid: true}
		default:
			return fmt.Errorf("outcome %d is none of an attempt", a.Outcome)
		}
		res, err := t.ExecContext(ctx, `UPDATE outbox SET attempts = attempts + 1, outcome = ?, error = ?, done_at = ?,
			due_at = coalesce(?, due_at) WHERE id = ? AND done_at = 0`, int(a.Outcome), sdk.CleanText(a.Error, 1024), done, due, a.NotificationID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		var there bool
		if err := t.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM outbox WHERE id = ?)", a.NotificationID).Scan(&there); err != nil {
			return err
		}
		if !there {
			return monitor.ErrNotFound
		}
		return nil
	})
}

// OutboxCounts returns how many notifications are pending, how many of those kept were given up, and when the oldest pending
// one was made; zero when none is.
func (s *Store) OutboxCounts(ctx context.Context) (pending, failed int64, oldest time.Time, err error) {
	var first sql.NullInt64
	err = s.read.QueryRowContext(ctx, "SELECT count(*), min(created_at) FROM outbox WHERE done_at = 0").Scan(&pending, &first)
	if err == nil {
		err = s.read.QueryRowContext(ctx, "SELECT count(*) FROM outbox WHERE done_at <> 0 AND outcome = ?", int(monitor.GivenUp)).
			Scan(&failed)
	}
	return pending, failed, unstamp(first.Int64), wrap("count notifications", err)
}

type healthRow struct {
	bun.BaseModel `bun:"table:healths,alias:h"`

	ChannelID     string `bun:"channel_id,pk"`
	LastSuccessAt int64  `bun:"last_success_at"`
	LastErrorAt   int64  `bun:"last_error_at"`
	LastError     string `bun:"last_error"`
	Streak        int    `bun:"streak"`
}

// PutHealth enqueues how a channel has fared and never blocks; false: the lane was full and it was dropped.
func (s *Store) PutHealth(h monitor.Health) bool {
	return s.queue.pushOther(func(l *lane) { l.healths = append(l.healths, h) })
}

// Healths returns how every channel has fared that was ever used.
func (s *Store) Healths(ctx context.Context) ([]monitor.Health, error) {
	var rows []healthRow
	if err := s.read.NewSelect().Model(&rows).Order("channel_id").Scan(ctx); err != nil {
		return nil, wrap("read channel health", err)
	}
	out := make([]monitor.Health, len(rows))
	for i, r := range rows {
		out[i] = monitor.Health{
			ChannelID: r.ChannelID, LastSuccessAt: unstamp(r.LastSuccessAt), LastErrorAt: unstamp(r.LastErrorAt),
			LastError: r.LastError, Streak: r.Streak,
		}
	}
	return out, nil
}

// insertLane writes what of the samples lane is no sample.
func (s *Store) insertLane(ctx context.Context, c *conn, l *lane) error {
	if len(l.logs) > 0 {
		rows := make([]logRow, len(l.logs))
		for i := range l.logs {
			rows[i] = logRowOf(&l.logs[i])
		}
		if _, err := c.bun.NewInsert().Model(&rows).ExcludeColumn("id").Returning("NULL").Exec(ctx); err != nil {
			return err
		}
	}
	for _, h := range l.healths {
		row := &healthRow{
			ChannelID: h.ChannelID, LastSuccessAt: stamp(h.LastSuccessAt), LastErrorAt: stamp(h.LastErrorAt),
			LastError: sdk.CleanText(h.LastError, 1024), Streak: h.Streak,
		}
		_, err := c.bun.NewInsert().Model(row).Returning("NULL").On("CONFLICT (channel_id) DO UPDATE").
			Set("last_success_at = EXCLUDED.last_success_at").Set("last_error_at = EXCLUDED.last_error_at").
			Set("last_error = EXCLUDED.last_error").Set("streak = EXCLUDED.streak").Exec(ctx)
		if err != nil {
			return err
		}
	}
	for _, t := range l.touches {
		_, err := c.bun.ExecContext(ctx, "UPDATE tokens SET last_used_at = max(last_used_at, ?) WHERE id = ?", stamp(t.at), t.token)
		if err != nil {
			return err
		}
	}
	for _, o := range l.opaques {
		if err := s.putOpaque(ctx, c, &o); err != nil {
			return err
		}
	}
	return nil
}
