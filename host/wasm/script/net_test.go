package script

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tocsinhq/tocsin/host/wasm"
)

func TestHTTP(t *testing.T) {
	var asked map[string]any
	n := &network{answer: func(request map[string]any) (any, *failure) {
		asked = request
		if request["url"] == "https://down.example.com/" {
			return nil, &failure{"read", "/net/http", "refused", "the connection to down.example.com:443 was refused"}
		}
		return map[string]any{"status": 204, "headers": map[string]any{"A": []string{"b"}}, "body": strings.Repeat("é", 50_000)}, nil
	}}
	for _, tt := range []struct {
		expression, want string
		asked            map[string]any
	}{
		{
			`tocsin.http({method: "POST", url: "https://a/", headers: {x: "y"}, body: "hé\ud800", follow: true}).status`, "204",
			map[string]any{"method": "POST", "url": "https://a/", "headers": map[string]any{"x": "y"}, "body": "hé\uFFFD", "follow": true},
		},
		{`tocsin.http("http://b").body.length`, "50000", map[string]any{"url": "http://b"}},
		{`(await tocsin.http("http://b")).headers`, `{"A":["b"]}`, map[string]any{"url": "http://b"}},
		{`tocsin.http({url: "u", body: new Uint8Array([0, 255, 16]).subarray(1)}).status`, "204", map[string]any{"url": "u", "body_base64": "/xA="}},
		{`tocsin.http({url: "u", body: new ArrayBuffer(0)}).status`, "204", map[string]any{"url": "u", "body_base64": ""}},
		{
			`(() => { try { tocsin.http("https://down.example.com/") } catch (e) { return [e instanceof tocsin.NetError, e instanceof Error, e.name, e.kind, e.op, e.path, e.message] } })()`,
			`[true,true,"NetError","refused","read","/net/http","the connection to down.example.com:443 was refused"]`, nil,
		},
		{
			`tocsin.http("https://down.example.com/")`,
			"error: check threw NetError: the connection to down.example.com:443 was refused (check.js:1:53)", nil,
		},
		{`tocsin.http(7)`, `error: check threw TypeError: tocsin.http needs an object such as {url: "https://example.com"}, got 7 (check.js:1:53)`, nil},
	} {
		asked = nil
		if got := evaluate(t, tt.expression, n); got != tt.want {
			t.Errorf("%s\ngot  %.300s\nwant %s", tt.expression, got, tt.want)
		}
		if d := cmp.Diff(tt.asked, asked); tt.asked != nil && d != "" {
			t.Errorf("%s\n%s", tt.expression, d)
		}
	}
	if n.open != 0 {
		t.Errorf("%d files are open", n.open)
	}
}

func TestFiles(t *testing.T) {
	const caught = `((f) => { try { return f() } catch (e) { return [e.name, e.kind, e.message].join() } })`
	for _, tt := range []struct{ expression, want string }{
		{`(() => { const f = tocsin.open("/net/tcp/echo:1"); f.write("hé\ud800!"); const b = f.read(); return [b instanceof Uint8Array, new TextDecoder().decode(b), f.read()] })()`, "[true,\"hé\uFFFD!\",null]"},
		{`(() => { const f = tocsin.open("/net/tcp/echo:1"); f.write("x".repeat(2500)); return [f.read(7).length, f.read().length, f.read()] })()`, `[7,2493,null]`},
		{`(() => { const f = tocsin.open("/net/tcp/echo:1"); f.write(new Uint8Array([104, 105, 106]).subarray(1)); return f.readText() })()`, `"ij"`},
		{`(() => { const f = tocsin.open("/net/tcp/echo:1"); f.write(new Uint16Array([0x6968]).buffer); f.write(new DataView(new ArrayBuffer(1))); return f.readText() })()`, `"hi\u0000"`},
		{`(() => { const t = tocsin.open("/net/dns/A/example.com").readText(); return [t.length, t.at(-1)] })()`, `[100001,"é"]`},
		{`tocsin.open("/net/../net//tcp/./echo:1").readText()`, `""`},
		{`(() => { const f = tocsin.open("/net/tcp/echo:1"); f.close(); f.close(); return ` + caught + `(() => f.read()) })()`, `"NetError,closed,the file is closed"`},
		{`(() => { const a = tocsin.open("/net/tcp/echo:1"); a.close(); const b = tocsin.open("/net/tcp/echo:2"); b.write("b"); return b.readText() })()`, `"b"`},
		{caught + `(() => tocsin.open("/net/tcp/no:1"))`, `"NetError,refused,nobody listens at tcp/no:1"`},
		{caught + `(() => tocsin.open("/net/tcp/echo:1").write("break"))`, `"NetError,closed,the other side broke the connection off"`},
		{caught + `(() => tocsin.open("/etc/passwd"))`, `"NetError,denied,there is nothing but the files below /net/"`},
		{caught + `(() => tocsin.open("/net/../etc/passwd"))`, `"NetError,denied,there is nothing but the files below /net/"`},
		{caught + `(() => tocsin.open("/net"))`, `"NetError,denied,there is nothing but the files below /net/"`},
		{caught + `(() => tocsin.open("net/tcp/echo:1"))`, `"NetError,denied,there is nothing but the files below /net/"`},
		{caught + `(() => tocsin.open())`, `"NetError,denied,there is nothing but the files below /net/"`},
		{caught + `(() => tocsin.open("/net/tcp/echo:1").write(7))`, `"TypeError,,expected a Uint8Array or an ArrayBuffer, got 7"`},
		{caught + `(() => { const all = []; for (;;) { try { all.push(tocsin.open("/net/tcp/echo:1")) } catch (e) { return all.length + e.kind } } })`, `"32busy"`},
	} {
		n := &network{}
		if got := evaluate(t, tt.expression, n); got != tt.want {
			t.Errorf("%s\ngot  %.300s\nwant %s", tt.expression, got, tt.want)
		}
		if n.open != 0 {
			t.Errorf("%s: %d files are open", tt.expression, n.open)
		}
	}
	if got := evaluate(t, caught+`(() => tocsin.open("/net/tcp/echo:1"))`, nil); got != `"NetError,denied,permission denied"` {
		t.Errorf("without a network: %s", got)
	}
}

// A file that a script forgets is closed when the call ends, and no later call finds it.
func TestForgottenFiles(t *testing.T) {
	m := open(t, `
		let kept = null;
		export const check = (r) => {
			const found = kept;
			kept = tocsin.open("/net/tcp/echo:1");
			kept.write("a");
			if (r.fails) throw new Error("no");
			return {found, text: kept.readText()};
		}`, wasm.Options{})
	n := &network{}
	for i := range 50 {
		want := `{"found":null,"text":"a"}`
		if i%5 == 0 {
			want = "error: check threw Error: no (check.js:7:27)"
		}
		if got, _ := call(m, fmt.Sprintf(`{"fails":%v}`, i%5 == 0), n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if n.open != 0 || len(n.opened) != 50 {
		t.Errorf("%d of %d files are open", n.open, len(n.opened))
	}
}

func TestText(t *testing.T) {
	for expression, want := range map[string]string{
		`[...new TextEncoder().encode("aé€😀")]`:                                                          "[97,195,169,226,130,172,240,159,152,128]",
		`[...new TextEncoder().encode("\ud800\udc00\udc00a\ud800")]`:                                     "[240,144,128,128,239,191,189,97,239,191,189]",
		`[...new TextEncoder().encode()]`:                                                                "[]",
		`new TextEncoder().encode("\0a").length`:                                                         "2",
		`new TextDecoder().decode(new Uint8Array([97, 0, 195, 169, 255, 98]))`:                           `"a\u0000é` + "\uFFFD" + `b"`,
		`new TextDecoder().decode(new Uint8Array([97, 98, 99, 100]).subarray(1,3))`:                      `"bc"`,
		`new TextDecoder().decode()`:                                                                     `""`,
		`new TextDecoder("UTF8").decode(new Uint8Array([239, 187, 191, 97]))`:                            `"a"`,
		`new TextDecoder("utf-8", {ignoreBOM: true}).decode(new Uint8Array([239, 187, 191, 97])).length`: "2",
		`new TextDecoder("utf-8", {fatal: true}).decode(new Uint8Array([255]))`:                          "error: check threw TypeError: the data is not UTF-8 (check.js:1:98)",
		`new TextDecoder("latin1")`:                                                                      "error: check threw RangeError: the encoding latin1 is not there; utf-8 is (check.js:1:51)",
		`(() => { const d = new TextDecoder(); let s = ""; for (const b of new TextEncoder().encode("aé€😀b")) s += d.decode(new Uint8Array([b]), {stream: true}); return s + d.decode() })()`: `"aé€😀b"`,
		`(() => { const d = new TextDecoder(); return [d.decode(new Uint8Array([226, 130]), {stream: true}), d.decode(new Uint8Array([97])), d.decode(new Uint8Array([98]))] })()`:            `["","` + "\uFFFD\uFFFD" + `a","b"]`,
		`atob(btoa("hi"))`: `"hi"`,
	} {
		if got := evaluate(t, expression, nil); got != want {
			t.Errorf("%s\ngot  %.300s\nwant %s", expression, got, want)
		}
	}
}

// The prelude leaves nothing behind but what it is meant to, and a script cannot break what others of its calls rely on.
func TestGlobals(t *testing.T) {
	got := evaluate(t, `Object.keys(globalThis)`, nil)
	if got != `["performance"]` { // the engine's own
		t.Errorf("globals that are found by looking: %s", got)
	}
	m := open(t, `
		JSON.parse = JSON.stringify = Array.isArray = Object.keys = () => { throw new Error("mine") };
		Array.prototype.map = Array.prototype.join = Promise.prototype.then = Function.prototype.call = () => { throw new Error("mine") };
		globalThis.Promise = globalThis.Error = globalThis.Uint8Array = undefined;
		try { tocsin.http = 1 } catch { /* it is frozen */ }
		export const check = async (r) => ({target: r.target, status: tocsin.http({url: "u"}).status});
	`, wasm.Options{})
	n := &network{answer: func(map[string]any) (any, *failure) { return map[string]any{"status": 200}, nil }}
	if got, _ := call(m, `{"target":"x"}`, n); got != `{"target":"x","status":200}` {
		t.Error(got)
	}
}

func FuzzWellFormed(f *testing.F) {
	f.Add([]byte("a\xed\xa0\x80\xed\xb0\x80b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := wellFormed(append([]byte(nil), b...)); len(got) != len(b) || json.Valid(append(append([]byte{'"'}, b...), '"')) && strings.ToValidUTF8(string(b), "") == string(b) && string(got) != string(b) {
			t.Errorf("%q became %q", b, got)
		}
	})
}
