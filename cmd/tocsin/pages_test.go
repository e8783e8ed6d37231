package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityPageNamesTests holds docs/security.md to tests that are there.
func TestSecurityPageNamesTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 50 {
		t.Errorf("it names %d tests only", len(named))
	}
	for _, n := range named {
		files, err := filepath.Glob(filepath.Join("../..", n[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(source, []byte("func "+n[2]+"("))
		}
		if !found {
			t.Errorf("there is no %s in %s", n[2], n[1])
		}
	}
}

// TestScriptEngine holds the engine of scripts to the digest in its README.
func TestScriptEngine(t *testing.T) {
	t.Parallel()
	const dir = "../../host/wasm/script/quickjs/"
	engine, err := os.ReadFile(dir + "quickjs.wasm")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(dir + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("sha256 %x\n", sha256.Sum256(engine)); !bytes.Contains(readme, []byte(sum)) {
		t.Errorf("the engine has %s, its README says something else", strings.TrimSpace(sum))
	}
}

// TestLinks follows the links between the pages of this repository.
func TestLinks(t *testing.T) {
	t.Parallel()
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "plugins/*/*.md", "host/wasm/script/quickjs/*.md"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	link := regexp.MustCompile(`\]\(([^()\s]+)\)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			to, anchor, _ := strings.Cut(l[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			target := page
			if to != "" {
				target = filepath.Join(filepath.Dir(page), to)
			}
			there, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); err != nil && (statErr != nil || !info.IsDir()) {
				t.Errorf("%s: %s leads nowhere", page, l[1])
				continue
			}
			if anchor != "" && !strings.Contains("\n"+anchors(string(there))+"\n", "\n"+anchor+"\n") {
				t.Errorf("%s: %s has no heading #%s", page, target, anchor)
			}
		}
	}
}

// anchors lists the headings of a page as links name them, one a line.
func anchors(text string) string {
	var list []string
	inside := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			inside = !inside
		}
		if inside || !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
		list = append(list, strings.ReplaceAll(heading, " ", "-"))
	}
	return strings.Join(list, "\n")
}
