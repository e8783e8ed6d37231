package monitor

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"interval", "name", "method", "url", "ip", "TOCSIN_TOKEN"}
	for name, want := range map[string]string{
		"intervall":             "interval",
		"intrval":               "interval",
		"itnerval":              "interval", // two letters that changed places are two edits
		"interval":              "interval",
		"Name":                  "name",
		"nam":                   "name",
		"uri":                   "url",
		"tocsin_tokn":           "TOCSIN_TOKEN",
		"IP":                    "ip",
		"id":                    "ip",
		"ur":                    "url",
		"nose":                  "name",
		"metthodd":              "method",
		"":                      "",
		"i":                     "", // all of its letters would have to change
		"at":                    "",
		"inter":                 "",
		"mmetthodd":             "",
		"something":             "",
		strings.Repeat("x", 99): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
	if got := Nearest("port", []string{"sort", "part", "ports"}); got != "sort" {
		t.Errorf("of three that are as near the first is to be taken, not %q", got)
	}
	if got := Nearest("ports", []string{"porks", "ports"}); got != "ports" {
		t.Errorf("the nearest is to be taken, not %q", got)
	}
	if got := Nearest("name", nil); got != "" {
		t.Errorf("of none %q was meant", got)
	}
}

// TestNearestSlips makes up to two slips in a name and wants it back.
func TestNearestSlips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z_]{7,40}`).Draw(t, "name")
		typed := name
		for range rapid.IntRange(0, 2).Draw(t, "slips") {
			at := rapid.IntRange(0, len(typed)-1).Draw(t, "at")
			letter := rapid.SampledFrom([]string{"", "q", typed[at:at+1] + "q"}).Draw(t, "letter")
			typed = typed[:at] + letter + typed[at+1:]
		}
		if got := Nearest(strings.ToUpper(typed), []string{"nothing like it at all, and far too long for that besides", name}); got != name {
			t.Fatalf("%q gives %q", typed, got)
		}
		if a, b := edits(typed, name), edits(name, typed); a != b || a > 2 || (a == 0) != (typed == name) {
			t.Fatalf("%q and %q are %d and %d apart", typed, name, a, b)
		}
	})
}
