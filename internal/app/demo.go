package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// The demo watches things that are on every machine and need no network: the server itself, the loopback interface, a name
// server and a heartbeat of its own, and a page that fails for 20 s of each minute, so that there is something to see. A
// GraphQL server with one answer is there for whoever tries a plugin.
const (
	demoCycle   = time.Minute
	demoFailsAt = 20 * time.Second
	demoWorksAt = 40 * time.Second
	demoBeat    = 5 * time.Second
	demoTimeout = 10 * time.Second // of one step of setting it up

	flakyPath   = "/demo/flaky"
	hookPath    = "/demo/hook"
	graphQLPath = "/demo/graphql"
	smsPath     = "/demo/sms"
)

// demo is what the demo runs beside the server.
type demo struct {
	*server
	dns     net.PacketConn
	push    string // where the heartbeat is sent
	http    *http.Client
	fresh   bool   // there was no monitor before
	channel string // name of the one that its monitors use
}

// demoHandler serves the demo's page and its receiver of notifications beside the API.
func (s *server) demoHandler(next http.Handler) http.Handler {
	began := time.Now()
	flaky := func(w http.ResponseWriter) {
		if at := time.Since(began) % demoCycle; at >= demoFailsAt && at < demoWorksAt {
			http.Error(w, "this page fails for 20 s of each minute", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := io.WriteString(w, `{"ok":true}`+"\n"); err != nil {
			s.log.Debug("the demo's page was not read to its end", "error", err)
		}
	}
	hook := func(w http.ResponseWriter, r *http.Request) {
		var n sdk.Notification
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&n); err != nil {
			http.Error(w, "no notification", http.StatusBadRequest)
			return
		}
		s.log.Info("the demo's receiver got a notification", "monitor", n.Monitor.Name, "transition", string(n.Transition),
			"text", sdk.CleanText(n.Text, 300))
		w.WriteHeader(http.StatusNoContent)
	}
	graphQL := func(w http.ResponseWriter) { // whatever it is asked
		w.Header().Set("Content-Type", "application/json")
		if _, err := io.WriteString(w, `{"data":{"__typename":"Query","shop":{"open":true}}}`+"\n"); err != nil {
			s.log.Debug("the demo's GraphQL answer was not read to its end", "error", err)
		}
	}
	// Not a ServeMux: it would redirect unclean paths, which the API answers itself.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case http.MethodGet + " " + flakyPath:
			flaky(w)
		case http.MethodPost + " " + hookPath:
			hook(w, r)
		case http.MethodPost + " " + graphQLPath:
			graphQL(w)
		case http.MethodPost + " " + smsPath:
			s.sms(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// startDemo adds the demo's monitors when there are none, and says how to see them. token is what the start minted; the demo
// keeps it in its data folder, for a demo that is started again should be usable again.
func (s *server) startDemo(ctx context.Context, token *string) (*demo, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	d := &demo{server: s, http: &http.Client{Timeout: demoBeat}}
	var lc net.ListenConfig
	var err error
	// The same number as the API's, but UDP: the address must be the same at the next start.
	if d.dns, err = lc.ListenPacket(ctx, "udp", s.front.address()); err != nil {
		s.log.Warn("the demo's name server cannot listen, so its monitor will be down", "error", err)
	}
	ctx = service.WithPrincipal(ctx, d.principal())
	if err := d.seed(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the demo: %w", err), d.close())
	}
	if err := d.findHeartbeat(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if *token == "" {
		*token = string(s.Settings.AdminToken)
	}
	if err := d.keepToken(token); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.greet(*token)
	return d, nil
}

// principal is who the demo is to the service.
func (*demo) principal() service.Principal {
	return service.Principal{Name: "demo", Role: monitor.Admin}
}

func (d *demo) close() error {
	if d.dns == nil {
		return nil
	}
	return d.dns.Close()
}

func (d *demo) keepToken(token *string) error {
	path := filepath.Join(d.Settings.Data, "demo-token")
	if *token != "" {
		if err := os.WriteFile(path, []byte(*token+"\n"), 0o600); err != nil {
			return fmt.Errorf("keep the demo's token: %w", err)
		}
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the demo's token: %w", err)
	}
	*token = strings.TrimSpace(string(data))
	return nil
}

// seed adds a channel and the monitors, when there is no monitor.
func (d *demo) seed(ctx context.Context) error {
	have, err := d.service.Monitors(ctx, monitor.Query{Limit: 1})
	if err != nil || len(have.Items) > 0 {
		return err
	}
	channels, err := d.service.Channels(ctx)
	if err != nil {
		return err
	}
	if len(channels) == 0 {
		if _, err := d.service.CreateChannel(ctx, service.ChannelInput{
			Name: "demo", Provider: "webhook", Config: raw(map[string]any{"url": d.front.url() + hookPath}),
		}); err != nil {
			return fmt.Errorf("add the channel: %w", err)
		}
		channels = append(channels, service.ChannelView{Channel: monitor.Channel{Name: "demo"}})
	}
	d.fresh, d.channel = true, channels[0].Name
	for _, in := range d.monitors() {
		in.Channels = []string{d.channel}
		in.Labels = map[string]string{"demo": "true"}
		if _, err := d.service.CreateMonitor(ctx, in); err != nil {
			return fmt.Errorf("add the monitor %s: %w", in.Name, err)
		}
	}
	return nil
}

func raw(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic("app: a literal is no JSON: " + err.Error())
	}
	return data
}

const heartbeatName = "heartbeat"

func (d *demo) monitors() []service.MonitorInput {
	at := d.front.address()
	every := func(t time.Duration) *time.Duration { return &t }
	return []service.MonitorInput{
		{Name: flakyName, Kind: "http", Target: d.front.url() + flakyPath, Interval: every(2 * time.Second), Retries: 1, RetryInterval: every(time.Second), Assert: []string{"json.ok == true"}},
		{Name: "own health page", Kind: "http", Target: d.front.url() + "/healthz", Interval: every(5 * time.Second)},
		{Name: "own port", Kind: "tcp", Target: at, Interval: every(5 * time.Second)},
		{Name: "loopback", Kind: "icmp", Target: "127.0.0.1", Interval: every(5 * time.Second)},
		{Name: "localhost by DNS", Kind: "dns", Target: "localhost", Interval: every(5 * time.Second), Config: raw(map[string]any{"server": at})},
		{Name: heartbeatName, Kind: "push", Interval: every(2 * demoBeat)},
	}
}

// findHeartbeat finds out where the heartbeat of an earlier start or of this one is sent.
func (d *demo) findHeartbeat(ctx context.Context) error {
	page, err := d.service.Monitors(ctx, monitor.Query{Text: heartbeatName})
	if err != nil {
		return fmt.Errorf("find the demo's heartbeat: %w", err)
	}
	for i := range page.Items {
		if m := &page.Items[i]; m.Name == heartbeatName && m.PushURL != "" {
			d.push = m.PushURL
			if strings.HasPrefix(d.push, "/") {
				d.push = d.front.url() + d.push
			}
		}
	}
	return nil
}

// run adds plugins to a new demo, and sends the heartbeat and answers DNS queries until ctx ends.
func (d *demo) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		if err := d.close(); err != nil {
			d.log.Warn("close the demo's name server", "error", err)
		}
	})
	defer stop()
	var beside sync.WaitGroup
	beside.Go(d.answer)
	if d.fresh {
		// Compiling them takes a while, and the demo can be looked at without.
		beside.Go(func() { d.addPlugins(service.WithPrincipal(ctx, d.principal())) })
	}
	ticker := time.NewTicker(demoBeat)
	defer ticker.Stop()
	for {
		d.beat(ctx)
		select {
		case <-ctx.Done():
			beside.Wait()
			return nil
		case <-ticker.C:
		}
	}
}

func (d *demo) beat(ctx context.Context) {
	if d.push == "" {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.push+"?status=up&msg=the+demo+is+alive", nil)
	if err != nil {
		d.log.Warn("the demo's heartbeat cannot be made", "error", err)
		return
	}
	resp, err := d.http.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			d.log.Warn("the demo's heartbeat did not arrive", "error", err)
		}
		return
	}
	if err := resp.Body.Close(); err != nil {
		d.log.Debug("close the heartbeat's answer", "error", err)
	}
	if resp.StatusCode/100 != 2 {
		d.log.Warn("the demo's heartbeat was refused", "status", resp.StatusCode)
	}
}

// answer answers queries for localhost with 127.0.0.1 until the socket is closed.
func (d *demo) answer() {
	if d.dns == nil {
		return
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := d.dns.ReadFrom(buf)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				d.log.Warn("the demo's name server stopped", "error", err)
			}
			return
		}
		reply, ok := dnsReply(buf[:n])
		if !ok {
			continue
		}
		if _, err := d.dns.WriteTo(reply, from); err != nil {
			d.log.Log(context.Background(), slog.LevelDebug, "the demo's name server could not answer", "error", err)
		}
	}
}

// dnsReply answers a query of one question: localhost has the address 127.0.0.1, all other names do not exist.
func dnsReply(query []byte) ([]byte, bool) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil || header.Response {
		return nil, false
	}
	q, err := p.Question()
	if err != nil {
		return nil, false
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	switch {
	case !strings.EqualFold(q.Name.String(), "localhost."):
		reply.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	data, err := reply.Pack()
	return data, err == nil
}

// greet says what there is to see.
func (d *demo) greet(token string) {
	if token == "" {
		token = "(printed by the first start)"
	}
	fmt.Fprintf(d.Stdout, `
Tocsin runs at %[1]s and watches this machine. In another terminal:

  export TOCSIN_URL=%[1]s
  export TOCSIN_TOKEN=%[2]s
  bin/tocsin monitor list
  bin/tocsin plugin list
  curl -s -H "Authorization: Bearer $TOCSIN_TOKEN" $TOCSIN_URL/api/v1/monitors
  curl -sN -H "Authorization: Bearer $TOCSIN_TOKEN" $TOCSIN_URL/api/v1/events

"flaky page" fails from 20 s to 40 s of each minute. The log below shows the notifications of it.
Ctrl-C stops the server; rm -r %[3]s forgets all it knows.

`, d.front.url(), token, d.Settings.Data)
}
