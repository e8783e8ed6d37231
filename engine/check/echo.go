package check

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// echoToken marks a request and its reply. 16-bit identifiers collide between sockets and processes; 128 random bits do not.
type echoToken [16]byte

const (
	echoHeader     = 8 // type, code, checksum, identifier, sequence (RFC 792, RFC 4443 4.1)
	typeEcho4      = 8
	typeEchoReply4 = 0
	typeUnreach4   = 3
	typeExceeded4  = 11
	typeEcho6      = 128
	typeEchoReply6 = 129
	typeUnreach6   = 1
	typeExceeded6  = 3

	echoBuffer = 8 << 20 // bytes, of a raw socket that is shared by all checks
)

// echoReply is what came for one request.
type echoReply struct {
	index   int
	at      time.Time
	refusal string // not empty: a router's words instead of a reply
}

// echoConn is a socket that can send echo requests. Ping sockets want the address as a net.UDPAddr.
type echoConn struct {
	net.PacketConn
	ping bool
}

// echoer owns one socket for each address family, opened at first use.
type echoer struct {
	open    func(v6 bool) (echoConn, error)
	mu      sync.Mutex
	sockets [2]*echoSocket
	closed  bool
}

// openEcho opens an unprivileged ping socket where the kernel allows it, else a raw one.
func openEcho(v6 bool) (echoConn, error) {
	ping, raw, addr := "udp4", "ip4:icmp", "0.0.0.0"
	if v6 {
		ping, raw, addr = "udp6", "ip6:ipv6-icmp", "::"
	}
	conn, err := icmp.ListenPacket(ping, addr)
	if err == nil {
		return echoConn{conn, true}, nil
	}
	// Opening a raw socket does not wait for anything, so there is no context to end it.
	rawConn, rawErr := (&net.ListenConfig{}).ListenPacket(context.Background(), raw, addr)
	if c, ok := rawConn.(syscall.Conn); rawErr == nil && ok {
		if err := widen(c); err != nil {
			return echoConn{}, errors.Join(fmt.Errorf("size the socket for echo requests: %w", err), rawConn.Close())
		}
	}
	if rawErr == nil {
		return echoConn{rawConn, false}, nil
	}
	if errors.Is(rawErr, fs.ErrPermission) {
		return echoConn{}, noPermission(rawErr)
	}
	return echoConn{}, fmt.Errorf("open a socket for echo requests: %w", rawErr)
}

// noPermission adds the remedy to the kernel's refusal.
func noPermission(err error) error {
	return fmt.Errorf("this process may not send echo requests; either put its group into net.ipv4.ping_group_range "+
		`(sysctl -w net.ipv4.ping_group_range="0 2147483647") or give the program the capability (setcap cap_net_raw+ep PROGRAM): %w`, err)
}

// socket returns the family's socket, opening it when there is none or the last one broke.
func (e *echoer) socket(v6 bool) (*echoSocket, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	slot := &e.sockets[0]
	if v6 {
		slot = &e.sockets[1]
	}
	switch {
	case e.closed:
		return nil, fmt.Errorf("send echo requests: %w", monitor.ErrClosed)
	case *slot != nil && !(*slot).broken():
		return *slot, nil
	}
	conn, err := e.open(v6)
	if err != nil {
		return nil, err
	}
	*slot = &echoSocket{conn: conn, v6: v6, waiting: make(map[echoToken]waiter), done: make(chan struct{})}
	go (*slot).read()
	return *slot, nil
}

// close closes the sockets and waits until their readers have ended.
func (e *echoer) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	var errs []error
	for i, s := range e.sockets {
		if s == nil {
			continue
		}
		if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		<-s.done
		e.sockets[i] = nil
	}
	return errors.Join(errs...)
}

// echoSocket is one socket that all checks of a family share. Its reader hands each reply to the check that waits for it.
type echoSocket struct {
	conn    echoConn
	v6      bool
	mu      sync.Mutex
	waiting map[echoToken]waiter
	done    chan struct{} // closed when the reader has ended
}

type waiter struct {
	from    netip.Addr
	index   int
	replies chan<- echoReply // has room for every reply
}

func (s *echoSocket) broken() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// expect makes a token and has its reply sent to the channel.
func (s *echoSocket) expect(from netip.Addr, index int, replies chan<- echoReply) (echoToken, error) {
	var token echoToken
	if _, err := rand.Read(token[:]); err != nil {
		return token, fmt.Errorf("make a token: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[token] = waiter{from.WithZone(""), index, replies}
	return token, nil
}

func (s *echoSocket) forget(tokens []echoToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range tokens {
		delete(s.waiting, token)
	}
}

// send sends one echo request. The kernel overwrites the identifier on a ping socket, and the checksum for IPv6.
func (s *echoSocket) send(to netip.Addr, token echoToken, seq, size int) error {
	packet := make([]byte, echoHeader+size)
	packet[0] = typeEcho4
	if s.v6 {
		packet[0] = typeEcho6
	}
	copy(packet[4:6], token[:2])
	binary.BigEndian.PutUint16(packet[6:], uint16(seq))
	copy(packet[echoHeader:], token[:])
	if !s.v6 {
		binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	}
	var addr net.Addr = &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	if s.conn.ping {
		addr = &net.UDPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	}
	_, err := s.conn.WriteTo(packet, addr)
	return err
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// maxReadErrors is how many errors in a row end the reader; single ones are a peer's ICMP errors.
const maxReadErrors = 100

func (s *echoSocket) read() {
	defer close(s.done)
	packet := make([]byte, 512) // the token is near the front; the rest of a longer packet is not wanted
	for failed := 0; failed < maxReadErrors; {
		n, from, err := s.conn.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed++
			continue
		}
		failed = 0
		s.take(packet[:n], from, time.Now())
	}
	// What is waiting ends by its deadline; the next check opens a new socket.
	_ = s.conn.Close()
}

// take hands a packet to the check that waits for it. Anything may come: replies to other programs, our own requests on
// loopback, garbage.
func (s *echoSocket) take(packet []byte, from net.Addr, at time.Time) {
	token, refusal, ok := parseEcho(packet, s.v6)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[token]
	if !ok {
		return
	}
	source := addrOf(from)
	if refusal == "" && source != w.from {
		return
	}
	if refusal != "" {
		refusal += ", says " + source.String()
	}
	delete(s.waiting, token)
	w.replies <- echoReply{index: w.index, at: at, refusal: refusal}
}

// parseEcho returns the token of an echo reply, or of the request that an ICMP error quotes together with what it says.
func parseEcho(packet []byte, v6 bool) (token echoToken, refusal string, ok bool) {
	if len(packet) < echoHeader {
		return token, "", false
	}
	reply, echo := byte(typeEchoReply4), byte(typeEcho4)
	if v6 {
		reply, echo = typeEchoReply6, typeEcho6
	}
	body := packet[echoHeader:]
	if packet[0] != reply {
		refusal = refusalText(packet[0], v6)
		if refusal == "" {
			return token, "", false
		}
		header := 40
		if !v6 && len(body) > 0 {
			header = int(body[0]&0x0f) * 4
		}
		if len(body) < header+echoHeader || body[header] != echo {
			return token, "", false
		}
		body = body[header+echoHeader:]
	}
	if len(body) < len(token) {
		return token, "", false
	}
	return echoToken(body[:len(token)]), refusal, true
}

// refusalText is the meaning of an ICMP error's type, or "".
func refusalText(kind byte, v6 bool) string {
	switch {
	case !v6 && kind == typeUnreach4, v6 && kind == typeUnreach6:
		return "destination unreachable"
	case !v6 && kind == typeExceeded4, v6 && kind == typeExceeded6:
		return "time to live exceeded"
	}
	return ""
}

func addrOf(from net.Addr) netip.Addr {
	var ip net.IP
	switch a := from.(type) {
	case *net.IPAddr:
		ip = a.IP
	case *net.UDPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
