package host

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/netfs"
	"github.com/tocsinhq/tocsin/sdk"
)

// bundled is a plugin of this repository, built as users build it.
type bundled struct {
	manifest Manifest
	module   *wasm.Module
	size     int
}

// buildArchive builds a plugin's archive by the script that `make plugins` runs. It reports false when it cannot be built here,
// which it can in CI.
func buildArchive(t testing.TB, name string) (path string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "../scripts/plugins.sh", "-o", dir, name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("build plugin %s: %v\n%s", name, err, out)
	}
	built, err := filepath.Glob(filepath.Join(dir, name+"-*.tar.gz"))
	if err != nil || len(built) != 1 {
		t.Logf("plugin %s was not tried: %s", name, bytes.TrimSpace(out))
		return "", false
	}
	return built[0], true
}

// buildBundled builds a plugin and loads it.
func buildBundled(t testing.TB, name string) (b bundled, ok bool) {
	t.Helper()
	path, ok := buildArchive(t, name)
	if !ok {
		return bundled{}, false
	}
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	contents, err := ReadArchive(archive)
	if err != nil {
		t.Fatal(err)
	}
	if b.manifest, err = contents.Manifest(); err != nil {
		t.Fatal(err)
	}
	if want := b.manifest.Name + "-" + b.manifest.Version + ".tar.gz"; filepath.Base(path) != want || b.manifest.Name != name || b.manifest.SHA256.IsZero() {
		t.Errorf("%s holds %s %s with the digest %q", path, b.manifest.Name, b.manifest.Version, b.manifest.SHA256.One)
	}
	code, _ := contents.File(b.manifest.Entry.One)
	b.size = len(code)
	b.module, err = wasm.New(t.Context(), code, wasm.Options{Limits: wasm.Limits{Memory: int64(b.manifest.Limits.Memory)}, Instances: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.module.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	if fresh := b.module.Info().Fresh; len(fresh) > 0 {
		t.Errorf("%s needs a fresh instance for each call: %q", name, fresh)
	}
	return b, true
}

// call makes one call with all that the manifest asks for granted, as a runner does.
func (b bundled) call(t testing.TB, call string, req any, fill reach.Call, timeout time.Duration) []byte {
	t.Helper()
	request, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(timeout)
	network := netfs.New(netfs.Options{
		Network: grantedNetwork{reach.Grant{Permissions: b.manifest.Asks}, fill}, Deadline: deadline,
		Roots: func() (*x509.CertPool, error) { return x509.NewCertPool(), nil },
	})
	defer network.Close()
	reply, err := b.module.Call(t.Context(), wasm.Call{Name: call, Request: request, Deadline: deadline, FS: network})
	if err != nil || len(reply.Log) > 0 {
		t.Fatalf("%s of %s: %v, log %q", call, b.manifest.Name, err, reply.Log)
	}
	return reply.Response
}

func (b bundled) check(t testing.TB, req sdk.CheckRequest) sdk.Result {
	t.Helper()
	if req.Timeout == 0 {
		req.Timeout = 5 * time.Second
	}
	req.Attempt = 1
	text := b.call(t, "check", req, reach.Call{Target: req.Target, Config: req.Config}, req.Timeout)
	answer, err := sdk.ParseCheckResponse(text)
	if err != nil {
		t.Fatalf("the answer %s: %v", text, err)
	}
	return answer.Result
}

// metric gives the value of a metric, and fails when there is none.
func metric(t testing.TB, r sdk.Result, name string) float64 {
	t.Helper()
	for _, m := range r.Metrics {
		if m.Name == name {
			return m.Value
		}
	}
	t.Errorf("there is no metric %s in %+v", name, r)
	return 0
}

func TestBundledManifests(t *testing.T) {
	t.Parallel()
	found, err := filepath.Glob("../plugins/*/" + sdk.ManifestFile)
	if err != nil || len(found) < 4 {
		t.Fatalf("manifests %q, %v", found, err)
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseManifest(path, text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, p := range m.Permissions {
			if p.Reason == "" {
				t.Errorf("%s: permission %s has no reason", path, p.Allow)
			}
		}
		readme, err := os.ReadFile(filepath.Join(filepath.Dir(path), "README.md"))
		if err != nil || !bytes.Contains(readme, []byte(m.Name)) {
			t.Errorf("%s has no README.md that names it: %v", path, err)
		}
	}
}

// clockServer answers NTP questions on a port of its own with what change makes of an honest answer, which is of stratum 2
// and two seconds ahead.
func clockServer(t testing.TB, change func(honest []byte) [][]byte) (target string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		question := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return
			}
			if n != 48 || question[0] != 0x23 || !bytes.Equal(question[1:40], make([]byte, 39)) {
				t.Errorf("asked %x", question[:n])
			}
			honest := make([]byte, 48)
			honest[0], honest[1] = 0x24, 2
			copy(honest[24:32], question[40:48])
			ahead := time.Now().Add(2 * time.Second)
			stamp := uint64(uint32(ahead.Unix()+2208988800))<<32 | uint64(ahead.Nanosecond())<<32/1e9
			binary.BigEndian.PutUint64(honest[32:], stamp)
			binary.BigEndian.PutUint64(honest[40:], stamp)
			answers := [][]byte{honest}
			if change != nil {
				answers = change(honest)
			}
			for _, a := range answers {
				if _, err := conn.WriteTo(a, from); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Cleanup(func() { conn.Close(); done.Wait() })
	return conn.LocalAddr().String()
}

func TestNTP(t *testing.T) {
	t.Parallel()
	b, ok := buildBundled(t, "ntp")
	if !ok {
		return
	}
	with := func(offset int, bytes ...byte) func([]byte) [][]byte {
		return func(honest []byte) [][]byte {
			copy(honest[offset:], bytes)
			return [][]byte{honest}
		}
	}
	source := func(stratum byte, code string) func([]byte) [][]byte {
		return func(honest []byte) [][]byte {
			honest[1] = stratum
			copy(honest[12:16], code)
			return [][]byte{honest}
		}
	}
	for name, tt := range map[string]struct {
		change  func([]byte) [][]byte
		config  string
		status  sdk.Status
		message string
	}{
		"two seconds ahead":   {nil, `{}`, sdk.Degraded, "stratum 2; offset_seconds is "},
		"which may be":        {nil, `{"max_offset_ms":5000}`, sdk.Up, "stratum 2"},
		"a clock of its own":  {source(1, "GPS"), `{"max_offset_ms":5000}`, sdk.Up, "stratum 1 (GPS)"},
		"not synchronised":    {with(0, 0xe4), `{}`, sdk.Down, "the server's clock is not synchronised"},
		"stratum 16":          {with(1, 16), `{}`, sdk.Down, "the server's clock is not synchronised"},
		"a kiss of death":     {source(0, "DENY"), `{}`, sdk.Down, "the server refuses to serve this machine (kiss-o'-death DENY)"},
		"too many questions":  {source(0, "RATE"), `{}`, sdk.Unknown, "the server wants to be asked less often (kiss-o'-death RATE)"},
		"an odd kiss":         {source(0, "\"\\\xff\x01"), `{}`, sdk.Down, `the server gives no time (kiss-o'-death "\)`},
		"no time":             {with(40, 0, 0, 0, 0, 0, 0, 0, 0), `{}`, sdk.Down, "the server's answer has no time in it"},
		"to another question": {with(24, 1, 2, 3), `{}`, sdk.Down, "what answered in time did not answer this question: "},
		"not of a server":     {with(0, 0x23), `{}`, sdk.Down, "what answered in time did not answer this question: "},
		"cut":                 {func(honest []byte) [][]byte { return [][]byte{honest[:47]} }, `{}`, sdk.Down, "what answered in time did not"},
		"nothing":             {func([]byte) [][]byte { return nil }, `{}`, sdk.Down, "no answer in time from 127.0.0.1:"},
		"noise, then time": {
			func(honest []byte) [][]byte { return [][]byte{{1}, {}, bytes.Repeat([]byte{0x24}, 2000), honest} },
			`{"max_offset_ms":5000}`, sdk.Up, "stratum 2",
		},
		"nothing but noise":        {func([]byte) [][]byte { return noise(20) }, `{}`, sdk.Down, "what answered did not answer this question: "},
		"a configuration in words": {nil, `{"max_offset_ms":"many"}`, sdk.Unknown, "max_offset_ms must be a whole number of milliseconds"},
		"a negative one":           {nil, `{"max_offset_ms":-1}`, sdk.Unknown, "max_offset_ms must be a whole number of milliseconds"},
	} {
		target := clockServer(t, tt.change)
		got := b.check(t, sdk.CheckRequest{Target: target, Config: json.RawMessage(tt.config), Timeout: 300 * time.Millisecond})
		if got.Status != tt.status || !strings.HasPrefix(got.Message, tt.message) {
			t.Errorf("%s: %s %q, want %s %q", name, got.Status, got.Message, tt.status, tt.message)
		}
		if got.Status != sdk.Up {
			continue
		}
		if offset := metric(t, got, "offset_seconds"); offset < 1.5 || offset > 2.5 {
			t.Errorf("%s: the offset is %g", name, offset)
		}
		if delay := metric(t, got, "delay_seconds"); delay < 0 || delay > 1 || got.Latency <= 0 {
			t.Errorf("%s: the delay is %g, the latency %s", name, delay, got.Latency)
		}
	}
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for target, want := range map[string]sdk.Result{
		nobody.LocalAddr().String(): {Status: sdk.Down, Message: "the connection was refused"},
		"unheard.test":              {Status: sdk.Down, Message: "udp://unheard.test:123: look up unheard.test: no such host"},
		"metadata.test:123":         {Message: "not granted: udp://metadata.test:123: address not allowed"},
		"":                          {Message: "the target must be HOST or HOST:PORT"},
		strings.Repeat("x", 600):    {Message: "the target must be HOST or HOST:PORT"},
		`a"b/../c?d\é`:              {Message: "no path below /net"},
		"127.0.0.1:99999":           {Message: "no path below /net"},
		"[::1]x":                    {Message: "no path below /net"},
	} {
		got := b.check(t, sdk.CheckRequest{Target: target, Monitor: sdk.Ref{Name: `"target":"x"`, Labels: map[string]string{"target": "y"}}})
		if got.Status != want.Status || !strings.Contains(got.Message, want.Message) {
			t.Errorf("target %q: %s %q, want %s %q", target, got.Status, got.Message, want.Status, want.Message)
		}
	}
}

// noise gives so many datagrams that are no answers.
func noise(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = []byte{byte(i)}
	}
	return all
}

func TestSMSGateway(t *testing.T) {
	t.Parallel()
	b, ok := buildBundled(t, "sms-gateway")
	if !ok {
		return
	}
	type got struct {
		Method, Path, User, Password, Key, Type string
		Form                                    url.Values
	}
	var (
		mu     sync.Mutex
		last   got
		status = http.StatusAccepted
	)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		user, password, _ := r.BasicAuth()
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		last = got{r.Method, r.URL.Path, user, password, r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), r.PostForm}
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(status)
		fmt.Fprintf(w, "you sent %s", password)
	}))
	defer gateway.Close()
	send := func(address string) error {
		config := json.RawMessage(fmt.Sprintf(`{"url":%q,"username":"u","password":"hush","to":"+49170","text_field":"message"}`, address))
		req := sdk.NotifyRequest{Config: config, Timeout: 5 * time.Second, Notification: sdk.Notification{ID: "01J", Transition: sdk.WentDown, Text: "DOWN: api – refused"}}
		text := b.call(t, "notify", req, reach.Call{Config: config}, 5*time.Second)
		answer, err := sdk.ParseNotifyResponse(text)
		if err != nil {
			t.Fatalf("the answer %s: %v", text, err)
		}
		return answer.Err
	}
	if err := send(gateway.URL + "/send"); err != nil {
		t.Fatal(err)
	}
	want := got{
		"POST", "/send", "u", "hush", "01J", "application/x-www-form-urlencoded; charset=utf-8",
		url.Values{"to": {"+49170"}, "message": {"DOWN: api - refused"}},
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, tt := range []struct {
		status    int
		want      string
		permanent bool
		delay     time.Duration
	}{
		{401, "the gateway answered 401: you sent ••••", true, 0},
		{429, "the gateway answered 429: you sent ••••", false, 7 * time.Second},
		{503, "the gateway answered 503: you sent ••••", false, 7 * time.Second},
	} {
		mu.Lock()
		status = tt.status
		mu.Unlock()
		err := send(gateway.URL)
		if err == nil || err.Error() != tt.want || sdk.IsPermanent(err) != tt.permanent || sdk.RetryDelay(err) != tt.delay {
			t.Errorf("%d: %v, permanent %v, delay %s", tt.status, err, sdk.IsPermanent(err), sdk.RetryDelay(err))
		}
	}
	gateway.Close()
	for address, want := range map[string]string{
		gateway.URL:                  "the connection was refused",
		"http://metadata.test/?hush": "address not allowed",
		"gopher://127.0.0.1/hush":    "gopher",
	} {
		if err := send(address); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want an error with %q", address, err, want)
		}
	}
}

// TestBundledBehindTheWalls installs what `make plugins` makes and calls it in its runner, with the server's own connections.
func TestBundledBehindTheWalls(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	for name, try := range map[string]func(){
		"ntp": func() {
			req := request(clockServer(t, nil))
			req.Config = json.RawMessage(`{"max_offset_ms":5000}`)
			if r := b.mustCheck("ntp", req); r.Message != "stratum 2" {
				t.Errorf("ntp: %q", r.Message)
			}
		},
		"redis": func() {
			port, ok := redisServer(t)
			if !ok {
				return
			}
			if r := b.mustCheck("redis", request("127.0.0.1:"+port)); !strings.HasPrefix(r.Message, "PONG as master, redis ") {
				t.Errorf("redis: %q", r.Message)
			}
		},
		"sms-gateway": func() {
			sent := make(chan string, 1)
			gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent <- r.FormValue("text") }))
			defer gateway.Close()
			n, err := b.Notifier("sms-gateway", json.RawMessage(`{"url":"`+gateway.URL+`","to":"1"}`))
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Notify(t.Context(), sdk.Notification{ID: "1", Transition: sdk.Test, Text: "a test"}); err != nil {
				t.Fatal(err)
			}
			if text := <-sent; text != "a test" {
				t.Errorf("sms-gateway sent %q", text)
			}
		},
	} {
		path, ok := buildArchive(t, name)
		if !ok {
			continue
		}
		archive, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := b.Install(t.Context(), archive, monitor.PluginInstall{Grant: true})
		if err := errors.Join(err, archive.Close()); err != nil {
			t.Fatalf("install %s: %v", name, err)
		}
		if v.Name != name || v.Condition != monitor.PluginReady {
			t.Errorf("%s is %s: %s", v.Name, v.Condition, v.Why)
		}
		try()
	}
}

// BenchmarkBundled measures a call of each bundled module from a clean state, with its server on this machine.
func BenchmarkBundled(b *testing.B) {
	for _, name := range []string{"ntp", "redis", "sms-gateway"} {
		b.Run(name, func(b *testing.B) {
			plugin, ok := buildBundled(b, name)
			if !ok {
				return
			}
			one := func() {}
			switch name {
			case "ntp":
				target := clockServer(b, nil)
				one = func() { plugin.check(b, sdk.CheckRequest{Target: target}) }
			case "redis":
				port, ok := redisServer(b)
				if !ok {
					return
				}
				one = func() { plugin.check(b, sdk.CheckRequest{Target: "127.0.0.1:" + port}) }
			case "sms-gateway":
				server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				defer server.Close()
				config := json.RawMessage(`{"url":"` + server.URL + `","to":"1"}`)
				one = func() {
					plugin.call(b, "notify", sdk.NotifyRequest{Config: config, Notification: sdk.Notification{ID: "1", Text: "DOWN: api"}}, reach.Call{Config: config}, time.Second)
				}
			}
			for b.Loop() {
				one()
			}
			b.ReportMetric(float64(plugin.size), "bytes/module")
		})
	}
}
