package wasm

import (
	"context"
	"errors"
	"testing"
)

// Loaded is called once, when the code is there and none of it has run.
func TestLoaded(t *testing.T) {
	stop := errors.New("stop here")
	trap := plain(func(g *guest) { g.fn("_initialize", 0, 0x00) }) // unreachable
	for name, c := range map[string]struct {
		module []byte
		err    error
		trap   bool
	}{
		"reactor":                   {module: echo("check")},
		"command":                   {module: echo("_start")},
		"reactor that traps":        {module: trap, trap: true},
		"reactor that is stopped":   {module: trap, err: stop},
		"command that is stopped":   {module: echo("_start"), err: stop},
		"module that cannot be run": {module: []byte("rubbish")},
	} {
		calls := 0
		m, err := New(context.Background(), c.module, Options{Loaded: func() error { calls++; return c.err }})
		if m != nil {
			if err := m.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
		want := 1
		if name == "module that cannot be run" {
			want = 0
		}
		var crash *TrapError
		if calls != want || c.err != nil && !errors.Is(err, stop) || errors.As(err, &crash) != c.trap {
			t.Errorf("%s: called %d times, error %v", name, calls, err)
		}
	}
}
