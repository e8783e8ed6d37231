package check

import "strings"

// rewriteDurations replaces every duration literal of an expression, such as 300ms or 1m30s, by a call of the language's
// function: duration("300ms"). Texts and comments are left alone.
func rewriteDurations(src string) string {
	var out strings.Builder
	last := 0
	for i := 0; i < len(src); {
		switch c := src[i]; {
		case c == '"' || c == '\'' || c == '`':
			i = skipQuoted(src, i)
		case strings.HasPrefix(src[i:], "//"):
			if n := strings.IndexByte(src[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(src)
			}
		case strings.HasPrefix(src[i:], "/*"):
			if n := strings.Index(src[i+2:], "*/"); n >= 0 {
				i += n + 4
			} else {
				i = len(src)
			}
		case isWord(c) && !isDigit(c):
			for i < len(src) && isWord(src[i]) {
				i++
			}
		case isDigit(c):
			end, ok := scanDuration(src, i)
			if ok {
				out.WriteString(src[last:i])
				out.WriteString(`duration("`)
				out.WriteString(src[i:end])
				out.WriteString(`")`)
				last = end
			}
			i = end
		default:
			i++
		}
	}
	out.WriteString(src[last:])
	return out.String()
}

// skipQuoted returns the index after the text that begins at i, or the end of src when it is not closed.
func skipQuoted(src string, i int) int {
	quote := src[i]
	for i++; i < len(src); i++ {
		switch {
		case src[i] == '\\' && quote != '`':
			i++
		case src[i] == quote:
			return i + 1
		}
	}
	return len(src)
}

// scanDuration reads the number at i and reports whether it is a duration. The index is after the duration, else after the
// digits and letters that follow.
func scanDuration(src string, i int) (int, bool) {
	end, ok := i, false
	for end < len(src) && isDigit(src[end]) {
		n := end
		for n < len(src) && isDigit(src[n]) {
			n++
		}
		if n+1 < len(src) && src[n] == '.' && isDigit(src[n+1]) {
			for n++; n < len(src) && isDigit(src[n]); n++ {
			}
		}
		unit := unitAt(src[n:])
		if unit == 0 {
			ok = false
			end = n
			break
		}
		end, ok = n+unit, true
	}
	if end < len(src) && isWord(src[end]) {
		ok = false
	}
	for end < len(src) && isWord(src[end]) {
		end++
	}
	return end, ok
}

// unitAt returns the length of the unit of time that text begins with, or 0.
func unitAt(text string) int {
	for _, unit := range [...]string{"ns", "us", "µs", "ms", "s", "m", "h"} {
		if strings.HasPrefix(text, unit) {
			return len(unit)
		}
	}
	return 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWord(c byte) bool {
	return isDigit(c) || c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
