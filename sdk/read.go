package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// reader reads fields out of JSON and keeps the first fault. After one, everything it returns is empty.
type reader struct{ err error }

func (r *reader) fault(path, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...))
	}
}

// kindOf names the type of a valid JSON value; a missing one and null are "".
func kindOf(raw json.RawMessage) string {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "true or false"
	case 'n':
		return ""
	}
	return "a number"
}

// into decodes raw when it has the wanted type. False: it is missing, or this or an earlier value is at fault.
func (r *reader) into(path string, raw json.RawMessage, want string, to any) bool {
	got := kindOf(raw)
	if r.err != nil || got == "" {
		return false
	}
	if got != want {
		r.fault(path, "must be %s, is %s", want, got)
		return false
	}
	if err := json.Unmarshal(raw, to); err != nil {
		r.fault(path, "must be %s: %s", want, err)
		return false
	}
	return true
}

func (r *reader) text(path string, raw json.RawMessage) (text string) {
	r.into(path, raw, "a string", &text)
	return text
}

func (r *reader) flag(path string, raw json.RawMessage) (flag bool) {
	r.into(path, raw, "true or false", &flag)
	return flag
}

func (r *reader) object(path string, raw json.RawMessage) (object map[string]json.RawMessage) {
	r.into(path, raw, "an object", &object)
	return object
}

func (r *reader) list(path string, raw json.RawMessage) (list []json.RawMessage) {
	r.into(path, raw, "a list", &list)
	return list
}

// whole reads a whole number from 0 to limit; 5.0 and 5e3 are whole.
func (r *reader) whole(path string, raw json.RawMessage, limit int64) int64 {
	var number json.Number
	if !r.into(path, raw, "a number", &number) {
		return 0
	}
	n, err := number.Int64()
	if err != nil {
		// A float is exact up to 2^53, and no limit is above.
		f, ferr := number.Float64()
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			r.fault(path, "must be a whole number of at most %d, is %s", limit, CleanText(number.String(), 40))
			return 0
		}
		n = int64(f)
	}
	if n < 0 || n > limit {
		r.fault(path, "must be between 0 and %d, is %s", limit, CleanText(number.String(), 40))
		return 0
	}
	return n
}

// real reads a number. One that no float64 can hold is infinite; the strings "NaN", "Infinity" and "-Infinity" stand for
// what JSON has no number for, as in the JSON mapping of protocol buffers.
func (r *reader) real(path string, raw json.RawMessage) float64 {
	switch string(bytes.TrimSpace(raw)) {
	case `"NaN"`:
		return math.NaN()
	case `"Infinity"`:
		return math.Inf(1)
	case `"-Infinity"`:
		return math.Inf(-1)
	}
	var number json.Number
	if !r.into(path, raw, "a number", &number) {
		if r.err == nil {
			r.fault(path, "is missing")
		}
		return 0
	}
	value, err := strconv.ParseFloat(number.String(), 64)
	if err != nil { // it is a valid number, so it is too large
		return math.Inf(1) * float64(signOf(number))
	}
	return value
}

func signOf(number json.Number) int {
	if number[0] == '-' {
		return -1
	}
	return 1
}

func (r *reader) time(path string, raw json.RawMessage) time.Time {
	text := r.text(path, raw)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.fault(path, "must be a time such as 2027-01-01T00:00:00Z, is %s", quoted(text))
		return time.Time{}
	}
	return at.UTC()
}

// document returns the members of the one JSON object that data holds.
func (r *reader) document(data []byte) map[string]json.RawMessage {
	if len(bytes.TrimSpace(data)) == 0 {
		r.err = errors.New("nothing was written; one JSON object is expected")
		return nil
	}
	data = nameNonNumbers(data)
	if err := valid(data); err != nil {
		r.err = fmt.Errorf("what was written is no JSON: %w", err)
		return nil
	}
	if kind := kindOf(data); kind != "an object" {
		if kind == "" {
			kind = "null"
		}
		r.err = fmt.Errorf("what was written must be one JSON object, is %s", kind)
		return nil
	}
	return r.object("$", data)
}

func valid(data []byte) error {
	var all json.RawMessage
	return json.Unmarshal(data, &all)
}

// nameNonNumbers puts quotes around bare NaN, Infinity and -Infinity, which several languages write into their JSON
// unasked: one such metric must not cost the whole answer.
func nameNonNumbers(data []byte) []byte {
	if !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")) {
		return data
	}
	out := make([]byte, 0, len(data)+16)
	inside := false
	for i := 0; i < len(data); {
		if !inside {
			if word := nonNumber(data[i:]); word != "" {
				out = append(append(append(out, '"'), word...), '"')
				i += len(word)
				continue
			}
		}
		switch {
		case inside && data[i] == '\\' && i+1 < len(data):
			out = append(out, data[i])
			i++
		case data[i] == '"':
			inside = !inside
		}
		out = append(out, data[i])
		i++
	}
	return out
}

func nonNumber(data []byte) string {
	for _, word := range [...]string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(data, []byte(word)) {
			return word
		}
	}
	return ""
}

// milliseconds rounds up, so that a short time is not told as none.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// decodeStrict reads one JSON value, and refuses fields that to does not have.
func decodeStrict(data []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}
