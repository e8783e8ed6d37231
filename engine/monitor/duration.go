package monitor

import (
	"fmt"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Duration is a length of time that is written as text, "30s" or "1h30m", in JSON, files and flags.
type Duration time.Duration

// ParseDuration reads what time.ParseDuration reads. The error names the form that is wanted.
func ParseDuration(text string) (Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf(`%q is no duration like "30s" or "1h30m"`, text)
	}
	return Duration(d), nil
}

// String returns the shortest text that ParseDuration reads as d: "30s", "5m", "1h30m".
func (d Duration) String() string {
	return sdk.Duration(d).String()
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
