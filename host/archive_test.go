package host

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/sdk"
)

// packed makes a tar.gz. A header without a type is a file; its size is the data's unless it is set.
func packed(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Size == 0 && h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.data))
		}
		if h.Mode == 0 && h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type tarEntry struct {
	tar.Header
	data string
}

func entry(name, data string) tarEntry { return tarEntry{tar.Header{Name: name}, data} }

const small = "api: 1\nname: a\nversion: 1.0.0\nsummary: s\nprovides: [check]\nruntime: wasm\nentry: lib/a.wasm\n"

func manifest() tarEntry { return entry(sdk.ManifestFile, small) }

func TestArchive(t *testing.T) {
	t.Parallel()
	archive := packed(
		t, tarEntry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}},
		tarEntry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir}}, tarEntry{Header: tar.Header{Name: "./lib/", Typeflag: tar.TypeDir}},
		entry("./"+sdk.ManifestFile, small), entry("lib/a.wasm", "module"), tarEntry{tar.Header{Name: "run.sh", Mode: 0o755}, "#!"}, entry("empty", ""),
	)
	c, err := ReadArchive(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"empty", "lib/a.wasm", "run.sh", sdk.ManifestFile}, c.Names()); diff != "" {
		t.Error(diff)
	}
	if data, ok := c.File("lib/a.wasm"); !ok || string(data) != "module" {
		t.Errorf("lib/a.wasm is %q, %v", data, ok)
	}
	m, err := c.Manifest()
	if err != nil || m.Name != "a" {
		t.Errorf("manifest %+v, %v", m, err)
	}
	dir := t.TempDir()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "run.sh"))
	if err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("run.sh is %v, %v", info, err)
	}
	again, err := ReadDir(dir)
	if err != nil || again.Digest() != c.Digest() || len(c.Digest()) != 64 {
		t.Errorf("the directory's digest is %v (%v), the archive's %s", again, err, c.Digest())
	}
	if err := c.Write(dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("writing over files: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lib", "a.wasm"), []byte("modulE"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := ReadDir(dir); err != nil || changed.Digest() == c.Digest() {
		t.Errorf("one bit less, the same digest (%v)", err)
	}
}

func TestRefusedArchives(t *testing.T) {
	t.Parallel()
	many := []tarEntry{manifest()}
	for i := range maxFiles {
		many = append(many, entry(fmt.Sprintf("f%d", i), ""))
	}
	link := func(name, to string, kind byte) tarEntry {
		return tarEntry{Header: tar.Header{Name: name, Linkname: to, Typeflag: kind}}
	}
	good := packed(t, manifest(), entry("lib/a.wasm", strings.Repeat("module", 100)))
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 1
	for name, tt := range map[string]struct {
		archive []byte
		want    string
	}{
		"a symbolic link":    {packed(t, manifest(), link("lib", "/etc", tar.TypeSymlink)), `"lib" is a link`},
		"a hard link":        {packed(t, manifest(), link("x", "/etc/passwd", tar.TypeLink)), `"x" is a link`},
		"a device":           {packed(t, manifest(), link("x", "", tar.TypeChar)), `"x" is neither a file nor a directory`},
		"a pipe":             {packed(t, manifest(), link("x", "", tar.TypeFifo)), `"x" is neither a file nor a directory`},
		"above":              {packed(t, manifest(), entry("../x", "")), `"../x" must have no parts that are empty, . or ..`},
		"above, inside":      {packed(t, manifest(), entry("a/../../x", "")), `"a/../../x" must have no parts`},
		"a directory above":  {packed(t, manifest(), link("a/../../x/", "", tar.TypeDir)), `must have no parts`},
		"absolute":           {packed(t, manifest(), entry("/etc/cron.d/x", "")), `"/etc/cron.d/x" is absolute`},
		"a dot, then a root": {packed(t, manifest(), entry(".//etc/passwd", "")), `"/etc/passwd" is absolute`},
		"a drive":            {packed(t, manifest(), entry("C:/x", "")), `has one of`},
		"backslashes":        {packed(t, manifest(), entry(`..\x`, "")), `has one of`},
		"a device name":      {packed(t, manifest(), entry("a/nul.txt", "")), `not the same on every system`},
		"a dot at the end":   {packed(t, manifest(), entry("a.", "")), `not the same on every system`},
		"control characters": {packed(t, manifest(), entry("a\x1b[31m", "")), `cannot be shown`},
		"a direction":        {packed(t, manifest(), entry("a\u202egnp.exe", "")), `cannot be shown`},
		"a long name":        {packed(t, manifest(), entry(strings.Repeat("a", 256), "")), `longer than 255 bytes`},
		"twice":              {packed(t, manifest(), manifest()), `"tocsin-plugin.yaml" is there twice`},
		"two cases":          {packed(t, manifest(), entry("README", ""), entry("readme", "")), `"README" and "readme" differ only in case`},
		"two cases above":    {packed(t, manifest(), entry("Lib/a", ""), entry("lib/b", "")), `"Lib" and "lib" differ only in case`},
		"a file, then below": {packed(t, manifest(), entry("a", ""), entry("a/b", "")), `"a" is a file and a directory`},
		"below, then a file": {packed(t, manifest(), entry("a/b", ""), entry("a", "")), `"a" is a file and a directory`},
		"no manifest":        {packed(t, entry("a", "")), "there is no tocsin-plugin.yaml"},
		"a manifest below":   {packed(t, entry("a-1.0.0/"+sdk.ManifestFile, small)), `must be at the root, not in "a-1.0.0"`},
		"too many files":     {packed(t, many...), "more than 1000 files"},
		"a bomb":             {bomb(t, 20<<20), "it is a compression bomb: more than 100 bytes for each one packed"},
		"a bomb behind":      {append(bytes.Clone(good), zeros(t, 10<<20)...), "compression bomb"},
		"nothing":            {nil, "is no gzip file"},
		"a zip":              {[]byte("PK\x03\x04aaaaaaaaaaaaaaaaaaaa"), "is no gzip file"},
		"no tar":             {zipped(t, []byte(strings.Repeat("hello", 200))), "is no tar archive"},
		"cut":                {good[:len(good)-10], "the archive is"},
		"damaged":            {damaged, ""},
		"more behind":        {append(bytes.Clone(good), good...), "something behind the end"},
		"junk behind":        {append(bytes.Clone(good), "junk"...), "is cut or damaged"},
	} {
		c, err := ReadArchive(bytes.NewReader(tt.archive))
		if !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want a refusal with %q", name, c, err, tt.want)
		}
	}
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zeros(t testing.TB, n int) []byte { return zipped(t, make([]byte, n)) }

func bomb(t testing.TB, n int) []byte {
	return packed(t, manifest(), entry("zeros", string(make([]byte, n))))
}

// TestArchiveSizes holds the bounds against data that does not compress, and against a header that lies.
func TestArchiveSizes(t *testing.T) {
	t.Parallel()
	c := newCollector()
	for i := range 4 {
		if err := c.add(fmt.Sprintf("f%d", i), false, io.LimitReader(endless{}, 16<<20), 16<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.add("f4", false, strings.NewReader("a"), 1); !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), `"f4" is too much: all files together are larger than 64 MiB`) {
		t.Errorf("one byte more: %v", err)
	}
	for _, size := range []int64{-1, 1 << 62} {
		if err := newCollector().add("f", false, strings.NewReader(""), size); !errors.Is(err, ErrArchive) {
			t.Errorf("a file of %d bytes: %v", size, err)
		}
	}
	if err := newCollector().add("f", false, strings.NewReader("ab"), 1); !errors.Is(err, ErrArchive) {
		t.Errorf("a file that is longer than it says: %v", err)
	}
	large := &counted{r: endless{}}
	if n, err := io.Copy(io.Discard, large); !errors.Is(err, ErrArchive) || n > maxUnpacked+1<<20 {
		t.Errorf("of an endless archive %d bytes were read, %v", n, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestRefusedDirectories(t *testing.T) {
	t.Parallel()
	make1 := func(build func(dir string) error) string {
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, sdk.ManifestFile), []byte(small), 0o644), build(dir)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for want, dir := range map[string]string{
		`"link" is a link`: make1(func(d string) error { return os.Symlink("/etc/passwd", filepath.Join(d, "link")) }),
		`"sub" is a link`:  make1(func(d string) error { return os.Symlink("/etc", filepath.Join(d, "sub")) }),
		"has one of":       make1(func(d string) error { return os.WriteFile(filepath.Join(d, "a:b"), nil, 0o644) }),
		"is too much":      make1(func(d string) error { return sparse(filepath.Join(d, "big"), 1<<40) }),
		"more than 1000":   make1(func(d string) error { return crowd(d, maxFiles) }),
		"there is no":      make1(func(d string) error { return os.Remove(filepath.Join(d, sdk.ManifestFile)) }),
	} {
		if _, err := ReadDir(dir); !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want a refusal with %q", err, want)
		}
	}
	if _, err := ReadDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func crowd(dir string, n int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func TestManifestFitsFiles(t *testing.T) {
	t.Parallel()
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("module")))
	platforms := "api: 1\nname: a\nversion: 1.0.0\nsummary: s\nprovides: [check]\nruntime: process\nentry: {linux/amd64: a, linux/arm64: b}\n"
	for _, tt := range []struct{ manifest, want string }{
		{small, ""},
		{small + "sha256: " + sum + "\n", ""},
		{small + "sha256: " + strings.Repeat("0", 64) + "\n", `"lib/a.wasm" has the SHA-256 ` + sum + ", its manifest says 0000"},
		{strings.Replace(small, "lib/a.wasm", "b.wasm", 1), `names "b.wasm", which is not there`},
		{strings.Replace(small, "entry: lib/a.wasm", "script: c.js", 1), `names "c.js", which is not there`},
		{platforms, ""},
		{strings.Replace(platforms, "b}", "c}", 1), `names "c", which is not there`},
		{platforms + "sha256: {linux/amd64: " + sum + ", linux/arm64: " + sum + "}\n", ""},
		{"api: 2\n", "api: must be 1"},
	} {
		c, err := ReadArchive(bytes.NewReader(packed(t, entry(sdk.ManifestFile, tt.manifest), entry("lib/a.wasm", "module"), entry("a", "module"), entry("b", "module"))))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Manifest()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s\n%v, want %q", tt.manifest, err, tt.want)
		}
	}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "a/b.wasm", "日本/é.js", ".hidden", "a b", "console.js", "com10", "..a", "a..b"} {
		if err := fileName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "/", "a/", "/a", "a//b", "a/./b", "a/../b", "a\\b", "c:a", "a\x00b", "\xff", "a\nb", "CON", "lpt1.txt", "COM0", "a /b", " a", "a./b", "a\u200bb", "a?", "a*"} {
		if err := fileName(name); err == nil {
			t.Errorf("%q passes", name)
		}
	}
}

func FuzzArchive(f *testing.F) {
	for _, seed := range [][]tarEntry{
		{manifest(), entry("lib/a.wasm", "module")}, {entry("../x", "")}, {{Header: tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/"}}}, {},
	} {
		raw, err := gzip.NewReader(bytes.NewReader(packed(f, seed...)))
		if err != nil {
			f.Fatal(err)
		}
		data, err := io.ReadAll(raw)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data) // unpacked, so that the fuzzer can change what is in it
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ReadArchive(bytes.NewReader(data)); err == nil {
			t.Errorf("%q was read although it is not packed", data)
		}
		c, err := ReadArchive(bytes.NewReader(zipped(t, data)))
		if err != nil {
			if !errors.Is(err, ErrArchive) {
				t.Errorf("%q: %v is no refusal", data, err)
			}
			return
		}
		for _, name := range c.Names() {
			if !filepath.IsLocal(name) {
				t.Errorf("%q holds the file %q", data, name)
			}
		}
		dir := t.TempDir()
		if err := c.Write(dir); err != nil {
			t.Fatalf("%q cannot be written: %v", data, err)
		}
		if again, err := ReadDir(dir); err != nil || again.Digest() != c.Digest() {
			t.Errorf("%q is another in its directory: %v", data, err)
		}
	})
}
