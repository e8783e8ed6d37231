package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// keeper hands the opaque states of checkers to the store: one that changed a minute later, as it is by then, so each at most
// once a minute, and all that are left when the engine stops. Monitors whose checkers have no state cost it nothing.
type keeper struct {
	store Store
	log   *slog.Logger
	clock func() time.Duration
	wake  chan struct{} // the queue is no longer empty

	mu    sync.Mutex // taken last
	queue fifo[unwritten]
}

// unwritten is an entry whose state is not in the store. All wait equally long, so that the queue is in the order of due.
type unwritten struct {
	entry *entry
	due   time.Duration
}

const (
	keepEvery  = time.Minute
	keepPauses = 50 * time.Millisecond // between tries when the engine stops
)

func newKeeper(store Store, log *slog.Logger, clock func() time.Duration) *keeper {
	return &keeper{store: store, log: log, clock: clock, wake: make(chan struct{}, 1)}
}

// changed notes that the state of an entry is not what the store has. The entry's lock is held.
func (k *keeper) changed(en *entry) {
	if !en.unwritten {
		en.unwritten = true
		k.push(en)
	}
}

func (k *keeper) push(en *entry) {
	k.mu.Lock()
	k.queue.push(unwritten{en, k.clock() + keepEvery})
	first := k.queue.len() == 1
	k.mu.Unlock()
	if first {
		select {
		case k.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// run writes what has waited for its minute until ctx ends.
func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(keepEvery)
	defer timer.Stop()
	for {
		if wait, some := k.write(); some {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.wake:
		}
	}
}

// write hands over what is due. It returns how long it is until something is, and false when nothing waits.
func (k *keeper) write() (time.Duration, bool) {
	for {
		k.mu.Lock()
		if k.queue.len() == 0 {
			k.mu.Unlock()
			return 0, false
		}
		if wait := k.queue.first().due - k.clock(); wait > 0 {
			k.mu.Unlock()
			return wait, true
		}
		next, _ := k.queue.pop()
		k.mu.Unlock()
		if !k.hand(next.entry) {
			k.push(next.entry) // the store counts what it drops; the next minute has another
		}
	}
}

// hand hands the state of an entry to the store and reports whether it was taken. It does so under the entry's lock, so that
// an older state never comes after a newer one.
func (k *keeper) hand(en *entry) bool {
	en.mu.Lock()
	defer en.mu.Unlock()
	if !en.removed && !k.store.PutOpaque(monitor.Opaque{Series: en.spec.Series, Of: fingerprint(en.spec), State: en.opaque}) {
		return false
	}
	en.unwritten = false
	return true
}

// drain hands over all that waits, and tries again until the deadline what the store has no room for. It is called once, after
// the last check.
func (k *keeper) drain(deadline time.Time) {
	var left []*entry
	k.mu.Lock()
	for u, ok := k.queue.pop(); ok; u, ok = k.queue.pop() {
		left = append(left, u.entry)
	}
	k.mu.Unlock()
	for {
		refused := left[:0]
		for _, en := range left {
			if !k.hand(en) {
				refused = append(refused, en)
			}
		}
		if left = refused; len(left) == 0 {
			return
		}
		wait := min(keepPauses, time.Until(deadline))
		if wait <= 0 {
			k.log.Error("states of checkers were lost: the server stops and the store did not take them", "monitors", len(left))
			return
		}
		<-time.After(wait)
	}
}

// remember takes the opaque state that a result carried, or an empty one. The entry's lock is held.
func (e *Engine) remember(en *entry, state string) {
	if state != en.opaque {
		en.opaque = state
		e.keeper.changed(en)
	}
}

// fingerprint returns what tells checks of one thing from checks of another: a hash of kind, target and configuration, which
// are what a checker is given.
func fingerprint(m *monitor.Monitor) [sha256.Size]byte {
	config := m.Config
	if len(config) == 0 {
		config = []byte("{}") // as the store writes it
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(m.Kind), []byte(m.Target), config} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		_, _ = h.Write(length[:]) // a hash's Write never fails
		_, _ = h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
