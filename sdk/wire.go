package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// APIVersion is the version of the plugin contract that this package speaks.
const APIVersion = 1

// Bounds of what a plugin answers. What is over them is cut or dropped, and a note says so.
const (
	MaxMessage    = 1024 // bytes of a message
	MaxState      = 4096 // bytes of a state
	MaxMetrics    = 100  // metrics of one result
	MaxMetricName = 128  // bytes of a metric's name
	MaxMetricUnit = 32   // bytes of a metric's unit
)

// maxLatency bounds every length of time in an answer.
const maxLatency = 24 * time.Hour

type checkRequestJSON struct {
	API       int             `json:"api"`
	Call      string          `json:"call"`
	Monitor   Ref             `json:"monitor"`
	Target    string          `json:"target"`
	Config    json.RawMessage `json:"config"`
	TimeoutMS int64           `json:"timeout_ms"`
	Attempt   int             `json:"attempt"`
	State     string          `json:"state,omitempty"`
}

// MarshalJSON writes the request as a plugin gets it. A Config that is nil is written as an empty object; a timeout is
// rounded up to milliseconds.
func (r CheckRequest) MarshalJSON() ([]byte, error) {
	return json.Marshal(checkRequestJSON{
		API: APIVersion, Call: "check", Monitor: r.Monitor, Target: r.Target, Config: orEmpty(r.Config),
		TimeoutMS: milliseconds(r.Timeout), Attempt: r.Attempt, State: r.State,
	})
}

// UnmarshalJSON reads what MarshalJSON wrote. Another version of the contract and another call are errors.
func (r *CheckRequest) UnmarshalJSON(data []byte) error {
	var wire checkRequestJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return fmt.Errorf("read check request: %w", err)
	}
	if err := speaks(wire.API, wire.Call, "check"); err != nil {
		return err
	}
	*r = CheckRequest{
		Monitor: wire.Monitor, Target: wire.Target, Timeout: time.Duration(wire.TimeoutMS) * time.Millisecond,
		Attempt: wire.Attempt, State: wire.State, Config: wire.Config,
	}
	return nil
}

func speaks(api int, call, want string) error {
	if api != APIVersion {
		return fmt.Errorf("read request: api is %d, this plugin speaks %d", api, APIVersion)
	}
	if call != want {
		return fmt.Errorf("read request: call is %s, want %q", quoted(call), want)
	}
	return nil
}

func orEmpty(config json.RawMessage) json.RawMessage {
	if len(config) == 0 {
		return json.RawMessage("{}")
	}
	return config
}

// CheckResponse is a plugin's answer to a CheckRequest.
type CheckResponse struct {
	Result Result   // of its parts Code, Address and Timing are no part of the JSON form
	Notes  []string // what was cut, dropped or raised in reading the answer; for the plugin's log
}

type checkResponseJSON struct {
	Status    Status   `json:"status"`
	Message   string   `json:"message,omitempty"`
	LatencyUS int64    `json:"latency_us,omitempty"`
	Metrics   []Metric `json:"metrics,omitempty"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	State     string   `json:"state,omitempty"`
}

// MarshalJSON writes the answer as the server reads it. Metrics whose value is NaN or infinite are left out.
func (c CheckResponse) MarshalJSON() ([]byte, error) {
	r := c.Result
	wire := checkResponseJSON{Status: r.Status, Message: r.Message, LatencyUS: r.Latency.Microseconds(), State: r.State}
	for _, m := range r.Metrics {
		if !math.IsNaN(m.Value) && !math.IsInf(m.Value, 0) {
			wire.Metrics = append(wire.Metrics, m)
		}
	}
	if !r.ExpiresAt.IsZero() {
		wire.ExpiresAt = r.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	return json.Marshal(wire)
}

// ParseCheckResponse reads an answer. Unknown fields are ignored and null is the same as nothing. A value of a wrong type is
// an error that begins with its path, the first one in the order status, message, latency_us, metrics, expires_at, state;
// then come ranges that are none. Text is cleaned and cut, metrics that are NaN, infinite or too many and a state that is too long are dropped; Notes says
// so. The ranges of the metrics raise the status: outside warn it is at least degraded, outside crit it is down, and the
// message says why; unknown stays unknown.
func ParseCheckResponse(data []byte) (CheckResponse, error) {
	var (
		r reader
		c CheckResponse
	)
	fields := r.document(data)
	c.Result.Status = r.status(fields["status"])
	c.Result.Message = r.text("message", fields["message"])
	c.Result.Latency = time.Duration(r.whole("latency_us", fields["latency_us"], maxLatency.Microseconds())) * time.Microsecond
	c.Result.Metrics = r.metrics(fields["metrics"])
	c.Result.ExpiresAt = r.time("expires_at", fields["expires_at"])
	c.Result.State = r.text("state", fields["state"])
	if r.err != nil {
		return CheckResponse{}, r.err
	}
	return Judge(c.Result)
}

// Judge holds a result that a plugin gave to the bounds of the contract, as ParseCheckResponse does with JSON: text is
// cleaned and cut, what is too much is dropped, and the ranges of the metrics raise the status. An unknown status, a latency
// below 0 or over a day, and a metric without a name or with a range that is none are errors that begin with the path of the
// value. What Judge returned it returns unchanged. The result's metrics are not changed in place.
func Judge(result Result) (CheckResponse, error) {
	c := CheckResponse{Result: result}
	if result.Status > Down {
		return CheckResponse{}, fmt.Errorf("status: must be from %d to %d, is %d", Unknown, Down, result.Status)
	}
	if result.Latency < 0 || result.Latency > maxLatency {
		return CheckResponse{}, fmt.Errorf("latency_us: must be between 0 and %d, is %d", maxLatency.Microseconds(), result.Latency.Microseconds())
	}
	metrics, err := c.judge(result.Metrics)
	if err != nil {
		return CheckResponse{}, err
	}
	if len(result.State) > MaxState {
		c.note("the state of %d bytes was dropped; at most %d are kept", len(result.State), MaxState)
		c.Result.State = ""
	}
	message := CleanText(result.Message, len(result.Message))
	if len(message) > MaxMessage {
		c.note("the message of %d bytes was cut to %d", len(message), MaxMessage)
	}
	c.Result.Message = message
	c.raise(metrics)
	c.Result.Message = CleanText(c.Result.Message, MaxMessage)
	return c, nil
}

// UnmarshalJSON reads an answer as ParseCheckResponse does.
func (c *CheckResponse) UnmarshalJSON(data []byte) error {
	parsed, err := ParseCheckResponse(data)
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}

func (c *CheckResponse) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

func (r *reader) status(raw json.RawMessage) Status {
	text := r.text("status", raw)
	if r.err != nil {
		return Unknown
	}
	if kindOf(raw) == "" {
		r.fault("status", "is missing; it must be up, degraded, down or unknown")
		return Unknown
	}
	status, err := ParseStatus(text)
	if err != nil {
		r.fault("status", "must be up, degraded, down or unknown, is %s", quoted(text))
	}
	return status
}

// judged is a metric with its ranges.
type judged struct {
	Metric
	warn, crit *Range
}

func (r *reader) metrics(raw json.RawMessage) []Metric {
	list := r.list("metrics", raw)
	if len(list) == 0 {
		return nil
	}
	metrics := make([]Metric, 0, len(list))
	for i := range list {
		path := "metrics[" + strconv.Itoa(i) + "]"
		if r.err == nil && kindOf(list[i]) == "" {
			r.fault(path, "must be an object, is null")
		}
		fields := r.object(path, list[i])
		m := Metric{Name: r.text(path+".name", fields["name"])}
		if r.err == nil && m.Name == "" {
			r.fault(path+".name", "is missing")
		}
		if r.err == nil {
			m.Value = r.real(path+".value", fields["value"])
		}
		m.Unit = r.text(path+".unit", fields["unit"])
		m.Warn = r.text(path+".warn", fields["warn"])
		m.Crit = r.text(path+".crit", fields["crit"])
		if r.err != nil {
			return nil
		}
		metrics = append(metrics, m)
	}
	return metrics
}

// judge puts those of the metrics that are within the bounds into the result.
func (c *CheckResponse) judge(metrics []Metric) ([]judged, error) {
	var kept []judged
	c.Result.Metrics = nil
	for i, m := range metrics {
		path := "metrics[" + strconv.Itoa(i) + "]"
		m.Name, m.Unit = CleanText(m.Name, MaxMetricName), CleanText(m.Unit, MaxMetricUnit)
		if m.Name == "" {
			return nil, fmt.Errorf("%s.name: is missing", path)
		}
		warn, err := bounds(path+".warn", m.Warn)
		if err != nil {
			return nil, err
		}
		crit, err := bounds(path+".crit", m.Crit)
		if err != nil {
			return nil, err
		}
		switch {
		case math.IsNaN(m.Value) || math.IsInf(m.Value, 0):
			c.note("metric %q was dropped: its value is no finite number", m.Name)
		case len(kept) < MaxMetrics:
			kept = append(kept, judged{m, warn, crit})
			c.Result.Metrics = append(c.Result.Metrics, m)
		}
	}
	if len(metrics) > MaxMetrics && len(kept) == MaxMetrics {
		c.note("of %d metrics the first %d were kept", len(metrics), MaxMetrics)
	}
	return kept, nil
}

func bounds(path, text string) (*Range, error) {
	if text == "" {
		return nil, nil
	}
	r, err := ParseRange(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &r, nil
}

// raise applies the ranges of the metrics to the status, and tells in the message which one was broken.
func (c *CheckResponse) raise(metrics []judged) {
	if c.Result.Status == Unknown {
		return
	}
	for _, worse := range [...]struct {
		status Status
		name   string
		of     func(judged) *Range
	}{
		{Down, "crit", func(m judged) *Range { return m.crit }},
		{Degraded, "warn", func(m judged) *Range { return m.warn }},
	} {
		i := slices.IndexFunc(metrics, func(m judged) bool { return worse.of(m) != nil && worse.of(m).Alerts(m.Value) })
		if i < 0 || c.Result.Status >= worse.status {
			continue
		}
		m := metrics[i]
		why := fmt.Sprintf("%s is %s%s (%s %s)", m.Name, plainNumber(m.Value), unitSuffix(m.Unit), worse.name, worse.of(m))
		c.note("the status %s was raised to %s: %s", c.Result.Status, worse.status, why)
		c.Result.Status = worse.status
		if c.Result.Message != "" {
			why = "; " + why
		}
		c.Result.Message = CleanText(c.Result.Message, max(MaxMessage-len(why), 0)) + why
		return
	}
}

// unitSuffix leaves out "1", which is the unit of a count.
func unitSuffix(unit string) string {
	if unit == "" || unit == "1" {
		return ""
	}
	return " " + unit
}

// NotifyRequest asks a plugin to deliver one notification.
type NotifyRequest struct {
	Config       json.RawMessage // the channel's
	Notification Notification
	Timeout      time.Duration // the deadline is the context's; this repeats it as a length
}

type notifyRequestJSON struct {
	API          int             `json:"api"`
	Call         string          `json:"call"`
	Config       json.RawMessage `json:"config"`
	Notification Notification    `json:"notification"`
	TimeoutMS    int64           `json:"timeout_ms,omitempty"`
}

// MarshalJSON writes the request as a plugin gets it. A Config that is nil is written as an empty object.
func (n NotifyRequest) MarshalJSON() ([]byte, error) {
	return json.Marshal(notifyRequestJSON{
		API: APIVersion, Call: "notify", Config: orEmpty(n.Config), Notification: n.Notification, TimeoutMS: milliseconds(n.Timeout),
	})
}

// UnmarshalJSON reads what MarshalJSON wrote. Another version of the contract and another call are errors.
func (n *NotifyRequest) UnmarshalJSON(data []byte) error {
	var wire notifyRequestJSON
	if err := json.Unmarshal(data, &wire); err != nil {
		return fmt.Errorf("read notify request: %w", err)
	}
	if err := speaks(wire.API, wire.Call, "notify"); err != nil {
		return err
	}
	*n = NotifyRequest{
		Config: wire.Config, Notification: wire.Notification, Timeout: time.Duration(wire.TimeoutMS) * time.Millisecond,
	}
	return nil
}

// NotifyResponse is a plugin's answer to a NotifyRequest. Err is nil when the receiver took the notification; else it may be
// marked with Permanent or RetryAfter, as a Notifier's error.
type NotifyResponse struct{ Err error }

type notifyResponseJSON struct {
	OK    bool             `json:"ok,omitempty"`
	Error *notifyErrorJSON `json:"error,omitempty"`
}

type notifyErrorJSON struct {
	Message      string `json:"message"`
	Permanent    bool   `json:"permanent"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

// MarshalJSON writes the answer as the server reads it.
func (n NotifyResponse) MarshalJSON() ([]byte, error) {
	if n.Err == nil {
		return json.Marshal(notifyResponseJSON{OK: true})
	}
	return json.Marshal(notifyResponseJSON{Error: &notifyErrorJSON{
		Message:   CleanText(n.Err.Error(), MaxMessage),
		Permanent: IsPermanent(n.Err), RetryAfterMS: milliseconds(RetryDelay(n.Err)),
	}})
}

// ParseNotifyResponse reads an answer. The error is about the answer itself: a value of a wrong type, named by its path, or
// neither ok nor error. What the plugin reports is in Err.
func ParseNotifyResponse(data []byte) (NotifyResponse, error) {
	var r reader
	fields := r.document(data)
	ok := r.flag("ok", fields["ok"])
	failed := kindOf(fields["error"]) != ""
	report := r.object("error", fields["error"])
	message := CleanText(r.text("error.message", report["message"]), MaxMessage)
	permanent := r.flag("error.permanent", report["permanent"])
	delay := time.Duration(r.whole("error.retry_after_ms", report["retry_after_ms"], maxLatency.Milliseconds())) * time.Millisecond
	switch {
	case r.err != nil:
		return NotifyResponse{}, r.err
	case ok && failed:
		return NotifyResponse{}, errors.New("ok: is true although there is an error")
	case ok:
		return NotifyResponse{}, nil
	case !failed:
		return NotifyResponse{}, errors.New("ok: must be true unless there is an error")
	}
	if message == "" {
		message = "the plugin gave no reason"
	}
	err := errors.New(message)
	if delay > 0 {
		err = RetryAfter(err, delay)
	}
	if permanent {
		err = Permanent(err)
	}
	return NotifyResponse{Err: err}, nil
}

// UnmarshalJSON reads an answer as ParseNotifyResponse does.
func (n *NotifyResponse) UnmarshalJSON(data []byte) error {
	parsed, err := ParseNotifyResponse(data)
	if err != nil {
		return err
	}
	*n = parsed
	return nil
}
