package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/tocsinhq/tocsin/host/reach"
)

// Client is the runner's side: it turns what the calls of a plugin ask for into messages to the server.
type Client struct {
	conn *Conn

	mu      sync.Mutex
	last    uint64                  // the last id that was given out
	waiting map[uint64]chan arrival // for replies; nil once the connection has ended
}

// arrival is a reply with the socket that came with it, if any.
type arrival struct {
	reply  reply
	socket *os.File
}

func (a arrival) close() {
	if a.socket != nil {
		a.socket.Close()
	}
}

// NewClient makes the client of one connection, which it takes over. Nothing is answered before Run.
func NewClient(c *Conn) *Client {
	return &Client{conn: c, waiting: map[uint64]chan arrival{}}
}

// Run reads replies until the connection ends, and closes it. It returns nil when the server has closed its end. Everything
// that is under way then fails, and so does everything after.
func (c *Client) Run() error {
	err := c.read()
	_ = c.conn.Close() // it is of no more use
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, ch := range waiting {
		ch <- arrival{reply: reply{Error: gone()}}
	}
	if isEnd(err) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("read from the broker: %w", err)
}

func gone() *Error { return &Error{Closed, "the server is gone"} }

func (c *Client) read() error {
	for {
		body, socket, err := c.conn.receive(maxReply, true)
		if err != nil {
			return err
		}
		a := arrival{socket: socket}
		if a.reply, err = readReply(body); err != nil {
			a.close()
			return err
		}
		if ch := c.forget(a.reply.ID); ch != nil {
			ch <- a
		} else {
			a.close() // nobody waits for it any more
		}
	}
}

// forget takes away the channel that waits for a reply. Whoever gets it is the only one who has it.
func (c *Client) forget(id uint64) chan arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.waiting[id]
	delete(c.waiting, id)
	return ch
}

// Tell sends a note to the server, as JSON of at most about 64 KiB. Notes arrive in order, and before requests that are made
// afterwards.
func (c *Client) Tell(v any) error {
	note, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a note to the server: %w", err)
	}
	message, err := encode(request{Op: opTell, Note: note}, maxRequest)
	if err != nil {
		return err
	}
	// The turn comes: nobody keeps it longer than maxWriting, after which the connection is closed.
	if err := c.conn.take(context.Background()); err != nil {
		return err
	}
	defer c.conn.give()
	return c.send(message)
}

// send writes a message in the caller's turn. When it fails the connection is of no more use.
func (c *Client) send(message []byte) error {
	err := c.conn.send(message)
	if err != nil {
		_ = c.conn.Close()
	}
	return err
}

// For returns the network as one call sees it. It needs no closing; what is under way ends with the contexts.
func (c *Client) For(call uint64) Network { return network{c, call} }

// ask sends a request and waits for its reply. Its errors are *Error.
func (c *Client) ask(ctx context.Context, r request) (arrival, error) {
	ch, err := c.begin(ctx, &r)
	if err != nil {
		return arrival{}, err
	}
	select {
	case a := <-ch:
		if a.reply.Error != nil {
			a.close()
			return arrival{}, a.reply.Error
		}
		return a, nil
	case <-ctx.Done():
	}
	if c.forget(r.ID) == nil {
		(<-ch).close() // it has just come, or the connection has ended
	} else {
		go c.cancel(r.ID)
	}
	return arrival{}, ended(ctx, r.Access)
}

// begin sends a request and returns where its reply will arrive.
func (c *Client) begin(ctx context.Context, r *request) (chan arrival, error) {
	if ctx.Err() != nil || c.conn.take(ctx) != nil {
		return nil, ended(ctx, r.Access)
	}
	defer c.conn.give()
	ch := make(chan arrival, 1)
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return nil, gone()
	}
	c.last++
	r.ID = c.last
	c.waiting[r.ID] = ch
	c.mu.Unlock()
	message, err := encode(r, maxRequest)
	if err != nil {
		c.forget(r.ID)
		return nil, &Error{Invalid, err.Error()}
	}
	if err := c.send(message); err != nil {
		c.forget(r.ID)
		return nil, gone()
	}
	return ch, nil
}

// cancel tells the server that nobody waits for a reply any more. That it arrives is not certain, nor needed: everything has
// a deadline.
func (c *Client) cancel(id uint64) {
	message, err := encode(request{Op: opCancel, ID: id}, maxRequest)
	if err != nil || c.conn.take(context.Background()) != nil {
		return
	}
	defer c.conn.give()
	_ = c.send(message)
}

// ended says why a context ended.
func ended(ctx context.Context, access string) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Timeout, access + ": timed out"}
	}
	return &Error{Failed, access + ": the call has ended"}
}

// network is the network of one call.
type network struct {
	client *Client
	call   uint64
}

var _ Network = network{}

func (n network) Dial(ctx context.Context, access reach.Access) (Dialled, error) {
	a, err := n.client.ask(ctx, request{Op: opDial, Call: n.call, Access: access.String()})
	if err != nil {
		return Dialled{}, err
	}
	if a.socket == nil {
		return Dialled{}, &Error{Busy, access.String() + ": the socket did not arrive; too many files are open"}
	}
	conn, err := socketConn(a.socket)
	if err != nil {
		return Dialled{}, &Error{Failed, fmt.Sprintf("%s: take over the socket: %v", access, err)}
	}
	return Dialled{Conn: conn, Addr: a.reply.Addr, DNS: a.reply.DNS, Connect: a.reply.Connect}, nil
}

func (n network) Resolve(ctx context.Context, q Question) (Answer, error) {
	access := reach.Access{Scheme: "dns", Host: q.Name}
	a, err := n.client.ask(ctx, request{Op: opResolve, Call: n.call, Access: access.String(), Type: q.Type, Server: q.Server})
	if err != nil {
		return Answer{}, err
	}
	a.close()
	if a.reply.Answer == nil {
		return Answer{}, &Error{Failed, access.String() + ": the server sent no answer"}
	}
	return *a.reply.Answer, nil
}

func (n network) Echo(ctx context.Context, host reach.Host) (Echo, error) {
	access := reach.Access{Scheme: "icmp", Host: host}
	a, err := n.client.ask(ctx, request{Op: opEcho, Call: n.call, Access: access.String()})
	if err != nil {
		return Echo{}, err
	}
	a.close()
	if a.reply.Echo == nil {
		return Echo{}, &Error{Failed, access.String() + ": the server sent no echo"}
	}
	return *a.reply.Echo, nil
}

// socketConn makes a connection of a socket that the server sent, and closes f.
//
// The system calls that this package makes on the runner's side, all of which the filter there must let pass, are:
//
//	recvmsg, read               the broker's socket
//	write                       the broker's socket
//	fcntl                       F_DUPFD_CLOEXEC, F_GETFL, F_SETFL: net.FileConn duplicates the descriptor
//	getsockopt                  SO_TYPE
//	getsockname, getpeername    net.FileConn fills in the addresses
//	setsockopt                  net.FileConn sets TCP_NODELAY, SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT; that
//	                            they fail does no harm, so the filter may refuse them with an error
//	epoll_ctl, epoll_pwait      the runtime's poller
//	read, write, close          the sockets themselves
//
// and no sendmsg, sendto, recvfrom, socket, connect or shutdown. A connection shows nothing but net.Conn so that it stays
// so: with ReadFrom and WriteTo, io.Copy would come to sendfile and splice.
func socketConn(f *os.File) (net.Conn, error) {
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	switch conn.(type) {
	case *net.TCPConn, *net.UDPConn:
		return plain{conn}, nil
	}
	conn.Close()
	return nil, errors.New("it is neither a TCP nor a UDP socket")
}

// plain hides what a connection has besides the methods of net.Conn.
type plain struct{ net.Conn }
