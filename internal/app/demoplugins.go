package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// What the demo's plugins are used for.
const (
	flakyName   = "flaky page"
	graphQLName = "GraphQL API"
	redisName   = "local Redis"
	smsName     = "demo SMS"
	smsUser     = "demo"
	smsPassword = "not a secret" // of the demo's own receiver
	redisAddr   = "127.0.0.1:6379"
	redisWait   = 500 * time.Millisecond
)

// sms takes text messages as a gateway does, and writes them into the log.
func (s *server) sms(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	user, password, ok := r.BasicAuth()
	switch err := r.ParseForm(); {
	case !ok || user != smsUser || password != smsPassword:
		http.Error(w, "who are you?", http.StatusUnauthorized)
	case err != nil || r.PostForm.Get("to") == "" || r.PostForm.Get("text") == "":
		http.Error(w, "no message", http.StatusBadRequest)
	default:
		s.log.Info("the demo's receiver got an SMS", "to", sdk.CleanText(r.PostForm.Get("to"), 100), "text", sdk.CleanText(r.PostForm.Get("text"), 300))
		w.WriteHeader(http.StatusNoContent)
	}
}

// addPlugins installs the plugins whose archives lie in the folder plugins beside this program, with all that they ask for, and
// puts them to use. What goes wrong is logged: the demo goes on without.
func (d *demo) addPlugins(ctx context.Context) {
	dir := d.bundled
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			d.log.Warn("the demo goes without plugins: nobody knows where this program is", "error", err)
			return
		}
		dir = filepath.Join(filepath.Dir(self), "plugins")
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	if err != nil || len(archives) == 0 {
		d.log.Info("the demo goes without plugins: there are no archives; make plugins builds them", "folder", dir)
		return
	}
	for _, path := range archives {
		p, err := d.addPlugin(ctx, path)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, monitor.ErrConflict): // this machine cannot run any
			d.log.Warn("the demo goes without plugins", "error", err)
			return
		case err != nil:
			d.log.Warn("the demo goes without a plugin", "archive", path, "error", err)
			continue
		}
		if err := d.use(ctx, p.Name); err != nil && ctx.Err() == nil {
			d.log.Warn("the demo does not use a plugin", "plugin", p.Name, "error", err)
		}
	}
}

// addPlugin installs the plugin of an archive. Unlike an install that somebody asks for, it ends with ctx.
func (d *demo) addPlugin(ctx context.Context, path string) (monitor.InstalledPlugin, error) {
	archive, err := os.Open(path)
	if err != nil {
		return monitor.InstalledPlugin{}, fmt.Errorf("open the archive of a plugin: %w", err)
	}
	defer archive.Close()
	return d.plugins.Install(ctx, archive, monitor.PluginInstall{Grant: true, By: "demo"})
}

// use adds what a plugin is used for. A plugin that the demo does not know is there for people to try.
func (d *demo) use(ctx context.Context, name string) error {
	every := 5 * time.Second
	in := service.MonitorInput{
		Kind: name, Interval: &every, Channels: []string{d.channel}, Labels: map[string]string{"demo": "true"},
	}
	switch name {
	case "graphql-health":
		in.Name, in.Target = graphQLName, d.front.url()+graphQLPath
		in.Config = raw(map[string]any{"expect": map[string]any{"path": "shop.open", "value": true}})
	case "redis":
		if !answersPing(ctx, redisAddr) {
			return nil
		}
		in.Name, in.Target = redisName, redisAddr
	case "sms-gateway":
		return d.alsoBySMS(ctx, name)
	default:
		return nil
	}
	if _, err := d.service.CreateMonitor(ctx, in); err != nil {
		return fmt.Errorf("add the monitor %s: %w", in.Name, err)
	}
	return nil
}

// alsoBySMS has the notifications of the flaky page sent as text messages too.
func (d *demo) alsoBySMS(ctx context.Context, provider string) error {
	if _, err := d.service.CreateChannel(ctx, service.ChannelInput{Name: smsName, Provider: provider, Config: raw(map[string]any{
		"url": d.front.url() + smsPath, "username": smsUser, "password": smsPassword, "to": "+15550100", "from": "Tocsin",
	})}); err != nil {
		return fmt.Errorf("add the channel %s: %w", smsName, err)
	}
	page, err := d.service.Monitors(ctx, monitor.Query{Text: flakyName})
	if err != nil {
		return fmt.Errorf("find the monitor %s: %w", flakyName, err)
	}
	known := d.monitors()
	for i := range page.Items {
		at := slices.IndexFunc(known, func(in service.MonitorInput) bool { return in.Name == page.Items[i].Name && in.Name == flakyName })
		if at < 0 {
			continue
		}
		in := known[at]
		in.Channels, in.Labels = []string{d.channel, smsName}, map[string]string{"demo": "true"}
		if _, err := d.service.ReplaceMonitor(ctx, page.Items[i].ID, page.Items[i].Revision, in); err != nil {
			return fmt.Errorf("change the monitor %s: %w", flakyName, err)
		}
	}
	return nil
}

// answersPing reports whether a Redis answers there, and asks for no password.
func answersPing(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer := make([]byte, len("+PONG"))
	n, err := conn.Read(answer)
	return err == nil && string(answer[:n]) == "+PONG"
}
