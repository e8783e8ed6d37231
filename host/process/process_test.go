//go:build unix

package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/sdk"
	wire "github.com/tocsinhq/tocsin/sdk/process"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

func spawner(t testing.TB) *Spawner {
	t.Helper()
	s := NewSpawner()
	t.Cleanup(s.Close)
	return s
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sockets makes a folder whose name is short enough, and looks that nothing is left in it.
func sockets(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left in the folder of sockets: %v, %v", left, err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

func options(t testing.TB, program ...string) Options {
	t.Helper()
	return Options{Spawner: spawner(t), Command: append([]string{self(t)}, program...), SocketDir: sockets(t)}
}

func start(t testing.TB, o Options) *Process {
	t.Helper()
	p, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
	})
	return p
}

// check makes a check whose target says what the process is to do.
func check(ctx context.Context, p *Process, target string) (sdk.Result, error) {
	resp, err := p.Check(ctx, wire.CheckRequestToProto(sdk.CheckRequest{Target: target, Attempt: 1}))
	if err != nil {
		return sdk.Result{}, err
	}
	c, err := wire.CheckResponseFromProto(resp)
	return c.Result, err
}

// output is a writer for many goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{}, 1000)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// until waits until the text is there.
func (o *output) until(t *testing.T, text string) {
	t.Helper()
	for late := time.After(20 * time.Second); !strings.Contains(o.String(), text); {
		select {
		case <-o.more:
		case <-late:
			t.Fatalf("wrote %q, want %q in it", o, text)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, mtls := range []bool{false, true} {
		o := options(t, "plugin")
		o.MTLS = mtls
		p := start(t, o)
		want := sdk.Result{Status: sdk.Up, Message: "example.com", Latency: time.Millisecond}
		if got, err := check(context.Background(), p, "example.com"); err != nil || !cmp.Equal(got, want) {
			t.Errorf("mtls %v: %+v, %v", mtls, got, err)
		}
		if _, err := p.Notify(context.Background(), &proto.NotifyRequest{}); !errors.Is(err, sdk.ErrNotProvided) {
			t.Errorf("a notification to a plugin that takes none: %v", err)
		}
		var failed *wire.Failed
		if got, err := check(context.Background(), p, "panic at the disco"); !errors.As(err, &failed) || err.Error() != "the plugin panicked: at the disco" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := check(context.Background(), p, "large"); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("a large answer: %v", err)
		}
		if _, err := check(context.Background(), p, strings.Repeat("x", wire.MaxMessage)); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("a large request: %v", err)
		}
		if p.Err() != nil || p.Memory() == 0 {
			t.Errorf("it lives: %v, %d bytes", p.Err(), p.Memory())
		}
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := check(context.Background(), p, "x"); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "exit status 0") {
			t.Errorf("a call after the end: %v", err)
		}
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	p := start(t, options(t, "plugin"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := check(ctx, p, "hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the deadline has passed", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := check(ctx, p, "hang"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
	if _, err := check(context.Background(), p, "fine"); err != nil {
		t.Errorf("a call after those that were given up: %v", err)
	}
}

// The request's own timeout holds where the caller sets no deadline.
func TestTimeoutOfTheRequest(t *testing.T) {
	p := start(t, options(t, "plugin"))
	_, err := p.Check(context.Background(), &proto.CheckRequest{Target: "wait", TimeoutMs: 20})
	if err != nil {
		t.Errorf("the answer of a check that ran out of time: %v", err)
	}
}

func TestKilledWhileCalled(t *testing.T) {
	out := newOutput()
	o := options(t, "plugin")
	o.Stderr = out
	p := start(t, o)
	const calls = 5
	errs := make(chan error, calls)
	for range calls {
		go func() {
			_, err := check(context.Background(), p, "hang")
			errs <- err
		}()
	}
	out.until(t, strings.Repeat("hanging\n", calls))
	p.Kill()
	p.Kill()
	for range calls {
		if err := <-errs; !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "signal: killed: hanging") {
			t.Errorf("%v, want that the process has ended, how, and its last line", err)
		}
	}
	<-p.Done()
	if err := p.Err(); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if p.CPU() == 0 || p.Memory() != 0 {
		t.Errorf("after the end: %v of processor, %d bytes", p.CPU(), p.Memory())
	}
}

func TestEndsByItself(t *testing.T) {
	p := start(t, options(t, "plugin"))
	if _, err := check(context.Background(), p, "exit no more"); !errors.Is(err, ErrEnded) || !strings.HasSuffix(err.Error(), "exit status 7: no more") {
		t.Error(err)
	}
}

// A process that breaks the connection and lives on is of no use to anybody.
func TestHangsUp(t *testing.T) {
	p := start(t, options(t, "plugin"))
	if got, err := check(context.Background(), p, "hang-up"); err == nil {
		t.Errorf("it answered %+v", got)
	}
	<-p.Done()
	if err := p.Err(); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// A process that does not begin to serve is killed, and the error says what happened.
func TestStartFails(t *testing.T) {
	for _, tt := range []struct{ program, want string }{
		{"silent", "it did not begin to serve within 300ms"},
		{"rubbish", `it printed "hello, I am no plugin", which is no handshake of go-plugin`},
		{"endless", "aaaaaaaa…\", which is no handshake of go-plugin"},
		{"elsewhere", `it listens on unix "/var/run/docker.sock", not on a socket in its folder`},
		{"tcp", `it listens on tcp "127.0.0.1:80", not on a socket in its folder`},
		{"netrpc", "netrpc"},
		{"version", "incompatible API version"},
		{"nobody", "connect to /"},
		{"exits", "the plugin's process has ended: exit status 3: I do not want to"},
		{"refuses", "the plugin's process has ended: exit status 1: no way"},
	} {
		t.Run(tt.program, func(t *testing.T) {
			o := options(t, tt.program)
			o.StartTimeout = 20 * time.Second
			if tt.program == "silent" {
				o.StartTimeout = 300 * time.Millisecond
			}
			p, err := Start(context.Background(), o)
			if err == nil {
				p.Kill()
				<-p.Done()
			}
			if err == nil || !strings.HasPrefix(err.Error(), "start the plugin's process: ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
			children(t)
		})
	}
}

func TestStartIsCancelled(t *testing.T) {
	out := newOutput()
	o := options(t, "announces")
	o.Stderr = out
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := Start(ctx, o)
		failed <- err
	}()
	out.until(t, "here\n")
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Start(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	children(t)
}

func TestStartRefuses(t *testing.T) {
	closed := NewSpawner()
	closed.Close()
	closed.Close()
	for want, change := range map[string]func(*Options){
		"there is no spawner":                    func(o *Options) { o.Spawner = nil },
		"spawner of processes is closed":         func(o *Options) { o.Spawner = closed },
		"the program must have an absolute path": func(o *Options) { o.Command = []string{"sleep", "1"} },
		"no such file":                           func(o *Options) { o.Command = []string{"/nonexistent/plugin"} },
		"the folder of sockets must have":        func(o *Options) { o.SocketDir = "sockets" },
		"leave room for a socket's":              func(o *Options) { o.SocketDir = "/" + strings.Repeat("x", 100) },
		"no such file or directory":              func(o *Options) { o.SocketDir = "/nonexistent" },
		"want 00":                                func(o *Options) { o.SHA256 = "00" },
	} {
		o := options(t, "plugin")
		change(&o)
		if _, err := Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	digest, err := digestOf(self(t))
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, "plugin")
	o.SHA256 = strings.ToUpper(digest)
	start(t, o)
}

func TestEnvironmentAndDescriptors(t *testing.T) {
	t.Setenv("TOCSIN_SECRET", "nobody's business")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	o := options(t, "plugin")
	o.Env = []string{"GREETING=hello"}
	o.Files = []*os.File{w}
	p := start(t, o)
	got, err := check(context.Background(), p, "environment")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	if err := json.Unmarshal([]byte(got.State), &env); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		names = append(names, name)
		if name == "PLUGIN_UNIX_SOCKET_DIR" && filepath.Dir(value) != o.SocketDir {
			t.Errorf("the folder of its socket is %s", value)
		}
	}
	slices.Sort(names)
	want := []string{"GREETING", "PLUGIN_MAX_PORT", "PLUGIN_MIN_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR", "TOCSIN_PLUGIN"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("its environment (-want +got):\n%s", diff)
	}
	if !runtimeHasProc {
		return
	}
	proc := "/proc/" + strconv.Itoa(p.Pid()) + "/fd/"
	fds, err := os.ReadDir(proc)
	if err != nil {
		t.Fatal(err)
	}
	if in, err := os.Readlink(proc + "0"); in != os.DevNull {
		t.Errorf("its standard input is %s, %v", in, err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink(proc + fd.Name()); link == secret.Name() {
			t.Errorf("descriptor %s is %s, %v, which is ours", fd.Name(), link, err)
		}
	}
}

// Lines arrive whole, from all three ways that a process can write them.
func TestLines(t *testing.T) {
	out := newOutput()
	o := options(t, "plugin")
	o.Stderr = out
	p := start(t, o)
	if _, err := check(context.Background(), p, "print to stderr"); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"on stdout\n", "to stderr\n", "directly\n"} {
		out.until(t, line)
	}
	if _, err := check(context.Background(), p, "print "+strings.Repeat("x", 3*maxLine)); err != nil {
		t.Fatal(err)
	}
	out.until(t, strings.Repeat("x", maxLine)+"\n")
	if strings.Contains(out.String(), strings.Repeat("x", maxLine+1)) {
		t.Error("a line is longer than it may be")
	}
}

func TestCPU(t *testing.T) {
	p := start(t, options(t, "plugin"))
	before := p.CPU()
	if _, err := check(context.Background(), p, "burn"); err != nil {
		t.Fatal(err)
	}
	if used := p.CPU() - before; runtimeHasProc && used <= 0 {
		t.Errorf("it used %v", used)
	}
}

// What a process started ends with it, and one that went away does not hold anything up.
func TestGrandchildren(t *testing.T) {
	for _, where := range []string{"here", "away"} {
		p := start(t, options(t, "plugin"))
		got, err := check(context.Background(), p, "child "+where)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(got.State)
		if err != nil {
			t.Fatal(err)
		}
		grandchild, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		p.Kill()
		<-p.Done()
		if where == "away" {
			if err := grandchild.Kill(); err != nil {
				t.Errorf("it left the group and was killed all the same: %v", err)
			}
		}
		gone(t, pid)
	}
}

// gone waits until there is no such process, or only what its new parent has not reaped.
func gone(t *testing.T, pid int) {
	t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for alive(pid) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("process %d lives", pid)
		}
	}
}

// Nothing is left when the server itself is killed.
func TestNoOrphans(t *testing.T) {
	for _, program := range []string{"plugin", "empty"} {
		dir, err := os.MkdirTemp("", "tp")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		middle := exec.Command(self(t), "grandparent", program, dir)
		out, err := middle.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := middle.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		pid, err2 := strconv.Atoi(strings.TrimSpace(line))
		if err := errors.Join(err, err2); err != nil || !alive(pid) {
			t.Fatalf("%q, %v", line, err)
		}
		if err := middle.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		middle.Wait()
		gone(t, pid)
	}
}

// Starting and killing leaves nothing behind.
func TestNothingIsLeft(t *testing.T) {
	o := options(t, "empty")
	round := func(i int) {
		p, err := Start(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := p.Check(context.Background(), &proto.CheckRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			err = p.Close(context.Background())
		} else {
			p.Kill()
		}
		<-p.Done()
		if err != nil {
			t.Error(err)
		}
	}
	round(0)
	before := descriptors(t)
	for i := range 200 {
		round(i)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors became %d", before, after)
	}
	children(t)
	left, err := os.ReadDir(o.SocketDir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Killed at any moment of its start, a process leaves nothing behind either.
func TestKilledWhileItStarts(t *testing.T) {
	o := options(t, "empty")
	for i := range 60 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*250*time.Microsecond)
		if p, err := Start(ctx, o); err == nil {
			p.Kill()
			<-p.Done()
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want that the time is over", err)
		}
		cancel()
	}
	children(t)
}

// BenchmarkCheck measures a round trip to a service that does nothing.
func BenchmarkCheck(b *testing.B) {
	req := &proto.CheckRequest{Target: "http://example.com", Config: []byte(`{"a":1}`), TimeoutMs: 1000, Attempt: 1}
	p := start(b, options(b, "empty"))
	b.Run("1", func(b *testing.B) {
		b.ReportAllocs()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for b.Loop() {
			if _, err := p.Check(ctx, req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("32", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			for pb.Next() {
				if _, err := p.Check(ctx, req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkStart measures starting and killing.
func BenchmarkStart(b *testing.B) {
	o := options(b, "empty")
	for b.Loop() {
		p, err := Start(context.Background(), o)
		if err != nil {
			b.Fatal(err)
		}
		p.Kill()
		<-p.Done()
	}
}
