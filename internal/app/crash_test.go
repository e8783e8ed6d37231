package app

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	_ "modernc.org/sqlite" // the file is looked at without the store

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/store"
)

// crashChild is the argument with which the test binary writes until it is killed.
const crashChild = "-crash-child"

// TestKillNine kills a process that writes as the server does, a hundred times at a random moment, and holds the file to
// what had been acknowledged: nothing acknowledged is missing, nothing recorded as sent is sent again.
func TestKillNine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tocsin.db")
	var mu sync.Mutex
	received := make(map[string]int) // by event id
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n sdk.Notification
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Errorf("the receiver got no notification: %v", err)
		}
		mu.Lock()
		received[n.ID]++
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()

	acknowledged := map[string][]string{} // by kind: monitor, event, sent
	sentTwice := make(map[string]int)     // how often an event had been received when its delivery was recorded
	for round := range 100 {
		for _, line := range killOnce(t, path, receiver.URL) {
			kind, id, _ := strings.Cut(line, " ")
			acknowledged[kind] = append(acknowledged[kind], id)
			if kind == "sent" {
				mu.Lock()
				sentTwice[id] = received[id]
				mu.Unlock()
			}
		}
		if t.Failed() {
			t.Fatalf("in round %d", round+1)
		}
	}
	look(t, path, acknowledged)
	for _, kind := range []string{"monitor", "event", "sent"} {
		if len(acknowledged[kind]) < 30 {
			t.Errorf("only %d writes of kind %q were acknowledged: the load was too small to show anything", len(acknowledged[kind]), kind)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for id, before := range sentTwice {
		if received[id] > before {
			t.Errorf("notification %s was sent again after it had been recorded as sent (%d, then %d times)", id, before, received[id])
		}
	}
	t.Logf("acknowledged: %d monitors, %d events, %d deliveries", len(acknowledged["monitor"]), len(acknowledged["event"]), len(acknowledged["sent"]))
}

// killOnce runs the writing process for a random time, kills it, and returns what it had said was done.
func killOnce(t *testing.T, path, receiver string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, crashChild, path, receiver)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The clock starts with the first line, so that a slow machine kills it in the middle of its work as well.
	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	var said []string
	var deadline <-chan time.Time
	for open := true; open; {
		select {
		case line, ok := <-lines:
			if open = ok; !ok {
				break
			}
			said = append(said, line)
			if deadline == nil {
				deadline = time.After(time.Duration(rand.IntN(120)) * time.Millisecond) //nolint:gosec // chance, no secret
			}
		case <-deadline:
			if err := cmd.Process.Kill(); err != nil {
				t.Errorf("kill: %v", err)
			}
			deadline = make(chan time.Time)
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the writing process ended by itself: %v", err)
	}
	return said
}

// look opens the file without the store and compares it with what was acknowledged.
func look(t *testing.T, path string, acknowledged map[string][]string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity_check = %q, %v", verdict, err)
	}
	for kind, table := range map[string]string{"monitor": "monitors", "event": "events"} {
		rows, err := db.QueryContext(t.Context(), "SELECT id FROM "+table) //nolint:gosec // one of two names
		if err != nil {
			t.Fatal(err)
		}
		have := make(map[string]bool)
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				t.Fatal(err)
			}
			have[id] = true
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, id := range acknowledged[kind] {
			if !have[id] {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%d of %d acknowledged %ss are missing", missing, len(acknowledged[kind]), kind)
		}
	}
}

// acknowledging is an outbox that says so once a delivery has been recorded.
type acknowledging struct {
	alert.Outbox
	sent sync.Map // notification id to event id
}

func (a *acknowledging) Due(ctx context.Context, now time.Time, busy []string, limit int) ([]monitor.Notification, error) {
	due, err := a.Outbox.Due(ctx, now, busy, limit)
	for _, n := range due {
		a.sent.Store(n.ID, n.EventID)
	}
	return due, err
}

func (a *acknowledging) Attempted(ctx context.Context, at monitor.Attempt) error {
	if err := a.Outbox.Attempted(ctx, at); err != nil {
		return err
	}
	if id, ok := a.sent.Load(at.NotificationID); ok && at.Outcome == monitor.Sent {
		say("sent", id.(string))
	}
	return nil
}

// say tells the parent, in one write, that something has been acknowledged.
func say(kind, id string) { _, _ = io.WriteString(os.Stdout, kind+" "+id+"\n") }

// writeUntilKilled makes monitors, samples, outages and deliveries as fast as the store takes them.
func writeUntilKilled(path, receiver string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, path, store.Options{Plain: true})
	if err != nil {
		return err
	}
	alerts, err := alert.NewRegistry(alert.Options{})
	if err != nil {
		return err
	}
	channels, err := s.Channels(ctx)
	if err != nil {
		return err
	}
	if len(channels) == 0 {
		c := &monitor.Channel{
			ID: ulid.Make().String(), Name: "ops", Provider: "webhook", Config: json.RawMessage(fmt.Sprintf(`{"url":%q}`, receiver)),
		}
		if err := s.CreateChannel(ctx, c); err != nil {
			return err
		}
		channels = []monitor.Channel{*c}
	}
	delivery := alert.NewDelivery(alert.DeliveryOptions{Outbox: &acknowledging{Outbox: s}, Registry: alerts})
	if err := delivery.Put(channels[0]); err != nil {
		return err
	}
	failed := make(chan error, 8)
	go func() { failed <- delivery.Run(ctx) }()
	for range 4 {
		go func() { failed <- outages(ctx, s, channels[0].ID, delivery) }()
	}
	return <-failed
}

// outages makes a monitor and lets it go up and down for ever.
func outages(ctx context.Context, s *store.Store, channel string, delivery *alert.Delivery) error {
	for {
		m := &monitor.Monitor{
			ID: ulid.Make().String(), Name: ulid.Make().String(), Kind: "http", Target: "http://127.0.0.1/", Config: json.RawMessage("{}"),
			Interval: time.Minute, Timeout: time.Second, RetryInterval: time.Second, Channels: []string{channel},
		}
		if err := s.CreateMonitor(ctx, m); err != nil {
			return err
		}
		say("monitor", m.ID)
		for i := range 8 {
			at := time.Now().UTC()
			for j := range 50 {
				s.Append(monitor.Sample{Series: m.Series, Tick: monitor.TickOf(at) + monitor.Tick(50*i+j), Status: sdk.Down, Message: "refused"})
			}
			id := ulid.Make().String()
			t := monitor.Transition{
				State: monitor.State{MonitorID: m.ID, Condition: monitor.Down, Since: at, Known: true},
				Event: &monitor.Event{
					ID: id, MonitorID: m.ID, Kind: sdk.WentDown, Audience: sdk.WentDown, To: monitor.Down, At: at,
					Payload: sdk.Notification{ID: id, Transition: sdk.WentDown, At: at},
				},
				Channels: []string{channel},
			}
			if err := s.Record(ctx, t); err != nil {
				return err
			}
			say("event", id)
			delivery.Wake()
		}
	}
}

func crashMain(args []string) {
	if err := writeUntilKilled(args[0], args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "crash child:", err)
	}
	os.Exit(1)
}
