package check

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// pooled makes a request through a proxy or over a kept connection.
func (h *httpCheck) pooled(ctx context.Context, p *hop, s *seen) (answer, error) {
	if h.plan.proxied && p.at.addr.IsValid() {
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
		if _, known := errors.AsType[*failure](err); known {
			return answer{}, err
		}
		if peer == "" {
			peer = p.at.String()
		}
		if h.plan.proxied && phase != "waiting for the answer" {
			phase += " through the proxy"
		}
		return answer{}, &failure{phase: phase, peer: peer, err: err}
	}
	defer resp.Body.Close()
	if resp.TLS != nil {
		s.saw(resp.TLS)
	}
	return h.judge(resp, s)
}

// tracer measures a request of net/http. Its hooks can be called after the request has ended, hence the lock.
type tracer struct {
	mu                                    sync.Mutex
	asked, dns, shaking, connected, wrote time.Time
	timing                                sdk.Timing
	peer, phase                           string
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
		TLSHandshakeStart: func() { t.at(func(now time.Time) { t.shaking, t.phase = now, "TLS handshake" }) },
		TLSHandshakeDone: func(tls.ConnectionState, error) {
			t.at(func(now time.Time) { t.timing.TLS = now.Sub(t.shaking) })
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

func (t *tracer) read() (sdk.Timing, string, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.timing, t.peer, t.phase
}
