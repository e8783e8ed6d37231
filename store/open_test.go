package store

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		dsn  string
		opts Options
		want string
	}{
		{"x.db", Options{}, "a sealer is needed"},
		{"postgres://localhost/x", Options{Plain: true}, `no database for a DSN that begins with "postgres://"`},
		{"", Options{Plain: true}, "names no file"},
		{"file:", Options{Plain: true}, "names no file"},
		{"file:x.db?mode=ro", Options{Plain: true}, "takes no parameters"},
		{filepath.Join(t.TempDir(), "none", "x.db"), Options{Plain: true}, "no such file or directory"},
	} {
		s, err := Open(t.Context(), c.dsn, c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.dsn, err, c.want)
		}
		if s != nil {
			shut(t, s)
		}
	}
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Options{Plain: true}); err == nil {
		t.Error("a text file was taken for a database")
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space.db", "per%cent.db", "hash#.db", "ünï.db"} {
		dir := t.TempDir()
		for range 2 {
			s, err := Open(t.Context(), "file:"+filepath.Join(dir, name), Options{Plain: true})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			shut(t, s)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	shut(t, openFile(t, dir, testOptions(t, c)))
	path := filepath.Join(dir, "tocsin.db")
	db := openDB(fileDSN(path), 1)
	if _, err := db.ExecContext(t.Context(), "INSERT INTO bun_migrations (name, group_id) VALUES ('00000000000099', 9)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path, testOptions(t, c))
	if err == nil || !strings.Contains(err.Error(), "00000000000099") || !strings.Contains(err.Error(), "newer") {
		t.Fatalf("a newer database: %v", err)
	}
}

func TestCopyBeforeMigrating(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	shut(t, openFile(t, dir, testOptions(t, c)))
	path := filepath.Join(dir, "tocsin.db")
	db := openDB(fileDSN(path), 1)
	for _, text := range []string{
		"DROP TABLE samples", "DROP TABLE blocks", "DROP TABLE hours", "DROP TABLE days", "DROP TABLE texts", "DROP TABLE notes",
		"DROP TABLE plugins", "DROP TABLE opaques", "DELETE FROM bun_migrations WHERE name > '00000000000002'",
	} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, dir, testOptions(t, c))
	m := newMonitor(t, s, "one")
	put(t, s, sampleAt(m.Series, noon(), sdk.Up))
	flush(t, s)
	if _, err := os.Stat(path + ".pre-2"); err != nil {
		t.Fatal(err)
	}
	old := openDB(fileDSN(path+".pre-2"), 1)
	defer old.Close()
	var n int
	if err := old.QueryRowContext(t.Context(), "SELECT count(*) FROM bun_migrations").Scan(&n); err != nil || n != 2 {
		t.Fatalf("the copy has %d migrations, %v", n, err)
	}
}

func TestMigrationFailsWhole(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	shut(t, openFile(t, dir, testOptions(t, c)))
	path := filepath.Join(dir, "tocsin.db")
	db := openDB(fileDSN(path), 1)
	for _, text := range []string{"DROP TABLE samples", "DROP TABLE plugins", "DROP TABLE opaques", "DELETE FROM bun_migrations WHERE name > '00000000000002'"} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), path, testOptions(t, c)); err == nil {
		t.Fatal("a migration that cannot run went through")
	}
	var n int
	err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM sqlite_master WHERE name = 'samples') +
		(SELECT count(*) FROM bun_migrations WHERE name > '00000000000002')`).Scan(&n)
	if err != nil || n != 0 {
		t.Fatalf("a failed migration left %d traces, %v", n, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

type xor struct{}

func (xor) Seal(plain []byte) ([]byte, error) {
	out := make([]byte, len(plain))
	for i := range plain {
		out[i] = plain[i] ^ 0xa5
	}
	return out, nil
}

func (x xor) Open(sealed []byte) ([]byte, error) { return x.Seal(sealed) }

func TestConfigurationsAreSealed(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, Options{Sealer: xor{}})
	m := monitor.Monitor{ID: "m", Name: "m", Interval: time.Minute, Config: json.RawMessage(`{"token":"hush-monitor"}`)}
	c := monitor.Channel{ID: "c", Name: "c", Config: json.RawMessage(`{"token":"hush-channel"}`)}
	if err := s.CreateMonitor(t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateChannel(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	got, err := s.Monitor(t.Context(), "m")
	if err != nil || string(got.Config) != `{"token":"hush-monitor"}` {
		t.Fatalf("%s, %v", got.Config, err)
	}
	shut(t, s)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "hush") {
			t.Errorf("%s holds a secret in clear", name)
		}
	}
}

func TestMemoryDatabase(t *testing.T) {
	c := newClock(noon())
	s, err := Open(t.Context(), ":memory:", testOptions(t, c))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	m := newMonitor(t, s, "one")
	for i := range 500 {
		put(t, s, sampleAt(m.Series, noon().Add(time.Duration(i)*time.Minute), sdk.Up))
	}
	flush(t, s)
	c.set(noon().Add(500 * time.Minute))
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := s.Samples(t.Context(), monitor.SampleQuery{Series: m.Series})
	if err != nil || len(got) != 500 || got[0].Message != "200 OK" {
		t.Fatalf("%d samples, %v", len(got), err)
	}
	up, err := s.Uptime(t.Context(), monitor.UptimeQuery{Series: m.Series, From: noon(), To: c.now()})
	if err != nil || up.Held[monitor.Up] != 500*time.Minute {
		t.Fatalf("%+v, %v", up, err)
	}
}

// TestStartStop opens and closes fifty times, with reads and writes under way, and counts what is left.
func TestStartStop(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	s := openFile(t, dir, testOptions(t, c))
	m := newMonitor(t, s, "one")
	shut(t, s)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for i := range 50 {
		s, err := Open(t.Context(), filepath.Join(dir, "tocsin.db"), Options{Plain: true, Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for k := 0; ctx.Err() == nil; k++ {
				s.Append(sampleAt(m.Series, noon().Add(time.Duration(i*1000+k)*time.Second), sdk.Up))
				if _, err := s.Samples(ctx, monitor.SampleQuery{Series: m.Series, Limit: 10}); err != nil {
					return
				}
			}
		}()
		if i%2 == 0 {
			if err := s.Ready(t.Context()); err == nil {
				flush(t, s)
			}
		}
		shut(t, s)
		cancel()
		<-done
	}
	await(func() bool { return runtime.NumGoroutine() <= goroutines })
	if got := openFiles(t); got > files {
		t.Errorf("%d open files, %d before", got, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Logf("open files are not counted on this system: %v", err)
		return 0
	}
	return len(list)
}
