package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// PutOpaque enqueues the opaque state of a checker and never blocks. It takes the place of the one that is stored; an empty
// state takes that away, and that of a monitor that is not there is left out. It returns false when the state is longer than
// sdk.MaxState bytes, the lane is full or the store is closed: the state is dropped and counted.
func (s *Store) PutOpaque(o monitor.Opaque) bool {
	if o.Series == 0 || o.Series > maxSeries || len(o.State) > sdk.MaxState {
		s.stats.invalid.Add(1)
		return false
	}
	return s.queue.pushOpaque(o)
}

// Opaques returns the opaque state of every checker that has one, by series. One that cannot be read is left out and logged:
// the next check begins without it, as the first one did.
func (s *Store) Opaques(ctx context.Context) (map[uint32]monitor.Opaque, error) {
	const op = "read states of checkers"
	var rows []struct {
		Series uint32 `bun:"series"`
		State  []byte `bun:"state"`
	}
	if err := s.read.NewSelect().Table("opaques").Column("series", "state").Scan(ctx, &rows); err != nil {
		return nil, wrap(op, err)
	}
	out := make(map[uint32]monitor.Opaque, len(rows))
	lost, why := 0, error(nil)
	for _, r := range rows {
		o, err := s.openOpaque(r.State)
		if err != nil {
			lost, why = lost+1, err
			continue
		}
		o.Series = r.Series
		out[r.Series] = o
	}
	if lost > 0 {
		s.log.Error("store: states of checkers could not be read and are left out", "states", lost, "error", wrap(op, why))
	}
	return out, nil
}

// sealOpaque returns what is stored of a state: the fingerprint and the state, sealed together. The fingerprint is in it
// because it is made of a configuration: bare, it would let whoever has the file try out what a short secret is.
func (s *Store) sealOpaque(o *monitor.Opaque) ([]byte, error) {
	return s.sealConfig(append(append(make([]byte, 0, len(o.Of)+len(o.State)), o.Of[:]...), o.State...))
}

func (s *Store) openOpaque(sealed []byte) (monitor.Opaque, error) {
	var o monitor.Opaque
	plain, err := s.openConfig(sealed)
	if err != nil {
		return o, err
	}
	if len(plain) <= len(o.Of) || len(plain) > len(o.Of)+sdk.MaxState {
		return o, errors.New("the state is damaged")
	}
	o.State = string(plain[copy(o.Of[:], plain):])
	return o, nil
}

// putOpaque writes the state of one checker.
func (s *Store) putOpaque(ctx context.Context, c *conn, o *monitor.Opaque) error {
	if o.State == "" {
		return c.exec(ctx, "DELETE FROM opaques WHERE series = ?", int64(o.Series))
	}
	sealed, err := s.sealOpaque(o)
	if err != nil {
		return fmt.Errorf("seal the state of series %d: %w", o.Series, err)
	}
	c.bind(int64(o.Series))
	c.bind(sealed)
	c.bind(int64(o.Series))
	_, err = c.run(ctx, `INSERT INTO opaques (series, state) SELECT ?, ? WHERE EXISTS (SELECT 1 FROM monitors WHERE series = ?)
		ON CONFLICT (series) DO UPDATE SET state = excluded.state`)
	return err
}

// pushOpaque enqueues a state. In the queue it takes the place of an older one of its series, so that a database that takes
// nothing for a while has no more than one of each to wait for.
func (q *queue) pushOpaque(o monitor.Opaque) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, waits := q.lane.opaques[o.Series]; q.closed || !waits && !q.room() {
		return false
	}
	if q.lane.opaques == nil {
		q.lane.opaques = make(map[uint32]monitor.Opaque)
	}
	q.lane.opaques[o.Series] = o
	q.signal()
	return true
}

// takeOpaques moves states into a batch and returns the batch's.
func takeOpaques(into, from map[uint32]monitor.Opaque) map[uint32]monitor.Opaque {
	const most = 500
	if len(into) > 0 {
		clear(into)
	}
	for series, o := range from {
		if into == nil {
			into = make(map[uint32]monitor.Opaque)
		}
		if len(into) == most {
			break
		}
		into[series] = o
		delete(from, series)
	}
	return into
}
