package monitor

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDurationText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                       "0s",
		30 * time.Second:        "30s",
		5 * time.Minute:         "5m",
		time.Hour:               "1h",
		90 * time.Minute:        "1h30m",
		time.Hour + time.Second: "1h0m1s",
		-10 * time.Minute:       "-10m",
		1500 * time.Millisecond: "1.5s",
		10 * time.Hour:          "10h",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	var d Duration
	if err := json.Unmarshal([]byte(`"later"`), &d); err == nil {
		t.Error("\"later\" was read as a duration")
	}
}

func TestDurationRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Duration(rapid.Int64().Draw(t, "ns"))
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Duration
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Fatalf("%d was written as %s and read as %d (%v)", want, text, got, err)
		}
	})
}
