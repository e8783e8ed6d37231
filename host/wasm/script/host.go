package script

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	esys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tocsinhq/tocsin/host/wasm"
)

const (
	maxFiles     = 64      // open at once; the mount allows fewer
	maxRead      = 1 << 20 // bytes of one read
	maxArguments = 8       // of a function of the host; none has more than four
	maxName      = 1 << 10 // bytes of the name of a module or a function
)

// session is one call of a script, or its loading: what the functions of the host need, and nothing that outlives it.
type session struct {
	vm
	name    string // of the script
	loading bool
	files   []esys.File // by descriptor; nil where one was closed
	why     failure     // of the last function that failed
}

// failure is what the prelude makes a NetError of. Its form is that of /net/error.
type failure struct {
	Op      string `json:"op"`
	Path    string `json:"path,omitempty"`
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

type sessionKey struct{}

// begin makes a session and the context in which the functions of the host find it.
func begin(ctx context.Context, g *wasm.Guest, name string) *session {
	s := &session{name: name}
	s.g = g
	s.ctx = context.WithValue(ctx, sessionKey{}, s)
	return s
}

// end closes what the script left open.
func (s *session) end() {
	for _, f := range s.files {
		if f != nil {
			_ = f.Close() // nobody is left who could be told
		}
	}
	s.files = nil
}

// Imports implements wasm.Engine. The names and types are those of the engine's import section.
func (engine) Imports(env wazero.HostModuleBuilder) {
	const i32 = api.ValueTypeI32
	function := func(name string, params int, f func(s *session, params []uint64) uint32) {
		env.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			s, ok := ctx.Value(sessionKey{}).(*session)
			if !ok {
				stack[0] = 0
				return
			}
			result := f(s, stack)
			if s.err != nil {
				panic(s.err) // through the engine, to whoever called it: it cannot go on
			}
			stack[0] = uint64(result)
		}), slices.Repeat([]api.ValueType{i32}, params), []api.ValueType{i32}).Export(name)
	}
	function("host_call", 5, (*session).hostCall)
	function("host_module_normalize", 2, func(s *session, params []uint64) uint32 {
		return s.refuseImport(uint32(params[1]))
	})
	function("host_module_load", 2, func(s *session, params []uint64) uint32 {
		return s.refuseImport(uint32(params[0]))
	})
	// Local time is UTC.
	function("host_get_timezone_offset", 2, func(*session, []uint64) uint32 { return 0 })
	// The host kills the process of a script that does not end, and a promise that nobody handles harms nobody.
	function("host_interrupt", 0, func(*session, []uint64) uint32 { return 0 })
	env.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}),
		[]api.ValueType{i32, i32, i32}, nil).Export("host_promise_rejection")
}

// refuseImport throws the error of a script that imports. The result says that there is an exception.
func (s *session) refuseImport(name uint32) uint32 {
	text := s.cString(name)
	s.throw("cannot import " + strconv.Quote(text) + ": a script is one file; bundle what it needs into it")
	return 0
}

// cString reads text with a zero at its end.
func (s *session) cString(at uint32) string {
	m := s.g.Memory()
	b, _ := m.Read(at, min(maxName, m.Size()-min(at, m.Size())))
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

func (s *session) throw(message string) {
	thrown, text := s.value("qjs_new_error"), s.str([]byte(message))
	s.setProperty(thrown, "message", text)
	s.call("qjs_throw", uint64(thrown))
	s.free(thrown, text)
}

// functions makes the object that the prelude gets: one function for each name of hostCall.
func (s *session) functions() value {
	o := s.value("qjs_new_object")
	for _, name := range []string{
		"open", "read", "write", "close", "http", "reason", "log", "random", "encode", "decode", "base64",
	} {
		at := s.put([]byte(name))
		f := s.value("qjs_new_host_function", uint64(at), uint64(len(name)), 0)
		s.drop(at)
		s.setProperty(o, name, f)
		s.free(f)
	}
	return o
}

// hostCall is what a function of the host does. The arguments are the prelude's, or whatever a script that broke the
// engine makes of them; they belong to the engine. The result is the engine's to free.
func (s *session) hostCall(params []uint64) uint32 {
	name := string(s.bytes(uint32(params[0]), min(uint32(params[1]), maxName)))
	args := make(arguments, min(uint32(params[3]), maxArguments))
	for i := range args {
		args[i] = value(s.word(uint32(params[4]) + 4*uint32(i)))
	}
	if s.err != nil {
		return 0
	}
	var result value
	switch name {
	case "open":
		result = s.open(s.text(args.at(0)))
	case "read":
		result = s.read(s.number(args.at(0)), s.number(args.at(1)))
	case "write":
		result = s.write(args)
	case "close":
		result = s.close(s.number(args.at(0)))
	case "http":
		result = s.http(args.at(0))
	case "reason":
		why, _ := json.Marshal(s.why) //nolint:errchkjson // four strings
		result = s.str(why)
	case "log":
		level := s.text(args.at(0))
		s.withText(args.at(1), func(text []byte) { s.log((level + "I")[0], string(text[:min(len(text), maxText)])) })
	case "random":
		b := make([]byte, 256)
		_, _ = rand.Read(b) // it never fails
		result = s.buffer(b)
	case "encode":
		s.withText(args.at(0), func(text []byte) { result = s.buffer(wellFormed(slices.Clone(text))) })
	case "decode":
		result = s.decode(args)
	case "base64":
		b := s.viewOf(args)
		result = s.str(base64.StdEncoding.AppendEncode(nil, b))
	}
	if result == 0 {
		result = s.value("qjs_get_undefined")
	}
	return uint32(result)
}

type arguments []value

// at gives an argument; one that is missing is 0.
func (a arguments) at(i int) value {
	if i >= len(a) {
		return 0
	}
	return a[i]
}

// number gives a whole number between 0 and 2^32-1; of another value it is the latter.
func (s *session) number(a value) uint32 {
	if a == 0 || !s.is("number", a) {
		return math.MaxUint32
	}
	f := math.Float64frombits(s.call64("qjs_get_float64", uint64(a)))
	if !(f >= 0 && f < math.MaxUint32) {
		return math.MaxUint32
	}
	return uint32(f)
}

// viewOf gives the bytes of the three arguments ArrayBuffer, offset and length, as they are in the engine's memory.
func (s *session) viewOf(args arguments) []byte {
	if args.at(0) == 0 {
		return nil
	}
	return s.view(args.at(0), s.number(args.at(1)), s.number(args.at(2)))
}

func (s *session) log(level byte, text string) {
	w := s.g.Stderr()
	for line := range strings.Lines(text) {
		_, _ = w.Write([]byte(string(level) + "! " + strings.TrimRight(line, "\r\n") + "\n")) // it never fails
	}
}

// wellFormed puts U+FFFD in the place of each half of a surrogate pair that is alone, which the engine writes as three
// bytes. U+FFFD has as many.
func wellFormed(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	for i := 0; i+2 < len(text); i++ {
		if text[i] == 0xed && text[i+1] >= 0xa0 {
			copy(text[i:], "\uFFFD")
		}
	}
	return text
}

// decode makes a string of bytes. What is not UTF-8 becomes U+FFFD, or with the fourth argument gives false.
func (s *session) decode(args arguments) value {
	b := s.viewOf(args)
	if utf8.Valid(b) {
		return s.str(b)
	}
	if fatal := args.at(3); fatal != 0 && s.call("qjs_get_bool", uint64(fatal)) != 0 {
		return s.value("qjs_get_false")
	}
	return s.str([]byte(string([]rune(string(b)))))
}

// The network

// open opens a file below /net.
func (s *session) open(name string) value {
	clean := path.Clean("/" + name)
	below, ok := strings.CutPrefix(clean, "/net/")
	if !ok || !strings.HasPrefix(name, "/") {
		return s.failed(failure{"open", name, "denied", "there is nothing but the files below /net/"})
	}
	fd := slices.Index(s.files, nil)
	if fd < 0 {
		if fd = len(s.files); fd >= maxFiles {
			return s.failedWith("open", name, esys.EAGAIN)
		}
	}
	f, errno := s.g.Open(below)
	if errno != 0 {
		return s.failedWith("open", name, errno)
	}
	if fd == len(s.files) {
		s.files = append(s.files, nil)
	}
	s.files[fd] = f
	return s.newNumber(fd)
}

func (s *session) file(fd uint32) esys.File {
	if uint64(fd) >= uint64(len(s.files)) {
		return nil
	}
	return s.files[fd]
}

// read gives an ArrayBuffer of at most n bytes, or null at the end.
func (s *session) read(fd, n uint32) value {
	f := s.file(fd)
	if f == nil {
		return s.failedWith("read", "", esys.EBADF)
	}
	b := make([]byte, max(1, min(n, maxRead)))
	got, errno := f.Read(b)
	switch {
	case errno != 0:
		return s.failedWith("read", "", errno)
	case got == 0:
		return s.value("qjs_get_null")
	}
	return s.buffer(b[:got])
}

// write writes all of a string or of bytes.
func (s *session) write(args arguments) value {
	f := s.file(s.number(args.at(0)))
	if f == nil {
		return s.failedWith("write", "", esys.EBADF)
	}
	var errno esys.Errno
	if !s.withText(args.at(1), func(text []byte) { errno = writeAll(f, wellFormed(slices.Clone(text))) }) {
		errno = writeAll(f, s.viewOf(args[1:]))
	}
	if errno != 0 {
		return s.failedWith("write", "", errno)
	}
	return 0
}

// writeAll writes at least once, as an empty datagram is one as well.
func writeAll(f esys.File, b []byte) esys.Errno {
	for {
		n, errno := f.Write(b)
		if errno != 0 {
			return errno
		}
		if b = b[min(max(n, 0), len(b)):]; len(b) == 0 {
			return 0
		}
		if n <= 0 {
			return esys.EIO
		}
	}
}

// close closes a file; closing it again is fine.
func (s *session) close(fd uint32) value {
	if f := s.file(fd); f != nil {
		s.files[fd] = nil
		_ = f.Close() // a stream whose end did not arrive is no fault of the check
	}
	return 0
}

// http makes one request: JSON in, JSON out.
func (s *session) http(request value) value {
	const name = "/net/http"
	f, errno := s.g.Open("http")
	if errno != 0 {
		return s.failedWith("open", name, errno)
	}
	defer func() { _ = f.Close() }() // the answer is there or is not
	s.withText(request, func(text []byte) { errno = writeAll(f, wellFormed(slices.Clone(text))) })
	if errno != 0 {
		return s.failedWith("write", name, errno)
	}
	response, errno := readAll(f)
	if errno != 0 {
		return s.failedWith("read", name, errno)
	}
	return s.str(response)
}

func readAll(f esys.File) ([]byte, esys.Errno) {
	b := make([]byte, 0, 4<<10)
	for {
		b = slices.Grow(b, 1)
		n, errno := f.Read(b[len(b):cap(b)])
		if errno != 0 || n <= 0 {
			return b, errno
		}
		b = b[:len(b)+n]
	}
}

// failedWith finds out why the network refused something: /net/error says more than a number.
func (s *session) failedWith(op, name string, errno esys.Errno) value {
	why := failure{Op: op, Path: name, Kind: "failed", Message: errno.Error()}
	switch {
	case s.loading:
		why.Kind, why.Message = "denied", "the network is there only while a call is made, not while the script is loaded"
	case errno == esys.EBADF:
		why.Kind, why.Message = "closed", "the file is closed"
	case errno == esys.EAGAIN:
		why.Kind, why.Message = "busy", "too many files are open"
	default:
		if errno == esys.EACCES {
			why.Kind = "denied"
		}
		if f, errno := s.g.Open("error"); errno == 0 {
			defer func() { _ = f.Close() }() // it was only read
			var said failure
			if b, errno := readAll(f); errno == 0 && json.Unmarshal(b, &said) == nil && said.Message != "" {
				why = said
			}
		}
	}
	return s.failed(why)
}

func (s *session) failed(why failure) value {
	s.why = why
	return s.value("qjs_get_false")
}

func (s *session) newNumber(n int) value {
	return s.value("qjs_new_number", math.Float64bits(float64(n)))
}
