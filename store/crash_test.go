package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// copyFiles copies a database that is being written as a crash would leave it: the log first, because what the file says
// later is in the log as well, and a checkpoint can only move what the copy of the log has.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"-wal", ""} {
		data, err := os.ReadFile(from + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCrash copies the files under load, with the writer held between two batches, opens the copy, and looks for everything
// that had been acknowledged before.
func TestCrash(t *testing.T) {
	c := newClock(noon())
	s := openFile(t, t.TempDir(), testOptions(t, c))
	ch := monitor.Channel{ID: "ch", Name: "ch", Provider: "webhook"}
	if err := s.CreateChannel(t.Context(), &ch); err != nil {
		t.Fatal(err)
	}
	m := newMonitor(t, s, "one")
	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for k := range 20 {
					s.Append(sampleAt(m.Series, noon().Add(time.Duration(i*100+k*4+w)*10*time.Millisecond), sdk.Down))
				}
				id := fmt.Sprintf("e%d-%d", w, i)
				err := s.Record(t.Context(), monitor.Transition{
					State: monitor.State{MonitorID: m.ID, Condition: monitor.Down, Since: noon()},
					Event: &monitor.Event{ID: id, MonitorID: m.ID, Kind: sdk.WentDown, At: noon()}, Channels: []string{"ch"},
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged[id] = true
				mu.Unlock()
			}
		})
	}
	for round := range 8 {
		await(func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) > 20*(round+1)
		})
		mu.Lock()
		must := make([]string, 0, len(acknowledged))
		for id := range acknowledged {
			must = append(must, id)
		}
		mu.Unlock()
		dir := t.TempDir()
		copyFiles(t, s.path, filepath.Join(dir, "tocsin.db"))
		after, err := Open(t.Context(), filepath.Join(dir, "tocsin.db"), testOptions(t, c))
		if err != nil {
			t.Fatal(err)
		}
		var verdict string
		if err := after.read.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
			t.Errorf("round %d: %s, %v", round, verdict, err)
		}
		for _, id := range must {
			if n := count(t, after, "SELECT count(*) FROM outbox JOIN events ON events.id = event_id WHERE event_id = ?", id); n != 1 {
				t.Errorf("round %d: acknowledged event %s is there %d times", round, id, n)
			}
		}
		awaitReady(t, after)
		shut(t, after)
	}
	close(stop)
	load.Wait()
}

func TestUncleanStopIsChecked(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	path := filepath.Join(dir, "tocsin.db")
	s := openFile(t, dir, testOptions(t, c))
	for i := range 200 {
		newMonitor(t, s, fmt.Sprintf("m%d", i))
	}
	root := count(t, s, "SELECT rootpage FROM sqlite_master WHERE name = 'monitors_kind'")
	shut(t, s)
	whole := openFile(t, dir, testOptions(t, c))
	if whole.checking.Load() {
		t.Error("the file is checked after a clean stop")
	}
	shut(t, whole)
	unclean(t, path)
	whole = openFile(t, dir, testOptions(t, c))
	awaitReady(t, whole)
	shut(t, whole)
	unclean(t, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 512 {
		data[(root-1)*4096+2048+i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	var mu sync.Mutex
	opts := testOptions(t, c)
	opts.Log = slogTo(&mu, &lines)
	damaged := openFile(t, dir, opts)
	await(func() bool { return !damaged.checking.Load() })
	if err := damaged.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("ready: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(lines.String(), "damaged") {
		t.Errorf("log:\n%s", lines.String())
	}
}

// unclean takes the mark of a clean stop away.
func unclean(t *testing.T, path string) {
	t.Helper()
	db := openDB(fileDSN(path), 1)
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "UPDATE meta SET value = 0 WHERE name = 'clean'"); err != nil {
		t.Fatal(err)
	}
}
