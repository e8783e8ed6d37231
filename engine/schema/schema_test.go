package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func compile(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := Compile(json.RawMessage(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCompile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                  "",
		`{"type":"object"}`: "",
		`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}`: "",
		`{"type":"object","properties":{"a":{"format":"no-such-format"}}}`:           "", // an annotation
		`{"type":"object","properties":{"child":{"$ref":"#"}}}`:                      "", // it goes deeper
		`{"type":"object","properties":{"a":{"minimum":1e999}}}`:                     "has a number that a float64 cannot hold",
		`{"type":"object","enum":[{"a":1e-999999}]}`:                                 "has a number that a float64 cannot hold",
		`{`:                 "is no JSON",
		`[]`:                "must be a JSON Schema with type: object",
		`true`:              "must be a JSON Schema with type: object",
		`{"type":"string"}`: "must be a JSON Schema with type: object",
		`{"type":"object","properties":{"a":{"type":"txt"}}}`:                                                                   "properties: a: type: ",
		`{"type":"object","properties":{"a":{"pattern":"("}}}`:                                                                  "is not valid regex",
		`{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}`:                                                    `"file:///etc/passwd" is outside of the schema`,
		`{"type":"object","properties":{"a":{"$ref":"https://example.com/a"}}}`:                                                 "outside of the schema",
		`{"type":"object","properties":{"a":{"$ref":"#/$defs/none"}}}`:                                                          "is no JSON Schema",
		`{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}`:                                                 "is of draft 7",
		`{"type":"object","properties":{"a":{"$id":"http://x.example/y","$schema":"http://json-schema.org/draft-07/schema#"}}}`: "is of draft 7",
		`{"type":"object","$ref":"https://json-schema.org/draft/2020-12/schema"}`:                                               "must not use $dynamicRef",
		`{"type":"object","allOf":[{"$ref":"#"}]}`:                                                                              "refers to itself in a circle at the root",
		`{"type":"object","$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"not":{"$ref":"#/$defs/a"}}}}`:  "in a circle at /$defs/",
		`{"type":"object","enum":[` + strings.Repeat("0,", maxText) + `0]}`:                                                     "is longer than",
		`{"type":"object","allOf":[` + strings.Repeat(`{},`, maxParts) + `{}]}`:                                                 "has more than 2000 parts",
	} {
		_, err := Compile(json.RawMessage(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.200s: got %v, want %q", text, err, want)
		}
		if typed := (*Error)(nil); err != nil && !errors.As(err, &typed) {
			t.Errorf("%.200s: %T", text, err)
		}
	}
	var invalid *Error
	_, err := Compile(json.RawMessage(`{"type":"object","properties":{"a":{"type":"txt"}}}`))
	if !errors.As(err, &invalid) || !slices.Equal(invalid.Path, []string{"properties", "a", "type"}) {
		t.Errorf("the place of the fault is %v", invalid)
	}
}

const server = `{"type":"object","required":["host","token"],"additionalProperties":false,"properties":{
  "host":{"type":"string","minLength":1,"maxLength":5,"pattern":"^[a-z]*$"},
  "port":{"type":"integer","minimum":1,"maximum":65535},
  "rate":{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1},
  "step":{"multipleOf":0.5},
  "mode":{"enum":["fast","safe",3]},
  "on":{"type":"boolean"},
  "one":{"const":"x"},
  "token":{"type":"string","writeOnly":true,"minLength":3,"enum":["SECRET","other"]},
  "pin":{"type":"integer","writeOnly":true,"maximum":9},
  "list":{"type":"array","minItems":1,"maxItems":3,"uniqueItems":true,"items":{"type":["string","null"]},"contains":{"const":"a"},"maxContains":1},
  "login":{"type":"object","writeOnly":true,"properties":{"user":{"type":"string"},"age":{"type":"integer"}},"additionalProperties":false},
  "labels":{"type":"object","minProperties":1,"maxProperties":2,"propertyNames":{"maxLength":3},"additionalProperties":{"type":"string"}},
  "how":{"oneOf":[{"type":"string"},{"type":"object","required":["by"],"properties":{"by":{"type":"integer"}}}]},
  "twice":{"oneOf":[{"type":"string"},{"minLength":0}]},
  "either":{"anyOf":[{"type":"integer"},{"type":"boolean"}]},
  "never":false,
  "not":{"not":{"type":"string"}},
  "in":{"type":"object","dependentRequired":{"a":["b"]},"unevaluatedProperties":false,"properties":{"a":{},"b":{}}}}}`

func TestValidate(t *testing.T) {
	t.Parallel()
	s := compile(t, server)
	const ok = `"host":"a","token":"SECRET"`
	for config, want := range map[string]string{
		`{` + ok + `}`: "",
		`{` + ok + `,"port":1.0,"rate":0.5,"step":1.5,"mode":3,"on":true,"one":"x","list":["a","b",null],"login":{"user":"u"},"labels":{"a":"b"},"how":"x","either":1,"not":1,"in":{}}`: "",
		``:                                    "host: is required|token: is required",
		` `:                                   "host: is required|token: is required",
		`{}`:                                  "host: is required|token: is required",
		`null`:                                ": must be an object, not null",
		`["SECRET"]`:                          ": must be an object, not a list",
		`{"token":`:                           ": must be a JSON object: it is broken at byte 9",
		`{` + ok + `} {}`:                     ": must be one JSON object: something follows it at byte 31",
		"{\"host\":\"\xff\"}":                 ": must be valid UTF-8",
		`{` + ok + `,"host":"b"}`:             "host: is given more than once",
		`{` + ok + `,"port":1e999999}`:        "port: must be a number that a float64 can hold",
		`{` + ok + `,"step":1e-999999}`:       "step: must be a number that a float64 can hold",
		`{` + ok + `,"step":0.0e-9}`:          "",
		`{` + ok + `,"hots":"SECRET"}`:        "hots: is unknown; did you mean host?",
		`{` + ok + `,"zzz":1}`:                "zzz: is unknown; known are either, host, how, in, labels, list, login, mode, never, not, on, one, pin, port, rate, step, token, twice",
		`{"host":"","token":"other"}`:         "host: must not be empty",
		`{"host":"aaaaaa","token":"other"}`:   "host: must have at most 5 characters, and has 6 (got aaaaaa)",
		`{"host":"A","token":"other"}`:        "host: must match ^[a-z]*$ (got A)",
		`{"host":1,"token":2}`:                "host: must be text, not a number (got 1)|token: must be text, not a number",
		`{"host":"a","token":"xSECRETx"}`:     "token: must be one of SECRET, other",
		`{` + ok + `,"pin":12345}`:            "pin: must be at most 9",
		`{` + ok + `,"port":0}`:               "port: must be at least 1 (got 0)",
		`{` + ok + `,"port":65536}`:           "port: must be at most 65535 (got 65536)",
		`{` + ok + `,"port":1.5}`:             "port: must be a whole number, not a number (got 1.5)",
		`{` + ok + `,"rate":0}`:               "rate: must be more than 0 (got 0)",
		`{` + ok + `,"rate":1}`:               "rate: must be less than 1 (got 1)",
		`{` + ok + `,"step":0.3}`:             "step: must be a multiple of 0.5 (got 0.3)",
		`{` + ok + `,"mode":"slow"}`:          "mode: must be one of fast, safe, 3 (got slow)",
		`{` + ok + `,"on":"yes"}`:             "on: must be true or false, not text (got yes)",
		`{` + ok + `,"one":"y"}`:              "one: must be x (got y)",
		`{` + ok + `,"list":[]}`:              "list: must have at least 1 entries, and has 0",
		`{` + ok + `,"list":["a",1,"b","c"]}`: "list: must have at most 3 entries, and has 4|list[1]: must be null or text, not a number (got 1)",
		`{` + ok + `,"list":["a","b","b"]}`:   "list: must not have an entry twice; [1] and [2] are the same",
		`{` + ok + `,"list":["b"]}`:           "list: lacks an entry of a form that is required",
		`{` + ok + `,"login":{"user":7,"age":"SECRET","pasword":"SECRET"}}`: "login.age: must be a whole number, not text|login.pasword: is unknown; known are age, user|login.user: must be text, not a number",
		`{` + ok + `,"login":"SECRET"}`:                                     "login: must be an object, not text",
		`{` + ok + `,"labels":{}}`:                                          "labels: must have at least 1 settings, and has 0",
		`{` + ok + `,"labels":{"abcd":"x","b":7}}`:                          "labels.abcd: has a name that is not allowed here|labels.b: must be text, not a number (got 7)",
		`{` + ok + `,"how":true}`:                                           "how: must be text, not true or false; or must be an object, not true or false (got true)",
		`{` + ok + `,"how":{"by":"x"}}`:                                     "how.by: must be a whole number, not text (got x)",
		`{` + ok + `,"how":{}}`:                                             "how.by: is required",
		`{` + ok + `,"twice":"x"}`:                                          "twice: fits more than one of the forms that are allowed; make it fit one (got x)",
		`{` + ok + `,"either":"x"}`:                                         "either: must be a whole number, not text; or must be true or false, not text (got x)",
		`{` + ok + `,"never":1}`:                                            "never: is not allowed here; leave it out",
		`{` + ok + `,"not":"x"}`:                                            "not: has a form that is not allowed (got x)",
		`{` + ok + `,"in":{"a":1,"c":"SECRET"}}`:                            "in.b: is required where a is set|in.c: is not allowed here; leave it out",
	} {
		var got []string
		for _, f := range s.Validate(json.RawMessage(config)) {
			text := f.Error()
			if f.Field == "" {
				text = ": " + text
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "|"); text != want {
			t.Errorf("%s\ngot  %s\nwant %s", config, text, want)
		}
		if text := strings.Join(got, "|"); strings.Contains(strings.ReplaceAll(text, "must be one of SECRET", ""), "SECRET") {
			t.Errorf("a secret in %s", text)
		}
	}
	many := `{` + ok
	for i := range 30 {
		many += fmt.Sprintf(`,"x%02d":1`, i)
	}
	if got := s.Validate(json.RawMessage(many + "}")); len(got) != maxFaults+1 || got[maxFaults].Message != "has 10 more faults" {
		t.Errorf("many faults are told as %v", got)
	}
	if got := s.Validate(json.RawMessage(strings.Repeat("[", 100) + strings.Repeat("]", 100))); len(got) != 1 {
		t.Errorf("deep nesting gives %v", got)
	}
	if got := compile(t, "").Validate(json.RawMessage(`{"a":1}`)); len(got) != 1 || got[0].Error() != "a: is unknown; there are no settings here" {
		t.Errorf("a configuration without settings: %v", got)
	}
}

// TestHostileSchemas holds schemas that double their work at every step against what makes them do it: the answer comes at once.
func TestHostileSchemas(t *testing.T) {
	t.Parallel()
	chain := `{"type":"object","$ref":"#/$defs/a0","$defs":{`
	for i := range 60 {
		chain += fmt.Sprintf(`"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, i, i+1, i+1)
	}
	chain += `"a60":{}}}`
	deep := strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60)
	for text, config := range map[string]string{
		chain: `{}`,
		`{"type":"object","$ref":"#/$defs/x","$defs":{"x":{"allOf":[{"properties":{"a":{"$ref":"#/$defs/x"}}},{"properties":{"a":{"$ref":"#/$defs/x"}}}]}}}`:                     deep,
		`{"type":"object","$ref":"#/$defs/x","$defs":{"x":{"patternProperties":{"a":{"$ref":"#/$defs/x"},"^a$":{"$ref":"#/$defs/x"}}}}}`:                                         deep,
		`{"type":"object","additionalProperties":{"$ref":"#/$defs/x"},"$defs":{"x":{"additionalProperties":{"$ref":"#/$defs/x"},"unevaluatedProperties":{"$ref":"#/$defs/x"}}}}`: deep,
	} {
		s, err := Compile(json.RawMessage(text))
		if err != nil {
			t.Errorf("%.100s: %v", text, err)
			continue
		}
		if got := s.Validate(json.RawMessage(config)); len(got) != 1 || !strings.HasPrefix(got[0].Message, "takes too long to check") {
			t.Errorf("%.100s: %v", text, got)
		}
		s.Root().Field("a").Field("a").HoldsSecret()
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"object","properties":{
	  "open":{"type":"string","default":"x"},
	  "by_ref":{"$ref":"#/$defs/secret"},"by_anchor":{"$ref":"#it"},
	  "all":{"allOf":[{"type":"string"},{"writeOnly":true}]},
	  "then":{"if":{"type":"string"},"then":{"writeOnly":true},"else":{}},
	  "free":{"type":"object"},"map":{"type":"object","additionalProperties":{"writeOnly":true}},
	  "loose":{"type":"object","additionalProperties":{"type":"string"}},
	  "tuple":{"type":"array","prefixItems":[{},{"writeOnly":true}],"items":{"type":"string"}},
	  "bare":{"type":"array"},
	  "made":{"type":"string","x-generated":true},
	  "self":{"$ref":"#"}},
	 "patternProperties":{"^x-":{"writeOnly":true},"^y-":{}},
	 "dependentSchemas":{"open":{"properties":{"late":{"writeOnly":true}}}},
	 "$defs":{"secret":{"type":"object","properties":{"inner":{"writeOnly":true},"plain":{}}},"anchored":{"$anchor":"it","writeOnly":true}}}`)
	type what struct{ Described, Secret, Holds bool }
	var (
		open   = what{true, false, false}
		secret = what{true, true, true}
		holds  = what{true, false, true}
		blank  = what{false, false, true}
	)
	for path, want := range map[string]what{
		"": holds, "open": open, "by_ref": holds, "by_ref inner": secret, "by_ref plain": open, "by_ref other": blank, "by_anchor": secret,
		"all": secret, "then": secret, "free": open, "free a": open, "free a b": open, "map": holds, "map a": secret, "loose a": open, "tuple": holds,
		"tuple 0": open, "tuple 1": secret, "tuple 2": open, "bare 0": open, "x-a": secret, "y-a": open, "late": secret, "mistyped": blank, "mistyped a": blank,
		"self self by_anchor": secret, "self mistyped": blank, "open a": open,
	} {
		p := s.Root()
		for _, token := range strings.Fields(path) {
			var i int
			if _, err := fmt.Sscan(token, &i); err == nil {
				p = p.Item(i)
			} else {
				p = p.Field(token)
			}
		}
		if got := (what{p.Described(), p.Secret(), p.HoldsSecret()}); got != want {
			t.Errorf("%q: %+v, want %+v", path, got, want)
		}
	}
	root := s.Root()
	if root.Field("open").Usual() != "x" || root.Field("all").Usual() != nil || !root.Field("made").Made() || root.Field("open").Made() {
		t.Error("defaults, or what the server makes up, are not what the schema says")
	}
	if got := compile(t, `{"type":"object","properties":{"b":{},"a":{}},"allOf":[{"properties":{"c":{},"a":{}}}]}`).Root().Names(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("names are %v", got)
	}
	var none *Schema
	if none.Root().Described() || !none.Root().Field("a").HoldsSecret() {
		t.Error("without a schema something is described")
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"object","properties":{"host":{"type":"string"},"token":{"writeOnly":true},
	  "list":{"items":{"properties":{"key":{"writeOnly":true},"name":{}}}},
	  "login":{"properties":{"username":{},"password":{"writeOnly":true}}}}}`)
	got := s.Secrets(json.RawMessage(`{"host":"open-host","token":"t\"ok/en","list":[{"key":"abc","name":"open"},{"key":123456}],
	  "login":{"username":"me","password":"s3cret"},"mistyped":"hidden-too"}`))
	want := []string{"bWU6czNjcmV0", `t%22ok%2Fen`, "hidden-too", `t\"ok/en`, `t"ok/en`, "123456", "s3cret"}
	if diff := cmp.Diff(want, slices.DeleteFunc(got, func(s string) bool { return s == "t%22ok/en" })); diff != "" {
		t.Error(diff)
	}
	got = s.Secrets(json.RawMessage(`{"token":"https://hooks.example.com/services/T0000000X/B1?sig=abcd"}`))
	for _, part := range []string{"T0000000X", "/services/T0000000X/B1", "abcd"} {
		if !slices.Contains(got, part) {
			t.Errorf("%s is no secret: %q", part, got)
		}
	}
	if slices.Contains(got, "services") || s.Secrets(json.RawMessage(`{`)) != nil {
		t.Error("too much is secret")
	}
}

// FuzzSchema sees to it that neither schemas nor configurations panic or take for ever, and that no fault shows a secret.
func FuzzSchema(f *testing.F) {
	f.Add(server, `{"host":1,"token":"CANARY","port":1e309}`)
	f.Add(`{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"a":{"a":[]}}`)
	f.Add(`{"type":"object","properties":{"n":{"multipleOf":1e-300,"minimum":-1e300}}}`, `{"n":1e300}`)
	f.Add(`{"type":"object","propertyNames":{"pattern":"^.$"},"unevaluatedProperties":{"writeOnly":true}}`, `{"aa":"CANARY"}`)
	f.Fuzz(func(t *testing.T, text, config string) {
		s, err := Compile(json.RawMessage(text))
		if err != nil {
			return
		}
		for _, fault := range s.Validate(json.RawMessage(config)) {
			if fault.Message == "" {
				t.Errorf("an empty fault of %s by %s", config, text)
			}
		}
		s.Secrets(json.RawMessage(config))
	})
}
