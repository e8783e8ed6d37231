package check

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// dial connects to a host and records how long the resolver and the connection took. A name is resolved by the system's
// resolver and its addresses are raced (RFC 8305); a literal address touches no resolver.
func (e *env) dial(ctx context.Context, network string, p endpoint, timing *sdk.Timing) (net.Conn, error) {
	start := time.Now()
	if p.addr.IsValid() && strings.HasPrefix(network, "tcp") {
		conn, err := e.dialer.DialTCP(ctx, network, netip.AddrPort{}, netip.AddrPortFrom(p.addr, p.port))
		timing.Connect += time.Since(start)
		if err != nil {
			return nil, &failure{phase: "connecting", peer: p.String(), err: err}
		}
		return conn, nil
	}
	phase := "connecting"
	var resolved time.Time
	if !p.addr.IsValid() {
		phase = "resolving"
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{DNSDone: func(info httptrace.DNSDoneInfo) {
			resolved = time.Now()
			if info.Err == nil {
				phase = "connecting"
			}
		}})
	}
	conn, err := e.dialer.DialContext(ctx, network, p.String())
	end := time.Now()
	if resolved.IsZero() {
		resolved = start
	}
	timing.DNS += resolved.Sub(start)
	timing.Connect += end.Sub(resolved)
	if err != nil {
		if addr, ok := errors.AsType[*net.AddrError](err); ok && addr.Addr == p.host {
			err = &net.AddrError{Err: "has no " + familyName(network) + " address", Addr: p.host}
		}
		if phase == "resolving" && ctx.Err() != nil {
			err = &ownFault{err: &quiet{"the resolver gave no answer for " + p.host + " in time", err}}
		}
		return nil, &failure{phase: phase, peer: p.String(), err: err}
	}
	return conn, nil
}

// dialResolver connects to a resolver. The connection ends with the context: without that a lookup that nobody waits for any
// more would go on for the seconds that resolv.conf allows it.
func dialResolver(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	bind(ctx, conn)
	return conn, nil
}

func familyName(network string) string {
	switch {
	case strings.HasSuffix(network, "4"):
		return "IPv4"
	case strings.HasSuffix(network, "6"):
		return "IPv6"
	}
	return "usable"
}

// bind ends the connection's reads and writes when the context ends. The function that it returns undoes that.
func bind(ctx context.Context, conn net.Conn) (release func() bool) {
	return context.AfterFunc(ctx, func() {
		// The deadline lies in the past: whatever waits returns at once. It fails only on a closed connection.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
}

// handshake makes a TLS client of a connection. Its certificate is verified as the settings say.
func (t *tlsSettings) handshake(ctx context.Context, conn net.Conn, p endpoint, timing *sdk.Timing) (*tls.Conn, error) {
	start := time.Now()
	config := t.config.Clone()
	if config.ServerName == "" {
		config.ServerName = serverName(p)
	}
	client := tls.Client(conn, config)
	err := client.HandshakeContext(ctx)
	timing.TLS += time.Since(start)
	if err != nil {
		return nil, &failure{phase: "TLS handshake", peer: peerOf(conn), err: err}
	}
	return client, nil
}

// serverName is the name that a certificate is verified for: without a final dot or a zone.
func serverName(p endpoint) string {
	if p.addr.IsValid() {
		return p.addr.WithZone("").String()
	}
	return strings.TrimSuffix(p.host, ".")
}

func peerOf(conn net.Conn) string {
	if addr := conn.RemoteAddr(); addr != nil {
		return addr.String()
	}
	return ""
}
