package sdk

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Range is a threshold range as the Nagios plugin guidelines define it ("Threshold and Ranges",
// https://nagios-plugins.org/doc/guidelines.html#THRESHOLDFORMAT). A value outside it, or with Inside a value within it,
// both ends included, is an alert. The zero value is the range "0": anything but 0 alerts.
type Range struct {
	Low, High float64 // Low is at most High; Low may be -Inf, High +Inf; never NaN
	Inside    bool    // alert within instead of outside
}

// ParseRange reads "[@][start:][end]". A missing start is 0, "~" as start is minus infinity, a missing end after a colon is
// infinity. A leading "@" alerts inside instead of outside.
func ParseRange(text string) (Range, error) {
	var r Range
	rest, inside := strings.CutPrefix(text, "@")
	r.Inside = inside
	if rest == "" {
		return Range{}, fmt.Errorf("range %s is empty; write one such as 10, 10:, ~:10, 10:20 or @10:20", quoted(text))
	}
	start, end, colon := strings.Cut(rest, ":")
	if !colon {
		start, end = "", rest
	}
	var err error
	switch start {
	case "":
	case "~":
		r.Low = math.Inf(-1)
	default:
		if r.Low, err = rangeNumber(start); err != nil {
			return Range{}, fmt.Errorf("range %s: start %w", quoted(text), err)
		}
	}
	r.High = math.Inf(1)
	if end != "" {
		if r.High, err = rangeNumber(end); err != nil {
			return Range{}, fmt.Errorf("range %s: end %w", quoted(text), err)
		}
	}
	if r.Low > r.High {
		return Range{}, fmt.Errorf("range %s: start must not be above end", quoted(text))
	}
	return r, nil
}

// rangeNumber reads a decimal number; the words, hexadecimals and underscores that ParseFloat knows are no part of a range.
func rangeNumber(text string) (float64, error) {
	if strings.Trim(text, "0123456789+-.eE") != "" || strings.ContainsAny(text, "~:@") {
		return 0, fmt.Errorf("must be a number, is %s", quoted(text))
	}
	number, err := strconv.ParseFloat(text, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is too large", quoted(text))
	}
	if err != nil {
		return 0, fmt.Errorf("must be a number, is %s", quoted(text))
	}
	if number == 0 {
		number = 0 // without the sign of -0
	}
	return number, nil
}

func quoted(text string) string { return strconv.Quote(CleanText(text, 60)) }

// Alerts reports whether value is an alert. NaN always is.
func (r Range) Alerts(value float64) bool {
	within := value >= r.Low && value <= r.High
	return within == r.Inside || math.IsNaN(value)
}

// String returns the shortest text that ParseRange reads as r.
func (r Range) String() string {
	var text strings.Builder
	if r.Inside {
		text.WriteByte('@')
	}
	bounded := !math.IsInf(r.High, 1)
	switch {
	case math.IsInf(r.Low, -1):
		text.WriteString("~:")
	case r.Low != 0 || !bounded:
		text.WriteString(plainNumber(r.Low) + ":")
	}
	if bounded {
		text.WriteString(plainNumber(r.High))
	}
	return text.String()
}

func plainNumber(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }
