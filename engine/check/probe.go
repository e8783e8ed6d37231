package check

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// maxMessage is the longest message of a result, in bytes.
const maxMessage = 1024

// seen is what one check observed: its result, and what expressions may look at beside it.
type seen struct {
	sdk.Result
	secrets []string // of the config, for mask
	need    needs    // what the monitor's expressions look at; a prober may leave out the rest
	body    []byte
	buffer  *bytes.Buffer // body's, given back after the expressions have run
	cut     bool          // body is not all
	header  http.Header
	cert    *x509.Certificate
	answers []string
	rcode   string
}

// down makes the result down, and says why.
func (s *seen) down(format string, args ...any) {
	s.Status = sdk.Down
	s.Message = fmt.Sprintf(format, args...)
}

// up makes the result up. The text must be the same at every check: text is stored only when it changes.
func (s *seen) up(text string) {
	s.Status = sdk.Up
	s.Message = text
}

// prober is a built-in kind's code. It sets what it saw, with a status and a message, or returns the error that ended the
// check; the table of own faults then decides whether that is the target's fault or ours. It sets Latency where the kind
// has one; zero is replaced by the time the check took.
type prober interface {
	probe(ctx context.Context, req sdk.CheckRequest, s *seen) error
}

// timed is a prober whose checks take a time that its config decides.
type timed interface {
	// fitsInto adds a fault, its field inside the config, when a check takes the timeout or longer even if all goes well.
	fitsInto(timeout time.Duration, faults *monitor.Faults)
}

// probing is the Checker around a prober: it judges errors and expressions in the same way for all kinds.
type probing struct {
	env     *env
	prober  prober
	rules   *rules
	secrets []string
}

var _ Checker = (*probing)(nil)

func (p *probing) setRules(r *rules) { p.rules = r }

// Check makes one check. See Checker.
func (p *probing) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	if err := ctx.Err(); err != nil {
		return sdk.Result{}, fmt.Errorf("the check was not begun: %w", err)
	}
	start := time.Now()
	s := seen{secrets: p.secrets}
	if p.rules != nil {
		s.need = p.rules.need
	}
	err := p.prober.probe(ctx, req, &s)
	end := time.Now()
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return sdk.Result{}, ctx.Err()
		}
		length := timeoutOf(ctx, req, start)
		switch text, own := p.env.explain(err, end.Sub(start), length); {
		case own != nil:
			return sdk.Result{}, p.clean(own)
		case isTimeout(ctx, err) && p.env.gapped(start, end, length):
			return sdk.Result{}, tooSlow(p.hide(text))
		default:
			s.down("%s", text)
		}
	}
	if s.Latency == 0 {
		s.Latency = end.Sub(start)
	}
	if s.Timing.Total == 0 {
		s.Timing.Total = end.Sub(start)
	}
	if p.rules != nil && (s.Status == sdk.Up || s.Status == sdk.Degraded) {
		p.rules.apply(&s)
	}
	recycle(&p.env.buffers.bodies, s.buffer)
	if s.Status != sdk.Up || p.rules != nil {
		s.Message = p.hide(s.Message)
	}
	return s.Result, nil
}

// tooSlow is the error of a check that this machine did not run well enough to say anything about the target.
func tooSlow(what string) error {
	return fmt.Errorf("this machine was too slow or suspended while the check ran (%s)", what)
}

// timeoutOf returns how long the check may take: what the request says, or what is left until the context's deadline.
func timeoutOf(ctx context.Context, req sdk.CheckRequest, start time.Time) time.Duration {
	if req.Timeout > 0 {
		return req.Timeout
	}
	if deadline, ok := ctx.Deadline(); ok {
		return deadline.Sub(start).Round(time.Millisecond)
	}
	return 0
}

// hide makes a message fit for storing: one clean line without the config's secrets.
func (p *probing) hide(text string) string {
	return sdk.CleanText(mask(p.secrets, text), maxMessage)
}

// clean does to an error's text what hide does to a message, and keeps the error for errors.Is.
func (p *probing) clean(err error) error {
	if text := err.Error(); p.hide(text) != text {
		return &hidden{text: p.hide(text), err: err}
	}
	return err
}

type hidden struct {
	text string
	err  error
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.err }

// foreign makes a prober of a Checker from outside this package, so that expressions can be applied to its results. What it
// returns as an error stays one.
type foreign struct{ Checker }

func (f foreign) probe(ctx context.Context, req sdk.CheckRequest, s *seen) error {
	result, err := f.Check(ctx, req)
	if err != nil {
		return &ownFault{err: err}
	}
	s.Result = result
	return nil
}
