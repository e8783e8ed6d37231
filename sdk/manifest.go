package sdk

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ManifestFile is the name of the file that holds a plugin's Manifest, at the root of its archive or directory.
const ManifestFile = "tocsin-plugin.yaml"

// Manifest says what a plugin is and what it asks for. It is read before any of the plugin's code runs. Its file form is
// YAML with the JSON names below; docs/plugin-manifest.schema.json is its schema, made from the tags of this struct.
type Manifest struct {
	API         int             `json:"api" required:"true" enum:"1" doc:"version of the plugin contract"`
	Name        string          `json:"name" required:"true" pattern:"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$" doc:"the kind or provider that users write: lower-case letters, digits and dashes"`
	Version     string          `json:"version" required:"true" doc:"semantic version, such as 1.2.0"`
	Summary     string          `json:"summary" required:"true" doc:"one line that says what the plugin does"`
	License     string          `json:"license,omitempty" doc:"SPDX identifier of its licence"`
	Provides    []string        `json:"provides" required:"true" enum:"check,notify" doc:"the calls that the plugin answers"`
	Runtime     string          `json:"runtime" required:"true" enum:"wasm,process" doc:"wasm runs in the sandbox; process is a program of its own that the operator must allow"`
	Entry       Files           `json:"entry,omitzero" doc:"the module of runtime wasm, or the programs of runtime process by os/arch"`
	Script      string          `json:"script,omitempty" doc:"the JavaScript file that stands in the place of entry"`
	SHA256      Files           `json:"sha256,omitzero" doc:"digest of the file in entry or script, in the same form"`
	Target      ManifestTarget  `json:"target,omitzero" doc:"what a monitor's target looks like"`
	Config      json.RawMessage `json:"config,omitempty" doc:"JSON Schema (2020-12) of the configuration; writeOnly marks a secret"`
	Limits      Limits          `json:"limits,omitzero" doc:"what one runner of the plugin may use; the operator can change it"`
	Isolation   string          `json:"isolation,omitempty" enum:"pristine,shared" doc:"pristine, the default, starts every call from a clean state; shared does so only until the operator marks the plugin as trusted"`
	MTLS        bool            `json:"mtls,omitempty" doc:"a process makes certificates for the connection to the server"`
	Permissions []Permission    `json:"permissions,omitempty" doc:"what the plugin asks to reach; it reaches nothing else"`
}

// Provided reports whether the plugin answers a call: "check" or "notify".
func (m Manifest) Provided(call string) bool {
	for _, p := range m.Provides {
		if p == call {
			return true
		}
	}
	return false
}

// ManifestTarget describes the target of a monitor whose kind is the plugin.
type ManifestTarget struct {
	Example string `json:"example,omitempty" doc:"a target as a user would write it"`
	Doc     string `json:"doc,omitempty" doc:"its form in a few words"`
}

// Permission is one thing that a plugin asks for.
type Permission struct {
	Allow  string `json:"allow" required:"true" doc:"SCHEME://HOST[:PORTS]; {target} and {config.FIELD} are filled in for each call"`
	Reason string `json:"reason,omitempty" doc:"why, for the person who grants it"`
}

// Limits bounds a plugin. A zero field is the default.
type Limits struct {
	Memory      Size     `json:"memory,omitzero" min:"1MiB" max:"1GiB" default:"32MiB" doc:"memory of one instance"`
	Timeout     Duration `json:"timeout,omitzero" min:"100ms" max:"5m" default:"10s" doc:"longest time of one call"`
	Concurrency int      `json:"concurrency,omitzero" min:"1" max:"64" default:"8" doc:"calls at the same time"`
}

// Bounds and defaults of Limits.
const (
	MinMemory          = 1 * MiB
	DefaultMemory      = 32 * MiB
	MaxMemory          = 1 * GiB
	MinTimeout         = Duration(100 * time.Millisecond)
	DefaultTimeout     = Duration(10 * time.Second)
	MaxTimeout         = Duration(5 * time.Minute)
	MinConcurrency     = 1
	DefaultConcurrency = 8
	MaxConcurrency     = 64
)

// WithDefaults returns the limits with every zero field set to its default.
func (l Limits) WithDefaults() Limits {
	if l.Memory == 0 {
		l.Memory = DefaultMemory
	}
	if l.Timeout == 0 {
		l.Timeout = DefaultTimeout
	}
	if l.Concurrency == 0 {
		l.Concurrency = DefaultConcurrency
	}
	return l
}

// Files is either one text for every platform or one for each os/arch, such as linux/amd64. The zero value is none.
type Files struct {
	One  string
	Each map[string]string
}

// IsZero reports whether there is none.
func (f Files) IsZero() bool { return f.One == "" && len(f.Each) == 0 }

// For returns the text for a platform, os/arch.
func (f Files) For(platform string) (string, bool) {
	if f.One != "" {
		return f.One, true
	}
	text, ok := f.Each[platform]
	return text, ok
}

// MarshalJSON writes a string or an object.
func (f Files) MarshalJSON() ([]byte, error) {
	if f.Each != nil {
		return json.Marshal(f.Each)
	}
	return json.Marshal(f.One)
}

// UnmarshalJSON reads a string or an object of strings.
func (f *Files) UnmarshalJSON(data []byte) error {
	if kindOf(data) == "an object" {
		*f = Files{}
		return json.Unmarshal(data, &f.Each)
	}
	*f = Files{}
	return json.Unmarshal(data, &f.One)
}

// Size is a number of bytes. Its text has a binary unit: 32MiB.
type Size int64

// The units of a Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// String writes the size in the largest unit that needs no fraction.
func (s Size) String() string {
	for _, unit := range [...]struct {
		size Size
		name string
	}{{GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if s != 0 && s%unit.size == 0 {
			return strconv.FormatInt(int64(s/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// ParseSize reads a whole number with one of the units B, KiB, MiB, GiB.
func ParseSize(text string) (Size, error) {
	end := strings.LastIndexFunc(text, func(r rune) bool { return r >= '0' && r <= '9' }) + 1
	unit, known := Size(1), true
	switch text[end:] {
	case "B":
	case "KiB":
		unit = KiB
	case "MiB":
		unit = MiB
	case "GiB":
		unit = GiB
	default:
		known = false
	}
	number, err := strconv.ParseUint(text[:end], 10, 63)
	if err != nil || !known || number > math.MaxInt64/uint64(unit) {
		return 0, fmt.Errorf(`must be a size such as "32MiB" (units B, KiB, MiB, GiB), is %s`, quoted(text))
	}
	return Size(number) * unit, nil
}

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size as ParseSize does.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// Duration is a length of time whose text is as time.Duration writes it: 10s.
type Duration time.Duration

// String writes the duration as time.Duration does, without parts that are zero.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration as time.ParseDuration does; a negative one is an error.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf(`must be a duration such as "10s", is %s`, quoted(string(text)))
	}
	*d = Duration(parsed)
	return nil
}
