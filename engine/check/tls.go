package check

import (
	"context"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	builtin(func(e *env) Kind {
		return define(e, "tls", "Makes a TLS handshake and verifies the server's certificate: its chain, its name and how long it lasts. The latency runs "+
			"from the start to the end of the handshake.",
			"example.org:443", tlsCheckConfig{family: family{"any"}, tlsOptions: defaultTLS()},
			append(connectionVariables(), certVariables()...),
			func(target string, c tlsCheckConfig, faults *monitor.Faults) prober {
				t := &tlsCheck{env: e, network: c.network("tcp"), starttls: c.STARTTLS, minDays: c.MinDays, tls: c.settings(e, nil, faults)}
				var err error
				if t.at, err = parseEndpoint(target, 443); err != nil {
					faults.Add("target", shownTarget(target), "%v", err)
				}
				c.fits(t.at.addr, faults)
				return t
			})
	})
}

type tlsCheckConfig struct {
	MinDays  int    `json:"min_days" doc:"Down when the certificate ends in fewer days than this. With 0 it is down only once it has ended; use degrade with cert.days_left to be told early." min:"0" max:"3650"`
	STARTTLS string `json:"starttls,omitempty" doc:"Ask the server in this protocol to begin TLS: smtp, imap, pop3, ftp or postgres." enum:"smtp,imap,pop3,ftp,postgres,"`
	family
	tlsOptions
}

type tlsCheck struct {
	env      *env
	at       endpoint
	network  string
	starttls string
	minDays  int
	tls      *tlsSettings
}

func (t *tlsCheck) probe(ctx context.Context, _ sdk.CheckRequest, s *seen) error {
	start := time.Now()
	conn, err := t.env.dial(ctx, t.network, t.at, &s.Timing)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.Address = peerOf(conn)
	defer bind(ctx, conn)()
	secure, err := secured(ctx, t.tls, conn, t.at, t.starttls, s)
	if err != nil || secure == nil {
		return err
	}
	s.Latency = time.Since(start)
	now := time.Now()
	if days := daysLeft(s.ExpiresAt, now); days < t.minDays {
		s.down("certificate ends in %s, at least %d are wanted (%s)", plural(days, "day"), t.minDays, subject(s.cert))
		return nil
	}
	s.up("TLS handshake with " + t.at.String() + " completed")
	return nil
}
