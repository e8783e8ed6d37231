//go:build unix

package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// frame makes the bytes of a message, whatever is in it.
func frame(body string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + body
}

// badRequests are what no client sends.
func badRequests() map[string]string {
	return map[string]string{
		"no length":            "\x00\x00",
		"empty":                frame(""),
		"too long":             "\x00\x01\x00\x01" + strings.Repeat(" ", 1<<16+1),
		"length of 4 GiB":      "\xff\xff\xff\xff",
		"cut short":            "\x00\x00\x00\x10{}",
		"no JSON":              frame("hello"),
		"a list":               frame("[]"),
		"two values":           frame(`{"op":"dial","id":1}{}`),
		"wrong type":           frame(`{"op":"dial","id":"1"}`),
		"negative id":          frame(`{"op":"dial","id":-1}`),
		"no operation":         frame(`{}`),
		"unknown operation":    frame(`{"op":"listen","id":1}`),
		"dial without id":      frame(`{"op":"dial","call":1}`),
		"dial with note":       frame(`{"op":"dial","id":1,"note":{}}`),
		"note with id":         frame(`{"op":"tell","id":1,"note":{}}`),
		"note without note":    frame(`{"op":"tell"}`),
		"cancel without id":    frame(`{"op":"cancel"}`),
		"id used twice":        frame(`{"op":"dial","id":7,"call":9}`) + frame(`{"op":"echo","id":7,"call":9}`),
		"id smaller than last": frame(`{"op":"dial","id":7,"call":9}`) + frame(`{"op":"echo","id":6,"call":9}`),
	}
}

func TestBadRequestEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, data := range badRequests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, runner := connPair(t)
			served := make(chan error, 1)
			go func() { served <- NewServer(ServerOptions{Calls: oneCall(t, "a:1")}).Serve(t.Context(), server) }()
			if _, err := io.WriteString(runner.sock, data); err != nil && !isEnd(err) {
				t.Fatal(err)
			}
			if name == "no length" || name == "cut short" {
				runner.Close()
			}
			if err := <-served; !errors.Is(err, ErrProtocol) {
				t.Errorf("Serve: %v, want a protocol error", err)
			}
			if name != "no length" && name != "cut short" {
				if _, err := io.Copy(io.Discard, runner.sock); err != nil && !isEnd(err) {
					t.Errorf("the connection is not closed: %v", err)
				}
			}
		})
	}
}

// TestNonsenseIsAnswered: what a plugin may have chosen is answered, and the connection stays.
func TestNonsenseIsAnswered(t *testing.T) {
	t.Parallel()
	server, runner := connPair(t)
	served := make(chan error, 1)
	go func() { served <- NewServer(ServerOptions{Calls: oneCall(t, "a:1")}).Serve(t.Context(), server) }()
	id := 0
	for body, want := range map[string]Error{
		`{"op":"dial","id":ID,"call":1,"access":"unix:///run/docker.sock"}`:                {Invalid, `scheme "unix" is none of tcp, tls, udp, http, https, dns, icmp, cert`},
		`{"op":"dial","id":ID,"call":1,"access":""}`:                                       {Invalid, `scheme "" is none of tcp, tls, udp, http, https, dns, icmp, cert`},
		`{"op":"dial","id":ID,"call":1,"access":"tcp://a:1\u0000"}`:                        {Invalid, `tcp address: "1" is no port from 1 to 65535`},
		`{"op":"dial","id":ID,"call":1,"access":"tcp://u@a:1"}`:                            {Invalid, `tcp address: a user name before @ is not allowed`},
		`{"op":"dial","id":ID,"call":1,"access":"tcp://2130706433:1"}`:                     {Invalid, `tcp address: "2130706433" is no address in its usual form, such as 192.0.2.1`},
		`{"op":"resolve","id":ID,"call":1,"access":"tcp://a:1","type":"A"}`:                {Invalid, `tcp://a:1: a DNS question is asked of dns`},
		`{"op":"resolve","id":ID,"call":1,"access":"dns://a","type":"AXFR"}`:               {Invalid, `"AXFR" is no type of DNS record that can be asked for`},
		`{"op":"resolve","id":ID,"call":1,"access":"dns://a","type":"A","server":"b"}`:     {Invalid, `DNS server: udp address: the port is missing`},
		`{"op":"echo","id":ID,"call":1,"access":"tcp://a:1"}`:                              {Invalid, `tcp://a:1: an echo is sent to icmp`},
		`{"op":"echo","id":ID,"call":0,"access":"icmp://a"}`:                               {Invalid, `call 0 is not under way`},
		`{"op":"dial","id":ID,"call":18446744073709551615,"access":"tcp://a:1"}`:           {Invalid, `call 18446744073709551615 is not under way`},
		`{"OP":"dial","id":ID,"call":1,"access":"tcp://b:1","unknown":{"a":[1,2,{}]}}`:     {Denied, `not granted: tcp://b:1; the plugin was granted tcp://{target} (a:1), udp://{target} (a:1), dns://{target} (a), icmp://{target} (a), https://{target} (a:1), http://{target} (a:1)`},
		`{"op":"resolve","id":ID,"call":1,"access":"dns://a","type":"A","server":"b:53"} `: {Denied, `not granted: udp://b:53; the plugin was granted tcp://{target} (a:1), udp://{target} (a:1), dns://{target} (a), icmp://{target} (a), https://{target} (a:1), http://{target} (a:1)`},
	} {
		id++
		if _, err := io.WriteString(runner.sock, frame(`{"op":"cancel","id":12345}`)+frame(strings.Replace(body, "ID", strconv.Itoa(id), 1))); err != nil {
			t.Fatal(err)
		}
		answer, socket, err := runner.receive(maxReply, true)
		if err != nil || socket != nil {
			t.Fatalf("%s: %v, %v", body, socket, err)
		}
		var got reply
		if err := json.Unmarshal(answer, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got.Error); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	runner.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestBadReplyEndsTheClient(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"empty": frame(""), "too long": "\x00\x04\x00\x01", "no JSON": frame("{"), "no id": frame("{}"), "wrong type": frame(`{"id":1,"error":7}`),
		"bad address": frame(`{"id":1,"addr":"localhost:1"}`), "bad record": frame(`{"id":1,"answer":{"answers":[{"ttl":-1}]}}`), "cut short": frame("{}")[:5],
	} {
		server, runner := connPair(t)
		client := NewClient(runner)
		ran := make(chan error, 1)
		go func() { ran <- client.Run() }()
		failed := make(chan error, 1)
		go func() {
			_, err := client.For(1).Dial(timed(t), accessOf(t, "tcp://a:1"))
			failed <- err
		}()
		if _, _, err := server.receive(maxRequest, false); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(server.sock, data); err != nil {
			t.Fatal(err)
		}
		if name == "cut short" {
			server.Close()
		}
		if err := <-ran; !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: Run: %v, want a protocol error", name, err)
		}
		if err := <-failed; kindOf(err) != Closed {
			t.Errorf("%s: the dial under way: %v", name, err)
		}
	}
}

// TestStrayReplies: replies to nothing, or of the wrong sort, are dropped, and their sockets are closed.
func TestStrayReplies(t *testing.T) {
	t.Parallel()
	server, runner := connPair(t)
	client := NewClient(runner)
	ran := make(chan error, 1)
	go func() { ran <- client.Run() }()
	send := func(body string) *os.File {
		t.Helper()
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.sock.WriteMsgUnix([]byte(frame(body)), syscall.UnixRights(int(writer.Fd())), nil); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		return reader
	}
	expectEnd := func(reader *os.File, why string) {
		t.Helper()
		reader.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the descriptor is still open: %v", why, err)
		}
		reader.Close()
	}
	ask := func(do func(Network) error) chan error {
		t.Helper()
		failed := make(chan error, 1)
		go func() { failed <- do(client.For(1)) }()
		if _, _, err := server.receive(maxRequest, false); err != nil {
			t.Fatal(err)
		}
		return failed
	}
	expectEnd(send(`{"id":99}`), "a reply to nothing")
	failed := ask(func(n Network) error { _, err := n.Echo(timed(t), hostOf(t, "a")); return err })
	expectEnd(send(`{"id":1}`), "a socket with an echo")
	if err := <-failed; kindOf(err) != Failed {
		t.Errorf("an echo without one: %v", err)
	}
	failed = ask(func(n Network) error {
		_, err := n.Resolve(timed(t), Question{Type: "A", Name: hostOf(t, "a")})
		return err
	})
	expectEnd(send(`{"id":2}`), "a socket with an answer")
	if err := <-failed; kindOf(err) != Failed {
		t.Errorf("a DNS answer without one: %v", err)
	}
	dial := func(n Network) error { _, err := n.Dial(timed(t), accessOf(t, "tcp://a:1")); return err }
	failed = ask(dial)
	expectEnd(send(`{"id":3}`), "a pipe for a socket")
	if err := <-failed; kindOf(err) != Failed {
		t.Errorf("a pipe for a socket: %v", err)
	}
	failed = ask(dial)
	expectEnd(send(`{"id":4,"error":{"kind":"busy","message":"m"}}`), "a socket with an error")
	if diff := cmp.Diff(error(&Error{Busy, "m"}), <-failed); diff != "" {
		t.Error(diff)
	}
	failed = ask(dial)
	io.WriteString(server.sock, frame(`{"id":5}`))
	if err := <-failed; kindOf(err) != Busy {
		t.Errorf("no socket: %v", err)
	}
	// In the middle of a message descriptors are not received at all.
	body := frame(`{"id":99}`)
	io.WriteString(server.sock, body[:6])
	reader, writer, _ := os.Pipe()
	server.sock.WriteMsgUnix([]byte(body[6:]), syscall.UnixRights(int(writer.Fd())), nil)
	writer.Close()
	expectEnd(reader, "in the middle")
	// Two at once end it.
	reader, writer, _ = os.Pipe()
	server.sock.WriteMsgUnix([]byte(body), syscall.UnixRights(int(writer.Fd()), int(writer.Fd())), nil)
	writer.Close()
	expectEnd(reader, "two of them")
	if err := <-ran; !errors.Is(err, ErrProtocol) {
		t.Errorf("Run: %v, want a protocol error", err)
	}
}

// TestDescriptorsFromTheRunner: the server receives none, however they are sent.
func TestDescriptorsFromTheRunner(t *testing.T) {
	before := descriptors(t)
	server, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	runner, err := Inherit(f)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	served := make(chan error, 1)
	s := NewServer(ServerOptions{Calls: oneCall(t, ""), Told: func(note json.RawMessage) { told <- string(note) }})
	go func() { served <- s.Serve(t.Context(), server) }()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(writer.Fd())
	message := frame(`{"op":"tell","note":1}`)
	for _, part := range []string{message[:1], message[1:7], message[7:], message} {
		if _, _, err := runner.sock.WriteMsgUnix([]byte(part), syscall.UnixRights(fd, fd, fd), nil); err != nil {
			t.Fatal(err)
		}
	}
	writer.Close()
	for range 2 {
		if note := <-told; note != "1" {
			t.Errorf("told %s", note)
		}
	}
	reader.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("somebody has the descriptor: %v", err)
	}
	reader.Close()
	runner.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	awaitDescriptors(t, before)
}

// TestCloseOnExec: neither the ends nor the sockets that were handed over get into a program that is executed.
func TestCloseOnExec(t *testing.T) {
	t.Parallel()
	address, _ := echoing(t)
	e := connected(t, NewServer(ServerOptions{Calls: oneCall(t, address)}))
	d, err := e.net.Dial(timed(t), accessOf(t, "tcp://"+address))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Conn.Close()
	for name, conn := range map[string]any{"server": e.server.sock, "runner": e.runner.sock, "socket": d.Conn.(plain).Conn} {
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			flags, _, number := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
			if number != 0 || flags&syscall.FD_CLOEXEC == 0 {
				t.Errorf("%s: flags %x, %v", name, flags, number)
			}
		})
	}
}

// TestBigReplyInParts: a reply larger than the socket's buffer goes out in parts, its descriptor once.
func TestBigReplyInParts(t *testing.T) {
	t.Parallel()
	address, _ := echoing(t)
	server, runner := connPair(t)
	if err := server.sock.SetWriteBuffer(4096); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	want := reply{ID: 1, Answer: &Answer{Answers: []Record{{Data: strings.Repeat("d<&>", 50_000)}}}}
	message, err := encode(want, maxReply)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- server.sendWith(message, socket) }()
	body, f, err := runner.receive(maxReply, true)
	if err != nil || f == nil || <-sent != nil {
		t.Fatalf("received %v, %v", f, err)
	}
	f.Close()
	got, err := readReply(body)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// TestRunnerThatNeverReads: it is cut off instead of holding sockets for ever.
func TestRunnerThatNeverReads(t *testing.T) {
	t.Parallel()
	server, runner := connPair(t)
	if err := server.sock.SetWriteBuffer(2048); err != nil {
		t.Fatal(err)
	}
	server.patience = 100 * time.Millisecond
	s := NewServer(ServerOptions{Calls: oneCall(t, "a:1")})
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), server) }()
	var sent error
	for id := 1; sent == nil; id++ {
		_, sent = io.WriteString(runner.sock, frame(`{"op":"dial","call":1,"access":"tcp://b:1","id":`+strconv.Itoa(id)+`}`))
	}
	if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Serve: %v", err)
	}
}

func TestInheritRefuses(t *testing.T) {
	t.Parallel()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Inherit(file); err == nil {
		t.Error("a file was taken for a socket")
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[1])
	if _, err := Inherit(os.NewFile(uintptr(fds[0]), "datagrams")); err == nil {
		t.Error("a datagram socket was taken for a stream")
	}
}

func FuzzFrame(f *testing.F) {
	for _, data := range badRequests() {
		f.Add([]byte(data))
	}
	f.Add([]byte(frame(`{"op":"tell","note":1}`) + frame(`{"id":1}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 128<<10 {
			return // it would not fit into the socket
		}
		writer, reader := connPair(t)
		defer reader.Close()
		if _, err := writer.sock.Write(data); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		rest := data
		for {
			body, socket, err := reader.receive(maxRequest, len(rest)%2 == 0)
			if socket != nil {
				t.Fatal("a descriptor out of nothing")
			}
			if err == nil {
				if want := frame(string(body)); !bytes.HasPrefix(rest, []byte(want)) {
					t.Fatalf("read %q of %q", body, rest)
				}
				rest = rest[headerSize+len(body):]
				continue
			}
			if errors.Is(err, io.EOF) != (len(rest) == 0) || !errors.Is(err, ErrProtocol) && !errors.Is(err, io.EOF) {
				t.Fatalf("%q ends with %v", rest, err)
			}
			return
		}
	})
}

func FuzzServerMessage(f *testing.F) {
	for _, data := range badRequests() {
		if len(data) > headerSize {
			f.Add(data[headerSize:])
		}
	}
	for _, seed := range []string{
		`{"op":"dial","id":1,"call":1,"access":"tcp://a:1"}`, `{"op":"resolve","id":1,"call":1,"access":"dns://a","type":"MX","server":"a:53"}`,
		`{"op":"echo","id":1,"call":1,"access":"icmp://[::1]"}`, `{"op":"cancel","id":1}`, `{"op":"tell","note":[1]}`,
	} {
		f.Add(seed)
	}
	grant := grantOf(f, "tcp://a:1 dns://a udp://a:53 icmp://a")
	s := NewServer(ServerOptions{
		Calls: func(id uint64) (Call, bool) {
			return Call{Grant: grant, Deadline: time.Now().Add(time.Minute)}, id == 1
		},
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, nil }, // so nothing is ever dialled
		Servers: func() ([]netip.AddrPort, error) {
			return nil, errors.New("there are none")
		},
	})
	f.Fuzz(func(t *testing.T, body string) {
		if len(body) > maxRequest {
			return
		}
		server, runner := connPair(t)
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), server) }()
		if _, err := io.WriteString(runner.sock, frame(body)); err != nil {
			t.Fatal(err)
		}
		r, bad := readRequest([]byte(body))
		if bad == nil && r.ID != 0 && r.Op != opCancel {
			answer, socket, err := runner.receive(maxReply, true)
			if err != nil || socket != nil {
				t.Fatalf("reply: %v, %v", socket, err)
			}
			got, err := readReply(answer)
			if err != nil || got.ID != r.ID || got.Error == nil || got.Error.Message == "" || len(got.Error.Message) > maxMessage {
				t.Fatalf("reply %s: %v", answer, err)
			}
		}
		if bad == nil {
			runner.Close()
		}
		if err := <-served; (bad != nil) != errors.Is(err, ErrProtocol) {
			t.Fatalf("Serve: %v, reading the message: %v", err, bad)
		}
	})
}

func FuzzClientMessage(f *testing.F) {
	for _, seed := range []string{
		`{"id":1}`, `{"id":2,"error":{"kind":"denied","message":"m"}}`, `{"id":1,"addr":"[fe80::1%eth0]:1","dns_ns":5,"connect_ns":-5}`, `{"id":1,"echo":{"RTT":5,"TTL":64,"Addr":"::1"}}`,
		`{"id":1,"answer":{"rcode":"NOERROR","answers":[{"name":"a.","type":"A","ttl":1,"data":"1.2.3.4"}]}}`, `{`, `[]`, `{"id":0}`, `{"id":1,"error":null}`,
	} {
		f.Add(seed, byte(0))
		f.Add(seed, byte(1))
		f.Add(seed, byte(2))
	}
	f.Fuzz(func(t *testing.T, body string, ask byte) {
		if len(body) > 64<<10 || body == "" {
			return
		}
		server, runner := connPair(t)
		client := NewClient(runner)
		ran := make(chan error, 1)
		go func() { ran <- client.Run() }()
		done := make(chan error, 1)
		go func() {
			var err error
			switch n := client.For(1); ask % 3 {
			case 0:
				_, err = n.Dial(context.Background(), accessOf(t, "tcp://a:1"))
			case 1:
				_, err = n.Resolve(context.Background(), Question{Type: "A", Name: hostOf(t, "a")})
			case 2:
				_, err = n.Echo(context.Background(), hostOf(t, "a"))
			}
			done <- err
		}()
		if _, _, err := server.receive(maxRequest, false); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(server.sock, frame(body)); err != nil {
			t.Fatal(err)
		}
		server.Close() // if the reply was not for it, that ends it
		if err := <-done; err != nil && kindOf(err) == "" && !is[*Error](err) {
			t.Fatalf("%T: %v", err, err)
		}
		_, bad := readReply([]byte(body))
		if err := <-ran; (bad != nil) != (err != nil) {
			t.Fatalf("Run: %v, reading the reply: %v", err, bad)
		}
	})
}
