package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/tocsinhq/tocsin/host/reach"
)

// maxAddresses bounds how many addresses of a name are tried.
const maxAddresses = 16

// decide holds an access against the grant. That comes before everything else: a name that was not granted is not even
// looked up, since the question alone can carry data away.
func (s *Server) decide(call Call, access reach.Access) (reach.Verdict, error) {
	verdict, err := call.Grant.Decide(call.Fill, access, s.o.Policy)
	if err != nil {
		return reach.Verdict{}, &Error{Denied, err.Error()}
	}
	return verdict, nil
}

func (s *Server) tryDial(ctx context.Context, call Call, trace *Trace) (result, error) {
	network := "tcp"
	switch trace.Access.Scheme {
	case "udp":
		network = "udp"
	case "dns", "icmp":
		return result{}, &Error{Invalid, trace.Access.String() + ": it is not a connection"}
	}
	verdict, err := s.decide(call, trace.Access)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	addrs, err := s.addresses(ctx, verdict, trace.Access, trace)
	if err != nil {
		return result{}, err
	}
	resolved := time.Now()
	conn, addr, err := s.connect(ctx, way{verdict, trace.Access, network}, addrs)
	if err != nil {
		return result{}, err
	}
	trace.Addr = addr
	r := reply{Addr: addr}
	if trace.Access.Host.Name != "" {
		r.DNS = resolved.Sub(start)
	}
	if network == "tcp" {
		r.Connect = time.Since(resolved)
	}
	return result{r, conn}, nil
}

// addresses returns what may be dialled for an access: its own address, or those of its name that the verdict allows. The
// name is looked up this once; whoever wants to answer differently the second time is not asked again.
func (s *Server) addresses(ctx context.Context, verdict reach.Verdict, access reach.Access, trace *Trace) ([]netip.Addr, error) {
	addrs := []netip.Addr{access.Host.Addr}
	if access.Host.Name != "" {
		var err error
		if addrs, err = s.o.Lookup(ctx, access.Host.Name); err != nil {
			return nil, lookupError(ctx, access, err)
		}
		addrs = slices.Clone(addrs)
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
	}
	usable, err := verdict.Usable(addrs)
	for _, addr := range addrs {
		if !slices.Contains(usable, addr) && len(trace.Barred) < maxAddresses {
			trace.Barred = append(trace.Barred, addr)
		}
	}
	switch {
	case errors.Is(err, reach.ErrDenied):
		return nil, &Error{Denied, err.Error()}
	case err != nil:
		return nil, &Error{DNS, err.Error()}
	}
	return usable[:min(len(usable), maxAddresses)], nil
}

// lookupError says why a name has no address, without the servers that were asked: those are the operator's business.
func lookupError(ctx context.Context, access reach.Access, err error) error {
	text := fmt.Sprintf("%s: look up %s: ", access, access.Host)
	if over := overtime(ctx, text); over != nil {
		return &because{over, err}
	}
	var fault *net.DNSError
	switch {
	case errors.As(err, &fault) && fault.IsNotFound:
		text += "no such host"
	case errors.As(err, &fault) && fault.IsTimeout:
		text += "no DNS server answered in time"
	default:
		text += "the DNS servers could not say"
	}
	return &because{&Error{DNS, text}, err}
}

// overtime returns the error for a context that has ended, else nil.
func overtime(ctx context.Context, text string) *Error {
	deadline, ok := ctx.Deadline()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), ok && !time.Now().Before(deadline): // sockets see the deadline first
		return &Error{Timeout, text + "timed out"}
	case ctx.Err() != nil:
		return &Error{Failed, text + "the call has ended"}
	}
	return nil
}

// way is what a connection is made for.
type way struct {
	verdict reach.Verdict
	access  reach.Access
	network string // tcp or udp
}

// guard is a dialer's control hook: it sees the very address that is about to be dialled, whatever was decided before.
func (w way) guard(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q is no literal address", reach.ErrDenied, address)
	}
	return w.verdict.Check(at.Addr())
}

// connect dials one address after the other until one answers. Each gets its share of the time that is left, so that the
// first cannot use up all of it. The error is that of the first.
func (s *Server) connect(ctx context.Context, w way, addrs []netip.Addr) (net.Conn, netip.AddrPort, error) {
	dialer := &net.Dialer{Control: w.guard, KeepAlive: -1} // a check's connection is short
	var first error
	for i, addr := range addrs {
		at := netip.AddrPortFrom(addr, w.access.Port)
		part, cancel := share(ctx, len(addrs)-i)
		conn, err := s.dial(part, dialer, w.network, at.String())
		cancel()
		if err == nil {
			return conn, at, nil
		}
		if first == nil {
			first = dialError(ctx, fmt.Sprintf("%s: connect to %s: ", w.access, addr), err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, netip.AddrPort{}, first
}

// leastShare is the time that an address gets at least where so much is left.
const leastShare = 2 * time.Second

// share gives a part of the time that a context has left.
func share(ctx context.Context, parts int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || parts <= 1 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(parts), leastShare))
}

// dialError says why a connection was not made.
func dialError(ctx context.Context, text string, err error) error {
	if errors.Is(err, reach.ErrDenied) {
		return &Error{Denied, inner(err).Error()}
	}
	if over := overtime(ctx, text); over != nil {
		return over
	}
	kind, why := Failed, "failed"
	var (
		number syscall.Errno
		slow   net.Error
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		kind, why = Refused, "connection refused"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		kind, why = Timeout, "timed out"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		kind, why = Closed, "closed by the other side"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		kind, why = Busy, "the server has too many files open"
	case errors.As(err, &number):
		why = number.Error()
	}
	return &because{&Error{kind, text + why}, err}
}

// inner takes the wrapping of the net package off.
func inner(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (s *Server) tryEcho(ctx context.Context, call Call, trace *Trace) (result, error) {
	if trace.Access.Scheme != "icmp" {
		return result{}, &Error{Invalid, trace.Access.String() + ": an echo is sent to icmp"}
	}
	verdict, err := s.decide(call, trace.Access)
	if err != nil {
		return result{}, err
	}
	if s.o.Ping == nil {
		return result{}, &Error{Failed, trace.Access.String() + ": ICMP is not available here"}
	}
	addrs, err := s.addresses(ctx, verdict, trace.Access, trace)
	if err != nil {
		return result{}, err
	}
	if err := verdict.Check(addrs[0]); err != nil {
		return result{}, &Error{Denied, err.Error()}
	}
	trace.Addr = netip.AddrPortFrom(addrs[0], 0)
	text := fmt.Sprintf("%s: ping %s: ", trace.Access, addrs[0])
	echo, err := s.o.Ping(ctx, addrs[0])
	if over := overtime(ctx, text); err != nil && over != nil {
		return result{}, &because{over, err}
	}
	var plain *Error
	switch {
	case err == nil:
		return result{reply: reply{Echo: &echo}}, nil
	case errors.As(err, &plain):
		return result{}, &because{&Error{plain.Kind, text + plain.Message}, err}
	}
	return result{}, dialError(ctx, text, err)
}
