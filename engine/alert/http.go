package alert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	dialTimeout   = 10 * time.Second // of a connection and of a TLS handshake
	bodyTimeout   = 5 * time.Second  // of an answer's body; what has come by then is judged
	maxAnswer     = 64 << 10         // bytes read of an answer's body
	maxRetryAfter = time.Hour        // a longer Retry-After counts as this
)

// poster sends the requests of HTTP providers.
type poster struct {
	client    *http.Client
	userAgent string
	policy    netpolicy.Policy
	now       func() time.Time
	patience  time.Duration // bodyTimeout
}

// errUnended is what an answer ends with whose body did not end within bodyTimeout.
var errUnended = errors.New("it did not end in time")

// call is one HTTP request to be made.
type call struct {
	method  string
	url     string
	header  http.Header
	body    []byte
	success *success
}

// success says which answers mean that the receiver took the notification.
type success struct {
	from, to   int                                     // status codes, inclusive
	accepts    func(body []byte) bool                  // nil: any body
	reason     func(body []byte) string                // the receiver's own words for a refusal; nil: none are read
	retryAfter func(body []byte) (time.Duration, bool) // a delay in the body; nil: only the header counts
}

// any2xx takes every 2xx answer.
func any2xx() *success { return &success{from: 200, to: 299} }

// do makes the call. A nil error means that the receiver took it. Errors name what happened and never the address: it may
// hold a token.
func (p *poster) do(ctx context.Context, c call) error {
	within, stop := context.WithCancel(ctx)
	defer stop()
	req, err := http.NewRequestWithContext(within, c.method, c.url, bytes.NewReader(c.body))
	if err != nil {
		return sdk.Permanent(fmt.Errorf("make the request: %w", withoutURL(err)))
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", p.userAgent)
	answer, err := p.client.Do(req)
	if err != nil {
		return explain(ctx, err)
	}
	defer answer.Body.Close() //nolint:errcheck // nothing is written
	// A receiver that keeps its answer open must not keep the attempt's slot for the whole of its time.
	timer := time.AfterFunc(p.patience, stop)
	body, readErr := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if !timer.Stop() {
		readErr = errUnended // even if it ended: a server may end it because we are leaving
	}
	return p.judge(ctx, c, answer, body, readErr)
}

// judge decides what an answer means: 408, 425, 429 and 5xx may pass, a redirect may be mended, any other 4xx is final.
func (p *poster) judge(ctx context.Context, c call, answer *http.Response, body []byte, readErr error) error {
	code := answer.StatusCode
	rule := c.success
	if code >= rule.from && code <= rule.to {
		switch {
		case rule.accepts == nil || rule.accepts(body):
			return nil // a body that broke off does not matter: the status has said yes
		case readErr != nil:
			return fmt.Errorf("read the answer: %w", explain(ctx, readErr))
		}
		return fmt.Errorf("answered %s, but did not confirm%s", statusText(code), reasonOf(rule, body))
	}
	if code >= 300 && code <= 399 {
		return fmt.Errorf("answered %s: a redirect is not followed, enter the final address", statusText(code))
	}
	err := rule.refusal(answer, body)
	switch {
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests || code >= 500:
		if delay, ok := p.delay(rule, answer, body); ok {
			return sdk.RetryAfter(err, delay)
		}
		return err
	case code >= 400:
		return sdk.Permanent(err)
	}
	return err
}

// refusal is the error of an answer that the rule does not take and that is no redirect.
func (s *success) refusal(answer *http.Response, body []byte) error {
	text := "answered " + statusText(answer.StatusCode)
	reason := reasonOf(s, body)
	switch {
	case answer.StatusCode < 300 && s.from == s.to:
		return fmt.Errorf("%s, expected %d%s", text, s.from, reason)
	case answer.StatusCode < 300:
		return fmt.Errorf("%s, expected %d-%d%s", text, s.from, s.to, reason)
	case reason == "" && answer.StatusCode/100 == 4:
		if words := quotable(answer.Header.Get("Content-Type"), body); words != "" {
			return &quoting{text: text, words: words}
		}
	}
	return errors.New(text + reason)
}

// quoting is an error with a part of the receiver's answer, as long as that is: guarded masks the secrets in it first and
// cuts it afterwards.
type quoting struct{ text, words string }

// Error returns the text without the answer, which may hold secrets.
func (q *quoting) Error() string { return q.text }

// quotable returns an answer's body as one line when a person can read it: plain text or JSON, no pages. JSON is written
// anew, so that no odd way of writing hides a secret from the mask.
func quotable(contentType string, body []byte) string {
	if kind, _, err := mime.ParseMediaType(contentType); contentType != "" &&
		(err != nil || kind != "text/plain" && kind != "application/json" && !strings.HasSuffix(kind, "+json")) {
		return ""
	} else if kind != "text/plain" && kind != "" && !json.Valid(body) {
		return ""
	}
	body = bytes.TrimSpace(body)
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var doc any
	switch {
	case json.Valid(body) && decoder.Decode(&doc) == nil:
		body = encode(doc)
	case bytes.HasPrefix(body, []byte("<")), !utf8.Valid(body), bytes.ContainsRune(body, 0):
		return ""
	}
	return sdk.CleanText(string(body), maxAnswer)
}

// delay returns how long the receiver asked to be left alone, at most maxRetryAfter (RFC 9110, 10.2.3).
func (p *poster) delay(rule *success, answer *http.Response, body []byte) (time.Duration, bool) {
	delay, ok := parseRetryAfter(answer.Header.Get("Retry-After"), p.now())
	if !ok && rule.retryAfter != nil {
		delay, ok = rule.retryAfter(body)
	}
	if !ok || delay <= 0 {
		return 0, false
	}
	return min(delay, maxRetryAfter), true
}

// parseRetryAfter reads seconds or an HTTP date.
func parseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return seconds64(float64(seconds)), true
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return at.Sub(now), true
}

// seconds64 returns s seconds, at most maxRetryAfter, so that no large number overflows.
func seconds64(s float64) time.Duration {
	if s >= maxRetryAfter.Seconds() {
		return maxRetryAfter
	}
	return time.Duration(s * float64(time.Second))
}

func statusText(code int) string {
	if text := http.StatusText(code); text != "" {
		return fmt.Sprintf("%d %s", code, text)
	}
	return strconv.Itoa(code)
}

func reasonOf(rule *success, body []byte) string {
	if rule.reason == nil {
		return ""
	}
	// Not cut here: secrets in it are masked first, see guarded.
	if reason := sdk.CleanText(rule.reason(body), maxAnswer); reason != "" {
		return ": " + reason
	}
	return ""
}

// withoutURL returns what lies below a url.Error, whose text repeats the address.
func withoutURL(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// explain puts a failed exchange into words.
func explain(ctx context.Context, err error) error {
	err = withoutURL(err)
	var (
		resolve  *net.DNSError
		netError net.Error
	)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("interrupted: %w", context.Canceled)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &netError) && netError.Timeout():
		return fmt.Errorf("no answer in time: %w", err)
	case errors.Is(err, netpolicy.ErrDenied), errors.Is(err, errUnended):
		return err
	case errors.As(err, &resolve):
		return fmt.Errorf("the name could not be resolved: %w", err)
	}
	if text := tlsText(err, time.Now()); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("not delivered: %w", err)
}

// clientTLS returns the TLS settings of every provider.
func clientTLS(roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}

// literal returns a fault's text when the address's host is a literal IP address that the policy denies, else "". A name is
// judged when it is dialled.
func (p *poster) literal(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return ""
	}
	if err := p.policy.Check(addr); err != nil {
		return err.Error()
	}
	return ""
}

// lookup returns the value at a path of member names and list indices in a JSON document: error.message, errors.0. The
// empty path is the document.
func lookup(body []byte, path string) (any, bool) {
	var doc any
	if json.Unmarshal(body, &doc) != nil {
		return nil, false
	}
	if path == "" {
		return doc, true
	}
	for step := range strings.SplitSeq(path, ".") {
		switch at := doc.(type) {
		case map[string]any:
			next, ok := at[step]
			if !ok {
				return nil, false
			}
			doc = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return nil, false
			}
			doc = at[i]
		default:
			return nil, false
		}
	}
	return doc, true
}
