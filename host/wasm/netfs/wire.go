package netfs

// response is what /net/http answers.
type response struct {
	Status     int                 `json:"status"`
	Proto      string              `json:"proto"`   // such as HTTP/1.1
	Headers    map[string][]string `json:"headers"` // names as Content-Type is written
	Body       *string             `json:"body,omitempty"`
	BodyBase64 *string             `json:"body_base64,omitempty"` // in place of Body when that is no text
	Truncated  bool                `json:"truncated"`             // the body was longer
	Remote     string              `json:"remote"`                // address and port
	Timing     timing              `json:"timing_us"`             // of the last hop
	TLS        *tlsJSON            `json:"tls,omitempty"`
}

// timing is in microseconds.
type timing struct {
	DNS       int64 `json:"dns"` // 0 for an address
	Connect   int64 `json:"connect"`
	TLS       int64 `json:"tls"`        // 0 for http
	FirstByte int64 `json:"first_byte"` // from the request's end
	Total     int64 `json:"total"`
}

// tlsJSON describes the connection of an https answer and the server's own certificate.
type tlsJSON struct {
	Version    string `json:"version"` // such as TLS 1.3
	Cipher     string `json:"cipher"`
	ServerName string `json:"server_name"`
	ALPN       string `json:"alpn,omitempty"`
	Subject    string `json:"subject"`
	Issuer     string `json:"issuer"`
	NotBefore  string `json:"not_before"` // RFC 3339
	NotAfter   string `json:"not_after"`
}

// certJSON is what /net/cert answers.
type certJSON struct {
	Verified bool              `json:"verified"`
	Reason   string            `json:"reason,omitempty"` // why it is not
	Remote   string            `json:"remote"`
	Version  string            `json:"version"`
	Chain    []certificateJSON `json:"chain"` // as presented, the server's own first
}

type certificateJSON struct {
	Subject     string   `json:"subject"`
	Issuer      string   `json:"issuer"`
	Serial      string   `json:"serial"` // hexadecimal
	DNSNames    []string `json:"dns_names"`
	IPAddresses []string `json:"ip_addresses"`
	NotBefore   string   `json:"not_before"` // RFC 3339
	NotAfter    string   `json:"not_after"`
	SHA256      string   `json:"sha256"` // of the whole certificate, hexadecimal
	Signature   string   `json:"signature"`
	Key         string   `json:"key"`
	CA          bool     `json:"ca"`
}

// echoJSON is what /net/icmp answers.
type echoJSON struct {
	RTT  int64  `json:"rtt_us"`
	TTL  int    `json:"ttl"` // 0: not known
	Addr string `json:"addr"`
}
