package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Lengths of the units that time.Duration does not know. A day is 24 hours, whatever the clocks do; a year is 365 days.
const (
	day  = 24 * time.Hour
	week = 7 * day
	year = 365 * day
)

var errDuration = errors.New(`must be a duration such as "30s", "1h30m", "90d" or "2y"`)

// unit returns the length of a unit, or 0 for what is none.
func unit(name string) time.Duration {
	switch name {
	case "ms":
		return time.Millisecond
	case "s":
		return time.Second
	case "m":
		return time.Minute
	case "h":
		return time.Hour
	case "d":
		return day
	case "w":
		return week
	case "y":
		return year
	}
	return 0
}

// ParseDuration reads whole numbers with units, y w d h m s ms, each at most once and the larger first: 90d, 1h30m. A bare
// 0 is allowed; a sign or a fraction is not.
func ParseDuration(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	if text == "" {
		return 0, errDuration
	}
	var total time.Duration
	last := time.Duration(math.MaxInt64)
	for rest := text; rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		letters := len(rest) - digits - len(strings.TrimLeft(rest[digits:], "ywdhms"))
		if digits == 0 || letters == 0 {
			return 0, errDuration
		}
		u := unit(rest[digits : digits+letters])
		if u == 0 || u >= last {
			return 0, errDuration
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || n > (math.MaxInt64-int64(total))/int64(u) {
			return 0, fmt.Errorf("must be shorter than 292 years")
		}
		total += time.Duration(n) * u
		last = u
		rest = rest[digits+letters:]
	}
	return total, nil
}

// FormatDuration writes a duration of whole milliseconds so that ParseDuration reads it: 90d, 1h30m, 2y. A part below a
// millisecond is cut off. A negative one is written as 0s.
func FormatDuration(d time.Duration) string {
	var b strings.Builder
	for _, name := range [...]string{"y", "d", "h", "m", "s", "ms"} { // no weeks: 90d reads better than 12w6d
		if n := d / unit(name); n > 0 {
			fmt.Fprintf(&b, "%d%s", n, name)
			d %= unit(name)
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}
