// Package alert tells people: the providers that notifications are sent with, the registry that finds them, and the
// delivery that takes what is due out of the outbox and tries until it has arrived or 24 hours are over.
package alert

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
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
}

// New returns a notifier with the given configuration, a JSON object; nil is an empty one. The error is a monitor.Faults
// with every fault, its fields beginning with "config". The notifier's errors never hold a secret of the configuration, and
// a panic inside it is an error.
func (p Provider) New(config json.RawMessage) (Notifier, error) {
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

// Registry holds the providers. It is safe for concurrent use, and two registries share nothing.
type Registry struct {
	providers []Provider // sorted by name
}

// NewRegistry returns a registry of the built-in providers and those of the options. A fault in a provider's data is an
// error that names the file and the line.
func NewRegistry(opts Options) (*Registry, error) {
	if opts.UserAgent == "" {
		opts.UserAgent = "tocsin"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	post := newPoster(opts)
	all := []Provider{webhookProvider(post, opts.Now), emailProvider(opts)}
	data, err := loadProviders(builtinFiles, post)
	if err != nil {
		return nil, err
	}
	all = append(append(all, data...), opts.Extra...)
	slices.SortFunc(all, func(a, b Provider) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(all); i++ {
		if all[i].Name == all[i-1].Name {
			return nil, fmt.Errorf("provider %s is defined twice", all[i].Name)
		}
	}
	return &Registry{providers: all}, nil
}

// Providers returns every provider, sorted by name. The caller may keep and change the slice.
func (r *Registry) Providers() []Provider { return slices.Clone(r.providers) }

// Provider returns the provider with the name, and false when there is none.
func (r *Registry) Provider(name string) (Provider, bool) {
	i, ok := slices.BinarySearchFunc(r.providers, name, func(p Provider, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return Provider{}, false
	}
	return r.providers[i], true
}

// New returns a notifier of the named provider. The error is a monitor.Faults with fields "provider" and "config.…"; that
// of an unknown provider lists the known ones.
func (r *Registry) New(provider string, config json.RawMessage) (Notifier, error) {
	p, ok := r.Provider(provider)
	if !ok {
		names := make([]string, len(r.providers))
		for i := range r.providers {
			names[i] = r.providers[i].Name
		}
		var faults monitor.Faults
		faults.Add("provider", provider, "unknown provider; known are %s", strings.Join(names, ", "))
		return nil, faults
	}
	return p.New(config)
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
	}
}
