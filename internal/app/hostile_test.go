package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/host"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	builtins = 500                    // checks of built-in kinds beside the plugins
	mostLate = 100 * time.Millisecond // that a plugin may make one of them
	together = 6                      // hostile guests at the same time
)

// guest is a line of the corpus of hostile guests; see host/testdata/hostile/corpus.json.
type guest struct {
	File, Ends, Text, Target string
	Permissions              []string
	Endless                  bool
}

func (g guest) name() string {
	return strings.NewReplacer(":", "-", ".wasm", "", "_", "-").Replace(g.File)
}

const guestDir = "../../host/testdata/hostile/"

// corpus gives the guests that are installed and called, and those that must be refused.
func corpus(t *testing.T, redirecting string) (called, refused []guest) {
	t.Helper()
	text, err := os.ReadFile(guestDir + "corpus.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []guest
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		g.Target = strings.ReplaceAll(g.Target, "{server}", redirecting)
		switch {
		case g.File == "generated:locals", g.File == "generated:body":
			// They are refused without being compiled, like many others here.
		case g.Ends == "refused":
			refused = append(refused, g)
		default:
			called = append(called, g)
		}
	}
	return called, refused
}

// archive packs the guest.
func (g guest) archive(t *testing.T) []byte {
	t.Helper()
	var module []byte
	if g.File == "generated:nested" {
		module = nested()
	} else {
		var err error
		if module, err = os.ReadFile(guestDir + g.File); err != nil {
			t.Fatal(err)
		}
	}
	return packed(t, g.name(), map[string]string{"check.wasm": string(module)}, g.Permissions...)
}

// packed packs a plugin of check.wasm or check.js.
func packed(t *testing.T, name string, files map[string]string, permissions ...string) []byte {
	t.Helper()
	manifest := "api: 1\nname: " + name + "\nversion: 1.0.0\nsummary: a plugin for tests\nprovides: [check]\nruntime: wasm\n"
	if _, ok := files["check.js"]; ok {
		manifest += "script: check.js\n"
	} else {
		manifest += "entry: check.wasm\n"
	}
	for i, p := range permissions {
		if i == 0 {
			manifest += "permissions:\n"
		}
		manifest += fmt.Sprintf("  - {allow: %q}\n", p)
	}
	dir := t.TempDir()
	files[sdk.ManifestFile] = manifest
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := host.Pack(dir, &archive); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// nested gives a module that is within all static limits and takes minutes to compile: functions with a thousand loops within
// each other, and a thousand locals that all change in the innermost.
func nested() []byte {
	body := []byte{1, 0xe7, 0x07, 0x7e} // 999 locals of type i64
	for range 990 {
		body = append(body, 0x03, 0x40) // loop
	}
	for i := range 999 { // local i = local i + 1
		body = append(binary.AppendUvarint(append(body, 0x20), uint64(i)), 0x42, 1, 0x7c)
		body = binary.AppendUvarint(append(body, 0x21), uint64(i))
	}
	for range 990 {
		body = append(body, 0x20, 0, 0xa7, 0x0d, 0, 0x0b) // again when local 0 is not 0, end
	}
	body = append(body, 0x0b)
	module := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x09\x08" + strings.Repeat("\x00", 8) + "\x05\x03\x01\x00\x01\x07\x09\x01\x05check\x00\x00")
	code := []byte{8}
	for range 8 {
		code = append(binary.AppendUvarint(code, uint64(len(body))), body...)
	}
	return append(binary.AppendUvarint(append(module, 10), uint64(len(code))), code...)
}

// besieged is a server with 500 checks that must be on time, and a plugin that behaves well, while others do not.
type besieged struct {
	*instance
	*visited
	beside   *beside
	interval time.Duration
	ops      *inbox
	ids      map[string]string // of monitors of plugins, by name
}

func besiege(t *testing.T) *besieged {
	t.Helper()
	v := newVisited(t)
	b := &besieged{visited: v, beside: newBeside(t, v.began), interval: time.Second, ops: newInbox(t), ids: map[string]string{}}
	if underRace() {
		b.interval = 2 * time.Second // every check takes several times as long
	}
	b.instance = startWith(t, Options{Settings: settings(t, nil), hosting: func(o *host.Options) {
		o.CompileTimeout = 5 * time.Second
		o.Lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
			if name == "metadata.test" {
				return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
			}
			return nil, fmt.Errorf("no such host %q", name)
		}
	}})
	b.add("/api/v1/channels", map[string]any{
		"name": "ops", "provider": "webhook", "config": map[string]any{"url": b.ops.URL}, "filter": map[string]any{"transitions": []string{"down", "up", "degraded"}},
	})
	interval := b.interval.String()
	for i := range builtins {
		m := map[string]any{"name": fmt.Sprintf("m%03d", i), "interval": interval, "timeout": interval, "channels": []string{"ops"}}
		if i%2 == 0 {
			m["kind"], m["target"] = "http", fmt.Sprintf("%s/m%03d", v.page.URL, i)
		} else {
			m["kind"], m["target"] = "tcp", v.port.Addr().String()
			m["config"] = map[string]any{"send": fmt.Sprintf("m%03d\n", i), "expect": "hello"}
		}
		b.add("/api/v1/monitors", m)
	}
	module, err := os.ReadFile("../../host/testdata/good/good.wasm")
	if err != nil {
		t.Fatal(err)
	}
	b.install(packed(t, "good", map[string]string{"check.wasm": string(module)}), http.StatusCreated)
	b.watch("good", "good", b.interval, "")
	b.until("all are checked", func() bool { return b.all() == builtins && b.monitor("good").State == "up" })
	return b
}

// underRace reports whether this program was built with the race detector.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// install installs and grants a plugin, and returns the answer.
func (b *besieged) install(archive []byte, want int) string {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.URL+"/api/v1/plugins?grant=true", bytes.NewReader(archive))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Authorization", "Bearer "+testToken)
	req.Header.Set("Content-Type", "application/gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		b.t.Errorf("install a plugin: %d, want %d, error %v\n%s", resp.StatusCode, want, err, answer)
	}
	return string(answer)
}

// watch adds a monitor of a plugin.
func (b *besieged) watch(name, plugin string, timeout time.Duration, target string) {
	b.t.Helper()
	if target == "" {
		target = "anything"
	}
	b.ids[name] = b.add("/api/v1/monitors", map[string]any{
		"name": name, "kind": plugin, "target": target, "interval": b.interval.String(), "timeout": timeout.String(), "channels": []string{"ops"},
	}).ID
}

// unwatch removes a monitor.
func (b *besieged) unwatch(name string) {
	b.t.Helper()
	if status := b.call(http.MethodDelete, "/api/v1/monitors/"+b.ids[name], testToken, nil, nil); status != http.StatusNoContent {
		b.t.Errorf("remove the monitor %s: %d", name, status)
	}
}

// uninstall removes a plugin.
func (b *besieged) uninstall(name string) {
	b.t.Helper()
	if status := b.call(http.MethodDelete, "/api/v1/plugins/"+name, testToken, nil, nil); status != http.StatusNoContent {
		b.t.Errorf("remove the plugin %s: %d", name, status)
	}
}

// seen is a monitor with its newest result.
type seen struct {
	State string
	Last  *struct{ Status, Message string }
}

func (b *besieged) monitor(name string) seen {
	b.t.Helper()
	var s seen
	b.call(http.MethodGet, "/api/v1/monitors/"+b.ids[name], testToken, nil, &s)
	return s
}

// samples gives all results of a monitor.
func (b *besieged) samples(name string) []sample {
	b.t.Helper()
	var s struct{ Items []sample }
	b.call(http.MethodGet, "/api/v1/monitors/"+b.ids[name]+"/samples?limit=1000", testToken, nil, &s)
	return s.Items
}

type sample struct {
	At              time.Time
	Status, Message string
}

// plugin is what the tests look at of a plugin.
type plugin struct {
	Condition string
	Why       *string
	Usage     struct{ Calls, Failures, Kills, Runners int }
}

func (b *besieged) plugin(name string) plugin {
	b.t.Helper()
	var p plugin
	b.call(http.MethodGet, "/api/v1/plugins/"+name, testToken, nil, &p)
	return p
}

// tooLate lists the checks that were late since from by more than a plugin may make them, and by more than the machine did.
func (b *besieged) tooLate(from time.Duration) []string {
	var found []string
	for _, l := range b.lates(b.interval, from, mostLate) {
		still := b.beside.longest(l.at-l.by, l.at)
		if l.by > mostLate+2*still {
			found = append(found, fmt.Sprintf("%s at %s by %s (the machine stood still for %s)", l.name, l.at, l.by, still))
		}
	}
	return found
}

// onTime does something three times if it must be: checks are late now and then on a machine that is busy with something else,
// but because of a plugin they are late each time.
func (b *besieged) onTime(what string, do func()) {
	b.t.Helper()
	var found []string
	for range 3 {
		from := time.Since(b.began)
		do()
		if found = b.tooLate(from); len(found) == 0 || b.t.Failed() {
			return
		}
		b.t.Logf("while %s: %d checks were late, such as %s", what, len(found), found[0])
	}
	b.t.Errorf("each time while %s, checks were late by more than %s:\n%s", what, mostLate, strings.Join(found, "\n"))
}

// TestHostilePlugins has a whole server run every guest of the corpus: none of them makes a check late, down or wrong.
func TestHostilePlugins(t *testing.T) {
	redirecting := httptest.NewServer(http.RedirectHandler("http://denied.test/", http.StatusFound))
	defer redirecting.Close()
	b := besiege(t)
	called, refused := corpus(t, redirecting.URL)
	quiet := time.Since(b.began)
	b.onTime("nothing hostile was there", func() { <-time.After(3 * b.interval) })
	b.t.Logf("set up in %s", quiet)
	var names []string
	for batch := range slices.Chunk(called, together) {
		names = names[:0]
		for _, g := range batch {
			names = append(names, g.name())
		}
		b.onTime(strings.Join(names, ", ")+" ran", func() { b.suffer(batch) })
	}
	b.t.Logf("called after %s", time.Since(b.began))
	for _, g := range refused {
		b.onTime(g.name()+" was installed", func() {
			if answer := b.install(g.archive(t), http.StatusUnprocessableEntity); !strings.Contains(answer, strings.ReplaceAll(g.Text, `"`, `\"`)) {
				t.Errorf("%s was refused, but without %q: %s", g.name(), g.Text, answer)
			}
		})
	}
	b.t.Logf("refused after %s", time.Since(b.began))
	b.onTime("a plugin looped until it was disabled", b.disabled)

	for _, s := range b.samples("good") {
		if s.Status != "up" {
			t.Errorf("the well-behaved plugin's monitor was %s at %s: %s", s.Status, s.At, s.Message)
		}
	}
	if p := b.plugin("good"); p.Condition != "ready" || p.Usage.Kills > 0 || p.Usage.Failures > 0 {
		t.Errorf("the well-behaved plugin: %+v", p)
	}
	var incidents struct{ Items []map[string]any }
	b.call(http.MethodGet, "/api/v1/incidents", testToken, nil, &incidents)
	if len(incidents.Items) > 0 {
		t.Errorf("incidents were opened: %v", incidents.Items)
	}
	b.stop()
	if got := b.ops.notifications(); len(got) > 0 {
		t.Errorf("people were told %q", got)
	}
	b.t.Logf("all took %s", time.Since(b.began))
}

// suffer installs some hostile guests, has each watched by a monitor, and removes them when each has had a result.
func (b *besieged) suffer(guests []guest) {
	b.t.Helper()
	for _, g := range guests {
		b.install(g.archive(b.t), http.StatusCreated)
		timeout := 500 * time.Millisecond
		if g.Endless {
			timeout = 300 * time.Millisecond
		}
		b.watch(g.name(), g.name(), timeout, g.Target)
	}
	for _, g := range guests {
		want := g.Ends
		if want == "killed" {
			want = "unknown"
		}
		var got []sample
		b.until(g.name()+" has the result "+want+" "+g.Text, func() bool {
			got = b.samples(g.name())
			if last := b.monitor(g.name()).Last; last != nil {
				got = append(got, sample{Status: last.Status, Message: last.Message})
			}
			return slices.ContainsFunc(got, func(s sample) bool { return s.Status == want && strings.Contains(s.Message, g.Text) })
		})
		for _, s := range got {
			if s.Status != want && s.Status != "unknown" {
				b.t.Errorf("%s had the result %s %q, want %s", g.name(), s.Status, s.Message, want)
			}
		}
		b.unwatch(g.name())
		b.uninstall(g.name())
	}
}

// disabled has a plugin loop for three of its monitors. It is disabled, and an operator lets it run again.
func (b *besieged) disabled() {
	b.t.Helper()
	b.install(packed(b.t, "moody", map[string]string{"check.js": `export function check(r) { while (r.target === "loop"); return {status: "up", message: "fine"}; }`}), http.StatusCreated)
	b.watch("bystander", "moody", b.interval, "ok")
	b.until("the bystander is up", func() bool { return b.monitor("bystander").State == "up" })
	names := []string{"loop-1", "loop-2", "loop-3"}
	for _, name := range names {
		b.watch(name, "moody", 300*time.Millisecond, "loop")
	}
	var p plugin
	b.until("the plugin is disabled", func() bool { p = b.plugin("moody"); return p.Condition == "disabled" })
	if p.Why == nil || !strings.Contains(*p.Why, `for the monitor "loop-`) || !strings.Contains(*p.Why, "exceeded its deadline") || !strings.Contains(*p.Why, "enable it again") {
		b.t.Errorf("it is disabled because %v", p.Why)
	}
	b.until("the bystander says so", func() bool {
		last := b.monitor("bystander").Last
		return last.Status == "unknown" && strings.Contains(last.Message, "plugin moody is disabled")
	})
	if status := b.call(http.MethodPost, "/api/v1/monitors", testToken, map[string]any{"name": "more", "kind": "moody", "target": "ok"}, nil); status != http.StatusUnprocessableEntity {
		b.t.Errorf("a monitor of a disabled plugin was added: %d", status)
	}
	b.call(http.MethodPost, "/api/v1/plugins/moody/enable", testToken, nil, &p)
	for _, name := range names {
		b.unwatch(name)
	}
	b.until("the bystander is up again", func() bool { return b.monitor("bystander").State == "up" })
	if p := b.plugin("moody"); p.Condition != "ready" {
		b.t.Errorf("after it was enabled it is %+v", p)
	}
	b.unwatch("bystander")
	b.uninstall("moody")
}
