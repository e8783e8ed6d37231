package check

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

	"github.com/tocsinhq/tocsin/engine/netpolicy"
)

// localFaults are the errors that say something about this machine and nothing about the target. A check that ends with one
// is unknown. ENETUNREACH is here: this machine has no route. EHOSTUNREACH is not: a router or the neighbour table answered
// for a host that is not there. docs/RATIONALE.md has the reasons.
var localFaults = [...]struct {
	errno syscall.Errno
	cause string
}{
	{syscall.EMFILE, "this process has too many open files; raise its limit (ulimit -n)"},
	{syscall.ENFILE, "this machine has too many open files"},
	{syscall.ENOBUFS, "this machine has no network buffers left"},
	{syscall.ENOMEM, "this machine is out of memory"},
	{syscall.EADDRNOTAVAIL, "this machine has no free local address or port"},
	{syscall.EADDRINUSE, "this machine has no free local port"},
	{syscall.EPERM, "this machine does not permit it (firewall or missing permission)"},
	{syscall.EACCES, "this machine does not permit it (firewall or missing permission)"},
	{syscall.ENETUNREACH, "this machine has no route to that network"},
	{syscall.ENETDOWN, "this machine's network is down"},
	{syscall.EAFNOSUPPORT, "this machine has no such address family"},
	{syscall.EMSGSIZE, "this machine cannot send a packet of that size"},
	{syscall.EINVAL, "this machine cannot use that address"},
}

// ownFault marks an error as ours.
type ownFault struct{ err error }

func (o *ownFault) Error() string { return o.err.Error() }
func (o *ownFault) Unwrap() error { return o.err }

// failure is what ended a check: in which phase, with whom, and why.
type failure struct {
	phase string // connecting, TLS handshake, …
	peer  string // the address that was asked; may be empty
	err   error
	proxy string // the proxy in between, empty when there is none; equal to peer when the proxy itself was asked
}

// asksProxy reports whether it was the proxy that something went wrong with.
func (f *failure) asksProxy() bool { return f.proxy != "" && f.proxy == f.peer }

// who names the peer; a proxy as one.
func (f *failure) who() string {
	if f.asksProxy() {
		return "the proxy " + f.peer
	}
	return f.peer
}

func (f *failure) Error() string { return f.phase + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func isTimeout(ctx context.Context, err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &n) && n.Timeout() || errors.Is(ctx.Err(), context.DeadlineExceeded)
}

// explain is the one table that decides whose fault an error is, for all kinds. An own fault is returned as an error with
// its cause; else the text says for a person what the target did.
func (e *env) explain(err error, took, timeout time.Duration) (text string, own error) {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{err: err}
	}
	if own := e.ownCause(err, f); own != nil {
		return "", own
	}
	return f.text(took, timeout), nil
}

// ownCause returns why an error is ours, or nil when it is the target's.
func (e *env) ownCause(err error, f *failure) error {
	var marked *ownFault
	if errors.As(err, &marked) {
		return marked
	}
	if errors.Is(err, netpolicy.ErrDenied) {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		if f.asksProxy() {
			return fmt.Errorf("%s: %w", f.who(), err)
		}
		return err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && !dns.IsNotFound {
		return fmt.Errorf("the resolver gave no answer for %s: %w", dns.Name, &quiet{dns.Err, err})
	}
	for _, l := range localFaults {
		if errors.Is(err, l.errno) {
			if f.peer == "" {
				return fmt.Errorf("%s: %w", l.cause, l.errno)
			}
			return fmt.Errorf("%s: %s: %w", f.who(), l.cause, l.errno)
		}
	}
	var roots x509.SystemRootsError
	if errors.As(err, &roots) {
		return fmt.Errorf("this machine's CA certificates cannot be read: %w", err)
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) && noSystemRoots() {
		return fmt.Errorf("this machine has no CA certificates: %w", err)
	}
	return nil
}

// noSystemRoots reports whether the machine's certificate store is empty, as in a container without one.
func noSystemRoots() bool {
	pool, err := x509.SystemCertPool()
	return err != nil || pool.Equal(x509.NewCertPool())
}

// quiet is an error with a shorter text.
type quiet struct {
	text string
	err  error
}

func (q *quiet) Error() string { return q.text }
func (q *quiet) Unwrap() error { return q.err }

// text says what happened in words for a person who was woken by it.
func (f *failure) text(took, timeout time.Duration) string {
	err, phase := f.err, f.phase
	peer := f.who()
	var op *net.OpError
	switch {
	case f.proxy != "" && !f.asksProxy():
		phase += " through the proxy " + f.proxy
	case f.proxy == "" && errors.As(err, &op) && op.Addr != nil:
		peer = op.Addr.String()
	}
	if peer == "" {
		peer = "the target"
	}
	var dns *net.DNSError
	var addr *net.AddrError
	switch {
	case errors.As(err, &dns) && f.asksProxy():
		return "no such host: " + dns.Name + " (" + peer + ")"
	case errors.As(err, &dns):
		return "no such host: " + dns.Name
	case errors.As(err, &addr) && f.asksProxy():
		return peer + ": " + addr.Err
	case errors.As(err, &addr):
		return addr.Addr + ": " + addr.Err
	case errors.Is(err, syscall.ECONNREFUSED) && f.asksProxy():
		return peer + " refused the connection after " + human(took)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused by " + peer + " after " + human(took)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return peer + " cannot be reached: no route to host"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return peer + " broke the connection off (" + phase + ")"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timeoutError(err):
		return "no answer from " + peer + " within " + human(timeout) + " (" + phase + ")"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return peer + " closed the connection (" + phase + ")"
	}
	if text, ok := tlsText(err, peer); ok {
		if f.asksProxy() && strings.HasPrefix(text, "certificate ") {
			text = peer + ": " + text
		}
		return text
	}
	if phase == "" {
		return err.Error()
	}
	return peer + ": " + phase + ": " + err.Error()
}

func timeoutError(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// tlsText explains what went wrong with TLS.
func tlsText(err error, peer string) (string, bool) {
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &verification):
		return certificateText(verification), true
	case errors.As(err, &header):
		return peer + " does not speak TLS here", true
	case errors.As(err, &alert):
		return "TLS handshake with " + peer + " refused: " + alert.Error(), true
	case strings.HasPrefix(err.Error(), "tls: "), strings.HasPrefix(err.Error(), "remote error: tls: "):
		return "TLS handshake with " + peer + " failed: " + strings.TrimPrefix(strings.TrimPrefix(err.Error(), "remote error: "), "tls: "), true
	}
	return "", false
}

// certificateText explains why a certificate is not accepted.
func certificateText(v *tls.CertificateVerificationError) string {
	var leaf *x509.Certificate
	if len(v.UnverifiedCertificates) > 0 {
		leaf = v.UnverifiedCertificates[0]
	}
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(v.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return expiryText(invalid.Cert, time.Now())
	case errors.As(v.Err, &host) && host.Certificate != nil:
		return "certificate is for " + certificateNames(host.Certificate) + ", not for " + host.Host
	case errors.As(v.Err, &unknown) && leaf != nil && leaf.Subject.String() == leaf.Issuer.String():
		return "certificate is self-signed (" + subject(leaf) + ")"
	case errors.As(v.Err, &unknown) && leaf != nil:
		return "certificate is signed by an unknown authority (" + subject(leaf) + ", issuer CN=" + leaf.Issuer.CommonName + ")"
	case leaf != nil:
		return "certificate is not accepted (" + subject(leaf) + "): " + strings.TrimPrefix(v.Err.Error(), "x509: ")
	}
	return "certificate is not accepted: " + strings.TrimPrefix(v.Err.Error(), "x509: ")
}

func expiryText(cert *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(cert.NotBefore):
		return "certificate is not valid before " + cert.NotBefore.UTC().Format("2006-01-02 15:04:05 UTC") + " (" + subject(cert) + ")"
	case now.Sub(cert.NotAfter) < 48*time.Hour:
		return "certificate expired " + plural(int(now.Sub(cert.NotAfter)/time.Hour), "hour") + " ago (" + subject(cert) + ")"
	}
	return "certificate expired " + plural(int(now.Sub(cert.NotAfter)/(24*time.Hour)), "day") + " ago (" + subject(cert) + ")"
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
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

// human writes a duration with one unit and at most three digits: "2 ms", "1.5 s", "350 µs", "2 min".
func human(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	case d < time.Second:
		return strconv.FormatInt(d.Round(time.Millisecond).Milliseconds(), 10) + " ms"
	case d < 2*time.Minute:
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	}
	return strconv.FormatFloat(d.Round(6*time.Second).Minutes(), 'f', -1, 64) + " min"
}
