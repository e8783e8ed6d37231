package check

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// decoder sets the fields of a config struct from a JSON tree and collects every fault.
type decoder struct{ faults *monitor.Faults }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d *decoder) object(path string, n *node, fields []field, out reflect.Value) {
	if n.kind != '{' {
		d.faults.Add(path, nil, "must be an object, not %s", n.what())
		return
	}
	seen := make(map[string]bool, len(n.members))
	for _, m := range n.members {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == m.name })
		switch {
		case seen[m.name]:
			d.faults.Add(join(path, shown(m.name)), nil, "is given more than once")
		case i < 0:
			d.faults.Add(join(path, shown(m.name)), nil, "is unknown%s", suggest(m.name, fields))
		default:
			d.value(join(path, m.name), m.value, &fields[i], out.FieldByIndex(fields[i].index))
		}
		seen[m.name] = true
	}
}

// shown makes a name from outside fit for a path.
func shown(name string) string { return sdk.CleanText(name, 100) }

// suggest names the field that was probably meant, or lists all.
func suggest(name string, fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if near := monitor.Nearest(name, names); near != "" {
		return "; did you mean " + near + "?"
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "; known are " + strings.Join(names, ", ")
}

func (d *decoder) value(path string, n *node, f *field, out reflect.Value) {
	switch {
	case out.Type() == typeFor[json.RawMessage]():
		out.SetBytes(slices.Clone(n.raw))
	case out.Type() == typeFor[monitor.Duration]():
		d.duration(path, n, f, out)
	case out.Kind() == reflect.Pointer:
		fresh := reflect.New(out.Type().Elem())
		d.object(path, n, f.inner, fresh.Elem())
		out.Set(fresh)
	case out.Kind() == reflect.String:
		if text, ok := d.text(path, n, f); ok {
			out.SetString(text)
		}
	case out.Kind() == reflect.Bool:
		if n.kind != 't' {
			d.wrong(path, n, f, "true or false")
			return
		}
		out.SetBool(n.truth)
	case out.Kind() == reflect.Int:
		d.integer(path, n, f, out)
	case out.Kind() == reflect.Slice:
		d.list(path, n, f, out)
	case out.Kind() == reflect.Map:
		d.table(path, n, f, out)
	default:
		panic("check: a config field has the unsupported type " + out.Type().String())
	}
}

func (d *decoder) wrong(path string, n *node, f *field, want string) {
	var value any
	if !f.secret {
		switch n.kind {
		case '"', '0':
			value = sdk.CleanText(n.text, 100)
		case 't':
			value = n.truth
		}
	}
	d.faults.Add(path, value, "must be %s, not %s", want, n.what())
}

func (d *decoder) text(path string, n *node, f *field) (string, bool) {
	if n.kind != '"' {
		d.wrong(path, n, f, "text")
		return "", false
	}
	var value any
	if !f.secret {
		value = sdk.CleanText(n.text, 100)
	}
	switch {
	case f.enum != nil && !slices.Contains(f.enum, n.text):
		d.faults.Add(path, value, "must be one of %s", strings.Join(slices.DeleteFunc(slices.Clone(f.enum), empty), ", "))
	case utf8.RuneCountInString(n.text) > f.maxLen:
		d.faults.Add(path, nil, "must be at most %d characters long", f.maxLen)
	case f.text != "any" && strings.ContainsFunc(n.text, func(r rune) bool { return forbidden(r, f.text) }):
		d.faults.Add(path, nil, "must not contain control characters")
	default:
		return n.text, true
	}
	return "", false
}

func empty(s string) bool { return s == "" }

// forbidden reports whether r may not stand in a text of the given class.
func forbidden(r rune, class string) bool {
	if class == "lines" && (r == '\n' || r == '\r' || r == '\t') {
		return false
	}
	return unicode.IsControl(r)
}

func (d *decoder) integer(path string, n *node, f *field, out reflect.Value) {
	if n.kind != '0' {
		d.wrong(path, n, f, "a whole number")
		return
	}
	value, err := strconv.Atoi(n.text)
	if err != nil {
		d.faults.Add(path, sdk.CleanText(n.text, 100), "must be a whole number between %s and %s", f.min, f.max)
		return
	}
	low, lowErr := strconv.Atoi(f.min)
	high, highErr := strconv.Atoi(f.max)
	if err := cmp.Or(lowErr, highErr); err != nil {
		panic("check: field " + path + " has no bounds: " + err.Error())
	}
	if value < low || value > high {
		d.faults.Add(path, value, "must be between %d and %d", low, high)
		return
	}
	out.SetInt(int64(value))
}

func (d *decoder) duration(path string, n *node, f *field, out reflect.Value) {
	if n.kind != '"' {
		d.wrong(path, n, f, `a duration like "30s"`)
		return
	}
	value, err := monitor.ParseDuration(n.text)
	if err != nil {
		d.faults.Add(path, sdk.CleanText(n.text, 100), `must be a duration like "30s" or "1h30m"`)
		return
	}
	low, lowErr := time.ParseDuration(f.min)
	high, highErr := time.ParseDuration(f.max)
	if err := cmp.Or(lowErr, highErr); err != nil {
		panic("check: field " + path + " has no bounds: " + err.Error())
	}
	if time.Duration(value) < low || time.Duration(value) > high {
		d.faults.Add(path, value.String(), "must be between %s and %s", f.min, f.max)
		return
	}
	out.SetInt(int64(value))
}

func (d *decoder) list(path string, n *node, f *field, out reflect.Value) {
	if n.kind != '[' {
		d.wrong(path, n, f, "a list")
		return
	}
	if len(n.items) > f.maxLen {
		d.faults.Add(path, nil, "must have at most %d entries", f.maxLen)
		return
	}
	entry := *f
	entry.maxLen = defaultMaxLen
	var texts []string
	for i, item := range n.items {
		if text, ok := d.text(path+"["+strconv.Itoa(i)+"]", item, &entry); ok {
			texts = append(texts, text)
		}
	}
	out.Set(reflect.ValueOf(texts))
}

func (d *decoder) table(path string, n *node, f *field, out reflect.Value) {
	if n.kind != '{' {
		d.wrong(path, n, f, "an object of texts")
		return
	}
	if len(n.members) > f.maxLen {
		d.faults.Add(path, nil, "must have at most %d entries", f.maxLen)
		return
	}
	entry := *f
	entry.maxLen = 8000
	texts := make(map[string]string, len(n.members))
	for _, m := range n.members {
		name := join(path, shown(m.name))
		if _, twice := texts[m.name]; twice {
			d.faults.Add(name, nil, "is given more than once")
			continue
		}
		text, ok := d.text(name, m.value, &entry)
		if !ok {
			text = ""
		}
		texts[m.name] = text
	}
	out.Set(reflect.ValueOf(texts))
}
