// Command testsum reads what `go test -json` writes and prints what a person wants of it: each package's closing line, the
// output of each test that failed, each test that skipped with its reason, and one line of totals.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	failed, err := summarise(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// event is one line of test2json; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

// place is a test, or with an empty test a package.
type place struct{ pkg, test string }

// summarise reports whether anything failed. Events that never end, as a crash leaves them, count as failed.
func summarise(in io.Reader, out io.Writer) (failed bool, err error) {
	w := bufio.NewWriter(out)
	defer func() { err = errors.Join(err, w.Flush()) }()
	output := map[place][]string{}
	var skips []string
	passed, failures, skipped, packages := 0, 0, 0, 0
	lines := bufio.NewReader(in)
	for {
		line, readErr := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil { // the go command's own words
				_, _ = w.Write(line)
				_ = w.Flush()
				continue
			}
			at := place{e.Package, e.Test}
			switch e.Action {
			case "build-output":
				fmt.Fprint(w, e.Output)
			case "build-fail":
				failed = true
			case "output":
				output[at] = append(output[at], e.Output)
			case "pass", "skip", "fail":
				text := output[at]
				delete(output, at)
				switch {
				case e.Test == "":
					packages++
					failed = failed || e.Action == "fail"
					closing(w, text, e.Action == "fail")
				case e.Action == "pass":
					passed++
				case e.Action == "skip":
					skipped++
					skips = append(skips, e.Package+" "+e.Test+": "+reason(text))
				default:
					failures++
					failed = true
					fmt.Fprint(w, strings.Join(text, ""))
				}
			}
			_ = w.Flush()
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return failed, fmt.Errorf("read test events: %w", readErr)
		}
	}
	for at, text := range output { // a test that never ended: its package crashed or was killed
		if len(text) > 0 && at.test != "" {
			failed = true
			fmt.Fprintf(w, "%s %s did not end:\n%s", at.pkg, at.test, strings.Join(text, ""))
		}
	}
	if packages == 0 && !failed {
		return failed, errors.New("no package was tested")
	}
	for _, s := range skips {
		fmt.Fprintln(w, "skipped:", s)
	}
	if skipped > 0 && os.Getenv("CI") == "true" {
		fmt.Fprintln(w, "a test skipped, which none may in CI")
		failed = true
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", passed, failures, skipped)
	return failed, nil
}

// closing prints a package's closing line, and all that it said when it failed (a panic, a TestMain's complaint).
func closing(w io.Writer, text []string, all bool) {
	for _, line := range text {
		if all || strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "?  ") {
			fmt.Fprint(w, line)
		}
	}
}

// reason is what a skipped test said, without the lines that test2json frames it with.
func reason(text []string) string {
	var said []string
	for _, line := range text {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
