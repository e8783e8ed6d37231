package alert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a channel's configuration.
const (
	maxValue   = 4096 // bytes of one text
	maxEntries = 50   // of a list or a map
)

// Type is the form of a field's value.
type Type string

// The types.
const (
	TypeText    Type = "text"     // one line
	TypeURL     Type = "url"      // a whole http or https address
	TypeBaseURL Type = "base_url" // an http or https address that a path is added to: no query, no fragment
	TypeAddress Type = "address"  // a mail address, with or without a name
	TypeInteger Type = "integer"  // within Min and Max
	TypeBoolean Type = "boolean"
	TypeChoice  Type = "choice"  // one of Choices
	TypeList    Type = "list"    // of mail addresses
	TypeHeaders Type = "headers" // HTTP header fields by name
)

// Field describes one field of a provider's configuration. Forms, JSON Schema, documentation and validation all come from it.
type Field struct {
	Name     string
	Doc      string // full sentences
	Type     Type
	Required bool
	Secret   bool           // never shown again; its values never appear in errors
	Default  any            // nil: none. string, int64 or bool
	Example  any            // nil: none
	Pattern  *regexp.Regexp // of TypeText; nil: any
	Min, Max int64          // of TypeInteger
	Choices  []string       // of TypeChoice
}

// Values is a configuration after validation: string, int64, bool, []string or map[string]string by field name. A field
// that was not set and has no default is missing.
type Values map[string]any

// Text returns the field's text, or "" when it has none.
func (v Values) Text(name string) string { s, _ := v[name].(string); return s }

// Integer returns the field's number, or 0 when it has none.
func (v Values) Integer(name string) int64 { n, _ := v[name].(int64); return n }

// List returns the field's entries, or nil when it has none.
func (v Values) List(name string) []string { l, _ := v[name].([]string); return l }

// Headers returns the field's map, or nil when it has none.
func (v Values) Headers(name string) map[string]string {
	m, _ := v[name].(map[string]string)
	return m
}

// member is one member of a JSON object as written.
type member struct {
	name  string
	value json.RawMessage
}

// members reads a JSON object strictly: nothing after it. Names may repeat; the caller decides.
func members(data []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	first, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("broken JSON")
	}
	if first != json.Delim('{') {
		return nil, fmt.Errorf("must be an object")
	}
	var found []member
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("broken JSON")
		}
		name, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("broken JSON")
		}
		m := member{name: name}
		if err := dec.Decode(&m.value); err != nil {
			return nil, fmt.Errorf("broken JSON")
		}
		found = append(found, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("broken JSON")
	}
	if dec.More() {
		return nil, fmt.Errorf("must be one object")
	}
	return found, nil
}

// decode applies fields to a configuration: strict, defaults filled in, every fault at once with fields "config.…".
func decode(fields []Field, config json.RawMessage) (Values, monitor.Faults) {
	var faults monitor.Faults
	values := make(Values, len(fields))
	if len(bytes.TrimSpace(config)) == 0 {
		config = json.RawMessage("{}")
	}
	if !utf8.Valid(config) {
		faults.Add("config", nil, "must be valid UTF-8")
		return nil, faults
	}
	given, err := members(config)
	if err != nil {
		faults.Add("config", nil, "%v", err)
		return nil, faults
	}
	seen := make(map[string]bool, len(given))
	for _, m := range given {
		f := fieldNamed(fields, m.name)
		path := "config." + sdk.CleanText(m.name, 100)
		switch {
		case f == nil:
			faults.Add(path, nil, "unknown field; known are %s", fieldNames(fields))
		case seen[m.name]:
			faults.Add(path, nil, "must not appear twice")
		default:
			value, bad := f.read(m.value)
			faults.Under("config", bad)
			if value != nil {
				values[f.Name] = value
			}
		}
		seen[m.name] = true
	}
	for i := range fields {
		f := &fields[i]
		if _, ok := values[f.Name]; ok {
			continue
		}
		switch {
		case f.Default != nil:
			if !seen[f.Name] || !faulty(faults, f.Name) {
				values[f.Name] = f.Default
			}
		case f.Required && !faulty(faults, f.Name):
			faults.Add("config."+f.Name, nil, "is required")
		}
	}
	return values, faults
}

// faulty reports whether the field already has a fault.
func faulty(faults monitor.Faults, name string) bool {
	return slices.ContainsFunc(faults, func(f monitor.Fault) bool {
		rest, ok := strings.CutPrefix(f.Field, "config."+name)
		return ok && (rest == "" || rest[0] == '[' || rest[0] == '.')
	})
}

func fieldNamed(fields []Field, name string) *Field {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

func fieldNames(fields []Field) string {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return strings.Join(names, ", ")
}

// read returns the value that was written, nil when it is empty or faulty. null and "" are the same as leaving it out.
func (f *Field) read(raw json.RawMessage) (any, monitor.Faults) {
	var faults monitor.Faults
	if string(raw) == "null" {
		return nil, nil
	}
	switch f.Type {
	case TypeInteger:
		return f.readInteger(raw)
	case TypeBoolean:
		var b bool
		if json.Unmarshal(raw, &b) != nil {
			faults.Add(f.Name, nil, "must be true or false")
			return nil, faults
		}
		return b, nil
	case TypeList:
		return f.readList(raw)
	case TypeHeaders:
		return f.readHeaders(raw)
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		faults.Add(f.Name, nil, "must be a text in quotes")
		return nil, faults
	}
	if text == "" {
		return nil, nil
	}
	if text, problem := f.checkText(text); problem != "" {
		faults.Add(f.Name, f.show(text), "%s", problem)
		return nil, faults
	}
	if f.Type == TypeBaseURL {
		text = strings.TrimRight(text, "/")
	}
	return text, nil
}

// show returns a text for a fault's value: nil when it is secret.
func (f *Field) show(text string) any {
	if f.Secret {
		return nil
	}
	return sdk.CleanText(text, 100)
}

// checkText returns what is wrong with the text, or "".
func (f *Field) checkText(text string) (same, problem string) {
	if problem := plain(text); problem != "" {
		return text, problem
	}
	switch f.Type {
	case TypeURL, TypeBaseURL:
		return text, checkURL(text, f.Type == TypeBaseURL)
	case TypeAddress:
		if _, err := mail.ParseAddress(text); err != nil {
			return text, "must be a mail address"
		}
	case TypeChoice:
		if !slices.Contains(f.Choices, text) {
			return text, "must be one of " + strings.Join(f.Choices, ", ")
		}
	default:
		if f.Pattern != nil && !f.Pattern.MatchString(text) {
			return text, "must match " + f.Pattern.String()
		}
	}
	return text, ""
}

// plain returns what keeps a text from being one printable line of bounded length, or "".
func plain(text string) string {
	switch {
	case len(text) > maxValue:
		return fmt.Sprintf("must be at most %d bytes", maxValue)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }):
		return "must not contain control characters"
	}
	return ""
}

// checkURL returns what is wrong with an http address, or "".
func checkURL(text string, base bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "must be an address such as https://host/path"
	case u.User != nil:
		return "must not contain a user name or password"
	case u.Fragment != "":
		return "must not contain a fragment (#)"
	case base && (u.RawQuery != "" || u.ForceQuery):
		return "must not contain a query (?)"
	}
	if port := u.Port(); port != "" {
		if _, err := netip.ParseAddrPort("127.0.0.1:" + port); err != nil || strings.Trim(port, "0") == "" {
			return "must have a port between 1 and 65535"
		}
	}
	return ""
}

func (f *Field) readInteger(raw json.RawMessage) (any, monitor.Faults) {
	var faults monitor.Faults
	var n int64
	if json.Unmarshal(raw, &n) != nil {
		faults.Add(f.Name, nil, "must be a whole number between %d and %d", f.Min, f.Max)
		return nil, faults
	}
	if n < f.Min || n > f.Max {
		faults.Add(f.Name, n, "must be between %d and %d", f.Min, f.Max)
		return nil, faults
	}
	return n, nil
}

func (f *Field) readList(raw json.RawMessage) (any, monitor.Faults) {
	var faults monitor.Faults
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		faults.Add(f.Name, nil, "must be a list of texts")
		return nil, faults
	}
	if len(list) > maxEntries {
		faults.Add(f.Name, len(list), "must have at most %d entries", maxEntries)
		return nil, faults
	}
	entry := Field{Type: TypeAddress}
	for i, text := range list {
		if _, problem := entry.checkText(text); problem != "" {
			faults.Add(fmt.Sprintf("%s[%d]", f.Name, i), f.show(text), "%s", problem)
		}
	}
	if len(faults) > 0 || len(list) == 0 {
		return nil, faults
	}
	return list, nil
}

// readHeaders refuses what HTTP does not allow and the fields that the provider itself sets.
func (f *Field) readHeaders(raw json.RawMessage) (any, monitor.Faults) {
	var faults monitor.Faults
	given, err := members(raw)
	if err != nil {
		faults.Add(f.Name, nil, "must be an object of header names and texts")
		return nil, faults
	}
	if len(given) > maxEntries {
		faults.Add(f.Name, len(given), "must have at most %d entries", maxEntries)
		return nil, faults
	}
	headers := make(map[string]string, len(given))
	seen := make(map[string]bool, len(given))
	for _, m := range given {
		path := f.Name + "." + sdk.CleanText(m.name, 100)
		lower := strings.ToLower(m.name)
		var value string
		switch {
		case !httpguts.ValidHeaderFieldName(m.name):
			faults.Add(path, nil, "must be a header name: letters, digits and hyphens")
		case seen[lower]:
			faults.Add(path, nil, "must not appear twice")
		case slices.Contains(ownHeaders(), lower):
			faults.Add(path, nil, "is set by Tocsin")
		case json.Unmarshal(m.value, &value) != nil:
			faults.Add(path, nil, "must be a text in quotes")
		case plain(value) != "" || !httpguts.ValidHeaderFieldValue(value):
			faults.Add(path, nil, "must be one line without control characters, of at most %d bytes", maxValue)
		default:
			headers[m.name] = value
		}
		seen[lower] = true
	}
	if len(faults) > 0 || len(headers) == 0 {
		return nil, faults
	}
	return headers, nil
}

// ownHeaders lists, in lower case, the header fields that a configuration must not set.
func ownHeaders() []string {
	return []string{
		"content-length", "content-type", "connection", "host", "idempotency-key", "te", "trailer", "transfer-encoding",
		"upgrade", "user-agent", "x-tocsin-signature",
	}
}

// sortedKeys returns the keys of m in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
