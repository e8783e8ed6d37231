package check

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// targetProcess starts the HTTP server of the benchmarks in a process of its own, so that only the client's CPU is counted.
func targetProcess(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTargetProcess$")
	cmd.Env = append(os.Environ(), "CHECK_TARGET_PROCESS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return "http://" + strings.TrimSpace(line) + "/"
}

// TestTargetProcess is the body of the benchmarks' target process; by itself it checks that the target answers.
func TestTargetProcess(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.WriteString(w, `{"ok":true}`); err != nil {
			t.Error(err)
		}
	})}
	go server.Serve(ln)
	defer server.Close()
	if os.Getenv("CHECK_TARGET_PROCESS") == "1" {
		if _, err := os.Stdout.WriteString(ln.Addr().String() + "\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			t.Fatal(err)
		}
		return
	}
	result := mustCheck(t, newRegistry(t), Spec{Kind: "http", Target: "http://" + ln.Addr().String()})
	if result.Status != sdk.Up {
		t.Fatalf("the target gives %+v", result)
	}
}

// BenchmarkHTTP compares a check with a bare net/http loop that makes a fresh connection for each request.
func BenchmarkHTTP(b *testing.B) {
	target := targetProcess(b)
	b.Run("bare", func(b *testing.B) {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		b.ReportAllocs()
		cpu := cpuTime(b)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				resp, err := client.Get(target)
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Error(err)
				}
				resp.Body.Close()
			}
		})
		b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	})
	for _, bench := range []struct {
		name string
		spec Spec
	}{
		{"check", Spec{Kind: "http", Target: target}},
		{"rules", Spec{Kind: "http", Target: target, Assert: []string{"json.ok == true", "latency < 5s"}}},
		{"tcp", Spec{Kind: "tcp", Target: strings.TrimSuffix(strings.TrimPrefix(target, "http://"), "/")}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			checker, err := newRegistry(b).New(bench.spec)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			cpu := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
					result, err := checker.Check(ctx, sdk.CheckRequest{Timeout: 5 * time.Second})
					cancel()
					if err != nil || result.Status != sdk.Up {
						b.Errorf("%+v %v", result, err)
						return
					}
				}
			})
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkNew reports the memory that a monitor's checker holds.
func BenchmarkNew(b *testing.B) {
	r := newRegistry(b)
	checkers := make([]Checker, 0, b.N)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range b.N {
		c, err := r.New(Spec{Kind: "http", Target: "http://10.0." + string(rune('0'+i%10)) + ".1/health"})
		if err != nil {
			b.Fatal(err)
		}
		checkers = append(checkers, c)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "held-B/op")
	runtime.KeepAlive(checkers)
}

func BenchmarkRules(b *testing.B) {
	r := newRegistry(b)
	kind, _ := r.Kind("http")
	one, err := compileRule(kind.variables, "status == 200 and latency < 300ms")
	if err != nil {
		b.Fatal(err)
	}
	rules := &rules{assert: []*rule{one}, need: one.need}
	b.ReportAllocs()
	for b.Loop() {
		s := seen{Result: sdk.Result{Status: sdk.Up, Code: 200}}
		rules.apply(&s)
		if s.Status != sdk.Up {
			b.Fatal(s.Message)
		}
	}
}
