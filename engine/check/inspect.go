package check

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
)

// inspection walks an expression before it is compiled: it finds what the expression looks at, and refuses what could make
// its evaluation long or large. An evaluation cannot be interrupted, so its cost is bounded here, by the expression's form:
// loops over what the check saw may be nested only along the nesting of the data, and nothing multiplies texts or lists.
type inspection struct {
	variables []Variable
	paths     []path
	need      needs
	mentions  int
}

// maxMentions bounds how often an expression may name what the check saw, and with it the memory of an evaluation.
const maxMentions = 40

func inspect(src string, variables []Variable) (*inspection, error) {
	tree, err := parser.Parse(src)
	if err != nil {
		return nil, err
	}
	in := &inspection{variables: variables}
	if err := in.node(tree.Node, place{}); err != nil {
		return nil, err
	}
	return in, nil
}

// place is where in an expression a node stands.
type place struct {
	loops  int  // how many predicates are around it
	source bool // inside the list that a nested predicate goes over
	ofIn   bool // right side of "in"
}

// functions that can be used. Those that build long texts or lists out of short ones are not among them.
func allowedFunction(name string) bool {
	return slices.Contains([]string{
		"all", "any", "none", "one", "filter", "map", "find", "count", "sum",
		"len", "type", "abs", "ceil", "floor", "round", "int", "float", "string",
		"trim", "upper", "lower", "split", "indexOf", "hasPrefix", "hasSuffix", "max", "min", "mean", "median",
		"fromJSON", "now", "duration", "date", "first", "last", "get", "keys", "values",
	}, name)
}

func (in *inspection) node(n ast.Node, at place) error {
	if root, keys, ok := constantPath(n); ok {
		return in.mention(root, keys, at)
	}
	ofIn := at.ofIn
	at.ofIn = false
	switch t := n.(type) {
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		return errors.New("an expression has no let and no semicolon; write the value where it is used")
	case *ast.ArrayNode:
		if at.loops > 0 && !ofIn {
			return errors.New("inside a loop a list can stand only after in")
		}
		return in.nodes(at, t.Nodes...)
	case *ast.MapNode:
		return errors.New("an expression has no maps of its own")
	case *ast.BuiltinNode:
		return in.function(t, at)
	case *ast.CallNode:
		name := "this"
		if callee, ok := t.Callee.(*ast.IdentifierNode); ok {
			name = callee.Value
		}
		return fmt.Errorf("there is no function %s", name)
	case *ast.BinaryNode:
		return in.binary(t, at, ofIn)
	case *ast.UnaryNode:
		return in.node(t.Node, at)
	case *ast.ChainNode:
		return in.node(t.Node, at)
	case *ast.MemberNode:
		return in.nodes(at, t.Node, t.Property)
	case *ast.SliceNode:
		return in.nodes(at, t.Node, t.From, t.To)
	case *ast.PredicateNode:
		return in.node(t.Node, at)
	case *ast.ConditionalNode:
		return in.nodes(at, t.Cond, t.Exp1, t.Exp2)
	}
	return nil
}

func (in *inspection) nodes(at place, nodes ...ast.Node) error {
	for _, n := range nodes {
		if n == nil {
			continue
		}
		if err := in.node(n, at); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspection) function(t *ast.BuiltinNode, at place) error {
	if !allowedFunction(t.Name) {
		return fmt.Errorf("the function %s cannot be used in an expression", t.Name)
	}
	for i, argument := range t.Arguments {
		inner := at
		if _, predicate := argument.(*ast.PredicateNode); predicate {
			inner.loops++
			inner.source = false
			if inner.loops > 3 {
				return errors.New("loops can be nested three deep")
			}
		} else if i == 0 && at.loops > 0 && loops(t) {
			inner.source = true
		}
		if err := in.node(argument, inner); err != nil {
			return err
		}
	}
	return nil
}

// loops reports whether a function goes over a list with a predicate.
func loops(t *ast.BuiltinNode) bool {
	return slices.ContainsFunc(t.Arguments, func(n ast.Node) bool {
		_, ok := n.(*ast.PredicateNode)
		return ok
	})
}

func (in *inspection) binary(t *ast.BinaryNode, at place, ofIn bool) error {
	right := at
	switch t.Operator {
	case "matches":
		pattern, ok := t.Right.(*ast.StringNode)
		if !ok {
			return errors.New("matches needs a regular expression in quotes")
		}
		if _, err := regexp.Compile(pattern.Value); err != nil {
			return fmt.Errorf("%q is no regular expression: %w", pattern.Value, err)
		}
	case "..":
		if !ofIn {
			return errors.New("a range can stand only after in, as in status in 200..299")
		}
	case "in", "not in":
		right.ofIn = true
	case "+":
		for _, side := range []ast.Node{t.Left, t.Right} {
			if _, text := side.(*ast.StringNode); text {
				return errors.New("texts cannot be joined in an expression")
			}
		}
	}
	if err := in.node(t.Left, at); err != nil {
		return err
	}
	return in.node(t.Right, right)
}

// mention records that the expression looks at a variable.
func (in *inspection) mention(root string, keys []any, at place) error {
	name := root
	structured := false
	var names []string
	for _, v := range in.variables {
		first, rest, dotted := strings.Cut(v.Name, ".")
		names = append(names, v.Name)
		structured = structured || dotted && first == root
		if dotted && first == root && len(keys) > 0 && rest == strings.ToUpper(rest) {
			names = append(names, fmt.Sprint(root, ".", keys[0])) // metrics.NAME stands for every name
		}
	}
	if structured {
		if len(keys) == 0 {
			return fmt.Errorf("%s alone is no value; known are %s", root, strings.Join(names, ", "))
		}
		name = fmt.Sprint(root, ".", keys[0])
	}
	if !slices.Contains(names, name) {
		return fmt.Errorf("there is no %s; known are %s", name, strings.Join(names, ", "))
	}
	large := slices.Contains([]string{"body", "json", "headers"}, root) || name == "dns.answers"
	if large && at.loops > 0 {
		return fmt.Errorf("%s cannot be used inside a loop; only the entry itself (#) can", pathText(root, keys))
	}
	if at.source {
		return errors.New("a nested loop can only go over a part of the outer entry (#)")
	}
	if in.mentions++; in.mentions > maxMentions {
		return fmt.Errorf("an expression can look at no more than %d values", maxMentions)
	}
	in.need |= needOf(root)
	p := path{root: root, keys: keys, text: pathText(root, keys)}
	if !slices.ContainsFunc(in.paths, func(q path) bool { return q.text == p.text }) {
		in.paths = append(in.paths, p)
	}
	return nil
}

func needOf(root string) needs {
	for _, n := range [...]struct {
		root string
		need needs
	}{
		{"body", needBody}, {"json", needJSON}, {"headers", needHeaders}, {"cert", needCert}, {"metrics", needMetrics},
	} {
		if n.root == root {
			return n.need
		}
	}
	return 0
}

// path is a value that an expression looks at: a variable and constant keys into it.
type path struct {
	text string
	root string
	keys []any // string or int
}

// constantPath takes a node apart that is a variable, or a member of one by constant keys.
func constantPath(n ast.Node) (root string, keys []any, ok bool) {
	switch t := n.(type) {
	case *ast.IdentifierNode:
		return t.Value, nil, true
	case *ast.ChainNode:
		return constantPath(t.Node)
	case *ast.MemberNode:
		root, keys, ok = constantPath(t.Node)
		if !ok {
			return "", nil, false
		}
		switch key := t.Property.(type) {
		case *ast.StringNode:
			return root, append(keys, key.Value), true
		case *ast.IntegerNode:
			return root, append(keys, key.Value), true
		}
	}
	return "", nil, false
}

var word = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func pathText(root string, keys []any) string {
	text := root
	for _, key := range keys {
		switch k := key.(type) {
		case string:
			if word.MatchString(k) {
				text += "." + k
			} else {
				text += "[" + strconv.Quote(k) + "]"
			}
		case int:
			text += "[" + strconv.Itoa(k) + "]"
		}
	}
	return text
}

// missing is the value of a path that leads nowhere.
type missing struct{}

// value follows the path.
func (p path) value(v *vars) any {
	var at any
	keys := p.keys
	name := p.root
	if p.root == "cert" || p.root == "dns" {
		name = pathText(p.root, keys[:1])
		keys = keys[1:]
	}
	for _, known := range [...]struct {
		name  string
		value any
	}{
		{"status", v.Status},
		{"body", v.Body},
		{"json", v.JSON},
		{"headers", v.Headers},
		{"latency", v.Latency},
		{"ip", v.IP},
		{"message", v.Message},
		{"cert.days_left", v.Cert.DaysLeft},
		{"cert.subject", v.Cert.Subject},
		{"cert.issuer", v.Cert.Issuer},
		{"dns.answers", v.DNS.Answers},
		{"dns.rcode", v.DNS.Rcode},
		{"metrics", v.Metrics},
	} {
		if known.name == name {
			at = known.value
		}
	}
	for _, key := range keys {
		at = step(at, key)
	}
	return at
}

// step returns one member of a value.
func step(at, key any) any {
	switch t := at.(type) {
	case map[string]any:
		if name, ok := key.(string); ok {
			if value, ok := t[name]; ok {
				return value
			}
		}
	case map[string]string:
		if name, ok := key.(string); ok {
			if value, ok := t[strings.ToLower(name)]; ok {
				return value
			}
		}
	case map[string]float64:
		if name, ok := key.(string); ok {
			if value, ok := t[name]; ok {
				return value
			}
		}
	case []string:
		if i, ok := key.(int); ok && i >= 0 && i < len(t) {
			return t[i]
		}
	case []any:
		if i, ok := key.(int); ok {
			if i < 0 {
				i += len(t)
			}
			if i >= 0 && i < len(t) {
				return t[i]
			}
		}
	}
	return missing{}
}
