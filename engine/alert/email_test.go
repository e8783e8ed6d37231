package alert

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// mailServer is a small SMTP server. What it answers to a command is replies[command], the first word in capitals, or for
// RCPT also the whole line.
type mailServer struct {
	cert     *tls.Certificate // nil: no STARTTLS
	implicit bool
	auth     string // mechanisms; empty: no AUTH
	password string
	replies  map[string]string
	hangAt   string // the command that is never answered; "greeting" too

	mu       sync.Mutex
	messages []string
	rcpts    []string
	logins   []string
	secure   bool // the message came over TLS
}

func (m *mailServer) start(t *testing.T) (host, port string) {
	t.Helper()
	address := peer(t, m.serve)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func (m *mailServer) tls() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*m.cert}, MinVersion: tls.VersionTLS12}
}

func (m *mailServer) serve(conn net.Conn) {
	secure := m.implicit
	if m.implicit {
		conn = tls.Server(conn, m.tls())
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	say := func(text string) { _, _ = fmt.Fprintf(conn, "%s\r\n", text) }
	if m.hangAt == "greeting" {
		_, _ = io.Copy(io.Discard, in)
		return
	}
	say("220 mail.test ESMTP")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		if verb == m.hangAt {
			_, _ = io.Copy(io.Discard, in)
			return
		}
		if reply := m.reply(verb, line); reply != "" {
			say(reply)
			continue
		}
		switch verb {
		case "EHLO":
			say("250-mail.test")
			if m.cert != nil && !secure {
				say("250-STARTTLS")
			}
			if m.auth != "" {
				say("250-AUTH " + m.auth)
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, m.tls())
			in, secure = bufio.NewReader(conn), true
		case "AUTH":
			m.login(line, say)
		case "RCPT":
			m.mu.Lock()
			m.rcpts = append(m.rcpts, line)
			m.mu.Unlock()
			say("250 ok")
		case "DATA":
			say("354 go on")
			text := readDots(in)
			if reply := m.reply("END", "END"); reply != "" {
				say(reply)
				continue
			}
			m.mu.Lock()
			m.messages = append(m.messages, text)
			m.secure = secure
			m.mu.Unlock()
			say("250 queued")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (m *mailServer) reply(verb, line string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if reply := m.replies[line]; reply != "" {
		return reply
	}
	return m.replies[verb]
}

func (m *mailServer) login(line string, say func(string)) {
	m.mu.Lock()
	m.logins = append(m.logins, line)
	m.mu.Unlock()
	fields := strings.Fields(line)
	plain, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err == nil && strings.HasSuffix(string(plain), "\x00"+m.password) {
		say("235 welcome")
		return
	}
	say("535 5.7.8 no such user or password " + m.password)
}

func readDots(in *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return b.String()
		}
		b.WriteString(strings.TrimRight(strings.TrimPrefix(line, "."), "\r\n") + "\n")
	}
}

// certificate returns one for 127.0.0.1 and the pool that trusts it.
func certificate(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return &server.TLS.Certificates[0], pool
}

// mailer returns the email provider's notifier for the server; more are fields that replace the usual ones.
func mailer(t *testing.T, m *mailServer, roots *x509.CertPool, more map[string]any) Notifier {
	t.Helper()
	host, port := m.start(t)
	config := map[string]any{
		"host": host, "port": json.Number(port), "tls": "none", "from": "Tocsin <tocsin@example.com>",
		"to": []string{"ops@example.com", "Night Shift <night@example.com>"},
	}
	for k, v := range more {
		config[k] = v
	}
	n, err := registry(t, Options{RootCAs: roots}).New("email", encode(config))
	if err != nil {
		t.Fatalf("New(email): %v", err)
	}
	return n
}

func TestEmailMessages(t *testing.T) {
	t.Parallel()
	for _, transition := range sdk.Transitions() {
		t.Run(string(transition), func(t *testing.T) {
			t.Parallel()
			server := &mailServer{}
			if err := mailer(t, server, nil, nil).Notify(t.Context(), sample(transition)); err != nil {
				t.Fatal(err)
			}
			golden(t, "requests/email."+string(transition)+".txt", strings.Join(server.rcpts, "\n")+"\n\n"+strings.Join(server.messages, "\n---\n"))
		})
	}
}

func TestEmailEncryption(t *testing.T) {
	t.Parallel()
	cert, roots := certificate(t)
	login := map[string]any{"username": "tocsin", "password": "SECRETSECRET"}
	with := func(mode string) map[string]any {
		return map[string]any{"tls": mode, "username": login["username"], "password": login["password"]}
	}
	tests := []struct {
		name   string
		server *mailServer
		config map[string]any
		roots  *x509.CertPool
		want   verdict // no text: the message arrives over TLS
	}{
		{"starttls with login", &mailServer{cert: cert, auth: "PLAIN LOGIN", password: "SECRETSECRET"}, with("starttls"), roots, verdict{}},
		{"implicit with login", &mailServer{cert: cert, implicit: true, auth: "PLAIN", password: "SECRETSECRET"}, with("implicit"), roots, verdict{}},
		{"starttls is not offered", &mailServer{}, with("starttls"), roots, verdict{false, 0, "does not support STARTTLS"}},
		{"unknown authority", &mailServer{cert: cert}, with("starttls"), x509.NewCertPool(), verdict{false, 0, "certificate is self-signed ("}},
		{"implicit, unknown authority", &mailServer{cert: cert, implicit: true}, with("implicit"), x509.NewCertPool(), verdict{false, 0, "certificate is self-signed ("}},
		{"wrong password", &mailServer{cert: cert, auth: "PLAIN", password: "other"}, with("starttls"), roots, verdict{true, 0, "535"}},
		{"server repeats the password", &mailServer{
			cert: cert, auth: "PLAIN",
			replies: map[string]string{"AUTH": "535 SECRETSECRET is wrong"},
		}, with("starttls"), roots, verdict{true, 0, "535"}},
		{"login for the moment impossible", &mailServer{
			cert: cert, auth: "PLAIN",
			replies: map[string]string{"AUTH": "454 4.7.0 try later"},
		}, with("starttls"), roots, verdict{false, 0, "454"}},
		{"no login without encryption", &mailServer{auth: "PLAIN LOGIN", password: "SECRETSECRET"}, with("none"), roots, verdict{true, 0, "no login"}},
		{"no login offered", &mailServer{cert: cert}, with("starttls"), roots, verdict{false, 0, "does not support SMTP AUTH"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := mailer(t, tt.server, tt.roots, tt.config).Notify(t.Context(), sample(sdk.WentDown))
			if tt.want.text != "" {
				tt.want.holds(t, err, dialogue{secrets: []string{"SECRETSECRET", base64.StdEncoding.EncodeToString([]byte("\x00tocsin\x00SECRETSECRET"))}}, "")
				if len(tt.server.messages) != 0 {
					t.Error("a message arrived")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(tt.server.messages) != 1 || !tt.server.secure || len(tt.server.logins) != 1 {
				t.Errorf("%d messages, secure %v, logins %v", len(tt.server.messages), tt.server.secure, tt.server.logins)
			}
		})
	}
}

func TestEmailReplies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		at, reply string
		want      verdict
	}{
		{"MAIL", "550 5.7.1 not from here", verdict{true, 0, "refused the sender: 550"}},
		{"MAIL", "451 4.3.0 later", verdict{false, 0, "refused the sender: 451"}},
		{"RCPT", "550 5.1.1 no such mailbox", verdict{true, 0, "refused the recipient ops@example.com: 550"}},
		{"RCPT", "450 4.2.1 greylisted", verdict{false, 0, "refused the recipient ops@example.com: 450"}},
		{"DATA", "554 5.5.1 no", verdict{true, 0, "refused the message: 554"}},
		{"DATA", "421 4.3.2 shutting down", verdict{false, 0, "refused the message: 421"}},
		{"END", "552 5.3.4 too big", verdict{true, 0, "refused the message: 552"}},
		{"END", "452 4.3.1 disk full", verdict{false, 0, "refused the message: 452"}},
		{"EHLO", "554 5.7.1 go away", verdict{true, 0, "554"}},
		{"MAIL", "250 fine", verdict{}},
		{"MAIL", "nonsense", verdict{false, 0, "nonsense"}},
	}
	for _, tt := range tests {
		t.Run(tt.at+" "+tt.reply, func(t *testing.T) {
			t.Parallel()
			server := &mailServer{replies: map[string]string{tt.at: tt.reply, "HELO": tt.reply}}
			err := mailer(t, server, nil, nil).Notify(t.Context(), sample(sdk.WentDown))
			if tt.want.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			tt.want.holds(t, err, dialogue{}, "")
		})
	}
}

// TestEmailPartly sees to it that one bad recipient keeps the message from nobody, and that a retry does not repeat it for
// those who have it.
func TestEmailPartly(t *testing.T) {
	t.Parallel()
	const ops, night = "RCPT TO:<ops@example.com>", "RCPT TO:<night@example.com>"
	server := &mailServer{replies: map[string]string{ops: "450 4.2.1 greylisted"}}
	n := mailer(t, server, nil, nil)
	err := n.Notify(t.Context(), sample(sdk.WentDown))
	verdict{false, 0, "ops@example.com: 450"}.holds(t, err, dialogue{}, "")
	if len(server.messages) != 1 {
		t.Fatalf("%d messages after the first attempt, want 1", len(server.messages))
	}
	server.mu.Lock()
	server.replies, server.rcpts = nil, nil
	server.mu.Unlock()
	if err := n.Notify(t.Context(), sample(sdk.WentDown)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(server.rcpts, ","); got != ops {
		t.Errorf("the retry went to %s, want %s", got, ops)
	}
	if len(server.messages) != 2 || server.messages[0] != server.messages[1] {
		t.Errorf("the retry's message differs: %q", server.messages)
	}
	server.mu.Lock()
	server.replies = map[string]string{night: "550 5.1.1 unknown"}
	server.mu.Unlock()
	verdict{true, 0, "night@example.com: 550"}.holds(t, n.Notify(t.Context(), sample(sdk.WentUp)), dialogue{}, "")
	if len(server.messages) != 3 {
		t.Errorf("%d messages, want 3", len(server.messages))
	}
}

func TestEmailHangs(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			err := mailer(t, &mailServer{hangAt: at}, nil, nil).Notify(ctx, sample(sdk.WentDown))
			verdict{false, 0, "no answer in time"}.holds(t, err, dialogue{}, "")
		})
	}
	t.Run("silent instead of TLS", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := mailer(t, &mailServer{hangAt: "greeting"}, nil, map[string]any{"tls": "implicit"}).Notify(ctx, sample(sdk.WentDown))
		verdict{false, 0, "no answer in time"}.holds(t, err, dialogue{}, "")
	})
}

// TestEmailMemory sees to it that the memory of partly delivered events is bounded.
func TestEmailMemory(t *testing.T) {
	t.Parallel()
	e := &email{}
	for i := range 3 * maxRemembered {
		e.remember(fmt.Sprint(i), []string{"a"})
		e.remember(fmt.Sprint(i), []string{"b"})
	}
	if len(e.taken) != maxRemembered || !e.has(fmt.Sprint(3*maxRemembered-1), "b") || e.has("0", "a") {
		t.Errorf("%d events remembered", len(e.taken))
	}
}
