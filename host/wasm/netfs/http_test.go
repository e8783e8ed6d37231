package netfs

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/sdk"
)

// show answers with the request as it arrived.
func show(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s\n", r.Method, r.RequestURI, r.Host)
	for _, name := range []string{"Accept", "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "Cookie", "User-Agent", "X-A"} {
		if v := r.Header.Values(name); len(v) > 0 {
			fmt.Fprintf(w, "%s: %s\n", name, strings.Join(v, " | "))
		}
	}
	fmt.Fprintf(w, "\n%s", b)
}

func TestRequest(t *testing.T) {
	t.Parallel()
	port := serveHTTP(t, nil, show)
	f := newFS(t, Options{})
	at := "http://a.test:" + port
	const plain = "Accept: */*\nAccept-Encoding: identity\nUser-Agent: tocsin\n\n"
	for request, want := range map[string]string{
		`{"url":"` + at + `"}`:                                            "GET / a.test:" + port + "\n" + plain,
		`{"url":"` + at + `/a b?q=c d&é#part","method":null}`:             "GET /a%20b?q=c%20d&%C3%A9 a.test:" + port + "\n" + plain,
		`{"url":"HTTP://A.TEST.:` + port + `/%2e%2F?","method":"delete"}`: "DELETE /%2e%2F? a.test:" + port + "\n" + plain,
		`{"url":"` + at + `","method":"POST","body":"höh"}`:               "POST / a.test:" + port + "\nAccept: */*\nAccept-Encoding: identity\nContent-Length: 4\nUser-Agent: tocsin\n\nhöh",
		`{"url":"` + at + `","method":"PUT","body_base64":"AAH/"}`:        "PUT / a.test:" + port + "\nAccept: */*\nAccept-Encoding: identity\nContent-Length: 3\nUser-Agent: tocsin\n\n\x00\x01\xff",
		`{"url":"` + at + `","method":"POST"}`:                            "POST / a.test:" + port + "\nAccept: */*\nAccept-Encoding: identity\nContent-Length: 0\nUser-Agent: tocsin\n\n",
		`{"url":"` + at + `","headers":{"host":"other.test","x-a":["1","2"],"User-Agent":"me","accept-encoding":"br","Accept":"text/html"}}`: "GET / other.test\nAccept: text/html\nAccept-Encoding: br\nUser-Agent: me\nX-A: 1 | 2\n\n",
	} {
		r := answered(t, f, request)
		got := ""
		switch {
		case r.Body != nil:
			got = *r.Body
		case r.BodyBase64 != nil:
			b, _ := base64.StdEncoding.DecodeString(*r.BodyBase64)
			got = string(b)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", request, diff)
		}
		if r.Status != 200 || r.Proto != "HTTP/1.1" || r.Remote != "127.0.0.1:"+port || r.TLS != nil || r.Truncated {
			t.Errorf("%s: %+v", request, r)
		}
		if r.Timing.DNS != 7 || r.Timing.Connect != 9 || r.Timing.TLS != 0 || r.Timing.Total < r.Timing.FirstByte {
			t.Errorf("%s: %+v", request, r.Timing)
		}
	}
}

// TestBadRequest is the table of requests that are none.
func TestBadRequest(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range maxHeaders + 1 {
		many[fmt.Sprint("X-", i)] = ""
	}
	lots, _ := json.Marshal(many)
	for request, want := range map[string]string{
		`{}`:                                                                              "url: is missing",
		`{"url":null}`:                                                                    "url: is missing",
		`{"url":5}`:                                                                       "url: must be a string",
		`{"url":""}`:                                                                      "url: ",
		`{"url":"ftp://a.test/"}`:                                                         "url: URL: scheme \"ftp\"",
		`{"url":"http://u:hush@a.test/"}`:                                                 "url: URL: a user name",
		`{"url":"http://a.test:99999/?hush"}`:                                             "url: ",
		`{"url":"http://a.test/\r\nX: hush"}`:                                             "url: URL cannot be read",
		`{"url":"http://2130706433/"}`:                                                    "url: ",
		`{"url":"http://a.test","method":"GET /"}`:                                        "method: is no method",
		`{"url":"http://a.test","method":"CONNECT"}`:                                      "method: CONNECT",
		`{"url":"http://a.test","method":1}`:                                              "method: must be a string",
		`{"url":"http://a.test","headers":[]}`:                                            "headers: must be an object",
		`{"url":"http://a.test","headers":{"X":1}}`:                                       "headers: X: must be a string or a list",
		`{"url":"http://a.test","headers":{"X":null}}`:                                    "headers: X: must be",
		`{"url":"http://a.test","headers":{"X y":""}}`:                                    "headers: X y: is not the name",
		`{"url":"http://a.test","headers":{"":""}}`:                                       "is not the name",
		`{"url":"http://a.test","headers":{"X":"hush\r\nY: z"}}`:                          "headers: X: has a control character",
		`{"url":"http://a.test","headers":{"X":["hush\u0000"]}}`:                          "headers: X: has a control character",
		`{"url":"http://a.test","headers":{"X":"","x":""}}`:                               "headers: x: is given twice",
		`{"url":"http://a.test","headers":{"Content-length":"1"}}`:                        "headers: Content-length: is set for you",
		`{"url":"http://a.test","headers":{"Transfer-Encoding":"chunked"}}`:               "is set for you",
		`{"url":"http://a.test","headers":{"Host":"a b"}}`:                                "headers: Host: must be one host",
		`{"url":"http://a.test","headers":{"Host":"a/b"}}`:                                "headers: Host: must be one host",
		`{"url":"http://a.test","headers":{"Host":["a","b"]}}`:                            "headers: Host: must be one host",
		`{"url":"http://a.test","headers":{"X":"` + strings.Repeat("hush", 20000) + `"}}`: "headers: are longer than 65536",
		`{"url":"http://a.test","headers":` + string(lots) + `}`:                          "headers: are more than 100",
		`{"url":"http://a.test","body":{}}`:                                               "body: must be a string",
		`{"url":"http://a.test","body_base64":"hush!"}`:                                   "body_base64: is no base64",
		`{"url":"http://a.test","body":"","body_base64":""}`:                              "body_base64: cannot be given together",
		`{"url":"http://a.test","follow":-1}`:                                             "follow: must be true, false or a number",
		`{"url":"http://a.test","follow":21}`:                                             "follow: must be",
		`{"url":"http://a.test","follow":1.5}`:                                            "follow: must be",
		`{"url":"http://a.test","follow":"yes"}`:                                          "follow: must be",
		`{"url":"http://a.test","insecure":1}`:                                            "insecure: must be true or false",
		`{"url":"http://a.test","URL":"http://b.test"}`:                                   "URL: is no field",
		`{"url":"http://a.test",}`:                                                        "the request must be one JSON object: invalid character",
		`[]`:                                                                              "the request must be one JSON object",
		`null`:                                                                            "the request must be one JSON object",
		``:                                                                                "the request must be one JSON object",
		`{} {}`:                                                                           "the request must be one JSON object",
	} {
		n := everything(t)
		f := newFS(t, Options{Network: n})
		out, err := f.Fetch([]byte(request))
		e, ok := errors.AsType[*broker.Error](err)
		if out != nil || !ok || e.Kind != broker.Invalid || !strings.Contains(e.Message, want) || strings.Contains(e.Message, "hush") {
			t.Errorf("%.100s: %s, %v, want %q", request, out, err, want)
		}
		if n.asked.Load() != 0 {
			t.Errorf("%.100s: asked the network", request)
		}
		if last, _ := f.Last(); last.Op != "fetch" || last.Path != "/net/http" {
			t.Errorf("%.100s: %+v", request, last)
		}
	}
}

// TestExchange writes and reads in the pieces that guests do.
func TestExchange(t *testing.T) {
	t.Parallel()
	port := serveHTTP(t, nil, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hi <there>") })
	request := ` {"url":"http://a.test:` + port + `/","headers":{"X":"}\"{"}}`
	n := everything(t)
	f := newFS(t, Options{Network: n})
	x := open(t, f, "http")
	for i := range request {
		if n.dialed.Load() != 0 {
			t.Fatal("the request was made before it was complete")
		}
		write(t, x, request[i:i+1])
	}
	if n.dialed.Load() != 1 {
		t.Error("the request was not made when it was complete")
	}
	write(t, x, "\r\n")
	if got := readAll(t, x); !strings.Contains(got, `"body":"hi <there>"`) {
		t.Errorf("answer %s", got)
	}
	if _, errno := x.Write([]byte("{")); errno != esys.EINVAL {
		t.Errorf("a second request: %v", errno)
	}
	failed(t, f, broker.Invalid, "one request was made already")
	x.Close()
	for text, want := range map[string]string{
		"[]":                           "must be one JSON object",
		"hello":                        "must be one JSON object",
		"{} x":                         "something follows",
		"{}{}":                         "something follows",
		`{"url":1}`:                    "url: must be a string",
		`{"url":[}}`:                   "must be one JSON object",
		strings.Repeat(`{"a":`, 1<<20): "longer than",
	} {
		x := open(t, f, "http")
		_, errno := x.Write([]byte(text))
		_, again := x.Write([]byte(text))
		_, after := x.Read(make([]byte, 1))
		if errno != esys.EINVAL || again != esys.EINVAL || after != esys.EINVAL {
			t.Errorf("%.20s: write is %v, then %v, read %v", text, errno, again, after)
		}
		failed(t, f, broker.Invalid, want)
		x.Close()
	}
	for text, want := range map[string]string{"": "no request was written", " \n": "no request was written", `{"url":`: "unexpected end of JSON"} {
		x := open(t, f, "http")
		write(t, x, text)
		if _, errno := x.Read(make([]byte, 1)); errno != esys.EINVAL {
			t.Errorf("%q: read is %v", text, errno)
		}
		failed(t, f, broker.Invalid, want)
		x.Close()
	}
	x = open(t, f, "http")
	if _, errno := x.Write([]byte(`{"url":"http://denied.example/path"}`)); errno != esys.EACCES {
		t.Errorf("denied: %v", errno)
	}
	failed(t, f, broker.Denied, "not granted: http://denied.example:80")
	x.Close()
	if f.files != 0 || f.held != 0 || len(f.conns) != 0 {
		t.Errorf("%d files, %d bytes, %d connections are left", f.files, f.held, len(f.conns))
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	const limit = 10
	f := newFS(t, Options{MaxBody: limit})
	for body, want := range map[string]response{
		"":               {Body: new("")},
		"short":          {Body: new("short")},
		"0123456789":     {Body: new("0123456789")},
		"0123456789a":    {Body: new("0123456789"), Truncated: true},
		"012345678é":     {Body: new("012345678"), Truncated: true},
		"0123456é€x":     {Body: new("0123456é"), Truncated: true},
		"a\x00b":         {BodyBase64: new("YQBi")},
		"\xff\xfe":       {BodyBase64: new("//4=")},
		"\x800123456789": {BodyBase64: new("gDAxMjM0NTY3OA=="), Truncated: true},
	} {
		for _, form := range []string{"length", "chunked", "close"} {
			port := listen(t, func(c net.Conn) {
				http.ReadRequest(newReader(c))
				switch form {
				case "length":
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				case "chunked":
					io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
					for i := range len(body) {
						fmt.Fprintf(c, "1;ext=1\r\n%s\r\n", body[i:i+1])
					}
					io.WriteString(c, "0\r\nX-Trailer: 1\r\n\r\n")
				default:
					io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n"+body)
				}
			})
			got := answered(t, f, `{"url":"http://a.test:`+port+`"}`)
			got = response{Body: got.Body, BodyBase64: got.BodyBase64, Truncated: got.Truncated}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q, %s: %s", body, form, diff)
			}
		}
	}
}

// TestHugeBody reads from a server that never ends.
func TestHugeBody(t *testing.T) {
	t.Parallel()
	port := serveHTTP(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		block := bytes.Repeat([]byte("x"), 1<<16)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	f := newFS(t, Options{})
	r := answered(t, f, `{"url":"http://a.test:`+port+`"}`)
	if !r.Truncated || len(*r.Body) != DefaultMaxBody {
		t.Errorf("%v, %d bytes", r.Truncated, len(*r.Body))
	}
	// What is answered and not read is bounded.
	var errno esys.Errno
	for range maxOpen {
		x := open(t, f, "http")
		if _, errno = x.Write([]byte(`{"url":"http://a.test:` + port + `"}`)); errno != 0 {
			break
		}
	}
	if errno != esys.EIO {
		t.Errorf("answers without end: %v", errno)
	}
	failed(t, f, broker.Busy, "exceed")
}

// TestEndlessAnswer reads what it needs of an answer that never ends: of a redirect that is followed nothing.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	port := listen(t, func(c net.Conn) {
		in := newReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		head := "HTTP/1.1 302 Found\r\nLocation: /next\r\nTransfer-Encoding: chunked\r\n\r\n"
		if r.URL.Path == "/next" {
			head = "HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\n"
		}
		io.WriteString(c, head+"4\r\nwait\r\n")
		in.ReadByte() // until the other side closes
	})
	f := newFS(t, Options{MaxBody: 4})
	if r := answered(t, f, `{"url":"http://a.test:`+port+`","follow":true}`); r.Status != 500 || *r.Body != "4\r\nw" || !r.Truncated {
		t.Errorf("%+v", r)
	}
}

// TestBadAnswers is the table of servers that do not speak HTTP as they should.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]struct {
		kind  broker.Kind
		words string
	}{
		"":                               {broker.Closed, "the connection was closed (waiting for the answer of a.test:"},
		"HTTP/1.1 200":                   {broker.Closed, "waiting for the answer"},
		"HTTP/1.1 200 OK\r\nX: y\r\n":    {broker.Closed, "waiting for the answer"},
		"SSH-2.0-OpenSSH_9\r\n":          {broker.Failed, "is no HTTP"},
		"HTTP/1.1 abc OK\r\n\r\n":        {broker.Failed, "is no HTTP"},
		"HTTP/1.1 200 OK\r\n: x\r\n\r\n": {broker.Failed, "is no HTTP"},
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n": {broker.Failed, "is no HTTP"},
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc":                   {broker.Closed, "reading the body from a.test:"},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":       {broker.Failed, "the body from a.test:"},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab":      {broker.Closed, "reading the body"},
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n":  {broker.Failed, "more than 262144 bytes of headers"},
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 11):                 {broker.Failed, "1xx"},
		"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n":               {broker.Failed, "cannot be read"},
		"HTTP/1.1 302 Found\r\nLocation: gopher://a.test/hush\r\n\r\n":      {broker.Failed, "cannot follow: URL: scheme \"gopher\""},
		"HTTP/1.1 302 Found\r\nLocation: http://u:hush@a.test/\r\n\r\n":     {broker.Failed, "user name"},
	} {
		port := listen(t, func(c net.Conn) {
			http.ReadRequest(newReader(c))
			io.WriteString(c, answer)
		})
		f := newFS(t, Options{})
		out, err := f.Fetch([]byte(`{"url":"http://a.test:` + port + `/?hush","follow":1}`))
		e, ok := errors.AsType[*broker.Error](err)
		if out != nil || !ok || e.Kind != want.kind || !strings.Contains(e.Message, want.words) || strings.Contains(e.Message, "hush") {
			t.Errorf("%.60q: %s, %+v, want %v", answer, out, e, want)
		}
	}
	for answer, status := range map[string]int{
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n": 204,
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":                        101,
		"HTTP/1.1 302 Found\r\n\r\n":                                      302, // nowhere to go
		"HTTP/1.1 304 Not Modified\r\nLocation: /\r\n\r\n":                304,
		"HTTP/1.0 599 \r\n\r\n":                                           599,
	} {
		port := listen(t, func(c net.Conn) {
			http.ReadRequest(newReader(c))
			io.WriteString(c, answer)
		})
		if got := answered(t, newFS(t, Options{}), `{"url":"http://a.test:`+port+`","follow":true}`); got.Status != status {
			t.Errorf("%.60q: status %d", answer, got.Status)
		}
	}
}

func TestSlowBody(t *testing.T) {
	t.Parallel()
	port := listen(t, func(c net.Conn) {
		http.ReadRequest(newReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nso far")
		io.Copy(io.Discard, c)
	})
	f := newFS(t, Options{Deadline: time.Now().Add(50 * time.Millisecond)})
	if _, err := f.Fetch([]byte(`{"url":"http://a.test:` + port + `"}`)); err == nil {
		t.Error("a body that does not end is an answer")
	}
	failed(t, f, broker.Timeout, "reading the body from a.test:"+port)
}

// TestRedirects is the table of redirects: what the last server sees, or why there is none.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var other string
	port := serveHTTP(t, nil, func(w http.ResponseWriter, r *http.Request) {
		var code int
		var to string
		if n, _ := fmt.Sscanf(r.URL.Path, "/%d", &code); n == 0 {
			show(w, r)
			return
		}
		to = r.URL.Query().Get("to")
		w.Header().Set("Location", strings.ReplaceAll(to, "OTHER", other))
		w.WriteHeader(code)
	})
	other = "b.test:" + port
	const headers = `"headers":{"Authorization":"hush","Cookie":"hush","X-A":"kept","Content-Type":"text/x","Host":"virtual.test"}`
	for name, tt := range map[string]struct {
		path, method, body, follow string
		want                       string
		not                        string
		err                        string
	}{
		"not asked":      {path: "/302?to=/x", follow: "false", want: "302"},
		"zero":           {path: "/302?to=/x", follow: "0", want: "302"},
		"same origin":    {path: "/302?to=/x", follow: "true", want: "GET /x virtual.test\n"},
		"keeps secrets":  {path: "/302?to=/x", follow: "true", want: "Authorization: hush\n"},
		"relative":       {path: "/302?to=x%3Fy", follow: "1", want: "GET /x?y virtual.test\n"},
		"twice":          {path: "/302?to=/301%3Fto=/x", follow: "2", want: "GET /x virtual.test\n"},
		"too often":      {path: "/302?to=/301%3Fto=/x", follow: "1", err: "more than 1 redirects, the last one by a.test:" + port},
		"other origin":   {path: "/302?to=http://OTHER/x", follow: "true", want: "GET /x b.test:" + port + "\n", not: "hush"},
		"and back":       {path: "/302?to=http://OTHER/302%3Fto=http://a.test:" + port + "/x", follow: "true", want: "GET /x a.test:" + port + "\n", not: "hush"},
		"other headers":  {path: "/302?to=http://OTHER/x", follow: "true", want: "X-A: kept\n"},
		"301 of POST":    {path: "/301?to=/x", method: "POST", body: "b", follow: "true", want: "GET /x virtual.test\n", not: "Content-Type"},
		"303 of PUT":     {path: "/303?to=/x", method: "PUT", body: "b", follow: "true", want: "GET /x virtual.test\n", not: "Content-Length"},
		"303 of HEAD":    {path: "/303?to=/x", method: "HEAD", follow: "true", want: "200"},
		"307 of POST":    {path: "/307?to=/x", method: "POST", body: "the body", follow: "true", want: "\n\nthe body"},
		"308 of PUT":     {path: "/308?to=/x", method: "PUT", body: "the body", follow: "true", want: "PUT /x virtual.test\n"},
		"308 elsewhere":  {path: "/308?to=http://OTHER/x", method: "PUT", body: "the body", follow: "true", want: "the body", not: "hush"},
		"denied host":    {path: "/302?to=http://denied.example/secret", follow: "true", err: "not granted: http://denied.example:80"},
		"denied scheme":  {path: "/307?to=https://OTHER/", follow: "true", err: "TLS"},
		"denied address": {path: "/302?to=http://metadata.test/latest", follow: "true", err: "169.254.169.254"},
		"loopback":       {path: "/301?to=http://[::1]:1/", follow: "true", err: "not granted: http://[::1]:1"},
		"number":         {path: "/308?to=http://2852039166/", follow: "true", err: "usual form"},
		"file":           {path: "/302?to=file:///etc/passwd", follow: "true", err: "cannot follow"},
	} {
		method := tt.method
		if method == "" {
			method = "GET"
		}
		f := newFS(t, Options{})
		request := fmt.Sprintf(`{"url":"http://a.test:%s%s","method":%q,"body":%q,"follow":%s,%s}`, port, tt.path, method, tt.body, tt.follow, headers)
		out, err := f.Fetch([]byte(request))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %s, %v, want %q", name, out, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var r response
		json.Unmarshal(out, &r)
		got := fmt.Sprint(r.Status, "\n", *r.Body)
		if !strings.Contains(got, tt.want) || tt.not != "" && strings.Contains(got, tt.not) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestRedirectDenied follows from what is granted to what is not: the second is never dialled.
func TestRedirectDenied(t *testing.T) {
	t.Parallel()
	var to string
	port := serveHTTP(t, nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, 302) })
	hit := false
	to = "http://b.test:" + serveHTTP(t, nil, func(http.ResponseWriter, *http.Request) { hit = true })
	n := granting(t, "http://a.test:*")
	f := newFS(t, Options{Network: n})
	x := open(t, f, "http")
	if _, errno := x.Write([]byte(`{"url":"http://a.test:` + port + `","follow":true}`)); errno != esys.EACCES {
		t.Errorf("write: %v", errno)
	}
	failed(t, f, broker.Denied, "not granted: http://b.test:")
	if hit || n.dialed.Load() != 1 {
		t.Errorf("dialled %d times", n.dialed.Load())
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	a, hour := newCA(t), time.Now().Add(time.Hour)
	cert := a.issue(t, hour, "a.test")
	port := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{cert}}, show)
	f := newFS(t, Options{Roots: a.roots})
	r := answered(t, f, `{"url":"https://a.test:`+port+`/"}`)
	want := &tlsJSON{
		Version: "TLS 1.3", ServerName: "a.test", ALPN: "http/1.1", Subject: "CN=a.test", Issuer: "CN=Test CA",
		NotBefore: stamp(hour.Add(-2 * time.Hour)), NotAfter: stamp(hour), Cipher: r.TLS.Cipher,
	}
	if diff := cmp.Diff(want, r.TLS); diff != "" || !strings.HasPrefix(r.TLS.Cipher, "TLS_") || r.Timing.TLS == 0 {
		t.Errorf("%s %+v", diff, r.Timing)
	}
	if _, err := f.Fetch([]byte(`{"url":"https://b.test:` + port + `/"}`)); err == nil || !strings.Contains(err.Error(), "certificate is for a.test, not for b.test") {
		t.Errorf("another name: %v", err)
	}
	if r := answered(t, f, `{"url":"https://b.test:`+port+`/","insecure":true}`); r.Status != 200 || r.TLS.ServerName != "b.test" {
		t.Errorf("insecure: %+v", r)
	}
	if _, err := f.Fetch([]byte(`{"url":"http://a.test:` + port + `/"}`)); err != nil {
		t.Errorf("plain HTTP to a TLS port is answered with 400: %v", err)
	}
	plain := serveHTTP(t, nil, show)
	if _, err := f.Fetch([]byte(`{"url":"https://a.test:` + plain + `/"}`)); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("TLS to a plain port: %v", err)
	}
}

// TestSDK has the sdk write what is read here, and read what is written here.
func TestSDK(t *testing.T) {
	t.Parallel()
	a := newCA(t)
	port := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{a.issue(t, time.Now().Add(time.Hour), "a.test")}}, show)
	f := newFS(t, Options{Roots: a.roots})
	for _, body := range [][]byte{nil, []byte("text"), {0, 0xff}} {
		request, err := json.Marshal(sdk.HTTPRequest{
			Method: "POST", URL: "https://a.test:" + port + "/x", Headers: map[string][]string{"X-A": {"1", "2"}}, Body: body, Follow: 3,
		})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.Fetch(request)
		if err != nil {
			t.Fatal(err)
		}
		var r sdk.HTTPResponse
		if err := json.Unmarshal(answer, &r); err != nil {
			t.Fatal(err)
		}
		if got := string(r.Body); r.Status != 200 || !strings.Contains(got, "X-A: 1 | 2\n") || !strings.HasSuffix(got, "\n\n"+string(body)) {
			t.Errorf("%q: %+v, %q", body, r, got)
		}
		if r.TLS == nil || time.Until(r.TLS.NotAfter) <= 0 || r.Timing.TLS == 0 || r.Header("content-type") == "" {
			t.Errorf("%q: %+v", body, r)
		}
	}
	cert := content[sdk.Presented](t, f, "cert/a.test:"+port)
	if !cert.Verified || len(cert.Chain) != 1 || time.Until(cert.Chain[0].NotAfter) <= 0 || cert.Chain[0].SHA256 == "" {
		t.Errorf("certificate %+v", cert)
	}
	if echo := content[sdk.Echo](t, f, "icmp/a.test"); echo != (sdk.Echo{RTT: 1500 * time.Microsecond, TTL: 64, Addr: "127.0.0.1"}) {
		t.Errorf("echo %+v", echo)
	}
	if answer := content[sdk.DNSAnswer](t, f, "dns/MX/a.test"); answer.RCode != "NOERROR" || len(answer.Answers) != 1 || answer.Answers[0].TTL != 60 {
		t.Errorf("answer %+v", answer)
	}
	f.OpenFile("tcp/denied.example:1", esys.O_RDWR, 0)
	if e := content[sdk.NetError](t, f, "error"); e.Kind != sdk.NetDenied || e.Op != "open" || e.Path != "/net/tcp/denied.example:1" || e.Message == "" {
		t.Errorf("error %+v", e)
	}
}
