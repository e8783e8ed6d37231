package check

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

var update = flag.Bool("update", false, "write the generated files anew")

// TestDocs holds docs/checks.md to the registry. With -update it writes the file.
func TestDocs(t *testing.T) {
	t.Parallel()
	const path = "../../docs/checks.md"
	want := documentation(t, newRegistry(t))
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/checks.md is stale; run go test ./engine/check -run TestDocs -update (-want +got):\n%s", diff)
	}
}

const introduction = `# Checks

This file is generated from the code (` + "`go test ./engine/check -run TestDocs -update`" + `). Do not edit it.

A monitor has a **kind**, which says how it is checked, a **target**, which says what, and a **config**, which the kind defines.
An unknown setting, a wrong type or a value out of range is refused when the monitor is written, with all faults at once.

The result of a check is *up*, *degraded*, *down* or *unknown*. Down is what the target did. Unknown means that the check could not
be made, which is never the target's fault and never opens an outage: this machine has no file descriptors, ports, memory or network
buffers left, has no route to the target's network, does not permit the connection, or was suspended while the check waited; or the
resolver gave no answer (that a name does not exist is down).

## Expressions

Every kind takes two lists of expressions: ` + "`assert`" + `, of which one that is false makes the result down, and ` + "`degrade`" + `, of which one that is
false makes it degraded. They are looked at in their order, and only when the check itself found nothing wrong. The language is
[Expr](https://expr-lang.org/docs/language-definition), with these rules:

- Durations are written with their unit: ` + "`300ms`, `1.5s`, `1m30s`" + `.
- ` + "`and`, `or`, `not`, `==`, `!=`, `<`, `in`, `contains`, `startsWith`, `endsWith`, `matches`, `? :`, `??`" + ` and arithmetic can be used. The right side
  of ` + "`matches`" + ` is a regular expression (RE2) in quotes. A range can stand after ` + "`in`" + `: ` + "`status in 200..299`" + `.
- Lists are looked through with ` + "`all`, `any`, `none`, `one`, `filter`, `map`, `find`, `count` and `sum`" + `; ` + "`#`" + ` is the entry: ` + "`any(json.items, .id == 7)`" + `.
  Inside, only the entry and single values can be used. Other functions: ` + "`len type abs ceil floor round int float string trim upper lower split indexOf hasPrefix hasSuffix max min mean median fromJSON now duration date first last get keys values`" + `.
- There are no assignments, and texts cannot be joined: an expression tests, it does not build.
- An expression that cannot be evaluated, because a field is missing for example, is false, and the message says why. ` + "`json.a?.b ?? 0`" + ` allows for missing fields.
- The message of a result shows the values that the expression looked at, each cut to 100 characters, without the config's secrets.

`

func documentation(t *testing.T, r *Registry) []byte {
	t.Helper()
	var out bytes.Buffer
	out.WriteString(introduction)
	for _, k := range r.Kinds() {
		fmt.Fprintf(&out, "## %s\n\n%s\n\nTarget: for example `%s`\n\n", k.Name, k.Doc, k.Target)
		out.WriteString("| setting | type | default | what it does |\n|---|---|---|---|\n")
		settings(&out, "", fieldsOf(reflect.TypeOf(k.Config)), reflect.ValueOf(k.Config))
		out.WriteString("\n| variable | type | what it is | example |\n|---|---|---|---|\n")
		for _, v := range k.Variables() {
			fmt.Fprintf(&out, "| `%s` | %s | %s | `%s` |\n", v.Name, v.Type, cell(v.Doc), cell(v.Example))
		}
		out.WriteString("\n")
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

func settings(out *bytes.Buffer, path string, fields []field, defaults reflect.Value) {
	for _, f := range fields {
		value := ""
		if defaults.IsValid() {
			if shown := defaultText(defaults.FieldByIndex(f.index)); shown != nil {
				value = "`" + quoted(shown) + "`"
			}
		}
		doc := f.doc
		if f.example != "" {
			doc += " Example: `" + strings.Trim(fmt.Sprintf("%q", f.example), `"`) + "`."
		}
		if f.secret {
			doc += " *Secret.*"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", join(path, f.name), typeText(&f), value, cell(doc))
		settings(out, join(path, f.name), f.inner, reflect.Value{})
	}
}

func typeText(f *field) string {
	switch {
	case f.typ == typeFor[monitor.Duration]():
		return "duration, " + f.min + " to " + f.max
	case f.typ.Kind() == reflect.Int:
		return "number, " + f.min + " to " + f.max
	case f.typ.Kind() == reflect.Bool:
		return "true or false"
	case f.typ.Kind() == reflect.Map:
		return "object of texts"
	case f.typ == typeFor[[]string]():
		return "list of texts"
	case f.typ.Kind() == reflect.Slice:
		return "any JSON"
	case f.typ.Kind() == reflect.Pointer:
		return "object"
	case f.enum != nil:
		return "one of the texts named"
	}
	return "text"
}

// cell makes a text fit for a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
