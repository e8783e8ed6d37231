package check

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// field is one setting of a kind's config, as its struct tags describe it. The tags are the only source: decoding, the JSON
// Schema and docs/checks.md are made from them.
//
//	json:"name"       the setting's name; an embedded struct's fields count as the outer one's
//	doc:"…"           what it does, a full sentence
//	secret:"true"     never shown, logged or quoted
//	generate:"true"   the server makes one up when it is missing
//	enum:"a,b"        the values allowed; a comma at the end allows the empty text
//	min:"0" max:"9"   bounds of a number or a duration
//	maxlen:"100"      longest text in characters, or most entries of a list or map (default 1000)
//	text:"lines"      line breaks and tabs are allowed; text:"any": every character is
//	example:"…"       a value to show
type field struct {
	name, doc, example string
	index              []int
	typ                reflect.Type
	secret, generate   bool
	enum               []string
	min, max           string
	maxLen             int
	text               string
	inner              []field // of an object
}

const defaultMaxLen = 1000

func typeFor[T any]() reflect.Type { return reflect.TypeFor[T]() }

// fieldsOf lists the settings of a config struct in the order of its fields.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Anonymous {
			for _, f := range fieldsOf(sf.Type) {
				f.index = append([]int{i}, f.index...)
				fields = append(fields, f)
			}
			continue
		}
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		f := field{
			name: name, doc: sf.Tag.Get("doc"), example: sf.Tag.Get("example"), index: []int{i}, typ: sf.Type,
			secret: sf.Tag.Get("secret") == "true", generate: sf.Tag.Get("generate") == "true",
			min: sf.Tag.Get("min"), max: sf.Tag.Get("max"), maxLen: defaultMaxLen, text: sf.Tag.Get("text"),
		}
		if enum, ok := sf.Tag.Lookup("enum"); ok {
			f.enum = strings.Split(enum, ",")
		}
		if n, err := strconv.Atoi(sf.Tag.Get("maxlen")); err == nil {
			f.maxLen = n
		}
		if sf.Type.Kind() == reflect.Pointer {
			f.inner = fieldsOf(sf.Type.Elem())
		}
		fields = append(fields, f)
	}
	return fields
}

// secretsOf returns the texts of a config that must not appear in a message: every secret field's, every value of a secret
// map, and the forms in which they are sent or quoted. Texts of fewer than four bytes are left out: hiding them would tell
// more than it hides.
func secretsOf(fields []field, v reflect.Value) []string {
	var secrets []string
	for i := range fields {
		f := &fields[i]
		if !f.secret && f.inner == nil {
			continue
		}
		value := v.FieldByIndex(f.index)
		if value.Kind() == reflect.Pointer {
			if value.IsNil() {
				continue
			}
			value = value.Elem()
		}
		switch value.Kind() {
		case reflect.Struct:
			secrets = append(secrets, secretsOf(f.inner, value)...)
			if c, ok := value.Interface().(credentials); ok {
				secrets = addSecret(secrets, base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password)))
			}
		case reflect.String:
			secrets = addSecret(secrets, value.String())
		case reflect.Map:
			for _, key := range value.MapKeys() {
				secrets = addSecret(secrets, value.MapIndex(key).String())
			}
		}
	}
	// A longer secret may contain a shorter one: it is hidden first.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return secrets
}

// addSecret adds a text, and how it looks inside quotes where that differs.
func addSecret(secrets []string, text string) []string {
	if len(text) < 4 {
		return secrets
	}
	secrets = append(secrets, text)
	if quoted := strconv.Quote(text); quoted[1:len(quoted)-1] != text {
		secrets = append(secrets, quoted[1:len(quoted)-1])
	}
	if quoted, err := json.Marshal(text); err == nil && string(quoted[1:len(quoted)-1]) != text {
		secrets = append(secrets, string(quoted[1:len(quoted)-1]))
	}
	return secrets
}

// mask replaces secrets in a text. It comes before any cutting, which could leave a part of one.
func mask(secrets []string, text string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "••••")
	}
	return text
}

// decodeConfig reads a config strictly over the defaults in out, a pointer to the struct. Every fault is returned, with its
// path inside the config; a field at fault keeps its default.
func decodeConfig(fields []field, raw json.RawMessage, out any) monitor.Faults {
	var faults monitor.Faults
	if len(raw) == 0 {
		return nil
	}
	root, err := parseJSON(raw)
	if err != nil {
		faults.Add("", nil, "must be a JSON object: %v", err)
		return faults
	}
	if root.kind == 'n' {
		return nil
	}
	d := decoder{faults: &faults}
	d.object("", root, fields, reflect.ValueOf(out).Elem())
	return faults
}
