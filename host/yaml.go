package host

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a manifest's form. The YAML parser's memory grows with the square of the nesting and its time with the square of
// a mapping's length (50,000 lines take 8 s), so both are bounded before it sees the text.
const (
	maxManifest = 256 << 10 // bytes
	maxLines    = 2000
	maxLine     = 4096 // bytes
	maxBrackets = 1000 // opening ones, in the whole file
	maxDepth    = 64   // of indentation steps, dashes included, and of values
	maxFaults   = 50
)

// document reads one YAML file into structs. Only mappings, sequences and scalars are read: no anchors, aliases, merges or
// tags, so that what a line says does not depend on another.
type document struct {
	path   string
	lines  []string
	at     map[string]*token.Token // the value of each field that was read, by its path
	wrong  map[string]bool         // fields that have a fault
	faults Faults
}

// readYAML decodes data into the struct that to points to.
func readYAML(path string, data []byte, to any) *document {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	d := &document{path: path, at: map[string]*token.Token{}, wrong: map[string]bool{}}
	if !d.text(data) {
		return d
	}
	d.lines = strings.Split(string(data), "\n")
	defer func() {
		if p := recover(); p != nil { // the tree of a broken file can be broken, too
			d.fault(nil, "", "cannot be read as YAML: %v", p)
		}
	}()
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var located yaml.Error
		if errors.As(err, &located) {
			d.fault(located.GetToken(), "", "%s", located.GetMessage())
		} else {
			d.fault(nil, "", "%s", err)
		}
		return d
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType && doc.Body.Type() != ast.NullType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		d.fault(nil, "", "is empty")
	case len(bodies) > 1:
		d.fault(first(bodies[1]), "", "only one YAML document is read; remove what follows ---")
	default:
		d.structure("", bodies[0], reflect.ValueOf(to).Elem())
	}
	return d
}

// text refuses what no manifest holds, before the parser sees it.
func (d *document) text(data []byte) bool {
	if len(data) > maxManifest {
		d.fault(nil, "", "is larger than %d bytes", maxManifest)
		return false
	}
	if bytes.Count(data, []byte("\n")) > maxLines {
		d.fault(nil, "", "has more than %d lines", maxLines)
	}
	if bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxBrackets {
		d.fault(nil, "", "has more than %d brackets; write members on lines of their own", maxBrackets)
	}
	steps := []int{}
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		body := bytes.TrimLeft(line, " -?\t")
		indent := len(line) - len(body)
		for len(steps) > 0 && steps[len(steps)-1] >= indent {
			steps = steps[:len(steps)-1]
		}
		if len(body) > 0 {
			steps = append(steps, indent)
		}
		message := ""
		switch {
		case len(line) > maxLine:
			message = fmt.Sprintf("the line is longer than %d bytes", maxLine)
		case !utf8.Valid(line):
			message = "the line is not UTF-8"
		case bytes.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			message = "the line has a control character"
		case len(steps)+bytes.Count(line[:indent], []byte("-"))+bytes.Count(line[:indent], []byte("?")) > maxDepth:
			message = fmt.Sprintf("is nested deeper than %d levels", maxDepth)
		}
		if message != "" {
			d.faults = append(d.faults, Fault{Where: d.path + ":" + strconv.Itoa(i+1), Message: message})
		}
		if len(d.faults) > 10 {
			break
		}
	}
	return len(d.faults) == 0
}

func (d *document) fault(at *token.Token, field, format string, args ...any) {
	d.wrong[field] = true
	if len(d.faults) >= maxFaults {
		return
	}
	f := Fault{Where: d.path, Field: field, Message: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		f.Where = fmt.Sprintf("%s:%d:%d", d.path, at.Position.Line, at.Position.Column)
		f.Column = at.Position.Column
		if i := at.Position.Line - 1; i >= 0 && i < len(d.lines) {
			f.Line = strings.ReplaceAll(strings.TrimRight(d.lines[i], "\r "), "\t", " ")
		}
	}
	d.faults = append(d.faults, f)
}

// about adds a fault of a field's value, unless the field has one already. A field that is not there is told at the place of
// the nearest one around it.
func (d *document) about(field, format string, args ...any) {
	if d.wrong[field] {
		return
	}
	place := field
	for d.at[place] == nil && place != "" {
		place = place[:max(strings.LastIndexAny(place, ".["), 0)]
	}
	d.fault(d.at[place], field, format, args...)
}

// first is the token that a node begins with.
func first(n ast.Node) *token.Token {
	if values, ok := pairs(n); ok && len(values) > 0 {
		return values[0].Key.GetToken()
	}
	if list, ok := n.(*ast.SequenceNode); ok && len(list.Values) > 0 && list.Start == nil {
		return first(list.Values[0])
	}
	return n.GetToken()
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

// members calls each for every pair of a mapping, without those whose key is no word or occurs again.
func (d *document) members(path string, n ast.Node, each func(name string, pair *ast.MappingValueNode)) {
	values, ok := pairs(n)
	if !ok {
		d.fault(first(n), path, "must be fields as name: value")
		return
	}
	seen := map[string]bool{}
	for _, pair := range values {
		name, ok := plainKey(pair.Key)
		switch {
		case !ok:
			d.fault(pair.Key.GetToken(), path, "a key must be a plain word")
		case seen[name]:
			d.fault(pair.Key.GetToken(), join(path, name), "is set twice")
		default:
			seen[name] = true
			each(name, pair)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// jsonName is the name of a struct's field in files.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// structure reads a mapping into a struct by the names in its json tags, and finds the required fields that are missing.
func (d *document) structure(path string, n ast.Node, to reflect.Value) {
	names := []string{}
	for i := range to.NumField() {
		names = append(names, jsonName(to.Type().Field(i)))
	}
	present := map[string]bool{}
	d.members(path, n, func(name string, pair *ast.MappingValueNode) {
		field := join(path, name)
		i := slices.Index(names, name)
		if i < 0 {
			d.fault(pair.Key.GetToken(), field, "no field has this name%s", meant(name, names))
			return
		}
		present[name] = true
		d.at[field] = first(pair.Value)
		d.value(field, pair.Value, to.Field(i))
	})
	for i, name := range names {
		if to.Type().Field(i).Tag.Get("required") == "true" && !present[name] && !d.wrong[path] {
			d.about(join(path, name), "is missing")
		}
	}
}

// value reads a node into a field of a struct.
func (d *document) value(path string, n ast.Node, to reflect.Value) {
	if n == nil || n.Type() == ast.NullType {
		d.fault(d.at[path], path, "has no value")
		return
	}
	switch target := to.Addr().Interface().(type) {
	case *sdk.Files:
		d.files(path, n, target)
		return
	case *json.RawMessage:
		before := len(d.faults)
		value := d.any(path, n, 0)
		if len(d.faults) > before {
			return
		}
		text, err := json.Marshal(value)
		if err != nil {
			d.fault(first(n), path, "cannot be written as JSON: %s", err)
			return
		}
		*target = text
		return
	case encoding.TextUnmarshaler:
		if text, ok := d.word(path, n); ok {
			if err := target.UnmarshalText([]byte(text)); err != nil {
				d.fault(first(n), path, "%s", err)
			}
		}
		return
	}
	switch to.Kind() {
	case reflect.Struct:
		d.structure(path, n, to)
	case reflect.Slice:
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fault(first(n), path, "must be a list")
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list.Values), len(list.Values)))
		for i, member := range list.Values {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.at[at] = first(member)
			d.value(at, member, to.Index(i))
		}
	case reflect.Bool:
		flag, ok := n.(*ast.BoolNode)
		if !ok {
			d.fault(first(n), path, "must be true or false")
			return
		}
		to.SetBool(flag.Value)
	case reflect.Int:
		text, ok := d.word(path, n)
		number, err := strconv.Atoi(text)
		if ok && err != nil {
			d.fault(first(n), path, "must be a whole number, is %s", quote(text))
		}
		to.SetInt(int64(number))
	default:
		text, _ := d.word(path, n)
		to.SetString(text)
	}
}

func (d *document) word(path string, n ast.Node) (string, bool) {
	text, ok := scalar(n)
	if !ok {
		d.fault(first(n), path, "must be a plain value%s", unread(n))
	}
	return text, ok
}

// unread says why a node that looks plain is not.
func unread(n ast.Node) string {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "; anchors, aliases and tags are not read"
	}
	return ""
}

func (d *document) files(path string, n ast.Node, to *sdk.Files) {
	if text, ok := scalar(n); ok {
		to.One = text
		return
	}
	if _, ok := pairs(n); !ok {
		d.fault(first(n), path, "must be one plain value, or one for each os/arch%s", unread(n))
		return
	}
	to.Each = map[string]string{}
	d.members(path, n, func(name string, pair *ast.MappingValueNode) {
		field := join(path, name)
		d.at[field] = first(pair.Value)
		if text, ok := d.word(field, pair.Value); ok {
			to.Each[name] = text
		}
	})
}

// any reads a node as JSON would have it.
func (d *document) any(path string, n ast.Node, depth int) any {
	if depth > maxDepth {
		d.fault(first(n), path, "is nested deeper than %d levels", maxDepth)
		return nil
	}
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		object := map[string]any{}
		d.members(path, n, func(name string, pair *ast.MappingValueNode) {
			field := join(path, name)
			d.at[field] = first(pair.Value)
			object[name] = d.any(field, pair.Value, depth+1)
		})
		return object
	case *ast.SequenceNode:
		list := make([]any, len(n.Values))
		for i, member := range n.Values {
			list[i] = d.any(fmt.Sprintf("%s[%d]", path, i), member, depth+1)
		}
		return list
	case *ast.IntegerNode:
		return n.Value
	case *ast.FloatNode:
		return n.Value
	case *ast.BoolNode:
		return n.Value
	case *ast.NullNode:
		return nil
	}
	text, ok := scalar(n)
	if !ok {
		d.fault(first(n), path, "is neither a mapping, a list nor a plain value%s", unread(n))
	}
	return text
}
