package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// program is where TestMain puts the program that runners are made of.
const programEnv = "TOCSIN_TEST_RUNNER"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tocsin-host-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	path := filepath.Join(dir, "runner")
	programs := []string{"./testdata/runner", "./testdata/ticker"}
	if runtime.GOOS == "linux" {
		programs = append(programs, "./testdata/escapee")
	}
	build := exec.Command("go", append([]string{"build", "-o", dir}, programs...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the runner: %v\n%s", err, out)
		os.Exit(1)
	}
	if err := os.Setenv(programEnv, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// logged is a log that tests can look into.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// bed is a host with what is around it.
type bed struct {
	*Host
	t       *testing.T
	records *memory
	log     *logged
	opts    Options
}

// newBed opens a host in a folder of its own. change may be nil.
func newBed(t *testing.T, change func(*Options)) *bed {
	t.Helper()
	b := &bed{t: t, records: &memory{}, log: &logged{}}
	b.opts = Options{
		Dir: t.TempDir(), Records: b.records, Program: []string{os.Getenv(programEnv)},
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&b.opts)
	}
	b.open()
	t.Cleanup(b.close)
	return b
}

func (b *bed) open() {
	b.t.Helper()
	h, err := New(b.t.Context(), b.opts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Host = h
}

func (b *bed) close() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		b.t.Errorf("close the host: %v", err)
	}
	if b.t.Failed() {
		b.t.Logf("log:\n%s", b.log)
	}
}

// pluginFiles are a plugin's files by name; the manifest is made when there is none.
type pluginFiles map[string]string

// scripted makes a plugin of a script, with what else the manifest is to say.
func scripted(name, source string, more ...string) pluginFiles {
	manifest := "api: 1\nname: " + name + "\nversion: 1.0.0\nsummary: a plugin for tests\nprovides: [check]\nruntime: wasm\nscript: check.js\n" + strings.Join(more, "\n") + "\n"
	return pluginFiles{sdk.ManifestFile: manifest, "check.js": source}
}

// moduled makes a plugin of a module.
func moduled(name, module string, more ...string) pluginFiles {
	manifest := "api: 1\nname: " + name + "\nversion: 1.0.0\nsummary: a plugin for tests\nprovides: [check]\nruntime: wasm\nentry: check.wasm\n" + strings.Join(more, "\n") + "\n"
	return pluginFiles{sdk.ManifestFile: manifest, "check.wasm": module}
}

// archive packs files.
func (f pluginFiles) archive(t *testing.T) *bytes.Buffer {
	t.Helper()
	dir := t.TempDir()
	for name, text := range f {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	if err := Pack(dir, &packed); err != nil {
		t.Fatal(err)
	}
	return &packed
}

// install installs and grants a plugin.
func (b *bed) install(f pluginFiles) monitor.InstalledPlugin {
	b.t.Helper()
	v, err := b.Install(b.t.Context(), f.archive(b.t), monitor.PluginInstall{Grant: true, By: "test"})
	if err != nil {
		b.t.Fatalf("install: %v\nlog:\n%s", err, b.log)
	}
	return v
}

// request is a check request with a timeout that is long for a test.
func request(target string) sdk.CheckRequest {
	return sdk.CheckRequest{
		Monitor: sdk.Ref{ID: "m-" + target, Name: "the " + target}, Target: target, Timeout: 10 * time.Second, Attempt: 1, Config: json.RawMessage(`{}`),
	}
}

// check makes a check.
func (b *bed) check(name string, req sdk.CheckRequest) (sdk.Result, error) {
	b.t.Helper()
	c, err := b.Checker(name)
	if err != nil {
		return sdk.Result{}, err
	}
	return c.Check(b.t.Context(), req)
}

// mustCheck makes a check that is to be up.
func (b *bed) mustCheck(name string, req sdk.CheckRequest) sdk.Result {
	b.t.Helper()
	r, err := b.check(name, req)
	if err != nil || r.Status != sdk.Up {
		b.t.Fatalf("check: %v %q, error %v\nlog:\n%s", r.Status, r.Message, err, b.log)
	}
	return r
}

// heapInUse is the memory of this process that is in use after a collection, in bytes.
func heapInUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse
}
