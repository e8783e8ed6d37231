package check

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

// maxLine is the longest line that a server may send before TLS begins, in bytes.
const maxLine = 4096

// dialogue is how a protocol is asked to begin TLS. Lines are sent with CRLF; an answer must begin with the text given,
// after lines that begin with the text of skip.
type dialogue struct {
	protocol string
	steps    []exchange
}

type exchange struct {
	send, expect string
	more         func(line string) bool // whether another line follows that belongs to the same answer
}

// dialogues lists the protocols. RFC 3207 (SMTP), RFC 9051 6.2.1 (IMAP), RFC 2595 4 (POP3), RFC 4217 4 (FTP).
func dialogues() []dialogue {
	smtpMore := func(line string) bool { return len(line) > 3 && line[3] == '-' }
	untagged := func(line string) bool { return strings.HasPrefix(line, "* ") }
	return []dialogue{
		{"smtp", []exchange{{"", "220", smtpMore}, {"EHLO tocsin", "250", smtpMore}, {"STARTTLS", "220", smtpMore}}},
		{"imap", []exchange{{"", "* OK", nil}, {"a1 STARTTLS", "a1 OK", untagged}}},
		{"pop3", []exchange{{"", "+OK", nil}, {"STLS", "+OK", nil}}},
		{"ftp", []exchange{{"", "220", smtpMore}, {"AUTH TLS", "234", smtpMore}}},
	}
}

// startTLS asks a server in its own protocol to begin TLS. An error that is no failure of the connection says what the
// server answered.
func startTLS(conn net.Conn, protocol string) error {
	if protocol == "postgres" {
		return startPostgresTLS(conn)
	}
	for _, d := range dialogues() {
		if d.protocol == protocol {
			return d.run(conn)
		}
	}
	return fmt.Errorf("there is no STARTTLS for %s", protocol)
}

// startPostgresTLS sends an SSLRequest (PostgreSQL protocol, "Message Formats"): length 8, code 80877103.
func startPostgresTLS(conn net.Conn) error {
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return err
	}
	var reply [1]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return err
	}
	if reply[0] != 'S' {
		return &refusal{"SSLRequest", string(reply[:])}
	}
	return nil
}

// refusal is an answer that does not lead to TLS.
type refusal struct{ sent, got string }

func (r *refusal) Error() string {
	if r.sent == "" {
		return fmt.Sprintf("greeted with %q", r.got)
	}
	return fmt.Sprintf("answered %s with %q", r.sent, r.got)
}

func (d dialogue) run(conn net.Conn) error {
	// One byte at a time past the buffer would be TLS's: a server sends nothing after its go-ahead until the client does.
	r := bufio.NewReaderSize(conn, maxLine)
	for _, step := range d.steps {
		if step.send != "" {
			if _, err := io.WriteString(conn, step.send+"\r\n"); err != nil {
				return err
			}
		}
		line, err := answerLine(r, step.more)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, step.expect) {
			return &refusal{step.send, sdk.CleanText(line, 200)}
		}
	}
	if r.Buffered() > 0 {
		return errors.New("sent more before TLS began")
	}
	return nil
}

// answerLine reads the last line of an answer.
func answerLine(r *bufio.Reader, more func(string) bool) (string, error) {
	for range 100 {
		text, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return "", fmt.Errorf("sent a line of more than %d bytes", maxLine)
		}
		if err != nil {
			return "", err
		}
		line := strings.TrimRight(string(text), "\r\n")
		if more == nil || !more(line) {
			return line, nil
		}
	}
	return "", errors.New("sends an answer without end")
}

// starttlsError tells what a server said from a connection that broke.
func starttlsError(protocol, peer string, err error, s *seen) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &failure{phase: "STARTTLS (" + protocol + ")", peer: peer, err: err}
	}
	s.down("%s does not begin TLS in %s: it %s", peer, protocol, err)
	return nil
}
