//go:build unix

package process

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzLines cuts what a process writes, however it comes, into the same lines, none of them long.
func FuzzLines(f *testing.F) {
	f.Add("a\nb\n\n\rc", 3)
	f.Add(strings.Repeat("x", maxLine)+"y\nz", maxLine)
	f.Add("\xff\x00\n", 1)
	f.Fuzz(func(t *testing.T, text string, at int) {
		at = min(max(at, 0), len(text))
		cut := func(parts ...string) (string, string) {
			var out bytes.Buffer
			lines := &sink{to: &out}
			s := &splitter{to: lines}
			for _, part := range parts {
				if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatalf("wrote %d of %d: %v", n, len(part), err)
				}
			}
			s.flush()
			return out.String(), lines.lastLine()
		}
		whole, last := cut(text)
		if parts, again := cut(text[:at], text[at:]); parts != whole || again != last {
			t.Errorf("%q cut at %d: %q, %q", text, at, parts, whole)
		}
		for line := range strings.SplitSeq(whole, "\n") {
			if len(line) > maxLine {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
		if strings.ContainsAny(last, "\n\r\x00") || len(last) > 300 {
			t.Errorf("%q ends with %q", text, last)
		}
	})
}

// FuzzFirstLine hands on the first line and nothing behind it, however it comes.
func FuzzFirstLine(f *testing.F) {
	f.Add("1|1|unix|/run/x|grpc\nmore\n")
	f.Add(strings.Repeat("x", maxHandshake+10))
	f.Add("no end")
	f.Fuzz(func(t *testing.T, text string) {
		want, _, ended := strings.Cut(text, "\n")
		if ended {
			want += "\n"
		}
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text))} {
			line := &firstLine{r: io.NopCloser(r)}
			got, err := io.ReadAll(line)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) <= maxHandshake && string(got) != want {
				t.Errorf("%s: %q gives %q", name, text, got)
			}
			if len(want) > maxHandshake+1 && (len(got) > len(want) || !bytes.HasSuffix(got, []byte("\n"))) {
				t.Errorf("%s: a line without end gives %d bytes", name, len(got))
			}
			if strings.ContainsAny(line.text(), "\n\x00") || len(line.text()) > 120 {
				t.Errorf("%s: an error would say %q", name, line.text())
			}
		}
	})
}
