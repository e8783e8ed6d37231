// Package netfs is the network of a guest as a directory: opening /net/tcp/HOST:PORT connects, /net/http takes a request
// and gives the answer, /net/error says what went wrong. Every connection is asked for at a broker.Network, which holds
// the question against the grant; TLS and HTTP are spoken here, inside the sandbox.
package netfs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

// DefaultMaxBody is how many bytes of an HTTP body are kept when Options do not say.
const DefaultMaxBody = 1 << 20

// maxOpen is how many files may be open at once, /net/error aside; the next open is EAGAIN.
const maxOpen = 32

// Options is what the network of one call is made of.
type Options struct {
	// Network makes the connections. It must not be nil.
	Network broker.Network
	// Deadline is when everything that waits ends at the latest. Zero sets no limit.
	Deadline time.Time
	// Roots gives the authorities that certificates are verified against. It is asked when a certificate has to be
	// verified. Nil is the system's.
	Roots func() (*x509.CertPool, error)
	// MaxBody is how many bytes of an HTTP answer's body are kept. Zero is DefaultMaxBody.
	MaxBody int64
	// UserAgent is sent with HTTP requests that have none. Empty is "tocsin".
	UserAgent string
}

// Failure is why an operation failed, as a guest reads it in /net/error.
type Failure struct {
	Op      string      `json:"op"`   // open, read, write or fetch
	Path    string      `json:"path"` // with /net
	Kind    broker.Kind `json:"kind"`
	Message string      `json:"message"`
}

// FS is the directory /net of one call. A guest uses it from one goroutine; Close, Usage and Last may be called from any.
type FS struct {
	esys.UnimplementedFS
	opts   Options
	ctx    context.Context // the call's: the methods of a file system get none
	cancel context.CancelFunc

	read, written atomic.Uint64

	mu      sync.Mutex
	closed  bool
	files   int
	held    int64 // bytes of requests and answers in memory
	conns   map[*conn]struct{}
	streams map[int]*stream // those opened with an id that still are plain
	last    *Failure
}

var _ esys.FS = (*FS)(nil)

// New makes the network of one call. The caller closes it.
func New(o Options) *FS {
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.UserAgent == "" {
		o.UserAgent = "tocsin"
	}
	f := &FS{opts: o, conns: map[*conn]struct{}{}, streams: map[int]*stream{}}
	if o.Deadline.IsZero() {
		f.ctx, f.cancel = context.WithCancel(context.Background())
	} else {
		f.ctx, f.cancel = context.WithDeadline(context.Background(), o.Deadline)
	}
	return f
}

// Close ends everything that is open or waits. Every operation after it fails with EBADF. Closing twice is fine.
func (f *FS) Close() {
	f.mu.Lock()
	f.closed = true
	conns := make([]*conn, 0, len(f.conns))
	for c := range f.conns {
		conns = append(conns, c)
	}
	f.mu.Unlock()
	f.cancel()
	for _, c := range conns {
		c.end()
	}
}

// Usage returns how many bytes went over the call's connections so far, TLS and headers included. What the server does
// itself, DNS and ICMP, is not among them.
func (f *FS) Usage() (read, written uint64) { return f.read.Load(), f.written.Load() }

// Last returns why the last operation failed that did. It reports false when none has.
func (f *FS) Last() (Failure, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		return Failure{}, false
	}
	return *f.last, true
}

// Fetch makes one HTTP request, as writing to and reading from /net/http does. Errors are *broker.Error.
func (f *FS) Fetch(request []byte) ([]byte, error) {
	response, err := f.fetch(request)
	if err != nil {
		e := describe(err, "")
		_ = f.fail("fetch", "http", e) // which remembers it; the errno is for guests
		return nil, e
	}
	return response, nil
}

// OpenFile implements the method of esys.FS. Creating, truncating, appending and not blocking mean nothing here and do no
// harm: whatever waits, waits until the deadline.
func (f *FS) OpenFile(path string, flag esys.Oflag, _ fs.FileMode) (esys.File, esys.Errno) {
	o, err := reach.ParsePath(path)
	if err != nil {
		return nil, f.fail("open", path, invalid("%s", err))
	}
	if flag&esys.O_DIRECTORY != 0 {
		return nil, esys.ENOTDIR
	}
	mode := flag & (esys.O_RDWR | esys.O_WRONLY)
	base := file{fs: f, path: path, readable: mode != esys.O_WRONLY, writable: mode != esys.O_RDONLY}
	if o.Op == "error" {
		return f.openError(base)
	}
	if err := f.enter(); err != nil {
		return nil, f.fail("open", path, err)
	}
	base.counted = true
	opened, err := f.open(o, base)
	if err != nil {
		f.leave()
		return nil, f.fail("open", path, err)
	}
	return opened, 0
}

func (f *FS) open(o reach.Open, base file) (esys.File, error) {
	switch o.Op {
	case "tcp", "udp":
		return f.openPlain(o, base)
	case "tls":
		return f.openTLS(o, base)
	case "http":
		return &exchange{file: base}, nil
	case "dns":
		return f.openDNS(o, base)
	case "icmp":
		return f.openICMP(o, base)
	case "cert":
		return f.openCert(o, base)
	}
	return nil, invalid("there is no %s here", o.Op)
}

// Stat implements the method of esys.FS. It opens nothing: every path that could be opened is there.
func (f *FS) Stat(path string) (sys.Stat_t, esys.Errno) {
	if _, err := reach.ParsePath(path); err != nil {
		return sys.Stat_t{}, esys.ENOENT
	}
	return regular(0), 0
}

// Lstat implements the method of esys.FS. There are no links.
func (f *FS) Lstat(path string) (sys.Stat_t, esys.Errno) { return f.Stat(path) }

// openError gives the last failure as it is now. It is no operation that can become one itself.
func (f *FS) openError(base file) (esys.File, esys.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, esys.EBADF
	}
	text := []byte("{}")
	if f.last != nil {
		text = encode(f.last)
	}
	return &document{file: base, text: text, size: len(text)}, 0
}

func (f *FS) openDNS(o reach.Open, base file) (esys.File, error) {
	answer, err := f.opts.Network.Resolve(f.ctx, broker.Question{Type: o.Type, Name: o.Needs[0].Host, Server: o.Server})
	if err != nil {
		return nil, describe(err, "asking for "+o.Type+" of "+o.Needs[0].Host.String())
	}
	if answer.Answers == nil {
		answer.Answers = []broker.Record{}
	}
	return f.openDocument(base, answer)
}

func (f *FS) openICMP(o reach.Open, base file) (esys.File, error) {
	echo, err := f.opts.Network.Echo(f.ctx, o.Needs[0].Host)
	if err != nil {
		return nil, describe(err, "an echo of "+o.Needs[0].Host.String())
	}
	return f.openDocument(base, echoJSON{RTT: echo.RTT.Microseconds(), TTL: echo.TTL, Addr: echo.Addr.String()})
}

func (f *FS) openDocument(base file, content any) (esys.File, error) {
	text := encode(content)
	if err := f.hold(len(text)); err != nil {
		return nil, err
	}
	return &document{file: base, text: text, size: len(text), held: len(text)}, nil
}

// enter counts a file that is about to be opened.
func (f *FS) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files >= maxOpen {
		return &broker.Error{Kind: broker.Busy, Message: fmt.Sprintf("%d files are open, and no more may be", maxOpen)}
	}
	f.files++
	return nil
}

func (f *FS) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files--
}

// hold counts bytes that are about to be kept for the guest: it could have 32 files full of answers that it never reads.
func (f *FS) hold(n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if limit := 4 * (f.opts.MaxBody + 1<<20); f.held+int64(n) > limit {
		return &broker.Error{Kind: broker.Busy, Message: fmt.Sprintf("requests and answers that are open exceed %d bytes", limit)}
	}
	f.held += int64(n)
	return nil
}

func (f *FS) release(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held -= int64(n)
}

// fail remembers why an operation failed, and returns what the guest is told.
func (f *FS) fail(op, path string, err error) esys.Errno {
	e := describe(err, "")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return esys.EBADF
	}
	f.last = &Failure{Op: op, Path: sdk.CleanText("/net/"+path, 300), Kind: e.Kind, Message: e.Message}
	switch {
	case e.Kind == broker.Denied:
		return esys.EACCES
	case e.Kind == broker.Invalid:
		return esys.EINVAL
	case e.Kind == broker.Busy && op == "open":
		return esys.EAGAIN
	}
	return esys.EIO
}

// encode writes JSON. What is given to it consists of texts, numbers and lists of them, so that it cannot fail.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte("{}")
	}
	return text
}
