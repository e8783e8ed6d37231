package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// ChannelInput is what somebody writes to have a place where notifications go.
type ChannelInput struct {
	Name     string
	Provider string
	Config   json.RawMessage // nil: the provider's defaults
	Filter   monitor.Filter
	Disabled bool
}

// ChannelView is a channel as it is shown: secrets masked, with its health.
type ChannelView struct {
	monitor.Channel
	Health monitor.Health
}

// channelNames remembers the names of all channels, which every list of monitors shows.
type channelNames struct {
	mu           sync.Mutex
	byID, byName map[string]string // never changed once made; nil: not read yet
	turn         uint64            // goes up when they are forgotten
}

func (s *Service) channelsByID(ctx context.Context) (map[string]string, error) {
	byID, _, err := s.readNames(ctx)
	return byID, err
}

func (s *Service) channelsByName(ctx context.Context) (map[string]string, error) {
	_, byName, err := s.readNames(ctx)
	return byName, err
}

func (s *Service) readNames(ctx context.Context) (byID, byName map[string]string, err error) {
	n := &s.names
	n.mu.Lock()
	byID, byName, turn := n.byID, n.byName, n.turn
	n.mu.Unlock()
	if byID != nil {
		return byID, byName, nil
	}
	channels, err := s.opts.Store.Channels(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list channels: %w", err)
	}
	byID, byName = make(map[string]string, len(channels)), make(map[string]string, len(channels))
	for i := range channels {
		byID[channels[i].ID], byName[channels[i].Name] = channels[i].Name, channels[i].ID
	}
	n.mu.Lock()
	if n.turn == turn {
		n.byID, n.byName = byID, byName
	}
	n.mu.Unlock()
	return byID, byName, nil
}

func (n *channelNames) forget() {
	n.mu.Lock()
	n.byID, n.byName = nil, nil
	n.turn++
	n.mu.Unlock()
}

// Channels lists the channels by name.
func (s *Service) Channels(ctx context.Context) ([]ChannelView, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return nil, err
	}
	channels, err := s.opts.Store.Channels(ctx)
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	views := make([]ChannelView, len(channels))
	for i := range channels {
		views[i] = s.channelView(channels[i])
	}
	slices.SortFunc(views, func(a, b ChannelView) int { return compare(a.Name, b.Name) })
	return views, nil
}

// Channel returns one channel. The error is monitor.ErrNotFound when there is none with the id.
func (s *Service) Channel(ctx context.Context, id string) (ChannelView, error) {
	if err := Allow(ctx, monitor.Viewer); err != nil {
		return ChannelView{}, err
	}
	c, err := s.opts.Store.Channel(ctx, id)
	if err != nil {
		return ChannelView{}, fmt.Errorf("read channel %s: %w", id, err)
	}
	return s.channelView(c), nil
}

func (s *Service) channelView(c monitor.Channel) ChannelView {
	c.Config = s.masks.provider(c.Provider).hide(c.Config)
	return ChannelView{Channel: c, Health: s.opts.Engine.ChannelHealth(c.ID)}
}

// CheckChannel returns what is wrong with the input for a new channel, or with an id for that channel's next revision. It
// changes nothing. It needs an editor.
func (s *Service) CheckChannel(ctx context.Context, id string, in ChannelInput) (monitor.Faults, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return nil, err
	}
	var old *monitor.Channel
	if id != "" {
		c, err := s.opts.Store.Channel(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("read channel %s: %w", id, err)
		}
		old = &c
	}
	_, faults, err := s.buildChannel(ctx, in, old)
	return faults, err
}

func (s *Service) buildChannel(ctx context.Context, in ChannelInput, old *monitor.Channel) (monitor.Channel, monitor.Faults, error) {
	c := monitor.Channel{Name: in.Name, Provider: in.Provider, Config: in.Config, Filter: in.Filter, Disabled: in.Disabled}
	if len(c.Config) == 0 {
		c.Config = json.RawMessage("{}")
	}
	var was earlier
	if old != nil {
		c.ID, c.Revision, c.CreatedAt, c.UpdatedAt = old.ID, old.Revision, old.CreatedAt, old.UpdatedAt
		if old.Provider == c.Provider {
			was.config = old.Config
		} else {
			was.moved = append(was.moved, "the provider")
		}
	}
	var faults monitor.Faults
	checkName(&faults, c.Name, monitor.MaxName)
	checkFilter(&faults, c.Filter)
	if c.Name != "" && !has(faults, "name") {
		other, err := s.opts.Store.ChannelByName(ctx, c.Name)
		switch {
		case errors.Is(err, monitor.ErrNotFound):
		case err != nil:
			return c, nil, fmt.Errorf("look up channel by name: %w", err)
		case other.ID != c.ID:
			faults = append(faults, taken(c.Name, "channel"))
		}
	}
	secrets := s.masks.provider(c.Provider)
	if _, known := s.opts.Providers.Provider(c.Provider); known {
		config, more := secrets.restore(c.Config, was)
		c.Config = config
		if faults = append(faults, more...); len(more) > 0 {
			return c, faults, nil
		}
	}
	_, err := s.opts.Providers.New(c.Provider, c.Config)
	var more monitor.Faults
	if err != nil && !errors.As(err, &more) {
		return c, nil, fmt.Errorf("make provider %s: %w", c.Provider, err)
	}
	secrets.secretsUnder(more)
	return c, append(faults, more...), nil
}

func checkFilter(faults *monitor.Faults, f monitor.Filter) {
	// The engine raises no expiring event, and a channel that waited for one would wait in silence.
	all := slices.DeleteFunc(sdk.Transitions(), func(t sdk.Transition) bool { return t == sdk.Expiring })
	for i, t := range f.Transitions {
		field := fmt.Sprintf("filter.transitions[%d]", i)
		switch {
		case !slices.Contains(all, t):
			names := make([]string, len(all))
			for j := range all {
				names[j] = string(all[j])
			}
			faults.Add(field, shown(string(t)), "%s", listed("must be one of ", names, ""))
		case slices.Contains(f.Transitions[:i], t):
			faults.Add(field, shown(string(t)), "is named twice; leave one out")
		}
	}
	checkLabels(faults, "filter.labels", f.Labels)
}

// CreateChannel stores a new channel. The error is monitor.Faults when the input is bad. It needs an editor.
func (s *Service) CreateChannel(ctx context.Context, in ChannelInput) (ChannelView, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return ChannelView{}, err
	}
	s.settleRest(ctx)
	s.channelUse.Lock()
	defer s.channelUse.Unlock()
	c, faults, err := s.buildChannel(ctx, in, nil)
	if err != nil {
		return ChannelView{}, err
	}
	if err := faults.Err(); err != nil {
		return ChannelView{}, err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	c.ID, c.CreatedAt, c.UpdatedAt = newID(now), now, now
	wctx, cancel := writing(ctx)
	defer cancel()
	defer s.names.forget()
	if err := s.opts.Store.CreateChannel(wctx, &c); err != nil {
		if errors.Is(err, monitor.ErrConflict) {
			return ChannelView{}, monitor.Faults{taken(c.Name, "channel")}
		}
		s.settle(ctx, err, object{id: c.ID, channel: true})
		return ChannelView{}, fmt.Errorf("store channel: %w", err)
	}
	s.audit(ctx, "channel.create", aboutChannel(&c)...)
	if err := s.opts.Engine.PutChannel(c); err != nil {
		return ChannelView{}, fmt.Errorf("channel %s is stored, and the engine refused it: %w", c.ID, hidden(err))
	}
	return s.channelView(c), nil
}

// ReplaceChannel stores the next revision of a channel. revision is the one that the caller saw: the error is
// monitor.ErrStale when it is no longer the newest. It needs an editor.
func (s *Service) ReplaceChannel(ctx context.Context, id string, revision int64, in ChannelInput) (ChannelView, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return ChannelView{}, err
	}
	s.settleRest(ctx)
	s.channelUse.Lock()
	defer s.channelUse.Unlock()
	old, err := s.opts.Store.Channel(ctx, id)
	if err != nil {
		return ChannelView{}, fmt.Errorf("read channel %s: %w", id, err)
	}
	if revision != AnyRevision && revision != old.Revision {
		return ChannelView{}, fmt.Errorf("channel %s is at revision %d: %w", id, old.Revision, monitor.ErrStale)
	}
	c, faults, err := s.buildChannel(ctx, in, &old)
	if err != nil {
		return ChannelView{}, err
	}
	if err := faults.Err(); err != nil {
		return ChannelView{}, err
	}
	wctx, cancel := writing(ctx)
	defer cancel()
	defer s.names.forget()
	if err := s.opts.Store.UpdateChannel(wctx, &c); err != nil {
		if errors.Is(err, monitor.ErrConflict) {
			return ChannelView{}, monitor.Faults{taken(c.Name, "channel")}
		}
		s.settle(ctx, err, object{id: id, channel: true})
		return ChannelView{}, fmt.Errorf("store channel %s: %w", id, err)
	}
	s.audit(ctx, "channel.update", aboutChannel(&c)...)
	if err := s.opts.Engine.PutChannel(c); err != nil {
		return ChannelView{}, fmt.Errorf("channel %s is stored, and the engine refused it: %w", id, hidden(err))
	}
	return s.channelView(c), nil
}

// DeleteChannel ends a channel that no monitor uses; else the error is monitor.ErrConflict and names some that do. It needs
// an editor.
func (s *Service) DeleteChannel(ctx context.Context, id string, revision int64) error {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return err
	}
	s.settleRest(ctx)
	s.channelUse.Lock()
	defer s.channelUse.Unlock()
	old, err := s.opts.Store.Channel(ctx, id)
	if err != nil {
		return fmt.Errorf("read channel %s: %w", id, err)
	}
	if revision != AnyRevision && revision != old.Revision {
		return fmt.Errorf("channel %s is at revision %d: %w", id, old.Revision, monitor.ErrStale)
	}
	wctx, cancel := writing(ctx)
	defer cancel()
	defer s.names.forget()
	if err := s.opts.Store.DeleteChannel(wctx, id); err != nil {
		s.settle(ctx, err, object{id: id, channel: true})
		return fmt.Errorf("delete channel %s: %w", id, err)
	}
	s.audit(ctx, "channel.delete", aboutChannel(&old)...)
	s.opts.Engine.RemoveChannel(id)
	return nil
}

// TestChannel sends a test notification now. refused is what the receiver or the way to it said; err is about the request.
// It needs an editor.
func (s *Service) TestChannel(ctx context.Context, id string) (refused, err error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return nil, err
	}
	c, err := s.opts.Store.Channel(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read channel %s: %w", id, err)
	}
	s.audit(ctx, "channel.test", aboutChannel(&c)...)
	err = s.opts.Engine.TestChannel(ctx, id)
	if errors.Is(err, monitor.ErrNotFound) || ctx.Err() != nil {
		return nil, fmt.Errorf("test channel %s: %w", id, err)
	}
	return err, nil
}

func aboutChannel(c *monitor.Channel) []slog.Attr {
	return []slog.Attr{
		slog.String("object_id", c.ID), slog.String("name", c.Name), slog.String("provider", c.Provider),
		slog.Int64("revision", c.Revision), slog.Bool("disabled", c.Disabled),
	}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}
