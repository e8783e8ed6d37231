package schema

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// list turns the tree of violations into faults in the order of their fields, one for each field.
func (s *Schema) list(e *jsonschema.ValidationError, root any) monitor.Faults {
	var faults monitor.Faults
	s.tell(e, root, &faults)
	slices.SortStableFunc(faults, func(a, b monitor.Fault) int { return strings.Compare(a.Field, b.Field) })
	return slices.CompactFunc(faults, func(a, b monitor.Fault) bool { return a.Field == b.Field })
}

// tell adds the faults of a violation, or of its causes when it is only their sum.
func (s *Schema) tell(e *jsonschema.ValidationError, root any, faults *monitor.Faults) {
	at := s.at(e.InstanceLocation, root)
	add := func(p place, format string, args ...any) { faults.Add(p.path, p.shown(), format, args...) }
	switch k := e.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.Reference, *kind.AllOf:
		for _, cause := range e.Causes {
			s.tell(cause, root, faults)
		}
	case *kind.AnyOf:
		s.alternatives(e, root, at, faults)
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			add(at, "fits more than one of the forms that are allowed; make it fit one")
			return
		}
		s.alternatives(e, root, at, faults)
	case *kind.Required:
		for _, name := range k.Missing {
			faults.Add(join(at.path, name), nil, "is required")
		}
	case *kind.DependentRequired:
		for _, name := range k.Missing {
			faults.Add(join(at.path, name), nil, "is required where %s is set", sdk.CleanText(k.Prop, 100))
		}
	case *kind.AdditionalProperties:
		for _, name := range slices.Sorted(slices.Values(k.Properties)) {
			faults.Add(join(at.path, name), nil, "is unknown%s", meant(name, at.part.Names()))
		}
	case *kind.PropertyNames:
		// The library's location of this violation may have been overwritten; its length is right.
		at, _ = place{value: root, part: s.Root()}.named(k.Property, e.SchemaURL, len(e.InstanceLocation))
		faults.Add(join(at.path, k.Property), nil, "has a name that is not allowed here")
	case *kind.FalseSchema:
		faults.Add(at.path, nil, "is not allowed here; leave it out")
	default:
		add(at, "%s", words(e.ErrorKind))
	}
}

// alternatives tells why none of several forms fits. When the value is clearly meant to be one of them, its faults are told.
func (s *Schema) alternatives(e *jsonschema.ValidationError, root any, at place, faults *monitor.Faults) {
	var meant []monitor.Faults
	var all []string
	for _, cause := range e.Causes {
		one := s.list(cause, root)
		texts := make([]string, len(one))
		whole := false
		for i, f := range one {
			whole = whole || f.Field == at.path
			texts[i] = f.Message
			if f.Field != at.path {
				texts[i] = strings.TrimPrefix(strings.TrimPrefix(f.Field, at.path), ".") + " " + f.Message
			}
		}
		if !whole && len(one) > 0 {
			meant = append(meant, one)
		}
		if text := strings.Join(texts, " and "); text != "" && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	if len(meant) == 1 {
		*faults = append(*faults, meant[0]...)
		return
	}
	if text := strings.Join(all, "; or "); len(all) > 0 && len(text) <= 500 {
		faults.Add(at.path, at.shown(), "%s", text)
		return
	}
	faults.Add(at.path, at.shown(), "has none of the forms that are allowed")
}

// shown is the value for a fault: nil when it is no scalar, or is or may be a secret.
func (p place) shown() any {
	if p.part.HoldsSecret() {
		return nil
	}
	switch v := p.value.(type) {
	case string:
		if v != "" {
			return sdk.CleanText(v, 100)
		}
	case json.Number:
		return sdk.CleanText(v.String(), 100)
	case bool:
		return v
	}
	return nil
}

// words says what a single violation asks for.
func words(violation jsonschema.ErrorKind) string {
	switch k := violation.(type) {
	case *kind.Type:
		names := make([]string, len(k.Want))
		for i, w := range k.Want {
			names[i] = typeName(w)
		}
		return "must be " + strings.Join(names, " or ") + ", not " + typeName(k.Got)
	case *kind.Enum:
		return "must be one of " + values(k.Want)
	case *kind.Const:
		return "must be " + values([]any{k.Want})
	case *kind.MinLength:
		if k.Want == 1 {
			return "must not be empty"
		}
		return fmt.Sprintf("must have at least %d characters, and has %d", k.Want, k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters, and has %d", k.Want, k.Got)
	case *kind.Pattern:
		return "must match " + sdk.CleanText(k.Want, 200)
	case *kind.Minimum:
		return "must be at least " + number(k.Want)
	case *kind.Maximum:
		return "must be at most " + number(k.Want)
	case *kind.ExclusiveMinimum:
		return "must be more than " + number(k.Want)
	case *kind.ExclusiveMaximum:
		return "must be less than " + number(k.Want)
	case *kind.MultipleOf:
		return "must be a multiple of " + number(k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d entries, and has %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d entries, and has %d", k.Want, k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("must not have an entry twice; [%d] and [%d] are the same", k.Duplicates[0], k.Duplicates[1])
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %d settings, and has %d", k.Want, k.Got)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %d settings, and has %d", k.Want, k.Got)
	case *kind.Contains, *kind.MinContains:
		return "lacks an entry of a form that is required"
	case *kind.MaxContains:
		return "has too many entries of one form"
	case *kind.Not:
		return "has a form that is not allowed"
	}
	return "does not satisfy " + strings.Join(violation.KeywordPath(), ".") + " of the schema"
}

func typeName(name string) string {
	switch name {
	case "string":
		return "text"
	case "number":
		return "a number"
	case "integer":
		return "a whole number"
	case "boolean":
		return "true or false"
	case "object":
		return "an object"
	case "array":
		return "a list"
	}
	return name
}

// values lists what a schema allows.
func values(list []any) string {
	texts := make([]string, 0, len(list))
	for _, v := range list {
		if text, ok := v.(string); ok && text != "" {
			texts = append(texts, text)
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte("a value without a name")
		}
		texts = append(texts, string(text))
	}
	return sdk.CleanText(strings.Join(texts, ", "), 500)
}

func number(r *big.Rat) string {
	if r.IsInt() && len(r.Num().Bits()) <= 1 {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return fmt.Sprint(f)
}

// meant names the setting that was probably meant, or lists all.
func meant(name string, known []string) string {
	for i := range known {
		known[i] = sdk.CleanText(known[i], 100)
	}
	if near := monitor.Nearest(name, known); near != "" {
		return "; did you mean " + near + "?"
	}
	if len(known) == 0 {
		return "; there are no settings here"
	}
	return "; known are " + sdk.CleanText(strings.Join(known, ", "), 500)
}
