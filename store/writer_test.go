package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// hold keeps the writer inside a batch until the returned function is called.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	inside, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		done <- s.do(context.Background(), "hold", func(context.Context, *tx) error {
			once.Do(func() { close(inside) })
			<-gate
			return nil
		})
	}()
	<-inside
	return sync.OnceFunc(func() {
		close(gate)
		if err := <-done; err != nil && !errors.Is(err, monitor.ErrClosed) {
			t.Errorf("hold: %v", err)
		}
	})
}

func count(t *testing.T, s *Store, query string, args ...any) int {
	t.Helper()
	var n int
	if err := s.read.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSavepoints(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	m := newMonitor(t, s, "one")
	before := s.Stats().Commits
	release := hold(t, s)
	// All of these are in one transaction: what fails takes nothing with it.
	const n = 40
	errs := make(chan error, n)
	for i := range n {
		go func() {
			name := "one"
			if i%2 == 0 {
				name = fmt.Sprintf("m%d", i)
			}
			errs <- s.CreateMonitor(t.Context(), &monitor.Monitor{ID: fmt.Sprintf("id%d", i), Name: name, Interval: time.Minute})
		}()
	}
	put(t, s, sampleAt(m.Series, noon(), sdk.Up))
	awaitQueue(s, n)
	release()
	conflicts := 0
	for range n {
		if err := <-errs; errors.Is(err, monitor.ErrConflict) {
			conflicts++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if conflicts != n/2 || count(t, s, "SELECT count(*) FROM monitors") != 1+n/2 || count(t, s, "SELECT count(*) FROM samples") != 1 {
		t.Fatalf("%d conflicts, %d monitors", conflicts, count(t, s, "SELECT count(*) FROM monitors"))
	}
	if got := s.Stats().Commits - before; got > 3 {
		t.Errorf("%d commits, want one for all that was queued", got)
	}
	if n := count(t, s, "SELECT value FROM meta WHERE name = 'series'"); n != 1+20 {
		t.Errorf("%d series were given out, want 21: a write that was rolled back takes none", n)
	}
}

// await waits until a condition holds; a test that waits for ever is ended by its time limit.
func await(holds func() bool) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		<-ticker.C
	}
}

// awaitQueue waits until n must writes are queued.
func awaitQueue(s *Store, n int) {
	await(func() bool {
		musts, _ := s.queue.lengths()
		return musts >= n
	})
}

// A must write is committed together with, or after, every sample that was enqueued before it.
func TestOrderOfLanes(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	m := newMonitor(t, s, "one")
	release := hold(t, s)
	const n = 3*batchRows + 17
	for i := range n {
		put(t, s, sampleAt(m.Series, noon().Add(time.Duration(i)*10*time.Millisecond), sdk.Up))
	}
	seen := make(chan int, 1)
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() {
		err := s.do(context.Background(), "look", func(ctx context.Context, tx *tx) error {
			var rows int
			err := tx.QueryRowContext(ctx, "SELECT count(*) FROM samples").Scan(&rows)
			seen <- rows
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	awaitQueue(s, 1)
	release()
	if got := <-seen; got != n {
		t.Fatalf("the must write saw %d samples, want %d", got, n)
	}
}

func TestFullLane(t *testing.T) {
	c := newClock(noon())
	opts := testOptions(t, c)
	opts.SampleLane = 10
	var lines strings.Builder
	var mu sync.Mutex
	opts.Log = slogTo(&mu, &lines)
	s := openFile(t, t.TempDir(), opts)
	m := newMonitor(t, s, "one")
	release := hold(t, s)
	taken := 0
	for i := range 25 {
		if s.Append(sampleAt(m.Series, noon().Add(time.Duration(i)*time.Second), sdk.Up)) {
			taken++
		}
	}
	if s.PutHealth(monitor.Health{ChannelID: "c"}) || s.AppendLog(monitor.LogLine{}) || s.TouchToken("x", noon()) {
		t.Error("the full lane took more")
	}
	release()
	flush(t, s)
	if got := s.Stats(); taken != 10 || got.SamplesDropped != 18 || got.SamplesStored != 10 {
		t.Fatalf("%d taken, %d dropped, %d stored", taken, got.SamplesDropped, got.SamplesStored)
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(lines.String(), "lane_full=18") {
		t.Errorf("the drops were not noted:\n%s", lines.String())
	}
}

func TestWithdrawnAndUncertain(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	release := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	queued := make(chan error, 1)
	go func() { queued <- s.CreateMonitor(ctx, &monitor.Monitor{ID: "w", Name: "withdrawn"}) }()
	awaitQueue(s, 1)
	cancel()
	if err := <-queued; !errors.Is(err, context.Canceled) || errors.Is(err, monitor.ErrUncertain) {
		t.Fatalf("a write that had not begun: %v", err)
	}
	release()
	flush(t, s)
	if n := count(t, s, "SELECT count(*) FROM monitors"); n != 0 {
		t.Fatal("a withdrawn write was written")
	}
	begun, gate := make(chan struct{}), make(chan struct{})
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		queued <- s.do(ctx, "slow", func(ctx context.Context, t *tx) error {
			close(begun)
			<-gate
			_, err := t.ExecContext(ctx, "INSERT INTO meta VALUES ('slow', 1)")
			return err
		})
	}()
	<-begun
	cancel()
	if err := <-queued; !errors.Is(err, monitor.ErrUncertain) || !errors.Is(err, context.Canceled) {
		t.Fatalf("a write that had begun: %v", err)
	}
	close(gate)
	flush(t, s)
	if n := count(t, s, "SELECT count(*) FROM meta WHERE name = 'slow'"); n != 1 {
		t.Fatal("the uncertain write was lost although nothing failed")
	}
}

func TestCloseCommitsWhatIsQueued(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	s := openFile(t, dir, testOptions(t, c))
	m := newMonitor(t, s, "one")
	release := hold(t, s)
	for i := range 5000 {
		put(t, s, sampleAt(m.Series, noon().Add(time.Duration(i)*10*time.Millisecond), sdk.Up))
	}
	written := make(chan error, 1)
	go func() {
		written <- s.CreateMonitor(t.Context(), &monitor.Monitor{ID: "late", Name: "late", Interval: time.Minute})
	}()
	awaitQueue(s, 1)
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- s.Close(t.Context()) }()
	}
	await(func() bool { return !s.Append(sampleAt(m.Series, noon().Add(time.Hour), sdk.Up)) })
	if err := s.CreateMonitor(t.Context(), &monitor.Monitor{ID: "x", Name: "x"}); !errors.Is(err, monitor.ErrClosed) {
		t.Fatalf("a write after Close: %v", err)
	}
	release()
	if err := errors.Join(<-written, <-closed, <-closed); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, dir, testOptions(t, c))
	if n := count(t, s, "SELECT count(*) FROM samples"); n < 5000 {
		t.Errorf("%d samples, want 5000", n)
	}
	if n := count(t, s, "SELECT count(*) FROM monitors"); n != 2 {
		t.Errorf("%d monitors, want 2", n)
	}
}

func TestCloseThatRunsOutOfTime(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	s, err := Open(t.Context(), filepath.Join(dir, "tocsin.db"), testOptions(t, c))
	if err != nil {
		t.Fatal(err)
	}
	m := newMonitor(t, s, "one")
	began := make(chan struct{})
	endless := make(chan error, 2)
	go func() {
		endless <- s.do(context.Background(), "endless", func(ctx context.Context, t *tx) error {
			close(began)
			_, err := t.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e15)
				INSERT INTO meta SELECT 'n' || i, i FROM n`)
			return err
		})
	}()
	<-began
	put(t, s, sampleAt(m.Series, noon(), sdk.Up))
	go func() { endless <- s.CreateMonitor(context.Background(), &monitor.Monitor{ID: "x", Name: "x"}) }()
	awaitQueue(s, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = s.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "2 must writes and 1 writes of the samples lane were lost") ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("close: %v", err)
	}
	for range 2 {
		if err := <-endless; !errors.Is(err, monitor.ErrClosed) {
			t.Errorf("a lost write: %v", err)
		}
	}
	if again := s.Close(t.Context()); again == nil || again.Error() != err.Error() {
		t.Errorf("closing again: %v", again)
	}
	// What was acknowledged is there, and the next start checks the file.
	s, err = Open(t.Context(), filepath.Join(dir, "tocsin.db"), testOptions(t, c))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	if _, err := s.Monitor(t.Context(), m.ID); err != nil {
		t.Error(err)
	}
	awaitReady(t, s)
}

func awaitReady(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	await(func() bool { return s.Ready(ctx) == nil || ctx.Err() != nil })
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// A sample that the database refuses is dropped alone, counted and logged; what came with it is stored.
func TestPoisonedSample(t *testing.T) {
	var lines strings.Builder
	var mu sync.Mutex
	opts := testOptions(t, newClock(noon()))
	opts.Log = slogTo(&mu, &lines)
	s := openFile(t, t.TempDir(), opts)
	m := newMonitor(t, s, "one")
	poison := sampleAt(m.Series, noon().Add(time.Second*7), sdk.Up)
	err := s.do(t.Context(), "trigger", func(ctx context.Context, t *tx) error {
		_, err := t.ExecContext(ctx, fmt.Sprintf(`CREATE TRIGGER poison BEFORE INSERT ON samples WHEN new.id = %d
			BEGIN SELECT RAISE(ABORT, 'poison'); END`, rowID(uint64(poison.Tick), m.Series)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	release := hold(t, s)
	for i := range 300 {
		put(t, s, sampleAt(m.Series, noon().Add(time.Duration(i)*time.Second), sdk.Up))
	}
	if !s.AppendLog(monitor.LogLine{Message: "kept"}) || !s.PutHealth(monitor.Health{ChannelID: "kept"}) {
		t.Fatal("dropped")
	}
	errs := make(chan error, 1)
	go func() { errs <- s.CreateMonitor(t.Context(), &monitor.Monitor{ID: "x", Name: "x"}) }()
	awaitQueue(s, 1)
	release()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "SELECT count(*) FROM samples"); n != 299 {
		t.Errorf("%d samples, want 299", n)
	}
	if n := count(t, s, "SELECT (SELECT count(*) FROM log_lines) + (SELECT count(*) FROM healths)"); n != 2 {
		t.Errorf("%d other writes, want 2", n)
	}
	if got := s.Stats().SamplesPoisoned; got != 1 {
		t.Errorf("%d poisoned", got)
	}
	got, err := s.Samples(t.Context(), monitor.SampleQuery{Series: m.Series})
	if err != nil || len(got) != 299 {
		t.Errorf("%d samples are read, %v", len(got), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Count(lines.String(), "is dropped") != 1 {
		t.Errorf("log:\n%s", lines.String())
	}
}

func TestFullDisk(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	m := newMonitor(t, s, "one")
	var pages int
	limit := func(n int) {
		t.Helper()
		err := s.do(t.Context(), "limit", func(ctx context.Context, t *tx) error {
			return t.QueryRowContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n)).Scan(&pages)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // is taken as the number of pages that there are
	for i := range 5000 {
		put(t, s, sampleAt(m.Series, noon().Add(time.Duration(i)*10*time.Millisecond), sdk.Up))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := s.CreateMonitor(ctx, &monitor.Monitor{ID: "x", Name: "x"})
	if !errors.Is(err, monitor.ErrUncertain) && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a must write on a full disk: %v", err)
	}
	if s.Stats().CommitRetries == 0 {
		t.Error("nothing was tried again")
	}
	// The limit is lifted on the connection that the writer holds; the next try succeeds.
	if err := lift(s); err != nil {
		t.Fatal(err)
	}
	flush(t, s)
	if n := count(t, s, "SELECT count(*) FROM samples"); n != 5000 {
		t.Errorf("%d samples, want all 5000", n)
	}
	if err := s.CreateMonitor(t.Context(), &monitor.Monitor{ID: "y", Name: "y", Interval: time.Minute}); err != nil {
		t.Fatal(err)
	}
}

// lift raises the page limit from beside the writer, between two of its tries: a connection takes one statement at a time.
func lift(s *Store) error {
	return s.conn.bun.QueryRowContext(context.Background(), "PRAGMA max_page_count = 1000000").Scan(new(int))
}

func TestBusyDatabase(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, testOptions(t, newClock(noon())))
	m := newMonitor(t, s, "one")
	if err := s.do(t.Context(), "hurry", func(ctx context.Context, t *tx) error {
		_, err := t.ExecContext(ctx, "PRAGMA busy_timeout = 1")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", fileDSN(s.path))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	blocking, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, sampleAt(m.Series, noon(), sdk.Up))
	await(func() bool { return s.Stats().CommitRetries >= 3 })
	if err := blocking.Rollback(); err != nil {
		t.Fatal(err)
	}
	flush(t, s)
	if n := count(t, s, "SELECT count(*) FROM samples"); n != 1 {
		t.Errorf("%d samples", n)
	}
}

func TestReadyTellsAStuckWriter(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	awaitReady(t, s)
	release := hold(t, s)
	defer release()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.batchSince.Store(time.Now().Add(-11 * time.Second).UnixNano())
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "busy with one batch for 11s") {
		t.Fatalf("ready: %v", err)
	}
}

// FULL for what must survive a power cut, NORMAL for samples alone.
func TestSynchronous(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	m := newMonitor(t, s, "one")
	var mode int
	if err := s.do(t.Context(), "look", func(ctx context.Context, t *tx) error {
		return t.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&mode)
	}); err != nil || mode != 2 {
		t.Fatalf("synchronous %d in a must write, %v", mode, err)
	}
	put(t, s, sampleAt(m.Series, noon(), sdk.Up))
	await(func() bool { return s.Stats().SamplesStored > 0 })
	onWriter(t, s, func() {
		// Between two batches the writer's connection is free, and on this goroutine it may be used.
		ctx := context.Background()
		err := s.inTransaction(ctx, func(c *conn) error { return c.bun.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&mode) })
		if err != nil || mode != 1 {
			t.Errorf("synchronous %d in a transaction of samples, %v", mode, err)
		}
	})
}

func TestErrorsQuoteNoValues(t *testing.T) {
	s := openFile(t, t.TempDir(), testOptions(t, newClock(noon())))
	newMonitor(t, s, "one")
	const secret = "hush-hush"
	twin := &monitor.Monitor{ID: "twin", Name: "one", Config: []byte(secret), Target: secret, Interval: time.Minute}
	bad := s.do(t.Context(), "bad", func(ctx context.Context, t *tx) error {
		_, err := t.ExecContext(ctx, "SELECT "+secret+" FROM "+secret)
		return err
	})
	for _, err := range []error{s.CreateMonitor(t.Context(), twin), bad} {
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("error: %v", err)
		}
	}
}
