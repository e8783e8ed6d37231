package sdk

import (
	"strings"
	"unicode/utf8"
)

// CleanText returns text as one line of valid UTF-8 without control characters and direction overrides, cut to at most limit
// bytes at a character's boundary; what is cut is marked with an ellipsis when there is room for one. Line breaks and tabs
// become spaces.
func CleanText(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError:
			return -1
		case r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069':
			return -1
		}
		return r
	}, text)
	if len(text) <= limit {
		return text
	}
	ellipsis := "…"
	if limit < len(ellipsis) {
		ellipsis = ""
	}
	cut := max(limit-len(ellipsis), 0)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}
