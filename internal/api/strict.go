package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const maxDepth = 64 // of arrays and objects within each other

// syntaxError says where a text is not JSON. It quotes nothing of the text: there may be a password in it.
type syntaxError struct {
	offset, line, column int // the line and the column count from 1, the column in characters
	message              string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("%s at byte %d (line %d, column %d)", e.message, e.offset, e.line, e.column)
}

// parseStrict reads one JSON value (RFC 8259) into maps, slices, strings, json.Number, bools and nil. It is stricter than
// encoding/json, which takes what two readers may understand differently: a repeated key, also one that differs in case
// only; invalid UTF-8; half of a surrogate pair; anything after the value.
func parseStrict(text []byte) (any, error) {
	p := &parser{text: text}
	v, ok := p.document()
	if !ok {
		return nil, p.failure()
	}
	return v, nil
}

// parser reads text from at on. Its methods return false once something is wrong; then wrong says what, and at where.
type parser struct {
	text  []byte
	at    int
	depth int
	wrong string
}

func (p *parser) failure() error {
	before := p.text[:min(p.at, len(p.text))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return &syntaxError{
		offset: p.at, line: strings.Count(string(before), "\n") + 1, column: utf8.RuneCount(before[start:]) + 1, message: p.wrong,
	}
}

func (p *parser) fail(message string) bool {
	p.wrong = message
	return false
}

func (p *parser) document() (any, bool) {
	if p.skip(); p.at == len(p.text) {
		return nil, p.fail("the body is empty; a JSON object is expected")
	}
	v, ok := p.value()
	if !ok {
		return nil, false
	}
	if p.skip(); p.at < len(p.text) {
		return nil, p.fail("something follows the end of the JSON value")
	}
	return v, true
}

func (p *parser) skip() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) value() (any, bool) {
	if p.at >= len(p.text) {
		return nil, p.fail("the JSON ends too early")
	}
	switch c := p.text[p.at]; {
	case c == '{':
		return p.object()
	case c == '[':
		return p.array()
	case c == '"':
		return p.str()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case p.word("true"):
		return true, true
	case p.word("false"):
		return false, true
	case p.word("null"):
		return nil, true
	default:
		return nil, p.fail("a JSON value is expected here")
	}
}

func (p *parser) word(w string) bool {
	if !strings.HasPrefix(string(p.text[p.at:min(p.at+len(w), len(p.text))]), w) {
		return false
	}
	p.at += len(w)
	return true
}

// enter begins an array or an object.
func (p *parser) enter() bool {
	if p.depth++; p.depth > maxDepth {
		return p.fail("arrays and objects are nested more than " + strconv.Itoa(maxDepth) + " deep")
	}
	p.at++
	p.skip()
	return true
}

// next goes on to the next member of an array or an object, or past its end, which more says.
func (p *parser) next(end byte) (more, ok bool) {
	switch p.skip(); p.peek() {
	case ',':
		p.at++
		p.skip()
		if p.peek() == end {
			return false, p.fail("a comma is followed by nothing")
		}
		return true, true
	case end:
		p.at++
		p.depth--
		return false, true
	default:
		if p.at >= len(p.text) {
			return false, p.fail("the JSON ends too early")
		}
		return false, p.fail("a comma or " + strconv.QuoteRune(rune(end)) + " is expected here")
	}
}

func (p *parser) array() (any, bool) {
	if !p.enter() {
		return nil, false
	}
	list := []any{}
	if p.peek() == ']' {
		p.at++
		p.depth--
		return list, true
	}
	for {
		v, ok := p.value()
		if !ok {
			return nil, false
		}
		list = append(list, v)
		if more, ok := p.next(']'); !more {
			return list, ok
		}
	}
}

func (p *parser) object() (any, bool) {
	if !p.enter() {
		return nil, false
	}
	object := map[string]any{}
	if p.peek() == '}' {
		p.at++
		p.depth--
		return object, true
	}
	folded := map[string]bool{}
	for {
		start := p.at
		if p.peek() != '"' {
			return nil, p.fail("a key in double quotes is expected here")
		}
		key, ok := p.str()
		if !ok {
			return nil, false
		}
		if fold := strings.ToLower(key); folded[fold] {
			_, same := object[key]
			p.at = start
			if same {
				return nil, p.fail("the key is repeated in the same object")
			}
			return nil, p.fail("the key differs only in case from another of the same object")
		}
		folded[strings.ToLower(key)] = true
		if p.skip(); p.peek() != ':' {
			return nil, p.fail("a colon is expected here")
		}
		p.at++
		p.skip()
		v, ok := p.value()
		if !ok {
			return nil, false
		}
		object[key] = v
		if more, ok := p.next('}'); !more {
			return object, ok
		}
	}
}

// number reads what RFC 8259 section 6 allows and keeps its text.
func (p *parser) number() (any, bool) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	switch c := p.peek(); {
	case c == '0':
		p.at++
	case c >= '1' && c <= '9':
		p.digits()
	default:
		return nil, p.fail("a digit is expected here")
	}
	if p.peek() == '.' {
		p.at++
		if !p.digits() {
			return nil, p.fail("a digit is expected here")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		if !p.digits() {
			return nil, p.fail("a digit is expected here")
		}
	}
	if p.at-start > 100 {
		p.at = start
		return nil, p.fail("a number has more than 100 characters")
	}
	return json.Number(p.text[start:p.at]), true
}

func (p *parser) digits() bool {
	start := p.at
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.at++
	}
	return p.at > start
}

func (p *parser) str() (string, bool) {
	p.at++
	start := p.at
	var b []byte // nil until something was escaped
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			text := string(p.text[start:p.at])
			if b != nil {
				text = string(b) + text
			}
			p.at++
			return text, true
		case c == '\\':
			b = append(b, p.text[start:p.at]...)
			r, ok := p.escape()
			if !ok {
				return "", false
			}
			b = utf8.AppendRune(b, r)
			start = p.at
		case c < ' ':
			return "", p.fail("a control character must be escaped in a string")
		case c < utf8.RuneSelf:
			p.at++
		default:
			r, size := utf8.DecodeRune(p.text[p.at:])
			if r == utf8.RuneError && size == 1 {
				return "", p.fail("the text is not valid UTF-8")
			}
			p.at += size
		}
	}
	return "", p.fail("a string has no end")
}

// escape reads from a backslash on.
func (p *parser) escape() (rune, bool) {
	p.at++
	c := p.peek()
	p.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		r, ok := p.hex()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		if p.at+1 < len(p.text) && p.text[p.at] == '\\' && p.text[p.at+1] == 'u' {
			p.at += 2
			low, ok := p.hex()
			if !ok {
				return 0, false
			}
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, true
			}
		}
		return 0, p.fail("half of a surrogate pair stands alone")
	default:
		p.at--
		return 0, p.fail("this escape does not exist in JSON")
	}
}

func (p *parser) hex() (rune, bool) {
	var r rune
	for range 4 {
		c := p.peek()
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, p.fail("four hexadecimal digits are expected here")
		}
		p.at++
	}
	return r, true
}
