package storetest_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/store"
	"github.com/tocsinhq/tocsin/store/storetest"
)

// reverse seals by turning the bytes around: enough to see that what is stored is not what was given.
type reverse struct{}

func (reverse) Seal(plain []byte) ([]byte, error) {
	out := make([]byte, len(plain))
	for i, c := range plain {
		out[len(plain)-1-i] = c
	}
	return out, nil
}

func (r reverse) Open(sealed []byte) ([]byte, error) { return r.Seal(sealed) }

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, c storetest.Config) storetest.Store {
		t.Helper()
		s, err := store.Open(t.Context(), filepath.Join(c.Dir, "tocsin.db"), store.Options{
			Sealer: reverse{}, Now: c.Now, KeepSamples: 400 * 24 * time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
