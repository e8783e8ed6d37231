package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/engine/netpolicy"
	configs "github.com/tocsinhq/tocsin/engine/schema"
	"github.com/tocsinhq/tocsin/host"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/sdk"
)

// trialReport is what `plugin run` prints as JSON.
type trialReport struct {
	Request  json.RawMessage `json:"request"`
	Response json.RawMessage `json:"response,omitempty"`
	Error    string          `json:"error,omitempty"`
	TookUS   int64           `json:"took_us"`
	Log      []trialLine     `json:"log"`
	Network  []trialAccess   `json:"network"`
}

type trialLine struct {
	Level string `json:"level"`
	Text  string `json:"text"`
}

type trialAccess struct {
	Access  string `json:"access"`
	Verdict string `json:"verdict"`
	Address string `json:"address,omitempty"`
	Reason  string `json:"reason,omitempty"`
	TookUS  int64  `json:"took_us"`
}

// trial collects what a plugin does while it runs.
type trial struct {
	mu     sync.Mutex
	report trialReport
}

func (t *trial) hear(level slog.Level, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Log = append(t.report.Log, trialLine{strings.ToLower(level.String()), text})
}

func (t *trial) trace(b broker.Trace) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := trialAccess{Access: b.Access.String(), Verdict: "allowed", TookUS: b.Took.Microseconds()}
	if b.Addr.IsValid() {
		a.Address = b.Addr.String()
	}
	if b.Err != nil {
		a.Verdict, a.Reason = "failed", b.Err.Message
		if b.Detail != "" {
			a.Reason += " (" + b.Detail + ")"
		}
		if b.Err.Kind == broker.Denied {
			a.Verdict = "denied"
		}
	}
	t.report.Network = append(t.report.Network, a)
}

func (a *app) pluginRun() *cobra.Command {
	var target, config, call string
	var timeout time.Duration
	var private, degraded bool
	cmd := &cobra.Command{
		Use:   "run DIR",
		Short: "make one call of a plugin that is not installed, in its sandbox, and show all that it did",
		Long: "Make one call of the plugin in a folder, in its sandbox and with all that its manifest asks for. Prints the request, the\n" +
			"response, the log, and every connection that the plugin asked for with the verdict. Secrets of the configuration are shown\n" +
			"as ••••. Needs no server.\n\n" +
			"Exit codes: of a check 0 up, 1 degraded, 2 down, 3 unknown or a configuration that the manifest does not allow; of a\n" +
			"notification 0 delivered, 1 not.",
		Example: "  tocsin plugin run . --target redis.example.com:6379 --config '{\"tls\":true}'",
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			call, settings, err := planned(args[0], call, config)
			if err != nil {
				return err
			}
			t := &trial{report: trialReport{Log: []trialLine{}, Network: []trialAccess{}}}
			out, err := host.Try(cmd.Context(), host.Trial{
				Dir: args[0], Call: call, Target: target, Config: json.RawMessage(config), Timeout: timeout, AllowPrivate: private,
				Options: host.Options{Policy: netpolicy.Policy{Setting: "plugins.allow_addresses"}, Ping: a.pinger(), AllowDegraded: degraded},
				Log:     t.hear, Trace: t.trace,
			})
			if err != nil {
				return err
			}
			if t.report.Request, err = withoutSecrets(out.Request, settings); err != nil {
				return err
			}
			t.report.Response, t.report.TookUS = out.Response, out.Took.Microseconds()
			if out.Err != nil {
				t.report.Error = sdk.CleanText(out.Err.Error(), sdk.MaxMessage)
			}
			if err := a.printTrial(t.report, out); err != nil {
				return err
			}
			return trialCode(call, out)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&target, "target", "", "what the check is to look at")
	flags.StringVar(&config, "config", "", "the configuration, a JSON object")
	flags.StringVar(&call, "call", "", "check or notify; else the first that the manifest provides")
	flags.DurationVar(&timeout, "timeout", 0, "time of the call; else the manifest's")
	flags.BoolVar(&private, "allow-private", false, "let the addresses that the manifest itself names be private ones")
	flags.BoolVar(&degraded, "allow-degraded-sandbox", false, "run it although a required layer of the sandbox is missing on this machine")
	return cmd
}

// pinger sends the echoes of a plugin.
func (a *app) pinger() func(context.Context, netip.Addr) (broker.Echo, error) {
	registry := check.NewRegistry(check.Options{})
	return func(ctx context.Context, addr netip.Addr) (broker.Echo, error) {
		rtt, err := registry.Ping(ctx, addr)
		return broker.Echo{RTT: rtt, Addr: addr}, err
	}
}

// planned returns which call of a plugin is meant, and the schema of its configuration, which the configuration fits. Both are
// empty when the folder is no plugin: the trial says then what is wrong with it.
func planned(dir, call, config string) (string, *configs.Schema, error) {
	contents, err := host.ReadDir(dir)
	if err != nil {
		return call, nil, nil //nolint:nilerr // it is told by the trial
	}
	m, err := contents.Manifest()
	if err != nil {
		return call, nil, nil //nolint:nilerr // it is told by the trial
	}
	if call == "" {
		call = m.Provides[0]
	}
	settings, err := configs.Compile(m.Config)
	if err != nil {
		return call, nil, nil //nolint:nilerr // it is told by the trial
	}
	var faults monitor.Faults
	if faults.Under("config", settings.Validate(json.RawMessage(config))); len(faults) == 0 {
		return call, settings, nil
	}
	code := ExitUsage
	if call == "check" {
		code = exitUnknown // 2 would say that the target is down
	}
	return call, nil, &CodedError{Code: code, Err: faults}
}

// withoutSecrets returns the request of a trial as it may be shown.
func withoutSecrets(request json.RawMessage, settings *configs.Schema) (json.RawMessage, error) {
	var of struct{ Call string }
	if err := json.Unmarshal(request, &of); err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	if of.Call == "notify" {
		var r sdk.NotifyRequest
		if err := json.Unmarshal(request, &r); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		r.Config = hidden(r.Config, settings)
		return json.Marshal(r)
	}
	var r sdk.CheckRequest
	if err := json.Unmarshal(request, &r); err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	r.Config = hidden(r.Config, settings)
	return json.Marshal(r)
}

// hidden returns a configuration with its secrets masked, as a server shows it.
func hidden(config json.RawMessage, settings *configs.Schema) json.RawMessage {
	const nothing = "{}" // rather than something secret
	var tree any
	d := json.NewDecoder(bytes.NewReader(config))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return json.RawMessage(nothing)
	}
	found := false
	tree = hideIn(settings.Root(), tree, false, &found)
	if !found {
		return config
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return json.RawMessage(nothing)
	}
	return text
}

// hideIn masks within a value; secret says that all of it is. It notes whether it found anything to mask.
func hideIn(at configs.Part, value any, secret bool, found *bool) any {
	secret = secret || !at.Described() || at.Secret()
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			v[name] = hideIn(at.Field(name), v[name], secret, found)
		}
	case []any:
		for i := range v {
			v[i] = hideIn(at.Item(i), v[i], secret, found)
		}
	case string, json.Number:
		if secret && v != "" {
			*found = true
			return "••••"
		}
	}
	return value
}

// trialCode turns an outcome into the exit code of a check or of a command.
func trialCode(call string, out host.Outcome) error {
	if call == "notify" {
		if out.Err != nil {
			return &CodedError{Code: ExitError}
		}
		return nil
	}
	switch {
	case out.Err != nil || out.Status == sdk.Unknown:
		return &CodedError{Code: exitUnknown}
	case out.Status == sdk.Degraded:
		return &CodedError{Code: 1}
	case out.Status == sdk.Down:
		return &CodedError{Code: 2}
	}
	return nil
}

func (a *app) printTrial(r trialReport, out host.Outcome) error {
	if a.json {
		return a.printJSON(r)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "plugin    %s %s\n", out.Manifest.Name, out.Manifest.Version)
	fmt.Fprintf(&text, "request   %s\n", r.Request)
	if len(r.Network) == 0 {
		text.WriteString("network   nothing was asked for\n")
	}
	for _, n := range r.Network {
		fmt.Fprintf(&text, "network   %-8s %s", n.Verdict, shown(n.Access))
		if n.Address != "" {
			fmt.Fprintf(&text, " at %s", n.Address)
		}
		fmt.Fprintf(&text, " in %s", time.Duration(n.TookUS)*time.Microsecond)
		if n.Reason != "" {
			fmt.Fprintf(&text, ": %s", shown(n.Reason))
		}
		text.WriteByte('\n')
	}
	for _, l := range r.Log {
		fmt.Fprintf(&text, "log       %-5s %s\n", l.Level, shown(l.Text))
	}
	if len(r.Response) > 0 {
		fmt.Fprintf(&text, "response  %s\n", shown(string(r.Response)))
	}
	if r.Error != "" {
		fmt.Fprintf(&text, "error     %s\n", shown(r.Error))
	}
	missing := 0
	for _, l := range out.Sandbox {
		if !l.Holds {
			missing++
			fmt.Fprintf(&text, "sandbox   %s does not hold: %s\n", l.Name, shown(l.Detail))
		}
	}
	if missing == 0 {
		fmt.Fprintf(&text, "sandbox   all %d layers hold\n", len(out.Sandbox))
	}
	fmt.Fprintf(&text, "took      %s\n", out.Took.Round(time.Microsecond))
	return a.printf("%s", text.String())
}

// shown is somebody else's text as a terminal may get it.
func shown(text string) string { return sdk.CleanText(text, 8<<10) }
