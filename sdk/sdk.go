// Package sdk is the contract between Tocsin and the code that extends it: what a check is asked and answers, and what a
// notification says. It imports the standard library only.
package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Status is what one check found. The zero value is Unknown: the check could not be made, which is our fault and not the
// target's.
type Status uint8

// The four statuses. Their numbers are stored in samples and never change.
const (
	Unknown  Status = 0
	Up       Status = 1
	Degraded Status = 2
	Down     Status = 3
)

// Statuses lists every status in the order of its number.
func Statuses() []Status { return []Status{Unknown, Up, Degraded, Down} }

// String returns the status in lower case: "unknown", "up", "degraded" or "down".
func (s Status) String() string {
	switch s {
	case Up:
		return "up"
	case Degraded:
		return "degraded"
	case Down:
		return "down"
	default:
		return "unknown"
	}
}

// ParseStatus returns the status that String wrote. Any other text is an error that lists the four.
func ParseStatus(text string) (Status, error) {
	for _, s := range Statuses() {
		if s.String() == text {
			return s, nil
		}
	}
	return Unknown, fmt.Errorf("status %q is none of up, degraded, down, unknown", text)
}

// MarshalText writes the status as String does.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote; see ParseStatus.
func (s *Status) UnmarshalText(text []byte) error {
	parsed, err := ParseStatus(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// Ref names a monitor to a check or a provider.
type Ref struct {
	ID     string            `json:"id"`
	Name   string            `json:"name"`
	Kind   string            `json:"kind,omitempty"`
	Target string            `json:"target,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// CheckRequest is what one check is asked. The deadline is the context's; Timeout repeats it as a length for code that
// passes it on.
type CheckRequest struct {
	Monitor Ref
	Target  string
	Timeout time.Duration
	Attempt int             // 1 for a scheduled check, then one more for each retry
	State   string          // opaque, at most 4 KiB: what the last result carried; empty after a change of kind, target or config
	Config  json.RawMessage // for plugins; a built-in checker got its configuration when it was made
}

// Result is what one check found.
type Result struct {
	Status    Status
	Message   string        // one line for a person: what happened, expected against got; cut to 1 KiB
	Latency   time.Duration // of the whole check as the kind defines it; 0 when there is none
	Code      uint16        // the protocol's own number where it has one (HTTP status, DNS rcode); else 0
	Address   string        // the address that answered, if any
	Timing    Timing
	Metrics   []Metric  // at most 100
	ExpiresAt time.Time // when the certificate that was seen ends; zero when none was
	State     string    // opaque, at most 4 KiB: handed to the next check of this monitor; a minute may be lost in a crash
}

// Timing is where a check's time went. A part that did not take place is zero.
type Timing struct {
	DNS, Connect, TLS, FirstByte, Total time.Duration
}

// Metric is one number that a check measured. Warn and Crit are ranges as the Nagios plugin guidelines define them.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	Warn  string  `json:"warn,omitempty"`
	Crit  string  `json:"crit,omitempty"`
}

// Transition says what kind of thing an event tells.
type Transition string

// The transitions. The first four name the condition that was entered.
const (
	WentDown     Transition = "down"
	WentUp       Transition = "up"
	WentDegraded Transition = "degraded"
	WentUnknown  Transition = "unknown"
	Expiring     Transition = "expiring"
	Test         Transition = "test"
)

// Transitions lists every transition that a provider must know what to do with.
func Transitions() []Transition {
	return []Transition{WentDown, WentUp, WentDegraded, WentUnknown, Expiring, Test}
}

// Notification is one event, complete in itself, as a provider gets it. The webhook provider posts it as JSON.
type Notification struct {
	ID         string     `json:"id"` // the event's id: the same in every retry, so that a receiver can drop repeats
	Transition Transition `json:"transition"`
	Monitor    Ref        `json:"monitor"`
	Incident   *Outage    `json:"incident,omitempty"`
	Result     Seen       `json:"result"`
	URL        string     `json:"url,omitempty"` // where to read more; empty when the server does not know its own address
	Text       string     `json:"text"`          // the whole message for a person, first line at most 300 characters
	At         time.Time  `json:"at"`
}

// Outage is the part of an incident that a notification carries. Duration is how long it has lasted, or did last.
type Outage struct {
	ID        string
	StartedAt time.Time
	EndedAt   time.Time // zero while it lasts
	Duration  time.Duration
}

type outageJSON struct {
	ID         string     `json:"id"`
	StartedAt  time.Time  `json:"started_at"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
	DurationMS int64      `json:"duration_ms"`
}

// MarshalJSON writes the duration in milliseconds, as duration_ms.
func (o Outage) MarshalJSON() ([]byte, error) {
	wire := outageJSON{ID: o.ID, StartedAt: o.StartedAt, DurationMS: o.Duration.Milliseconds()}
	if !o.EndedAt.IsZero() {
		wire.EndedAt = &o.EndedAt
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (o *Outage) UnmarshalJSON(data []byte) error {
	var wire outageJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	*o = Outage{ID: wire.ID, StartedAt: wire.StartedAt, Duration: time.Duration(wire.DurationMS) * time.Millisecond}
	if wire.EndedAt != nil {
		o.EndedAt = *wire.EndedAt
	}
	return nil
}

// Seen is the result that led to a notification.
type Seen struct {
	Status    Status `json:"status"`
	Message   string `json:"message"`
	LatencyUS int64  `json:"latency_us,omitempty"`
}

// Checker makes checks. A target that is down is a Result. An error means that the check could not be made: it is
// recorded as unknown and never opens an outage. Check is called from many goroutines and returns when its context ends.
type Checker interface {
	Check(ctx context.Context, req CheckRequest) (Result, error)
}

// Notifier delivers notifications. Notify returns nil only when the receiver took it. It is called from many goroutines
// and returns when its context ends.
type Notifier interface {
	Notify(ctx context.Context, n Notification) error
}

// Permanent marks an error of a Notifier: trying again cannot help. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err, or an error it wraps, was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type permanentError struct{ err error }

func (p *permanentError) Error() string { return p.err.Error() }
func (p *permanentError) Unwrap() error { return p.err }

// RetryAfter marks an error of a Notifier: the receiver asked to be left alone for the delay. RetryAfter(nil, d) is nil.
func RetryAfter(err error, delay time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, delay}
}

// RetryDelay returns the delay that RetryAfter put into err, or 0.
func RetryDelay(err error) time.Duration {
	var r *retryAfterError
	if errors.As(err, &r) {
		return r.delay
	}
	return 0
}

type retryAfterError struct {
	err   error
	delay time.Duration
}

func (r *retryAfterError) Error() string { return r.err.Error() }
func (r *retryAfterError) Unwrap() error { return r.err }
