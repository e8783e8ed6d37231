package alert

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// template is a text with placeholders. Placeholders have no logic: a name between double braces stands for its value.
type template []part

// part is a piece of plain text, or a placeholder when name is not empty.
type part struct{ text, name string }

const (
	opening = "{{"
	closing = "}}"
)

// parseTemplate reads a text with placeholders. Their names are lower-case words joined by full stops. Braces that open or
// close nothing are an error: they are a slip more often than meant.
func parseTemplate(text string) (template, error) {
	var t template
	for text != "" {
		start := strings.Index(text, opening)
		plain := text
		if start >= 0 {
			plain = text[:start]
		}
		if strings.Contains(plain, closing) {
			return nil, fmt.Errorf("%s without %s", closing, opening)
		}
		if plain != "" {
			t = append(t, part{text: plain})
		}
		if start < 0 {
			return t, nil
		}
		text = text[start+len(opening):]
		end := strings.Index(text, closing)
		if end < 0 {
			return nil, fmt.Errorf("%s without %s", opening, closing)
		}
		name := text[:end]
		if !placeholderName(name) {
			return nil, fmt.Errorf("placeholder %q is no name such as monitor.name", name)
		}
		t = append(t, part{name: name})
		text = text[end+len(closing):]
	}
	return t, nil
}

// placeholderName reports whether name is made of lower-case words (letters, digits, underscores) joined by full stops.
func placeholderName(name string) bool {
	for word := range strings.SplitSeq(name, ".") {
		if word == "" {
			return false
		}
		for i := range len(word) {
			c := word[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
				return false
			}
		}
	}
	return true
}

// String returns the text that was parsed.
func (t template) String() string {
	var b strings.Builder
	for _, p := range t {
		if p.name != "" {
			b.WriteString(opening + p.name + closing)
		}
		b.WriteString(p.text)
	}
	return b.String()
}

// names returns the names of the placeholders in order.
func (t template) names() []string {
	var names []string
	for _, p := range t {
		if p.name != "" {
			names = append(names, p.name)
		}
	}
	return names
}

// source gives placeholders their values: a string, an integer or a bool; false when the value is absent. An absent value
// is the empty text inside a longer one.
type source interface {
	value(name string) (any, bool)
}

// text returns the template with its values put in, and false when one of them is absent.
func (t template) text(from source) (string, bool) {
	var b strings.Builder
	complete := true
	for _, p := range t {
		b.WriteString(p.text)
		if p.name == "" {
			continue
		}
		v, ok := from.value(p.name)
		if !ok {
			complete = false
			continue
		}
		b.WriteString(scalarText(v))
	}
	return b.String(), complete
}

// json returns the template as a JSON value: that of its placeholder when it is nothing else, so that a number stays one,
// else a text. It is false when the only placeholder's value is absent.
func (t template) json(from source) (any, bool) {
	if len(t) == 1 && t[0].name != "" {
		return from.value(t[0].name)
	}
	s, _ := t.text(from)
	return s, true
}

// url returns the template as an address. A placeholder at the very beginning is an address itself and stays as it is;
// every later one is percent-encoded, as a path segment or, after a question mark, as part of a query.
func (t template) url(from source) string {
	var b strings.Builder
	query := false
	for i, p := range t {
		b.WriteString(p.text)
		query = query || strings.Contains(p.text, "?")
		if p.name == "" {
			continue
		}
		v, _ := from.value(p.name)
		s := scalarText(v)
		switch {
		case i == 0:
		case query:
			s = url.QueryEscape(s)
		case s == "." || s == "..":
			s = strings.ReplaceAll(s, ".", "%2E")
		default:
			s = url.PathEscape(s)
		}
		b.WriteString(s)
	}
	return b.String()
}

// scalarText writes a value inside a longer text.
func scalarText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// tree is a JSON document whose texts are templates.
type tree struct {
	members  []treeMember // of an object
	items    []tree       // of a list
	text     template
	constant any // a number, a boolean or null
	form     form
}

type treeMember struct {
	name  string
	value tree
}

type form uint8

const (
	formConstant form = iota
	formText
	formObject
	formList
)

// expand returns the document with the values put into its texts. What is nothing but an absent value is left out, and so
// is an object or a list that this empties.
func (t *tree) expand(from source) (any, bool) {
	switch t.form {
	case formText:
		if len(t.text) == 0 {
			return "", true
		}
		return t.text.json(from)
	case formObject:
		o := object{}
		for i := range t.members {
			if v, ok := t.members[i].value.expand(from); ok {
				o.add(t.members[i].name, v)
			}
		}
		return o, len(o) > 0 || len(t.members) == 0
	case formList:
		list := []any{}
		for i := range t.items {
			if v, ok := t.items[i].expand(from); ok {
				list = append(list, v)
			}
		}
		return list, len(list) > 0 || len(t.items) == 0
	}
	return t.constant, true
}
