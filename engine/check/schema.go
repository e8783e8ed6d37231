package check

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"sync"

	"github.com/invopop/jsonschema"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/schema"
)

// durationPattern is what time.ParseDuration reads, without a sign.
const durationPattern = `^([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))*$|^0$`

// Schema returns the JSON Schema (draft 2020-12) of the kind's config. Every property has a description, and a default where
// it has one; a secret one is writeOnly, so is each value of a secret map; one that the server makes up when it is missing
// has "x-generated": true. Of a kind made with DefineRaw it is the schema that was given.
func (k Kind) Schema() json.RawMessage {
	if k.raw != nil {
		return bytes.Clone(k.raw)
	}
	reflector := jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true,
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if t == typeFor[monitor.Duration]() {
				return &jsonschema.Schema{Type: "string", Pattern: durationPattern}
			}
			return nil
		},
	}
	object := reflector.Reflect(k.Config)
	object.Title = k.Name
	object.Description = k.Doc
	describe(object, reflect.ValueOf(k.Config))
	text, err := json.Marshal(object)
	if err != nil {
		panic("check: the schema of kind " + k.Name + " cannot be written: " + err.Error())
	}
	return text
}

// Shape returns the schema in the form that tells where secrets are. The error says why the schema cannot be used.
func (k Kind) Shape() (*schema.Schema, error) {
	if k.shape == nil {
		return schema.Compile(k.Schema())
	}
	return k.shape()
}

// shaped returns a copy that reads its schema once, when it is first asked for it.
func (k Kind) shaped() *Kind {
	if k.shape == nil {
		k.shape = sync.OnceValues(k.Shape)
	}
	return &k
}

// describe adds what the struct tags say to a reflected object's properties. The value holds the defaults.
func describe(object *jsonschema.Schema, defaults reflect.Value) {
	if defaults.Kind() == reflect.Pointer {
		defaults = reflect.New(defaults.Type().Elem()).Elem()
	}
	for _, f := range fieldsOf(defaults.Type()) {
		property, ok := object.Properties.Get(f.name)
		if !ok {
			continue
		}
		if property == jsonschema.TrueSchema || f.typ == typeFor[json.RawMessage]() {
			property = &jsonschema.Schema{}
			object.Properties.Set(f.name, property)
		}
		value := defaults.FieldByIndex(f.index)
		property.Description = f.doc
		property.WriteOnly = f.secret
		if text := defaultText(value); text != nil {
			property.Default = text
		}
		if f.example != "" {
			property.Examples = []any{f.example}
		}
		if f.generate {
			property.Extras = map[string]any{"x-generated": true}
		}
		bound(property, &f)
		if property.Properties != nil {
			describe(property, value)
		}
	}
}

// bound adds the limits of a field.
func bound(property *jsonschema.Schema, f *field) {
	most := uint64(f.maxLen)
	switch {
	case f.typ == typeFor[monitor.Duration]():
		property.Extras = map[string]any{"x-minimum": f.min, "x-maximum": f.max}
	case f.typ.Kind() == reflect.String:
		for _, value := range f.enum {
			property.Enum = append(property.Enum, value)
		}
		if f.enum == nil {
			property.MaxLength = &most
		}
	case f.typ.Kind() == reflect.Int:
		property.Minimum, property.Maximum = json.Number(f.min), json.Number(f.max)
	case f.typ.Kind() == reflect.Map:
		property.MaxProperties = &most
		property.AdditionalProperties = &jsonschema.Schema{Type: "string", WriteOnly: f.secret}
	case f.typ == typeFor[[]string]():
		property.MaxItems = &most
	}
}

// defaultText returns a field's default as a JSON value, or nil when there is none to show: an empty text, list or map.
func defaultText(value reflect.Value) any {
	switch {
	case value.Type() == typeFor[monitor.Duration]():
		return monitor.Duration(value.Int()).String()
	case slices.Contains([]reflect.Kind{reflect.Bool, reflect.Int}, value.Kind()):
		return value.Interface()
	case value.IsZero():
		return nil
	case value.Kind() == reflect.String, value.Kind() == reflect.Slice, value.Kind() == reflect.Map:
		return value.Interface()
	}
	return nil
}

// quoted writes a default for the documentation.
func quoted(value any) string {
	if text, ok := value.(string); ok {
		return strconv.Quote(text)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(text)
}
