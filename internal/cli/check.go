package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/sdk"
)

// oneCheck is what `tocsin check` was asked.
type oneCheck struct {
	kind, target    string
	assert, degrade []string
	timeout         time.Duration
	allow           []string
	configFiles     []string
	config          map[string]any
}

const maxCheckTimeout = time.Hour

// check has a command for each kind, with the kind's settings as flags.
func (a *app) check() *cobra.Command {
	cmd := a.group("check KIND TARGET", "make one check now, without a server")
	cmd.Long = "Makes one check and prints the result with its timings. Exits 0 up, 1 degraded, 2 down, 3 unknown: it can\n" +
		"serve as a monitoring plugin. Each kind has flags of its own: tocsin check http --help."
	cmd.Example = "  tocsin check http https://example.com --assert 'latency < 300ms'\n  tocsin check dns example.com --type MX"
	registry := check.NewRegistry(check.Options{})
	var kinds []string
	for _, kind := range registry.Kinds() {
		cmd.AddCommand(a.checkKind(kind))
		kinds = append(kinds, kind.Name)
	}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return usage("no kind %q is built in; there is %s. A plugin is tried with tocsin plugin run DIR, and one that is installed "+
			"checks for a monitor: tocsin monitor add NAME %s TARGET", args[0], strings.Join(kinds, ", "), args[0])
	}
	cmd.RunE = func(*cobra.Command, []string) error { return usage("KIND and TARGET are missing") }
	return cmd
}

func (a *app) checkKind(kind check.Kind) *cobra.Command {
	c := oneCheck{kind: kind.Name, config: map[string]any{}}
	flags := kindFlags{flags: map[string]*textFlag{}, kinds: map[string]map[string]*field{}}
	fields, err := fieldsOf(kind.Schema())
	if err != nil {
		panic("cli: kind " + kind.Name + ": " + err.Error()) // a built-in kind with a broken schema is wrong wiring
	}
	var vars []string
	for _, v := range kind.Variables() {
		vars = append(vars, fmt.Sprintf("  %-18s %s", v.Name, v.Doc))
	}
	cmd := &cobra.Command{
		Use:     kind.Name + " TARGET",
		Short:   firstSentence(kind.Doc),
		Long:    kind.Doc + "\n\nExpressions of --assert and --degrade can use:\n" + strings.Join(vars, "\n"),
		Example: "  tocsin check " + kind.Name + " " + kind.Target,
		Args:    exactly("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.target = args[0]
			for _, f := range flags.kinds[kind.Name] {
				if f.made { // what a server would make up; here it only has to be there
					put(c.config, f.path, strings.Repeat("0", 32))
				}
			}
			texts, err := a.withFiles(nil, c.configFiles)
			if err != nil {
				return err
			}
			if err := assign(c.config, fields, texts); err != nil {
				return err
			}
			if err := flags.config(kind.Name, c.config); err != nil {
				return err
			}
			return a.runCheck(cmd.Context(), &c)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.assert, "assert", nil, "expression that must be true, else the target is down; may be repeated")
	f.StringArrayVar(&c.degrade, "degrade", nil, "expression that must be true, else the target is degraded; may be repeated")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "time the check may take")
	f.StringArrayVar(&c.configFiles, "config-file", nil, "setting whose value is in a file, as key=path, - for standard input; for secrets, which other users would see in an argument")
	f.StringSliceVar(&c.allow, "allow-address", nil, "link-local, multicast or reserved address or prefix that may be connected to")
	flags.addKind(f, kind.Name, fields, true)
	return cmd
}

func firstSentence(text string) string {
	if i := strings.Index(text, ". "); i >= 0 {
		return text[:i+1]
	}
	return text
}

func (a *app) runCheck(ctx context.Context, c *oneCheck) error {
	if c.timeout < monitor.MinTimeout || c.timeout > maxCheckTimeout {
		return usage("--timeout must be from %s to %s (got %s)", monitor.MinTimeout, maxCheckTimeout, c.timeout)
	}
	policy := netpolicy.Policy{Setting: "--allow-address"}
	for _, text := range c.allow {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return usage("--allow-address must be an address or a prefix (got %q)", text)
		}
		policy.Allow = append(policy.Allow, prefix)
	}
	config, err := json.Marshal(c.config)
	if err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	registry := check.NewRegistry(check.Options{Policy: policy, UserAgent: "Tocsin/" + a.Version})
	checker, err := registry.New(check.Spec{Kind: c.kind, Target: c.target, Config: config, Assert: c.assert, Degrade: c.degrade, Timeout: c.timeout})
	if err != nil {
		return errors.Join(usage("%w", err), registry.Close())
	}
	if _, passive := checker.(check.Passive); passive {
		return errors.Join(usage("a %s monitor is told and asks nobody: add it to a server", c.kind), registry.Close())
	}
	stop := a.progress("checking " + c.target)
	result, err := perform(ctx, checker, c)
	stop()
	if closeErr := registry.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close what the check used: %w", closeErr))
	}
	if err != nil {
		result.Status, result.Message = sdk.Unknown, err.Error()
	}
	if err := a.printResult(c, &result); err != nil {
		return err
	}
	return exitOf(result.Status)
}

// perform makes the check. A panic is an error: the check could not be made.
func perform(ctx context.Context, checker check.Checker, c *oneCheck) (result sdk.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check panicked: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return checker.Check(ctx, sdk.CheckRequest{
		Monitor: sdk.Ref{Name: c.target, Kind: c.kind, Target: c.target}, Target: c.target, Timeout: c.timeout, Attempt: 1,
	})
}

func exitOf(s sdk.Status) error {
	switch s {
	case sdk.Up:
		return nil
	case sdk.Degraded:
		return &CodedError{Code: 1}
	case sdk.Down:
		return &CodedError{Code: 2}
	default:
		return &CodedError{Code: exitUnknown}
	}
}

// resultJSON is the form of a result that the API has.
type resultJSON struct {
	Kind      string           `json:"kind"`
	Target    string           `json:"target"`
	Status    sdk.Status       `json:"status"`
	Message   string           `json:"message"`
	LatencyUS int64            `json:"latency_us"`
	Code      uint16           `json:"code,omitempty"`
	Address   string           `json:"address,omitempty"`
	TimingUS  map[string]int64 `json:"timing_us,omitempty"`
	Metrics   []sdk.Metric     `json:"metrics"`
	ExpiresAt *time.Time       `json:"expires_at,omitempty"`
}

// printUnknown writes why no check was made.
func (a *app) printUnknown(why string) error {
	if a.json {
		return a.printJSON(resultJSON{Message: why, Metrics: []sdk.Metric{}})
	}
	return a.printf("UNKNOWN: %s\n", why)
}

type part struct {
	name string
	took time.Duration
}

// parts lists where the time went, what did not take place left out.
func parts(t sdk.Timing) []part {
	var list []part
	for _, p := range []part{{"dns", t.DNS}, {"connect", t.Connect}, {"tls", t.TLS}, {"first_byte", t.FirstByte}, {"total", t.Total}} {
		if p.took > 0 {
			list = append(list, p)
		}
	}
	return list
}

// printResult writes the status, what happened and performance data on the first line, as monitoring plugins do
// (https://www.monitoring-plugins.org/doc/guidelines.html), and the rest below it.
func (a *app) printResult(c *oneCheck, r *sdk.Result) error {
	message := sdk.CleanText(r.Message, 1024)
	if a.json {
		out := resultJSON{Kind: c.kind, Target: c.target, Status: r.Status, Message: message, LatencyUS: r.Latency.Microseconds(), Code: r.Code, Address: r.Address, Metrics: r.Metrics}
		if out.Metrics == nil {
			out.Metrics = []sdk.Metric{}
		}
		for _, p := range parts(r.Timing) {
			if out.TimingUS == nil {
				out.TimingUS = map[string]int64{}
			}
			out.TimingUS[p.name] = p.took.Microseconds()
		}
		if !r.ExpiresAt.IsZero() {
			at := r.ExpiresAt.UTC()
			out.ExpiresAt = &at
		}
		return a.printJSON(out)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", strings.ToUpper(r.Status.String()), strings.ReplaceAll(message, "|", "¦"))
	if r.Latency > 0 {
		if r.Status != sdk.Down { // what went wrong says itself how long it took
			fmt.Fprintf(&b, " in %s", milliseconds(r.Latency))
		}
		fmt.Fprintf(&b, " | time=%.6fs", r.Latency.Seconds())
	}
	b.WriteString("\n")
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s "+format+"\n", append([]any{strings.ReplaceAll(name, "_", " ")}, args...)...)
	}
	if r.Address != "" {
		line("address", "%s", sdk.CleanText(r.Address, 200))
	}
	for _, p := range parts(r.Timing) {
		line(p.name, "%s", milliseconds(p.took))
	}
	for _, m := range r.Metrics {
		line(sdk.CleanText(m.Name, 100), "%g%s", m.Value, sdk.CleanText(m.Unit, 20))
	}
	if !r.ExpiresAt.IsZero() {
		line("certificate", "ends %s, %s", r.ExpiresAt.UTC().Format(time.RFC3339), relative(r.ExpiresAt, time.Now()))
	}
	return a.printf("%s", &b)
}

// milliseconds writes a length of time with three digits that count.
func milliseconds(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1000)
}
