package netfs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
)

func TestTCP(t *testing.T) {
	t.Parallel()
	port := listen(t, func(c net.Conn) {
		b := make([]byte, 5)
		io.ReadFull(c, b)
		c.Write(append([]byte("got "), b...))
	})
	f := newFS(t, Options{})
	c := open(t, f, "tcp/a.test:"+port)
	write(t, c, "he")
	write(t, c, "")
	write(t, c, "llo")
	if got := readAll(t, c); got != "got hello" {
		t.Errorf("read %q", got)
	}
	if got := read(t, c); got != "" {
		t.Errorf("after the end: %q", got)
	}
	if in, out := f.Usage(); in != 9 || out != 5 {
		t.Errorf("usage is %d, %d", in, out)
	}
	if errno := c.Close(); errno != 0 {
		t.Error(errno)
	}
	for name, errno := range map[string]esys.Errno{"close": c.Close(), "write": second(c.Write([]byte("x"))), "read": second(c.Read(make([]byte, 1)))} {
		if errno != esys.EBADF {
			t.Errorf("%s after close: %v", name, errno)
		}
	}
	if _, failed := f.Last(); failed {
		t.Error("something failed")
	}
}

func second(_ int, errno esys.Errno) esys.Errno { return errno }

// TestOpen is the table of what an open that fails says.
func TestOpen(t *testing.T) {
	t.Parallel()
	closed := listen(t, func(net.Conn) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	nobody := portOf(l.Addr())
	for path, want := range map[string]struct {
		errno esys.Errno
		kind  broker.Kind
		words string
	}{
		"tcp/denied.example:1":              {esys.EACCES, broker.Denied, "not granted: tcp://denied.example:1"},
		"udp/denied.example:1":              {esys.EACCES, broker.Denied, "not granted"},
		"tls/denied.example:1":              {esys.EACCES, broker.Denied, "not granted"},
		"cert/denied.example:1":             {esys.EACCES, broker.Denied, "not granted"},
		"dns/A/denied.example":              {esys.EACCES, broker.Denied, "not granted: dns://denied.example"},
		"dns/A/a.test?server=b.example:53":  {esys.EACCES, broker.Denied, "not granted: udp://b.example:53"},
		"icmp/denied.example":               {esys.EACCES, broker.Denied, "not granted"},
		"tcp/metadata.test:80":              {esys.EACCES, broker.Denied, "169.254.169.254"},
		"tcp/127.0.0.1:" + nobody:           {esys.EIO, broker.Refused, "connecting to 127.0.0.1:" + nobody},
		"tls/a.test:" + closed:              {esys.EIO, broker.Closed, "TLS handshake with a.test:" + closed},
		"cert/a.test:" + closed:             {esys.EIO, broker.Closed, "TLS handshake"},
		"tls/@5":                            {esys.EINVAL, broker.Invalid, "no open stream has the id 5"},
		"tcp/a.test:80?x=1":                 {esys.EINVAL, broker.Invalid, "no option"},
		"tcp/a.test:80?id=1&id=1":           {esys.EINVAL, broker.Invalid, "repeated"},
		"tcp/a.test":                        {esys.EINVAL, broker.Invalid, "port"},
		"tcp/a%2fb:80":                      {esys.EINVAL, broker.Invalid, "host name"},
		"tcp/a.test:80/":                    {esys.EINVAL, broker.Invalid, ""},
		"tcp/a\x00b:80":                     {esys.EINVAL, broker.Invalid, ""},
		"../etc/passwd":                     {esys.EINVAL, broker.Invalid, ""},
		"http/":                             {esys.EINVAL, broker.Invalid, ""},
		"":                                  {esys.EINVAL, broker.Invalid, ""},
		"tcp/" + strings.Repeat("a", 1<<20): {esys.EINVAL, broker.Invalid, "longer than 1024"},
	} {
		f := newFS(t, Options{})
		file, errno := f.OpenFile(path, esys.O_RDWR, 0)
		if file != nil || errno != want.errno {
			t.Errorf("%.60q: %v, %v, want %v", path, file, errno, want.errno)
		}
		failed(t, f, want.kind, want.words)
		last, _ := f.Last()
		if last.Op != "open" || !strings.HasPrefix(last.Path, "/net/") || len(last.Path) > 300 {
			t.Errorf("%.60q: %+v", path, last)
		}
		if f.files != 0 || len(f.conns) != 0 || f.held != 0 {
			t.Errorf("%.60q: %d files, %d connections and %d bytes are left", path, f.files, len(f.conns), f.held)
		}
	}
}

func TestFlagsAndModes(t *testing.T) {
	t.Parallel()
	n := everything(t)
	f := newFS(t, Options{Network: n})
	port := listen(t, echoTCP)
	path := "tcp/a.test:" + port
	for _, st := range []string{path, "http", "error", "dns/A/a.test", "tls/@1"} {
		got, errno := f.Stat(st)
		if errno != 0 || !got.Mode.IsRegular() {
			t.Errorf("stat %s: %v, %v", st, got.Mode, errno)
		}
	}
	if _, errno := f.Lstat("tcp"); errno != esys.ENOENT {
		t.Errorf("stat tcp: %v", errno)
	}
	if n.asked.Load() != 0 {
		t.Error("stat asked the network")
	}
	if _, errno := f.OpenFile(path, esys.O_DIRECTORY, 0); errno != esys.ENOTDIR || n.asked.Load() != 0 {
		t.Errorf("open as a directory: %v", errno)
	}
	harmless := esys.O_RDWR | esys.O_CREAT | esys.O_TRUNC | esys.O_EXCL | esys.O_APPEND | esys.O_NONBLOCK | esys.O_SYNC | esys.O_NOFOLLOW
	c, errno := f.OpenFile(path, harmless, 0o644)
	if errno != 0 {
		t.Fatal(errno)
	}
	write(t, c, "x")
	if got := read(t, c); got != "x" {
		t.Errorf("read %q", got)
	}
	if c.SetAppend(true) != 0 || c.Truncate(0) != 0 || c.Sync() != 0 || c.Datasync() != 0 {
		t.Error("a harmless operation fails")
	}
	if _, errno := c.Seek(0, io.SeekStart); errno == 0 {
		t.Error("a stream has a position")
	}
	c.Close()
	r, _ := f.OpenFile(path, esys.O_RDONLY, 0)
	w, _ := f.OpenFile(path, esys.O_WRONLY, 0)
	if _, errno := r.Write([]byte("x")); errno != esys.EBADF {
		t.Errorf("write to what was opened for reading: %v", errno)
	}
	if _, errno := w.Read(make([]byte, 1)); errno != esys.EBADF {
		t.Errorf("read from what was opened for writing: %v", errno)
	}
}

func TestManyOpen(t *testing.T) {
	t.Parallel()
	f := newFS(t, Options{})
	path := "tcp/a.test:" + listen(t, echoTCP)
	var files []esys.File
	for range maxOpen {
		files = append(files, open(t, f, path))
	}
	if _, errno := f.OpenFile(path, esys.O_RDWR, 0); errno != esys.EAGAIN {
		t.Errorf("one more: %v", errno)
	}
	failed(t, f, broker.Busy, "32 files")
	files[0].Close()
	files[0].Close() // counts once
	open(t, f, path)
	if _, errno := f.OpenFile(path, esys.O_RDWR, 0); errno != esys.EAGAIN {
		t.Errorf("one more: %v", errno)
	}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(chan int, 10)
	go func() {
		defer close(sizes)
		b := make([]byte, 65536)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			sizes <- n
			server.WriteTo([]byte(strings.ToUpper(string(b[:n]))), from)
		}
	}()
	f := newFS(t, Options{})
	c := open(t, f, "udp/127.0.0.1:"+portOf(server.LocalAddr()))
	write(t, c, "one")
	write(t, c, "") // no datagram
	write(t, c, "three")
	if got := read(t, c); got != "ONE" {
		t.Errorf("first datagram %q", got)
	}
	small := make([]byte, 2)
	if n, errno := c.Read(small); n != 2 || errno != 0 || string(small) != "TH" {
		t.Errorf("a short read gives %q, %v", small[:n], errno)
	}
	write(t, c, "x")
	if got := read(t, c); got != "X" {
		t.Errorf("what a short read left comes back: %q", got)
	}
	if _, errno := c.Write(make([]byte, 70000)); errno != esys.EINVAL {
		t.Errorf("a datagram that is too long: %v", errno)
	}
	failed(t, f, broker.Invalid, "too long")
	server.Close()
	var got []int
	for n := range sizes {
		got = append(got, n)
	}
	if diff := cmp.Diff([]int{3, 5, 1}, got); diff != "" {
		t.Error(diff)
	}
	// Nobody is there any more, which a datagram learns by ICMP.
	write(t, c, "y")
	if _, errno := c.Read(small); errno != esys.EIO {
		t.Errorf("read of a closed port: %v", errno)
	}
	failed(t, f, broker.Refused)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for path, ask := range map[string]string{
		"tcp/a.test:" + silent:  "",
		"http":                  `{"url":"http://a.test:` + silent + `/secret?token=hush"}`,
		"tls/a.test:" + silent:  "",
		"cert/a.test:" + silent: "",
		"dns/A/slow.test":       "",
	} {
		f := newFS(t, Options{Deadline: time.Now().Add(50 * time.Millisecond)})
		c, errno := f.OpenFile(path, esys.O_RDWR, 0)
		if errno == 0 {
			if ask != "" {
				_, errno = c.Write([]byte(ask))
			} else {
				_, errno = c.Read(make([]byte, 1))
			}
		}
		if errno != esys.EIO {
			t.Errorf("%s: %v", path, errno)
		}
		failed(t, f, broker.Timeout, "no answer in time")
		if last, _ := f.Last(); strings.Contains(last.Message, "hush") {
			t.Errorf("%s tells a secret: %q", path, last.Message)
		}
		// After the deadline everything fails at once.
		if _, errno := f.OpenFile("tcp/a.test:"+silent, esys.O_RDWR, 0); errno != esys.EIO {
			t.Errorf("%s: open after the deadline: %v", path, errno)
		}
		failed(t, f, broker.Timeout)
	}
}

// TestBigWrite fills all buffers on the way: a write ends at the deadline too, and so does the farewell of TLS.
func TestBigWrite(t *testing.T) {
	t.Parallel()
	a := newCA(t)
	cert := a.issue(t, time.Now().Add(time.Hour), "a.test")
	port := secured(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(*tls.Conn) { <-t.Context().Done() })
	f := newFS(t, Options{Roots: a.roots, Deadline: time.Now().Add(300 * time.Millisecond)})
	c := open(t, f, "tls/a.test:"+port)
	big := make([]byte, 1<<20)
	var errno esys.Errno
	for range 100 {
		if _, errno = c.Write(big); errno != 0 {
			break
		}
	}
	if errno != esys.EIO {
		t.Errorf("write: %v", errno)
	}
	failed(t, f, broker.Timeout)
	c.Close()
}

func TestClose(t *testing.T) {
	t.Parallel()
	f := newFS(t, Options{})
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	c := open(t, f, "tcp/a.test:"+silent)
	x := open(t, f, "http")
	reading := make(chan esys.Errno)
	go func() {
		_, errno := c.Read(make([]byte, 1))
		reading <- errno
	}()
	fetching := make(chan error)
	go func() {
		_, err := f.Fetch([]byte(`{"url":"http://b.test:` + silent + `"}`))
		fetching <- err
	}()
	f.Close()
	f.Close()
	if errno := <-reading; errno != esys.EBADF {
		t.Errorf("the read that waited: %v", errno)
	}
	if err := <-fetching; err == nil {
		t.Error("the request that waited has an answer")
	}
	_, opened := f.OpenFile("tcp/a.test:"+silent, esys.O_RDWR, 0)
	_, last := f.OpenFile("error", esys.O_RDONLY, 0)
	for name, errno := range map[string]esys.Errno{
		"open": opened, "error": last, "write": second(c.Write([]byte("x"))),
		"http": second(x.Write([]byte("{}"))), "answer": second(x.Read(make([]byte, 1))),
	} {
		if errno != esys.EBADF {
			t.Errorf("%s: %v", name, errno)
		}
	}
	if len(f.conns) != 0 {
		t.Errorf("%d connections are open", len(f.conns))
	}
	c.Close()
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	f := newFS(t, Options{})
	if got := content[map[string]any](t, f, "error"); len(got) != 0 {
		t.Errorf("nothing has failed, but there is %v", got)
	}
	want := map[string]any{"rcode": "NOERROR", "answers": []any{map[string]any{"name": "a.test", "type": "MX", "ttl": 60.0, "data": "10 mx.test."}}}
	if diff := cmp.Diff(want, content[map[string]any](t, f, "dns/mx/a.test")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"rcode": "NXDOMAIN", "answers": []any{}}, content[map[string]any](t, f, "dns/A/none.test")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"rtt_us": 1500.0, "ttl": 64.0, "addr": "127.0.0.1"}, content[map[string]any](t, f, "icmp/a.test")); diff != "" {
		t.Error(diff)
	}
	d := open(t, f, "icmp/a.test")
	st, errno := d.Stat()
	if text := readAll(t, d); errno != 0 || int(st.Size) != len(text) {
		t.Errorf("size %d of %q", st.Size, text)
	}
	if _, errno := d.Write([]byte("x")); errno != esys.EBADF {
		t.Errorf("write: %v", errno)
	}
	f.OpenFile("tcp/x.example:1", esys.O_RDWR, 0)
	f.OpenFile("error", esys.O_RDONLY, 0)
	open(t, f, "icmp/a.test").Close()
	failed(t, f, broker.Denied, "x.example") // what succeeds changes nothing
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a, hour := newCA(t), time.Now().Add(time.Hour)
	hello := func(c *tls.Conn) {
		s := c.ConnectionState()
		io.WriteString(c, strings.Join([]string{tls.VersionName(s.Version), s.ServerName, s.NegotiatedProtocol}, " "))
	}
	serve := func(cert tls.Certificate, version uint16) string {
		return secured(t, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: version, NextProtos: []string{"h2", "imap"}}, hello)
	}
	good := serve(a.issue(t, hour, "a.test", "127.0.0.1"), tls.VersionTLS13)
	for name, tt := range map[string]struct {
		path string
		want string // what is read
		kind broker.Kind
		fail string
	}{
		"name":        {path: "a.test:" + good, want: "TLS 1.3 a.test "},
		"address":     {path: "127.0.0.1:" + good, want: "TLS 1.3  "},
		"servername":  {path: "127.0.0.1:" + good + "?servername=a.test", want: "TLS 1.3 a.test "},
		"alpn":        {path: "a.test:" + good + "?alpn=x,imap", want: "TLS 1.3 a.test imap"},
		"no alpn":     {path: "a.test:" + good + "?alpn=x", kind: broker.TLS, fail: "no application protocol"},
		"1.2":         {path: "a.test:" + serve(a.issue(t, hour, "a.test"), tls.VersionTLS12), want: "TLS 1.2 a.test "},
		"1.1":         {path: "a.test:" + serve(a.issue(t, hour, "a.test"), tls.VersionTLS11), kind: broker.TLS, fail: "protocol version"},
		"wrong name":  {path: "b.test:" + good, kind: broker.TLS, fail: "certificate is for a.test, 127.0.0.1, not for b.test"},
		"insecure":    {path: "b.test:" + good + "?insecure=1", want: "TLS 1.3 b.test "},
		"secure":      {path: "b.test:" + good + "?insecure=0", kind: broker.TLS, fail: "not for b.test"},
		"expired":     {path: "a.test:" + serve(a.issue(t, time.Now().Add(-time.Hour), "a.test"), 0), kind: broker.TLS, fail: "certificate expired at "},
		"too early":   {path: "a.test:" + serve(a.issue(t, time.Now().Add(9*time.Hour), "a.test"), 0), kind: broker.TLS, fail: "certificate is not valid before "},
		"self-signed": {path: "a.test:" + serve((*ca)(nil).issue(t, hour, "a.test"), 0), kind: broker.TLS, fail: "certificate is self-signed (CN=a.test)"},
		"unknown":     {path: "a.test:" + serve(newCA(t).issue(t, hour, "a.test"), 0), kind: broker.TLS, fail: "unknown authority (CN=a.test, issuer CN=Test CA)"},
		"no TLS":      {path: "a.test:" + listen(t, func(c net.Conn) { io.WriteString(c, "220 hello there\r\n"); io.Copy(io.Discard, c) }), kind: broker.TLS, fail: "does not speak TLS"},
	} {
		f := newFS(t, Options{Roots: a.roots})
		c, errno := f.OpenFile("tls/"+tt.path, esys.O_RDWR, 0)
		if tt.fail != "" {
			if errno != esys.EIO {
				t.Errorf("%s: %v", name, errno)
			}
			failed(t, f, tt.kind, tt.fail)
			continue
		}
		if errno != 0 {
			last, _ := f.Last()
			t.Errorf("%s: %v, %+v", name, errno, last)
			continue
		}
		if got := readAll(t, c); got != tt.want {
			t.Errorf("%s: read %q, want %q", name, got, tt.want)
		}
		c.Close()
	}
	f := newFS(t, Options{Roots: func() (*x509.CertPool, error) { return nil, errors.New("no such file") }})
	if _, errno := f.OpenFile("tls/a.test:"+good, esys.O_RDWR, 0); errno != esys.EIO {
		t.Errorf("without roots: %v", errno)
	}
	failed(t, f, broker.TLS, "the trusted certificates cannot be read: no such file")
}

// TestTakeOver plays a protocol in the way of STARTTLS.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	a := newCA(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.issue(t, time.Now().Add(time.Hour), "a.test")}}
	port := listen(t, func(c net.Conn) {
		io.WriteString(c, "220 ready\r\n")
		b := make([]byte, 10)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "STARTTLS\r\n" {
			return
		}
		io.WriteString(c, "220 go\r\n")
		s := tls.Server(c, config)
		io.Copy(s, s)
	})
	start := func(f *FS) esys.File {
		c := open(t, f, "tcp/a.test:"+port+"?id=7")
		read(t, c)
		write(t, c, "STARTTLS\r\n")
		read(t, c)
		return c
	}
	f := newFS(t, Options{Roots: a.roots})
	plain := start(f)
	if _, errno := f.OpenFile("tcp/a.test:"+port+"?id=7", esys.O_RDWR, 0); errno != esys.EINVAL {
		t.Errorf("an id twice: %v", errno)
	}
	secure := open(t, f, "tls/@7")
	if _, errno := plain.Write([]byte("in plain")); errno != esys.EIO {
		t.Errorf("write to the plain handle: %v", errno)
	}
	failed(t, f, broker.Closed, "taken")
	if _, errno := plain.Read(make([]byte, 1)); errno != esys.EIO {
		t.Errorf("read from the plain handle: %v", errno)
	}
	plain.Close() // does not end the stream
	write(t, secure, "EHLO\r\n")
	if got := read(t, secure); got != "EHLO\r\n" {
		t.Errorf("read %q", got)
	}
	if _, errno := f.OpenFile("tls/@7", esys.O_RDWR, 0); errno != esys.EINVAL {
		t.Errorf("taken over twice: %v", errno)
	}
	start(f).Close() // the id is free again
	if _, errno := f.OpenFile("tls/@7", esys.O_RDWR, 0); errno != esys.EINVAL {
		t.Errorf("of a closed stream: %v", errno)
	}
	again := start(f)
	if _, errno := f.OpenFile("tls/@7?servername=b.test", esys.O_RDWR, 0); errno != esys.EIO {
		t.Errorf("with another name: %v", errno)
	}
	failed(t, f, broker.TLS, "not for b.test")
	if _, errno := again.Write([]byte("x")); errno != esys.EIO {
		t.Errorf("after a handshake that failed: %v", errno)
	}
	again.Close()
	secure.Close()
	if f.files != 0 || len(f.conns) != 0 {
		t.Errorf("%d files, %d connections are left", f.files, len(f.conns))
	}
}

func TestCert(t *testing.T) {
	t.Parallel()
	a, hour := newCA(t), time.Now().Add(time.Hour)
	quiet := func(*tls.Conn) {}
	serve := func(cert tls.Certificate, also func(*tls.Config)) string {
		config := &tls.Config{Certificates: []tls.Certificate{cert}}
		if also != nil {
			also(config)
		}
		return secured(t, config, quiet)
	}
	chained := a.issue(t, hour, "a.test", "127.0.0.1")
	chained.Certificate = append(chained.Certificate, a.cert.Raw)
	demands := func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }
	f := newFS(t, Options{Roots: a.roots})
	got := content[certJSON](t, f, "cert/a.test:"+serve(chained, nil))
	if !got.Verified || got.Reason != "" || got.Version != "TLS 1.3" || len(got.Chain) != 2 {
		t.Errorf("got %+v", got)
	}
	leaf := got.Chain[0]
	if len(leaf.SHA256) != 64 {
		t.Errorf("fingerprint %q", leaf.SHA256)
	}
	leaf.SHA256 = ""
	want := certificateJSON{
		Subject: "CN=a.test", Issuer: "CN=Test CA", Serial: "abc", DNSNames: []string{"a.test"}, IPAddresses: []string{"127.0.0.1"},
		NotBefore: stamp(hour.Add(-2 * time.Hour)), NotAfter: stamp(hour), Signature: "ECDSA-SHA256", Key: "ECDSA P-256",
	}
	if diff := cmp.Diff(want, leaf); diff != "" {
		t.Error(diff)
	}
	for port, reason := range map[string]string{
		serve((*ca)(nil).issue(t, hour, "a.test"), nil):              "self-signed",
		serve(a.issue(t, hour, "c.test"), nil):                       "certificate is for c.test, not for a.test",
		serve(a.issue(t, time.Now().Add(-time.Hour), "a.test"), nil): "expired",
		serve(newCA(t).issue(t, hour, "a.test"), nil):                "unknown authority",
		serve(a.issue(t, hour, "a.test"), demands):                   "",
	} {
		got := content[certJSON](t, f, "cert/a.test:"+port)
		if got.Verified != (reason == "") || !strings.Contains(got.Reason, reason) || len(got.Chain) != 1 {
			t.Errorf("%q: %+v", reason, got)
		}
	}
}
