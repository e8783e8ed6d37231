//go:build unix

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/tocsinhq/tocsin/host/reach"
)

// row is one line of the network policy's table.
type row struct {
	granted  string // permissions; behind --allow-private they may be private
	target   string // of the monitor; PORT is that of the listener
	config   string
	asked    string // a path below /net or the URL of an HTTP request; behind " > " the next hop of a redirect
	resolved string // what every name resolves to at each hop
	want     string // the error of the last hop; empty: it is allowed, and so are all before
	dialled  string // the addresses that were really dialled, in all hops
}

// world is what the table's plugin acts in: a real server with a resolver and addresses of our own.
type world struct {
	t        *testing.T
	listener netip.AddrPort // stands in for every address that is not loopback
	names    netip.AddrPort
	mu       sync.Mutex
	resolved string
	dialled  []string
	looked   int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	stream, packets := bothPorts(t)
	w := &world{t: t, listener: netip.MustParseAddrPort(stream.Addr().String())}
	w.names = nameServer(t, func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg)
		w.WriteMsg(reply.SetReply(query))
	})
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := stream.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	})
	t.Cleanup(func() {
		stream.Close()
		packets.Close()
		work.Wait()
	})
	return w
}

// lookup answers every name with the row's addresses.
func (w *world) lookup(_ context.Context, _ string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	var addrs []netip.Addr
	for _, text := range strings.Fields(w.resolved) {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{IsNotFound: true}
	}
	return addrs, nil
}

// dial runs the dialer's own control hook on the address as net.Dialer does. Loopback is then dialled for real; in the place of
// every other address the listener is, since no test leaves this machine.
func (w *world) dial(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	if address == w.names.String() {
		return d.DialContext(ctx, network, address)
	}
	if d.Control == nil {
		w.t.Errorf("%s is dialled without a guard", address)
	}
	if netip.MustParseAddrPort(address).Addr().IsLoopback() {
		conn, err := d.DialContext(ctx, network, address)
		if err == nil {
			w.note(network, address)
		}
		return conn, err
	}
	if err := d.Control(network, address, nil); err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	w.note(network, address)
	return new(net.Dialer).DialContext(ctx, network, w.listener.String())
}

// answer sets what names resolve to from now on.
func (w *world) answer(resolved string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resolved = resolved
}

// seen returns what was dialled, and how often a name was looked up, since it was last asked.
func (w *world) seen() ([]string, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dialled, looked := w.dialled, w.looked
	w.dialled, w.looked = nil, 0
	return dialled, looked
}

func (w *world) note(network, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialled = append(w.dialled, network+" "+address)
}

// server makes the real server of the world.
func (w *world) server(grant reach.Grant, fill reach.Call) *Server {
	s := NewServer(ServerOptions{
		Policy: settings(), Lookup: w.lookup,
		Servers: func() ([]netip.AddrPort, error) { return []netip.AddrPort{w.names}, nil },
		Ping: func(_ context.Context, addr netip.Addr) (Echo, error) {
			w.note("icmp", addr.String())
			return Echo{RTT: 1, Addr: addr}, nil
		},
		Calls: func(uint64) (Call, bool) {
			return Call{Grant: grant, Fill: fill, Deadline: time.Now().Add(10 * time.Second)}, true
		},
	})
	s.dial = w.dial
	return s
}

// open does what the file system below /net does when a plugin opens a path there, or sends the request of a URL.
func open(t *testing.T, n Network, asked string) error {
	t.Helper()
	ctx := timed(t)
	path, isPath := strings.CutPrefix(asked, "/net/")
	if !isPath {
		access, err := reach.ParseURL(asked)
		if err != nil {
			return err
		}
		return hangUp(n.Dial(ctx, access))
	}
	o, err := reach.ParsePath(path)
	if err != nil {
		return err
	}
	switch o.Op {
	case "dns":
		_, err = n.Resolve(ctx, Question{Type: o.Type, Name: o.Needs[0].Host, Server: o.Server})
	case "icmp":
		_, err = n.Echo(ctx, o.Needs[0].Host)
	default:
		err = hangUp(n.Dial(ctx, o.Needs[0]))
	}
	return err
}

func hangUp(d Dialled, err error) error {
	if err == nil {
		d.Conn.Close()
	}
	return err
}

// insist asks for the same without the parsers of the runner, as one that was taken over could.
func insist(t *testing.T, s *Server, asked string) {
	t.Helper()
	access := asked
	if path, isPath := strings.CutPrefix(asked, "/net/"); isPath {
		access = strings.Replace(path, "/", "://", 1)
		if plain, err := url.PathUnescape(access); err == nil {
			access = plain
		}
	}
	for _, op := range []string{opDial, opResolve, opEcho} {
		answer, socket := s.answer(timed(t), request{Op: op, ID: 1, Call: 1, Access: access, Type: "A"})
		if socket != nil || answer.Error == nil || answer.Error.Kind != Invalid && answer.Error.Kind != Denied {
			t.Errorf("%s %s, past the runner's parsers: %+v", op, access, answer)
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := fmt.Sprint(w.listener.Port())
	filled := strings.NewReplacer("PORT", port)
	for i, r := range policyRows() {
		name := fmt.Sprintf("%d: %s, target %q, config %s: %s at %s", i, r.granted, r.target, r.config, r.asked, r.resolved)
		granted, private := strings.CutPrefix(filled.Replace(r.granted), "--allow-private ")
		grant := grantOf(t, granted)
		grant.AllowPrivate = private
		s := w.server(grant, reach.Call{Target: filled.Replace(r.target), Config: json.RawMessage(filled.Replace(r.config))})
		e := connected(t, s)
		hops, answers := strings.Split(filled.Replace(r.asked), " > "), strings.Split(r.resolved, " > ")
		for at, asked := range hops {
			w.answer(answers[min(at, len(answers)-1)])
			err := open(t, e.net, asked)
			got, want := "", ""
			if err != nil {
				got = err.Error()
			}
			if at == len(hops)-1 {
				want = filled.Replace(r.want)
			}
			if got != want {
				t.Errorf("%s\n got %s\nwant %s", name, got, want)
			}
			if err != nil && !is[*Error](err) || kindOf(err) == Denied {
				insist(t, s, asked)
			}
		}
		dialled, looked := w.seen()
		if got := strings.Join(dialled, ", "); got != filled.Replace(r.dialled) {
			t.Errorf("%s\ndialled %s\n   want %s", name, got, r.dialled)
		}
		if strings.Contains(r.want, "; the plugin was granted") && len(hops) == 1 && looked > 0 {
			t.Errorf("%s: a name that was not granted was looked up", name)
		}
	}
}

// TestRebinding: a name that changes its answer between the check and the dial gains nothing.
func TestRebinding(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer inside.Close()
	secret := netip.MustParseAddrPort(inside.Listener.Addr().String())
	w := newWorld(t)
	s := w.server(grantOf(t, fmt.Sprintf("tcp://rebind.example:%d", secret.Port())), reach.Call{})
	var asked atomic.Int64
	s.o.Lookup = func(context.Context, string) ([]netip.Addr, error) {
		if asked.Add(1)%2 == 1 {
			return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
		}
		return []netip.Addr{secret.Addr()}, nil
	}
	e := connected(t, s)
	access := accessOf(t, fmt.Sprintf("tcp://rebind.example:%d", secret.Port()))
	for round := range 6 {
		d, err := e.net.Dial(timed(t), access)
		switch {
		case round%2 == 0 && (err != nil || d.Addr.Addr().String() != "8.8.8.8"):
			t.Errorf("round %d: %+v, %v", round, d, err)
		case round%2 == 1 && kindOf(err) != Denied:
			t.Errorf("round %d: %+v, %v", round, d, err)
		}
		if got := asked.Load(); got != int64(round)+1 {
			t.Errorf("round %d: the name was looked up %d times", round, got)
		}
		if err == nil {
			d.Conn.Close()
		}
	}
	// A dialer that connects to another address than it was given is stopped at the last moment.
	s.o.Lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
	}
	s.dial = func(ctx context.Context, d *net.Dialer, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, secret.String())
	}
	want := fmt.Sprintf("not granted: %s: 127.0.0.1 is a loopback address, and the manifest names it; grant it with --allow-private", access)
	if _, err := e.net.Dial(timed(t), access); kindOf(err) != Denied || err.Error() != want {
		t.Errorf("a dialer that goes elsewhere: %v, want %s", err, want)
	}
	// Neither does it look a name up by itself.
	s.dial = func(_ context.Context, d *net.Dialer, network, _ string) (net.Conn, error) {
		return nil, d.Control(network, "localhost:80", nil)
	}
	if _, err := e.net.Dial(timed(t), access); kindOf(err) != Denied {
		t.Errorf("a dialer with a name: %v", err)
	}
	if seen.Load() > 0 {
		t.Error("loopback was reached")
	}
}

// TestRedirects follows real redirects, of every code, with a real HTTP client over the broker.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var inside atomic.Int64
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer secret.Close()
	_, secretPort, _ := net.SplitHostPort(secret.Listener.Addr().String())
	public := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		to := r.URL.Query().Get("to")
		if to == "" {
			io.WriteString(rw, "arrived")
			return
		}
		var code int
		fmt.Sscan(r.URL.Query().Get("code"), &code)
		http.Redirect(rw, r, to, code)
	}))
	defer public.Close()
	_, port, _ := net.SplitHostPort(public.Listener.Addr().String())
	w := newWorld(t)
	s := w.server(grantOf(t, "http://{target} http://login.example:"+port+" http://inside.example:"+secretPort), reach.Call{Target: "http://shop.example:" + port})
	s.o.Lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		if name == "inside.example" {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
	}
	s.dial = func(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
		if err := d.Control(network, address, nil); err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return new(net.Dialer).DialContext(ctx, network, strings.Replace(address, "8.8.8.8", "127.0.0.1", 1))
	}
	e := connected(t, s)
	transport := &http.Transport{Proxy: nil, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		access, err := reach.ParseAccess("http", address)
		if err != nil {
			return nil, err
		}
		d, err := e.net.Dial(ctx, access)
		return d.Conn, err
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, code := range []string{"301", "302", "303", "307", "308"} {
		for to, want := range map[string]string{
			"http://login.example:" + port + "/":        "",
			"http://inside.example:" + secretPort + "/": "127.0.0.1 is a loopback address",
			secret.URL: "not granted: http://127.0.0.1:" + secretPort + "; the plugin was granted",
			"http://169.254.169.254/latest/meta-data/":    "not granted: http://169.254.169.254:80",
			"http://0x7f000001:" + secretPort + "/":       "no address in its usual form",
			"http://other.example:" + port + "/":          "not granted: http://other.example:" + port,
			"http://login.example.:" + secretPort + "/":   "not granted: http://login.example:" + secretPort,
			"http://[::ffff:127.0.0.1]:" + secretPort:     "not granted: http://127.0.0.1:" + secretPort,
			"http://shop.example:" + port + "@evil.test/": "not granted: http://evil.test:80", // the client makes a header of the user name; the hop is still judged by its host
			"file:///etc/passwd":                          "unsupported protocol scheme",
		} {
			request, err := http.NewRequestWithContext(timed(t), http.MethodGet, "http://shop.example:"+port+"/?"+url.Values{"to": {to}, "code": {code}}.Encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err == nil {
				body, _ := io.ReadAll(response.Body)
				response.Body.Close()
				if want != "" || string(body) != "arrived" {
					t.Errorf("%s to %s arrived with %q, want %q", code, to, body, want)
				}
				continue
			}
			if want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("%s to %s: %v, want %q", code, to, err, want)
			}
		}
	}
	if inside.Load() > 0 {
		t.Error("a redirect got inside")
	}
}

// TestProxyVariablesAreIgnored: nothing goes to a proxy, whatever the environment says.
func TestProxyVariablesAreIgnored(t *testing.T) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			conn.Close()
		}
	})
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, "socks5://"+proxy.Addr().String())
	}
	t.Setenv("NO_PROXY", "")
	address, _ := echoing(t)
	e := connected(t, NewServer(ServerOptions{Policy: settings(), Calls: oneCall(t, address)}))
	for _, access := range []string{"tcp://" + address, "http://" + address, "https://" + address, "udp://" + address} {
		d, err := e.net.Dial(timed(t), accessOf(t, access))
		if err != nil || d.Conn.RemoteAddr().String() != address {
			t.Fatalf("%s: %+v, %v", access, d, err)
		}
		d.Conn.Close()
	}
	proxy.Close()
	work.Wait()
	if asked.Load() > 0 {
		t.Errorf("the proxy got %d connections", asked.Load())
	}
}

// TestAliases: a name that is an alias of another is judged by the addresses at the end, with a real resolver that asks a
// real DNS server.
func TestAliases(t *testing.T) {
	t.Parallel()
	at := nameServer(t, func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(query)
		reply.RecursionAvailable = true
		name := query.Question[0].Name
		end := map[string]string{"metadata.example.": "169.254.169.254", "inside.example.": "127.0.0.1", "mapped.example.": "::ffff:10.0.0.1"}[name]
		if end != "" {
			kind := "A"
			if strings.Contains(end, ":") {
				kind = "AAAA"
			}
			if dns.StringToType[kind] == query.Question[0].Qtype {
				reply.Answer = records(t, name+" 5 IN CNAME one.example.", "one.example. 5 IN CNAME two.example.", "two.example. 5 IN "+kind+" "+end)
			}
		}
		w.WriteMsg(reply)
	})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at.String())
	}}
	grant := grantOf(t, "https://*.example")
	e := connected(t, NewServer(ServerOptions{
		Policy: settings(),
		Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return resolver.LookupNetIP(ctx, "ip", name)
		},
		Calls: func(uint64) (Call, bool) { return Call{Grant: grant, Deadline: time.Now().Add(10 * time.Second)}, true },
	}))
	for name, want := range map[string]Error{
		"metadata.example": {Denied, "not granted: https://metadata.example:443: address not allowed: 169.254.169.254 is a link-local address; allow it with plugins.allow_addresses"},
		"inside.example":   {Denied, "not granted: https://inside.example:443: 127.0.0.1 is a loopback address, and the manifest names it; grant it with --allow-private"},
		"mapped.example":   {Denied, "not granted: https://mapped.example:443: 10.0.0.1 is a private address, and the manifest names it; grant it with --allow-private"},
		"nothing.example":  {DNS, "https://nothing.example:443: look up nothing.example: no such host"},
	} {
		_, err := e.net.Dial(timed(t), accessOf(t, "https://"+name+":443"))
		if !cmp.Equal(error(&want), err) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// TestGuard looks at the hook alone.
func TestGuard(t *testing.T) {
	t.Parallel()
	grant, access := grantOf(t, "tcp://a.example:80"), accessOf(t, "tcp://a.example:80")
	verdict, err := grant.Decide(reach.Call{}, access, settings())
	if err != nil {
		t.Fatal(err)
	}
	w := way{verdict, access, "tcp"}
	for address, want := range map[string]bool{
		"8.8.8.8:80": true, "[2606:4700::1]:80": true, "127.0.0.1:80": false, "[::ffff:127.0.0.1]:80": false, "169.254.169.254:80": false, "a.example:80": false, "": false, "/run/docker.sock": false,
	} {
		if err := w.guard("tcp", address, nil); (err == nil) != want || err != nil && !errors.Is(err, reach.ErrDenied) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := (way{}).guard("tcp", "8.8.8.8:80", nil); !errors.Is(err, reach.ErrDenied) {
		t.Errorf("without a verdict: %v", err)
	}
}
