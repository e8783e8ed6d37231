// Package broker is the way of a sandboxed plugin to the network: its runner has none, so it asks the server, which holds the
// question against the grant, resolves, dials, and hands over the connected socket. DNS questions and echoes the server
// answers itself. The two talk over a pair of Unix sockets that the runner inherits.
package broker

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/tocsinhq/tocsin/host/reach"
)

// Network is the network as one call of a plugin sees it. A Client gives one for each call. Errors are *Error.
type Network interface {
	// Dial connects to what the access names. The stream or datagram socket belongs to the caller.
	Dial(ctx context.Context, access reach.Access) (Dialled, error)
	// Resolve asks a DNS question.
	Resolve(ctx context.Context, q Question) (Answer, error)
	// Echo sends one ICMP echo request and waits for its reply.
	Echo(ctx context.Context, host reach.Host) (Echo, error)
}

// Dialled is a connection that the server made.
type Dialled struct {
	Conn    net.Conn
	Addr    netip.AddrPort // the address that was dialled
	DNS     time.Duration  // 0 for an address
	Connect time.Duration  // 0 for UDP
}

// Question is a DNS question.
type Question struct {
	Type   string     // upper case, such as MX
	Name   reach.Host // always a name
	Server string     // HOST:PORT of the server to ask; empty: the system's
}

// Answer is what a DNS server answered. Its JSON is what a plugin reads.
type Answer struct {
	RCode   string   `json:"rcode"` // NOERROR, NXDOMAIN …
	Answers []Record `json:"answers"`
}

// Record is one record of an answer.
type Record struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"` // as in a zone file
}

// Echo is the reply to an ICMP echo request.
type Echo struct {
	RTT  time.Duration
	TTL  int // 0 when the system does not tell
	Addr netip.Addr
}

// Kind is why something on the network failed, in one word that plugins read in /net/error.
type Kind string

// The kinds of failure.
const (
	Denied  Kind = "denied"  // not granted, or an address that is not allowed
	Refused Kind = "refused" // the other side refused the connection
	Timeout Kind = "timeout"
	DNS     Kind = "dns" // the name has no address, or the resolver failed
	TLS     Kind = "tls"
	Closed  Kind = "closed"  // the other side closed or reset the connection
	Invalid Kind = "invalid" // the plugin asked for nonsense
	Busy    Kind = "busy"    // too much is open or under way
	Failed  Kind = "failed"  // anything else
)

// Error is a failure on the network.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }
