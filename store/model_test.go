package store

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// timeline is what a monitor went through, kept the simple way.
type timeline struct {
	hold    time.Duration
	samples []monitor.Sample
}

// held sums the time of each condition between two times, up to now.
func (l *timeline) held(from, to, now time.Time) (sum [4]time.Duration) {
	if to.After(now) {
		to = now
	}
	for i, x := range l.samples {
		begin, end := x.Tick.Time(), x.Tick.Time().Add(l.hold)
		if i+1 < len(l.samples) && l.samples[i+1].Tick.Time().Before(end) {
			end = l.samples[i+1].Tick.Time()
		}
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		bucket := 0
		if x.Condition <= monitor.Down {
			bucket = int(x.Condition)
		}
		if end.After(begin) {
			sum[bucket] += end.Sub(begin)
		}
	}
	return sum
}

// TestUptimeModel lets months go by with gaps, corrections, sealing and restarts, and holds the uptime of random ranges to
// a sum over all samples.
func TestUptimeModel(t *testing.T) {
	for seed := range uint64(9) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { liveThrough(t, seed) })
	}
}

func liveThrough(t *testing.T, seed uint64) {
	chance := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // chance, no secret
	among := func(d time.Duration) time.Duration { return time.Duration(chance.Int64N(int64(d))) }
	now := noon()
	begin := now
	c := newClock(now)
	dir, opts := t.TempDir(), testOptions(t, c)
	opts.KeepSamples, opts.KeepHours = 20*365*24*time.Hour, 20*365*24*time.Hour
	s := openFile(t, dir, opts)
	m := monitor.Monitor{
		ID: "x", Name: "x", Kind: "http", Timeout: 10 * time.Second, RetryInterval: 10 * time.Second,
		Interval: []time.Duration{time.Minute, 40 * time.Minute, 6 * time.Hour}[seed%3],
	}
	if err := s.CreateMonitor(t.Context(), &m); err != nil {
		t.Fatal(err)
	}
	line := timeline{hold: m.Hold()}
	conditions := []monitor.Condition{monitor.Up, monitor.Down, monitor.Degraded, monitor.Paused}
	for step := range 150 {
		gap := m.Interval/2 + among(m.Interval)
		if chance.IntN(15) == 0 {
			gap = time.Hour + among(5*m.Interval)
		}
		now = now.Add(gap).Truncate(monitor.TickLength)
		c.set(now)
		x := monitor.Sample{
			Series: m.Series, Tick: monitor.TickOf(now), Status: sdk.Up, Condition: conditions[chance.IntN(4)], Latency: time.Millisecond,
		}
		line.samples = append(line.samples, x)
		put(t, s, x)
		// A must write comes after every sample that was appended before it.
		if err := s.Record(t.Context(), monitor.Transition{State: monitor.State{MonitorID: m.ID}}); err != nil {
			t.Fatal(err)
		}
		switch op := chance.IntN(40); {
		case op < 4:
			maintain(t, s)
		case op < 8:
			recountBoth(t, s, &line, chance)
		case op < 9:
			shut(t, s)
			s = openFile(t, dir, opts)
		case op < 10:
			now = now.Add(among(80 * time.Hour)).Truncate(monitor.TickLength)
			c.set(now)
			maintain(t, s)
		default:
			if step%10 != 0 {
				continue
			}
		}
		for range 6 {
			span := now.Sub(begin) + time.Hour
			from := begin.Add(among(span) - 30*time.Minute).Truncate(time.Millisecond)
			to := from.Add(among(span) + time.Millisecond).Truncate(time.Millisecond)
			if chance.IntN(3) == 0 {
				from, to = from.Truncate(time.Hour), to.Truncate(time.Hour).Add(time.Hour)
			}
			got, err := s.Uptime(t.Context(), monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: from, To: to})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(line.held(from, to, now), got.Held); diff != "" {
				t.Fatalf("step %d, interval %s, from %s to %s, now %s: -model +store\n%s", step, m.Interval, from, to, now, diff)
			}
		}
	}
}

// recountBoth gives some of the newest samples another condition, in the store and in the model.
func recountBoth(t *testing.T, s *Store, line *timeline, chance *rand.Rand) {
	t.Helper()
	newest := len(line.samples) - 1
	r := monitor.Recount{
		Series: line.samples[0].Series, From: line.samples[newest-chance.IntN(min(newest+1, 10))].Tick, Before: line.samples[newest].Tick,
		Condition: monitor.Condition(1 + chance.IntN(3)), //nolint:gosec // 1 to 3
	}
	for i := range line.samples {
		if x := &line.samples[i]; x.Tick >= r.From && x.Tick < r.Before {
			x.Condition = r.Condition
		}
	}
	if err := s.Record(t.Context(), monitor.Transition{State: monitor.State{MonitorID: "x"}, Recount: &r}); err != nil {
		t.Fatal(err)
	}
}
