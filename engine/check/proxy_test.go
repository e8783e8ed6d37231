package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// httpProxy forwards requests and tunnels; it wants the user joe with the password s3cret.
func httpProxy(t testing.TB, used *atomic.Int32) string {
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic am9lOnMzY3JldA==" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		used.Add(1)
		if r.Method != http.MethodConnect {
			out := r.Clone(r.Context())
			out.RequestURI = ""
			out.Header.Del("Proxy-Authorization")
			resp, err := http.DefaultTransport.RoundTrip(out)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			if _, err := io.Copy(w, resp.Body); err != nil {
				t.Error(err)
			}
			return
		}
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		near, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			t.Error(err)
		}
		tunnel(near, far)
	})
}

// tunnel passes bytes both ways until one side closes.
func tunnel(a, b net.Conn) {
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			// A side that breaks off ends the tunnel like one that closes.
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
	a.Close()
	b.Close()
	<-done
}

// socksProxy is a SOCKS5 server without authentication (RFC 1928) that can only connect.
func socksProxy(t testing.TB, used *atomic.Int32) string {
	return serve(t, func(conn net.Conn) {
		var head [262]byte
		if _, err := io.ReadFull(conn, head[:2]); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, head[:head[1]]); err != nil {
			return
		}
		if _, err := conn.Write([]byte{5, 0}); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, head[:4]); err != nil || head[3] != 1 {
			t.Errorf("address type %d, %v", head[3], err)
			return
		}
		if _, err := io.ReadFull(conn, head[:6]); err != nil {
			return
		}
		far, err := net.Dial("tcp", fmt.Sprintf("%d.%d.%d.%d:%d", head[0], head[1], head[2], head[3], int(head[4])<<8|int(head[5])))
		if err != nil {
			return
		}
		used.Add(1)
		if _, err := conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Error(err)
		}
		tunnel(conn, far)
	})
}

func TestHTTPProxy(t *testing.T) {
	t.Parallel()
	var used, socks atomic.Int32
	proxy := httpProxy(t, &used)
	socksAddress := "socks5://" + socksProxy(t, &socks)
	plain := serveHTTP(t, reply)
	secure := httptest.NewTLSServer(http.HandlerFunc(reply))
	t.Cleanup(secure.Close)
	auth := map[string]string{"username": "joe", "password": "s3cret"}
	dead := serve(t, func(net.Conn) {})
	r := newRegistry(t)
	tests := []struct {
		target string
		config map[string]any
		want   string
	}{
		{plain, map[string]any{"proxy": proxy, "proxy_auth": auth}, "200 OK"},
		{secure.URL, map[string]any{"proxy": proxy, "proxy_auth": auth}, "200 OK"},
		{plain, map[string]any{"proxy": socksAddress}, "200 OK"},
		{secure.URL, map[string]any{"proxy": socksAddress}, "200 OK"},
		{plain, map[string]any{"proxy": proxy}, "expected status 200-299, got 407 Proxy Authentication Required"},
		{secure.URL, map[string]any{"proxy": proxy}, "the proxy " + strings.TrimPrefix(proxy, "http://") + " does not connect to " + strings.TrimPrefix(secure.URL, "https://") + ": it answered 407 Proxy Authentication Required"},
		{secure.URL, map[string]any{"proxy": "http://" + dead}, "the connection (connecting to " + strings.TrimPrefix(secure.URL, "https://") + ")"},
	}
	for _, tt := range tests {
		tt.config["insecure_skip_verify"] = true
		got := mustCheck(t, r, Spec{Kind: "http", Target: tt.target, Config: configJSON(t, tt.config)})
		if got.Message != tt.want && !strings.HasSuffix(strings.Replace(got.Message, " off (", " (", 1), tt.want) {
			t.Errorf("%s %v: got %q, want %q", tt.target, tt.config, got.Message, tt.want)
		}
	}
	if used.Load() != 2 || socks.Load() != 2 {
		t.Errorf("the proxies were used %d and %d times", used.Load(), socks.Load())
	}
}

// TestHTTPProxyFaults sees that what a proxy does is not said of the target, nor the other way round.
func TestHTTPProxyFaults(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	ln.Close()
	silent := serve(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	abrupt := serve(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) })
	half := serve(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
	})
	// tunnels says that it has connected, and then what a target could say.
	tunnels := func(then func(net.Conn)) string {
		return serve(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			then(conn)
		})
	}
	tunnelSilent := tunnels(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	tunnelPlain := tunnels(func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	refuses := serve(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, "HTTP/1.1 503 Odd Words\r\nContent-Length: 0\r\n\r\n")
	})
	socksRefuses := serve(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 3))
		_, _ = conn.Write([]byte{5, 0})
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = conn.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
	})
	selfSigned := httptest.NewUnstartedServer(http.NotFoundHandler())
	selfSigned.Config.ErrorLog = discardLog()
	selfSigned.StartTLS()
	t.Cleanup(selfSigned.Close)
	var used atomic.Int32
	works := httpProxy(t, &used)
	r := newRegistry(t)
	const plain, secure = "http://192.0.2.7:8080/", "https://192.0.2.7/"
	for _, tt := range []struct{ name, target, proxy, want string }{
		{"dead, plain", plain, "http://" + closed, "the proxy " + closed + " refused the connection after "},
		{"dead, TLS", secure, "http://" + closed, "the proxy " + closed + " refused the connection after "},
		{"dead, SOCKS", plain, "socks5://" + closed, "the proxy " + closed + " refused the connection after "},
		{"no such name", plain, "http://none.test.:3128", "no such host: none.test. (the proxy none.test.:3128)"},
		{"silent, plain", plain, "http://" + silent, "no answer from the proxy " + silent + " within 300 ms (waiting for the answer)"},
		{"silent, TLS", secure, "http://" + silent, "no answer from the proxy " + silent + " within 300 ms (connecting to 192.0.2.7:443)"},
		{"silent, SOCKS", plain, "socks5://" + silent, "no answer from the proxy " + silent + " within 300 ms (connecting to 192.0.2.7:8080)"},
		{"silent, TLS proxy", plain, "https://" + silent, "no answer from the proxy " + silent + " within 300 ms (TLS handshake)"},
		{"closes, plain", plain, "http://" + abrupt, "the proxy " + abrupt + " closed the connection (waiting for the answer)"},
		{"closes, TLS", secure, "http://" + abrupt, "the proxy " + abrupt + " closed the connection (connecting to 192.0.2.7:443)"},
		{"closes, SOCKS", plain, "socks5://" + abrupt, "the proxy " + abrupt + " closed the connection (connecting to 192.0.2.7:8080)"},
		{"half a body", plain, "http://" + half, "the proxy " + half + " closed the connection (reading the body)"},
		{"refuses", secure, "http://" + refuses, "the proxy " + refuses + " does not connect to 192.0.2.7:443: it answered 503 Odd Words"},
		{"refuses, SOCKS", plain, "socks5://" + socksRefuses, "the proxy " + socksRefuses + " does not connect to 192.0.2.7:8080: connection refused"},
		{"certificate of the proxy", plain, selfSigned.URL, "the proxy " + selfSigned.Listener.Addr().String() + ": certificate is self-signed ("},
		{"no TLS proxy", plain, "https://" + abrupt, "the proxy " + abrupt + " closed the connection (TLS handshake)"},
		{"silent target", secure, "http://" + tunnelSilent, "no answer from 192.0.2.7:443 within 300 ms (TLS handshake through the proxy " + tunnelSilent + ")"},
		{"target without TLS", secure, "http://" + tunnelPlain, "192.0.2.7:443 does not speak TLS here"},
		{"certificate of the target", selfSigned.URL, works, "certificate is self-signed ("},
	} {
		config := map[string]any{"proxy": tt.proxy}
		if tt.proxy == works {
			config["proxy_auth"] = map[string]string{"username": "joe", "password": "s3cret"}
		}
		if tt.name == "no such name" {
			server, _ := dnsServer(t, newAuthority(t))
			r.env.resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialResolver(ctx, network, server)
			}
		}
		got, err := tryCheck(t, r, Spec{Kind: "http", Target: tt.target, Config: configJSON(t, config)}, 300*time.Millisecond)
		text := strings.Replace(got.Message, "broke the connection off", "closed the connection", 1)
		if err != nil || got.Status != sdk.Down || !strings.HasPrefix(text, tt.want) {
			t.Errorf("%s: got %s %q, %v, want %q", tt.name, got.Status, got.Message, err, tt.want)
		}
	}
	// An address that may not be connected to is the proxy's, and that is said.
	_, err = tryCheck(t, r, Spec{Kind: "http", Target: plain, Config: []byte(`{"proxy":"http://169.254.169.254:3128"}`)}, testTimeout)
	if err == nil || !strings.Contains(err.Error(), "the proxy 169.254.169.254:3128: address not allowed") {
		t.Errorf("a denied proxy gives %v", err)
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Proto", r.Proto) }))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	r := newRegistry(t)
	for config, proto := range map[string]string{
		`{"http_version":"2"}`: "HTTP/2.0", `{"http_version":"2","reuse":true}`: "HTTP/2.0", `{}`: "HTTP/1.1", `{"http_version":"1.1"}`: "HTTP/1.1",
	} {
		got := mustCheck(t, r, Spec{Kind: "http", Target: server.URL, Config: []byte(config), Assert: []string{`headers["x-proto"] == "` + proto + `"`}})
		if got.Status != sdk.Up {
			t.Errorf("%s: got %+v", config, got)
		}
	}
}

// TestResolver sees whose fault it is when a name has no address, and that a literal address asks no resolver.
func TestResolver(t *testing.T) {
	t.Parallel()
	server, _ := dnsServer(t, newAuthority(t))
	r := newRegistry(t)
	var asked atomic.Int32
	r.env.resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		asked.Add(1)
		return dialResolver(ctx, network, server)
	}
	refused := serve(t, func(net.Conn) {})
	_, port, err := net.SplitHostPort(refused)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []Spec{
		{Kind: "tcp", Target: "127.0.0.1:" + port},
		{Kind: "tls", Target: "127.0.0.1:" + port},
		{Kind: "http", Target: "http://127.0.0.1:" + port},
		{Kind: "dns", Target: "a.test", Config: []byte(`{"server":"` + server + `"}`)},
	} {
		mustCheck(t, r, spec)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the resolver was asked %d times about literal addresses", n)
	}
	for _, kind := range []string{"tcp", "tls", "http", "icmp"} {
		target := func(name string) string {
			switch kind {
			case "http":
				return "http://" + name + ":" + port
			case "icmp":
				return name
			}
			return name + ":" + port
		}
		if got := mustCheck(t, r, Spec{Kind: kind, Target: target("none.test.")}); got.Status != sdk.Down || got.Message != "no such host: none.test." {
			t.Errorf("%s: NXDOMAIN gives %+v", kind, got)
		}
		for _, name := range []string{"silent.test.", "servfail.test."} {
			got, err := tryCheck(t, r, Spec{Kind: kind, Target: target(name)}, 300*time.Millisecond)
			if err == nil || !strings.Contains(err.Error(), "the resolver gave no answer for "+name) {
				t.Errorf("%s: no answer about %s gives %+v, %v", kind, name, got, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	checker, err := r.New(Spec{Kind: "tcp", Target: "silent.test.:1"})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	if got, err := checker.Check(ctx, sdk.CheckRequest{Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while resolving: got %+v, %v", got, err)
	}
}
