package wasm

import (
	"io/fs"
	"strings"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// maxOpen is how many files a guest may have open at once; the next open is EAGAIN.
const maxOpen = 32

// mount is the one file system of an instance. It passes everything on to the file system of the call under way, and
// refuses everything between calls. It counts open files, because one that outlives its call is state. Like the
// instance, it is used by one goroutine at a time.
type mount struct {
	esys.UnimplementedFS
	fs     esys.FS // of the call under way; nil between calls
	rooted bool
	open   map[*openFile]struct{}
}

// begin gives the mount to a call.
func (m *mount) begin(f esys.FS) { m.fs = f }

// end takes the mount from its call, closes what is still open and reports whether there was anything.
func (m *mount) end() (left bool) {
	m.fs = nil
	left = len(m.open) > 0
	for f := range m.open {
		_ = f.Close() // of no interest to anybody any more
	}
	return left
}

// OpenFile implements the method of esys.FS.
//
// The directory itself is opened once per instance, by the runtime, for descriptor 3: that is always the first open of
// ".", as every way in for a guest asks descriptor 3 whether it is a directory. A guest cannot open it: a descriptor of
// a directory has a position, which would be one more thing to reset.
func (m *mount) OpenFile(path string, flag esys.Oflag, perm fs.FileMode) (esys.File, esys.Errno) {
	if path == "." && !m.rooted {
		m.rooted = true
		return root{}, 0
	}
	if m.fs == nil || isRoot(path) {
		return nil, esys.EACCES
	}
	if len(m.open) >= maxOpen {
		return nil, esys.EAGAIN
	}
	f, errno := m.fs.OpenFile(path, flag, perm)
	if errno != 0 {
		return nil, errno
	}
	o := &openFile{File: f, m: m}
	if m.open == nil {
		m.open = map[*openFile]struct{}{}
	}
	m.open[o] = struct{}{}
	return o, 0
}

// Stat implements the method of esys.FS.
func (m *mount) Stat(path string) (sys.Stat_t, esys.Errno) {
	if isRoot(path) {
		return root{}.Stat()
	}
	if m.fs == nil {
		return sys.Stat_t{}, esys.EACCES
	}
	return m.fs.Stat(path)
}

// Lstat implements the method of esys.FS. There are no links.
func (m *mount) Lstat(path string) (sys.Stat_t, esys.Errno) { return m.Stat(path) }

func isRoot(path string) bool { return strings.Trim(path, "/") == "." || path == "" }

// openFile is a file of the call's file system, counted.
type openFile struct {
	esys.File
	m *mount
}

// Close implements the method of esys.File. Closing twice is fine.
func (f *openFile) Close() esys.Errno {
	if _, ok := f.m.open[f]; !ok {
		return 0
	}
	delete(f.m.open, f)
	return f.File.Close()
}

// root is the directory of descriptor 3. It keeps nothing.
type root struct{ esys.UnimplementedFile }

// IsDir implements the method of esys.File.
func (root) IsDir() (bool, esys.Errno) { return true, 0 }

// Stat implements the method of esys.File.
func (root) Stat() (sys.Stat_t, esys.Errno) {
	return sys.Stat_t{Mode: fs.ModeDir | 0o555, Nlink: 1}, 0
}

// Close implements the method of esys.File.
func (root) Close() esys.Errno { return 0 }
