package netfs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// direct is a network that decides as a grant says and then dials itself. Every name is this machine.
type direct struct {
	grant  reach.Grant
	call   reach.Call
	dialed atomic.Int64 // connections made
	asked  atomic.Int64
}

func policy() netpolicy.Policy { return netpolicy.Policy{Setting: "plugins.allow_addresses"} }

func granting(t testing.TB, allow ...string) *direct {
	t.Helper()
	d := &direct{}
	for _, text := range allow {
		p, err := reach.ParsePermission(text)
		if err != nil {
			t.Fatal(err)
		}
		d.grant.Permissions = append(d.grant.Permissions, p)
	}
	d.grant.AllowPrivate = true
	return d
}

func (d *direct) addrs(access reach.Access) ([]netip.Addr, error) {
	d.asked.Add(1)
	addrs := []netip.Addr{access.Host.Addr}
	if access.Host.Name != "" {
		addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		if access.Host.Name == "metadata.test" {
			addrs = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		}
	}
	addrs, err := d.grant.Allowed(d.call, access, addrs, policy())
	if err != nil {
		return nil, &broker.Error{Kind: broker.Denied, Message: err.Error()}
	}
	return addrs, nil
}

func (d *direct) Dial(ctx context.Context, access reach.Access) (broker.Dialled, error) {
	addrs, err := d.addrs(access)
	if err != nil {
		return broker.Dialled{}, err
	}
	network := "tcp"
	if access.Scheme == "udp" {
		network = "udp"
	}
	at := netip.AddrPortFrom(addrs[0], access.Port)
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, network, at.String())
	if err != nil {
		return broker.Dialled{}, err
	}
	d.dialed.Add(1)
	return broker.Dialled{Conn: c, Addr: at, DNS: 7 * time.Microsecond, Connect: 9 * time.Microsecond}, nil
}

func (d *direct) Resolve(ctx context.Context, q broker.Question) (broker.Answer, error) {
	if _, err := d.addrs(reach.Access{Scheme: "dns", Host: q.Name}); err != nil {
		return broker.Answer{}, err
	}
	if q.Server != "" {
		server, err := reach.ParseAccess("udp", q.Server)
		if err == nil {
			_, err = d.addrs(server)
		}
		if err != nil {
			return broker.Answer{}, err
		}
	}
	switch q.Name.Name {
	case "none.test":
		return broker.Answer{RCode: "NXDOMAIN"}, nil
	case "slow.test":
		<-ctx.Done()
		return broker.Answer{}, ctx.Err()
	}
	return broker.Answer{RCode: "NOERROR", Answers: []broker.Record{{Name: q.Name.Name, Type: q.Type, TTL: 60, Data: "10 mx.test."}}}, nil
}

func (d *direct) Echo(_ context.Context, host reach.Host) (broker.Echo, error) {
	addrs, err := d.addrs(reach.Access{Scheme: "icmp", Host: host})
	if err != nil {
		return broker.Echo{}, err
	}
	return broker.Echo{RTT: 1500 * time.Microsecond, TTL: 64, Addr: addrs[0]}, nil
}

// everything is granted.
func everything(t testing.TB) *direct {
	return granting(t, "tcp://*.test:*", "tcp://127.0.0.1:*", "tls://*.test:*", "tls://127.0.0.1:*", "udp://*.test:*", "udp://127.0.0.1:*",
		"http://*.test:*", "http://127.0.0.1:*", "https://*.test:*", "https://127.0.0.1:*", "dns://*.test", "icmp://*.test", "cert://*.test:*")
}

func newFS(t testing.TB, o Options) *FS {
	t.Helper()
	if o.Network == nil {
		o.Network = everything(t)
	}
	if o.Deadline.IsZero() {
		o.Deadline = time.Now().Add(20 * time.Second)
	}
	f := New(o)
	t.Cleanup(f.Close)
	return f
}

// open opens for reading and writing.
func open(t testing.TB, f *FS, path string) esys.File {
	t.Helper()
	file, errno := f.OpenFile(path, esys.O_RDWR, 0)
	if errno != 0 {
		last, _ := f.Last()
		t.Fatalf("open %s: %v, %+v", path, errno, last)
	}
	return file
}

func write(t testing.TB, file esys.File, text string) {
	t.Helper()
	if n, errno := file.Write([]byte(text)); errno != 0 || n != len(text) {
		t.Fatalf("write %q: %d, %v", text, n, errno)
	}
}

// read reads once.
func read(t testing.TB, file esys.File) string {
	t.Helper()
	b := make([]byte, 4096)
	n, errno := file.Read(b)
	if errno != 0 {
		t.Fatalf("read: %v", errno)
	}
	return string(b[:n])
}

func readAll(t testing.TB, file esys.File) string {
	t.Helper()
	var all strings.Builder
	for {
		part := read(t, file)
		if part == "" {
			return all.String()
		}
		all.WriteString(part)
	}
}

// content opens, reads and closes.
func content[T any](t testing.TB, f *FS, path string) (v T) {
	t.Helper()
	file, errno := f.OpenFile(path, esys.O_RDONLY, 0)
	if errno != 0 {
		last, _ := f.Last()
		t.Fatalf("open %s: %v, %+v", path, errno, last)
	}
	defer file.Close()
	text := readAll(t, file)
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s has %q: %v", path, text, err)
	}
	return v
}

// failed holds the last failure against what is expected.
func failed(t testing.TB, f *FS, kind broker.Kind, words ...string) {
	t.Helper()
	last := content[Failure](t, f, "error")
	if last.Kind != kind {
		t.Errorf("failed with %+v, want kind %s", last, kind)
	}
	for _, w := range words {
		if !strings.Contains(last.Message, w) {
			t.Errorf("failed with %q, want %q in it", last.Message, w)
		}
	}
	if strings.ContainsAny(last.Message, "\r\n") || last.Message == "" {
		t.Errorf("message %q is not one line", last.Message)
	}
}

// listen serves every connection until the test ends, which it then closes.
func listen(t testing.TB, serve func(net.Conn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	conns := make(chan net.Conn, 1000)
	go func() {
		defer close(done)
		var workers []chan struct{}
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns <- c
			w := make(chan struct{})
			workers = append(workers, w)
			go func() {
				defer close(w)
				defer c.Close()
				serve(c)
			}()
		}
		close(conns)
		for c := range conns {
			c.Close()
		}
		for _, w := range workers {
			<-w
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return portOf(l.Addr())
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func echoTCP(c net.Conn) { io.Copy(c, c) }

// authority is a certificate authority of the tests.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newCA(t testing.TB) *ca {
	t.Helper()
	a := &ca{key: newKey(t), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *ca) roots() (*x509.CertPool, error) { return a.pool, nil }

// issue makes a certificate for names; after is when it ends. Without authority it is self-signed.
func (a *ca) issue(t testing.TB, after time.Time, names ...string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: names[0]}, NotBefore: after.Add(-2 * time.Hour), NotAfter: after,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secured serves TLS.
func secured(t testing.TB, config *tls.Config, serve func(*tls.Conn)) (port string) {
	return listen(t, func(c net.Conn) {
		server := tls.Server(c, config)
		if server.HandshakeContext(t.Context()) == nil {
			serve(server)
			server.Close()
		}
	})
}

// serveHTTP serves HTTP, or HTTPS with a config.
func serveHTTP(t testing.TB, config *tls.Config, h http.HandlerFunc) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ErrorLog: nil, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if config == nil {
			server.Serve(l)
			return
		}
		server.TLSConfig = config
		server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return portOf(l.Addr())
}

// answered makes a request and reads the answer.
func answered(t testing.TB, f *FS, request string) (r response) {
	t.Helper()
	out, err := f.Fetch([]byte(request))
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}
