package service

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

const testSchema = `{"type":"object","properties":{
  "url":{"type":"string"},"password":{"type":"string","writeOnly":true},"pin":{"type":"integer","writeOnly":true},
  "token":{"type":"string","writeOnly":true,"x-generated":true},
  "headers":{"type":"object","additionalProperties":{"type":"string","writeOnly":true}},
  "basic":{"$ref":"#/$defs/basic"},
  "list":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string"},"key":{"type":"string","writeOnly":true}}}},
  "either":{"oneOf":[{"type":"string"},{"type":"object","properties":{"s":{"writeOnly":true}}}]},
  "whole":{"type":"object","writeOnly":true,"properties":{"a":{"type":"string"}}}},
  "$defs":{"basic":{"type":"object","properties":{"user":{"type":"string"},"password":{"type":"string","writeOnly":true}}}}}`

func testMask(t testing.TB) *mask {
	t.Helper()
	m, err := newMask(json.RawMessage(testSchema))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func same(t testing.TB, got json.RawMessage, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Error(diff)
	}
}

const (
	testConfig = `{"url":"u","password":"p","pin":12345678901234567890,"token":"","headers":{"A":"a","B":""},"basic":{"user":"u","password":"p"},
	  "list":[{"name":"n","key":"k"},{"name":"m"}],"either":{"s":"x"},"whole":{"a":"x","b":[1,true,null]}}`
	hiddenConfig = `{"url":"u","password":"••••","pin":"••••","token":"","headers":{"A":"••••","B":""},"basic":{"user":"u","password":"••••"},
	  "list":[{"name":"n","key":"••••"},{"name":"m"}],"either":{"s":"••••"},"whole":{"a":"••••","b":["••••",true,null]}}`
)

func TestHide(t *testing.T) {
	same(t, testMask(t).hide(json.RawMessage(testConfig)), hiddenConfig)
	var unknown *mask // of a kind that is no longer there: everything may be secret
	same(t, unknown.hide(json.RawMessage(`{"a":"x","b":[1,{"c":"d"}],"e":true}`)), `{"a":"••••","b":["••••",{"c":"••••"}],"e":true}`)
	same(t, testMask(t).hide(nil), `{}`)
	same(t, testMask(t).hide(json.RawMessage(`{broken`)), `{}`)
}

func TestRestore(t *testing.T) {
	m := testMask(t)
	got, faults := m.restore(json.RawMessage(hiddenConfig), json.RawMessage(testConfig))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	same(t, got, testConfig)
	if again, _ := m.restore(got, nil); string(again) != string(got) {
		t.Error("a configuration without masks was changed")
	}
	for config, field := range map[string]string{
		`{"password":"••••"}`:                          "config.password",
		`{"password":"\u2022\u2022\u2022\u2022"}`:      "config.password",
		`{"headers":{"New":"••••"}}`:                   "config.headers.New",
		`{"list":[{"key":"••••"}]}`:                    "config.list[0].key", // one item fewer than before: whose secret is it?
		`{"basic":{"password":"••••"},"whole":"••••"}`: "config.whole",
	} {
		stored := testConfig
		if field == "config.password" {
			stored = `{}`
		}
		_, faults := m.restore(json.RawMessage(config), json.RawMessage(stored))
		if len(faults) != 1 || faults[0].Field != field || faults[0].Value != nil {
			t.Errorf("%s: got %v, want a fault at %s", config, faults, field)
		}
	}
	// The same characters in a field that is no secret are only characters.
	if got, faults := m.restore(json.RawMessage(`{"url":"••••"}`), json.RawMessage(testConfig)); len(faults) > 0 || string(got) != `{"url":"••••"}` {
		t.Errorf("got %s, %v", got, faults)
	}
}

// Hiding and restoring any configuration gives it back, and the hidden form has no secret.
func TestHideThenRestore(t *testing.T) {
	m := testMask(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z]{0,8}`)
		config := map[string]any{"url": text.Draw(t, "url"), "password": text.Draw(t, "password")}
		headers := map[string]any{}
		for _, name := range rapid.SliceOfDistinct(rapid.StringMatching(`[A-Z]{1,3}`), rapid.ID[string]).Draw(t, "headers") {
			headers[name] = text.Draw(t, name)
		}
		config["headers"] = headers
		var list []any
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			list = append(list, map[string]any{"name": text.Draw(t, "name"), "key": text.Draw(t, "key")})
		}
		config["list"] = list
		stored, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		hidden := m.hide(stored)
		var tree map[string]any
		if err := json.Unmarshal(hidden, &tree); err != nil {
			t.Fatal(err)
		}
		if p := tree["password"]; p != "" && p != Masked {
			t.Fatalf("password is %v", p)
		}
		got, faults := m.restore(hidden, stored)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		var a, b any
		if json.Unmarshal(got, &a) != nil || json.Unmarshal(stored, &b) != nil || !cmp.Equal(a, b) {
			t.Fatalf("got %s, want %s", got, stored)
		}
	})
}

func TestFaultsShowNoSecrets(t *testing.T) {
	faults := monitor.Faults{
		{Field: "config.url", Value: "u"},
		{Field: "config.password", Value: "p"},
		{Field: "config.headers.A", Value: "p"},
		{Field: "config.passwrd", Value: "p"},
		{Field: "config.list[0].key", Value: "p"},
		{Field: "config.list[0].name", Value: "n"},
		{Field: "config.whole.a", Value: "p"},
		{Field: "config.basic", Value: "p"},
		{Field: "target", Value: "t"},
	}
	testMask(t).secretsUnder(faults)
	var shown []string
	for _, f := range faults {
		if f.Value != nil {
			shown = append(shown, f.Field)
		}
	}
	if diff := cmp.Diff([]string{"config.url", "config.list[0].name", "target"}, shown); diff != "" {
		t.Error(diff)
	}
}

func TestGenerate(t *testing.T) {
	m := testMask(t)
	made, chosen, err := m.generate(json.RawMessage(`{"url":"u"}`), nil)
	if err != nil || chosen {
		t.Fatal(chosen, err)
	}
	var first struct{ Token string }
	if err := json.Unmarshal(made, &first); err != nil || len(first.Token) != 43 {
		t.Fatalf("got %s, %v", made, err)
	}
	kept, chosen, err := m.generate(json.RawMessage(`{"token":""}`), made)
	if err != nil || chosen {
		t.Fatal(chosen, err)
	}
	same(t, kept, `{"token":"`+first.Token+`"}`)
	if _, chosen, err = m.generate(json.RawMessage(`{"token":"mine"}`), made); err != nil || !chosen {
		t.Error("a token that the user chose does not count as one", err)
	}
	if got, _, err := m.generate(json.RawMessage(`[1]`), nil); err != nil || string(got) != `[1]` {
		t.Errorf("got %s, %v", got, err)
	}
}

// FuzzMask feeds schemas and configurations that are not what they should be.
func FuzzMask(f *testing.F) {
	f.Add([]byte(testSchema), []byte(testConfig))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`{"a":"••••"}`))
	f.Fuzz(func(t *testing.T, schema, config []byte) {
		m, err := newMask(schema)
		if err != nil {
			return
		}
		hidden := m.hide(config)
		if json.Valid(config) && !json.Valid(hidden) {
			t.Fatalf("not JSON: %s", hidden)
		}
		m.restore(hidden, config)
		if _, _, err := m.generate(config, hidden); err != nil {
			t.Fatal(err)
		}
	})
}
