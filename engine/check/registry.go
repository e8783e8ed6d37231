package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/sdk"
)

// Kind is a sort of check.
type Kind struct {
	Name   string // as monitors name it: lower-case letters, digits, "-" and "_"
	Doc    string // what it checks, in full sentences
	Target string // an example target
	Config any    // the config struct with its defaults; nil for a kind made with DefineRaw; see Schema
	// New makes a checker for a target with a config; a nil config is the defaults. Its error is monitor.Faults with the
	// fields "target" and "config.…".
	New func(target string, config json.RawMessage) (Checker, error)

	variables []Variable
	raw       json.RawMessage                // the schema of a kind made with DefineRaw
	shape     func() (*schema.Schema, error) // see Shape; nil: made at every call
}

// Variable is a value that the kind's assert and degrade expressions can use.
type Variable struct {
	Name    string // as it is written: status, cert.days_left
	Type    string // number, text, duration, list, table, any
	Doc     string
	Example string // an expression with it
}

// Variables lists what the kind's assert and degrade expressions can use.
func (k Kind) Variables() []Variable { return slices.Clone(k.variables) }

// Define makes a kind from a config struct with its defaults; C is a struct of strings, bools, ints, monitor.Durations, lists
// and maps of strings, raw JSON, and pointers to such structs. The build function gets the target and the decoded config and
// returns monitor.Faults for what is wrong with them: "target", or the config's field. It is also called when the config
// could not be decoded, so that all faults are told at once; its checker is dropped then.
func Define[C any](name, doc, exampleTarget string, defaults C, build func(target string, config C) (Checker, error)) Kind {
	fields := fieldsOf(typeFor[C]())
	return Kind{
		Name: name, Doc: doc, Target: exampleTarget, Config: defaults, variables: resultVariables(),
		New: func(target string, raw json.RawMessage) (Checker, error) {
			config := defaults
			var faults monitor.Faults
			bad := decodeConfig(fields, raw, &config)
			faults.Under("config", bad)
			checker, err := build(target, config)
			var more monitor.Faults
			switch {
			case errors.As(err, &more):
				faults = merge(faults, more)
			case err != nil:
				faults.Add("config", nil, "%v", err)
			}
			if err := faults.Err(); err != nil {
				return nil, err
			}
			return checker, nil
		},
	}
}

// merge adds what building found to what decoding found, once for each field. Fields other than target are the config's.
func merge(faults, more monitor.Faults) monitor.Faults {
	for _, f := range more {
		if f.Field != "target" {
			f.Field = join("config", f.Field)
		}
		if !slices.ContainsFunc(faults, func(have monitor.Fault) bool { return have.Field == f.Field }) {
			faults = append(faults, f)
		}
	}
	return faults
}

// builtins holds the constructors of the kinds in this package. Each file's init adds its own.
var builtins []func(*env) Kind

// builtin is called from init only.
func builtin(kind func(*env) Kind) { builtins = append(builtins, kind) }

// define makes a built-in kind: one whose checks can be judged by more than their result.
func define[C any](e *env, name, doc, example string, defaults C, variables []Variable,
	build func(target string, config C, faults *monitor.Faults) prober,
) Kind {
	fields := fieldsOf(typeFor[C]())
	k := Define(name, doc, example, defaults, func(target string, config C) (Checker, error) {
		var faults monitor.Faults
		p := build(target, config, &faults)
		if err := faults.Err(); err != nil {
			return nil, err
		}
		return &probing{env: e, prober: p, secrets: secretsOf(fields, reflect.ValueOf(config))}, nil
	})
	k.variables = variables
	return k
}

// Options are what a registry needs of its surroundings. The zero value works.
type Options struct {
	Policy    netpolicy.Policy
	Log       *slog.Logger // nil: nothing is logged
	UserAgent string       // of HTTP checks; empty: "Tocsin"
	// Gapped reports whether this process was starved or suspended between start and end by so much that a check that
	// timed out after d says nothing about its target. Nil: never.
	Gapped func(start, end time.Time, d time.Duration) bool
	// Kinds are further kinds, made with Define or DefineRaw, which stay as long as the registry: they count as built in. One
	// with a built-in kind's name replaces it.
	Kinds []Kind
}

// Registry knows the kinds and makes checkers. Beside the built-in kinds it has those that were put, which come and go. It owns
// what checkers share: ICMP sockets, connections that are kept, parsed settings. Two registries share nothing. It is safe for
// concurrent use.
type Registry struct {
	env     *env
	builtin []string // the kinds that stay

	changing sync.Mutex              // held by whoever replaces kinds
	kinds    atomic.Pointer[[]*Kind] // by name; a list is never changed, nor is what it points to
}

// env is what the checkers of one registry share.
type env struct {
	policy    netpolicy.Policy
	log       *slog.Logger
	userAgent string
	gapped    func(start, end time.Time, d time.Duration) bool
	dialer    *net.Dialer
	resolver  *net.Resolver
	system    systemResolver
	tls       shared[[32]byte, tlsSettings]
	plans     shared[[32]byte, httpPlan]
	rules     shared[ruleKey, rule]
	icmp      echoer
	buffers   buffers
}

// NewRegistry returns a registry with the built-in kinds. It opens nothing until the first check.
func NewRegistry(o Options) *Registry {
	e := &env{policy: o.Policy, log: o.Log, userAgent: o.UserAgent, gapped: o.Gapped}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.userAgent == "" {
		e.userAgent = "Tocsin"
	}
	if e.gapped == nil {
		e.gapped = func(time.Time, time.Time, time.Duration) bool { return false }
	}
	e.resolver = &net.Resolver{PreferGo: true, Dial: dialResolver}
	e.dialer = e.policy.Dialer(0)
	e.dialer.Resolver = e.resolver
	e.icmp.open = openEcho
	r := &Registry{env: e}
	kinds := make([]*Kind, 0, len(o.Kinds)+len(builtins))
	add := func(k Kind) {
		if !slices.Contains(r.builtin, k.Name) {
			r.builtin, kinds = append(r.builtin, k.Name), append(kinds, k.shaped())
		}
	}
	for _, k := range o.Kinds {
		add(k)
	}
	for _, kind := range builtins {
		add(kind(e))
	}
	slices.SortFunc(kinds, byName)
	r.kinds.Store(&kinds)
	return r
}

func byName(a, b *Kind) int { return strings.Compare(a.Name, b.Name) }

// kindName is what a kind may be called.
var kindName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// Put adds a kind that is not built in, or replaces it: checkers that Late made use it from their next check on. The error says
// why it cannot be used: it has no name that a kind may have, it has the name of a built-in kind, or its schema is none.
func (r *Registry) Put(k Kind) error {
	switch {
	case !kindName.MatchString(k.Name):
		return fmt.Errorf("add kind %q: its name must be lower-case letters, digits, - and _, at most 63 of them, a letter first", sdk.CleanText(k.Name, 100))
	case r.Builtin(k.Name):
		return fmt.Errorf("add kind %s: a built-in kind has that name", k.Name)
	case k.New == nil:
		return fmt.Errorf("add kind %s: it cannot make checkers", k.Name)
	}
	added := k.shaped()
	if _, err := added.Shape(); err != nil {
		return fmt.Errorf("add kind %s: the schema of its config %w", k.Name, err)
	}
	r.replace(k.Name, added)
	return nil
}

// Remove takes out a kind that was put. Another name changes nothing.
func (r *Registry) Remove(name string) {
	if !r.Builtin(name) {
		r.replace(name, nil)
	}
}

// Builtin reports whether a kind of that name is there for good: one of this package, or of Options.Kinds.
func (r *Registry) Builtin(name string) bool { return slices.Contains(r.builtin, name) }

// replace takes out the kind with the name and puts the other in its place; nil is none.
func (r *Registry) replace(name string, by *Kind) {
	r.changing.Lock()
	defer r.changing.Unlock()
	kinds := slices.DeleteFunc(slices.Clone(*r.kinds.Load()), func(k *Kind) bool { return k.Name == name })
	if by != nil {
		kinds = append(kinds, by)
		slices.SortFunc(kinds, byName)
	}
	r.kinds.Store(&kinds)
}

// find returns the kind with the name that there is now, or nil. It is the same one until it is put again.
func (r *Registry) find(name string) *Kind {
	kinds := *r.kinds.Load()
	i, ok := slices.BinarySearchFunc(kinds, name, func(k *Kind, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return nil
	}
	return kinds[i]
}

// Close closes the sockets and the kept connections. Checks that are under way fail; call it after the last one. Closing
// twice is fine.
func (r *Registry) Close() error {
	for _, plan := range r.env.plans.all() {
		plan.close()
	}
	return r.env.icmp.close()
}

// Kinds lists the kinds by name.
func (r *Registry) Kinds() []Kind {
	kinds := *r.kinds.Load()
	list := make([]Kind, len(kinds))
	for i, k := range kinds {
		list[i] = *k
	}
	return list
}

// Kind returns the kind with the name.
func (r *Registry) Kind(name string) (Kind, bool) {
	k := r.find(name)
	if k == nil {
		return Kind{}, false
	}
	return *k, true
}

// New makes the checker of a monitor. The error is monitor.Faults with everything that is wrong: "kind", "target",
// "config.…", "assert[0]", "degrade[1]". What it returns applies the expressions; see Checker for results and errors. It stays
// with the kind that there is now; see Late for one that does not.
func (r *Registry) New(s Spec) (Checker, error) {
	if kind := r.find(s.Kind); kind != nil {
		return r.make(kind, s)
	}
	var faults monitor.Faults
	var names []string
	for _, k := range *r.kinds.Load() {
		names = append(names, k.Name)
	}
	faults.Add("kind", sdk.CleanText(s.Kind, 100), "is unknown; known are %s", strings.Join(names, ", "))
	return nil, faults
}

// make makes the checker of a monitor of the kind.
func (r *Registry) make(kind *Kind, s Spec) (Checker, error) {
	var faults monitor.Faults
	config := s.Config
	if len(bytes.TrimSpace(config)) == 0 {
		config = nil
	}
	checker, err := kind.New(s.Target, config)
	var more monitor.Faults
	switch {
	case errors.As(err, &more):
		faults = append(faults, more...)
	case err != nil:
		faults.Add("config", nil, "%v", err)
	}
	if p, ok := checker.(*probing); ok && s.Timeout > 0 {
		if t, ok := p.prober.(timed); ok {
			var more monitor.Faults
			t.fitsInto(s.Timeout, &more)
			faults.Under("config", more)
		}
	}
	rules := r.env.compileRules(*kind, s, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if rules == nil {
		return checker, nil
	}
	switch c := checker.(type) {
	case ruled:
		c.setRules(rules)
		return checker, nil
	case Passive:
		faults.Add(rules.firstField(), nil, "kind %s takes no expressions", kind.Name)
		return nil, faults
	default:
		return &probing{env: r.env, prober: foreign{checker}, rules: rules}, nil
	}
}

// ruled is a Checker of this package: it applies expressions itself.
type ruled interface{ setRules(r *rules) }

// resultVariables are those of a kind from outside this package: what every result has.
func resultVariables() []Variable {
	return append(connectionVariables(),
		Variable{"status", "number", "The protocol's own number where the kind has one.", "status == 0"},
		Variable{"message", "text", "What the check says happened.", `message contains "ok"`},
		Variable{"metrics.NAME", "number", "A number that the check measured.", "metrics.queue < 100"})
}
