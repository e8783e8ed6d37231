package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestCheckRequestJSON(t *testing.T) {
	t.Parallel()
	req := CheckRequest{
		Monitor: Ref{ID: "01J", Name: "cache", Labels: map[string]string{"env": "prod"}}, Target: "redis.example.com:6379",
		Timeout: 5 * time.Second, Attempt: 1, State: "s", Config: json.RawMessage(`{"db":3}`),
	}
	const want = `{"api":1,"call":"check","monitor":{"id":"01J","name":"cache","labels":{"env":"prod"}},"target":"redis.example.com:6379",` +
		`"config":{"db":3},"timeout_ms":5000,"attempt":1,"state":"s"}`
	written, err := json.Marshal(req)
	if err != nil || string(written) != want {
		t.Errorf("written %s, %v\nwant    %s", written, err, want)
	}
	var read CheckRequest
	if err := json.Unmarshal(written, &read); err != nil || !reflect.DeepEqual(read, req) {
		t.Errorf("read %+v, %v, want %+v", read, err, req)
	}
	short, err := json.Marshal(CheckRequest{Timeout: time.Microsecond})
	if err != nil || !strings.Contains(string(short), `"timeout_ms":1,`) || !strings.Contains(string(short), `"config":{}`) {
		t.Errorf("a short timeout and no config are written %s, %v", short, err)
	}
	for text, want := range map[string]string{
		`{"api":2,"call":"check"}`:                 "api is 2, this plugin speaks 1",
		`{"call":"check"}`:                         "api is 0",
		`{"api":1,"call":"notify"}`:                `call is "notify", want "check"`,
		`{"api":1,"call":"check","timeout_ms":""}`: "timeout_ms",
	} {
		if err := json.Unmarshal([]byte(text), &read); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is read with %v, want an error with %q", text, err, want)
		}
	}
}

func TestCheckResponseJSON(t *testing.T) {
	t.Parallel()
	result := Result{
		Status: Degraded, Message: "slow", Latency: 1234 * time.Microsecond, State: "next",
		Metrics:   []Metric{{Name: "connected_clients", Value: 42, Unit: "1", Warn: "@50:60", Crit: "100"}},
		ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	const want = `{"status":"degraded","message":"slow","latency_us":1234,"metrics":[{"name":"connected_clients","value":42,"unit":"1",` +
		`"warn":"@50:60","crit":"100"}],"expires_at":"2027-01-01T00:00:00Z","state":"next"}`
	written, err := json.Marshal(CheckResponse{Result: result})
	if err != nil || string(written) != want {
		t.Errorf("written %s, %v\nwant    %s", written, err, want)
	}
	read, err := ParseCheckResponse(written)
	if err != nil || !reflect.DeepEqual(read, CheckResponse{Result: result}) {
		t.Errorf("read %+v, %v", read, err)
	}
	odd, err := json.Marshal(CheckResponse{Result: Result{Metrics: []Metric{{Name: "a", Value: math.NaN()}, {Name: "b", Value: math.Inf(-1)}, {Name: "c"}}}})
	if err != nil || string(odd) != `{"status":"unknown","metrics":[{"name":"c","value":0}]}` {
		t.Errorf("metrics that are no numbers are written %s, %v", odd, err)
	}
}

func TestCheckResponseFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                   "nothing was written; one JSON object is expected",
		`up`:                                 "what was written is no JSON: invalid character 'u' looking for beginning of value",
		`[]`:                                 "what was written must be one JSON object, is a list",
		`null`:                               "what was written must be one JSON object, is null",
		`{"status":"up"} {}`:                 "what was written is no JSON: invalid character '{' after top-level value",
		`{}`:                                 "status: is missing; it must be up, degraded, down or unknown",
		`{"status":null}`:                    "status: is missing; it must be up, degraded, down or unknown",
		`{"status":1}`:                       "status: must be a string, is a number",
		`{"status":"UP"}`:                    `status: must be up, degraded, down or unknown, is "UP"`,
		`{"status":"up","message":[1]}`:      "message: must be a string, is a list",
		`{"status":"up","latency_us":"5"}`:   "latency_us: must be a number, is a string",
		`{"status":"up","latency_us":-5}`:    "latency_us: must be between 0 and 86400000000, is -5",
		`{"status":"up","latency_us":0.5}`:   "latency_us: must be a whole number of at most 86400000000, is 0.5",
		`{"status":"up","latency_us":1e999}`: "latency_us: must be a whole number of at most 86400000000, is 1e999",
		`{"status":"up","metrics":{}}`:       "metrics: must be a list, is an object",
		`{"status":"up","metrics":[null]}`:   "metrics[0]: must be an object, is null",
		`{"status":"up","metrics":[{"name":"a","value":1},{"name":5,"value":""}],"state":1}`: "metrics[1].name: must be a string, is a number",
		`{"status":"up","metrics":[{"value":1}]}`:                                            "metrics[0].name: is missing",
		`{"status":"up","metrics":[{"name":"a"}]}`:                                           "metrics[0].value: is missing",
		`{"status":"up","metrics":[{"name":"a","value":true}]}`:                              "metrics[0].value: must be a number, is true or false",
		`{"status":"up","metrics":[{"name":"a","value":1,"warn":10}]}`:                       "metrics[0].warn: must be a string, is a number",
		`{"status":"up","metrics":[{"name":"a","value":1,"crit":"9:1"}]}`:                    `metrics[0].crit: range "9:1": start must not be above end`,
		`{"status":"up","expires_at":"tomorrow"}`:                                            `expires_at: must be a time such as 2027-01-01T00:00:00Z, is "tomorrow"`,
		`{"status":"up","state":{}}`:                                                         "state: must be a string, is an object",
	} {
		if _, err := ParseCheckResponse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s is read with\n%v, want\n%s", text, err, want)
		}
	}
}

func TestCheckResponseIsLenient(t *testing.T) {
	t.Parallel()
	many := make([]string, 120)
	for i := range many {
		many[i] = fmt.Sprintf(`{"name":"m%d","value":%d}`, i, i)
	}
	for name, tt := range map[string]struct {
		text  string
		want  Result
		notes []string
	}{
		"unknown fields": {`{"status":"up","more":{"a":[1]},"Message":"x"}`, Result{Status: Up}, nil},
		"nulls":          {`{"status":"up","message":null,"latency_us":null,"metrics":null,"expires_at":null,"state":null}`, Result{Status: Up}, nil},
		"whole floats":   {`{"status":"up","latency_us":1.5e3}`, Result{Status: Up, Latency: 1500 * time.Microsecond}, nil},
		"control characters": {
			`{"status":"down","message":"a\u0000b\u001b[31m\nc` + "\xff" + `\u202e"}`, Result{Status: Down, Message: "ab[31m c"}, nil,
		},
		"a long message": {
			`{"status":"up","message":"` + strings.Repeat("é", 600) + `"}`,
			Result{Status: Up, Message: strings.Repeat("é", 510) + "…"},
			[]string{"the message of 1200 bytes was cut to 1024"},
		},
		"a long state": {
			`{"status":"up","state":"` + strings.Repeat("s", 4097) + `"}`,
			Result{Status: Up},
			[]string{"the state of 4097 bytes was dropped; at most 4096 are kept"},
		},
		"numbers that are none": {
			`{"status":"up","message":"NaN \" NaN","metrics":[{"name":"a","value":NaN},{"name":"b","value":-Infinity},{"name":"c","value":1e999},{"name":"d","value":"Infinity"},{"name":"e","value":7}]}`,
			Result{Status: Up, Message: `NaN " NaN`, Metrics: []Metric{{Name: "e", Value: 7}}},
			[]string{
				`metric "a" was dropped: its value is no finite number`, `metric "b" was dropped: its value is no finite number`,
				`metric "c" was dropped: its value is no finite number`, `metric "d" was dropped: its value is no finite number`,
			},
		},
		"ranges that hold": {
			`{"status":"up","metrics":[{"name":"a","value":1,"warn":"5","crit":"10"}]}`,
			Result{Status: Up, Metrics: []Metric{{Name: "a", Value: 1, Warn: "5", Crit: "10"}}},
			nil,
		},
		"a warning": {
			`{"status":"up","message":"fine","metrics":[{"name":"a","value":6,"unit":"ms","warn":"5","crit":"10"}]}`,
			Result{Status: Degraded, Message: "fine; a is 6 ms (warn 5)", Metrics: []Metric{{Name: "a", Value: 6, Unit: "ms", Warn: "5", Crit: "10"}}},
			[]string{"the status up was raised to degraded: a is 6 ms (warn 5)"},
		},
		"the worst counts": {
			`{"status":"degraded","metrics":[{"name":"a","value":6,"warn":"5"},{"name":"b","value":2,"unit":"1","crit":"@1:3"}]}`,
			Result{Status: Down, Message: "b is 2 (crit @1:3)", Metrics: []Metric{{Name: "a", Value: 6, Warn: "5"}, {Name: "b", Value: 2, Unit: "1", Crit: "@1:3"}}},
			[]string{"the status degraded was raised to down: b is 2 (crit @1:3)"},
		},
		"down is not lowered": {
			`{"status":"down","message":"m","metrics":[{"name":"a","value":6,"warn":"5"}]}`,
			Result{Status: Down, Message: "m", Metrics: []Metric{{Name: "a", Value: 6, Warn: "5"}}},
			nil,
		},
		"unknown stays": {
			`{"status":"unknown","metrics":[{"name":"a","value":6,"crit":"5"}]}`,
			Result{Metrics: []Metric{{Name: "a", Value: 6, Crit: "5"}}},
			nil,
		},
	} {
		got, err := ParseCheckResponse([]byte(tt.text))
		if err != nil || !reflect.DeepEqual(got.Result, tt.want) || !reflect.DeepEqual(got.Notes, tt.notes) {
			t.Errorf("%s: %+v, %v\nwant %+v %q", name, got, err, tt.want, tt.notes)
		}
	}
	got, err := ParseCheckResponse([]byte(`{"status":"up","metrics":[` + strings.Join(many, ",") + `]}`))
	if err != nil || len(got.Result.Metrics) != 100 || len(got.Notes) != 1 || got.Notes[0] != "of 120 metrics the first 100 were kept" {
		t.Errorf("of 120 metrics %d are kept, %q, %v", len(got.Result.Metrics), got.Notes, err)
	}
}

func TestNotifyJSON(t *testing.T) {
	t.Parallel()
	req := NotifyRequest{Config: json.RawMessage(`{"to":"x"}`), Timeout: 1500 * time.Millisecond, Notification: Notification{ID: "e", Transition: WentDown, Monitor: Ref{ID: "m", Name: "n"}, Text: "t"}}
	written, err := json.Marshal(req)
	if err != nil || !strings.HasPrefix(string(written), `{"api":1,"call":"notify","config":{"to":"x"},"notification":{"id":"e","transition":"down",`) {
		t.Errorf("written %s, %v", written, err)
	}
	var read NotifyRequest
	if err := json.Unmarshal(written, &read); err != nil || !reflect.DeepEqual(read, req) {
		t.Errorf("read %+v, %v", read, err)
	}
	if err := json.Unmarshal([]byte(`{"api":1,"call":"check"}`), &read); err == nil {
		t.Error("a check was read as a notification")
	}
	for text, want := range map[string]string{
		`{}`:                     "ok: must be true unless there is an error",
		`{"ok":false}`:           "ok: must be true unless there is an error",
		`{"ok":"yes"}`:           "ok: must be true or false, is a string",
		`{"ok":true,"error":{}}`: "ok: is true although there is an error",
		`{"error":"no"}`:         "error: must be an object, is a string",
		`{"error":{"message":"m","retry_after_ms":-1}}`: "error.retry_after_ms: must be between 0 and 86400000, is -1",
		`{"error":{"permanent":1}}`:                     "error.permanent: must be true or false, is a number",
	} {
		if _, err := ParseNotifyResponse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s is read with %v, want %s", text, err, want)
		}
	}
	cause := errors.New("no such\nuser")
	for want, err := range map[string]error{
		`{"ok":true}`: nil,
		`{"error":{"message":"no such user","permanent":false,"retry_after_ms":0}}`:    cause,
		`{"error":{"message":"no such user","permanent":true,"retry_after_ms":0}}`:     Permanent(cause),
		`{"error":{"message":"no such user","permanent":false,"retry_after_ms":1500}}`: RetryAfter(cause, 1500*time.Millisecond),
	} {
		written, werr := json.Marshal(NotifyResponse{Err: err})
		if werr != nil || string(written) != want {
			t.Errorf("%v is written %s, %v, want %s", err, written, werr, want)
		}
		var read NotifyResponse
		if rerr := json.Unmarshal(written, &read); rerr != nil || (read.Err == nil) != (err == nil) || IsPermanent(read.Err) != IsPermanent(err) || RetryDelay(read.Err) != RetryDelay(err) {
			t.Errorf("%s is read as %v, %v", written, read.Err, rerr)
		}
	}
	if n, err := ParseNotifyResponse([]byte(`{"error":{}}`)); err != nil || n.Err == nil || n.Err.Error() != "the plugin gave no reason" {
		t.Errorf("an empty error is read as %v, %v", n.Err, err)
	}
}

func FuzzCheckResponse(f *testing.F) {
	for _, seed := range []string{
		`{"status":"up","message":"ok","latency_us":1234,"metrics":[{"name":"a","value":42,"unit":"1","warn":"@10:20","crit":"100"}],"expires_at":"2027-01-01T00:00:00Z","state":"s"}`,
		`{"status":"up","metrics":[{"name":"a","value":NaN}]}`, `{"status":"down","message":"\ud800\u0000"}`, `{"status":1}`, `{"status":"up","latency_us":1e400}`, ``, `null`, `"`, `{"a":"\`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseCheckResponse(data)
		if err != nil {
			if !reflect.DeepEqual(got, CheckResponse{}) || len(err.Error()) > 1000 || !utf8.ValidString(err.Error()) {
				t.Errorf("%q: %+v with error %q", data, got, err)
			}
			return
		}
		r := got.Result
		if len(r.Message) > MaxMessage || !utf8.ValidString(r.Message) || strings.ContainsFunc(r.Message, unicode.IsControl) {
			t.Errorf("%q: message %q", data, r.Message)
		}
		if len(r.State) > MaxState || len(r.Metrics) > MaxMetrics || r.Latency < 0 || r.Status > Down {
			t.Errorf("%q: %+v is out of bounds", data, r)
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatalf("%q: %+v cannot be written: %v", data, r, err)
		}
		again, err := ParseCheckResponse(written)
		if err != nil || !reflect.DeepEqual(again.Result.Metrics, r.Metrics) || again.Result.Status != r.Status || again.Result.Message != r.Message || again.Result.State != r.State {
			t.Errorf("%q: %s is read again as %+v, %v", data, written, again, err)
		}
	})
}

func FuzzNotifyResponse(f *testing.F) {
	f.Add([]byte(`{"ok":true}`))
	f.Add([]byte(`{"error":{"message":"m","permanent":true,"retry_after_ms":5}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseNotifyResponse(data)
		if err == nil && got.Err != nil && (len(got.Err.Error()) > MaxMessage || !utf8.ValidString(got.Err.Error())) {
			t.Errorf("%q: %q", data, got.Err)
		}
	})
}
