package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// A sandboxed plugin has no sockets: its network is the directory /net, and the functions below open files in it. What was
// not granted they refuse with an error that is fs.ErrPermission. They wait until the call's time is over at most, and
// while one of them waits the whole plugin does. Errors are *NetError. A plugin that is a process of its own has no such
// directory, but all of package net.

// netFailure is where the runner says why the last operation failed.
const netFailure = "/net/error"

// explain returns why an operation on a file below /net failed.
func explain(op, path string, err error) error {
	why := &NetError{Op: op, Path: path, Kind: NetFailed}
	if text, readErr := os.ReadFile(netFailure); readErr == nil {
		var last NetError
		if json.Unmarshal(text, &last) == nil && last.Message != "" && last.Path == CleanText(path, 300) {
			return &last
		}
	}
	why.Message = err.Error()
	if errors.Is(err, os.ErrNotExist) {
		why.Message = "there is no " + path + ": only a plugin in the sandbox has it"
	}
	return why
}

// Stream is an open file below /net: a connection, or a question and its answer. It is for one goroutine at a time.
type Stream struct {
	file *os.File
	path string
	id   int // by which TLS takes it over; 0: it cannot
}

var _ io.ReadWriteCloser = (*Stream)(nil)

// Open opens a path below /net, such as /net/tcp/example.com:25, to read and to write. PathEscape makes what is variable in
// it safe.
func Open(path string) (*Stream, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, explain("open", path, err)
	}
	return &Stream{file: f, path: path}, nil
}

// Read reads what has come, and waits for something. After the other side's end it returns io.EOF. Of a datagram what does
// not fit is lost.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, explain("read", s.path, err)
	}
	return n, err
}

// Write writes all of p; to udp as one datagram.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	if err != nil {
		return n, explain("write", s.path, err)
	}
	return n, nil
}

// Close closes the stream. What is still open when a call ends is closed then.
func (s *Stream) Close() error { return s.file.Close() }

// lastStream counts the streams of a call, since each needs an id that no other has. A call starts from a clean state and
// the count with it.
var lastStream atomic.Int32

// Dial connects to HOST:PORT. The network is tcp, udp, or tls, which is TCP with a verified certificate.
func Dial(network, address string) (*Stream, error) {
	switch network {
	case "tcp":
		id := int(lastStream.Add(1))
		s, err := Open("/net/tcp/" + PathEscape(address) + "?id=" + strconv.Itoa(id))
		if err == nil {
			s.id = id
		}
		return s, err
	case "tls", "udp":
		return Open("/net/" + network + "/" + PathEscape(address))
	}
	return nil, &NetError{Op: "open", Path: "/net", Kind: NetInvalid, Message: fmt.Sprintf("network %s is none of tcp, tls, udp", quoted(network))}
}

// StartTLS goes on in TLS on a stream that Dial opened with tcp, as after a STARTTLS command. The name is what the server's
// certificate must be for; empty is the host that was dialled. The stream itself can only be closed then.
func (s *Stream) StartTLS(name string) (*Stream, error) {
	if s.id == 0 {
		return nil, &NetError{Op: "open", Path: s.path, Kind: NetInvalid, Message: "only a stream of tcp that Dial opened can go on in TLS"}
	}
	path := "/net/tls/@" + strconv.Itoa(s.id)
	if name != "" {
		path += "?servername=" + PathEscape(name)
	}
	return Open(path)
}

// PathEscape percent-encodes a text for one part of a path below /net, or for the value of an option.
func PathEscape(text string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_~:[],"
	const hex = "0123456789ABCDEF"
	if strings.Trim(text, plain) == "" {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// Do makes one HTTP request. An answer of any status is no error.
func Do(req HTTPRequest) (HTTPResponse, error) {
	text, err := json.Marshal(req)
	if err != nil {
		return HTTPResponse{}, fmt.Errorf("write http request: %w", err)
	}
	var resp HTTPResponse
	return resp, ask("/net/http", text, &resp)
}

// LookupDNS asks a DNS question: the records of a type, such as MX, that a name has. An answer such as NXDOMAIN is no error.
// It needs the permission dns://, which nothing else implies.
func LookupDNS(kind, name string) (DNSAnswer, error) {
	var answer DNSAnswer
	return answer, ask("/net/dns/"+PathEscape(kind)+"/"+PathEscape(name), nil, &answer)
}

// Ping sends one ICMP echo request to a host and waits for the reply.
func Ping(host string) (Echo, error) {
	var echo Echo
	return echo, ask("/net/icmp/"+PathEscape(host), nil, &echo)
}

// FetchCertificates reads the chain of certificates that HOST:PORT presents, verified or not.
func FetchCertificates(address string) (Presented, error) {
	var chain Presented
	return chain, ask("/net/cert/"+PathEscape(address), nil, &chain)
}

// ask opens a path, writes a question if there is one, and reads the answer.
func ask(path string, question []byte, answer any) error {
	mode := os.O_RDONLY
	if question != nil {
		mode = os.O_RDWR
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return explain("open", path, err)
	}
	defer f.Close()
	if question != nil {
		if _, err := f.Write(question); err != nil {
			return explain("write", path, err)
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return explain("read", path, err)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return &NetError{Op: "read", Path: path, Kind: NetFailed, Message: "the answer cannot be read: " + err.Error()}
	}
	return nil
}
