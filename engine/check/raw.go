package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/sdk"
)

// SelfTimed is a Checker that keeps the time of its checks by itself: it gets the request's Timeout, and its context has no
// deadline. What it returns counts, however late; it must return in the end, and soon when its context is cancelled.
type SelfTimed interface {
	Checker
	// KeepsTime does nothing; it tells such a Checker from others.
	KeepsTime()
}

// DefineRaw makes a kind whose config is described by a JSON Schema (draft 2020-12) that somebody else wrote; an empty one has
// no settings. A config is held against the schema and handed on exactly as it was entered, without defaults; one that is left
// out is {}. An error of build is monitor.Faults with the fields "kind", "target" and "config.…"; any other error is why the kind
// cannot be used at all, and becomes a fault of "kind".
//
// The kind's checkers are SelfTimed, and the one that build returns gets the whole request, State and Config with it. What it
// says never shows a secret of the config. A schema that cannot be used is told by New, and by Registry.Put.
func DefineRaw(name, doc, exampleTarget string, schemaText json.RawMessage,
	build func(target string, config json.RawMessage) (Checker, error),
) Kind {
	compiled, broken := schema.Compile(schemaText)
	text := schemaText
	if broken == nil {
		text = compiled.Text()
	}
	return Kind{
		Name: name, Doc: doc, Target: exampleTarget, variables: resultVariables(), raw: text,
		shape: func() (*schema.Schema, error) { return compiled, broken },
		New: func(target string, config json.RawMessage) (Checker, error) {
			var faults monitor.Faults
			if broken != nil {
				faults.Add("kind", nil, "cannot be used, because the schema of its config %v", broken)
				return nil, faults
			}
			config = orEmpty(config)
			if faults.Under("config", compiled.Validate(config)); len(faults) > 0 {
				return nil, faults
			}
			checker, err := build(target, config)
			secrets := compiled.Secrets(config)
			if err != nil {
				return nil, rawFaults(err, secrets)
			}
			return &outside{checker: checker, secrets: secrets}, nil
		},
	}
}

// orEmpty is the config that is meant where none was written.
func orEmpty(config json.RawMessage) json.RawMessage {
	if len(bytes.TrimSpace(config)) == 0 {
		return json.RawMessage("{}")
	}
	return config
}

// rawFaults makes faults without secrets of what a raw kind's build returned.
func rawFaults(err error, secrets []string) error {
	var faults, found monitor.Faults
	if !errors.As(err, &found) {
		faults.Add("kind", nil, "%s", clean(secrets, err.Error()))
		return faults
	}
	for _, f := range found {
		f.Message = clean(secrets, f.Message)
		if text, ok := f.Value.(string); ok {
			f.Value = clean(secrets, text)
		}
		faults = append(faults, f)
	}
	return faults
}

// clean makes a text from outside fit for storing: one line of it, without secrets.
func clean(secrets []string, text string) string {
	return sdk.CleanText(mask(secrets, text), maxMessage)
}

// outside is the Checker of a raw kind: it applies the monitor's expressions to what somebody else's code says, and hides the
// config's secrets in it.
type outside struct {
	checker Checker
	rules   *rules
	secrets []string
}

var (
	_ SelfTimed = (*outside)(nil)
	_ ruled     = (*outside)(nil)
)

// KeepsTime marks it as SelfTimed.
func (*outside) KeepsTime() {}

func (o *outside) setRules(r *rules) { o.rules = r }

// Check makes one check. See Checker.
func (o *outside) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	req.Config = orEmpty(req.Config)
	result, err := o.checker.Check(ctx, req)
	if err != nil {
		if text := clean(o.secrets, err.Error()); text != err.Error() {
			return sdk.Result{}, &hidden{text: text, err: err}
		}
		return sdk.Result{}, err
	}
	result.Address = clean(o.secrets, result.Address)
	for i := range result.Metrics {
		m := &result.Metrics[i]
		m.Name, m.Unit = mask(o.secrets, m.Name), mask(o.secrets, m.Unit)
	}
	s := seen{Result: result, secrets: o.secrets}
	if o.rules != nil && (s.Status == sdk.Up || s.Status == sdk.Degraded) {
		s.need = o.rules.need
		o.rules.apply(&s)
	}
	s.Message = clean(o.secrets, s.Message)
	return s.Result, nil
}
