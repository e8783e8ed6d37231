package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tocsinhq/tocsin/host/wasm"
)

func TestTheEngineNeedsNoFreshInstances(t *testing.T) {
	info, err := wasm.Inspect(Module(), wasm.Limits{Script: true})
	if err != nil || len(info.Fresh) > 0 || info.Command || len(info.Calls) > 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := wasm.Inspect(Module(), wasm.Limits{}); err == nil {
		t.Error("it passes for a plugin")
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct{ name, source, want string }{
		{"plain", `export function check(r) { return {status: "up", message: r.target + "é\u0000"} }`, `{"status":"up","message":"xé\u0000"}`},
		{"async", `export async function check(r) { await null; return {status: await r.target} }`, `{"status":"x"}`},
		{"a constant", `export const check = (r) => ({status: r.call})`, `{"status":"check"}`},
		{"another name", `function f() { return {a: this === undefined} } export { f as check }`, `{"a":true}`},
		{"a thenable", `export const check = () => ({then(f) { f({status: "up"}) }})`, `{"status":"up"}`},
		{"awaits while it is loaded", `const a = await Promise.resolve(5); export const check = () => ({a})`, `{"a":5}`},
		{"a byte order mark", "\uFEFFexport const check = () => ({})", `{}`},
		{"classes and the rest", `class A { #x = 1; get x() { return this.#x ?? 0 } } export const check = () => ({...new A(), x: new A().x, n: 2n ** 64n > 1, r: /(?<y>\d+)/.exec("a12").groups.y})`, `{"x":1,"n":true,"r":"12"}`},
		{"no finite number", `export const check = () => ({metrics: [{value: NaN}, {value: -1 / 0}, {value: 1e300}]})`, `{"metrics":[{"value":"NaN"},{"value":"-Infinity"},{"value":1e+300}]}`},
		{"UTC", `export const check = () => ({at: String(new Date(0)), off: new Date(2026, 6).getTimezoneOffset()})`, `{"at":"Thu Jan 01 1970 00:00:00 GMT+0000","off":0}`},

		{"throws", "export function check() {\n  throw new TypeError('bad\\nthing') }", "error: check threw TypeError: bad thing (check.js:2:13)"},
		{"rejects", "export async function check() {\n  await null; null.x }", "error: check threw TypeError: cannot read property 'x' of null (check.js:2:15)"},
		{"throws no error", `export function check() { throw {a: 1} }`, `error: check threw {"a":1}`},
		{"throws nothing", `export function check() { throw undefined }`, `error: check threw undefined`},
		{"throws what throws", `export function check() { throw {toString() { throw 1 }, toJSON() { throw 2 }} }`, `error: check threw an object`},
		{"throws what hides", `export function check() { throw Object.defineProperty(new Error, "message", {get() { throw 1 }}) }`, `error: check threw what cannot be described`},
		{"returns nothing", `export function check() {}`, "error: check returned undefined, not an object"},
		{"returns a number", `export const check = () => 7`, "error: check returned 7, not an object"},
		{"returns a text", `export const check = () => "up"`, `error: check returned "up", not an object`},
		{"returns a list", `export const check = async () => []`, `error: check returned a list, not an object`},
		{"returns null", `export const check = () => null`, `error: check returned null, not an object`},
		{"returns a cycle", `export const check = () => { const a = {}; a.a = a; return a }`, `error: check threw TypeError: circular reference`},
		{"returns no JSON", `export const check = () => ({toJSON() {}})`, `error: check returned an object that has no JSON`},
		{"never ends", `export const check = () => new Promise(() => {})`, "error: check never finished: it awaits what nothing brings about"},

		{"recurses", "export function check() {\n  return check() }", "error: check threw RangeError: Maximum call stack size exceeded (check.js:2:10)"},
		{"nests", `export const check = () => JSON.parse("[".repeat(1e5))`, "error: check threw RangeError: Maximum call stack size exceeded (check.js:1:42)"},
		{"nests code", `export const check = () => eval("(".repeat(1e5))`, "error: check threw RangeError: Maximum call stack size exceeded (check.js:1:36)"},
		{"nests a list", `export const check = () => { let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return {a: String(a)} }`, "error: check threw RangeError: Maximum call stack size exceeded"},
		{"fills memory", `export const check = () => { for (const a = [];;) a.push(new Array(1e5).fill(1)) }`, "error: check threw InternalError: out of memory"},
		{"wants much", `export const check = () => new ArrayBuffer(2 ** 31 - 1)`, "error: check threw InternalError: out of memory"},
		{"a long text", `export const check = () => "x".repeat(2 ** 29)`, "error: check threw InternalError: out of memory"},
		{"imports late", `export const check = () => import("./x.js")`, `error: check threw Error: cannot import "./x.js": a script is one file; bundle what it needs into it`},
		{"catches all of it", `function f() { return f() } export const check = () => { try { f() } catch { return {status: "up"} } }`, `{"status":"up"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := open(t, tt.source, wasm.Options{})
			for range 2 {
				if got, _ := call(m, `{"target":"x","call":"check"}`, nil); !sameFault(got, tt.want) {
					t.Errorf("got  %.300s\nwant %s", got, tt.want)
				}
			}
		})
	}
}

// sameFault compares; where memory runs out, the place does not count.
func sameFault(got, want string) bool {
	return got == want || strings.HasSuffix(want, "out of memory") && strings.HasPrefix(got, want)
}

func TestFaultsOfLoading(t *testing.T) {
	for _, tt := range []struct{ name, source, want string }{
		{"syntax", "export function check() {\n  return {status: 'up' ;\n}", "check.js threw SyntaxError: Unexpected token ';' (check.js:2:24)"},
		{"throws", "\n\nundefinedThing();\nexport const check = 1", "check.js threw ReferenceError: undefinedThing is not defined (check.js:3:1)"},
		{"rejects", "await Promise.reject(new Error('no')); export const check = () => {}", "check.js threw Error: no (check.js:1:26)"},
		{"waits", "await new Promise(() => {}); export const check = () => {}", "check.js never finished loading: it awaits what nothing brings about"},
		{"imports", "import { x } from './x.js'; export const check = () => {}", `check.js threw Error: cannot import "./x.js": a script is one file; bundle what it needs into it`},
		{"imports itself", "export { check } from './check.js'", `check.js threw Error: cannot import "./check.js": a script is one file; bundle what it needs into it`},
		{"exports nothing", "function check() {}", "check.js exports neither check nor notify"},
		{"exports a default", "export default { check() {} }", "check.js exports neither check nor notify"},
		{"exports no function", "export const check = {}", "check.js exports check, which is no function"},
		{"is empty", "", "check.js exports neither check nor notify"},
		{"is no text", "export const check = '\xff'", "check.js is not UTF-8 text"},
		{"uses the network", "tocsin.http('http://x'); export const check = () => {}", "check.js threw NetError: the network is there only while a call is made, not while the script is loaded (check.js:1:7)"},
		{"fills memory", "for (const a = [];;) a.push(new Uint8Array(1e5))", "check.js threw InternalError: out of memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := load(tt.source, wasm.Options{})
			if err == nil {
				m.Close(context.Background())
			}
			if want := "load the script: " + tt.want; err == nil || !sameFault(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// The least memory that a script can be given is told, and not found out by a crash.
func TestLittleMemory(t *testing.T) {
	var works []int64
	for kib := int64(1024); kib <= 4096; kib += 128 {
		m, err := load("export const check = () => ({})", wasm.Options{Limits: wasm.Limits{Memory: kib << 10}})
		if err != nil {
			if _, crashed := errors.AsType[*wasm.TrapError](err); crashed || len(works) > 0 {
				t.Errorf("%d KiB: %v", kib, err)
			}
			continue
		}
		works = append(works, kib)
		if got, _ := call(m, "{}", nil); got != "{}" {
			t.Errorf("%d KiB: %s", kib, got)
		}
		m.Close(context.Background())
	}
	if len(works) == 0 || works[0] > 2048 {
		t.Errorf("it works with %v KiB", works)
	}
}

func TestRequestThatDoesNotFit(t *testing.T) {
	m := open(t, "export const check = (r) => ({n: r.a.length})", wasm.Options{Limits: wasm.Limits{Memory: 4 << 20}})
	request := func(n int) string { return `{"a":"` + strings.Repeat("x", n) + `"}` }
	for n, want := range map[int]string{
		100: `{"n":100}`, 500_000: `{"n":500000}`, 2 << 20: "error: the script's memory is used up", 20 << 20: "error: the script's memory is used up",
	} {
		got, _ := call(m, request(n), nil)
		if n == 2<<20 && strings.HasPrefix(got, "error: check threw InternalError: out of memory") {
			got = want // it depends on which of the two copies does not fit
		}
		if got != want {
			t.Errorf("%d bytes: %s", n, got)
		}
	}
}

func TestNotify(t *testing.T) {
	m := open(t, `
		export async function notify(r) {
			if (r.notification.transition === "test") return {ok: true};
			return {error: {message: "no", permanent: true}};
		}`, wasm.Options{})
	if d := cmp.Diff([]string{"notify"}, m.Info().Calls); d != "" {
		t.Error(d)
	}
	for request, want := range map[string]string{
		`{"notification":{"transition":"test"}}`: `{"ok":true}`,
		`{"notification":{"transition":"down"}}`: `{"error":{"message":"no","permanent":true}}`,
	} {
		r, err := m.Call(context.Background(), wasm.Call{Name: "notify", Request: []byte(request)})
		if err != nil || string(r.Response) != want {
			t.Errorf("%s: %s, %v", request, r.Response, err)
		}
	}
	if _, err := m.Call(context.Background(), wasm.Call{Name: "check"}); !errors.Is(err, wasm.ErrNoCall) {
		t.Error(err)
	}
	both := open(t, "export const notify = () => ({}); export const check = notify", wasm.Options{})
	if d := cmp.Diff([]string{"check", "notify"}, both.Info().Calls); d != "" {
		t.Error(d)
	}
}

func TestLog(t *testing.T) {
	m := open(t, `
		tocsin.log("loading");
		export function check(r) {
			tocsin.log("plain", 1); tocsin.log("warn", "odd\nE! twice"); tocsin.log("debug", {a: [1]}, null);
			tocsin.log("error"); tocsin.log(5n, undefined, Symbol("s"), check);
			console.log("a", 1); console.info(new Error("e")); console.warn("w"); console.error("e"); console.debug("d");
			if (r.flood) console.log("x".repeat(100).concat("\n").repeat(10000));
			if (r.fails) null.x;
			return {};
		}`, wasm.Options{})
	if d := cmp.Diff([]wasm.LogLine{{Level: slog.LevelInfo, Text: "loading"}}, m.StartLog()); d != "" {
		t.Error(d)
	}
	want := []wasm.LogLine{
		{Level: slog.LevelInfo, Text: "plain 1"},
		{Level: slog.LevelWarn, Text: "odd"},
		{Level: slog.LevelWarn, Text: "E! twice"},
		{Level: slog.LevelDebug, Text: `{"a":[1]} null`},
		{Level: slog.LevelInfo, Text: "error"},
		{Level: slog.LevelInfo, Text: "5 undefined Symbol(s) function check"},
		{Level: slog.LevelInfo, Text: "a 1"},
		{Level: slog.LevelInfo, Text: "Error: e"},
		{Level: slog.LevelWarn, Text: "w"},
		{Level: slog.LevelError, Text: "e"},
		{Level: slog.LevelDebug, Text: "d"},
	}
	_, r := call(m, "{}", nil)
	if d := cmp.Diff(want, r.Log); d != "" {
		t.Error(d)
	}
	_, r = call(m, `{"fails":true}`, nil)
	want = append(want,
		wasm.LogLine{Level: slog.LevelError, Text: "check threw TypeError: cannot read property 'x' of null (check.js:8:17)"},
		wasm.LogLine{Level: slog.LevelError, Text: "at check (check.js:8:17)"})
	if d := cmp.Diff(want, r.Log); d != "" {
		t.Error(d)
	}
	if _, r = call(m, `{"flood":true}`, nil); !r.LogCut || len(r.Log) > 1000 {
		t.Errorf("%d lines, cut %v", len(r.Log), r.LogCut)
	}
}

// Scripts that try to remember something from one call to the next.
func TestCleanState(t *testing.T) {
	for name, body := range map[string]string{
		"a variable":      `let n = 0; export const check = () => ({n: n++})`,
		"a global":        `export const check = () => ({n: globalThis.n = (globalThis.n ?? -1) + 1})`,
		"a closure":       `const next = (() => { let n = 0; return () => n++ })(); export const check = async () => ({n: next()})`,
		"a prototype":     `export const check = () => { const n = [].n ?? 0; Array.prototype.n = n + 1; return {n} }`,
		"an intrinsic":    `const n0 = JSON.stringify; export const check = () => { const n = Number(JSON.parse !== JSON.parse.same && n0 !== JSON.stringify); JSON.stringify = () => "x"; return {n} }`,
		"a property":      `export const check = () => { const n = check.n ?? 0; check.n = n + 1; return {n} }`,
		"a symbol":        `export const check = () => { const s = Symbol.for("n"), n = Math[s] ?? 0; Math[s] = n + 1; return {n} }`,
		"a map":           `const m = new Map([["n", 0]]); export const check = () => { const n = m.get("n"); m.set("n", n + 1); return {n} }`,
		"an array buffer": `const b = new Uint8Array(1 << 20); export const check = () => { const n = b[b.length - 1]++; return {n} }`,
		"a promise":       `let done, n = 0; const p = new Promise((r) => { done = r }); p.then(() => { n++ }); export const check = async () => { const before = n; done(); await p; await null; return {n: before} }`,
		"a pending job":   `let n = 0; export const check = () => { Promise.resolve().then(() => { n++ }); return {n} }`,
		"a regexp":        `const r = /a/g; export const check = () => ({n: r.exec("aa").index})`,
		"a tagged text":   `const f = (s) => s; const s = () => f` + "`a`" + `; const w = new WeakMap; export const check = () => { const n = w.get(s()) ?? 0; w.set(s(), n + 1); return {n} }`,
		"the prelude":     `export const check = () => { const n = tocsin.open.n ?? tocsin.NetError.n ?? 0; tocsin.NetError.n = n + 1; return {n} }`,
		"memory":          `let a = []; export const check = () => { const n = a.length; a.push(new Uint8Array(6e6)); return {n} }`,
		"an error":        `let n = 0; export const check = (r) => { n++; if (r.fails) throw 1; return {n: n - 1} }`,
		"a stack":         `let n = 0; export const check = (r) => { n++; if (r.fails) { const f = () => f(); f() } return {n: n - 1} }`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, body, wasm.Options{Instances: 2})
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for i := range 40 {
						got, _ := call(m, fmt.Sprintf(`{"fails":%v}`, i%3 == 2), nil)
						if got != `{"n":0}` && (i%3 != 2 || !strings.HasPrefix(got, "error: check threw")) {
							t.Errorf("call %d: %s", i, got)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestRandomAndTime(t *testing.T) {
	m := open(t, `
		const early = Math.random();
		export const check = () => ({
			random: [Math.random(), Math.random()], bytes: [...crypto.getRandomValues(new Uint8Array(300))].join(),
			early, now: Date.now(), fine: performance.now(),
		})`, wasm.Options{})
	seen := map[string]int{}
	for range 20 {
		before := time.Now().UnixMilli()
		got, _ := call(m, "{}", nil)
		var now int64
		for part := range strings.SplitSeq(got, `,"`) {
			name, value, _ := strings.Cut(strings.TrimPrefix(part, `{"`), `":`)
			if name == "now" {
				now, _ = strconv.ParseInt(value, 10, 64)
			}
			seen[name+value]++
		}
		if now < before || now > time.Now().UnixMilli() {
			t.Errorf("now is %d", now)
		}
	}
	for what, n := range seen {
		if once := strings.HasPrefix(what, "random") || strings.HasPrefix(what, "bytes") || strings.HasPrefix(what, "fine"); once && n != 1 {
			t.Errorf("%.60s came %d times", what, n)
		}
	}
	sum := evaluate(t, `(() => { let s = 0; for (let i = 0; i < 1e4; i++) { const r = Math.random(); if (r < 0 || r >= 1) throw r; s += r } return s })()`, nil)
	if mean, err := strconv.ParseFloat(sum, 64); err != nil || mean < 4700 || mean > 5300 {
		t.Errorf("10,000 random numbers make %s", sum)
	}
}

// What a shared instance keeps is what the script keeps: the host leaks nothing into it.
func TestShared(t *testing.T) {
	const source = `let n = 0; export const check = async (r) => {
		n++;
		const f = tocsin.open("/net/tcp/echo:1"); f.write("a".repeat(5000)); f.read(); f.close();
		tocsin.http({url: "http://x", body: new Uint8Array(100)}); new TextDecoder().decode(new TextEncoder().encode("é"));
		try { tocsin.open("/net/tcp/no:1") } catch { /* as it should */ }
		if (r.fails) throw new Error("no");
		return {n};
	}`
	m := open(t, source, wasm.Options{Shared: true, Limits: wasm.Limits{Memory: 3 << 20}})
	n := &network{answer: func(map[string]any) (any, *failure) {
		return map[string]any{"status": 200, "body": strings.Repeat("x", 1000)}, nil
	}}
	for i := 1; i <= 500; i++ {
		request, want := "{}", fmt.Sprintf(`{"n":%d}`, i)
		if i%10 == 0 {
			request, want = `{"fails":true}`, "error: check threw Error: no (check.js:6:26)"
		}
		if got, _ := call(m, request, n); got != want {
			t.Fatalf("call %d: %s, want %s", i, got, want)
		}
	}
	if n.open != 0 {
		t.Errorf("%d files are open", n.open)
	}
}

// New finds the engine's code in the cache, whatever the script.
func TestCompiledOnce(t *testing.T) {
	count := func() int {
		found, err := filepath.Glob(filepath.Join(os.Getenv(cacheVariable), "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	before := count()
	open(t, "export const check = () => ({a: 1})", wasm.Options{Limits: wasm.Limits{Memory: 8 << 20}})
	if after := count(); before != 1 || after != 1 {
		t.Errorf("the cache had %d files and has %d", before, after)
	}
}

func BenchmarkPristine(b *testing.B) {
	for name, source := range map[string]string{
		"plain": `export function check(r) { return {status: "up", message: r.target, metrics: [{name: "a", value: 1, unit: "ms"}]} }`,
		"async": `export async function check(r) { await null; return {status: "up", message: r.target, metrics: [{name: "a", value: 1}]} }`,
		"http":  `export function check(r) { const a = tocsin.http({url: r.target}); return {status: a.status === 200 ? "up" : "down"} }`,
	} {
		b.Run(name, func(b *testing.B) {
			m := open(b, source, wasm.Options{})
			n := &network{answer: func(map[string]any) (any, *failure) { return map[string]any{"status": 200}, nil }}
			request := `{"api":1,"call":"check","monitor":{"id":"01J","name":"shop","labels":{"team":"web"}},"target":"https://shop.example.com/graphql","config":{"query":"{a}"},"timeout_ms":5000,"attempt":1}`
			for b.Loop() {
				if got, _ := call(m, request, n); !strings.HasPrefix(got, `{"status":"up"`) {
					b.Fatal(got)
				}
			}
		})
	}
}
