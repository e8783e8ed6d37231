package host

import (
	"fmt"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

// Fault is one thing wrong with a manifest.
type Fault struct {
	Where   string // tocsin-plugin.yaml:3:8; without line when it is in no line
	Field   string // permissions[2].allow; empty when it concerns none
	Message string // with the remedy
	Line    string // the line of the file; empty when there is none
	Column  int    // in characters from 1; 0 when there is none
}

// Error writes where, what and, when there is one, the line itself with a mark below the place.
func (f Fault) Error() string {
	text := f.Where + ": "
	if f.Field != "" {
		text += f.Field + ": "
	}
	text += f.Message
	if f.Line != "" {
		text += "\n    " + f.Line
		if f.Column > 0 && f.Column <= len([]rune(f.Line))+1 {
			text += "\n    " + strings.Repeat(" ", f.Column-1) + "^"
		}
	}
	return text
}

// Faults is every fault that was found. It is an error when it is not empty.
type Faults []Fault

// Error writes one fault after the other, each on lines of its own.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns f as an error, or nil when there is no fault.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// meant returns "; did you mean X?" for the candidate nearest to name, or the list of all when none is within two edits.
func meant(name string, candidates []string) string {
	best, distance := "", 3
	for _, c := range candidates {
		if d := edits(name, c); d < distance {
			best, distance = c, d
		}
	}
	if best == "" {
		return "; the fields are " + strings.Join(candidates, ", ")
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// edits is the Levenshtein distance of two names in bytes; texts whose lengths differ by more than two are 3 apart.
func edits(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// quote shows somebody else's text in an error.
func quote(text string) string { return `"` + sdk.CleanText(text, 100) + `"` }
