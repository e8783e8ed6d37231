package alert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Registry holds the providers. Beside the built-in ones it has those that were put, which come and go. It is safe for
// concurrent use, and two registries share nothing.
type Registry struct {
	builtin []string // the providers that stay, sorted

	changing  sync.Mutex                  // held by whoever replaces providers
	providers atomic.Pointer[[]*Provider] // by name; a list is never changed, nor is what it points to
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
	r := &Registry{}
	providers := make([]*Provider, 0, len(all))
	for i := range all {
		if slices.Contains(r.builtin, all[i].Name) {
			return nil, fmt.Errorf("provider %s is defined twice", all[i].Name)
		}
		r.builtin = append(r.builtin, all[i].Name)
		providers = append(providers, all[i].shaped())
	}
	slices.SortFunc(providers, byName)
	r.providers.Store(&providers)
	return r, nil
}

func byName(a, b *Provider) int { return cmp.Compare(a.Name, b.Name) }

// shaped returns a copy that reads its schema once, when it is first asked for it.
func (p Provider) shaped() *Provider {
	if p.shape == nil {
		p.shape = sync.OnceValues(p.Shape)
	}
	return &p
}

// providerName is what a provider may be called.
var providerName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// Put adds a provider that is not built in, or replaces it: channels that use it are served by it from their next notification
// on. The error says why it cannot be used: it has no name that a provider may have, it has the name of a built-in one, or its
// schema is none.
func (r *Registry) Put(p Provider) error {
	switch {
	case !providerName.MatchString(p.Name):
		return fmt.Errorf("add provider %q: its name must be lower-case letters, digits, - and _, at most 63 of them, a letter first", sdk.CleanText(p.Name, 100))
	case r.Builtin(p.Name):
		return fmt.Errorf("add provider %s: a built-in provider has that name", p.Name)
	case p.raw == nil && p.Build == nil:
		return fmt.Errorf("add provider %s: it cannot make notifiers", p.Name)
	}
	added := p.shaped()
	if _, err := added.Shape(); err != nil {
		return fmt.Errorf("add provider %s: the schema of its configuration %w", p.Name, err)
	}
	r.replace(p.Name, added)
	return nil
}

// Remove takes out a provider that was put. Another name changes nothing.
func (r *Registry) Remove(name string) {
	if !r.Builtin(name) {
		r.replace(name, nil)
	}
}

// Builtin reports whether a provider of that name is there for good: one of this package, or of Options.Extra.
func (r *Registry) Builtin(name string) bool { return slices.Contains(r.builtin, name) }

// replace takes out the provider with the name and puts the other in its place; nil is none.
func (r *Registry) replace(name string, by *Provider) {
	r.changing.Lock()
	defer r.changing.Unlock()
	providers := slices.DeleteFunc(slices.Clone(*r.providers.Load()), func(p *Provider) bool { return p.Name == name })
	if by != nil {
		providers = append(providers, by)
		slices.SortFunc(providers, byName)
	}
	r.providers.Store(&providers)
}

// find returns the provider with the name that there is now, or nil. It is the same one until it is put again.
func (r *Registry) find(name string) *Provider {
	providers := *r.providers.Load()
	i, ok := slices.BinarySearchFunc(providers, name, func(p *Provider, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return nil
	}
	return providers[i]
}

// Providers returns every provider, sorted by name. The caller may keep and change the slice.
func (r *Registry) Providers() []Provider {
	providers := *r.providers.Load()
	list := make([]Provider, len(providers))
	for i, p := range providers {
		list[i] = *p
	}
	return list
}

// Provider returns the provider with the name, and false when there is none.
func (r *Registry) Provider(name string) (Provider, bool) {
	p := r.find(name)
	if p == nil {
		return Provider{}, false
	}
	return *p, true
}

// New returns a notifier of the named provider. The error is a monitor.Faults with fields "provider" and "config.…"; that
// of an unknown provider lists the known ones.
func (r *Registry) New(provider string, config json.RawMessage) (Notifier, error) {
	if p := r.find(provider); p != nil {
		return p.New(config)
	}
	var names []string
	for _, p := range *r.providers.Load() {
		names = append(names, p.Name)
	}
	var faults monitor.Faults
	faults.Add("provider", provider, "unknown provider; known are %s", strings.Join(names, ", "))
	return nil, faults
}
