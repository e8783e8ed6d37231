package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tocsinhq/tocsin/host"
)

const maxArchive = 64 << 20 // bytes; a server takes no more

// installing is what `plugin install` was asked.
type installing struct {
	grant, private, yes bool
}

func (a *app) pluginInstall() *cobra.Command {
	var o installing
	cmd := &cobra.Command{
		Use:   "install FILE|DIR",
		Short: "install a plugin from its archive or its directory",
		Long: "Installs a plugin, or another version of one, from its archive (tar.gz) or its directory. It then says what the plugin asks\n" +
			"for and asks whether to grant that; without a terminal to ask on the plugin waits until `tocsin plugin grant`. A plugin\n" +
			"reaches what it was granted and nothing else.",
		Example: "  tocsin plugin install redis-1.2.0.tar.gz\n  tocsin plugin install ./redis --grant",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.install(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.grant, "grant", false, "grant all that it asks for, unseen")
	f.BoolVar(&o.private, "allow-private", false, "let addresses that the plugin itself names be loopback or private ones")
	f.BoolVarP(&o.yes, "yes", "y", false, "show what it asks for, and grant it without asking")
	return cmd
}

// archive opens a plugin's archive, or packs its directory.
func archive(path string) (io.ReadCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the plugin: %w", err)
	}
	if info.IsDir() {
		var packed bytes.Buffer
		if err := host.Pack(path, &packed); err != nil {
			return nil, fmt.Errorf("pack %s: %w", path, err)
		}
		return io.NopCloser(&packed), nil
	}
	switch size := info.Size(); {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read the plugin: %s is neither a file nor a directory", path)
	case size == 0:
		return nil, fmt.Errorf("read the plugin: %s is empty", path)
	case size > maxArchive:
		return nil, fmt.Errorf("read the plugin: %s is larger than %d MiB", path, maxArchive>>20)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the plugin: %w", err)
	}
	return f, nil
}

func (a *app) install(ctx context.Context, path string, o installing) error {
	if o.private && !o.grant && !o.yes && (!a.asks() || a.json) {
		return usage("--allow-private is a part of a grant; give --grant as well")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	in, err := archive(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	query := url.Values{}
	if o.grant {
		query.Set("grant", "true")
		if o.private {
			query.Set("allow_private", "true")
		}
	}
	at := pluginsPath
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	stop := a.progress("installing; compiling may take a minute")
	var item json.RawMessage
	err = c.send(ctx, http.MethodPost, at, payload{media: "application/gzip", body: in}, &item)
	stop()
	if err != nil {
		return err
	}
	p, err := pluginOf(item)
	if err != nil {
		return err
	}
	if !a.json {
		version, _, _ := p.decides()
		if err := a.printf("installed plugin %s %s: %s\n", shown(p.Name), shown(version), shown(p.Summary)); err != nil {
			return err
		}
	}
	if !p.waits() {
		if a.json {
			return a.printJSON(item)
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
		return a.grantedNow(&p)
	}
	return a.decide(ctx, c, decision{plugin: p, item: item, installing: o})
}

// decision is a plugin that waits for a grant, and what was said about that before.
type decision struct {
	plugin pluginJSON
	item   json.RawMessage
	installing
}

// decide shows what a new build asks for, and grants it or says how.
func (a *app) decide(ctx context.Context, c *client, d decision) error {
	p := &d.plugin
	_, digest, asks := p.decides()
	grant := d.yes
	if !a.json {
		var b strings.Builder
		if p.Pending != nil {
			fmt.Fprintf(&b, "\nIt asks for more than version %s was granted, which goes on until you decide.\n", shown(p.Version))
		}
		b.WriteByte('\n')
		writeAsks(&b, "It asks to", marked(asks))
		if err := a.printf("%s", &b); err != nil {
			return err
		}
		if !grant && a.asks() {
			question := "Grant this?"
			if d.private {
				question = "Grant this, private addresses too?"
			}
			var err error
			if grant, err = a.ask("\n%s", question); err != nil {
				return err
			}
		}
	}
	if !grant {
		if a.json {
			return a.printJSON(d.item)
		}
		return a.printf("\nIt waits until you grant that:\n  tocsin plugin grant %s\n", shown(p.Name))
	}
	item, err := c.plugin(ctx, pluginRequest{
		method: http.MethodPost, name: p.Name, verb: "grant", body: map[string]any{"allow_private": d.private, "digest": digest},
	})
	if err != nil {
		return err
	}
	return a.showPlugin(item, func(p *pluginJSON) error { // what it may is on the screen already
		return a.nowIs("\ngranted that to", p)
	})
}

// grantedNow says what a plugin may from now on, and what it may not although it asked.
func (a *app) grantedNow(p *pluginJSON) error {
	var b strings.Builder
	writeAsks(&b, "Plugin "+shown(p.Name)+" "+shown(p.Version)+" may", p.may())
	if refused := p.refused(); len(refused) > 0 {
		b.WriteByte('\n')
		writeAsks(&b, "It may not", refused)
	}
	if p.Why != "" {
		fmt.Fprintf(&b, "\nIt is %s: %s\n", shown(p.Condition), shown(p.Why))
	}
	return a.printf("%s", &b)
}

func (a *app) pluginGrant() *cobra.Command {
	var only []string
	private := false
	cmd := &cobra.Command{
		Use:   "grant NAME",
		Short: "grant what a plugin asks for, or a part of it",
		Long: "Grants all that a plugin asks for, or only some of it, in place of what was granted before. `tocsin plugin inspect` shows what\n" +
			"it asks for. A version that waits for its grant runs from then on.",
		Example: "  tocsin plugin grant redis\n  tocsin plugin grant redis --only 'tcp://{target}'",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeNames(pluginsPath),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			body := map[string]any{"allow_private": private}
			if cmd.Flags().Changed("only") {
				body["permissions"] = only
			}
			stop := a.progress("asking the server")
			item, err := c.grant(cmd.Context(), args[0], body)
			stop()
			if err != nil {
				return err
			}
			return a.showPlugin(item, a.grantedNow)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&only, "only", nil, "only this permission, as its manifest writes it; may be repeated")
	f.BoolVar(&private, "allow-private", false, "let addresses that the plugin itself names be loopback or private ones")
	return cmd
}

// grant grants to the build that is there now: one that comes in between was not looked at.
func (c *client) grant(ctx context.Context, name string, body map[string]any) (json.RawMessage, error) {
	item, err := c.plugin(ctx, pluginRequest{method: http.MethodGet, name: name})
	if err != nil {
		return nil, err
	}
	p, err := pluginOf(item)
	if err != nil {
		return nil, err
	}
	_, body["digest"], _ = p.decides()
	return c.plugin(ctx, pluginRequest{method: http.MethodPost, name: name, verb: "grant", body: body})
}
