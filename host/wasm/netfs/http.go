package netfs

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
)

// maxAnswerHeader is how many bytes the header of an answer may have, interim ones included.
const maxAnswerHeader = 256 << 10

// exchange is an open /net/http: one request is written, then its answer is read.
type exchange struct {
	file
	scan    scanner
	request []byte
	answer  []byte // not read yet
	made    bool   // the request; what comes of it is in answer or errno
	errno   esys.Errno
	held    int
}

// Write implements the method of esys.File. The request is made as soon as its JSON object is complete.
func (x *exchange) Write(b []byte) (int, esys.Errno) {
	if errno := x.mayWrite(); errno != 0 {
		return 0, errno
	}
	if x.made {
		if x.errno != 0 {
			return 0, x.errno
		}
		if len(bytes.TrimSpace(b)) > 0 {
			return 0, x.fs.fail("write", x.path, invalid("one request was made already; open /net/http again for another"))
		}
		return len(b), 0
	}
	if limit := 2*x.fs.opts.MaxBody + 64<<10; int64(len(x.request)+len(b)) > limit {
		return 0, x.failed("write", invalid("the request is longer than %d bytes", limit))
	}
	if err := x.hold(len(b)); err != nil {
		return 0, x.failed("write", err)
	}
	x.request = append(x.request, b...)
	if err := x.scan.write(b); err != nil {
		return 0, x.failed("write", err)
	}
	if x.scan.done {
		if errno := x.make("write"); errno != 0 {
			return 0, errno
		}
	}
	return len(b), 0
}

// Read implements the method of esys.File.
func (x *exchange) Read(b []byte) (int, esys.Errno) {
	if errno := x.mayRead(); errno != 0 || len(b) == 0 {
		return 0, errno
	}
	if !x.made {
		if errno := x.make("read"); errno != 0 {
			return 0, errno
		}
	}
	if x.errno != 0 {
		return 0, x.errno
	}
	n := copy(b, x.answer)
	x.answer = x.answer[n:]
	return n, 0
}

// Close implements the method of esys.File.
func (x *exchange) Close() esys.Errno {
	if !x.shut() {
		return esys.EBADF
	}
	x.drop()
	x.answer = nil
	return 0
}

func (x *exchange) make(op string) esys.Errno {
	if len(bytes.TrimSpace(x.request)) == 0 {
		return x.failed(op, invalid("no request was written"))
	}
	answer, err := x.fs.fetch(x.request)
	x.drop()
	if err == nil {
		err = x.hold(len(answer))
	}
	if err != nil {
		return x.failed(op, err)
	}
	x.made, x.answer = true, answer
	return 0
}

// failed ends the exchange. Every read and write after it fails alike.
func (x *exchange) failed(op string, err error) esys.Errno {
	x.drop()
	x.made, x.errno = true, x.fs.fail(op, x.path, err)
	return x.errno
}

func (x *exchange) hold(n int) error {
	err := x.fs.hold(n)
	if err == nil {
		x.held += n
	}
	return err
}

func (x *exchange) drop() {
	x.fs.release(x.held)
	x.request, x.held = nil, 0
}

// scanner finds the end of the one JSON object that is written in pieces.
type scanner struct {
	depth           int
	inside, escaped bool // a string
	done            bool
}

func (s *scanner) write(b []byte) error {
	for _, c := range b {
		switch {
		case s.inside:
			switch {
			case s.escaped:
				s.escaped = false
			case c == '\\':
				s.escaped = true
			case c == '"':
				s.inside = false
			}
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case s.done:
			return invalid("something follows the request's JSON object")
		case s.depth == 0 && c != '{':
			return invalid("the request must be one JSON object")
		case c == '"':
			s.inside = true
		case c == '{' || c == '[':
			s.depth++
		case c == '}' || c == ']':
			s.depth--
			s.done = s.depth == 0
		}
	}
	return nil
}

// fetch makes a request and follows redirects. Every hop is asked for on its own.
func (f *FS) fetch(data []byte) ([]byte, error) {
	r, err := parseRequest(data)
	if err != nil {
		return nil, err
	}
	for followed := 0; ; followed++ {
		answer, location, err := f.hop(r)
		if err != nil {
			return nil, err
		}
		if location == "" {
			return encodeResponse(answer)
		}
		if followed == r.follow {
			return nil, fault(broker.Failed, "more than %d redirects, the last one by %s", r.follow, address(r.access))
		}
		if err := r.redirect(answer.Status, location); err != nil {
			return nil, err
		}
	}
}

// encodeResponse leaves < and > as they are: the answer is no part of a web page.
func encodeResponse(answer *response) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(answer); err != nil {
		return nil, fault(broker.Failed, "the answer cannot be written as JSON")
	}
	return b.Bytes(), nil
}

// hop makes one request on a connection of its own. With a location the answer is a redirect that the guest wants to follow.
func (f *FS) hop(r *request) (answer *response, location string, err error) {
	message, err := r.message(f.opts.UserAgent)
	if err != nil {
		return nil, "", err
	}
	start := time.Now()
	raw, d, err := f.dial(r.access)
	if err != nil {
		return nil, "", err
	}
	defer raw.end()
	answer = &response{Remote: d.Addr.String()}
	answer.Timing.DNS, answer.Timing.Connect = d.DNS.Microseconds(), d.Connect.Microseconds()
	var c net.Conn = raw
	if r.access.Scheme == "https" {
		shaking := time.Now()
		client, err := f.handshake(raw, secure{access: r.access, insecure: r.insecure, alpn: []string{"http/1.1"}})
		if err != nil {
			return nil, "", err
		}
		answer.Timing.TLS = time.Since(shaking).Microseconds()
		answer.TLS = describeTLS(client.ConnectionState())
		c = client
	}
	location, err = f.converse(c, r, message, answer)
	answer.Timing.Total = time.Since(start).Microseconds()
	return answer, location, err
}

// converse sends the request and reads the answer.
func (f *FS) converse(c net.Conn, r *request, message []byte, answer *response) (location string, err error) {
	peer := address(r.access)
	_, sendErr := c.Write(message)
	sent := time.Now()
	limit := &io.LimitedReader{R: c, N: maxAnswerHeader}
	reader := bufio.NewReader(limit)
	_, err = reader.Peek(1)
	answer.Timing.FirstByte = time.Since(sent).Microseconds()
	var resp *http.Response
	if err == nil {
		resp, err = readAnswer(reader, r.method) //nolint:bodyclose // that would read all that is left of the body
	}
	if err != nil {
		return "", answerFault(err, sendErr, limit.N <= 0, peer)
	}
	// The body is not closed: that would read all that is left of it. The connection is, by hop.
	limit.N = math.MaxInt64
	answer.Status, answer.Proto, answer.Headers = resp.StatusCode, resp.Proto, resp.Header
	if r.follow > 0 && isRedirect(resp.StatusCode) {
		if location := resp.Header.Get("Location"); location != "" {
			return location, nil
		}
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, f.opts.MaxBody+1))
	if err != nil {
		if isConnFault(err) {
			return "", describe(err, "reading the body from "+peer)
		}
		return "", fault(broker.Failed, "the body from %s is no HTTP: %s", peer, err)
	}
	answer.setBody(content, f.opts.MaxBody)
	return "", nil
}

// readAnswer reads the final answer; interim ones (1xx) are passed over.
func readAnswer(reader *bufio.Reader, method string) (*http.Response, error) {
	for range 10 {
		resp, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errors.New("it sends interim answers (1xx) without end")
}

// answerFault says why there is no answer. A server may answer and close before it has read the request: only without an
// answer does the failed send count.
func answerFault(err, sendErr error, tooLong bool, peer string) error {
	switch {
	case tooLong:
		return fault(broker.Failed, "%s sent more than %d bytes of headers", peer, maxAnswerHeader)
	case sendErr != nil:
		return describe(sendErr, "sending the request to "+peer)
	case isConnFault(err):
		return describe(err, "waiting for the answer of "+peer)
	}
	return fault(broker.Failed, "the answer of %s is no HTTP: %s", peer, strings.TrimPrefix(err.Error(), "net/http: "))
}

// isConnFault tells a connection that broke from an answer that is no HTTP.
func isConnFault(err error) bool {
	var (
		n      net.Error
		record tls.RecordHeaderError
		alert  tls.AlertError
	)
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &n) || errors.As(err, &record) || errors.As(err, &alert)
}

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// setBody keeps at most limit bytes. Text is UTF-8 without NUL, at which many a JSON library would end it; anything else is
// base64. A cut goes between two characters.
func (a *response) setBody(content []byte, limit int64) {
	if int64(len(content)) > limit {
		a.Truncated = true
		content = content[:limit]
		for back := 1; back < utf8.UTFMax && back <= len(content); back++ {
			if c := content[len(content)-back:]; utf8.RuneStart(c[0]) {
				if !utf8.FullRune(c) {
					content = content[:len(content)-back]
				}
				break
			}
		}
	}
	if utf8.Valid(content) && bytes.IndexByte(content, 0) < 0 {
		text := string(content)
		a.Body = &text
		return
	}
	text := base64.StdEncoding.EncodeToString(content)
	a.BodyBase64 = &text
}
