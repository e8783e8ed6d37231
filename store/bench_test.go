package store

import (
	"path/filepath"
	"runtime"
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
