package wasm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contents gives every file and folder below dir with its size and its time.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err == nil {
			found[path] = fs.FormatFileInfo(info) + info.ModTime().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// readOnly takes away the right to write in a folder and what is below it.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	set := func(mode fs.FileMode) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, mode)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set(0o500)
	t.Cleanup(func() { set(0o700) })
}

// New loads what Compile compiled, out of a folder that it cannot write to, and compiles nothing.
func TestCompile(t *testing.T) {
	dir := t.TempDir()
	opts := Options{Cache: dir, Limits: Limits{Memory: 4 << 20}}
	for name, module := range map[string][]byte{"reactor": echo("check"), "command": echo("_start")} {
		if err := Compile(context.Background(), module, opts); err != nil {
			t.Fatal(name, err)
		}
	}
	readOnly(t, dir)
	before := contents(t, dir)
	if len(before) != 4 { // two folders, two modules
		t.Errorf("the cache has %v", before)
	}
	for name, module := range map[string][]byte{"reactor": echo("check"), "command": echo("_start")} {
		m := open(t, module, opts)
		if r, err := m.Call(context.Background(), Call{Name: "check", Request: []byte("hi")}); err != nil || string(r.Response) != "hi" {
			t.Errorf("%s: %q, %v", name, r.Response, err)
		}
	}
	if err := Compile(context.Background(), echo("check"), opts); err != nil {
		t.Error("again:", err)
	}
	if d := cmp.Diff(before, contents(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestCompileRunsNothing(t *testing.T) {
	traps := plain(func(g *guest) { g.fn("_initialize", 0, 0x00) })
	if err := Compile(context.Background(), traps, Options{Cache: t.TempDir()}); err != nil {
		t.Error(err)
	}
}

func TestCompileRefuses(t *testing.T) {
	dir := t.TempDir()
	big := plain(func(g *guest) { g.memory = cat(0, u(1000)) })
	var refusal *RefusedError
	if err := Compile(context.Background(), big, Options{Cache: dir}); !errors.As(err, &refusal) || refusal.Rule != "memory" {
		t.Errorf("a module over its limit: %v", err)
	}
	for name, err := range map[string]error{
		"no folder":     Compile(context.Background(), echo("check"), Options{}),
		"not a folder":  Compile(context.Background(), echo("check"), Options{Cache: "/dev/null/x"}),
		"invalid code":  Compile(context.Background(), plain(func(g *guest) { g.fn("notify", 0, 0x1a) }), Options{Cache: dir}),
		"not a module":  Compile(context.Background(), []byte("hello"), Options{Cache: dir}),
		"engine's only": Compile(context.Background(), plain(func(g *guest) { g.exports = nil }), Options{Cache: dir}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if found := contents(t, dir); len(found) > 2 {
		t.Errorf("it left %v", found)
	}
}
