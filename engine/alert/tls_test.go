package alert

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// TestTLSWords holds what is said of a certificate. What a real handshake fails with is in TestConnections and TestTLS.
func TestTLSWords(t *testing.T) {
	t.Parallel()
	named := &x509.Certificate{
		Subject: pkix.Name{CommonName: "hooks.example.com"}, Issuer: pkix.Name{CommonName: "Odd CA"},
		DNSNames: []string{"hooks.example.com"}, NotBefore: base.Add(-time.Hour), NotAfter: base.Add(-26 * time.Hour),
	}
	own := &x509.Certificate{Subject: pkix.Name{CommonName: "me"}, Issuer: pkix.Name{CommonName: "me"}}
	bare := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}
	future := &x509.Certificate{NotBefore: base.Add(time.Hour)}
	verify := func(leaf *x509.Certificate, err error) error {
		return fmt.Errorf("post: %w", &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{leaf}, Err: err})
	}
	for want, err := range map[string]error{
		"certificate expired 1 d 2 h ago (CN=hooks.example.com)":                                 verify(named, x509.CertificateInvalidError{Cert: named, Reason: x509.Expired}),
		"certificate is not valid before 2026-01-02 04:04:05 UTC (no name)":                      verify(future, x509.CertificateInvalidError{Cert: future, Reason: x509.Expired}),
		"certificate is for hooks.example.com, not for other.example.com":                        verify(named, x509.HostnameError{Certificate: named, Host: "other.example.com"}),
		"certificate is self-signed (CN=me)":                                                     verify(own, x509.UnknownAuthorityError{Cert: own}),
		"certificate is signed by an unknown authority (CN=hooks.example.com, issuer CN=Odd CA)": verify(named, x509.UnknownAuthorityError{Cert: named}),
		"certificate is not accepted (10.0.0.1): odd":                                            verify(bare, errors.New("x509: odd")),
		"certificate is not accepted: odd":                                                       &tls.CertificateVerificationError{Err: errors.New("x509: odd")},
		"the receiver does not speak TLS here":                                                   tls.RecordHeaderError{Msg: "odd"},
		"TLS handshake failed: handshake failure":                                                &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")},
		"": errors.New("something else"),
	} {
		if got := tlsText(err, base); got != want {
			t.Errorf("%v is worded %q, want %q", err, got, want)
		}
	}
}
