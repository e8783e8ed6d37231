package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a configuration.
const (
	maxConfig = 1 << 20 // bytes
	maxDepth  = 64      // of its nesting
	maxDigits = 400     // bytes of a number, also of one in a schema
)

// reader reads one JSON value strictly: what two readers could understand in two ways is a fault. Its errors quote nothing of
// the input but names, for it may hold secrets.
type reader struct {
	dec    *json.Decoder
	faults monitor.Faults
}

// read returns the value as maps, lists, texts, json.Numbers, booleans and nil. An empty text is an empty object.
func read(config json.RawMessage) (any, monitor.Faults) {
	if len(bytes.TrimSpace(config)) == 0 {
		return map[string]any{}, nil
	}
	whole := func(format string, args ...any) (any, monitor.Faults) {
		var faults monitor.Faults
		faults.Add("", nil, format, args...)
		return nil, faults
	}
	switch {
	case len(config) > maxConfig:
		return whole("must be at most %d bytes long", maxConfig)
	case !utf8.Valid(config):
		return whole("must be valid UTF-8")
	}
	r := reader{dec: json.NewDecoder(bytes.NewReader(config))}
	r.dec.UseNumber()
	value, err := r.value("", 0)
	if err != nil {
		return whole("must be a JSON object: it is broken at byte %d", r.dec.InputOffset())
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return whole("must be one JSON object: something follows it at byte %d", r.dec.InputOffset())
	}
	return value, r.faults
}

func (r *reader) value(path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return r.object(path, depth)
		}
		return r.list(path, depth)
	case json.Number:
		if !handy(t) {
			r.faults.Add(path, nil, "must be a number that a float64 can hold")
		}
		return t, nil
	default:
		return t, nil
	}
}

// handy reports whether a number can be computed with at once: 1e-999999 is a fraction of a million digits.
func handy(n json.Number) bool {
	f, err := strconv.ParseFloat(n.String(), 64)
	mantissa, _, _ := strings.Cut(strings.ToLower(n.String()), "e")
	return err == nil && len(n) <= maxDigits && (f != 0 || !strings.ContainsAny(mantissa, "123456789"))
}

// allHandy reports whether all numbers of a JSON value are handy.
func allHandy(value any) bool {
	switch v := value.(type) {
	case map[string]any:
		for _, inner := range v {
			if !allHandy(inner) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(v, func(inner any) bool { return !allHandy(inner) })
	case json.Number:
		return handy(v)
	}
	return true
}

func (r *reader) object(path string, depth int) (any, error) {
	object := make(map[string]any)
	for r.dec.More() {
		token, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("a member's name is no text")
		}
		at := join(path, name)
		value, err := r.value(at, depth+1)
		if err != nil {
			return nil, err
		}
		if _, twice := object[name]; twice {
			r.faults.Add(at, nil, "is given more than once")
		}
		object[name] = value
	}
	_, err := r.dec.Token()
	return object, err
}

func (r *reader) list(path string, depth int) (any, error) {
	list := []any{}
	for r.dec.More() {
		value, err := r.value(fmt.Sprintf("%s[%d]", path, len(list)), depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := r.dec.Token()
	return list, err
}

// join makes the path of a property; a name from outside is cut.
func join(path, name string) string {
	name = sdk.CleanText(name, 100)
	if path == "" {
		return name
	}
	return path + "." + name
}
