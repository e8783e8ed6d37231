package sdk

import (
	"encoding/json"
	"errors"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHTTPJSON(t *testing.T) {
	t.Parallel()
	for want, req := range map[string]HTTPRequest{
		`{"url":"http://x/"}`: {URL: "http://x/"},
		`{"method":"POST","url":"u","headers":{"A":["b","c"]},"body":"é","follow":3,"insecure":true}`: {
			Method: "POST", URL: "u", Headers: map[string][]string{"A": {"b", "c"}}, Body: []byte("é"), Follow: 3, Insecure: true,
		},
		`{"url":"u","body_base64":"/w=="}`: {URL: "u", Body: []byte{0xff}},
	} {
		if got, err := json.Marshal(req); err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	var got HTTPResponse
	err := json.Unmarshal([]byte(`{"status":200,"proto":"HTTP/1.1","headers":{"Content-Type":["text/plain"],"X":[]},"body":"b","truncated":true,
		"remote":"192.0.2.1:443","timing_us":{"dns":1,"connect":2,"tls":3,"first_byte":4,"total":5},
		"tls":{"version":"TLS 1.3","cipher":"c","server_name":"s","subject":"CN=s","issuer":"CN=i","not_before":"2026-01-01T00:00:00Z","not_after":"2027-01-01T00:00:00Z"}}`), &got)
	want := HTTPResponse{
		Status: 200, Proto: "HTTP/1.1", Headers: map[string][]string{"Content-Type": {"text/plain"}, "X": {}}, Body: []byte("b"), Truncated: true,
		Remote: "192.0.2.1:443",
		Timing: Timing{DNS: time.Microsecond, Connect: 2 * time.Microsecond, TLS: 3 * time.Microsecond, FirstByte: 4 * time.Microsecond, Total: 5 * time.Microsecond},
		TLS: &HTTPTLS{
			Version: "TLS 1.3", Cipher: "c", ServerName: "s", Subject: "CN=s", Issuer: "CN=i",
			NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got.Header("content-type") != "text/plain" || got.Header("x") != "" || got.Header("y") != "" {
		t.Error("headers are not found by their names")
	}
	if err := json.Unmarshal([]byte(`{"body_base64":"/w=="}`), &got); err != nil || string(got.Body) != "\xff" {
		t.Errorf("%q, %v", got.Body, err)
	}
	var echo Echo
	if err := json.Unmarshal([]byte(`{"rtt_us":1500,"ttl":64,"addr":"192.0.2.1"}`), &echo); err != nil || echo != (Echo{1500 * time.Microsecond, 64, "192.0.2.1"}) {
		t.Errorf("%+v, %v", echo, err)
	}
}

func TestPathEscape(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "example.com:80": "example.com:80", "[2001:db8::1]:443": "[2001:db8::1]:443", "a/b": "a%2Fb", "fe80::1%eth0": "fe80::1%25eth0",
		"é?&=@ ": "%C3%A9%3F%26%3D%40%20", "..": "..", "h2,http/1.1": "h2,http%2F1.1",
	} {
		if got := PathEscape(text); got != want {
			t.Errorf("%q is escaped as %q, want %q", text, got, want)
		}
	}
}

// Outside the sandbox there is no /net, and the functions say so.
func TestNoNet(t *testing.T) {
	t.Parallel()
	_, dial := Dial("tcp", "example.com:80")
	id := strconv.Itoa(int(lastStream.Load()))
	_, tls := Dial("tls", "example.com:80")
	_, do := Do(HTTPRequest{URL: "http://example.com/"})
	_, dns := LookupDNS("MX", "example.com")
	_, ping := Ping("example.com")
	_, certs := FetchCertificates("example.com:443")
	for path, err := range map[string]error{
		"/net/tcp/example.com:80?id=" + id: dial, "/net/tls/example.com:80": tls, "/net/http": do, "/net/dns/MX/example.com": dns,
		"/net/icmp/example.com": ping, "/net/cert/example.com:443": certs,
	} {
		want := &NetError{Op: "open", Path: path, Kind: NetFailed, Message: "there is no " + path + ": only a plugin in the sandbox has it"}
		var got *NetError
		if !errors.As(err, &got) || *got != *want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := Dial("unix", "/x"); err == nil || !strings.Contains(err.Error(), `network "unix" is none of tcp, tls, udp`) {
		t.Error(err)
	}
	if _, err := (&Stream{}).StartTLS("x"); err == nil {
		t.Error("a stream without an id went on in TLS")
	}
	if !errors.Is(&NetError{Kind: NetDenied}, fs.ErrPermission) || errors.Is(&NetError{Kind: NetFailed}, fs.ErrPermission) || !(&NetError{Kind: NetTimeout}).Timeout() {
		t.Error("kinds are not told apart")
	}
}
