package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// A sample's row is two 64-bit integers. The id is the tick << 24 | series, so that rows are appended in the order of time.
// The value holds the latency in µs in bits 0-39, the code in bits 40-55, the condition in bits 56-58 and the status in bits
// 59-60. Text is kept beside it, in notes, and only where it differs from the one before in the same series: a sample's
// message is the newest note at or before it.
const (
	codeShift      = 40
	conditionShift = 56
	statusShift    = 59
	maxMessage     = 1024 // bytes
)

func packValue(s *monitor.Sample) int64 {
	latency := min(max(s.Latency.Microseconds(), 0), maxLatencyUS)
	return latency | int64(s.Code)<<codeShift | int64(s.Condition&7)<<conditionShift | int64(s.Status&3)<<statusShift
}

func valueState(v int64) uint32 {
	return packState(sdk.Status(v>>statusShift&3), monitor.Condition(v>>conditionShift&7), uint16(v>>codeShift))
}

func valueLatency(v int64) time.Duration { return microseconds(v & maxLatencyUS) }

// textID returns the number of a text: 63 bits of its SHA-256, 0 for the empty text. Equal texts share one row by it, without
// an index and without a look-up.
func textID(text string) int64 {
	if text == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(text))
	return max(int64(binary.LittleEndian.Uint64(sum[:8])>>1), 1)
}

// sampleRow is a sample on its way into the hot table.
type sampleRow struct {
	id, value int64
	text      int64
	point     point
	series    uint32
	message   string
	note      bool // the text differs from the one before
	odd       bool // not the newest of its series
}

// prepared is what becomes of the samples of one batch.
type prepared struct {
	rows      []sampleRow
	invalid   int
	late      int
	unknown   int
	conflicts int
}

// Append enqueues a sample and never blocks. It returns false when the lane is full or the store is closed: the sample is
// dropped and counted.
func (s *Store) Append(sample monitor.Sample) bool { return s.queue.pushSample(sample) }

// mark is what the writer needs to know of a series before it writes.
type mark struct {
	last   monitor.Tick
	text   int64
	sealed uint32
}

// prepare sorts samples and finds out which of them are stored and which need a note. It changes nothing, so that a batch
// that failed can be prepared again.
func (s *Store) prepare(samples []monitor.Sample) *prepared {
	p := &prepared{}
	if len(samples) == 0 {
		return p
	}
	p.rows = make([]sampleRow, 0, len(samples))
	for i := range samples {
		one := &samples[i]
		if one.Series == 0 || one.Series > maxSeries || one.Tick > monitor.MaxTick {
			p.invalid++
			continue
		}
		p.rows = append(p.rows, sampleRow{
			id: rowID(uint64(one.Tick), one.Series), value: packValue(one), series: one.Series,
			message: sdk.CleanText(one.Message, maxMessage),
			point: point{
				tick: one.Tick, state: packState(one.Status, one.Condition, one.Code), latency: s.scale.index(one.Latency),
			},
		})
	}
	slices.SortStableFunc(p.rows, func(a, b sampleRow) int { return cmp.Compare(a.id, b.id) })
	rebuilt := s.rebuilt.Load()
	seen := make(map[uint32]mark, len(p.rows))
	kept := p.rows[:0]
	for _, r := range p.rows {
		m, known := seen[r.series]
		if !known {
			if m, known = s.heads.mark(r.series); !known {
				p.unknown++
				continue
			}
			m.sealed = max(m.sealed, s.sealed.Load())
		}
		if hourOf(r.point.tick) < m.sealed {
			p.late++
			continue
		}
		if n := len(kept); n > 0 && kept[n-1].id == r.id {
			p.conflicts++
			continue
		}
		r.text = textID(r.message)
		switch {
		case !rebuilt:
			r.note = true
		case r.point.tick > m.last:
			r.note = r.text != m.text
		case s.heads.has(r.series, r.point.tick):
			p.conflicts++
			continue
		default:
			r.odd = true
		}
		if r.point.tick > m.last {
			m.last, m.text = r.point.tick, r.text
		}
		seen[r.series] = m
		kept = append(kept, r)
	}
	p.rows = kept
	return p
}

// mark returns what the writer needs to know of a series, and false when there is no such monitor.
func (h *heads) mark(series uint32) (mark, bool) {
	sh := h.shard(series)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	hd := sh.heads[series]
	if hd == nil {
		return mark{}, false
	}
	return mark{hd.last, hd.text, hd.sealed}, true
}

// has reports whether a sample that is not sealed has the tick.
func (h *heads) has(series uint32, tick monitor.Tick) bool {
	there := false
	h.read(series, func(hd *head) {
		_, there = slices.BinarySearchFunc(hd.points(nil), tick, comparePoint)
	})
	return there
}

// bulkSizes are the numbers of rows of the bulk inserts, so that few statements write any number.
func bulkSizes() [4]int { return [4]int{256, 32, 4, 1} }

// bulkInsert returns a statement that inserts n rows of a table with two columns.
func bulkInsert(table string, n int) string {
	return "INSERT INTO " + table + " VALUES " + strings.Repeat("(?,?),", n-1) + "(?,?) ON CONFLICT DO NOTHING"
}

// insertSamples writes the rows and their notes.
func (c *conn) insertSamples(ctx context.Context, p *prepared) error {
	rows := p.rows
	stored := int64(0)
	for _, size := range bulkSizes() {
		if len(rows) < size {
			continue
		}
		text := bulkInsert("samples", size)
		for len(rows) >= size {
			for i := range rows[:size] {
				c.bind(rows[i].id)
				c.bind(rows[i].value)
			}
			n, err := c.run(ctx, text)
			if err != nil {
				return err
			}
			stored += n
			rows = rows[size:]
		}
	}
	p.conflicts += len(p.rows) - int(stored)
	for i := range p.rows {
		r := &p.rows[i]
		if r.note && !r.odd {
			if err := c.insertNote(ctx, r.series, r.point.tick, noteText{r.text, r.message}); err != nil {
				return err
			}
		}
	}
	for i := range p.rows {
		if p.rows[i].odd {
			if err := c.insertOddNote(ctx, p, &p.rows[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

type noteText struct {
	id   int64
	text string
}

func (c *conn) insertNote(ctx context.Context, series uint32, tick monitor.Tick, t noteText) error {
	if t.text != "" {
		c.bind(t.id)
		c.bind(t.text)
		if _, err := c.run(ctx, "INSERT INTO texts VALUES (?,?) ON CONFLICT DO NOTHING"); err != nil {
			return err
		}
	}
	return c.exec(ctx, "INSERT INTO notes VALUES (?,?,?) ON CONFLICT DO NOTHING", int64(series), int64(tick), t.id)
}

// insertOddNote writes the note of a sample that is not the newest of its series: those after it keep the text they have.
func (c *conn) insertOddNote(ctx context.Context, p *prepared, r *sampleRow) error {
	var before, next int64
	if err := c.bun.QueryRowContext(ctx, `SELECT coalesce((SELECT text_id FROM notes WHERE series = ? AND tick <= ?
		ORDER BY tick DESC LIMIT 1), 0)`, r.series, int64(r.point.tick)).Scan(&before); err != nil {
		return err
	}
	if before == r.text {
		return nil
	}
	if err := c.insertNote(ctx, r.series, r.point.tick, noteText{r.text, r.message}); err != nil {
		return err
	}
	// The next sample of the series: at most one hour of rows is looked through.
	if err := c.bun.QueryRowContext(ctx, `SELECT coalesce(min(id), 0) FROM samples WHERE id > ? AND id & 16777215 = ?`,
		r.id, r.series).Scan(&next); err != nil || next == 0 {
		return err
	}
	return c.exec(ctx, "INSERT INTO notes VALUES (?,?,?) ON CONFLICT DO NOTHING",
		int64(r.series), int64(rowSlot(next)), before)
}

// applied has memory follow the samples of a batch that is committed.
func (s *Store) applied(p *prepared) {
	s.stats.stored.Add(int64(len(p.rows)))
	s.stats.invalid.Add(int64(p.invalid))
	s.stats.unknown.Add(int64(p.unknown))
	s.stats.late.Add(int64(p.late))
	s.stats.conflicts.Add(int64(p.conflicts))
	if !s.rebuilt.Load() {
		for i := range p.rows {
			s.pending = append(s.pending, pendingWrite{row: p.rows[i]})
		}
		return
	}
	for i := range p.rows {
		s.heads.add(&p.rows[i])
	}
}

// add puts a stored sample into its head.
func (h *heads) add(r *sampleRow) {
	sh := h.shard(r.series)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	hd := sh.heads[r.series]
	if hd == nil || hourOf(r.point.tick) < hd.sealed {
		return
	}
	if r.point.tick > hd.last {
		hd.text = r.text
	}
	hd.appendOne(r.point)
}
