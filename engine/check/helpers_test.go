package check

import (
	"context"
	"io"
	"log"
	"syscall"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// newRegistry returns a registry that is closed with the test.
func newRegistry(t testing.TB) *Registry {
	t.Helper()
	r := NewRegistry(Options{})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

const testTimeout = 5 * time.Second

// tryCheck makes one check.
func tryCheck(t testing.TB, r *Registry, s Spec, timeout time.Duration) (sdk.Result, error) {
	t.Helper()
	checker, err := r.New(s)
	if err != nil {
		t.Fatalf("New(%+v): %v", s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return checker.Check(ctx, sdk.CheckRequest{Target: s.Target, Timeout: timeout, Attempt: 1})
}

// mustCheck makes one check that must give a result.
func mustCheck(t testing.TB, r *Registry, s Spec) sdk.Result {
	t.Helper()
	result, err := tryCheck(t, r, s, testTimeout)
	if err != nil {
		t.Fatalf("check %s %s: %v", s.Kind, s.Target, err)
	}
	return result
}

// cpuTime is the CPU time that this process has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
