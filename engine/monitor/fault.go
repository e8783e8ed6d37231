package monitor

import (
	"fmt"
	"strings"
)

// Fault is one thing wrong with what somebody wrote: where, what, and what would be right.
type Fault struct {
	Field   string // path from the object's root with dots and brackets: interval, config.headers[2]; empty: the whole
	Value   any    // the value at fault when it is a scalar and no secret; else nil
	Message string // names the remedy: must be between 1s and 24h
}

// Error writes the field, the message and the value.
func (f Fault) Error() string {
	text := f.Message
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	if f.Value != nil {
		text += fmt.Sprintf(" (got %v)", f.Value)
	}
	return text
}

// Faults is every fault of one object. It is an error when it is not empty.
type Faults []Fault

// Error joins the faults with "; ".
func (f Faults) Error() string { return JoinErrors(f, "; ") }

// JoinErrors returns the texts of the errors with the separator between them, and "" for none.
func JoinErrors[E error](errs []E, separator string) string {
	texts := make([]string, len(errs))
	for i := range errs {
		texts[i] = errs[i].Error()
	}
	return strings.Join(texts, separator)
}

// Err returns f as an error, or nil when there is no fault.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Add appends a fault.
func (f *Faults) Add(field string, value any, format string, args ...any) {
	*f = append(*f, Fault{Field: field, Value: value, Message: fmt.Sprintf(format, args...)})
}

// Under appends the faults of a part of the object, their fields prefixed with its path.
func (f *Faults) Under(path string, part Faults) {
	for _, p := range part {
		switch {
		case p.Field == "":
			p.Field = path
		case strings.HasPrefix(p.Field, "["):
			p.Field = path + p.Field
		default:
			p.Field = path + "." + p.Field
		}
		*f = append(*f, p)
	}
}
