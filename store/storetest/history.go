package storetest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// near compares samples whose latency may be off by 0.5 %.
func near(t *testing.T, got, want []monitor.Sample) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	for i := range min(len(got), len(want)) {
		if d := got[i].Latency - want[i].Latency; d.Abs() <= want[i].Latency/200+time.Microsecond/2 {
			got[i].Latency = want[i].Latency
		}
	}
	same(t, got, want)
}

func testSamples(t *testing.T, b *bench) {
	ctx := t.Context()
	m, other := b.monitor(t, "one"), b.monitor(t, "other")
	start := b.now()
	var want []monitor.Sample
	for i := range 300 {
		s := sample(m.Series, start.Add(time.Duration(i)*time.Minute+time.Duration(i%7)*10*time.Millisecond), sdk.Up, "200 OK")
		s.Latency, s.Code = time.Duration(i*i*i)*time.Microsecond, uint16(i*200)
		if i%50 == 49 {
			s.Status, s.Condition, s.Message = sdk.Unknown, monitor.Pending, id("no file descriptor %d", i)
		}
		want = append(want, s)
		b.append(t, s, sample(other.Series, start.Add(time.Duration(i)*time.Minute), sdk.Down, "refused"))
	}
	twin := want[10]
	twin.Message, twin.Status = "another at the same tick", sdk.Down
	b.append(t, twin)
	b.flush(t)
	check := func() {
		t.Helper()
		got, err := b.Samples(ctx, monitor.SampleQuery{Series: m.Series})
		no(t, err)
		near(t, got, want)
		got, err = b.Samples(ctx, monitor.SampleQuery{Series: m.Series, From: want[70].Tick.Time(), To: want[200].Tick.Time()})
		no(t, err)
		near(t, got, want[70:200])
		var pages []monitor.Sample
		q := monitor.SampleQuery{Series: m.Series, From: start, Limit: 7}
		for range 100 {
			got, err := b.Samples(ctx, q)
			no(t, err)
			if len(got) == 0 {
				break
			}
			pages = append(pages, got...)
			q.After = got[len(got)-1].Tick
		}
		near(t, pages, want)
		got, err = b.Samples(ctx, monitor.SampleQuery{Series: m.Series, From: start.Add(24 * time.Hour)})
		no(t, err)
		near(t, got, nil)
		got, err = b.Samples(ctx, monitor.SampleQuery{Series: 99})
		no(t, err)
		near(t, got, nil)
		last, err := b.Last(ctx)
		no(t, err)
		near(t, []monitor.Sample{last[m.Series]}, want[299:])
		same(t, last[other.Series].Message, "refused")
	}
	check()
	b.set(start.Add(150 * time.Minute))
	b.maintain(t)
	check()
	b.restart(t)
	check()
	b.set(start.Add(30 * time.Hour))
	b.maintain(t)
	check()
	b.restart(t)
	check()
}

func testMessages(t *testing.T, b *bench) {
	ctx := t.Context()
	m := b.monitor(t, "one")
	at := b.now()
	texts := []string{"", "", "ok", "ok", "", "bad: ü\u0000\x01\nline", "ok", "bad: ü line", "ok"}
	var want []string
	for i, text := range texts {
		b.append(t, sample(m.Series, at.Add(time.Duration(i)*time.Minute), sdk.Up, text))
		want = append(want, sdk.CleanText(text, 1024))
		if i%3 == 0 {
			b.flush(t)
		}
	}
	// An older sample between two that share a text leaves theirs alone.
	b.flush(t)
	b.append(t, sample(m.Series, at.Add(150*time.Second), sdk.Up, "late"))
	want = slices.Insert(want, 3, "late")
	b.flush(t)
	for range 3 {
		got, err := b.Samples(ctx, monitor.SampleQuery{Series: m.Series})
		no(t, err)
		for i := range got {
			if got[i].Message != want[i] {
				t.Fatalf("message %d is %q, want %q", i, got[i].Message, want[i])
			}
			one, err := b.Samples(ctx, monitor.SampleQuery{Series: m.Series, From: got[i].Tick.Time(), Limit: 1})
			no(t, err)
			same(t, one[0].Message, want[i])
		}
		same(t, len(got), len(want))
		b.restart(t)
		b.set(at.Add(3 * time.Hour))
		b.maintain(t)
	}
}

func testBars(t *testing.T, b *bench) {
	ctx := t.Context()
	for _, step := range []time.Duration{10 * time.Second, time.Minute, 11 * time.Minute, 5 * time.Hour} {
		m := b.monitor(t, step.String(), func(m *monitor.Monitor) { m.Interval = step })
		start := b.now()
		var want []monitor.Bar
		for i := range 90 {
			at := start.Add(time.Duration(i) * step)
			s := sample(m.Series, at, sdk.Status(i%4), "x")
			s.Latency = 50 * time.Microsecond
			b.append(t, s)
			want = append(want, monitor.Bar{At: at, Status: s.Status, Condition: s.Condition, Latency: s.Latency})
			b.set(at)
			if i%13 != 0 {
				continue
			}
			if i%2 == 0 {
				b.restart(t)
			} else {
				b.maintain(t)
			}
			got, err := b.Bars(ctx, []uint32{m.Series, 99})
			no(t, err)
			same(t, got, map[uint32][]monitor.Bar{m.Series: want[max(0, len(want)-60):]})
		}
	}
}

// model is the plain program: every sample of a series, and how long one stands.
type model struct {
	samples []monitor.Sample
	hold    time.Duration
}

// sum is what a range amounts to, as the design words it.
func (m *model) sum(from, to, now time.Time) (counts [4]int64, held [4]time.Duration) {
	if to.After(now) {
		to = now
	}
	for i, s := range m.samples {
		at := s.Tick.Time()
		if !at.Before(from) && at.Before(to) {
			if s.Status != sdk.Unknown || s.Condition != monitor.Paused { // that one is no result: it marks a pause
				counts[s.Status]++
			}
		}
		end := at.Add(m.hold)
		if i+1 < len(m.samples) && m.samples[i+1].Tick.Time().Before(end) {
			end = m.samples[i+1].Tick.Time()
		}
		if at.Before(from) {
			at = from
		}
		if end.After(to) {
			end = to
		}
		if !end.After(at) {
			continue
		}
		bucket := 0
		if s.Status != sdk.Unknown && s.Condition <= monitor.Down {
			bucket = int(s.Condition)
		}
		held[bucket] += end.Sub(at)
	}
	return counts, held
}

func (m *model) recount(r monitor.Recount) {
	for i := range m.samples {
		if s := &m.samples[i]; s.Tick >= r.From && s.Tick < r.Before {
			s.Condition = r.Condition
		}
	}
}

func testSums(t *testing.T, b *bench)     { walkSums(t, b, 0) }
func testRecounts(t *testing.T, b *bench) { walkSums(t, b, 3) }

// walkSums lets days pass with samples, gaps, sealing, restarts and, one in recounts steps, corrections, and compares ranges of
// all sorts with the model.
func walkSums(t *testing.T, b *bench, recounts int) {
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(7, uint64(recounts)))
	intervals := []time.Duration{time.Minute, 17 * time.Minute, 4 * time.Hour}
	models := make([]model, len(intervals))
	monitors := make([]monitor.Monitor, len(intervals))
	next := make([]time.Time, len(intervals))
	start := b.now().Add(-1234567 * time.Millisecond)
	b.set(start)
	for i, step := range intervals {
		monitors[i] = b.monitor(t, step.String(), func(m *monitor.Monitor) { m.Interval = step })
		models[i].hold = monitors[i].Hold()
		next[i] = start.Add(step / 3)
	}
	for round := range 24 {
		// The clock follows the samples, or hours would be sealed before theirs have come in.
		now := b.now().Add(time.Duration(rng.Int64N(4*3600*1000)) * time.Millisecond)
		for i, step := range intervals {
			for ; next[i].Before(now); next[i] = next[i].Add(step + time.Duration(rng.IntN(5))*10*time.Millisecond) {
				if rng.IntN(20) == 0 {
					next[i] = next[i].Add(time.Duration(rng.IntN(6)) * step) // a gap
					continue
				}
				s := sample(monitors[i].Series, next[i], sdk.Status(rng.IntN(4)), "")
				s.Condition = monitor.Condition(rng.IntN(7))
				models[i].samples = append(models[i].samples, s)
				b.append(t, s)
			}
			if n := len(models[i].samples); recounts > 0 && n > 0 && rng.IntN(recounts) == 0 {
				// What is queued is seen as well: nothing is flushed before.
				first := rng.IntN(n)
				r := monitor.Recount{
					Series: monitors[i].Series, From: models[i].samples[first].Tick, Condition: monitor.Condition(rng.IntN(4)),
					Before: models[i].samples[first].Tick + monitor.Tick(rng.Int64N(int64(10*step/monitor.TickLength))),
				}
				models[i].recount(r)
				no(t, b.Record(ctx, monitor.Transition{State: monitor.State{MonitorID: monitors[i].ID}, Recount: &r}))
			}
		}
		b.flush(t)
		b.set(now)
		switch rng.IntN(4) {
		case 0:
			b.maintain(t)
		case 1:
			b.restart(t)
		case 2:
			b.maintain(t)
			b.restart(t)
		}
		for i := range models {
			compareSums(t, b, &models[i], &monitors[i], start)
			bars, err := b.Bars(ctx, []uint32{monitors[i].Series})
			no(t, err)
			var want []monitor.Condition
			for _, s := range models[i].samples[max(0, len(models[i].samples)-60):] {
				want = append(want, s.Condition)
			}
			var got []monitor.Condition
			for _, bar := range bars[monitors[i].Series] {
				got = append(got, bar.Condition)
			}
			same(t, got, want)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

func compareSums(t *testing.T, b *bench, md *model, m *monitor.Monitor, start time.Time) {
	t.Helper()
	ctx := t.Context()
	now := b.now()
	for _, r := range [][2]time.Time{
		{start, now},
		{now.Add(-time.Hour), now},
		{now.Add(-24 * time.Hour), now},
		{start.Truncate(24 * time.Hour), now.Add(time.Hour)},
		{start.Add(12345 * time.Second), now.Add(-777 * time.Second)},
		{now.Truncate(time.Hour), now},
		{time.UnixMilli(0), now},
	} {
		if !r[0].Before(r[1]) {
			continue
		}
		up, err := b.Uptime(ctx, monitor.UptimeQuery{MonitorID: m.ID, Series: m.Series, From: r[0], To: r[1], Quantiles: true})
		no(t, err)
		counts, held := md.sum(r[0], r[1], now)
		if up.Counts != counts || up.Held != held {
			t.Errorf("%s, %v to %v at %v:\ngot  %v %v\nwant %v %v", m.Name, r[0], r[1], now, up.Counts, up.Held, counts, held)
		}
		if n := counts[sdk.Up] + counts[sdk.Degraded]; up.Latency.Count != n || n > 0 && (up.Latency.P50 == 0 || up.Latency.Min == 0) {
			t.Errorf("%s: latency %+v of %d samples", m.Name, up.Latency, n)
		}
	}
	for _, step := range []time.Duration{7 * time.Minute, time.Hour, 24 * time.Hour} {
		from := now.Add(-30 * step)
		if step >= time.Hour {
			from = from.Truncate(step)
		}
		buckets, err := b.Buckets(ctx, monitor.BucketQuery{Series: m.Series, From: from, To: now, Step: step})
		no(t, err)
		at := from
		for _, got := range buckets {
			end := at.Add(step)
			if end.After(now) {
				end = now
			}
			counts, held := md.sum(at, end, now)
			if !got.From.Equal(at) || !got.To.Equal(end) || got.Counts != counts || got.Held != held {
				t.Errorf("%s, bucket %v to %v of %v at %v:\ngot  %v %v\nwant %v %v",
					m.Name, at, end, step, now, got.Counts, got.Held, counts, held)
			}
			at = end
		}
		if !at.Equal(now) {
			t.Errorf("buckets of %v end at %v, want %v", step, at, now)
		}
	}
}
