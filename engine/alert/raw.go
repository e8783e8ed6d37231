package alert

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/sdk"
)

// raw is what a provider has in place of fields and Build when its configuration is described by somebody else's schema.
type raw struct {
	text   json.RawMessage
	schema *schema.Schema // nil when it is broken
	broken error
	build  func(config json.RawMessage) (Notifier, error)
}

// DefineRaw makes a provider whose configuration is described by a JSON Schema (draft 2020-12) that somebody else wrote; an empty
// one has no settings. A configuration is held against the schema and handed on exactly as it was entered, without defaults; one
// that is left out is {}. An error of build is monitor.Faults with the fields "provider" and "config.…"; any other error is why
// the provider cannot be used at all, and becomes a fault of "provider". A schema that cannot be used is told by New, and by
// Registry.Put.
func DefineRaw(name, doc string, schemaText json.RawMessage, build func(config json.RawMessage) (Notifier, error)) Provider {
	r := &raw{text: schemaText, build: build}
	if r.schema, r.broken = schema.Compile(schemaText); r.broken == nil {
		r.text = r.schema.Text()
	}
	return Provider{Name: name, Doc: doc, raw: r}
}

func (r *raw) new(provider string, config json.RawMessage) (Notifier, error) {
	var faults monitor.Faults
	if r.broken != nil {
		faults.Add("provider", nil, "cannot be used, because the schema of its configuration %v", r.broken)
		return nil, faults
	}
	if len(bytes.TrimSpace(config)) == 0 {
		config = json.RawMessage("{}")
	}
	if faults.Under("config", r.schema.Validate(config)); len(faults) > 0 {
		return nil, faults
	}
	secrets := r.schema.Secrets(config)
	n, err := r.build(config)
	if err == nil {
		return &guarded{provider: provider, next: n, secrets: secrets}, nil
	}
	clean := func(text string) string { return sdk.CleanText(mask(text, secrets), maxError) }
	var found monitor.Faults
	if !errors.As(err, &found) {
		faults.Add("provider", nil, "%s", clean(err.Error()))
		return nil, faults
	}
	for _, f := range found {
		f.Message = clean(f.Message)
		if text, ok := f.Value.(string); ok {
			f.Value = clean(text)
		}
		faults = append(faults, f)
	}
	return nil, faults
}

// Shape returns the schema in the form that tells where secrets are. The error says why the schema cannot be used.
func (p Provider) Shape() (*schema.Schema, error) {
	switch {
	case p.raw != nil:
		return p.raw.schema, p.raw.broken
	case p.shape != nil:
		return p.shape()
	}
	return schema.Compile(p.Schema())
}
