package process

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// CheckRequestToProto is the request as it goes over the wire. Its call is 0.
func CheckRequestToProto(r sdk.CheckRequest) *proto.CheckRequest {
	return &proto.CheckRequest{
		Monitor: monitorToProto(r.Monitor), Target: text(r.Target), Config: r.Config, TimeoutMs: milliseconds(r.Timeout),
		Attempt: int32(min(r.Attempt, 1<<30)), State: text(r.State),
	}
}

// CheckRequestFromProto is the request as it came over the wire. The state and the configuration share no memory with it.
func CheckRequestFromProto(r *proto.CheckRequest) sdk.CheckRequest {
	return sdk.CheckRequest{
		Monitor: monitorFromProto(r.GetMonitor()), Target: r.GetTarget(), Timeout: time.Duration(r.GetTimeoutMs()) * time.Millisecond,
		Attempt: int(r.GetAttempt()), State: r.GetState(), Config: r.GetConfig(),
	}
}

func monitorToProto(r sdk.Ref) *proto.Monitor {
	labels := make(map[string]string, len(r.Labels))
	for name, value := range r.Labels {
		labels[text(name)] = text(value)
	}
	return &proto.Monitor{Id: text(r.ID), Name: text(r.Name), Kind: text(r.Kind), Target: text(r.Target), Labels: labels}
}

func monitorFromProto(m *proto.Monitor) sdk.Ref {
	return sdk.Ref{ID: m.GetId(), Name: m.GetName(), Kind: m.GetKind(), Target: m.GetTarget(), Labels: m.GetLabels()}
}

// CheckResponseToProto is the answer as it goes over the wire; its notes go into the report. What has no place there, such
// as broken UTF-8, is left out; NaN is kept, for the reader to drop and say so.
func CheckResponseToProto(c sdk.CheckResponse) *proto.CheckResponse {
	r := c.Result
	p := &proto.CheckResponse{
		Status: proto.Status(r.Status), Message: text(r.Message), LatencyUs: r.Latency.Microseconds(),
		State: text(r.State), ExpiresAt: timeToProto(r.ExpiresAt),
	}
	if len(r.Metrics) > 0 {
		p.Metrics = make([]*proto.Metric, len(r.Metrics))
		for i, m := range r.Metrics {
			p.Metrics[i] = &proto.Metric{Name: text(m.Name), Value: m.Value, Unit: text(m.Unit), Warn: text(m.Warn), Crit: text(m.Crit)}
		}
	}
	if len(c.Notes) > 0 {
		p.Report = &proto.Report{Notes: c.Notes}
	}
	return p
}

// CheckResponseFromProto reads an answer and holds it to the bounds of the contract; see sdk.Judge. The process may be
// anyone's, so nothing in it is trusted. The error is what the plugin says that failed, as *Failed, or what is wrong with
// the answer.
func CheckResponseFromProto(p *proto.CheckResponse) (sdk.CheckResponse, error) {
	if p.GetError() != nil {
		return sdk.CheckResponse{}, &Failed{message(p.GetError())}
	}
	status := p.GetStatus()
	if status < 0 || status > proto.Status_STATUS_DOWN {
		return sdk.CheckResponse{}, fmt.Errorf("status: is %d, which is none of unknown, up, degraded, down", status)
	}
	latency := p.GetLatencyUs()
	if latency < 0 || latency > maxTime.Microseconds() {
		return sdk.CheckResponse{}, fmt.Errorf("latency_us: must be between 0 and %d, is %d", maxTime.Microseconds(), latency)
	}
	at, err := timeFromProto("expires_at", p.GetExpiresAt())
	if err != nil {
		return sdk.CheckResponse{}, err
	}
	result := sdk.Result{
		Status: sdk.Status(status), Message: p.GetMessage(), Latency: time.Duration(latency) * time.Microsecond,
		ExpiresAt: at, State: p.GetState(),
	}
	for _, m := range p.GetMetrics() {
		result.Metrics = append(result.Metrics, sdk.Metric{
			Name: m.GetName(), Value: m.GetValue(), Unit: m.GetUnit(), Warn: m.GetWarn(), Crit: m.GetCrit(),
		})
	}
	return sdk.Judge(result)
}

// Failed is the error of a check that the plugin itself could not make.
type Failed struct{ Message string }

// Error returns what the plugin said.
func (f *Failed) Error() string { return f.Message }

// NotifyRequestToProto is the request as it goes over the wire. Its call is 0.
func NotifyRequestToProto(r sdk.NotifyRequest) *proto.NotifyRequest {
	n := r.Notification
	p := &proto.Notification{
		Id: text(n.ID), Transition: text(string(n.Transition)), Monitor: monitorToProto(n.Monitor),
		Result: &proto.Result{Status: proto.Status(n.Result.Status), Message: text(n.Result.Message), LatencyUs: n.Result.LatencyUS},
		Url:    text(n.URL), Text: text(n.Text), At: timeToProto(n.At),
	}
	if i := n.Incident; i != nil {
		p.Incident = &proto.Incident{
			Id: text(i.ID), StartedAt: timeToProto(i.StartedAt), EndedAt: timeToProto(i.EndedAt), DurationMs: i.Duration.Milliseconds(),
		}
	}
	return &proto.NotifyRequest{Config: r.Config, Notification: p, TimeoutMs: milliseconds(r.Timeout)}
}

// NotifyRequestFromProto is the request as it came over the wire.
func NotifyRequestFromProto(r *proto.NotifyRequest) sdk.NotifyRequest {
	p := r.GetNotification()
	n := sdk.Notification{
		ID: p.GetId(), Transition: sdk.Transition(p.GetTransition()), Monitor: monitorFromProto(p.GetMonitor()),
		Result: sdk.Seen{Message: p.GetResult().GetMessage(), LatencyUS: p.GetResult().GetLatencyUs()},
		URL:    p.GetUrl(), Text: p.GetText(), At: asTime(p.GetAt()),
	}
	if s := p.GetResult().GetStatus(); s > 0 && s <= proto.Status_STATUS_DOWN {
		n.Result.Status = sdk.Status(s)
	}
	if i := p.GetIncident(); i != nil {
		n.Incident = &sdk.Outage{
			ID: i.GetId(), StartedAt: asTime(i.GetStartedAt()), EndedAt: asTime(i.GetEndedAt()),
			Duration: time.Duration(i.GetDurationMs()) * time.Millisecond,
		}
	}
	return sdk.NotifyRequest{
		Config: r.GetConfig(), Notification: n, Timeout: time.Duration(r.GetTimeoutMs()) * time.Millisecond,
	}
}

// NotifyResponseToProto is the answer as it goes over the wire.
func NotifyResponseToProto(n sdk.NotifyResponse) *proto.NotifyResponse {
	if n.Err == nil {
		return &proto.NotifyResponse{}
	}
	return &proto.NotifyResponse{Error: failure(n.Err)}
}

// NotifyResponseFromProto reads an answer. The error is about the answer itself; what the plugin reports is in its Err.
func NotifyResponseFromProto(p *proto.NotifyResponse) (sdk.NotifyResponse, error) {
	f := p.GetError()
	if f == nil {
		return sdk.NotifyResponse{}, nil
	}
	delay := f.GetRetryAfterMs()
	if delay < 0 || delay > maxTime.Milliseconds() {
		return sdk.NotifyResponse{}, fmt.Errorf("error.retry_after_ms: must be between 0 and %d, is %d", maxTime.Milliseconds(), delay)
	}
	err := errors.New(message(f))
	if delay > 0 {
		err = sdk.RetryAfter(err, time.Duration(delay)*time.Millisecond)
	}
	if f.GetPermanent() {
		err = sdk.Permanent(err)
	}
	return sdk.NotifyResponse{Err: err}, nil
}

func failure(err error) *proto.Failure {
	return &proto.Failure{Message: oneLine(err), Permanent: sdk.IsPermanent(err), RetryAfterMs: milliseconds(sdk.RetryDelay(err))}
}

func message(f *proto.Failure) string {
	if text := sdk.CleanText(f.GetMessage(), sdk.MaxMessage); text != "" {
		return text
	}
	return "the plugin gave no reason"
}

// Bounds of a report. What is over them is left out.
const (
	MaxLogLines = 1000
	MaxLogBytes = 64 << 10
	maxLogLine  = 4 << 10
	maxNotes    = 200
)

// Report is what Tocsin's own runner adds to an answer.
type Report struct {
	Log           []LogLine
	Notes         []string // what was cut, dropped or raised in reading the module's answer
	Read, Written uint64   // bytes, of the call's connections
}

// LogLine is one line that a module wrote.
type LogLine struct {
	Level slog.Level
	Text  string
}

// ReportFromProto reads a report and holds it to its bounds; nil is the zero Report.
func ReportFromProto(p *proto.Report) Report {
	r := Report{Read: p.GetBytesRead(), Written: p.GetBytesWritten()}
	left := MaxLogBytes
	for _, line := range p.GetLog() {
		text := sdk.CleanText(line.GetText(), maxLogLine)
		if left -= len(text); left < 0 || len(r.Log) == MaxLogLines {
			r.Notes = append(r.Notes, "the rest of the log was left out")
			break
		}
		level := max(min(slog.Level(line.GetLevel()), slog.LevelError), slog.LevelDebug)
		r.Log = append(r.Log, LogLine{level, text})
	}
	for _, note := range p.GetNotes()[:min(len(p.GetNotes()), maxNotes)] {
		r.Notes = append(r.Notes, sdk.CleanText(note, sdk.MaxMessage))
	}
	return r
}

// maxTime bounds every length of time in an answer.
const maxTime = 24 * time.Hour

// milliseconds rounds up, so that a short time is not told as none.
func milliseconds(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// text is valid UTF-8, as protocol buffers want it: with anything else a whole message could not be sent.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// asTime is the zero time for a missing one and for one that is out of bounds.
func asTime(p *timestamppb.Timestamp) time.Time {
	if p == nil || !p.IsValid() {
		return time.Time{}
	}
	return p.AsTime()
}

func timeFromProto(path string, p *timestamppb.Timestamp) (time.Time, error) {
	if p == nil {
		return time.Time{}, nil
	}
	if err := p.CheckValid(); err != nil {
		return time.Time{}, fmt.Errorf("%s: must be a time, is %d s and %d ns", path, p.GetSeconds(), p.GetNanos())
	}
	return p.AsTime(), nil
}
