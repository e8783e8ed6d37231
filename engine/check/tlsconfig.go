package check

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// tlsOptions are the settings that the kinds which speak TLS have in common.
type tlsOptions struct {
	ServerName         string `json:"server_name,omitempty" doc:"Name sent to the server (SNI) and looked for in its certificate. Empty: the target's host." example:"www.example.org" maxlen:"253"`
	CA                 string `json:"ca,omitempty" doc:"Certificates in PEM that are trusted instead of the system's." text:"lines" maxlen:"500000"`
	ClientCert         string `json:"client_cert,omitempty" doc:"Client certificate in PEM, with its chain. Needs client_key." text:"lines" maxlen:"100000"`
	ClientKey          string `json:"client_key,omitempty" doc:"Private key of the client certificate, in PEM." text:"lines" maxlen:"100000" secret:"true"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify" doc:"Accept any certificate. Its expiry is still observed."`
	MinVersion         string `json:"min_tls_version" doc:"Lowest version of TLS that is accepted." enum:"1.0,1.1,1.2,1.3"`
}

func defaultTLS() tlsOptions { return tlsOptions{MinVersion: "1.2"} }

// tlsSettings is a parsed tlsOptions. It never changes and is shared by all checkers with equal options.
type tlsSettings struct{ config *tls.Config }

// settings parses the options, or finds the settings of another monitor with the same ones. It returns nil when there are
// faults.
func (o tlsOptions) settings(e *env, protocols []string, faults *monitor.Faults) *tlsSettings {
	text, err := json.Marshal(struct {
		O tlsOptions
		P []string
	}{o, protocols})
	if err != nil {
		faults.Add("", nil, "cannot be read: %v", err)
		return nil
	}
	var found monitor.Faults
	settings, err := e.tls.get(sha256.Sum256(text), func() (*tlsSettings, error) {
		config := o.parse(&found)
		config.NextProtos = protocols
		return &tlsSettings{config: config}, found.Err()
	})
	if err != nil {
		*faults = append(*faults, found...)
		return nil
	}
	return settings
}

func (o tlsOptions) parse(faults *monitor.Faults) *tls.Config {
	config := &tls.Config{
		ServerName: strings.TrimSuffix(o.ServerName, "."), InsecureSkipVerify: o.InsecureSkipVerify, MinVersion: tlsVersion(o.MinVersion),
	}
	if o.ServerName != "" {
		if _, _, err := parseHost(o.ServerName); err != nil {
			faults.Add("server_name", sdk.CleanText(o.ServerName, 100), "%v", err)
		}
	}
	if o.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(o.CA)) {
			faults.Add("ca", nil, "contains no certificate in PEM")
		}
	}
	switch {
	case o.ClientCert == "" && o.ClientKey == "":
	case o.ClientKey == "":
		faults.Add("client_key", nil, "is needed with client_cert")
	case o.ClientCert == "":
		faults.Add("client_cert", nil, "is needed with client_key")
	default:
		pair, err := tls.X509KeyPair([]byte(o.ClientCert), []byte(o.ClientKey))
		if err != nil {
			// The parser's own error can quote a block's type, but never the key.
			faults.Add("client_cert", nil, "does not make a pair with client_key, or one of them is no PEM")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// tlsVersion returns the number of a version; the empty text is 1.2.
func tlsVersion(text string) uint16 {
	for _, v := range [...]struct {
		text   string
		number uint16
	}{{"1.0", tls.VersionTLS10}, {"1.1", tls.VersionTLS11}, {"1.3", tls.VersionTLS13}} {
		if v.text == text {
			return v.number
		}
	}
	return tls.VersionTLS12
}

// expiry returns when the first certificate ends of the chain that was verified, or of those that the server sent. Among
// several chains the one that lasts longest counts, as it does for a client.
func expiry(state *tls.ConnectionState) time.Time {
	var best time.Time
	for _, chain := range state.VerifiedChains {
		if len(chain) > 1 {
			chain = chain[:len(chain)-1] // the root is the client's own
		}
		if end := earliest(chain); end.After(best) {
			best = end
		}
	}
	if best.IsZero() && len(state.PeerCertificates) > 0 {
		best = state.PeerCertificates[0].NotAfter
	}
	return best
}

func earliest(chain []*x509.Certificate) time.Time {
	var first time.Time
	for _, cert := range chain {
		if first.IsZero() || cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	return first
}

// saw records the certificate of a connection in the result.
func (s *seen) saw(state *tls.ConnectionState) {
	if len(state.PeerCertificates) == 0 {
		return
	}
	s.cert = state.PeerCertificates[0]
	s.ExpiresAt = expiry(state)
}
