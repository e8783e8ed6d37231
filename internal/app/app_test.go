package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tocsinhq/tocsin/internal/config"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	testToken = "tcs_test_0123456789abcdef"
	patience  = 30 * time.Second
)

// buffer is a text that several goroutines write.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// instance is a whole server inside the test.
type instance struct {
	Running
	t           *testing.T
	stdout, log *buffer
	cancel      context.CancelFunc
	ended       chan error
}

func settings(t *testing.T, flags map[string]string) config.Settings {
	t.Helper()
	all := map[string]string{"listen": "127.0.0.1:0", "data": filepath.Join(t.TempDir(), "data")}
	for k, v := range flags {
		all[k] = v
	}
	s, err := config.Load(config.Sources{Flags: all, Environ: []string{"TOCSIN_ADMIN_TOKEN=" + testToken}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, set config.Settings) *instance {
	t.Helper()
	return startWith(t, Options{Settings: set})
}

// startWith starts a server whose plugins run as they do outside of tests.
func startWith(t *testing.T, o Options) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in := &instance{t: t, stdout: &buffer{}, log: &buffer{}, cancel: cancel, ended: make(chan error, 1)}
	ready := make(chan Running, 1)
	o.Stdout, o.Stderr, o.Version, o.Program = in.stdout, in.log, "test", []string{program("runner")}
	o.Ready = func(r Running) { ready <- r }
	go func() { in.ended <- Run(ctx, o) }()
	select {
	case in.Running = <-ready:
	case err := <-in.ended:
		cancel()
		t.Fatalf("the server did not start: %v\n%s", err, in.log)
	}
	return in
}

// stop ends the server and returns what Run did.
func (in *instance) stop() {
	in.t.Helper()
	in.cancel()
	select {
	case err := <-in.ended:
		if err != nil {
			in.t.Errorf("the server ended with %v\n%s", err, in.log)
		}
	case <-time.After(patience):
		in.t.Fatalf("the server did not stop\n%s", in.log)
	}
}

// call sends a request with a token and decodes the answer.
func (in *instance) call(method, path, token string, body, out any) int {
	in.t.Helper()
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			in.t.Fatal(err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(in.t.Context(), method, in.URL+path, payload)
	if err != nil {
		in.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		in.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	if out != nil && resp.StatusCode/100 == 2 {
		if err := json.Unmarshal(data, out); err != nil {
			in.t.Fatalf("%s: %v", data, err)
		}
	} else if resp.StatusCode >= 400 && out != nil {
		in.t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, data)
	}
	return resp.StatusCode
}

// until tries something until it is true.
func (in *instance) until(what string, try func() bool) {
	in.t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !try() {
		select {
		case <-ticker.C:
		case <-deadline:
			in.t.Fatalf("%s: not within %s\n%s", what, patience, in.log)
		}
	}
}

type listed struct {
	Items []struct{ Name, State string }
}

func (in *instance) states() map[string]string {
	in.t.Helper()
	var list listed
	in.call(http.MethodGet, "/api/v1/monitors", testToken, nil, &list)
	states := map[string]string{}
	for _, m := range list.Items {
		states[m.Name] = m.State
	}
	return states
}

// TestStartStop starts and stops a server fifty times with a monitor in it: goroutines and file descriptors return to where
// they were, and nothing is logged as an error.
func TestStartStop(t *testing.T) {
	set := settings(t, nil)
	page := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer page.Close()
	in := start(t, set)
	in.call(http.MethodPost, "/api/v1/monitors", testToken, map[string]any{"name": "web", "kind": "http", "target": page.URL, "interval": "1s", "timeout": "1s"}, &struct{}{})
	in.stop()
	http.DefaultClient.CloseIdleConnections()
	goroutines, files := settled(t, 0, 0)
	for range 50 {
		in := start(t, set)
		if status := in.call(http.MethodGet, "/healthz", "", nil, nil); status != http.StatusOK {
			t.Fatalf("/healthz: %d", status)
		}
		in.stop()
		if log := in.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
			t.Fatalf("a start logged a fault:\n%s", log)
		}
	}
	if g, f := settled(t, goroutines, files); g > goroutines || f > files {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines and %d files were %d and %d\n%s", g, f, goroutines, files, buf[:runtime.Stack(buf, true)])
	}
}

// settled counts goroutines and open files once they are no more than wanted, or have not been for a second. Zero takes
// the lowest counts of a short while.
func settled(t *testing.T, wantGoroutines, wantFiles int) (goroutines, files int) {
	t.Helper()
	deadline := time.After(time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		goroutines, files = runtime.NumGoroutine(), len(entries)
		if goroutines <= wantGoroutines && files <= wantFiles {
			return goroutines, files
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return goroutines, files
		}
	}
}

// TestTwoServers runs two in one process: they share nothing.
func TestTwoServers(t *testing.T) {
	one, two := start(t, settings(t, nil)), start(t, settings(t, nil))
	defer one.stop()
	defer two.stop()
	one.call(http.MethodPost, "/api/v1/monitors", testToken, map[string]any{"name": "mine", "kind": "tcp", "target": strings.TrimPrefix(two.URL, "http://"), "interval": "1s", "timeout": "1s"}, &struct{}{})
	one.until("mine is up", func() bool { return one.states()["mine"] == "up" })
	if got := two.states(); len(got) != 0 {
		t.Errorf("the other server has %v", got)
	}
}

// TestFirstToken shows a token once, lets it in, and keeps it out of the files and the log.
func TestFirstToken(t *testing.T) {
	set := settings(t, nil)
	set.AdminToken = ""
	first := start(t, set)
	if first.Token == "" || !strings.Contains(first.stdout.String(), first.Token) {
		t.Errorf("no token %q in:\n%s", first.Token, first.stdout)
	}
	if status := first.call(http.MethodGet, "/api/v1/monitors", first.Token, nil, nil); status != http.StatusOK {
		t.Errorf("the token gets %d", status)
	}
	first.stop()
	second := start(t, set)
	if second.Token != "" || second.stdout.String() != "" {
		t.Errorf("the second start shows %q", second.stdout)
	}
	if status := second.call(http.MethodGet, "/api/v1/monitors", first.Token, nil, nil); status != http.StatusOK {
		t.Errorf("after a restart the token gets %d", status)
	}
	second.stop()
	if strings.Contains(first.log.String()+second.log.String(), first.Token) {
		t.Error("the token is in the log")
	}
	var files []string
	err := filepath.WalkDir(set.Data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, error %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(first.Token)) {
			t.Errorf("the token is in %s", file)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", file, info.Mode(), err)
		}
	}
}

// TestDrainWaitsForDelivery stops the server while a receiver takes its time: the delivery ends, is recorded, and is not
// made again after a restart.
func TestDrainWaitsForDelivery(t *testing.T) {
	arrived, release := make(chan string, 10), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n sdk.Notification
		if json.NewDecoder(r.Body).Decode(&n) == nil {
			arrived <- string(n.Transition)
		}
		<-release
	}))
	defer receiver.Close()
	set := settings(t, nil)
	in := start(t, set)
	in.call(http.MethodPost, "/api/v1/channels", testToken, map[string]any{"name": "ops", "provider": "webhook", "config": map[string]any{"url": receiver.URL}}, &struct{}{})
	closed := closedPort(t)
	in.call(http.MethodPost, "/api/v1/monitors", testToken, map[string]any{"name": "gone", "kind": "tcp", "target": closed, "interval": "1s", "timeout": "1s", "channels": []string{"ops"}}, &struct{}{})
	if got := <-arrived; got != "down" {
		t.Fatalf("the receiver got %q", got)
	}
	in.cancel()
	in.until("the server says what it waits for", func() bool { return strings.Contains(in.log.String(), "deliveries=1") })
	close(release)
	in.stop()

	again := start(t, set)
	again.until("gone is down", func() bool { return again.states()["gone"] == "down" })
	again.stop()
	select {
	case got := <-arrived:
		t.Errorf("after a restart the receiver got %q again", got)
	default:
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// TestStreamEnds has somebody listening to events when the server stops.
func TestStreamEnds(t *testing.T) {
	in := start(t, settings(t, nil))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, in.URL+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	began := time.Now()
	in.stop()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("a stream held the stop up for %s", took)
	}
}

func TestBadStart(t *testing.T) {
	taken := start(t, settings(t, nil))
	defer taken.stop()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		flags map[string]string
		says  string
	}{
		"address taken":    {map[string]string{"listen": strings.TrimPrefix(taken.URL, "http://")}, "address already in use"},
		"data is a file":   {map[string]string{"data": file}, "data folder"},
		"database missing": {map[string]string{"database": "/nonexistent/x.db"}, "/nonexistent/x.db"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Run(t.Context(), Options{Settings: settings(t, tt.flags), Stdout: io.Discard, Stderr: io.Discard})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
		})
	}
}

// TestLimitOfUnknownKind starts with a limit for a kind that no plugin gives yet.
func TestLimitOfUnknownKind(t *testing.T) {
	in := start(t, settings(t, map[string]string{"checks-kind-limits": "http=5,not-yet=3"}))
	defer in.stop()
	log := in.log.String()
	if !strings.Contains(log, "checks.kind_limits names a kind that is not there") || !strings.Contains(log, "kind=not-yet") || strings.Contains(log, "kind=http") {
		t.Errorf("the log has\n%s", log)
	}
}

func TestProfiler(t *testing.T) {
	admin := closedPort(t)
	in := start(t, settings(t, map[string]string{"admin-listen": admin}))
	defer in.stop()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/debug/pprof/cmdline", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the profiler answers %d", resp.StatusCode)
	}
	if status := in.call(http.MethodGet, "/debug/pprof/", testToken, nil, nil); status != http.StatusNotFound {
		t.Errorf("the API's listener answers /debug/pprof/ with %d", status)
	}
}

// TestFlakyPage walks through a minute of the demo's page.
func TestFlakyPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		handler := s.demoHandler(http.NotFoundHandler())
		for second := range 60 {
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, flakyPath, nil))
			want := http.StatusOK
			if second >= 20 && second < 40 {
				want = http.StatusServiceUnavailable
			}
			if answer.Code != want {
				t.Errorf("second %d: %d, want %d", second, answer.Code, want)
			}
			<-time.After(time.Second)
		}
	})
}

func TestDNSReply(t *testing.T) {
	for name, want := range map[string]string{"localhost.": "RCodeSuccess 1", "LOCALHOST.": "RCodeSuccess 1", "elsewhere.example.": "RCodeNameError 0"} {
		query := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		data, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply, ok := dnsReply(data)
		var m dnsmessage.Message
		if err := m.Unpack(reply); !ok || err != nil || m.ID != 7 {
			t.Fatalf("%s: %v, %v, id %d", name, ok, err, m.ID)
		}
		if got := fmt.Sprintf("%s %d", m.RCode, len(m.Answers)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func FuzzDNSReply(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, query []byte) {
		reply, ok := dnsReply(query)
		var m dnsmessage.Message
		if err := m.Unpack(reply); ok && (err != nil || !m.Response) {
			t.Fatalf("the reply to %x is %x: %v", query, reply, err)
		}
	})
}
