package config

import (
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Fault is one thing wrong with the settings.
type Fault struct {
	Where   string // tocsin.yaml:3:8, TOCSIN_LISTEN or --listen; empty when it is in no source
	Key     string // the setting; empty when it concerns none
	Message string // with the remedy
	Line    string // the line of the file; empty when there is none
	Column  int    // in characters from 1; 0 when there is none
}

// Error writes where, what and, for a file, the line itself with a mark below the place.
func (f Fault) Error() string {
	text := f.Message
	if f.Key != "" {
		text = f.Key + ": " + text
	}
	if f.Where != "" {
		text = f.Where + ": " + text
	}
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
func (f Faults) Error() string { return monitor.JoinErrors(f, "\n") }

// Err returns f as an error, or nil when there is no fault.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// meant returns "; did you mean X?" for the candidate that was probably meant by name, or "" when none is near.
func meant(name string, candidates []string) string {
	near := monitor.Nearest(name, candidates)
	if near == "" {
		return ""
	}
	return "; did you mean " + near + "?"
}
