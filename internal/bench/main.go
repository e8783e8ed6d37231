// Command bench measures Tocsin beside something that makes the same requests without it, in one run, and prints the inputs
// with the figures. Each part is a process of its own: the target, the bare loop, the engine with its store. Machines
// differ and drift, so what counts are the ratios; make bench runs it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// inputs are what a run is made with; they are printed and handed to every part.
type inputs struct {
	Seconds int // of each measured window
	Rounds  int // of the throughput pair; medians are printed
	Target  string
	Dir     string

	Monitors int
	Interval time.Duration
	Workers  int
	Warm     time.Duration
}

func run(ctx context.Context, args []string) error {
	parts := map[string]func(context.Context, inputs) error{
		"target": serveTarget, "bare": bareLoop, "engine": engineRun, "load": loadRun, "plugin": servePlugin, "ticker": tick,
	}
	if len(args) == 2 && parts[args[0]] != nil {
		var in inputs
		if err := json.Unmarshal([]byte(args[1]), &in); err != nil {
			return fmt.Errorf("read inputs: %w", err)
		}
		return parts[args[0]](ctx, in)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	seconds := flags.Int("seconds", 20, "length of each measured window")
	rounds := flags.Int("rounds", 3, "rounds of the throughput pair")
	only := flags.String("only", "", "run only this part: throughput, scale, load, blackbox or plugins")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return compare(ctx, inputs{Seconds: *seconds, Rounds: *rounds}, *only)
}

// compare runs all parts and prints what they measured.
func compare(ctx context.Context, in inputs, only string) error {
	dir, err := os.MkdirTemp("", "tocsin-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary folder that stays harms nobody
	in.Dir = dir
	fmt.Printf("machine: %d cores, %s %s/%s; windows of %d s, %d rounds; store in %s\n\n",
		runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, in.Seconds, in.Rounds, dir)
	target, stopTarget, err := startTarget(ctx)
	if err != nil {
		return err
	}
	defer stopTarget()
	in.Target = target
	for _, part := range []struct {
		name string
		run  func(context.Context, inputs) error
	}{{"throughput", throughput}, {"scale", scale}, {"load", load}, {"blackbox", blackbox}, {"plugins", plugins}} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.run(ctx, in); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// figures is what one part measured.
type figures struct {
	Checks   int64
	Seconds  float64
	CPU      float64 // seconds of this process
	RSS      int64   // bytes at the end
	Expected float64 // checks that the schedule asked for
	P50, P99 time.Duration
	Dropped  int64
	Failed   int64 // results that were not up
	Stored   int64
	Overruns int64
	First    time.Duration // from the start of the program's work to its first check
	Ready    time.Duration // until every monitor was loaded
	Base     int64         // bytes of memory before the monitors
}

func (f figures) rate() float64   { return float64(f.Checks) / f.Seconds }
func (f figures) perK() float64   { return f.CPU / float64(max(f.Checks, 1)) * 1000 }
func (f figures) cores() float64  { return f.CPU / f.Seconds }
func (f figures) share() float64  { return 100 * float64(f.Checks) / f.Expected }
func mib(bytes int64) float64     { return float64(bytes) / (1 << 20) }
func ms(d time.Duration) float64  { return float64(d) / float64(time.Millisecond) }
func median(x []float64) float64  { s := slices.Sorted(slices.Values(x)); return s[len(s)/2] }
func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// part runs one part in a process of its own and returns what it measured.
func part(ctx context.Context, name string, in inputs) (figures, error) {
	var f figures
	cmd, err := self(ctx, name, in)
	if err != nil {
		return f, err
	}
	out, err := cmd.Output()
	if err != nil {
		return f, fmt.Errorf("run %s: %w", name, err)
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return f, fmt.Errorf("read figures of %s: %w", name, err)
	}
	return f, nil
}

func self(ctx context.Context, name string, in inputs) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, name, string(text)) //nolint:gosec // this very program
	cmd.Stderr = os.Stderr
	return cmd, nil
}

func startTarget(ctx context.Context) (string, func(), error) {
	cmd, err := self(ctx, "target", inputs{})
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to end; how it did says nothing
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start target: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

func throughput(ctx context.Context, in inputs) error {
	fmt.Printf("HTTP checks/s, a fresh connection each: the bare net/http loop with 32 workers, and 12,000 monitors at 1 s with 64\nworkers, everything stored (more is asked for than can be had)\n\n")
	fmt.Println("round            checks/s   CPU s/1,000   RSS MiB   dropped   not up")
	var rates, costs []float64
	for round := range in.Rounds {
		in.Workers = 32
		bare, err := part(ctx, "bare", in)
		if err != nil {
			return err
		}
		in.Monitors, in.Interval, in.Workers, in.Warm = 12_000, time.Second, 64, 3*time.Second
		full, err := part(ctx, "engine", in)
		if err != nil {
			return err
		}
		fmt.Printf("%d bare loop   %10.0f   %11.3f   %7.0f\n", round+1, bare.rate(), bare.perK(), mib(bare.RSS))
		fmt.Printf("%d Tocsin      %10.0f   %11.3f   %7.0f   %7d   %6d\n", round+1, full.rate(), full.perK(), mib(full.RSS), full.Dropped, full.Failed)
		rates = append(rates, full.rate()/bare.rate())
		costs = append(costs, full.perK()/bare.perK())
	}
	fmt.Printf("\nmedian ratio to the bare loop: checks/s %.2f, CPU a check %.2f\n\n", median(rates), median(costs))
	return nil
}

func scale(ctx context.Context, in inputs) error {
	fmt.Printf("HTTP monitors at 10 s, everything stored; lateness is the start of a check minus its due time\n\n")
	fmt.Println("monitors   on schedule   p50 late ms   p99 late ms   CPU cores   CPU s/1,000   RSS MiB   dropped   not up   overruns")
	in.Workers = 32
	bare, err := part(ctx, "bare", in)
	if err != nil {
		return err
	}
	for _, n := range []int{1000, 5000, 20_000} {
		in.Monitors, in.Interval, in.Workers, in.Warm = n, 10*time.Second, 0, 12*time.Second
		f, err := part(ctx, "engine", in)
		if err != nil {
			return err
		}
		fmt.Printf("%8d   %10.2f%%   %11.2f   %11.2f   %9.2f   %11.3f   %7.0f   %7d   %6d   %8d\n",
			n, f.share(), ms(f.P50), ms(f.P99), f.cores(), f.perK(), mib(f.RSS), f.Dropped, f.Failed, f.Overruns)
	}
	fmt.Printf("\nthe bare loop in the same run: %.0f checks/s at %.3f CPU s/1,000\n\n", bare.rate(), bare.perK())
	return nil
}

func load(ctx context.Context, in inputs) error {
	in.Monitors, in.Interval = 100_000, 5*time.Minute
	f, err := part(ctx, "load", in)
	if err != nil {
		return err
	}
	fmt.Printf("100,000 stored HTTP monitors at 5 min: %.2f s from opening the store to the first check, %.2f s until all are loaded;\n"+
		"%.0f MiB resident after a collection, %.0f bytes a monitor\n\n",
		f.First.Seconds(), f.Ready.Seconds(), mib(f.RSS), float64(f.RSS-f.Base)/float64(in.Monitors))
	return nil
}

// blackbox measures blackbox_exporter by its /probe, where it is installed.
func blackbox(ctx context.Context, in inputs) error {
	path, err := exec.LookPath("prometheus-blackbox-exporter")
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Println("blackbox_exporter is not installed (apt-get install prometheus-blackbox-exporter): not compared")
		return nil
	}
	if err != nil {
		return err
	}
	f, err := driveBlackbox(ctx, path, in)
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	fmt.Printf("blackbox_exporter driven by /probe with 32 clients, nothing stored: %.0f probes/s at %.3f CPU s/1,000\n", f.rate(), f.perK())
	return nil
}
