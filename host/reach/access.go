package reach

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Access is one thing that a call of a plugin wants to reach. Every hop of a redirect is one of its own.
type Access struct {
	Scheme string
	Host   Host
	Port   uint16 // 0 for schemes without ports
}

// ParseAccess reads what a plugin asks for: a scheme of permissions and HOST:PORT, or HOST alone for dns and icmp. IPv6 goes
// in brackets where a port follows. For http and https see ParseURL.
func ParseAccess(schemeName, address string) (Access, error) {
	s, err := schemeOf(schemeName)
	if err != nil {
		return Access{}, err
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return Access{}, fmt.Errorf("%s address: %w", s.name, err)
	}
	switch {
	case s.name == "dns" && host.Name == "":
		return Access{}, fmt.Errorf("dns address: %s is no name", host)
	case port != 0 && !s.ports:
		return Access{}, fmt.Errorf("%s address: there is no port in %s", s.name, s.name)
	case port == 0 && s.ports:
		return Access{}, fmt.Errorf("%s address: the port is missing", s.name)
	}
	return Access{Scheme: s.name, Host: host, Port: port}, nil
}

// ParseURL reads the http or https URL of a request. Other schemes and user names are errors, which do not show the path.
func ParseURL(text string) (Access, error) {
	u, err := parseURL(text)
	if err != nil {
		return Access{}, err
	}
	if u.scheme != "http" && u.scheme != "https" {
		return Access{}, fmt.Errorf("URL: scheme %s is neither http nor https", quote(u.scheme))
	}
	s, err := schemeOf(u.scheme)
	if err != nil {
		return Access{}, err
	}
	if u.port == 0 {
		u.port = s.port
	}
	return Access{Scheme: s.name, Host: u.host, Port: u.port}, nil
}

type location struct {
	scheme string
	host   Host
	port   uint16 // 0: none is written
}

// parseURL reads a URL of any scheme. Its errors show no more than the host: a path or a query may hold a secret.
func parseURL(text string) (location, error) {
	u, err := url.Parse(text)
	if err != nil {
		return location{}, errors.New("URL cannot be read")
	}
	if u.User != nil {
		return location{}, errors.New("URL: a user name before @ is not allowed")
	}
	if u.Host == "" {
		return location{}, errors.New("URL: the host is missing")
	}
	host, port, err := splitAddress(u.Host)
	if err != nil {
		return location{}, fmt.Errorf("URL: %w", err)
	}
	return location{strings.ToLower(u.Scheme), host, port}, nil
}

// splitAddress reads HOST, HOST:PORT, [IPV6], [IPV6]:PORT or a bare IPv6 address. The port is 0 when there is none.
func splitAddress(text string) (Host, uint16, error) {
	if strings.Contains(text, "@") {
		return Host{}, 0, errors.New("a user name before @ is not allowed")
	}
	name, portText := text, ""
	switch {
	case strings.HasPrefix(text, "["):
		inside, rest, ok := strings.Cut(text[1:], "]")
		if !ok || rest != "" && rest[0] != ':' || !strings.Contains(inside, ":") {
			return Host{}, 0, fmt.Errorf("%s is no bracketed IPv6 address", quote(text))
		}
		name, portText = inside, rest
	case strings.Count(text, ":") == 1:
		at := strings.IndexByte(text, ':')
		name, portText = text[:at], text[at:]
	}
	host, err := ParseHost(name)
	if err != nil || portText == "" {
		return host, 0, err
	}
	port, err := parsePort(portText[1:])
	if err != nil {
		return Host{}, 0, err
	}
	return host, port, nil
}

// String writes the access as a permission for exactly it would be written.
func (a Access) String() string {
	switch {
	case a.Port != 0:
		return a.Scheme + "://" + net.JoinHostPort(a.Host.String(), strconv.Itoa(int(a.Port)))
	case a.Host.Addr.Is6():
		return a.Scheme + "://[" + a.Host.String() + "]"
	}
	return a.Scheme + "://" + a.Host.String()
}
