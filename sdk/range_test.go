package sdk

import (
	"math"
	"strings"
	"testing"
)

func TestRange(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, tt := range []struct {
		text   string
		quiet  []float64
		alerts []float64
		want   string // as String writes it
	}{
		// The examples of the guidelines.
		{"10", []float64{0, 5, 10}, []float64{-0.1, 10.1, inf, -inf}, "10"},
		{"10:", []float64{10, 11, inf}, []float64{9.9, -inf}, "10:"},
		{"~:10", []float64{-inf, -5, 10}, []float64{10.1, inf}, "~:10"},
		{"10:20", []float64{10, 15, 20}, []float64{9.9, 20.1}, "10:20"},
		{"@10:20", []float64{9.9, 20.1}, []float64{10, 15, 20}, "@10:20"},
		// Other forms.
		{"0", []float64{0}, []float64{0.1, -0.1}, "0"},
		{"0:10", []float64{0, 10}, []float64{-1, 11}, "10"},
		{":10", []float64{0, 10}, []float64{-1, 11}, "10"},
		{":", []float64{0, inf}, []float64{-1}, "0:"},
		{"~:", []float64{-inf, 0, inf}, nil, "~:"},
		{"@~:0", []float64{1}, []float64{0, -1}, "@~:0"},
		{"-20:-10", []float64{-15}, []float64{-21, -9}, "-20:-10"},
		{"-0:+1.50", []float64{0, 1.5}, []float64{-1, 1.6}, "1.5"},
		{"1e3:2E3", []float64{1500}, []float64{999, 2001}, "1000:2000"},
	} {
		r, err := ParseRange(tt.text)
		if err != nil || r.String() != tt.want {
			t.Errorf("ParseRange(%q) = %v, %v, want %s", tt.text, r, err, tt.want)
			continue
		}
		for _, v := range tt.quiet {
			if r.Alerts(v) {
				t.Errorf("%s alerts at %v", tt.text, v)
			}
		}
		for _, v := range append(tt.alerts, math.NaN()) {
			if !r.Alerts(v) {
				t.Errorf("%s does not alert at %v", tt.text, v)
			}
		}
	}
}

func TestRangeFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "empty", "@": "empty", "20:10": "start must not be above end", "10": "", "x": "must be a number", "1:2:3": "must be a number",
		"10:~": "must be a number", "~": "must be a number", "inf": "must be a number", "NaN:": "must be a number", "0x10": "must be a number",
		"1_0": "must be a number", "1e999": "too large", " 1": "must be a number", "@@1": "must be a number", "-5": "start must not be above end",
	} {
		_, err := ParseRange(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("ParseRange(%q) = %v, want an error with %q", text, err, want)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"10", "10:", "~:10", "@10:20", "-1.5e-3:", "", "@", "1:2:3"} {
		f.Add(seed, 5.0)
	}
	f.Fuzz(func(t *testing.T, text string, value float64) {
		r, err := ParseRange(text)
		if err != nil {
			return
		}
		again, err := ParseRange(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, written %q and read as %+v, %v", text, r, r.String(), again, err)
		}
		opposite := r
		opposite.Inside = !r.Inside
		if value == value && r.Alerts(value) == opposite.Alerts(value) {
			t.Errorf("%q and its opposite agree about %v", text, value)
		}
	})
}
