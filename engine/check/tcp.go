package check

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	builtin(func(e *env) Kind {
		return define(e, "tcp", "Connects to a TCP port, and where it is asked to sends a text and waits for an answer. The latency runs from the start "+
			"until the connection is made, or the answer has come.",
			"db.example.org:5432", tcpConfig{family: family{"any"}, tlsOptions: defaultTLS()},
			append(append(connectionVariables(), Variable{"body", "text", "What the server sent, up to 64 KiB; read only when expect is set or an expression looks at it, until the server pauses for 200 ms.", `body startsWith "SSH-2.0"`}),
				certVariables()...),
			func(target string, c tcpConfig, faults *monitor.Faults) prober { return newTCP(e, target, c, faults) })
	})
}

type tcpConfig struct {
	Send         string `json:"send,omitempty" doc:"Text sent once connected, as it is: line ends must be written." text:"any" maxlen:"65536" example:"PING\r\n"`
	Expect       string `json:"expect,omitempty" doc:"Text that the answer must contain." text:"any" maxlen:"2000" example:"+PONG"`
	ExpectRegexp string `json:"expect_regexp,omitempty" doc:"Regular expression (RE2) that the answer must match." maxlen:"2000" example:"^SSH-2\\.0"`
	TLS          bool   `json:"tls" doc:"Speak TLS from the start."`
	STARTTLS     string `json:"starttls,omitempty" doc:"Ask the server in this protocol to begin TLS: smtp, imap, pop3, ftp or postgres." enum:"smtp,imap,pop3,ftp,postgres,"`
	family
	tlsOptions
}

type tcpCheck struct {
	env      *env
	at       endpoint
	network  string
	starttls string
	tls      *tlsSettings // nil: no TLS
	send     []byte
	expect   string
	pattern  *regexp.Regexp
}

func newTCP(e *env, target string, c tcpConfig, faults *monitor.Faults) *tcpCheck {
	t := &tcpCheck{env: e, network: c.network("tcp"), starttls: c.STARTTLS, send: []byte(c.Send), expect: c.Expect}
	var err error
	if t.at, err = parseEndpoint(target, 0); err != nil {
		faults.Add("target", shownTarget(target), "%v", err)
	}
	c.fits(t.at.addr, faults)
	if c.TLS && c.STARTTLS != "" {
		faults.Add("starttls", c.STARTTLS, "cannot be given together with tls")
	}
	if settings := c.settings(e, nil, faults); c.TLS || c.STARTTLS != "" {
		t.tls = settings
	}
	if c.ExpectRegexp != "" {
		if c.Expect != "" {
			faults.Add("expect_regexp", nil, "cannot be given together with expect")
		}
		if t.pattern, err = regexp.Compile(c.ExpectRegexp); err != nil {
			faults.Add("expect_regexp", sdk.CleanText(c.ExpectRegexp, 100), "is no regular expression: %v", err)
		}
	}
	return t
}

func (t *tcpCheck) probe(ctx context.Context, _ sdk.CheckRequest, s *seen) error {
	start := time.Now()
	conn, err := t.env.dial(ctx, t.network, t.at, &s.Timing)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.Latency = time.Since(start)
	s.Address = peerOf(conn)
	defer bind(ctx, conn)()
	if t.tls != nil {
		secure, err := secured(ctx, t.tls, conn, t.at, t.starttls, s)
		if err != nil || secure == nil {
			return err
		}
		conn = secure
		s.Latency = time.Since(start)
	}
	if len(t.send) > 0 {
		if _, err := conn.Write(t.send); err != nil {
			return &failure{phase: "sending", peer: s.Address, err: err}
		}
	}
	if t.expect == "" && t.pattern == nil {
		s.up("connected to " + t.at.String())
		if s.need&needBody != 0 {
			return t.listen(ctx, conn, s)
		}
		return nil
	}
	sent := time.Now()
	err = t.read(conn, s)
	s.Timing.FirstByte = time.Since(sent)
	s.Latency = time.Since(start)
	return err
}

// secured makes TLS of a connection, after STARTTLS where a protocol is named. Nil without an error: the result is set.
func secured(ctx context.Context, settings *tlsSettings, conn net.Conn, at endpoint, protocol string, s *seen) (net.Conn, error) {
	if protocol != "" {
		if err := startTLS(conn, protocol); err != nil {
			return nil, starttlsError(protocol, s.Address, err, s)
		}
	}
	client, err := settings.handshake(ctx, conn, at, &s.Timing)
	if err != nil {
		return nil, err
	}
	state := client.ConnectionState()
	s.saw(&state)
	return client, nil
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// read reads until what is expected has come.
func (t *tcpCheck) read(conn net.Conn, s *seen) error {
	var chunk [4096]byte
	for {
		n, err := conn.Read(chunk[:])
		s.body = append(s.body, chunk[:n]...)
		switch {
		case t.found(s.body):
			s.up("connected to " + t.at.String() + ", the answer is as expected")
			return nil
		case errors.Is(err, io.EOF):
			s.down("%s closed the connection after %d bytes without %s%s", s.Address, len(s.body), t.wanted(), s.got())
			return nil
		case err != nil && len(s.body) > 0 && timeoutError(err):
			s.down("expected %s from %s%s", t.wanted(), s.Address, s.got())
			return nil
		case err != nil:
			return &failure{phase: "waiting for " + t.wanted(), peer: s.Address, err: err}
		case len(s.body) > maxAnswer:
			s.down("expected %s in the first %d bytes from %s%s", t.wanted(), maxAnswer, s.Address, s.got())
			return nil
		}
	}
}

func (t *tcpCheck) found(answer []byte) bool {
	if t.pattern != nil {
		return t.pattern.Match(answer)
	}
	return bytes.Contains(answer, []byte(t.expect))
}

func (t *tcpCheck) wanted() string {
	if t.pattern != nil {
		return "a match of " + cutText(t.pattern.String())
	}
	return cutText(strconv.Quote(t.expect))
}

// got shows the beginning of what came.
func (s *seen) got() string {
	if len(s.body) == 0 {
		return ", got nothing"
	}
	return ", got " + cutText(strconv.Quote(mask(s.secrets, string(s.body))))
}

// pause is how long a server may be silent before its answer is taken as complete.
const pause = 200 * time.Millisecond

// listen reads what the server sends on its own, for the expressions, until it pauses.
func (t *tcpCheck) listen(ctx context.Context, conn net.Conn, s *seen) error {
	var chunk [4096]byte
	for len(s.body) < maxAnswer && ctx.Err() == nil {
		if len(s.body) > 0 {
			if err := conn.SetReadDeadline(time.Now().Add(pause)); err != nil {
				return &failure{phase: "waiting for the answer", peer: s.Address, err: err}
			}
		}
		n, err := conn.Read(chunk[:])
		s.body = append(s.body, chunk[:n]...)
		switch {
		case err != nil && len(s.body) > 0 && (timeoutError(err) || errors.Is(err, io.EOF)), errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &failure{phase: "waiting for the answer", peer: s.Address, err: err}
		}
	}
	return nil
}
