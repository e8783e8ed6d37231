package check

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// requireEcho fails the test when this machine cannot send echo requests, with the remedy.
func requireEcho(t testing.TB, r *Registry, v6 bool) bool {
	t.Helper()
	_, err := r.env.icmp.socket(v6)
	if err == nil {
		return true
	}
	// Without the right the remedy is what there is to test.
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "net.ipv4.ping_group_range") || !strings.Contains(err.Error(), "cap_net_raw") {
		t.Errorf("no socket, and the error names no remedy: %v", err)
	}
	return false
}

func TestICMPLoopback(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for target, v6 := range map[string]bool{"127.0.0.1": false, "localhost": false, "::1": true, "::ffff:127.0.0.1": false} {
		if !requireEcho(t, r, v6) {
			continue
		}
		config := `{"count":3,"interval":"10ms"}`
		if target == "localhost" {
			config = `{"count":2,"interval":"10ms","ip_family":"ipv4","size":1400}`
		}
		got := mustCheck(t, r, Spec{Kind: "icmp", Target: target, Config: []byte(config), Assert: []string{"metrics.loss == 0", "metrics.rtt_max >= metrics.rtt_min", "latency < 1s"}})
		if got.Status != sdk.Up || got.Message != "reply from "+target || got.Latency <= 0 || len(got.Metrics) != 4 {
			t.Errorf("%s: got %+v", target, got)
		}
	}
}

// TestICMPConcurrent has many checks share the sockets: each must get its own replies.
func TestICMPConcurrent(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	if !requireEcho(t, r, false) {
		return
	}
	checker, err := r.New(Spec{Kind: "icmp", Target: "127.0.0.1", Config: []byte(`{"count":2,"interval":"10ms","max_loss":0}`)})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			if got, err := checker.Check(ctx, sdk.CheckRequest{Timeout: testTimeout}); err != nil || got.Status != sdk.Up {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	group.Wait()
	socket, err := r.env.icmp.socket(false)
	if err != nil {
		t.Fatal(err)
	}
	socket.mu.Lock()
	defer socket.mu.Unlock()
	if n := len(socket.waiting); n > 0 {
		t.Errorf("%d requests are still waited for", n)
	}
}

// wire is a socket without a network: what is sent goes to the function, which says what comes back.
type wire struct {
	net.PacketConn
	answer  func(packet []byte, to net.Addr) (reply []byte, from net.Addr, err error)
	packets chan wired
	closed  chan struct{}
	once    sync.Once
}

type wired struct {
	packet []byte
	from   net.Addr
}

func newWire(answer func([]byte, net.Addr) ([]byte, net.Addr, error)) *wire {
	return &wire{answer: answer, packets: make(chan wired, 100), closed: make(chan struct{})}
}

func (w *wire) WriteTo(b []byte, to net.Addr) (int, error) {
	reply, from, err := w.answer(b, to)
	if err != nil {
		return 0, err
	}
	if reply != nil {
		w.packets <- wired{reply, from}
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-w.packets:
		return copy(b, p.packet), p.from, nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func TestICMPAnswers(t *testing.T) {
	t.Parallel()
	target := netip.MustParseAddr("192.0.2.7")
	router := &net.IPAddr{IP: net.IPv4(192, 0, 2, 254)}
	reply := func(packet []byte) []byte {
		back := append([]byte(nil), packet...)
		back[0] = typeEchoReply4
		return back
	}
	quote := func(kind byte, packet []byte) []byte {
		header := make([]byte, 20)
		header[0] = 0x45
		return append(append([]byte{kind, 1, 0, 0, 0, 0, 0, 0}, header...), packet...)
	}
	n := 0
	tests := []struct {
		name   string
		answer func(packet []byte, to net.Addr) ([]byte, net.Addr, error)
		status sdk.Status
		want   string // of the message, or of the error when the status is unknown
	}{
		{"replies", func(p []byte, to net.Addr) ([]byte, net.Addr, error) { return reply(p), to, nil }, sdk.Up, "reply from 192.0.2.7"},
		{"silence", func([]byte, net.Addr) ([]byte, net.Addr, error) { return nil, nil, nil }, sdk.Down, "no answer from 192.0.2.7 within 200 ms (4 echo requests)"},
		{"half", func(p []byte, to net.Addr) ([]byte, net.Addr, error) {
			if n++; n%2 == 0 {
				return nil, nil, nil
			}
			return reply(p), to, nil
		}, sdk.Down, "50 % of 4 echo requests to 192.0.2.7 got no reply, at most 40 % may"},
		{"wrong sender", func(p []byte, _ net.Addr) ([]byte, net.Addr, error) { return reply(p), router, nil }, sdk.Down, "no answer from 192.0.2.7 within 200 ms (4 echo requests)"},
		{"unreachable", func(p []byte, _ net.Addr) ([]byte, net.Addr, error) { return quote(typeUnreach4, p), router, nil }, sdk.Down, "192.0.2.7 cannot be reached: destination unreachable, says 192.0.2.254"},
		{"loop", func(p []byte, _ net.Addr) ([]byte, net.Addr, error) { return quote(typeExceeded4, p), router, nil }, sdk.Down, "192.0.2.7 cannot be reached: time to live exceeded, says 192.0.2.254"},
		{"our own request", func(p []byte, to net.Addr) ([]byte, net.Addr, error) { return p, to, nil }, sdk.Down, "no answer from 192.0.2.7 within 200 ms (4 echo requests)"},
		{"garbage", func(_ []byte, to net.Addr) ([]byte, net.Addr, error) { return []byte{0, 0, 1}, to, nil }, sdk.Down, "no answer from 192.0.2.7 within 200 ms (4 echo requests)"},
		{"host unreachable", func([]byte, net.Addr) ([]byte, net.Addr, error) {
			return nil, nil, os.NewSyscallError("sendto", syscall.EHOSTUNREACH)
		}, sdk.Down, "192.0.2.7 cannot be reached: no route to host"},
		{"no route", func([]byte, net.Addr) ([]byte, net.Addr, error) {
			return nil, nil, os.NewSyscallError("sendto", syscall.ENETUNREACH)
		}, sdk.Unknown, "no route to that network"},
		{"not permitted", func([]byte, net.Addr) ([]byte, net.Addr, error) {
			return nil, nil, os.NewSyscallError("sendto", syscall.EPERM)
		}, sdk.Unknown, "does not permit"},
		{"no buffers", func([]byte, net.Addr) ([]byte, net.Addr, error) {
			return nil, nil, os.NewSyscallError("sendto", syscall.ENOBUFS)
		}, sdk.Unknown, "no network buffers"},
	}
	for _, tt := range tests {
		r := newRegistry(t)
		r.env.icmp.open = func(bool) (echoConn, error) { return echoConn{PacketConn: newWire(tt.answer)}, nil }
		got, err := tryCheck(t, r, Spec{Kind: "icmp", Target: target.String(), Config: []byte(`{"count":4,"interval":"10ms","max_loss":40}`)}, 200*time.Millisecond)
		if tt.status == sdk.Unknown {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %+v, %v, want an error with %q", tt.name, got, err, tt.want)
			}
			continue
		}
		if err != nil || got.Status != tt.status || got.Message != tt.want {
			t.Errorf("%s: got %s %q %v, want %q", tt.name, got.Status, got.Message, err, tt.want)
		}
	}
}

// TestICMPLoss sees that loss is reckoned over what was sent and had the time to be answered.
func TestICMPLoss(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, config string
		answered     func(seq uint16) bool
		status       sdk.Status
		message      string
		loss         float64
	}{
		{
			"requests that were never sent", `{"count":100,"interval":"50ms","max_loss":0}`,
			func(uint16) bool { return true }, sdk.Up, "reply from 192.0.2.7", 0,
		},
		{
			"requests without the time for a reply", `{"count":4,"interval":"60ms","max_loss":0}`,
			func(seq uint16) bool { return seq < 2 }, sdk.Up, "reply from 192.0.2.7", 0,
		},
		{
			"fewer than wanted", `{"count":100,"interval":"50ms","max_loss":0}`,
			func(seq uint16) bool { return seq > 0 }, sdk.Down, "of 100 could be sent in time", 0,
		},
	} {
		r := newRegistry(t)
		r.env.icmp.open = func(bool) (echoConn, error) {
			return echoConn{PacketConn: newWire(func(p []byte, to net.Addr) ([]byte, net.Addr, error) {
				if !tt.answered(binary.BigEndian.Uint16(p[6:])) {
					return nil, nil, nil
				}
				back := append([]byte(nil), p...)
				back[0] = typeEchoReply4
				return back, to, nil
			})}, nil
		}
		got, err := tryCheck(t, r, Spec{Kind: "icmp", Target: "192.0.2.7", Config: []byte(tt.config)}, 200*time.Millisecond)
		if err != nil || got.Status != tt.status || !strings.Contains(got.Message, tt.message) {
			t.Errorf("%s: got %s %q %v, want %s %q", tt.name, got.Status, got.Message, err, tt.status, tt.message)
		}
		if tt.status == sdk.Up && (len(got.Metrics) == 0 || got.Metrics[0].Value != tt.loss) {
			t.Errorf("%s: metrics %v, want a loss of %v", tt.name, got.Metrics, tt.loss)
		}
	}
}

// TestICMPWithoutTime sees that a target which was asked when the time was nearly over is not down.
func TestICMPWithoutTime(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.env.icmp.open = func(bool) (echoConn, error) {
		return echoConn{PacketConn: newWire(func([]byte, net.Addr) ([]byte, net.Addr, error) { return nil, nil, nil })}, nil
	}
	checker, err := r.New(Spec{Kind: "icmp", Target: "192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// Of the 2 s that the check may take, all but 50 ms are gone, as after a slow resolver.
	if got, err := checker.Check(ctx, sdk.CheckRequest{Timeout: 2 * time.Second}); err == nil || !strings.Contains(err.Error(), "time was over") {
		t.Errorf("got %+v, %v, want an error", got, err)
	}
}

func TestICMPFits(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for _, tt := range []struct {
		config  string
		timeout time.Duration
		want    string
	}{
		{`{"count":100}`, time.Second, "config.count: 100 requests at an interval of 200 ms take 19.8 s, which does not fit into the timeout of 1 s (got 100)"},
		{`{"count":6,"interval":"200ms"}`, time.Second, "config.count: 6 requests at an interval of 200 ms take 1 s, which does not fit into the timeout of 1 s (got 6)"},
		{`{"count":5,"interval":"200ms"}`, time.Second, ""},
		{`{"count":1,"interval":"10s"}`, 10 * time.Millisecond, ""},
		{`{"count":100}`, 0, ""},
	} {
		for _, assert := range [][]string{nil, {"metrics.loss == 0"}} {
			_, err := r.New(Spec{Kind: "icmp", Target: "192.0.2.7", Config: []byte(tt.config), Assert: assert, Timeout: tt.timeout})
			var faults monitor.Faults
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("%s in %s: %v", tt.config, tt.timeout, err)
			case tt.want != "" && (!errors.As(err, &faults) || len(faults) != 1 || faults[0].Error() != tt.want):
				t.Errorf("%s in %s: got %v, want %q", tt.config, tt.timeout, err, tt.want)
			}
		}
	}
	if _, err := r.New(Spec{Kind: "tcp", Target: "127.0.0.1:1", Timeout: time.Millisecond}); err != nil {
		t.Error(err)
	}
}

func TestICMPWithoutPermission(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.env.icmp.open = func(bool) (echoConn, error) {
		return echoConn{}, noPermission(os.NewSyscallError("socket", syscall.EPERM))
	}
	got, err := tryCheck(t, r, Spec{Kind: "icmp", Target: "192.0.2.7"}, testTimeout)
	if err == nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "net.ipv4.ping_group_range") || !strings.Contains(err.Error(), "setcap cap_net_raw+ep") {
		t.Errorf("got %+v, %v, want an error with the remedy", got, err)
	}
}

func TestICMPClosed(t *testing.T) {
	t.Parallel()
	r := NewRegistry(Options{})
	opened := newWire(func([]byte, net.Addr) ([]byte, net.Addr, error) { return nil, nil, nil })
	r.env.icmp.open = func(bool) (echoConn, error) { return echoConn{PacketConn: opened}, nil }
	if got, err := tryCheck(t, r, Spec{Kind: "icmp", Target: "192.0.2.7"}, 50*time.Millisecond); err != nil || got.Status != sdk.Down {
		t.Errorf("got %+v, %v", got, err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if got, err := tryCheck(t, r, Spec{Kind: "icmp", Target: "192.0.2.7"}, testTimeout); !errors.Is(err, monitor.ErrClosed) {
		t.Errorf("got %+v, %v after Close", got, err)
	}
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	packet := []byte{8, 0, 0, 0, 1, 2, 3, 4, 5}
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	if sum := checksum(packet); sum != 0 {
		t.Errorf("the sum over a packet with its checksum is %#x", sum)
	}
	// The example of RFC 1071, section 3.
	if sum := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); sum != ^uint16(0xddf2) {
		t.Errorf("got %#x", sum)
	}
}

func FuzzEcho(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2, 3, 4, 5}, false)
	f.Add(append([]byte{3, 1, 0, 0, 0, 0, 0, 0, 0x45}, make([]byte, 60)...), false)
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 80)...), true)
	f.Fuzz(func(t *testing.T, packet []byte, v6 bool) {
		if _, refusal, ok := parseEcho(packet, v6); !ok && refusal != "" && len(packet) < echoHeader {
			t.Errorf("%v is no packet but says %q", packet, refusal)
		}
	})
}
