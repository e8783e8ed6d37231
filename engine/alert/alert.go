// Package alert tells people: the providers that notifications are sent with, the registry that finds them, and the
// delivery that takes what is due out of the outbox and tries until it has arrived or 24 hours are over.
package alert

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/sdk"
)

// Notifier delivers notifications to one channel. Notify returns nil only when the receiver took it; sdk.Permanent marks an
// error that trying again cannot help, sdk.RetryAfter one whose sender asked for a pause. It is called from several
// goroutines and returns when its context ends.
type Notifier interface {
	Notify(ctx context.Context, n sdk.Notification) error
}

// Provider is a way to send notifications. A channel is a provider with a configuration.
type Provider struct {
	Name   string  // lower case; what a channel names
	Doc    string  // one or more full sentences for the person who sets up a channel
	Link   string  // where the receiving service documents itself; may be empty
	Fields []Field // the configuration, in the order in which a form shows it

	// Build makes a notifier from values that Fields have been applied to. Its error is a monitor.Faults whose fields are
	// names of Fields where the values do not go together.
	Build func(Values) (Notifier, error)

	raw   *raw                           // in place of Fields and Build; see DefineRaw
	shape func() (*schema.Schema, error) // see Shape; nil: made at every call
}

// New returns a notifier with the given configuration, a JSON object; nil is an empty one. The error is a monitor.Faults
// with every fault, its fields beginning with "config"; "provider" is one of a provider that DefineRaw made. The notifier's errors never hold a secret of the configuration, and
// a panic inside it is an error.
func (p Provider) New(config json.RawMessage) (Notifier, error) {
	if p.raw != nil {
		return p.raw.new(p.Name, config)
	}
	values, faults := decode(p.Fields, config)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	n, err := p.Build(values)
	if err != nil {
		return nil, under("config", err)
	}
	return &guarded{provider: p.Name, next: n, secrets: secretTexts(p.Fields, values)}, nil
}

// under returns err as faults below path.
func under(path string, err error) error {
	faults := monitor.Faults{}
	if own, ok := err.(monitor.Faults); ok { //nolint:errorlint // Build returns faults themselves
		faults.Under(path, own)
	} else {
		faults.Add(path, nil, "%v", err)
	}
	return faults
}

// Options is what providers need of the process they run in. The zero value works.
type Options struct {
	Policy    netpolicy.Policy // which addresses may be connected to
	UserAgent string           // what HTTP providers call themselves; empty is "tocsin"
	RootCAs   *x509.CertPool   // whom TLS connections trust; nil is the system's set
	Now       func() time.Time // for signatures; nil is time.Now
	Extra     []Provider       // beside the built-in ones; a name that is taken is an error of NewRegistry
}

// newPoster returns what HTTP providers send with: one transport that applies the address policy to every connection.
// Connections are not kept: notifications are rare, and a connection that the server closed meanwhile would cost a retry.
func newPoster(opts Options) *poster {
	transport := &http.Transport{
		Proxy:                  nil, // a proxy from the environment would get around the address policy
		DialContext:            opts.Policy.Dialer(dialTimeout).DialContext,
		TLSClientConfig:        clientTLS(opts.RootCAs),
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &poster{
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		userAgent: opts.UserAgent,
		policy:    opts.Policy,
		now:       opts.Now,
		patience:  bodyTimeout,
	}
}
