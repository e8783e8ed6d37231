package reach

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

// Permission is one thing that a plugin may reach: SCHEME://HOST[:PORTS]. Make one with ParsePermission.
type Permission struct {
	Scheme string
	Ports  Ports // nil: none were written, the scheme's or, with a placeholder, the filled-in value's port counts

	// Exactly one of these is set.
	Host        Host         // a name or an address
	Below       string       // *.name: every name below it, at any depth, but not the name itself
	Network     netip.Prefix // a CIDR; holds requests that name an address in it, never names that resolve into it
	Target      bool         // {target}
	ConfigField string       // {config.FIELD}
}

// scheme is what one scheme of a permission is about.
type scheme struct {
	name  string
	verb  string // completes "the plugin may … HOST"
	ports bool   // a port belongs to it
	port  uint16 // the port when none is written; 0: one must be written
}

func schemes() [8]scheme {
	return [...]scheme{
		{name: "tcp", verb: "open TCP connections to", ports: true},
		{name: "tls", verb: "open TLS connections to and read the certificate of", ports: true, port: 443},
		{name: "udp", verb: "exchange UDP datagrams with", ports: true},
		{name: "http", verb: "send unencrypted HTTP requests to", ports: true, port: 80},
		{name: "https", verb: "send HTTPS requests to", ports: true, port: 443},
		{name: "dns", verb: "ask the DNS about"},
		{name: "icmp", verb: "ping"},
		{name: "cert", verb: "read the certificate of", ports: true, port: 443},
	}
}

func schemeOf(name string) (scheme, error) {
	for _, s := range schemes() {
		if s.name == name {
			return s, nil
		}
	}
	return scheme{}, fmt.Errorf("scheme %s is none of tcp, tls, udp, http, https, dns, icmp, cert", quote(name))
}

// maxPermission bounds the text of one permission, in bytes.
const maxPermission = 512

// ParsePermission reads SCHEME://HOST[:PORTS]. HOST is a name, *.name, an address, a CIDR, {target} or {config.FIELD}; IPv6
// goes in brackets, its prefix length too: [2001:db8::/32]. The error says what is wrong and does not repeat the text.
func ParsePermission(text string) (Permission, error) {
	if len(text) > maxPermission {
		return Permission{}, fmt.Errorf("is longer than %d bytes", maxPermission)
	}
	name, rest, ok := strings.Cut(text, "://")
	if !ok {
		return Permission{}, errors.New("must be SCHEME://HOST[:PORTS], such as tcp://{target} or https://api.example.com")
	}
	s, err := schemeOf(name)
	if err != nil {
		return Permission{}, err
	}
	p := Permission{Scheme: s.name}
	host, ports, err := splitPorts(rest)
	if err != nil {
		return Permission{}, err
	}
	if err := p.setHost(host); err != nil {
		return Permission{}, err
	}
	switch {
	case ports != "" && !s.ports:
		return Permission{}, fmt.Errorf("%s has no ports", s.name)
	case ports != "":
		if p.Ports, err = ParsePorts(ports[1:]); err != nil {
			return Permission{}, err
		}
	case s.ports && s.port == 0 && !p.filled():
		return Permission{}, fmt.Errorf("%s needs ports, such as %s:8080 or %s:*", s.name, text, text)
	}
	if s.name == "dns" && (p.Host.Addr.IsValid() || p.Network.IsValid()) {
		return Permission{}, errors.New("dns is about names, not addresses")
	}
	return p, nil
}

// splitPorts divides HOST[:PORTS]; ports keeps its colon.
func splitPorts(text string) (host, ports string, err error) {
	end := strings.IndexByte(text, ':')
	for open, closing := range map[string]string{"[": "]", "{": "}"} {
		if !strings.HasPrefix(text, open) {
			continue
		}
		at := strings.Index(text, closing)
		if at < 0 {
			return "", "", fmt.Errorf("%q is not closed", open)
		}
		end = at + 1
	}
	if end < 0 {
		return text, "", nil
	}
	host, ports = text[:end], text[end:]
	switch {
	case ports == "":
	case ports[0] != ':':
		return "", "", fmt.Errorf("%s cannot follow the host", quote(ports))
	case strings.Contains(ports[1:], ":"):
		return "", "", errors.New("an IPv6 address must be in brackets")
	}
	return host, ports, nil
}

func (p *Permission) setHost(text string) error {
	if inside, ok := strings.CutPrefix(text, "{"); ok {
		return p.setPlaceholder(strings.TrimSuffix(inside, "}"))
	}
	if strings.ContainsAny(text, "{}") {
		return errors.New("a placeholder stands for the whole host; nothing can be added to it")
	}
	if below, ok := strings.CutPrefix(text, "*."); ok {
		host, err := ParseHost(below)
		if err != nil {
			return err
		}
		if host.Name == "" {
			return errors.New("*. goes before a name, not before an address")
		}
		p.Below = host.Name
		return nil
	}
	if strings.Contains(text, "*") {
		return errors.New("* stands for the labels before a name only: *.example.com; for every address write 0.0.0.0/0 or [::/0]")
	}
	inside, brackets := strings.CutPrefix(text, "[")
	inside = strings.TrimSuffix(inside, "]")
	if strings.Contains(inside, "/") {
		return p.setNetwork(inside, brackets)
	}
	host, err := ParseHost(inside)
	switch {
	case err != nil:
		return err
	case host.Addr.Zone() != "":
		return errors.New("an address in a permission has no zone")
	case brackets && (host.Name != "" || !strings.Contains(inside, ":")):
		return errors.New("brackets are for IPv6 addresses")
	}
	p.Host = host
	return nil
}

func (p *Permission) setPlaceholder(name string) error {
	if name == "target" {
		p.Target = true
		return nil
	}
	field, ok := strings.CutPrefix(name, "config.")
	if !ok || field == "" || strings.Trim(field, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return fmt.Errorf("placeholder %s is neither {target} nor {config.FIELD}", quote("{"+name+"}"))
	}
	p.ConfigField = field
	return nil
}

func (p *Permission) setNetwork(text string, brackets bool) error {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("%s is no network such as 192.0.2.0/24 or [2001:db8::/32], and a permission has no path", quote(text))
	}
	switch {
	case brackets != network.Addr().Is6():
		return errors.New("an IPv6 network goes in brackets, an IPv4 network does not")
	case network.Addr().Is4In6():
		return errors.New("write the IPv4 network, not its IPv6 form")
	case network.Masked() != network:
		return fmt.Errorf("%s has bits behind its length; write %s", text, network.Masked())
	}
	p.Network = network
	return nil
}

// filled reports whether the host is filled in per call.
func (p Permission) filled() bool { return p.Target || p.ConfigField != "" }

// String returns the permission as ParsePermission reads it.
func (p Permission) String() string {
	text := p.Scheme + "://" + p.hostText()
	if p.Ports != nil {
		text += ":" + p.Ports.String()
	}
	return text
}

func (p Permission) hostText() string {
	switch {
	case p.Target:
		return "{target}"
	case p.ConfigField != "":
		return "{config." + p.ConfigField + "}"
	case p.Below != "":
		return "*." + p.Below
	case p.Network.IsValid() && p.Network.Addr().Is6():
		return "[" + p.Network.String() + "]"
	case p.Network.IsValid():
		return p.Network.String()
	case p.Host.Addr.Is6():
		return "[" + p.Host.Addr.String() + "]"
	}
	return p.Host.String()
}

// Words says what the permission allows, for the person who grants it: "open TCP connections to the monitor's target".
func (p Permission) Words() string {
	s, err := schemeOf(p.Scheme)
	if err != nil {
		return p.String()
	}
	var where string
	switch {
	case p.Target:
		where = "the monitor's target, whatever you enter there"
	case p.ConfigField != "":
		where = "the address that you enter as " + p.ConfigField + " in its configuration"
	case p.Below != "":
		where = "every name below " + p.Below
	case p.Network.IsValid() && p.Network.Bits() == 0:
		where = "every " + family(p.Network.Addr()) + " address"
	case p.Network.IsValid():
		where = "every address in " + p.Network.String()
	default:
		where = p.Host.String()
	}
	text := s.verb + " " + where
	switch {
	case p.Ports != nil:
		text += ", " + p.Ports.words()
	case s.ports && !p.filled():
		text += ", " + onePort(s.port).words()
	}
	if p.private() {
		text += " (in a private network: it stays closed unless you allow private addresses)"
	}
	return text
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// private reports whether the manifest itself names an address that is not public.
func (p Permission) private() bool {
	switch {
	case p.Network.IsValid():
		return p.Network.Bits() >= 7 && notPublic(p.Network.Addr()) != "" && notPublic(lastOf(p.Network)) != ""
	case p.Host.Addr.IsValid():
		return notPublic(p.Host.Addr) != ""
	}
	return p.Host.Name == "localhost" || strings.HasSuffix(p.Host.Name, ".localhost")
}

// ports is the set that counts for a permission without placeholder.
func (p Permission) ports() Ports {
	s, err := schemeOf(p.Scheme)
	switch {
	case err != nil || !s.ports:
		return nil
	case p.Ports != nil:
		return p.Ports
	}
	return onePort(s.port)
}

// Covers reports whether everything that other allows is allowed by p.
func (p Permission) Covers(other Permission) bool {
	if !implies(p.Scheme, other.Scheme) {
		return false
	}
	if p.filled() || other.filled() {
		if p.Target != other.Target || p.ConfigField != other.ConfigField {
			return false
		}
		if p.Ports == nil || other.Ports == nil {
			return p.Ports == nil && other.Ports == nil
		}
		return p.Ports.covers(other.Ports)
	}
	return p.ports().covers(other.ports()) && p.coversHost(other)
}

func (p Permission) coversHost(other Permission) bool {
	switch {
	case other.Network.IsValid():
		return p.Network.IsValid() && p.Network.Bits() <= other.Network.Bits() && p.Network.Contains(other.Network.Addr())
	case other.Below != "":
		return p.Below != "" && (p.Below == other.Below || strings.HasSuffix(other.Below, "."+p.Below))
	}
	return p.holds(other.Host)
}

// holds reports whether a request for host is within a permission without placeholder.
func (p Permission) holds(host Host) bool {
	switch {
	case p.Network.IsValid():
		return host.Addr.IsValid() && p.Network.Contains(host.Addr)
	case p.Below != "":
		return strings.HasSuffix(host.Name, "."+p.Below)
	}
	return p.Host == host
}

// implies reports whether a grant of one scheme is one of another: each of itself, and tls of cert, which looks at the same
// handshake.
func implies(granted, asked string) bool {
	return granted == asked || granted == "tls" && asked == "cert"
}

// ParsePermissions reads the permissions of a manifest. The error joins those of all that cannot be read.
func ParsePermissions(list []sdk.Permission) ([]Permission, error) {
	var (
		permissions []Permission
		faults      []error
	)
	for _, entry := range list {
		p, err := ParsePermission(entry.Allow)
		if err != nil {
			faults = append(faults, fmt.Errorf("permission %s: %w", quote(entry.Allow), err))
			continue
		}
		permissions = append(permissions, p)
	}
	return permissions, errors.Join(faults...)
}
