package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

const (
	maxFaults = 20      // of one configuration that are told
	maxSteps  = 200_000 // parts that are held against values, in all
)

// Validate returns what is wrong with a configuration: a fault for each violation, its field the path inside the configuration,
// which is empty for the whole. No fault shows a value that is or may be secret. An empty text is an empty object; defaults
// are not filled in.
func (s *Schema) Validate(config json.RawMessage) monitor.Faults {
	value, faults := read(config)
	if faults != nil {
		return faults
	}
	left := float64(maxSteps)
	if !affordable(value, map[*jsonschema.Schema]float64{s.root: 1}, &left) {
		faults.Add("", nil, "takes too long to check: the schema repeats itself too often for a configuration of this size")
		return faults
	}
	err := s.root.Validate(value)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		faults.Add("", nil, "cannot be checked: %v", err)
		return faults
	}
	found := s.list(invalid, value)
	if len(found) > maxFaults {
		more := len(found) - maxFaults
		found = found[:maxFaults]
		found.Add("", nil, "has %d more faults", more)
	}
	return found
}

// affordable reports whether validation is over soon. A few lines of a schema can multiply at every level: each part that
// applies twice doubles all that is below it. counts is how often each part is held against the value, and left how often parts
// still may be.
func affordable(value any, counts map[*jsonschema.Schema]float64, left *float64) bool {
	order := ordered(counts)
	for _, p := range order {
		n := counts[p]
		if *left -= n; *left < 0 {
			return false
		}
		for _, next := range here(p) {
			counts[next] += n
		}
	}
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			below := make(map[*jsonschema.Schema]float64)
			for _, p := range order {
				for _, next := range fieldsOf(p, name) {
					below[next] += counts[p]
				}
			}
			if len(below) > 0 && !affordable(inner, below, left) {
				return false
			}
		}
	case []any:
		for i, inner := range v {
			below := make(map[*jsonschema.Schema]float64)
			for _, p := range order {
				for _, next := range itemsOf(p, i) {
					below[next] += counts[p]
				}
			}
			if len(below) > 0 && !affordable(inner, below, left) {
				return false
			}
		}
	}
	return true
}

// ordered lists the parts and all that apply at the same place, each behind those that refer to it.
func ordered(counts map[*jsonschema.Schema]float64) []*jsonschema.Schema {
	seen := make(map[*jsonschema.Schema]bool)
	var order []*jsonschema.Schema
	var visit func(*jsonschema.Schema)
	visit = func(p *jsonschema.Schema) {
		if seen[p] {
			return
		}
		seen[p] = true
		for _, next := range here(p) {
			visit(next)
		}
		order = append(order, p)
	}
	for p := range counts {
		visit(p)
	}
	slices.Reverse(order)
	return order
}

// fieldsOf lists the parts of p that are held against a property.
func fieldsOf(p *jsonschema.Schema, name string) []*jsonschema.Schema {
	var all []*jsonschema.Schema
	if one := p.Properties[name]; one != nil {
		all = append(all, one)
	}
	for pattern, one := range p.PatternProperties {
		if pattern.MatchString(name) {
			all = append(all, one)
		}
	}
	additional, _ := p.AdditionalProperties.(*jsonschema.Schema)
	for _, one := range []*jsonschema.Schema{additional, p.UnevaluatedProperties, p.PropertyNames} {
		if one != nil {
			all = append(all, one)
		}
	}
	return all
}

// itemsOf lists the parts of p that are held against an entry of a list.
func itemsOf(p *jsonschema.Schema, index int) []*jsonschema.Schema {
	var all []*jsonschema.Schema
	if index < len(p.PrefixItems) {
		all = append(all, p.PrefixItems[index])
	}
	for _, one := range []*jsonschema.Schema{p.Items2020, p.Contains, p.UnevaluatedItems} {
		if one != nil {
			all = append(all, one)
		}
	}
	return all
}

// place is a place in a configuration.
type place struct {
	path  string
	value any
	part  Part
}

// at follows the tokens of a location, as JSON Pointers have them.
func (s *Schema) at(tokens []string, root any) place {
	p := place{value: root, part: s.Root()}
	for _, token := range tokens {
		if list, ok := p.value.([]any); ok {
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(list) {
				break
			}
			p = p.item(i, list[i])
			continue
		}
		p = p.field(token)
	}
	return p
}

// field returns the place of a property, which may be missing.
func (p place) field(name string) place {
	object, _ := p.value.(map[string]any)
	return place{path: join(p.path, name), value: object[name], part: p.inside(p.part.Field(name))}
}

// named finds the object, so many levels inside, that has the property and whose names are held to the schema at the location.
func (p place) named(property, location string, levels int) (place, bool) {
	if levels == 0 {
		object, _ := p.value.(map[string]any)
		_, has := object[property]
		return p, has && slices.ContainsFunc(p.part.all, func(s *jsonschema.Schema) bool {
			return s.PropertyNames != nil && s.PropertyNames.Location == location
		})
	}
	switch v := p.value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if found, ok := p.field(name).named(property, location, levels-1); ok {
				return found, true
			}
		}
	case []any:
		for i := range v {
			if found, ok := p.item(i, v[i]).named(property, location, levels-1); ok {
				return found, true
			}
		}
	}
	return p, false
}

// item returns the place of an entry of a list.
func (p place) item(i int, value any) place {
	return place{path: fmt.Sprintf("%s[%d]", p.path, i), value: value, part: p.inside(p.part.Item(i))}
}

// inside keeps a secret's inside secret.
func (p place) inside(part Part) Part {
	if p.part.Secret() || !p.part.Described() {
		return Part{}
	}
	return part
}
