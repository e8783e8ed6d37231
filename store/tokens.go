package store

import (
	"context"
	"errors"
	"time"

	"github.com/uptrace/bun"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

type tokenRow struct {
	bun.BaseModel `bun:"table:tokens,alias:t"`

	ID         string `bun:"id,pk"`
	Name       string `bun:"name"`
	Role       string `bun:"role"`
	Hash       []byte `bun:"hash"`
	CreatedAt  int64  `bun:"created_at"`
	ExpiresAt  int64  `bun:"expires_at"`
	LastUsedAt int64  `bun:"last_used_at"`
}

func (r *tokenRow) token() monitor.Token {
	return monitor.Token{
		ID: r.ID, Name: r.Name, Role: monitor.Role(r.Role), Hash: r.Hash, CreatedAt: unstamp(r.CreatedAt),
		ExpiresAt: unstamp(r.ExpiresAt), LastUsedAt: unstamp(r.LastUsedAt),
	}
}

// CreateToken stores a new token and sets CreatedAt when it is zero. A name or a hash that is taken is monitor.ErrConflict.
func (s *Store) CreateToken(ctx context.Context, k *monitor.Token) error {
	if k.ID == "" || len(k.Hash) == 0 {
		return errors.New("create token: it has no id or no hash")
	}
	made := *k
	err := s.do(ctx, "create token", func(ctx context.Context, t *tx) error {
		if made.CreatedAt.IsZero() {
			made.CreatedAt = msTime(s.now().UnixMilli())
		}
		row := &tokenRow{
			ID: made.ID, Name: made.Name, Role: string(made.Role), Hash: made.Hash, CreatedAt: stamp(made.CreatedAt),
			ExpiresAt: stamp(made.ExpiresAt), LastUsedAt: stamp(made.LastUsedAt),
		}
		_, err := t.NewInsert().Model(row).Returning("NULL").Exec(ctx)
		return nameTaken(err, "token")
	})
	if err == nil {
		*k = made
	}
	return err
}

// Tokens returns every token by name.
func (s *Store) Tokens(ctx context.Context) ([]monitor.Token, error) {
	var rows []tokenRow
	if err := s.read.NewSelect().Model(&rows).Order("name").Scan(ctx); err != nil {
		return nil, wrap("read tokens", err)
	}
	out := make([]monitor.Token, len(rows))
	for i := range rows {
		out[i] = rows[i].token()
	}
	return out, nil
}

// DeleteToken deletes a token by its id, or returns monitor.ErrNotFound.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.do(ctx, "delete token", func(ctx context.Context, t *tx) error {
		res, err := t.ExecContext(ctx, "DELETE FROM tokens WHERE id = ?", id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, monitor.ErrNotFound)
		}
		return nil
	})
}

// TokenByHash returns the token with a hash, or monitor.ErrNotFound. Whether it has expired is for the caller to see.
func (s *Store) TokenByHash(ctx context.Context, hash []byte) (monitor.Token, error) {
	var row tokenRow
	if err := s.read.NewSelect().Model(&row).Where("hash = ?", hash).Scan(ctx); err != nil {
		return monitor.Token{}, wrap("read token", err)
	}
	return row.token(), nil
}

// TouchToken enqueues when a token was used and never blocks; false: the lane was full and it was dropped.
func (s *Store) TouchToken(id string, at time.Time) bool {
	return s.queue.pushOther(func(l *lane) { l.touches = append(l.touches, touch{id, at}) })
}
