package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
)

// monitorJSON is what the command line shows of a monitor.
type monitorJSON struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	Kind          string            `json:"kind"`
	Target        string            `json:"target"`
	Interval      string            `json:"interval"`
	Timeout       string            `json:"timeout"`
	Retries       int               `json:"retries"`
	RetryInterval string            `json:"retry_interval"`
	Recoveries    int               `json:"recoveries"`
	Config        json.RawMessage   `json:"config"`
	Assert        []string          `json:"assert"`
	Degrade       []string          `json:"degrade"`
	Channels      []string          `json:"channels"`
	Labels        map[string]string `json:"labels"`
	Paused        bool              `json:"paused"`
	State         string            `json:"state"`
	Since         *time.Time        `json:"since"`
	PushURL       string            `json:"push_url"`
	Last          *struct {
		Status    string    `json:"status"`
		Message   string    `json:"message"`
		LatencyUS int64     `json:"latency_us"`
		At        time.Time `json:"at"`
	} `json:"last"`
}

func (a *app) monitor() *cobra.Command {
	cmd := a.group("monitor", "list, show, add, remove, pause and resume monitors")
	cmd.Aliases = []string{"monitors"}
	cmd.AddCommand(
		a.monitorList(), a.monitorShow(), a.monitorAdd(),
		a.remove("monitor", monitorsPath, "its samples go with it"),
		a.setPaused("pause", "stop checking a monitor until it is resumed", true),
		a.setPaused("resume", "check a paused monitor again", false),
	)
	return cmd
}

func (a *app) monitorList() *cobra.Command {
	var state, kind, text string
	var labels []string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "list monitors, the worst first",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"limit": {"1000"}, "sort": {"state"}}
			for name, value := range map[string]string{"state": state, "kind": kind, "q": text} {
				if value != "" {
					query.Set(name, value)
				}
			}
			pairs, err := pairsOf(labels)
			if err != nil {
				return usage("--label %w", err)
			}
			for key, value := range pairs {
				query.Add("label", key+":"+value)
			}
			return a.listed(cmd.Context(), monitorsPath, query, func(items []json.RawMessage) error {
				if len(items) == 0 {
					return a.noneMatch(cmd.Context(), kind, state+kind+text != "" || len(labels) > 0)
				}
				rows := [][]string{{"STATE", "NAME", "KIND", "TARGET", "SINCE", "MESSAGE"}}
				for _, item := range items {
					var m monitorJSON
					if err := json.Unmarshal(item, &m); err != nil {
						return fmt.Errorf("read the server's answer: %w", err)
					}
					since, message := "", ""
					if m.Since != nil {
						since = relative(*m.Since, time.Now())
					}
					if m.Last != nil {
						message = m.Last.Message
					}
					rows = append(rows, []string{m.State, m.Name, m.Kind, m.Target, since, message})
				}
				return a.table(rows)
			})
		},
	}
	var states []string
	for _, c := range monitor.Conditions() {
		states = append(states, c.String())
	}
	cmd.Flags().StringVar(&state, "state", "", "only those in this state: "+strings.Join(states, ", "))
	cmd.Flags().StringVar(&kind, "kind", "", "only those of this kind")
	cmd.Flags().StringVar(&text, "text", "", "only those with this in name, target or labels")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only those with this label, as key=value; may be repeated")
	complete(cmd, "state", states)
	complete(cmd, "kind", kindNames(check.NewRegistry(check.Options{})))
	return cmd
}

// complete offers words for a flag's value.
func complete(cmd *cobra.Command, flag string, words []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic("cli: complete --" + flag + ": " + err.Error()) // a flag that is not there is wrong wiring
	}
}

// kindNames lists the names of the kinds that are built in.
func kindNames(r *check.Registry) []string {
	var names []string
	for _, k := range r.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

// listed fetches a whole list and prints it, as JSON or with show, which gets an empty list as well.
func (a *app) listed(ctx context.Context, path string, query url.Values, show func([]json.RawMessage) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	stop := a.progress("asking the server")
	items, err := c.list(ctx, path, query)
	stop()
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"items": items, "next_cursor": nil})
	}
	return show(items)
}

// noneMatch says why a list of monitors is empty: there are none, the filter matches none, or it names a kind that is none.
func (a *app) noneMatch(ctx context.Context, kind string, filtered bool) error {
	text := "there are no monitors"
	if filtered {
		text = "none match"
	}
	if kind != "" {
		c, err := a.client()
		if err != nil {
			return err
		}
		items, err := c.list(ctx, "/kinds", nil)
		if err != nil {
			return err
		}
		kinds := make([]string, len(items))
		for i, item := range items {
			var n named
			if err := json.Unmarshal(item, &n); err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			kinds[i] = n.Name
		}
		if !slices.Contains(kinds, kind) {
			text += fmt.Sprintf(": the server has no kind %q; there is %s", kind, strings.Join(kinds, ", "))
		}
	}
	_, err := fmt.Fprintln(a.Stderr, text)
	return err
}

func (a *app) monitorShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME|ID",
		Short:             "show one monitor with its newest result",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(monitorsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			stop := a.progress("asking the server")
			_, n, err := c.find(cmd.Context(), monitorsPath, args[0])
			var item json.RawMessage
			if err == nil {
				err = c.call(cmd.Context(), http.MethodGet, monitorsPath+"/"+n.ID, nil, &item)
			}
			stop()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(item)
			}
			return a.showMonitor(c, item)
		},
	}
}

func (a *app) showMonitor(c *client, item json.RawMessage) error {
	var m monitorJSON
	if err := json.Unmarshal(item, &m); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	state := m.State
	if m.Since != nil {
		state += " since " + m.Since.UTC().Format(time.RFC3339) + " (" + relative(*m.Since, time.Now()) + ")"
	}
	rows := [][]string{
		{"name", m.Name},
		{"id", m.ID},
		{"state", state},
		{"kind", m.Kind},
		{"target", m.Target},
		{"interval", m.Interval + ", timeout " + m.Timeout},
		{"retries", fmt.Sprintf("%d every %s, recoveries %d", m.Retries, m.RetryInterval, m.Recoveries)},
	}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	if m.Last != nil {
		add("last", fmt.Sprintf("%s: %s, %s, %s", m.Last.Status, m.Last.Message, milliseconds(time.Duration(m.Last.LatencyUS)*time.Microsecond), relative(m.Last.At, time.Now())))
	}
	for _, e := range m.Assert {
		add("assert", e)
	}
	for _, e := range m.Degrade {
		add("degrade", e)
	}
	add("channels", strings.Join(m.Channels, ", "))
	var labels []string
	for k, v := range m.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	add("labels", strings.Join(labels, ", "))
	if string(m.Config) != "{}" {
		add("config", string(m.Config))
	}
	add("push", c.whole(m.PushURL))
	return a.table(rows)
}

// newMonitor is what `monitor add` was asked. Times are sent as written: the server knows what is right.
type newMonitor struct {
	interval, timeout, retryInterval string
	retries, recoveries              int
	config, configFiles              []string
	assert, degrade                  []string
	channels, labels                 []string
	paused                           bool
}

func (a *app) monitorAdd() *cobra.Command {
	var n newMonitor
	flags := kindFlags{flags: map[string]*textFlag{}, kinds: map[string]map[string]*field{}}
	registry := check.NewRegistry(check.Options{})
	kinds := kindNames(registry)
	cmd := &cobra.Command{
		Use:   "add NAME KIND [TARGET]",
		Short: "add a monitor",
		Long: "Adds a monitor. KIND is one of " + strings.Join(kinds, ", ") + ", or of a plugin of the server. A kind's settings are flags as\n" +
			"well; those of plugins are given with --config key=value.",
		Example: "  tocsin monitor add api http https://api.example.com/health --interval 30s --assert 'json.ok == true' --channel ops\n" +
			"  tocsin monitor add db tcp 10.0.0.7:5432 --label team=data",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 { // a heartbeat has no target, and the server knows which kinds need one
				return nil
			}
			return exactly("NAME", "KIND", "TARGET")(cmd, args)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return kinds, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.interval, "interval", "", "time from one check to the next (default 60s)")
	f.StringVar(&n.timeout, "timeout", "", "time one check may take")
	f.StringVar(&n.retryInterval, "retry-interval", "", "time between the checks that must agree")
	f.IntVar(&n.retries, "retries", 0, "further results that must agree before the monitor is down")
	f.IntVar(&n.recoveries, "recoveries", 0, "further results that must agree before it is up again")
	f.StringArrayVar(&n.config, "config", nil, "setting of the kind, as key=value; may be repeated")
	f.StringArrayVar(&n.configFiles, "config-file", nil, "setting of the kind whose value is in a file, as key=path, - for standard input; for secrets")
	f.StringArrayVar(&n.assert, "assert", nil, "expression that must be true, else the target is down; may be repeated")
	f.StringArrayVar(&n.degrade, "degrade", nil, "expression that must be true, else the target is degraded; may be repeated")
	f.StringArrayVar(&n.channels, "channel", nil, "name of a channel that is told; may be repeated")
	f.StringArrayVar(&n.labels, "label", nil, "label, as key=value; may be repeated")
	f.BoolVar(&n.paused, "paused", false, "add it without checking it yet")
	for _, k := range registry.Kinds() {
		fields, err := fieldsOf(k.Schema())
		if err != nil {
			panic("cli: kind " + k.Name + ": " + err.Error()) // a built-in kind with a broken schema is wrong wiring
		}
		flags.addKind(f, k.Name, fields, false)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.addMonitor(cmd, args, &n, &flags)
	}
	return cmd
}

func (a *app) addMonitor(cmd *cobra.Command, args []string, n *newMonitor, flags *kindFlags) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	kind := args[1]
	config := map[string]any{}
	texts, err := a.withFiles(n.config, n.configFiles)
	if err != nil {
		return err
	}
	if len(texts) > 0 {
		fields, err := c.schema(cmd.Context(), "/kinds/", kind)
		if err != nil && !isNotFound(err) { // the server says itself, with the names it knows, that there is no such kind
			return err
		}
		if err := assign(config, fields, texts); err != nil {
			return err
		}
	}
	if err := flags.config(kind, config); err != nil {
		return err
	}
	body := map[string]any{"name": args[0], "kind": kind, "config": config}
	if len(args) > 2 {
		body["target"] = args[2]
	}
	for name, value := range map[string]string{"interval": n.interval, "timeout": n.timeout, "retry_interval": n.retryInterval} {
		if value != "" {
			body[name] = value
		}
	}
	if cmd.Flags().Changed("retries") {
		body["retries"] = n.retries
	}
	if cmd.Flags().Changed("recoveries") {
		body["recoveries"] = n.recoveries
	}
	for name, list := range map[string][]string{"assert": n.assert, "degrade": n.degrade, "channels": n.channels} {
		if len(list) > 0 {
			body[name] = list
		}
	}
	if len(n.labels) > 0 {
		labels, err := pairsOf(n.labels)
		if err != nil {
			return usage("--label %w", err)
		}
		body["labels"] = labels
	}
	if n.paused {
		body["paused"] = true
	}
	stop := a.progress("asking the server")
	var item json.RawMessage
	err = c.call(cmd.Context(), http.MethodPost, monitorsPath, body, &item)
	stop()
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(item)
	}
	var m monitorJSON
	if err := json.Unmarshal(item, &m); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if err := a.printf("added monitor %s (%s)\n", m.Name, m.ID); err != nil {
		return err
	}
	if m.PushURL != "" {
		return a.printf("send beats to %s\n", c.whole(m.PushURL))
	}
	return nil
}

// whole puts the server's address before a path, which a server without a public_url gives.
func (c *client) whole(address string) string {
	if strings.HasPrefix(address, "/") {
		return c.base + address
	}
	return address
}

// setPaused is `monitor pause` and `monitor resume`.
func (a *app) setPaused(verb, short string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " NAME|ID…",
		Short:             short,
		ValidArgsFunction: a.completeNames(monitorsPath),
		Args:              atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), monitorsPath, args, func(c *client, n named) (any, string, error) {
				var item json.RawMessage
				err := c.call(cmd.Context(), http.MethodPatch, monitorsPath+"/"+n.ID, map[string]bool{"paused": paused}, &item)
				return item, verb + "d monitor " + n.Name, err
			})
		},
	}
}

func atLeastOne(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage("NAME is missing")
	}
	return nil
}

// each does something to every object named and prints what came of it; --json prints a list of all. When one of them is not
// there, nothing is done.
func (a *app) each(ctx context.Context, path string, names []string, do func(*client, named) (any, string, error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	stop := a.progress("asking the server")
	found, err := c.findAll(ctx, path, names)
	stop()
	if err != nil {
		return err
	}
	items := []any{}
	for i, n := range found {
		stop := a.progress("asking the server")
		item, said, err := do(c, n)
		stop()
		if err != nil {
			err = fmt.Errorf("%s: %w", n.Name, err)
			var left []string
			for _, n := range found[i+1:] {
				left = append(left, n.Name)
			}
			if len(left) > 0 {
				err = fmt.Errorf("%w\nnot tried any more: %s", err, strings.Join(left, ", "))
			}
			return err
		}
		items = append(items, item)
		if !a.json {
			if err := a.printf("%s\n", said); err != nil {
				return err
			}
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"items": items})
	}
	return nil
}

// remove is the command that removes monitors or channels.
func (a *app) remove(what, path, warning string) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:               "rm NAME|ID…",
		Aliases:           []string{"remove"},
		Short:             "remove a " + what,
		ValidArgsFunction: a.completeNames(path),
		Args:              atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(yes, "remove %s %s? %s", what, strings.Join(args, ", "), warning); err != nil {
				return err
			}
			return a.each(cmd.Context(), path, args, func(c *client, n named) (any, string, error) {
				err := c.call(cmd.Context(), http.MethodDelete, path+"/"+n.ID, nil, nil)
				return map[string]any{"id": n.ID, "name": n.Name, "removed": true}, "removed " + what + " " + n.Name, err
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// schema returns the config's fields of a kind or a provider of the server.
func (c *client) schema(ctx context.Context, path, name string) ([]field, error) {
	var item struct {
		Schema json.RawMessage `json:"schema"`
	}
	if err := c.call(ctx, http.MethodGet, path+url.PathEscape(name), nil, &item); err != nil {
		return nil, err
	}
	return fieldsOf(item.Schema)
}

const completionTimeout = 2 * time.Second

// completeNames offers the names that the server has. When it cannot be asked there is nothing to offer.
func (a *app) completeNames(path string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		items, err := c.list(ctx, path, nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, item := range items {
			var n named
			if err := json.Unmarshal(item, &n); err == nil && !slices.Contains(given, n.Name) {
				names = append(names, n.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
