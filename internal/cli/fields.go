package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// field is one setting of a kind or a provider, as the JSON Schema of its config describes it.
type field struct {
	path    []string // from the config's root
	kind    string   // boolean, integer, number, string, strings, map, or json for all else
	doc     string
	initial string // its default, as JSON; empty when it has none
	enum    []string
	made    bool // the server makes a value up when none is given
}

// flag is the field's name as a flag: tls.ca_file is tls-ca-file.
func (f *field) flag() string {
	return strings.ReplaceAll(strings.Join(f.path, "-"), "_", "-")
}

type schema struct {
	Type        any               `json:"type"` // a text, or a list of them
	Description string            `json:"description"`
	Default     json.RawMessage   `json:"default"`
	Enum        []any             `json:"enum"`
	Properties  map[string]schema `json:"properties"`
	Generated   bool              `json:"x-generated"`
	Items       *schema           `json:"items"`
	Additional  json.RawMessage   `json:"additionalProperties"`
}

func (s *schema) is(name string) bool {
	switch t := s.Type.(type) {
	case string:
		return t == name
	case []any:
		return slices.Contains(t, any(name))
	}
	return false
}

// fieldsOf lists the settings of a config from its JSON Schema, by name. An object with properties of its own gives one
// field for each of them.
func fieldsOf(text json.RawMessage) ([]field, error) {
	var root schema
	if err := json.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("read the config's schema: %w", err)
	}
	var fields []field
	collect(&fields, nil, &root, 0)
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.flag(), b.flag()) })
	return fields, nil
}

const maxNesting = 5

func collect(fields *[]field, path []string, s *schema, depth int) {
	for name, p := range s.Properties {
		at := append(slices.Clone(path), name)
		if len(p.Properties) > 0 && depth < maxNesting {
			collect(fields, at, &p, depth+1)
			continue
		}
		f := field{path: at, kind: "json", doc: p.Description, initial: string(p.Default), made: p.Generated}
		switch {
		case p.is("boolean"):
			f.kind = "boolean"
		case p.is("integer"):
			f.kind = "integer"
		case p.is("number"):
			f.kind = "number"
		case p.is("string"):
			f.kind = "string"
		case p.is("array") && p.Items != nil && p.Items.is("string"):
			f.kind = "strings"
		case p.is("object") && len(p.Properties) == 0:
			f.kind = "map"
		}
		for _, v := range p.Enum {
			f.enum = append(f.enum, fmt.Sprint(v))
		}
		*fields = append(*fields, f)
	}
}

// value turns the texts of a field, at least one, into its JSON value.
func (f *field) value(texts []string) (any, error) {
	last := texts[len(texts)-1]
	switch f.kind {
	case "string":
		return last, nil
	case "strings":
		return texts, nil
	case "boolean":
		if last == "true" || last == "false" {
			return last == "true", nil
		}
		return nil, fmt.Errorf("must be true or false (got %q)", last)
	case "integer":
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("must be a whole number (got %q)", last)
		}
		return n, nil
	case "number":
		n, err := strconv.ParseFloat(last, 64)
		if err != nil {
			return nil, fmt.Errorf("must be a number (got %q)", last)
		}
		return n, nil
	case "map":
		return pairsOf(texts)
	}
	if !json.Valid([]byte(last)) {
		return nil, fmt.Errorf("must be JSON")
	}
	return json.RawMessage(last), nil
}

// pairsOf reads key=value texts.
func pairsOf(texts []string) (map[string]string, error) {
	pairs := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("must be key=value (got %q)", text)
		}
		if _, twice := pairs[key]; twice {
			return nil, fmt.Errorf("has %s twice", key)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// put stores a value in a config at a path, making the objects on the way.
func put(config map[string]any, path []string, value any) {
	for _, name := range path[:len(path)-1] {
		inner, ok := config[name].(map[string]any)
		if !ok {
			inner = map[string]any{}
			config[name] = inner
		}
		config = inner
	}
	config[path[len(path)-1]] = value
}

// assign puts key=value texts into a config, each converted as the fields say. A key is a path with dots; one that is no
// field is stored as text, for the server knows better.
func assign(config map[string]any, fields []field, texts []string) error {
	byKey := map[string][]string{}
	var order []string
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return usage("%q must be key=value", text)
		}
		if _, ok := byKey[key]; !ok {
			order = append(order, key)
		}
		byKey[key] = append(byKey[key], value)
	}
	for _, key := range order {
		path := strings.Split(key, ".")
		i := slices.IndexFunc(fields, func(f field) bool { return slices.Equal(f.path, path) })
		if i < 0 {
			// headers.Accept=text/html is a member of the map headers.
			i = slices.IndexFunc(fields, func(f field) bool { return f.kind == "map" && len(path) > 1 && slices.Equal(f.path, path[:1]) })
			if i >= 0 {
				path = []string{path[0], strings.Join(path[1:], ".")}
			}
			put(config, path, byKey[key][len(byKey[key])-1])
			continue
		}
		value, err := fields[i].value(byKey[key])
		if err != nil {
			return usage("%s %w", key, err)
		}
		put(config, path, value)
	}
	return nil
}

// textFlag is a flag that keeps what was written, for what it means is known only later.
type textFlag struct {
	texts   []string
	kind    string
	several bool // may be given more than once; else the last one counts

	meanings []meaning // what it is to the kinds that have it
}

type meaning struct {
	kinds []string
	text  string
}

var _ pflag.Value = (*textFlag)(nil)

// Set keeps a text.
func (t *textFlag) Set(text string) error {
	if !t.several {
		t.texts = t.texts[:0]
	}
	t.texts = append(t.texts, text)
	return nil
}

// String is empty: the default is part of the flag's description.
func (t *textFlag) String() string { return "" }

// Type names what a value is, for the help.
func (t *textFlag) Type() string { return t.kind }

// kindFlags are the flags of one kind's config, or of several kinds' at once.
type kindFlags struct {
	flags map[string]*textFlag
	kinds map[string]map[string]*field // by kind, then by flag
}

// addKind makes a flag of each field of a kind. A field whose flag's name is taken by the command gets "config-" before it.
func (k *kindFlags) addKind(set *pflag.FlagSet, kind string, fields []field, alone bool) {
	k.kinds[kind] = map[string]*field{}
	for i := range fields {
		f := &fields[i]
		name := f.flag()
		if set.Lookup(name) != nil && k.flags[name] == nil || name == "json" || name == "help" {
			name = "config-" + name
		}
		k.kinds[kind][name] = f
		flag, have := k.flags[name], set.Lookup(name)
		if have == nil {
			flag = &textFlag{kind: flagType(f.kind)}
			k.flags[name] = flag
			have = set.VarPF(flag, name, "", "")
			have.NoOptDefVal = "true"
		}
		if f.kind != "boolean" {
			have.NoOptDefVal = ""
		}
		flag.several = flag.several || f.kind == "strings" || f.kind == "map"
		flag.describe(kind, f.help())
		have.Usage = flag.usage(alone)
	}
}

// help is the field's description in one line, with the values it takes and its default.
func (f *field) help() string {
	text := strings.TrimSuffix(strings.ReplaceAll(f.doc, "`", "'"), ".")
	if len(f.enum) > 0 {
		text += "; one of " + strings.Join(f.enum, ", ")
	}
	if f.initial != "" && f.initial != `""` {
		text += " (default " + f.initial + ")"
	}
	return text
}

// describe notes what the flag is to a kind.
func (t *textFlag) describe(kind, text string) {
	for i := range t.meanings {
		if t.meanings[i].text == text {
			t.meanings[i].kinds = append(t.meanings[i].kinds, kind)
			return
		}
	}
	t.meanings = append(t.meanings, meaning{[]string{kind}, text})
}

func (t *textFlag) usage(alone bool) string {
	lines := make([]string, len(t.meanings))
	for i, m := range t.meanings {
		lines[i] = m.text
		if !alone {
			lines[i] = strings.Join(m.kinds, ", ") + ": " + m.text
		}
	}
	return strings.Join(lines, "\n")
}

func flagType(kind string) string {
	switch kind {
	case "string", "strings":
		return "text"
	case "map":
		return "key=value"
	case "boolean":
		return "true|false"
	default:
		return kind
	}
}

// config puts the flags that were given into a config of the kind. A flag of another kind is an error.
func (k *kindFlags) config(kind string, into map[string]any) error {
	for name, flag := range k.flags {
		if len(flag.texts) == 0 {
			continue
		}
		f, ok := k.kinds[kind][name]
		if !ok {
			return usage("--%s is no setting of kind %s", name, kind)
		}
		value, err := f.value(flag.texts)
		if err != nil {
			return usage("--%s %w", name, err)
		}
		put(into, f.path, value)
	}
	return nil
}
