package process

import (
	"bytes"
	"io"
	"sync"

	"github.com/tocsinhq/tocsin/sdk"
)

// maxLine bounds a line that a process writes, in bytes; the rest of a longer one is dropped.
const maxLine = 4 << 10

// sink takes the lines that a process writes, remembers the last one, and hands each to a writer. After close it drops all.
type sink struct {
	mu     sync.Mutex
	to     io.Writer // nil drops them
	last   string
	closed bool
}

func (s *sink) line(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if text := sdk.CleanText(string(line), 300); text != "" {
		s.last = text
	}
	if s.to != nil {
		//nolint:errcheck // a log that cannot be written must not stop the process
		s.to.Write(append(line, '\n'))
	}
}

func (s *sink) lastLine() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// splitter cuts a stream into lines for a sink. It is for one goroutine.
type splitter struct {
	to   *sink
	rest []byte
}

// Write implements io.Writer; it never fails.
func (s *splitter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		s.rest = append(s.rest, line[:min(len(line), maxLine-len(s.rest))]...)
		p = rest
		if ended {
			s.flush()
		}
	}
	return n, nil
}

// flush hands on what has no end yet.
func (s *splitter) flush() {
	if len(s.rest) > 0 {
		s.to.line(s.rest)
	}
	s.rest = s.rest[:0]
}

// firstLine gives go-plugin the first line of standard output, which is the handshake, and drops the rest for ever: nobody
// reads it, and a process that waits for somebody to read would stand still.
type firstLine struct {
	r    io.ReadCloser
	mu   sync.Mutex
	seen []byte // of the first line, at most maxHandshake bytes
	over bool
}

// maxHandshake bounds the handshake. It holds a certificate at most.
const maxHandshake = 16 << 10

// Read implements io.Reader.
func (f *firstLine) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	over := f.over
	f.mu.Unlock()
	if over {
		_, err := io.Copy(io.Discard, f.r)
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, err := f.r.Read(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
		n, f.over = i+1, true
	}
	f.seen = append(f.seen, p[:n]...)
	if !f.over && len(f.seen) > maxHandshake { // no handshake is so long: let it be read as one that is broken
		f.over = true
		if n > 0 {
			p[n-1] = '\n'
		}
	}
	return n, err
}

// Close implements io.Closer.
func (f *firstLine) Close() error { return f.r.Close() }

// text is what came of the first line, for an error.
func (f *firstLine) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sdk.CleanText(string(bytes.TrimSpace(f.seen)), 120)
}
