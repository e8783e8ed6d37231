package reach

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Ports is a set of ports as sorted ranges that do not touch. Nil is no port.
type Ports []PortRange

// PortRange is the ports from Low to High, both included; Low is at least 1.
type PortRange struct{ Low, High uint16 }

func allPorts() Ports           { return Ports{{1, 65535}} }
func onePort(port uint16) Ports { return Ports{{port, port}} }

// maxRanges bounds the parts of one list of ports.
const maxRanges = 32

// ParsePorts reads "443", "80,443", "1-1024", mixtures of these, or "*" for every port.
func ParsePorts(text string) (Ports, error) {
	if text == "*" {
		return allPorts(), nil
	}
	parts := strings.Split(text, ",")
	if len(parts) > maxRanges {
		return nil, fmt.Errorf("ports %s are more than %d parts", quote(text), maxRanges)
	}
	var ports Ports
	for _, part := range parts {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err := parsePort(first)
		if err != nil {
			return nil, err
		}
		high, err := parsePort(last)
		if err != nil {
			return nil, err
		}
		if low > high {
			return nil, fmt.Errorf("ports %s: the first must not be above the last", quote(part))
		}
		ports = append(ports, PortRange{low, high})
	}
	slices.SortFunc(ports, func(a, b PortRange) int { return int(a.Low) - int(b.Low) })
	merged := ports[:1]
	for _, p := range ports[1:] {
		if end := &merged[len(merged)-1]; int(p.Low) <= int(end.High)+1 {
			end.High = max(end.High, p.High)
		} else {
			merged = append(merged, p)
		}
	}
	return merged, nil
}

func parsePort(text string) (uint16, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strings.Trim(text, "0123456789") != "" {
		if text == "" {
			return 0, errors.New("the port is missing")
		}
		return 0, fmt.Errorf("%s is no port from 1 to 65535", quote(text))
	}
	return uint16(port), nil
}

// Contains reports whether port is in the set.
func (p Ports) Contains(port uint16) bool {
	return slices.ContainsFunc(p, func(r PortRange) bool { return port >= r.Low && port <= r.High })
}

// covers reports whether every port of other is in p.
func (p Ports) covers(other Ports) bool {
	for _, o := range other {
		if !slices.ContainsFunc(p, func(r PortRange) bool { return o.Low >= r.Low && o.High <= r.High }) {
			return false
		}
	}
	return true
}

func (p Ports) all() bool { return len(p) == 1 && p[0] == PortRange{1, 65535} }

// String returns what ParsePorts reads as p.
func (p Ports) String() string {
	if p.all() {
		return "*"
	}
	parts := make([]string, len(p))
	for i, r := range p {
		parts[i] = r.text("-")
	}
	return strings.Join(parts, ",")
}

func (r PortRange) text(to string) string {
	low := strconv.Itoa(int(r.Low))
	if r.Low == r.High {
		return low
	}
	return low + to + strconv.Itoa(int(r.High))
}

// words says the ports in a sentence: "on port 443", "on ports 80, 443 and 8000 to 8080", "on every port".
func (p Ports) words() string {
	if p.all() {
		return "on every port"
	}
	parts := make([]string, len(p))
	for i, r := range p {
		parts[i] = r.text(" to ")
	}
	if len(p) == 1 && p[0].Low == p[0].High {
		return "on port " + parts[0]
	}
	last := len(parts) - 1
	text := parts[last]
	if last > 0 {
		text = strings.Join(parts[:last], ", ") + " and " + text
	}
	return "on ports " + text
}
