package alert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/sdk"
)

// The ways of encrypting the connection to a mail server.
const (
	tlsStart    = "starttls" // begins in the clear and must switch (RFC 3207)
	tlsImplicit = "implicit" // from the first byte (RFC 8314)
	tlsNone     = "none"
)

// maxRemembered is how many partly delivered events a channel remembers the recipients of.
const maxRemembered = 256

// email sends plain text by SMTP.
type email struct {
	policy   netpolicy.Policy
	roots    *x509.CertPool
	host     string
	port     int
	mode     string
	username string
	password string
	from     *mail.Address
	to       []*mail.Address

	mu    sync.Mutex
	taken []partial // oldest first: who already has an event that others refused for now
}

type partial struct {
	event      string
	recipients map[string]bool
}

var _ Notifier = (*email)(nil)

func emailProvider(opts Options) Provider {
	return Provider{
		Name: "email",
		Doc: "Sends plain text by SMTP. Every message of an outage belongs to one thread, and the message's id is made from the " +
			"event's, so that a mail program can drop repeats.",
		Fields: []Field{
			{Name: "host", Type: TypeText, Required: true, Example: "smtp.example.com", Doc: "The name or address of the mail server."},
			{Name: "port", Type: TypeInteger, Min: 1, Max: 65535, Default: int64(587), Doc: "The mail server's port."},
			{
				Name: "tls", Type: TypeChoice, Choices: []string{tlsStart, tlsImplicit, tlsNone}, Default: tlsStart,
				Doc: "How the connection is encrypted: starttls (port 587; refused when the server does not offer it), implicit " +
					"(port 465), or none. Without encryption a password is only sent by methods that do not reveal it.",
			},
			{Name: "username", Type: TypeText, Example: "tocsin", Doc: "The user to log in as. Without it there is no login."},
			{Name: "password", Type: TypeText, Secret: true, Doc: "The password to log in with."},
			{
				Name: "from", Type: TypeAddress, Required: true, Example: "Tocsin <tocsin@example.com>",
				Doc: "The sender.",
			},
			{
				Name: "to", Type: TypeList, Required: true, Example: []string{"ops@example.com"},
				Doc: "The recipients, at most 50. When one is refused, the others still get the message.",
			},
		},
		Build: func(v Values) (Notifier, error) { return newEmail(opts, v) },
	}
}

func newEmail(opts Options, v Values) (Notifier, error) {
	e := &email{
		policy: opts.Policy, roots: opts.RootCAs, host: v.Text("host"), port: int(v.Integer("port")), mode: v.Text("tls"),
		username: v.Text("username"), password: v.Text("password"),
	}
	var faults monitor.Faults
	if strings.ContainsAny(e.host, " /@[]") || strings.Contains(e.host, ":") && !isAddress(e.host) {
		faults.Add("host", sdk.CleanText(e.host, 100), "must be a host name or an address without port")
	} else if addr, err := netip.ParseAddr(e.host); err == nil {
		if err := opts.Policy.Check(addr); err != nil {
			faults.Add("host", e.host, "%v", err)
		}
	}
	if (e.username == "") != (e.password == "") {
		faults.Add("password", nil, "username and password belong together: set both or neither")
	}
	from, err := mail.ParseAddress(v.Text("from"))
	if err != nil {
		faults.Add("from", nil, "must be a mail address")
	}
	e.from = from
	for i, text := range v.List("to") {
		to, err := mail.ParseAddress(text)
		if err != nil {
			faults.Add(fmt.Sprintf("to[%d]", i), nil, "must be a mail address")
			continue
		}
		e.to = append(e.to, to)
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return e, nil
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// Notify sends one message to every recipient that does not have it yet. What some recipients were refused for is the error,
// after the others have got the message: a temporary refusal is tried again for those alone.
func (e *email) Notify(ctx context.Context, n sdk.Notification) error {
	msg, err := e.message(n)
	if err != nil {
		return sdk.Permanent(fmt.Errorf("write the message: %w", err))
	}
	client, hangUp, err := e.connect(ctx)
	if err != nil {
		return e.judge(ctx, err)
	}
	defer hangUp()
	if err := e.deliver(client, msg, n.ID); err != nil {
		return e.judge(ctx, err)
	}
	// The message has been accepted; how the goodbye goes changes nothing.
	_ = client.Quit()
	return nil
}

// connect dials, encrypts and logs in. hangUp closes the connection; so does the end of ctx, at any time.
func (e *email) connect(ctx context.Context) (client *smtp.Client, hangUp func(), err error) {
	var (
		mu   sync.Mutex
		raw  net.Conn
		over bool
	)
	end := func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		if raw != nil {
			_ = raw.Close() // closed for good: what it still had to say is of no use
		}
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := e.policy.Dialer(dialTimeout).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		raw = conn
		if over {
			_ = conn.Close()
		}
		mu.Unlock()
		if e.mode != tlsImplicit {
			return conn, nil
		}
		encrypted := tls.Client(conn, e.tls())
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return encrypted, nil
	}
	stop := context.AfterFunc(ctx, end)
	hangUp = func() { stop(); end() }
	options := []gomail.Option{
		gomail.WithPort(e.port), gomail.WithTimeout(attemptTimeout), gomail.WithTLSConfig(e.tls()),
		gomail.WithTLSPolicy(e.tlsPolicy()), gomail.WithDialContextFunc(dial),
	}
	if e.username != "" {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover),
			gomail.WithUsername(e.username), gomail.WithPassword(e.password))
	}
	mailer, err := gomail.NewClient(e.host, options...)
	if err == nil {
		client, err = mailer.DialToSMTPClientWithContext(ctx)
	}
	if err != nil {
		hangUp()
		return nil, nil, err
	}
	return client, hangUp, nil
}

// tlsPolicy returns the library's name for the mode. With an own dial function an implicit connection is already encrypted,
// which the library only finds out under the opportunistic policy.
func (e *email) tlsPolicy() gomail.TLSPolicy {
	switch e.mode {
	case tlsNone:
		return gomail.NoTLS
	case tlsImplicit:
		return gomail.TLSOpportunistic
	default:
		return gomail.TLSMandatory
	}
}

func (e *email) tls() *tls.Config {
	config := clientTLS(e.roots)
	config.ServerName = e.host
	return config
}

// deliver sends the message to all recipients that the server takes.
func (e *email) deliver(client *smtp.Client, msg *gomail.Msg, event string) error {
	if err := client.Mail("<" + e.from.Address + ">"); err != nil {
		return fmt.Errorf("the server refused the sender: %w", err)
	}
	var (
		accepted []string
		refused  []error
	)
	for _, to := range e.to {
		if e.has(event, to.Address) {
			continue
		}
		if err := client.Rcpt("<" + to.Address + ">"); err != nil {
			var reply *textproto.Error
			if !errors.As(err, &reply) {
				return err // the connection is gone
			}
			refused = append(refused, fmt.Errorf("the server refused the recipient %s: %w", to.Address, err))
			continue
		}
		accepted = append(accepted, to.Address)
	}
	if len(accepted) > 0 {
		if err := write(client, msg); err != nil {
			return err
		}
	}
	if len(refused) > 0 {
		e.remember(event, accepted)
		return worst(refused)
	}
	return nil
}

// write sends the message's text. It closes the data only when all of it was written: a closed half would be delivered.
func write(client *smtp.Client, msg *gomail.Msg) error {
	data, err := client.Data()
	if err != nil {
		return fmt.Errorf("the server refused the message: %w", err)
	}
	if _, err := msg.WriteTo(data); err != nil {
		return fmt.Errorf("send the message: %w", err)
	}
	if err := data.Close(); err != nil {
		return fmt.Errorf("the server refused the message: %w", err)
	}
	return nil
}

// worst returns the temporary refusal among the errors if there is one, since trying again is worth it then, else the first.
func worst(refused []error) error {
	for _, err := range refused {
		if !permanentReply(err) {
			return err
		}
	}
	return refused[0]
}

// permanentReply reports whether err is a 5xx reply (RFC 5321, 4.2.1).
func permanentReply(err error) bool {
	var reply *textproto.Error
	return errors.As(err, &reply) && reply.Code >= 500 && reply.Code <= 599
}

// judge puts the error into words and marks it permanent when the server said so.
func (e *email) judge(ctx context.Context, err error) error {
	var reply *textproto.Error
	if errors.As(err, &reply) {
		reply.Msg = sdk.CleanText(reply.Msg, maxAnswer)
	}
	switch {
	case permanentReply(err):
		return sdk.Permanent(err)
	case reply != nil:
		return err
	case errors.Is(err, gomail.ErrNoSupportedAuthDiscovered):
		return sdk.Permanent(errors.New("the server offers no login that works with this encryption setting"))
	case errors.Is(err, io.EOF):
		return errors.New("the server closed the connection")
	}
	return explain(ctx, err)
}

// has reports whether the recipient already got the event.
func (e *email) has(event, recipient string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.taken {
		if e.taken[i].event == event {
			return e.taken[i].recipients[recipient]
		}
	}
	return false
}

// remember keeps who got the event, for its retries.
func (e *email) remember(event string, recipients []string) {
	if len(recipients) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := 0
	for i < len(e.taken) && e.taken[i].event != event {
		i++
	}
	if i == len(e.taken) {
		if len(e.taken) == maxRemembered {
			e.taken, i = e.taken[1:], i-1
		}
		e.taken = append(e.taken, partial{event: event, recipients: make(map[string]bool, len(recipients))})
	}
	for _, r := range recipients {
		e.taken[i].recipients[r] = true
	}
}

// message writes the mail. Date and id come from the event, so that a retry sends the same message.
func (e *email) message(n sdk.Notification) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithEncoding(gomail.EncodingQP))
	m.FromMailAddress(e.from)
	m.ToMailAddress(e.to...)
	subject, _, _ := strings.Cut(n.Text, "\n")
	m.Subject(sdk.CleanText(subject, maxMessage))
	m.SetDateWithValue(n.At.UTC())
	_, domain, _ := strings.Cut(e.from.Address, "@")
	m.SetMessageIDWithValue(idPart(n.ID) + "@" + domain)
	if n.Incident != nil && n.Incident.ID != "" {
		m.SetGenHeader(gomail.HeaderReferences, "<"+idPart(n.Incident.ID)+"@"+domain+">")
	}
	// RFC 3834, 5: so that nobody's absence notice answers.
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Auto-Response-Suppress", "All")
	m.SetBodyString(gomail.TypeTextPlain, strings.ToValidUTF8(n.Text, "\uFFFD")+"\n")
	return m, nil
}

// idPart returns an id with only the characters that may stand in a message's id unquoted.
func idPart(id string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, id)
}
