package host

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

// Bounds of a plugin's files.
const (
	maxFiles    = 1000     // entries of an archive or a directory, directories included
	maxUnpacked = 64 << 20 // bytes of all files, and of the archive itself
	maxRatio    = 100      // bytes unpacked for a byte packed, counted once bombFloor bytes are unpacked
	bombFloor   = 4 << 20
)

// ErrArchive is wrapped by every refusal of an archive or a directory for what is in it.
var ErrArchive = errors.New("plugin refused")

// refuse makes a refusal.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrArchive, fmt.Errorf(format, args...))
}

// counted counts what is read, and refuses more than an archive may have.
type counted struct {
	r io.Reader
	n int64
}

// Read reads on, up to one byte past the bound.
func (c *counted) Read(p []byte) (int, error) {
	if c.n > maxUnpacked {
		return 0, refuse("the archive is larger than %d MiB", maxUnpacked>>20)
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// inflated reads the unpacked stream and refuses one that is too long or a bomb, by what was really read of both: the sizes
// in headers are an author's claims.
type inflated struct {
	r      io.Reader
	packed *counted
	n      int64
}

// Read reads on while the bounds hold.
func (i *inflated) Read(p []byte) (int, error) {
	if i.n > maxUnpacked+maxFiles*4096 { // room for the headers and the padding
		return 0, refuse("it unpacks to more than %d MiB", maxUnpacked>>20)
	}
	if i.n > bombFloor && i.n/maxRatio > i.packed.n {
		return 0, refuse("it is a compression bomb: more than %d bytes for each one packed", maxRatio)
	}
	n, err := i.r.Read(p)
	i.n += int64(n)
	return n, err
}

// ReadArchive reads a plugin's tar.gz. Links, devices, absolute names, "..", names that differ only in case, more than 1,000
// entries, more than 64 MiB and compression bombs are refused with an error that wraps ErrArchive and names the entry.
// Nothing is written to disk.
func ReadArchive(r io.Reader) (*Contents, error) {
	packed := &counted{r: r}
	zip, err := gzip.NewReader(packed)
	if err != nil {
		return nil, broken("is no gzip file", err)
	}
	unpacked := &inflated{r: zip, packed: packed}
	in, c := tar.NewReader(unpacked), newCollector()
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, broken("is no tar archive", err)
		}
		if err := c.entry(header, in); err != nil {
			return nil, err
		}
	}
	// What follows the end of the archive is unpacked as well, so that its check sum counts and nothing hides there.
	rest := make([]byte, 32<<10)
	for {
		n, err := unpacked.Read(rest)
		if slices.ContainsFunc(rest[:n], func(b byte) bool { return b != 0 }) {
			return nil, refuse("there is something behind the end of the archive")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, broken("is cut or damaged", err)
		}
	}
	return c.contents()
}

// broken tells a fault of the form, and passes on a refusal as it is.
func broken(what string, err error) error {
	if errors.Is(err, ErrArchive) {
		return err
	}
	return refuse("the archive %s: %w", what, err)
}

// collector gathers files and holds them to the bounds.
type collector struct {
	files   map[string]file
	folded  map[string]string // lower-case path of every file and directory to the path as it is written
	dirs    map[string]bool   // paths that are directories
	entries int
	size    int64
}

func newCollector() *collector {
	return &collector{files: map[string]file{}, folded: map[string]string{}, dirs: map[string]bool{}}
}

func (c *collector) count() error {
	if c.entries++; c.entries > maxFiles {
		return refuse("it has more than %d files", maxFiles)
	}
	return nil
}

func (c *collector) entry(h *tar.Header, in io.Reader) error {
	if err := c.count(); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // git archive writes one
		return nil
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeSymlink, tar.TypeLink:
		return refuse("%s is a link", quote(h.Name))
	default:
		return refuse("%s is neither a file nor a directory", quote(h.Name))
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return refuse("%s is a sparse file", quote(h.Name))
		}
	}
	name := strings.TrimPrefix(h.Name, "./")
	if h.Typeflag == tar.TypeDir {
		if name = strings.TrimSuffix(name, "/"); name == "" || name == "." {
			return nil
		}
		return c.dir(name)
	}
	return c.add(name, h.FileInfo().Mode()&0o111 != 0, in, h.Size)
}

// dir notes a directory and those above it.
func (c *collector) dir(name string) error {
	if err := fileName(name); err != nil {
		return refuse("%w", err)
	}
	for at := name; at != "."; at = parent(at) {
		if _, ok := c.files[at]; ok {
			return refuse("%s is a file and a directory", quote(at))
		}
		if err := c.fold(at); err != nil {
			return err
		}
		c.dirs[at] = true
	}
	return nil
}

func parent(name string) string {
	at := strings.LastIndexByte(name, '/')
	if at < 0 {
		return "."
	}
	return name[:at]
}

// fold refuses two names that are one on a system that does not tell cases apart.
func (c *collector) fold(name string) error {
	lower := strings.ToLower(name)
	if other, ok := c.folded[lower]; ok && other != name {
		return refuse("%s and %s differ only in case", quote(other), quote(name))
	}
	c.folded[lower] = name
	return nil
}

func (c *collector) add(name string, executable bool, in io.Reader, size int64) error {
	if err := fileName(name); err != nil {
		return refuse("%w", err)
	}
	if _, ok := c.files[name]; ok {
		return refuse("%s is there twice", quote(name))
	}
	if c.dirs[name] {
		return refuse("%s is a file and a directory", quote(name))
	}
	if err := c.fold(name); err != nil {
		return err
	}
	if above := parent(name); above != "." {
		if err := c.dir(above); err != nil {
			return err
		}
	}
	if left := maxUnpacked - c.size; size < 0 || size > left {
		return refuse("%s is too much: all files together are larger than %d MiB", quote(name), maxUnpacked>>20)
	}
	data, err := io.ReadAll(io.LimitReader(in, size+1)) // grows with what is there, not with what a header says
	if err != nil {
		return broken(fmt.Sprintf("is cut or damaged in %s", quote(name)), err)
	}
	if int64(len(data)) != size {
		return refuse("%s has %d bytes, not %d", quote(name), len(data), size)
	}
	c.size += size
	c.files[name] = file{data, executable}
	return nil
}

func (c *collector) contents() (*Contents, error) {
	if _, ok := c.files[sdk.ManifestFile]; !ok {
		for name := range c.files {
			if strings.HasSuffix(name, "/"+sdk.ManifestFile) {
				return nil, refuse("%s must be at the root, not in %s", sdk.ManifestFile, quote(parent(name)))
			}
		}
		return nil, refuse("there is no %s", sdk.ManifestFile)
	}
	return &Contents{c.files}, nil
}
