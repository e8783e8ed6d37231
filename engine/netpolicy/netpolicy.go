// Package netpolicy decides which addresses may be connected to. The decision falls in the dialer's control hook, which
// sees the literal address after resolution, so that neither a name nor a redirect gets around it.
package netpolicy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// ErrDenied is wrapped by every refusal.
var ErrDenied = errors.New("address not allowed")

// Policy is the addresses that may be connected to. Loopback and private addresses may be: people watch internal hosts.
// Link-local ones (cloud metadata among them), multicast, broadcast and unspecified ones need to be in Allow. The zero value
// allows none of those.
type Policy struct {
	Allow   []netip.Prefix
	Setting string // the name of the setting that Allow came from, for the refusal's remedy
}

// Check returns nil when addr may be connected to, else an error that wraps ErrDenied and names the remedy. An IPv4 address
// written as IPv6 (mapped, compatible, NAT64 and 6to4 forms) is judged as the IPv4 address.
func (p Policy) Check(addr netip.Addr) error {
	plain := embedded(addr.WithZone(""))
	for _, allowed := range p.Allow {
		if allowed.Contains(plain) || allowed.Contains(addr.WithZone("")) {
			return nil
		}
	}
	what := class(plain)
	if what == "" {
		return nil
	}
	setting := p.Setting
	if setting == "" {
		setting = "checks.allow_addresses"
	}
	return fmt.Errorf("%w: %s is %s; allow it with %s", ErrDenied, addr, what, setting)
}

// class names the kind of address that needs leave, or returns "".
func class(a netip.Addr) string {
	switch {
	case a.IsUnspecified() || prefixes[0].Contains(a):
		return "an unspecified address"
	case a == metadataV6:
		return "a cloud metadata address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a.IsMulticast():
		return "a multicast address"
	case prefixes[1].Contains(a):
		return "a reserved or broadcast address"
	}
	return ""
}

var (
	metadataV6 = netip.MustParseAddr("fd00:ec2::254")
	prefixes   = [...]netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4")}
	nat64      = [...]netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}
	compatible = netip.MustParsePrefix("::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
)

// embedded returns the IPv4 address that an IPv6 address carries (RFC 4291 2.5.5, RFC 6052 2.1, RFC 3056 2), or addr.
func embedded(addr netip.Addr) netip.Addr {
	if addr.Is4In6() {
		return addr.Unmap()
	}
	b := addr.As16()
	switch {
	case !addr.Is6():
		return addr
	case compatible.Contains(addr) && addr != netip.IPv6Unspecified() && addr != netip.IPv6Loopback():
		return netip.AddrFrom4([4]byte(b[12:16]))
	case nat64[0].Contains(addr) || nat64[1].Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

// Control is a net.Dialer's Control hook that applies the policy.
func (p Policy) Control(network, address string, _ syscall.RawConn) error {
	addrPort, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s address %q is no literal address", ErrDenied, network, address)
	}
	return p.Check(addrPort.Addr())
}

// Dialer returns a dialer that applies the policy to every address it dials. Its keep-alive is off: a check's connection is
// short. A timeout of 0 leaves the deadline to the context.
func (p Policy) Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, KeepAlive: -1, Control: p.Control}
}

// DialFunc is net.Dialer.DialContext's form.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)
