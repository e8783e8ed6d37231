package netfs

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
)

// conn is a connection that is counted, ends with the call and waits for nothing beyond its deadline.
type conn struct {
	net.Conn
	fs   *FS
	once sync.Once
	err  error
}

// dial asks for a connection.
func (f *FS) dial(access reach.Access) (*conn, broker.Dialled, error) {
	d, err := f.opts.Network.Dial(f.ctx, access)
	if err != nil {
		return nil, broker.Dialled{}, describe(err, "connecting to "+address(access))
	}
	c := &conn{Conn: d.Conn, fs: f}
	if !f.opts.Deadline.IsZero() {
		_ = c.Conn.SetDeadline(f.opts.Deadline) // it fails on a closed connection only, which the first use tells
	}
	f.mu.Lock()
	closed := f.closed
	if !closed {
		f.conns[c] = struct{}{}
	}
	f.mu.Unlock()
	if closed {
		c.end()
		return nil, broker.Dialled{}, ended()
	}
	return c, d, nil
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.fs.read.Add(uint64(max(n, 0)))
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.fs.written.Add(uint64(max(n, 0)))
	return n, err
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(c.clamp(t)) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.clamp(t)) }

// SetWriteDeadline implements net.Conn. crypto/tls gives its farewell five seconds of its own.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.clamp(t)) }

// end closes a connection whose closing is of no interest to anybody.
func (c *conn) end() { _ = c.Close() }

func (c *conn) clamp(t time.Time) time.Time {
	if end := c.fs.opts.Deadline; !end.IsZero() && (t.IsZero() || t.After(end)) {
		return end
	}
	return t
}

// Close implements net.Conn. Closing twice is fine.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.fs.mu.Lock()
		delete(c.fs.conns, c)
		c.fs.mu.Unlock()
		c.err = c.Conn.Close()
	})
	return c.err
}

// address is what was asked for without the scheme.
func address(access reach.Access) string {
	_, at, _ := strings.Cut(access.String(), "://")
	return at
}

// stream is an open connection: of bytes, or of datagrams.
type stream struct {
	file
	raw       *conn
	conn      net.Conn // raw, or TLS over it; nil when TLS has taken it over
	access    reach.Access
	id        int
	datagrams bool
	late      error // of a read that also brought bytes
}

func (f *FS) openPlain(o reach.Open, base file) (esys.File, error) {
	f.mu.Lock()
	taken := o.Stream != 0 && f.streams[o.Stream] != nil
	f.mu.Unlock()
	if taken {
		return nil, invalid("id=%d is the id of another open stream", o.Stream)
	}
	c, _, err := f.dial(o.Needs[0])
	if err != nil {
		return nil, err
	}
	s := &stream{file: base, raw: c, conn: c, access: o.Needs[0], id: o.Stream, datagrams: o.Op == "udp"}
	if s.id != 0 {
		f.mu.Lock()
		f.streams[s.id] = s
		f.mu.Unlock()
	}
	return s, nil
}

func (f *FS) openTLS(o reach.Open, base file) (esys.File, error) {
	var (
		c      *conn
		access reach.Access
		err    error
	)
	if o.TakeOver {
		c, access, err = f.takeOver(o.Stream)
	} else {
		access = o.Needs[0]
		c, _, err = f.dial(access)
	}
	if err != nil {
		return nil, err
	}
	client, err := f.handshake(c, secure{access: access, name: o.Name, insecure: o.Insecure, alpn: o.ALPN})
	if err != nil {
		return nil, err
	}
	return &stream{file: base, raw: c, conn: client, access: access}, nil
}

// takeOver takes the connection away from a plain stream, which is dead then. Nothing of it was read ahead: what a server
// sent in plain before the handshake cannot be mistaken for what it sends after it.
func (f *FS) takeOver(id int) (*conn, reach.Access, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[id]
	if s == nil {
		return nil, reach.Access{}, invalid("no open stream has the id %d", id)
	}
	delete(f.streams, id)
	c := s.raw
	s.raw, s.conn = nil, nil
	return c, s.access, nil
}

// Read implements the method of esys.File. The end of a stream is 0 bytes; so is an empty datagram.
func (s *stream) Read(b []byte) (int, esys.Errno) {
	if errno := s.mayRead(); errno != 0 || len(b) == 0 {
		return 0, errno
	}
	if s.conn == nil {
		return 0, s.fail("read", takenOver())
	}
	err := s.late
	n := 0
	if err == nil {
		n, err = s.conn.Read(b)
	}
	s.late = nil
	switch {
	case err == nil:
		return n, 0
	case n > 0:
		s.late = err // a guest is told either of bytes or of an error
		return n, 0
	case errors.Is(err, io.EOF) && !s.datagrams:
		s.late = err
		return 0, 0
	}
	return 0, s.fail("read", err)
}

// Write implements the method of esys.File. Writing nothing does nothing, for datagrams too: C's library ends many a write
// with an empty one.
func (s *stream) Write(b []byte) (int, esys.Errno) {
	if errno := s.mayWrite(); errno != 0 || len(b) == 0 {
		return 0, errno
	}
	if s.conn == nil {
		return 0, s.fail("write", takenOver())
	}
	n, err := s.conn.Write(b)
	if err != nil {
		return n, s.fail("write", err)
	}
	return n, 0
}

func (s *stream) fail(op string, err error) esys.Errno {
	return s.fs.fail(op, s.path, describe(err, address(s.access)))
}

// Close implements the method of esys.File.
func (s *stream) Close() esys.Errno {
	if !s.shut() {
		return esys.EBADF
	}
	s.fs.mu.Lock()
	if s.fs.streams[s.id] == s {
		delete(s.fs.streams, s.id)
	}
	s.fs.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close() // what was written has left; that the other side is gone by now is no fault
	}
	return 0
}
