package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// page is what a page of the documentation has its reader do.
type page struct {
	steps  []step
	blocks []block // neither typed nor saved
}

// step is a command with what it prints, or a file that the reader saves.
type step struct {
	section         string // heading, without the signs
	command, output string
	file, content   string // the command is empty then
}

// block is a fenced block in another language.
type block struct {
	section, language, text string
	line                    int
}

// saved finds the name of the file in the line above a block: `page-says/check.js`:
var saved = regexp.MustCompile("`([^` ]+)`:$")

// readPage reads a page: commands are in blocks of the language console, behind "$ ", with what they print below them; files
// are in blocks below a line that ends with their name and a colon.
func readPage(t *testing.T, path string) page {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var (
		p              page
		inside         bool
		section, above string
		at             block
	)
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSuffix(line, "\n")
		name, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && inside:
			inside = false
			p.add(at, above)
		case fence:
			inside, at = true, block{section: section, language: name, line: n}
		case inside:
			at.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			section = strings.TrimLeft(line, "# ")
		case line != "":
			above = line
		}
	}
	if inside {
		t.Fatalf("%s: the block of line %d has no end", path, at.line)
	}
	return p
}

func (p *page) add(b block, above string) {
	file := saved.FindStringSubmatch(above)
	switch {
	case b.language == "console":
		for line := range strings.Lines(b.text) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				p.steps = append(p.steps, step{section: b.section, command: strings.TrimSuffix(command, "\n")})
			} else {
				p.steps[len(p.steps)-1].output += line
			}
		}
	case file != nil:
		p.steps = append(p.steps, step{section: b.section, file: file[1], content: b.text})
	default:
		p.blocks = append(p.blocks, b)
	}
}

// place is where a page is followed: a folder with the program, and a demo that runs beside it.
type place struct {
	dir, port string
	exports   string // lines for the shell
	same      []string
}

// newPlace makes a place. The program in it is the real one: its sandbox is what the page shows.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{dir: t.TempDir()}
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(p.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	tocsin := program(t)
	bundle(t, filepath.Dir(tocsin))
	for link, to := range map[string]string{"bin/tocsin": tocsin, "plugins": filepath.Join(source, "plugins")} {
		if err := os.Symlink(to, filepath.Join(p.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if p.port, err = freePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.exports = "export CGO_ENABLED=0 SOURCE='" + source + "' GOPROXY=off PATH=\"$PWD/bin:$PATH\"\n" + p.startDemo(t) + "\n" + plugged
	p.same = []string{p.port, "8080"}
	return p
}

// program builds the real program where it stays for the next time, and returns its path. It is without cgo, whatever the tests
// are: with it no sandbox is complete.
func program(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../.cache/test/tocsin")
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return path
}

// bundle builds the archives of this repository's plugins into the folder plugins beside a program, as make run does: the demo
// takes them from there.
func bundle(t *testing.T, beside string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "bash", "../../scripts/plugins.sh", "-o", filepath.Join(beside, "plugins")).CombinedOutput(); err != nil {
		t.Fatalf("build the plugins: %v\n%s", err, out)
	}
}

// plugged waits in a shell for what the demo adds last: compiling the plugins takes it some seconds.
const plugged = `until tocsin channel list | grep -q "^[a-z]* *demo SMS"; do sleep 0.2; done
until tocsin monitor list | grep -q "^up *GraphQL API"; do sleep 0.2; done
`

// follow does all steps and compares what comes with what the page shows.
func (p page) follow(t *testing.T, at *place) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	const mark = "-- next --"
	script := "exec 2>&1\n" + at.exports + "\n"
	var want []string
	for _, s := range p.steps {
		if s.file != "" {
			script += "mkdir -p '" + filepath.Dir(s.file) + "' && cat > '" + s.file + "' <<'-- end --'\n" + s.content + "-- end --\n"
			continue
		}
		// What is pending shows something else a moment later.
		if regexp.MustCompile(`tocsin (monitor (show|list)|plugin inspect)`).MatchString(s.command) {
			script += "until ! tocsin monitor list | grep -q ^pending; do :; done\n"
		}
		script += s.command + "\nstatus=$?\necho '" + mark + "'\n(exit $status)\n"
		want = append(want, "$ "+s.command+"\n"+plain(s.output))
	}
	script += "exit 0\n"
	shell := exec.CommandContext(ctx, "bash", "-c", script)
	shell.Dir = at.dir
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parts := strings.Split(string(out), mark+"\n")
	var got []string
	for i, s := range slices.DeleteFunc(slices.Clone(p.steps), func(s step) bool { return s.file != "" }) {
		if i < len(parts) {
			got = append(got, "$ "+s.command+"\n"+plain(strings.NewReplacer(at.same...).Replace(parts[i])))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the page shows something else: -page +program\n%s", diff)
	}
}

// plain leaves out what may differ from run to run, and from machine to machine.
func plain(text string) string {
	for _, r := range []struct{ find, put string }{
		{`01[0-9A-HJKMNP-TV-Z]{24}`, "ID"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "TIME"},
		{`\d+ (s|m) ago`, "AGO"},
		{`\d+(\.\d+)?( ?)(ms|µs)`, "LENGTH"},
		{`took +[0-9.]+s`, "took LENGTH"},
		{`time=[0-9.]+s`, "time=LENGTH"},
		{`"latency_us":\d+`, `"latency_us":N`},
		{`[0-9a-f]{64}`, "DIGEST"},
		// The layers of the sandbox, whose details are the kernel's, and what a plugin used.
		{`(?m)^ +[✓✗] (holds|does not hold) +((no )?\w+).*$`, "LAYER $2"},
		{`(?m)^(sandbox   .*\n?)+`, "SANDBOX\n"},
		// The demo's page fails for 20 s of each minute, and somebody may run a Redis that the demo finds.
		{`(?m)^(up|down) +(flaky page|local Redis) .*\n`, ""},
		{`(?m)^  (calls|processes|processor|memory|network)  .*$`, "USAGE $1"},
		{` +`, " "},
		{`(?m) +$`, ""},
	} {
		text = regexp.MustCompile(r.find).ReplaceAllString(text, r.put)
	}
	return text
}

// startDemo starts what make run starts and returns the export lines that it prints.
func (p *place) startDemo(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(p.dir, "bin", "tocsin"), "serve", "--demo", "--listen", "127.0.0.1:"+p.port)
	cmd.Dir = p.dir
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
