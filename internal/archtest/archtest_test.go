// Package archtest holds the shape of the repository as tests: who may import whom, and what a file may look like. There is
// no code in it besides the tests. docs/architecture.md has the same in words.
package archtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tocsinhq/tocsin"

// rule is what one package, or a tree of them ("plugins/*"), may import besides the standard library.
type rule struct {
	pkg  string
	may  []string // packages of this module, relative to it; "engine/*" is a tree, "…" every one
	libs []string // modules or packages of others, by prefix
	why  string
}

// rules is the import table. The first rule that matches a package counts.
func rules() []rule {
	return []rule{
		{"sdk", nil, nil, "the contract is a leaf: plugin authors get the standard library and nothing else"},
		{"sdk/proto", nil, []string{"google.golang.org/grpc", "google.golang.org/protobuf"}, "generated from the one wire contract"},
		{"sdk/process", []string{"sdk", "sdk/proto"}, []string{"github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf"}, "it serves the contract over gRPC and knows nothing of the server"},
		{"engine/monitor", []string{"sdk"}, nil, "the nouns are a leaf that everything else can share"},
		{"engine/netpolicy", nil, nil, "what may be dialled is decided by one leaf"},
		{"engine/schema", []string{"sdk", "engine/monitor"}, []string{"github.com/santhosh-tekuri/jsonschema"}, "configurations are held to other people's schemas in one leaf"},
		{
			"engine/check",
			[]string{"sdk", "engine/monitor", "engine/netpolicy", "engine/schema"},
			[]string{
				"github.com/expr-lang/expr", "github.com/invopop/jsonschema", "github.com/santhosh-tekuri/jsonschema",
				"github.com/miekg/dns", "golang.org/x/net", "golang.org/x/sys",
			},
			"a check knows its protocol and neither who asks nor who stores",
		},
		{
			"engine/alert",
			[]string{"sdk", "engine/monitor", "engine/netpolicy", "engine/schema"},
			[]string{
				"github.com/wneessen/go-mail", "github.com/goccy/go-yaml", "github.com/invopop/jsonschema",
				"github.com/santhosh-tekuri/jsonschema", "github.com/oklog/ulid", "golang.org/x/net",
			},
			"delivery knows its outbox as an interface, not the store",
		},
		{"engine", []string{"sdk", "engine/*"}, []string{"github.com/oklog/ulid", "golang.org/x/sync"}, "the engine states the interfaces it needs; internal/app hands them in"},
		{"store/storetest", []string{"sdk", "engine", "engine/*", "store"}, []string{"github.com/google/go-cmp", "github.com/oklog/ulid"}, "the conformance suite runs what the engine states"},
		{
			"store/*",
			[]string{"sdk", "engine/monitor", "store/*"},
			[]string{"github.com/uptrace/bun", "modernc.org/sqlite", "github.com/oklog/ulid", "golang.org/x/sync"},
			"the store knows the nouns, not who uses it",
		},
		{"host/reach", []string{"sdk", "engine/netpolicy"}, []string{"golang.org/x/net"}, "what a plugin may reach is decided by one leaf, which opens nothing"},
		{"host/broker", []string{"sdk", "engine/netpolicy", "host/reach"}, []string{"github.com/miekg/dns", "golang.org/x/sys"}, "it makes connections for whoever holds a grant and knows no plugin"},
		{"host/confine", nil, []string{"github.com/landlock-lsm/go-landlock", "github.com/elastic/go-seccomp-bpf", "golang.org/x/sys"}, "the second wall knows nothing of what it surrounds"},
		{"host/wasm", []string{"sdk"}, []string{"github.com/tetratelabs/wazero", "golang.org/x/sys"}, "the sandbox serves the contract and nothing else"},
		{"host/wasm/netfs", []string{"sdk", "host/reach", "host/broker"}, []string{"github.com/tetratelabs/wazero"}, "the network as files, over connections that the server made"},
		{"host/wasm/script", []string{"sdk", "host/wasm"}, []string{"github.com/tetratelabs/wazero"}, "the script engine is one more guest"},
		{"host/wasm/runner", []string{"sdk", "sdk/proto", "sdk/process", "host/broker", "host/confine", "host/reach", "host/wasm", "host/wasm/*"}, []string{"golang.org/x/sys"}, "the runner's process puts the sandbox together"},
		{"host/process", []string{"sdk", "sdk/proto", "sdk/process"}, []string{"github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf", "golang.org/x/sys"}, "only the host of process plugins knows go-plugin"},
		{
			"host",
			[]string{"sdk", "sdk/proto", "sdk/process", "engine/monitor", "engine/netpolicy", "engine/schema", "host/*"},
			[]string{"github.com/goccy/go-yaml", "github.com/santhosh-tekuri/jsonschema", "golang.org/x/sys"},
			"plugins give checkers and notifiers and know no engine",
		},
		{"internal/config", []string{"sdk", "engine/monitor"}, []string{"github.com/goccy/go-yaml"}, "settings are values; they wire nothing"},
		{"internal/seal", nil, []string{"golang.org/x/crypto"}, "sealing is a leaf"},
		{"internal/logs", []string{"sdk", "engine/monitor"}, nil, "the log knows only its own lines"},
		{"internal/service", []string{"sdk", "engine", "engine/*", "internal/config"}, []string{"github.com/oklog/ulid"}, "rules exist here once; the store and plugins are interfaces to it"},
		{
			"internal/api",
			[]string{"sdk", "engine/monitor", "internal/service"},
			[]string{"github.com/gin-gonic/gin", "github.com/danielgtaylor/huma", "github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/oklog/ulid"},
			"a face calls the service, never the engine, the store or another face",
		},
		{
			"internal/cli",
			[]string{"sdk", "engine/check", "engine/monitor", "engine/netpolicy", "engine/schema", "host", "host/*"},
			[]string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term"},
			"the command line talks to the API over HTTP as anyone does; the server it starts is handed in",
		},
		{"internal/testkit/*", []string{"sdk", "engine/monitor", "internal/testkit/*"}, []string{"github.com/google/go-cmp"}, "shared test code stands below what it tests"},
		{"internal/app", []string{"…"}, []string{"golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys", "github.com/oklog/ulid"}, "it wires; what a library is for belongs to the package that it wires"},
		{"internal/archtest", nil, nil, "it looks at files, not at code"},
		{"internal/bench/*", []string{"…"}, []string{"…"}, ""},
		{"cmd/tocsin", []string{"internal/app", "internal/cli"}, nil, "main parses, handles signals and exits; nothing else"},
		{"plugins/*", []string{"sdk", "sdk/process"}, nil, "a first-party plugin has what everyone's plugin has"},
		{"examples/*", []string{"sdk", "sdk/process", "engine", "engine/*", "store"}, nil, "an example uses what is public"},
	}
}

// owners are the libraries that exactly these packages may import, whatever the table above says.
func owners() []rule {
	return []rule{
		{"github.com/tetratelabs/wazero", []string{"host/wasm/*"}, nil, "one runner of the sandbox"},
		{"github.com/hashicorp/go-plugin", []string{"host/process", "sdk/process"}, nil, "one side of process plugins each"},
		{"github.com/gin-gonic/gin", []string{"internal/api"}, nil, "one HTTP face"},
		{"github.com/danielgtaylor/huma", []string{"internal/api"}, nil, "one HTTP face"},
		{"github.com/uptrace/bun", []string{"store/*"}, nil, "SQL stays in the store"},
		{"modernc.org/sqlite", []string{"store/*"}, nil, "SQL stays in the store"},
		{"database/sql", []string{"store/*"}, nil, "SQL stays in the store"},
		{"github.com/spf13/cobra", []string{"internal/cli"}, nil, "one command line"},
		{"github.com/goccy/go-yaml", []string{"internal/config", "engine/alert", "host"}, nil, "YAML is for files that people write"},
		{"golang.org/x/crypto", []string{"internal/seal", "internal/service"}, nil, "secrets are handled in few places"},
	}
}

// matches reports whether path is pattern, or lies in its tree: "a/*" is a and all below it, "…" everything.
func matches(pattern, path string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path == tree || strings.HasPrefix(path, tree+"/")
	}
	return pattern == path || pattern == "…"
}

func anyMatches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

// hasPrefix reports whether an import path is of the library, whatever its major version.
func hasPrefix(libs []string, path string) bool {
	return slices.ContainsFunc(libs, func(lib string) bool { return lib == "…" || path == lib || strings.HasPrefix(path, lib+"/") })
}

type goPackage struct {
	ImportPath string
	Name       string
	Dir        string
	Imports    []string
	Doc        string
	GoFiles    []string
}

// inModule returns the path relative to the module, and whether it is of it; the module itself is ".".
func inModule(path string) (string, bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Name,Dir,Imports,Doc,GoFiles", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		pkg, _ := inModule(p.ImportPath)
		for _, breach := range breaches(pkg, p.Imports) {
			t.Error(breach)
		}
	}
}

// breaches lists what a package imports and may not, each with the reason.
func breaches(pkg string, imports []string) []string {
	all := rules()
	i := slices.IndexFunc(all, func(r rule) bool { return matches(r.pkg, pkg) })
	if i < 0 {
		return []string{pkg + " has no row in the import table; give it one, and a line in docs/architecture.md"}
	}
	r := all[i]
	var found []string
	for _, imp := range imports {
		for _, o := range owners() {
			if hasPrefix([]string{o.pkg}, imp) && !anyMatches(o.may, pkg) && !matches("internal/bench/*", pkg) {
				found = append(found, pkg+" imports "+imp+", which is for "+strings.Join(o.may, ", ")+" only: "+o.why)
			}
		}
		inside, ours := inModule(imp)
		switch {
		case ours && inside != pkg && !anyMatches(r.may, inside):
			found = append(found, pkg+" imports "+inside+": "+r.why)
		case !ours && strings.Contains(strings.Split(imp, "/")[0], ".") && !hasPrefix(r.libs, imp):
			found = append(found, pkg+" imports "+imp+", which is not on its list: "+r.why)
		}
	}
	return found
}

// TestTableBites keeps the table from passing because it matches nothing.
func TestTableBites(t *testing.T) {
	for _, tt := range []struct {
		pkg, imp string
		ok       bool
	}{
		{"engine", module + "/store", false},
		{"engine", module + "/engine/check", true},
		{"engine/check", module + "/engine", false},
		{"sdk", "github.com/oklog/ulid/v2", false},
		{"internal/api", module + "/store", false},
		{"internal/service", "github.com/gin-gonic/gin", false},
		{"internal/app", "github.com/gin-gonic/gin", false},
		{"internal/cli", module + "/internal/service", false},
		{"cmd/tocsin", module + "/store", false},
		{"store", "database/sql", true},
		{"engine", "database/sql", false},
		{"new/package", "fmt", false},
	} {
		if got := len(breaches(tt.pkg, []string{tt.imp})) == 0; got != tt.ok {
			t.Errorf("%s importing %s: allowed %v, want %v", tt.pkg, tt.imp, got, tt.ok)
		}
	}
}

func TestPackages(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains([]string{"types", "util", "utils", "common", "helpers", "helper", "manager", "misc", "base"}, p.Name) {
			t.Errorf("package %s: %q says nothing; name it for its idea", p.ImportPath, p.Name)
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("package %s has no package comment", p.ImportPath)
		}
	}
}

func TestTopLevel(t *testing.T) {
	may := []string{
		"cmd", "host", "plugins", "sdk", "engine", "store", "examples", "go.mod", "go.sum", "Makefile",
		"internal", "docs", "deploy", "scripts", ".ci", "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md",
		".golangci.yml", ".gitignore", ".gitattributes", ".editorconfig", ".dockerignore",
	}
	for _, name := range tracked(t) {
		if top, _, _ := strings.Cut(name, "/"); !slices.Contains(may, top) {
			t.Errorf("%s: the top level is fixed; put it below one of its folders", top)
		}
	}
}

// tracked lists the repository's files. It walks the folders rather than ask git, so that go's test cache sees what the
// answer depends on.
func tracked(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root(t), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "tocsin-data", "tocsin-demo"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(root(t), path)
		files = append(files, filepath.ToSlash(name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var (
	generatedLine = regexp.MustCompile(`^// Code generated .* DO NOT EDIT\.$`)
	sleep         = regexp.MustCompile(`^\s*time\.Sleep\(`)
	mutableGlobal = regexp.MustCompile(`^var [a-z][A-Za-z0-9]* += +(make\(|map\[|new\(|&|sync\.)`)
)

const maxLines = 600

func TestFiles(t *testing.T) {
	for _, name := range tracked(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		f, err := os.Open(filepath.Join(root(t), name))
		if errors.Is(err, os.ErrNotExist) { // deleted, not committed yet
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		isTest := strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "internal/testkit/")
		lines, generated, slept, bubble := 0, false, 0, false
		scan := bufio.NewScanner(f)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			lines++
			generated = generated || generatedLine.MatchString(scan.Text())
			bubble = bubble || strings.Contains(scan.Text(), `"testing/synctest"`)
			if slept == 0 && sleep.MatchString(scan.Text()) {
				slept = lines
			}
			if !isTest && mutableGlobal.MatchString(scan.Text()) {
				t.Errorf("%s:%d: a mutable package-level variable: two engines run in one process", name, lines)
			}
		}
		if err := errors.Join(scan.Err(), f.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if slept > 0 && !bubble {
			t.Errorf("%s:%d: wait for what you wait for; time passes by itself only in testing/synctest", name, slept)
		}
		if lines > maxLines && !isTest && !generated {
			t.Errorf("%s has %d lines, more than %d: is it one idea?", name, lines, maxLines)
		}
	}
}
