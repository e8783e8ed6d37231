package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tocsinhq/tocsin/engine"
	"github.com/tocsinhq/tocsin/engine/alert"
	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/store"
)

// serveTarget answers every request with a short text until it is told to end, and says where on its first line.
func serveTarget(ctx context.Context, _ inputs) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/\n", ln.Addr())
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "all is well\n") // the client may have gone
		}),
	}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bareLoop makes the same requests as the http kind with nothing around them.
func bareLoop(ctx context.Context, in inputs) error {
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		Timeout:   5 * time.Second,
	}
	var f figures
	var checks, failed atomic.Int64
	ctx, cancel := context.WithTimeout(ctx, seconds(in.Seconds))
	defer cancel()
	begin, cpu := time.Now(), cpuSeconds()
	var group sync.WaitGroup
	for range in.Workers {
		group.Go(func() {
			for ctx.Err() == nil {
				if get(ctx, client, in.Target) {
					checks.Add(1)
				} else if ctx.Err() == nil {
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	f.Checks, f.Failed = checks.Load(), failed.Load()
	f.Seconds, f.CPU = time.Since(begin).Seconds(), cpuSeconds()-cpu
	f.RSS = resident()
	return report(f)
}

func get(ctx context.Context, client *http.Client, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// server is an engine over a store, as the program runs them.
type server struct {
	store  *store.Store
	engine *engine.Engine
	ended  chan error
	stop   context.CancelFunc
}

func open(ctx context.Context, in inputs) (*store.Store, error) {
	return store.Open(ctx, filepath.Join(in.Dir, "bench-"+strconv.Itoa(in.Monitors)+"-"+ulid.Make().String()+".db"), store.Options{Plain: true})
}

func startServer(ctx context.Context, s *store.Store, in inputs) (*server, error) {
	watchdog := engine.NewWatchdog()
	alerts, err := alert.NewRegistry(alert.Options{})
	if err != nil {
		return nil, err
	}
	e, err := engine.New(engine.Options{
		Store: s, Outbox: s, Alerts: alerts, Watchdog: watchdog, Workers: in.Workers,
		Checks: check.NewRegistry(check.Options{Gapped: watchdog.Gapped}),
	})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(ctx)
	srv := &server{store: s, engine: e, ended: make(chan error, 1), stop: stop}
	go func() { srv.ended <- e.Run(run) }()
	return srv, nil
}

func (s *server) close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return errors.Join(<-s.ended, s.store.Close(ctx))
}

func create(ctx context.Context, s *store.Store, in inputs) error {
	work := make(chan int)
	var group sync.WaitGroup
	var first atomic.Pointer[error]
	for range 64 {
		group.Go(func() {
			for i := range work {
				if err := s.CreateMonitor(ctx, &monitor.Monitor{
					ID: ulid.Make().String(), Name: fmt.Sprintf("monitor %d", i), Kind: "http", Target: in.Target,
					Interval: in.Interval, Timeout: min(in.Interval, 5*time.Second), RetryInterval: time.Second, Config: json.RawMessage("{}"),
				}); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	for i := range in.Monitors {
		work <- i
	}
	close(work)
	group.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return nil
}

// engineRun checks in.Monitors at in.Interval and measures a window after in.Warm.
func engineRun(ctx context.Context, in inputs) error {
	s, err := open(ctx, in)
	if err != nil {
		return err
	}
	if err := create(ctx, s, in); err != nil {
		return err
	}
	srv, err := startServer(ctx, s, in)
	if err != nil {
		return err
	}
	if err := wait(ctx, in.Warm); err != nil {
		return err
	}
	var f figures
	begin, cpu, before, kept := time.Now(), cpuSeconds(), srv.engine.Stats(), s.Stats()
	if err := wait(ctx, seconds(in.Seconds)); err != nil {
		return err
	}
	after, stored := srv.engine.Stats(), s.Stats()
	f.Seconds, f.CPU = time.Since(begin).Seconds(), cpuSeconds()-cpu
	f.RSS = resident()
	late := after.Lateness.Sub(before.Lateness)
	f.P50, f.P99 = late.Quantile(0.5), late.Quantile(0.99)
	for status, n := range after.Results["http"] {
		n -= before.Results["http"][status]
		f.Checks += n
		if status != int(sdk.Up) {
			f.Failed += n
		}
	}
	f.Expected = float64(in.Monitors) * f.Seconds / in.Interval.Seconds()
	f.Dropped = stored.SamplesDropped - kept.SamplesDropped
	f.Stored = stored.SamplesStored - kept.SamplesStored
	f.Overruns = after.Overruns - before.Overruns
	if err := srv.close(); err != nil {
		return err
	}
	return report(f)
}

// loadRun stores in.Monitors, closes the store, and measures a start from it in a fresh process.
func loadRun(ctx context.Context, in inputs) error {
	path := filepath.Join(in.Dir, "load.db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		s, err := store.Open(ctx, path, store.Options{Plain: true})
		if err != nil {
			return err
		}
		if err := create(ctx, s, in); err != nil {
			return err
		}
		if err := s.Close(ctx); err != nil {
			return err
		}
		cmd, err := self(ctx, "load", in)
		if err != nil {
			return err
		}
		cmd.Stdout = os.Stdout
		return cmd.Run()
	}
	var f figures
	debug.FreeOSMemory()
	f.Base = resident()
	begin := time.Now()
	s, err := store.Open(ctx, path, store.Options{Plain: true})
	if err != nil {
		return err
	}
	srv, err := startServer(ctx, s, in)
	if err != nil {
		return err
	}
	for srv.engine.Healthy() != nil {
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	f.Ready = time.Since(begin)
	for len(srv.engine.Stats().Results) == 0 {
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	f.First = time.Since(begin)
	runtime.GC()
	debug.FreeOSMemory()
	f.RSS = resident()
	if err := srv.close(); err != nil {
		return err
	}
	return report(f)
}

// driveBlackbox asks blackbox_exporter to probe the target, 32 requests at once over kept connections.
func driveBlackbox(ctx context.Context, path string, in inputs) (figures, error) {
	var f figures
	config := filepath.Join(in.Dir, "blackbox.yml")
	const module = "modules:\n  http_2xx:\n    prober: http\n    http: {preferred_ip_protocol: ip4}\n"
	if err := os.WriteFile(config, []byte(module), 0o600); err != nil {
		return f, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return f, err
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, path, "--config.file="+config, "--web.listen-address="+address, "--log.level=error") //nolint:gosec // found by LookPath
	if err := cmd.Start(); err != nil {
		return f, err
	}
	probe := "http://" + address + "/probe?module=http_2xx&target=" + url.QueryEscape(in.Target)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 5 * time.Second}
	for !get(ctx, client, probe) {
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return f, err
		}
	}
	window, cancel := context.WithTimeout(ctx, seconds(in.Seconds))
	defer cancel()
	var checks atomic.Int64
	begin := time.Now()
	cpu := processCPU(cmd.Process.Pid)
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for window.Err() == nil {
				if get(window, client, probe) {
					checks.Add(1)
				}
			}
		})
	}
	group.Wait()
	f.Checks, f.Seconds = checks.Load(), time.Since(begin).Seconds()
	f.CPU = processCPU(cmd.Process.Pid) - cpu
	client.CloseIdleConnections()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait() // it was told to end; how it did says nothing
	return f, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func report(f figures) error { return json.NewEncoder(os.Stdout).Encode(f) }

// cpuSeconds returns the processor time of this process.
func cpuSeconds() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

// processCPU returns the processor time of another process, from /proc/PID/stat (proc(5): utime and stime, in ticks of 10 ms).
func processCPU(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return float64(ticks) / 100
}

// resident returns the resident memory of this process in bytes, from /proc/self/status.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}
