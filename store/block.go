package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// A block is the samples of one series in one hour, about two bytes each. Its bytes are
//
//	version    one byte, 1
//	interval   uvarint, in ticks of 10 ms: the step that the first time difference is taken against
//	hold       uvarint, in ms: how long a sample stands when no other follows
//	carry      one byte, the condition (0 to 3) that the sample before the hour's first left behind, and
//	           uvarint, in ms from the hour's start: how long that would have lasted; 0: there was none
//	first      uvarint, the first sample's tick
//	count      uvarint, 1 or more
//	runs       uvarint, how many runs follow, and for each its state and its length, both uvarint
//	stream     for each sample: the change of the step between ticks against the step before (zigzag varint; not for the
//	           first), and the change of the latency's index against the one before (zigzag varint; the first against 0)
//	checksum   four bytes, little endian, CRC-32C of all that is before it
//
// A run is a state that several samples in a row share: status in bits 0-1, condition in bits 2-4, code in bits 5-20.
const (
	blockVersion    = 1
	ticksPerHour    = 3600 * 100
	maxBlockSamples = ticksPerHour // strictly increasing ticks leave room for no more in an hour
	maxBlockRuns    = maxBlockSamples
)

// point is a sample without its series and text, its latency as an index of the scale.
type point struct {
	tick    monitor.Tick
	state   uint32
	latency uint16
}

func packState(status sdk.Status, condition monitor.Condition, code uint16) uint32 {
	return uint32(status)&3 | (uint32(condition)&7)<<2 | uint32(code)<<5
}

func stateStatus(state uint32) sdk.Status           { return sdk.Status(state & 3) }
func stateCondition(state uint32) monitor.Condition { return monitor.Condition(state >> 2 & 7) }
func stateCode(state uint32) uint16                 { return uint16(state >> 5) }
func withCondition(state uint32, c monitor.Condition) uint32 {
	return state&^(7<<2) | (uint32(c)&7)<<2
}

// stateBucket says under which condition a sample's time is counted: an unknown result, and every condition that is not one
// of up, degraded and down, is unknown time.
func stateBucket(state uint32) uint8 {
	if stateStatus(state) == sdk.Unknown {
		return uint8(sdk.Unknown)
	}
	if c := stateCondition(state); c <= monitor.Down {
		return uint8(c)
	}
	return uint8(sdk.Unknown)
}

type run struct {
	state, length uint32
}

// encoder is a block under way: points are appended to it in the order of their ticks. Its zero value is empty.
type encoder struct {
	stream   []byte
	runs     []run
	first    monitor.Tick
	last     monitor.Tick
	step     int64
	interval uint32
	count    uint32
	latency  uint16
}

// streamRoom is by how much a full stream grows. Growing by halves would leave a third of a hundred thousand heads unused.
const streamRoom = 32

// append adds a point whose tick is above all that are there. The interval, in ticks, counts for the first one only.
func (e *encoder) append(p point, interval uint32) {
	var scratch [2 * binary.MaxVarintLen64]byte
	buf := scratch[:0]
	if e.count == 0 {
		e.first, e.interval, e.step, e.latency = p.tick, interval, int64(interval), 0
	} else {
		step := int64(p.tick - e.last)
		buf = binary.AppendVarint(buf, step-e.step)
		e.step = step
	}
	buf = binary.AppendVarint(buf, int64(p.latency)-int64(e.latency))
	e.last, e.latency = p.tick, p.latency
	e.count++
	if need := len(e.stream) + len(buf); need > cap(e.stream) {
		grown := make([]byte, len(e.stream), max(need, cap(e.stream)+max(streamRoom, cap(e.stream)/8)))
		copy(grown, e.stream)
		e.stream = grown
	}
	e.stream = append(e.stream, buf...)
	if n := len(e.runs); n > 0 && e.runs[n-1].state == p.state {
		e.runs[n-1].length++
		return
	}
	if len(e.runs) == cap(e.runs) {
		grown := make([]run, len(e.runs), 1+len(e.runs)+len(e.runs)/2)
		copy(grown, e.runs)
		e.runs = grown
	}
	e.runs = append(e.runs, run{p.state, 1})
}

// newest returns the point appended last; count must not be 0.
func (e *encoder) newest() point {
	return point{tick: e.last, state: e.runs[len(e.runs)-1].state, latency: e.latency}
}

// points appends what the encoder holds to dst.
func (e *encoder) points(dst []point) []point {
	dst, _, err := decodeStream(dst, e.stream, e.runs, streamStart{e.first, e.interval, e.count})
	if err != nil {
		// The bytes were written by append above and never left memory.
		panic("store: a head does not decode: " + err.Error())
	}
	return dst
}

// encodePoints returns an encoder that holds the points, which are in the order of their ticks.
func encodePoints(points []point, interval uint32) encoder {
	var e encoder
	e.stream = make([]byte, 0, 2*len(points)+2)
	for _, p := range points {
		e.append(p, interval)
	}
	return e
}

// carry is what the last sample before a span left behind: its condition, counted until a time in Unix ms; 0: nothing.
type carry struct {
	until  int64
	bucket uint8
}

// blockHead is what a block says beside its points.
type blockHead struct {
	interval uint32 // ticks
	hold     int64  // ms
	carry    carry  // until counts in ms from the hour's start
}

// seal returns the block of an encoder that is not empty.
func (e *encoder) seal(h blockHead) []byte {
	out := make([]byte, 0, len(e.stream)+8*len(e.runs)+40)
	out = append(out, blockVersion)
	out = binary.AppendUvarint(out, uint64(e.interval))
	out = binary.AppendUvarint(out, uint64(max(h.hold, 0)))
	out = append(out, h.carry.bucket)
	out = binary.AppendUvarint(out, uint64(max(h.carry.until, 0)))
	out = binary.AppendUvarint(out, uint64(e.first))
	out = binary.AppendUvarint(out, uint64(e.count))
	out = binary.AppendUvarint(out, uint64(len(e.runs)))
	for _, r := range e.runs {
		out = binary.AppendUvarint(out, uint64(r.state))
		out = binary.AppendUvarint(out, uint64(r.length))
	}
	out = append(out, e.stream...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
}

// errBlock is what every error about a block's bytes wraps.
var errBlock = errors.New("damaged block")

// decodeBlock reads what seal wrote and appends its points to dst. Bytes that seal would not write are an error; memory is
// bounded by a multiple of their length.
func decodeBlock(dst []point, data []byte) ([]point, blockHead, error) {
	var h blockHead
	if len(data) < 5 {
		return dst, h, fmt.Errorf("%w: %d bytes", errBlock, len(data))
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if got := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)); got != sum {
		return dst, h, fmt.Errorf("%w: checksum %08x, want %08x", errBlock, got, sum)
	}
	if body[0] != blockVersion {
		return dst, h, fmt.Errorf("%w: version %d is not known", errBlock, body[0])
	}
	r := reader{data: body[1:]}
	h.interval = uint32(r.uvarint(1<<32 - 1))
	h.hold = int64(r.uvarint(1 << 40))
	h.carry.bucket = r.byte(3)
	h.carry.until = int64(r.uvarint(1 << 40))
	first := monitor.Tick(r.uvarint(uint64(monitor.MaxTick)))
	count := uint32(r.uvarint(maxBlockSamples))
	runCount := int(r.uvarint(maxBlockRuns))
	if r.bad || count == 0 || int(count) > len(r.data) || runCount > int(count) || runCount > len(r.data)/2 {
		return dst, h, fmt.Errorf("%w: bad header", errBlock)
	}
	var few [8]run
	runs := few[:0]
	var total uint64
	for range runCount {
		one := run{uint32(r.uvarint(1<<21 - 1)), uint32(r.uvarint(uint64(count)))}
		if r.bad || one.length == 0 || len(runs) > 0 && runs[len(runs)-1].state == one.state {
			return dst, h, fmt.Errorf("%w: bad run", errBlock)
		}
		total += uint64(one.length)
		runs = append(runs, one)
	}
	if total != uint64(count) {
		return dst, h, fmt.Errorf("%w: runs of %d samples, want %d", errBlock, total, count)
	}
	out, rest, err := decodeStream(dst, r.data, runs, streamStart{first, h.interval, count})
	if err != nil {
		return dst, h, err
	}
	if len(rest) != 0 {
		return dst, h, fmt.Errorf("%w: %d bytes too many", errBlock, len(rest))
	}
	return out, h, nil
}

type streamStart struct {
	first    monitor.Tick
	interval uint32
	count    uint32
}

// decodeStream appends the points of a stream to dst and returns what is left of the bytes.
func decodeStream(dst []point, data []byte, runs []run, s streamStart) ([]point, []byte, error) {
	tick, step, latency := int64(s.first), int64(s.interval), int64(0)
	var i uint32
	for _, r := range runs {
		for range r.length {
			if i > 0 {
				change, n := varint(data)
				if n <= 0 || change > 1<<40 || change < -1<<40 {
					return dst, data, fmt.Errorf("%w: bad time of sample %d", errBlock, i)
				}
				data = data[n:]
				step += change
				if step <= 0 || tick+step > int64(monitor.MaxTick) {
					return dst, data, fmt.Errorf("%w: time of sample %d goes backwards or out of range", errBlock, i)
				}
				tick += step
			}
			change, n := varint(data)
			if n <= 0 || change > scaleSize || change < -scaleSize {
				return dst, data, fmt.Errorf("%w: bad latency of sample %d", errBlock, i)
			}
			data = data[n:]
			latency += change
			if latency < 0 || latency >= scaleSize {
				return dst, data, fmt.Errorf("%w: latency of sample %d is out of range", errBlock, i)
			}
			dst = append(dst, point{tick: monitor.Tick(tick), state: r.state, latency: uint16(latency)})
			i++
		}
	}
	return dst, data, nil
}

// varint is binary.Varint with the common length of one byte first.
func varint(data []byte) (int64, int) {
	if len(data) > 0 && data[0] < 0x80 {
		u := data[0]
		return int64(u>>1) ^ -int64(u&1), 1
	}
	return binary.Varint(data)
}

// reader takes numbers off the front of bytes and remembers whether one was missing or out of range.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || v > limit {
		r.bad = true
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) byte(limit byte) byte {
	if len(r.data) == 0 || r.data[0] > limit {
		r.bad = true
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}
