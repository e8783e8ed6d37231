//go:build unix

package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tocsinhq/tocsin/host/reach"
)

func TestDial(t *testing.T) {
	t.Parallel()
	address, _ := echoing(t)
	e := connected(t, NewServer(ServerOptions{Calls: oneCall(t, address)}))
	d, err := e.net.Dial(timed(t), accessOf(t, "tcp://"+address))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Conn.Close()
	if d.Addr.String() != address || d.DNS != 0 || d.Connect <= 0 || d.Conn.RemoteAddr().String() != address {
		t.Errorf("dialled %+v, want %s without DNS", d, address)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go d.Conn.Write(big)
	got := make([]byte, len(big))
	if _, err := io.ReadFull(d.Conn, got); err != nil || !bytes.Equal(got, big) {
		t.Errorf("the echo of 1 MiB: %v, equal: %v", err, bytes.Equal(got, big))
	}
	d.Conn.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := d.Conn.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read behind the deadline: %v", err)
	}
	for _, more := range []bool{is[io.ReaderFrom](d.Conn), is[io.WriterTo](d.Conn), is[interface{ CloseWrite() error }](d.Conn)} {
		if more {
			t.Errorf("%T has more than net.Conn, which means more system calls", d.Conn)
		}
	}
}

func is[T any](v any) bool {
	_, ok := v.(T)
	return ok
}

func TestDialUDP(t *testing.T) {
	t.Parallel()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address := server.LocalAddr().String()
	e := connected(t, NewServer(ServerOptions{Calls: oneCall(t, address)}))
	d, err := e.net.Dial(timed(t), accessOf(t, "udp://"+address))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Conn.Close()
	if d.Addr.String() != address || d.Connect != 0 {
		t.Errorf("dialled %+v, want %s and no time to connect", d, address)
	}
	buf := make([]byte, 100)
	for _, datagram := range []string{"one", "", "three"} { // an empty datagram is no end
		if n, err := d.Conn.Write([]byte(datagram)); n != len(datagram) || err != nil {
			t.Fatalf("write %q: %d, %v", datagram, n, err)
		}
		n, from, err := server.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != datagram {
			t.Fatalf("the server got %q, %v, want %q", buf[:n], err, datagram)
		}
		if _, err := server.WriteToUDPAddrPort(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		if n, err := d.Conn.Read(buf); err != nil || string(buf[:n]) != datagram {
			t.Fatalf("the client got %q, %v, want %q", buf[:n], err, datagram)
		}
	}
}

// hang is a lookup that says that it has begun and then waits for the end of its context.
type hang struct{ begun, ended chan struct{} }

func newHang() hang { return hang{make(chan struct{}, 1000), make(chan struct{}, 1000)} }

func (h hang) lookup(ctx context.Context, _ string) ([]netip.Addr, error) {
	h.begun <- struct{}{}
	<-ctx.Done()
	h.ended <- struct{}{}
	return nil, ctx.Err()
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	lookup := func(ctx context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "none.example":
			return nil, &net.DNSError{Err: "no such host", Name: name, Server: "10.9.9.9:53", IsNotFound: true}
		case "late.example":
			return nil, &net.DNSError{Err: "i/o timeout", Name: name, Server: "10.9.9.9:53", IsTimeout: true}
		case "bad.example":
			return nil, &net.DNSError{Err: "server misbehaving", Name: name, Server: "10.9.9.9:53"}
		case "slow.example":
			<-ctx.Done()
			return nil, ctx.Err()
		case "panic.example":
			panic("oh")
		case "empty.example":
			return nil, nil
		}
		return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.2")}, nil
	}
	refused := fmt.Sprintf("here.example:%d", port)
	for _, tt := range []struct {
		target, access string
		call           uint64
		want           Error
	}{
		{refused, "tcp://" + refused, 1, Error{Refused, "tcp://" + refused + ": connect to 127.0.0.1: connection refused"}},
		{refused, "tcp://" + refused, 2, Error{Invalid, "call 2 is not under way"}},
		{"a:1", "tcp://b:1", 1, Error{Denied, "not granted: tcp://b:1; the plugin was granted tcp://{target} (a:1)"}},
		{"none.example:1", "tcp://none.example:1", 1, Error{DNS, "tcp://none.example:1: look up none.example: no such host"}},
		{"late.example:1", "tcp://late.example:1", 1, Error{DNS, "tcp://late.example:1: look up late.example: no DNS server answered in time"}},
		{"bad.example:1", "tcp://bad.example:1", 1, Error{DNS, "tcp://bad.example:1: look up bad.example: the DNS servers could not say"}},
		{"slow.example:1", "tcp://slow.example:1", 1, Error{Timeout, "tcp://slow.example:1: look up slow.example: timed out"}},
		{"empty.example:1", "tcp://empty.example:1", 1, Error{DNS, "tcp://empty.example:1: the name has no address"}},
		{"panic.example:1", "tcp://panic.example:1", 1, Error{Failed, "the server could not do it; its log says why"}},
		{"a.example", "dns://a.example", 1, Error{Invalid, "dns://a.example: it is not a connection"}},
		{"a.example", "icmp://a.example", 1, Error{Invalid, "icmp://a.example: it is not a connection"}},
	} {
		call := Call{Grant: grantOf(t, "tcp://{target}"), Fill: reach.Call{Target: tt.target}, Deadline: time.Now().Add(10 * time.Second)}
		if strings.HasPrefix(tt.target, "slow") {
			call.Deadline = time.Now().Add(50 * time.Millisecond)
		}
		e := connected(t, NewServer(ServerOptions{Lookup: lookup, Calls: func(id uint64) (Call, bool) { return call, id == 1 }}))
		_, err := e.For(tt.call).Dial(timed(t), accessOf(t, tt.access))
		if diff := cmp.Diff(&tt.want, err); diff != "" {
			t.Errorf("%s: %s", tt.access, diff)
		}
	}
}

func TestDialErrorKinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want Error
	}{
		{syscall.ECONNREFUSED, Error{Refused, "connection refused"}},
		{os.ErrDeadlineExceeded, Error{Timeout, "timed out"}},
		{syscall.ETIMEDOUT, Error{Timeout, "timed out"}},
		{syscall.ECONNRESET, Error{Closed, "closed by the other side"}},
		{syscall.EMFILE, Error{Busy, "the server has too many files open"}},
		{syscall.EHOSTUNREACH, Error{Failed, "no route to host"}},
		{syscall.EPERM, Error{Failed, "operation not permitted"}},
		{errors.New("of 10.9.9.9"), Error{Failed, "failed"}},
		{fmt.Errorf("%w: x", reach.ErrDenied), Error{Denied, "not granted: x"}},
	} {
		got, detail := told(dialError(t.Context(), "", &net.OpError{Op: "dial", Net: "tcp", Err: tt.err}))
		if *got != tt.want || tt.want.Kind != Denied && !strings.Contains(detail, tt.err.Error()) {
			t.Errorf("%v becomes %+v with %q, want %+v", tt.err, *got, detail, tt.want)
		}
	}
}

func TestSecondAddressIsTried(t *testing.T) {
	t.Parallel()
	address, _ := echoing(t)
	_, port, _ := net.SplitHostPort(address)
	target := "here.example:" + port
	traces := make(chan Trace, 2)
	calls := oneCall(t, target)
	e := connected(t, NewServer(ServerOptions{
		Policy: settings(),
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("127.0.0.1")}, nil
		},
		Calls: func(id uint64) (Call, bool) {
			call, ok := calls(id)
			call.Trace = func(tr Trace) { traces <- tr }
			return call, ok
		},
	}))
	d, err := e.net.Dial(timed(t), accessOf(t, "tcp://"+target))
	if err != nil {
		t.Fatal(err)
	}
	d.Conn.Close()
	if d.Addr.String() != address || d.DNS <= 0 {
		t.Errorf("dialled %+v, want %s after a lookup", d, address)
	}
	want := Trace{Op: "dial", Access: accessOf(t, "tcp://"+target), Addr: netip.MustParseAddrPort(address), Barred: []netip.Addr{netip.MustParseAddr("169.254.169.254")}}
	if diff := cmp.Diff(want, <-traces, cmpopts.IgnoreFields(Trace{}, "Took"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// TestTraceKnowsMore shows that the operator sees what the plugin is not told.
func TestTraceKnowsMore(t *testing.T) {
	t.Parallel()
	traces := make(chan Trace, 1)
	calls := oneCall(t, "none.example:1")
	e := connected(t, NewServer(ServerOptions{
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "none.example", Server: "10.9.9.9:53", IsNotFound: true}
		},
		Calls: func(id uint64) (Call, bool) {
			call, ok := calls(id)
			call.Trace = func(tr Trace) { traces <- tr }
			return call, ok
		},
	}))
	_, err := e.net.Dial(timed(t), accessOf(t, "tcp://none.example:1"))
	if got := <-traces; kindOf(err) != DNS || strings.Contains(err.Error(), "10.9.9.9") || !strings.Contains(got.Detail, "10.9.9.9") || got.Err.Kind != DNS {
		t.Errorf("the plugin got %v, the trace is %+v", err, got)
	}
}

// TestNoDescriptorIsLeft dials a thousand times under load, some of it in vain, some of it cancelled on the way.
func TestNoDescriptorIsLeft(t *testing.T) {
	address, ended := echoing(t)
	before := descriptors(t)
	e := connected(t, NewServer(ServerOptions{Calls: oneCall(t, address)}))
	var work sync.WaitGroup
	var made, cut atomic.Int64
	for worker := range 20 {
		work.Go(func() {
			for i := range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				if (worker+i)%4 == 0 {
					time.AfterFunc(time.Duration(i)*10*time.Microsecond, cancel) // somewhere on the way
				}
				d, err := e.net.Dial(ctx, accessOf(t, "tcp://"+address))
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("dial: %v", err)
					}
					cut.Add(1)
				} else {
					made.Add(1)
					if _, err := d.Conn.Write([]byte("x")); err != nil {
						t.Errorf("write: %v", err)
					}
					if _, err := io.ReadFull(d.Conn, make([]byte, 1)); err != nil {
						t.Errorf("read: %v", err)
					}
					d.Conn.Close()
				}
				cancel()
				if _, err := e.net.Dial(context.Background(), accessOf(t, "tcp://evil:1")); kindOf(err) != Denied {
					t.Errorf("a denied dial: %v", err)
				}
			}
		})
	}
	work.Wait()
	e.runner.Close()
	if err := <-e.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-e.ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	for range made.Load() { // every connection has ended on its other side, so nobody holds it any more
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("a connection is still open")
		}
	}
	awaitDescriptors(t, before)
	t.Logf("%d dials made, %d cut off", made.Load(), cut.Load())
}

// awaitDescriptors waits until no more are open than there were: the other ends of connections close on their own.
func awaitDescriptors(t testing.TB, want int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if descriptors(t) <= want {
			return
		}
		<-tick.C
	}
	t.Fatalf("%d descriptors are open, %d were before", descriptors(t), want)
}

func TestAtMostSixtyFourAtOnce(t *testing.T) {
	t.Parallel()
	h := newHang()
	e := connected(t, NewServer(ServerOptions{Lookup: h.lookup, Calls: oneCall(t, "a.example:1")}))
	ctx, cancel := context.WithCancel(timed(t))
	access := accessOf(t, "tcp://a.example:1")
	var work sync.WaitGroup
	for range maxUnderWay {
		work.Go(func() {
			if _, err := e.net.Dial(ctx, access); kindOf(err) != Failed {
				t.Errorf("a cancelled dial: %v", err)
			}
		})
	}
	for range maxUnderWay {
		<-h.begun
	}
	if _, err := e.net.Dial(timed(t), access); kindOf(err) != Busy {
		t.Errorf("one more is %v, want busy", err)
	}
	cancel()
	work.Wait()
	for range maxUnderWay { // the server has heard of it
		<-h.ended
	}
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	h := newHang()
	e := connected(t, NewServer(ServerOptions{Lookup: h.lookup, Calls: oneCall(t, "a.example:1")}))
	failed := make(chan error)
	go func() {
		_, err := e.net.Dial(timed(t), accessOf(t, "tcp://a.example:1"))
		failed <- err
	}()
	<-h.begun
	e.server.Close()
	if diff := cmp.Diff(error(gone()), <-failed); diff != "" {
		t.Error(diff)
	}
	<-h.ended
	if err := <-e.ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	for range 2 {
		if _, err := e.net.Dial(timed(t), accessOf(t, "tcp://a.example:1")); kindOf(err) != Closed {
			t.Errorf("dial without server: %v", err)
		}
	}
	if err := e.Tell("x"); err == nil {
		t.Error("a note went to a server that is gone")
	}
}

func TestRunnerGone(t *testing.T) {
	t.Parallel()
	h := newHang()
	e := connected(t, NewServer(ServerOptions{Lookup: h.lookup, Calls: oneCall(t, "a.example:1")}))
	go e.net.Dial(timed(t), accessOf(t, "tcp://a.example:1"))
	<-h.begun
	e.runner.Close()
	<-h.ended
	if err := <-e.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	h := newHang()
	server, runner := connPair(t)
	client := NewClient(runner)
	go client.Run()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		client.For(1).Dial(timed(t), accessOf(t, "tcp://a.example:1"))
	}()
	go func() {
		<-h.begun
		cancel()
	}()
	if err := NewServer(ServerOptions{Lookup: h.lookup, Calls: oneCall(t, "a.example:1")}).Serve(ctx, server); err != nil {
		t.Errorf("Serve: %v", err)
	}
	<-h.ended
}

// TestCallEndsOnTheWay: a socket that is there only when the call is over is not handed over.
func TestCallEndsOnTheWay(t *testing.T) {
	t.Parallel()
	address, ended := echoing(t)
	var asked atomic.Int64
	calls := oneCall(t, address)
	e := connected(t, NewServer(ServerOptions{Calls: func(id uint64) (Call, bool) {
		call, _ := calls(id)
		return call, asked.Add(1) == 1
	}}))
	if _, err := e.net.Dial(timed(t), accessOf(t, "tcp://"+address)); kindOf(err) != Invalid {
		t.Errorf("dial: %v, want invalid", err)
	}
	<-ended
}

func TestTell(t *testing.T) {
	t.Parallel()
	notes := make(chan string, 100)
	e := connected(t, NewServer(ServerOptions{Calls: oneCall(t, ""), Told: func(note json.RawMessage) { notes <- string(note) }}))
	for i := range 50 {
		if err := e.Tell(map[string]int{"i": i}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		if got, want := <-notes, fmt.Sprintf(`{"i":%d}`, i); got != want {
			t.Errorf("note %d is %s, want %s", i, got, want)
		}
	}
	if err := e.Tell(strings.Repeat("x", maxRequest)); err == nil {
		t.Error("a note that is too long was sent")
	}
	if err := e.Tell(func() {}); err == nil {
		t.Error("a function was sent")
	}
	if err := e.Tell(1); err != nil || <-notes != "1" {
		t.Errorf("behind the bad notes: %v", err)
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	host := hostOf(t, "127.0.0.1")
	calls := oneCall(t, "127.0.0.1")
	e := connected(t, NewServer(ServerOptions{Calls: calls}))
	want := error(&Error{Failed, "icmp://127.0.0.1: ICMP is not available here"})
	if _, err := e.net.Echo(timed(t), host); !cmp.Equal(want, err) {
		t.Errorf("without a way to ping: %v", err)
	}
	reply := Echo{RTT: 1234 * time.Microsecond, TTL: 64, Addr: netip.MustParseAddr("127.0.0.1")}
	var fault error
	e = connected(t, NewServer(ServerOptions{Calls: calls, Ping: func(_ context.Context, addr netip.Addr) (Echo, error) {
		if addr != reply.Addr {
			return Echo{}, fmt.Errorf("asked to ping %s", addr)
		}
		return reply, fault
	}}))
	if got, err := e.net.Echo(timed(t), host); err != nil || got != reply {
		t.Errorf("echo is %+v, %v", got, err)
	}
	if _, err := e.net.Echo(timed(t), hostOf(t, "127.0.0.2")); kindOf(err) != Denied {
		t.Errorf("another host: %v", err)
	}
	for _, tt := range []struct{ fault, want error }{
		{os.ErrDeadlineExceeded, &Error{Timeout, "icmp://127.0.0.1: ping 127.0.0.1: timed out"}},
		{&Error{Refused, "host unreachable"}, &Error{Refused, "icmp://127.0.0.1: ping 127.0.0.1: host unreachable"}},
		{errors.New("the sysctl is wrong"), &Error{Failed, "icmp://127.0.0.1: ping 127.0.0.1: failed"}},
	} {
		fault = tt.fault
		if _, err := e.net.Echo(timed(t), host); !cmp.Equal(tt.want, err) {
			t.Errorf("%v becomes %v, want %v", tt.fault, err, tt.want)
		}
	}
}

// TestInheritedByProcess hands the socket to a real process, as the host does.
func TestInheritedByProcess(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	address := ln.Addr().String()
	server, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	notes, served := make(chan string, 1), make(chan error, 1)
	s := NewServer(ServerOptions{Calls: oneCall(t, address), Told: func(note json.RawMessage) { notes <- string(note) }})
	go func() { served <- s.Serve(timed(t), server) }()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(timed(t), executable, childWord, address)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	if note := <-notes; note != `"hello"` {
		t.Errorf("the child told %s", note)
	}
	for range 3 {
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "across\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "ACROSS\n" {
			t.Errorf("the child sent %q, %v", line, err)
		}
		conn.Close()
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func BenchmarkDial(b *testing.B) {
	unhurried := func(s *Server) *Server {
		s.pace = pace{1e9, 1e9} // it is the work that is measured, not the wait
		return s
	}
	address, _ := echoing(b)
	access := accessOf(b, "tcp://"+address)
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			conn.Close()
		}
	})
	b.Run("broker", func(b *testing.B) {
		e := connected(b, unhurried(NewServer(ServerOptions{Calls: oneCall(b, address)})))
		for b.Loop() {
			d, err := e.net.Dial(context.Background(), access)
			if err != nil {
				b.Fatal(err)
			}
			d.Conn.Close()
		}
	})
	b.Run("denied", func(b *testing.B) {
		e := connected(b, unhurried(NewServer(ServerOptions{Calls: oneCall(b, address)})))
		other := accessOf(b, "tcp://other:1")
		for b.Loop() {
			if _, err := e.net.Dial(context.Background(), other); kindOf(err) != Denied {
				b.Fatal(err)
			}
		}
	})
}
