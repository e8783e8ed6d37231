package sdk

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"
)

// HTTPRequest is one request of a sandboxed plugin over HTTP. Its JSON is what is written to /net/http.
type HTTPRequest struct {
	Method   string // empty: GET
	URL      string
	Headers  map[string][]string
	Body     []byte
	Follow   int  // redirects to follow, at most 20; 0: a redirect is the answer
	Insecure bool // any certificate will do
}

type httpRequestJSON struct {
	Method     string              `json:"method,omitempty"`
	URL        string              `json:"url"`
	Headers    map[string][]string `json:"headers,omitempty"`
	Body       string              `json:"body,omitempty"`
	BodyBase64 string              `json:"body_base64,omitempty"`
	Follow     int                 `json:"follow,omitempty"`
	Insecure   bool                `json:"insecure,omitempty"`
}

// MarshalJSON writes the request as the runner reads it: a body that is no valid UTF-8 as base64.
func (r HTTPRequest) MarshalJSON() ([]byte, error) {
	wire := httpRequestJSON{Method: r.Method, URL: r.URL, Headers: r.Headers, Follow: r.Follow, Insecure: r.Insecure}
	if utf8.Valid(r.Body) {
		wire.Body = string(r.Body)
	} else {
		wire.BodyBase64 = base64.StdEncoding.EncodeToString(r.Body)
	}
	return json.Marshal(wire)
}

// HTTPResponse is the answer to an HTTPRequest. Its JSON is what is read from /net/http.
type HTTPResponse struct {
	Status    int
	Proto     string              // such as HTTP/1.1
	Headers   map[string][]string // names as Content-Type is written
	Body      []byte              // at most 1 MiB
	Truncated bool                // the body was longer
	Remote    string              // address and port
	Timing    Timing              // of the last request, when redirects were followed
	TLS       *HTTPTLS            // nil without TLS
}

// HTTPTLS describes the connection of an answer over https, and the server's own certificate.
type HTTPTLS struct {
	Version    string    `json:"version"` // such as TLS 1.3
	Cipher     string    `json:"cipher"`
	ServerName string    `json:"server_name"`
	ALPN       string    `json:"alpn,omitempty"`
	Subject    string    `json:"subject"`
	Issuer     string    `json:"issuer"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
}

type httpResponseJSON struct {
	Status     int                 `json:"status"`
	Proto      string              `json:"proto"`
	Headers    map[string][]string `json:"headers"`
	Body       string              `json:"body"`
	BodyBase64 []byte              `json:"body_base64"`
	Truncated  bool                `json:"truncated"`
	Remote     string              `json:"remote"`
	Timing     struct {
		DNS       int64 `json:"dns"`
		Connect   int64 `json:"connect"`
		TLS       int64 `json:"tls"`
		FirstByte int64 `json:"first_byte"`
		Total     int64 `json:"total"`
	} `json:"timing_us"`
	TLS *HTTPTLS `json:"tls"`
}

// UnmarshalJSON reads the response as the runner writes it.
func (r *HTTPResponse) UnmarshalJSON(data []byte) error {
	var wire httpResponseJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	t := wire.Timing
	*r = HTTPResponse{
		Status: wire.Status, Proto: wire.Proto, Headers: wire.Headers, Body: wire.BodyBase64, Truncated: wire.Truncated,
		Remote: wire.Remote, TLS: wire.TLS,
		Timing: Timing{
			DNS: microseconds(t.DNS), Connect: microseconds(t.Connect), TLS: microseconds(t.TLS),
			FirstByte: microseconds(t.FirstByte), Total: microseconds(t.Total),
		},
	}
	if r.Body == nil {
		r.Body = []byte(wire.Body)
	}
	return nil
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// Header returns the first value of a header, whatever the case of its name; empty when there is none.
func (r HTTPResponse) Header(name string) string {
	for have, values := range r.Headers {
		if len(values) > 0 && strings.EqualFold(have, name) {
			return values[0]
		}
	}
	return ""
}

// DNSAnswer is what a DNS server answered.
type DNSAnswer struct {
	RCode   string      `json:"rcode"` // NOERROR, NXDOMAIN …
	Answers []DNSRecord `json:"answers"`
}

// DNSRecord is one record of an answer.
type DNSRecord struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`  // seconds
	Data string `json:"data"` // as in a zone file
}

// Echo is the reply to an ICMP echo request.
type Echo struct {
	RTT  time.Duration
	TTL  int // 0: not known
	Addr string
}

// UnmarshalJSON reads the reply as the runner writes it.
func (e *Echo) UnmarshalJSON(data []byte) error {
	var wire struct {
		RTT  int64  `json:"rtt_us"`
		TTL  int    `json:"ttl"`
		Addr string `json:"addr"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	*e = Echo{RTT: microseconds(wire.RTT), TTL: wire.TTL, Addr: wire.Addr}
	return nil
}

// Presented is the chain of certificates that a server presented.
type Presented struct {
	Verified bool          `json:"verified"`
	Reason   string        `json:"reason"` // why it is not verified
	Remote   string        `json:"remote"` // address and port
	Version  string        `json:"version"`
	Chain    []Certificate `json:"chain"` // the server's own first
}

// Certificate is one certificate of a chain.
type Certificate struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Serial      string    `json:"serial"` // hexadecimal
	DNSNames    []string  `json:"dns_names"`
	IPAddresses []string  `json:"ip_addresses"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	SHA256      string    `json:"sha256"` // of the whole certificate, hexadecimal
	Signature   string    `json:"signature"`
	Key         string    `json:"key"`
	CA          bool      `json:"ca"`
}

// NetKind is why something on the network failed, in one word.
type NetKind string

// The kinds of failure.
const (
	NetDenied  NetKind = "denied"  // not granted, or an address that is not allowed
	NetRefused NetKind = "refused" // the other side refused the connection
	NetTimeout NetKind = "timeout"
	NetDNS     NetKind = "dns" // the name has no address, or the resolver failed
	NetTLS     NetKind = "tls"
	NetClosed  NetKind = "closed"  // the other side closed or reset the connection
	NetInvalid NetKind = "invalid" // the plugin asked for nonsense
	NetBusy    NetKind = "busy"    // too much is open or under way
	NetFailed  NetKind = "failed"  // anything else
)

// NetError is why an operation on the network failed: what /net/error says.
type NetError struct {
	Op      string  `json:"op"`   // open, read, write or fetch
	Path    string  `json:"path"` // with /net
	Kind    NetKind `json:"kind"`
	Message string  `json:"message"`
}

// Error returns the message.
func (e *NetError) Error() string { return e.Message }

// Is makes a denied operation fs.ErrPermission to errors.Is.
func (e *NetError) Is(target error) bool { return target == fs.ErrPermission && e.Kind == NetDenied }

// Timeout reports whether the time of the call was over, as the method of net.Error does.
func (e *NetError) Timeout() bool { return e.Kind == NetTimeout }
