package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// channelJSON is what the command line shows of a channel.
type channelJSON struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Provider string `json:"provider"`
	Disabled bool   `json:"disabled"`
	Health   *struct {
		LastSuccessAt *time.Time `json:"last_success_at"`
		LastErrorAt   *time.Time `json:"last_error_at"`
		LastError     string     `json:"last_error"`
		Streak        int        `json:"streak"`
	} `json:"health"`
}

// health says in a word how a channel fares, and in a text why.
func (c *channelJSON) health() (word, text string) {
	h := c.Health
	switch {
	case c.Disabled:
		return "disabled", ""
	case h == nil || h.LastSuccessAt == nil && h.LastErrorAt == nil:
		return "unused", ""
	case h.Streak > 0 && h.LastErrorAt != nil:
		return "failing", fmt.Sprintf("%d in a row, %s: %s", h.Streak, relative(*h.LastErrorAt, time.Now()), h.LastError)
	case h.LastSuccessAt != nil:
		return "ok", "delivered " + relative(*h.LastSuccessAt, time.Now())
	}
	return "unused", ""
}

func (a *app) channel() *cobra.Command {
	cmd := a.group("channel", "list, add, remove and test channels")
	cmd.Aliases = []string{"channels"}
	cmd.AddCommand(a.channelList(), a.channelAdd(), a.remove("channel", channelsPath, "what waits for it is lost"), a.channelTest())
	return cmd
}

func (a *app) channelList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "list channels",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.listed(cmd.Context(), channelsPath, nil, func(items []json.RawMessage) error {
				if len(items) == 0 {
					_, err := fmt.Fprintln(a.Stderr, "there are no channels")
					return err
				}
				rows := [][]string{{"HEALTH", "NAME", "PROVIDER", "LAST"}}
				for _, item := range items {
					var c channelJSON
					if err := json.Unmarshal(item, &c); err != nil {
						return fmt.Errorf("read the server's answer: %w", err)
					}
					word, text := c.health()
					rows = append(rows, []string{word, c.Name, c.Provider, text})
				}
				return a.table(rows)
			})
		},
	}
}

func (a *app) channelAdd() *cobra.Command {
	var set, files, transitions, labels []string
	cmd := &cobra.Command{
		Use:   "add NAME PROVIDER",
		Short: "add a channel",
		Example: "  tocsin channel add ops webhook --set url=https://hooks.example.com/tocsin\n" +
			"  tocsin channel add mail email --set host=mail.example.com --set to=ops@example.com --set-file password=/run/secrets/mail",
		Args: exactly("NAME", "PROVIDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			texts, err := a.withFiles(set, files)
			if err != nil {
				return err
			}
			fields, err := c.schema(cmd.Context(), "/providers/", args[1])
			if err != nil && !isNotFound(err) { // the server says itself, with the names it knows, that there is no such provider
				return err
			}
			config := map[string]any{}
			if err := assign(config, fields, texts); err != nil {
				return err
			}
			body := map[string]any{"name": args[0], "provider": args[1], "config": config}
			filter := map[string]any{}
			if len(transitions) > 0 {
				filter["transitions"] = transitions
			}
			if len(labels) > 0 {
				if filter["labels"], err = pairsOf(labels); err != nil {
					return usage("--label %w", err)
				}
			}
			if len(filter) > 0 {
				body["filter"] = filter
			}
			stop := a.progress("asking the server")
			var item json.RawMessage
			err = c.call(cmd.Context(), http.MethodPost, channelsPath, body, &item)
			stop()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(item)
			}
			var n named
			if err := json.Unmarshal(item, &n); err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			return a.printf("added channel %s (%s)\n", n.Name, n.ID)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&set, "set", nil, "setting of the provider, as key=value; may be repeated")
	f.StringArrayVar(&files, "set-file", nil, "setting whose value is in a file, as key=path, - for standard input; for secrets")
	f.StringSliceVar(&transitions, "transition", nil, "what it is told: down, up, degraded, unknown; down and up when not given")
	f.StringArrayVar(&labels, "label", nil, "only of monitors with this label, as key=value; may be repeated")
	return cmd
}

func (a *app) channelTest() *cobra.Command {
	return &cobra.Command{
		Use:               "test NAME|ID",
		Short:             "send a test notification and wait for what comes of it",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(channelsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			stop := a.progress("testing " + args[0])
			_, n, err := c.find(cmd.Context(), channelsPath, args[0])
			var answer json.RawMessage
			if err == nil {
				err = c.call(cmd.Context(), http.MethodPost, channelsPath+"/"+n.ID+"/test", nil, &answer)
			}
			stop()
			if err != nil {
				return err
			}
			// A refusal by the receiver is no error of the API, which did what it was asked.
			var outcome struct {
				OK    *bool  `json:"ok"`
				Error string `json:"error"`
			}
			if len(answer) > 0 {
				if err := json.Unmarshal(answer, &outcome); err != nil {
					return fmt.Errorf("read the server's answer: %w", err)
				}
			}
			failed := outcome.Error != "" || outcome.OK != nil && !*outcome.OK
			if a.json {
				if len(answer) == 0 {
					answer = json.RawMessage(`{"ok":true}`)
				}
				if err := a.printJSON(answer); err != nil || !failed {
					return err
				}
				return &CodedError{Code: ExitError}
			}
			if failed {
				return fmt.Errorf("channel %s does not work: %s", n.Name, outcome.Error)
			}
			return a.printf("channel %s took the test notification\n", n.Name)
		},
	}
}

const maxValueFile = 256 << 10

// withFiles adds to key=value texts those whose values are in files, the line break at their end removed.
func (a *app) withFiles(texts, files []string) ([]string, error) {
	for _, text := range files {
		key, path, ok := strings.Cut(text, "=")
		if !ok || key == "" || path == "" {
			return nil, usage("%q must be key=path", text)
		}
		in := a.Stdin
		if path != "-" {
			f, err := os.Open(path)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", key, err)
			}
			defer f.Close()
			in = f
		}
		data, err := io.ReadAll(io.LimitReader(in, maxValueFile+1))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		if len(data) > maxValueFile {
			return nil, fmt.Errorf("read %s: larger than %d KiB", key, maxValueFile>>10)
		}
		texts = append(texts, key+"="+strings.TrimRight(string(data), "\r\n"))
	}
	return texts, nil
}
