package host

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// redisServer starts a real server with some more arguments and gives its port. It reports false when there is none here.
func redisServer(t testing.TB, args ...string) (port string, ok bool) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server is missing; install it with: apt-get install redis-server")
		}
		t.Log("redis-server is not there, so the plugin was not tried with it; apt-get install redis-server has it")
		return "", false
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{port}", port)
	}
	cmd := exec.Command(program, append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", ""}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(out)
	ready := false
	for !ready && lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		ready = strings.Contains(lines.Text(), "eady to accept connections")
	}
	var rest sync.WaitGroup
	rest.Go(func() { _, _ = io.Copy(io.Discard, out) })
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		rest.Wait()
		_ = cmd.Wait() // it was killed
	})
	if !ready {
		t.Fatalf("redis-server did not start:\n%s", said.String())
	}
	return port, true
}

func TestRedis(t *testing.T) {
	t.Parallel()
	b, ok := buildBundled(t, "redis")
	if !ok {
		return
	}
	cert, key := certificate(t)
	port, ok := redisServer(t, "--requirepass", "hush", "--maxmemory", "100mb", "--tls-port", "0")
	if !ok {
		return
	}
	secure, _ := redisServer(t, "--port", "0", "--tls-port", "{port}", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	replica, _ := redisServer(t, "--replicaof", "127.0.0.1 1")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, tt := range map[string]struct {
		target, config string
		status         sdk.Status
		message        string
	}{
		"a master":            {"127.0.0.1:" + port, `{"password":"hush","expect_role":"master"}`, sdk.Up, "PONG as master, redis "},
		"out of its range":    {"127.0.0.1:" + port, `{"password":"hush","warn":{"memory_percent":"50:"}}`, sdk.Degraded, "PONG as master, redis "},
		"no password":         {"127.0.0.1:" + port, `{}`, sdk.Unknown, "the server wants a user name and password: NOAUTH"},
		"another password":    {"127.0.0.1:" + port, `{"password":"loud"}`, sdk.Unknown, "the server does not accept the user name and password: WRONGPASS"},
		"another role":        {"127.0.0.1:" + port, `{"password":"hush","expect_role":"replica"}`, sdk.Down, "PONG as master, redis "},
		"a replica alone":     {"127.0.0.1:" + replica, `{}`, sdk.Degraded, "PONG as replica, redis "},
		"TLS":                 {"127.0.0.1:" + secure, `{"tls":true,"tls_insecure":true}`, sdk.Up, "PONG as master, redis "},
		"TLS not trusted":     {"127.0.0.1:" + secure, `{"tls":true}`, sdk.Down, "certificate is self-signed"},
		"TLS where is none":   {"127.0.0.1:" + port, `{"tls":true}`, sdk.Down, ""},
		"nobody":              {closed.Addr().String(), `{}`, sdk.Down, "the connection was refused"},
		"a web server":        {web.Listener.Addr().String(), `{}`, sdk.Down, `the server does not speak the protocol of Redis: it answered "HTTP/1.1 400 Bad Request"`},
		"a server that waits": {silent.Addr().String(), `{}`, sdk.Down, "no answer in time"},
		"an unknown name":     {"unheard.test:6379", `{}`, sdk.Down, "tcp://unheard.test:6379: look up unheard.test: no such host"},
		"a denied address":    {"metadata.test:6379", `{}`, sdk.Unknown, "not granted: tcp://metadata.test:6379: address not allowed"},
		"no port":             {"127.0.0.1", `{}`, sdk.Unknown, ""},
		"a field too many":    {"127.0.0.1:" + port, `{"pasword":"hush"}`, sdk.Unknown, "read config: "},
	} {
		got := b.check(t, sdk.CheckRequest{Target: tt.target, Config: json.RawMessage(tt.config), Timeout: time.Second})
		if got.Status != tt.status || !strings.HasPrefix(got.Message, tt.message) || strings.Contains(got.Message, "hush") || strings.Contains(got.Message, "loud") {
			t.Errorf("%s: %s %q, want %s %q", name, got.Status, got.Message, tt.status, tt.message)
		}
	}
	first := b.check(t, sdk.CheckRequest{Target: "127.0.0.1:" + port, Config: json.RawMessage(`{"password":"hush"}`)})
	second := b.check(t, sdk.CheckRequest{Target: "127.0.0.1:" + port, Config: json.RawMessage(`{"password":"hush"}`), State: first.State})
	if first.State == "" || second.State != first.State || second.Message != first.Message {
		t.Errorf("the message and the state change from %q %q to %q %q", first.Message, first.State, second.Message, second.State)
	}
	if n := metric(t, second, "memory_percent"); n <= 0 || n > 50 || metric(t, second, "connected_clients") < 1 || metric(t, second, "memory_max") != 100<<20 {
		t.Errorf("metrics %+v", second.Metrics)
	}
	other := b.check(t, sdk.CheckRequest{Target: "127.0.0.1:" + replica, State: first.State})
	if !strings.Contains(other.Message, "restarted since the last check") {
		t.Errorf("another server in its place: %q", other.Message)
	}
}

// certificate makes a self-signed certificate for 127.0.0.1 and gives the files of it and of its key.
func certificate(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
