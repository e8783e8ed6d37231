package check

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

type sample struct {
	Name    string            `json:"name" doc:"A name." maxlen:"5"`
	Text    string            `json:"text" doc:"Anything." text:"any"`
	Lines   string            `json:"lines" doc:"Lines." text:"lines"`
	Secret  string            `json:"secret" doc:"A secret." secret:"true"`
	Colour  string            `json:"colour" doc:"A colour." enum:"red,green,"`
	Count   int               `json:"count" doc:"A count." min:"1" max:"10"`
	Wait    monitor.Duration  `json:"wait" doc:"A wait." min:"1s" max:"1m"`
	Yes     bool              `json:"yes" doc:"A choice."`
	List    []string          `json:"list" doc:"A list." maxlen:"2"`
	Table   map[string]string `json:"table" doc:"A table." secret:"true"`
	Raw     json.RawMessage   `json:"raw" doc:"Raw JSON."`
	Inner   *credentials      `json:"inner" doc:"An object."`
	Default string            `json:"default" doc:"Has a default."`
	family
}

func TestDecode(t *testing.T) {
	t.Parallel()
	got := sample{Default: "kept"}
	faults := decodeConfig(fieldsOf(typeFor[sample]()), []byte(` {"name":"äöüßé","text":"a\u0000b","lines":"a\nb","secret":"s3cret","colour":"","count":10,"wait":"1m",
		"yes":true,"list":["a","b"],"table":{"X-A":"1"},"raw": {"a": [1, null]} ,"inner":{"username":"u","password":"p"},"ip_family":"ipv6"} `), &got)
	want := sample{
		Name: "äöüßé", Text: "a\x00b", Lines: "a\nb", Secret: "s3cret", Count: 10, Wait: monitor.Duration(time.Minute), Yes: true,
		List: []string{"a", "b"}, Table: map[string]string{"X-A": "1"}, Raw: json.RawMessage(`{"a": [1, null]}`),
		Inner: &credentials{"u", "p"}, Default: "kept", family: family{"ipv6"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{})); diff != "" || faults != nil {
		t.Errorf("faults %v, (-want +got):\n%s", faults, diff)
	}
	for _, nothing := range []string{"", "null", "{}", " {} "} {
		got := sample{Default: "kept"}
		if faults := decodeConfig(fieldsOf(typeFor[sample]()), []byte(nothing), &got); faults != nil || !reflect.DeepEqual(got, sample{Default: "kept"}) {
			t.Errorf("%q gives %+v, %v", nothing, got, faults)
		}
	}
}

func TestDecodeFaults(t *testing.T) {
	t.Parallel()
	tests := []struct{ config, want string }{
		{`[]`, "must be an object, not a list"},
		{`"x"`, "must be an object, not text"},
		{`{`, "must be a JSON object: it is broken at byte 1"},
		{`{"name":"a"} x`, "must be a JSON object: something follows it at byte 13"},
		{`{"secret":"hunter2"`, "must be a JSON object: it is broken at byte 19"},
		{"{\"name\":\"\xff\"}", "must be a JSON object: it is not valid UTF-8"},
		{strings.Repeat("[", 100), "must be a JSON object: it is broken at byte 65"},
		{`{"nam":1}`, "nam: is unknown; did you mean name?"},
		{`{"Name":"a"}`, "Name: is unknown; did you mean name?"},
		{`{"something":1}`, "something: is unknown; known are colour, count, default, inner, ip_family, lines, list, name, raw, secret, table, text, wait, yes"},
		{`{"name":"a","name":"b"}`, "name: is given more than once"},
		{`{"name":"abcdef"}`, "name: must be at most 5 characters long"},
		{`{"name":"a\u0000"}`, "name: must not contain control characters"},
		{`{"name":"a\nb"}`, "name: must not contain control characters"},
		{`{"lines":"a\u0007b"}`, "lines: must not contain control characters"},
		{`{"name":1}`, "name: must be text, not a number (got 1)"},
		{`{"name":null}`, "name: must be text, not null"},
		{`{"secret":12345}`, "secret: must be text, not a number"},
		{`{"colour":"blue"}`, "colour: must be one of red, green (got blue)"},
		{`{"count":0}`, "count: must be between 1 and 10 (got 0)"},
		{`{"count":11}`, "count: must be between 1 and 10 (got 11)"},
		{`{"count":1.5}`, "count: must be a whole number between 1 and 10 (got 1.5)"},
		{`{"count":1e400}`, "count: must be a whole number between 1 and 10 (got 1e400)"},
		{`{"count":"1"}`, "count: must be a whole number, not text (got 1)"},
		{`{"wait":"1h"}`, "wait: must be between 1s and 1m (got 1h)"},
		{`{"wait":"soon"}`, `wait: must be a duration like "30s" or "1h30m" (got soon)`},
		{`{"wait":30}`, `wait: must be a duration like "30s", not a number (got 30)`},
		{`{"yes":"true"}`, "yes: must be true or false, not text (got true)"},
		{`{"list":"a"}`, "list: must be a list, not text (got a)"},
		{`{"list":["a",2]}`, "list[1]: must be text, not a number (got 2)"},
		{`{"list":["a","b","c"]}`, "list: must have at most 2 entries"},
		{`{"table":{"X-Foo":1}}`, "table.X-Foo: must be text, not a number"},
		{`{"table":{"a":"1","a":"2"}}`, "table.a: is given more than once"},
		{`{"table":"hunter2"}`, "table: must be an object of texts, not text"},
		{`{"inner":{"passwort":"hunter2"}}`, "inner.passwort: is unknown; did you mean password?"},
		{`{"inner":1}`, "inner: must be an object, not a number"},
		{`{"count":0,"wait":"0s","x":1}`, "count: must be between 1 and 10 (got 0); wait: must be between 1s and 1m (got 0s); " +
			"x: is unknown; known are colour, count, default, inner, ip_family, lines, list, name, raw, secret, table, text, wait, yes"},
	}
	for _, tt := range tests {
		var got sample
		faults := decodeConfig(fieldsOf(typeFor[sample]()), []byte(tt.config), &got)
		if faults.Error() != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.config, faults.Error(), tt.want)
		}
		if strings.Contains(faults.Error(), "hunter2") {
			t.Errorf("%s: a secret is quoted", tt.config)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"a","count":3,"wait":"3s","list":["a"],"table":{"a":"b"},"raw":[1],"inner":{"username":"u"}}`))
	f.Add([]byte(`{"count":1e9,"count":-0}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		var got sample
		if faults := decodeConfig(fieldsOf(typeFor[sample]()), config, &got); faults != nil {
			return
		}
		// What is accepted is what encoding/json reads too.
		var want sample
		if err := json.Unmarshal(config, &want); len(config) > 0 && err != nil {
			t.Errorf("%q is accepted, but encoding/json says %v", config, err)
		}
		if len(config) > 0 && want.Count != got.Count || want.Name != got.Name {
			t.Errorf("%q is read as %+v, by encoding/json as %+v", config, got, want)
		}
	})
}
