package alert

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tocsinhq/tocsin/sdk"
)

// FuzzTemplate sees to it that parsing never panics, keeps the text, and reads what it wrote.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"", "a", "{{a}}", "x {{a.b_c}} y", "{{", "}}", "{{}}", "{{{a}}}", "{{a}}}}", "{{a.}}", "{{A}}", "{{ a }}", "{{a{{b}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseTemplate(text)
		if err != nil {
			return
		}
		if parsed.String() != text {
			t.Fatalf("%q became %q", text, parsed.String())
		}
		for _, name := range parsed.names() {
			if !placeholderName(name) {
				t.Fatalf("name %q", name)
			}
		}
	})
}

func TestTemplateFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{{a": "{{ without }}", "a}}": "}} without {{", "{{a}} }}": "}} without {{", "{{}}": `placeholder "" is no name`,
		"{{ a }}": `placeholder " a " is no name`, "{{if x}}": "is no name", "{{a.}}": "is no name", "{{{a}}}": "is no name",
	} {
		if _, err := parseTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseTemplate(%q) = %v, want %q", text, err, want)
		}
	}
}

// everything is a body with every placeholder that gives a text.
func everything(t interface{ Fatal(...any) }) *dataProvider {
	var b strings.Builder
	b.WriteString("name: all\ndoc: Is for tests.\nfields:\n  - {name: url, type: url, required: true, doc: Is there.}\n" +
		"tables:\n  t: {down: 1, up: two, degraded: true, unknown: 4, expiring: 5, test: 6}\n" +
		"requests:\n  - url: \"{{config.url}}\"\n    body:\n      table: \"{{table.t}}\"\n      list: [a, 1, true, null, 1.5, {}]\n")
	for _, p := range placeholders() {
		b.WriteString("      \"" + p.name + "\": \"{{" + p.name + "}}\"\n      \"in " + p.name + "\": 'say \"{{" + p.name + "}}\" {{" + p.name + "}}'\n")
	}
	d, err := parseProvider("providers/all.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkBody expands every placeholder with the value in each place from outside, and holds the body to be JSON that decodes to
// those very values.
func checkBody(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, d *dataProvider, value string,
) {
	n := sample(sdk.WentDown)
	n.Monitor.Name, n.Monitor.Kind, n.Monitor.Target = value, value, value
	n.Result.Message, n.Text, n.URL, n.ID = value, value, value, value
	n.Incident.ID = value
	body, ok := d.requests[0].body.expand(&message{n: n, config: Values{"url": "https://h/"}, tables: d.tables})
	if !ok {
		t.Fatal("no body")
	}
	data := encode(body)
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatalf("%q gives broken JSON %s: %v", value, data, err)
	}
	want := strings.ToValidUTF8(value, "\uFFFD")
	for _, name := range []string{"monitor.name", "monitor.kind", "monitor.target", "result.message", "text", "url", "event.id", "key"} {
		alone, there := got[name]
		inside := got["in "+name]
		if name == "key" && value == "" {
			continue // falls back to the monitor's id
		}
		if inside != `say "`+want+`" `+want {
			t.Fatalf("%s inside a text: %q, want %q", name, inside, want)
		}
		if there && alone != want || !there && want != "" {
			t.Fatalf("%s: %q, want %q", name, alone, want)
		}
	}
	if len(got) > 2+2*len(placeholders()) {
		t.Fatalf("members were injected: %s", data)
	}
}

func TestBodiesStayJSON(t *testing.T) {
	t.Parallel()
	d := everything(t)
	for _, value := range []string{
		"", `"`, `\`, `\"`, "\n", "\x00\x01\x1f\x7f", "{{monitor.name}}", "{{", "}}", `","x":"y`, "\u2028\u2029", "\xff\xfe", "😀", "</script>",
	} {
		checkBody(t, d, value)
	}
	rapid.Check(t, func(t *rapid.T) { checkBody(t, d, rapid.String().Draw(t, "value")) })
}

func FuzzBody(f *testing.F) {
	d := everything(f)
	f.Add(`"{{x}}\`)
	f.Fuzz(func(t *testing.T, value string) { checkBody(t, d, value) })
}

type pairs map[string]string

func (p pairs) value(name string) (any, bool) { v, ok := p[name]; return v, ok }

// TestURLs sees to it that a value cannot leave its place in an address.
func TestURLs(t *testing.T) {
	t.Parallel()
	parsed, err := parseTemplate("{{base}}/bot{{a}}/{{b}}/send?x={{c}}&y=1")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		segment := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"..", ".", "a/b", "?x=1", "#f", "%2e%2e", "@evil", "\\", "%"}))
		v := pairs{"base": "https://h.example/base", "a": segment.Draw(t, "a"), "b": segment.Draw(t, "b"), "c": segment.Draw(t, "c")}
		u, err := url.Parse(parsed.url(v))
		if err != nil {
			t.Fatalf("broken address %q: %v", parsed.url(v), err)
		}
		if u.Host != "h.example" || u.Fragment != "" || u.Path != "/base/bot"+v["a"]+"/"+v["b"]+"/send" {
			t.Fatalf("address %q", u)
		}
		if parts := strings.Split(u.EscapedPath(), "/"); len(parts) != 5 || parts[3] == ".." || parts[3] == "." {
			t.Fatalf("path %q", u.EscapedPath())
		}
		q, err := url.ParseQuery(u.RawQuery)
		if err != nil || len(q) != 2 || q.Get("x") != v["c"] {
			t.Fatalf("query %q: %v", u.RawQuery, err)
		}
	})
}

// TestProviderFileFaults holds the exact text for broken provider files in testdata/bad: each begins with the file and line.
func TestProviderFileFaults(t *testing.T) {
	t.Parallel()
	const good = `name: x
doc: Is for tests.
fields:
  - {name: url, type: base_url, required: true, doc: The address.}
requests:
  - url: "{{config.url}}/a"
    body: {text: "{{text}}"}
`
	tests := []struct{ name, text, want string }{
		{"good", good, ""},
		{"syntax", "name: [", "providers/x.yaml:1: sequence end token ']' not found"},
		{"unknown key", good + "surprise: 1\n", "providers/x.yaml:8: unknown field \"surprise\""},
		{"duplicate key", good + "doc: again\n", "providers/x.yaml:8: mapping key \"doc\" already defined at [2:1]"},
		{"wrong type", good + "cut: many\n", "providers/x.yaml:8: cannot unmarshal string into Go struct field fileForm.Cut of type int"},
		{"other name", strings.Replace(good, "name: x", "name: y", 1), `providers/x.yaml:1: name must be "x", as the file's`},
		{"unknown placeholder", strings.Replace(good, "{{text}}", "{{texts}}", 1), `providers/x.yaml:7: there is no placeholder "texts"`},
		{"unknown field", strings.Replace(good, "{{text}}", "{{config.txt}}", 1), `providers/x.yaml:7: there is no field "txt"`},
		{"unknown table", strings.Replace(good, "{{text}}", "{{table.t}}", 1), `providers/x.yaml:7: there is no table "t"`},
		{"braces", strings.Replace(good, "{{text}}", "{{text", 1), "providers/x.yaml:7: {{ without }}"},
		{"outside in the address", strings.Replace(good, "/a\"", "/{{monitor.name}}\"", 1), "providers/x.yaml:6: url must not contain {{monitor.name}}"},
		{"fixed address", strings.Replace(good, "{{config.url}}/a", "https://h/", 1), "providers/x.yaml:6: url must be a field of type url, or a field of type base_url and a path"},
		{"optional address", strings.Replace(good, "required: true, ", "", 1), "providers/x.yaml:6: url must be a field of type url, or a field of type base_url and a path"},
		{"field without doc", strings.Replace(good, ", doc: The address.", "", 1), "providers/x.yaml:4: field url has no doc"},
		{"field type", strings.Replace(good, "base_url", "blob", 1), "providers/x.yaml:4: field url: type \"blob\" is none of [text url base_url address integer boolean choice]\nproviders/x.yaml:6: url must be a field of type url, or a field of type base_url and a path"},
		{"default", strings.Replace(good, "required: true", "default: ftp://x", 1), "providers/x.yaml:4: field url: default: must be an address such as https://host/path"},
		{"pattern", strings.Replace(good, "requests:", "  - {name: p, doc: P., pattern: \"(\"}\nrequests:", 1), "providers/x.yaml:5: field p: pattern: error parsing regexp: missing closing ): `(`"},
		{"no request for some", strings.Replace(good, "  - url", "  - on: [down, up, test, ended]\n    url", 1), "providers/x.yaml:1: no request is made for degraded\nproviders/x.yaml:1: no request is made for unknown\nproviders/x.yaml:1: no request is made for expiring"},
		{"odd transition", strings.Replace(good, "  - url", "  - on: [gone]\n    url", 1), "providers/x.yaml:6: on: \"gone\" is neither a transition nor \"ended\"\n"},
		{"table with gaps", good + "tables:\n  t: {down: 1, up: 1, degraded: 1, unknown: 1, gone: 1}\n", "providers/x.yaml:9: table t: \"gone\" is no transition\n"},
		{"header", good + "    headers: {Content-Length: \"1\"}\n", `providers/x.yaml:8: header "Content-Length" is set by Tocsin or is no header name`},
		{"method", good + "    method: GET\n", "providers/x.yaml:8: method must be POST, PUT or PATCH"},
		{"no body", strings.Replace(good, "    body: {text: \"{{text}}\"}\n", "", 1), "providers/x.yaml:6: body is missing"},
		{"status", good + "success: {status: 200-404}\n", "providers/x.yaml:8: status must be a code from 200 to 299 or a range such as 200-204"},
	}
	for _, tt := range tests {
		_, err := loadProviders(fstest.MapFS{"providers/x.yaml": {Data: []byte(tt.text)}}, newPoster(Options{}))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if strings.HasSuffix(tt.want, "\n") && strings.HasPrefix(got, tt.want) {
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// FuzzProviderFile sees to it that no file panics and that every fault names the file.
func FuzzProviderFile(f *testing.F) {
	f.Add("name: x\ndoc: d\nfields:\n  - {name: u, type: url, required: true, doc: U.}\nrequests:\n  - url: \"{{config.u}}\"\n    body: {a: \"{{text}}\"}\n")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		if _, err := parseProvider("providers/x.yaml", []byte(text)); err != nil && !strings.HasPrefix(err.Error(), "providers/x.yaml:") {
			t.Fatalf("%v", err)
		}
	})
}
