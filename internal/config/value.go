package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const maxText = 4096 // bytes of one value

// typeName says what a value of the type is, for the documentation.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[slog.Level]():
		return "level"
	case reflect.TypeFor[[]netip.Prefix]():
		return "addresses"
	case reflect.TypeFor[map[string]int]():
		return "kind=number,…"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true|false"
	case reflect.Int:
		return "number"
	default:
		return "text"
	}
}

// set parses one setting from its words: one for a scalar, any number for a list, key=value ones for a map.
func (s *Setting) set(settings *Settings, words []string) error {
	field := reflect.ValueOf(settings).Elem().FieldByIndex(s.index)
	switch v := field.Addr().Interface().(type) {
	case *[]netip.Prefix:
		prefixes, err := parsePrefixes(words)
		*v = prefixes
		return err
	case *map[string]int:
		limits, err := s.parseLimits(words)
		*v = limits
		return err
	}
	if len(words) != 1 {
		return errors.New("must be one value, not a list")
	}
	text := words[0]
	if len(text) > maxText || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("must be one line of at most %d bytes of UTF-8 without control characters", maxText)
	}
	switch v := field.Addr().Interface().(type) {
	case *string:
		*v = text
		if values := strings.Fields(s.tag.Get("oneof")); len(values) > 0 && !slices.Contains(values, text) {
			return fmt.Errorf("must be %s (got %q)", strings.Join(values, " or "), text)
		}
	case *Secret:
		*v = Secret(text)
	case *bool:
		switch text {
		case "true", "1":
			*v = true
		case "false", "0":
			*v = false
		default:
			return fmt.Errorf("must be true or false (got %q)", text)
		}
	case *int:
		n, err := s.parseNumber(text)
		*v = n
		return err
	case *time.Duration:
		d, err := ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%w (got %q)", err, text)
		}
		*v = d
		low, _ := ParseDuration(s.tag.Get("min"))
		high, _ := ParseDuration(s.tag.Get("max"))
		if d < low || d > high {
			return fmt.Errorf("must be from %s to %s (got %q)", s.tag.Get("min"), s.tag.Get("max"), text)
		}
	case *slog.Level:
		level, ok := parseLevel(text)
		*v = level
		if !ok {
			return fmt.Errorf("must be debug, info, warn or error (got %q)", text)
		}
	default:
		return fmt.Errorf("has a type that no parser knows: %T", v)
	}
	return nil
}

func (s *Setting) parseNumber(text string) (int, error) {
	low, _ := strconv.Atoi(s.tag.Get("min"))
	high, _ := strconv.Atoi(s.tag.Get("max"))
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("must be a whole number from %d to %d (got %q)", low, high, text)
	}
	return n, nil
}

func (s *Setting) parseLimits(words []string) (map[string]int, error) {
	limits := map[string]int{}
	for _, word := range words {
		kind, number, ok := strings.Cut(word, "=")
		if !ok || kind == "" {
			return nil, fmt.Errorf("must be kind=number (got %q)", word)
		}
		if _, twice := limits[kind]; twice {
			return nil, fmt.Errorf("names %s twice", kind)
		}
		n, err := s.parseNumber(number)
		if err != nil {
			return nil, fmt.Errorf("%s %w", kind, err)
		}
		limits[kind] = n
	}
	return limits, nil
}

func parsePrefixes(words []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	var faults []string
	for _, word := range words {
		prefix, err := netip.ParsePrefix(word)
		if addr, addrErr := netip.ParseAddr(word); addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil:
			faults = append(faults, fmt.Sprintf("must be addresses or prefixes such as 10.0.0.0/8 (got %q)", word))
		case prefix != prefix.Masked():
			faults = append(faults, fmt.Sprintf("has bits behind a prefix's length; did you mean %s (got %q)", prefix.Masked(), word))
		default:
			prefixes = append(prefixes, prefix)
		}
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	return prefixes, nil
}

func parseLevel(text string) (slog.Level, bool) {
	switch text {
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	}
	return slog.LevelInfo, false
}

// words splits what a flag or a variable says: at commas for what takes several, else not at all.
func (s *Setting) words(text string) []string {
	if s.Type != "addresses" && s.Type != "kind=number,…" {
		return []string{text}
	}
	var words []string
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}
