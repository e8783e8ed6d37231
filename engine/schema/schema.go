// Package schema holds configurations to JSON Schemas that somebody else wrote: those of plugins. It validates, says where
// secrets are, and finds their texts. What it is given may be hostile: a schema that would take for ever is refused.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a schema.
const (
	maxText  = 256 << 10 // bytes
	maxParts = 2000      // schemas in it
)

// Schema is a JSON Schema (draft 2020-12) of a configuration, which is an object. It never changes.
type Schema struct {
	text  json.RawMessage
	root  *jsonschema.Schema
	parts []*jsonschema.Schema        // all that can be reached
	leads map[*jsonschema.Schema]bool // a secret can be reached from these
	made  map[*jsonschema.Schema]bool // "x-generated": true
}

// Error is why a JSON document is no schema that can be used: the first thing in it that is wrong.
type Error struct {
	Path []string // where in the document; empty: the whole
	Why  string
}

// Error writes where and why.
func (e *Error) Error() string { return strings.Join(append(slices.Clone(e.Path), e.Why), ": ") }

// Compile reads a schema. An empty text is that of a configuration without any settings. It must be of type object and refer to
// nothing outside itself; $dynamicRef, and references that lead back without going deeper into the configuration, are refused.
// As the standard has it, format is an annotation and not checked. The error is an *Error.
func Compile(text json.RawMessage) (*Schema, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = json.RawMessage(`{"type":"object","additionalProperties":false}`)
	}
	if len(text) > maxText {
		return nil, &Error{Why: fmt.Sprintf("is longer than %d bytes", maxText)}
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, &Error{Why: "is no JSON: " + err.Error()}
	}
	if object, ok := doc.(map[string]any); !ok || object["type"] != "object" {
		return nil, &Error{Why: "must be a JSON Schema with type: object"}
	}
	if !allHandy(doc) {
		return nil, &Error{Why: "has a number that a float64 cannot hold"}
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	if err := compiler.AddResource(where, doc); err != nil {
		return nil, &Error{Why: "is no JSON Schema: " + oneLine(err)}
	}
	root, err := compiler.Compile(where)
	if err != nil {
		return nil, cause(err)
	}
	s := &Schema{
		text: bytes.Clone(text), root: root,
		leads: make(map[*jsonschema.Schema]bool), made: make(map[*jsonschema.Schema]bool),
	}
	if err := s.explore(doc); err != nil {
		return nil, err
	}
	return s, nil
}

// Text returns the schema as it was written.
func (s *Schema) Text() json.RawMessage { return bytes.Clone(s.text) }

// where is the address of the document; nothing is loaded from it.
const where = "tocsin:config"

// noLoader keeps a schema from reading files or the network.
type noLoader struct{}

// Load refuses every reference.
func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%q is outside of the schema", sdk.CleanText(url, 100))
}

func oneLine(err error) string { return sdk.CleanText(err.Error(), 500) }

// cause finds the first fault in the tree of them that the compiler returns.
func cause(err error) error {
	var invalid *jsonschema.SchemaValidationError
	if leaf := (*jsonschema.ValidationError)(nil); errors.As(err, &invalid) && errors.As(invalid.Err, &leaf) {
		for len(leaf.Causes) > 0 {
			leaf = leaf.Causes[0]
		}
		lines := strings.Split(leaf.Error(), "\n")
		if _, why, ok := strings.Cut(lines[len(lines)-1], "': "); ok {
			return &Error{Path: leaf.InstanceLocation, Why: why}
		}
	}
	return &Error{Why: "is no JSON Schema: " + oneLine(err)}
}

// explore finds all parts of the schema, and what is known of each before any configuration is seen.
func (s *Schema) explore(doc any) error {
	known := map[*jsonschema.Schema]bool{s.root: true}
	before := make(map[*jsonschema.Schema][]*jsonschema.Schema) // those that lead to a part
	s.parts = []*jsonschema.Schema{s.root}
	for i := 0; i < len(s.parts); i++ {
		p := s.parts[i]
		switch {
		case len(s.parts) > maxParts:
			return &Error{Why: fmt.Sprintf("has more than %d parts", maxParts)}
		case p.DraftVersion != 2020:
			return &Error{Why: fmt.Sprintf("must be of draft 2020-12 in all its parts, is of draft %d", p.DraftVersion)}
		case p.DynamicRef != nil:
			return &Error{Why: "must not use $dynamicRef; use $ref"}
		}
		s.made[p] = generated(doc, p.Location)
		for _, next := range append(here(p), below(p)...) {
			before[next] = append(before[next], p)
			if !known[next] {
				known[next] = true
				s.parts = append(s.parts, next)
			}
		}
	}
	secret := slices.DeleteFunc(slices.Clone(s.parts), func(p *jsonschema.Schema) bool { return !p.WriteOnly })
	for len(secret) > 0 {
		p := secret[0]
		if secret = secret[1:]; !s.leads[p] {
			s.leads[p] = true
			secret = append(secret, before[p]...)
		}
	}
	return s.straight()
}

func (s *Schema) leadsTo(p *jsonschema.Schema) bool { return s.leads[p] }

// straight refuses a part that comes back to itself at the same place in the configuration.
func (s *Schema) straight() error {
	const entered, left = 1, 2
	seen := make(map[*jsonschema.Schema]int, len(s.parts))
	var visit func(*jsonschema.Schema) error
	visit = func(p *jsonschema.Schema) error {
		switch seen[p] {
		case entered:
			return &Error{Why: "refers to itself in a circle at " + pointer(p.Location)}
		case left:
			return nil
		}
		seen[p] = entered
		for _, next := range here(p) {
			if err := visit(next); err != nil {
				return err
			}
		}
		seen[p] = left
		return nil
	}
	for _, p := range s.parts {
		if err := visit(p); err != nil {
			return err
		}
	}
	return nil
}

func pointer(location string) string {
	_, at, _ := strings.Cut(location, "#")
	if at == "" {
		return "the root"
	}
	return sdk.CleanText(at, 200)
}

// generated reports whether the part of the document at a location has "x-generated": true, which the compiler does not keep.
func generated(doc any, location string) bool {
	base, at, _ := strings.Cut(location, "#")
	if base != where {
		return false // a part with an $id of its own
	}
	for token := range strings.SplitSeq(strings.TrimPrefix(at, "/"), "/") {
		if token == "" {
			continue
		}
		object, ok := doc.(map[string]any)
		if !ok {
			return false
		}
		doc = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(token)]
	}
	object, _ := doc.(map[string]any)
	made, _ := object["x-generated"].(bool)
	return made
}

// here lists the parts that apply at the same place of a configuration as p.
func here(p *jsonschema.Schema) []*jsonschema.Schema {
	all := slices.Concat(p.AllOf, p.AnyOf, p.OneOf)
	for _, one := range []*jsonschema.Schema{p.Ref, p.Not, p.If, p.Then, p.Else} {
		if one != nil {
			all = append(all, one)
		}
	}
	for _, one := range p.DependentSchemas {
		all = append(all, one)
	}
	return all
}

// below lists the parts that apply to what is inside.
func below(p *jsonschema.Schema) []*jsonschema.Schema {
	all := slices.Clone(p.PrefixItems)
	for _, one := range p.Properties {
		all = append(all, one)
	}
	for _, one := range p.PatternProperties {
		all = append(all, one)
	}
	additional, _ := p.AdditionalProperties.(*jsonschema.Schema)
	for _, one := range []*jsonschema.Schema{
		additional, p.UnevaluatedProperties, p.PropertyNames, p.Items2020, p.UnevaluatedItems, p.Contains, p.ContentSchema,
	} {
		if one != nil {
			all = append(all, one)
		}
	}
	return all
}
