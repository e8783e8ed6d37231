package check

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// endpoint is a host and a port, parsed once.
type endpoint struct {
	host string     // name in ASCII, or literal address; without brackets
	addr netip.Addr // valid when host is a literal address: then no resolver is asked
	port uint16
}

// String returns host:port, with brackets around an IPv6 address.
func (p endpoint) String() string { return net.JoinHostPort(p.host, strconv.Itoa(int(p.port))) }

// checkText refuses what no target can be: too long, not UTF-8, control characters or spaces.
func checkText(target string) error {
	switch {
	case target == "":
		return errors.New("must not be empty")
	case !utf8.ValidString(target):
		return errors.New("must be valid UTF-8")
	case utf8.RuneCountInString(target) > monitor.MaxTarget:
		return fmt.Errorf("must be at most %d characters long", monitor.MaxTarget)
	case strings.ContainsFunc(target, unicode.IsControl):
		return errors.New("must not contain control characters")
	case strings.ContainsFunc(target, unicode.IsSpace):
		return errors.New("must not contain spaces")
	}
	return nil
}

// shownTarget is the value that a fault quotes: nothing when a password may be in it.
func shownTarget(target string) any {
	if strings.Contains(target, "@") {
		return nil
	}
	return sdk.CleanText(target, 100)
}

// parseHost reads a name or a literal address, without brackets. Names are turned into ASCII (RFC 5891).
func parseHost(text string) (host string, addr netip.Addr, err error) {
	if text == "" {
		return "", addr, errors.New("has no host")
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.String(), addr, nil
	}
	if strings.Contains(text, ":") {
		return "", addr, errors.New("has a host that is neither a name nor an address; an IPv6 address with a port needs brackets")
	}
	name := text
	if !isASCII(name) {
		if name, err = idna.Lookup.ToASCII(text); err != nil {
			return "", addr, errors.New("has a host whose name is not valid in DNS")
		}
	}
	if err := checkName(strings.TrimSuffix(name, ".")); err != nil {
		return "", addr, err
	}
	return strings.ToLower(name), addr, nil
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// checkName accepts what can be asked of DNS: up to 253 characters in labels of letters, digits, hyphens and underscores.
func checkName(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("has a host name that is empty or longer than 253 characters")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("has a host name with a part that is empty or longer than 63 characters")
		}
		for i := range len(label) {
			if c := label[i]; !isDigit(c) && c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return fmt.Errorf("has a host name with the character %q", c)
			}
		}
	}
	return nil
}

func parsePort(text string) (uint16, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || text[0] == '+' {
		return 0, errors.New("has a port that is not between 1 and 65535")
	}
	return uint16(port), nil
}

// parseEndpoint reads HOST:PORT. The port may be missing when defaultPort is not 0.
func parseEndpoint(target string, defaultPort uint16) (endpoint, error) {
	if err := checkText(target); err != nil {
		return endpoint{}, err
	}
	if strings.Contains(target, "://") {
		return endpoint{}, errors.New("must be HOST:PORT, not a URL")
	}
	if strings.Contains(target, "@") {
		return endpoint{}, errors.New("must be HOST:PORT, without a user")
	}
	p := endpoint{port: defaultPort}
	host, portText, err := net.SplitHostPort(target)
	switch {
	case err == nil:
		if p.port, err = parsePort(portText); err != nil {
			return endpoint{}, err
		}
	case defaultPort != 0:
		host = strings.TrimSuffix(strings.TrimPrefix(target, "["), "]")
	default:
		return endpoint{}, errors.New("must be HOST:PORT, such as example.org:443 or [2001:db8::1]:443")
	}
	if p.host, p.addr, err = parseHost(host); err != nil {
		return endpoint{}, err
	}
	return p, nil
}

// parseURL reads an absolute http or https URL.
func parseURL(target string) (*url.URL, endpoint, error) {
	var p endpoint
	if err := checkText(target); err != nil {
		return nil, p, err
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, p, errors.New("must be a URL such as https://example.org/health")
	}
	switch {
	case u.User != nil:
		return nil, p, errors.New("must not contain a user or password; use config.basic")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, p, errors.New("must begin with http:// or https://")
	case u.Opaque != "" || u.Host == "":
		return nil, p, errors.New("has no host")
	case u.Fragment != "" || strings.Contains(target, "#"):
		return nil, p, errors.New("must not contain a fragment (#…); it is never sent to a server")
	}
	p.port = defaultPort(u.Scheme)
	if port := u.Port(); port != "" {
		if p.port, err = parsePort(port); err != nil {
			return nil, p, err
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return nil, p, errors.New("has a colon without a port")
	}
	if p.host, p.addr, err = parseHost(u.Hostname()); err != nil {
		return nil, p, err
	}
	return u, p, nil
}

func defaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

// family is the setting that the kinds which connect have in common.
type family struct {
	IPFamily string `json:"ip_family" doc:"Which addresses of the host are used: any, ipv4 or ipv6." enum:"any,ipv4,ipv6"`
}

// network returns the network to dial for the family: tcp, tcp4 or tcp6 for the protocol tcp.
func (f family) network(protocol string) string {
	switch f.IPFamily {
	case "ipv4":
		return protocol + "4"
	case "ipv6":
		return protocol + "6"
	}
	return protocol
}

// fits refuses a literal address of the wrong family.
func (f family) fits(addr netip.Addr, faults *monitor.Faults) {
	if addr.IsValid() && (f.IPFamily == "ipv4" && !addr.Unmap().Is4() || f.IPFamily == "ipv6" && addr.Unmap().Is4()) {
		faults.Add("ip_family", f.IPFamily, "does not fit the target's address")
	}
}
