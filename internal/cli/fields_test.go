package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/tocsinhq/tocsin/engine/check"
)

const sample = `{"type":"object","properties":{
 "method":{"type":"string","description":"The method.","default":"GET","enum":["GET","HEAD"]},
 "follow":{"type":"boolean"},"count":{"type":"integer"},"ratio":{"type":"number"},
 "codes":{"type":"array","items":{"type":"string"}},
 "headers":{"type":"object","additionalProperties":{"type":"string"}},
 "json":{}, "timeout":{"type":"string"},
 "tls":{"type":["object","null"],"properties":{"ca_file":{"type":"string"},"insecure":{"type":"boolean"}}}}}`

func sampleFields(t *testing.T) []field {
	t.Helper()
	fields, err := fieldsOf(json.RawMessage(sample))
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestFields(t *testing.T) {
	var got []string
	for _, f := range sampleFields(t) {
		got = append(got, f.flag()+" "+f.kind)
	}
	want := []string{"codes strings", "count integer", "follow boolean", "headers map", "json json", "method string", "ratio number", "timeout string", "tls-ca-file string", "tls-insecure boolean"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := fieldsOf(json.RawMessage(`[]`)); err == nil {
		t.Error("a schema that is no object is taken")
	}
}

func TestAssign(t *testing.T) {
	config := map[string]any{}
	err := assign(config, sampleFields(t), []string{
		"method=HEAD", "follow=true", "count=3", "ratio=0.5", "codes=200", "codes=301", "headers.Accept=a=b", "headers.X-A.B=c",
		`json={"a":[1]}`, "tls.ca_file=/x", "unknown=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"codes":["200","301"],"count":3,"follow":true,"headers":{"Accept":"a=b","X-A.B":"c"},"json":{"a":[1]},"method":"HEAD","ratio":0.5,"tls":{"ca_file":"/x"},"unknown":"1"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"method", "=x", "count=x", "follow=yes", "ratio=x", "json={"} {
		if err := assign(map[string]any{}, sampleFields(t), []string{bad}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestKindFlags has two kinds that share a flag, and a flag whose name the command uses itself.
func TestKindFlags(t *testing.T) {
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	set.String("timeout", "", "the command's own")
	k := kindFlags{flags: map[string]*textFlag{}, kinds: map[string]map[string]*field{}}
	k.addKind(set, "one", sampleFields(t), false)
	other, err := fieldsOf(json.RawMessage(`{"properties":{"method":{"type":"integer"},"only":{"type":"string"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	k.addKind(set, "two", other, false)
	if err := set.Parse([]string{"--method", "HEAD", "--follow", "--codes", "a", "--codes", "b", "--headers", "A=1", "--config-timeout", "3s", "--tls-insecure=false", "--timeout", "9s"}); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	if err := k.config("one", config); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"codes":["a","b"],"follow":true,"headers":{"A":"1"},"method":"HEAD","timeout":"3s","tls":{"insecure":false}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if err := k.config("two", map[string]any{}); err == nil {
		t.Error("flags of another kind are taken")
	}
}

// TestEveryKindHasFlags holds the registry to what the command line can show.
func TestEveryKindHasFlags(t *testing.T) {
	registry := check.NewRegistry(check.Options{})
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, kind := range registry.Kinds() {
		fields, err := fieldsOf(kind.Schema())
		if err != nil {
			t.Fatalf("%s: %v", kind.Name, err)
		}
		set := pflag.NewFlagSet(kind.Name, pflag.ContinueOnError)
		k := kindFlags{flags: map[string]*textFlag{}, kinds: map[string]map[string]*field{}}
		k.addKind(set, kind.Name, fields, true)
		for name, f := range k.kinds[kind.Name] {
			if f.doc == "" || strings.HasPrefix(name, "config-") && name != "config-json" {
				t.Errorf("%s: --%s: doc %q", kind.Name, name, f.doc)
			}
		}
	}
}

func FuzzPairs(f *testing.F) {
	f.Add("a=b")
	f.Add("=")
	f.Fuzz(func(t *testing.T, text string) {
		pairs, err := pairsOf([]string{text})
		if err != nil {
			return
		}
		for key, value := range pairs {
			if key+"="+value != text {
				t.Fatalf("%q became %q", text, key+"="+value)
			}
		}
	})
}
