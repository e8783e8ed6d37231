package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStrict(t *testing.T) {
	got, err := parseStrict([]byte(` {"a":[1,-2.5e3,"x\n\u00e9\ud83d\ude00",true,false,null],"b":{},"c":[]} ` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": []any{json.Number("1"), json.Number("-2.5e3"), "x\né😀", true, false, nil}, "b": map[string]any{}, "c": []any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseStrictRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "the body is empty; a JSON object is expected at byte 0 (line 1, column 1)"},
		{"  \n ", "the body is empty; a JSON object is expected at byte 4 (line 2, column 2)"},
		{`{"a":1,"a":2}`, "the key is repeated in the same object at byte 7 (line 1, column 8)"},
		{`{"a":1,"\u0061":2}`, "the key is repeated in the same object at byte 7 (line 1, column 8)"},
		{`{"name":1,"Name":2}`, "the key differs only in case from another of the same object at byte 10 (line 1, column 11)"},
		{"{\"a\":1}\n{}", "something follows the end of the JSON value at byte 8 (line 2, column 1)"},
		{`{"a":1}x`, "something follows the end of the JSON value at byte 7 (line 1, column 8)"},
		{`{"a":`, "the JSON ends too early at byte 5 (line 1, column 6)"},
		{`{"a":1`, "the JSON ends too early at byte 6 (line 1, column 7)"},
		{`{"a":1,}`, "a comma is followed by nothing at byte 7 (line 1, column 8)"},
		{`[1,]`, "a comma is followed by nothing at byte 3 (line 1, column 4)"},
		{`{a:1}`, "a key in double quotes is expected here at byte 1 (line 1, column 2)"},
		{`{"a" 1}`, "a colon is expected here at byte 5 (line 1, column 6)"},
		{`[1 2]`, `a comma or ']' is expected here at byte 3 (line 1, column 4)`},
		{`{"é":"` + "\xff" + `"}`, "the text is not valid UTF-8 at byte 7 (line 1, column 7)"},
		{`"` + "\xed\xa0\x80" + `"`, "the text is not valid UTF-8 at byte 1 (line 1, column 2)"},
		{`"\ud800"`, "half of a surrogate pair stands alone at byte 7 (line 1, column 8)"},
		{`"\ud800\u0041"`, "half of a surrogate pair stands alone at byte 13 (line 1, column 14)"},
		{`"\x41"`, "this escape does not exist in JSON at byte 2 (line 1, column 3)"},
		{`"\u00g0"`, "four hexadecimal digits are expected here at byte 5 (line 1, column 6)"},
		{"\"a\nb\"", "a control character must be escaped in a string at byte 2 (line 1, column 3)"},
		{"\"a\x00b\"", "a control character must be escaped in a string at byte 2 (line 1, column 3)"},
		{`"abc`, "a string has no end at byte 4 (line 1, column 5)"},
		{`"abc\`, "this escape does not exist in JSON at byte 5 (line 1, column 6)"},
		{`01`, "something follows the end of the JSON value at byte 1 (line 1, column 2)"},
		{`-`, "a digit is expected here at byte 1 (line 1, column 2)"},
		{`1.`, "a digit is expected here at byte 2 (line 1, column 3)"},
		{`1e+`, "a digit is expected here at byte 3 (line 1, column 4)"},
		{`NaN`, "a JSON value is expected here at byte 0 (line 1, column 1)"},
		{`nul`, "a JSON value is expected here at byte 0 (line 1, column 1)"},
		{"\ufeff{}", "a JSON value is expected here at byte 0 (line 1, column 1)"},
		{strings.Repeat("9", 101), "a number has more than 100 characters at byte 0 (line 1, column 1)"},
		{strings.Repeat("[", 65), "arrays and objects are nested more than 64 deep at byte 64 (line 1, column 65)"},
	} {
		_, err := parseStrict([]byte(tt.text))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
}

// FuzzParseStrict holds the reader to encoding/json: what it takes that one takes too, and reads the same.
func FuzzParseStrict(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e-3,"x\u00e9\ud83d\ude00",true,null]}`, `{"a":1,"A":2}`, "\"\xff\"", `[[[]]]`, `-0.0e0`, `"\ud800"`, `{"":{}}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseStrict(text)
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var want any
		theirs := d.Decode(&want)
		if err == nil {
			if theirs != nil {
				t.Fatalf("taken, and encoding/json says %v", theirs)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		var s *syntaxError
		if !errors.As(err, &s) {
			t.Fatalf("not a syntax error: %v", err)
		}
		if s.offset < 0 || s.offset > len(text) || s.line < 1 || s.column < 1 {
			t.Fatalf("bad position %+v", s)
		}
		if json.Valid(text) {
			for _, ours := range []string{"key", "UTF-8", "surrogate", "more than"} {
				if strings.Contains(s.message, ours) {
					return
				}
			}
			t.Fatalf("refused, and encoding/json takes it: %v", err)
		}
	})
}
