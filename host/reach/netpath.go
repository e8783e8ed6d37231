package reach

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrPath is wrapped by every error of ParsePath: the guest made a path that is none (EINVAL).
var ErrPath = errors.New("no path below /net")

// Open is what a plugin asks for by opening a path below /net.
type Open struct {
	Op       string   // tcp, tls, udp, http, dns, icmp, cert or error
	Needs    []Access // each must be granted; none for http, whose requests are asked for one by one, and for error
	Type     string   // of a DNS question, in upper case
	Stream   int      // the id of the open stream that tls takes over, or that this one gets; 0: none
	TakeOver bool     // tls over the stream of that id, which was granted when it was opened
	Name     string   // servername, empty: the host
	Insecure bool     // any certificate will do
	ALPN     []string // protocols to offer
	Server   string   // DNS server to ask, HOST:PORT; empty: the system's
}

// Bounds of a path.
const (
	maxPath   = 1024 // bytes
	maxStream = 1 << 20
)

// ParsePath reads a path relative to /net: tcp/HOST:PORT?id=1, dns/MX/NAME and so on. HOST, NAME and the values of options
// are percent-encoded except for letters, digits and .-_~:[], as the contract says.
func ParsePath(path string) (Open, error) {
	o, err := parsePath(path)
	if err != nil {
		return Open{}, fmt.Errorf("%w: %s: %w", ErrPath, quote(path), err)
	}
	return o, nil
}

func parsePath(path string) (Open, error) {
	if len(path) > maxPath {
		return Open{}, fmt.Errorf("is longer than %d bytes", maxPath)
	}
	path, query, hasQuery := strings.Cut(path, "?")
	op, rest, _ := strings.Cut(path, "/")
	o := Open{Op: op}
	var err error
	switch op {
	case "http", "error":
		if path != op || hasQuery {
			err = errors.New("nothing follows it")
		}
		return o, err
	case "tcp", "udp", "icmp", "cert":
		err = o.need(op, rest)
	case "tls":
		if stream, ok := strings.CutPrefix(rest, "@"); ok {
			o.TakeOver = true
			o.Stream, err = streamID(stream)
		} else {
			err = o.need(op, rest)
		}
	case "dns":
		kind, name, _ := strings.Cut(rest, "/")
		if kind == "" || len(kind) > 16 || strings.Trim(strings.ToUpper(kind), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			return Open{}, fmt.Errorf("%s is no type of DNS record", quote(kind))
		}
		o.Type = strings.ToUpper(kind)
		err = o.need(op, name)
	default:
		err = errors.New("it begins with none of tcp, tls, udp, http, dns, icmp, cert, error")
	}
	if err == nil && hasQuery {
		err = o.options(query)
	}
	return o, err
}

// need adds what has to be granted. The address is one part of the path: a slash in it is encoded.
func (o *Open) need(scheme, encoded string) error {
	address, err := decode(encoded)
	if err != nil {
		return err
	}
	access, err := ParseAccess(scheme, address)
	if err != nil {
		return err
	}
	o.Needs = append(o.Needs, access)
	return nil
}

func streamID(text string) (int, error) {
	id, err := strconv.Atoi(text)
	if err != nil || id < 1 || id > maxStream || strconv.Itoa(id) != text {
		return 0, fmt.Errorf("%s is no stream's id from 1 to %d", quote(text), maxStream)
	}
	return id, nil
}

// known lists the options of an operation.
func known(op string) []string {
	switch op {
	case "tcp":
		return []string{"id"}
	case "tls":
		return []string{"servername", "insecure", "alpn"}
	case "dns":
		return []string{"server"}
	}
	return nil
}

func (o *Open) options(query string) error {
	seen := map[string]bool{}
	for option := range strings.SplitSeq(query, "&") {
		name, encoded, _ := strings.Cut(option, "=")
		if !slices.Contains(known(o.Op), name) {
			return fmt.Errorf("%s has no option %s", o.Op, quote(name))
		}
		if seen[name] {
			return fmt.Errorf("option %s is repeated", name)
		}
		seen[name] = true
		if name == "alpn" { // http/1.1 may be written as it is: behind the question mark nothing cleans the slash away
			encoded = strings.ReplaceAll(encoded, "/", "%2F")
		}
		value, err := decode(encoded)
		if err == nil && value == "" {
			err = errors.New("it has no value")
		}
		if err == nil {
			err = o.option(name, value)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	}
	return nil
}

func (o *Open) option(name, value string) error {
	var err error
	switch name {
	case "id":
		o.Stream, err = streamID(value)
	case "insecure":
		if o.Insecure = value == "1"; !o.Insecure && value != "0" {
			err = errors.New("must be 0 or 1")
		}
	case "alpn":
		o.ALPN = strings.Split(value, ",")
		if slices.ContainsFunc(o.ALPN, func(p string) bool { return p == "" || len(p) > 255 }) {
			err = errors.New("has an empty or an overlong protocol")
		}
	case "servername":
		var host Host
		if host, err = ParseHost(value); err == nil {
			o.Name = host.String()
		}
	case "server":
		var access Access
		// A question to a server of the plugin's choice is a datagram to it, and is granted as one.
		if access, err = ParseAccess("udp", value); err == nil {
			o.Needs = append(o.Needs, access)
			o.Server = value
		}
	}
	return err
}

// decode resolves percent-encoding, and refuses what should have been encoded.
func decode(text string) (string, error) {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_~:[],"
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case strings.IndexByte(plain, c) >= 0:
			out = append(out, c)
		case c == '%' && i+2 < len(text):
			b, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("%s is not percent-encoded", quote(text))
			}
			out = append(out, byte(b))
			i += 2
		default:
			return "", fmt.Errorf("%s is not percent-encoded", quote(text))
		}
	}
	return string(out), nil
}
