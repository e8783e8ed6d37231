package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func maintain(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func uptime(t *testing.T, s *Store, m *monitor.Monitor, from, to time.Time) monitor.Uptime {
	t.Helper()
	up, err := s.Uptime(t.Context(), monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: from, To: to})
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// A crash between two slices of sealing counts nothing twice, whether the hour is the first of all, follows the one before, or
// comes after hours in which nothing ran.
func TestCrashWhileSealing(t *testing.T) {
	for _, c := range []struct {
		name   string
		before int // minutes sampled and sealed before
		gap    time.Duration
	}{{"first hour", 0, 0}, {"next hour", 60, time.Hour}, {"after a gap", 60, 5 * time.Hour}} {
		t.Run(c.name, func(t *testing.T) { crashWhileSealing(t, c.before, c.gap) })
	}
}

func crashWhileSealing(t *testing.T, before int, gap time.Duration) {
	c := newClock(noon())
	s := openFile(t, t.TempDir(), testOptions(t, c))
	awaitReady(t, s)
	const series, sealed = 20, 7
	var monitors []monitor.Monitor
	for i := range series {
		monitors = append(monitors, newMonitor(t, s, fmt.Sprintf("m%d", i)))
	}
	sample := func(from time.Time, minutes int) {
		for _, m := range monitors {
			for k := range minutes {
				put(t, s, sampleAt(m.Series, from.Add(time.Duration(k)*time.Minute), sdk.Up))
			}
		}
		flush(t, s)
		c.set(from.Add(time.Duration(minutes) * time.Minute))
	}
	if before > 0 {
		sample(noon(), before)
		c.set(noon().Add(gap + 2*time.Minute)) // the hour after has what the last samples leave behind
		maintain(t, s)
	}
	start := noon().Add(gap)
	sample(start, 59)
	dir := t.TempDir()
	onWriter(t, s, func() {
		u := &s.upkeepPlan
		s.planSeal(start.Add(70 * time.Minute))
		rest := u.sealing[sealed:]
		u.seal.rows = sealed
		if err := s.sealSlice(context.Background()); err != nil || len(u.sealing) != len(rest) {
			t.Errorf("%d series are left to seal, %v", len(u.sealing), err)
		}
		copyFiles(t, s.path, filepath.Join(dir, "tocsin.db"))
	})
	again := openFile(t, dir, testOptions(t, c))
	if n := count(t, again, "SELECT count(*) FROM blocks WHERE id >= ?", rowID(uint64(hourAt(start.UnixMilli())), 0)); n != sealed {
		t.Fatalf("the copy has %d blocks of the hour, want %d", n, sealed)
	}
	awaitReady(t, again)
	c.set(start.Add(70 * time.Minute))
	for range 2 {
		for i := range monitors {
			up := uptime(t, again, &monitors[i], noon(), c.now())
			n := int64(before + 59)
			if up.Counts[sdk.Up] != n {
				t.Errorf("%s: %d samples, want %d", monitors[i].Name, up.Counts[sdk.Up], n)
			}
		}
		maintain(t, again)
		if n := count(t, again, "SELECT sum(c1) FROM days"); n != series*(before+59) {
			t.Errorf("the days have %d samples, want %d", n, series*(before+59))
		}
		if n := count(t, again, "SELECT count(*) FROM samples"); n != 0 {
			t.Errorf("%d hot rows are left", n)
		}
	}
}

func TestLateSamples(t *testing.T) {
	c := newClock(noon())
	s := openFile(t, t.TempDir(), testOptions(t, c))
	m := newMonitor(t, s, "one")
	put(t, s, sampleAt(m.Series, noon(), sdk.Up))
	flush(t, s)
	c.set(noon().Add(61 * time.Minute))
	maintain(t, s)
	put(t, s, sampleAt(m.Series, noon().Add(time.Minute), sdk.Up), sampleAt(m.Series+7, noon().Add(time.Hour), sdk.Up),
		sampleAt(0, noon(), sdk.Up), sampleAt(maxSeries+1, noon(), sdk.Up), sampleAt(m.Series, noon().Add(time.Hour), sdk.Up))
	flush(t, s)
	got := s.Stats()
	if got.SamplesLate != 1 || got.SamplesOrphaned != 1 || got.SamplesInvalid != 2 || got.SamplesStored != 2 {
		t.Fatalf("%+v", got)
	}
}

// A clock that jumps an hour ahead and back costs at most the hour that was sealed too early, and nothing is counted twice.
func TestClockSteps(t *testing.T) {
	c := newClock(noon())
	s := openFile(t, t.TempDir(), testOptions(t, c))
	m := newMonitor(t, s, "one")
	at := noon()
	step := func(to time.Time, n int) {
		at = to
		for range n {
			put(t, s, sampleAt(m.Series, at, sdk.Up))
			at = at.Add(time.Minute)
		}
		flush(t, s)
		c.set(at)
		maintain(t, s)
	}
	step(noon(), 30)
	step(noon().Add(90*time.Minute), 30)  // an hour ahead
	step(noon().Add(60*time.Minute), 30)  // and back: a part of this is late, or before what is there
	step(noon().Add(-30*time.Minute), 30) // far back
	step(noon().Add(120*time.Minute), 30)
	got, err := s.Samples(t.Context(), monitor.SampleQuery{Series: m.Series})
	if err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	if int64(len(got)) != st.SamplesStored || st.SamplesStored+st.SamplesLate+st.SampleConflicts != 150 {
		t.Fatalf("%d samples are read; %+v", len(got), st)
	}
	for i := 1; i < len(got); i++ {
		if got[i].Tick <= got[i-1].Tick {
			t.Fatalf("sample %d is not after the one before", i)
		}
	}
	up := uptime(t, s, &m, noon().Add(-time.Hour), noon().Add(4*time.Hour))
	if up.Counts[sdk.Up] != int64(len(got)) {
		t.Fatalf("%d counted, %d stored", up.Counts[sdk.Up], len(got))
	}
}

// onWriter runs f on the writer's goroutine, after a commit.
func onWriter(t *testing.T, s *Store, f func()) {
	t.Helper()
	done := make(chan struct{})
	err := s.do(t.Context(), "test", func(_ context.Context, t *tx) error {
		t.then(func() {
			f()
			close(done)
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-done
}

// What is written while recent samples are still being read is not lost, corrections least of all.
func TestWritesWhileRebuilding(t *testing.T) {
	dir, c := t.TempDir(), newClock(noon())
	s := openFile(t, dir, testOptions(t, c))
	m := newMonitor(t, s, "one")
	for i := range 100 {
		put(t, s, sampleAt(m.Series, noon().Add(time.Duration(i)*time.Minute), sdk.Down))
	}
	flush(t, s)
	c.set(noon().Add(100 * time.Minute))
	maintain(t, s)
	// As after a start: the heads are empty, and a goroutine beside the writer fills them.
	onWriter(t, s, func() {
		s.rebuilt.Store(false)
		s.heads.remove(m.Series)
		s.heads.put(m.Series, &m)
	})
	late := sampleAt(m.Series, noon().Add(100*time.Minute), sdk.Up)
	put(t, s, late)
	correct := func(from, before time.Duration, to monitor.Condition) {
		t.Helper()
		err := s.Record(t.Context(), monitor.Transition{
			State: monitor.State{MonitorID: m.ID},
			Recount: &monitor.Recount{
				Series: m.Series, From: monitor.TickOf(noon().Add(from)), Before: monitor.TickOf(noon().Add(before)), Condition: to,
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	correct(50*time.Minute, 70*time.Minute, monitor.Up)
	if err := s.rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	late.Message = "the same tick again"
	put(t, s, late)
	correct(50*time.Minute, 100*time.Minute, monitor.Degraded)
	put(t, s, sampleAt(m.Series, noon().Add(101*time.Minute), sdk.Down))
	flush(t, s)
	onWriter(t, s, func() { s.adoptHeads(nil) })
	c.set(noon().Add(102 * time.Minute))
	for range 2 {
		up := uptime(t, s, &m, noon(), noon().Add(102*time.Minute))
		want := [4]time.Duration{0, time.Minute, 50 * time.Minute, 51 * time.Minute}
		if up.Held != want || up.Counts != [4]int64{0, 1, 0, 101} {
			t.Fatalf("%v %v, want %v", up.Counts, up.Held, want)
		}
		got, err := s.Samples(t.Context(), monitor.SampleQuery{Series: m.Series, From: noon().Add(99 * time.Minute)})
		if err != nil || len(got) != 3 || got[1].Message != "200 OK" {
			t.Fatalf("%+v, %v", got, err)
		}
		shut(t, s)
		s = openFile(t, dir, testOptions(t, c))
	}
}

func TestPruning(t *testing.T) {
	c := newClock(noon())
	opts := testOptions(t, c)
	opts.KeepLogLines, opts.KeepEvents, opts.KeepSamples, opts.KeepHours = 10, 10, 48*time.Hour, 96*time.Hour
	s := openFile(t, t.TempDir(), opts)
	ch := monitor.Channel{ID: "ch", Name: "ch"}
	if err := s.CreateChannel(t.Context(), &ch); err != nil {
		t.Fatal(err)
	}
	m := newMonitor(t, s, "one")
	for i := range 30 {
		s.AppendLog(monitor.LogLine{At: noon(), Message: fmt.Sprintf("line %d", i)})
		in := &monitor.Incident{ID: fmt.Sprintf("i%02d", i), MonitorID: m.ID, StartedAt: noon().Add(time.Duration(i) * time.Minute)}
		if i != 3 {
			in.EndedAt = in.StartedAt.Add(time.Second)
		}
		channels := []string{"ch"}
		if i%2 == 0 {
			channels = nil
		}
		err := s.Record(t.Context(), monitor.Transition{
			State: monitor.State{MonitorID: m.ID}, Incident: in, Channels: channels,
			Event: &monitor.Event{ID: fmt.Sprintf("e%02d", i), MonitorID: m.ID, IncidentID: in.ID, At: in.StartedAt, Kind: sdk.WentDown},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	due, err := s.Due(t.Context(), noon(), nil, 100)
	if err != nil || len(due) != 1 {
		t.Fatalf("%d due, %v", len(due), err)
	}
	const hours = 24 * 7
	for h := range hours {
		for k := range 4 {
			one := sampleAt(m.Series, noon().Add(time.Duration(h)*time.Hour+time.Duration(k)*15*time.Minute), sdk.Up)
			one.Message = fmt.Sprintf("day %d", h/24)
			put(t, s, one)
		}
	}
	flush(t, s)
	// Five pending ones are delivered; the rest keep their events.
	for range 5 {
		due, err := s.Due(t.Context(), noon(), nil, 100)
		if err != nil || len(due) != 1 {
			t.Fatalf("%d due, %v", len(due), err)
		}
		if err := s.Attempted(t.Context(), monitor.Attempt{NotificationID: due[0].ID, At: noon(), Outcome: monitor.Sent}); err != nil {
			t.Fatal(err)
		}
	}
	c.set(noon().Add(hours * time.Hour).Add(12 * time.Hour))
	maintain(t, s)
	maintain(t, s)
	for _, one := range []struct {
		what, query string
		want        int
	}{
		{"log lines", "SELECT count(*) FROM log_lines", 10},
		{"newest log line", "SELECT count(*) FROM log_lines WHERE message = 'line 29'", 1},
		{"newest events", "SELECT count(*) FROM events WHERE id >= 'e20'", 10},
		// 11, 13, 15, 17, 19 wait in the outbox; 3 belongs to an incident that is open.
		{"events that are kept", "SELECT count(*) FROM events WHERE id < 'e20'", 6},
		{"pending events", "SELECT count(*) FROM outbox WHERE done_at = 0", 10},
		{"delivered rows", "SELECT count(*) FROM outbox WHERE done_at <> 0", 0},
		{"hot rows", "SELECT count(*) FROM samples", 0},
		{"blocks", "SELECT count(*) FROM blocks", 36},
		{"hours", "SELECT count(*) FROM hours", 96 - 12},
		{"days", "SELECT count(*) FROM days", 8},
		{"samples of the days", "SELECT sum(c1) FROM days", 4 * hours},
		{"texts", "SELECT count(*) FROM texts", 2},
		{"damage", "SELECT count(*) FROM pragma_quick_check WHERE quick_check <> 'ok'", 0},
	} {
		if got := count(t, s, one.query); got != one.want {
			t.Errorf("%s: %d, want %d", one.what, got, one.want)
		}
	}
	got, err := s.Samples(t.Context(), monitor.SampleQuery{Series: m.Series})
	if err != nil || len(got) != 4*36 || got[0].Message != "day 5" || got[143].Message != "day 6" {
		t.Fatalf("%d samples, %+v, %v", len(got), got[0], err)
	}
	up := uptime(t, s, &m, noon(), noon().Add(hours*time.Hour))
	if up.Counts[sdk.Up] < 4*(hours-12) {
		t.Errorf("uptime of all days: %+v", up)
	}
}

func TestPruneNewest(t *testing.T) {
	c := newClock(noon())
	opts := testOptions(t, c)
	opts.KeepNewest = 100
	s := openFile(t, t.TempDir(), opts)
	one, two := newMonitor(t, s, "one"), newMonitor(t, s, "two")
	for i := range 60 * 5 {
		put(t, s, sampleAt(one.Series, noon().Add(time.Duration(i)*time.Minute), sdk.Up))
		if i%10 == 0 {
			put(t, s, sampleAt(two.Series, noon().Add(time.Duration(i)*time.Minute), sdk.Up))
		}
	}
	flush(t, s)
	c.set(noon().Add(5*time.Hour + 2*time.Minute))
	maintain(t, s)
	for series, want := range map[uint32]int{one.Series: 120, two.Series: 30} {
		got, err := s.Samples(t.Context(), monitor.SampleQuery{Series: series})
		if err != nil || len(got) != want {
			t.Errorf("series %d: %d samples, want %d; %v", series, len(got), want, err)
		}
	}
}

// The file shrinks after much has been deleted.
func TestVacuum(t *testing.T) {
	c := newClock(noon())
	opts := testOptions(t, c)
	opts.KeepLogLines = 10
	s := openFile(t, t.TempDir(), opts)
	for i := range 40000 {
		s.AppendLog(monitor.LogLine{At: noon(), Message: fmt.Sprintf("line %d with some text behind it so that it takes up room", i)})
		if i%400 == 0 {
			flush(t, s)
		}
	}
	flush(t, s)
	before := count(t, s, "PRAGMA page_count")
	maintain(t, s)
	after := count(t, s, "PRAGMA page_count")
	if after > before/2 {
		t.Errorf("%d pages before, %d after", before, after)
	}
}

func TestDeadSeries(t *testing.T) {
	c := newClock(noon())
	s := openFile(t, t.TempDir(), testOptions(t, c))
	gone, kept := newMonitor(t, s, "gone"), newMonitor(t, s, "kept")
	for i := range 600 {
		for _, series := range []uint32{gone.Series, kept.Series} {
			put(t, s, sampleAt(series, noon().Add(time.Duration(i)*time.Minute), sdk.Status(1+i%3)))
		}
	}
	flush(t, s)
	c.set(noon().Add(600 * time.Minute))
	maintain(t, s)
	if err := s.DeleteMonitor(t.Context(), gone.ID, nil); err != nil {
		t.Fatal(err)
	}
	c.set(noon().Add(800 * time.Minute))
	maintain(t, s)
	for _, table := range []string{"blocks", "hours", "days", "samples"} {
		if n := count(t, s, "SELECT count(*) FROM "+table+" WHERE id & 16777215 = ?", gone.Series); n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
		if n := count(t, s, "SELECT count(*) FROM "+table+" WHERE id & 16777215 = ?", kept.Series); n == 0 && table != "samples" {
			t.Errorf("%s of another series are gone", table)
		}
	}
	if n := count(t, s, "SELECT (SELECT count(*) FROM notes WHERE series = ?) + (SELECT count(*) FROM dead_series)", gone.Series); n != 0 {
		t.Errorf("%d other rows are left", n)
	}
}
