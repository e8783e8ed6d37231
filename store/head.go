package store

import (
	"slices"
	"sync"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// barLength is how many samples a bar has.
const barLength = 60

// span is the part of a head that falls into one hour, encoded as the block that it will become.
type span struct {
	encoder
	hour uint32
}

// head is what memory keeps of one series: every sample that is not sealed yet, nearly always of the current hour alone, and
// as many of those before as a bar needs. The writer changes heads once it has committed; readers copy what they need.
type head struct {
	spans    []span // ascending by hour
	tail     []byte // a block of at most barLength points from before the spans; nil: none, or not read yet
	last     monitor.Tick
	text     int64 // id of the newest note's text; 0: the empty text
	carry    carry // into the first hour that is not sealed
	hold     int64 // ms
	interval uint32
	sealed   uint32 // every hour below is sealed for this series; see also history.sealed
	whole    bool   // tail holds all that a bar can use
}

// headShards is how many locks the heads share. A reader of a thousand bars holds each for its part only.
const headShards = 64

type headShard struct {
	mu    sync.RWMutex
	heads map[uint32]*head
}

// heads is the set of all heads by series.
type heads struct {
	shards [headShards]headShard
}

func newHeads() *heads {
	h := &heads{}
	for i := range h.shards {
		h.shards[i].heads = make(map[uint32]*head)
	}
	return h
}

func (h *heads) shard(series uint32) *headShard { return &h.shards[series%headShards] }

// put makes the head of a series if there is none and sets what its monitor says.
func (h *heads) put(series uint32, m *monitor.Monitor) {
	sh := h.shard(series)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	hd := sh.heads[series]
	if hd == nil {
		hd = &head{}
		sh.heads[series] = hd
	}
	hd.hold, hd.interval = millis(m.Hold()), ticksOf(m.Interval)
}

func (h *heads) remove(series uint32) {
	sh := h.shard(series)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.heads, series)
}

// update calls f with the head of a series under its lock and reports whether there is one.
func (h *heads) update(series uint32, f func(*head)) bool {
	sh := h.shard(series)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	hd := sh.heads[series]
	if hd == nil {
		return false
	}
	f(hd)
	return true
}

// read calls f with the head of a series under its read lock and reports whether there is one. f must not change it.
func (h *heads) read(series uint32, f func(*head)) bool {
	sh := h.shard(series)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	hd := sh.heads[series]
	if hd == nil {
		return false
	}
	f(hd)
	return true
}

// each calls f for every head under its read lock, in no order.
func (h *heads) each(f func(series uint32, hd *head)) {
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.RLock()
		for series, hd := range sh.heads {
			f(series, hd)
		}
		sh.mu.RUnlock()
	}
}

// len returns the number of heads.
func (h *heads) len() int {
	n := 0
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.RLock()
		n += len(sh.heads)
		sh.mu.RUnlock()
	}
	return n
}

// appendOne adds a point to the span of its hour. A tick that is there already is left as it is; false says so.
func (hd *head) appendOne(p point) bool {
	hour := hourOf(p.tick)
	n := len(hd.spans)
	if n > 0 && hd.spans[n-1].hour == hour && p.tick > hd.spans[n-1].last {
		hd.spans[n-1].append(p, hd.interval)
		hd.last = max(hd.last, p.tick)
		return true
	}
	i, found := slices.BinarySearchFunc(hd.spans, hour, func(s span, hour uint32) int { return int(s.hour) - int(hour) })
	if !found {
		if n == cap(hd.spans) {
			grown := make([]span, n, n+1)
			copy(grown, hd.spans)
			hd.spans = grown
		}
		hd.spans = slices.Insert(hd.spans, i, span{hour: hour})
	}
	sp := &hd.spans[i]
	hd.last = max(hd.last, p.tick)
	if sp.count == 0 || p.tick > sp.last {
		sp.append(p, hd.interval)
		return true
	}
	points := sp.points(nil)
	at, there := slices.BinarySearchFunc(points, p.tick, comparePoint)
	if there {
		return false
	}
	sp.encoder = encodePoints(slices.Insert(points, at, p), hd.interval)
	return true
}

func comparePoint(p point, t monitor.Tick) int {
	switch {
	case p.tick < t:
		return -1
	case p.tick > t:
		return 1
	}
	return 0
}

// points returns every point that is not sealed.
func (hd *head) points(dst []point) []point {
	for i := range hd.spans {
		dst = hd.spans[i].points(dst)
	}
	return dst
}

// newest returns the newest point that memory has, and false when it has none.
func (hd *head) newest() (point, bool) {
	if n := len(hd.spans); n > 0 {
		return hd.spans[n-1].newest(), true
	}
	points := hd.tailPoints(nil)
	if len(points) == 0 {
		return point{}, false
	}
	return points[len(points)-1], true
}

// tailPoints appends the points of the tail to dst.
func (hd *head) tailPoints(dst []point) []point {
	if hd.tail == nil {
		return dst
	}
	dst, _, err := decodeBlock(dst, hd.tail)
	if err != nil {
		// The bytes were written by setTail and never left memory.
		panic("store: a tail does not decode: " + err.Error())
	}
	return dst
}

// setTail keeps the newest of the points as the tail.
func (hd *head) setTail(points []point) {
	points = points[max(0, len(points)-barLength):]
	if len(points) == 0 {
		hd.tail = nil
		return
	}
	enc := encodePoints(points, hd.interval)
	sealed := enc.seal(blockHead{interval: hd.interval})
	hd.tail = make([]byte, len(sealed))
	copy(hd.tail, sealed)
	if len(points) == barLength {
		hd.whole = true
	}
}

// bar returns the newest points, at most barLength of them, oldest first.
func (hd *head) bar(scratch []point) []point {
	have := 0
	for i := range hd.spans {
		have += int(hd.spans[i].count)
	}
	out := scratch[:0]
	if have < barLength {
		out = hd.tailPoints(out)
	}
	from := len(hd.spans)
	for have := 0; from > 0 && have < barLength; {
		from--
		have += int(hd.spans[from].count)
	}
	for i := from; i < len(hd.spans); i++ {
		out = hd.spans[i].points(out)
	}
	return out[max(0, len(out)-barLength):]
}

// recount gives the points with from <= tick < before another condition, in the spans and in the tail.
func (hd *head) recount(from, before monitor.Tick, c monitor.Condition) {
	for i := range hd.spans {
		sp := &hd.spans[i]
		if sp.count == 0 || sp.last < from || sp.first >= before {
			continue
		}
		sp.encoder = encodePoints(recounted(sp.points(nil), from, before, c), hd.interval)
	}
	if tail := hd.tailPoints(nil); len(tail) > 0 && tail[len(tail)-1].tick >= from && tail[0].tick < before {
		hd.setTail(recounted(tail, from, before, c))
		hd.carry.bucket = stateBucket(tail[len(tail)-1].state) // the carry is always that of the newest sealed sample
	}
}

// recounted changes the condition of the points with from <= tick < before in place.
func recounted(points []point, from, before monitor.Tick, c monitor.Condition) []point {
	for i := range points {
		if points[i].tick >= from && points[i].tick < before {
			points[i].state = withCondition(points[i].state, c)
		}
	}
	return points
}

// due returns the first hour that has something to seal, and false when none has.
func (hd *head) due(sealed uint32) (uint32, bool) {
	sealed = max(sealed, hd.sealed)
	if hd.carry.until > hourStart(sealed) {
		return sealed, true
	}
	if len(hd.spans) > 0 {
		return hd.spans[0].hour, true
	}
	return 0, false
}

// rollOver takes the hour that has just been sealed out of the head.
func (hd *head) rollOver(hour uint32, left carry) {
	if len(hd.spans) > 0 && hd.spans[0].hour == hour {
		hd.setTail(hd.spans[0].points(hd.tailPoints(nil)))
		hd.spans = slices.Clone(hd.spans[1:])
		if len(hd.spans) == 0 {
			hd.spans = nil
		}
	}
	hd.carry, hd.sealed = left, hour+1
}

// stretch returns what the head holds as one stretch that begins at the first hour that is not sealed.
func (hd *head) stretch(sealed uint32) stretch {
	return stretch{
		start: hourStart(max(sealed, hd.sealed)), carry: hd.carry, points: hd.points(nil), hold: hd.hold,
	}
}
