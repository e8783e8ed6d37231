package host

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

// ManifestSchema returns the JSON Schema (draft 2020-12) of tocsin-plugin.yaml, made from the tags of sdk.Manifest. What
// ParseManifest finds beyond it are combinations of fields.
func ManifestSchema() (json.RawMessage, error) {
	root, err := schemaOf(reflect.TypeFor[sdk.Manifest]())
	if err != nil {
		return nil, err
	}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = sdk.ManifestFile
	root["description"] = "What a Tocsin plugin is and what it asks for."
	root["oneOf"] = []map[string]any{{"required": []string{"entry"}}, {"required": []string{"script"}}}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write manifest schema: %w", err)
	}
	return append(text, '\n'), nil
}

// schemaOf makes the schema of a struct: every field is a property, and there are no others.
func schemaOf(t reflect.Type) (map[string]any, error) {
	properties, required := map[string]any{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		property, err := propertyOf(f.Type, f.Tag)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t.Name(), f.Name, err)
		}
		property["description"] = f.Tag.Get("doc")
		properties[jsonName(f)] = property
		if f.Tag.Get("required") == "true" {
			required = append(required, jsonName(f))
		}
	}
	object := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		object["required"] = required
	}
	return object, nil
}

// propertyOf makes the schema of a field. Bounds that JSON Schema cannot check, those of texts with units, are told in words.
func propertyOf(t reflect.Type, tag reflect.StructTag) (map[string]any, error) {
	property := map[string]any{}
	switch t {
	case reflect.TypeFor[json.RawMessage]():
		property["type"] = "object"
		return property, nil
	case reflect.TypeFor[sdk.Files]():
		text := map[string]any{"type": "string", "minLength": 1}
		property["oneOf"] = []any{text, map[string]any{"type": "object", "minProperties": 1, "additionalProperties": text}}
		return property, nil
	case reflect.TypeFor[sdk.Size]():
		property["type"], property["pattern"] = "string", "^[0-9]+(B|KiB|MiB|GiB)$"
	case reflect.TypeFor[sdk.Duration]():
		property["type"], property["pattern"] = "string", `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	default:
		if err := plainProperty(property, t, tag); err != nil {
			return nil, err
		}
	}
	if fallback := tag.Get("default"); fallback != "" {
		property["default"] = value(t, fallback)
		if property["type"] == "string" {
			property["$comment"] = "from " + tag.Get("min") + " to " + tag.Get("max")
		}
	}
	if pattern := tag.Get("pattern"); pattern != "" {
		property["pattern"] = pattern
	}
	return property, nil
}

func plainProperty(property map[string]any, t reflect.Type, tag reflect.StructTag) error {
	choices := []any{}
	for choice := range strings.SplitSeq(tag.Get("enum"), ",") {
		if choice != "" {
			choices = append(choices, value(t, choice))
		}
	}
	switch t.Kind() {
	case reflect.String:
		property["type"] = "string"
	case reflect.Bool:
		property["type"] = "boolean"
	case reflect.Int:
		property["type"] = "integer"
		for keyword, bound := range map[string]string{"minimum": tag.Get("min"), "maximum": tag.Get("max")} {
			if bound != "" {
				property[keyword] = value(t, bound)
			}
		}
	case reflect.Struct:
		object, err := schemaOf(t)
		if err != nil {
			return err
		}
		for keyword, v := range object {
			property[keyword] = v
		}
	case reflect.Slice:
		item, err := propertyOf(t.Elem(), tag)
		if err != nil {
			return err
		}
		property["type"], property["items"], property["uniqueItems"] = "array", item, true
		if tag.Get("required") == "true" {
			property["minItems"] = 1
		}
		return nil
	default:
		return fmt.Errorf("a %s has no place in a manifest", t)
	}
	if len(choices) > 0 {
		property["enum"] = choices
	}
	return nil
}

// value is a tag's text as the JSON value of a field.
func value(t reflect.Type, text string) any {
	if t.Kind() == reflect.Int {
		if number, err := strconv.Atoi(text); err == nil {
			return number
		}
	}
	return text
}
