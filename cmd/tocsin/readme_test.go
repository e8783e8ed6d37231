package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// step is a command of the README with what it prints there.
type step struct{ command, output string }

// TestReadme types the README's tour into a shell beside a running demo and compares what comes with what stands there. Only
// numbers, ids, times and the spaces of tables may differ.
func TestReadme(t *testing.T) {
	steps := tour(t, "../../README.md")
	if len(steps) < 8 {
		t.Fatalf("the README has only %d commands", len(steps))
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A command of testscript knows by its name that it is the program.
	if err := os.Symlink(exe, filepath.Join(dir, "bin", "tocsin")); err != nil {
		t.Fatal(err)
	}
	port, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exports := startDemo(t, dir, "127.0.0.1:"+port)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const mark = "-- next --"
	script := "exec 2>&1\n" + exports + "\n"
	var want []string
	for _, s := range steps {
		if strings.HasPrefix(s.command, "bin/tocsin monitor show") || strings.HasPrefix(s.command, "bin/tocsin monitor list") {
			script += "until ! bin/tocsin monitor list | grep -q ^pending; do :; done\n"
		}
		script += s.command + "\nstatus=$?\necho '" + mark + "'\n(exit $status)\n"
		want = append(want, "$ "+s.command+"\n"+plain(s.output))
	}
	script += "exit 0\n"
	shell := exec.CommandContext(ctx, "bash", "-c", script)
	shell.Dir = dir
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("the tour: %v\n%s", err, out)
	}
	parts := strings.Split(string(out), mark+"\n")
	var got []string
	for i, s := range steps {
		if i < len(parts) {
			got = append(got, "$ "+s.command+"\n"+plain(strings.ReplaceAll(parts[i], port, "8080")))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the README shows something else: -README +program\n%s", diff)
	}
}

// tour returns the commands in the README's console blocks.
func tour(t *testing.T, path string) []step {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	inside := false
	for line := range strings.Lines(string(text)) {
		switch {
		case line == "```console\n":
			inside = true
		case line == "```\n":
			inside = false
		case !inside:
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, step{command: strings.TrimSuffix(line[2:], "\n")})
		default:
			steps[len(steps)-1].output += line
		}
	}
	return steps
}

// plain leaves out what may differ from run to run.
func plain(text string) string {
	for _, r := range []struct{ find, put string }{
		{`01[0-9A-HJKMNP-TV-Z]{24}`, "ID"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
		{`\d+ (s|m) ago`, "AGO"},
		{`\d+(\.\d+)?( ?)(ms|µs)`, "LENGTH"},
		{`time=[0-9.]+s`, "time=LENGTH"},
		{` +`, " "},
		{`(?m) +$`, ""},
	} {
		text = regexp.MustCompile(r.find).ReplaceAllString(text, r.put)
	}
	return text
}

// startDemo starts what make run starts and returns the export lines that it prints.
func startDemo(t *testing.T, dir, listen string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(dir, "bin", "tocsin"), "serve", "--demo", "--listen", listen)
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("stop the demo: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	})
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var exports []string
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if strings.HasPrefix(line, "export ") {
			exports = append(exports, line)
		}
		if strings.HasPrefix(line, "Ctrl-C") {
			break
		}
	}
	if len(exports) != 2 {
		t.Fatalf("the demo printed the lines %q, want two exports", exports)
	}
	return strings.Join(exports, "\n")
}
