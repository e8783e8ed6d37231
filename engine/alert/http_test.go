package alert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/sdk"
)

// verdict is what must be true of an error.
type verdict struct {
	permanent bool
	delay     time.Duration
	text      string // is in the error
}

// holds reports every way in which err differs.
func (v verdict) holds(t *testing.T, err error, d dialogue, address string) {
	t.Helper()
	if err == nil {
		t.Fatal("Notify returned nil, want an error")
	}
	if got := sdk.IsPermanent(err); got != v.permanent {
		t.Errorf("permanent = %v, want %v: %v", got, v.permanent, err)
	}
	if got := sdk.RetryDelay(err); got != v.delay {
		t.Errorf("delay = %v, want %v: %v", got, v.delay, err)
	}
	if !strings.Contains(err.Error(), v.text) {
		t.Errorf("error %q does not say %q", err, v.text)
	}
	for _, secret := range append(d.secrets, "http://", "https://") {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("error %q contains %q", err, secret)
		}
	}
	if address != "" && strings.Contains(err.Error(), address+"/") {
		t.Errorf("error %q contains the address", err)
	}
}

// TestAnswers walks every HTTP provider through what a receiver can answer. Every answer repeats the request's address and
// body, so that an error that quotes too much shows its secrets.
func TestAnswers(t *testing.T) {
	t.Parallel()
	date := base.Add(90 * time.Second).Format(http.TimeFormat)
	far := base.Add(48 * time.Hour).Format(http.TimeFormat)
	past := base.Add(-time.Hour).Format(http.TimeFormat)
	tests := []struct {
		status     int
		retryAfter string
		want       verdict
	}{
		{400, "", verdict{true, 0, "answered 400 Bad Request"}},
		{401, "", verdict{true, 0, "answered 401 Unauthorized"}},
		{403, "60", verdict{true, 0, "answered 403 Forbidden"}},
		{404, "", verdict{true, 0, "answered 404 Not Found"}},
		{410, "", verdict{true, 0, "answered 410 Gone"}},
		{499, "", verdict{true, 0, "answered 499"}},
		{408, "", verdict{false, 0, "answered 408 Request Timeout"}},
		{425, "", verdict{false, 0, "answered 425 Too Early"}},
		{429, "", verdict{false, 0, "answered 429 Too Many Requests"}},
		{429, "7", verdict{false, 7 * time.Second, "429"}},
		{429, date, verdict{false, 90 * time.Second, "429"}},
		{429, far, verdict{false, time.Hour, "429"}},
		{429, past, verdict{false, 0, "429"}},
		{429, "86400", verdict{false, time.Hour, "429"}},
		{429, "99999999999999999999999", verdict{false, time.Hour, "429"}},
		{429, "9223372036854775807", verdict{false, time.Hour, "429"}},
		{429, "-5", verdict{false, 0, "429"}},
		{429, "soon", verdict{false, 0, "429"}},
		{500, "", verdict{false, 0, "answered 500 Internal Server Error"}},
		{503, "30", verdict{false, 30 * time.Second, "answered 503 Service Unavailable"}},
		{599, "", verdict{false, 0, "answered 599"}},
		{301, "", verdict{false, 0, "redirect is not followed"}},
		{302, "", verdict{false, 0, "redirect is not followed"}},
		{307, "", verdict{false, 0, "redirect is not followed"}},
		{308, "", verdict{false, 0, "redirect is not followed"}},
	}
	for _, d := range dialogues() {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%d/%s", d.provider, tt.status, tt.retryAfter), func(t *testing.T) {
				t.Parallel()
				followed := false
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					followed = followed || req.URL.Path == "/elsewhere"
					if tt.retryAfter != "" {
						w.Header().Set("Retry-After", tt.retryAfter)
					}
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(tt.status)
					echo(w, req)
				}))
				defer server.Close()
				err := d.notifier(t, registry(t, Options{}), server.URL).Notify(t.Context(), sample(sdk.WentDown))
				tt.want.holds(t, err, d, server.URL)
				if followed {
					t.Error("the redirect was followed")
				}
			})
		}
	}
}

// echo answers with JSON that has the request in every place where a provider looks for a reason.
func echo(w io.Writer, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	said := strings.NewReplacer("http://", "", "https://", "").Replace(fmt.Sprint(req.RequestURI, " ", req.Header, " ", string(body)))
	quoted := encode(said)
	fmt.Fprintf(w, `{"ok":false,"description":%s,"message":%s,"errors":[%s],"error":%s,"errorDescription":%s}`,
		quoted, quoted, quoted, quoted, quoted)
}

// TestReasons holds the receivers' own words.
func TestReasons(t *testing.T) {
	t.Parallel()
	tests := []struct {
		provider string
		status   int
		answer   string
		want     verdict
	}{
		{"telegram", 400, `{"ok":false,"description":"Bad Request: chat not found"}`, verdict{true, 0, "400 Bad Request: Bad Request: chat not found"}},
		{"telegram", 429, `{"ok":false,"description":"Too Many Requests","parameters":{"retry_after":35}}`, verdict{false, 35 * time.Second, "Too Many"}},
		{"telegram", 200, `{"ok":false,"description":"odd"}`, verdict{false, 0, "answered 200 OK, but did not confirm: odd"}},
		{"telegram", 200, `<html>`, verdict{false, 0, "did not confirm"}},
		{"discord", 429, `{"message":"You are being rate limited.","retry_after":0.5}`, verdict{false, 500 * time.Millisecond, "rate limited"}},
		{"discord", 429, `{"retry_after":1e300}`, verdict{false, time.Hour, "429"}},
		{"slack", 404, "no_service", verdict{true, 0, "404 Not Found: no_service"}},
		{"slack", 200, "<html>log in</html>", verdict{false, 0, "did not confirm"}},
		{"pagerduty", 400, `{"status":"invalid event","errors":["Length of 'routing_key' is incorrect"]}`, verdict{true, 0, "Length of"}},
		{"pagerduty", 202, `{"status":"odd"}`, verdict{false, 0, "did not confirm"}},
		{"gotify", 400, "{\"errorDescription\":\"line one\\nline two\\u001b[31m\"}", verdict{true, 0, "line one line two[31m"}},
		{"ntfy", 507, `{"error":"` + strings.Repeat("x", 10_000) + `"}`, verdict{false, 0, "507 Insufficient Storage: xx"}},
		{"webhook", 404, "some words\n\u009b\x1b[31m", verdict{true, 0, "answered 404 Not Found: some words"}},
		{"webhook", 404, "<html>a page", verdict{true, 0, "answered 404 Not Found"}},
		{"webhook", 404, "\xff\xfe\x00binary", verdict{true, 0, "answered 404 Not Found"}},
		{"webhook", 422, `{"fault":"no <field>","a\/b":[1e3]}`, verdict{true, 0, `answered 422 Unprocessable Entity: {"a/b":[1e3],"fault":"no <field>"}`}},
		{"pagerduty", 429, `{"message":"slow down"}`, verdict{false, 0, `answered 429 Too Many Requests: {"message":"slow down"}`}},
		{"pagerduty", 200, `{"status":"success"}`, verdict{false, 0, "answered 200 OK, expected 202"}},
		{"discord", 206, `{}`, verdict{false, 0, "answered 206 Partial Content, expected 200-204"}},
	}
	for _, tt := range tests {
		for _, d := range dialogues() {
			if d.provider != tt.provider {
				continue
			}
			t.Run(fmt.Sprint(tt.provider, tt.status), func(t *testing.T) {
				t.Parallel()
				server := record(t, tt.status, tt.answer)
				err := d.notifier(t, registry(t, Options{}), server.URL).Notify(t.Context(), sample(sdk.WentDown))
				tt.want.holds(t, err, d, server.URL)
				if len(err.Error()) > maxError {
					t.Errorf("error of %d bytes", len(err.Error()))
				}
			})
		}
	}
}

// TestQuotes sees that an answer which repeats secrets is shown without them, and cut only afterwards.
func TestQuotes(t *testing.T) {
	t.Parallel()
	const (
		token = "t/k_SECRET+TOKEN"
		basic = "dG9jc2luOnMzY3JldC9wYXNz" // tocsin:s3cret/pass
	)
	for _, tt := range []struct{ config, answer, contentType, want string }{
		{`"token":"` + token + `"`, `no such token: ` + token, "text/plain", "answered 404 Not Found: no such token: ••••"},
		{`"token":"` + token + `"`, strings.Repeat("x", 195) + token, "text/plain; charset=utf-8", "answered 404 Not Found: " + strings.Repeat("x", 195) + "••••"},
		{`"token":"` + token + `"`, strings.Repeat("x", 300), "text/plain", "answered 404 Not Found: " + strings.Repeat("x", 199) + "…"},
		// Some encoders write a slash as \/ and a plus as \u002b.
		{`"token":"` + token + `"`, `{"got":"t\/k_SECRET\u002bTOKEN"}`, "application/vnd.odd+json", `answered 404 Not Found: {"got":"••••"}`},
		{`"username":"tocsin","password":"s3cret/pass"`, `{"header":"Basic ` + basic + `"}`, "application/json", `answered 404 Not Found: {"header":"Basic ••••"}`},
		{`"token":"` + token + `"`, `{"got":"` + token, "application/json", "answered 404 Not Found"},
		{`"token":"` + token + `"`, `<p>` + token, "text/html", "answered 404 Not Found"},
		{`"token":"` + token + `"`, `words`, "image/png", "answered 404 Not Found"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.contentType)
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, tt.answer)
		}))
		n, err := registry(t, Options{}).New("ntfy", []byte(`{"url":"`+server.URL+`","topic":"a",`+tt.config+`}`))
		if err != nil {
			t.Fatal(err)
		}
		err = n.Notify(t.Context(), sample(sdk.WentDown))
		server.Close()
		if err == nil || err.Error() != tt.want || !sdk.IsPermanent(err) {
			t.Errorf("%s: got %v, want %q", tt.answer, err, tt.want)
		}
	}
}

// TestConnections walks every HTTP provider through connections that fail.
func TestConnections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		server func(t *testing.T) string
		want   verdict
	}{
		{"refused", refusing, verdict{false, 0, "connection refused"}},
		{"hangs", hanging, verdict{false, 0, "no answer in time"}},
		{"closes at once", closingAtOnce, verdict{false, 0, "EOF"}},
		{"garbage", garbage, verdict{false, 0, "malformed HTTP"}},
		{"unknown certificate authority", selfSigned, verdict{false, 0, "certificate is self-signed (example.com, "}},
		{"no TLS", plainAsTLS, verdict{false, 0, "the receiver does not speak TLS here"}},
		{"no such name", func(*testing.T) string { return "http://tocsin-no-such-host.invalid" }, verdict{false, 0, "could not be resolved"}},
	}
	for _, d := range dialogues() {
		for _, tt := range tests {
			t.Run(d.provider+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				address := tt.server(t)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if tt.name == "hangs" {
					ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
				}
				err := d.notifier(t, registry(t, Options{}), address).Notify(ctx, sample(sdk.WentDown))
				if tt.name == "no such name" && errors.Is(err, context.DeadlineExceeded) {
					return // a machine whose resolver is silent
				}
				tt.want.holds(t, err, d, "")
			})
		}
	}
}

func refusing(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return "http://" + ln.Addr().String()
}

// peer runs handle for every connection until the test ends.
func peer(t *testing.T, handle func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

func hanging(t *testing.T) string {
	return "http://" + peer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

func closingAtOnce(t *testing.T) string {
	return "http://" + peer(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)) })
}

func garbage(t *testing.T) string {
	return "http://" + peer(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<16))
		_, _ = io.WriteString(c, "\x00\x01garbage\r\n\r\n")
	})
}

func selfSigned(t *testing.T) string {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = discardLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func plainAsTLS(t *testing.T) string {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "http:", "https:", 1)
}

// TestTLS sees to it that a certificate is verified by name and that own authorities count.
func TestTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = discardLog()
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	d := dialogue{provider: "webhook", config: `{"url":"URL/x"}`}
	if err := d.notifier(t, registry(t, Options{RootCAs: roots}), server.URL).Notify(t.Context(), sample(sdk.WentDown)); err != nil {
		t.Errorf("with the server's own authority: %v", err)
	}
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	err = d.notifier(t, registry(t, Options{RootCAs: roots}), "https://localhost:"+port).Notify(t.Context(), sample(sdk.WentDown))
	verdict{false, 0, "and 1 more, not for localhost"}.holds(t, err, d, "")

	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10} //nolint:gosec // it must be refused
	old.Config.ErrorLog = discardLog()
	old.StartTLS()
	defer old.Close()
	err = d.notifier(t, registry(t, Options{RootCAs: roots}), old.URL).Notify(t.Context(), sample(sdk.WentDown))
	verdict{false, 0, "TLS handshake failed: protocol version not supported"}.holds(t, err, d, "")
}

// TestLongAnswer sees to it that an endless answer is not read to its end.
func TestLongAnswer(t *testing.T) {
	t.Parallel()
	stopped := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		written := 0
		for block := make([]byte, 1<<14); ; {
			n, err := w.Write(block)
			written += n
			if err != nil {
				stopped <- written
				return
			}
		}
	}))
	defer server.Close()
	d := dialogues()[2]
	err := d.notifier(t, registry(t, Options{}), server.URL).Notify(t.Context(), sample(sdk.WentDown))
	verdict{false, 0, "did not confirm"}.holds(t, err, d, server.URL)
	t.Logf("the server wrote %d bytes before it was cut", <-stopped)
}

// TestUnendingAnswer has receivers that begin an answer and keep it open: what has come of it must be judged long before the
// attempt's own time is over.
func TestUnendingAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &status); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(status)
		for { // never silent for long, so that no idle time ends it
			_, err := io.WriteString(w, "so far ")
			if err = errors.Join(err, http.NewResponseController(w).Flush()); err != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	confirms := func(word string) *success {
		return &success{from: 200, to: 299, accepts: func(body []byte) bool { return strings.Contains(string(body), word) }}
	}
	for _, tt := range []struct {
		status int
		rule   *success
		want   *verdict // nil: delivered
	}{
		{200, any2xx(), nil},
		{200, confirms("so far"), nil},
		{200, confirms("done"), &verdict{false, 0, "read the answer: it did not end in time"}},
		{302, any2xx(), &verdict{false, 0, "a redirect is not followed"}},
		{404, any2xx(), &verdict{true, 0, "answered 404 Not Found"}},
		{503, any2xx(), &verdict{false, 0, "answered 503 Service Unavailable"}},
	} {
		for _, h2 := range []bool{false, true} {
			p := newPoster(Options{UserAgent: "x", Now: time.Now, RootCAs: roots})
			p.patience = 50 * time.Millisecond
			transport, ok := p.client.Transport.(*http.Transport)
			if !ok {
				t.Fatalf("the transport is a %T", p.client.Transport)
			}
			transport.ForceAttemptHTTP2 = h2
			ctx, cancel := context.WithTimeout(t.Context(), attemptTimeout)
			err := p.do(ctx, call{method: "POST", url: fmt.Sprint(server.URL, "/", tt.status), success: tt.rule})
			if ctx.Err() != nil {
				t.Errorf("%d, HTTP/2 %v: it took the whole attempt", tt.status, h2)
			}
			cancel()
			if tt.want != nil {
				tt.want.holds(t, err, dialogue{}, server.URL)
			} else if err != nil {
				t.Errorf("%d, HTTP/2 %v: %v", tt.status, h2, err)
			}
		}
	}
}

// TestDenied sees to it that the address policy holds when a channel is written and, for names, when it is used.
func TestDenied(t *testing.T) {
	t.Parallel()
	for _, d := range dialogues() {
		_, err := registry(t, Options{}).New(d.provider, []byte(strings.ReplaceAll(d.config, "URL", "http://169.254.169.254")))
		if got := faultsOf(t, err); !strings.Contains(got, "config.url: address not allowed") {
			t.Errorf("%s: faults %q", d.provider, got)
		}
	}
	// A literal that is allowed when the channel is written and resolves to what is denied afterwards: only the dialler sees it.
	server := record(t, 200, "")
	d := dialogue{provider: "webhook", config: `{"url":"URL/x"}`}
	n := d.notifier(t, registry(t, Options{Policy: netpolicy.Policy{}}), strings.Replace(server.URL, "127.0.0.1", "localhost", 1))
	if err := n.Notify(t.Context(), sample(sdk.WentDown)); err != nil {
		t.Errorf("loopback by name: %v", err)
	}
	n = d.notifier(t, registry(t, Options{}), "http://[0:0:0:0:0:ffff:127.0.0.1]:1")
	verdict{false, 0, "connection refused"}.holds(t, n.Notify(t.Context(), sample(sdk.WentDown)), d, "")
	allowed := netpolicy.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}}
	if _, err := registry(t, Options{Policy: allowed}).New("webhook", []byte(`{"url":"http://169.254.1.1/x"}`)); err != nil {
		t.Errorf("an allowed address: %v", err)
	}
	denied := newPoster(Options{UserAgent: "x", Now: time.Now})
	err := denied.do(t.Context(), call{method: "POST", url: "http://0.0.0.0:9/x", success: any2xx()})
	verdict{false, 0, "address not allowed"}.holds(t, err, d, "")
}
