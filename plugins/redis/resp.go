package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/tocsinhq/tocsin/sdk"
)

// The first bytes of the replies of RESP2 that are understood
// (https://redis.io/docs/latest/develop/reference/protocol-spec/). Nothing that is asked here is answered with an array.
const (
	textReply  = '+'
	errorReply = '-'
	wholeReply = ':'
	bulkReply  = '$'
)

// maxBulk is the longest text that is read, in bytes. INFO of a server with many databases and replicas has some 20 KiB.
const maxBulk = 1 << 20

// reply is one answer of the server. The text of one that is null is empty.
type reply struct {
	kind byte
	text string
}

// shown is the reply for a message.
func (r reply) shown() string {
	text := strconv.Quote(sdk.CleanText(r.text, 200))
	if r.kind == errorReply {
		return "the error " + text
	}
	return text
}

// protocolError is an answer that is none.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return e.text }

func notRESP(format string, args ...any) error {
	return &protocolError{"the server does not speak the protocol of Redis: " + fmt.Sprintf(format, args...)}
}

// ask sends commands and reads the reply to the first.
func ask(conn io.Writer, r *bufio.Reader, commands ...[]string) (reply, error) {
	var text []byte
	for _, words := range commands {
		text = fmt.Appendf(text, "*%d\r\n", len(words))
		for _, word := range words {
			text = fmt.Appendf(text, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	_, sendErr := conn.Write(text)
	// A server that has too many clients says so and closes: its words count more than that the question did not arrive.
	answer, err := readReply(r)
	if err != nil && sendErr != nil {
		return reply{}, sendErr
	}
	return answer, err
}

// readReply reads one reply. Lines are at most as long as the reader's buffer.
func readReply(r *bufio.Reader) (reply, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return reply{}, notRESP("a line is longer than %d bytes", len(line))
	case errors.Is(err, io.EOF) && len(line) > 0:
		return reply{}, io.ErrUnexpectedEOF
	case err != nil:
		return reply{}, err
	}
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || len(line) == 0 {
		return reply{}, notRESP("it answered %q", sdk.CleanText(string(line), 60))
	}
	kind, text := line[0], string(line[1:])
	switch kind {
	case textReply, errorReply:
		return reply{kind, text}, nil
	case wholeReply:
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return reply{}, notRESP("%q is no number", sdk.CleanText(text, 60))
		}
		return reply{kind, text}, nil
	case bulkReply:
		return readBulk(r, text)
	}
	return reply{}, notRESP("it answered %q", sdk.CleanText(string(line), 60))
}

// readBulk reads a text whose length is given first; -1 is null.
func readBulk(r io.Reader, length string) (reply, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < -1 || n > maxBulk {
		return reply{}, notRESP("%q is no length of up to %d bytes", sdk.CleanText(length, 60), maxBulk)
	}
	if n == -1 {
		return reply{kind: bulkReply}, nil
	}
	// It grows with what arrives: the length is only what the server says.
	var text bytes.Buffer
	if _, err := io.CopyN(&text, r, int64(n)+2); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return reply{}, err
	}
	body, ok := bytes.CutSuffix(text.Bytes(), []byte("\r\n"))
	if !ok {
		return reply{}, notRESP("a text is longer than it says")
	}
	return reply{bulkReply, string(body)}, nil
}
