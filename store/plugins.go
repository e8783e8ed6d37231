package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// pluginRow is an installed plugin. There is no secret in it: nothing is sealed.
type pluginRow struct {
	bun.BaseModel `bun:"table:plugins,alias:p"`

	Name           string `bun:"name,pk"`
	ActiveVersion  string `bun:"active_version"`
	ActiveDigest   string `bun:"active_digest"`
	PendingVersion string `bun:"pending_version"`
	PendingDigest  string `bun:"pending_digest"`
	GrantDigest    string `bun:"grant_digest"`
	Permissions    string `bun:"permissions"` // JSON
	AllowPrivate   bool   `bun:"allow_private"`
	GrantedAt      int64  `bun:"granted_at"`
	GrantedBy      string `bun:"granted_by"`
	MemoryBytes    int64  `bun:"memory_bytes"`
	TimeoutNS      int64  `bun:"timeout_ns"`
	Concurrency    int64  `bun:"concurrency"`
	Disabled       bool   `bun:"disabled"`
	DisabledReason string `bun:"disabled_reason"`
	InstalledAt    int64  `bun:"installed_at"`
	UpdatedAt      int64  `bun:"updated_at"`
}

func pluginRowOf(p *monitor.Plugin) (*pluginRow, error) {
	permissions, err := json.Marshal(p.Grant.Permissions)
	if err != nil {
		return nil, err
	}
	return &pluginRow{
		Name: p.Name, ActiveVersion: p.Active.Version, ActiveDigest: p.Active.Digest, PendingVersion: p.Pending.Version,
		PendingDigest: p.Pending.Digest, GrantDigest: p.Grant.Digest, Permissions: string(permissions), AllowPrivate: p.Grant.AllowPrivate,
		GrantedAt: stamp(p.Grant.At), GrantedBy: p.Grant.By, MemoryBytes: int64(p.Limits.Memory), TimeoutNS: int64(p.Limits.Timeout),
		Concurrency: int64(p.Limits.Concurrency), Disabled: p.Disabled, DisabledReason: p.DisabledReason,
		InstalledAt: stamp(p.InstalledAt), UpdatedAt: stamp(p.UpdatedAt),
	}, nil
}

func (r *pluginRow) plugin() (monitor.Plugin, error) {
	p := monitor.Plugin{
		Name: r.Name, Active: monitor.Build{Version: r.ActiveVersion, Digest: r.ActiveDigest},
		Pending: monitor.Build{Version: r.PendingVersion, Digest: r.PendingDigest},
		Grant:   monitor.PluginGrant{Digest: r.GrantDigest, AllowPrivate: r.AllowPrivate, At: unstamp(r.GrantedAt), By: r.GrantedBy},
		Limits: sdk.Limits{
			Memory: sdk.Size(r.MemoryBytes), Timeout: sdk.Duration(r.TimeoutNS), Concurrency: int(r.Concurrency),
		},
		Disabled: r.Disabled, DisabledReason: r.DisabledReason, InstalledAt: unstamp(r.InstalledAt), UpdatedAt: unstamp(r.UpdatedAt),
	}
	if err := json.Unmarshal([]byte(r.Permissions), &p.Grant.Permissions); err != nil {
		return p, fmt.Errorf("the grant of plugin %s is damaged", r.Name)
	}
	return p, nil
}

// Plugins returns every installed plugin by name.
func (s *Store) Plugins(ctx context.Context) ([]monitor.Plugin, error) {
	var rows []pluginRow
	if err := s.read.NewSelect().Model(&rows).Order("name").Scan(ctx); err != nil {
		return nil, wrap("read plugins", err)
	}
	out := make([]monitor.Plugin, len(rows))
	for i := range rows {
		var err error
		if out[i], err = rows[i].plugin(); err != nil {
			return nil, wrap("read plugins", err)
		}
	}
	return out, nil
}

// PutPlugin stores a plugin in the place of the one with its name, if there is one. Its times are the caller's and are kept to
// the millisecond.
func (s *Store) PutPlugin(ctx context.Context, p monitor.Plugin) error {
	if p.Name == "" {
		return errors.New("put plugin: it has no name")
	}
	row, err := pluginRowOf(&p)
	if err != nil {
		return wrap("put plugin", err)
	}
	return s.do(ctx, "put plugin", func(ctx context.Context, t *tx) error {
		_, err := t.NewInsert().Model(row).On("CONFLICT (name) DO UPDATE").Returning("NULL").Exec(ctx)
		return err
	})
}

// DeletePlugin deletes a plugin by its name, or returns monitor.ErrNotFound.
func (s *Store) DeletePlugin(ctx context.Context, name string) error {
	return s.do(ctx, "delete plugin", func(ctx context.Context, t *tx) error {
		res, err := t.ExecContext(ctx, "DELETE FROM plugins WHERE name = ?", name)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, monitor.ErrNotFound)
		}
		return nil
	})
}
