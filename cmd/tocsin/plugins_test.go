package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/host/wasm/netfs"
	"github.com/tocsinhq/tocsin/sdk"
)

// TestPluginsPage does what docs/plugins.md says, in its order, beside a running demo.
func TestPluginsPage(t *testing.T) {
	p := readPage(t, "../../docs/plugins.md")
	withoutC(t, &p)
	at := newPlace(t)
	greeter := greet(t, "220 mail.example.com ready\r\n")
	at.exports += "\nexport GREETER=" + greeter
	at.same = append(at.same, greeter, "127.0.0.1:2525")
	p.follow(t, at)
}

// withoutC takes out of a page what clang for WebAssembly is needed for, where it is missing: the part about C, and the demo's
// plugin in C.
func withoutC(t *testing.T, p *page) {
	t.Helper()
	err := clangForWasm(t)
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("clang for WebAssembly is missing: %v", err)
	}
	t.Logf("what is in C was left out, as clang for WebAssembly is missing: %v", err)
	p.steps = slices.DeleteFunc(p.steps, func(s step) bool { return strings.HasPrefix(s.section, "In C") })
	for i := range p.steps {
		p.steps[i].output = regexp.MustCompile(`(?m)^ready +ntp .*\n`).ReplaceAllString(p.steps[i].output, "")
	}
}

// clangForWasm says why clang cannot build for WebAssembly; nil: it can.
func clangForWasm(t *testing.T) error {
	t.Helper()
	source := filepath.Join(t.TempDir(), "x.c")
	if err := os.WriteFile(source, []byte("int main(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "clang", "--target=wasm32-wasi", "-o", source+".wasm", source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// greet listens, and says the same to everybody.
func greet(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(text)) // who hangs up misses it
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// TestPluginsPageJSON holds the examples of the contract to the package sdk.
func TestPluginsPageJSON(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for _, b := range readPage(t, "../../docs/plugins.md").blocks {
		if b.language != "json" {
			t.Errorf("the block of line %d, in the language %q, is run by no test", b.line, b.language)
			continue
		}
		what, err := checkExample([]byte(b.text))
		if err != nil {
			t.Errorf("the example of line %d: %v", b.line, err)
		}
		seen[what]++
	}
	want := map[string]int{"check request": 1, "check response": 1, "notify request": 1, "notify response": 2, "HTTP request": 1, "HTTP response": 1}
	if !maps.Equal(seen, want) {
		t.Errorf("there are the examples %v, want %v", seen, want)
	}
}

// checkExample says what an example shows, and what is wrong with it.
func checkExample(text []byte) (what string, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return "broken", err
	}
	has := func(name string) bool { return fields[name] != nil }
	switch {
	case string(fields["call"]) == `"check"`:
		var r sdk.CheckRequest
		return "check request", same(text, &r)
	case string(fields["call"]) == `"notify"`:
		var r sdk.NotifyRequest
		return "notify request", same(text, &r)
	case has("ok"), has("error"):
		var r sdk.NotifyResponse
		return "notify response", same(text, &r)
	case has("proto"):
		var r sdk.HTTPResponse
		if err := r.UnmarshalJSON(text); err != nil {
			return "HTTP response", err
		}
		t := r.Timing
		if r.Status == 0 || r.Proto == "" || len(r.Headers) == 0 || len(r.Body) == 0 || r.Remote == "" || r.TLS == nil ||
			min(t.DNS, t.Connect, t.TLS, t.FirstByte, t.Total) == 0 {
			return "HTTP response", fmt.Errorf("it is read as %+v", r)
		}
		return "HTTP response", strictly(fields["tls"], &sdk.HTTPTLS{})
	case has("url"):
		return "HTTP request", asked(text)
	case has("status"):
		var r sdk.CheckResponse
		if err := same(text, &r); err != nil {
			return "check response", err
		}
		if len(r.Notes) > 0 {
			return "check response", fmt.Errorf("it is read with the notes %q", r.Notes)
		}
		return "check response", nil
	}
	return "unknown", fmt.Errorf("it is none of the messages of the contract")
}

// nowhere is a network on which nobody answers. It notes what was asked for.
type nowhere struct{ asked *reach.Access }

// Dial implements broker.Network.
func (n nowhere) Dial(_ context.Context, access reach.Access) (broker.Dialled, error) {
	*n.asked = access
	return broker.Dialled{}, &broker.Error{Kind: broker.Refused, Message: "nobody is there"}
}

// Resolve implements broker.Network.
func (nowhere) Resolve(context.Context, broker.Question) (broker.Answer, error) {
	return broker.Answer{}, errors.ErrUnsupported
}

// Echo implements broker.Network.
func (nowhere) Echo(context.Context, reach.Host) (broker.Echo, error) {
	return broker.Echo{}, errors.ErrUnsupported
}

// asked has the sandbox make an example of a request over HTTP, as far as to the connection.
func asked(text []byte) error {
	var access reach.Access
	network := netfs.New(netfs.Options{Network: nowhere{&access}})
	defer network.Close()
	_, err := network.Fetch(text)
	var failure *broker.Error
	if !errors.As(err, &failure) || failure.Kind != broker.Refused || access.String() != "https://api.example.com:443" {
		return fmt.Errorf("asked for %s: %w", access, err)
	}
	return nil
}

// same reads an example and writes it again: nothing may be lost.
func same(text []byte, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return err
	}
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	if got, want := canonical(again), canonical(text); got != want {
		return fmt.Errorf("it is read as\n%s\nwant\n%s", got, want)
	}
	return nil
}

func canonical(text []byte) string {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err.Error()
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
