package check

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func serveHTTP(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func redirectTo(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, location, http.StatusFound) }
}

// reply answers with the path's last part as status code.
func reply(w http.ResponseWriter, r *http.Request) {
	code := http.StatusOK
	if _, err := fmt.Sscanf(r.URL.Path, "/%d", &code); err != nil {
		code = http.StatusOK
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if code >= 200 && code != http.StatusNoContent && code != http.StatusNotModified {
		io.WriteString(w, `{"ok":false,"big":"`+strings.Repeat("x", 5000)+`"}`)
	}
}

func TestHTTPStatus(t *testing.T) {
	t.Parallel()
	target := serveHTTP(t, reply)
	r := newRegistry(t)
	for _, reuse := range []string{`false`, `true`} {
		tests := []struct {
			path, config string
			assert       []string
			want         sdk.Status
			message      string
		}{
			{path: "/200", want: sdk.Up, message: "200 OK"},
			{path: "/204", want: sdk.Up, message: "204 No Content"},
			{path: "/503", want: sdk.Down, message: "expected status 200-299, got 503 Service Unavailable"},
			{path: "/404", config: `,"expect_status":"200,404"`, want: sdk.Up, message: "404 Not Found"},
			{path: "/500", config: `,"expect_status":"any"`, want: sdk.Up, message: "500 Internal Server Error"},
			{path: "/599", want: sdk.Down, message: "expected status 200-299, got 599"},
			{path: "/500", config: `,"expect_status":"any"`, assert: []string{"status == 200"}, want: sdk.Down, message: "assertion failed: status == 200 (status = 500)"},
			{path: "/200", assert: []string{"status == 200", "json.ok == true"}, want: sdk.Down, message: "assertion failed: json.ok == true (json.ok = false)"},
			{path: "/200", config: `,"max_body_bytes":100`, assert: []string{"json.ok == true"}, want: sdk.Down, message: "assertion failed: json.ok == true (the body is longer than max_body_bytes)"},
			{path: "/200", config: `,"max_body_bytes":100`, assert: []string{"len(body) == 100"}, want: sdk.Up, message: "200 OK"},
			{path: "/200", config: `,"method":"HEAD"`, assert: []string{`body == ""`}, want: sdk.Up, message: "200 OK"},
			{path: "/301", config: `,"redirects":0,"expect_status":"301"`, want: sdk.Up, message: "301 Moved Permanently"},
		}
		for _, tt := range tests {
			got := mustCheck(t, r, Spec{Kind: "http", Target: target + tt.path, Config: []byte(`{"reuse":` + reuse + tt.config + `}`), Assert: tt.assert})
			if got.Status != tt.want || got.Message != tt.message {
				t.Errorf("reuse %s: %s %s: got %s %q, want %s %q", reuse, tt.path, tt.config, got.Status, got.Message, tt.want, tt.message)
			}
			if got.Latency <= 0 || got.Timing.Total < got.Timing.FirstByte || got.Address != strings.TrimPrefix(target, "http://") {
				t.Errorf("%s: got %+v", tt.path, got)
			}
		}
	}
}

// TestHTTPRequest compares what arrives at the server.
func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	type got struct {
		Line, Host, Body string
		Header           map[string]string
	}
	var mu sync.Mutex
	var last got
	target := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		header := map[string]string{}
		for name := range r.Header {
			header[name] = r.Header.Get(name)
		}
		mu.Lock()
		defer mu.Unlock()
		last = got{r.Method + " " + r.RequestURI, r.Host, string(body), header}
	})
	host := strings.TrimPrefix(target, "http://")
	tests := []struct {
		path, config string
		want         got
	}{
		{"", `{}`, got{"GET /", host, "", map[string]string{}}},
		{"/a%20b/?q=1&r=%2f", `{}`, got{"GET /a%20b/?q=1&r=%2f", host, "", map[string]string{}}},
		{"/", `{"method":"POST"}`, got{"POST /", host, "", map[string]string{"Content-Length": "0"}}},
		{"/", `{"method":"POST","body":"hello"}`, got{"POST /", host, "hello", map[string]string{"Content-Length": "5"}}},
		{"/", `{"method":"PUT","json":{"a": [1]}}`, got{"PUT /", host, `{"a": [1]}`, map[string]string{"Content-Length": "10", "Content-Type": "application/json"}}},
		{"/", `{"method":"POST","form":{"b":"x y","a":"&"}}`, got{"POST /", host, `a=%26&b=x+y`, map[string]string{"Content-Length": "11", "Content-Type": "application/x-www-form-urlencoded"}}},
		{"/", `{"method":"POST","json":1,"headers":{"content-type":"application/vnd.x+json"}}`, got{"POST /", host, `1`, map[string]string{"Content-Length": "1", "Content-Type": "application/vnd.x+json"}}},
		{"/", `{"headers":{"X-Foo":"bar","Host":"other.example","user-agent":"me"}}`, got{"GET /", "other.example", "", map[string]string{"X-Foo": "bar", "User-Agent": "me"}}},
		{"/", `{"basic":{"username":"joe","password":"secret"}}`, got{"GET /", host, "", map[string]string{"Authorization": "Basic am9lOnNlY3JldA=="}}},
		{"/", `{"bearer":"abc"}`, got{"GET /", host, "", map[string]string{"Authorization": "Bearer abc"}}},
	}
	r := newRegistry(t)
	for _, tt := range tests {
		for _, reuse := range []bool{false, true} {
			var config map[string]any
			if err := json.Unmarshal([]byte(tt.config), &config); err != nil {
				t.Fatal(err)
			}
			config["reuse"] = reuse
			if raw, ok := config["json"]; ok && raw != nil {
				config["json"] = json.RawMessage(`1`)
				if tt.want.Body != "1" {
					config["json"] = json.RawMessage(tt.want.Body)
				}
			}
			want := tt.want
			want.Header = map[string]string{"Accept": "*/*", "User-Agent": "Tocsin"}
			if !reuse {
				want.Header["Connection"] = "close"
			}
			for name, value := range tt.want.Header {
				want.Header[name] = value
			}
			spec := Spec{Kind: "http", Target: target + tt.path, Config: configJSON(t, config)}
			if result := mustCheck(t, r, spec); result.Status != sdk.Up {
				t.Errorf("%s: %+v", tt.config, result)
			}
			mu.Lock()
			got := last
			mu.Unlock()
			if strings.HasPrefix(want.Body, "{") {
				got.Body, want.Body = strings.ReplaceAll(got.Body, " ", ""), strings.ReplaceAll(want.Body, " ", "")
				delete(got.Header, "Content-Length")
				delete(want.Header, "Content-Length")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (reuse %v) (-want +got):\n%s", tt.config, reuse, diff)
			}
		}
	}
}

func TestHTTPFaults(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	tests := []struct{ config, want string }{
		{`{"method":"get"}`, "config.method: must be a method in capital letters, such as GET, HEAD or POST (got get)"},
		{`{"method":"GET /x"}`, "config.method: must be"},
		{`{"method":"CONNECT"}`, "config.method: must be"},
		{`{"expect_status":"2xx"}`, "config.expect_status: must be status codes"},
		{`{"headers":{"a b":"c"}}`, "config.headers.a b: is not the name of a header"},
		{`{"headers":{"A":"b\r\nc"}}`, "config.headers.A: must not contain control characters"},
		{`{"headers":{"Content-Length":"3"}}`, "config.headers.Content-Length: is set by the check itself"},
		{`{"headers":{"Authorization":"x"},"bearer":"y"}`, "config.headers.Authorization: cannot be given together"},
		{`{"headers":{"Host":"a b"}}`, "config.headers.Host: is no host"},
		{`{"body":"a","json":1}`, "config.body: at most one of"},
		{`{"basic":{"username":"a:b"}}`, "config.basic.username: must not contain a colon"},
		{`{"basic":{"username":"a"},"bearer":"b"}`, "config.bearer: cannot be given together with basic"},
		{`{"proxy":"ftp://x"}`, "config.proxy: must be http://HOST:PORT"},
		{`{"proxy":"http://u:hunter2@x:1"}`, "config.proxy: must not contain a user or password; use proxy_auth"},
		{`{"proxy":"http://x:0"}`, "config.proxy: has a port that is not between 1 and 65535"},
		{`{"proxy_auth":{"username":"a"}}`, "config.proxy_auth: needs proxy"},
		{`{"ca":"hunter2"}`, "config.ca: contains no certificate in PEM"},
		{`{"client_cert":"x"}`, "config.client_key: is needed with client_cert"},
		{`{"client_key":"hunter2"}`, "config.client_cert: is needed with client_key"},
		{`{"client_cert":"x","client_key":"hunter2"}`, "config.client_cert: does not make a pair"},
		{`{"server_name":"a b"}`, "config.server_name: has a host name"},
		{`{"ip_family":"ipv6"}`, "config.ip_family: does not fit the target's address (got ipv6)"},
		{`{"redirects":21}`, "config.redirects: must be between 0 and 20 (got 21)"},
	}
	for _, tt := range tests {
		_, err := r.New(Spec{Kind: "http", Target: "http://192.0.2.1/", Config: []byte(tt.config)})
		var faults monitor.Faults
		if !errors.As(err, &faults) || len(faults) != 1 || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s\n got %v\nwant %s", tt.config, err, tt.want)
		}
	}
}

func TestHTTPRedirects(t *testing.T) {
	t.Parallel()
	var elsewhere string
	var leaked atomic.Int32
	other := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Key") != "" || r.ContentLength > 0 {
			leaked.Add(1)
		}
		reply(w, r)
	})
	target := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, elsewhere+"/200", http.StatusFound)
		case "/away307":
			http.Redirect(w, r, elsewhere+"/200", http.StatusTemporaryRedirect)
		case "/home":
			http.Redirect(w, r, "/check", http.StatusSeeOther)
		case "/same":
			http.Redirect(w, r, "/checkpost", http.StatusPermanentRedirect)
		case "/check":
			if r.Method != http.MethodGet || r.Header.Get("X-Key") != "k" || r.ContentLength > 0 {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/checkpost":
			if body, err := io.ReadAll(r.Body); r.Method != http.MethodPost || string(body) != "hello" || err != nil {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		case "/user":
			w.Header().Set("Location", "http://a:b@"+r.Host+"/")
			w.WriteHeader(http.StatusFound)
		default:
			http.Redirect(w, r, "/loop", http.StatusMovedPermanently)
		}
	})
	elsewhere = other
	r := newRegistry(t)
	for _, reuse := range []bool{false, true} {
		for path, want := range map[string]string{
			"/away":    "200 OK",
			"/away307": "redirect to another host (" + strings.TrimPrefix(other, "http://") + "), to which the body is not sent",
			"/home":    "200 OK",
			"/same":    "200 OK",
			"/loop":    "more than 3 redirects, the last one to /loop",
			"/file":    "redirect to file:///etc/passwd, which must begin with http:// or https://",
			"/user":    "redirect to http://a:b@" + strings.TrimPrefix(target, "http://") + "/, which must not contain a user or password; use config.basic",
		} {
			got := mustCheck(t, r, Spec{Kind: "http", Target: target + path, Config: configJSON(t, map[string]any{
				"method": "POST", "body": "hello", "headers": map[string]string{"X-Key": "k"}, "bearer": "abcdef", "redirects": 3, "reuse": reuse,
			})})
			if got.Message != want {
				t.Errorf("%s: got %q, want %q", path, got.Message, want)
			}
		}
	}
	if leaked.Load() > 0 {
		t.Error("credentials went to another host")
	}
}

// TestHTTPSecretsAreHidden has a server that sends back what it got, in every way that ends in a message.
func TestHTTPSecretsAreHidden(t *testing.T) {
	t.Parallel()
	target := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			w.Header().Set("Location", "gopher://"+r.Header.Get("X-Key"))
			w.WriteHeader(http.StatusFound)
			return
		}
		w.Header().Set("X-Back", r.Header.Get("Authorization")+r.Header.Get("X-Key"))
		if err := json.NewEncoder(w).Encode(r.Header); err != nil {
			t.Error(err)
		}
	})
	config := configJSON(t, map[string]any{"headers": map[string]string{"X-Key": `hunter2"<x`}, "basic": map[string]string{"username": "joe", "password": "pässwörd"}})
	r := newRegistry(t)
	for _, spec := range []Spec{
		{Target: target, Assert: []string{`body == ""`}},
		{Target: target, Assert: []string{`json["X-Key"] == 1`}},
		{Target: target, Assert: []string{`json["Authorization"][0] > 1`}},
		{Target: target, Degrade: []string{`headers["x-back"] == ""`}},
		{Target: target, Degrade: []string{`headers["x-back"] != headers["x-back"]`}},
		{Target: target + "/redirect"},
	} {
		spec.Kind, spec.Config = "http", config
		got := mustCheck(t, r, spec)
		if got.Status == sdk.Up || strings.Contains(got.Message, "hunter2") || strings.Contains(got.Message, "am9lO") || !strings.Contains(got.Message, "••••") {
			t.Errorf("%v: got %q", spec.Assert, got.Message)
		}
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	clientCert, clientKey := pems(t, ca.issue(t, "client", time.Hour))
	serverFor := func(cert tls.Certificate, h2 bool, auth tls.ClientAuthType) string {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Proto", r.Proto)
			if len(r.TLS.PeerCertificates) > 0 {
				w.Header().Set("X-Client", r.TLS.PeerCertificates[0].Subject.CommonName)
			}
		}))
		pool := x509.NewCertPool()
		pool.AddCert(ca.cert)
		server.Config.ErrorLog = nil
		server.EnableHTTP2 = h2
		server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: auth}
		server.Config.ErrorLog = discardLog()
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.URL
	}
	good := serverFor(ca.issue(t, "127.0.0.1", 40*24*time.Hour), true, tls.NoClientCert)
	oneOnly := serverFor(ca.issue(t, "127.0.0.1", 40*24*time.Hour), false, tls.NoClientCert)
	mutual := serverFor(ca.issue(t, "127.0.0.1", 40*24*time.Hour), true, tls.RequireAndVerifyClientCert)
	expired := serverFor(ca.issue(t, "127.0.0.1", -73*time.Hour), true, tls.NoClientCert)
	wrong := serverFor(ca.issue(t, "other.example", time.Hour), true, tls.NoClientCert)
	self := serverFor((*authority)(nil).issue(t, "127.0.0.1", time.Hour), true, tls.NoClientCert)
	plain := serveHTTP(t, reply)
	r := newRegistry(t)
	tests := []struct {
		name, target string
		config       map[string]any
		assert       string
		want         string
	}{
		{"auto takes h2", good, nil, `headers["x-proto"] == "HTTP/2.0" and cert.days_left == 39`, "200 OK"},
		{"1.1", good, map[string]any{"http_version": "1.1"}, `headers["x-proto"] == "HTTP/1.1"`, "200 OK"},
		{"2", good, map[string]any{"http_version": "2"}, `headers["x-proto"] == "HTTP/2.0"`, "200 OK"},
		{"auto takes 1.1", oneOnly, nil, `headers["x-proto"] == "HTTP/1.1"`, "200 OK"},
		{"server name", wrong, map[string]any{"server_name": "other.example"}, "", "200 OK"},
		{"client certificate", mutual, map[string]any{"client_cert": clientCert, "client_key": clientKey}, `headers["x-client"] == "client"`, "200 OK"},
		{"expired", expired, nil, "", "certificate expired 3 days ago (CN=127.0.0.1)"},
		{"expired, not verified", expired, map[string]any{"insecure_skip_verify": true}, "cert.days_left < 0", "200 OK"},
		{"wrong host", wrong, nil, "", "certificate is for other.example, not for 127.0.0.1"},
		{"self-signed", self, nil, "", "certificate is self-signed (CN=127.0.0.1)"},
	}
	for _, tt := range tests {
		for _, reuse := range []bool{false, true} {
			config := map[string]any{"ca": ca.pem, "reuse": reuse}
			for k, v := range tt.config {
				config[k] = v
			}
			spec := Spec{Kind: "http", Target: tt.target, Config: configJSON(t, config)}
			if tt.assert != "" {
				spec.Assert = []string{tt.assert}
			}
			got := mustCheck(t, r, spec)
			if got.Message != tt.want {
				t.Errorf("%s (reuse %v): got %q, want %q", tt.name, reuse, got.Message, tt.want)
			}
			if got.Status == sdk.Up && (got.ExpiresAt.IsZero() || got.Timing.TLS <= 0 || got.Timing.Connect <= 0) {
				t.Errorf("%s (reuse %v): got %+v", tt.name, reuse, got)
			}
		}
	}
	if got := mustCheck(t, r, Spec{Kind: "http", Target: oneOnly, Config: configJSON(t, map[string]any{"ca": ca.pem, "http_version": "2"})}); got.Status != sdk.Down {
		t.Errorf("HTTP/2 with a server that has none: got %+v", got)
	}
	if got := mustCheck(t, r, Spec{Kind: "http", Target: mutual, Config: configJSON(t, map[string]any{"ca": ca.pem})}); got.Status != sdk.Down {
		t.Errorf("no client certificate: got %+v", got)
	}
	got := mustCheck(t, r, Spec{Kind: "http", Target: good})
	if want := "certificate is signed by an unknown authority (CN=127.0.0.1, issuer CN=Test CA)"; got.Message != want {
		t.Errorf("unknown authority: got %q, want %q", got.Message, want)
	}
	got = mustCheck(t, r, Spec{Kind: "http", Target: strings.Replace(plain, "http:", "https:", 1)})
	if want := strings.TrimPrefix(plain, "http://") + " does not speak TLS here"; got.Message != want {
		t.Errorf("no TLS: got %q, want %q", got.Message, want)
	}
}

// TestHTTPBadPeers has servers that do everything wrong.
func TestHTTPBadPeers(t *testing.T) {
	t.Parallel()
	say := func(text string, hold bool) func(net.Conn) {
		return func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				return
			}
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
			if hold {
				var b [1]byte
				if n, err := conn.Read(b[:]); n > 0 || err == nil {
					return
				}
			}
		}
	}
	r := newRegistry(t)
	tests := []struct {
		name, text string
		hold       bool
		want       string // PEER stands for the address
		status     sdk.Status
	}{
		{"closes", "", false, "PEER closed the connection (waiting for the answer)", sdk.Down},
		{"says nothing", "", true, "no answer from PEER within 200 ms (waiting for the answer)", sdk.Down},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-", false, "PEER closed the connection (waiting for the answer)", sdk.Down},
		{"half a header, slowly", "HTTP/1.1 200 OK\r\nContent-", true, "no answer from PEER within 200 ms (waiting for the answer)", sdk.Down},
		{"garbage", "SSH-2.0-OpenSSH_9.9\r\n", false, `PEER: the answer is no HTTP: malformed HTTP response "SSH-2.0-OpenSSH_9.9"`, sdk.Down},
		{"control characters", "\x00\x1b[31m\xff\r\n\r\n", false, `PEER: the answer is no HTTP: malformed HTTP response "\x00\x1b[31m\xff"`, sdk.Down},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false, "PEER closed the connection (reading the body)", sdk.Down},
		{"half a body, slowly", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", true, "no answer from PEER within 200 ms (reading the body)", sdk.Down},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", false, "PEER closed the connection (reading the body)", sdk.Down},
		{"until it closes", "HTTP/1.0 200 Fine\r\n\r\nabc", false, "200 OK", sdk.Up},
		{"interim answers", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, "200 OK", sdk.Up},
		{"interim without end", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20), true, "PEER: the answer is no HTTP: it sends interim answers (1xx) without end", sdk.Down},
		{"endless header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeaderBytes), true, "PEER sent more than 1048576 bytes of headers", sdk.Down},
		{"bad code", "HTTP/1.1 000 x\r\n\r\n", false, "expected status 200-299, got 0", sdk.Down},
	}
	for _, tt := range tests {
		peer := serve(t, say(tt.text, tt.hold))
		got, err := tryCheck(t, r, Spec{Kind: "http", Target: "http://" + peer}, 200*time.Millisecond)
		want := strings.ReplaceAll(tt.want, "PEER", peer)
		if err != nil || got.Status != tt.status || got.Message != want {
			t.Errorf("%s: got %s %q %v\nwant %q", tt.name, got.Status, got.Message, err, want)
		}
	}
}

// TestHTTPEndlessAnswer has servers whose answer never ends, with silence or with a flood. What the check does not need of the
// body must not cost time: it goes as if the body had ended there.
func TestHTTPEndlessAnswer(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	endless := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/end" {
			return
		}
		w.Header().Set("Location", "/end")
		code, flood := http.StatusOK, strings.HasPrefix(r.URL.Path, "/flood/")
		if _, err := fmt.Sscanf(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/'):], "/%d", &code); err != nil {
			t.Error(err)
		}
		w.WriteHeader(code)
		block := []byte(strings.Repeat("x", 4096))
		for _, err := w.Write(block); err == nil && flood; _, err = w.Write(block) {
		}
		if err := http.NewResponseController(w).Flush(); err == nil {
			<-r.Context().Done()
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(endless))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Hour)}}
	server.Config.ErrorLog = discardLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	long := serve(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 500 No\r\nContent-Length: 9999999\r\n\r\nabc"); err != nil {
			return
		}
		_, _ = in.ReadByte() // until the check closes
	})
	const limit = `"max_body_bytes":100`
	tests := []struct{ path, config, assert, want string }{
		{"/silent/500", "", "", "expected status 200-299, got 500 Internal Server Error"},
		{"/flood/500", "", "", "expected status 200-299, got 500 Internal Server Error"},
		{"/silent/302", "", "", "200 OK"},
		{"/flood/302", "", "", "200 OK"},
		{"/silent/302", `"redirects":0`, "", "expected status 200-299, got 302 Found"},
		{"/silent/200", limit, "", "200 OK"},
		{"/silent/200", limit, "len(body) == 100", "200 OK"},
		{"/flood/200", "", "", "200 OK"},
		{"/flood/200", "", "len(body) == 1048576", "200 OK"},
		{"/silent/500", limit + `,"expect_status":"any"`, "len(body) == 100", "500 Internal Server Error"},
	}
	r := newRegistry(t)
	try := func(t *testing.T, target, assert, want string, config map[string]any) {
		t.Parallel()
		spec := Spec{Kind: "http", Target: target, Config: configJSON(t, config)}
		if assert != "" {
			spec.Assert = []string{assert}
		}
		// It is the whole timeout that a check takes which waits for the end.
		if got := mustCheck(t, r, spec); got.Message != want || got.Latency >= testTimeout || got.Timing.Total >= testTimeout {
			t.Errorf("got %q after %v, want %q", got.Message, got.Latency, want)
		}
	}
	for _, how := range []struct{ name, config string }{
		{"1.1", `"http_version":"1.1"`},
		{"1.1, kept", `"http_version":"1.1","reuse":true`},
		{"2", `"http_version":"2"`},
		{"2, kept", `"http_version":"2","reuse":true`},
	} {
		for _, tt := range tests {
			t.Run(how.name+tt.path+tt.config+tt.assert, func(t *testing.T) {
				config := map[string]any{"ca": ca.pem}
				text := "{" + how.config + strings.TrimSuffix(","+tt.config, ",") + "}"
				if err := json.Unmarshal([]byte(text), &config); err != nil {
					t.Fatal(err)
				}
				try(t, server.URL+tt.path, tt.assert, tt.want, config)
			})
		}
	}
	t.Run("length", func(t *testing.T) {
		try(t, "http://"+long, "", "expected status 200-299, got 500 Internal Server Error", nil)
	})
}

func TestHTTPReuse(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(reply))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	r := newRegistry(t)
	checker, err := r.New(Spec{Kind: "http", Target: server.URL, Config: []byte(`{"reuse":true}`)})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if result, err := checker.Check(t.Context(), sdk.CheckRequest{Timeout: testTimeout}); err != nil || result.Status != sdk.Up {
			t.Fatalf("got %+v, %v", result, err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("5 checks with reuse made %d connections", n)
	}
	fresh, err := r.New(Spec{Kind: "http", Target: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if result, err := fresh.Check(t.Context(), sdk.CheckRequest{Timeout: testTimeout}); err != nil || result.Status != sdk.Up {
			t.Fatalf("got %+v, %v", result, err)
		}
	}
	if n := connections.Load(); n != 6 {
		t.Errorf("5 checks without reuse made %d connections", n-1)
	}
}
