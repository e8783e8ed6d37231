package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/netfs"
	"github.com/tocsinhq/tocsin/sdk"
)

// hostileGuest is one line of testdata/hostile/corpus.json: a module that does what no plugin should, and what comes of it.
type hostileGuest struct {
	File string `json:"file"` // below testdata/hostile, or generated:NAME
	Does string `json:"does"`
	// Ends is refused (at install), killed (behind its deadline), or the status of the result: unknown or up.
	Ends string `json:"ends"`
	Text string `json:"text"` // part of the refusal or of the result's message
	Note string `json:"note"` // part of what was noted besides; empty: not looked at
	// Endless is set when it has to be stopped from outside: its calls, its start or its compilation do not end in time.
	Endless bool `json:"endless"`
	// Waits is set when its call ends by itself, but not before its deadline.
	Waits bool `json:"waits"`
	// Target and Permissions are what it is called with, and granted. {server} in the target stands for the URL of a server
	// whose answers redirect to http://denied.test/; metadata.test is a name that resolves to 169.254.169.254.
	Target      string   `json:"target"`
	Permissions []string `json:"permissions"`
}

// name is the guest's as a plugin's name.
func (g hostileGuest) name() string {
	return strings.NewReplacer(":", "-", ".wasm", "").Replace(g.File)
}

// module gives the guest's code.
func (g hostileGuest) module(t testing.TB) []byte {
	t.Helper()
	switch g.File {
	case "generated:locals":
		return moduleOf(oneFunction(40_000, nil))
	case "generated:nested":
		return moduleOf(slices.Repeat([][]byte{nested(999, 990)}, 8)...)
	case "generated:body":
		return moduleOf(oneFunction(0, bytes.Repeat([]byte{0x01}, 300<<10)))
	}
	return readGuest(t, "hostile", g.File)
}

func readGuest(t testing.TB, dir, file string) []byte {
	t.Helper()
	module, err := os.ReadFile(filepath.Join("testdata", dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// hostileGuests gives the whole corpus.
func hostileGuests(t testing.TB) []hostileGuest {
	t.Helper()
	text, err := os.ReadFile("testdata/hostile/corpus.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []hostileGuest
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// moduleOf gives a module with one page of memory and functions of the bodies it is given, of which the first is check.
func moduleOf(bodies ...[]byte) []byte {
	module := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content string) {
		module = append(module, id)
		module = binary.AppendUvarint(module, uint64(len(content)))
		module = append(module, content...)
	}
	count := string(binary.AppendUvarint(nil, uint64(len(bodies))))
	section(1, "\x01\x60\x00\x00") // one type: () -> ()
	section(3, count+strings.Repeat("\x00", len(bodies)))
	section(5, "\x01\x00\x01") // one memory of one page
	section(7, "\x01\x05check\x00\x00")
	code := []byte(count)
	for _, body := range bodies {
		code = append(binary.AppendUvarint(code, uint64(len(body))), body...)
	}
	section(10, string(code))
	return module
}

// oneFunction gives a function's body with that many locals of type i64.
func oneFunction(locals int, code []byte) []byte {
	body := []byte{0}
	if locals > 0 {
		body = append(binary.AppendUvarint([]byte{1}, uint64(locals)), 0x7e)
	}
	return append(append(body, code...), 0x0b)
}

// nested gives a function's body with loops within each other and locals that all change in the innermost: the compiler keeps
// track of each local in each loop.
func nested(locals, depth int) []byte {
	var code []byte
	for range depth {
		code = append(code, 0x03, 0x40) // loop
	}
	for i := range locals { // local i = local i + 1
		code = append(binary.AppendUvarint(append(code, 0x20), uint64(i)), 0x42, 1, 0x7c)
		code = binary.AppendUvarint(append(code, 0x21), uint64(i))
	}
	for range depth {
		code = append(code, 0x20, 0, 0xa7, 0x0d, 0, 0x0b) // again when local 0 is not 0, end
	}
	return oneFunction(locals, code)
}

// TestCorpusFiles holds the modules to their sources, and the list to the modules.
func TestCorpusFiles(t *testing.T) {
	t.Parallel()
	var listed, sources []string
	for _, g := range hostileGuests(t) {
		if g.Does == "" || g.Text == "" || !slices.Contains([]string{"refused", "killed", "unknown", "up"}, g.Ends) {
			t.Errorf("%s: its line in corpus.json is incomplete: %+v", g.File, g)
		}
		if strings.HasSuffix(g.File, ".wasm") {
			listed = append(listed, filepath.Join("testdata", "hostile", strings.TrimSuffix(g.File, ".wasm")+".wat"))
		}
	}
	for _, dir := range []string{"hostile", "good"} {
		found, err := filepath.Glob(filepath.Join("testdata", dir, "*.wat"))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", dir, found, err)
		}
		if dir == "hostile" {
			slices.Sort(listed)
			if !slices.Equal(found, listed) {
				t.Errorf("there are\n%q, corpus.json lists\n%q", found, listed)
			}
		}
		sources = append(sources, found...)
	}
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("wat2wasm is missing; install it with: apt-get install wabt")
		}
		t.Log("wat2wasm is not there, so the modules were not held to their sources; apt-get install wabt has it")
		return
	}
	for _, source := range sources {
		built := filepath.Join(t.TempDir(), "built.wasm")
		if out, err := exec.CommandContext(t.Context(), tool, source, "-o", built).CombinedOutput(); err != nil {
			t.Errorf("wat2wasm %s: %v\n%s", source, err, out)
			continue
		}
		want, err := os.ReadFile(built)
		if err != nil {
			t.Fatal(err)
		}
		module := strings.TrimSuffix(source, ".wat") + ".wasm"
		if got, err := os.ReadFile(module); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what its source makes (%v); build it with: wat2wasm %s -o %[1]s", module, err, source)
		}
	}
}

// grantedNetwork is the network of a call as the server makes it: it holds every access to a grant, and every address to the
// policy. It knows no name but metadata.test.
type grantedNetwork struct {
	grant reach.Grant
	call  reach.Call
}

var _ broker.Network = grantedNetwork{}

func (n grantedNetwork) Dial(ctx context.Context, access reach.Access) (broker.Dialled, error) {
	verdict, err := n.grant.Decide(n.call, access, netpolicy.Policy{})
	if err != nil {
		return broker.Dialled{}, &broker.Error{Kind: broker.Denied, Message: err.Error()}
	}
	addr := access.Host.Addr
	switch access.Host.Name {
	case "":
	case "metadata.test":
		addr = netip.MustParseAddr("169.254.169.254")
	default:
		return broker.Dialled{}, &broker.Error{Kind: broker.DNS, Message: fmt.Sprintf("%s: look up %s: no such host", access, access.Host)}
	}
	if err := verdict.Check(addr); err != nil {
		return broker.Dialled{}, &broker.Error{Kind: broker.Denied, Message: err.Error()}
	}
	network := "tcp"
	if access.Scheme == "udp" {
		network = "udp"
	}
	at := netip.AddrPortFrom(addr, access.Port)
	conn, err := new(net.Dialer).DialContext(ctx, network, at.String())
	return broker.Dialled{Conn: conn, Addr: at}, err
}

func (n grantedNetwork) Resolve(_ context.Context, q broker.Question) (broker.Answer, error) {
	_, err := n.grant.Decide(n.call, reach.Access{Scheme: "dns", Host: q.Name}, netpolicy.Policy{})
	return broker.Answer{}, &broker.Error{Kind: broker.Denied, Message: fmt.Sprint(err)}
}

func (n grantedNetwork) Echo(_ context.Context, host reach.Host) (broker.Echo, error) {
	_, err := n.grant.Decide(n.call, reach.Access{Scheme: "icmp", Host: host}, netpolicy.Policy{})
	return broker.Echo{}, &broker.Error{Kind: broker.Denied, Message: fmt.Sprint(err)}
}

// callGuest makes one check as a runner does. The notes are what is said about the answer besides.
func callGuest(t *testing.T, m *wasm.Module, g hostileGuest) (result sdk.Result, notes []string, err error) {
	t.Helper()
	const timeout = 500 * time.Millisecond
	n := grantedNetwork{call: reach.Call{Target: g.Target}}
	for _, text := range g.Permissions {
		p, err := reach.ParsePermission(text)
		if err != nil {
			t.Fatal(err)
		}
		n.grant.Permissions = append(n.grant.Permissions, p)
	}
	request, err := json.Marshal(sdk.CheckRequest{Monitor: sdk.Ref{ID: "01J", Name: "watched"}, Target: g.Target, Timeout: timeout, Attempt: 1})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(timeout)
	network := netfs.New(netfs.Options{Network: n, Deadline: deadline})
	defer network.Close()
	reply, err := m.Call(t.Context(), wasm.Call{Name: "check", Request: request, Deadline: deadline, FS: network})
	if reply.LogCut {
		notes = append(notes, "the log was cut")
	}
	if reply.Cut {
		err = errors.Join(err, fmt.Errorf("its answer is longer than %d bytes", wasm.DefaultResponse))
	}
	if err != nil {
		return sdk.Result{}, notes, err
	}
	answer, err := sdk.ParseCheckResponse(reply.Response)
	return answer.Result, append(notes, answer.Notes...), err
}

// TestCorpus holds every guest that ends by itself to what corpus.json says about it, twice in a row. Those that do not end
// are only looked at: what stops them is not in this process.
func TestCorpus(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.RedirectHandler("http://denied.test/", http.StatusFound))
	defer server.Close()
	for _, g := range hostileGuests(t) {
		g.Target = strings.ReplaceAll(g.Target, "{server}", server.URL)
		module := g.module(t)
		_, err := wasm.Inspect(module, wasm.Limits{})
		if g.Endless {
			if err != nil {
				t.Errorf("%s: %v; it should get as far as to be called", g.File, err)
			}
			continue
		}
		if err == nil {
			var m *wasm.Module
			if m, err = wasm.New(t.Context(), module, wasm.Options{}); err == nil {
				for range 2 {
					g.hold(t, m)
				}
				if err := m.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		if refused := g.Ends == "refused"; refused != (err != nil) || err != nil && !strings.Contains(err.Error(), g.Text) {
			t.Errorf("%s: refused with %v, want refused %v: %s", g.File, err, refused, g.Text)
		}
	}
}

// hold makes a call and looks at what comes of it.
func (g hostileGuest) hold(t *testing.T, m *wasm.Module) {
	t.Helper()
	result, notes, err := callGuest(t, m, g)
	message := result.Message
	if err != nil {
		message = err.Error()
	}
	if result.Status.String() != g.Ends || !strings.Contains(message, g.Text) {
		t.Errorf("%s: %s %q, want %s %q", g.File, result.Status, message, g.Ends, g.Text)
	}
	if g.Note != "" && !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, g.Note) }) {
		t.Errorf("%s: noted %q, want %q", g.File, notes, g.Note)
	}
}

// TestGoodGuests holds the well-behaved guests to what the tests of supervision expect of them.
func TestGoodGuests(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]sdk.Result{
		"good.wasm": {Status: sdk.Up, Message: "fine", Metrics: []sdk.Metric{{Name: "answers", Value: 1}}},
		"slow.wasm": {Status: sdk.Up, Message: "fine, after half of the time"},
	} {
		m, err := wasm.New(t.Context(), readGuest(t, "good", file), wasm.Options{})
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for range 2 {
			got, notes, err := callGuest(t, m, hostileGuest{Target: "anything"})
			if err != nil || got.Status != want.Status || got.Message != want.Message || !slices.Equal(got.Metrics, want.Metrics) || len(notes) > 0 {
				t.Errorf("%s: %+v, %q, %v, want %+v", file, got, notes, err, want)
			}
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
