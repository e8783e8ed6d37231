package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/sdk"
)

// failing is a prober that ends with an error.
type failing struct{ err error }

func (f failing) probe(context.Context, sdk.CheckRequest, *seen) error { return f.err }

// TestWhoseFault walks the table of own faults.
func TestWhoseFault(t *testing.T) {
	t.Parallel()
	syscallError := func(call string, errno syscall.Errno) error {
		return &failure{phase: "connecting", peer: "192.0.2.1:443", err: &net.OpError{
			Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, Err: os.NewSyscallError(call, errno),
		}}
	}
	tests := []struct {
		name string
		err  error
		own  bool
		want string
	}{
		{"EMFILE", syscallError("socket", syscall.EMFILE), true, "too many open files; raise its limit"},
		{"ENFILE", syscallError("socket", syscall.ENFILE), true, "too many open files"},
		{"ENOBUFS", syscallError("connect", syscall.ENOBUFS), true, "no network buffers"},
		{"ENOMEM", syscallError("socket", syscall.ENOMEM), true, "out of memory"},
		{"EADDRNOTAVAIL", syscallError("connect", syscall.EADDRNOTAVAIL), true, "no free local address"},
		{"EADDRINUSE", syscallError("bind", syscall.EADDRINUSE), true, "no free local port"},
		{"EPERM", syscallError("connect", syscall.EPERM), true, "does not permit"},
		{"EACCES", syscallError("socket", syscall.EACCES), true, "does not permit"},
		{"ENETUNREACH", syscallError("connect", syscall.ENETUNREACH), true, "no route to that network"},
		{"ENETDOWN", syscallError("connect", syscall.ENETDOWN), true, "network is down"},
		{"EAFNOSUPPORT", syscallError("socket", syscall.EAFNOSUPPORT), true, "no such address family"},
		{"policy", fmt.Errorf("dial: %w", fmt.Errorf("%w: 169.254.0.1", netpolicy.ErrDenied)), true, "address not allowed"},
		{"resolver silent", &net.DNSError{Err: "i/o timeout", Name: "example.org", IsTimeout: true}, true, "the resolver gave no answer for example.org: i/o timeout"},
		{"resolver fails", &net.DNSError{Err: "server misbehaving", Name: "example.org", IsTemporary: true}, true, "server misbehaving"},
		{"marked", &ownFault{err: errors.New("ours")}, true, "ours"},
		{"NXDOMAIN", &net.DNSError{Err: "no such host", Name: "example.org", IsNotFound: true}, false, "no such host: example.org"},
		{"EHOSTUNREACH", syscallError("connect", syscall.EHOSTUNREACH), false, "192.0.2.1:443 cannot be reached: no route to host"},
		{"ECONNREFUSED", syscallError("connect", syscall.ECONNREFUSED), false, "connection refused by 192.0.2.1:443 after "},
		{"ECONNRESET", syscallError("read", syscall.ECONNRESET), false, "192.0.2.1:443 broke the connection off (connecting)"},
		{"EPIPE", syscallError("write", syscall.EPIPE), false, "192.0.2.1:443 broke the connection off (connecting)"},
		{"timeout", syscallError("connect", syscall.ETIMEDOUT), false, "no answer from 192.0.2.1:443 within 3 s (connecting)"},
		{"deadline", &failure{phase: "TLS handshake", peer: "192.0.2.1:443", err: context.DeadlineExceeded}, false, "no answer from 192.0.2.1:443 within 3 s (TLS handshake)"},
		{"other", errors.New("strange"), false, "strange"},
	}
	e := newRegistry(t).env
	for _, tt := range tests {
		p := &probing{env: e, prober: failing{tt.err}}
		result, err := p.Check(t.Context(), sdk.CheckRequest{Timeout: 3 * time.Second})
		switch {
		case tt.own && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %+v, %v, want an error with %q", tt.name, result, err, tt.want)
		case tt.own && !errors.Is(err, rootOf(tt.err)):
			t.Errorf("%s: %v does not wrap its cause", tt.name, err)
		case !tt.own && (err != nil || result.Status != sdk.Down || !strings.HasPrefix(result.Message, tt.want)):
			t.Errorf("%s: got %+v, %v, want down with %q", tt.name, result, err, tt.want)
		}
	}
}

func rootOf(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// TestGapped sees that a time-out says nothing when this process was not running meanwhile.
func TestGapped(t *testing.T) {
	t.Parallel()
	silent := serve(t, func(conn net.Conn) {
		var b [1]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
		}
	})
	var asked time.Duration
	gapped := false
	r := NewRegistry(Options{Gapped: func(start, end time.Time, d time.Duration) bool {
		asked = d
		if !end.After(start) {
			t.Errorf("from %s to %s", start, end)
		}
		return gapped
	}})
	defer r.Close()
	spec := Spec{Kind: "http", Target: "http://" + silent}
	result, err := tryCheck(t, r, spec, 50*time.Millisecond)
	if want := "no answer from " + silent + " within 50 ms (waiting for the answer)"; err != nil || result.Status != sdk.Down || result.Message != want {
		t.Errorf("got %+v, %v, want down with %q", result, err, want)
	}
	if asked != 50*time.Millisecond {
		t.Errorf("asked about a time-out of %s", asked)
	}
	gapped = true
	if result, err := tryCheck(t, r, spec, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "too slow or suspended") {
		t.Errorf("got %+v, %v, want an error", result, err)
	}
	// A refused connection is no time-out: the target is down whatever this process did.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if result, err := tryCheck(t, r, Spec{Kind: "tcp", Target: ln.Addr().String()}, testTimeout); err != nil || result.Status != sdk.Down {
		t.Errorf("got %+v, %v, want down", result, err)
	}
}

// TestCancelledMeanwhile sees that a check that is called off gives no result.
func TestCancelledMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	accepted := make(chan struct{})
	silent := serve(t, func(conn net.Conn) {
		accepted <- struct{}{}
		var b [1]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
		}
	})
	for _, spec := range []Spec{
		{Kind: "tcp", Target: silent, Config: []byte(`{"expect":"x"}`)},
		{Kind: "http", Target: "http://" + silent},
		{Kind: "http", Target: "http://" + silent, Config: []byte(`{"reuse":true}`)},
		{Kind: "tls", Target: silent},
	} {
		checker, err := r.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-accepted
			cancel()
		}()
		if result, err := checker.Check(ctx, sdk.CheckRequest{Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %+v, %v", spec.Kind, result, err)
		}
	}
}

// TestFilesExhausted makes real checks in a process that has no file descriptor left.
func TestFilesExhausted(t *testing.T) {
	// Not parallel: the limit is the process's.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r := newRegistry(t)
	low := limit
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	for _, spec := range []Spec{
		{Kind: "tcp", Target: "127.0.0.1:1"},
		{Kind: "http", Target: "http://127.0.0.1:1/"},
		{Kind: "http", Target: "http://127.0.0.1:1/", Config: []byte(`{"reuse":true}`)},
		{Kind: "http", Target: "http://nosuch.invalid/"},
		{Kind: "tls", Target: "127.0.0.1:1"},
		{Kind: "dns", Target: "example.org", Config: []byte(`{"server":"127.0.0.1"}`)},
		{Kind: "icmp", Target: "127.0.0.1"},
	} {
		if result, err := tryCheck(t, r, spec, testTimeout); err == nil || result.Status != sdk.Unknown {
			t.Errorf("%s %s: got %+v, %v, want an error", spec.Kind, spec.Target, result, err)
		}
	}
}

func TestPolicyIsApplied(t *testing.T) {
	t.Parallel()
	redirecting := serveHTTP(t, redirectTo("http://169.254.169.254/latest/meta-data"))
	r := newRegistry(t)
	for _, spec := range []Spec{
		{Kind: "tcp", Target: "169.254.169.254:80"},
		{Kind: "http", Target: "http://169.254.169.254/"},
		{Kind: "http", Target: "http://[::ffff:169.254.169.254]/"},
		{Kind: "http", Target: "http://[fd00:ec2::254]/"},
		{Kind: "http", Target: "http://0.0.0.0/"},
		{Kind: "http", Target: redirecting},
		{Kind: "http", Target: redirecting, Config: []byte(`{"reuse":true}`)},
		{Kind: "http", Target: "http://169.254.169.254/", Config: []byte(`{"proxy":"http://127.0.0.1:1"}`)},
		{Kind: "tls", Target: "169.254.169.254:443"},
		{Kind: "dns", Target: "example.org", Config: []byte(`{"server":"169.254.169.254"}`)},
		{Kind: "icmp", Target: "169.254.169.254"},
		{Kind: "icmp", Target: "ff02::1"},
	} {
		if result, err := tryCheck(t, r, spec, testTimeout); !errors.Is(err, netpolicy.ErrDenied) || !strings.Contains(err.Error(), "checks.allow_addresses") {
			t.Errorf("%s %s: got %+v, %v, want a refusal that names the setting", spec.Kind, spec.Target, result, err)
		}
	}
}

func TestHuman(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		350 * time.Microsecond: "350 µs", 2 * time.Millisecond: "2 ms", 1500 * time.Microsecond: "2 ms", 5 * time.Second: "5 s",
		1500 * time.Millisecond: "1.5 s", 90 * time.Second: "90 s", 5 * time.Minute: "5 min", 150 * time.Second: "2.5 min", 0: "0 µs",
	} {
		if got := human(d); got != want {
			t.Errorf("human(%v) = %q, want %q", d, got, want)
		}
	}
}
