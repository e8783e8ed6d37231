package check

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// codeRange is a range of HTTP status codes, both ends included.
type codeRange struct{ low, high uint16 }

// maxCodeRanges bounds how many ranges a monitor can name.
const maxCodeRanges = 50

// parseCodes reads status codes and ranges, "200-299,301", or "any", which is no range at all.
func parseCodes(text string) ([]codeRange, error) {
	if text == "any" {
		return nil, nil
	}
	var ranges []codeRange
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := parseCode(low)
		if err != nil {
			return nil, err
		}
		to, err := parseCode(high)
		if err != nil {
			return nil, err
		}
		if from > to {
			return nil, fmt.Errorf("has the range %s, which ends before it begins", part)
		}
		ranges = append(ranges, codeRange{from, to})
	}
	if len(ranges) > maxCodeRanges {
		return nil, fmt.Errorf("must have at most %d ranges", maxCodeRanges)
	}
	return ranges, nil
}

func parseCode(text string) (uint16, error) {
	text = strings.TrimSpace(text)
	code, err := strconv.ParseUint(text, 10, 16)
	if err != nil || len(text) != 3 || code < 100 || code > 599 {
		return 0, errors.New(`must be status codes from 100 to 599 and ranges of them, such as "200-299,301", or "any"`)
	}
	return uint16(code), nil
}

func accepts(ranges []codeRange, code int) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(r codeRange) bool {
		return code >= int(r.low) && code <= int(r.high)
	})
}
