package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Masked stands in the place of a secret in every answer. Sent back, it keeps the secret that is stored.
const Masked = "••••"

// masks knows where the secrets are in the configurations of kinds and providers.
type masks struct{ kinds, providers map[string]*mask }

// mask is the part of a JSON Schema that says which values are secret: those under "writeOnly": true; and which the server
// makes up when they are missing: those with "x-generated": true.
type mask struct {
	secret bool
	made   bool
	usual  any              // what a missing value amounts to: the "default" of a property
	fields map[string]*mask // of an object
	others *mask            // its additional properties
	items  *mask            // of an array
}

func newMasks(kinds Kinds, providers Providers) (masks, error) {
	m := masks{kinds: make(map[string]*mask), providers: make(map[string]*mask)}
	for _, k := range kinds.Kinds() {
		made, err := newMask(k.Schema())
		if err != nil {
			return masks{}, fmt.Errorf("read the schema of kind %s: %w", k.Name, err)
		}
		m.kinds[k.Name] = made
	}
	for _, p := range providers.Providers() {
		made, err := newMask(p.Schema())
		if err != nil {
			return masks{}, fmt.Errorf("read the schema of provider %s: %w", p.Name, err)
		}
		m.providers[p.Name] = made
	}
	return m, nil
}

func newMask(schema json.RawMessage) (*mask, error) {
	tree, err := decodeTree(schema)
	if err != nil {
		return nil, err
	}
	root, ok := tree.(map[string]any)
	if !ok {
		return nil, errors.New("it is no object")
	}
	m, budget := &mask{}, maxSchema
	m.learn(root, root, &budget)
	return m, nil
}

// maxSchema is how many parts of a schema are looked at. One that refers to itself has more than anybody can.
const maxSchema = 2000

// learn adds what the schema says. Of alternatives it takes all together: rather one mask too many than one too few.
func (m *mask) learn(root, schema map[string]any, budget *int) {
	if *budget--; *budget < 0 {
		m.secret = true // as far as anybody knows
		return
	}
	if w, ok := schema["writeOnly"].(bool); ok && w {
		m.secret = true
	}
	if g, ok := schema["x-generated"].(bool); ok && g {
		m.made = true
	}
	if ref, ok := schema["$ref"].(string); ok {
		if target := resolve(root, ref); target != nil {
			m.learn(root, target, budget)
		}
	}
	for _, word := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := schema[word].([]any)
		for _, part := range list {
			if sub, ok := part.(map[string]any); ok {
				m.learn(root, sub, budget)
			}
		}
	}
	if props, ok := schema["properties"].(map[string]any); ok {
		for name, p := range props {
			sub, ok := p.(map[string]any)
			if !ok {
				continue
			}
			if m.fields == nil {
				m.fields = make(map[string]*mask)
			}
			if m.fields[name] == nil {
				m.fields[name] = &mask{}
			}
			if usual := sub["default"]; usual != nil {
				m.fields[name].usual = usual
			}
			m.fields[name].learn(root, sub, budget)
		}
	}
	if sub, ok := schema["additionalProperties"].(map[string]any); ok {
		if m.others == nil {
			m.others = &mask{}
		}
		m.others.learn(root, sub, budget)
	}
	if sub, ok := schema["items"].(map[string]any); ok {
		if m.items == nil {
			m.items = &mask{}
		}
		m.items.learn(root, sub, budget)
	}
}

func resolve(root map[string]any, ref string) map[string]any {
	if !strings.HasPrefix(ref, "#") {
		return nil
	}
	at := any(root)
	for _, part := range strings.Split(strings.TrimPrefix(ref, "#"), "/") {
		if part == "" {
			continue
		}
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
	}
	found, _ := at.(map[string]any)
	return found
}

// any reports whether anything under the mask is secret.
func (m *mask) any() bool {
	if m == nil {
		return false
	}
	if m.secret || m.others.any() || m.items.any() {
		return true
	}
	for _, f := range m.fields {
		if f.any() {
			return true
		}
	}
	return false
}

func (m *mask) field(name string) *mask {
	if m == nil {
		return nil
	}
	if f := m.fields[name]; f != nil {
		return f
	}
	return m.others
}

// hides reports whether the value at a dotted path, as faults name it, is or may hold a secret. A path that the schema does
// not have may be anything: somebody who mistypes "password" sends one.
func (m *mask) hides(path string) bool {
	if m == nil {
		return true
	}
	at := m
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if at.secret {
			return true
		}
		if _, err := strconv.Atoi(part); err == nil && at.items != nil {
			at = at.items
			continue
		}
		if at = at.field(part); at == nil {
			return true
		}
	}
	return at.any()
}

// hide returns the configuration with its secrets masked. Empty ones stay, to show that they are not set.
func (m *mask) hide(config json.RawMessage) json.RawMessage {
	if len(config) == 0 {
		return json.RawMessage("{}")
	}
	if m != nil && !m.any() || len(config) == len("{}") {
		return config
	}
	tree, err := decodeTree(config)
	if err != nil {
		return json.RawMessage("{}") // nothing rather than something secret
	}
	hidden, err := json.Marshal(m.hideIn(tree, m == nil))
	if err != nil {
		return json.RawMessage("{}")
	}
	return hidden
}

// hideIn masks within a value; secret says that all of it is.
func (m *mask) hideIn(v any, secret bool) any {
	secret = secret || m != nil && m.secret
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = m.field(name).hideIn(v[name], secret)
		}
	case []any:
		var items *mask
		if m != nil {
			items = m.items
		}
		for i := range v {
			v[i] = items.hideIn(v[i], secret)
		}
	case nil:
	case string:
		if secret && v != "" {
			return Masked
		}
	case bool:
	default:
		if secret {
			return Masked
		}
	}
	return v
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
			m.changes(tree, hidden, "config", &changed)
		}
	}
	tree = m.restoreIn(tree, old, false, "config", &r)
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
func (m *mask) changes(now, was any, path string, changed *[]string) {
	if m != nil && m.made {
		return
	}
	now, was = m.orUsual(now), m.orUsual(was)
	a, isObject := now.(map[string]any)
	b, wasObject := was.(map[string]any)
	if (isObject || now == nil) && (wasObject || was == nil) {
		all := maps.Clone(b)
		if all == nil {
			all = map[string]any{}
		}
		maps.Copy(all, a)
		for _, name := range keys(all) {
			m.field(name).changes(a[name], b[name], path+"."+name, changed)
		}
		return
	}
	if !reflect.DeepEqual(now, was) {
		*changed = append(*changed, shown(path))
	}
}

// orUsual returns what a value that is missing amounts to.
func (m *mask) orUsual(v any) any {
	list, isList := v.([]any)
	switch {
	case m == nil || m.usual == nil:
		if v == "" || isList && len(list) == 0 {
			return nil
		}
	case v == nil:
		return m.usual
	}
	return v
}

// restoring is what comes of putting secrets back.
type restoring struct {
	fromOther bool     // the configuration is one of another kind, whose secrets are not those of this one
	kept      []string // where the mask stood for a secret that the user may know
	faults    monitor.Faults
}

func (m *mask) restoreIn(v, old any, secret bool, path string, r *restoring) any {
	secret = secret || m == nil || m.secret
	switch v := v.(type) {
	case map[string]any:
		was, _ := old.(map[string]any)
		for name := range v {
			v[name] = m.field(name).restoreIn(v[name], was[name], secret, path+"."+name, r)
		}
	case []any:
		was, _ := old.([]any)
		if len(was) != len(v) {
			was = nil // nobody can tell which secret belongs to which item
		}
		var items *mask
		if m != nil {
			items = m.items
		}
		for i := range v {
			var before any
			if i < len(was) {
				before = was[i]
			}
			v[i] = items.restoreIn(v[i], before, secret, path+"["+strconv.Itoa(i)+"]", r)
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
			if m == nil || !m.made {
				r.kept = append(r.kept, path)
			}
			return old
		}
	}
	return v
}

// generate fills in the texts that the server makes up when they are missing: what was stored before, else a new secret.
// chosen says that the user brought one of them that is not the stored one.
func (m *mask) generate(config, stored json.RawMessage) (filled json.RawMessage, chosen bool, err error) {
	if m == nil || !m.makes() {
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
	for name, f := range m.fields {
		if !f.made {
			continue
		}
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
	if m == nil || !m.makes() {
		return false
	}
	tree, err := decodeTree(config)
	object, ok := tree.(map[string]any)
	if err != nil || !ok {
		return false
	}
	for name, f := range m.fields {
		if v := object[name]; f.made && v != nil && v != "" && v != Masked {
			return true
		}
	}
	return false
}

func (m *mask) makes() bool {
	for _, f := range m.fields {
		if f.made {
			return true
		}
	}
	return false
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
