package alert

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Run delivers until ctx ends. Then it begins nothing new, waits for the attempts under way, cuts them when the drain timeout
// is over, records what came of them, and returns nil. Every channel should have been put in before: a notification for an
// unknown one waits ten minutes for it and is then given up. Run is called once.
func (d *Delivery) Run(ctx context.Context) error {
	// Attempts and their records outlive ctx for the time of the drain.
	work, stopAttempts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAttempts()
	record, stopRecords := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecords()
	var under sync.WaitGroup
	r := &run{d: d, done: make(chan struct{}, 1)}
	r.spawn = func(j job) { under.Go(func() { r.do(work, record, j) }) }

	d.mu.Lock()
	d.started = time.Now()
	d.mu.Unlock()
	r.loop(ctx)

	cut := time.AfterFunc(d.drain, stopAttempts)
	defer cut.Stop()
	giveUp := time.AfterFunc(d.drain+recordGrace, stopRecords)
	defer giveUp.Stop()
	under.Wait()
	d.saveUnsaved()
	if n := d.Stats().Unrecorded; n > 0 {
		d.log.Error("notifications were attempted but could not be recorded; they may be sent again", "count", n)
	}
	return nil
}

// run is one call of Delivery.Run.
type run struct {
	d            *Delivery
	spawn        func(job)     // does the job in a goroutine that Run waits for
	done         chan struct{} // holds one signal: an attempt or a record has ended
	healthLoaded bool
}

// job is one attempt to be made and recorded.
type job struct {
	n       monitor.Notification
	ch      *channel // nil when there is none, and then verdict is set
	verdict error    // why no attempt can be made
	healthy bool     // the verdict says nothing about the channel's health
}

// loop takes due notifications and sleeps until the next one is.
func (r *run) loop(ctx context.Context) {
	wait := firstOutboxWait
	for ctx.Err() == nil {
		sleep, err := r.round(ctx)
		if ctx.Err() != nil {
			return
		}
		r.d.outboxWorks(&r.d.unreadable, "read", err)
		if err != nil {
			sleep = wait
			wait = min(2*wait, lastOutboxWait)
		} else {
			wait = firstOutboxWait
		}
		r.sleep(ctx, sleep, err != nil)
	}
}

// sleep waits for the time, or for something to happen. After an error of the outbox nothing cuts it short.
func (r *run) sleep(ctx context.Context, d time.Duration, deaf bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	wake, done := r.d.wake, r.done
	if deaf {
		wake, done = nil, nil
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	case <-done:
	}
}

// round begins every attempt that can begin now and returns how long nothing else will be due.
func (r *run) round(ctx context.Context) (time.Duration, error) {
	d := r.d
	if !r.healthLoaded {
		if err := d.loadHealth(ctx); err != nil {
			return 0, err
		}
		r.healthLoaded = true
	}
	d.saveUnsaved()
	for {
		busy, limit := d.room()
		if limit == 0 {
			return longestSleep, nil // the end of an attempt or of a record wakes
		}
		due, err := d.outbox.Due(ctx, d.clock.now(), busy, limit)
		if err != nil {
			return 0, fmt.Errorf("read what is due: %w", err)
		}
		begun := 0
		for i := range due {
			if r.begin(due[i]) {
				begun++
			}
		}
		if begun == 0 {
			return d.untilNext(ctx)
		}
	}
}

// room returns the channels for which nothing can begin now, and how many rows to ask for so that one that can begin is among
// them if there is one; 0 when nothing at all can begin.
func (d *Delivery) room() (busy []string, limit int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stats.InFlight >= maxAttempts || len(d.held)-d.stats.InFlight >= maxUnrecorded {
		return nil, 0
	}
	clear(d.released) // the question is only asked now: its answer knows of these
	now := time.Now()
	for id, ch := range d.channels {
		if ch.full() || now.Before(ch.quiet) {
			busy = append(busy, id)
		}
	}
	// Rows that are held come back until they are recorded.
	return busy, maxAttempts + len(d.held)
}

// full reports whether the channel has all the attempts under way that it may have.
func (c *channel) full() bool {
	if c.failing {
		return c.running >= 1
	}
	return c.running >= maxPerChannel
}

// untilNext returns how long to sleep when nothing can begin now.
func (d *Delivery) untilNext(ctx context.Context) (time.Duration, error) {
	next, ok, err := d.outbox.NextDue(ctx)
	if err != nil {
		return 0, fmt.Errorf("read what is due next: %w", err)
	}
	sleep := longestSleep
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, ch := range d.channels {
		if left := ch.quiet.Sub(now); left > 0 {
			sleep = min(sleep, left)
		}
	}
	if !ok {
		return sleep, nil
	}
	left := next.Sub(d.clock.now())
	if left <= 0 {
		// It is held, or its channel is busy or quiet, and may hide one of another channel that is due soon.
		left = heldPoll
	}
	return min(sleep, left), nil
}

// begin starts an attempt unless the notification is held or its channel is full. It reports whether anything was begun.
func (r *run) begin(n monitor.Notification) bool {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held[n.ID] || d.released[n.ID] || d.stats.InFlight >= maxAttempts {
		return false
	}
	ch := d.channels[n.ChannelID]
	if ch != nil && (ch.full() || time.Now().Before(ch.quiet)) {
		return false
	}
	j := job{n: n, ch: ch, verdict: d.verdict(ch, n)}
	d.held[n.ID] = true
	d.stats.InFlight++
	if ch != nil {
		ch.running++
		j.healthy = ch.spec.Disabled
	}
	r.spawn(j)
	return true
}

// errInterrupted says that the server's own shutdown cut an attempt.
var errInterrupted = errors.New("interrupted by the server's shutdown")

// verdict returns why an attempt cannot be made, nil when it can. The caller holds mu.
func (d *Delivery) verdict(ch *channel, n monitor.Notification) error {
	switch {
	case ch == nil && d.removed[n.ChannelID]:
		return sdk.Permanent(errors.New("the channel was removed"))
	case ch == nil:
		err := fmt.Errorf("there is no channel %s", n.ChannelID)
		if d.clock.now().Sub(n.CreatedAt) > unknownGrace && time.Since(d.started) > longestSleep {
			return sdk.Permanent(err)
		}
		return err
	case ch.spec.Disabled:
		return sdk.Permanent(errors.New("the channel was disabled before the notification was delivered"))
	}
	return nil
}

// do makes the attempt, decides what becomes of the notification, frees the slot, and records the attempt.
func (r *run) do(work, record context.Context, j job) {
	d, n, ch := r.d, j.n, j.ch
	err, attempted := j.verdict, false
	if err == nil {
		var notifier Notifier
		if notifier, err = d.notifierOf(ch); err == nil {
			attempted = true
			err = d.notify(work, n.ChannelID, notifier, n.Payload)
		}
	}
	if err != nil && work.Err() != nil {
		err = errInterrupted
	} else if attempted || !j.healthy {
		d.setHealth(n.ChannelID, err)
	}
	a := d.outcome(n, err, attempted)
	d.mu.Lock()
	d.stats.InFlight--
	if ch != nil {
		ch.running--
		if delay := min(sdk.RetryDelay(err), maxRetryAfter); a.Outcome == monitor.Retry && delay > 0 {
			ch.quiet = time.Now().Add(delay)
		}
	}
	d.mu.Unlock()
	r.signal()
	r.keepRecording(record, a)
	d.mu.Lock()
	switch a.Outcome {
	case monitor.Sent:
		d.stats.Sent++
	case monitor.Retry:
		d.stats.Retried++
	case monitor.GivenUp:
		d.stats.GivenUp++
	}
	d.mu.Unlock()
	if a.Outcome == monitor.GivenUp {
		d.log.Error("notification given up", "event", n.EventID, "channel", n.ChannelID, "monitor", n.MonitorID,
			"attempts", n.Attempts+1, "error", a.Error)
	}
	r.signal()
}

// outcome turns the result of an attempt into its record.
func (d *Delivery) outcome(n monitor.Notification, err error, attempted bool) monitor.Attempt {
	a := monitor.Attempt{NotificationID: n.ID, At: d.clock.wall(), Outcome: monitor.Sent}
	if err == nil {
		return a
	}
	a.Error = sdk.CleanText(err.Error(), maxError)
	now := d.clock.now()
	last := n.CreatedAt.Add(giveUpAfter)
	switch {
	case sdk.IsPermanent(err), err != errInterrupted && !now.Before(last): //nolint:errorlint // never wrapped
		a.Outcome = monitor.GivenUp
		if !sdk.IsPermanent(err) {
			a.Error = sdk.CleanText("given up after 24 h: "+err.Error(), maxError)
		}
		return a
	case err == errInterrupted: //nolint:errorlint // never wrapped
		a.Outcome, a.RetryAt = monitor.Retry, now
		return a
	}
	wait := pause(n.Attempts+1, sdk.RetryDelay(err))
	if !attempted {
		wait = min(wait, faultyRetry)
	}
	a.Outcome, a.RetryAt = monitor.Retry, now.Add(wait)
	if a.RetryAt.After(last) {
		a.RetryAt = last // one more, at the very end
	}
	return a
}

// keepRecording offers the attempt to the outbox until it takes it or recording ends. Until then the notification is held, so
// that one that arrived is not sent again.
func (r *run) keepRecording(record context.Context, a monitor.Attempt) {
	d := r.d
	wait := firstOutboxWait
	for {
		err := d.outbox.Attempted(record, a)
		if record.Err() == nil {
			d.outboxWorks(&d.unwritable, "write", err)
		}
		switch {
		case err == nil, errors.Is(err, monitor.ErrNotFound):
			d.mu.Lock()
			delete(d.held, a.NotificationID)
			d.released[a.NotificationID] = true
			d.mu.Unlock()
			return
		case errors.Is(err, monitor.ErrClosed):
			return
		}
		timer := time.NewTimer(wait)
		wait = min(2*wait, lastOutboxWait)
		select {
		case <-record.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// signal wakes the loop.
func (r *run) signal() {
	select {
	case r.done <- struct{}{}:
	default:
	}
}

// outboxWorks logs when reading or writing the outbox begins to fail and when it works again, once each.
func (d *Delivery) outboxWorks(broken *bool, what string, err error) {
	if errors.Is(err, monitor.ErrNotFound) {
		err = nil
	}
	d.mu.Lock()
	changed := *broken != (err != nil)
	*broken = err != nil
	d.mu.Unlock()
	switch {
	case changed && err != nil:
		d.log.Error("the outbox fails; delivery goes on trying", "operation", what, "error", err)
	case changed:
		d.log.Info("the outbox works again", "operation", what)
	}
}
