package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Errors that say who may do what.
var (
	ErrUnauthenticated = errors.New("not authenticated") // nobody is known to ask, or the token is not valid
	ErrForbidden       = errors.New("forbidden")         // who asks may not
)

// Principal is who asks.
type Principal struct {
	Name    string       // of the token
	Role    monitor.Role // what it may do
	TokenID string
	From    string // the address the request came from
}

type principalKey struct{}

// WithPrincipal returns a context in which p asks.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalOf returns who asks in the context, and false when nobody is known to.
func PrincipalOf(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}

// Allow returns nil when who asks has the role or a higher one: an admin may do what an editor may, and an editor what a
// viewer may. Else the error is ErrUnauthenticated or ErrForbidden.
func Allow(ctx context.Context, role monitor.Role) error {
	p, ok := PrincipalOf(ctx)
	if !ok {
		return ErrUnauthenticated
	}
	if rank(p.Role) < rank(role) {
		return fmt.Errorf("this needs the role %s, and the token has %s: %w", role, p.Role, ErrForbidden)
	}
	return nil
}

// rank orders the roles; a role that is none of them ranks below all.
func rank(role monitor.Role) int {
	switch role {
	case monitor.Admin:
		return 3
	case monitor.Editor:
		return 2
	case monitor.Viewer:
		return 1
	default:
		return 0
	}
}

// Can reports whether who asks has the role or a higher one.
func Can(ctx context.Context, role monitor.Role) bool { return Allow(ctx, role) == nil }

// audit notes a change that was made: who, what, from where. attrs must hold no secret.
func (s *Service) audit(ctx context.Context, action string, attrs ...slog.Attr) {
	p, ok := PrincipalOf(ctx)
	if !ok {
		p.Name = "tocsin" // the server itself, at its start
	}
	all := append([]slog.Attr{
		slog.String("action", action), slog.String("who", p.Name), slog.String("from", p.From), slog.String("token_id", p.TokenID),
	}, attrs...)
	s.log.LogAttrs(ctx, slog.LevelInfo, "change", all...)
}
