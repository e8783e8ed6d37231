//go:build unix

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/tocsinhq/tocsin/host/reach"
)

// nameServer answers on one loopback port over UDP and TCP until the test ends.
func nameServer(t testing.TB, answer dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	stream, packets := bothPorts(t)
	at := packets.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: stream, Handler: answer}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			server.Shutdown()
			<-ended
		})
	}
	return at
}

// bothPorts finds a port that is free for TCP and UDP.
func bothPorts(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 50 {
		stream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			return stream, packets
		}
		stream.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

func records(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var all []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	return all
}

// zone answers by the name that is asked for.
func zone(t testing.TB) dns.HandlerFunc {
	many := func(n int, data string) []dns.RR {
		var all []dns.RR
		for i := range n {
			all = append(all, records(t, fmt.Sprintf("many.example. 5 IN TXT \"%d %s\"", i, data))...)
		}
		return all
	}
	return func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(query)
		_, overTCP := w.LocalAddr().(*net.TCPAddr)
		switch query.Question[0].Name {
		case "mail.example.":
			reply.Answer = records(t, "mail.example. 300 IN MX 10 mx1.mail.example.", `mail.example. 60 IN TXT "a \"quoted\" <word>" "\195\188"`, `mail.example. 60 IN TYPE65400 \# 2 0aff`, "mail.example. 60 IN NULL \\# 2 0aff")
		case "none.example.":
			reply.Rcode = dns.RcodeNameError
		case "odd.example.":
			reply.Rcode = 3841 & 0xf
			reply.SetEdns0(1232, false)
			reply.Rcode = 3841
		case "big.example.":
			if reply.Truncated = !overTCP; overTCP {
				reply.Answer = many(400, "x")
			}
		case "many.example.":
			if reply.Truncated = !overTCP; overTCP {
				reply.Answer = many(501, "")
			}
		case "crowd.example.":
			if reply.Truncated = !overTCP; overTCP {
				reply.Answer, reply.Ns, reply.Extra = many(400, ""), many(400, ""), many(400, "")
			}
		case "long.example.":
			if reply.Truncated = !overTCP; overTCP {
				reply.Answer = many(250, strings.Repeat(`\001`, 200))
			}
		case "cut.example.":
			reply.Truncated = true
		case "forged.example.": // strays come first
			stray := reply.Copy()
			stray.Answer = records(t, "forged.example. 5 IN A 6.6.6.6")
			stray.Id++
			w.WriteMsg(stray)
			stray.Id--
			stray.Question[0].Name = "other.example."
			w.WriteMsg(stray)
			w.Write([]byte("no DNS"))
			reply.Answer = records(t, "forged.example. 5 IN A 192.0.2.1")
		case "silent.example.":
			return
		case "edns.example.":
			reply.Answer = records(t, fmt.Sprintf("edns.example. 5 IN TXT \"%d %v\"", query.IsEdns0().UDPSize(), query.RecursionDesired))
		}
		w.WriteMsg(reply)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	at := nameServer(t, zone(t))
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deadAt := dead.LocalAddr().(*net.UDPAddr).AddrPort()
	dead.Close()
	servers := []netip.AddrPort{deadAt, at} // the first refuses, the second is asked
	traces := make(chan Trace, 1)
	e := connected(t, NewServer(ServerOptions{
		Servers: func() ([]netip.AddrPort, error) { return servers, nil },
		Calls: func(id uint64) (Call, bool) {
			return Call{
				Grant: grantOf(t, "dns://*.example udp://{config.server}"), Deadline: time.Now().Add(5 * time.Second),
				Fill: reach.Call{Config: []byte(`{"server":"` + at.String() + `"}`)}, Trace: func(tr Trace) { traces <- tr },
			}, true
		},
	}))
	for _, server := range []string{"", at.String()} {
		for _, tt := range []struct {
			kind, name string
			want       Answer
			err        string
		}{
			{"MX", "mail.example", Answer{"NOERROR", []Record{
				{"mail.example.", "MX", 300, "10 mx1.mail.example."},
				{"mail.example.", "TXT", 60, `"a \"quoted\" <word>" "\195\188"`},
				{"mail.example.", "TYPE65400", 60, `\# 2 0aff`},
				{"mail.example.", "NULL", 60, `\# 2 0aff`},
			}}, ""},
			{"A", "none.example", Answer{"NXDOMAIN", []Record{}}, ""},
			{"A", "empty.example", Answer{"NOERROR", []Record{}}, ""},
			{"A", "odd.example", Answer{"RCODE3841", []Record{}}, ""},
			{"A", "forged.example", Answer{"NOERROR", []Record{{"forged.example.", "A", 5, "192.0.2.1"}}}, ""},
			{"TXT", "edns.example", Answer{"NOERROR", []Record{{"edns.example.", "TXT", 5, `"1232 true"`}}}, ""},
			{"TXT", "many.example", Answer{}, "dns: dns://many.example: the answer has more than 500 records or 65536 bytes"},
			{"TXT", "long.example", Answer{}, "dns: dns://long.example: the answer has more than 500 records or 65536 bytes"},
			{"TXT", "crowd.example", Answer{}, "dns: "},
			{"A", "cut.example", Answer{}, "dns: "},
			{"A", "mail.test", Answer{}, "denied: not granted: dns://mail.test; the plugin was granted dns://*.example, udp://{config.server} (" + at.String() + ")"},
			{"AXFR", "mail.example", Answer{}, `invalid: "AXFR" is no type of DNS record that can be asked for`},
			{"A\x00", "mail.example", Answer{}, `invalid: "A\x00" is no type of DNS record that can be asked for`},
		} {
			got, err := e.net.Resolve(timed(t), Question{Type: tt.kind, Name: hostOf(t, tt.name), Server: server})
			trace := <-traces
			if tt.err != "" {
				text := fmt.Sprintf("%s: %v", kindOf(err), err)
				if text != tt.err && (!strings.HasSuffix(tt.err, ": ") || !strings.HasPrefix(text, tt.err)) || trace.Err == nil || server == "" && strings.Contains(text, "127.0.0.1: ") {
					t.Errorf("%s %s at %q: %s, want %s; trace %+v", tt.kind, tt.name, server, text, tt.err, trace)
				}
				continue
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%s %s at %q: %v %s", tt.kind, tt.name, server, err, diff)
			}
			if server != "" && trace.Addr != at || trace.Op != "resolve" || trace.Server != server || trace.Err != nil {
				t.Errorf("%s %s at %q: trace %+v", tt.kind, tt.name, server, trace)
			}
		}
		got, err := e.net.Resolve(timed(t), Question{Type: "TXT", Name: hostOf(t, "big.example"), Server: server})
		<-traces
		if err != nil || len(got.Answers) != 400 {
			t.Errorf("over TCP: %d records, %v", len(got.Answers), err)
		}
	}
	if _, err := e.net.Resolve(timed(t), Question{Type: "A", Name: hostOf(t, "mail.example"), Server: "127.0.0.1:53"}); kindOf(err) != Denied || !strings.Contains(err.Error(), "udp://127.0.0.1:53") {
		t.Errorf("a server that was not granted: %v", err)
	}
	<-traces
	servers = nil
	if _, err := e.net.Resolve(timed(t), Question{Type: "A", Name: hostOf(t, "mail.example")}); kindOf(err) != DNS {
		t.Errorf("without servers: %v", err)
	}
	<-traces
}

func TestResolveInVain(t *testing.T) {
	t.Parallel()
	at := nameServer(t, zone(t))
	deadline := 100 * time.Millisecond
	var servers []netip.AddrPort
	var known error
	grant := grantOf(t, "dns://*.example udp://{target} udp://192.0.2.53:53 udp://ns.example:53")
	e := connected(t, NewServer(ServerOptions{
		Policy:  settings(),
		Servers: func() ([]netip.AddrPort, error) { return servers, known },
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("10.0.0.1")}, nil
		},
		Calls: func(uint64) (Call, bool) {
			return Call{Grant: grant, Fill: reach.Call{Target: at.String()}, Deadline: time.Now().Add(deadline)}, true
		},
	}))
	ask := func(server string) error {
		_, err := e.net.Resolve(timed(t), Question{Type: "A", Name: hostOf(t, "silent.example"), Server: server})
		return err
	}
	servers = []netip.AddrPort{at}
	for server, want := range map[string]Error{
		"":              {Timeout, "dns://silent.example: ask the system's DNS servers: timed out"},
		at.String():     {Timeout, "udp://" + at.String() + ": ask 127.0.0.1: timed out"},
		"192.0.2.53:53": {Denied, "not granted: udp://192.0.2.53:53: 192.0.2.53 is a documentation address, and the manifest names it; grant it with --allow-private"},
		"ns.example:53": {Denied, "not granted: udp://ns.example:53: address not allowed: 169.254.169.254 is a link-local address; allow it with plugins.allow_addresses"},
	} {
		if diff := cmp.Diff(error(&want), ask(server)); diff != "" {
			t.Errorf("%q: %s", server, diff)
		}
	}
	known = errors.New("the file cannot be read")
	if diff := cmp.Diff(error(&Error{DNS, "dns://silent.example: ask the system's DNS servers: they are not known"}), ask("")); diff != "" {
		t.Error(diff)
	}
}

func TestSystemServers(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"": "[127.0.0.1:53]", "# nothing\nsearch example.com\n": "[127.0.0.1:53]",
		"nameserver 10.0.0.2\nnameserver fe80::1%lo\noptions ndots:5":                      "[10.0.0.2:53 [fe80::1%lo]:53]",
		"nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n": "[1.1.1.1:53 2.2.2.2:53 3.3.3.3:53]",
		"nameserver localhost": "[]",
	} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		servers, err := serversOf(path)
		if got := fmt.Sprint(servers); got != want || (err != nil) != (want == "[]") {
			t.Errorf("%q: %s, %v, want %s", content, got, err, want)
		}
	}
	if servers, err := serversOf(filepath.Join(t.TempDir(), "none")); err != nil || len(servers) != 1 {
		t.Errorf("without the file: %v, %v", servers, err)
	}
	if _, err := systemServers(); err != nil {
		t.Error(err)
	}
}

func FuzzDNSAnswer(f *testing.F) {
	for _, kind := range []string{"A 1.2.3.4", `TXT "a" "b"`, "MX 1 a.", "SRV 1 2 3 b.", `CAA 0 issue "x"`, "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m", `TYPE65400 \# 2 0aff`, "SVCB 1 . alpn=h2"} {
		m := new(dns.Msg)
		m.SetQuestion("a.", dns.TypeANY)
		m.Answer = records(f, "a. 5 IN "+kind)
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil {
			return
		}
		got, err := answered(m, reach.Access{Scheme: "dns", Host: hostOf(t, "a")})
		if err != nil {
			if kindOf(err) != DNS {
				t.Fatal(err)
			}
			return
		}
		message, err := encode(got.reply, maxReply)
		if err != nil {
			t.Fatal(err)
		}
		var back reply
		if err := json.Unmarshal(message[headerSize:], &back); err != nil || len(back.Answer.Answers) != len(m.Answer) {
			t.Fatalf("%d records became %+v, %v", len(m.Answer), back.Answer, err)
		}
	})
}
