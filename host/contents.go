// Package host runs plugins: it reads what they are and what they ask for, keeps what they were granted, starts them behind two
// walls, ends those that outlive a deadline, and makes their connections for them.
package host

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/tocsinhq/tocsin/sdk"
)

// Contents is the files of a plugin, held in memory.
type Contents struct {
	files map[string]file // by path, slashes only
}

type file struct {
	data       []byte
	executable bool
}

// ReadDir reads a plugin's directory by the rules of ReadArchive. Links are refused, and nothing outside of the directory is
// read even if one appears meanwhile.
func ReadDir(dir string) (*Contents, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read plugin directory: %w", err)
	}
	defer root.Close() //nolint:errcheck // it was only read through
	c := newCollector()
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read plugin directory: %w", err)
		case name == ".":
			return nil
		}
		if err := c.count(); err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return c.dir(name)
		case entry.Type()&fs.ModeSymlink != 0:
			return refuse("%s is a link", quote(name))
		case !entry.Type().IsRegular():
			return refuse("%s is neither a file nor a directory", quote(name))
		}
		return c.open(root, name)
	})
	if err != nil {
		return nil, err
	}
	return c.contents()
}

func (c *collector) open(root *os.Root, name string) error {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return fmt.Errorf("read plugin directory: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read plugin directory: %w", err)
	}
	if !info.Mode().IsRegular() {
		return refuse("%s is neither a file nor a directory", quote(name))
	}
	return c.add(name, info.Mode()&0o111 != 0, f, info.Size())
}

// Names returns the paths of all files, sorted.
func (c *Contents) Names() []string { return slices.Sorted(maps.Keys(c.files)) }

// File returns the bytes of a file, which must not be changed, and false when there is none.
func (c *Contents) File(name string) ([]byte, bool) {
	f, ok := c.files[name]
	return f.data, ok
}

// Digest returns the SHA-256, in hexadecimal digits, of all names and contents. It is of what is in an archive, not of how
// it was packed, so that an archive and the directory it was unpacked to have the same, on every system.
func (c *Contents) Digest() string {
	all := sha256.New()
	for _, name := range c.Names() {
		// A hash never fails to be written. Lengths go first, so that no two sets of files make the same bytes.
		all.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
		all.Write([]byte(name))
		sum := sha256.Sum256(c.files[name].data)
		all.Write(sum[:])
	}
	return hex.EncodeToString(all.Sum(nil))
}

// Manifest reads the manifest and holds it to the files: what entry or script names is there and has the digest that sha256
// says. A manifest without sha256 passes.
func (c *Contents) Manifest() (Manifest, error) {
	m, err := ParseManifest(sdk.ManifestFile, c.files[sdk.ManifestFile].data)
	if err != nil {
		return Manifest{}, err
	}
	named := map[string]string{"": m.Entry.One}
	if m.Script != "" {
		named[""] = m.Script
	}
	if m.Entry.Each != nil {
		named = m.Entry.Each
	}
	for _, platform := range slices.Sorted(maps.Keys(named)) {
		name := named[platform]
		data, ok := c.File(name)
		if !ok {
			return Manifest{}, refuse("%s names %s, which is not there", sdk.ManifestFile, quote(name))
		}
		want, ok := m.SHA256.For(platform)
		if sum := sha256.Sum256(data); ok && hex.EncodeToString(sum[:]) != want {
			return Manifest{}, refuse("%s has the SHA-256 %x, its manifest says %s", quote(name), sum, want)
		}
	}
	return m, nil
}

// Write writes all files below dir, which must be an empty directory. Files get the modes 0644 or, executable ones, 0755.
func (c *Contents) Write(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack plugin: %w", err)
	}
	defer root.Close() //nolint:errcheck // the files below it are closed with their errors
	for _, name := range c.Names() {
		if above := parent(name); above != "." {
			if err := root.MkdirAll(filepath.FromSlash(above), 0o755); err != nil {
				return fmt.Errorf("unpack plugin: %w", err)
			}
		}
		if err := c.write(root, name); err != nil {
			return fmt.Errorf("unpack plugin: %w", err)
		}
	}
	return nil
}

func (c *Contents) write(root *os.Root, name string) error {
	mode := os.FileMode(0o644)
	if c.files[name].executable {
		mode = 0o755
	}
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(c.files[name].data)
	return errors.Join(err, f.Close())
}
