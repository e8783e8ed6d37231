package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/tocsinhq/tocsin/host/reach"
)

// Bounds of a DNS answer.
const (
	maxRecords = 500      // in the answer; twice as many in all sections
	maxAnswer  = 64 << 10 // bytes of text
	udpSize    = 1232     // bytes of a datagram that we ask for (https://www.dnsflagday.net/2020/)
	udpRoom    = 4096     // and that there is room for
)

// systemServers reads /etc/resolv.conf.
func systemServers() ([]netip.AddrPort, error) { return serversOf("/etc/resolv.conf") }

// serversOf reads a resolv.conf(5): at most three servers, and the one on this host when none is named or there is no such
// file.
func serversOf(path string) ([]netip.AddrPort, error) {
	const most = 3
	local := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	config, err := dns.ClientConfigFromFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return local, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the system's DNS servers: %w", err)
	}
	var servers []netip.AddrPort
	for _, text := range config.Servers {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("read the system's DNS servers: %w", err)
		}
		if len(servers) < most {
			servers = append(servers, netip.AddrPortFrom(addr, 53))
		}
	}
	if len(servers) == 0 {
		return local, nil
	}
	return servers, nil
}

// questionType reads a type of record. Those that are no records, but transfers and parts of the protocol, cannot be asked
// for.
func questionType(name string) (uint16, error) {
	kind, ok := dns.StringToType[name]
	switch kind {
	case dns.TypeNone, dns.TypeReserved, dns.TypeOPT, dns.TypeTKEY, dns.TypeTSIG, dns.TypeIXFR, dns.TypeAXFR, dns.TypeMAILA, dns.TypeMAILB:
		ok = false
	}
	if !ok {
		return 0, &Error{Invalid, fmt.Sprintf("%q is no type of DNS record that can be asked for", name)}
	}
	return kind, nil
}

func (s *Server) tryResolve(ctx context.Context, call Call, r request, trace *Trace) (result, error) {
	access := trace.Access
	if access.Scheme != "dns" {
		return result{}, &Error{Invalid, access.String() + ": a DNS question is asked of dns"}
	}
	kind, err := questionType(r.Type)
	if err != nil {
		return result{}, err
	}
	if _, err := s.decide(call, access); err != nil {
		return result{}, err
	}
	query := new(dns.Msg)
	query.SetQuestion(dns.Fqdn(access.Host.Name), kind)
	query.SetEdns0(udpSize, false)
	var reply *dns.Msg
	if r.Server != "" {
		reply, err = s.askServer(ctx, call, r.Server, query, trace)
	} else {
		reply, err = s.askSystem(ctx, query, access)
	}
	if err != nil {
		return result{}, err
	}
	return answered(reply, access)
}

// askServer asks the server that the plugin named, which must be granted as datagrams to it. When the answer does not fit
// into one, the same address is asked over TCP.
func (s *Server) askServer(ctx context.Context, call Call, server string, query *dns.Msg, trace *Trace) (*dns.Msg, error) {
	access, err := reach.ParseAccess("udp", server)
	if err != nil {
		return nil, &Error{Invalid, "DNS server: " + err.Error()}
	}
	verdict, err := s.decide(call, access)
	if err != nil {
		return nil, err
	}
	addrs, err := s.addresses(ctx, verdict, access, trace)
	if err != nil {
		return nil, err
	}
	var first error
	for i, addr := range addrs {
		part, cancel := share(ctx, len(addrs)-i)
		reply, err := s.exchange(part, query, func(network string) (net.Conn, error) {
			conn, at, err := s.connect(part, way{verdict, access, network}, []netip.Addr{addr})
			if err == nil {
				trace.Addr = at
			}
			return conn, err
		})
		cancel()
		if err == nil {
			return reply, nil
		}
		if first == nil {
			first = exchangeError(ctx, fmt.Sprintf("%s: ask %s: ", access, addr), err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// askSystem asks the system's servers in turn. Their addresses are the operator's choice, so no grant speaks of them, and the
// plugin is not told them.
func (s *Server) askSystem(ctx context.Context, query *dns.Msg, access reach.Access) (*dns.Msg, error) {
	text := access.String() + ": ask the system's DNS servers: "
	servers, err := s.o.Servers()
	if err == nil && len(servers) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, &because{&Error{DNS, text + "they are not known"}, err}
	}
	var first error
	for i, server := range servers {
		part, cancel := share(ctx, len(servers)-i)
		reply, err := s.exchange(part, query, func(network string) (net.Conn, error) {
			return s.dial(part, &net.Dialer{KeepAlive: -1}, network, server.String())
		})
		cancel()
		if err == nil {
			return reply, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if over := overtime(ctx, text); over != nil {
		return nil, &because{over, first}
	}
	return nil, &because{&Error{DNS, text + "none answered"}, first}
}

// exchangeError says why a server gave no answer.
func exchangeError(ctx context.Context, text string, err error) error {
	var plain *Error
	if errors.As(err, &plain) {
		return err
	}
	err = dialError(ctx, text, err)
	if errors.As(err, &plain) && plain.Kind == Failed {
		return &because{&Error{DNS, text + "no usable answer"}, err}
	}
	return err
}

// tries is how often a question is sent over UDP, since datagrams get lost.
const tries = 3

// exchange asks one server: over UDP, and over TCP when the answer was cut (RFC 7766).
func (s *Server) exchange(ctx context.Context, query *dns.Msg, dial func(network string) (net.Conn, error)) (*dns.Msg, error) {
	for _, network := range []string{"udp", "tcp"} {
		conn, err := dial(network)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		reply, err := converse(ctx, conn, query, network)
		stop()
		conn.Close()
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // that it was closed is no reason
		}
		if err != nil {
			return nil, err
		}
		if !reply.Truncated {
			return reply, nil
		}
	}
	return nil, errors.New("the answer was cut even over TCP")
}

func converse(ctx context.Context, conn net.Conn, query *dns.Msg, network string) (*dns.Msg, error) {
	wire := &dns.Conn{Conn: conn, UDPSize: udpRoom}
	left := 1
	if network == "udp" {
		left = tries
	}
	for ; ; left-- {
		until, _ := ctx.Deadline()
		if left > 1 {
			until = time.Now().Add(time.Until(until) / time.Duration(left))
		}
		if err := conn.SetDeadline(until); err != nil {
			return nil, err
		}
		if err := wire.WriteMsg(query); err != nil {
			return nil, err
		}
		reply, err := matching(ctx, wire, query, network)
		if err == nil {
			return reply, nil
		}
		if left <= 1 || ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
}

// matching reads until the answer to the query comes. Over UDP, what does not fit is a stray or forged, and passed over.
func matching(ctx context.Context, wire *dns.Conn, query *dns.Msg, network string) (*dns.Msg, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var header dns.Header
		raw, err := wire.ReadMsgHeader(&header)
		var fault net.Error
		if err != nil && (network != "udp" || errors.As(err, &fault)) {
			return nil, err
		}
		reply := new(dns.Msg)
		if err == nil {
			err = unpack(reply, raw, header)
		}
		switch {
		case err == nil && reply.Id == query.Id && reply.Response && repeats(reply, query):
			return reply, nil
		case network == "udp":
		case err != nil:
			return nil, err
		default:
			return nil, errors.New("the answer is for another question")
		}
	}
}

// unpack reads a message, unless its header says that it holds more records than anybody needs: each can unfold into
// hundreds of bytes.
func unpack(m *dns.Msg, raw []byte, header dns.Header) error {
	if int(header.Ancount)+int(header.Nscount)+int(header.Arcount) > 2*maxRecords {
		return fmt.Errorf("the answer has more than %d records", 2*maxRecords)
	}
	return m.Unpack(raw)
}

// repeats reports whether a reply repeats the question. Some errors come without it.
func repeats(reply, query *dns.Msg) bool {
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess
	}
	r, q := reply.Question[0], query.Question[0]
	return strings.EqualFold(r.Name, q.Name) && r.Qtype == q.Qtype && r.Qclass == q.Qclass
}

// answered writes an answer down, every name with the dot at its end, as in a zone file (RFC 1035 5, RFC 3597 5).
func answered(reply *dns.Msg, access reach.Access) (result, error) {
	answer := Answer{RCode: dns.RcodeToString[reply.Rcode], Answers: []Record{}}
	if answer.RCode == "" {
		answer.RCode = fmt.Sprintf("RCODE%d", reply.Rcode)
	}
	size := 0
	for _, rr := range reply.Answer {
		header := rr.Header()
		data, err := dataText(rr)
		if err != nil {
			return result{}, &because{&Error{DNS, access.String() + ": a record of the answer cannot be written down"}, err}
		}
		record := Record{Name: header.Name, Type: dns.Type(header.Rrtype).String(), TTL: header.Ttl, Data: data}
		if size += len(record.Name) + len(record.Type) + len(record.Data); size > maxAnswer || len(answer.Answers) == maxRecords {
			return result{}, &Error{DNS, fmt.Sprintf("%s: the answer has more than %d records or %d bytes", access, maxRecords, maxAnswer)}
		}
		answer.Answers = append(answer.Answers, record)
	}
	return result{reply: replyWith(answer)}, nil
}

// dataText writes the data of a record: in the form of its type, or in the general one (RFC 3597 5) when that has none.
func dataText(rr dns.RR) (string, error) {
	data, ok := strings.CutPrefix(rr.String(), rr.Header().String())
	if ok {
		return data, nil
	}
	general, ok := rr.(*dns.RFC3597)
	if !ok {
		general = new(dns.RFC3597)
		if err := general.ToRFC3597(rr); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf(`\# %d %s`, len(general.Rdata)/2, general.Rdata), nil
}

func replyWith(a Answer) reply { return reply{Answer: &a} }
