package schema

import (
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Part is what a schema says about one place of a configuration. Of alternatives it takes all together: rather one secret too
// many than one too few. The zero value is a place that is not described: it may be anything.
type Part struct {
	of   *Schema
	all  []*jsonschema.Schema
	free bool // inside an object or a list about whose inside nothing is said
}

// Root returns the configuration as a whole. A nil schema describes nothing.
func (s *Schema) Root() Part {
	if s == nil {
		return Part{}
	}
	return s.part(s.root)
}

// part gathers all that applies at the place of some parts.
func (s *Schema) part(at ...*jsonschema.Schema) Part {
	p := Part{of: s, all: at}
	for i := 0; i < len(p.all); i++ {
		for _, next := range here(p.all[i]) {
			if !slices.Contains(p.all, next) {
				p.all = append(p.all, next)
			}
		}
	}
	return p
}

// Described reports whether the schema says anything about the place. What nobody described may be a secret: a setting that was
// mistyped, or one that an earlier version had.
func (p Part) Described() bool { return p.free || len(p.all) > 0 }

// Secret reports whether what is here, all of it, is a secret: "writeOnly": true.
func (p Part) Secret() bool {
	return slices.ContainsFunc(p.all, func(s *jsonschema.Schema) bool { return s.WriteOnly })
}

// HoldsSecret reports whether what is here, or anything inside, is a secret or not described.
func (p Part) HoldsSecret() bool {
	return !p.Described() || slices.ContainsFunc(p.all, p.of.leadsTo)
}

// Made reports whether the server makes up what is here when it is missing: "x-generated": true.
func (p Part) Made() bool {
	return slices.ContainsFunc(p.all, func(s *jsonschema.Schema) bool { return p.of.made[s] })
}

// Usual returns what a missing value amounts to, its "default", and nil when there is none.
func (p Part) Usual() any {
	for _, s := range p.all {
		if s.Default != nil {
			return *s.Default
		}
	}
	return nil
}

// Names lists the properties that the schema names, in order.
func (p Part) Names() []string {
	var names []string
	for _, s := range p.all {
		for name := range s.Properties {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Field returns what is said about a property.
func (p Part) Field(name string) Part {
	var found, rest []*jsonschema.Schema
	named := false
	for _, s := range p.all {
		named = named || len(s.Properties)+len(s.PatternProperties) > 0
		before := len(found)
		if one := s.Properties[name]; one != nil {
			found = append(found, one)
		}
		for pattern, one := range s.PatternProperties {
			if pattern.MatchString(name) {
				found = append(found, one)
			}
		}
		if one, ok := s.AdditionalProperties.(*jsonschema.Schema); ok && len(found) == before {
			found = append(found, one)
		}
		if one := s.UnevaluatedProperties; one != nil && one.Bool == nil {
			rest = append(rest, one)
		}
	}
	if len(found) == 0 {
		found = rest
	}
	return p.inside(found, named)
}

// Item returns what is said about an entry of a list.
func (p Part) Item(index int) Part {
	var found []*jsonschema.Schema
	said := false
	for _, s := range p.all {
		said = said || len(s.PrefixItems) > 0
		if index < len(s.PrefixItems) {
			found = append(found, s.PrefixItems[index])
		} else if s.Items2020 != nil {
			found = append(found, s.Items2020)
		}
		for _, one := range []*jsonschema.Schema{s.Contains, s.UnevaluatedItems} {
			if one != nil && one.Bool == nil {
				found = append(found, one)
			}
		}
	}
	return p.inside(found, said)
}

// inside makes the part of something inside. said tells that the schema speaks of what is inside, if not of this.
func (p Part) inside(found []*jsonschema.Schema, said bool) Part {
	switch {
	case len(found) > 0:
		return p.of.part(found...)
	case p.Described() && !said && !slices.Contains(p.all, p.rootSchema()):
		// An author who describes an object or a list as a whole has described its inside. The configuration itself has settings.
		return Part{of: p.of, free: true}
	}
	return Part{}
}

func (p Part) rootSchema() *jsonschema.Schema {
	if p.of == nil {
		return nil
	}
	return p.of.root
}
