package process

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	protobuf "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// over sends a message over the wire.
func over[M protobuf.Message](t *testing.T, sent, received M) M {
	t.Helper()
	data, err := protobuf.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	if err := protobuf.Unmarshal(data, received); err != nil {
		t.Fatal(err)
	}
	return received
}

func TestRequestsOverTheWire(t *testing.T) {
	t.Parallel()
	monitor := sdk.Ref{ID: "m", Name: "n", Kind: "k", Target: "t", Labels: map[string]string{"a": "b"}}
	check := sdk.CheckRequest{
		Monitor: monitor, Target: "example.com:80", Timeout: 1500 * time.Millisecond, Attempt: 2, State: "s", Config: []byte(`{"a":1}`),
	}
	if got := CheckRequestFromProto(over(t, CheckRequestToProto(check), &proto.CheckRequest{})); !cmp.Equal(got, check) {
		t.Error(cmp.Diff(check, got))
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, incident := range []*sdk.Outage{nil, {ID: "i", StartedAt: at, EndedAt: at.Add(time.Hour), Duration: time.Hour}, {ID: "i", StartedAt: at}} {
		notify := sdk.NotifyRequest{
			Config: []byte(`{}`), Timeout: time.Second,
			Notification: sdk.Notification{
				ID: "e", Transition: sdk.WentDown, Monitor: monitor, Incident: incident,
				Result: sdk.Seen{Status: sdk.Down, Message: "m", LatencyUS: 5}, URL: "u", Text: "t", At: at,
			},
		}
		if got := NotifyRequestFromProto(over(t, NotifyRequestToProto(notify), &proto.NotifyRequest{})); !cmp.Equal(got, notify) {
			t.Error(cmp.Diff(notify, got))
		}
	}
	// A timeout that is less than a millisecond is not none, and broken text does not keep a request from being sent.
	odd := sdk.CheckRequest{Target: "a\xffb", Timeout: 1, Monitor: sdk.Ref{Name: "\xc3", Labels: map[string]string{"\xff": "\xff"}}}
	if got := CheckRequestFromProto(over(t, CheckRequestToProto(odd), &proto.CheckRequest{})); got.Timeout != time.Millisecond || got.Target != "a\uFFFDb" {
		t.Errorf("%+v", got)
	}
}

func TestCheckResponseOverTheWire(t *testing.T) {
	t.Parallel()
	want := sdk.Result{
		Status: sdk.Degraded, Message: "m", Latency: 1234 * time.Microsecond, State: "s", ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Metrics: []sdk.Metric{{Name: "a", Value: 1.5, Unit: "s", Warn: "@10:20", Crit: "100"}},
	}
	p := over(t, CheckResponseToProto(sdk.CheckResponse{Result: want, Notes: []string{"n"}}), &proto.CheckResponse{})
	got, err := CheckResponseFromProto(p)
	if err != nil || !cmp.Equal(got.Result, want) {
		t.Errorf("%v %s", err, cmp.Diff(want, got.Result))
	}
	if notes := ReportFromProto(p.GetReport()).Notes; !cmp.Equal(notes, []string{"n"}) {
		t.Errorf("notes %q", notes)
	}
}

// A process may be anyone's: what it answers is not believed.
func TestLies(t *testing.T) {
	t.Parallel()
	metrics := func(n int) []*proto.Metric {
		m := make([]*proto.Metric, n)
		for i := range m {
			m[i] = &proto.Metric{Name: fmt.Sprint("m", i)}
		}
		return m
	}
	for want, p := range map[string]*proto.CheckResponse{
		"status: is 4, which is none of unknown, up, degraded, down":            {Status: 4},
		"status: is -1, which is none of unknown, up, degraded, down":           {Status: -1},
		"status: is 257, which is none of unknown, up, degraded, down":          {Status: 257},
		"latency_us: must be between 0 and 86400000000, is -1":                  {LatencyUs: -1},
		"latency_us: must be between 0 and 86400000000, is 9223372036854775807": {LatencyUs: math.MaxInt64},
		"metrics[1].name: is missing":                                           {Metrics: []*proto.Metric{{Name: "a"}, {}}},
		`metrics[0].warn: range "x": end must be a number, is "x"`:              {Metrics: []*proto.Metric{{Name: "a", Warn: "x"}}},
		"expires_at: must be a time, is 9223372036854775807 s and 0 ns":         {ExpiresAt: &timestamppb.Timestamp{Seconds: math.MaxInt64}},
		"why not":                   {Error: &proto.Failure{Message: "why\nnot"}, Status: 9},
		"the plugin gave no reason": {Error: &proto.Failure{}},
	} {
		if got, err := CheckResponseFromProto(p); err == nil || err.Error() != want || !cmp.Equal(got, sdk.CheckResponse{}) {
			t.Errorf("%v: %+v, %v, want %s", p, got, err, want)
		}
	}
	for name, tt := range map[string]struct {
		p     *proto.CheckResponse
		want  sdk.Result
		notes []string
	}{
		"nothing": {nil, sdk.Result{}, nil},
		"text": {
			&proto.CheckResponse{Status: 1, Message: "a\x00b\nc\u202e", State: strings.Repeat("s", sdk.MaxState+1)},
			sdk.Result{Status: sdk.Up, Message: "ab c"},
			[]string{"the state of 4097 bytes was dropped; at most 4096 are kept"},
		},
		"no numbers": {
			&proto.CheckResponse{Status: 1, Metrics: []*proto.Metric{{Name: "a", Value: math.NaN()}, {Name: "b", Value: math.Inf(1)}, {Name: "c", Value: 7}}},
			sdk.Result{Status: sdk.Up, Metrics: []sdk.Metric{{Name: "c", Value: 7}}},
			[]string{`metric "a" was dropped: its value is no finite number`, `metric "b" was dropped: its value is no finite number`},
		},
		"ranges": {
			&proto.CheckResponse{Status: 1, Metrics: []*proto.Metric{{Name: "a", Value: 11, Crit: "10"}}},
			sdk.Result{Status: sdk.Down, Message: "a is 11 (crit 10)", Metrics: []sdk.Metric{{Name: "a", Value: 11, Crit: "10"}}},
			[]string{"the status up was raised to down: a is 11 (crit 10)"},
		},
	} {
		got, err := CheckResponseFromProto(tt.p)
		if err != nil || !cmp.Equal(got, sdk.CheckResponse{Result: tt.want, Notes: tt.notes}) {
			t.Errorf("%s: %v %s", name, err, cmp.Diff(sdk.CheckResponse{Result: tt.want, Notes: tt.notes}, got))
		}
	}
	got, err := CheckResponseFromProto(&proto.CheckResponse{Status: 1, Metrics: metrics(150)})
	if err != nil || len(got.Result.Metrics) != sdk.MaxMetrics || !cmp.Equal(got.Notes, []string{"of 150 metrics the first 100 were kept"}) {
		t.Errorf("%d metrics, %q, %v", len(got.Result.Metrics), got.Notes, err)
	}
}

func TestNotifyResponses(t *testing.T) {
	t.Parallel()
	cause := errors.New("no such\nuser")
	for _, err := range []error{nil, cause, sdk.Permanent(cause), sdk.RetryAfter(cause, 1500*time.Millisecond), sdk.Permanent(sdk.RetryAfter(cause, time.Second))} {
		p := over(t, NotifyResponseToProto(sdk.NotifyResponse{Err: err}), &proto.NotifyResponse{})
		got, bad := NotifyResponseFromProto(p)
		if bad != nil || (got.Err == nil) != (err == nil) || sdk.IsPermanent(got.Err) != sdk.IsPermanent(err) || sdk.RetryDelay(got.Err) != sdk.RetryDelay(err) {
			t.Errorf("%v is read as %v, %v", err, got.Err, bad)
		}
		if err != nil && got.Err.Error() != "no such user" {
			t.Errorf("%v", got.Err)
		}
	}
	for _, delay := range []int64{-1, math.MaxInt64} {
		if got, err := NotifyResponseFromProto(&proto.NotifyResponse{Error: &proto.Failure{RetryAfterMs: delay}}); err == nil || got.Err != nil {
			t.Errorf("a delay of %d ms: %v, %v", delay, got.Err, err)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	if got := ReportFromProto(nil); !cmp.Equal(got, Report{}) {
		t.Errorf("%+v", got)
	}
	got := ReportFromProto(&proto.Report{
		Log:   []*proto.LogLine{{Level: 4, Text: "a\nb"}, {Level: 1 << 30, Text: "c"}, {Level: -1 << 30}},
		Notes: []string{"n\x00"}, BytesRead: 1, BytesWritten: 2,
	})
	want := Report{
		Log:   []LogLine{{slog.LevelWarn, "a b"}, {slog.LevelError, "c"}, {slog.LevelDebug, ""}},
		Notes: []string{"n"}, Read: 1, Written: 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	many := &proto.Report{}
	for range MaxLogLines + 5 {
		many.Log = append(many.Log, &proto.LogLine{Text: "x"})
		many.Notes = append(many.Notes, "n")
	}
	if got := ReportFromProto(many); len(got.Log) != MaxLogLines || len(got.Notes) != maxNotes+1 {
		t.Errorf("%d lines, %d notes", len(got.Log), len(got.Notes))
	}
	long := &proto.Report{}
	for range 40 {
		long.Log = append(long.Log, &proto.LogLine{Text: strings.Repeat("x", 3000)})
	}
	if got := ReportFromProto(long); len(got.Log) != MaxLogBytes/3000 || len(got.Notes) != 1 {
		t.Errorf("%d lines, %d notes", len(got.Log), len(got.Notes))
	}
}

// FuzzCheckResponse reads what any process may send.
func FuzzCheckResponse(f *testing.F) {
	for _, p := range []*proto.CheckResponse{
		{Status: 1, Message: "m", LatencyUs: 5, State: "s", Metrics: []*proto.Metric{{Name: "a", Value: 1, Warn: "1:2", Crit: "@3"}}},
		{Status: 3, ExpiresAt: timestamppb.Now(), Report: &proto.Report{Log: []*proto.LogLine{{Level: 8, Text: "t"}}, Notes: []string{"n"}}},
		{Error: &proto.Failure{Message: "m"}},
	} {
		data, err := protobuf.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p proto.CheckResponse
		if protobuf.Unmarshal(data, &p) != nil {
			return
		}
		report := ReportFromProto(p.GetReport())
		if len(report.Log) > MaxLogLines || len(report.Notes) > maxNotes+1 {
			t.Errorf("%d lines, %d notes", len(report.Log), len(report.Notes))
		}
		got, err := CheckResponseFromProto(&p)
		if err != nil {
			if !cmp.Equal(got, sdk.CheckResponse{}) || err.Error() == "" {
				t.Errorf("%+v with %q", got, err)
			}
			return
		}
		// What was judged once is as it should be: judged again it is the same, and it can be written as JSON and read.
		again, err := CheckResponseFromProto(CheckResponseToProto(sdk.CheckResponse{Result: got.Result}))
		if err != nil || !cmp.Equal(again.Result, got.Result) || len(again.Notes) > 0 {
			t.Errorf("%q %v %s", again.Notes, err, cmp.Diff(got.Result, again.Result))
		}
	})
}

// FuzzNotifyResponse reads what any process may send.
func FuzzNotifyResponse(f *testing.F) {
	for _, p := range []*proto.NotifyResponse{
		{}, {Error: &proto.Failure{Message: "m\n", Permanent: true, RetryAfterMs: 5}}, {Error: &proto.Failure{RetryAfterMs: -1}},
	} {
		data, err := protobuf.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p proto.NotifyResponse
		if protobuf.Unmarshal(data, &p) != nil {
			return
		}
		got, err := NotifyResponseFromProto(&p)
		if err != nil {
			if got.Err != nil || err.Error() == "" {
				t.Errorf("%v with %q", got.Err, err)
			}
			return
		}
		if (got.Err == nil) != (p.GetError() == nil) {
			t.Fatalf("%v becomes %v", &p, got.Err)
		}
		if got.Err == nil {
			return
		}
		text := got.Err.Error()
		if text == "" || len(text) > sdk.MaxMessage || sdk.CleanText(text, sdk.MaxMessage) != text || sdk.RetryDelay(got.Err) < 0 {
			t.Errorf("%q, again in %v", text, sdk.RetryDelay(got.Err))
		}
		again, err := NotifyResponseFromProto(NotifyResponseToProto(got))
		if err != nil || again.Err == nil || again.Err.Error() != text || sdk.IsPermanent(again.Err) != sdk.IsPermanent(got.Err) || sdk.RetryDelay(again.Err) != sdk.RetryDelay(got.Err) {
			t.Errorf("%v is told again as %v, %v", got.Err, again.Err, err)
		}
	})
}
