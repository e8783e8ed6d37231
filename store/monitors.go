package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

func itoa(n int) string { return strconv.Itoa(n) }

type monitorRow struct {
	bun.BaseModel `bun:"table:monitors,alias:m"`

	ID            string        `bun:"id,pk"`
	Series        int64         `bun:"series"`
	Revision      int64         `bun:"revision"`
	Name          string        `bun:"name"`
	Kind          string        `bun:"kind"`
	Target        string        `bun:"target"`
	Interval      time.Duration `bun:"interval_ns"`
	Timeout       time.Duration `bun:"timeout_ns"`
	Retries       int           `bun:"retries"`
	RetryInterval time.Duration `bun:"retry_interval_ns"`
	Recoveries    int           `bun:"recoveries"`
	Config        []byte        `bun:"config"`
	Assert        string        `bun:"assert"`
	Degrade       string        `bun:"degrade"`
	Labels        string        `bun:"labels"`
	Folded        string        `bun:"folded"` // what a text search looks through, in lower case
	Paused        bool          `bun:"paused"`
	CreatedAt     int64         `bun:"created_at"`
	UpdatedAt     int64         `bun:"updated_at"`
}

type monitorChannelRow struct {
	bun.BaseModel `bun:"table:monitor_channels,alias:mc"`

	MonitorID string `bun:"monitor_id,pk"`
	Position  int    `bun:"position,pk"`
	ChannelID string `bun:"channel_id"`
}

// foldText returns what a text search for a monitor looks through.
func foldText(m *monitor.Monitor) string {
	var b strings.Builder
	b.WriteString(m.Name + "\n" + m.Target)
	for _, k := range slices.Sorted(maps.Keys(m.Labels)) {
		b.WriteString("\n" + k + "=" + m.Labels[k])
	}
	return strings.ToLower(b.String())
}

func (s *Store) sealConfig(plain []byte) ([]byte, error) {
	if s.opts.Sealer == nil {
		return plain, nil
	}
	return s.opts.Sealer.Seal(plain)
}

func (s *Store) openConfig(sealed []byte) ([]byte, error) {
	if s.opts.Sealer == nil {
		return sealed, nil
	}
	return s.opts.Sealer.Open(sealed)
}

// texts writes a list as JSON, [] for an empty one.
func texts(list []string) (string, error) {
	if len(list) == 0 {
		return "[]", nil
	}
	data, err := json.Marshal(list)
	return string(data), err
}

func (s *Store) monitorRow(m *monitor.Monitor) (*monitorRow, error) {
	config := m.Config
	if len(config) == 0 {
		config = json.RawMessage("{}")
	}
	sealed, err := s.sealConfig(config)
	if err != nil {
		return nil, fmt.Errorf("seal the configuration: %w", err)
	}
	labels := []byte("{}")
	if len(m.Labels) > 0 {
		if labels, err = json.Marshal(m.Labels); err != nil {
			return nil, err
		}
	}
	assert, err := texts(m.Assert)
	if err != nil {
		return nil, err
	}
	degrade, err := texts(m.Degrade)
	if err != nil {
		return nil, err
	}
	return &monitorRow{
		ID: m.ID, Series: int64(m.Series), Revision: m.Revision, Name: m.Name, Kind: m.Kind, Target: m.Target, Interval: m.Interval,
		Timeout: m.Timeout, Retries: m.Retries, RetryInterval: m.RetryInterval, Recoveries: m.Recoveries, Config: sealed,
		Assert: assert, Degrade: degrade, Labels: string(labels), Folded: foldText(m), Paused: m.Paused,
		CreatedAt: stamp(m.CreatedAt), UpdatedAt: stamp(m.UpdatedAt),
	}, nil
}

func (s *Store) monitorOf(r *monitorRow, channels []string) (monitor.Monitor, error) {
	m := monitor.Monitor{
		ID: r.ID, Series: uint32(r.Series), Revision: r.Revision, Name: r.Name, Kind: r.Kind, Target: r.Target, Interval: r.Interval,
		Timeout: r.Timeout, Retries: r.Retries, RetryInterval: r.RetryInterval, Recoveries: r.Recoveries, Channels: channels,
		Paused: r.Paused, CreatedAt: unstamp(r.CreatedAt), UpdatedAt: unstamp(r.UpdatedAt),
	}
	config, err := s.openConfig(r.Config)
	if err != nil {
		return m, fmt.Errorf("open the configuration of monitor %s: %w", r.ID, err)
	}
	m.Config = config
	for _, part := range []struct {
		text string
		into any
		none bool
	}{{r.Assert, &m.Assert, r.Assert == "[]"}, {r.Degrade, &m.Degrade, r.Degrade == "[]"}, {r.Labels, &m.Labels, r.Labels == "{}"}} {
		if part.none {
			continue
		}
		if err := json.Unmarshal([]byte(part.text), part.into); err != nil {
			return m, fmt.Errorf("read monitor %s: stored lists are damaged", r.ID)
		}
	}
	return m, nil
}

// CreateMonitor stores a new monitor and sets its Series, its Revision to 1 and its times. The id is the caller's. A name that
// is taken is monitor.ErrConflict; a channel that is not there is monitor.Faults.
func (s *Store) CreateMonitor(ctx context.Context, m *monitor.Monitor) error {
	if m.ID == "" {
		return errors.New("create monitor: it has no id")
	}
	made := *m
	err := s.do(ctx, "create monitor", func(ctx context.Context, t *tx) error {
		now := s.now()
		made.Revision, made.CreatedAt, made.UpdatedAt = 1, msTime(now.UnixMilli()), msTime(now.UnixMilli())
		var series int64
		err := t.QueryRowContext(ctx, "UPDATE meta SET value = value + 1 WHERE name = 'series' RETURNING value").Scan(&series)
		if err != nil {
			return err
		}
		if series > maxSeries {
			return fmt.Errorf("all %d series are used up", maxSeries)
		}
		made.Series = uint32(series)
		return t.putMonitor(ctx, &made, func(row *monitorRow) error {
			_, err := t.NewInsert().Model(row).Returning("NULL").Exec(ctx)
			return err
		})
	})
	if err != nil {
		return err
	}
	*m = made
	return nil
}

func nameTaken(err error, what string) error {
	if isUnique(err) {
		return fmt.Errorf("the %s's name or id is taken: %w", what, monitor.ErrConflict)
	}
	return err
}

// putMonitor has write store the monitor's row, stores its channels, and makes the head know it once all is committed.
func (t *tx) putMonitor(ctx context.Context, m *monitor.Monitor, write func(*monitorRow) error) error {
	row, err := t.store.monitorRow(m)
	if err != nil {
		return err
	}
	if err := write(row); err != nil {
		return nameTaken(err, "monitor")
	}
	if err := t.putMonitorChannels(ctx, m); err != nil {
		return err
	}
	put := *m
	t.then(func() { t.store.heads.put(put.Series, &put) })
	return nil
}

func (t *tx) putMonitorChannels(ctx context.Context, m *monitor.Monitor) error {
	if _, err := t.ExecContext(ctx, "DELETE FROM monitor_channels WHERE monitor_id = ?", m.ID); err != nil {
		return err
	}
	for i, id := range m.Channels {
		row := &monitorChannelRow{MonitorID: m.ID, Position: i, ChannelID: id}
		if _, err := t.NewInsert().Model(row).Returning("NULL").Exec(ctx); err != nil {
			if isForeignKey(err) {
				return monitor.Faults{{Field: "channels[" + itoa(i) + "]", Message: "there is no such channel"}}
			}
			return err
		}
	}
	return nil
}

// UpdateMonitor stores a changed monitor. Its Revision must be the stored one, else the error is monitor.ErrStale; the next
// one and UpdatedAt are set. Series and CreatedAt stay as stored. A name that is taken is monitor.ErrConflict.
func (s *Store) UpdateMonitor(ctx context.Context, m *monitor.Monitor) error {
	made := *m
	err := s.do(ctx, "update monitor", func(ctx context.Context, t *tx) error {
		var was monitorRow
		if err := t.NewSelect().Model(&was).Column("series", "revision", "created_at").Where("id = ?", m.ID).Scan(ctx); err != nil {
			return err
		}
		if was.Revision != m.Revision {
			return fmt.Errorf("revision %d is no longer the newest: %w", m.Revision, monitor.ErrStale)
		}
		made.Series, made.Revision, made.CreatedAt = uint32(was.Series), was.Revision+1, unstamp(was.CreatedAt)
		made.UpdatedAt = msTime(s.now().UnixMilli())
		return t.putMonitor(ctx, &made, func(row *monitorRow) error {
			_, err := t.NewUpdate().Model(row).WherePK().Exec(ctx)
			return err
		})
	})
	if err != nil {
		return err
	}
	*m = made
	return nil
}

// DeleteMonitor deletes a monitor and its state and ends its open incident. A last transition, with the news of that, is
// recorded with it; nil is none. What is pending in the outbox is still delivered.
// Its samples, events and incidents go with the pruner, and its series is never used again.
func (s *Store) DeleteMonitor(ctx context.Context, id string, last *monitor.Transition) error {
	return s.do(ctx, "delete monitor", func(ctx context.Context, t *tx) error {
		var was monitorRow
		if err := t.NewSelect().Model(&was).Column("series", "created_at").Where("id = ?", id).Scan(ctx); err != nil {
			return err
		}
		if last != nil {
			if err := t.record(ctx, last); err != nil {
				return fmt.Errorf("last transition: %w", err)
			}
		}
		now := s.now().UnixMilli()
		// A clock that was wrong when the monitor was made must leave nothing behind: the hours take in a day on both sides.
		first := hourAt(was.CreatedAt - 24*hourMS)
		last := hourAt(max(now, was.CreatedAt) + 24*hourMS)
		if oldest, err := oldestHour(ctx, t.IDB); err != nil {
			return err
		} else if oldest < first && oldest > 0 {
			first = oldest
		}
		for _, one := range []struct {
			text string
			args []any
		}{
			{"UPDATE incidents SET ended_at = max(?, started_at) WHERE monitor_id = ? AND ended_at = 0", []any{now, id}},
			{"DELETE FROM monitors WHERE id = ?", []any{id}},
			{"INSERT INTO dead_series VALUES (?, ?, ?, ?)", []any{was.Series, id, first, last}},
		} {
			if _, err := t.ExecContext(ctx, one.text, one.args...); err != nil {
				return err
			}
		}
		t.then(func() { s.heads.remove(uint32(was.Series)) })
		return nil
	})
}

// Monitor returns a monitor by its id, or monitor.ErrNotFound.
func (s *Store) Monitor(ctx context.Context, id string) (monitor.Monitor, error) {
	return s.oneMonitor(ctx, "m.id = ?", id)
}

// MonitorByName returns a monitor by its name, or monitor.ErrNotFound.
func (s *Store) MonitorByName(ctx context.Context, name string) (monitor.Monitor, error) {
	return s.oneMonitor(ctx, "m.name = ?", name)
}

func (s *Store) oneMonitor(ctx context.Context, where, value string) (monitor.Monitor, error) {
	const op = "read monitor"
	var row monitorRow
	if err := s.read.NewSelect().Model(&row).Where(where, value).Scan(ctx); err != nil {
		return monitor.Monitor{}, wrap(op, err)
	}
	channels, err := s.monitorChannels(ctx, []string{row.ID})
	if err != nil {
		return monitor.Monitor{}, wrap(op, err)
	}
	m, err := s.monitorOf(&row, channels[row.ID])
	return m, wrap(op, err)
}

// monitorChannels returns the channels of monitors, in their order; nil ids: of all.
func (s *Store) monitorChannels(ctx context.Context, ids []string) (map[string][]string, error) {
	out := make(map[string][]string)
	if ids != nil && len(ids) == 0 {
		return out, nil
	}
	var rows []monitorChannelRow
	q := s.read.NewSelect().Model(&rows).Order("monitor_id", "position")
	if ids != nil {
		q = q.Where("monitor_id IN (?)", bun.List(ids))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, err
	}
	for _, r := range rows {
		out[r.MonitorID] = append(out[r.MonitorID], r.ChannelID)
	}
	return out, nil
}

// Monitors returns every monitor by name.
func (s *Store) Monitors(ctx context.Context) ([]monitor.Monitor, error) {
	const op = "read monitors"
	var rows []monitorRow
	if err := s.read.NewSelect().Model(&rows).Order("name").Scan(ctx); err != nil {
		return nil, wrap(op, err)
	}
	channels, err := s.monitorChannels(ctx, nil)
	if err != nil {
		return nil, wrap(op, err)
	}
	out := make([]monitor.Monitor, len(rows))
	for i := range rows {
		if out[i], err = s.monitorOf(&rows[i], channels[rows[i].ID]); err != nil {
			return nil, wrap(op, err)
		}
	}
	return out, nil
}

// stateRank orders conditions from worst to best: down, degraded, unknown, pending, maintenance, paused, up.
const stateRank = "CASE coalesce(s.condition, 4) WHEN 3 THEN 0 WHEN 2 THEN 1 WHEN 0 THEN 2 WHEN 4 THEN 3 WHEN 6 THEN 4 WHEN 5 THEN 5 ELSE 6 END"

// ListMonitors returns a page of monitors with the states that were committed last. A cursor that this list did not give is
// monitor.Faults.
func (s *Store) ListMonitors(ctx context.Context, q monitor.Query) (monitor.Page[monitor.Listed], error) {
	const op = "list monitors"
	var page monitor.Page[monitor.Listed]
	limit, err := limitOf(q.Limit, 100, 1000)
	if err != nil {
		return page, err
	}
	order := q.Sort
	if order == "" {
		order = monitor.SortName
	}
	after, err := parseCursor(q.Cursor, string(order))
	if err != nil {
		return page, err
	}
	var rows []struct {
		ID   string `bun:"id"`
		Name string `bun:"name"`
		Kind string `bun:"kind"`
		Rank int64  `bun:"rank"`
	}
	sel := s.read.NewSelect().TableExpr("monitors AS m").Join("LEFT JOIN states AS s ON s.monitor_id = m.id").
		ColumnExpr("m.id, m.name, m.kind, " + stateRank + " AS rank")
	sel = filterMonitors(sel, &q)
	switch order {
	case monitor.SortName:
		if after != nil {
			sel = sel.Where("m.name > ?", after.Name)
		}
		sel = sel.OrderExpr("m.name")
	case monitor.SortKind:
		if after != nil {
			sel = sel.Where("(m.kind, m.name) > (?, ?)", after.Text, after.Name)
		}
		sel = sel.OrderExpr("m.kind, m.name")
	case monitor.SortState:
		if after != nil {
			sel = sel.Where("("+stateRank+", m.name) > (?, ?)", after.Key, after.Name)
		}
		sel = sel.OrderExpr(stateRank + ", m.name")
	default:
		return page, monitor.Faults{{Field: "sort", Value: string(order), Message: "must be name, state or kind"}}
	}
	if err := sel.Limit(int64(limit)+1).Scan(ctx, &rows); err != nil {
		return page, wrap(op, err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		page.Next = cursor{Order: string(order), Key: last.Rank, Text: last.Kind, Name: last.Name}.String()
	}
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	page.Items, err = s.listed(ctx, ids)
	return page, wrap(op, err)
}

// searchable returns text as it can be looked for: the database takes no NUL, and nothing that is stored has one.
func searchable(text string) string { return strings.ReplaceAll(text, "\x00", "\uFFFD") }

func filterMonitors(sel *bun.SelectQuery, q *monitor.Query) *bun.SelectQuery {
	if q.Condition != nil {
		sel = sel.Where("coalesce(s.condition, 4) = ?", int(*q.Condition))
	}
	if q.Kind != "" {
		sel = sel.Where("m.kind = ?", searchable(q.Kind))
	}
	for _, k := range slices.Sorted(maps.Keys(q.Labels)) {
		sel = sel.Where("EXISTS (SELECT 1 FROM json_each(m.labels) AS l WHERE l.key = ? AND l.value = ?)",
			searchable(k), searchable(q.Labels[k]))
	}
	if q.Text != "" {
		sel = sel.Where("instr(m.folded, ?) > 0", searchable(strings.ToLower(q.Text)))
	}
	return sel
}

// listed returns monitors with their states in the order of the ids; one that was deleted meanwhile is left out.
func (s *Store) listed(ctx context.Context, ids []string) ([]monitor.Listed, error) {
	if len(ids) == 0 {
		return []monitor.Listed{}, nil
	}
	var rows []monitorRow
	if err := s.read.NewSelect().Model(&rows).Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, err
	}
	var states []stateRow
	err := s.read.NewSelect().Model(&states).Where("monitor_id IN (?)", bun.List(ids)).Scan(ctx)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	channels, err := s.monitorChannels(ctx, ids)
	if err != nil {
		return nil, err
	}
	known := make(map[string]monitor.State, len(states))
	for i := range states {
		known[states[i].MonitorID] = states[i].state()
	}
	byID := make(map[string]monitor.Listed, len(rows))
	for i := range rows {
		m, err := s.monitorOf(&rows[i], channels[rows[i].ID])
		if err != nil {
			return nil, err
		}
		st, ok := known[m.ID]
		if !ok {
			st = monitor.State{MonitorID: m.ID, Condition: monitor.Pending, Since: m.CreatedAt}
		}
		byID[m.ID] = monitor.Listed{Monitor: m, State: st}
	}
	out := make([]monitor.Listed, 0, len(ids))
	for _, id := range ids {
		if one, ok := byID[id]; ok {
			out = append(out, one)
		}
	}
	return out, nil
}
