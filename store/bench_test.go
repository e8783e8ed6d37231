package store

import (
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// BenchmarkAppend measures rows through the queue, the writer and the heads.
func BenchmarkAppend(b *testing.B) {
	start := noon()
	c := newClock(start)
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "b.db"), Options{Plain: true, Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(b.Context())
	const series = 20000
	m := &monitor.Monitor{Interval: 10 * time.Second, Timeout: time.Second}
	for i := range uint32(series) {
		s.heads.put(i+1, m)
	}
	<-s.ready
	b.ResetTimer()
	for i := range b.N {
		one := monitor.Sample{
			Series: uint32(i%series) + 1, Tick: monitor.TickOf(start.Add(time.Duration(i) * 500 * time.Microsecond)), Status: sdk.Up, Condition: monitor.Up,
			Code: 200, Latency: time.Duration(1000+i%977) * time.Microsecond, Message: "200 OK",
		}
		for !s.Append(one) {
			runtime.Gosched()
		}
	}
	for s.stats.stored.Load() < int64(b.N) {
		runtime.Gosched()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.Logf("%+v", s.Stats())
}

// BenchmarkRecord measures transitions written by 32 goroutines at once.
func BenchmarkRecord(b *testing.B) {
	c := newClock(noon())
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "b.db"), Options{Plain: true, Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(b.Context())
	m := &monitor.Monitor{ID: "m", Name: "m", Interval: time.Minute}
	if err := s.CreateMonitor(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := strconv.FormatInt(next.Add(1), 10)
			err := s.Record(b.Context(), monitor.Transition{
				State:    monitor.State{MonitorID: "m", Condition: monitor.Down},
				Incident: &monitor.Incident{ID: id, MonitorID: "m", StartedAt: noon()},
				Event:    &monitor.Event{ID: id, MonitorID: "m", Kind: sdk.WentDown, At: noon()},
			})
			if err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transitions/s")
}

// BenchmarkHour writes an hour of many series at 60 s, seals it, and reads bars and sums of a thousand.
func BenchmarkHour(b *testing.B) {
	const series, hours = 10000, 3
	for range b.N {
		c := newClock(noon())
		s, err := Open(b.Context(), filepath.Join(b.TempDir(), "b.db"), Options{Plain: true, Now: c.now})
		if err != nil {
			b.Fatal(err)
		}
		<-s.ready
		m := &monitor.Monitor{Interval: time.Minute, Timeout: time.Second}
		for i := range uint32(series) {
			s.heads.put(i+1, m)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for k := range 60 * hours {
			for i := range uint32(series) {
				one := monitor.Sample{
					Series: i + 1, Status: sdk.Up, Condition: monitor.Up, Code: 200, Message: "200 OK",
					Tick:    monitor.TickOf(noon().Add(time.Duration(k)*time.Minute + time.Duration(i)*6*time.Millisecond + time.Duration(rng.ExpFloat64()*4e6))),
					Latency: time.Duration(4e7 * (1 + rng.NormFloat64()/10)),
				}
				for !s.Append(one) {
					runtime.Gosched()
				}
			}
			if k%60 == 59 {
				for s.stats.stored.Load() < int64(series*(k+1)) {
					runtime.Gosched()
				}
				c.set(noon().Add(time.Duration(k+1)*time.Minute + 2*time.Minute))
				if err := s.Maintain(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		}
		var pages, free int64
		if err := s.read.QueryRowContext(b.Context(), "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)").Scan(&pages, &free); err != nil {
			b.Fatal(err)
		}
		st := s.Stats()
		b.ReportMetric(float64((pages-free)*4096)/(series*60*hours), "B/sample")
		b.ReportMetric(float64(st.SealMax.Microseconds())/1000, "ms/longest-slice")
		b.ReportMetric(float64(st.SealTime.Microseconds())/1000/hours, "ms/hour-sealed")
		ids := make([]uint32, 1000)
		for i := range ids {
			ids[i] = uint32(i + 1)
		}
		began := time.Now()
		if _, err := s.Bars(b.Context(), ids); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/1000, "ms/1000-bars")
		began = time.Now()
		for _, id := range ids[:100] {
			if _, err := s.Uptime(b.Context(), monitor.UptimeQuery{Series: id, From: noon(), To: c.now()}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/1000*10, "ms/1000-uptimes")
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.Logf("%+v", st)
	}
}
