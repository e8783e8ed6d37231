package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// configOf returns a kind's defaults as JSON, with what the server would make up.
func configOf(t testing.TB, k Kind) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(k.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fieldsOf(reflect.TypeOf(k.Config)) {
		if f.generate {
			text = append(bytes.TrimSuffix(text, []byte("}")), fmt.Sprintf(`,%q:"generated-token-0123456789"}`, f.name)...)
			text = bytes.Replace(text, []byte("{,"), []byte("{"), 1)
		}
	}
	return text
}

// TestEveryKind holds each kind to what the registry promises.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	var names []string
	for _, k := range r.Kinds() {
		names = append(names, k.Name)
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			config := configOf(t, k)
			if k.Doc == "" || k.Target == "" || len(k.Variables()) == 0 {
				t.Errorf("no doc, example target or variables: %+v", k)
			}
			for _, f := range fieldsOf(reflect.TypeOf(k.Config)) {
				if f.name == "" || !strings.HasSuffix(f.doc, ".") {
					t.Errorf("field %q has no documentation that is a sentence: %q", f.name, f.doc)
				}
			}
			for _, v := range k.Variables() {
				if _, err := compileRule(k.variables, v.Example); err != nil {
					t.Errorf("the example %q of variable %s: %v", v.Example, v.Name, err)
				}
			}
			// The defaults round-trip, and are the same as no config.
			if faults := decodeConfig(fieldsOf(reflect.TypeOf(k.Config)), config, reflect.New(reflect.TypeOf(k.Config)).Interface()); faults != nil {
				t.Errorf("the defaults are refused: %v", faults)
			}
			again := reflect.New(reflect.TypeOf(k.Config))
			text, err := json.Marshal(k.Config)
			if err != nil {
				t.Fatal(err)
			}
			decodeConfig(fieldsOf(reflect.TypeOf(k.Config)), text, again.Interface())
			if back, err := json.Marshal(again.Elem().Interface()); err != nil || !bytes.Equal(back, text) {
				t.Errorf("the defaults %s are read as %s (%v)", text, back, err)
			}
			checker, err := r.New(Spec{Kind: k.Name, Target: k.Target, Config: config})
			if err != nil {
				t.Fatalf("the example target and the defaults are refused: %v", err)
			}
			// An unknown field is refused with its path.
			bad := append(bytes.TrimSuffix(slices.Clone(config), []byte("}")), `,"no_such_field":1}`...)
			_, err = r.New(Spec{Kind: k.Name, Target: k.Target, Config: bad})
			var faults monitor.Faults
			if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != "config.no_such_field" {
				t.Errorf("an unknown field gives %v", err)
			}
			// A bad expression is refused with its place.
			_, err = r.New(Spec{Kind: k.Name, Target: k.Target, Config: config, Assert: []string{"latency < 1s", "1 +"}, Degrade: []string{"nothing"}})
			if !errors.As(err, &faults) || len(faults) != 2 || faults[0].Field != "assert[1]" || faults[1].Field != "degrade[0]" {
				t.Errorf("bad expressions give %v", err)
			}
			// A context that has ended ends the check at once, without a result.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			start := time.Now()
			if _, err := checker.Check(ctx, sdk.CheckRequest{Target: k.Target, Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled check gives %v", err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("a cancelled check took %s", took)
			}
			testSchema(t, k, config)
		})
	}
	if diff := cmp.Diff([]string{"dns", "http", "icmp", "push", "tcp", "tls"}, names); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
}

func testSchema(t *testing.T, k Kind, config json.RawMessage) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(k.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("kind.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("kind.json")
	if err != nil {
		t.Fatalf("the schema cannot be used: %v", err)
	}
	if schema.DraftVersion != 2020 {
		t.Errorf("the schema is of draft %d", schema.DraftVersion)
	}
	for text, want := range map[string]bool{string(config): true, "{}": true, `{"no_such_field":1}`: false} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); (err == nil) != want {
			t.Errorf("the schema says about %s: %v", text, err)
		}
	}
	for _, f := range fieldsOf(reflect.TypeOf(k.Config)) {
		property := schema.Properties[f.name]
		if property == nil || property.Description == "" || property.WriteOnly != f.secret {
			t.Errorf("property %s: %+v", f.name, property)
		}
	}
}

func TestUnknownKind(t *testing.T) {
	t.Parallel()
	_, err := newRegistry(t).New(Spec{Kind: "htpp", Target: "x"})
	var faults monitor.Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != "kind" {
		t.Fatalf("got %v", err)
	}
	if want := "kind: is unknown; known are dns, http, icmp, push, tcp, tls (got htpp)"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

type echoConfig struct {
	Say    string `json:"say" doc:"What is said." enum:"up,down"`
	Number int    `json:"number" doc:"A metric." min:"0" max:"10"`
}

type echoing struct{ config echoConfig }

func (e echoing) Check(context.Context, sdk.CheckRequest) (sdk.Result, error) {
	if e.config.Say == "down" {
		return sdk.Result{}, fmt.Errorf("could not be made: %w", fs.ErrNotExist)
	}
	return sdk.Result{Status: sdk.Up, Message: "fine", Code: 7, Metrics: []sdk.Metric{{Name: "n", Value: float64(e.config.Number)}}}, nil
}

// TestFurtherKind uses a kind from outside the package, with expressions over its results.
func TestFurtherKind(t *testing.T) {
	t.Parallel()
	kind := Define("echo", "Says what it is told.", "x", echoConfig{Say: "up"}, func(target string, c echoConfig) (Checker, error) {
		if target == "" {
			return nil, monitor.Faults{{Field: "target", Message: "must not be empty"}, {Field: "number", Message: "is too odd"}}
		}
		return echoing{c}, nil
	})
	r := NewRegistry(Options{Kinds: []Kind{kind}})
	defer r.Close()
	result := mustCheck(t, r, Spec{Kind: "echo", Target: "x", Config: []byte(`{"number":3}`), Assert: []string{"status == 7", "metrics.n == 3"}, Degrade: []string{"metrics.n > 3"}})
	if result.Status != sdk.Degraded || result.Message != "degraded: not metrics.n > 3 (metrics.n = 3)" {
		t.Errorf("got %+v", result)
	}
	result = mustCheck(t, r, Spec{Kind: "echo", Target: "x", Assert: []string{"metrics.other < 3"}})
	if result.Status != sdk.Down || result.Message != "assertion failed: metrics.other < 3 (there is no metric other)" {
		t.Errorf("got %+v", result)
	}
	if _, err := tryCheck(t, r, Spec{Kind: "echo", Target: "x", Config: []byte(`{"say":"down"}`), Assert: []string{"true"}}, testTimeout); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an error of the checker became %v", err)
	}
	_, err := r.New(Spec{Kind: "echo", Config: []byte(`{"number":11,"say":"x"}`)})
	want := "config.number: must be between 0 and 10 (got 11); config.say: must be one of up, down (got x); target: must not be empty"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestSharing sees that equal settings are parsed once and that two registries have nothing in common.
func TestSharing(t *testing.T) {
	t.Parallel()
	plan := func(r *Registry, config string) *httpPlan {
		c, err := r.New(Spec{Kind: "http", Target: "http://192.0.2.1/", Config: []byte(config)})
		if err != nil {
			t.Fatal(err)
		}
		return c.(*probing).prober.(*httpCheck).plan
	}
	a, b := newRegistry(t), newRegistry(t)
	one := plan(a, `{}`)
	if two := plan(a, `{"method":"GET"}`); one != two {
		t.Error("equal settings were parsed twice")
	}
	if two := plan(a, `{"method":"HEAD"}`); one == two {
		t.Error("different settings share a plan")
	}
	if two := plan(b, `{}`); one == two {
		t.Error("two registries share a plan")
	}
}

func FuzzNew(f *testing.F) {
	for _, k := range []string{"http", "tcp", "tls", "dns", "icmp", "push"} {
		f.Add(k, "example.org:443", `{"method":"GET","headers":{"a":"b"},"json":{"a":[1,null]}}`, "status == 200")
		f.Add(k, "http://example.org/", `{"ca":"x","redirects":-1,"redirects":1e9,"basic":{"username":"a"},"grace":"1h"}`, "latency < 300ms")
		f.Add(k, "[::1]:1", `[[[[{"a":}`, "any(json.a, # > 1)")
	}
	r := newRegistry(f)
	f.Fuzz(func(t *testing.T, kind, target, config, rule string) {
		_, err := r.New(Spec{Kind: kind, Target: target, Config: []byte(config), Assert: []string{rule}})
		var faults monitor.Faults
		if err != nil && (!errors.As(err, &faults) || len(faults) == 0) {
			t.Errorf("the error is no list of faults: %v", err)
		}
		for _, fault := range faults {
			if fault.Message == "" || fault.Field == "" {
				t.Errorf("an empty fault in %v", err)
			}
		}
	})
}
