package netfs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a request.
const (
	maxHeaders   = 100
	maxHeaderSum = 64 << 10 // bytes of all names and values
	maxFollow    = 20
	follow       = 10 // what true means
)

// request is what a guest wants, and after a redirect what is left of it.
type request struct {
	method   string
	url      *url.URL
	access   reach.Access
	host     string // Host header that the guest chose; empty: the URL's
	header   http.Header
	body     []byte // nil: none
	follow   int    // redirects
	insecure bool
}

// parseRequest reads a request. Errors begin with the field that is at fault and quote no value: it may be a secret.
func parseRequest(data []byte) (*request, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return nil, invalid("the request must be one JSON object: %s", jsonFault(err))
	}
	r := &request{method: http.MethodGet, header: http.Header{}}
	maps.DeleteFunc(fields, func(_ string, raw json.RawMessage) bool { return string(raw) == "null" })
	for _, name := range slices.Sorted(maps.Keys(fields)) { // sorted: of several faults always the same one is told
		if err := r.field(name, fields[name]); err != nil {
			return nil, invalid("%s: %s", sdk.CleanText(name, 40), err)
		}
	}
	switch {
	case r.url == nil:
		return nil, invalid("url: is missing")
	case fields["body"] != nil && fields["body_base64"] != nil:
		return nil, invalid("body_base64: cannot be given together with body")
	}
	return r, nil
}

func jsonFault(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return syntax.Error()
	}
	return "it is something else"
}

func (r *request) field(name string, raw json.RawMessage) (err error) {
	switch name {
	case "method":
		var method string
		if method, err = text(raw); err == nil && method != "" {
			r.method, err = parseMethod(method)
		}
	case "url":
		var target string
		if target, err = text(raw); err == nil {
			err = r.aim(target)
		}
	case "headers":
		err = r.headers(raw)
	case "body":
		var body string
		body, err = text(raw)
		r.body = []byte(body)
	case "body_base64":
		var body string
		if body, err = text(raw); err == nil {
			if r.body, err = base64.StdEncoding.DecodeString(body); err != nil {
				err = errors.New("is no base64")
			}
		}
	case "follow":
		r.follow, err = parseFollow(raw)
	case "insecure":
		if json.Unmarshal(raw, &r.insecure) != nil {
			err = errors.New("must be true or false")
		}
	default:
		err = errors.New("is no field of a request, which has method, url, headers, body, body_base64, follow, insecure")
	}
	return err
}

func text(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return "", errors.New("must be a string")
	}
	return text, nil
}

func parseMethod(method string) (string, error) {
	method = strings.ToUpper(method)
	switch {
	case len(method) > 32 || !isToken(method):
		return "", errors.New("is no method, such as GET or POST")
	case method == http.MethodConnect:
		return "", errors.New("CONNECT is not a request for a document; open /net/tcp for a tunnel")
	}
	return method, nil
}

func parseFollow(raw json.RawMessage) (int, error) {
	var yes bool
	if json.Unmarshal(raw, &yes) == nil {
		if yes {
			return follow, nil
		}
		return 0, nil
	}
	var n float64
	if json.Unmarshal(raw, &n) != nil || n < 0 || n > maxFollow || n != math.Trunc(n) {
		return 0, fmt.Errorf("must be true, false or a number of redirects up to %d", maxFollow)
	}
	return int(n), nil
}

// aim points the request at a URL.
func (r *request) aim(target string) error {
	access, err := reach.ParseURL(target)
	if err != nil {
		return err
	}
	u, err := url.Parse(target)
	if err != nil {
		return errors.New("cannot be read")
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = escape(u.RawQuery)
	u.Host = authority(access)
	r.url, r.access = u, access
	return nil
}

// authority is what stands in the Host header.
func authority(a reach.Access) string {
	host := a.Host.Name
	if host == "" {
		host = a.Host.Addr.WithZone("").String()
	}
	switch {
	case a.Scheme == "http" && a.Port != 80, a.Scheme == "https" && a.Port != 443:
		return net.JoinHostPort(host, strconv.Itoa(int(a.Port)))
	case a.Host.Addr.Is6():
		return "[" + host + "]"
	}
	return host
}

// escape encodes what net/url leaves in a query although a request's first line cannot have it.
func escape(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (r *request) headers(raw json.RawMessage) error {
	var headers map[string]json.RawMessage
	if json.Unmarshal(raw, &headers) != nil {
		return errors.New("must be an object of strings or lists of strings")
	}
	if len(headers) > maxHeaders {
		return fmt.Errorf("are more than %d", maxHeaders)
	}
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		values, err := headerValues(headers[name])
		if err == nil {
			err = r.addHeader(name, values)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", sdk.CleanText(name, 60), err)
		}
		for _, value := range values {
			sum += len(name) + len(value)
		}
	}
	if sum > maxHeaderSum {
		return fmt.Errorf("are longer than %d bytes", maxHeaderSum)
	}
	return nil
}

func headerValues(raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil && raw[0] == '"' {
		return []string{one}, nil
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, errors.New("must be a string or a list of strings")
	}
	return list, nil
}

func (r *request) addHeader(name string, values []string) error {
	if len(name) > 256 || !isToken(name) {
		return errors.New("is not the name of a header")
	}
	for _, value := range values {
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return errors.New("has a control character, which no header can have")
		}
	}
	canonical := http.CanonicalHeaderKey(name)
	switch canonical {
	case "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Te", "Trailer", "Keep-Alive", "Proxy-Connection", "Expect":
		return errors.New("is set for you")
	case "Host":
		if len(values) != 1 || r.host != "" || !isAuthority(values[0]) {
			return errors.New("must be one host, with or without a port")
		}
		r.host = values[0]
		return nil
	}
	if _, repeated := r.header[canonical]; repeated {
		return errors.New("is given twice; give a list of values")
	}
	r.header[canonical] = values
	return nil
}

// isToken reports whether text is a token (RFC 9110 5.6.2), as methods and names of headers are.
func isToken(text string) bool {
	const others = "!#$%&'*+-.^_`|~"
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune(others, c)
	})
}

func isAuthority(text string) bool {
	_, err := reach.ParseURL("http://" + text + "/")
	return err == nil && !strings.ContainsAny(text, "/?#@%\\")
}

// redirect turns the request into the one that an answer asks for (RFC 9110 15.4). What proves who the guest is goes to the
// origin only that it was meant for (https://fetch.spec.whatwg.org/#http-redirect-fetch); so does a host of its choice.
func (r *request) redirect(code int, location string) error {
	from := address(r.access)
	next, err := r.url.Parse(location)
	if err != nil {
		return fault(broker.Failed, "%s redirects to an address that cannot be read", from)
	}
	before := r.access
	if err := r.aim(next.String()); err != nil {
		return fault(broker.Failed, "%s redirects to where this cannot follow: %s", from, err)
	}
	if r.access != before {
		for _, name := range [...]string{"Authorization", "Cookie", "Cookie2", "Proxy-Authorization"} {
			r.header.Del(name)
		}
		r.host = ""
	}
	keeps := code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect
	if !keeps && r.method != http.MethodGet && r.method != http.MethodHead {
		r.method = http.MethodGet
		r.body = nil
		for name := range r.header {
			if strings.HasPrefix(name, "Content-") {
				r.header.Del(name)
			}
		}
	}
	return nil
}

// message writes the request as HTTP/1.1 does (RFC 9112).
func (r *request) message(userAgent string) ([]byte, error) {
	req := &http.Request{
		Method: r.method, URL: r.url, Host: r.url.Host, Header: r.header.Clone(), Close: true,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if r.host != "" {
		req.Host = r.host
	}
	for _, d := range [...]struct{ name, value string }{{"User-Agent", userAgent}, {"Accept", "*/*"}, {"Accept-Encoding", "identity"}} {
		if _, given := req.Header[d.name]; !given {
			req.Header.Set(d.name, d.value)
		}
	}
	if len(r.body) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(r.body)), int64(len(r.body))
	}
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		return nil, invalid("url: the request cannot be written")
	}
	return b.Bytes(), nil
}
