package app

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/sdk"
)

// inbox is a receiver of notifications that remembers what it got.
type inbox struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // "down web"
	ids map[string]int
	new sdk.Notification
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	b := &inbox{ids: make(map[string]int)}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n sdk.Notification
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Errorf("the inbox got no notification: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.got = append(b.got, string(n.Transition)+" "+n.Monitor.Name)
		b.ids[n.ID]++
		b.new = n
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *inbox) notifications() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

// last returns the newest notification.
func (b *inbox) last() sdk.Notification {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.new
}

type detail struct {
	ID    string
	Name  string
	State string
	Last  *struct {
		At      time.Time
		Message string
	}
}

func (in *instance) details() map[string]detail {
	in.t.Helper()
	var list struct{ Items []detail }
	in.call(http.MethodGet, "/api/v1/monitors?limit=1000", testToken, nil, &list)
	all := make(map[string]detail)
	for _, m := range list.Items {
		all[m.Name] = m
	}
	return all
}

func (in *instance) add(path string, body map[string]any) detail {
	in.t.Helper()
	var made detail
	in.call(http.MethodPost, path, testToken, body, &made)
	return made
}

// TestHangingReceiverDelaysNoCheck has forty monitors tell a receiver that never answers: checks go on at their interval, and
// another channel is told at once.
func TestHangingReceiverDelaysNoCheck(t *testing.T) {
	var hanging atomic.Int64
	release := make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		hanging.Add(1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hung.Close()
	defer close(release)
	ops := newInbox(t)
	set := settings(t, nil)
	set.DrainTimeout = 3 * time.Second
	in := start(t, set)
	in.add("/api/v1/channels", map[string]any{"name": "hung", "provider": "webhook", "config": map[string]any{"url": hung.URL}})
	in.add("/api/v1/channels", map[string]any{"name": "ops", "provider": "webhook", "config": map[string]any{"url": ops.URL}})
	closed := closedPort(t)
	const n = 40
	for i := range n {
		in.add("/api/v1/monitors", map[string]any{
			"name": "m" + strconv.Itoa(i), "kind": "tcp", "target": closed, "interval": "1s", "timeout": "1s", "channels": []string{"hung", "ops"},
		})
	}
	in.until("the hung receiver is asked and the other has everything", func() bool {
		return hanging.Load() > 0 && len(ops.notifications()) == n
	})
	before := in.details()
	in.until("every monitor is checked twice more", func() bool {
		for name, m := range in.details() {
			if m.Last == nil || m.Last.At.Sub(before[name].Last.At) < 1500*time.Millisecond {
				return false
			}
		}
		return true
	})
	if got := len(ops.notifications()); got != n {
		t.Errorf("the working channel got %d notifications, want one for each of %d monitors", got, n)
	}
	in.stop()
}

// TestRestart compares what a server knows before and after a restart: states, incidents, samples, uptime, push clocks, log;
// and nobody is told of anything again.
func TestRestart(t *testing.T) {
	ops := newInbox(t)
	page := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer page.Close()
	set := settings(t, nil)
	gone := closedPort(t)
	in := start(t, set)
	in.add("/api/v1/channels", map[string]any{"name": "ops", "provider": "webhook", "config": map[string]any{"url": ops.URL}})
	monitors := []map[string]any{
		{"name": "web", "kind": "http", "target": page.URL},
		{"name": "gone", "kind": "tcp", "target": gone},
		{"name": "job", "kind": "push", "config": map[string]any{"token": "a-token-of-a-job-1234"}},
		{"name": "never", "kind": "push", "config": map[string]any{"token": "a-token-of-a-job-5678"}},
		{"name": "idle", "kind": "http", "target": page.URL, "paused": true},
	}
	for _, m := range monitors {
		m["interval"], m["timeout"], m["channels"] = "1s", "1s", []string{"ops"}
		if m["kind"] == "push" {
			m["interval"] = "1h"
		}
		in.add("/api/v1/monitors", m)
	}
	in.call(http.MethodGet, "/push/a-token-of-a-job-1234?status=up&msg=done", "", nil, &struct{}{})
	want := map[string]string{"web": "up", "gone": "down", "job": "up", "never": "pending", "idle": "paused"}
	in.until("the states are there", func() bool { return cmp.Equal(want, in.states()) })
	in.until("the outage has been told", func() bool { return len(ops.notifications()) == 1 })
	before := in.details()
	var incidents, again struct{ Items []map[string]any }
	in.call(http.MethodGet, "/api/v1/incidents", testToken, nil, &incidents)
	in.stop()

	second := start(t, set)
	defer second.stop()
	if diff := cmp.Diff(want, second.states()); diff != "" {
		t.Errorf("states right after the restart: -want +got\n%s", diff)
	}
	if got := second.details()["job"].Last; got == nil || got.Message != before["job"].Last.Message || !got.At.Equal(before["job"].Last.At) {
		t.Errorf("the last beat after the restart is %+v, was %+v", got, before["job"].Last)
	}
	second.call(http.MethodGet, "/api/v1/incidents", testToken, nil, &again)
	if diff := cmp.Diff(incidents, again); diff != "" {
		t.Errorf("incidents: -before +after\n%s", diff)
	}
	var samples struct {
		Items []struct {
			At     time.Time
			Status string
		}
	}
	second.call(http.MethodGet, "/api/v1/monitors/"+before["web"].ID+"/samples", testToken, nil, &samples)
	if len(samples.Items) == 0 || samples.Items[0].At.After(before["web"].Last.At) {
		t.Errorf("the samples from before the restart are gone: %+v", samples.Items)
	}
	var uptime struct {
		UptimePercent *float64 `json:"uptime_percent"`
		Seconds       map[string]float64
	}
	second.call(http.MethodGet, "/api/v1/monitors/"+before["gone"].ID+"/uptime?range=1h", testToken, nil, &uptime)
	if uptime.UptimePercent == nil || *uptime.UptimePercent != 0 || uptime.Seconds["down"] == 0 {
		t.Errorf("uptime of what was down all the time: %+v", uptime)
	}
	var log struct{ Items []struct{ Message string } }
	second.call(http.MethodGet, "/api/v1/log?limit=1000", testToken, nil, &log)
	if n := strings.Count(logText(log.Items), "monitor.create"); n < 1 && !strings.Contains(logText(log.Items), "change") {
		t.Errorf("the log has forgotten the first run: %d lines", len(log.Items))
	}
	second.until("all are checked again", func() bool {
		now := second.details()
		return now["web"].Last.At.After(before["web"].Last.At) && now["gone"].Last.At.After(before["gone"].Last.At)
	})
	if diff := cmp.Diff(want, second.states()); diff != "" {
		t.Errorf("states after the first checks: -want +got\n%s", diff)
	}
	if got := ops.notifications(); len(got) != 1 {
		t.Errorf("told %v, want the one outage from before the restart", got)
	}

	// The outage ends after the restart: with the start and the cause that it had.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", gone)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	second.until("the end has been told", func() bool { return len(ops.notifications()) == 2 })
	second.call(http.MethodGet, "/api/v1/incidents", testToken, nil, &again)
	was, is := incidents.Items[0], again.Items[0]
	if is["ended_at"] == nil || is["started_at"] != was["started_at"] || is["cause"] != was["cause"] {
		t.Errorf("the incident began as %v and ended as %v", was, is)
	}
	if got := ops.last(); got.Incident == nil || got.Incident.Duration <= 0 || got.Incident.Duration > time.Hour {
		t.Errorf("told of the end with %+v", got.Incident)
	}
}

// TestSecretKey starts a server on a database whose key is missing, or another: it says so and makes no new key.
func TestSecretKey(t *testing.T) {
	set := settings(t, nil)
	in := start(t, set)
	in.add("/api/v1/channels", map[string]any{"name": "ops", "provider": "webhook", "config": map[string]any{"url": "http://127.0.0.1:9/"}})
	in.stop()
	key := filepath.Join(set.Data, "secret.key")
	kept, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	try := func(says string) {
		t.Helper()
		err := Run(t.Context(), Options{Settings: set, Stdout: io.Discard, Stderr: io.Discard})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "TOCSIN_SECRET_KEY") {
			t.Errorf("error %v, want %q and the remedy", err, says)
		}
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	try("but not the key")
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new key was made beside the old database")
	}
	other := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))
	if err := os.WriteFile(key, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	try("another secret key")
	if err := os.WriteFile(key, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, set).stop()
}

// TestOneServerForEachDatabase has a second server on the same file, from another data folder.
func TestOneServerForEachDatabase(t *testing.T) {
	set := settings(t, nil)
	in := start(t, set)
	defer in.stop()
	second := settings(t, map[string]string{"database": filepath.Join(set.Data, "tocsin.db")})
	err := Run(t.Context(), Options{Settings: second, Stdout: io.Discard, Stderr: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "another tocsin uses the database") {
		t.Errorf("error %v, want that the database is in use", err)
	}
}

func logText(lines []struct{ Message string }) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Message + "\n")
	}
	return b.String()
}

// TestSlowReceiverIsWaitedFor stops the server while a receiver takes a good part of the drain timeout: what it took is recorded,
// and not sent again after a restart.
func TestSlowReceiverIsWaitedFor(t *testing.T) {
	var asked atomic.Int64
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-time.After(3500 * time.Millisecond)
	}))
	defer slow.Close()
	set := settings(t, nil)
	set.DrainTimeout = 12 * time.Second
	in := start(t, set)
	in.add("/api/v1/channels", map[string]any{"name": "slow", "provider": "webhook", "config": map[string]any{"url": slow.URL}})
	in.add("/api/v1/monitors", map[string]any{
		"name": "gone", "kind": "tcp", "target": closedPort(t), "interval": "1s", "timeout": "1s", "channels": []string{"slow"},
	})
	in.until("the receiver is asked", func() bool { return asked.Load() == 1 })
	in.stop()
	again := start(t, set)
	again.until("it is checked again", func() bool {
		m := again.details()["gone"]
		return m.Last != nil && m.Last.At.After(time.Now().Add(-time.Second))
	})
	again.stop()
	if got := asked.Load(); got != 1 {
		t.Errorf("the receiver was asked %d times for one outage", got)
	}
}
