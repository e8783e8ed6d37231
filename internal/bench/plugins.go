package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host"
	"github.com/tocsinhq/tocsin/host/process"
	"github.com/tocsinhq/tocsin/sdk"
	wire "github.com/tocsinhq/tocsin/sdk/process"
)

// guestLimits are those of every guest that is measured.
const guestLimits = "limits: {concurrency: 32, timeout: 5s}\n"

// maker makes one call and reports what failed.
type maker func(ctx context.Context) error

// workbench is what the parts of the plugin benchmark share.
type workbench struct {
	dir     string
	window  time.Duration
	host    *host.Host
	request sdk.CheckRequest
	text    []byte // the request as a guest reads it
}

// plugins compares calls of sandboxed plugins with the other ways to run somebody's code.
func plugins(ctx context.Context, in inputs) (err error) {
	w := &workbench{dir: in.Dir, window: min(seconds(in.Seconds), 5*time.Second), request: sdk.CheckRequest{
		Monitor: sdk.Ref{ID: "01J00000000000000000000000", Name: "bench", Kind: "bench", Target: "bench.example.com:7"},
		Target:  "bench.example.com:7", Timeout: 5 * time.Second, Attempt: 1, Config: json.RawMessage(`{"greeting":"hello"}`),
	}}
	if w.text, err = json.Marshal(w.request); err != nil {
		return err
	}
	program, err := filepath.Abs("bin/tocsin")
	if err != nil {
		return err
	}
	w.host, err = host.New(ctx, host.Options{Dir: filepath.Join(in.Dir, "plugins"), Records: &shelf{}, Program: []string{program}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.host.Close(context.WithoutCancel(ctx))) }()
	if err := w.build(ctx); err != nil {
		return err
	}
	fmt.Printf("calls of a plugin with a request of %d bytes; windows of %s, medians of %d rounds\n\n", len(w.text), w.window, in.Rounds)
	if err := w.calls(ctx, in.Rounds); err != nil {
		return err
	}
	if err := w.memory(ctx); err != nil {
		return err
	}
	return w.gaps(ctx)
}

// build makes the guests and installs them.
func (w *workbench) build(ctx context.Context) error {
	source := filepath.Join("internal", "bench", "testdata")
	for _, tool := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"clang", "--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-s", "-o", w.in("c.wasm"), filepath.Join(source, "c", "guest.c")}},
		{nil, []string{"gcc", "-O2", "-static", "-o", w.in("native"), filepath.Join(source, "c", "guest.c")}},
		{[]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, []string{"go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", w.in("go.wasm"), "./" + filepath.Join(source, "goguest")}},
	} {
		cmd := exec.CommandContext(ctx, tool.args[0], tool.args[1:]...) //nolint:gosec // the tools of the benchmark
		cmd.Env = append(os.Environ(), tool.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build a guest: %w\n%s", err, out)
		}
	}
	for name, file := range map[string]string{
		"bench-c": w.in("c.wasm"), "bench-go": w.in("go.wasm"),
		"bench-js": filepath.Join(source, "js", "check.js"), "bench-hostile": filepath.Join(source, "hostile", "check.js"),
	} {
		if err := w.install(ctx, name, file); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
	}
	return nil
}

func (w *workbench) in(name string) string { return filepath.Join(w.dir, name) }

func (w *workbench) install(ctx context.Context, name, file string) error {
	dir, err := os.MkdirTemp(w.dir, "plugin-")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	entry, field := "check.wasm", "entry"
	if filepath.Ext(file) == ".js" {
		entry, field = "check.js", "script"
	}
	manifest := "api: 1\nname: " + name + "\nversion: 1.0.0\nsummary: a guest of the benchmark\nprovides: [check]\nruntime: wasm\n" +
		field + ": " + entry + "\n" + guestLimits
	if err := errors.Join(os.WriteFile(filepath.Join(dir, entry), data, 0o600),
		os.WriteFile(filepath.Join(dir, sdk.ManifestFile), []byte(manifest), 0o600)); err != nil {
		return err
	}
	var packed bytes.Buffer
	if err := host.Pack(dir, &packed); err != nil {
		return err
	}
	_, err = w.host.Install(ctx, &packed, monitor.PluginInstall{Grant: true, By: "bench"})
	return err
}

// way is one way to run somebody's code.
type way struct {
	name string
	call maker
	end  func()
}

// ways lists what is compared.
func (w *workbench) ways(ctx context.Context) ([]way, error) {
	var all []way
	for _, g := range []struct{ name, plugin string }{{"sandboxed C", "bench-c"}, {"sandboxed Go", "bench-go"}, {"sandboxed JavaScript", "bench-js"}} {
		c, err := w.host.Checker(g.plugin)
		if err != nil {
			return nil, err
		}
		all = append(all, way{g.name, func(ctx context.Context) error { return up(c.Check(ctx, w.request)) }, func() {}})
	}
	all = append(all, way{"fork and exec of static C", func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, w.in("native")) //nolint:gosec // built above
		cmd.Stdin = bytes.NewReader(w.text)
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		r, err := sdk.ParseCheckResponse(out)
		return up(r.Result, err)
	}, func() {}})
	for _, g := range []struct{ name, file string }{{"C instantiated per call", "c.wasm"}, {"Go instantiated per call", "go.wasm"}} {
		fresh, err := w.instantiating(ctx, w.in(g.file))
		if err != nil {
			return nil, err
		}
		fresh.name = g.name
		all = append(all, fresh)
	}
	native, err := w.native(ctx)
	return append(all, native), err
}

func up(r sdk.Result, err error) error {
	if err == nil && r.Status != sdk.Up {
		err = fmt.Errorf("the answer is %s: %s", r.Status, r.Message)
	}
	return err
}

// instantiating runs a module in this process, instantiated anew for each call.
func (w *workbench) instantiating(ctx context.Context, file string) (way, error) {
	module, err := os.ReadFile(file)
	if err != nil {
		return way{}, err
	}
	runtime := wazero.NewRuntime(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, runtime)
	compiled, err := runtime.CompileModule(ctx, module)
	if err != nil {
		return way{}, err
	}
	return way{call: func(ctx context.Context) error {
		var out bytes.Buffer
		config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").WithStdin(bytes.NewReader(w.text)).WithStdout(&out).
			WithSysWalltime().WithSysNanotime()
		m, err := runtime.InstantiateModule(ctx, compiled, config)
		if err != nil {
			return err
		}
		_, err = m.ExportedFunction("check").Call(ctx)
		if err = errors.Join(err, m.Close(ctx)); err != nil {
			return err
		}
		r, err := sdk.ParseCheckResponse(out.Bytes())
		return up(r.Result, err)
	}, end: func() { _ = runtime.Close(ctx) }}, nil
}

// native runs a go-plugin process without any sandbox: this program, as an author would write it.
func (w *workbench) native(ctx context.Context) (way, error) {
	self, err := os.Executable()
	if err != nil {
		return way{}, err
	}
	sockets, err := os.MkdirTemp("", "tocsin-bench-")
	if err != nil {
		return way{}, err
	}
	spawner := process.NewSpawner()
	p, err := process.Start(ctx, process.Options{Spawner: spawner, Command: []string{self, "plugin", "{}"}, SocketDir: sockets})
	if err != nil {
		return way{}, err
	}
	return way{"go-plugin process, no sandbox", func(ctx context.Context) error {
		answer, err := p.Check(ctx, wire.CheckRequestToProto(w.request))
		if err != nil {
			return err
		}
		r, err := wire.CheckResponseFromProto(answer)
		return up(r.Result, err)
	}, func() {
		_ = p.Close(ctx)
		spawner.Close()
		_ = os.RemoveAll(sockets)
	}}, nil
}

// servePlugin is the other side of native.
func servePlugin(context.Context, inputs) error {
	wire.ServePlugin(sdk.Plugin{Check: func(_ context.Context, r sdk.CheckRequest) (sdk.Result, error) {
		return sdk.Result{Status: sdk.Up, Message: "read it", Metrics: []sdk.Metric{{Name: "bytes", Value: float64(len(r.Config))}}}, nil
	}})
	return nil
}

// pace is what one way did in one window.
type pace struct {
	rate     float64
	p50, p99 time.Duration
}

func (w *workbench) calls(ctx context.Context, rounds int) error {
	ways, err := w.ways(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, x := range ways {
			x.end()
		}
	}()
	medians := map[string]pace{}
	fmt.Println("way                             in flight    calls/s    p50 µs     p99 µs")
	for _, flight := range []int{1, 32} {
		runs := make([][]pace, len(ways))
		for range rounds {
			for i, x := range ways { // side by side, so that a machine that drifts does so for all
				p, err := w.drive(ctx, x.call, flight)
				if err != nil {
					return fmt.Errorf("%s: %w", x.name, err)
				}
				runs[i] = append(runs[i], p)
			}
		}
		for i, x := range ways {
			slices.SortFunc(runs[i], func(a, b pace) int { return int(a.rate - b.rate) })
			m := runs[i][len(runs[i])/2]
			medians[fmt.Sprint(x.name, flight)] = m
			fmt.Printf("%-30s  %9d  %9.0f  %8d  %9d\n", x.name, flight, m.rate, m.p50.Microseconds(), m.p99.Microseconds())
		}
	}
	ratio := func(a, b string, flight int) float64 {
		return medians[fmt.Sprint(a, flight)].rate / medians[fmt.Sprint(b, flight)].rate
	}
	fmt.Println()
	for _, flight := range []int{1, 32} {
		fmt.Printf("%2d in flight: C %.1f times and JavaScript %.1f times the calls/s of fork and exec (asked: 8 and 2), Go %.1f times those of\n"+
			"instantiating for every call (asked: 10); C %.2f and Go %.2f of a go-plugin process without a sandbox\n", flight,
			ratio("sandboxed C", "fork and exec of static C", flight), ratio("sandboxed JavaScript", "fork and exec of static C", flight),
			ratio("sandboxed Go", "Go instantiated per call", flight), ratio("sandboxed C", "go-plugin process, no sandbox", flight),
			ratio("sandboxed Go", "go-plugin process, no sandbox", flight))
	}
	fmt.Printf("p50 of a C call with one in flight: %d µs (asked: 250)\n\n", medians["sandboxed C1"].p50.Microseconds())
	return nil
}

// drive makes calls for a window, with so many in flight, after a short warm-up.
func (w *workbench) drive(ctx context.Context, call maker, flight int) (pace, error) {
	for range 2 * flight {
		if err := call(ctx); err != nil {
			return pace{}, err
		}
	}
	var wg sync.WaitGroup
	took := make([][]time.Duration, flight)
	failed := make([]error, flight)
	began := time.Now()
	end := began.Add(w.window)
	for i := range flight {
		wg.Go(func() {
			for at := time.Now(); at.Before(end); {
				if err := call(ctx); err != nil {
					failed[i] = err
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(at))
				at = now
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		return pace{}, errors.Join(failed...)
	}
	return pace{float64(len(all)) / time.Since(began).Seconds(), all[len(all)/2], all[len(all)*99/100]}, errors.Join(failed...)
}

// memory measures the resident memory of a runner with one instance and with 32.
func (w *workbench) memory(ctx context.Context) error {
	for _, g := range []struct{ name, plugin string }{{"C", "bench-c"}, {"Go", "bench-go"}} {
		c, err := w.host.Checker(g.plugin)
		if err != nil {
			return err
		}
		if _, err := w.host.Disable(ctx, g.plugin, "a fresh start"); err != nil {
			return err
		}
		if _, err := w.host.Enable(ctx, g.plugin); err != nil {
			return err
		}
		sleepy := w.request
		sleepy.Target = "sleep"
		together := func(n int) error {
			var wg sync.WaitGroup
			var failed atomic.Pointer[error]
			for range n {
				wg.Go(func() {
					if _, err := c.Check(ctx, sleepy); err != nil {
						failed.Store(&err)
					}
				})
			}
			wg.Wait()
			if p := failed.Load(); p != nil {
				return *p
			}
			return nil
		}
		if err := together(1); err != nil {
			return err
		}
		one, err := w.resident(g.plugin)
		if err != nil {
			return err
		}
		if err := together(32); err != nil {
			return err
		}
		all, err := w.resident(g.plugin)
		if err != nil {
			return err
		}
		fmt.Printf("resident memory of a runner with one %s plugin: %.1f MiB; with 32 instances %.1f MiB, %.2f MiB for each further one\n",
			g.name, mib(one), mib(all), mib(all-one)/31)
	}
	fmt.Println("(asked: 25 MiB with one C plugin, 0.3 MiB for each further C instance, 1 MiB for Go)")
	fmt.Println()
	return nil
}

// resident finds the runner of a plugin and reads what the kernel says of it.
func (w *workbench) resident(plugin string) (int64, error) {
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		line, err := os.ReadFile(name) //nolint:gosec // of the list above
		if err != nil || !bytes.Contains(line, []byte("plugin-runner")) || !bytes.Contains(line, []byte(`"name":"`+plugin+`"`)) || !bytes.Contains(line, []byte(w.dir)) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(name), "status"))
		if err != nil {
			continue
		}
		var kib int64
		if _, after, ok := bytes.Cut(status, []byte("VmRSS:")); ok {
			if _, err := fmt.Sscan(string(after), &kib); err == nil {
				return kib << 10, nil
			}
		}
	}
	return 0, fmt.Errorf("there is no runner of %s", plugin)
}

// gaps measures how long the ticker of this process stands still while a plugin that loops is run and killed, beside one in a
// process of its own.
func (w *workbench) gaps(ctx context.Context) error {
	const kills = 20
	control, err := self(ctx, "ticker", inputs{})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	control.Stdout = &out
	hold, err := control.StdinPipe()
	if err != nil {
		return err
	}
	if err := control.Start(); err != nil {
		return err
	}
	measuring, stop := context.WithCancel(ctx)
	defer stop()
	own := make(chan time.Duration)
	go func() { own <- largestGap(measuring) }()
	for range kills {
		if _, err := w.host.Enable(ctx, "bench-hostile"); err != nil {
			return err
		}
		c, err := w.host.Checker("bench-hostile")
		if err != nil {
			return err
		}
		r := w.request
		r.Timeout = 100 * time.Millisecond
		if _, err := c.Check(ctx, r); err == nil {
			return errors.New("a plugin that loops answered")
		}
	}
	stop()
	gap := <-own
	if err := errors.Join(hold.Close(), control.Wait()); err != nil {
		return err
	}
	fmt.Printf("largest gap of a 1 ms ticker during %d kills of a plugin that loops: %.1f ms (asked: 50); of a process beside it: %s ms\n",
		kills, ms(gap), bytes.TrimSpace(out.Bytes()))
	return nil
}

// largestGap ticks every millisecond until ctx ends.
func largestGap(ctx context.Context) time.Duration {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	last, largest := time.Now(), time.Duration(0)
	for {
		select {
		case <-t.C:
			now := time.Now()
			largest = max(largest, now.Sub(last))
			last = now
		case <-ctx.Done():
			return largest
		}
	}
}

// tick is the ticker of a process that does nothing else; it ends with its standard input.
func tick(ctx context.Context, _ inputs) error {
	ctx, stop := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that counts
		stop()
	}()
	fmt.Printf("%.1f\n", ms(largestGap(ctx)))
	return nil
}

// shelf keeps the records of the host for this run.
type shelf struct{}

// Plugins implements host.Records.
func (*shelf) Plugins(context.Context) ([]monitor.Plugin, error) { return nil, nil }

// PutPlugin implements host.Records.
func (*shelf) PutPlugin(context.Context, monitor.Plugin) error { return nil }

// DeletePlugin implements host.Records.
func (*shelf) DeletePlugin(context.Context, string) error { return nil }
