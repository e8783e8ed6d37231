package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// MonitorView is a monitor as it is shown: secrets masked, channels by name, with its state and newest result.
type MonitorView struct {
	monitor.Monitor
	Channels []string // names, in the order of the monitor
	State    monitor.State
	Last     *engine.Last // nil before the first result
	PushURL  string       // where beats go; only for editors and admins, empty for monitors that take none
}

// AnyRevision is given where a change need not know what it replaces.
const AnyRevision int64 = 0

// Monitor returns one monitor. The error is monitor.ErrNotFound when there is none with the id.
func (s *Service) Monitor(ctx context.Context, id string) (MonitorView, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return MonitorView{}, err
	}
	m, err := s.opts.Store.Monitor(ctx, id)
	if err != nil {
		return MonitorView{}, fmt.Errorf("read monitor %s: %w", id, err)
	}
	return s.view(ctx, m)
}

// Monitors lists monitors with their states.
func (s *Service) Monitors(ctx context.Context, q monitor.Query) (monitor.Page[MonitorView], error) {
	var page monitor.Page[MonitorView]
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return page, err
	}
	listed, err := s.opts.Store.ListMonitors(ctx, q)
	if err != nil {
		return page, fmt.Errorf("list monitors: %w", err)
	}
	names, err := s.channelsByID(ctx)
	if err != nil {
		return page, err
	}
	page.Next = listed.Next
	page.Items = make([]MonitorView, len(listed.Items))
	urls := Can(ctx, monitor.Editor)
	for i := range listed.Items {
		page.Items[i] = s.viewOf(listed.Items[i].Monitor, listed.Items[i].State, names, urls)
	}
	return page, nil
}

func (s *Service) view(ctx context.Context, m monitor.Monitor) (MonitorView, error) {
	names, err := s.channelsByID(ctx)
	if err != nil {
		return MonitorView{}, err
	}
	state := monitor.State{MonitorID: m.ID, Condition: monitor.Pending, Since: m.CreatedAt}
	if m.Paused {
		state.Condition = monitor.Paused
	}
	return s.viewOf(m, state, names, Can(ctx, monitor.Editor)), nil
}

// viewOf prefers the engine's state to the stored one: the engine judged it, and it may be on its way to the disk.
func (s *Service) viewOf(m monitor.Monitor, stored monitor.State, names map[string]string, urls bool) MonitorView {
	v := MonitorView{Monitor: m, State: stored, Channels: make([]string, 0, len(m.Channels))}
	for _, id := range m.Channels {
		if name, ok := names[id]; ok {
			v.Channels = append(v.Channels, name)
		}
	}
	if live, ok := s.opts.Engine.Live(m.ID); ok {
		v.State, v.Last = live.State, live.Last
		if urls && live.PushToken != "" {
			v.PushURL = s.opts.PublicURL + "/push/" + live.PushToken
		}
	}
	v.Config = s.masks.kind(m.Kind).hide(m.Config)
	return v
}

// CreateMonitor stores a new monitor and has it checked at once. The error is monitor.Faults when the input is bad. It needs
// an editor.
func (s *Service) CreateMonitor(ctx context.Context, in MonitorInput) (MonitorView, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return MonitorView{}, err
	}
	s.settleRest(ctx)
	s.channelUse.RLock()
	defer s.channelUse.RUnlock()
	defer s.choosing(&in)()
	m, faults, err := s.build(ctx, in, nil)
	if err != nil {
		return MonitorView{}, err
	}
	if err := faults.Err(); err != nil {
		return MonitorView{}, err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	m.ID, m.CreatedAt, m.UpdatedAt = newID(now), now, now
	defer s.lock(m.ID)()
	wctx, cancel := writing(ctx)
	defer cancel()
	if err := s.opts.Store.CreateMonitor(wctx, &m); err != nil {
		if errors.Is(err, monitor.ErrConflict) { // somebody was faster
			return MonitorView{}, monitor.Faults{taken(m.Name, "monitor")}
		}
		s.settle(ctx, err, object{id: m.ID})
		return MonitorView{}, fmt.Errorf("store monitor: %w", err)
	}
	s.audit(ctx, "monitor.create", aboutMonitor(&m)...)
	if err := s.opts.Engine.Put(m); err != nil {
		return MonitorView{}, fmt.Errorf("monitor %s is stored, and the engine refused it: %w", m.ID, hidden(err))
	}
	return s.view(ctx, m)
}

// ReplaceMonitor stores the next revision of a monitor, which takes effect at once. revision is the one that the caller
// saw: the error is monitor.ErrStale when it is no longer the newest. It needs an editor.
func (s *Service) ReplaceMonitor(ctx context.Context, id string, revision int64, in MonitorInput) (MonitorView, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return MonitorView{}, err
	}
	s.settleRest(ctx)
	s.channelUse.RLock()
	defer s.channelUse.RUnlock()
	defer s.choosing(&in)()
	defer s.lock(id)()
	old, err := s.opts.Store.Monitor(ctx, id)
	if err != nil {
		return MonitorView{}, fmt.Errorf("read monitor %s: %w", id, err)
	}
	if revision != AnyRevision && revision != old.Revision {
		return MonitorView{}, fmt.Errorf("monitor %s is at revision %d: %w", id, old.Revision, monitor.ErrStale)
	}
	m, faults, err := s.build(ctx, in, &old)
	if err != nil {
		return MonitorView{}, err
	}
	if err := faults.Err(); err != nil {
		return MonitorView{}, err
	}
	wctx, cancel := writing(ctx)
	defer cancel()
	if err := s.opts.Store.UpdateMonitor(wctx, &m); err != nil {
		if errors.Is(err, monitor.ErrConflict) {
			return MonitorView{}, monitor.Faults{taken(m.Name, "monitor")}
		}
		s.settle(ctx, err, object{id: id})
		return MonitorView{}, fmt.Errorf("store monitor %s: %w", id, err)
	}
	s.audit(ctx, "monitor.update", aboutMonitor(&m)...)
	if err := s.opts.Engine.Put(m); err != nil {
		return MonitorView{}, fmt.Errorf("monitor %s is stored, and the engine refused it: %w", id, hidden(err))
	}
	return s.view(ctx, m)
}

// DeleteMonitor ends a monitor. Its open incident ends with it; its samples, incidents and events are deleted within minutes,
// after what was to be told of it. It needs an editor. See ReplaceMonitor for the revision.
func (s *Service) DeleteMonitor(ctx context.Context, id string, revision int64) error {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return err
	}
	s.settleRest(ctx)
	defer s.lock(id)()
	old, err := s.opts.Store.Monitor(ctx, id)
	if err != nil {
		return fmt.Errorf("read monitor %s: %w", id, err)
	}
	if revision != AnyRevision && revision != old.Revision {
		return fmt.Errorf("monitor %s is at revision %d: %w", id, old.Revision, monitor.ErrStale)
	}
	wctx, cancel := writing(ctx)
	defer cancel()
	if err := s.opts.Store.DeleteMonitor(wctx, id, s.opts.Engine.Farewell(id)); err != nil {
		s.settle(ctx, err, object{id: id})
		return fmt.Errorf("delete monitor %s: %w", id, err)
	}
	s.audit(ctx, "monitor.delete", aboutMonitor(&old)...)
	s.opts.Engine.Remove(id)
	return nil
}

// CheckNow checks a monitor now, stores the sample, and returns the result. It needs an editor.
func (s *Service) CheckNow(ctx context.Context, id string) (engine.Last, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return engine.Last{}, err
	}
	if _, err := s.opts.Store.Monitor(ctx, id); err != nil {
		return engine.Last{}, fmt.Errorf("read monitor %s: %w", id, err)
	}
	last, err := s.opts.Engine.CheckNow(ctx, id)
	if err != nil {
		return engine.Last{}, fmt.Errorf("check monitor %s: %w", id, err)
	}
	return last, nil
}

// Beat is a heartbeat.
type Beat = engine.Beat

// Beat takes a heartbeat for the monitor that has the token. Who knows the token may: no principal is asked for. The error
// is monitor.ErrNotFound when no monitor has it.
func (s *Service) Beat(token string, b Beat) error {
	b.Message = sdk.CleanText(b.Message, 1024)
	return s.opts.Engine.Beat(token, b)
}

func aboutMonitor(m *monitor.Monitor) []slog.Attr {
	return []slog.Attr{
		slog.String("object_id", m.ID), slog.String("name", m.Name), slog.String("kind", m.Kind),
		slog.Int64("revision", m.Revision), slog.Bool("paused", m.Paused),
	}
}

// hidden keeps faults from being taken for faults of the input: what they are about was valid a moment ago.
func hidden(err error) error { return errors.New(err.Error()) }
