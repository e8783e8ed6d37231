package check

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tocsinhq/tocsin/sdk"
)

// zone answers like a server that knows a few names.
func zone(t testing.TB, dropFirst *atomic.Int32) dns.HandlerFunc {
	record := func(text string) dns.RR {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	records := []dns.RR{
		record("a.test. 60 IN A 192.0.2.1"), record("a.test. 60 IN A 192.0.2.2"), record("a.test. 60 IN AAAA 2001:db8::1"),
		record("a.test. 60 IN MX 10 mail.a.test."), record(`a.test. 60 IN TXT "v=spf1" " -all"`), record("www.test. 60 IN CNAME a.test."),
		record("1.2.0.192.in-addr.arpa. 60 IN PTR a.test."), record("_sip._tcp.a.test. 60 IN SRV 0 5 5060 sip.a.test."),
	}
	return func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(query)
		q := query.Question[0]
		_, tcp := w.RemoteAddr().(*net.TCPAddr)
		known := false
		for _, rr := range records {
			if strings.EqualFold(rr.Header().Name, q.Name) {
				known = true
				if rr.Header().Rrtype == q.Qtype {
					reply.Answer = append(reply.Answer, rr)
				}
			}
		}
		switch {
		case q.Name == "silent.test.":
			return
		case q.Name == "lost.test.":
			if dropFirst.Add(1) < 3 {
				return
			}
			reply.Answer = []dns.RR{record("lost.test. 60 IN A 192.0.2.3")}
		case q.Name == "garbage.test.":
			if _, err := w.Write([]byte("no DNS")); err != nil {
				t.Error(err)
			}
			return
		case q.Name == "forged.test.":
			forged := reply.Copy()
			forged.Id++
			if err := w.WriteMsg(forged); err != nil {
				t.Error(err)
			}
			reply.Answer = []dns.RR{record("forged.test. 60 IN A 192.0.2.4")}
		case q.Name == "big.test." && !tcp:
			reply.Truncated = true
		case q.Name == "big.test.":
			reply.Answer = []dns.RR{record("big.test. 60 IN A 192.0.2.5")}
		case q.Name == "servfail.test.":
			reply.Rcode = dns.RcodeServerFailure
		case q.Name == "norecurse.test." && query.RecursionDesired:
			reply.Rcode = dns.RcodeRefused
		case q.Name == "norecurse.test.":
			reply.Answer = []dns.RR{record("norecurse.test. 60 IN A 192.0.2.6")}
		case !known:
			reply.Rcode = dns.RcodeNameError
		}
		// The client may be gone already: then its own check says so.
		if err := w.WriteMsg(reply); err != nil && !errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// dnsServer serves a zone over UDP and TCP on one port, and over TLS on another.
func dnsServer(t testing.TB, ca *authority) (plain, secure string) {
	t.Helper()
	var dropped atomic.Int32
	handler := zone(t, &dropped)
	var packets net.PacketConn
	var streams net.Listener
	var err error
	for range 20 {
		if streams, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if packets, err = net.ListenPacket("udp", streams.Addr().String()); err == nil {
			break
		}
		streams.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	secureStreams, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{
		{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}, {Listener: secureStreams, Handler: handler},
	} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := errors.Join(server.Shutdown(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
	return streams.Addr().String(), secureStreams.Addr().String()
}

func TestDNS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	plain, secure := dnsServer(t, ca)
	r := newRegistry(t)
	tests := []struct {
		target string
		config map[string]any
		assert string
		status sdk.Status
		want   string
	}{
		{"a.test", nil, `dns.answers == ["192.0.2.1", "192.0.2.2"] and dns.rcode == "NOERROR" and status == 0 and ip == "127.0.0.1"`, sdk.Up, "NOERROR for a.test"},
		{"A.Test.", nil, `latency < 5s`, sdk.Up, "NOERROR for a.test"},
		{"a.test", map[string]any{"protocol": "tcp"}, `"192.0.2.1" in dns.answers`, sdk.Up, "NOERROR for a.test"},
		{"a.test", map[string]any{"protocol": "dot", "server": secure, "ca": ca.pem}, `len(dns.answers) == 2`, sdk.Up, "NOERROR for a.test"},
		{"a.test", map[string]any{"protocol": "dot", "server": secure}, "", sdk.Down, "certificate is signed by an unknown authority (CN=127.0.0.1, issuer CN=Test CA)"},
		{"a.test", map[string]any{"type": "AAAA", "expect_answers": []string{"2001:db8::1"}}, "", sdk.Up, "NOERROR for a.test"},
		{"a.test", map[string]any{"type": "MX", "expect_answers": []string{"10 Mail.a.test."}}, `dns.answers[0] == "10 mail.a.test"`, sdk.Up, "NOERROR for a.test"},
		{"a.test", map[string]any{"type": "TXT", "expect_answers": []string{"v=spf1 -all"}}, "", sdk.Up, "NOERROR for a.test"},
		{"_sip._tcp.a.test", map[string]any{"type": "SRV", "expect_answers": []string{"0 5 5060 sip.a.test"}}, "", sdk.Up, "NOERROR for _sip._tcp.a.test"},
		{"www.test", map[string]any{"type": "CNAME", "expect_answers": []string{"a.test"}}, "", sdk.Up, "NOERROR for www.test"},
		{"192.0.2.1", map[string]any{"type": "PTR", "expect_answers": []string{"a.test"}}, "", sdk.Up, "NOERROR for 1.2.0.192.in-addr.arpa"},
		{"a.test", map[string]any{"expect_answers": []string{"192.0.2.9"}}, "", sdk.Down, "expected the A record 192.0.2.9 for a.test, got 192.0.2.1, 192.0.2.2"},
		{"a.test", map[string]any{"type": "NS"}, "", sdk.Down, "no NS record for a.test from " + plain},
		{"none.test", nil, "", sdk.Down, "expected NOERROR, got NXDOMAIN for none.test from " + plain},
		{"none.test", map[string]any{"expect_rcode": "NXDOMAIN"}, "", sdk.Up, "NXDOMAIN for none.test"},
		{"servfail.test", nil, "", sdk.Down, "expected NOERROR, got SERVFAIL for servfail.test from " + plain},
		{"norecurse.test", nil, "", sdk.Down, "expected NOERROR, got REFUSED for norecurse.test from " + plain},
		{"norecurse.test", map[string]any{"recursion": false}, "", sdk.Up, "NOERROR for norecurse.test"},
		{"lost.test", nil, "", sdk.Up, "NOERROR for lost.test"},
		{"forged.test", nil, `dns.answers == ["192.0.2.4"]`, sdk.Up, "NOERROR for forged.test"},
		{"big.test", nil, `dns.answers == ["192.0.2.5"]`, sdk.Up, "NOERROR for big.test"},
		{"silent.test", nil, "", sdk.Down, "no answer from " + plain + " within 900 ms (waiting for the answer)"},
		{"garbage.test", nil, "", sdk.Down, "no answer from " + plain + " within 900 ms (waiting for the answer)"},
		{"a.test", nil, `dns.answers[0] == "192.0.2.7"`, sdk.Down, `assertion failed: dns.answers[0] == "192.0.2.7" (dns.answers[0] = "192.0.2.1")`},
	}
	for _, tt := range tests {
		config := map[string]any{"server": plain}
		for k, v := range tt.config {
			config[k] = v
		}
		spec := Spec{Kind: "dns", Target: tt.target, Config: configJSON(t, config)}
		if tt.assert != "" {
			spec.Assert = []string{tt.assert}
		}
		got, err := tryCheck(t, r, spec, 900*time.Millisecond)
		if err != nil || got.Status != tt.status || got.Message != tt.want {
			t.Errorf("%s %v: got %s %q %v\nwant %q", tt.target, tt.config, got.Status, got.Message, err, tt.want)
		}
	}
}

// TestSystemResolver sees whose fault it is that the system's own resolver does not answer.
func TestSystemResolver(t *testing.T) {
	t.Parallel()
	plain, _ := dnsServer(t, newAuthority(t))
	host, port, err := net.SplitHostPort(plain)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	resolvers := func(list ...endpoint) *Registry {
		r := newRegistry(t)
		r.env.system.list, r.env.system.read = list, time.Now().Add(time.Hour)
		return r
	}
	p, err := parseEndpoint(net.JoinHostPort(host, port), 0)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := parseEndpoint("127.0.0.1:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustCheck(t, resolvers(dead, p), Spec{Kind: "dns", Target: "a.test"}); got.Status != sdk.Up {
		t.Errorf("the second server answers: got %+v", got)
	}
	if got := mustCheck(t, resolvers(p), Spec{Kind: "dns", Target: "none.test"}); got.Status != sdk.Down {
		t.Errorf("NXDOMAIN: got %+v", got)
	}
	if got, err := tryCheck(t, resolvers(dead), Spec{Kind: "dns", Target: "a.test"}, testTimeout); err == nil || !strings.Contains(err.Error(), "the system's resolver gave no answer for a.test") {
		t.Errorf("no server answers: got %+v, %v", got, err)
	}
	if got, err := tryCheck(t, resolvers(p), Spec{Kind: "dns", Target: "silent.test"}, 200*time.Millisecond); err == nil || !strings.Contains(err.Error(), "the system's resolver gave no answer for silent.test") {
		t.Errorf("the server is silent: got %+v, %v", got, err)
	}
	for text, want := range map[string]string{"": "names none", "nameserver 192.0.2.1\nnameserver 2001:db8::1\n": ""} {
		path := filepath.Join(dir, "resolv.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := systemResolver{path: path}
		list, err := s.servers()
		if want == "" && (err != nil || len(list) != 2 || list[1].String() != "[2001:db8::1]:53") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, %v", text, list, err)
		}
	}
	missing := systemResolver{path: filepath.Join(dir, "missing")}
	if _, err := missing.servers(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}

func TestDNSOfLocalhost(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	for qtype, want := range map[string]string{"A": "127.0.0.1", "AAAA": "::1"} {
		got := mustCheck(t, r, Spec{Kind: "dns", Target: "localhost", Config: configJSON(t, map[string]any{"type": qtype, "expect_answers": []string{want}})})
		if got.Status != sdk.Up || got.Message != "NOERROR for localhost" {
			t.Errorf("%s: got %+v", qtype, got)
		}
	}
	if got := mustCheck(t, r, Spec{Kind: "dns", Target: "localhost", Config: []byte(`{"type":"MX"}`)}); got.Message != "no MX record for localhost" {
		t.Errorf("got %+v", got)
	}
}

func TestDNSFaults(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	tests := []struct{ target, config, want string }{
		{"", `{}`, "target: must not be empty (got )"},
		{"http://a.test", `{}`, "target: must be a name such as example.org, not a URL (got http://a.test)"},
		{"192.0.2.1", `{}`, "target: must be a name; an address can only be asked for with type PTR (got 192.0.2.1)"},
		{strings.Repeat("a", 64) + ".test", `{}`, "target: is no name that is valid in DNS (got " + strings.Repeat("a", 64) + ".test)"},
		{"a.test", `{"server":"192.0.2.1:0"}`, "config.server: has a port that is not between 1 and 65535 (got 192.0.2.1:0)"},
		{"a.test", `{"protocol":"dot"}`, "config.server: is needed with protocol dot"},
		{"a.test", `{"type":"ANY"}`, "config.type: must be one of A, AAAA, CAA, CNAME, DNSKEY, DS, HTTPS, MX, NAPTR, NS, PTR, SOA, SRV, SVCB, TLSA, TXT (got ANY)"},
		{"a.test", `{"expect_rcode":"NXDOMAIN","expect_answers":["x"]}`, "config.expect_answers: can only be given with expect_rcode NOERROR"},
	}
	for _, tt := range tests {
		if _, err := r.New(Spec{Kind: "dns", Target: tt.target, Config: []byte(tt.config)}); err == nil || err.Error() != tt.want {
			t.Errorf("%s %s\n got %v\nwant %s", tt.target, tt.config, err, tt.want)
		}
	}
}
