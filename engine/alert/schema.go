package alert

import (
	"bytes"
	"encoding/json"
)

// Schema returns the JSON Schema (2020-12) of the configuration: an object that allows no other fields, its properties in
// the order of Fields. Secret fields have "writeOnly": true. Of a provider made with DefineRaw it is the schema that was given.
func (p Provider) Schema() json.RawMessage {
	if p.raw != nil {
		return bytes.Clone(p.raw.text)
	}
	var properties object
	required := []string{}
	for i := range p.Fields {
		f := &p.Fields[i]
		properties.add(f.Name, f.schema())
		if f.Required && f.Default == nil {
			required = append(required, f.Name)
		}
	}
	var root object
	root.add("$schema", "https://json-schema.org/draft/2020-12/schema")
	root.add("title", p.Name)
	root.add("description", p.Doc)
	root.add("type", "object")
	root.add("properties", properties)
	if len(required) > 0 {
		root.add("required", required)
	}
	root.add("additionalProperties", false)
	return encode(root)
}

// schema returns the property of one field. It says what a form needs; decode checks more than a schema can express.
func (f *Field) schema() object {
	var o object
	text := func(format string) {
		o.add("type", "string")
		if format != "" {
			o.add("format", format)
		}
		o.add("maxLength", maxValue)
	}
	switch f.Type {
	case TypeURL, TypeBaseURL:
		text("uri")
		o.add("pattern", "^https?://")
	case TypeAddress:
		text("")
	case TypeInteger:
		o.add("type", "integer")
		o.add("minimum", f.Min)
		o.add("maximum", f.Max)
	case TypeBoolean:
		o.add("type", "boolean")
	case TypeChoice:
		o.add("type", "string")
		o.add("enum", f.Choices)
	case TypeList:
		o.add("type", "array")
		o.add("items", object{{"type", "string"}})
		o.add("maxItems", maxEntries)
		if f.Required {
			o.add("minItems", 1)
		}
	case TypeHeaders:
		values := object{{"type", "string"}}
		if f.Secret {
			values.add("writeOnly", true)
		}
		o.add("type", "object")
		o.add("additionalProperties", values)
		o.add("maxProperties", maxEntries)
	default:
		text("")
		if f.Pattern != nil {
			o.add("pattern", f.Pattern.String())
		}
	}
	o.add("description", f.Doc)
	if f.Default != nil {
		o.add("default", f.Default)
	}
	if f.Example != nil {
		o.add("examples", []any{f.Example})
	}
	if f.Secret {
		o.add("writeOnly", true)
	}
	return o
}

// object is a JSON object that keeps the order of its members.
type object []property

type property struct {
	name  string
	value any
}

func (o *object) add(name string, value any) { *o = append(*o, property{name, value}) }

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encode(p.name))
		b.WriteByte(':')
		b.Write(encode(p.value))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode returns v as JSON without escaping HTML. v is made of texts, numbers, booleans, lists, maps and objects, which
// always have a JSON form; anything else is a mistake in this package.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("alert: value without a JSON form: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
