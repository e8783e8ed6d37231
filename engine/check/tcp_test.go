package check

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// speak sends a text to each connection, answers each line with the function's, and then waits for the other side to close.
func speak(greeting string, answer func(line string) string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := io.WriteString(conn, greeting); err != nil {
			return
		}
		lines := bufio.NewReader(conn)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if answer == nil {
				continue
			}
			if _, err := io.WriteString(conn, answer(line)); err != nil {
				return
			}
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	banner := serve(t, speak("SSH-2.0-Test\r\n", nil))
	redis := serve(t, speak("", func(line string) string {
		if line == "PING\r\n" {
			return "+PONG\r\n"
		}
		return "-ERR unknown\r\n"
	}))
	closing := serve(t, speakThenClose("bye\x00\n"))
	endless := serve(t, func(conn net.Conn) {
		for {
			if _, err := conn.Write(make([]byte, 8192)); err != nil {
				return
			}
		}
	})
	r := newRegistry(t)
	tests := []struct {
		name, target, config string
		assert               []string
		status               sdk.Status
		want                 string
	}{
		{"connects", banner, `{}`, nil, sdk.Up, "connected to " + banner},
		{"expects", banner, `{"expect":"SSH-2.0"}`, nil, sdk.Up, "connected to " + banner + ", the answer is as expected"},
		{"expects a pattern", banner, `{"expect_regexp":"^SSH-2\\.0-\\w+"}`, nil, sdk.Up, "connected to " + banner + ", the answer is as expected"},
		{"sends", redis, `{"send":"PING\r\n","expect":"+PONG"}`, nil, sdk.Up, "connected to " + redis + ", the answer is as expected"},
		{"wrong answer", redis, `{"send":"PONG\r\n","expect":"+PONG"}`, nil, sdk.Down, `expected "+PONG" from ` + redis + `, got "-ERR unknown\r\n"`},
		{"no answer", redis, `{"expect":"hello"}`, nil, sdk.Down, "no answer from " + redis + ` within 300 ms (waiting for "hello")`},
		{"closes", closing, `{"expect":"hello"}`, nil, sdk.Down, closing + ` closed the connection after 5 bytes without "hello", got "bye\x00\n"`},
		{"endless", endless, `{"expect":"hello"}`, nil, sdk.Down, `expected "hello" in the first 65536 bytes from ` + endless + `, got "` + strings.Repeat(`\x00`, 24) + `\x…`},
		{"assert", banner, `{}`, []string{`body startsWith "SSH-2.0"`, "latency < 5s", `ip == "127.0.0.1"`}, sdk.Up, "connected to " + banner},
		{"assert fails", banner, `{}`, []string{`body contains "OpenSSH"`}, sdk.Down, `assertion failed: body contains "OpenSSH" (body = "SSH-2.0-Test  ")`},
		{"family", strings.Replace(banner, "127.0.0.1", "localhost", 1), `{"ip_family":"ipv4"}`, nil, sdk.Up, "connected to " + strings.Replace(banner, "127.0.0.1", "localhost", 1)},
	}
	for _, tt := range tests {
		got, err := tryCheck(t, r, Spec{Kind: "tcp", Target: tt.target, Config: []byte(tt.config), Assert: tt.assert}, 300*time.Millisecond)
		if err != nil || got.Status != tt.status || got.Message != tt.want {
			t.Errorf("%s: got %s %q %v\nwant %q", tt.name, got.Status, got.Message, err, tt.want)
		}
	}
}

func speakThenClose(text string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

func TestTCPRefused(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	got := mustCheck(t, newRegistry(t), Spec{Kind: "tcp", Target: ln.Addr().String()})
	if got.Status != sdk.Down || !strings.HasPrefix(got.Message, "connection refused by "+ln.Addr().String()+" after ") {
		t.Errorf("got %+v", got)
	}
}

func TestTCPFaults(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for config, want := range map[string]string{
		`{"tls":true,"starttls":"smtp"}`:     "config.starttls: cannot be given together with tls (got smtp)",
		`{"starttls":"xmpp"}`:                "config.starttls: must be one of smtp, imap, pop3, ftp, postgres (got xmpp)",
		`{"expect":"a","expect_regexp":"b"}`: "config.expect_regexp: cannot be given together with expect",
		`{"expect_regexp":"["}`:              "config.expect_regexp: is no regular expression: error parsing regexp: missing closing ]: `[` (got [)",
	} {
		if _, err := r.New(Spec{Kind: "tcp", Target: "192.0.2.1:1", Config: []byte(config)}); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", config, err, want)
		}
	}
}

// tlsServer serves TLS with a certificate, after a dialogue in clear text where one is given.
func tlsServer(t testing.TB, config *tls.Config, before func(conn net.Conn) bool) string {
	return serve(t, func(conn net.Conn) {
		if before != nil && !before(conn) {
			return
		}
		secure := tls.Server(conn, config)
		// The client may refuse the certificate: its check says so, not this server.
		if err := secure.Handshake(); err != nil {
			return
		}
		if _, err := io.WriteString(secure, "secret banner\r\n"); err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, secure); err != nil {
			return
		}
	})
}

// scripted plays the server's side of a dialogue: lines to send, and after each the line that must come.
func scripted(t testing.TB, lines ...string) func(net.Conn) bool {
	return func(conn net.Conn) bool {
		r := bufio.NewReader(conn)
		for i, line := range lines {
			if i%2 == 0 {
				if _, err := io.WriteString(conn, line); err != nil {
					return false
				}
				continue
			}
			got, err := r.ReadString('\n')
			if err != nil {
				return false
			}
			if got != line {
				t.Errorf("got %q, want %q", got, line)
				return false
			}
		}
		return true
	}
}

func TestTLSAndSTARTTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", 20*24*time.Hour)}}
	postgres := func(reply string) func(net.Conn) bool {
		return func(conn net.Conn) bool {
			var request [8]byte
			if _, err := io.ReadFull(conn, request[:]); err != nil {
				return false
			}
			if want := [8]byte{0, 0, 0, 8, 4, 210, 22, 47}; request != want {
				t.Errorf("got %v, want %v", request, want)
			}
			_, err := io.WriteString(conn, reply)
			return err == nil && reply == "S"
		}
	}
	servers := []struct {
		protocol string
		before   func(net.Conn) bool
		want     string // empty: up
	}{
		{"", nil, ""},
		{"smtp", scripted(t, "220-mail.example\r\n220 ESMTP\r\n", "EHLO tocsin\r\n", "250-mail.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n", "STARTTLS\r\n", "220 go ahead\r\n"), ""},
		{"imap", scripted(t, "* OK IMAP4rev2 ready\r\n", "a1 STARTTLS\r\n", "* CAPABILITY x\r\na1 OK begin\r\n"), ""},
		{"pop3", scripted(t, "+OK ready\r\n", "STLS\r\n", "+OK begin\r\n"), ""},
		{"ftp", scripted(t, "220 ready\r\n", "AUTH TLS\r\n", "234 go\r\n"), ""},
		{"postgres", postgres("S"), ""},
		{"postgres", postgres("N"), `PEER does not begin TLS in postgres: it answered SSLRequest with "N"`},
		{"smtp", scripted(t, "554 no\x1b[31m\r\n", "QUIT\r\n"), `PEER does not begin TLS in smtp: it greeted with "554 no[31m"`},
		{"smtp", scripted(t, "220 x\r\n", "EHLO tocsin\r\n", "250 x\r\n", "STARTTLS\r\n", "454 not now\r\n", "QUIT\r\n"), `PEER does not begin TLS in smtp: it answered STARTTLS with "454 not now"`},
		{"imap", scripted(t, "", "\n"), "no answer from PEER within 300 ms (STARTTLS (imap))"},
		{"pop3", func(net.Conn) bool { return false }, "PEER closed the connection (STARTTLS (pop3))"},
		{"ftp", scripted(t, strings.Repeat("x", 5000), "\n"), "PEER does not begin TLS in ftp: it sent a line of more than 4096 bytes"},
		{"pop3", scripted(t, "+OK ready\r\n", "STLS\r\n", "+OK begin\r\n+OK injected\r\n", "\n"), "PEER does not begin TLS in pop3: it sent more before TLS began"},
	}
	r := newRegistry(t)
	for _, tt := range servers {
		peer := tlsServer(t, config, tt.before)
		want := strings.ReplaceAll(tt.want, "PEER", peer)
		timeout := testTimeout
		if strings.Contains(want, "within") {
			timeout = 300 * time.Millisecond
		}
		text := configJSON(t, map[string]any{"ca": ca.pem, "starttls": tt.protocol})
		got, err := tryCheck(t, r, Spec{Kind: "tls", Target: peer, Config: text}, timeout)
		if want == "" {
			if err != nil || got.Status != sdk.Up || got.Message != "TLS handshake with "+peer+" completed" || got.ExpiresAt.IsZero() || got.Timing.TLS <= 0 {
				t.Errorf("tls after %q: got %+v, %v", tt.protocol, got, err)
			}
		} else if err != nil || got.Status != sdk.Down || got.Message != want {
			t.Errorf("tls after %q: got %s %q %v\nwant %q", tt.protocol, got.Status, got.Message, err, want)
		}
		if want != "" {
			continue
		}
		options := map[string]any{"ca": ca.pem, "expect": "secret banner", "starttls": tt.protocol}
		if tt.protocol == "" {
			options["tls"] = true
		}
		got, err = tryCheck(t, r, Spec{Kind: "tcp", Target: peer, Config: configJSON(t, options), Assert: []string{"cert.days_left == 19"}}, timeout)
		if err != nil || got.Status != sdk.Up {
			t.Errorf("tcp after %q: got %+v, %v", tt.protocol, got, err)
		}
	}
}

func TestTLSCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := newRegistry(t)
	server := func(name string, lasts time.Duration, change func(*tls.Config)) string {
		config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, name, lasts)}}
		if change != nil {
			change(config)
		}
		return tlsServer(t, config, nil)
	}
	plain := serve(t, speak("220 hello\r\n", nil))
	self := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{(*authority)(nil).issue(t, "127.0.0.1", time.Hour)}}, nil)
	old := server("127.0.0.1", time.Hour, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 })
	good := server("127.0.0.1", 10*24*time.Hour+time.Hour, nil)
	half := serve(t, func(conn net.Conn) {
		var hello [64]byte
		if _, err := conn.Read(hello[:]); err != nil {
			return
		}
		if _, err := conn.Write([]byte{22, 3, 3, 0, 100, 2}); err != nil {
			return
		}
	})
	tests := []struct {
		name, target string
		config       map[string]any
		status       sdk.Status
		want         string
	}{
		{"good", good, nil, sdk.Up, "TLS handshake with " + good + " completed"},
		{"enough days", good, map[string]any{"min_days": 10}, sdk.Up, "TLS handshake with " + good + " completed"},
		{"too few days", good, map[string]any{"min_days": 14}, sdk.Down, "certificate ends in 10 days, at least 14 are wanted (CN=127.0.0.1)"},
		{"expired for days", server("127.0.0.1", -100*time.Hour, nil), nil, sdk.Down, "certificate expired 4 days ago (CN=127.0.0.1)"},
		{"expired for hours", server("127.0.0.1", -90*time.Minute, nil), nil, sdk.Down, "certificate expired 1 hour ago (CN=127.0.0.1)"},
		{"wrong host", server("www.example", time.Hour, nil), nil, sdk.Down, "certificate is for www.example, not for 127.0.0.1"},
		{"server name", server("www.example", time.Hour, nil), map[string]any{"server_name": "www.example"}, sdk.Up, ""},
		{"self-signed", self, nil, sdk.Down, "certificate is self-signed (CN=127.0.0.1)"},
		{"self-signed, allowed", self, map[string]any{"insecure_skip_verify": true}, sdk.Up, ""},
		{"old version", old, nil, sdk.Down, "TLS handshake with " + old + " failed: protocol version not supported"},
		{"old version, allowed", old, map[string]any{"min_tls_version": "1.1"}, sdk.Up, ""},
		{"no TLS", plain, nil, sdk.Down, plain + " does not speak TLS here"},
		{"half a handshake", half, nil, sdk.Down, half + " broke the connection off (TLS handshake)"},
	}
	for _, tt := range tests {
		config := map[string]any{"ca": ca.pem}
		for k, v := range tt.config {
			config[k] = v
		}
		got := mustCheck(t, r, Spec{Kind: "tls", Target: tt.target, Config: configJSON(t, config)})
		if got.Status != tt.status || tt.want != "" && got.Message != tt.want {
			t.Errorf("%s: got %s %q, want %q", tt.name, got.Status, got.Message, tt.want)
		}
	}
	if got := mustCheck(t, r, Spec{Kind: "tls", Target: good, Config: configJSON(t, map[string]any{"ca": ca.pem}), Degrade: []string{"cert.days_left > 14"}}); got.Status != sdk.Degraded ||
		got.Message != "degraded: not cert.days_left > 14 (cert.days_left = 10)" {
		t.Errorf("degrade: got %+v", got)
	}
}

func FuzzSTARTTLS(f *testing.F) {
	f.Add("smtp", "220 x\r\n250 y\r\n220 z\r\n")
	f.Add("postgres", "S")
	f.Fuzz(func(t *testing.T, protocol, text string) {
		if !slices.Contains([]string{"smtp", "imap", "pop3", "ftp", "postgres"}, protocol) {
			protocol = "smtp"
		}
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			if _, err := io.WriteString(server, text); err != nil {
				done <- fmt.Errorf("write: %w", err)
			}
			close(done)
			server.Close()
		}()
		go func() {
			if _, err := io.Copy(io.Discard, server); err != nil {
				return
			}
		}()
		if err := client.SetDeadline(time.Now().Add(testTimeout)); err != nil {
			t.Fatal(err)
		}
		err := startTLS(client, protocol)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q", text, err)
		}
		client.Close()
		<-done
	})
}
