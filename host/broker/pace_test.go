//go:build unix

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := pace{rate: 100, burst: 300}.full()
		start := time.Now()
		after := func(what string, want time.Duration) {
			t.Helper()
			if got := time.Since(start).Round(time.Millisecond); got != want {
				t.Errorf("%s after %v, want %v", what, got, want)
			}
			start = time.Now()
		}
		take := func(times int, n float64) {
			t.Helper()
			for range times {
				if _, err := b.take(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
		}
		take(300, 1)
		after("a burst is over", 0)
		take(200, 1)
		after("200 more are over", 2*time.Second)
		take(1, 50)
		after("a large one is over", 500*time.Millisecond)

		for range 1000 { // an honest plugin, just below its pace
			time.Sleep(10 * time.Millisecond)
			if waited, err := b.take(t.Context(), 1); waited || err != nil {
				t.Fatalf("it waited: %v, %v", waited, err)
			}
		}
		after("what keeps to its pace is over", 10*time.Second)

		time.Sleep(time.Hour)
		start = time.Now()
		take(300, 1)
		after("no more than a burst is saved up, which is over", 0)
		take(1, 1)
		after("the one behind it is over", 10*time.Millisecond)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if waited, err := b.take(ctx, 1000); !waited || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that ends: %v, %v", waited, err)
		}
		after("it ends", time.Second)
	})
}

// TestFlood: a runner that sends without end is read only at its pace. What it sends stays in the socket until it has to wait.
func TestFlood(t *testing.T) {
	t.Parallel()
	const burst = 20
	var told, asked atomic.Int64
	calls := oneCall(t, "a.example:1")
	s := NewServer(ServerOptions{
		Told: func(json.RawMessage) { told.Add(1) },
		Calls: func(id uint64) (Call, bool) {
			asked.Add(1)
			return calls(id)
		},
	})
	s.pace = pace{rate: 1e-6, burst: burst}
	server, runner := connPair(t)
	runner.patience = 200 * time.Millisecond
	client := NewClient(runner)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, server) }()
	go client.Run()
	other := accessOf(t, "tcp://other:1")
	for range burst / 2 { // what is answered counts as well
		if _, err := client.For(1).Dial(timed(t), other); kindOf(err) != Denied {
			t.Fatalf("dial: %v, want denied", err)
		}
	}
	before := asked.Load()
	var err error
	for sent := 0; err == nil; sent++ {
		if err = client.Tell("once more"); sent > 1<<20 {
			t.Fatal("a runner can send without end")
		}
	}
	cancel() // in the middle of the wait
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if told.Load() != burst/2 || asked.Load() != before {
		t.Errorf("%d notes were taken, %d requests; want %d, 0", told.Load(), asked.Load()-before, burst/2)
	}
}

// TestCost: long messages count for more, since they take longer to read.
func TestCost(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]float64{1: 1, 4095: 1, 4096: 2, maxRequest: 17} {
		if got := costOf(size); got != want {
			t.Errorf("%d bytes count for %v, want %v", size, got, want)
		}
	}
}
