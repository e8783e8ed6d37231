package api

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/internal/seal"
	"github.com/tocsinhq/tocsin/store"
)

func openStore(t testing.TB, log *slog.Logger) *store.Store {
	t.Helper()
	dir := t.TempDir()
	sealer, err := seal.Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), filepath.Join(dir, "tocsin.db"), store.Options{Sealer: sealer, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}
