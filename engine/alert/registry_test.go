package alert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tocsinhq/tocsin/sdk"
)

func TestRegistry(t *testing.T) {
	t.Parallel()
	r := registry(t, Options{})
	var names []string
	for _, p := range r.Providers() {
		names = append(names, p.Name)
		if p.Doc == "" || !strings.HasSuffix(p.Doc, ".") {
			t.Errorf("%s: doc %q is no sentence", p.Name, p.Doc)
		}
		for _, f := range p.Fields {
			if f.Doc == "" || !strings.HasSuffix(f.Doc, ".") {
				t.Errorf("%s.%s: doc %q is no sentence", p.Name, f.Name, f.Doc)
			}
			if f.Default == nil && f.Required && f.Example == nil {
				t.Errorf("%s.%s: a required field without example", p.Name, f.Name)
			}
		}
		if got, ok := r.Provider(p.Name); !ok || got.Name != p.Name {
			t.Errorf("Provider(%s) finds nothing", p.Name)
		}
	}
	want := []string{"discord", "email", "gotify", "ntfy", "pagerduty", "slack", "telegram", "webhook"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("providers (-want +got):\n%s", diff)
	}
	_, err := r.New("carrier-pigeon", nil)
	if got := faultsOf(t, err); got != "provider: unknown provider; known are "+strings.Join(want, ", ")+" (got carrier-pigeon)" {
		t.Errorf("unknown provider: %s", got)
	}
	if _, err := NewRegistry(Options{Extra: []Provider{{Name: "slack"}}}); err == nil || !strings.Contains(err.Error(), "slack is defined twice") {
		t.Errorf("a taken name: %v", err)
	}
}

// example returns a configuration with the example, else the default, of every field.
func example(p Provider, only func(Field) bool) map[string]any {
	config := map[string]any{}
	for _, f := range p.Fields {
		if !only(f) {
			continue
		}
		if f.Example != nil {
			config[f.Name] = f.Example
		} else if f.Default != nil {
			config[f.Name] = f.Default
		}
	}
	return config
}

// TestSchemas sees to it that every schema compiles and that schema and decoding agree about the examples.
func TestSchemas(t *testing.T) {
	t.Parallel()
	for _, p := range registry(t, Options{}).Providers() {
		compiler := jsonschema.NewCompiler()
		compiler.DefaultDraft(jsonschema.Draft2020)
		compiler.AssertFormat()
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(p.Schema()))
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		if err := compiler.AddResource("p.json", doc); err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		schema, err := compiler.Compile("p.json")
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		both := func(config map[string]any, want bool) {
			t.Helper()
			data := encode(config)
			instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); (err == nil) != want {
				t.Errorf("%s: schema on %s: %v", p.Name, data, err)
			}
			if _, err := p.New(data); (err == nil) != want {
				t.Errorf("%s: New on %s: %v", p.Name, data, err)
			}
		}
		paired := func(f Field) bool { return f.Name != "username" && f.Name != "password" }
		both(example(p, paired), true)
		required := example(p, func(f Field) bool { return f.Required })
		both(required, true)
		for _, f := range p.Fields {
			if !f.Required {
				continue
			}
			without := example(p, func(g Field) bool { return g.Required && g.Name != f.Name })
			both(without, f.Default != nil)
		}
		required["surprise"] = 1
		both(required, false)

		var shown struct {
			Properties map[string]struct {
				Description string
				Default     any
				WriteOnly   bool
			}
		}
		if err := json.Unmarshal(p.Schema(), &shown); err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Fields {
			s := shown.Properties[f.Name]
			if s.Description != f.Doc || s.WriteOnly != f.Secret || (s.Default == nil) != (f.Default == nil) {
				t.Errorf("%s.%s: schema has %+v", p.Name, f.Name, s)
			}
		}
		golden(t, "schemas/"+p.Name+".json", indent(t, p.Schema()))
	}
}

func indent(t *testing.T, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

// TestFaults walks bad configurations: every fault at once, and no secret in any.
func TestFaults(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxValue+1)
	tests := []struct{ provider, config, want string }{
		{"webhook", `null`, "config: must be an object"},
		{"webhook", `[]`, "config: must be an object"},
		{"webhook", `{`, "config: broken JSON"},
		{"webhook", `{"url":}`, "config: broken JSON"},
		{"webhook", `{} {}`, "config: must be one object"},
		{"webhook", "{\"url\":\"http://h/\xff\"}", "config: must be valid UTF-8"},
		{"webhook", ``, "config.url: is required"},
		{"webhook", `{"url":null}`, "config.url: is required"},
		{"webhook", `{"url":""}`, "config.url: is required"},
		{"webhook", `{"URL":"http://h/"}`, "config.URL: unknown field; known are url, method, headers, signing_secret\nconfig.url: is required"},
		{"webhook", `{"url":"http://h/","url":"http://i/"}`, "config.url: must not appear twice"},
		{"webhook", `{"url":7}`, "config.url: must be a text in quotes"},
		{"webhook", `{"url":"SECRET"}`, "config.url: must be an address such as https://host/path"},
		{"webhook", `{"url":"ftp://h/SECRET"}`, "config.url: must be an address such as https://host/path"},
		{"webhook", `{"url":"http://"}`, "config.url: must be an address such as https://host/path"},
		{"webhook", `{"url":"http://u:SECRET@h/"}`, "config.url: must not contain a user name or password"},
		{"webhook", `{"url":"http://h/#SECRET"}`, "config.url: must not contain a fragment (#)"},
		{"webhook", `{"url":"http://h:0/"}`, "config.url: must have a port between 1 and 65535"},
		{"webhook", `{"url":"http://h:65536/"}`, "config.url: must have a port between 1 and 65535"},
		{"webhook", `{"url":"http://h/\u0000SECRET"}`, "config.url: must not contain control characters"},
		{"webhook", `{"url":"http://h/` + long + `"}`, "config.url: must be at most 4096 bytes"},
		{"webhook", `{"url":"http://h/","method":"GET"}`, "config.method: must be one of POST, PUT, PATCH (got GET)"},
		{
			"webhook", `{"url":"http://h/","headers":{"X A":"v","X-B":"a\r\nb","Content-Length":"3","X-C":1,"X-D":"SECRET","x-d":"e"}}`,
			"config.headers.X A: must be a header name: letters, digits and hyphens\n" +
				"config.headers.X-B: must be one line without control characters, of at most 4096 bytes\n" +
				"config.headers.Content-Length: is set by Tocsin\nconfig.headers.X-C: must be a text in quotes\n" +
				"config.headers.x-d: must not appear twice",
		},
		{"webhook", `{"url":"http://h/","headers":["SECRET"]}`, "config.headers: must be an object of header names and texts"},
		{
			"email", `{"host":"a b","port":65536,"tls":"maybe","username":"u","from":"nobody","to":["a@b.example","x"],"more":1}`,
			"config.port: must be between 1 and 65535 (got 65536)\nconfig.tls: must be one of starttls, implicit, none (got maybe)\n" +
				"config.from: must be a mail address (got nobody)\nconfig.to[1]: must be a mail address (got x)\n" +
				"config.more: unknown field; known are host, port, tls, username, password, from, to",
		},
		{"email", `{"host":"a b","from":"a@b.example","to":["a@b.example"],"username":"u"}`, "config.host: must be a host name or an address without port (got a b)\nconfig.password: username and password belong together: set both or neither"},
		{"email", `{"host":"h:25","from":"a@b.example","to":[],"port":"25"}`, "config.port: must be a whole number between 1 and 65535\nconfig.to: is required"},
		{"email", `{"host":"169.254.169.254","from":"a@b.example","to":["a@b.example"],"port":25}`, "config.host: address not allowed: 169.254.169.254 is a link-local address; allow it with checks.allow_addresses (got 169.254.169.254)"},
		{"email", `{"host":"h","from":"a@b.example","to":"a@b.example","port":1.5}`, "config.to: must be a list of texts\nconfig.port: must be a whole number between 1 and 65535"},
		{"email", `{"host":"h","from":"a@b.example","to":[` + strings.Repeat(`"a@b.example",`, 50) + `"a@b.example"]}`, "config.to: must have at most 50 entries (got 51)"},
		{"ntfy", `{"topic":"a/b","url":"https://h/?q=1"}`, "config.topic: must match ^[-_A-Za-z0-9]{1,64}$ (got a/b)\nconfig.url: must not contain a query (?) (got https://h/?q=1)"},
		{"telegram", `{"token":"../SECRET","chat_id":-1001,"thread_id":0,"silent":"no"}`, "config.token: must match ^[0-9]+:[-_A-Za-z0-9]+$\nconfig.chat_id: must be a text in quotes\nconfig.thread_id: must be between 1 and 9007199254740991 (got 0)\nconfig.silent: must be true or false"},
		{"pagerduty", `{"routing_key":"SECRET"}`, "config.routing_key: must match ^[A-Za-z0-9]{32}$"},
		{"gotify", `{}`, "config.url: is required\nconfig.token: is required"},
	}
	r := registry(t, Options{})
	for _, tt := range tests {
		n, err := r.New(tt.provider, json.RawMessage(tt.config))
		if err == nil || n != nil {
			t.Errorf("%s %.80s: no error", tt.provider, tt.config)
			continue
		}
		got := faultsOf(t, err)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s %.80s (-want +got):\n%s", tt.provider, tt.config, diff)
		}
		if strings.Contains(got, "SECRET") {
			t.Errorf("%s: a secret in %s", tt.provider, got)
		}
	}
}

// FuzzConfig sees to it that no configuration panics, and that what is refused has faults below "config".
func FuzzConfig(f *testing.F) {
	r, err := NewRegistry(Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i, d := range dialogues() {
		f.Add(i, strings.ReplaceAll(d.config, "URL", "https://h.example"))
	}
	f.Add(1, `{"host":"h","from":"a@b.example","to":["a@b.example"],"port":25}`)
	f.Fuzz(func(t *testing.T, which int, config string) {
		all := r.Providers()
		p := all[((which%len(all))+len(all))%len(all)]
		n, err := p.New(json.RawMessage(config))
		if (n == nil) == (err == nil) {
			t.Fatalf("notifier %v, error %v", n, err)
		}
		if err != nil {
			for line := range strings.SplitSeq(faultsOf(t, err), "\n") {
				if !strings.HasPrefix(line, "config") {
					t.Fatalf("fault %q", line)
				}
			}
		}
	})
}

// TestProvidersDocumentation keeps docs/providers.md true.
func TestProvidersDocumentation(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(docsHead)
	for _, p := range registry(t, Options{}).Providers() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", p.Name, p.Doc)
		if p.Link != "" {
			fmt.Fprintf(&b, "See <%s>.\n", p.Link)
		}
		b.WriteString("\n| field | type | default | what it is |\n|---|---|---|---|\n")
		for _, f := range p.Fields {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, typeWords(f), defaultWords(f), strings.ReplaceAll(f.Doc, "|", `\|`))
		}
		body := object{}
		body.add("name", "ops")
		body.add("provider", p.Name)
		config := example(p, func(f Field) bool { return f.Required })
		members := object{}
		for _, f := range p.Fields {
			if v, ok := config[f.Name]; ok {
				members.add(f.Name, v)
			}
		}
		body.add("config", members)
		fmt.Fprintf(&b, "\n```json\n%s```\n", indent(t, encode(body)))
	}
	b.WriteString(docsTail)
	for _, p := range placeholders() {
		doc := p.doc
		if p.outside {
			doc = strings.TrimSpace(doc + " *")
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", p.name, doc)
	}
	b.WriteString("| `config.NAME` | the value of a field |\n| `table.NAME` | the value that the table has for the transition |\n\n" +
		"\\* comes from what is monitored or from a monitor's author: it is escaped and cut as the file says, and is not allowed in\naddresses and headers.\n")
	compareFile(t, "../../docs/providers.md", b.String())
}

func typeWords(f Field) string {
	words := map[Type]string{
		TypeText: "text", TypeURL: "address", TypeBaseURL: "address", TypeAddress: "mail address", TypeBoolean: "true or false",
		TypeList: "list of mail addresses", TypeHeaders: "object of texts",
	}[f.Type]
	switch f.Type {
	case TypeInteger:
		words = fmt.Sprintf("number from %d to %d", f.Min, f.Max)
	case TypeChoice:
		words = strings.Join(f.Choices, ", ")
	}
	if f.Secret {
		words += "; secret"
	}
	return words
}

func defaultWords(f Field) string {
	switch {
	case f.Default != nil:
		return fmt.Sprintf("`%v`", f.Default)
	case f.Required:
		return "required"
	}
	return ""
}

const docsHead = `# Providers

<!-- Generated from the providers themselves by go test ./engine/alert -update. Do not edit. -->

A channel is a provider with a configuration. ` + "`POST /api/v1/channels`" + ` makes one; ` + "`tocsin channel test NAME`" + ` sends a test through it.
Fields that are secret are never shown again and never appear in errors or logs.

**When a delivery fails.** One attempt has 30 seconds. A connection that fails, a time-out, a certificate that is not trusted, a redirect
(never followed), and the answers 408, 425, 429 and 5xx are tried again: after 5 seconds, then after twice as long each time up to an
hour, 20 % more or less, until 24 hours after the event. A Retry-After (seconds or a date, at most an hour) is kept by the whole channel.
Any other 4xx answer is final, and so is a 5xx reply of a mail server. Delivery is at least once: a receiver can see an event twice, with
the same id, when the answer was lost. The error of a 4xx answer quotes up to 200 characters of it when it is plain text or JSON; secrets of
the channel are masked in it.

**Order.** For one channel and one monitor, notifications arrive in order. A channel has at most 4 attempts under way, and 1 while it is
failing, so that one that hangs delays no other.

**Channels that change.** What is still pending for a channel is given up when the channel is removed, or was disabled when its turn came.
It waits when the configuration is faulty or its provider is not there, and is tried again at least every 5 minutes.
`

const docsTail = `
## Providers as data

Every provider but ` + "`email`" + ` and ` + "`webhook`" + ` is one file in [engine/alert/providers](../engine/alert/providers): fields, requests, and what
counts as success. A new one needs such a file and the golden requests of its test, no code. The texts of a request may hold placeholders
such as ` + "`{{monitor.name}}`" + `. They have no logic. A value becomes part of a JSON text that has already been parsed, or is percent-encoded in an
address, so that nothing in it can change the request's form. What consists of nothing but a value that is absent is left out.

A request is made for the transitions in ` + "`on`" + `, for all of them without it; ` + "`ended`" + ` stands for every notification that tells of an
incident's end. ` + "`tables`" + ` give a value for each transition. ` + "`escape`" + ` replaces characters, and ` + "`cut`" + ` limits the characters, of values
from outside.

| placeholder | value |
|---|---|
`

// TestGuard sees to it that marks survive the masking.
func TestGuard(t *testing.T) {
	t.Parallel()
	secret := "s3cr3t/with space\"quote"
	g := &guarded{provider: "p", secrets: secretTexts(
		[]Field{{Name: "k", Type: TypeText, Secret: true}, {Name: "h", Type: TypeHeaders, Secret: true}, {Name: "open", Type: TypeText}},
		Values{"k": secret, "h": map[string]string{"A": "header-value"}, "open": "not-secret"},
	)}
	said := fmt.Errorf("%s %s %s header-value not-secret", secret, "s3cr3t%2Fwith%20space%22quote", `s3cr3t/with space\"quote`)
	g.next = answerWith(sdk.Permanent(said))
	err := g.Notify(t.Context(), sdk.Notification{})
	if got := err.Error(); got != "•••• •••• •••• •••• not-secret" || !sdk.IsPermanent(err) {
		t.Errorf("%q, permanent %v", got, sdk.IsPermanent(err))
	}
	g.next = answerWith(sdk.RetryAfter(said, 7))
	if err := g.Notify(t.Context(), sdk.Notification{}); sdk.RetryDelay(err) != 7 || sdk.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}
