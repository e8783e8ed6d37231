package alert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// tlsText says what went wrong with TLS in the words that checks use, "" when it was something else.
func tlsText(err error, now time.Time) string {
	var (
		verification *tls.CertificateVerificationError
		header       tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &verification):
		return certificateText(verification, now)
	case errors.As(err, &header), errors.Is(err, http.ErrSchemeMismatch):
		return "the receiver does not speak TLS here"
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if text, ok := strings.CutPrefix(strings.TrimPrefix(e.Error(), "remote error: "), "tls: "); ok {
			return "TLS handshake failed: " + text
		}
	}
	return ""
}

// certificateText says why a certificate is not accepted.
func certificateText(v *tls.CertificateVerificationError, now time.Time) string {
	cause := strings.TrimPrefix(v.Err.Error(), "x509: ")
	if len(v.UnverifiedCertificates) == 0 {
		return "certificate is not accepted: " + cause
	}
	leaf := v.UnverifiedCertificates[0]
	var (
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(v.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return validityText(invalid.Cert, now)
	case errors.As(v.Err, &host):
		return "certificate is for " + certificateNames(leaf) + ", not for " + host.Host
	case errors.As(v.Err, &unknown) && leaf.Subject.String() == leaf.Issuer.String():
		return "certificate is self-signed (" + subject(leaf) + ")"
	case errors.As(v.Err, &unknown):
		return "certificate is signed by an unknown authority (" + subject(leaf) + ", issuer CN=" + leaf.Issuer.CommonName + ")"
	}
	return "certificate is not accepted (" + subject(leaf) + "): " + cause
}

func validityText(cert *x509.Certificate, now time.Time) string {
	if now.Before(cert.NotBefore) {
		return "certificate is not valid before " + moment(cert.NotBefore) + " (" + subject(cert) + ")"
	}
	return "certificate expired " + words(now.Sub(cert.NotAfter)) + " ago (" + subject(cert) + ")"
}

func subject(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return "CN=" + cert.Subject.CommonName
	}
	return certificateNames(cert)
}

// certificateNames lists what the certificate is for, the first three.
func certificateNames(cert *x509.Certificate) string {
	var names []string
	names = append(names, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	const shown = 3
	switch {
	case len(names) == 0 && cert.Subject.CommonName != "":
		return "CN=" + cert.Subject.CommonName
	case len(names) == 0:
		return "no name"
	case len(names) > shown:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
	}
	return strings.Join(names, ", ")
}
