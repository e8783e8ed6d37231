package alert

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"golang.org/x/net/http/httpguts"

	"github.com/tocsinhq/tocsin/sdk"
)

//go:embed providers/*.yaml
var builtinFiles embed.FS

// loadProviders reads every file of the folder "providers". The error joins one line "FILE:LINE: fault" for each fault of
// each file.
func loadProviders(files fs.FS, post *poster) ([]Provider, error) {
	names, err := fs.Glob(files, "providers/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list provider files: %w", err)
	}
	var (
		found  []Provider
		faulty []error
	)
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read provider file: %w", err)
		}
		d, err := parseProvider(name, text)
		if err != nil {
			faulty = append(faulty, err)
			continue
		}
		found = append(found, d.provider(post))
	}
	return found, errors.Join(faulty...)
}

// fileFaults collects the faults of one file.
type fileFaults struct {
	file string
	all  []error
}

func (f *fileFaults) add(at ast.Node, format string, args ...any) {
	line := 1
	if at != nil && at.GetToken() != nil && at.GetToken().Position != nil {
		line = at.GetToken().Position.Line
	}
	f.all = append(f.all, fmt.Errorf("%s:%d: %s", f.file, line, fmt.Sprintf(format, args...)))
}

// The form of a provider file. yamlNode keeps the position of a value for the faults that only show later.
type (
	fileForm struct {
		Name     yamlNode            `yaml:"name"`
		Doc      string              `yaml:"doc"`
		Link     string              `yaml:"link"`
		Fields   []fieldForm         `yaml:"fields"`
		Tables   map[string]yamlNode `yaml:"tables"`
		Escape   map[string]string   `yaml:"escape"`
		Cut      int                 `yaml:"cut"`
		Requests []requestForm       `yaml:"requests"`
		Success  successForm         `yaml:"success"`
	}
	fieldForm struct {
		Name     yamlNode `yaml:"name"`
		Doc      string   `yaml:"doc"`
		Type     Type     `yaml:"type"`
		Required bool     `yaml:"required"`
		Secret   bool     `yaml:"secret"`
		Default  any      `yaml:"default"`
		Example  any      `yaml:"example"`
		Pattern  string   `yaml:"pattern"`
		Min      int64    `yaml:"min"`
		Max      int64    `yaml:"max"`
		Choices  []string `yaml:"choices"`
	}
	requestForm struct {
		On      []yamlNode          `yaml:"on"`
		Method  yamlNode            `yaml:"method"`
		URL     yamlNode            `yaml:"url"`
		Headers map[string]yamlNode `yaml:"headers"`
		Basic   *basicForm          `yaml:"basic"`
		Body    yamlNode            `yaml:"body"`
	}
	basicForm struct {
		Username yamlNode `yaml:"username"`
		Password yamlNode `yaml:"password"`
	}
	successForm struct {
		Status     yamlNode       `yaml:"status"`
		JSON       map[string]any `yaml:"json"`
		Text       string         `yaml:"text"`
		Reason     string         `yaml:"reason"`
		RetryAfter string         `yaml:"retry_after"`
	}
)

// yamlNode is a value with its position.
type yamlNode struct{ node ast.Node }

// UnmarshalYAML keeps the node.
func (y *yamlNode) UnmarshalYAML(node ast.Node) error {
	y.node = node
	return nil
}

// text returns the scalar as text, "" when there is none.
func (y yamlNode) text() string {
	s, _ := scalar(y.node).(string)
	return s
}

// scalar returns the value of a scalar node: string, int64, bool, float64, or nil.
func scalar(node ast.Node) any {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	case *ast.BoolNode:
		return n.Value
	case *ast.FloatNode:
		return n.Value
	case *ast.IntegerNode:
		return whole(n.Value)
	}
	return nil
}

// whole returns the integers of the YAML library as int64, and anything else as it is.
func whole(v any) any {
	switch v := v.(type) {
	case uint64:
		return int64(min(v, 1<<62))
	case int:
		return int64(v)
	}
	return v
}

// parseProvider reads one file strictly.
func parseProvider(file string, text []byte) (*dataProvider, error) {
	var form fileForm
	if err := unmarshal(text, &form); err != nil {
		return nil, fmt.Errorf("%s:%s", file, yamlFault(err))
	}
	faults := &fileFaults{file: file}
	d := &dataProvider{
		name: form.Name.text(), doc: strings.TrimSpace(form.Doc), link: form.Link, cut: form.Cut,
		tables: make(map[string]table, len(form.Tables)),
	}
	if want := strings.TrimSuffix(path.Base(file), ".yaml"); d.name != want {
		faults.add(form.Name.node, "name must be %q, as the file's", want)
	}
	if d.doc == "" {
		faults.add(form.Name.node, "doc is missing")
	}
	for i := range form.Fields {
		d.fields = append(d.fields, form.Fields[i].field(faults))
	}
	for _, name := range sortedKeys(form.Tables) {
		d.tables[name] = readTable(name, form.Tables[name].node, faults)
	}
	d.escape = replacer(form.Escape)
	c := compiler{data: d, faults: faults}
	for i := range form.Requests {
		d.requests = append(d.requests, c.request(&form.Requests[i]))
	}
	c.coverage(form.Name.node)
	d.success = c.success(&form.Success)
	return d, errors.Join(faults.all...)
}

// unmarshal reads YAML strictly. The library panics on some broken documents (a tag before nothing); that is an error.
func unmarshal(text []byte, form *fileForm) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the document cannot be read: %v", p)
		}
	}()
	return yaml.UnmarshalWithOptions(text, form, yaml.Strict())
}

// yamlFault returns "LINE: message" for an error of the YAML library.
func yamlFault(err error) string {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		return fmt.Sprintf("%d: %s", at.GetToken().Position.Line, at.GetMessage())
	}
	return "1: " + err.Error()
}

// replacer returns what escapes values from outside, nil when nothing is to be.
func replacer(pairs map[string]string) *strings.Replacer {
	if len(pairs) == 0 {
		return nil
	}
	list := make([]string, 0, 2*len(pairs))
	for _, from := range sortedKeys(pairs) {
		list = append(list, from, pairs[from])
	}
	return strings.NewReplacer(list...)
}

// field reads the description of a field.
func (f *fieldForm) field(faults *fileFaults) Field {
	out := Field{
		Name: f.Name.text(), Doc: strings.TrimSpace(f.Doc), Type: cmp.Or(f.Type, TypeText), Required: f.Required, Secret: f.Secret,
		Default: whole(f.Default), Example: whole(f.Example), Min: f.Min, Max: f.Max, Choices: f.Choices,
	}
	at := f.Name.node
	scalars := []Type{TypeText, TypeURL, TypeBaseURL, TypeAddress, TypeInteger, TypeBoolean, TypeChoice}
	switch {
	case !placeholderName(out.Name) || strings.Contains(out.Name, "."):
		faults.add(at, "field name %q must be lower-case letters, digits and underscores", out.Name)
	case out.Doc == "":
		faults.add(at, "field %s has no doc", out.Name)
	case !slices.Contains(scalars, out.Type):
		faults.add(at, "field %s: type %q is none of %v", out.Name, out.Type, scalars)
	case out.Type == TypeInteger && out.Min >= out.Max:
		faults.add(at, "field %s: min must be below max", out.Name)
	case out.Type == TypeChoice && len(out.Choices) == 0:
		faults.add(at, "field %s: choices are missing", out.Name)
	}
	if f.Pattern != "" {
		pattern, err := regexp.Compile(f.Pattern)
		if err != nil {
			faults.add(at, "field %s: pattern: %v", out.Name, err)
		}
		out.Pattern = pattern
	}
	for what, v := range map[string]any{"default": out.Default, "example": out.Example} {
		if v == nil {
			continue
		}
		if _, bad := out.read(encode(v)); len(bad) > 0 {
			faults.add(at, "field %s: %s: %s", out.Name, what, bad[0].Message)
		}
	}
	return out
}

// readTable reads a value for each transition.
func readTable(name string, node ast.Node, faults *fileFaults) table {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		faults.add(node, "table %s must map each transition to a value", name)
		return nil
	}
	t := make(table, len(mapping.Values))
	for _, entry := range mapping.Values {
		transition := sdk.Transition(entry.Key.GetToken().Value)
		value := scalar(entry.Value)
		if !slices.Contains(sdk.Transitions(), transition) {
			faults.add(entry.Key, "table %s: %q is no transition", name, transition)
			continue
		}
		if _, isFloat := value.(float64); value == nil || isFloat {
			faults.add(entry.Value, "table %s: %s must be a text, a whole number, true or false", name, transition)
			continue
		}
		t[transition] = value
	}
	for _, transition := range sdk.Transitions() {
		if _, ok := t[transition]; !ok {
			faults.add(node, "table %s has nothing for %s", name, transition)
		}
	}
	return t
}

// compiler turns the forms of requests into templates.
type compiler struct {
	data   *dataProvider
	faults *fileFaults
}

func (c *compiler) request(f *requestForm) dataRequest {
	r := dataRequest{method: cmp.Or(f.Method.text(), http.MethodPost), url: c.address(f.URL)}
	if !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch}, r.method) {
		c.faults.add(f.Method.node, "method must be POST, PUT or PATCH")
	}
	for _, on := range f.On {
		word := on.text()
		if word != whenEnded && !slices.Contains(sdk.Transitions(), sdk.Transition(word)) {
			c.faults.add(on.node, "on: %q is neither a transition nor %q", word, whenEnded)
		}
		r.on = append(r.on, word)
	}
	for _, name := range sortedKeys(f.Headers) {
		value := f.Headers[name]
		if !httpguts.ValidHeaderFieldName(name) || slices.Contains(ownHeaders(), strings.ToLower(name)) {
			c.faults.add(value.node, "header %q is set by Tocsin or is no header name", name)
		}
		r.headers = append(r.headers, headerTemplate{name, c.trusted(value, "a header")})
	}
	if f.Basic != nil {
		r.user, r.pass = c.trusted(f.Basic.Username, "basic"), c.trusted(f.Basic.Password, "basic")
	}
	if f.Body.node == nil {
		c.faults.add(f.URL.node, "body is missing")
	} else {
		r.body = c.tree(f.Body.node)
	}
	return r
}

// template reads a text with placeholders, each of which must exist.
func (c *compiler) template(node ast.Node, text string) template {
	t, err := parseTemplate(text)
	if err != nil {
		c.faults.add(node, "%v", err)
		return nil
	}
	for _, name := range t.names() {
		if problem := c.unknown(name); problem != "" {
			c.faults.add(node, "%s", problem)
		}
	}
	return t
}

// unknown returns what is wrong with a placeholder's name, or "".
func (c *compiler) unknown(name string) string {
	if field, ok := strings.CutPrefix(name, "config."); ok {
		if fieldNamed(c.data.fields, field) == nil {
			return fmt.Sprintf("there is no field %q", field)
		}
		return ""
	}
	if t, ok := strings.CutPrefix(name, "table."); ok {
		if _, found := c.data.tables[t]; !found {
			return fmt.Sprintf("there is no table %q", t)
		}
		return ""
	}
	if !slices.ContainsFunc(placeholders(), func(p placeholderDoc) bool { return p.name == name }) {
		return fmt.Sprintf("there is no placeholder %q", name)
	}
	return ""
}

// trusted reads a template whose values must not come from outside: what is monitored has no say in addresses and headers.
func (c *compiler) trusted(y yamlNode, what string) template {
	if y.node == nil {
		c.faults.add(nil, "%s has no value", what)
		return nil
	}
	t := c.template(y.node, y.text())
	for _, name := range t.names() {
		if outside(name) {
			c.faults.add(y.node, "%s must not contain {{%s}}", what, name)
		}
	}
	return t
}

// address reads a URL: it begins with a field of type url, and nothing else, or with one of type base_url and a path.
func (c *compiler) address(y yamlNode) template {
	t := c.trusted(y, "url")
	const want = "url must be a field of type url, or a field of type base_url and a path"
	if len(t) == 0 {
		if y.node != nil {
			c.faults.add(y.node, want)
		}
		return nil
	}
	f := fieldNamed(c.data.fields, strings.TrimPrefix(t[0].name, "config."))
	switch {
	case f == nil,
		len(t) == 1 && f.Type != TypeURL && f.Type != TypeBaseURL,
		len(t) > 1 && f.Type != TypeBaseURL,
		len(t) > 1 && !strings.HasPrefix(t[1].text, "/"),
		!f.Required && f.Default == nil:
		c.faults.add(y.node, want)
	}
	return t
}

// tree reads a JSON document.
func (c *compiler) tree(node ast.Node) tree {
	switch n := node.(type) {
	case *ast.MappingNode:
		out := tree{form: formObject}
		for _, entry := range n.Values {
			out.members = append(out.members, treeMember{entry.Key.GetToken().Value, c.tree(entry.Value)})
		}
		return out
	case *ast.SequenceNode:
		out := tree{form: formList}
		for _, entry := range n.Values {
			out.items = append(out.items, c.tree(entry))
		}
		return out
	case *ast.NullNode:
		return tree{}
	}
	value := scalar(node)
	if text, ok := value.(string); ok {
		return tree{form: formText, text: c.template(node, text)}
	}
	if value == nil {
		c.faults.add(node, "%s cannot be part of a JSON document", node.Type())
	}
	return tree{constant: value}
}

// coverage sees to it that every transition leads to a request.
func (c *compiler) coverage(at ast.Node) {
	for _, transition := range sdk.Transitions() {
		if !slices.ContainsFunc(c.data.requests, func(r dataRequest) bool { return r.matches(sdk.Notification{Transition: transition}) }) {
			c.faults.add(at, "no request is made for %s", transition)
		}
	}
}

// success reads the rule for answers. Without a status it is any from 200 to 299.
func (c *compiler) success(f *successForm) *success {
	s := any2xx()
	if f.Status.node != nil {
		first, last, ranged := strings.Cut(f.Status.node.GetToken().Value, "-")
		if !ranged {
			last = first
		}
		from, errFrom := strconv.Atoi(first)
		to, errTo := strconv.Atoi(last)
		if errFrom != nil || errTo != nil || from < 200 || to > 299 || from > to {
			c.faults.add(f.Status.node, "status must be a code from 200 to 299 or a range such as 200-204")
		}
		s.from, s.to = from, to
	}
	if len(f.JSON) > 0 || f.Text != "" {
		s.accepts = func(body []byte) bool { return f.accepts(body) }
	}
	if f.Reason != "" {
		s.reason = func(body []byte) string { return reason(body, f.Reason) }
	}
	if f.RetryAfter != "" {
		s.retryAfter = func(body []byte) (time.Duration, bool) {
			v, _ := lookup(body, f.RetryAfter)
			seconds, ok := v.(float64)
			return seconds64(seconds), ok
		}
	}
	return s
}

// accepts compares the answer's body with the rule.
func (f *successForm) accepts(body []byte) bool {
	if f.Text != "" && strings.TrimSpace(string(body)) != f.Text {
		return false
	}
	for _, at := range sortedKeys(f.JSON) {
		got, ok := lookup(body, at)
		if !ok || string(encode(got)) != string(encode(f.JSON[at])) {
			return false
		}
	}
	return true
}

// reasonText, as the reason's path, takes the whole body when it is a short plain text.
const reasonText = "text"

// reason returns the receiver's own words. A body that is not short and plain is no reason: it may be a whole page.
func reason(body []byte, at string) string {
	if at != reasonText {
		v, _ := lookup(body, at)
		s, _ := v.(string)
		return s
	}
	text := strings.TrimSpace(string(body))
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" _-.,:'", r)
	}
	if len(text) > 100 || strings.ContainsFunc(text, odd) {
		return ""
	}
	return text
}
