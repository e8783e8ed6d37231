package reach

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"

	"github.com/tocsinhq/tocsin/sdk"
)

// Host is a name or an address in the one form that everything else compares: a name is lower-case ASCII without the dot at
// its end, international ones as A-labels; an IPv4 address written as IPv6 (::ffff:10.0.0.1) is the IPv4 address.
type Host struct {
	Name string     // empty for an address
	Addr netip.Addr // not valid for a name; may have a zone
}

// String returns the name or the address, without brackets.
func (h Host) String() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Addr.String()
}

// ParseHost reads a name or an address, IPv6 without brackets. Anything that a resolver might take for an address although
// it is not written as one (2130706433, 0x7f.1, 0177.0.0.1) is refused, and so is everything that is no host name.
func ParseHost(text string) (Host, error) {
	if strings.Contains(text, "@") {
		return Host{}, errors.New("a user name before @ is not allowed")
	}
	plain := strings.TrimSuffix(text, ".")
	if addr, err := netip.ParseAddr(plain); err == nil {
		return Host{Addr: addr.Unmap()}, nil
	}
	if !isASCII(plain) {
		ascii, err := toASCII(plain)
		if err != nil {
			return Host{}, fmt.Errorf("host %s is no international domain name", quote(text))
		}
		plain = strings.TrimSuffix(ascii, ".")
	}
	name := strings.ToLower(plain)
	if name == "" {
		return Host{}, errors.New("the host is missing")
	}
	if len(name) > 253 {
		return Host{}, fmt.Errorf("host %s is longer than 253 bytes", quote(text))
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, nameBytes) != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return Host{}, fmt.Errorf("%s is no host name", quote(text))
		}
	}
	if last := labels[len(labels)-1]; numeric(last) {
		return Host{}, fmt.Errorf("%s is no address in its usual form, such as 192.0.2.1", quote(text))
	}
	return Host{Name: name}, nil
}

// nameBytes are what a label may hold; the underscore is for _dmarc and its like.
const nameBytes = "abcdefghijklmnopqrstuvwxyz0123456789-_"

// numeric reports whether a name that ends in the label would be read as an IPv4 address by one resolver or another
// (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func numeric(label string) bool {
	if strings.Trim(label, "0123456789") == "" {
		return true
	}
	digits, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(digits, "0123456789abcdef") == ""
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// toASCII maps a name as browsers look it up (UTS #46, not transitional) and turns a panic of the tables into an error.
func toASCII(name string) (ascii string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("map %s: %v", quote(name), p)
		}
	}()
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false), idna.BidiRule())
	return profile.ToASCII(name)
}

// quote shows somebody else's text in an error.
func quote(text string) string { return `"` + sdk.CleanText(text, 100) + `"` }
