package script

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tocsinhq/tocsin/host/wasm"
	"go.uber.org/goleak"
)

// cacheVariable names the folder with the engine's compiled code, which all tests load.
const cacheVariable = "TOCSIN_TEST_SCRIPT_CACHE"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tocsin-script-")
	if err == nil {
		err = wasm.Compile(context.Background(), Module(), wasm.Options{Cache: dir, Engine: Engine(nil, "")})
	}
	if err == nil {
		err = os.Setenv(cacheVariable, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func load(source string, o wasm.Options) (*wasm.Module, error) {
	if o.Engine == nil {
		o.Engine = Engine([]byte(source), "src/check.js")
	}
	o.Cache = os.Getenv(cacheVariable)
	return wasm.New(context.Background(), Module(), o)
}

// open loads a script and closes it when the test ends.
func open(t testing.TB, source string, o wasm.Options) *wasm.Module {
	t.Helper()
	m, err := load(source, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// call makes a check and gives the response, or what went wrong, as one text.
func call(m *wasm.Module, request string, fs esys.FS) (string, wasm.Reply) {
	r, err := m.Call(context.Background(), wasm.Call{
		Name: "check", Request: []byte(request), FS: fs, Deadline: time.Now().Add(10 * time.Second),
	})
	if err != nil {
		return "error: " + err.Error(), r
	}
	return string(r.Response), r
}

// evaluate gives the value of an expression in a call.
func evaluate(t *testing.T, expression string, fs esys.FS) string {
	t.Helper()
	m := open(t, "export const check = async () => ({is: await ("+expression+")})", wasm.Options{})
	got, _ := call(m, "{}", fs)
	return strings.TrimSuffix(strings.TrimPrefix(got, `{"is":`), "}")
}

// network is a file system like that of a call: http answers requests, tcp echoes, and error says what failed.
type network struct {
	esys.UnimplementedFS
	answer func(request map[string]any) (any, *failure)

	mu     sync.Mutex
	opened []string
	open   int
	failed *failure
}

func (n *network) OpenFile(path string, flag esys.Oflag, _ fs.FileMode) (esys.File, esys.Errno) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if flag&esys.O_RDWR == 0 {
		return nil, esys.EINVAL
	}
	f := &netFile{n: n, path: path}
	switch {
	case path == "error" && n.failed != nil:
		f.out, _ = json.Marshal(n.failed)
	case path == "http" || strings.HasPrefix(path, "tcp/echo"):
	case strings.HasPrefix(path, "dns/"):
		f.out = []byte(strings.Repeat("x", 100_000) + "é")
	default:
		n.failed = &failure{"open", path, "refused", "nobody listens at " + path}
		return nil, esys.EIO
	}
	if path != "error" {
		n.opened = append(n.opened, path)
	}
	n.open++
	return f, 0
}

type netFile struct {
	esys.UnimplementedFile
	n       *network
	path    string
	in, out []byte
	asked   bool
}

func (f *netFile) Write(b []byte) (int, esys.Errno) {
	if f.path == "http" {
		f.in = append(f.in, b...)
		return len(b), 0
	}
	if len(b) > 1000 {
		b = b[:1000] // in parts
	}
	if string(b) == "break" {
		f.n.failed = &failure{"write", f.path, "closed", "the other side broke the connection off"}
		return 0, esys.EIO
	}
	f.out = append(f.out, b...)
	return len(b), 0
}

func (f *netFile) Read(b []byte) (int, esys.Errno) {
	if f.path == "http" && !f.asked {
		f.asked = true
		var request map[string]any
		if err := json.Unmarshal(f.in, &request); err != nil {
			f.n.failed = &failure{"read", f.path, "invalid", err.Error()}
			return 0, esys.EIO
		}
		answer, failed := f.n.answer(request)
		if failed != nil {
			f.n.failed = failed
			return 0, esys.EIO
		}
		f.out, _ = json.Marshal(answer)
	}
	n := copy(b, f.out)
	f.out = f.out[n:]
	return n, 0
}

func (f *netFile) Close() esys.Errno {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	f.n.open--
	return 0
}
