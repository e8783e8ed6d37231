package check

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// pooled makes a request through a proxy or over a kept connection.
func (h *httpCheck) pooled(ctx context.Context, p *hop, s *seen) (answer, error) {
	if h.plan.proxy != nil && p.at.addr.IsValid() {
		// The proxy connects, not we: what the dialer's hook would refuse is refused here.
		if err := h.env.policy.Check(p.at.addr); err != nil {
			return answer{}, err
		}
	}
	var t tracer
	req, err := h.plan.request(httptrace.WithClientTrace(ctx, t.hooks()), p)
	if err != nil {
		return answer{}, err
	}
	transport := h.plan.transports[0]
	if p.bare {
		transport = h.plan.transports[1]
	}
	resp, err := transport.RoundTrip(req)
	timing, peer, phase := t.read()
	s.Timing.DNS += timing.DNS
	s.Timing.Connect += timing.Connect
	s.Timing.TLS += timing.TLS
	s.Timing.FirstByte += timing.FirstByte
	s.Address = peer
	if err != nil {
		return answer{}, h.plan.broken(err, p, peer, phase, t.handshakes())
	}
	defer resp.Body.Close()
	if resp.TLS != nil {
		s.saw(resp.TLS)
	}
	a, err := h.judge(resp, s)
	if f, ok := errors.AsType[*failure](err); ok {
		return answer{}, h.plan.broken(f.err, p, peer, f.phase, t.handshakes())
	}
	return a, err
}

// broken says with whom a request ended, and in which phase.
func (p *httpPlan) broken(err error, h *hop, peer, phase string, handshakes int) error {
	dialled, known := errors.AsType[*failure](err)
	switch {
	case p.proxy != nil && known:
		return &failure{phase: dialled.phase, peer: p.proxy.address, proxy: p.proxy.address, err: dialled.err}
	case p.proxy != nil:
		return p.proxy.broken(err, h, phase, handshakes)
	case known:
		return err
	}
	if peer == "" {
		peer = h.at.String()
	}
	return &failure{phase: phase, peer: peer, err: err}
}

// refusedByProxy says why a proxy does not connect to a target.
type refusedByProxy struct{ why string }

func (r *refusedByProxy) Error() string { return r.why }

// broken tells what a proxy did from what the target did that it had connected to.
func (p *proxyPlan) broken(err error, h *hop, phase string, handshakes int) error {
	tunnel := h.secure || p.socks
	f := &failure{phase: phase, peer: p.address, proxy: p.address, err: err}
	if op, ok := errors.AsType[*net.OpError](err); ok && strings.HasPrefix(op.Op, "socks ") {
		f.err = op.Err // what it adds are the two addresses
		if words, found := strings.CutPrefix(op.Err.Error(), "unknown error "); found {
			f.err = &refusedByProxy{words}
		}
	}
	var refused *refusedByProxy
	switch {
	case errors.As(f.err, &refused):
		return &failure{err: &quiet{"the proxy " + p.address + " does not connect to " + h.at.String() + ": " + refused.why, err}}
	case phase == "connecting" || phase == "resolving":
		if f.phase = "connecting"; tunnel {
			f.phase += " to " + h.at.String()
		}
	case phase == "TLS handshake" && p.secure && handshakes <= 1:
	case tunnel:
		f.peer = h.at.String()
	}
	if op, ok := errors.AsType[*net.OpError](f.err); ok && op.Op == "proxyconnect" {
		f.err = op.Err
	}
	return f
}

// tracer measures a request of net/http. Its hooks can be called after the request has ended, hence the lock.
type tracer struct {
	mu                                    sync.Mutex
	asked, dns, shaking, connected, wrote time.Time
	timing                                sdk.Timing
	peer, phase                           string
	shakes                                int // handshakes begun: with the proxy, with the target
}

func (t *tracer) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { t.at(func(now time.Time) { t.asked, t.phase = now, "connecting" }) },
		DNSStart: func(httptrace.DNSStartInfo) {
			t.at(func(now time.Time) { t.dns, t.phase = now, "resolving" })
		},
		DNSDone: func(httptrace.DNSDoneInfo) {
			t.at(func(now time.Time) { t.timing.DNS, t.phase = now.Sub(t.dns), "connecting" })
		},
		TLSHandshakeStart: func() {
			t.at(func(now time.Time) { t.shaking, t.phase, t.shakes = now, "TLS handshake", t.shakes+1 })
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			t.at(func(now time.Time) {
				t.timing.TLS = now.Sub(t.shaking)
				if err == nil {
					t.phase = "connecting"
				}
			})
		},
		GotConn: func(info httptrace.GotConnInfo) {
			t.at(func(now time.Time) {
				t.connected, t.peer, t.phase = now, peerOf(info.Conn), "waiting for the answer"
				if !info.Reused {
					t.timing.Connect = max(now.Sub(t.asked)-t.timing.DNS-t.timing.TLS, 0)
				}
			})
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { t.at(func(now time.Time) { t.wrote = now }) },
		GotFirstResponseByte: func() { t.at(func(now time.Time) { t.timing.FirstByte = now.Sub(t.wrote) }) },
	}
}

func (t *tracer) at(set func(now time.Time)) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	set(now)
}

func (t *tracer) handshakes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shakes
}

func (t *tracer) read() (sdk.Timing, string, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.timing, t.peer, t.phase
}
