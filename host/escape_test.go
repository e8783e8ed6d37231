//go:build linux

package host

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/confine"
	"github.com/tocsinhq/tocsin/sdk"
)

// escapeJob is the job of testdata/escapee.
type escapeJob struct {
	Do        string
	Harmless  bool     `json:",omitempty"`
	Server    int      `json:",omitempty"`
	Neighbour int      `json:",omitempty"`
	Files     []string `json:",omitempty"`
	Folders   []string `json:",omitempty"`
	Sockets   []string `json:",omitempty"`
	Other     string   `json:",omitempty"`
	Hosts     []string `json:",omitempty"`
	Frame     []byte   `json:",omitempty"`
	Times     int      `json:",omitempty"`
	Secret    string   `json:",omitempty"`
}

// escaped is a host whose runners are escapees.
type escaped struct {
	*bed
	data   string
	mu     sync.Mutex
	said   []string
	target *place
	other  *place
	tried  escapeJob // the attack
}

// newEscaped opens a host whose runners are started with some arguments more.
func newEscaped(t *testing.T, change func(*Options), args ...string) *escaped {
	t.Helper()
	e := &escaped{data: t.TempDir(), target: newPlace(t), other: newPlace(t)}
	for _, name := range []string{"tocsin.db", "secret.key"} {
		if err := os.WriteFile(filepath.Join(e.data, name), []byte("the server's "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e.bed = newBed(t, func(o *Options) {
		o.Dir = filepath.Join(e.data, "plugins")
		o.Program = append([]string{filepath.Join(filepath.Dir(os.Getenv(programEnv)), "escapee")}, args...)
		if change != nil {
			change(o)
		}
	})
	e.hear = func(_ slog.Level, text string) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.said = append(e.said, text)
	}
	return e
}

// plugin is a good one; what runs in its place is the escapee.
func (e *escaped) plugin(name string, more ...string) pluginFiles {
	return moduled(name, string(readGuest(e.t, "good", "good.wasm")), more...)
}

const granted = "permissions:\n  - {allow: \"tcp://{target}\"}\n  - {allow: \"udp://{target}\"}"

// job makes a request that has the escapee do something.
func (e *escaped) job(j escapeJob) sdk.CheckRequest {
	e.t.Helper()
	config, err := json.Marshal(j)
	if err != nil {
		e.t.Fatal(err)
	}
	r := request(e.target.address)
	r.Config, r.Timeout = config, 30*time.Second
	return r
}

// place is an address that something may be sent to, over TCP and UDP.
type place struct {
	address string
	arrived chan string // what came, and over what
	mu      sync.Mutex
	conns   []net.Conn
}

func newPlace(t *testing.T) *place {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := &place{address: tcp.Addr().String(), arrived: make(chan string, 1000)}
	var work sync.WaitGroup
	note := func(what string) {
		select {
		case p.arrived <- what:
		default:
		}
	}
	work.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, conn)
			p.mu.Unlock()
			note("tcp")
			work.Go(func() {
				buffer := make([]byte, 100)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					note("tcp: " + string(buffer[:n]))
				}
			})
		}
	})
	work.Go(func() {
		buffer := make([]byte, 100)
		for {
			n, _, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			note("udp: " + string(buffer[:n]))
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(tcp.Close(), udp.Close()); err != nil {
			t.Error(err)
		}
		p.hangUp()
		work.Wait()
	})
	return p
}

// hangUp closes the connections that came.
func (p *place) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close() // the other side may have
	}
	p.conns = nil
}

// seen is what has arrived.
func (p *place) seen() (all []string) {
	for {
		select {
		case what := <-p.arrived:
			all = append(all, what)
		default:
			return all
		}
	}
}

// below lists the files and folders below a folder.
func below(t *testing.T, dir string) (files, folders []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			folders = append(folders, path)
		case d.Type().IsRegular():
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, folders
}

// contents are the files below a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, _ := below(t, dir)
	all := map[string]string{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = info.Mode().String() + " " + string(text)
	}
	return all
}

// attack has the escapee try everything while a neighbour is at work, and returns what came of it: the outcome and the name.
func (e *escaped) attack(harmless bool) []string {
	t := e.t
	t.Helper()
	e.install(e.plugin("neighbour", granted))
	e.install(e.plugin("escapee", granted))
	var neighbour sync.WaitGroup
	neighbour.Go(func() {
		if r, err := e.check("neighbour", e.job(escapeJob{Do: "hold"})); err != nil || r.Status != sdk.Up {
			t.Errorf("the neighbour's call: %v, %v", r, err)
		}
	})
	if what := <-e.target.arrived; what != "tcp" {
		t.Fatalf("the neighbour connected over %s", what)
	}
	p, err := e.lookup("neighbour")
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	pid := p.shared.proc.Pid()
	p.mu.Unlock()
	e.mustCheck("escapee", e.job(escapeJob{})) // so that its own files are there
	j := escapeJob{
		Do: "attack", Harmless: harmless, Server: os.Getpid(), Neighbour: pid, Other: e.other.address,
		Hosts: []string{
			e.other.address, "localhost:" + strings.Split(e.target.address, ":")[1], "[::1]:" + strings.Split(e.target.address, ":")[1],
			"127.0.0.1:1", "127.0.0.2:" + strings.Split(e.target.address, ":")[1], "169.254.169.254:80", "0.0.0.0:80", "10.0.0.1:80", "[fe80::1]:80",
			"2130706433:" + strings.Split(e.target.address, ":")[1], "example.com:443", "metadata.google.internal:80",
		},
	}
	j.Files, j.Folders = below(t, e.data)
	found, err := filepath.Glob(filepath.Join(e.sockets, "*", "*"))
	if err != nil || len(found) < 2 {
		t.Fatalf("sockets of runners: %v, error %v", found, err)
	}
	j.Sockets = found
	e.tried = j
	before := contents(t, e.data)
	e.mu.Lock()
	e.said = nil
	e.mu.Unlock()
	result, err := e.check("escapee", e.job(j))
	if err != nil || result.Status != sdk.Up {
		t.Fatalf("the escapee: %v, error %v\nlog:\n%s", result, err, e.log)
	}
	if diff := cmp.Diff(before, contents(t, e.data)); diff != "" {
		t.Errorf("files of the server changed: %s", diff)
	}
	e.target.hangUp()
	neighbour.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for _, text := range e.said {
		var some []string
		if err := json.Unmarshal([]byte(text), &some); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		list = append(list, some...)
	}
	return list
}

// TestEscapeeReachesNothing runs a native program in the guest's place, as if WebAssembly had failed.
func TestEscapeeReachesNothing(t *testing.T) {
	t.Parallel()
	var denied []string
	var mu sync.Mutex
	e := newEscaped(t, func(o *Options) {
		o.Trace = func(_ string, trace broker.Trace) {
			mu.Lock()
			defer mu.Unlock()
			if trace.Err == nil {
				denied = append(denied, trace.Access.String())
			}
		}
	})
	list := e.attack(false)
	groups := map[string]int{}
	for _, a := range list {
		outcome, name, _ := strings.Cut(a, ": ")
		group, _, _ := strings.Cut(name, " ")
		groups[group]++
		want := "refused"
		if group == "works:" {
			want = "success"
		}
		if outcome != want {
			t.Errorf("%s, want %s", a, want)
		}
	}
	t.Logf("%d attempts", len(list))
	for group, least := range map[string]int{"tcp": 60, "udp": 60, "socket": 120, "ask": 100, "read": 50, "write": 50, "make": 130, "signal": 5, "use": 5, "works:": 2, "every": 1} {
		if groups[group] < least {
			t.Errorf("%d attempts that begin with %q, want %d at least", groups[group], group, least)
		}
	}
	if seen := e.other.seen(); len(seen) > 0 {
		t.Errorf("what was not granted was reached: %q", seen)
	}
	seen := strings.Join(e.target.seen(), "; ")
	for _, want := range []string{"tcp: hello\n", "udp: hello\n"} {
		if !strings.Contains(seen, want) {
			t.Errorf("what was granted got %q, want %q", seen, want)
		}
	}
	if strings.Contains(seen, "escaped") {
		t.Errorf("what was granted got %q", seen)
	}
	mu.Lock()
	defer mu.Unlock()
	at := e.target.address
	want := []string{"tcp://" + at, "tcp://" + at, "tcp://" + at, "udp://" + at, "udp://" + at}
	if slices.Sort(denied); !slices.Equal(denied, want) {
		t.Errorf("the broker did %v, want %v", denied, want)
	}
	e.mustCheck("neighbour", e.job(escapeJob{}))
	v, err := e.Plugin("escapee")
	if err != nil || v.Condition != monitor.PluginReady || v.Degraded || v.Usage.Kills > 0 || len(v.Sandbox) != 11 || v.Usage.Denied < 50 {
		t.Errorf("%+v, error %v", v, err)
	}
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", e.runner("escapee").proc.Pid())); err != nil || string(score) != "1000\n" {
		t.Errorf("when memory is short it is ended by %q, error %v", score, err)
	}
	for _, l := range v.Sandbox {
		if !l.Holds {
			t.Errorf("layer %s does not hold: %s", l.Name, l.Detail)
		}
	}
}

// everything is all that Apply and Seal put up.
const everything = "without=process,privileges,limits,landlock,seccomp,sealed"

// TestEscapeeWithoutWalls runs the same attempts with no second wall: that they succeed then shows that the test above can fail.
func TestEscapeeWithoutWalls(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, func(o *Options) { o.AllowDegraded = true }, everything)
	list := e.attack(true)
	succeeded := map[string]bool{}
	for _, a := range list {
		if name, ok := strings.CutPrefix(a, "success: "); ok {
			succeeded[name] = true
		}
	}
	t.Logf("%d of %d attempts succeeded", len(succeeded), len(list))
	if len(succeeded) < 200 {
		t.Errorf("%d of %d attempts succeeded, want 200 at least", len(succeeded), len(list))
	}
	pid := os.Getpid()
	file := func(name string) string {
		return fmt.Sprint(" file ", slices.Index(e.tried.Files, filepath.Join(e.data, name)))
	}
	for _, name := range []string{
		"tcp connection: dissolve it", "tcp connection: connect elsewhere", "udp connection: connect elsewhere", "udp connection: sendto elsewhere",
		"udp connection: set SO_REUSEADDR", "make a stream socket of family 1", fmt.Sprint("connect to socket ", slices.Index(e.tried.Sockets, e.socketOf("neighbour"))),
		"read /etc/passwd", "read" + file("secret.key"), "write" + file("tocsin.db"), "look at" + file("secret.key"), fmt.Sprintf("read /proc/%d/environ", pid),
		"start a program", "make code", "look for the server", "signal the neighbour", "make a process",
	} {
		if !succeeded[name] {
			t.Errorf("it did not succeed: %q", slices.DeleteFunc(slices.Clone(list), func(a string) bool { return !strings.Contains(a, name) }))
		}
	}
	if seen := strings.Join(e.other.seen(), "; "); !strings.Contains(seen, "tcp") || !strings.Contains(seen, "udp: escaped") {
		t.Errorf("what was not granted got %q", seen)
	}
}

// socketOf is the path of the socket of a plugin's runner.
func (e *escaped) socketOf(name string) string {
	e.t.Helper()
	p, err := e.lookup(name)
	if err != nil {
		e.t.Fatal(err)
	}
	p.mu.Lock()
	pid := p.shared.proc.Pid()
	p.mu.Unlock()
	// Its line in /proc/PID/net/unix is of the namespace; the descriptor of the socket names the inode.
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		e.t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) == 8 && strings.HasPrefix(f[7], e.sockets) && e.holdsSocket(pid, f[6]) {
			return f[7]
		}
	}
	e.t.Fatalf("the runner of %s has no socket below %s:\n%s", name, e.sockets, table)
	return ""
}

func (e *escaped) holdsSocket(pid int, inode string) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		e.t.Fatal(err)
	}
	return slices.ContainsFunc(links, func(link string) bool {
		to, err := os.Readlink(link)
		return err == nil && to == "socket:["+inode+"]"
	})
}

// TestMissingLayer takes each layer away: what is required is missed, at install and ever after, unless an operator says so.
func TestMissingLayer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		without string
		grants  bool
		missing []string // nil: it runs
	}{
		{without: "nothing", grants: true},
		{without: confine.LayerPrivileges, grants: true},
		{without: confine.LayerNetwork, grants: true},
		{without: confine.LayerSealed, grants: true},
		{without: confine.LayerLandlock, grants: true}, // seccomp keeps it from files, since it is sealed
		{without: "landlock,sealed", missing: []string{confine.LayerNoFiles}},
		{without: confine.LayerProcess, missing: []string{confine.LayerProcess}},
		{without: confine.LayerLimits, missing: []string{confine.LayerLimits}},
		{without: confine.LayerNoSockets, missing: []string{confine.LayerNoSockets}}, // not proved
		{without: confine.LayerNoFiles, missing: []string{confine.LayerNoFiles}},
		{without: confine.LayerSeccomp, missing: []string{confine.LayerNoSockets}},
		{without: confine.LayerSeccomp, grants: true, missing: []string{confine.LayerNoSockets, confine.LayerSeccomp}},
		{without: "landlock,seccomp", grants: true, missing: []string{confine.LayerNoSockets, confine.LayerNoFiles, "landlock or seccomp", confine.LayerSeccomp}},
	} {
		name := c.without
		if c.grants {
			name += " with grants"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var more []string
			if c.grants {
				more = []string{granted}
			}
			e := newEscaped(t, nil, "without="+c.without)
			_, err := e.Install(t.Context(), e.plugin("x", more...).archive(t), monitor.PluginInstall{Grant: true})
			if c.missing == nil {
				if err != nil {
					t.Fatalf("it was refused: %v", err)
				}
				e.mustCheck("x", e.job(escapeJob{}))
				if v, err := e.Plugin("x"); err != nil || v.Degraded {
					t.Errorf("degraded: %v, error %v", v.Degraded, err)
				}
				return
			}
			refused := func(err error, missing string) {
				t.Helper()
				var faults monitor.Faults
				if !errors.Is(err, monitor.ErrConflict) || errors.As(err, &faults) || !strings.Contains(err.Error(), "missing: "+missing+";") ||
					!strings.Contains(err.Error(), "plugins.allow_degraded_sandbox") {
					t.Errorf("%v, want that %s is missing", err, missing)
				}
			}
			// Nothing is granted when it is tried, and the compiler must have files.
			tried := slices.DeleteFunc(slices.Clone(c.missing), func(l string) bool { return c.grants && l == confine.LayerSeccomp })
			if compiled := slices.DeleteFunc(slices.Clone(tried), func(l string) bool { return l == confine.LayerNoFiles }); len(compiled) > 0 {
				tried = compiled
			}
			refused(err, strings.Join(tried, ", "))
			if left, err := filepath.Glob(filepath.Join(e.opts.Dir, "installed", "*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, error %v", left, err)
			}

			// The operator says so.
			e.close()
			e.opts.AllowDegraded = true
			e.open()
			v := e.install(e.plugin("x", more...))
			if !v.Degraded {
				t.Error("it is not called degraded when it is installed")
			}
			e.mustCheck("x", e.job(escapeJob{}))
			if v, err = e.Plugin("x"); err != nil || !v.Degraded || v.Condition != monitor.PluginReady {
				t.Errorf("degraded: %v, %s, error %v", v.Degraded, v.Condition, err)
			}
			want := "missing=" + strings.Join(c.missing, ", ") + "\n"
			if strings.Contains(want, " ") {
				want = fmt.Sprintf("missing=%q\n", strings.Join(c.missing, ", "))
			}
			if !strings.Contains(e.log.String(), want) {
				t.Errorf("no warning with %s in:\n%s", want, e.log)
			}

			// And no longer.
			e.close()
			e.opts.AllowDegraded = false
			e.open()
			_, err = e.check("x", e.job(escapeJob{}))
			if err == nil || !strings.Contains(err.Error(), "missing: "+strings.Join(c.missing, ", ")+";") || !strings.Contains(err.Error(), "plugins.allow_degraded_sandbox") {
				t.Errorf("its call: %v", err)
			}
			if v, err = e.Plugin("x"); err != nil || v.Condition != monitor.PluginBroken || !strings.Contains(v.Why, "plugins.allow_degraded_sandbox") {
				t.Errorf("%s, %q, error %v", v.Condition, v.Why, err)
			}
			if _, err := e.Enable(t.Context(), "x"); len(tried) > 0 && tried[0] != confine.LayerNoFiles {
				refused(err, strings.Join(tried, ", "))
			}
		})
	}
}

// frame makes a message for the broker.
func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// TestRogueRunner has a runner do what none does: it is ended, and the server goes on.
func TestRogueRunner(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.plugin("x", granted))
	e.install(e.plugin("neighbour", granted))
	p, err := e.lookup("x")
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("[", 30_000)
	for name, j := range map[string]escapeJob{
		"no frame":           {Do: "frame", Frame: []byte("GET / HTTP/1.1\r\n\r\n")},
		"empty frame":        {Do: "frame", Frame: frame("")},
		"huge frame":         {Do: "frame", Frame: binary.BigEndian.AppendUint32(nil, 1<<31)},
		"a byte too long":    {Do: "frame", Frame: frame(strings.Repeat(" ", 64<<10+1))[:20]},
		"no JSON":            {Do: "frame", Frame: frame("{")},
		"deep JSON":          {Do: "frame", Frame: frame(`{"op":"tell","note":` + deep + `}`)},
		"deep note":          {Do: "frame", Frame: frame(`{"op":"tell","note":` + deep[:20_000] + strings.Repeat("]", 20_000) + `}`)},
		"number for a text":  {Do: "frame", Frame: frame(`{"op":7}`)},
		"unknown request":    {Do: "frame", Frame: frame(`{"op":"exec","id":1000000}`)},
		"request with 0":     {Do: "frame", Frame: frame(`{"op":"dial","id":0,"call":1,"access":"tcp://x:1"}`)},
		"id below 0":         {Do: "frame", Frame: frame(`{"op":"dial","id":-1,"call":1,"access":"tcp://x:1"}`)},
		"an id twice":        {Do: "frame", Frame: slices.Concat(frame(`{"op":"dial","id":900,"access":"x"}`), frame(`{"op":"dial","id":900,"access":"x"}`))},
		"note with an id":    {Do: "frame", Frame: frame(`{"op":"tell","id":1,"note":{}}`)},
		"note that is none":  {Do: "frame", Frame: frame(`{"op":"tell","note":7}`)},
		"one note too many":  {Do: "frame", Frame: frame(`{"op":"tell","note":{}}`)},
		"layers of its own":  {Do: "forge"},
		"without the broker": {Do: "unplug"},
	} {
		t.Run(name, func(t *testing.T) {
			e.bed.t = t
			e.mustCheck("x", e.job(escapeJob{}))
			p.mu.Lock()
			c := p.shared
			p.mu.Unlock()
			_, err := e.check("x", e.job(j))
			if err == nil || err.Error() != "plugin x did what no runner does and was stopped" {
				t.Fatalf("its call: %v", err)
			}
			<-c.proc.Done()
			e.mustCheck("neighbour", e.job(escapeJob{}))
			p.mu.Lock() // as if it had been alone for a long time
			p.apart = map[string]*strikes{}
			p.mu.Unlock()
		})
	}
	e.bed.t = t
	if n := strings.Count(e.log.String(), "did what no runner does\""); n != 17 {
		t.Errorf("the log says %d times that a runner did what none does", n)
	}
	v, err := e.Plugin("x")
	if err != nil || !slices.ContainsFunc(v.Sandbox, func(l monitor.SandboxLayer) bool { return l.Name == confine.LayerSeccomp && l.Detail != "pretended" }) {
		t.Errorf("sandbox %+v, error %v", v.Sandbox, err)
	}
}

// TestFlood has a runner ask for ten thousand connections that it was not granted.
func TestFlood(t *testing.T) {
	t.Parallel()
	e := newEscaped(t, nil)
	e.install(e.plugin("x", granted))
	e.install(e.plugin("neighbour", granted))
	e.mustCheck("x", e.job(escapeJob{}))
	j := e.job(escapeJob{Do: "flood", Other: e.other.address, Times: 10_000})
	j.Timeout = time.Minute
	limits := sdk.Limits{Timeout: sdk.Duration(time.Minute)}
	if _, err := e.SetLimits(t.Context(), "x", limits); err != nil {
		t.Fatal(err)
	}
	var flood sync.WaitGroup
	flood.Go(func() {
		if r, err := e.check("x", j); err != nil || r.Status != sdk.Up {
			t.Errorf("the flood: %v, %v", r, err)
		}
	})
	for range 20 {
		e.mustCheck("neighbour", e.job(escapeJob{}))
	}
	flood.Wait()
	if v, err := e.Plugin("x"); err != nil || v.Usage.Denied != 10_000 || v.Usage.Kills > 0 {
		t.Errorf("usage %+v, error %v", v.Usage, err)
	}
	if seen := e.other.seen(); len(seen) > 0 {
		t.Errorf("what was not granted was reached: %q", seen)
	}
	if len(e.said) > 0 {
		t.Errorf("it got %d connections", len(e.said))
	}
}

// TestLyingRunner has a runner lie about how it starts and what came of a call.
func TestLyingRunner(t *testing.T) {
	t.Parallel()
	for lie, c := range map[string]struct {
		without, want string
		degraded      bool
	}{
		"handshake": {want: "it listens on tcp \"127.0.0.1:1\", not on a socket in its folder"},
		"version":   {want: "99"},
		"silence":   {want: "it was not ready within 10s"},
		"first":     {want: "it does not start: did what no runner does"},
		"layers":    {without: "without=seccomp", want: "it does not start: did what no runner does", degraded: true},
		"compiler":  {want: "compiling it took longer than 2s"},
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			args := []string{"lie=" + lie}
			if c.without != "" {
				args = append(args, c.without)
			}
			e := newEscaped(t, func(o *Options) { o.AllowDegraded, o.CompileTimeout = c.degraded, 2*time.Second }, args...)
			_, err := e.Install(t.Context(), e.plugin("x").archive(t), monitor.PluginInstall{Grant: true})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("its install: %v, want %q", err, c.want)
			}
		})
	}
	t.Run("answers", func(t *testing.T) {
		t.Parallel()
		e := newEscaped(t, nil)
		e.install(e.plugin("x"))
		for do, want := range map[string]string{
			"huge": "too large", "odd": "status: is 77",
		} {
			if _, err := e.check("x", e.job(escapeJob{Do: do})); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", do, err, want)
			}
		}
		e.mustCheck("x", e.job(escapeJob{Do: "boast"}))
		e.mustCheck("x", e.job(escapeJob{}))
		v, err := e.Plugin("x")
		if err != nil || v.Usage.BytesRead > 1<<50 || v.Usage.BytesWritten > 1<<50 || v.Usage.Kills > 0 {
			t.Errorf("usage %+v, error %v", v.Usage, err)
		}
	})
}

// TestCompilerFloodIsNotKept runs alone, so that nothing but the compiler's output can fill the memory of this process.
func TestCompilerFloodIsNotKept(t *testing.T) {
	e := newEscaped(t, func(o *Options) { o.CompileTimeout = 2 * time.Second }, "lie=compiler")
	heap := heapInUse()
	if _, err := e.Install(t.Context(), e.plugin("x").archive(t), monitor.PluginInstall{Grant: true}); err == nil {
		t.Error("a compiler that only writes was believed")
	}
	if now := heapInUse(); now > heap+64<<20 {
		t.Errorf("the server keeps %d MiB of what the compiler wrote", (now-heap)>>20)
	}
}
