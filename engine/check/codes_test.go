package check

import (
	"strings"
	"testing"
)

func TestParseCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text    string
		in, out []int
		bad     bool
	}{
		{text: "200-299", in: []int{200, 250, 299}, out: []int{199, 300, 404}},
		{text: "200", in: []int{200}, out: []int{201}},
		{text: "200-204, 301 , 404-404", in: []int{200, 204, 301, 404}, out: []int{205, 302}},
		{text: "any", in: []int{100, 200, 599, 999}},
		{text: "", bad: true},
		{text: "200-", bad: true},
		{text: "-200", bad: true},
		{text: "300-200", bad: true},
		{text: "99", bad: true},
		{text: "600", bad: true},
		{text: "2xx", bad: true},
		{text: "200,", bad: true},
		{text: "200-300-400", bad: true},
		{text: "+20", bad: true},
		{text: "0200", bad: true},
		{text: "ANY", bad: true},
		{text: strings.Repeat("200,", 60) + "200", bad: true},
	}
	for _, tt := range tests {
		ranges, err := parseCodes(tt.text)
		if (err != nil) != tt.bad {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		for _, code := range tt.in {
			if !accepts(ranges, code) {
				t.Errorf("%q does not accept %d", tt.text, code)
			}
		}
		for _, code := range tt.out {
			if accepts(ranges, code) {
				t.Errorf("%q accepts %d", tt.text, code)
			}
		}
	}
}

func FuzzCodes(f *testing.F) {
	f.Add("200-299,301")
	f.Add("any")
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := parseCodes(text)
		if err != nil {
			return
		}
		for _, r := range ranges {
			if r.low < 100 || r.high > 599 || r.low > r.high {
				t.Errorf("%q has the range %v", text, r)
			}
		}
		if len(ranges) == 0 && text != "any" {
			t.Errorf("%q accepts everything", text)
		}
	})
}
