package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	builtin(func(e *env) Kind {
		return define(e, "dns", "Asks a DNS server for the records of a name and judges the answer. A server that is named in the config is what is watched: "+
			"no answer from it is down. No answer from the system's own resolver is unknown.",
			"example.org", dnsConfig{
				Type: "A", Protocol: "udp", ExpectRcode: "NOERROR", Recursion: true, family: family{"any"}, tlsOptions: defaultTLS(),
			},
			append(connectionVariables(),
				Variable{"status", "number", "Response code as a number; 0 is NOERROR.", "status == 0"},
				Variable{"dns.answers", "list", "Records of the type asked for, as text: addresses, names without the final dot, 10 mail.example.org for MX.", `"192.0.2.1" in dns.answers`},
				Variable{"dns.rcode", "text", "Response code: NOERROR, NXDOMAIN, SERVFAIL, …", `dns.rcode == "NOERROR"`}),
			func(target string, c dnsConfig, faults *monitor.Faults) prober { return newDNS(e, target, c, faults) })
	})
}

type dnsConfig struct {
	Type          string   `json:"type" doc:"Type of the records that are asked for." enum:"A,AAAA,CAA,CNAME,DNSKEY,DS,HTTPS,MX,NAPTR,NS,PTR,SOA,SRV,SVCB,TLSA,TXT"`
	Server        string   `json:"server,omitempty" doc:"Server to ask: HOST or HOST:PORT. Empty: those of /etc/resolv.conf." example:"192.0.2.53" maxlen:"300"`
	Protocol      string   `json:"protocol" doc:"How to ask: udp (and tcp when the answer is too long), tcp, or dot (DNS over TLS, port 853)." enum:"udp,tcp,dot"`
	ExpectRcode   string   `json:"expect_rcode" doc:"Response code that is up. With NOERROR at least one record of the type must be there, too." enum:"NOERROR,FORMERR,SERVFAIL,NXDOMAIN,NOTIMP,REFUSED"`
	ExpectAnswers []string `json:"expect_answers,omitempty" doc:"Records that must be among the answers, in the form of dns.answers." maxlen:"50"`
	Recursion     bool     `json:"recursion" doc:"Ask the server to look the name up elsewhere when it does not know it."`
	family
	tlsOptions
}

type dnsCheck struct {
	env       *env
	name      string // fully qualified
	typeName  string
	qtype     uint16
	server    *endpoint // nil: the system's
	protocol  string
	network   string
	rcode     string
	answers   []string
	recursion bool
	tls       *tlsSettings
}

func newDNS(e *env, target string, c dnsConfig, faults *monitor.Faults) *dnsCheck {
	d := &dnsCheck{
		env: e, typeName: c.Type, qtype: dns.StringToType[c.Type], protocol: c.Protocol, rcode: c.ExpectRcode, recursion: c.Recursion,
	}
	d.network = c.network("udp")
	if c.Protocol != "udp" {
		d.network = c.network("tcp")
	}
	var err error
	if d.name, err = queryName(target, c.Type); err != nil {
		faults.Add("target", shownTarget(target), "%v", err)
	}
	if c.Server != "" {
		port := uint16(53)
		if c.Protocol == "dot" {
			port = 853
		}
		server, err := parseEndpoint(c.Server, port)
		if err != nil {
			faults.Add("server", sdk.CleanText(c.Server, 100), "%v", err)
		}
		c.fits(server.addr, faults)
		d.server = &server
	} else if c.Protocol == "dot" {
		faults.Add("server", nil, "is needed with protocol dot")
	}
	for _, answer := range c.ExpectAnswers {
		d.answers = append(d.answers, normalAnswer(answer))
	}
	if len(d.answers) > 0 && c.ExpectRcode != "NOERROR" {
		faults.Add("expect_answers", nil, "can only be given with expect_rcode NOERROR")
	}
	if settings := c.settings(e, []string{"dot"}, faults); c.Protocol == "dot" {
		d.tls = settings
	}
	return d
}

// queryName turns a target into the name that is asked for. An address with type PTR becomes its reverse name.
func queryName(target, qtype string) (string, error) {
	if err := checkText(target); err != nil {
		return "", err
	}
	if strings.Contains(target, "://") {
		return "", errors.New("must be a name such as example.org, not a URL")
	}
	if addr, err := netip.ParseAddr(target); err == nil {
		if qtype != "PTR" {
			return "", errors.New("must be a name; an address can only be asked for with type PTR")
		}
		return dns.ReverseAddr(addr.Unmap().WithZone("").String())
	}
	name := target
	if !isASCII(name) {
		var err error
		if name, err = idna.Lookup.ToASCII(target); err != nil {
			return "", errors.New("is no name that is valid in DNS")
		}
	}
	if _, ok := dns.IsDomainName(name); !ok || len(name) > 253 {
		return "", errors.New("is no name that is valid in DNS")
	}
	return dns.Fqdn(strings.ToLower(name)), nil
}

// normalAnswer is the form in which answers are compared: lower case, without a final dot.
func normalAnswer(text string) string { return strings.TrimSuffix(strings.ToLower(text), ".") }

func (d *dnsCheck) probe(ctx context.Context, _ sdk.CheckRequest, s *seen) error {
	query := new(dns.Msg)
	query.SetQuestion(d.name, d.qtype)
	query.RecursionDesired = d.recursion
	query.SetEdns0(1232, false)
	start := time.Now()
	var reply *dns.Msg
	var err error
	if d.server != nil {
		reply, err = d.ask(ctx, *d.server, query, s)
	} else if reply = loopback(query); reply == nil {
		reply, err = d.askSystem(ctx, query, s)
	}
	s.Latency = time.Since(start)
	if err != nil {
		return err
	}
	d.judge(reply, s)
	return nil
}

// loopback answers for localhost and the names under it, as a resolver does by itself (RFC 6761 6.3): no server is asked. It
// returns nil for other names.
func loopback(query *dns.Msg) *dns.Msg {
	q := query.Question[0]
	if q.Name != "localhost." && !strings.HasSuffix(q.Name, ".localhost.") {
		return nil
	}
	reply := new(dns.Msg)
	reply.SetReply(query)
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
	switch q.Qtype {
	case dns.TypeA:
		reply.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)}}
	case dns.TypeAAAA:
		reply.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: net.IPv6loopback}}
	}
	return reply
}

// askSystem asks the system's servers in turn, as its resolver does. That none answers is our own fault.
func (d *dnsCheck) askSystem(ctx context.Context, query *dns.Msg, s *seen) (*dns.Msg, error) {
	servers, err := d.env.system.servers()
	if err != nil {
		return nil, &ownFault{err: err}
	}
	for i, server := range servers {
		part, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			part, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(servers)-i))
		}
		var reply *dns.Msg
		reply, err = d.ask(part, server, query, s)
		cancel()
		if err == nil {
			return reply, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &ownFault{err: fmt.Errorf("the system's resolver gave no answer for %s: %w", strings.TrimSuffix(d.name, "."), err)}
}

// ask sends a query to one server. Over UDP it is sent again after a third and two thirds of the time, since packets get
// lost; a truncated answer is asked for again over TCP (RFC 7766).
func (d *dnsCheck) ask(ctx context.Context, server endpoint, query *dns.Msg, s *seen) (*dns.Msg, error) {
	reply, err := d.exchange(ctx, d.network, server, query, s)
	if err == nil && reply.Truncated && d.protocol == "udp" {
		return d.exchange(ctx, strings.Replace(d.network, "udp", "tcp", 1), server, query, s)
	}
	return reply, err
}

func (d *dnsCheck) exchange(ctx context.Context, network string, server endpoint, query *dns.Msg, s *seen) (*dns.Msg, error) {
	conn, err := d.env.dial(ctx, network, server, &s.Timing)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	s.Address = peerOf(conn)
	defer bind(ctx, conn)()
	if d.tls != nil {
		client, err := d.tls.handshake(ctx, conn, server, &s.Timing)
		if err != nil {
			return nil, err
		}
		state := client.ConnectionState()
		s.saw(&state)
		conn = client
	}
	tries := 1
	if strings.HasPrefix(network, "udp") {
		tries = 3
	}
	sent := time.Now()
	defer func() { s.Timing.FirstByte = time.Since(sent) }()
	wire := &dns.Conn{Conn: conn, UDPSize: 4096}
	for try := 1; ; try++ {
		if err := wire.WriteMsg(query); err != nil {
			return nil, &failure{phase: "sending the query", peer: s.Address, err: err}
		}
		if deadline, ok := ctx.Deadline(); ok && try < tries {
			if err := conn.SetReadDeadline(time.Now().Add(time.Until(deadline) / time.Duration(tries-try+1))); err != nil {
				return nil, &failure{phase: "waiting for the answer", peer: s.Address, err: err}
			}
		} else if err := conn.SetReadDeadline(deadline); err != nil {
			return nil, &failure{phase: "waiting for the answer", peer: s.Address, err: err}
		}
		reply, err := matching(ctx, wire, query)
		if err == nil {
			return reply, nil
		}
		if try >= tries || ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, &failure{phase: "waiting for the answer", peer: s.Address, err: err}
		}
	}
}

// matching reads until the answer to the query comes; others are strays or forged.
func matching(ctx context.Context, wire *dns.Conn, query *dns.Msg) (*dns.Msg, error) {
	_, datagrams := wire.Conn.(net.PacketConn)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		reply, err := wire.ReadMsg()
		var network net.Error
		switch {
		case err == nil && reply.Id == query.Id && reply.Response && asked(reply, query):
			return reply, nil
		case err != nil && (!datagrams || errors.As(err, &network)):
			return nil, err
		case err == nil && !datagrams:
			return nil, errors.New("the answer is for another question")
		}
	}
}

// asked reports whether a reply repeats the question. Some errors come without it.
func asked(reply, query *dns.Msg) bool {
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess
	}
	r, q := reply.Question[0], query.Question[0]
	return strings.EqualFold(r.Name, q.Name) && r.Qtype == q.Qtype && r.Qclass == q.Qclass
}

func (d *dnsCheck) judge(reply *dns.Msg, s *seen) {
	s.Code = uint16(reply.Rcode)
	s.rcode = dns.RcodeToString[reply.Rcode]
	if s.rcode == "" {
		s.rcode = fmt.Sprintf("RCODE%d", reply.Rcode)
	}
	s.answers = []string{}
	for _, rr := range reply.Answer {
		if rr.Header().Rrtype == d.qtype {
			s.answers = append(s.answers, answerText(rr))
		}
	}
	slices.Sort(s.answers)
	name := strings.TrimSuffix(d.name, ".")
	if name == "" {
		name = "."
	}
	switch {
	case s.rcode != d.rcode:
		s.down("expected %s, got %s for %s%s", d.rcode, s.rcode, name, from(s.Address))
		return
	case s.rcode == "NOERROR" && len(s.answers) == 0:
		s.down("no %s record for %s%s", d.typeName, name, from(s.Address))
		return
	}
	for _, want := range d.answers {
		if !slices.ContainsFunc(s.answers, func(got string) bool { return normalAnswer(got) == want }) {
			s.down("expected the %s record %s for %s, got %s", d.typeName, cutText(want), name, cutText(strings.Join(s.answers, ", ")))
			return
		}
	}
	s.up(s.rcode + " for " + name)
}

func from(address string) string {
	if address == "" {
		return ""
	}
	return " from " + address
}

// answerText writes a record's data as a person would: names without their final dot, the parts of a TXT joined.
func answerText(rr dns.RR) string {
	if txt, ok := rr.(*dns.TXT); ok {
		return strings.Join(txt.Txt, "")
	}
	return strings.TrimSuffix(strings.TrimPrefix(rr.String(), rr.Header().String()), ".")
}

// systemResolver knows the servers of the system's resolver. The zero value reads /etc/resolv.conf.
type systemResolver struct {
	path string // of resolv.conf; empty: /etc/resolv.conf
	mu   sync.Mutex
	read time.Time
	list []endpoint
}

// freshFor is how long the file is not read again.
const freshFor = 5 * time.Second

func (r *systemResolver) servers() ([]endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list != nil && time.Since(r.read) < freshFor {
		return r.list, nil
	}
	path := r.path
	if path == "" {
		path = "/etc/resolv.conf"
	}
	config, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("the system's resolver is not known: %w", err)
	}
	var list []endpoint
	for _, server := range config.Servers {
		p, err := parseEndpoint(net.JoinHostPort(server, config.Port), 53)
		if err != nil {
			return nil, fmt.Errorf("the system's resolver %q is no address: %w", server, err)
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the system has no resolver: %s names none", path)
	}
	r.list, r.read = list, time.Now()
	return list, nil
}
