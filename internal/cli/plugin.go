package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// pluginJSON is what the command line shows of a plugin.
type pluginJSON struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Summary   string   `json:"summary"`
	License   string   `json:"license"`
	Runtime   string   `json:"runtime"`
	Provides  []string `json:"provides"`
	Condition string   `json:"condition"`
	Why       string   `json:"why"`
	Digest    string   `json:"digest"`
	Target    struct {
		Example string `json:"example"`
		Doc     string `json:"doc"`
	} `json:"target"`
	Asks  []askJSON `json:"asks"`
	Grant *struct {
		Permissions  []string  `json:"permissions"`
		AllowPrivate bool      `json:"allow_private"`
		At           time.Time `json:"at"`
		By           string    `json:"by"`
	} `json:"grant"`
	Pending *struct {
		Version string    `json:"version"`
		Digest  string    `json:"digest"`
		Asks    []askJSON `json:"asks"`
	} `json:"pending"`
	Limits struct {
		Memory      string   `json:"memory"`
		Timeout     string   `json:"timeout"`
		Concurrency int      `json:"concurrency"`
		Set         []string `json:"set"`
	} `json:"limits"`
	Sandbox struct {
		Degraded bool `json:"degraded"`
		Layers   []struct {
			Name   string `json:"name"`
			Holds  bool   `json:"holds"`
			Detail string `json:"detail"`
		} `json:"layers"`
	} `json:"sandbox"`
	Usage struct {
		Calls          uint64 `json:"calls"`
		Failures       uint64 `json:"failures"`
		Kills          uint64 `json:"kills"`
		Starts         uint64 `json:"starts"`
		Running        int    `json:"running"`
		Runners        int    `json:"runners"`
		LatencyUSTotal int64  `json:"latency_us_total"`
		CPUMS          int64  `json:"cpu_ms"`
		MemoryBytes    uint64 `json:"memory_bytes"`
		BytesRead      uint64 `json:"bytes_read"`
		BytesWritten   uint64 `json:"bytes_written"`
		Denied         uint64 `json:"denied"`
	} `json:"usage"`
	InstalledAt time.Time `json:"installed_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// askJSON is one permission that a plugin asks for.
type askJSON struct {
	Allow   string `json:"allow"`
	Words   string `json:"words"`
	Reason  string `json:"reason"`
	Granted bool   `json:"granted"`
}

// decides returns what a grant would be for: the build that waits, else the one that is there.
func (p *pluginJSON) decides() (version, digest string, asks []askJSON) {
	if p.Pending != nil {
		return p.Pending.Version, p.Pending.Digest, p.Pending.Asks
	}
	return p.Version, p.Digest, p.Asks
}

// may lists what was granted: in words where all that was asked was granted, and as it is written where it was a part.
func (p *pluginJSON) may() []askJSON {
	var list []askJSON
	if p.Grant == nil {
		return nil
	}
	for _, allow := range p.Grant.Permissions {
		if i := slices.IndexFunc(p.Asks, func(ask askJSON) bool { return ask.Allow == allow }); i >= 0 {
			list = append(list, p.Asks[i])
		} else {
			list = append(list, askJSON{Words: "reach " + allow, Allow: allow})
		}
	}
	return list
}

// refused lists what the plugin asked for and was not granted.
func (p *pluginJSON) refused() []askJSON {
	return slices.DeleteFunc(slices.Clone(p.Asks), func(ask askJSON) bool { return ask.Granted })
}

// waits reports whether a build waits for a grant.
func (p *pluginJSON) waits() bool { return p.Pending != nil || p.Grant == nil }

func (a *app) plugin() *cobra.Command {
	cmd := a.group("plugin", "install, grant, inspect and remove plugins, and try them out")
	cmd.Aliases = []string{"plugins"}
	cmd.AddCommand(
		a.pluginList(), a.pluginInspect(), a.pluginInstall(), a.pluginGrant(), a.pluginEnable(), a.pluginDisable(), a.pluginLimits(),
		a.pluginRemove(), a.pluginRun(),
	)
	return cmd
}

// onPlugin asks the server about one plugin, or for a change to it, and prints the answer, as JSON or with show.
func (a *app) onPlugin(ctx context.Context, r pluginRequest, show func(*pluginJSON) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	stop := a.progress("asking the server")
	item, err := c.plugin(ctx, r)
	stop()
	if err != nil {
		return err
	}
	return a.showPlugin(item, show)
}

// showPlugin prints an answer that is a plugin.
func (a *app) showPlugin(item json.RawMessage, show func(*pluginJSON) error) error {
	if a.json {
		return a.printJSON(item)
	}
	p, err := pluginOf(item)
	if err != nil {
		return err
	}
	return show(&p)
}

func pluginOf(item json.RawMessage) (p pluginJSON, err error) {
	if err = json.Unmarshal(item, &p); err != nil {
		return p, fmt.Errorf("read the server's answer: %w", err)
	}
	return p, nil
}

// pluginRequest is a request about one plugin.
type pluginRequest struct {
	method, name, verb string // the verb is below the plugin's path; empty: the plugin itself
	body               any
}

// plugin asks for one plugin. The error says so when there is none with the name.
func (c *client) plugin(ctx context.Context, r pluginRequest) (item json.RawMessage, err error) {
	path := pluginsPath + "/" + url.PathEscape(r.name)
	if r.verb != "" {
		path += "/" + r.verb
	}
	err = c.call(ctx, r.method, path, r.body, &item)
	if isNotFound(err) {
		return nil, &missingError{pluginsPath, []string{r.name}}
	}
	return item, err
}

func (a *app) pluginList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "list the installed plugins",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.listed(cmd.Context(), pluginsPath, nil, func(items []json.RawMessage) error {
				if len(items) == 0 {
					_, err := fmt.Fprintln(a.Stderr, "there are no plugins")
					return err
				}
				rows := [][]string{{"CONDITION", "NAME", "VERSION", "PROVIDES", "SUMMARY"}}
				for _, item := range items {
					p, err := pluginOf(item)
					if err != nil {
						return err
					}
					text := p.Summary
					if p.Why != "" {
						text = p.Why
					}
					if p.Pending != nil {
						text = fmt.Sprintf("version %s waits for its grant; %s", p.Pending.Version, text)
					}
					rows = append(rows, []string{p.Condition, p.Name, p.Version, strings.Join(p.Provides, ", "), text})
				}
				return a.table(rows)
			})
		},
	}
}

func (a *app) pluginInspect() *cobra.Command {
	return &cobra.Command{
		Use:               "inspect NAME",
		Aliases:           []string{"show"},
		Short:             "show what a plugin asked for, what it got, how it is walled in, and what it uses",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(pluginsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onPlugin(cmd.Context(), pluginRequest{method: http.MethodGet, name: args[0]}, a.inspected)
		},
	}
}

func (a *app) pluginEnable() *cobra.Command {
	return &cobra.Command{
		Use:               "enable NAME",
		Short:             "let a plugin run that was disabled",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(pluginsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := pluginRequest{method: http.MethodPost, name: args[0], verb: "enable"}
			return a.onPlugin(cmd.Context(), r, func(p *pluginJSON) error { return a.nowIs("enabled", p) })
		},
	}
}

func (a *app) pluginDisable() *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use:               "disable NAME",
		Short:             "stop a plugin until it is enabled; monitors that use it are unknown until then",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(pluginsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]string{}
			if reason != "" {
				body["reason"] = reason
			}
			r := pluginRequest{method: http.MethodPost, name: args[0], verb: "disable", body: body}
			return a.onPlugin(cmd.Context(), r, func(p *pluginJSON) error { return a.printf("disabled plugin %s\n", shown(p.Name)) })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people")
	return cmd
}

// nowIs says what was done to a plugin, and what it is if it cannot be used all the same.
func (a *app) nowIs(done string, p *pluginJSON) error {
	text := done + " plugin " + shown(p.Name) + " " + shown(p.Version)
	if p.Why != "" {
		text += "; it is " + shown(p.Condition) + ": " + shown(p.Why)
	}
	return a.printf("%s\n", text)
}

func (a *app) pluginRemove() *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:               "remove NAME",
		Aliases:           []string{"rm"},
		Short:             "remove a plugin that no monitor and no channel uses",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(pluginsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "remove plugin %s? its grant is lost", args[0]); err != nil {
				return err
			}
			stop := a.progress("asking the server")
			_, err = c.plugin(cmd.Context(), pluginRequest{method: http.MethodDelete, name: args[0]})
			stop()
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(map[string]any{"name": args[0], "removed": true})
			}
			return a.printf("removed plugin %s\n", args[0])
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) pluginLimits() *cobra.Command {
	var memory, timeout, concurrency string
	cmd := &cobra.Command{
		Use:   "limits NAME",
		Short: "set what a plugin may use, or show it",
		Long: "Sets what a plugin may use in place of what its manifest says, and shows what is in force. The word default takes a limit\n" +
			"back to the manifest's. Without a flag it only shows.",
		Example:           "  tocsin plugin limits redis --memory 64MiB --timeout 5s --concurrency 4\n  tocsin plugin limits redis --memory default",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(pluginsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits := map[string]any{}
			for name, value := range map[string]string{"memory": memory, "timeout": timeout, "concurrency": concurrency} {
				switch {
				case !cmd.Flags().Changed(name):
				case value == "default":
					limits[name] = nil
				default:
					limits[name] = value
				}
			}
			if text, ok := limits["concurrency"].(string); ok {
				n, err := strconv.Atoi(text)
				if err != nil {
					return usage("--concurrency must be a whole number or default")
				}
				limits["concurrency"] = n
			}
			r := pluginRequest{method: http.MethodGet, name: args[0]}
			if len(limits) > 0 {
				r.method, r.body = http.MethodPatch, map[string]any{"limits": limits}
			}
			return a.onPlugin(cmd.Context(), r, func(p *pluginJSON) error { return a.printf("%s\n", p.limits()) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&memory, "memory", "", "memory of one instance, 1MiB to 1GiB, or default")
	f.StringVar(&timeout, "timeout", "", "longest time of one call, 100ms to 5m, or default")
	f.StringVar(&concurrency, "concurrency", "", "calls at the same time, 1 to 64, or default")
	return cmd
}
