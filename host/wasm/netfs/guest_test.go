package netfs

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/host/wasm"
)

// guest is a compiled guest that does what lines tell it.
type guest struct {
	name   string
	module *wasm.Module
}

// guests compiles the guests of testdata. The one in C stands there as Wasm too, for systems without a compiler for it.
func guests(t *testing.T) []guest {
	t.Helper()
	built, err := os.ReadFile("testdata/cguest/cguest.wasm")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{"C": built, "Go": goGuest(t)}
	out := filepath.Join(t.TempDir(), "c.wasm")
	msg, err := exec.CommandContext(t.Context(), "clang", "--target=wasm32-wasi", "-Oz", "-s", "-o", out, "testdata/cguest/main.c").CombinedOutput()
	if err == nil {
		all["C"], err = os.ReadFile(out)
	}
	if err != nil {
		t.Logf("the guest in C is not built anew: %v %s", err, msg)
	}
	var list []guest
	for name, code := range all {
		m, err := wasm.New(t.Context(), code, wasm.Options{Limits: wasm.Limits{Memory: 64 << 20}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { m.Close(context.Background()) })
		list = append(list, guest{name, m})
	}
	return list
}

func goGuest(t *testing.T) []byte {
	t.Helper()
	// Reading the source makes the cache of test results depend on it.
	if _, err := os.ReadFile("testdata/goguest/main.go"); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "go.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-o", out, "./testdata/goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, msg)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// play has a guest do what a script says: lines of what to do, an arrow, and the beginning or, between dots, a part of what
// comes of it; LENGTH is that of what is written.
func (g guest) play(t *testing.T, f *FS, script string) {
	t.Helper()
	var lines, wants []string
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		do, want, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		lines, wants = append(lines, do), append(wants, want)
	}
	r, err := g.module.Call(t.Context(), wasm.Call{Name: "check", Request: []byte(strings.Join(lines, "\n") + "\n"), FS: f})
	if err != nil {
		t.Fatalf("%s: %v, %v", g.name, err, r.Log)
	}
	got := strings.Split(strings.TrimSuffix(string(r.Response), "\n"), "\n")
	if len(got) != len(wants) {
		t.Fatalf("%s: %q", g.name, got)
	}
	for i, want := range wants {
		ok := got[i] == want || want == "LENGTH" && got[i] == fmt.Sprint(len(strings.ReplaceAll(lines[i], `\n`, "n"))-3)
		if part, cut := strings.CutPrefix(want, "..."); cut {
			ok = strings.Contains(got[i], strings.TrimSuffix(part, "..."))
		}
		if !ok {
			t.Errorf("%s: %s is %s, want %s", g.name, lines[i], got[i], want)
		}
	}
	if f.files != 0 || len(f.conns) != 0 || f.held != 0 {
		t.Errorf("%s: after the call %d files, %d connections, %d bytes are left", g.name, f.files, len(f.conns), f.held)
	}
}

// TestGuests runs the same scripts in real guests.
func TestGuests(t *testing.T) {
	t.Parallel()
	a := newCA(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.issue(t, time.Now().Add(time.Hour), "a.test")}}
	echo := listen(t, echoTCP)
	starttls := listen(t, func(c net.Conn) {
		io.WriteString(c, "220 ready\n")
		b := make([]byte, 9)
		io.ReadFull(c, b)
		io.WriteString(c, "220 go\n")
		s := tls.Server(c, config)
		io.Copy(s, s)
	})
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := datagrams.ReadFrom(b)
			if err != nil {
				return
			}
			datagrams.WriteTo(fmt.Appendf(nil, "%d:%s", n, b[:n]), from)
		}
	}()
	t.Cleanup(func() {
		datagrams.Close()
		<-done
	})
	web := serveHTTP(t, nil, show)
	fill := strings.NewReplacer("ECHO", echo, "UPGRADE", starttls, "UDP", portOf(datagrams.LocalAddr()), "WEB", web, "LONG", strings.Repeat("a", 5000)).Replace
	scripts := map[string]string{
		"stream": `
			o1 /net/tcp/a.test:ECHO -> 0
			w1 one\ntwo -> 7
			r1 -> "one\ntwo"
			n1 -> 0
			w1 x -> 1
			r1 -> "x"
			c1 -> 0
			w1 x -> EBADF
			r1 -> EBADF
			c1 -> EBADF`,
		"modes": `
			k0 /net/tcp/a.test:ECHO -> 0
			w0 x -> EBADF
			k1 /net/tcp/a.test:ECHO -> 0
			w1 x -> 1
			r1 -> "x"`,
		"paths": `
			o1 /net//tcp/./a.test:ECHO -> 0
			o2 /net/udp/../tcp/a.test:ECHO -> 0
			w2 x -> 1
			r2 -> "x"
			o3 /net/tcp/denied.example:1 -> EACCES
			o3 /net/tcp/a.test%2f..:1 -> EINVAL
			o3 /net/tcp/LONG:1 -> EINVAL
			o3 /net/tcp/a.test:ECHO/ -> EINVAL
			o3 /net/tcp/a.test:ECHO?id=x -> EINVAL
			o3 /net/tcp -> EINVAL
			o3 /net -> EACCES
			s0 /net/tcp/denied.example:1 -> file
			s0 /net/http -> file
			s0 /net/nothing -> ENOENT
			s0 /net -> directory`,
		"starttls": `
			o1 /net/tcp/a.test:UPGRADE?id=4 -> 0
			r1 -> "220 ready\n"
			w1 STARTTLS\n -> 9
			r1 -> "220 go\n"
			o2 /net/tls/@4 -> 0
			w2 hello -> 5
			r2 -> "hello"
			w1 plain -> EIO
			k0 /net/error -> 0
			r0 -> ..."kind":"closed"...
			c1 -> 0
			w2 still -> 5
			r2 -> "still"`,
		"datagrams": `
			o1 /net/udp/127.0.0.1:UDP -> 0
			w1 one\ntwo -> 7
			w1 three -> 5
			r1 -> "7:one\ntwo"
			r1 -> "5:three"`,
		"http": `
			o1 /net/http -> 0
			w1 {"url":"http://a.test:WEB/x", -> LENGTH
			w1 "method":"post","body":"b"} -> LENGTH
			r1 -> ...POST /x a.test:...
			r1 -> ""
			w1 {} -> EINVAL
			o2 /net/http -> 0
			r2 -> EINVAL
			o3 /net/http -> 0
			w3 {"url":"http://denied.example"} -> EACCES
			k0 /net/error -> 0
			r0 -> ..."op":"write","path":"/net/http","kind":"denied"...`,
		"documents": `
			k0 /net/dns/MX/a.test -> 0
			r0 -> ..."data":"10 mx.test."...
			r0 -> ""
			c0 -> 0
			k0 /net/icmp/a.test -> 0
			r0 -> "{"rtt_us":1500,"ttl":64,"addr":"127.0.0.1"}"
			k0 /net/cert/a.test:UPGRADE -> EIO
			k0 /net/error -> 0
			r0 -> ..."kind":"tls"...`,
		"many": `
			m0 /net/tcp/a.test:ECHO -> 32 EAGAIN`,
	}
	inC := map[string]string{
		"way out": `
			o1 /net/tcp/../../net/tcp/a.test:ECHO -> EPERM
			o1 /net/../etc/passwd -> EPERM
			o1 /etc/passwd -> Capabilities insufficient`,
		"buffered stream": `
			F1 /net/tcp/a.test:ECHO -> 0
			W1 one\ntwo\n -> 8
			U1 -> 0
			G1 -> "one\n"
			G1 -> "two\n"
			W1 three\n -> 6
			U1 -> 0
			G1 -> "three\n"
			C1 -> 0`,
		"buffered http": `
			F1 /net/http -> 0
			W1 {"url":\n"http://a.test:WEB/x"} -> LENGTH
			U1 -> 0
			A1 -> ..."status":200,...
			C1 -> 0`,
		"buffered, two streams": `
			D1 /net/http -> 0
			W1 {"url":"http://a.test:WEB/x"} -> LENGTH
			U1 -> 0
			A2 -> ..."status":200,...`,
		"buffered error": `
			F1 /net/http -> 0
			W1 {"url":"http://denied.example/"} -> LENGTH
			U1 -> EACCES
			F2 /net/error -> 0
			A2 -> ..."kind":"denied"...`,
		"buffered datagrams": `
			F1 /net/udp/127.0.0.1:UDP -> 0
			W1 one\ntwo\n -> 8
			U1 -> 0
			G1 -> "8:one\n"
			G1 -> "two\n"
			W1 x -> 1
			U1 -> 0`,
	}
	inGo := map[string]string{
		"way out": `
			o1 /net/tcp/../../net/tcp/a.test:ECHO -> 0
			o1 /net/../etc/passwd -> EBADF
			o1 /etc/passwd -> EBADF`,
		"whole files": `
			R0 /net/dns/A/a.test -> ..."rcode":"NOERROR"...
			R0 /net/error -> "{}"
			o1 /net/http -> 0
			w1 {"url":"http://a.test:WEB/x"} -> LENGTH
			A1 -> ..."status":200,...`,
	}
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for _, g := range guests(t) {
		t.Run(g.name+" deadline", func(t *testing.T) {
			f := newFS(t, Options{Deadline: time.Now().Add(100 * time.Millisecond)})
			g.play(t, f, strings.ReplaceAll(`
				o1 /net/tcp/a.test:SILENT -> 0
				r1 -> EIO
				r1 -> EIO
				o2 /net/tcp/a.test:SILENT -> EIO
				k0 /net/error -> 0
				r0 -> ..."kind":"timeout"...`, "SILENT", silent))
		})
		all := []map[string]string{scripts, inC}
		if g.name == "Go" {
			all[1] = inGo
		}
		for _, scripts := range all {
			for name, script := range scripts {
				t.Run(g.name+" "+name, func(t *testing.T) {
					f := newFS(t, Options{Roots: a.roots})
					g.play(t, f, fill(script))
				})
			}
		}
	}
}
