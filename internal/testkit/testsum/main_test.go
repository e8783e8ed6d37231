package main

import (
	"strings"
	"testing"
)

func TestSummarise(t *testing.T) {
	t.Setenv("CI", "")
	tests := []struct {
		name, in string
		want     []string
		not      string
		failed   bool
	}{
		{
			"pass and skip",
			`{"Action":"output","Package":"p","Test":"A","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:3: needs promtool\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`,
			[]string{"ok  \tp\t0.1s\n", "skipped: p B: b_test.go:3: needs promtool\n", "1 passed, 0 failed, 1 skipped\n"},
			"chatter", false,
		},
		{
			"failure",
			`{"Action":"output","Package":"p","Test":"A","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`,
			[]string{"got 1, want 2\n", "FAIL\tp\t0.1s\n", "0 passed, 1 failed, 0 skipped\n"},
			"", true,
		},
		{"crash", `{"Action":"output","Package":"p","Test":"A","Output":"signal: killed\n"}`, []string{"p A did not end:\nsignal: killed\n"}, "", true},
		{"build", `{"ImportPath":"p","Action":"build-output","Output":"x.go:1: no\n"}` + "\n" + `{"ImportPath":"p","Action":"build-fail"}`, []string{"x.go:1: no\n"}, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			failed, err := summarise(strings.NewReader(tt.in), &out)
			if err != nil || failed != tt.failed {
				t.Fatalf("failed %v, error %v, want %v", failed, err, tt.failed)
			}
			for _, w := range tt.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, &out)
				}
			}
			if tt.not != "" && strings.Contains(out.String(), tt.not) {
				t.Errorf("%q in:\n%s", tt.not, &out)
			}
		})
	}
}

func TestSummariseNothing(t *testing.T) {
	var out strings.Builder
	if _, err := summarise(strings.NewReader(""), &out); err == nil {
		t.Error("no event at all is taken for success")
	}
}
