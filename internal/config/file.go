package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// reader walks one settings file. Only mappings, sequences and scalars are read: no anchors, aliases, merges or tags, so
// that what a line says does not depend on another.
type reader struct {
	*loader
	path  string
	lines []string
	seen  map[string]bool
}

func (l *loader) file(path string, data []byte) {
	r := &reader{loader: l, path: path, lines: strings.Split(string(data), "\n"), seen: map[string]bool{}}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !r.text(data) {
		return
	}
	file, err := parse(data)
	if err != nil {
		var located yaml.Error
		if errors.As(err, &located) {
			r.fault(located.GetToken(), "", "%s", located.GetMessage())
		} else {
			r.faults = append(r.faults, Fault{Where: path, Message: err.Error()})
		}
		return
	}
	docs := 0
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if docs++; docs > 1 {
			r.fault(first(doc.Body), "", "only one YAML document is read; remove what follows ---")
			return
		}
		if doc.Body.Type() != ast.NullType {
			r.mapping("", doc.Body)
		}
	}
}

// Bounds of a file's form. The YAML parser's memory grows with the square of the nesting: 250,000 brackets take all there is.
const (
	maxLine     = 1000 // bytes
	maxBrackets = 200  // opening ones, in the whole file
)

// text refuses what no settings file holds, before the parser sees it.
func (r *reader) text(data []byte) bool {
	before := len(r.faults)
	if bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxBrackets {
		r.faults = append(r.faults, Fault{Where: r.path, Message: fmt.Sprintf("has more than %d brackets; write lists one member a line", maxBrackets)})
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		at := fmt.Sprintf("%s:%d", r.path, i+1)
		switch {
		case len(line) > maxLine:
			r.faults = append(r.faults, Fault{Where: at, Message: fmt.Sprintf("the line is longer than %d bytes", maxLine)})
		case !utf8.Valid(line):
			r.faults = append(r.faults, Fault{Where: at, Message: "the line is not UTF-8"})
		case bytes.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			r.faults = append(r.faults, Fault{Where: at, Message: "the line has a control character"})
		}
		if len(r.faults) > before+10 {
			break
		}
	}
	return len(r.faults) == before
}

// parse turns a panic of the YAML parser into an error: a file can be wrong in ways that it does not expect.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be read as YAML: %v", p)
		}
	}()
	// Keys that occur twice are told with all other faults.
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// first is the token that a node begins with.
func first(n ast.Node) *token.Token {
	if values, ok := pairs(n); ok && len(values) > 0 {
		return values[0].Key.GetToken()
	}
	return n.GetToken()
}

func (r *reader) fault(at *token.Token, key, format string, args ...any) {
	f := r.at(at)
	f.Key, f.Message = key, fmt.Sprintf(format, args...)
	r.faults = append(r.faults, f)
}

func (r *reader) at(t *token.Token) Fault {
	if t == nil || t.Position == nil {
		return Fault{Where: r.path}
	}
	f := Fault{Where: fmt.Sprintf("%s:%d:%d", r.path, t.Position.Line, t.Position.Column), Column: t.Position.Column}
	if i := t.Position.Line - 1; i >= 0 && i < len(r.lines) {
		f.Line = strings.ReplaceAll(strings.TrimRight(r.lines[i], "\r "), "\t", " ")
	}
	return f
}

// pairs returns the key-value pairs of a mapping, and false for any other node.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// mapping reads the settings below prefix, which is empty or ends in a dot.
func (r *reader) mapping(prefix string, n ast.Node) {
	values, ok := pairs(n)
	if !ok {
		r.fault(n.GetToken(), strings.TrimSuffix(prefix, "."), "must be settings as key: value")
		return
	}
	for _, pair := range values {
		name, ok := plainKey(pair.Key)
		if !ok {
			r.fault(pair.Key.GetToken(), "", "a key must be a plain word")
			continue
		}
		key := prefix + name
		again := r.seen[key]
		if again {
			r.fault(pair.Key.GetToken(), key, "is set twice")
		}
		r.seen[key] = true
		if s := r.find(func(s *Setting) bool { return s.Key == key }); s != nil {
			r.setting(s, pair, again)
			continue
		}
		if again {
			continue
		}
		if slices.ContainsFunc(r.table, func(s Setting) bool { return strings.HasPrefix(s.Key, key+".") }) {
			r.mapping(key+".", pair.Value)
			continue
		}
		r.fault(pair.Key.GetToken(), key, "no setting has this name%s", meant(key, r.names(prefix)))
	}
}

// names lists what may stand below a prefix, and what may stand anywhere.
func (r *reader) names(prefix string) []string {
	var names []string
	for _, s := range r.table {
		if rest, ok := strings.CutPrefix(s.Key, prefix); ok && s.Flag != "" {
			section, _, _ := strings.Cut(rest, ".")
			names = append(names, prefix+section, s.Key)
		}
	}
	return names
}

// setting reads one setting. When the file has it already, that value counts, and this one is looked at for its faults.
func (r *reader) setting(s *Setting, pair *ast.MappingValueNode, again bool) {
	if s.Flag == "" { // the line may hold the secret, so it is not shown
		f := r.at(pair.Key.GetToken())
		r.faults = append(r.faults, Fault{Where: f.Where, Key: s.Key, Message: "is a secret: set it with " + s.Env + " in the environment"})
		return
	}
	words, ok := r.values(s.Key, pair.Value)
	if !ok {
		return
	}
	at := r.at(pair.Value.GetToken())
	if again {
		r.repeats = append(r.repeats, repeat{s, words, at})
		return
	}
	r.set(s, words, at)
}

// values turns a node into the words of a setting: one for a scalar, one for each member of a sequence, key=value for each
// pair of a mapping.
func (r *reader) values(key string, n ast.Node) ([]string, bool) {
	if text, ok := scalar(n); ok {
		return []string{text}, true
	}
	if list, ok := n.(*ast.SequenceNode); ok {
		words := []string{}
		for _, member := range list.Values {
			text, ok := scalar(member)
			if !ok {
				r.fault(member.GetToken(), key, "must be a list of plain values")
				return nil, false
			}
			words = append(words, text)
		}
		if len(words) == 1 && !r.takesSeveral(key) {
			r.fault(n.GetToken(), key, "must be one value, not a list")
			return nil, false
		}
		return words, true
	}
	if values, ok := pairs(n); ok && r.takesSeveral(key) {
		words := []string{}
		for _, pair := range values {
			name, ok := plainKey(pair.Key)
			text, plain := scalar(pair.Value)
			if !ok || !plain {
				r.fault(pair.Key.GetToken(), key, "must be plain keys with plain values")
				return nil, false
			}
			words = append(words, name+"="+text)
		}
		return words, true
	}
	if n.Type() == ast.NullType {
		r.fault(n.GetToken(), key, "has no value; leave the line out for the default")
	} else {
		r.fault(first(n), key, "must be a plain value")
	}
	return nil, false
}

func (r *reader) takesSeveral(key string) bool {
	s := r.find(func(s *Setting) bool { return s.Key == key })
	return s != nil && len(s.words("a,b")) > 1
}

func plainKey(key ast.MapKeyNode) (string, bool) {
	if key == nil || key.IsMergeKey() {
		return "", false
	}
	return scalar(key)
}

// scalar returns the text of a scalar as it was written, quotes resolved.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode:
		return n.Token.Value, true
	case *ast.FloatNode:
		return n.Token.Value, true
	case *ast.BoolNode:
		return n.Token.Value, true
	}
	return "", false
}
