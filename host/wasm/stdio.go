package wasm

import (
	"bytes"
	"log/slog"
	"strings"
	"unicode"
)

// LogLine is one line that a guest wrote to its standard error.
type LogLine struct {
	// Level is given by the prefix "E! ", "W! ", "I! " or "D! ", which is cut off; without one it is slog.LevelInfo.
	Level slog.Level
	// Text is valid UTF-8 without control characters, and never empty.
	Text string
}

// limitedWriter keeps the first limit bytes and remembers whether there were more. The guest is not told: a write that
// failed would make honest programs give up in the middle of their answer, and the others do not care.
type limitedWriter struct {
	buf   bytes.Buffer
	limit int
	cut   bool
}

// Write implements io.Writer. It never fails.
func (w *limitedWriter) Write(p []byte) (int, error) {
	n := len(p)
	if room := w.limit - w.buf.Len(); n > room {
		w.cut = true
		p = p[:room]
	}
	w.buf.Write(p)
	return n, nil
}

// take gives what was written as memory of its own and makes the writer empty.
func (w *limitedWriter) take() (b []byte, cut bool) {
	b, cut = w.buf.Bytes(), w.cut
	w.buf, w.cut = bytes.Buffer{}, false
	return b, cut
}

// lines splits what a guest wrote to standard error.
func lines(b []byte) []LogLine {
	var out []LogLine
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		l := LogLine{Level: slog.LevelInfo, Text: clean(line)}
		if len(l.Text) > 1 && l.Text[1] == '!' {
			level, ok := prefixLevel(l.Text[0])
			if ok {
				l.Level, l.Text = level, strings.TrimSpace(l.Text[2:])
			}
		}
		if l.Text != "" {
			out = append(out, l)
		}
	}
	return out
}

func prefixLevel(c byte) (slog.Level, bool) {
	switch c {
	case 'E':
		return slog.LevelError, true
	case 'W':
		return slog.LevelWarn, true
	case 'I':
		return slog.LevelInfo, true
	case 'D':
		return slog.LevelDebug, true
	}
	return 0, false
}

// clean makes text of what a guest wrote: valid UTF-8, tabs as spaces, no other control characters.
func clean(b []byte) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), "\uFFFD"))
	return strings.TrimSpace(s)
}
