package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestPluginScripts drives the real program with plugins. It is built without cgo, which tests are not: a runner that was built
// with cgo cannot put up all of its wall.
func TestPluginScripts(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "tocsin"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	params := scripts(t, "testdata/plugins")
	setup := params.Setup
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("PATH", dir+string(os.PathListSeparator)+env.Getenv("PATH"))
		return setup(env)
	}
	testscript.Run(t, params)
}

// kill9 kills what runs in the background, so that it can do nothing about its end.
func kill9(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		if cmd.ProcessState == nil {
			ts.Check(cmd.Process.Signal(syscall.SIGKILL))
		}
	}
}

// runners waits until so many processes run plugins of this script, and holds each to standing back behind the server: runners N
func runners(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: runners N")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	until(ts, args[0]+" processes run plugins", func(context.Context) bool {
		found := processes(ts.Getenv("WORK"))
		if len(found) != want {
			return false
		}
		for _, dir := range found {
			score, err := os.ReadFile(filepath.Join(dir, "oom_score_adj"))
			if err != nil {
				return false
			}
			// The server has 0, and the one with the most ends first.
			if n, err := strconv.Atoi(strings.TrimSpace(string(score))); err != nil || n != 1000 {
				return false
			}
			threads, err := filepath.Glob(filepath.Join(dir, "task", "*", "stat"))
			if err != nil || len(threads) == 0 {
				return false
			}
			for _, thread := range threads {
				stat, err := os.ReadFile(thread)
				if err != nil {
					return false
				}
				// proc(5): the name in brackets is the second field, nice is the 19th.
				_, rest, _ := bytes.Cut(stat, []byte(") "))
				if fields := bytes.Fields(rest); len(fields) < 17 || string(fields[16]) != "10" {
					return false
				}
			}
		}
		return true
	})
}

// processes gives the folders in /proc of those that run a plugin or compile one below a folder.
func processes(below string) []string {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // the pattern is right
	}
	var found []string
	for _, dir := range all {
		// A process that has ended meanwhile has none.
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && bytes.Contains(line, []byte("\x00plugin-")) && bytes.Contains(line, []byte(below)) {
			found = append(found, dir)
		}
	}
	return found
}

// message waits until the newest result of a monitor has a message that matches: message NAME REGEXP
func message(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: message NAME REGEXP")
	}
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	until(ts, fmt.Sprintf("%s says %s", args[0], want), func(ctx context.Context) bool {
		_, body := get(ctx, ts, "/api/v1/monitors")
		var list struct {
			Items []struct {
				Name string
				Last *struct{ Message string }
			}
		}
		if json.Unmarshal(body, &list) != nil {
			return false
		}
		for _, m := range list.Items {
			if m.Name == args[0] && m.Last != nil && want.MatchString(strings.TrimSpace(m.Last.Message)) {
				return true
			}
		}
		return false
	})
}
