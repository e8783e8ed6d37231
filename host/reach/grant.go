// Package reach decides what a plugin may reach: the permissions that a manifest asks for, what the operator granted of them,
// the paths below /net, and the verdict on every host and every address. It opens nothing itself.
package reach

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
)

// ErrDenied is wrapped by every refusal of a Grant.
var ErrDenied = errors.New("not granted")

// Grant is what the operator allowed one build of a plugin. The zero value allows nothing.
type Grant struct {
	Digest       string       // of the build that was looked at; see Contents.Digest
	Permissions  []Permission // what it may reach
	AllowPrivate bool         // what the manifest names may be loopback or private
}

// Missing returns the permissions among asked that the grant does not cover.
func (g Grant) Missing(asked []Permission) []Permission {
	var missing []Permission
	for _, a := range asked {
		if !slices.ContainsFunc(g.Permissions, func(p Permission) bool { return p.Covers(a) }) {
			missing = append(missing, a)
		}
	}
	return missing
}

// Call is what fills the placeholders of permissions. Both are as the operator entered them: a default that came from the
// manifest is the author's word and must not be in Config, since what is entered may be a private address.
type Call struct {
	Target string
	Config json.RawMessage
}

// Verdict is the leave to reach one thing. Every address that is dialled for it must pass Check.
type Verdict struct {
	access  Access
	private bool // it may be loopback or private
	policy  netpolicy.Policy
	decided bool // the zero Verdict allows nothing
}

// Decide says whether a call may reach a thing, before anything is resolved. A refusal wraps ErrDenied and names what was
// asked and what was granted.
func (g Grant) Decide(call Call, access Access, policy netpolicy.Policy) (Verdict, error) {
	v := Verdict{access: access, policy: policy, decided: true}
	granted, allowed := make([]string, 0, len(g.Permissions)), false
	for _, p := range g.Permissions {
		text := p.String()
		if !p.filled() {
			if implies(p.Scheme, access.Scheme) && p.holds(access.Host) && p.portFits(access.Port) {
				allowed = true
				v.private = v.private || g.AllowPrivate
			}
			granted = append(granted, text)
			continue
		}
		places, err := p.fill(call)
		if err != nil {
			granted = append(granted, fmt.Sprintf("%s (%v)", text, err))
			continue
		}
		for _, place := range places {
			text += " (" + place.String() + ")"
			if implies(p.Scheme, access.Scheme) && place.host == access.Host && (place.ports == nil || place.ports.Contains(access.Port)) {
				allowed, v.private = true, true
			}
		}
		granted = append(granted, text)
	}
	if !allowed {
		return Verdict{}, refusal(access, granted)
	}
	return v, nil
}

func refusal(access Access, granted []string) error {
	if len(granted) == 0 {
		return fmt.Errorf("%w: %s; the plugin was granted nothing", ErrDenied, access)
	}
	const most = 8
	if more := len(granted) - most; more > 0 {
		granted = append(granted[:most:most], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%w: %s; the plugin was granted %s", ErrDenied, access, strings.Join(granted, ", "))
}

func (p Permission) portFits(port uint16) bool {
	ports := p.ports()
	return ports == nil || ports.Contains(port)
}

// Check says whether an address may be dialled. Call it for the very address that is dialled, in the dialer's control hook:
// only there it is known what a name resolved to.
func (v Verdict) Check(addr netip.Addr) error {
	if !v.decided || !addr.IsValid() {
		return fmt.Errorf("%w: %s: no address was allowed", ErrDenied, v.access)
	}
	if want := v.access.Host.Addr; want.IsValid() && want != addr.Unmap() {
		return fmt.Errorf("%w: %s: %s is another address", ErrDenied, v.access, addr)
	}
	if err := v.policy.Check(addr); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDenied, v.access, err)
	}
	if what := notPublic(addr); what != "" && !v.private {
		return fmt.Errorf("%w: %s: %s is %s, and the manifest names it; grant it with --allow-private", ErrDenied, v.access, addr, what)
	}
	return nil
}

// Usable returns those of the addresses that a name resolved to which may be dialled. When none may, the error is that of the
// first.
func (v Verdict) Usable(addrs []netip.Addr) ([]netip.Addr, error) {
	var (
		usable []netip.Addr
		first  error
	)
	for _, addr := range addrs {
		if err := v.Check(addr); err == nil {
			usable = append(usable, addr)
		} else if first == nil {
			first = err
		}
	}
	if len(usable) > 0 {
		return usable, nil
	}
	if first == nil {
		first = fmt.Errorf("%s: the name has no address", v.access)
	}
	return nil, first
}

// Allowed decides about an access whose host has been resolved to addrs: the addresses that may be dialled, or why not. An
// access to dns needs none.
func (g Grant) Allowed(call Call, access Access, addrs []netip.Addr, policy netpolicy.Policy) ([]netip.Addr, error) {
	v, err := g.Decide(call, access, policy)
	if err != nil || access.Scheme == "dns" {
		return nil, err
	}
	return v.Usable(addrs)
}
