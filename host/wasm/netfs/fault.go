package netfs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/sdk"
)

// maxText bounds a message, in bytes.
const maxText = 400

func invalid(format string, args ...any) *broker.Error { return fault(broker.Invalid, format, args...) }

func fault(kind broker.Kind, format string, args ...any) *broker.Error {
	return &broker.Error{Kind: kind, Message: sdk.CleanText(fmt.Sprintf(format, args...), maxText)}
}

func takenOver() error { return fault(broker.Closed, "tls has taken the stream over") }

func ended() error { return fault(broker.Closed, "the call has ended") }

// describe says in one line what went wrong, and of which kind it is. Where says in doing what, or with whom, for errors that
// do not say so themselves.
func describe(err error, where string) *broker.Error {
	if e, ok := errors.AsType[*broker.Error](err); ok {
		return fault(e.Kind, "%s", e.Message)
	}
	at := ""
	if where != "" {
		at = " (" + where + ")"
	}
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fault(broker.Timeout, "no answer in time%s", at)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault(broker.Refused, "the connection was refused%s", at)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return fault(broker.Closed, "the other side broke the connection off%s", at)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return fault(broker.Closed, "the connection was closed%s", at)
	case errors.Is(err, context.Canceled):
		return fault(broker.Closed, "the call has ended%s", at)
	case errors.Is(err, syscall.EMSGSIZE):
		return fault(broker.Invalid, "the datagram is too long%s", at)
	}
	if text, ok := tlsText(err); ok {
		return fault(broker.TLS, "%s%s", text, at)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil { // what it adds are the two addresses
		err = op.Err
	}
	return fault(broker.Failed, "%s%s", err, at)
}

// tlsText explains what went wrong with TLS.
func tlsText(err error) (string, bool) {
	var (
		verification *tls.CertificateVerificationError
		header       tls.RecordHeaderError
		alert        tls.AlertError
	)
	switch {
	case errors.As(err, &verification):
		return certificateText(verification), true
	case errors.As(err, &header):
		return "it does not speak TLS there", true
	case errors.As(err, &alert):
		return "the handshake was refused: " + strings.TrimPrefix(alert.Error(), "tls: "), true
	}
	text := strings.TrimPrefix(err.Error(), "remote error: ")
	if reason, ok := strings.CutPrefix(text, "tls: "); ok {
		return "TLS failed: " + reason, true
	}
	return "", false
}

// certificateText explains why a certificate is not accepted.
func certificateText(v *tls.CertificateVerificationError) string {
	var (
		leaf    *x509.Certificate
		bad     x509.CertificateInvalidError
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
	)
	if len(v.UnverifiedCertificates) > 0 {
		leaf = v.UnverifiedCertificates[0]
	}
	switch {
	case errors.As(v.Err, &bad) && bad.Reason == x509.Expired && bad.Cert != nil:
		return expiryText(bad.Cert, time.Now())
	case errors.As(v.Err, &host) && host.Certificate != nil:
		return "certificate is for " + certificateNames(host.Certificate) + ", not for " + host.Host
	case errors.As(v.Err, &unknown) && leaf != nil && leaf.Subject.String() == leaf.Issuer.String():
		return "certificate is self-signed (" + subject(leaf) + ")"
	case errors.As(v.Err, &unknown) && leaf != nil:
		return "certificate is signed by an unknown authority (" + subject(leaf) + ", issuer CN=" + leaf.Issuer.CommonName + ")"
	}
	return "certificate is not accepted: " + strings.TrimPrefix(v.Err.Error(), "x509: ")
}

func expiryText(cert *x509.Certificate, now time.Time) string {
	if now.Before(cert.NotBefore) {
		return "certificate is not valid before " + cert.NotBefore.UTC().Format(time.RFC3339) + " (" + subject(cert) + ")"
	}
	return "certificate expired at " + cert.NotAfter.UTC().Format(time.RFC3339) + " (" + subject(cert) + ")"
}

func subject(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return "CN=" + cert.Subject.CommonName
	}
	return certificateNames(cert)
}

// certificateNames lists the names and addresses that a certificate is for, the first three of them.
func certificateNames(cert *x509.Certificate) string {
	names := cert.DNSNames
	for _, ip := range cert.IPAddresses {
		names = append(names[:len(names):len(names)], ip.String())
	}
	switch {
	case len(names) == 0 && cert.Subject.CommonName != "":
		return "CN=" + cert.Subject.CommonName
	case len(names) == 0:
		return "no name"
	case len(names) > 3:
		return strings.Join(names[:3], ", ") + " and " + strconv.Itoa(len(names)-3) + " more"
	}
	return strings.Join(names, ", ")
}
