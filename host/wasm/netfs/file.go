package netfs

import (
	"io/fs"

	esys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// file is what all open files have in common. All are regular files to a guest: a character device would be a terminal to C,
// whose library then writes line by line, which tears datagrams and requests apart. They have no position.
type file struct {
	esys.UnimplementedFile
	fs                 *FS
	path               string
	readable, writable bool
	counted            bool // as one of those that may be open
	closed             bool
}

func regular(size int) sys.Stat_t { return sys.Stat_t{Mode: 0o666, Nlink: 1, Size: int64(size)} }

// IsDir implements the method of esys.File.
func (*file) IsDir() (bool, esys.Errno) { return false, 0 }

// Stat implements the method of esys.File.
func (*file) Stat() (sys.Stat_t, esys.Errno) { return regular(0), 0 }

// SetAppend implements the method of esys.File. Everything is appended as it is.
func (*file) SetAppend(bool) esys.Errno { return 0 }

// Truncate implements the method of esys.File. There is nothing to cut.
func (*file) Truncate(int64) esys.Errno { return 0 }

// shut marks the file as closed. It reports false when it was already.
func (f *file) shut() bool {
	if f.closed {
		return false
	}
	f.closed = true
	if f.counted {
		f.fs.leave()
	}
	return true
}

// mayRead returns 0 when the file can be read.
func (f *file) mayRead() esys.Errno {
	if f.closed || !f.readable || f.fs.ended() {
		return esys.EBADF
	}
	return 0
}

// mayWrite returns 0 when the file can be written to.
func (f *file) mayWrite() esys.Errno {
	if f.closed || !f.writable || f.fs.ended() {
		return esys.EBADF
	}
	return 0
}

func (f *FS) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// document is a file whose content was there when it was opened.
type document struct {
	file
	text []byte // not read yet
	size int
	held int
}

// Stat implements the method of esys.File.
func (d *document) Stat() (sys.Stat_t, esys.Errno) {
	st := regular(d.size)
	st.Mode = fs.FileMode(0o444)
	return st, 0
}

// Read implements the method of esys.File.
func (d *document) Read(b []byte) (int, esys.Errno) {
	if errno := d.mayRead(); errno != 0 {
		return 0, errno
	}
	n := copy(b, d.text)
	d.text = d.text[n:]
	return n, 0
}

// Write implements the method of esys.File.
func (*document) Write([]byte) (int, esys.Errno) { return 0, esys.EBADF }

// Close implements the method of esys.File.
func (d *document) Close() esys.Errno {
	if !d.shut() {
		return esys.EBADF
	}
	d.fs.release(d.held)
	d.text = nil
	return 0
}
