package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// settleTimeout bounds how long a change waits to learn what became of one that was uncertain.
const settleTimeout = 5 * time.Second

// object names what a change is about.
type object struct {
	id      string
	channel bool // else it is a monitor
}

// doubts are the objects of which nobody knows whether the engine has them as the store does.
type doubts struct {
	mu   sync.Mutex
	open map[object]bool
}

func (d *doubts) add(o object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = make(map[object]bool)
	}
	d.open[o] = true
}

func (d *doubts) end(o object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, o)
}

func (d *doubts) list() []object {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]object, 0, len(d.open))
	for o := range d.open {
		all = append(all, o)
	}
	return all
}

// settle has the engine follow the store after a write that ended with cause, if that leaves open whether it was made. The
// caller holds the object's lock. What cannot be settled now is by the next change, or by Ready.
func (s *Service) settle(ctx context.Context, cause error, o object) {
	if !errors.Is(cause, monitor.ErrUncertain) {
		return
	}
	s.doubts.add(o)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	err := s.decided(ctx)
	if err == nil {
		err = s.follow(ctx, o)
	}
	if err != nil {
		s.log.ErrorContext(ctx, "nobody knows yet whether a change was made", "object_id", o.id, "error", err)
	}
}

// settleRest settles what could not be settled before. No lock is held.
func (s *Service) settleRest(ctx context.Context) {
	open := s.doubts.list()
	if len(open) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	err := s.decided(ctx)
	for _, o := range open {
		if err == nil {
			err = s.followLocked(ctx, o)
		}
	}
	if err != nil {
		s.log.ErrorContext(ctx, "changes are not settled yet", "objects", len(open), "error", err)
	}
}

func (s *Service) followLocked(ctx context.Context, o object) error {
	if o.channel {
		s.channelUse.Lock()
		defer s.channelUse.Unlock()
	} else {
		defer s.lock(o.id)()
	}
	return s.follow(ctx, o)
}

// decided returns nil once every write that was handed to the store before has been made or not. The store makes them one
// after the other, so that one that changes nothing, for there is no monitor with its id, is answered after them.
func (s *Service) decided(ctx context.Context) error {
	err := s.opts.Store.DeleteMonitor(ctx, newID(s.now()), nil)
	if errors.Is(err, monitor.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("wait for the writes before: %w", err)
}

// follow gives the engine what the store has. Its own lock is held.
func (s *Service) follow(ctx context.Context, o object) error {
	var about []slog.Attr
	var err, refused error
	if o.channel {
		defer s.names.forget()
		var c monitor.Channel
		if c, err = s.opts.Store.Channel(ctx, o.id); err == nil {
			refused, about = s.opts.Engine.PutChannel(c), aboutChannel(&c)
		}
	} else {
		var m monitor.Monitor
		if m, err = s.opts.Store.Monitor(ctx, o.id); err == nil {
			refused, about = s.opts.Engine.Put(m), aboutMonitor(&m)
		}
	}
	switch {
	case errors.Is(err, monitor.ErrNotFound) && o.channel:
		s.opts.Engine.RemoveChannel(o.id)
	case errors.Is(err, monitor.ErrNotFound):
		s.opts.Engine.Remove(o.id)
	case err != nil:
		return fmt.Errorf("read %s: %w", o.id, err)
	case refused != nil:
		s.log.ErrorContext(ctx, "the engine refused what is stored", "object_id", o.id, "error", refused)
	}
	if about == nil {
		about = []slog.Attr{slog.String("object_id", o.id), slog.Bool("deleted", true)}
	}
	s.doubts.end(o)
	s.audit(ctx, "settle", about...)
	return nil
}
