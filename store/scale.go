package store

import (
	"math"
	"time"
)

// Latencies are kept as indexes of a logarithmic scale: index 0 is no latency, index i stands for
// [gamma^(i-1), gamma^i) microseconds and reads as a value at most 0.5 % off any of them. It is the scale of a DDSketch with a
// relative accuracy of 0.5 % ("DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
// Masson, Rim and Lee, VLDB 2019), so that a sketch of an hour can be computed from its block.
const (
	scaleAccuracy = 0.005
	scaleGamma    = (1 + scaleAccuracy) / (1 - scaleAccuracy)
	maxLatencyUS  = 1<<40 - 1
	scaleSize     = 2774 // the index of maxLatencyUS, and one
)

// scale maps latencies to indexes and back. It never changes once made and is shared by all goroutines.
type scale struct {
	multiplier float64
	values     [scaleSize]int64 // µs
}

func newScale() *scale {
	s := &scale{multiplier: 1 / math.Log(scaleGamma)}
	for i := 1; i < scaleSize; i++ {
		v := math.Exp(float64(i-1)/s.multiplier) * (1 + scaleAccuracy)
		s.values[i] = min(int64(math.Round(v)), maxLatencyUS)
	}
	return s
}

// index returns the index of a latency. Below 1 µs it is 0; what is above 40 bits of µs takes the last one.
func (s *scale) index(latency time.Duration) uint16 {
	us := latency.Microseconds()
	if us <= 0 {
		return 0
	}
	i := 1 + int(math.Log(float64(min(us, maxLatencyUS)))*s.multiplier)
	return uint16(min(i, scaleSize-1))
}

// us returns the microseconds that an index stands for; an index beyond the scale is its last.
func (s *scale) us(index uint16) int64 { return s.values[min(int(index), scaleSize-1)] }

// latency returns what an index stands for.
func (s *scale) latency(index uint16) time.Duration {
	return time.Duration(s.us(index)) * time.Microsecond
}
