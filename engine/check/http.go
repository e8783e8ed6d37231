package check

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const maxHeaderBytes = 1 << 20 // of an answer

func init() {
	builtin(func(e *env) Kind {
		return define(e, "http", "Makes an HTTP or HTTPS request and judges the answer. The latency runs from the start to the end of the body, "+
			"redirects included. Every check makes a fresh connection unless reuse is set.",
			"https://example.org/health", defaultHTTP(), httpVariables(),
			func(target string, c httpConfig, faults *monitor.Faults) prober { return newHTTP(e, target, c, faults) })
	})
}

func httpVariables() []Variable {
	return append([]Variable{
		{"status", "number", "Status code of the answer.", "status == 200"},
		{"body", "text", "Body of the answer, as far as max_body_bytes.", `body contains "ready"`},
		{"json", "any", "Body read as JSON. A body that is no JSON makes the expression false.", "json.ok == true"},
		{"headers", "table", "Headers of the answer. Names are compared without regard to case; several values of one header are joined with a comma; a header that is not there is empty.", `headers["content-type"] startsWith "text/html"`},
	}, append(connectionVariables(), certVariables()...)...)
}

// connectionVariables are those of every kind that connects.
func connectionVariables() []Variable {
	return []Variable{
		{"latency", "duration", "Latency of the check. Compare it with a duration: a number with a unit (ns, us, ms, s, m, h).", "latency < 300ms"},
		{"ip", "text", "Address that answered, without the port.", `ip startsWith "10."`},
	}
}

func certVariables() []Variable {
	return []Variable{
		{"cert.days_left", "number", "Whole days until the server's certificate ends; negative when it has ended.", "cert.days_left > 14"},
		{"cert.subject", "text", "Subject of the certificate.", `cert.subject contains "CN=example.org"`},
		{"cert.issuer", "text", "Issuer of the certificate.", `cert.issuer contains "Let's Encrypt"`},
	}
}

// httpCheck is the prober of one monitor. What monitors with equal settings have in common is in the plan.
type httpCheck struct {
	env  *env
	plan *httpPlan
	hop  hop
}

// hop is one request: the first, or one that a redirect asked for.
type hop struct {
	url    string // absolute
	uri    string // what stands in the request line
	host   string // what stands in the Host header
	at     endpoint
	secure bool
	bare   bool // to another host than the first: no credentials, no headers of the user
	method string
	body   bool // send the body
}

func newHTTP(e *env, target string, c httpConfig, faults *monitor.Faults) *httpCheck {
	u, at, err := parseURL(target)
	if err != nil {
		faults.Add("target", shownTarget(target), "%v", err)
	}
	c.fits(at.addr, faults)
	plan := c.plan(e, faults)
	if len(*faults) > 0 {
		return nil
	}
	h := &httpCheck{env: e, plan: plan, hop: newHop(u, at)}
	h.hop.url = target
	h.hop.method, h.hop.body = plan.method, true
	if plan.host != "" {
		h.hop.host = plan.host
	}
	return h
}

func newHop(u *url.URL, at endpoint) hop {
	h := hop{uri: u.RequestURI(), host: at.host, at: at, secure: u.Scheme == "https"}
	if at.addr.Is6() {
		h.host = "[" + at.addr.WithZone("").String() + "]"
	}
	if at.port != defaultPort(u.Scheme) {
		h.host += ":" + strconv.Itoa(int(at.port))
	}
	return h
}

func (h *httpCheck) probe(ctx context.Context, _ sdk.CheckRequest, s *seen) error {
	next := h.hop
	for followed := 0; ; followed++ {
		a, err := h.exchange(ctx, &next, s)
		if err != nil {
			return err
		}
		if a.location == "" {
			return nil
		}
		if followed == h.plan.redirects {
			s.down("more than %s, the last one to %s", plural(h.plan.redirects, "redirect"), a.location)
			return nil
		}
		if reason := next.follow(h.plan, int(s.Code), a.location); reason != "" {
			s.down("%s", reason)
			return nil
		}
	}
}

// answer says what an exchange leaves to do.
type answer struct{ location string } // where a redirect that is to be followed leads

// exchange makes one request and judges its answer, unless that is a redirect which is to be followed.
func (h *httpCheck) exchange(ctx context.Context, p *hop, s *seen) (answer, error) {
	if h.plan.transports[0] != nil {
		return h.pooled(ctx, p, s)
	}
	conn, err := h.env.dial(ctx, h.plan.network, p.at, &s.Timing)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	release := bind(ctx, conn)
	defer release()
	s.Address = peerOf(conn)
	version := h.plan.version
	if p.secure {
		settings := h.plan.tls
		if p.bare {
			settings = settings.anonymous()
		}
		client, err := settings.handshake(ctx, conn, p.at, &s.Timing)
		if err != nil {
			return answer{}, err
		}
		state := client.ConnectionState()
		s.saw(&state)
		switch {
		case state.NegotiatedProtocol == "h2":
			version = "2"
		case version == "2":
			s.down("%s does not speak HTTP/2", s.Address)
			return answer{}, nil
		default:
			version = "1.1"
		}
		conn = client
	}
	if version == "2" {
		return h.overHTTP2(ctx, conn, p, s)
	}
	return h.overHTTP1(conn, p, s)
}

// buffers are reused between checks.
type buffers struct {
	readers sync.Pool // *limitedReader
	requests,
	bodies sync.Pool // *bytes.Buffer
}

// limitedReader is a buffered reader over a limit that can be moved.
type limitedReader struct {
	*bufio.Reader
	limit  io.LimitedReader
	source source
}

// source remembers how a connection ended: a parser of cut text complains about the text instead.
type source struct {
	conn net.Conn
	err  error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

func (b *buffers) reader(conn net.Conn) *limitedReader {
	r, ok := b.readers.Get().(*limitedReader)
	if !ok {
		r = &limitedReader{}
		r.Reader = bufio.NewReaderSize(&r.limit, 4096)
	}
	r.source = source{conn: conn}
	r.limit = io.LimitedReader{R: &r.source, N: maxHeaderBytes}
	r.Reset(&r.limit)
	return r
}

func (b *buffers) drop(r *limitedReader) {
	r.source = source{}
	b.readers.Put(r)
}

func buffer(pool *sync.Pool) *bytes.Buffer {
	if buf, ok := pool.Get().(*bytes.Buffer); ok {
		buf.Reset()
		return buf
	}
	return &bytes.Buffer{}
}

// recycle gives a buffer back. A large one is left to the garbage collector.
func recycle(pool *sync.Pool, buf *bytes.Buffer) {
	if buf != nil && buf.Cap() <= 1<<18 {
		pool.Put(buf)
	}
}

// overHTTP1 speaks HTTP/1.1 on a connection that is closed afterwards (RFC 9112). It needs no goroutine: the connection's
// deadline is bound to the context.
func (h *httpCheck) overHTTP1(conn net.Conn, p *hop, s *seen) (answer, error) {
	buf := buffer(&h.env.buffers.requests)
	h.plan.write(buf, p)
	_, sendErr := conn.Write(buf.Bytes())
	recycle(&h.env.buffers.requests, buf)
	sent := time.Now()

	r := h.env.buffers.reader(conn)
	defer h.env.buffers.drop(r)
	resp, err := readResponse(r, p.method) //nolint:bodyclose // that would read all that is left of the body
	s.Timing.FirstByte += time.Since(sent)
	if err != nil {
		// A server may answer and close before it has read the request; only without an answer does the failed send count.
		if sendErr != nil {
			return answer{}, &failure{phase: "sending the request", peer: s.Address, err: sendErr}
		}
		if r.limit.N <= 0 {
			s.down("%s sent more than %d bytes of headers", s.Address, maxHeaderBytes)
			return answer{}, nil
		}
		if r.source.err != nil {
			err = r.source.err
		}
		return answer{}, answerError(s.Address, err)
	}
	// The body is not closed: that would read all that is left of it, which may never end. The connection is, by exchange.
	r.limit.N = math.MaxInt64
	return h.judge(resp, s)
}

// readResponse reads the final answer; interim ones (1xx) are passed over.
func readResponse(r *limitedReader, method string) (*http.Response, error) {
	for range 10 {
		resp, err := http.ReadResponse(r.Reader, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errors.New("it sends interim answers (1xx) without end")
}

// answerError tells an answer that is no HTTP from a connection that broke.
func answerError(peer string, err error) error {
	var n net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &n) {
		return &failure{phase: "waiting for the answer", peer: peer, err: err}
	}
	return &failure{phase: "the answer is no HTTP", peer: peer, err: &quiet{sdk.CleanText(err.Error(), 200), err}}
}

// overHTTP2 speaks HTTP/2 on a connection that is closed afterwards.
func (h *httpCheck) overHTTP2(ctx context.Context, conn net.Conn, p *hop, s *seen) (answer, error) {
	req, err := h.plan.request(ctx, p)
	if err != nil {
		return answer{}, err
	}
	dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		DialContext: dial, DialTLSContext: dial, Protocols: &protocols, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes,
	}
	client, err := transport.NewClientConn(ctx, req.URL.Scheme, p.at.String())
	if err != nil {
		return answer{}, &failure{phase: "beginning HTTP/2", peer: s.Address, err: err}
	}
	// Closing can only fail on a connection that is closed already.
	defer func() { _ = client.Close() }()
	sent := time.Now()
	resp, err := client.RoundTrip(req)
	s.Timing.FirstByte += time.Since(sent)
	if err != nil {
		return answer{}, &failure{phase: "waiting for the answer", peer: s.Address, err: err}
	}
	defer resp.Body.Close()
	return h.judge(resp, s)
}

// judge looks at the status, and reads the body.
func (h *httpCheck) judge(resp *http.Response, s *seen) (answer, error) {
	s.Code = uint16(min(max(resp.StatusCode, 0), math.MaxUint16))
	s.header = resp.Header
	if h.plan.redirects > 0 && isRedirect(resp.StatusCode) {
		if location := resp.Header.Get("Location"); location != "" {
			return answer{location}, nil
		}
	}
	text := strconv.Itoa(resp.StatusCode)
	if name := http.StatusText(resp.StatusCode); name != "" {
		text += " " + name
	}
	if !accepts(h.plan.codes, resp.StatusCode) {
		s.down("expected status %s, got %s", h.plan.expect, text)
		return answer{}, nil
	}
	if err := h.read(resp.Body, s); err != nil {
		return answer{}, &failure{phase: "reading the body", peer: s.Address, err: err}
	}
	s.up(text)
	return answer{}, nil
}

// read reads the body up to the cap. It is kept only where an expression looks at it.
func (h *httpCheck) read(body io.Reader, s *seen) error {
	limited := io.LimitedReader{R: body, N: int64(h.plan.maxBody) + 1}
	if s.need&(needBody|needJSON) == 0 {
		limited.N--
		_, err := io.Copy(io.Discard, &limited)
		return err
	}
	s.buffer = buffer(&h.env.buffers.bodies)
	_, err := s.buffer.ReadFrom(&limited)
	s.body = s.buffer.Bytes()
	if len(s.body) > h.plan.maxBody {
		s.body = s.body[:h.plan.maxBody]
		s.cut = true
	}
	return err
}

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// follow turns the hop into the one that a redirect asks for (RFC 9110 15.4), or returns why that is not followed. What the
// user put into the request goes to the first host only.
func (p *hop) follow(plan *httpPlan, code int, location string) string {
	base, err := url.Parse(p.url)
	if err != nil {
		return "redirect from an address that cannot be read"
	}
	ref, err := base.Parse(location)
	if err != nil {
		return "redirect to " + strconv.Quote(location) + ", which is no address"
	}
	ref.Fragment, ref.RawFragment = "", ""
	u, at, err := parseURL(ref.String())
	if err != nil {
		return "redirect to " + location + ", which " + err.Error()
	}
	next := newHop(u, at)
	next.url, next.method, next.body = ref.String(), p.method, p.body
	sameHost := at.host == p.at.host && (next.secure == p.secure && at.port == p.at.port || next.secure && !p.secure)
	next.bare = p.bare || !sameHost
	if plan.host != "" && !next.bare {
		next.host = plan.host
	}
	keeps := code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect
	if !keeps && p.method != http.MethodHead && p.method != http.MethodGet {
		next.method, next.body = http.MethodGet, false
	}
	if next.bare && next.body && len(plan.body) > 0 {
		return "redirect to another host (" + strings.ToLower(sdk.CleanText(next.host, 100)) + "), to which the body is not sent"
	}
	*p = next
	return ""
}
