package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// vars is what an expression sees. Each kind offers some of it.
type vars struct {
	Status  int                `expr:"status"`
	Body    string             `expr:"body"`
	JSON    any                `expr:"json"`
	Headers map[string]string  `expr:"headers"`
	Latency time.Duration      `expr:"latency"`
	IP      string             `expr:"ip"`
	Message string             `expr:"message"`
	Cert    certVars           `expr:"cert"`
	DNS     dnsVars            `expr:"dns"`
	Metrics map[string]float64 `expr:"metrics"`
}

type certVars struct {
	DaysLeft int    `expr:"days_left"`
	Subject  string `expr:"subject"`
	Issuer   string `expr:"issuer"`
}

type dnsVars struct {
	Answers []string `expr:"answers"`
	Rcode   string   `expr:"rcode"`
}

// needs is the set of observations that expressions look at.
type needs uint8

const (
	needBody needs = 1 << iota
	needJSON
	needHeaders
	needCert
	needMetrics
)

// rule is one compiled expression. It never changes and is shared by all monitors that have it.
type rule struct {
	text    string
	program *vm.Program
	paths   []path // the values it looks at, for the message when it is false
	need    needs
}

type ruleKey struct{ kind, text string }

// rules are the expressions of one monitor.
type rules struct {
	assert, degrade []*rule
	need            needs
}

func (r *rules) firstField() string {
	if len(r.assert) > 0 {
		return "assert[0]"
	}
	return "degrade[0]"
}

// compileRules compiles a monitor's expressions; nil when it has none.
func (e *env) compileRules(kind Kind, s Spec, faults *monitor.Faults) *rules {
	if len(s.Assert)+len(s.Degrade) == 0 {
		return nil
	}
	compiled := &rules{}
	for _, list := range [...]struct {
		name  string
		texts []string
		rules *[]*rule
	}{{"assert", s.Assert, &compiled.assert}, {"degrade", s.Degrade, &compiled.degrade}} {
		if len(list.texts) > monitor.MaxAsserts {
			faults.Add(list.name, nil, "must have at most %d entries", monitor.MaxAsserts)
			continue
		}
		for i, text := range list.texts {
			one, err := e.rules.get(ruleKey{kind.Name, text}, func() (*rule, error) { return compileRule(kind.variables, text) })
			if err != nil {
				faults.Add(list.name+"["+strconv.Itoa(i)+"]", sdk.CleanText(text, 100), "%v", err)
				continue
			}
			*list.rules = append(*list.rules, one)
			compiled.need |= one.need
		}
	}
	return compiled
}

// compileRule compiles one expression for a kind with the given variables. Its errors are for the person who wrote it.
func compileRule(variables []Variable, text string) (*rule, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return nil, errors.New("is empty; an expression is wanted, such as latency < 300ms")
	case len(text) > monitor.MaxAssert:
		return nil, fmt.Errorf("must be at most %d characters long", monitor.MaxAssert)
	case sdk.CleanText(text, monitor.MaxAssert) != text:
		return nil, errors.New("must be one line of text without control characters")
	}
	src := rewriteDurations(text)
	found, err := inspect(src, variables)
	if err != nil {
		return nil, plainError(err)
	}
	program, err := expr.Compile(src, expr.Env(vars{}), expr.AsBool(), expr.Patch(constants{}))
	if err != nil {
		return nil, plainError(err)
	}
	return &rule{text: text, program: program, paths: found.paths, need: found.need}, nil
}

// plainError makes one line of a compiler's error, without the source that it draws.
func plainError(err error) error {
	text := err.Error()
	if f, ok := errors.AsType[*file.Error](err); ok {
		text = f.Message
	}
	text, _, _ = strings.Cut(text, "\n")
	switch {
	case strings.HasPrefix(text, "expected bool"):
		return errors.New("must be true or false, such as latency < 300ms; " + text)
	case strings.Contains(text, "time.Duration"):
		text = strings.ReplaceAll(text, "time.Duration", "duration")
		return errors.New("is no valid expression: " + text + "; a duration has a unit, such as 300ms or 1.5s")
	}
	return errors.New("is no valid expression: " + text)
}

// constants computes what does not change: durations become values, names of headers lower-case.
type constants struct{}

func (constants) Visit(n *ast.Node) {
	switch t := (*n).(type) {
	case *ast.BuiltinNode:
		if len(t.Arguments) != 1 || t.Name != "duration" {
			return
		}
		if text, ok := t.Arguments[0].(*ast.StringNode); ok {
			if d, err := time.ParseDuration(text.Value); err == nil {
				ast.Patch(n, &ast.ConstantNode{Value: d})
			}
		}
	case *ast.MemberNode:
		root, ok := t.Node.(*ast.IdentifierNode)
		if key, isText := t.Property.(*ast.StringNode); ok && isText && root.Value == "headers" {
			key.Value = strings.ToLower(key.Value)
		}
	}
}

// apply turns a result that is up into down when an assertion is false, and into degraded when a degrade expression is.
func (r *rules) apply(s *seen) {
	v, err := r.values(s)
	for _, one := range r.assert {
		if reason := one.broken(v, err, s); reason != "" {
			s.down("assertion failed: %s (%s)", one.text, reason)
			return
		}
	}
	for _, one := range r.degrade {
		if reason := one.broken(v, err, s); reason != "" {
			s.Status = sdk.Degraded
			s.Message = fmt.Sprintf("degraded: not %s (%s)", one.text, reason)
			return
		}
	}
}

// values gathers what the expressions look at. The error says why json has no value.
func (r *rules) values(s *seen) (*vars, error) {
	v := &vars{Status: int(s.Code), Latency: s.Latency, IP: s.Address, Message: s.Message}
	if host, _, err := net.SplitHostPort(s.Address); err == nil {
		v.IP = host
	}
	var bad error
	if r.need&needBody != 0 {
		v.Body = string(s.body)
	}
	if r.need&needJSON != 0 {
		if err := json.Unmarshal(s.body, &v.JSON); err != nil {
			bad = fmt.Errorf("the body is no JSON: %w", err)
			if s.cut {
				bad = errors.New("the body is longer than max_body_bytes")
			}
		}
	}
	if r.need&needHeaders != 0 {
		v.Headers = make(map[string]string, len(s.header))
		for name, values := range s.header {
			v.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	if r.need&needCert != 0 && s.cert != nil {
		v.Cert.DaysLeft = daysLeft(s.cert.NotAfter, time.Now())
		v.Cert.Subject = s.cert.Subject.String()
		v.Cert.Issuer = s.cert.Issuer.String()
	}
	v.DNS.Answers, v.DNS.Rcode = s.answers, s.rcode
	if r.need&needMetrics != 0 {
		v.Metrics = make(map[string]float64, len(s.Metrics))
		for _, m := range s.Metrics {
			v.Metrics[m.Name] = m.Value
		}
	}
	return v, bad
}

// daysLeft is the number of whole days until a certificate ends, negative when it has ended.
func daysLeft(end, now time.Time) int {
	return int(math.Floor(end.Sub(now).Hours() / 24))
}

// broken returns why a rule does not hold, or "".
func (r *rule) broken(v *vars, badJSON error, s *seen) string {
	switch {
	case r.need&needJSON != 0 && badJSON != nil:
		return badJSON.Error()
	case r.need&needCert != 0 && s.cert == nil:
		return "no certificate was seen"
	}
	for _, p := range r.paths {
		if p.root == "metrics" && len(p.keys) > 0 {
			name, ok := p.keys[0].(string)
			if _, measured := v.Metrics[name]; ok && !measured {
				return "there is no metric " + name
			}
		}
	}
	result, err := vm.Run(r.program, v)
	if err != nil {
		reason := err.Error()
		if f, ok := errors.AsType[*file.Error](err); ok {
			reason = f.Message
		}
		if strings.HasPrefix(reason, "invalid operation: bool(") {
			reason = "it is not true or false"
		}
		return r.shown(v, mask(s.secrets, reason), s.secrets)
	}
	switch result {
	case true:
		return ""
	case false:
		return r.shown(v, "", s.secrets)
	}
	return r.shown(v, fmt.Sprintf("it is %s, not true or false", shownValue(result, s.secrets)), s.secrets)
}

// shown writes the values that the rule looked at, each cut to 100 characters.
func (r *rule) shown(v *vars, reason string, secrets []string) string {
	var parts []string
	if reason != "" {
		parts = append(parts, sdk.CleanText(reason, 200))
	}
	for _, p := range r.paths {
		parts = append(parts, p.text+" = "+shownValue(p.value(v), secrets))
		if len(parts) == 5 {
			break
		}
	}
	if len(parts) == 0 {
		return "it is false"
	}
	return strings.Join(parts, ", ")
}

const maxShown = 100

func shownValue(value any, secrets []string) string {
	switch t := value.(type) {
	case missing:
		return "missing"
	case time.Duration:
		return t.Round(10 * time.Microsecond).String()
	case string:
		return cutText(strconv.Quote(sdk.CleanText(mask(secrets, t), 4*maxShown)))
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "unprintable"
	}
	return cutText(sdk.CleanText(mask(secrets, string(text)), 4*maxShown))
}

// cutText cuts a text to 100 characters.
func cutText(text string) string {
	n := 0
	for i := range text {
		if n == maxShown-1 && len(text[i:]) > 4 {
			return text[:i] + "…"
		}
		n++
	}
	return text
}
