package service

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/schema"
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
	return maskOf(t, testSchema)
}

func maskOf(t testing.TB, text string) *mask {
	t.Helper()
	m := newMask(schema.Compile(json.RawMessage(text)))
	if m == nil {
		t.Fatal("the schema cannot be used")
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

// TestUndescribed hides what the schema does not speak of: a setting that was mistyped, or that an earlier version had.
func TestUndescribed(t *testing.T) {
	m := maskOf(t, `{"type":"object","properties":{"url":{"type":"string"},"labels":{"type":"object"},"list":{"type":"array","items":{"properties":{"a":{}}}}},
	  "patternProperties":{"^x-":{"writeOnly":true}}}`)
	same(t, m.hide(json.RawMessage(`{"url":"u","tokn":"t","old":{"key":"k"},"labels":{"a":"b"},"list":[{"a":"x","b":"y"}],"x-key":"k"}`)),
		`{"url":"u","tokn":"••••","old":{"key":"••••"},"labels":{"a":"b"},"list":[{"a":"x","b":"••••"}],"x-key":"••••"}`)
	const plain = `{ "url": "u", "labels": {"a": "<b>"} }`
	if got := m.hide(json.RawMessage(plain)); string(got) != plain {
		t.Errorf("a configuration without secrets became %s", got)
	}
	const was = `{"url":"u","tokn":"t"}`
	got, faults := m.restore(m.hide(json.RawMessage(was)), stored(was))
	if len(faults) > 0 {
		t.Error(faults)
	}
	same(t, got, was)
}

// TestMasksFollowTheRegistry sees that masks are those of the kinds and providers that are there at the moment.
func TestMasksFollowTheRegistry(t *testing.T) {
	kinds := check.NewRegistry(check.Options{})
	defer kinds.Close()
	providers, err := alert.NewRegistry(alert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := masks{kinds, providers}
	const config = `{"host":"h","token":"t","n":1}`
	put := func(schema string) {
		t.Helper()
		if err := kinds.Put(check.DefineRaw("redis", "", "", json.RawMessage(schema), nil)); err != nil {
			t.Fatal(err)
		}
		if err := providers.Put(alert.DefineRaw("redis", "", json.RawMessage(schema), nil)); err != nil {
			t.Fatal(err)
		}
	}
	both := func(want string) {
		t.Helper()
		same(t, now.kind("redis").hide(json.RawMessage(config)), want)
		same(t, now.provider("redis").hide(json.RawMessage(config)), want)
	}
	const all = `{"host":"••••","token":"••••","n":"••••"}`
	both(all)
	put(`{"type":"object","properties":{"host":{},"token":{"writeOnly":true},"n":{}}}`)
	both(`{"host":"h","token":"••••","n":1}`)
	put(`{"type":"object","properties":{"host":{},"n":{"writeOnly":true}}}`) // a later version that has no token any more
	both(`{"host":"h","token":"••••","n":"••••"}`)
	kinds.Remove("redis")
	providers.Remove("redis")
	both(all)
	if got := now.kind("push").made(); !cmp.Equal(got, []string{"token"}) {
		t.Errorf("of a push monitor the server makes up %v", got)
	}
	same(t, now.kind("http").hide(json.RawMessage(`{"method":"GET","headers":{"A":"b"},"json":{"a":["b"]}}`)), `{"method":"GET","headers":{"A":"••••"},"json":{"a":["b"]}}`)
	same(t, now.provider("webhook").hide(json.RawMessage(`{"url":"http://h/","method":"PUT","headers":{"A":"b"}}`)), `{"url":"••••","method":"PUT","headers":{"A":"••••"}}`)
}

func stored(config string) earlier { return earlier{config: json.RawMessage(config)} }

func TestRestore(t *testing.T) {
	m := testMask(t)
	got, faults := m.restore(json.RawMessage(hiddenConfig), stored(testConfig))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	same(t, got, testConfig)
	if again, _ := m.restore(got, earlier{}); string(again) != string(got) {
		t.Error("a configuration without masks was changed")
	}
	for config, field := range map[string]string{
		`{"password":"••••"}`:                     "config.password",
		`{"password":"\u2022\u2022\u2022\u2022"}`: "config.password",
		`{"headers":{"New":"••••"}}`:              "config.headers.New",
		`{"list":[{"key":"••••"}]}`:               "config.list[0].key", // one item fewer than before: whose secret is it?
		`{"whole":"••••"}`:                        "config.whole",
	} {
		was := testConfig
		if field == "config.password" {
			was = `{}`
		}
		_, faults := m.restore(json.RawMessage(config), stored(was))
		if len(faults) != 1 || faults[0].Field != field || faults[0].Value != nil {
			t.Errorf("%s: got %v, want a fault at %s", config, faults, field)
		}
	}
	// The same characters in a field that is no secret are only characters.
	if got, faults := m.restore(json.RawMessage(`{"url":"••••"}`), stored(testConfig)); len(faults) > 0 || string(got) != `{"url":"••••"}` {
		t.Errorf("got %s, %v", got, faults)
	}
}

// A secret is kept only while all else is as it was.
func TestRestoreKeepsNothingThatMoved(t *testing.T) {
	m := maskOf(t, `{"type":"object","properties":{"url":{"type":"string"},"mode":{"type":"string","default":"soft"},"n":{"type":"integer","default":30},
	  "list":{"type":"array","items":{"type":"object","properties":{"at":{"type":"string"},"key":{"type":"string","writeOnly":true}}}},
	  "basic":{"type":"object","properties":{"user":{"type":"string"}}},"tags":{"type":"array"},
	  "token":{"type":"string","writeOnly":true,"x-generated":true},"key":{"type":"string","writeOnly":true},"pin":{"type":"string","writeOnly":true}}}`)
	const was = `{"url":"u","token":"t","key":"k","pin":"p","list":[{"at":"a","key":"1"},{"at":"b","key":"2"}]}`
	const list = `"list":[{"at":"a","key":"••••"},{"at":"b","key":"••••"}]`
	for config, why := range map[string]string{
		`{"url":"u","token":"••••","key":"••••","pin":"••••",` + list + `}`:                                       "",
		`{"url":"u","mode":"soft","n":30,"basic":{},"tags":[],"token":"","key":"••••","pin":"••••",` + list + `}`: "",
		`{"url":"u","token":"other","key":"••••","pin":"••••",` + list + `}`:                                      "",
		`{"url":"v","key":"••••","pin":"••••",` + list + `}`:                                                      "config.url",
		`{"url":"u","mode":"hard","n":31,"key":"••••","pin":"••••",` + list + `}`:                                 "config.mode, config.n",
		`{"url":"u","mode":"","key":"••••","pin":"••••",` + list + `}`:                                            "config.mode",
		`{"url":"u","basic":{"user":"x"},"key":"••••","pin":"••••",` + list + `}`:                                 "config.basic.user",
		`{"url":"u","key":"••••",` + list + `}`:                                                                   "config.pin",
		`{"url":"u","key":"••••","pin":"p",` + list + `}`:                                                         "config.pin", // the right one: a guess is not rewarded
		`{"url":"u","key":"••••","pin":"••••","list":[{"at":"b","key":"••••"},{"at":"a","key":"••••"}]}`:          "config.list",
		`{"url":"u","key":"••••","pin":"••••"}`:                                                                   "config.list",
		`{"url":"u","key":"••••","pin":"••••","extra":{"a":1},` + list + `}`:                                      "config.extra.a",
		`{"url":"u","token":"••••","key":"k2","pin":"p2","list":[{"at":"c","key":"3"}]}`:                          "", // nothing is kept
	} {
		_, faults := m.restore(json.RawMessage(config), stored(was))
		if why == "" && len(faults) > 0 || why != "" && len(faults) == 0 {
			t.Errorf("%s: got %v", config, faults)
		}
		for _, f := range faults {
			if want := "must be sent again, because " + why + " changed"; f.Message != want || f.Value != nil || f.Field == "config.token" {
				t.Errorf("%s: got %v, want %q", config, f, want)
			}
		}
	}
	masked := json.RawMessage(`{"url":"u","token":"••••","key":"••••","pin":"••••",` + list + `}`)
	_, faults := m.restore(masked, earlier{config: json.RawMessage(was), moved: []string{"the target"}})
	if len(faults) != 4 || faults[0].Message != "must be sent again, because the target changed" {
		t.Errorf("got %v", faults)
	}
	if _, faults := m.restore(masked, earlier{moved: []string{"the kind"}}); len(faults) != 5 {
		t.Errorf("of another kind: got %v", faults)
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
		got, faults := m.restore(hidden, earlier{config: stored})
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
	f.Add([]byte(`{"type":"object","properties":{"a":{"$ref":"#"}}}`), []byte(`{"a":"••••"}`))
	f.Fuzz(func(t *testing.T, text, config []byte) {
		m := newMask(schema.Compile(text))
		hidden := m.hide(config)
		if json.Valid(config) && !json.Valid(hidden) {
			t.Fatalf("not JSON: %s", hidden)
		}
		m.restore(hidden, earlier{config: config})
		if _, _, err := m.generate(config, hidden); err != nil {
			t.Fatal(err)
		}
	})
}
