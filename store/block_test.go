package store

import (
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

func genPoints(t *rapid.T) []point {
	steps := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(1, 10), rapid.Int64Range(1, ticksPerHour/10), rapid.Just(int64(6000))), 1, 200).Draw(t, "steps")
	tick := monitor.Tick(rapid.Int64Range(0, int64(monitor.MaxTick)/2).Draw(t, "first"))
	points := make([]point, len(steps))
	for i, step := range steps {
		tick += monitor.Tick(step)
		points[i] = point{
			tick: tick, state: uint32(rapid.OneOf(rapid.IntRange(0, 1<<21-1), rapid.IntRange(0, 3)).Draw(t, "state")),
			latency: uint16(rapid.IntRange(0, scaleSize-1).Draw(t, "latency")),
		}
	}
	return points
}

func TestBlockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := genPoints(t)
		h := blockHead{
			interval: uint32(rapid.IntRange(0, 8640000).Draw(t, "interval")), hold: rapid.Int64Range(0, 1<<40).Draw(t, "hold"),
			carry: carry{until: rapid.Int64Range(0, 1<<40).Draw(t, "until"), bucket: uint8(rapid.IntRange(0, 3).Draw(t, "bucket"))},
		}
		enc := encodePoints(points, h.interval)
		if got := enc.points(nil); !slices.Equal(got, points) {
			t.Fatalf("encoder: got %v, want %v", got, points)
		}
		if enc.newest() != points[len(points)-1] {
			t.Fatalf("newest %v", enc.newest())
		}
		data := enc.seal(h)
		got, head, err := decodeBlock(nil, data)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, points) || head != h {
			t.Fatalf("got %v %v, want %v %v", head, got, h, points)
		}
		// Any flipped bit is found.
		at := rapid.IntRange(0, len(data)*8-1).Draw(t, "bit")
		data[at/8] ^= 1 << (at % 8)
		if _, _, err := decodeBlock(nil, data); !errors.Is(err, errBlock) {
			t.Fatalf("a flipped bit was not found: %v", err)
		}
	})
}

// reseal puts the right checksum behind a block's body, so that the decoder is tried and not only the checksum.
func reseal(body []byte) []byte {
	sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
	return append(slices.Clone(body), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
}

func FuzzDecodeBlock(f *testing.F) {
	e := encodePoints([]point{{1, 2, 3}, {5, 2, 9}, {9, 7, 9}}, 4)
	block := e.seal(blockHead{interval: 4, hold: 7})
	f.Add(block[:len(block)-4])
	f.Add([]byte{1, 0, 0, 0, 0, 0, 255, 255, 255, 127, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, _, err := decodeBlock(nil, body); err == nil && len(body) < 5 {
			t.Fatal("bytes without a checksum were taken")
		}
		points, h, err := decodeBlock(nil, reseal(body))
		if err != nil {
			if !errors.Is(err, errBlock) || len(points) != 0 {
				t.Fatalf("%d points, %v", len(points), err)
			}
			return
		}
		if cap(points) > 4*len(body)+16 {
			t.Fatalf("%d bytes took room for %d points", len(body), cap(points))
		}
		again := encodePoints(points, h.interval)
		back, hb, err := decodeBlock(nil, again.seal(h))
		if err != nil || hb != h || !slices.Equal(back, points) {
			t.Fatalf("what was decoded does not encode to the same: %v", err)
		}
	})
}

func TestBlockRefuses(t *testing.T) {
	for name, body := range map[string][]byte{
		"nothing":          {},
		"version":          {2, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0},
		"no samples":       {1, 0, 0, 0, 0, 0, 0, 0},
		"many samples":     {1, 0, 0, 0, 0, 0, 0xff, 0xff, 0x03, 1, 0, 0xff, 0xff, 0x03, 0},
		"runs too short":   {1, 6, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0, 0},
		"runs alike":       {1, 6, 0, 0, 0, 0, 2, 2, 0, 1, 0, 1, 0, 0, 0},
		"time backwards":   {1, 6, 0, 0, 0, 0, 2, 1, 0, 2, 0, 11, 0},
		"latency negative": {1, 6, 0, 0, 0, 0, 1, 1, 0, 1, 1},
		"bytes behind":     {1, 6, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0},
		"cut":              {1, 6, 0, 0, 0, 0, 2, 1, 0, 2, 0, 0},
		"carry":            {1, 6, 0, 4, 0, 0, 1, 1, 0, 1, 0},
	} {
		if _, _, err := decodeBlock(nil, reseal(body)); !errors.Is(err, errBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := decodeBlock(nil, reseal([]byte{1, 6, 0, 0, 0, 0, 1, 1, 0, 1, 0})); err != nil {
		t.Errorf("the smallest block: %v", err)
	}
}

// noisyHour is an hour as a real target gives it: starts a few ms late, latencies that scatter by a tenth.
func noisyHour(interval time.Duration, seed uint64) []point {
	rng, sc := rand.New(rand.NewPCG(seed, 1)), newScale()
	var points []point
	for at := noon(); at.Before(noon().Add(time.Hour)); at = at.Add(interval) {
		late := time.Duration(rng.ExpFloat64() * float64(4*time.Millisecond))
		latency := time.Duration(float64(40*time.Millisecond) * (1 + rng.NormFloat64()/10))
		points = append(points, point{
			tick: monitor.TickOf(at.Add(late)), state: packState(1, monitor.Up, 200), latency: sc.index(latency),
		})
	}
	return points
}

func TestBlockSize(t *testing.T) {
	for _, interval := range []time.Duration{time.Minute, 10 * time.Second} {
		points := noisyHour(interval, 3)
		enc := encodePoints(points, ticksOf(interval))
		size := len(enc.seal(blockHead{interval: ticksOf(interval), hold: 130_000, carry: carry{60_000, 1}}))
		each := float64(size) / float64(len(points))
		t.Logf("%v: %d samples in %d bytes, %.2f each", interval, len(points), size, each)
		if each > 3 {
			t.Errorf("%v: %.2f bytes a sample, want at most 3", interval, each)
		}
	}
}

func TestScale(t *testing.T) {
	sc := newScale()
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.OneOf(rapid.Int64Range(0, 200), rapid.Int64Range(0, maxLatencyUS)).Draw(t, "us")
		got := sc.us(sc.index(microseconds(us)))
		if diff := max(got-us, us-got); float64(diff) > float64(us)*scaleAccuracy+0.5 {
			t.Fatalf("%d µs reads as %d", us, got)
		}
		if us < 100 && got != us {
			t.Fatalf("%d µs reads as %d", us, got)
		}
	})
	for _, latency := range []time.Duration{-time.Second, 0, 999, 1 << 62} {
		if i := sc.index(latency); int(i) >= scaleSize || latency < time.Microsecond && i != 0 {
			t.Errorf("index of %v is %d", latency, i)
		}
	}
}

func TestHeadTakesAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hd := &head{interval: 6000}
		want := make(map[monitor.Tick]point)
		for range rapid.IntRange(1, 100).Draw(t, "n") {
			p := point{
				tick: monitor.Tick(rapid.Int64Range(0, 3*ticksPerHour).Draw(t, "tick")), state: uint32(rapid.IntRange(0, 31).Draw(t, "state")),
			}
			_, there := want[p.tick]
			if hd.appendOne(p) == there {
				t.Fatalf("tick %d was there: %v", p.tick, there)
			}
			if !there {
				want[p.tick] = p
			}
		}
		var sorted []point
		for _, p := range want {
			sorted = append(sorted, p)
		}
		slices.SortFunc(sorted, func(a, b point) int { return comparePoint(a, b.tick) })
		if d := cmp.Diff(sorted, hd.points(nil), cmp.AllowUnexported(point{})); d != "" {
			t.Fatal(d)
		}
		if bar := hd.bar(nil); !slices.Equal(bar, sorted[max(0, len(sorted)-barLength):]) {
			t.Fatalf("bar %v of %v", bar, sorted)
		}
		if p, ok := hd.newest(); !ok || p != sorted[len(sorted)-1] || hd.last != p.tick {
			t.Fatalf("newest %v", p)
		}
		from := monitor.Tick(rapid.Int64Range(0, 3*ticksPerHour).Draw(t, "from"))
		hd.recount(from, from+ticksPerHour, monitor.Maintenance)
		recounted(sorted, from, from+ticksPerHour, monitor.Maintenance)
		if !slices.Equal(hd.points(nil), sorted) {
			t.Fatal("recount")
		}
	})
}
