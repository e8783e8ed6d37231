package netfs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"strconv"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
)

// secure says how TLS is spoken.
type secure struct {
	access   reach.Access
	name     string // sent and verified; empty: the host
	insecure bool
	alpn     []string
}

func (s secure) serverName() string {
	switch {
	case s.name != "":
		return s.name
	case s.access.Host.Name != "":
		return s.access.Host.Name
	}
	return s.access.Host.Addr.WithZone("").String()
}

// config never resumes a session: one call must not see what another did.
func (s secure) config() *tls.Config {
	return &tls.Config{
		ServerName: s.serverName(), MinVersion: tls.VersionTLS12, NextProtos: s.alpn, SessionTicketsDisabled: true,
		InsecureSkipVerify: s.insecure,
	}
}

func (f *FS) roots() (*x509.CertPool, error) {
	if f.opts.Roots == nil {
		return nil, nil // no pool is the system's to crypto/tls
	}
	pool, err := f.opts.Roots()
	if err != nil {
		return nil, fault(broker.TLS, "the trusted certificates cannot be read: %s", err)
	}
	return pool, nil
}

// handshake makes a TLS client of a connection, which it closes when it fails.
func (f *FS) handshake(c *conn, s secure) (*tls.Conn, error) {
	config := s.config()
	if !s.insecure {
		pool, err := f.roots()
		if err != nil {
			c.end()
			return nil, err
		}
		config.RootCAs = pool
	}
	client := tls.Client(c, config)
	if err := client.HandshakeContext(f.ctx); err != nil {
		c.end()
		return nil, describe(err, "TLS handshake with "+address(s.access))
	}
	return client, nil
}

// openCert makes a handshake with any certificate and tells what came.
func (f *FS) openCert(o reach.Open, base file) (esys.File, error) {
	access := o.Needs[0]
	c, d, err := f.dial(access)
	if err != nil {
		return nil, err
	}
	defer c.end()
	s := secure{access: access, insecure: true}
	var state tls.ConnectionState
	config := s.config()
	config.VerifyConnection = func(seen tls.ConnectionState) error {
		state = seen
		return nil
	}
	err = tls.Client(c, config).HandshakeContext(f.ctx)
	// A server that wants a certificate of ours ends the handshake, but only after it has shown its own.
	if err != nil && len(state.PeerCertificates) == 0 {
		return nil, describe(err, "TLS handshake with "+address(access))
	}
	report := certJSON{Remote: d.Addr.String(), Version: tls.VersionName(state.Version), Chain: []certificateJSON{}}
	for _, cert := range state.PeerCertificates {
		report.Chain = append(report.Chain, describeCertificate(cert))
	}
	pool, err := f.roots()
	if err == nil {
		err = verify(state.PeerCertificates, s.serverName(), pool)
	}
	report.Verified = err == nil
	if err != nil {
		report.Reason = describe(err, "").Message
	}
	return f.openDocument(base, report)
}

// verify does what crypto/tls does unless it is told not to.
func verify(chain []*x509.Certificate, name string, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return fault(broker.TLS, "no certificate was presented")
	}
	opts := x509.VerifyOptions{Roots: roots, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

func describeCertificate(cert *x509.Certificate) certificateJSON {
	sum := sha256.Sum256(cert.Raw)
	c := certificateJSON{
		Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Serial: cert.SerialNumber.Text(16),
		DNSNames: cert.DNSNames, IPAddresses: []string{}, NotBefore: stamp(cert.NotBefore), NotAfter: stamp(cert.NotAfter),
		SHA256: hex.EncodeToString(sum[:]), Signature: cert.SignatureAlgorithm.String(), Key: keyName(cert), CA: cert.IsCA,
	}
	if c.DNSNames == nil {
		c.DNSNames = []string{}
	}
	for _, ip := range cert.IPAddresses {
		c.IPAddresses = append(c.IPAddresses, ip.String())
	}
	return c
}

func keyName(cert *x509.Certificate) string {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return "RSA " + strconv.Itoa(key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return cert.PublicKeyAlgorithm.String()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// describeTLS tells how an HTTP answer came.
func describeTLS(state tls.ConnectionState) *tlsJSON {
	t := &tlsJSON{
		Version: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite),
		ServerName: state.ServerName, ALPN: state.NegotiatedProtocol,
	}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		t.Subject, t.Issuer = leaf.Subject.String(), leaf.Issuer.String()
		t.NotBefore, t.NotAfter = stamp(leaf.NotBefore), stamp(leaf.NotAfter)
	}
	return t
}
