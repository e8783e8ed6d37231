package service

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// TokenPrefix begins every token that the server makes, so that scanners of leaked secrets can tell what it is.
const TokenPrefix = "tcs_"

const (
	minSeed      = 16   // characters of TOCSIN_ADMIN_TOKEN
	maxToken     = 512  // characters of any token; a longer one is not looked up
	maxKnown     = 4096 // tokens that are remembered
	touchEvery   = time.Minute
	seedName     = "seed"
	firstName    = "first"
	maxTokenName = 100
)

// TokenInput is what somebody writes to have a token.
type TokenInput struct {
	Name      string
	Role      monitor.Role
	ExpiresAt time.Time // zero: never
}

// tokenCache remembers who has which token, so that a request costs no query. Only tokens that exist are in it.
type tokenCache struct {
	mu    sync.Mutex
	known map[[32]byte]*knownToken
	// turn goes up whenever a token is deleted: an answer of the store that was asked for before is not remembered after.
	turn uint64
}

type knownToken struct {
	token   monitor.Token
	touched time.Time
}

// Authenticate returns who has the token. The error is ErrUnauthenticated when nobody has it, or it has expired.
func (s *Service) Authenticate(ctx context.Context, token string) (Principal, error) {
	if token == "" || len(token) > maxToken {
		return Principal{}, ErrUnauthenticated
	}
	// The token is looked up by its SHA-256: whoever measures the time learns about the hash, and from that not the token.
	hash := sha256.Sum256([]byte(token))
	c := &s.auth
	c.mu.Lock()
	k, turn := c.known[hash], c.turn
	c.mu.Unlock()
	if k == nil {
		found, err := s.opts.Store.TokenByHash(ctx, hash[:])
		if errors.Is(err, monitor.ErrNotFound) {
			return Principal{}, ErrUnauthenticated
		}
		if err != nil {
			return Principal{}, fmt.Errorf("look up token: %w", err)
		}
		k = &knownToken{token: found, touched: found.LastUsedAt}
		c.mu.Lock()
		if c.turn == turn {
			if len(c.known) >= maxKnown {
				clear(c.known)
			}
			c.known[hash] = k
		}
		c.mu.Unlock()
	}
	now := s.now()
	if expired(k.token, now) {
		return Principal{}, fmt.Errorf("the token has expired: %w", ErrUnauthenticated)
	}
	c.mu.Lock()
	touch := now.Sub(k.touched) >= touchEvery
	if touch {
		k.touched = now
	}
	c.mu.Unlock()
	if touch {
		// The samples lane may drop it: then the last use is a minute older than it was.
		s.opts.Store.TouchToken(k.token.ID, now)
	}
	return Principal{Name: k.token.Name, Role: k.token.Role, TokenID: k.token.ID}, nil
}

// Remembers reports whether the token has been good since the start, without asking the store.
func (s *Service) Remembers(token string) bool {
	hash := sha256.Sum256([]byte(token))
	c := &s.auth
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[hash]
	return k != nil && !expired(k.token, s.now())
}

// Still returns nil while the token with which the context's principal came is good: a stream outlives its request's check.
func (s *Service) Still(ctx context.Context) error {
	p, ok := PrincipalOf(ctx)
	if !ok {
		return ErrUnauthenticated
	}
	tokens, err := s.opts.Store.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	for i := range tokens {
		if t := &tokens[i]; t.ID == p.TokenID && t.Role == p.Role && !expired(*t, s.now()) {
			return nil
		}
	}
	return ErrUnauthenticated
}

func expired(t monitor.Token, now time.Time) bool {
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}

// Tokens lists the tokens, without what they are. It needs an admin.
func (s *Service) Tokens(ctx context.Context) ([]monitor.Token, error) {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return nil, err
	}
	tokens, err := s.opts.Store.Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return tokens, nil
}

// CreateToken makes a token and returns it in plain text, once: only its hash is kept. It needs an admin. The error is
// monitor.Faults when the input is bad.
func (s *Service) CreateToken(ctx context.Context, in TokenInput) (monitor.Token, string, error) {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return monitor.Token{}, "", err
	}
	if err := s.CheckToken(ctx, in).Err(); err != nil {
		return monitor.Token{}, "", err
	}
	plain, err := newSecret(TokenPrefix)
	if err != nil {
		return monitor.Token{}, "", err
	}
	t, err := s.addToken(ctx, in, plain)
	if errors.Is(err, monitor.ErrConflict) {
		return monitor.Token{}, "", monitor.Faults{taken(in.Name, "token")}
	}
	return t, plain, err
}

func (s *Service) addToken(ctx context.Context, in TokenInput, plain string) (monitor.Token, error) {
	hash := sha256.Sum256([]byte(plain))
	now := s.now().UTC().Truncate(time.Millisecond)
	t := monitor.Token{
		ID: newID(now), Name: in.Name, Role: in.Role, Hash: hash[:], CreatedAt: now, ExpiresAt: in.ExpiresAt.Truncate(time.Millisecond),
	}
	wctx, cancel := writing(ctx)
	defer cancel()
	if err := s.opts.Store.CreateToken(wctx, &t); err != nil {
		return monitor.Token{}, fmt.Errorf("store token: %w", err)
	}
	s.audit(ctx, "token.create", slog.String("object_id", t.ID), slog.String("name", t.Name), slog.String("role", string(t.Role)))
	return t, nil
}

// CheckToken returns what is wrong with the input.
func (s *Service) CheckToken(ctx context.Context, in TokenInput) monitor.Faults {
	var faults monitor.Faults
	checkName(&faults, in.Name, maxTokenName)
	switch in.Role {
	case monitor.Admin, monitor.Editor, monitor.Viewer:
	default:
		faults.Add("role", shown(string(in.Role)), "must be admin, editor or viewer")
	}
	if !in.ExpiresAt.IsZero() && !in.ExpiresAt.After(s.now()) {
		faults.Add("expires_at", in.ExpiresAt.UTC().Format(time.RFC3339), "must lie in the future; leave it out for a token that never expires")
	}
	if len(faults) > 0 {
		return faults
	}
	tokens, err := s.opts.Store.Tokens(ctx)
	if err != nil {
		return nil //nolint:nilerr // the write that follows meets the same trouble and says it
	}
	for i := range tokens {
		if tokens[i].Name == in.Name {
			faults = append(faults, taken(in.Name, "token"))
		}
	}
	return faults
}

// DeleteToken ends a token at once. It needs an admin. The error is monitor.ErrNotFound when there is none with the id.
func (s *Service) DeleteToken(ctx context.Context, id string) error {
	if err := Allow(ctx, monitor.Admin); err != nil {
		return err
	}
	return s.dropToken(ctx, id)
}

func (s *Service) dropToken(ctx context.Context, id string) error {
	wctx, cancel := writing(ctx)
	defer cancel()
	err := s.opts.Store.DeleteToken(wctx, id)
	// Forget it whatever came of it: after an uncertain write the store is asked again.
	c := &s.auth
	c.mu.Lock()
	c.turn++
	for hash, k := range c.known {
		if k.token.ID == id {
			delete(c.known, hash)
		}
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("delete token %s: %w", id, err)
	}
	s.audit(ctx, "token.delete", slog.String("object_id", id))
	return nil
}

// SeedAdmin makes sure that there is an administrator. With a token (TOCSIN_ADMIN_TOKEN, at least 16 characters) the token
// named "seed" is that one and has the role admin. Without, and when there is no token at all, it makes one and returns it, to
// be shown once; else it returns "".
func (s *Service) SeedAdmin(ctx context.Context, token string) (minted string, err error) {
	tokens, err := s.opts.Store.Tokens(ctx)
	if err != nil {
		return "", fmt.Errorf("list tokens: %w", err)
	}
	if token == "" {
		if len(tokens) > 0 {
			return "", nil
		}
		plain, err := newSecret(TokenPrefix)
		if err != nil {
			return "", err
		}
		if _, err := s.addToken(ctx, TokenInput{Name: firstName, Role: monitor.Admin}, plain); err != nil {
			return "", fmt.Errorf("make the first token: %w", err)
		}
		return plain, nil
	}
	if len(token) < minSeed || len(token) > maxToken {
		return "", fmt.Errorf("TOCSIN_ADMIN_TOKEN has %d characters: it must have %d to %d", len(token), minSeed, maxToken)
	}
	if sdk.CleanText(token, maxToken) != token {
		return "", errors.New("TOCSIN_ADMIN_TOKEN must be one line without control characters")
	}
	hash := sha256.Sum256([]byte(token))
	for i := range tokens {
		t := &tokens[i]
		same := string(t.Hash) == string(hash[:])
		if same && t.Role == monitor.Admin && !expired(*t, s.now()) {
			return "", nil
		}
		if same || t.Name == seedName { // another value, or no longer enough
			if err := s.dropToken(ctx, t.ID); err != nil {
				return "", err
			}
		}
	}
	if _, err := s.addToken(ctx, TokenInput{Name: seedName, Role: monitor.Admin}, token); err != nil {
		return "", fmt.Errorf("store TOCSIN_ADMIN_TOKEN: %w", err)
	}
	return "", nil
}

// newSecret returns the prefix and 32 random bytes in base64url.
func newSecret(prefix string) (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw a secret: %w", err)
	}
	return prefix + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

func newID(at time.Time) string { return ulid.MustNew(ulid.Timestamp(at), rand.Reader).String() }
