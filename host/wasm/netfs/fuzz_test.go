package netfs

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
)

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

// nothing denies everything, as broker.Server does without a grant.
type nothing struct{ t testing.TB }

func (n nothing) Dial(_ context.Context, access reach.Access) (broker.Dialled, error) {
	return broker.Dialled{}, n.deny(access)
}

func (n nothing) Resolve(_ context.Context, q broker.Question) (broker.Answer, error) {
	return broker.Answer{}, n.deny(reach.Access{Scheme: "dns", Host: q.Name})
}

func (n nothing) Echo(_ context.Context, host reach.Host) (broker.Echo, error) {
	return broker.Echo{}, n.deny(reach.Access{Scheme: "icmp", Host: host})
}

func (nothing) deny(access reach.Access) error {
	_, err := reach.Grant{}.Decide(reach.Call{}, access, policy())
	return &broker.Error{Kind: broker.Denied, Message: err.Error()}
}

// FuzzOpen opens what guests may open, with a network that denies everything.
func FuzzOpen(f *testing.F) {
	for _, seed := range []string{
		"tcp/h:80?id=1", "tls/@1?alpn=h2,http/1.1&servername=b", "tls/h:1?insecure=1", "udp/[::1]:53", "dns/MX/a.example?server=b:53", "icmp/1.1.1.1",
		"http", "error", "cert/h:1", "tcp/%5B::1%5D:1", "..", ".", "http/", "tcp/h\x00:1",
	} {
		f.Add(seed, uint32(1), []byte("{}"))
	}
	f.Fuzz(func(t *testing.T, path string, flag uint32, data []byte) {
		n := New(Options{Network: nothing{t}, Deadline: time.Now().Add(time.Minute)})
		defer n.Close()
		_, statErrno := n.Stat(path)
		file, errno := n.OpenFile(path, esys.Oflag(flag), 0)
		if (errno == 0) != (file != nil) {
			t.Fatalf("%q: %v, %v", path, file, errno)
		}
		if errno == 0 {
			if path != "http" && path != "error" {
				t.Fatalf("%q is open", path)
			}
			file.Write(data)
			file.Read(make([]byte, 100))
			if file.Close() != 0 || file.Close() != esys.EBADF {
				t.Errorf("%q: close", path)
			}
		} else if last, ok := n.Last(); errno != esys.ENOTDIR && (!ok || last.Message == "" || strings.ContainsAny(last.Message+last.Path, "\r\n\x00")) {
			t.Errorf("%q: %+v", path, last)
		}
		if statErrno != 0 && errno != esys.EINVAL || statErrno == 0 && errno == esys.EINVAL && !strings.HasPrefix(path, "tls/@") {
			t.Errorf("%q: stat is %v, open %v", path, statErrno, errno)
		}
		if n.files != 0 || n.held != 0 || len(n.conns) != 0 {
			t.Errorf("%q: %d files, %d bytes, %d connections are left", path, n.files, n.held, len(n.conns))
		}
	})
}

// FuzzHTTPRequest reads requests, and holds those that are accepted against what a server would read of them.
func FuzzHTTPRequest(f *testing.F) {
	for _, seed := range []string{
		`{"url":"http://a.test/?q=1#x","method":"POST","headers":{"A":"b","C":["d","e"],"Host":"x:1"},"body":"b","follow":true}`,
		`{"url":"https://[::1]:8443/a%20b","body_base64":"AAE=","insecure":true,"follow":3}`,
		`{"url":"http://a b/"}`, `{"url":"http://a.test/\r\nX: y"}`, `{"url":"http://a.test","headers":{"X":"a\r\nB: c"}}`, `{}`, `[`, `{"url":"http:a"}`,
	} {
		f.Add([]byte(seed), "/next?x", 302)
	}
	f.Fuzz(func(t *testing.T, data []byte, location string, code int) {
		r, err := parseRequest(data)
		if err != nil {
			if e := describe(err, ""); e.Kind != broker.Invalid || e.Message == "" {
				t.Errorf("%q: %+v", data, e)
			}
			return
		}
		var whole scanner
		if err := whole.write(data); err != nil || !whole.done {
			t.Errorf("%q is accepted, but for the scanner it is not one object: %v", data, err)
		}
		for range 3 {
			message, err := r.message("tocsin")
			if err != nil {
				t.Fatalf("%q: %v", data, err)
			}
			reader := bufio.NewReader(strings.NewReader(string(message)))
			req, err := http.ReadRequest(reader)
			if err != nil {
				t.Fatalf("%q is sent as %q: %v", data, message, err)
			}
			if int(req.ContentLength) != len(r.body) || req.Method != r.method || len(req.TransferEncoding) > 0 {
				t.Errorf("%q is sent as %q", data, message)
			}
			if n := reader.Buffered(); n < len(r.body) && len(r.body) < 1000 {
				t.Errorf("%q: %d bytes of the body", data, n)
			}
			if len(req.Header) > maxHeaders+5 {
				t.Errorf("%q is sent as %q", data, message)
			}
			if again, err := reach.ParseURL(r.access.Scheme + "://" + r.url.Host); err != nil || again.Host.Addr.Zone() == "" && r.access.Host.Addr.Zone() == "" && again != r.access {
				t.Errorf("%q goes to %v, the URL says %v, %v", data, r.access, again, err)
			}
			if r.redirect(code, location) != nil {
				return
			}
		}
	})
}

// FuzzScanner finds the end of a JSON object however it is cut.
func FuzzScanner(f *testing.F) {
	f.Add([]byte(`{"a":"}\"","b":[{}]} `), 5)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		var whole, parts scanner
		at = min(max(at, 0), len(data))
		err := whole.write(data)
		first := parts.write(data[:at])
		if first == nil {
			first = parts.write(data[at:])
		}
		if (err == nil) != (first == nil) || err == nil && whole != parts {
			t.Errorf("%q cut at %d: %v, %v", data, at, err, first)
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) == nil && object != nil && (err != nil || !whole.done) {
			t.Errorf("%q is an object, the scanner says %v, %v", data, whole.done, err)
		}
	})
}
