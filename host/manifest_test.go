package host

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

var update = flag.Bool("update", false, "write the golden files")

const published = "../docs/plugin-manifest.schema.json"

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; if the change is meant, run the test with -update\n%s", path, diff)
	}
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s finds nothing: %v", pattern, err)
	}
	return found
}

func TestManifest(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/manifest/good/redis.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest("redis.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	want := Manifest{
		Manifest: sdk.Manifest{
			API: 1, Name: "redis", Version: "1.2.0", Summary: "PING, role and memory of a Redis server", License: "MIT",
			Provides: []string{"check"}, Runtime: "wasm", Entry: sdk.Files{One: "redis.wasm"},
			SHA256:      sdk.Files{One: "0123456789012345678901234567890123456789012345678901234567890123"},
			Target:      sdk.ManifestTarget{Example: "redis.example.com:6379", Doc: "host:port"},
			Config:      json.RawMessage(`{"additionalProperties":false,"properties":{"db":{"default":0,"minimum":0,"type":"integer"},"password":{"type":"string","writeOnly":true}},"type":"object"}`),
			Limits:      sdk.Limits{Memory: 32 * sdk.MiB, Timeout: sdk.Duration(10 * time.Second), Concurrency: 8},
			Permissions: []sdk.Permission{{Allow: "tcp://{target}", Reason: "talks to the server that it checks"}},
		},
		Asks: []reach.Permission{{Scheme: "tcp", Target: true}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestGoodManifests(t *testing.T) {
	t.Parallel()
	schema := publishedSchema(t)
	for _, path := range files(t, "testdata/manifest/good/*.yaml") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(path, data); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := schema.Validate(instance(t, data)); err != nil {
			t.Errorf("%s does not fit the published schema: %v", path, err)
		}
	}
}

// TestBadManifests compares the whole text of the error with the file beside the manifest.
func TestBadManifests(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "testdata/manifest/bad/*.yaml") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseManifest(filepath.Base(path), data)
		if err == nil {
			t.Errorf("%s was read", path)
			continue
		}
		golden(t, strings.TrimSuffix(path, ".yaml")+".txt", []byte(err.Error()+"\n"))
	}
}

func TestManifestBounds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"brackets":    "config: " + strings.Repeat("[", 100_000),
		"braces":      "config: " + strings.Repeat("{a: ", 100_000),
		"dashes":      strings.Repeat("- ", 2000) + "a",
		"indentation": deep(200),
		"a long file": strings.Repeat("# a\n", 100_000),
		"many lines":  strings.Repeat("x: 1\n", 2001),
		"many faults": strings.Repeat("x: 1\n", 1500),
		"nothing":     "",
	} {
		_, err := ParseManifest("m", []byte(text))
		if err == nil || len(err.Error()) > 20_000 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func deep(levels int) string {
	var text strings.Builder
	for i := range levels {
		text.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return text.String()
}

func publishedSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("manifest", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("manifest")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// instance reads YAML as anyone who uses the published schema would.
func instance(t testing.TB, data []byte) any {
	t.Helper()
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestManifestSchema(t *testing.T) {
	schema, err := ManifestSchema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, published, schema)
	compiled := publishedSchema(t)
	for _, text := range []string{
		`{}`,
		`{api: 2, name: a, version: 1.0.0, summary: s, provides: [check], runtime: wasm, entry: a.wasm}`,
		`{api: 1, name: A, version: 1.0.0, summary: s, provides: [check], runtime: wasm, entry: a.wasm}`,
		`{api: 1, name: a, version: 1.0.0, summary: s, provides: [], runtime: wasm, entry: a.wasm}`,
		`{api: 1, name: a, version: 1.0.0, summary: s, provides: [check], runtime: java, entry: a.wasm}`,
		`{api: 1, name: a, version: 1.0.0, summary: s, provides: [check], runtime: wasm, entry: a.wasm, script: a.js}`,
		`{api: 1, name: a, version: 1.0.0, summary: s, provides: [check], runtime: wasm, entry: a.wasm, limits: {memory: 5}}`,
		`{api: 1, name: a, version: 1.0.0, summary: s, provides: [check], runtime: wasm, entry: a.wasm, more: 1}`,
		`{api: 1, name: a, version: 1.0.0, summary: s, provides: [check], runtime: wasm, entry: a.wasm, permissions: [{}]}`,
	} {
		if err := compiled.Validate(instance(t, []byte(text))); err == nil {
			t.Errorf("%s fits the published schema", text)
		}
		if _, err := ParseManifest("m", []byte(text)); err == nil {
			t.Errorf("%s was read", text)
		}
	}
}

// TestLimitTags holds the tags that the schema is made from to the constants that the checks use.
func TestLimitTags(t *testing.T) {
	t.Parallel()
	want := map[string][3]string{
		"memory":      {sdk.MinMemory.String(), sdk.DefaultMemory.String(), sdk.MaxMemory.String()},
		"timeout":     {sdk.MinTimeout.String(), sdk.DefaultTimeout.String(), sdk.MaxTimeout.String()},
		"concurrency": {"1", "8", "64"},
	}
	limits := reflect.TypeFor[sdk.Limits]()
	for i := range limits.NumField() {
		f := limits.Field(i)
		if got := [3]string{f.Tag.Get("min"), f.Tag.Get("default"), f.Tag.Get("max")}; got != want[jsonName(f)] {
			t.Errorf("%s: tags %v, constants %v", f.Name, got, want[jsonName(f)])
		}
	}
}

func FuzzManifest(f *testing.F) {
	for _, pattern := range []string{"testdata/manifest/good/*.yaml", "testdata/manifest/bad/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range found {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest("m", data)
		if err != nil {
			return
		}
		if m.API != 1 || !pluginName.MatchString(m.Name) || len(m.Asks) != len(m.Permissions) || m.Entry.IsZero() == (m.Script == "") || m.Limits != m.Limits.WithDefaults() {
			t.Errorf("%q was read as %+v", data, m)
		}
		if _, err := json.Marshal(m.Manifest); err != nil {
			t.Errorf("%q cannot be written: %v", data, err)
		}
	})
}
