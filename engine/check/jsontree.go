package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxConfig is the longest config that is read, in bytes.
const maxConfig = 1 << 20

// node is a JSON value that still knows its duplicate members, which encoding/json would drop in silence.
type node struct {
	kind    byte // '{', '[', '"', '0' (number), 't' (true or false), 'n' (null)
	text    string
	truth   bool
	members []member
	items   []*node
	raw     json.RawMessage
}

type member struct {
	name  string
	value *node
}

// what names the value's type for a person.
func (n *node) what() string {
	switch n.kind {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "text"
	case '0':
		return "a number"
	case 't':
		return "true or false"
	default:
		return "null"
	}
}

// parseJSON reads exactly one JSON value. Its errors quote nothing of the input, which may hold secrets.
func parseJSON(raw []byte) (*node, error) {
	if len(raw) > maxConfig {
		return nil, fmt.Errorf("it is longer than %d bytes", maxConfig)
	}
	if !utf8.Valid(raw) {
		return nil, errors.New("it is not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	p := treeParser{dec: dec, raw: raw}
	root, err := p.value(0)
	if err != nil {
		return nil, fmt.Errorf("it is broken at byte %d", dec.InputOffset())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows it at byte %d", dec.InputOffset())
	}
	return root, nil
}

type treeParser struct {
	dec *json.Decoder
	raw []byte
}

// maxDepth bounds the nesting of a config.
const maxDepth = 64

func (p *treeParser) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	start := p.dec.InputOffset()
	token, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	n := &node{}
	switch t := token.(type) {
	case nil:
		n.kind = 'n'
	case bool:
		n.kind, n.truth = 't', t
	case json.Number:
		n.kind, n.text = '0', t.String()
	case string:
		n.kind, n.text = '"', t
	case json.Delim:
		n.kind = byte(t)
		if err := p.inside(n, depth); err != nil {
			return nil, err
		}
	}
	n.raw = bytes.TrimLeft(p.raw[start:p.dec.InputOffset()], " \t\r\n:,")
	return n, nil
}

func (p *treeParser) inside(n *node, depth int) error {
	for p.dec.More() {
		var name string
		if n.kind == '{' {
			token, err := p.dec.Token()
			if err != nil {
				return err
			}
			text, ok := token.(string)
			if !ok {
				return errors.New("a member's name is no text")
			}
			name = text
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		if n.kind == '{' {
			n.members = append(n.members, member{name, value})
		} else {
			n.items = append(n.items, value)
		}
	}
	_, err := p.dec.Token()
	return err
}
