package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// tokenStore keeps tokens in memory; the rest of a Store is not there.
type tokenStore struct {
	Store
	mu      sync.Mutex
	tokens  []monitor.Token
	lookups int
	touches int
	slow    chan struct{} // when set, a lookup waits for it after it has read
}

func (s *tokenStore) CreateToken(_ context.Context, t *monitor.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.tokens {
		if o.Name == t.Name || bytes.Equal(o.Hash, t.Hash) {
			return monitor.ErrConflict
		}
	}
	s.tokens = append(s.tokens, *t)
	return nil
}

func (s *tokenStore) Tokens(context.Context) ([]monitor.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]monitor.Token(nil), s.tokens...), nil
}

func (s *tokenStore) DeleteToken(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.tokens {
		if s.tokens[i].ID == id {
			s.tokens = append(s.tokens[:i:i], s.tokens[i+1:]...)
			return nil
		}
	}
	return monitor.ErrNotFound
}

func (s *tokenStore) TokenByHash(_ context.Context, hash []byte) (monitor.Token, error) {
	s.mu.Lock()
	s.lookups++
	var found *monitor.Token
	for i := range s.tokens {
		if bytes.Equal(s.tokens[i].Hash, hash) {
			found = &s.tokens[i]
		}
	}
	slow := s.slow
	s.mu.Unlock()
	if slow != nil {
		slow <- struct{}{}
		<-slow
	}
	if found == nil {
		return monitor.Token{}, monitor.ErrNotFound
	}
	return *found, nil
}

func (s *tokenStore) TouchToken(string, time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touches++
	return true
}

func tokenService(store *tokenStore, now func() time.Time) *Service {
	s := &Service{opts: Options{Store: store}, log: slog.New(slog.DiscardHandler), now: now}
	s.auth.known = make(map[[32]byte]*knownToken)
	return s
}

func admin(ctx context.Context) context.Context {
	return WithPrincipal(ctx, Principal{Name: "test", Role: monitor.Admin})
}

func TestSeedAdmin(t *testing.T) {
	const seed = "a-seed-of-a-test-1"
	ctx, store := t.Context(), &tokenStore{}
	s := tokenService(store, time.Now)
	is := func(token string, ok bool) {
		t.Helper()
		p, err := s.Authenticate(ctx, token)
		if ok != (err == nil) || ok && p.Role != monitor.Admin {
			t.Errorf("%.8s…: %v %v", token, p, err)
		}
	}
	first, err := s.SeedAdmin(ctx, "")
	if err != nil || !strings.HasPrefix(first, TokenPrefix) {
		t.Fatalf("got %q, %v", first, err)
	}
	is(first, true)
	if again, err := s.SeedAdmin(ctx, ""); err != nil || again != "" {
		t.Errorf("the second start made %q, %v", again, err)
	}
	for range 2 { // twice is fine
		if minted, err := s.SeedAdmin(ctx, seed); err != nil || minted != "" {
			t.Fatalf("got %q, %v", minted, err)
		}
		is(seed, true)
	}
	if _, err := s.SeedAdmin(ctx, seed+"-changed"); err != nil {
		t.Fatal(err)
	}
	is(seed+"-changed", true)
	is(seed, false)
	is(first, true)
	for _, bad := range []string{"short", strings.Repeat("x", 600), "a-seed-with\na-line"} {
		if _, err := s.SeedAdmin(ctx, bad); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	// A token with the seed's value that may less, or no longer, is made an administrator's.
	for _, weak := range []monitor.Token{{Role: monitor.Viewer}, {Role: monitor.Admin, ExpiresAt: time.Unix(1, 0)}} {
		store.tokens = nil
		if _, err := s.addToken(ctx, TokenInput{Name: "other", Role: weak.Role, ExpiresAt: weak.ExpiresAt}, seed); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SeedAdmin(ctx, seed); err != nil {
			t.Fatal(err)
		}
		is(seed, true)
	}
}

func TestAuthenticateIsRememberedAndForgotten(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	store := &tokenStore{}
	s := tokenService(store, func() time.Time { return now })
	made, secret, err := s.CreateToken(admin(t.Context()), TokenInput{Name: "x", Role: monitor.Viewer, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := s.Authenticate(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	if store.lookups != 1 || store.touches != 1 {
		t.Errorf("%d lookups and %d touches", store.lookups, store.touches)
	}
	now = now.Add(61 * time.Second)
	if _, err := s.Authenticate(t.Context(), secret); err != nil || store.touches != 2 {
		t.Errorf("%d touches after a minute, %v", store.touches, err)
	}
	now = now.Add(time.Hour)
	if _, err := s.Authenticate(t.Context(), secret); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("an expired token: %v", err)
	}
	now = now.Add(-time.Hour)
	if err := s.DeleteToken(admin(t.Context()), made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), secret); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a deleted token: %v", err)
	}
}

// A lookup that began before the token was deleted must not bring it back.
func TestADeletedTokenStaysDeleted(t *testing.T) {
	store := &tokenStore{}
	s := tokenService(store, time.Now)
	made, secret, err := s.CreateToken(admin(t.Context()), TokenInput{Name: "x", Role: monitor.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	slow := make(chan struct{})
	store.slow = slow
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Authenticate(t.Context(), secret) //nolint:errcheck // this one may still pass
	}()
	<-slow
	store.mu.Lock()
	store.slow = nil
	store.mu.Unlock()
	if err := s.DeleteToken(admin(t.Context()), made.ID); err != nil {
		t.Fatal(err)
	}
	slow <- struct{}{}
	<-done
	if _, err := s.Authenticate(t.Context(), secret); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("got %v", err)
	}
}

func TestRoles(t *testing.T) {
	for _, tt := range []struct {
		has, needs monitor.Role
		ok         bool
	}{
		{monitor.Admin, monitor.Admin, true},
		{monitor.Admin, monitor.Viewer, true},
		{monitor.Editor, monitor.Admin, false},
		{monitor.Editor, monitor.Editor, true},
		{monitor.Viewer, monitor.Editor, false},
		{monitor.Viewer, monitor.Viewer, true},
		{"", monitor.Viewer, false},
		{"root", monitor.Viewer, false},
	} {
		err := Allow(WithPrincipal(t.Context(), Principal{Role: tt.has}), tt.needs)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrForbidden) {
			t.Errorf("%s needs %s: %v", tt.has, tt.needs, err)
		}
	}
	if err := Allow(t.Context(), monitor.Viewer); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("nobody: %v", err)
	}
}

// Every method that takes a context asks who calls, whatever the face in front of it does.
func TestNobodyMayDoAnything(t *testing.T) {
	s := tokenService(&tokenStore{}, time.Now)
	ctx := t.Context()
	for name, err := range map[string]error{
		"Monitor":        second(s.Monitor(ctx, "")),
		"Monitors":       second(s.Monitors(ctx, monitor.Query{})),
		"CheckMonitor":   second(s.CheckMonitor(ctx, "", MonitorInput{})),
		"CreateMonitor":  second(s.CreateMonitor(ctx, MonitorInput{})),
		"ReplaceMonitor": second(s.ReplaceMonitor(ctx, "", 0, MonitorInput{})),
		"DeleteMonitor":  s.DeleteMonitor(ctx, "", 0),
		"CheckNow":       second(s.CheckNow(ctx, "")),
		"Channels":       second(s.Channels(ctx)),
		"Channel":        second(s.Channel(ctx, "")),
		"CheckChannel":   second(s.CheckChannel(ctx, "", ChannelInput{})),
		"CreateChannel":  second(s.CreateChannel(ctx, ChannelInput{})),
		"ReplaceChannel": second(s.ReplaceChannel(ctx, "", 0, ChannelInput{})),
		"DeleteChannel":  s.DeleteChannel(ctx, "", 0),
		"TestChannel":    second(s.TestChannel(ctx, "")),
		"Samples":        second(s.Samples(ctx, "", SampleRange{})),
		"Uptime":         second(s.Uptime(ctx, "", 0)),
		"Incidents":      second(s.Incidents(ctx, monitor.IncidentQuery{})),
		"Incident":       second(s.Incident(ctx, "")),
		"Kinds":          second(s.Kinds(ctx)),
		"Kind":           second(s.Kind(ctx, "")),
		"Providers":      second(s.Providers(ctx)),
		"Provider":       second(s.Provider(ctx, "")),
		"Subscribe":      second(s.Subscribe(ctx, "", nil)),
		"Log":            second(s.Log(ctx, LogRange{})),
		"Stats":          second(s.Stats(ctx)),
		"Tokens":         second(s.Tokens(ctx)),
		"DeleteToken":    s.DeleteToken(ctx, ""),
		"Still":          s.Still(ctx),
	} {
		if !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := s.CreateToken(ctx, TokenInput{}); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("CreateToken: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestMergeOfLogLines(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	stored := []monitor.LogLine{{ID: 9, At: at(30), Level: "INFO", Message: "c"}, {ID: 8, At: at(10), Level: "INFO", Message: "a"}}
	ring := []monitor.LogLine{
		{ID: 4, At: at(40), Level: "INFO", Message: "d"},
		{ID: 3, At: at(30).Add(time.Microsecond), Level: "INFO", Message: "c"},
		{ID: 2, At: at(20), Level: "DEBUG", Message: "b"},
		{ID: 1, At: at(10), Level: "INFO", Message: "a"},
	}
	text := func(lines []monitor.LogLine) (all string) {
		for _, l := range lines {
			all += l.Message
		}
		return all
	}
	if got := text(merge(stored, ring, time.Time{})); got != "dcba" {
		t.Errorf("got %s", got)
	}
	if got := text(merge(stored[1:], ring, at(25))); got != "ba" {
		t.Errorf("got %s", got)
	}
}
