package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

type channelRow struct {
	bun.BaseModel `bun:"table:channels,alias:c"`

	ID        string `bun:"id,pk"`
	Revision  int64  `bun:"revision"`
	Name      string `bun:"name"`
	Provider  string `bun:"provider"`
	Config    []byte `bun:"config"`
	Filter    string `bun:"filter"`
	Disabled  bool   `bun:"disabled"`
	CreatedAt int64  `bun:"created_at"`
	UpdatedAt int64  `bun:"updated_at"`
}

func (s *Store) channelRow(c *monitor.Channel) (*channelRow, error) {
	config := c.Config
	if len(config) == 0 {
		config = json.RawMessage("{}")
	}
	sealed, err := s.sealConfig(config)
	if err != nil {
		return nil, fmt.Errorf("seal the configuration: %w", err)
	}
	filter, err := json.Marshal(c.Filter)
	if err != nil {
		return nil, err
	}
	return &channelRow{
		ID: c.ID, Revision: c.Revision, Name: c.Name, Provider: c.Provider, Config: sealed, Filter: string(filter),
		Disabled: c.Disabled, CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt),
	}, nil
}

func (s *Store) channelOf(r *channelRow) (monitor.Channel, error) {
	c := monitor.Channel{
		ID: r.ID, Revision: r.Revision, Name: r.Name, Provider: r.Provider, Disabled: r.Disabled,
		CreatedAt: unstamp(r.CreatedAt), UpdatedAt: unstamp(r.UpdatedAt),
	}
	config, err := s.openConfig(r.Config)
	if err != nil {
		return c, fmt.Errorf("open the configuration of channel %s: %w", r.ID, err)
	}
	c.Config = config
	if err := json.Unmarshal([]byte(r.Filter), &c.Filter); err != nil {
		return c, fmt.Errorf("the filter of channel %s is damaged", r.ID)
	}
	return c, nil
}

// CreateChannel stores a new channel and sets its Revision to 1 and its times. The id is the caller's. A name that is taken is
// monitor.ErrConflict.
func (s *Store) CreateChannel(ctx context.Context, c *monitor.Channel) error {
	if c.ID == "" {
		return errors.New("create channel: it has no id")
	}
	made := *c
	err := s.do(ctx, "create channel", func(ctx context.Context, t *tx) error {
		now := msTime(s.now().UnixMilli())
		made.Revision, made.CreatedAt, made.UpdatedAt = 1, now, now
		row, err := s.channelRow(&made)
		if err != nil {
			return err
		}
		_, err = t.NewInsert().Model(row).Returning("NULL").Exec(ctx)
		return nameTaken(err, "channel")
	})
	if err == nil {
		*c = made
	}
	return err
}

// UpdateChannel stores a changed channel. Its Revision must be the stored one, else the error is monitor.ErrStale; the next
// one and UpdatedAt are set.
func (s *Store) UpdateChannel(ctx context.Context, c *monitor.Channel) error {
	made := *c
	err := s.do(ctx, "update channel", func(ctx context.Context, t *tx) error {
		var was channelRow
		if err := t.NewSelect().Model(&was).Column("revision", "created_at").Where("id = ?", c.ID).Scan(ctx); err != nil {
			return err
		}
		if was.Revision != c.Revision {
			return fmt.Errorf("revision %d is no longer the newest: %w", c.Revision, monitor.ErrStale)
		}
		made.Revision, made.CreatedAt, made.UpdatedAt = was.Revision+1, unstamp(was.CreatedAt), msTime(s.now().UnixMilli())
		row, err := s.channelRow(&made)
		if err != nil {
			return err
		}
		_, err = t.NewUpdate().Model(row).WherePK().Exec(ctx)
		return nameTaken(err, "channel")
	})
	if err == nil {
		*c = made
	}
	return err
}

// DeleteChannel deletes a channel. While monitors use it the error is monitor.ErrConflict and names up to five of them. What
// is pending for it is given up.
func (s *Store) DeleteChannel(ctx context.Context, id string) error {
	return s.do(ctx, "delete channel", func(ctx context.Context, t *tx) error {
		var users []string
		err := t.NewSelect().TableExpr("monitors AS m").Column("m.name").
			Where("EXISTS (SELECT 1 FROM monitor_channels AS mc WHERE mc.monitor_id = m.id AND mc.channel_id = ?)", id).
			Order("m.name").Limit(6).Scan(ctx, &users)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			names := strings.Join(users[:min(len(users), 5)], ", ")
			if len(users) > 5 {
				names += " and others"
			}
			return fmt.Errorf("it is used by %s: %w", names, monitor.ErrConflict)
		}
		res, err := t.ExecContext(ctx, "DELETE FROM channels WHERE id = ?", id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, monitor.ErrNotFound)
		}
		_, err = t.ExecContext(ctx, "UPDATE outbox SET outcome = ?, error = 'the channel was deleted', done_at = ? "+
			"WHERE channel_id = ? AND done_at = 0", int(monitor.GivenUp), s.now().UnixMilli(), id)
		return err
	})
}

// Channel returns a channel by its id, or monitor.ErrNotFound.
func (s *Store) Channel(ctx context.Context, id string) (monitor.Channel, error) {
	return s.oneChannel(ctx, "id = ?", id)
}

// ChannelByName returns a channel by its name, or monitor.ErrNotFound.
func (s *Store) ChannelByName(ctx context.Context, name string) (monitor.Channel, error) {
	return s.oneChannel(ctx, "name = ?", name)
}

func (s *Store) oneChannel(ctx context.Context, where, value string) (monitor.Channel, error) {
	var row channelRow
	if err := s.read.NewSelect().Model(&row).Where(where, value).Scan(ctx); err != nil {
		return monitor.Channel{}, wrap("read channel", err)
	}
	c, err := s.channelOf(&row)
	return c, wrap("read channel", err)
}

// Channels returns every channel by name.
func (s *Store) Channels(ctx context.Context) ([]monitor.Channel, error) {
	var rows []channelRow
	if err := s.read.NewSelect().Model(&rows).Order("name").Scan(ctx); err != nil {
		return nil, wrap("read channels", err)
	}
	out := make([]monitor.Channel, len(rows))
	for i := range rows {
		var err error
		if out[i], err = s.channelOf(&rows[i]); err != nil {
			return nil, wrap("read channels", err)
		}
	}
	return out, nil
}
