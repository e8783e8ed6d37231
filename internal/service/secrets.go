package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/schema"
)

// Masked stands in the place of a secret in every answer. Sent back, it keeps the secret that is stored.
const Masked = "••••"

// masks knows where the secrets are in the configurations of kinds and providers, as these are now.
type masks struct {
	kinds     Kinds
	providers Providers
}

// kind returns the mask of a kind's configurations. Of one that is not there, nobody knows what is secret: then all is.
func (m masks) kind(name string) *mask {
	k, ok := m.kinds.Kind(name)
	if !ok {
		return nil
	}
	return newMask(k.Shape())
}

// provider returns the mask of a provider's configurations, as kind does.
func (m masks) provider(name string) *mask {
	p, ok := m.providers.Provider(name)
	if !ok {
		return nil
	}
	return newMask(p.Shape())
}

// mask hides the secrets of one kind's or provider's configurations and puts them back. Nil takes everything for a secret.
type mask struct{ schema *schema.Schema }

func newMask(s *schema.Schema, err error) *mask {
	if err != nil {
		return nil
	}
	return &mask{s}
}

func (m *mask) root() schema.Part {
	if m == nil {
		return schema.Part{}
	}
	return m.schema.Root()
}

// secretPart reports whether what is there is a secret, or may be one because nobody described it.
func secretPart(p schema.Part) bool { return !p.Described() || p.Secret() }

// hides reports whether the value at a dotted path, as faults name it, is or may hold a secret. A path that the schema does
// not have may be anything: somebody who mistypes "password" sends one.
func (m *mask) hides(path string) bool {
	at := m.root()
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if secretPart(at) {
			return true
		}
		if i, err := strconv.Atoi(name); err == nil && at.Item(i).Described() {
			at = at.Item(i)
			continue
		}
		at = at.Field(name)
	}
	return at.HoldsSecret()
}

// hide returns the configuration with its secrets masked. Empty ones stay, to show that they are not set.
func (m *mask) hide(config json.RawMessage) json.RawMessage {
	if len(config) == 0 {
		return json.RawMessage("{}")
	}
	if len(config) == len("{}") {
		return config
	}
	tree, err := decodeTree(config)
	if err != nil {
		return json.RawMessage("{}") // nothing rather than something secret
	}
	found := false
	tree = hideIn(m.root(), tree, m == nil, &found)
	if !found {
		return config
	}
	hidden, err := json.Marshal(tree)
	if err != nil {
		return json.RawMessage("{}")
	}
	return hidden
}

// hideIn masks within a value; secret says that all of it is. It notes whether it found anything to mask.
func hideIn(at schema.Part, v any, secret bool, found *bool) any {
	secret = secret || secretPart(at)
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = hideIn(at.Field(name), v[name], secret, found)
		}
		return v
	case []any:
		for i := range v {
			v[i] = hideIn(at.Item(i), v[i], secret, found)
		}
		return v
	case nil, bool:
		return v
	}
	if !secret || v == "" {
		return v
	}
	*found = true
	return Masked
}

// earlier is what a configuration replaces.
type earlier struct {
	config json.RawMessage // nil: there was none of the same kind
	moved  []string        // what of the object beside the configuration has changed: the target
}

// restore puts the stored secrets back where the configuration has the mask. A mask with nothing behind it is a fault: else
// the mask itself would become the password. So is one when anything else has changed, for whoever does not know a secret
// could have it sent to where he likes.
func (m *mask) restore(config json.RawMessage, was earlier) (json.RawMessage, monitor.Faults) {
	if !bytes.Contains(config, []byte(Masked)) && !bytes.Contains(config, []byte(`\u2022`)) {
		return config, nil
	}
	tree, err := decodeTree(config)
	if err != nil {
		return config, nil //nolint:nilerr // the registry says what is wrong with it, and where
	}
	r := restoring{fromOther: len(was.config) == 0 && len(was.moved) > 0}
	changed := was.moved
	var old any
	if len(was.config) > 0 {
		if old, err = decodeTree(was.config); err != nil {
			old = nil
		}
		// Both sides are masked, so that a secret that was sent counts as changed even when it is the stored one: the answer
		// would tell whoever guesses.
		if hidden, err := decodeTree(m.hide(was.config)); err == nil {
			changes(m.root(), tree, hidden, "config", &changed)
		}
	}
	tree = restoreIn(m.root(), tree, old, false, "config", &r)
	if len(changed) > 0 {
		for _, path := range r.kept {
			r.faults.Add(path, nil, "must be sent again, because %s changed", listed("", changed, ""))
		}
	}
	restored, err := json.Marshal(tree)
	if err != nil {
		return config, monitor.Faults{{Field: "config", Message: "cannot be written as JSON"}}
	}
	return restored, r.faults
}

// changes appends the paths at which two masked configurations differ. What the server makes up does not count.
func changes(at schema.Part, now, was any, path string, changed *[]string) {
	if at.Made() {
		return
	}
	now, was = orUsual(at, now), orUsual(at, was)
	a, isObject := now.(map[string]any)
	b, wasObject := was.(map[string]any)
	if (isObject || now == nil) && (wasObject || was == nil) {
		all := maps.Clone(b)
		if all == nil {
			all = map[string]any{}
		}
		maps.Copy(all, a)
		for _, name := range keys(all) {
			changes(at.Field(name), a[name], b[name], path+"."+name, changed)
		}
		return
	}
	if !reflect.DeepEqual(now, was) {
		*changed = append(*changed, shown(path))
	}
}

// orUsual returns what a value that is missing amounts to.
func orUsual(at schema.Part, v any) any {
	list, isList := v.([]any)
	usual := at.Usual()
	switch {
	case usual == nil:
		if v == "" || isList && len(list) == 0 {
			return nil
		}
	case v == nil:
		return usual
	}
	return v
}

// restoring is what comes of putting secrets back.
type restoring struct {
	fromOther bool     // the configuration is one of another kind, whose secrets are not those of this one
	kept      []string // where the mask stood for a secret that the user may know
	faults    monitor.Faults
}

func restoreIn(at schema.Part, v, old any, secret bool, path string, r *restoring) any {
	secret = secret || secretPart(at)
	switch v := v.(type) {
	case map[string]any:
		was, _ := old.(map[string]any)
		for name := range v {
			v[name] = restoreIn(at.Field(name), v[name], was[name], secret, path+"."+name, r)
		}
	case []any:
		was, _ := old.([]any)
		if len(was) != len(v) {
			was = nil // nobody can tell which secret belongs to which item
		}
		for i := range v {
			var before any
			if i < len(was) {
				before = was[i]
			}
			v[i] = restoreIn(at.Item(i), v[i], before, secret, path+"["+strconv.Itoa(i)+"]", r)
		}
	case string:
		if v != Masked || !secret {
			break
		}
		if r.fromOther {
			r.kept = append(r.kept, path)
			break
		}
		switch old.(type) {
		case nil, map[string]any, []any:
			r.faults.Add(path, nil, "is the mask of a secret, and none is stored here; send the secret itself")
		default:
			if !at.Made() {
				r.kept = append(r.kept, path)
			}
			return old
		}
	}
	return v
}

// made lists the settings that the server makes up when they are missing.
func (m *mask) made() []string {
	root := m.root()
	return slices.DeleteFunc(root.Names(), func(name string) bool { return !root.Field(name).Made() })
}

// generate fills in the texts that the server makes up when they are missing: what was stored before, else a new secret.
// chosen says that the user brought one of them that is not the stored one.
func (m *mask) generate(config, stored json.RawMessage) (filled json.RawMessage, chosen bool, err error) {
	made := m.made()
	if len(made) == 0 {
		return config, false, nil
	}
	tree, err := decodeTree(config)
	object, ok := tree.(map[string]any)
	if err != nil || !ok {
		return config, false, nil //nolint:nilerr // the registry says what is wrong
	}
	var old map[string]any
	if len(stored) > 0 {
		if was, err := decodeTree(stored); err == nil {
			old, _ = was.(map[string]any)
		}
	}
	for _, name := range made {
		if v := object[name]; v != nil && v != "" {
			chosen = chosen || v != old[name]
			continue
		}
		if kept, ok := old[name].(string); ok && kept != "" {
			object[name] = kept
			continue
		}
		if object[name], err = newSecret(""); err != nil {
			return nil, false, err
		}
	}
	if filled, err = json.Marshal(object); err != nil {
		return nil, false, fmt.Errorf("write configuration: %w", err)
	}
	return filled, chosen, nil
}

// chooses reports whether the configuration brings a text that the server would make up.
func (m *mask) chooses(config json.RawMessage) bool {
	made := m.made()
	if len(made) == 0 {
		return false
	}
	tree, err := decodeTree(config)
	object, ok := tree.(map[string]any)
	if err != nil || !ok {
		return false
	}
	return slices.ContainsFunc(made, func(name string) bool {
		v := object[name]
		return v != nil && v != "" && v != Masked
	})
}

// decodeTree reads JSON and keeps numbers as they were written.
func decodeTree(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return v, nil
}

// secretsUnder removes the values of faults whose field may hold a secret, and shortens the rest.
func (m *mask) secretsUnder(faults monitor.Faults) {
	for i := range faults {
		f := &faults[i]
		if path, ok := strings.CutPrefix(f.Field, "config"); ok && f.Value != nil && m.hides(path) {
			f.Value = nil
		}
	}
}
