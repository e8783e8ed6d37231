package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// pendingWrite is what the writer has committed while the heads were being read: a sample, or a recount where there is one.
type pendingWrite struct {
	row     sampleRow
	recount *monitor.Recount
}

// loadSeries makes the empty head of every monitor.
func (s *Store) loadSeries(ctx context.Context) error {
	var rows []monitorRow
	if err := s.writeDB.NewSelect().Model(&rows).Column("series", "interval_ns", "timeout_ns").Scan(ctx); err != nil {
		return wrap("read series", err)
	}
	for i := range rows {
		s.heads.put(uint32(rows[i].Series), &monitor.Monitor{Interval: rows[i].Interval, Timeout: rows[i].Timeout})
	}
	return nil
}

// rebuild fills the heads from the database, beside the writer, which only collects what it commits meanwhile. Readers wait
// until the writer has added that.
func (s *Store) rebuild(ctx context.Context) error {
	defer s.queue.signal()
	if err := s.rebuildTexts(ctx); err != nil {
		return wrap("read newest notes", err)
	}
	sealed := s.sealed.Load()
	if err := s.rebuildSealed(ctx, sealed); err != nil {
		return wrap("read newest blocks", err)
	}
	if err := s.rebuildLong(ctx, sealed); err != nil {
		return wrap("read older blocks", err)
	}
	return wrap("read recent samples", s.rebuildRows(ctx, sealed))
}

// rebuildTexts reads which text each series had last.
func (s *Store) rebuildTexts(ctx context.Context) error {
	rows, err := s.read.QueryContext(ctx, `SELECT m.series, coalesce((SELECT n.text_id FROM notes AS n
		WHERE n.series = m.series ORDER BY n.tick DESC LIMIT 1), 0) FROM monitors AS m`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var series uint32
		var text int64
		if err := rows.Scan(&series, &text); err != nil {
			return err
		}
		s.heads.update(series, func(hd *head) { hd.text = text })
	}
	return rows.Err()
}

// rebuildSealed reads which series had been sealed beyond sealed_until when the store was stopped in the middle of an hour's
// sealing, and the blocks of that hour and of the one before: what they leave behind, and the tails.
func (s *Store) rebuildSealed(ctx context.Context, sealed uint32) error {
	rows, err := s.read.QueryContext(ctx, "SELECT id FROM hours WHERE id >= ? ORDER BY id", rowID(uint64(sealed), 0))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		s.heads.update(rowSeries(id), func(hd *head) { hd.sealed = uint32(rowSlot(id)) + 1 })
	}
	if err := rows.Err(); err != nil {
		return err
	}
	blocks, err := s.read.QueryContext(ctx, "SELECT id, data FROM blocks WHERE id >= ? ORDER BY id",
		rowID(uint64(max(sealed, 1))-1, 0))
	if err != nil {
		return err
	}
	defer blocks.Close()
	var scratch []point
	for blocks.Next() {
		var id int64
		var data []byte
		if err := blocks.Scan(&id, &data); err != nil {
			return err
		}
		points, h, err := decodeBlock(scratch[:0], data)
		if err != nil {
			// The other series have nothing to do with it, and a read of this hour says the same again.
			s.log.Error("store: a block cannot be read", "series", rowSeries(id), "hour", msTime(hourStart(uint32(rowSlot(id)))), "error", err)
			continue
		}
		scratch = points
		s.heads.update(rowSeries(id), func(hd *head) { hd.adopt(points, h.hold, sealed) })
	}
	return blocks.Err()
}

// adopt takes over the points of a block that is older than the head's spans and newer than its tail.
func (hd *head) adopt(points []point, hold int64, sealed uint32) {
	hd.setTail(append(hd.tailPoints(nil), points...))
	last := points[len(points)-1]
	hd.last = max(hd.last, last.tick)
	st := stretch{points: points, hold: hold}
	hd.carry = st.carryOver(hourStart(max(sealed, hd.sealed)))
}

// rebuildLong reads what older blocks leave behind, for the series whose samples can stand for more than an hour.
func (s *Store) rebuildLong(ctx context.Context, sealed uint32) error {
	var long []uint32
	s.heads.each(func(series uint32, hd *head) {
		if hd.tail == nil && hd.hold > hourMS {
			long = append(long, series)
		}
	})
	for _, series := range long {
		walk := blockWalk{series: series, want: 1}
		s.heads.read(series, func(hd *head) {
			walk.below = max(sealed, hd.sealed)
			walk.floor = walk.below - min(walk.below, uint32(hd.hold/hourMS)+2)
		})
		points, err := s.newestPoints(ctx, walk)
		if err != nil {
			return err
		}
		if len(points) > 0 {
			s.heads.update(series, func(hd *head) { hd.adopt(points, hd.hold, sealed) })
		}
	}
	return nil
}

// rebuildRows reads the hot table once.
func (s *Store) rebuildRows(ctx context.Context, sealed uint32) error {
	rows, err := s.read.QueryContext(ctx, "SELECT id, value FROM samples WHERE id >= ? ORDER BY id",
		int64(hourTick(sealed))<<24)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, value int64
		if err := rows.Scan(&id, &value); err != nil {
			return err
		}
		p := point{
			tick: monitor.Tick(rowSlot(id)), state: valueState(value), latency: s.scale.index(valueLatency(value)),
		}
		s.heads.update(rowSeries(id), func(hd *head) {
			if hourOf(p.tick) >= hd.sealed {
				hd.appendOne(p)
			}
		})
	}
	return rows.Err()
}

// adoptHeads ends the rebuilding: the writer adds what it has committed meanwhile.
func (s *Store) adoptHeads(err error) {
	pending := s.pending
	s.pending = nil
	if err != nil {
		s.rebuildErr = err
		s.log.Error("store: recent samples could not be read", "error", err)
		return
	}
	for i := range pending {
		if rc := pending[i].recount; rc != nil {
			s.heads.update(rc.Series, func(hd *head) { hd.recount(rc.From, rc.Before, rc.Condition) })
			continue
		}
		s.heads.add(&pending[i].row)
	}
	s.rebuilt.Store(true)
}

// blockWalk asks for the newest points of a series below an hour.
type blockWalk struct {
	series       uint32
	below, floor uint32 // hours: floor <= hour < below
	want         int
}

// newestPoints returns at least the newest want points that the blocks have, if they have as many, oldest first. Hours are
// looked up backwards, ever more at a time.
func (s *Store) newestPoints(ctx context.Context, w blockWalk) ([]point, error) {
	var found [][]point
	have := 0
	step := uint32(4)
	for hour := w.below; hour > w.floor && have < w.want; {
		from := hour - min(hour-w.floor, step)
		blocks, err := readBlocks(ctx, s.read, w.series, from, hour)
		if err != nil {
			return nil, err
		}
		for i := len(blocks) - 1; i >= 0 && have < w.want; i-- {
			points, _, err := decodeBlock(nil, blocks[i].data)
			if err != nil {
				return nil, fmt.Errorf("block %d of series %d: %w", blocks[i].hour, w.series, err)
			}
			found = append(found, points)
			have += len(points)
		}
		hour, step = from, min(4*step, idsAtOnce)
	}
	slices.Reverse(found)
	return slices.Concat(found...), nil
}

// idsAtOnce is how many rows one statement looks up by their ids.
const idsAtOnce = 500

// idList writes the ids of a series in slots [from, to) for an IN.
func idList(series, from, to uint32) string {
	var b strings.Builder
	for slot := from; slot < to; slot++ {
		if slot > from {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(rowID(uint64(slot), series), 10))
	}
	return b.String()
}
