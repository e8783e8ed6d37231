package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestStatusText(t *testing.T) {
	t.Parallel()
	for number, text := range []string{"unknown", "up", "degraded", "down"} {
		s := Status(number)
		written, err := json.Marshal(map[string]Status{"status": s})
		if err != nil || string(written) != `{"status":"`+text+`"}` {
			t.Errorf("status %d is written %s, %v; want %q", number, written, err, text)
		}
		var read map[string]Status
		if err := json.Unmarshal(written, &read); err != nil || read["status"] != s {
			t.Errorf("%s is read as %v, %v", written, read, err)
		}
	}
	if _, err := ParseStatus("UP"); err == nil {
		t.Error(`ParseStatus("UP") did not fail`)
	}
	if got := Status(200).String(); got != "unknown" {
		t.Errorf("a status that does not exist is called %q", got)
	}
}

func TestOutageJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, o := range map[string]Outage{
		`{"id":"a","started_at":"2026-01-02T03:04:05Z","duration_ms":1500}`:                                      {ID: "a", StartedAt: at, Duration: 1500 * time.Millisecond},
		`{"id":"b","started_at":"2026-01-02T03:04:05Z","ended_at":"2026-01-02T04:04:05Z","duration_ms":3600000}`: {ID: "b", StartedAt: at, EndedAt: at.Add(time.Hour), Duration: time.Hour},
	} {
		written, err := json.Marshal(o)
		if err != nil || string(written) != want {
			t.Errorf("written %s, %v; want %s", written, err, want)
		}
		var read Outage
		if err := json.Unmarshal(written, &read); err != nil || read != o {
			t.Errorf("read %+v, %v; want %+v", read, err, o)
		}
	}
	if err := json.Unmarshal([]byte(`{"duration_ms":"x"}`), &Outage{}); err == nil {
		t.Error("a duration that is no number was read")
	}
}

func TestErrorMarks(t *testing.T) {
	t.Parallel()
	cause := errors.New("no such user")
	err := fmt.Errorf("send: %w", Permanent(cause))
	if !IsPermanent(err) || !errors.Is(err, cause) || err.Error() != "send: no such user" {
		t.Errorf("a permanent error is %v, permanent %v", err, IsPermanent(err))
	}
	slow := fmt.Errorf("send: %w", RetryAfter(cause, time.Minute))
	if IsPermanent(slow) || RetryDelay(slow) != time.Minute || !errors.Is(slow, cause) {
		t.Errorf("a retry error is %v, permanent %v, delay %s", slow, IsPermanent(slow), RetryDelay(slow))
	}
	if Permanent(nil) != nil || RetryAfter(nil, time.Second) != nil || IsPermanent(cause) || RetryDelay(cause) != 0 {
		t.Error("what is not marked counts as marked, or nil became an error")
	}
}
