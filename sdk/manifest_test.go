package sdk

import (
	"encoding/json"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{"32MiB": 32 * MiB, "1GiB": GiB, "1024KiB": MiB, "0B": 0, "7B": 7} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%d is written %q and read as %d, %v", got, got.String(), again, err)
		}
	}
	for _, text := range []string{"", "32", "MiB", "32MB", "32 MiB", "-1MiB", "1.5MiB", "9999999999GiB", "18446744073709551616B", "32MiBx", "é"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestDurationText(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{"10s": 10 * time.Second, "1m": time.Minute, "1h": time.Hour, "10h30m": 630 * time.Minute, "1m30s": 90 * time.Second, "0s": 0, "100ms": 100 * time.Millisecond} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
		var read Duration
		if err := read.UnmarshalText([]byte(want)); err != nil || time.Duration(read) != d {
			t.Errorf("%q is read as %v, %v", want, read, err)
		}
	}
	for _, text := range []string{"", "10", "-1s", "x"} {
		var read Duration
		if err := read.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %v, want an error", text, read)
		}
	}
}

func TestManifestJSON(t *testing.T) {
	t.Parallel()
	m := Manifest{API: 1, Name: "x", Version: "1.0.0", Summary: "s", Provides: []string{"check"}, Runtime: "wasm", Entry: Files{One: "x.wasm"}}
	written, err := json.Marshal(m)
	const want = `{"api":1,"name":"x","version":"1.0.0","summary":"s","provides":["check"],"runtime":"wasm","entry":"x.wasm"}`
	if err != nil || string(written) != want {
		t.Errorf("written %s, %v\nwant    %s", written, err, want)
	}
	var read Manifest
	if err := json.Unmarshal([]byte(`{"entry":{"linux/amd64":"a"},"limits":{"memory":"1MiB","timeout":"2s"}}`), &read); err != nil {
		t.Fatal(err)
	}
	if file, ok := read.Entry.For("linux/amd64"); !ok || file != "a" || read.Limits.Memory != MiB || time.Duration(read.Limits.Timeout) != 2*time.Second {
		t.Errorf("read %+v", read)
	}
	if _, ok := read.Entry.For("linux/arm64"); ok || read.Entry.IsZero() || !m.Provided("check") || m.Provided("notify") {
		t.Error("a platform or a call was found that is not there")
	}
	if got := (Limits{Memory: MiB}).WithDefaults(); got != (Limits{Memory: MiB, Timeout: DefaultTimeout, Concurrency: DefaultConcurrency}) {
		t.Errorf("limits with defaults are %+v", got)
	}
}
