package alert

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

var update = flag.Bool("update", false, "write the golden files and docs/providers.md anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares got with the file under testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	compareFile(t, filepath.Join("testdata", name), got)
}

func compareFile(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test ./engine/alert -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is stale (-file +now); run go test ./engine/alert -update\n%s", path, diff)
	}
}

var base = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// sample is a notification of each transition, with hostile characters where they can come from outside.
func sample(transition sdk.Transition) sdk.Notification {
	n := sdk.Notification{
		ID: "01JEVENT0000000000000000" + fmt.Sprint(len(transition)), Transition: transition, At: base.Add(90 * time.Second),
		Monitor: sdk.Ref{
			ID: "01JMONITOR0000000000000001", Name: `shop "api" <!channel> *b* & co`, Kind: "http", Target: "https://shop.example.com/health?a=1&b=2",
			Labels: map[string]string{"team": "web", "env": "prod"},
		},
		URL: "https://tocsin.example.com/monitors/01JMONITOR0000000000000001",
	}
	outage := &sdk.Outage{ID: "01JINCIDENT000000000000001", StartedAt: base}
	switch transition {
	case sdk.WentDown:
		n.Incident = outage
		n.Incident.Duration = 90 * time.Second
		n.Result = sdk.Seen{Status: sdk.Down, Message: "expected status 200-299, got 503 Service Unavailable", LatencyUS: 12345}
	case sdk.WentUp:
		n.Incident = outage
		n.Incident.EndedAt = base.Add(90 * time.Second)
		n.Incident.Duration = 90 * time.Second
		n.Result = sdk.Seen{Status: sdk.Up, Message: "200 OK", LatencyUS: 4321}
	case sdk.WentDegraded:
		n.Result = sdk.Seen{Status: sdk.Degraded, Message: "latency < 300ms is false (latency = 812ms)", LatencyUS: 812000}
	case sdk.WentUnknown:
		n.Result = sdk.Seen{Status: sdk.Unknown, Message: "the resolver 10.0.0.53 gave no answer"}
	case sdk.Expiring:
		n.Result = sdk.Seen{Status: sdk.Up, Message: "certificate expires in 7 days (CN=shop.example.com)"}
	case sdk.Test:
		n.Monitor = sdk.Ref{}
		n.Result = sdk.Seen{Status: sdk.Up, Message: "this is a test of the channel ops"}
	}
	n.Text = Text(n)
	return n
}

// recorder is a server that notes what it is sent.
type recorder struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	bodies   [][]byte
	headers  []http.Header
}

// record starts a server that answers with the status and body.
func record(t *testing.T, status int, answer string) *recorder {
	t.Helper()
	r := &recorder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Errorf("read the request: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, describe(req, body))
		r.bodies = append(r.bodies, body)
		r.headers = append(r.headers, req.Header)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(r.Close)
	return r
}

// describe writes a request as text: the line, the header in order, the body indented when it is JSON.
func describe(req *http.Request, body []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", req.Method, req.RequestURI)
	for _, name := range sortedKeys(req.Header) {
		if name != "Content-Length" {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(req.Header[name], " | "))
		}
	}
	b.WriteString("\n")
	var pretty bytes.Buffer
	if json.Indent(&pretty, body, "", "  ") == nil {
		body = pretty.Bytes()
	}
	b.Write(body)
	b.WriteString("\n")
	return b.String()
}

func registry(t *testing.T, opts Options) *Registry {
	t.Helper()
	if opts.UserAgent == "" {
		opts.UserAgent = "tocsin/test"
	}
	if opts.Now == nil {
		opts.Now = func() time.Time { return base }
	}
	r, err := NewRegistry(opts)
	if err != nil {
		t.Fatalf("NewRegistry: %v", err)
	}
	return r
}

// faultsOf returns the faults of err as text, one a line.
func faultsOf(t *testing.T, err error) string {
	t.Helper()
	var faults monitor.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v is no monitor.Faults", err)
	}
	lines := make([]string, len(faults))
	for i := range faults {
		lines[i] = faults[i].Error()
	}
	return strings.Join(lines, "\n")
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
