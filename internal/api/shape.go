package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// shape holds a body to the schema that the OpenAPI document shows: types, unknown and missing fields. What else a value
// must be, its bounds among them, the service says.
type shape struct {
	registry huma.Registry
	partial  bool // of a merge patch: nothing is required, and null takes a field away
	faults   []Fault
}

// check appends what is wrong with v. It returns false when v is not of the schema's type, so that nothing can be made of it.
func (s *shape) check(schema *huma.Schema, path string, v any) bool {
	for schema.Ref != "" {
		schema = s.registry.SchemaFromRef(schema.Ref)
	}
	switch schema.Type {
	case huma.TypeObject:
		object, ok := v.(map[string]any)
		if !ok {
			return s.wrong(path, "must be an object", v)
		}
		s.object(schema, path, object)
	case huma.TypeArray:
		list, ok := v.([]any)
		if !ok {
			return s.wrong(path, "must be a list", v)
		}
		fine := true
		for i := range list {
			fine = s.check(schema.Items, path+"["+strconv.Itoa(i)+"]", list[i]) && fine
		}
		return fine
	case huma.TypeString:
		return s.text(schema, path, v)
	case huma.TypeBoolean:
		if _, ok := v.(bool); !ok {
			return s.wrong(path, "must be true or false", v)
		}
	case huma.TypeInteger:
		n, ok := v.(json.Number)
		if !ok {
			return s.wrong(path, "must be a whole number", v)
		}
		if i, err := strconv.ParseInt(n.String(), 10, 64); err != nil || i < -1<<31 || i > 1<<31-1 {
			return s.wrong(path, "must be a whole number between -2147483648 and 2147483647", v)
		}
	case huma.TypeNumber:
		n, ok := v.(json.Number)
		if !ok {
			return s.wrong(path, "must be a number", v)
		}
		if _, err := n.Float64(); err != nil {
			return s.wrong(path, "must be a number that fits into 64 bits", v)
		}
	}
	return true
}

func (s *shape) text(schema *huma.Schema, path string, v any) bool {
	text, ok := v.(string)
	hint := ""
	if schema.PatternDescription != "" {
		hint = ": " + schema.PatternDescription
	}
	if !ok {
		return s.wrong(path, "must be a text in double quotes"+hint, v)
	}
	if len(schema.Enum) > 0 && !slices.Contains(schema.Enum, any(text)) {
		names := make([]string, len(schema.Enum))
		for i := range schema.Enum {
			names[i] = fmt.Sprint(schema.Enum[i])
		}
		return s.wrong(path, "must be one of "+strings.Join(names, ", "), v)
	}
	if schema.Pattern != "" {
		// Patterns are few and short, and are in schemas of our own only.
		if matched, err := regexp.MatchString(schema.Pattern, text); err != nil || !matched {
			return s.wrong(path, "must be "+schema.PatternDescription, v)
		}
	}
	return true
}

// wrong notes a fault. What stands in the place of a configuration, or of the whole body, may be a secret and is not shown.
func (s *shape) wrong(path, message string, v any) bool {
	if path == "body" || covers("body.config", path) {
		v = nil
	}
	s.faults = append(s.faults, Fault{Location: path, Message: message, Value: v})
	return false
}

// object checks the members and removes those at fault, so that the rest can be decoded.
func (s *shape) object(schema *huma.Schema, path string, object map[string]any) {
	if values, ok := schema.AdditionalProperties.(*huma.Schema); ok && len(schema.Properties) == 0 {
		for name, v := range object {
			if v == nil && s.partial {
				continue
			}
			if !s.check(values, path+"."+name, v) {
				delete(object, name)
			}
		}
		return
	}
	closed, isBool := schema.AdditionalProperties.(bool)
	closed = isBool && !closed
	for name, v := range object {
		property := schema.Properties[name]
		switch {
		case property == nil && !closed:
		case property == nil:
			// The value is not shown: somebody who mistypes a secret's name sends one.
			s.faults = append(s.faults, Fault{Location: path + "." + name, Message: unknownField(schema, name)})
			delete(object, name)
		case v == nil:
			if !s.partial {
				delete(object, name) // as if it were not there
			}
		case !s.check(property, path+"."+name, v):
			delete(object, name)
		}
	}
	if s.partial {
		return
	}
	for _, name := range schema.Required {
		if _, there := object[name]; !there && !s.faultAt(path+"."+name) {
			s.faults = append(s.faults, Fault{Location: path + "." + name, Message: "is required"})
		}
	}
}

func (s *shape) faultAt(path string) bool {
	return slices.ContainsFunc(s.faults, func(f Fault) bool { return covers(f.Location, path) || covers(path, f.Location) })
}

// covers reports whether a location is the path or lies in it.
func covers(path, location string) bool {
	rest, ok := strings.CutPrefix(location, path)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// unknownField says which field may have been meant.
func unknownField(schema *huma.Schema, name string) string {
	if readOnly(name) {
		return "is read-only; leave it out"
	}
	return unknownName(slices.Sorted(maps.Keys(schema.Properties)), name)
}

// unknownName says which of the known names may have been meant.
func unknownName(known []string, name string) string {
	if near := monitor.Nearest(name, known); near != "" {
		return "is unknown; did you mean " + near + "?"
	}
	return "is unknown; known are " + strings.Join(known, ", ")
}

// readOnly reports whether answers have the field and requests do not.
func readOnly(name string) bool {
	switch name {
	case "id", "revision", "state", "since", "last", "created_at", "updated_at", "push_url", "health", "incident_id", "last_used_at", "token":
		return true
	default:
		return false
	}
}
