package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrProtocol is wrapped by errors about a message that neither side of this package writes. The connection that it came
// through is closed.
var ErrProtocol = errors.New("broken broker message")

// isEnd reports whether an error means that the other side has closed its end; with messages that it had not read, the system
// says so as a reset.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Bounds of a connection.
const (
	maxRequest = 64 << 10         // bytes of a message from the runner
	maxReply   = 256 << 10        // bytes of a message to the runner
	maxWriting = 10 * time.Second // that the other side may leave a message unread before it counts as gone
	headerSize = 4
)

// Conn is one end of the pair of sockets between the server and a runner. A message is its length in four bytes, big endian,
// and that many bytes of JSON. A descriptor, which only the server sends, travels with the first byte of a message.
//
// It reads and writes with as few system calls as can be, since the runner's end lives behind a filter: see socketConn.
type Conn struct {
	sock *net.UnixConn
	turn chan struct{} // whoever writes has its one place
	in   []byte        // what the one reader reads into

	patience time.Duration // maxWriting
}

func newConn(sock *net.UnixConn) *Conn {
	return &Conn{sock: sock, turn: make(chan struct{}, 1), patience: maxWriting}
}

// Pair makes the two ends: one for NewServer, and one for a child to inherit, where Inherit takes it. The caller closes the
// child's end once the child has it. Systems that cannot hand descriptors over return an error.
func Pair() (server *Conn, child *os.File, err error) {
	sock, child, err := pair()
	if err != nil {
		return nil, nil, fmt.Errorf("make the broker's sockets: %w", err)
	}
	return newConn(sock), child, nil
}

// Inherit takes the end that a process inherited. It closes f, whether it succeeds or not.
func Inherit(f *os.File) (*Conn, error) {
	sock, err := streamSocket(f)
	if err != nil {
		return nil, fmt.Errorf("inherit the broker's socket: %w", err)
	}
	return newConn(sock), nil
}

// streamSocket makes a connection of a descriptor, which it closes.
func streamSocket(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	sock, ok := conn.(*net.UnixConn)
	if !ok || sock.LocalAddr().Network() != "unix" {
		conn.Close()
		return nil, errors.New("it is no Unix stream socket")
	}
	return sock, nil
}

// Close closes this end. The other one reads its end.
func (c *Conn) Close() error { return c.sock.Close() }

// receive reads one message of at most limit bytes. The body is good until the next call. A socket that came with it belongs
// to the caller; without takes, descriptors are not even received: read(2) makes the kernel drop them. The error is io.EOF
// when the other side has closed between two messages.
func (c *Conn) receive(limit int, takes bool) (body []byte, socket *os.File, err error) {
	var header [headerSize]byte
	got := 0
	if takes {
		if got, socket, err = c.receiveWith(header[:]); err != nil {
			return nil, nil, err
		}
	}
	defer func() {
		if err != nil && socket != nil {
			socket.Close()
			socket = nil
		}
	}()
	if n, err := io.ReadFull(c.sock, header[got:]); err != nil {
		return nil, socket, cutShort(err, got+n > 0)
	}
	size := binary.BigEndian.Uint32(header[:])
	if size == 0 || size > uint32(limit) {
		return nil, socket, fmt.Errorf("%w: it says that it has %d bytes, at most %d may be", ErrProtocol, size, limit)
	}
	if len(c.in) < int(size) {
		c.in = make([]byte, size)
	}
	body = c.in[:size]
	if _, err := io.ReadFull(c.sock, body); err != nil {
		return nil, socket, cutShort(err, true)
	}
	return body, socket, nil
}

// receiveWith reads the first bytes of a message, and the descriptor that may come with them.
func (c *Conn) receiveWith(p []byte) (int, *os.File, error) {
	var oob [64]byte // room for more descriptors than the one that may come, so that more are seen
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(p, oob[:])
	if errors.Is(err, io.EOF) {
		return 0, nil, io.EOF
	}
	if err != nil {
		return 0, nil, err
	}
	socket, err := received(oob[:oobn], flags)
	return n, socket, err
}

// cutShort tells an end in the middle of a message from one between two.
func cutShort(err error, begun bool) error {
	if begun && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return fmt.Errorf("%w: it was cut short: %w", ErrProtocol, io.ErrUnexpectedEOF)
	}
	return err
}

// take waits for the turn to write.
func (c *Conn) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give ends the turn.
func (c *Conn) give() { <-c.turn }

// encode makes a message.
func encode(v any, limit int) ([]byte, error) {
	var out bytes.Buffer
	out.Write(make([]byte, headerSize))
	to := json.NewEncoder(&out)
	to.SetEscapeHTML(false) // it makes six bytes of one
	if err := to.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a broker message: %w", err)
	}
	message := out.Bytes()
	size := len(message) - headerSize
	if size > limit {
		return nil, fmt.Errorf("a broker message of %d bytes is too long: at most %d may be", size, limit)
	}
	binary.BigEndian.PutUint32(message, uint32(size))
	return message, nil
}

// send writes what encode made. It is for whoever has the turn. After an error that is not errCrowded the connection must be
// closed, since nobody knows how much of the message went out.
func (c *Conn) send(message []byte) error { return c.sendWith(message, nil) }

// sendWith sends a message together with the socket of a connection, which stays the caller's to close.
func (c *Conn) sendWith(message []byte, socket net.Conn) error {
	err := c.sock.SetWriteDeadline(time.Now().Add(c.patience))
	if err == nil && socket != nil {
		var sent int
		sent, err = c.attach(message, socket)
		message = message[sent:]
	}
	if err == nil && len(message) > 0 {
		_, err = c.sock.Write(message)
	}
	if err != nil {
		return fmt.Errorf("write a broker message: %w", err)
	}
	return nil
}

// errCrowded says that nothing was sent: too many descriptors of this user are on their way, unread (unix(7)).
var errCrowded = syscall.ETOOMANYREFS

// attach writes the beginning of a message, at least one byte, with the descriptor of a socket. The descriptor is borrowed:
// duplicating it first would be one more to leak.
func (c *Conn) attach(message []byte, socket net.Conn) (sent int, err error) {
	owner, ok := socket.(interface {
		SyscallConn() (syscall.RawConn, error)
	})
	if !ok {
		return 0, fmt.Errorf("%T has no descriptor", socket)
	}
	raw, err := owner.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		sent, _, err = c.sock.WriteMsgUnix(message, rights(int(fd)), nil)
	})
	return sent, errors.Join(failed, err)
}
