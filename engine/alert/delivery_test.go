package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

var errBroken = errors.New("broken")

func failing(context.Context, sdk.Notification) error { return errBroken }

func hangs(ctx context.Context, _ sdk.Notification) error {
	<-ctx.Done()
	return fmt.Errorf("waited: %w", ctx.Err())
}

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "a", "b")
		for i := range 10 {
			b.box.add("a", fmt.Sprint("m", i), time.Now())
			b.box.add("b", fmt.Sprint("m", i), time.Now())
		}
		b.Wake()
		synctest.Wait()
		if got := b.recv.taken(); len(got) != 20 {
			t.Errorf("taken: %v", got)
		}
		if s := b.Stats(); s != (DeliveryStats{Sent: 20}) {
			t.Errorf("stats: %+v", s)
		}
		h := b.Health("a")
		if h.LastSuccessAt.IsZero() || h.Streak != 0 || b.box.health("a") != h {
			t.Errorf("health: %+v, stored %+v", h, b.box.health("a"))
		}
		b.end(t)
	})
}

// TestFailingForAnHour is a channel that fails for an hour and then works: everything arrives once and in order.
func TestFailingForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "ops")
		b.recv.on("ops", failing)
		begin := time.Now()
		for i := range 60 {
			b.box.add("ops", fmt.Sprint("m", i%3), time.Now())
			b.Wake()
			time.Sleep(time.Minute)
			synctest.Wait()
			if i == 30 {
				if h := b.Health("ops"); h.Streak == 0 || h.LastError != "broken" {
					t.Errorf("health while failing: %+v", h)
				}
			}
		}
		b.recv.on("ops", nil)
		time.Sleep(2*time.Hour + 30*time.Minute)
		synctest.Wait()
		order := map[string]int64{}
		counts := b.recv.taken()
		if len(counts) != 60 {
			t.Errorf("%d notifications arrived, want 60", len(counts))
		}
		for _, got := range b.recv.order() {
			var id int64
			if _, err := fmt.Sscanf(got, "ops event%d", &id); err != nil {
				t.Fatal(err)
			}
			if counts[got] != 1 {
				t.Errorf("%s arrived %d times", got, counts[got])
			}
			of := b.box.rows[id-1].MonitorID
			if id < order[of] {
				t.Errorf("event %d of %s arrived after %d", id, of, order[of])
			}
			order[of] = id
		}
		if h := b.Health("ops"); h.Streak != 0 || h.LastSuccessAt.Before(begin.Add(time.Hour)) {
			t.Errorf("health afterwards: %+v", h)
		}
		b.end(t)
	})
}

// TestHungChannel sees to it that a receiver that hangs delays no other one, even when many do.
func TestHungChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "hung", "fine")
		b.recv.on("hung", hangs)
		for i := range 500 {
			b.box.add("hung", fmt.Sprint("m", i), time.Now())
		}
		var ids []int64
		for i := range 100 {
			// Rows in the future hide behind those of the hung channel, which are due all the time.
			ids = append(ids, b.box.add("fine", fmt.Sprint("m", i), time.Now().Add(time.Duration(i)*time.Second)))
		}
		begin := time.Now()
		b.Wake()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for i, id := range ids {
			a, n := b.box.outcome(id)
			if late := a.At.Sub(begin) - time.Duration(i)*time.Second; a.Outcome != monitor.Sent || n != 1 || late > heldPoll {
				t.Errorf("row %d: outcome %d after %d attempts, %v late", id, a.Outcome, n, late)
			}
		}
		if peak := b.recv.most("hung"); peak != maxPerChannel {
			t.Errorf("%d attempts at a time, want %d", peak, maxPerChannel)
		}
		a, _ := b.box.outcome(1)
		if a.Outcome != monitor.Retry || a.Error != "no answer within 30 s" {
			t.Errorf("the hung attempt: %+v", a)
		}
		b.end(t)
	})
}

func TestGlobalLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 40 {
			names = append(names, fmt.Sprint("c", i))
		}
		b := deliver(t, DeliveryOptions{}, names...)
		for _, name := range names {
			b.recv.on(name, hangs)
			for i := range 10 {
				b.box.add(name, fmt.Sprint("m", i), time.Now())
			}
		}
		b.Wake()
		synctest.Wait()
		if s := b.Stats(); s.InFlight != maxAttempts {
			t.Errorf("%d attempts under way, want %d", s.InFlight, maxAttempts)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		for _, name := range names {
			if b.Health(name).Streak == 0 {
				t.Errorf("channel %s was never tried", name)
			}
		}
		b.end(t)
	})
}

func TestGivesUpAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "ops")
		b.recv.on("ops", failing)
		created := time.Now()
		id := b.box.add("ops", "m", created)
		b.Wake()
		time.Sleep(24*time.Hour - time.Second)
		synctest.Wait()
		a, n := b.box.outcome(id)
		if a.Outcome != monitor.Retry || n < 20 || n > 45 {
			t.Errorf("before the day is over: outcome %d after %d attempts", a.Outcome, n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		a, _ = b.box.outcome(id)
		if a.Outcome != monitor.GivenUp || a.Error != "given up after 24 h: broken" || a.At.Sub(created) < 24*time.Hour {
			t.Errorf("after a day: %+v", a)
		}
		calls := b.recv.count()
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if b.recv.count() != calls || b.Stats().GivenUp != 1 {
			t.Errorf("%d calls after giving up, stats %+v", b.recv.count()-calls, b.Stats())
		}
		b.end(t)
	})
}

func TestPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "ops")
		b.recv.on("ops", func(context.Context, sdk.Notification) error { return sdk.Permanent(errBroken) })
		id := b.box.add("ops", "m", time.Now())
		b.Wake()
		time.Sleep(time.Hour)
		synctest.Wait()
		if a, n := b.box.outcome(id); a.Outcome != monitor.GivenUp || n != 1 || a.Error != "broken" {
			t.Errorf("%+v after %d attempts", a, n)
		}
		b.end(t)
	})
}

// TestRetryAfter sees to it that a pause is kept by the whole channel, and by no other.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "limited", "fine")
		begin := time.Now()
		b.recv.on("limited", func(context.Context, sdk.Notification) error {
			if time.Since(begin) < 10*time.Minute {
				return sdk.RetryAfter(errBroken, 10*time.Minute-time.Since(begin))
			}
			return nil
		})
		for i := range 30 {
			b.box.add("limited", fmt.Sprint("m", i), time.Now())
		}
		b.Wake()
		time.Sleep(9*time.Minute + 59*time.Second)
		b.box.add("fine", "m", time.Now())
		b.Wake()
		synctest.Wait()
		if got := b.recv.taken(); len(got) != 1 || got["fine event31"] != 1 {
			t.Errorf("taken: %v", got)
		}
		if n := b.recv.count(); n > maxPerChannel+1 {
			t.Errorf("%d calls within the pause", n)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := b.recv.taken(); len(got) != 31 {
			t.Errorf("%d taken after the pause, want 31", len(got))
		}
		b.end(t)
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "slow", "hung")
		b.recv.on("slow", func(context.Context, sdk.Notification) error { time.Sleep(7 * time.Second); return nil })
		b.recv.on("hung", hangs)
		slow, hung := b.box.add("slow", "m", time.Now()), b.box.add("hung", "m", time.Now())
		b.Wake()
		synctest.Wait()
		late := b.box.add("slow", "m2", time.Now())
		begin := time.Now()
		b.end(t)
		if took := time.Since(begin); took != defaultDrain {
			t.Errorf("draining took %v, want %v", took, defaultDrain)
		}
		if a, _ := b.box.outcome(slow); a.Outcome != monitor.Sent {
			t.Errorf("the slow one: %+v", a)
		}
		if a, _ := b.box.outcome(hung); a.Outcome != monitor.Retry || a.RetryAt.After(time.Now()) || !strings.Contains(a.Error, "interrupted") {
			t.Errorf("the hung one: %+v", a)
		}
		if _, n := b.box.outcome(late); n != 0 {
			t.Error("an attempt was begun after the stop")
		}
		if h := b.Health("hung"); h.Streak != 0 {
			t.Errorf("the shutdown counts against the channel: %+v", h)
		}
	})
}

// TestStoreFailsToRecord sees to it that what arrived is not sent again while the outbox does not take the record.
func TestStoreFailsToRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		b := deliver(t, DeliveryOptions{Log: slog.New(slog.NewTextHandler(&text, nil))}, "ops")
		b.box.set(func(m *memory) { m.failWrite = errDisk })
		first, second := b.box.add("ops", "m", time.Now()), b.box.add("ops", "m", time.Now())
		other := b.box.add("ops", "other", time.Now())
		b.Wake()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := b.recv.taken(); got["ops event1"] != 1 || got["ops event3"] != 1 || len(got) != 2 {
			t.Errorf("taken while records fail: %v", got)
		}
		if s := b.Stats(); s.Unrecorded != 2 || s.InFlight != 0 || s.Sent != 0 {
			t.Errorf("stats: %+v", s)
		}
		if b.box.count(&b.box.writes) > 400 {
			t.Errorf("%d writes in an hour", b.box.count(&b.box.writes))
		}
		b.box.set(func(m *memory) { m.failWrite = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, id := range []int64{first, second, other} {
			if a, n := b.box.outcome(id); a.Outcome != monitor.Sent || n != 1 {
				t.Errorf("row %d: %+v after %d attempts", id, a, n)
			}
		}
		if got := b.recv.taken(); got["ops event2"] != 1 || b.recv.count() != 3 {
			t.Errorf("calls: %v", b.recv.taken())
		}
		b.end(t)
		if n := strings.Count(text.String(), "the outbox fails"); n != 1 {
			t.Errorf("%d log lines about the failing outbox, want 1:\n%s", n, text.String())
		}
		if n := strings.Count(text.String(), "the outbox works again"); n != 1 {
			t.Errorf("%d log lines about the outbox's recovery, want 1", n)
		}
	})
}

// TestStopsBeforeRecording sees to it that a store that never takes a record does not hold up the shutdown.
func TestStopsBeforeRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "ops")
		b.box.set(func(m *memory) { m.failWrite = errDisk })
		b.box.add("ops", "m", time.Now())
		b.Wake()
		synctest.Wait()
		begin := time.Now()
		b.end(t)
		if took := time.Since(begin); took > defaultDrain+recordGrace {
			t.Errorf("the shutdown took %v", took)
		}
		if b.Stats().Unrecorded != 1 {
			t.Errorf("stats: %+v", b.Stats())
		}
	})
}

func TestOutboxFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		b := deliver(t, DeliveryOptions{Log: slog.New(slog.NewTextHandler(&text, nil))}, "ops")
		synctest.Wait()
		b.box.set(func(m *memory) { m.failRead = errDisk; m.reads = 0 })
		for range 100 {
			b.Wake() // must not make it busy
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		synctest.Wait()
		if b.box.count(&b.box.reads) > 220 {
			t.Errorf("%d reads in 100 minutes of failure", b.box.count(&b.box.reads))
		}
		id := b.box.add("ops", "m", time.Now())
		b.box.set(func(m *memory) { m.failRead = nil })
		time.Sleep(lastOutboxWait)
		synctest.Wait()
		if a, _ := b.box.outcome(id); a.Outcome != monitor.Sent {
			t.Errorf("after the recovery: %+v", a)
		}
		b.end(t)
		if n := strings.Count(text.String(), "the outbox fails"); n != 1 {
			t.Errorf("%d log lines, want 1:\n%s", n, text.String())
		}
	})
}

// TestClockSteps sets the wall clock forwards and back by an hour.
func TestClockSteps(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var offset time.Duration
			wall := func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(offset).Round(0)
			}
			b := deliver(t, DeliveryOptions{Now: wall}, "ops")
			b.recv.on("ops", failing)
			before := b.box.add("ops", "before", wall())
			b.Wake()
			time.Sleep(3 * time.Second)
			mu.Lock()
			offset = step
			mu.Unlock()
			b.recv.on("ops", nil)
			after := b.box.add("ops", "after", wall())
			b.Wake()
			time.Sleep(time.Minute)
			synctest.Wait()
			for _, id := range []int64{before, after} {
				if a, n := b.box.outcome(id); a.Outcome != monitor.Sent || n > 2 {
					t.Errorf("step %v, row %d: %+v after %d attempts", step, id, a, n)
				}
			}
			mu.Lock()
			offset = 0 // and back again
			mu.Unlock()
			b.recv.on("ops", failing)
			last := b.box.add("ops", "last", wall())
			b.Wake()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if _, n := b.box.outcome(last); n < 5 || n > 10 {
				t.Errorf("step %v: %d attempts in ten minutes", step, n)
			}
			if len(b.recv.taken()) != 2 {
				t.Errorf("step %v: taken %v", step, b.recv.taken())
			}
			b.end(t)
		})
	}
}

func TestPanickingProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		b := deliver(t, DeliveryOptions{Log: slog.New(slog.NewTextHandler(&text, nil))}, "ops")
		b.recv.on("ops", func(context.Context, sdk.Notification) error { panic("surprise") })
		id := b.box.add("ops", "m", time.Now())
		b.Wake()
		synctest.Wait()
		if a, _ := b.box.outcome(id); a.Outcome != monitor.Retry || !strings.Contains(a.Error, "provider fake panicked") {
			t.Errorf("%+v", a)
		}
		b.recv.on("ops", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if a, _ := b.box.outcome(id); a.Outcome != monitor.Sent {
			t.Errorf("%+v", a)
		}
		b.end(t)
		if !strings.Contains(text.String(), "surprise") || !strings.Contains(text.String(), "delivery_test.go") {
			t.Errorf("the log lacks cause or stack:\n%s", text.String())
		}
	})
}

func TestChannelsThatAreNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "disabled", "removed")
		off := fakeChannel("disabled")
		off.Disabled = true
		if err := b.Put(off); err != nil {
			t.Fatal(err)
		}
		b.Remove("removed")
		faulty := fakeChannel("faulty")
		faulty.Config = []byte(`{"nome":"x"}`)
		if got := faultsOf(t, b.Put(faulty)); got != "config.nome: unknown field; known are name\nconfig.name: is required" {
			t.Errorf("faults: %s", got)
		}
		disabled, removed := b.box.add("disabled", "m", time.Now()), b.box.add("removed", "m", time.Now())
		unknown, wrong := b.box.add("unknown", "m", time.Now()), b.box.add("faulty", "m", time.Now())
		late := b.box.add("late", "m", time.Now())
		b.Wake()
		synctest.Wait()
		for id, want := range map[int64]string{disabled: "was disabled", removed: "was removed"} {
			if a, n := b.box.outcome(id); a.Outcome != monitor.GivenUp || n != 1 || !strings.Contains(a.Error, want) {
				t.Errorf("row %d: %+v, want %q", id, a, want)
			}
		}
		if h := b.Health("disabled"); h.Streak != 0 {
			t.Errorf("a disabled channel has failures: %+v", h)
		}
		if h := b.Health("faulty"); h.Streak != 1 || !strings.Contains(h.LastError, "set up wrong: config.nome") {
			t.Errorf("health of the faulty channel: %+v", h)
		}
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		if a, _ := b.box.outcome(unknown); a.Outcome != monitor.Retry || a.Error != "there is no channel unknown" {
			t.Errorf("unknown channel at first: %+v", a)
		}
		if err := b.Put(fakeChannel("late")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if a, _ := b.box.outcome(unknown); a.Outcome != monitor.GivenUp {
			t.Errorf("unknown channel in the end: %+v", a)
		}
		if a, _ := b.box.outcome(wrong); a.Outcome != monitor.Retry || a.RetryAt.Sub(a.At) > faultyRetry {
			t.Errorf("faulty channel: %+v", a)
		}
		if err := b.Put(fakeChannel("faulty")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(faultyRetry)
		synctest.Wait()
		for _, id := range []int64{wrong, late} {
			if a, _ := b.box.outcome(id); a.Outcome != monitor.Sent {
				t.Errorf("row %d after the channel was mended: %+v", id, a)
			}
		}
		b.end(t)
	})
}

// TestRestart sees to it that a second run sends nothing that the first recorded as sent, and keeps the health.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "ops")
		b.box.add("ops", "m", time.Now())
		b.Wake()
		synctest.Wait()
		b.end(t)
		health := b.Health("ops")

		again := NewDelivery(DeliveryOptions{Outbox: b.box, Registry: b.registry})
		if err := again.Put(fakeChannel("ops")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- again.Run(ctx) }()
		id := b.box.add("ops", "m", time.Now())
		time.Sleep(time.Hour)
		synctest.Wait()
		if a, _ := b.box.outcome(id); a.Outcome != monitor.Sent {
			t.Errorf("without Wake: %+v", a)
		}
		if b.recv.count() != 2 {
			t.Errorf("calls: %v", b.recv.taken())
		}
		if again.Health("ops").LastSuccessAt.Before(health.LastSuccessAt) || health.LastSuccessAt.IsZero() {
			t.Errorf("health: %+v", again.Health("ops"))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTestChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "ops")
		if err := b.Test(t.Context(), "nobody", sample(sdk.Test)); !errors.Is(err, monitor.ErrNotFound) {
			t.Errorf("unknown channel: %v", err)
		}
		b.box.set(func(m *memory) { m.full = true })
		b.recv.on("ops", hangs)
		begin := time.Now()
		if err := b.Test(t.Context(), "ops", sample(sdk.Test)); err == nil || time.Since(begin) != attemptTimeout {
			t.Errorf("hung: %v after %v", err, time.Since(begin))
		}
		if h := b.Health("ops"); h.Streak != 1 || h.LastError != "no answer within 30 s" {
			t.Errorf("health: %+v", h)
		}
		b.recv.on("ops", nil)
		if err := b.Test(t.Context(), "ops", sample(sdk.Test)); err != nil {
			t.Error(err)
		}
		b.box.set(func(m *memory) { m.full = false })
		time.Sleep(2 * longestSleep)
		synctest.Wait()
		if stored := b.box.health("ops"); stored != b.Health("ops") || stored.Streak != 0 {
			t.Errorf("the health that was dropped at first: %+v", stored)
		}
		faulty := fakeChannel("ops")
		faulty.Provider = "carrier-pigeon"
		if got := faultsOf(t, b.Put(faulty)); !strings.Contains(got, "known are discord, email, fake, gotify, ntfy, pagerduty, slack, telegram, webhook") {
			t.Errorf("faults: %s", got)
		}
		if err := b.Test(t.Context(), "ops", sample(sdk.Test)); err == nil {
			t.Error("a faulty channel passed its test")
		}
		b.end(t)
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 10: 2560 * time.Second, 11: time.Hour, 1 << 40: time.Hour} {
		low, high := time.Duration(float64(want)*0.8), time.Duration(float64(want)*1.2)
		for range 200 {
			if d := backoff(n); d < low || d > high {
				t.Errorf("backoff(%d) = %v, want %v to %v", n, d, low, high)
			}
		}
	}
	for range 200 {
		if d := pause(1, time.Minute); d < time.Minute || d > 72*time.Second {
			t.Errorf("pause = %v", d)
		}
		if d := pause(1, 100*time.Hour); d != time.Hour {
			t.Errorf("pause after an absurd request = %v", d)
		}
	}
}
