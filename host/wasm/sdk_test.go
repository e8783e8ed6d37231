package wasm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm/netfs"
	"github.com/tocsinhq/tocsin/sdk"
)

// sdkCheck makes a check of the guest that is written with the Go SDK.
func sdkCheck(t *testing.T, m *Module, req sdk.CheckRequest, fs *netfs.FS) (sdk.CheckResponse, Reply, error) {
	t.Helper()
	data, err := req.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	call := Call{Name: "check", Request: data}
	if fs != nil {
		call.FS = fs
	}
	r, err := m.Call(context.Background(), call)
	if err != nil {
		return sdk.CheckResponse{}, r, err
	}
	c, err := sdk.ParseCheckResponse(r.Response)
	if err != nil {
		t.Fatalf("%s is answered with %q: %v", data, r.Response, err)
	}
	return c, r, nil
}

func TestSDKGuest(t *testing.T) {
	command := filepath.Join(t.TempDir(), "command.wasm")
	build := exec.Command("go", "build", "-o", command, "./testdata/sdkguest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	code, err := os.ReadFile(command)
	if err != nil {
		t.Fatal(err)
	}
	for form, module := range map[string][]byte{"reactor": goGuest(t, "sdkguest"), "command": code} {
		t.Run(form, func(t *testing.T) {
			m := open(t, module, Options{Limits: Limits{Memory: 32 << 20}})
			if m.Info().Command != (form == "command") {
				t.Fatalf("it is %+v", m.Info())
			}
			testSDKChecks(t, m)
			testSDKNotifications(t, m)
		})
	}
}

func testSDKChecks(t *testing.T, m *Module) {
	for range 2 {
		c, _, err := sdkCheck(t, m, sdk.CheckRequest{Target: "world", State: "s", Config: []byte(`{"greeting":"bye"}`)}, nil)
		if r := c.Result; err != nil || r.Status != sdk.Up || r.Message != "bye world" || r.State != "sx" || r.Latency != 1500*time.Microsecond || len(r.Metrics) != 1 {
			t.Errorf("%+v, %v", c, err)
		}
	}
	for _, tt := range []struct{ target, config, message, log string }{
		{"error no luck", "", "no luck", ""},
		{"x", `{"greting":"x"}`, `read config: json: unknown field "greting"`, ""},
		{"panic at the disco", "", "the plugin panicked: at the disco", "the plugin panicked: at the disco"},
	} {
		c, r, err := sdkCheck(t, m, sdk.CheckRequest{Target: tt.target, Config: []byte(tt.config)}, nil)
		if err != nil || c.Result.Status != sdk.Unknown || c.Result.Message != tt.message {
			t.Errorf("%s: %+v, %v", tt.target, c, err)
		}
		if (len(r.Log) > 0) != (tt.log != "") || tt.log != "" && (r.Log[0].Text != tt.log || !strings.Contains(fmt.Sprint(r.Log), "sdkguest/main.go")) {
			t.Errorf("%s: log %v", tt.target, r.Log)
		}
	}
	if _, r, err := sdkCheck(t, m, sdk.CheckRequest{Target: "log careful"}, nil); err != nil || len(r.Log) != 1 || r.Log[0].Text != "careful" {
		t.Errorf("%v, log %v", err, r.Log)
	}
	if c, _, err := sdkCheck(t, m, sdk.CheckRequest{Target: "wait", Timeout: 30 * time.Millisecond}, nil); err != nil || c.Result.Message != "context deadline exceeded" {
		t.Errorf("%+v, %v", c, err)
	}
	// A panic that nothing can catch, and an end that the author asked for, are no answers.
	var exit *ExitError
	if _, r, err := sdkCheck(t, m, sdk.CheckRequest{Target: "panic-elsewhere oh", Timeout: time.Second}, nil); err == nil || !strings.Contains(fmt.Sprint(r.Log), "panic: oh") {
		t.Errorf("%v, log %v", err, r.Log)
	}
	if _, r, err := sdkCheck(t, m, sdk.CheckRequest{Target: "exit"}, nil); !errors.As(err, &exit) || exit.Code != 3 || len(r.Response) != 0 {
		t.Errorf("%v, %q", err, r.Response)
	}
	// What crypto/rand gives does not repeat, although the memory is the same at the beginning of every call.
	seen := map[string]bool{}
	for range 3 {
		c, _, err := sdkCheck(t, m, sdk.CheckRequest{Target: "random"}, nil)
		if err != nil || len(c.Result.Message) != 16 || seen[c.Result.Message] {
			t.Errorf("%+v, %v, after %v", c, err, seen)
		}
		seen[c.Result.Message] = true
	}
}

func testSDKNotifications(t *testing.T, m *Module) {
	for text, want := range map[string]string{"fine": "", "refuse": "not now"} {
		data, err := sdk.NotifyRequest{Notification: sdk.Notification{Text: text, Incident: &sdk.Outage{}}}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Call(context.Background(), Call{Name: "notify", Request: data})
		if err != nil {
			t.Fatal(err)
		}
		n, err := sdk.ParseNotifyResponse(r.Response)
		if err != nil || (n.Err == nil) != (want == "") || n.Err != nil && (n.Err.Error() != want || sdk.RetryDelay(n.Err) != 2*time.Second) {
			t.Errorf("%s: %v, %v", text, n.Err, err)
		}
	}
}

// A call that allocates what the SDK reserved is served by one instance for ever; one that makes more garbage than there is
// memory still works, since the collector begins before.
func TestSDKMemory(t *testing.T) {
	m := open(t, goGuest(t, "sdkguest"), Options{Limits: Limits{Memory: 32 << 20}})
	allocate := func(kib int) {
		t.Helper()
		c, _, err := sdkCheck(t, m, sdk.CheckRequest{Target: fmt.Sprint("allocate ", kib)}, nil)
		if err != nil || c.Result.Status != sdk.Up {
			t.Fatalf("%d KiB: %+v, %v", kib, c, err)
		}
	}
	idle := func() *instance {
		t.Helper()
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.idle) != 1 {
			return nil
		}
		return m.idle[0]
	}
	allocate(0)
	first := idle()
	for range 3 {
		allocate(3 << 10)
		// Without snapshots every call has an instance of its own, and none is kept.
		if i := idle(); i != first || m.Snapshot() != (first != nil) {
			t.Errorf("after a call within the reserve the instance is another: %p, %p", first, i)
		}
	}
	allocate(200 << 10)
}

// near is a network that is this machine, and has no other.
type near struct{ roots *x509.CertPool }

func (near) Dial(ctx context.Context, access reach.Access) (broker.Dialled, error) {
	if access.Host.Name == "denied.test" {
		return broker.Dialled{}, &broker.Error{Kind: broker.Denied, Message: "denied.test is not granted"}
	}
	network := "tcp"
	if access.Scheme == "udp" {
		network = "udp"
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), access.Port)
	conn, err := new(net.Dialer).DialContext(ctx, network, addr.String())
	return broker.Dialled{Conn: conn, Addr: addr}, err
}

func (near) Resolve(_ context.Context, q broker.Question) (broker.Answer, error) {
	return broker.Answer{RCode: "NOERROR", Answers: []broker.Record{{Name: q.Name.String(), Type: q.Type, TTL: 60, Data: "10 mx.test"}}}, nil
}

func (near) Echo(context.Context, reach.Host) (broker.Echo, error) {
	return broker.Echo{RTT: time.Millisecond, TTL: 64, Addr: netip.MustParseAddr("192.0.2.1")}, nil
}

func (n near) fs() *netfs.FS {
	return netfs.New(netfs.Options{
		Network: n, Deadline: time.Now().Add(20 * time.Second), Roots: func() (*x509.CertPool, error) { return n.roots, nil },
	})
}

func TestSDKNetwork(t *testing.T) {
	cert, roots := testCertificate(t)
	secure := &tls.Config{Certificates: []tls.Certificate{cert}}
	serve := func(handle func(net.Conn)) string {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				handle(c)
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close(); <-done })
		_, port, _ := net.SplitHostPort(l.Addr().String())
		return "near.test:" + port
	}
	echo := func(c net.Conn) {
		b := make([]byte, 100)
		n, _ := c.Read(b)
		c.Write(bytes.ToUpper(b[:n]))
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-B", r.Header.Get("X-A"))
		w.WriteHeader(http.StatusTeapot)
		w.Write(append([]byte(r.Method+" "), body...))
	}))
	defer web.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		b := make([]byte, 100)
		for {
			n, from, err := datagrams.ReadFrom(b)
			if err != nil {
				return
			}
			datagrams.WriteTo(bytes.ToUpper(b[:n]), from)
		}
	}()
	defer func() { datagrams.Close(); <-served }()
	_, udp, _ := net.SplitHostPort(datagrams.LocalAddr().String())
	secret := serve(func(c net.Conn) { echo(tls.Server(c, secure)) })
	m := open(t, goGuest(t, "sdkguest"), Options{Limits: Limits{Memory: 32 << 20}})
	for _, tt := range []struct {
		target, want string
		fails        bool
	}{
		{"tcp " + serve(echo), "PING ", false},
		{"tls " + secret, "PING ", false},
		{"udp near.test:" + udp, "PING ", false},
		{"starttls " + serve(func(c net.Conn) { echo(c); echo(tls.Server(c, secure)) }) + " near.test", "PING PING ", false},
		{"starttls " + serve(func(c net.Conn) { echo(c); echo(tls.Server(c, secure)) }) + " other.test", "certificate is for near.test, not for other.test", true},
		{"http http://near.test" + web.URL[strings.LastIndex(web.URL, ":"):] + "/x", `418 b "POST \xffx"`, false},
		{"dns example.com", "NOERROR [{example.com MX 60 10 mx.test}]", false},
		{"ping 192.0.2.1", "{1ms 64 192.0.2.1}", false},
		{"cert " + secret, "true [near.test]", false},
		{"tcp denied.test:80", "denied.test is not granted", true},
		{"http http://denied.test/", "denied.test is not granted", true},
		{"tcp near.test", "near.test", true},
	} {
		fs := near{roots}.fs()
		c, _, err := sdkCheck(t, m, sdk.CheckRequest{Target: "network " + tt.target}, fs)
		fs.Close()
		if got := c.Result; err != nil || (got.Status == sdk.Unknown) != tt.fails || !strings.Contains(got.Message, tt.want) {
			t.Errorf("%s: %+v, %v, want %q", tt.target, got, err, tt.want)
		}
	}
	if c, _, err := sdkCheck(t, m, sdk.CheckRequest{Target: "network tcp x:1"}, nil); err != nil || c.Result.Status != sdk.Unknown || c.Result.Message == "" {
		t.Errorf("without a network: %+v, %v", c, err)
	}
}

// testCertificate makes a certificate for near.test that is its own authority.
func testCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"near.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// BenchmarkSDK measures calls of a guest that is written with the Go SDK, configuration and a metric included.
func BenchmarkSDK(b *testing.B) {
	module := goGuest(b, "sdkguest")
	req, err := sdk.CheckRequest{
		Target: "http://example.com/a/b/c", Timeout: time.Second, Attempt: 1, Config: []byte(`{"greeting":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`),
	}.MarshalJSON()
	if err != nil {
		b.Fatal(err)
	}
	m := open(b, module, Options{Limits: Limits{Memory: 32 << 20}})
	b.ReportAllocs()
	for b.Loop() {
		if r, err := m.Call(context.Background(), Call{Name: "check", Request: req}); err != nil || len(r.Response) == 0 {
			b.Fatal(err, string(r.Response))
		}
	}
}
