package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

// Call is what the server knows of a call that a plugin is in the middle of.
type Call struct {
	Grant    reach.Grant
	Fill     reach.Call  // what fills the placeholders of the grant
	Deadline time.Time   // everything under way for it ends then; the zero time has passed
	Trace    func(Trace) // is told of every request when it is done; may be nil, may be called by several goroutines at once
}

// Trace is one request of a call: what was decided and what came of it.
type Trace struct {
	Op     string         // dial, resolve or echo
	Access reach.Access   // what was asked for; the zero value when that could not be read
	Server string         // that the plugin wants a DNS question to be asked of; empty: the system's
	Addr   netip.AddrPort // that was reached; port 0 for an echo; not valid for a question to the system's servers
	Barred []netip.Addr   // addresses of the name that must not be dialled and were passed over
	Err    *Error         // what the plugin was told; nil: it succeeded
	Detail string         // what is behind Err, where the plugin is told less
	Took   time.Duration
}

// ServerOptions says what a Server works with. Only Calls is needed.
type ServerOptions struct {
	Policy netpolicy.Policy // what may be dialled at all; a grant only takes away from it

	// Lookup returns the addresses of a name; nil: what the system's settings say, asked by Go's own resolver.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Servers returns the DNS servers for questions that name none; nil: those of /etc/resolv.conf.
	Servers func() ([]netip.AddrPort, error)
	// Ping sends one echo request; nil: there are none.
	Ping func(ctx context.Context, addr netip.Addr) (Echo, error)

	Calls func(id uint64) (Call, bool) // the calls that are under way; asked by several goroutines at once
	Told  func(json.RawMessage)        // gets notes, in order; the connection stands still until it returns. nil: they are dropped
	Log   *slog.Logger                 // nil: nothing is logged
}

// Server is the server's side: it decides, resolves, dials and hands over.
type Server struct {
	o    ServerOptions
	pace pace                                                                                // of each connection; tests change it
	dial func(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) // d.DialContext; tests look on
}

// NewServer makes a server. It holds nothing that needs closing, and may serve several connections.
func NewServer(o ServerOptions) *Server {
	if o.Lookup == nil {
		resolver := &net.Resolver{PreferGo: true}
		o.Lookup = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return resolver.LookupNetIP(ctx, "ip", name)
		}
	}
	if o.Servers == nil {
		o.Servers = systemServers
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, pace: pace{usualRate, usualBurst}, dial: dialWith}
}

func dialWith(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	return d.DialContext(ctx, network, address)
}

// maxUnderWay bounds the requests of one connection at the same time. More are turned away, not queued.
const maxUnderWay = 64

// session is one connection being served.
type session struct {
	server *Server
	conn   *Conn
	fail   context.CancelCauseFunc // ends it
	work   sync.WaitGroup

	mu       sync.Mutex
	underWay map[uint64]context.CancelFunc
}

// Serve answers one connection until it ends or ctx does, then ends everything that is under way for it, closes it, and
// returns. A runner that sends more than 2,000 messages a second for long is read only as fast as that. The error is nil when
// the runner closed its end or ctx has ended; it wraps ErrProtocol when the runner sent what no Client sends.
func (s *Server) Serve(ctx context.Context, c *Conn) error {
	within, fail := context.WithCancelCause(ctx)
	e := &session{server: s, conn: c, fail: fail, underWay: map[uint64]context.CancelFunc{}}
	stop := context.AfterFunc(within, func() { _ = c.Close() })
	fail(e.read(within))
	_ = c.Close()
	e.work.Wait()
	stop()
	if cause := context.Cause(within); ctx.Err() == nil && !isEnd(cause) {
		return fmt.Errorf("serve a runner: %w", cause)
	}
	return nil
}

func (e *session) read(ctx context.Context) error {
	var last uint64
	bucket, slowed := e.server.pace.full(), false
	for {
		body, _, err := e.conn.receive(maxRequest, false)
		if err != nil {
			return err
		}
		// Answering that it sends too much would cost as much as what it asks for. Left in the socket, it costs nothing.
		waited, err := bucket.take(ctx, costOf(len(body)))
		if err != nil {
			return err
		}
		if waited && !slowed {
			slowed = true
			e.server.o.Log.Warn("runner is slowed down, it sends too much", "per_second", bucket.rate, "burst", bucket.burst)
		}
		r, err := readRequest(body)
		if err != nil {
			return err
		}
		switch r.Op {
		case opTell:
			if e.server.o.Told != nil {
				e.server.o.Told(r.Note)
			}
			continue
		case opCancel:
			e.cancel(r.ID)
			continue
		}
		// That ids only grow keeps a reply from being taken for that to another request.
		if r.ID <= last {
			return fmt.Errorf("%w: the id %d was used before", ErrProtocol, r.ID)
		}
		last = r.ID
		if err := e.begin(ctx, r); err != nil {
			return err
		}
	}
}

func (e *session) cancel(id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cancel := e.underWay[id]; cancel != nil {
		cancel()
	}
}

// begin starts the work on a request, or turns it away.
func (e *session) begin(ctx context.Context, r request) error {
	e.mu.Lock()
	if len(e.underWay) >= maxUnderWay {
		e.mu.Unlock()
		return e.reply(ctx, reply{ID: r.ID, Error: &Error{Busy, fmt.Sprintf("%d requests are under way; wait until one is done", maxUnderWay)}}, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	e.underWay[r.ID] = cancel
	e.mu.Unlock()
	e.work.Go(func() {
		defer cancel()
		answer, socket := e.server.answer(ctx, r)
		answer.ID = r.ID
		if socket != nil {
			defer socket.Close() // the runner has its own
		}
		_ = e.reply(context.WithoutCancel(ctx), answer, socket) // whatever fails has ended the session
	})
	return nil
}

// reply sends a reply. The request counts as under way until it is its reply's turn, so that a runner that does not read
// cannot pile up replies, and one that waits for a reply before it asks again is never turned away.
func (e *session) reply(ctx context.Context, r reply, socket net.Conn) error {
	message, err := encode(r, maxReply)
	if err != nil {
		message, err = encode(reply{ID: r.ID, Error: &Error{Failed, "the answer is too long"}}, maxReply)
	}
	if err != nil {
		e.fail(err)
		return err
	}
	if err := e.conn.take(ctx); err != nil {
		return err
	}
	defer e.conn.give()
	e.mu.Lock()
	delete(e.underWay, r.ID)
	e.mu.Unlock()
	err = e.conn.sendWith(message, socket)
	if errors.Is(err, errCrowded) {
		message, err = encode(reply{ID: r.ID, Error: &Error{Busy, "too many sockets are on their way"}}, maxReply)
		if err == nil {
			err = e.conn.send(message)
		}
	}
	if err != nil {
		e.fail(err)
		_ = e.conn.Close() // before somebody else has the turn
	}
	return err
}

// result is what came of a request that succeeded.
type result struct {
	reply  reply
	socket net.Conn // of a dial
}

// answer does what a request asks for. The socket belongs to the caller. What panics on an answer from the network must not
// end the server.
func (s *Server) answer(ctx context.Context, r request) (out reply, socket net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			s.o.Log.Error("broker panicked", "op", r.Op, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			out, socket = reply{Error: &Error{Failed, "the server could not do it; its log says why"}}, nil
		}
	}()
	call, known := s.o.Calls(r.Call)
	if !known {
		return reply{Error: notUnderWay(r.Call)}, nil
	}
	ctx, cancel := context.WithDeadline(ctx, call.Deadline)
	defer cancel()
	start, trace := time.Now(), Trace{Op: r.Op, Server: sdk.CleanText(r.Server, 300)}
	got, err := s.try(ctx, call, r, &trace)
	if _, known = s.o.Calls(r.Call); err == nil && !known {
		// A socket that comes late must not fall to the call that the same instance makes next.
		err = notUnderWay(r.Call)
	}
	if err != nil {
		trace.Err, trace.Detail = told(err)
		if got.socket != nil {
			got.socket.Close()
		}
		got = result{reply: reply{Error: trace.Err}}
	}
	trace.Took = time.Since(start)
	if call.Trace != nil {
		call.Trace(trace)
	}
	return got.reply, got.socket
}

func notUnderWay(call uint64) *Error {
	return &Error{Invalid, fmt.Sprintf("call %d is not under way", call)}
}

// try reads what is to be reached, and does it.
func (s *Server) try(ctx context.Context, call Call, r request, trace *Trace) (result, error) {
	var err error
	scheme, address, _ := strings.Cut(r.Access, "://")
	if trace.Access, err = reach.ParseAccess(scheme, address); err != nil {
		return result{}, &Error{Invalid, err.Error()}
	}
	switch r.Op {
	case opDial:
		return s.tryDial(ctx, call, trace)
	case opResolve:
		return s.tryResolve(ctx, call, r, trace)
	default:
		return s.tryEcho(ctx, call, trace)
	}
}

// maxMessage bounds the message of an error, in bytes. A refusal lists what was granted, which can be long.
const maxMessage = 2 << 10

// told divides an error into what the plugin is told and what stands behind it.
func told(err error) (*Error, string) {
	plain := &Error{Kind: Failed, Message: err.Error()}
	detail := ""
	var e *Error
	if errors.As(err, &e) {
		plain = &Error{Kind: e.Kind, Message: e.Message}
		var b *because
		if errors.As(err, &b) {
			detail = sdk.CleanText(b.cause.Error(), maxMessage)
		}
	}
	plain.Message = sdk.CleanText(plain.Message, maxMessage)
	return plain, detail
}

// because is an error whose cause the plugin is not told: it may name the system's own servers.
type because struct {
	told  *Error
	cause error
}

func (b *because) Error() string { return b.told.Message + ": " + b.cause.Error() }
func (b *because) Unwrap() error { return b.told }
