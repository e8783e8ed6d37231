package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

type stateRow struct {
	bun.BaseModel `bun:"table:states,alias:s"`

	MonitorID string `bun:"monitor_id,pk"`
	Condition int    `bun:"condition"`
	Since     int64  `bun:"since"`
	Incident  string `bun:"incident"`
	Began     int64  `bun:"incident_since"`
	Cause     string `bun:"incident_cause"`
	Told      string `bun:"told"` // ids, joined with commas
	Beat      int64  `bun:"beat"`
	Bad       bool   `bun:"bad"`
	Fail      bool   `bun:"fail"`
	Known     bool   `bun:"known"`
}

func (r *stateRow) state() monitor.State {
	return monitor.State{
		MonitorID: r.MonitorID, Condition: monitor.Condition(r.Condition), Since: unstamp(r.Since), Incident: r.Incident,
		IncidentSince: unstamp(r.Began), IncidentCause: r.Cause, Told: splitIDs(r.Told), Beat: unstamp(r.Beat), Bad: r.Bad, Fail: r.Fail, Known: r.Known,
	}
}

func splitIDs(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

type incidentRow struct {
	bun.BaseModel `bun:"table:incidents,alias:i"`

	ID          string `bun:"id,pk"`
	MonitorID   string `bun:"monitor_id"`
	MonitorName string `bun:"monitor_name"`
	Cause       string `bun:"cause"`
	StartedAt   int64  `bun:"started_at"`
	EndedAt     int64  `bun:"ended_at"`
}

type eventRow struct {
	bun.BaseModel `bun:"table:events,alias:e"`

	ID         string `bun:"id,pk"`
	MonitorID  string `bun:"monitor_id"`
	IncidentID string `bun:"incident_id"`
	Kind       string `bun:"kind"`
	From       int    `bun:"from_condition"`
	To         int    `bun:"to_condition"`
	At         int64  `bun:"at"`
	Message    string `bun:"message"`
	Payload    []byte `bun:"payload"`
}

type outboxRow struct {
	bun.BaseModel `bun:"table:outbox,alias:o"`

	ID        int64  `bun:"id,pk,autoincrement"`
	EventID   string `bun:"event_id"`
	MonitorID string `bun:"monitor_id"`
	ChannelID string `bun:"channel_id"`
	Attempts  int    `bun:"attempts"`
	Outcome   int    `bun:"outcome"`
	Error     string `bun:"error"`
	CreatedAt int64  `bun:"created_at"`
	DueAt     int64  `bun:"due_at"`
	DoneAt    int64  `bun:"done_at"`
}

// States returns the state of every monitor that has one.
func (s *Store) States(ctx context.Context) ([]monitor.State, error) {
	var rows []stateRow
	if err := s.read.NewSelect().Model(&rows).Order("monitor_id").Scan(ctx); err != nil {
		return nil, wrap("read states", err)
	}
	out := make([]monitor.State, len(rows))
	for i := range rows {
		out[i] = rows[i].state()
	}
	return out, nil
}

// Record writes everything that changes with a monitor's state: the state, the incident, the event, its notifications, and
// the stored samples that turned out to belong to the outage. All of it is committed, or nothing. Writing the same transition
// again changes nothing. Of a monitor that was deleted meanwhile the state is left out, and its incident is ended.
func (s *Store) Record(ctx context.Context, tr monitor.Transition) error {
	return s.do(ctx, "record transition", func(ctx context.Context, t *tx) error { return t.record(ctx, &tr) })
}

func (t *tx) record(ctx context.Context, tr *monitor.Transition) error {
	var there bool
	err := t.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM monitors WHERE id = ?)", tr.State.MonitorID).Scan(&there)
	if err != nil {
		return err
	}
	if there {
		if err := t.putState(ctx, &tr.State); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	if tr.Incident != nil {
		if err := t.putIncident(ctx, tr.Incident, there); err != nil {
			return fmt.Errorf("incident: %w", err)
		}
	}
	if tr.Event != nil {
		if err := t.putEvent(ctx, tr.Event, tr.Channels); err != nil {
			return fmt.Errorf("event: %w", err)
		}
	}
	if tr.Recount != nil {
		if err := t.recount(ctx, *tr.Recount); err != nil {
			return fmt.Errorf("recount: %w", err)
		}
	}
	return nil
}

func (t *tx) putState(ctx context.Context, st *monitor.State) error {
	row := &stateRow{
		MonitorID: st.MonitorID, Condition: int(st.Condition), Since: stamp(st.Since), Incident: st.Incident,
		Began: stamp(st.IncidentSince), Cause: st.IncidentCause, Told: strings.Join(st.Told, ","), Beat: stamp(st.Beat), Bad: st.Bad, Fail: st.Fail, Known: st.Known,
	}
	q := t.NewInsert().Model(row).Returning("NULL").On("CONFLICT (monitor_id) DO UPDATE")
	for _, column := range []string{
		"condition", "since", "incident", "incident_since", "incident_cause", "told", "beat", "bad", "fail", "known",
	} {
		q = q.Set(column + " = EXCLUDED." + column)
	}
	_, err := q.Exec(ctx)
	return err
}

func (t *tx) putIncident(ctx context.Context, in *monitor.Incident, there bool) error {
	row := &incidentRow{
		ID: in.ID, MonitorID: in.MonitorID, MonitorName: in.MonitorName, Cause: in.Cause, StartedAt: stamp(in.StartedAt),
		EndedAt: stamp(in.EndedAt),
	}
	if row.EndedAt == 0 && !there {
		row.EndedAt = max(t.store.now().UnixMilli(), row.StartedAt)
	}
	// What it was when it began stays; all that changes is that it ends.
	_, err := t.NewInsert().Model(row).Returning("NULL").On("CONFLICT (id) DO UPDATE").Set("ended_at = EXCLUDED.ended_at").Exec(ctx)
	return err
}

func (t *tx) putEvent(ctx context.Context, e *monitor.Event, channels []string) error {
	payload, err := json.Marshal(e.Payload)
	if err != nil {
		return fmt.Errorf("write payload: %w", err)
	}
	row := &eventRow{
		ID: e.ID, MonitorID: e.MonitorID, IncidentID: e.IncidentID, Kind: string(e.Kind), From: int(e.From), To: int(e.To),
		At: stamp(e.At), Message: e.Message, Payload: payload,
	}
	if _, err := t.NewInsert().Model(row).Returning("NULL").On("CONFLICT (id) DO NOTHING").Exec(ctx); err != nil {
		return err
	}
	now := t.store.now().UnixMilli()
	for _, id := range channels {
		_, err := t.ExecContext(ctx, `INSERT INTO outbox (event_id, monitor_id, channel_id, attempts, outcome, error, created_at, due_at, done_at)
			SELECT ?, ?, id, 0, 0, '', ?, ?, 0 FROM channels WHERE id = ? ON CONFLICT (event_id, channel_id) DO NOTHING`,
			e.ID, e.MonitorID, now, now, id)
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *eventRow) event() (monitor.Event, error) {
	e := monitor.Event{
		ID: r.ID, MonitorID: r.MonitorID, IncidentID: r.IncidentID, Kind: sdk.Transition(r.Kind), From: monitor.Condition(r.From),
		To: monitor.Condition(r.To), At: unstamp(r.At), Message: r.Message,
	}
	if err := json.Unmarshal(r.Payload, &e.Payload); err != nil {
		return e, fmt.Errorf("the payload of event %s is damaged", r.ID)
	}
	return e, nil
}

// Events returns a page of events, newest first.
func (s *Store) Events(ctx context.Context, q monitor.EventQuery) (monitor.Page[monitor.Event], error) {
	return newestFirst[eventRow, monitor.Event]{
		op: "read events", order: "event", column: "at", limit: q.Limit, cursor: q.Cursor,
		filter: func(sel *bun.SelectQuery) {
			if q.MonitorID != "" {
				sel.Where("monitor_id = ?", q.MonitorID)
			}
			if q.IncidentID != "" {
				sel.Where("incident_id = ?", q.IncidentID).Where("incident_id <> ''")
			}
		},
		place: func(r *eventRow) (int64, string) { return r.At, r.ID },
		item:  (*eventRow).event,
	}.page(ctx, s)
}

func (r *incidentRow) incident() monitor.Incident {
	return monitor.Incident{
		ID: r.ID, MonitorID: r.MonitorID, MonitorName: r.MonitorName, Cause: r.Cause, StartedAt: unstamp(r.StartedAt),
		EndedAt: unstamp(r.EndedAt),
	}
}

// Incident returns an incident by its id, or monitor.ErrNotFound.
func (s *Store) Incident(ctx context.Context, id string) (monitor.Incident, error) {
	var row incidentRow
	if err := s.read.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return monitor.Incident{}, wrap("read incident", err)
	}
	return row.incident(), nil
}

// Incidents returns a page of incidents, newest first.
func (s *Store) Incidents(ctx context.Context, q monitor.IncidentQuery) (monitor.Page[monitor.Incident], error) {
	return newestFirst[incidentRow, monitor.Incident]{
		op: "read incidents", order: "incident", column: "started_at", limit: q.Limit, cursor: q.Cursor,
		filter: func(sel *bun.SelectQuery) {
			if q.MonitorID != "" {
				sel.Where("monitor_id = ?", q.MonitorID)
			}
			if q.Open != nil && *q.Open {
				sel.Where("ended_at = 0")
			} else if q.Open != nil {
				sel.Where("ended_at <> 0")
			}
		},
		place: func(r *incidentRow) (int64, string) { return r.StartedAt, r.ID },
		item:  func(r *incidentRow) (monitor.Incident, error) { return r.incident(), nil },
	}.page(ctx, s)
}
