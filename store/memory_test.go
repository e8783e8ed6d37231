package store

import (
	"runtime"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

func TestMemoryOfASeries(t *testing.T) {
	for _, c := range []struct {
		interval time.Duration
		most     int
	}{{time.Minute, 1024}, {10 * time.Second, 1229}} {
		const series = 5000
		m := &monitor.Monitor{Interval: c.interval, Timeout: time.Second}
		points := noisyHour(c.interval, 5)
		before := heap()
		h := newHeads()
		for i := range uint32(series) {
			h.put(i+1, m)
			h.update(i+1, func(hd *head) {
				for _, p := range points {
					p.tick -= ticksPerHour
					hd.appendOne(p)
				}
				hd.rollOver(hd.spans[0].hour, carry{})
				for _, p := range points {
					hd.appendOne(p)
				}
			})
		}
		each := (heap() - before) / series
		runtime.KeepAlive(h)
		t.Logf("%v: %d bytes a series at the end of an hour", c.interval, each)
		if each > c.most {
			t.Errorf("%v: %d bytes a series, want at most %d", c.interval, each, c.most)
		}
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
