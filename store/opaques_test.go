package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// flip seals by turning every bit, and refuses what has a word in it.
type flip struct{ refuse string }

func (f flip) Seal(plain []byte) ([]byte, error) {
	if f.refuse != "" && bytes.Contains(plain, []byte(f.refuse)) {
		return nil, errors.New("no sealing today")
	}
	return f.Open(plain)
}

func (flip) Open(sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, errors.New("nothing was sealed")
	}
	out := make([]byte, len(sealed))
	for i, c := range sealed {
		out[i] = ^c
	}
	return out, nil
}

func putOpaques(t *testing.T, s *Store, all ...monitor.Opaque) {
	t.Helper()
	for _, o := range all {
		if !s.PutOpaque(o) {
			t.Fatalf("the state of series %d was dropped", o.Series)
		}
	}
	flush(t, s)
}

func opaques(t *testing.T, s *Store) map[uint32]string {
	t.Helper()
	all, err := s.Opaques(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := make(map[uint32]string)
	for series, o := range all {
		states[series] = o.State
	}
	return states
}

// TestOpaquesAreSealed looks at the bytes of the file: neither the state nor its fingerprint may be in them.
func TestOpaquesAreSealed(t *testing.T) {
	opts := testOptions(t, newClock(noon()))
	opts.Plain, opts.Sealer = false, flip{}
	s := openFile(t, t.TempDir(), opts)
	m := newMonitor(t, s, "one")
	o := monitor.Opaque{Series: m.Series, State: "session 5f3759df"}
	copy(o.Of[:], "fingerprint of what was checked.")
	putOpaques(t, s, o)
	var row []byte
	if err := s.read.QueryRowContext(t.Context(), "SELECT state FROM opaques").Scan(&row); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(row, []byte("5f3759df")) || bytes.Contains(row, []byte("fingerprint")) || len(row) < len(o.Of)+len(o.State) {
		t.Errorf("the file has %q", row)
	}
	all, err := s.Opaques(t.Context())
	if diff := cmp.Diff(map[uint32]monitor.Opaque{m.Series: o}, all); err != nil || diff != "" {
		t.Errorf("read back: %v, -want +got\n%s", err, diff)
	}
}

// TestDamagedOpaques has rows that nobody can read. They cost their own monitors a state, and nothing else.
func TestDamagedOpaques(t *testing.T) {
	var mu sync.Mutex
	var lines strings.Builder
	opts := testOptions(t, newClock(noon()))
	opts.Plain, opts.Sealer, opts.Log = false, flip{}, slogTo(&mu, &lines)
	s := openFile(t, t.TempDir(), opts)
	want := map[uint32]string{}
	for i, row := range [][]byte{{}, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{1}, 32+sdk.MaxState+1), nil} {
		m := newMonitor(t, s, fmt.Sprint(i))
		putOpaques(t, s, monitor.Opaque{Series: m.Series, State: "hush"})
		if row == nil {
			want[m.Series] = "hush"
			continue
		}
		err := s.do(t.Context(), "spoil", func(ctx context.Context, t *tx) error {
			_, err := t.ExecContext(ctx, "UPDATE opaques SET state = ? WHERE series = ?", row, m.Series)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, opaques(t, s)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(lines.String(), "states=3") || strings.Contains(lines.String(), "hush") {
		t.Errorf("the log has\n%s", lines.String())
	}
}

// TestOpaqueThatCannotBeSealed is left out alone; what was to be written with it is written.
func TestOpaqueThatCannotBeSealed(t *testing.T) {
	var mu sync.Mutex
	var lines strings.Builder
	opts := testOptions(t, newClock(noon()))
	opts.Plain, opts.Sealer, opts.Log = false, flip{refuse: "hush"}, slogTo(&mu, &lines)
	s := openFile(t, t.TempDir(), opts)
	bad, good := newMonitor(t, s, "bad"), newMonitor(t, s, "good")
	release := hold(t, s)
	put(t, s, sampleAt(good.Series, noon(), sdk.Up))
	for _, o := range []monitor.Opaque{{Series: bad.Series, State: "hush"}, {Series: good.Series, State: "fine"}} {
		if !s.PutOpaque(o) {
			t.Fatal("a state was dropped")
		}
	}
	release()
	flush(t, s)
	if diff := cmp.Diff(map[uint32]string{good.Series: "fine"}, opaques(t, s)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := s.Stats(); got.SamplesPoisoned != 1 || got.SamplesStored != 1 {
		t.Errorf("%d poisoned, %d stored", got.SamplesPoisoned, got.SamplesStored)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(lines.String(), "no sealing today") || strings.Contains(lines.String(), "hush") {
		t.Errorf("the log has\n%s", lines.String())
	}
}

// TestOpaquesInAFullLane has more states than the lane has room for. Of one series only the newest takes room.
func TestOpaquesInAFullLane(t *testing.T) {
	opts := testOptions(t, newClock(noon()))
	opts.SampleLane = 10
	s := openFile(t, t.TempDir(), opts)
	want := map[uint32]string{}
	var all []monitor.Monitor
	for i := range 12 {
		all = append(all, newMonitor(t, s, fmt.Sprint(i)))
	}
	release := hold(t, s)
	for round := range 3 {
		for i, m := range all {
			state := fmt.Sprint("round ", round)
			if got := s.PutOpaque(monitor.Opaque{Series: m.Series, State: state}); got != (i < 10) {
				t.Errorf("round %d: state %d was taken: %v", round, i, got)
			} else if got {
				want[m.Series] = state
			}
		}
	}
	if s.Append(sampleAt(1, noon(), sdk.Up)) {
		t.Error("the full lane took a sample")
	}
	if _, n := s.queue.lengths(); n != 10 {
		t.Errorf("%d writes wait, want 10", n)
	}
	release()
	flush(t, s)
	if diff := cmp.Diff(want, opaques(t, s)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := s.Stats().SamplesDropped; got != 3*2+1 {
		t.Errorf("%d drops were counted", got)
	}
}

// TestManyOpaques are written in several transactions, all of them at the latest when the store is closed.
func TestManyOpaques(t *testing.T) {
	dir, opts := t.TempDir(), testOptions(t, newClock(noon()))
	s := openFile(t, dir, opts)
	want := map[uint32]string{}
	var all []monitor.Monitor
	for i := range 1300 {
		all = append(all, newMonitor(t, s, fmt.Sprint(i)))
	}
	release := hold(t, s)
	for _, m := range all {
		want[m.Series] = m.Name
		if !s.PutOpaque(monitor.Opaque{Series: m.Series, State: m.Name}) {
			t.Fatal("a state was dropped")
		}
	}
	s.queue.close()
	release()
	shut(t, s)
	s = openFile(t, dir, opts)
	if diff := cmp.Diff(want, opaques(t, s)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
