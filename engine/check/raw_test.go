package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

type checkFunc func(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error)

func (f checkFunc) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	return f(ctx, req)
}

const rawSchema = `{"type":"object","additionalProperties":false,"required":["token"],"properties":{
  "token":{"type":"string","writeOnly":true,"minLength":4},"db":{"type":"integer","default":3,"maximum":15}}}`

// rawKind is a kind of somebody else's whose checker is the function.
func rawKind(name string, check checkFunc) Kind {
	return DefineRaw(name, "Is somebody else's.", "host:1", json.RawMessage(rawSchema), func(string, json.RawMessage) (Checker, error) { return check, nil })
}

func says(message string) checkFunc {
	return func(context.Context, sdk.CheckRequest) (sdk.Result, error) {
		return sdk.Result{Status: sdk.Up, Message: message}, nil
	}
}

func TestRawKind(t *testing.T) {
	t.Parallel()
	var built []string
	refuse := error(nil)
	kind := DefineRaw("redis", "Pings.", "host:6379", json.RawMessage(rawSchema), func(target string, config json.RawMessage) (Checker, error) {
		built = append(built, target+" "+string(config))
		return says("fine"), refuse
	})
	if string(kind.Schema()) != rawSchema || len(kind.Variables()) == 0 || kind.Doc != "Pings." || kind.Target != "host:6379" {
		t.Errorf("the kind is %+v", kind)
	}
	r := newRegistry(t)
	if err := r.Put(kind); err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		``:                             "config.token: is required",
		`{"token":"abc","db":16}`:      "config.db: must be at most 15 (got 16); config.token: must have at least 4 characters, and has 3",
		`{"token":7}`:                  "config.token: must be text, not a number",
		`null`:                         "config: must be an object, not null",
		`{"token":"abcd","tokn":"SE"}`: "config.tokn: is unknown; did you mean token?",
	} {
		_, err := r.New(Spec{Kind: "redis", Target: "h:1", Config: json.RawMessage(config)})
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", config, err, want)
		}
	}
	_, err := r.New(Spec{Kind: "redis", Target: "h:1", Config: json.RawMessage(`{"token":"abcd"}`), Assert: []string{"1 +"}, Degrade: []string{"metrics.a > 1"}})
	var faults monitor.Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != "assert[0]" {
		t.Errorf("a bad expression gives %v", err)
	}
	if diff := cmp.Diff([]string{`h:1 {"token":"abcd"}`}, built); diff != "" {
		t.Errorf("the config must be handed on as it was entered, and only when it is right:\n%s", diff)
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("plugin redis is disabled: it held on to\nabcd"), "kind: plugin redis is disabled: it held on to ••••"},
		{fmt.Errorf("wrapped: %w", monitor.Faults{{Field: "target", Value: "abcd!", Message: "must not be abcd"}, {Field: "config.db", Value: 3, Message: "is taken"}}), "target: must not be •••• (got ••••!); config.db: is taken (got 3)"},
	} {
		refuse = tt.err
		_, err := r.New(Spec{Kind: "redis", Target: "h:1", Config: json.RawMessage(`{"token":"abcd"}`)})
		if err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestRawResults(t *testing.T) {
	t.Parallel()
	const token = "s3cr\"t"
	var seen sdk.CheckRequest
	answer := sdk.Result{
		Status: sdk.Up, Message: "said s3cr\"t and \"s3cr\\\"t\"\nover", Address: "h?k=s3cr%22t", State: "keep s3cr\"t", Latency: time.Second, Code: 7,
		Metrics: []sdk.Metric{{Name: "n-s3cr\"t", Unit: "s3cr\"t", Value: 3}},
	}
	var failure error
	r := newRegistry(t)
	if err := r.Put(rawKind("echo", func(_ context.Context, req sdk.CheckRequest) (sdk.Result, error) {
		seen = req
		a := answer
		a.Metrics = append([]sdk.Metric(nil), answer.Metrics...)
		return a, failure
	})); err != nil {
		t.Fatal(err)
	}
	config := json.RawMessage(`{"token":"s3cr\"t"}`)
	spec := Spec{Kind: "echo", Target: "h:1", Config: config}
	c, err := r.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.(SelfTimed); !ok {
		t.Error("its checker is not SelfTimed")
	}
	req := sdk.CheckRequest{Monitor: sdk.Ref{ID: "m"}, Target: "h:1", Timeout: time.Second, Attempt: 3, State: "old", Config: config}
	got, err := c.Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(req, seen); diff != "" {
		t.Errorf("the request (-want +got):\n%s", diff)
	}
	want := answer
	want.Message, want.Address, want.Metrics = `said •••• and "••••" over`, "h?k=••••", []sdk.Metric{{Name: "n-••••", Unit: "••••", Value: 3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the result (-want +got):\n%s", diff)
	}
	if _, err := c.Check(t.Context(), sdk.CheckRequest{}); err != nil || string(seen.Config) != "{}" {
		t.Errorf("a config that is left out reaches the checker as %q, %v", seen.Config, err)
	}

	// Expressions see what the plugin said, and hide the secret in what they show.
	spec.Assert, spec.Degrade = []string{"status == 7"}, []string{`message contains "nothing"`}
	if c, err = r.New(spec); err != nil {
		t.Fatal(err)
	}
	got, err = c.Check(t.Context(), req)
	if err != nil || got.Status != sdk.Degraded || strings.Contains(got.Message, "s3cr") || !strings.Contains(got.Message, "••••") {
		t.Errorf("got %+v, %v", got, err)
	}
	answer.Status = sdk.Down
	if got, err = c.Check(t.Context(), req); err != nil || got.Status != sdk.Down || !strings.HasPrefix(got.Message, "said ••••") {
		t.Errorf("what is down is judged again: %+v, %v", got, err)
	}
	failure = fmt.Errorf("cannot read %s: %w", token, fs.ErrNotExist)
	if _, err = c.Check(t.Context(), req); !errors.Is(err, fs.ErrNotExist) || err.Error() != "cannot read ••••: file does not exist" {
		t.Errorf("the error is %v", err)
	}
}

func TestPutAndRemove(t *testing.T) {
	t.Parallel()
	own := Define("own", "Is the embedder's.", "x", struct{}{}, func(string, struct{}) (Checker, error) { return says("own"), nil })
	r := NewRegistry(Options{Kinds: []Kind{own}})
	defer r.Close()
	for _, tt := range []struct {
		kind Kind
		want string
	}{
		{rawKind("http", says("x")), "add kind http: a built-in kind has that name"},
		{rawKind("own", says("x")), "add kind own: a built-in kind has that name"},
		{rawKind("", says("x")), `add kind "": its name must be`},
		{rawKind("A b", says("x")), `add kind "A b": its name must be`},
		{Kind{Name: "idle"}, "add kind idle: it cannot make checkers"},
		{DefineRaw("odd", "", "", json.RawMessage(`{"type":"array"}`), nil), "add kind odd: the schema of its config must be a JSON Schema with type: object"},
	} {
		if err := r.Put(tt.kind); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	names := func() string {
		var all []string
		for _, k := range r.Kinds() {
			all = append(all, k.Name)
		}
		return strings.Join(all, " ")
	}
	if got := names(); got != "dns http icmp own push tcp tls" {
		t.Errorf("kinds are %s", got)
	}
	for _, name := range []string{"redis", "a-b", "redis"} {
		if err := r.Put(rawKind(name, says("x"))); err != nil {
			t.Error(err)
		}
	}
	if got := names(); got != "a-b dns http icmp own push redis tcp tls" {
		t.Errorf("kinds are %s", got)
	}
	if !r.Builtin("http") || !r.Builtin("own") || r.Builtin("redis") || r.Builtin("none") {
		t.Error("what is built in has changed")
	}
	r.Remove("redis")
	r.Remove("http")
	r.Remove("none")
	if got := names(); got != "a-b dns http icmp own push tcp tls" {
		t.Errorf("kinds are %s", got)
	}
	if _, ok := r.Kind("redis"); ok {
		t.Error("a kind is there after it was removed")
	}
	_, err := r.New(Spec{Kind: "redis"})
	if err == nil || err.Error() != "kind: is unknown; known are a-b, dns, http, icmp, own, push, tcp, tls (got redis)" {
		t.Errorf("got %v", err)
	}
	for _, k := range r.Kinds() {
		if s, err := k.Shape(); err != nil || !s.Root().Described() {
			t.Errorf("kind %s has no shape: %v", k.Name, err)
		}
	}
	broken := DefineRaw("odd", "", "", json.RawMessage(`{}`), nil)
	if _, err := broken.New("", nil); err == nil || err.Error() != "kind: cannot be used, because the schema of its config must be a JSON Schema with type: object" {
		t.Errorf("got %v", err)
	}
}

// TestLate follows one monitor's checker while its kind comes, changes, refuses, goes and comes back.
func TestLate(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	c, err := NewLate(r).New(Spec{Kind: "redis", Target: "h:1", Config: json.RawMessage(`{"token":"abcd"}`), Assert: []string{`message != "bad"`}})
	if err != nil {
		t.Fatal(err)
	}
	builds := 0
	put := func(check checkFunc, err error) {
		t.Helper()
		k := DefineRaw("redis", "", "", json.RawMessage(rawSchema), func(string, json.RawMessage) (Checker, error) {
			builds++
			return check, err
		})
		if err := r.Put(k); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(status sdk.Status, message string) {
		t.Helper()
		got, err := c.Check(t.Context(), sdk.CheckRequest{Timeout: time.Minute})
		if err != nil {
			got.Message = err.Error()
		}
		if got.Status != status || got.Message != message {
			t.Errorf("got %s %q, want %s %q", got.Status, got.Message, status, message)
		}
	}
	const gone = "monitor cannot be checked: there is no kind redis; install the plugin of that name, or choose another kind"
	expect(sdk.Unknown, gone)
	put(says("one"), nil)
	expect(sdk.Up, "one")
	expect(sdk.Up, "one")
	if builds != 1 {
		t.Errorf("%d checkers were made for two checks", builds)
	}
	put(says("bad"), nil)
	expect(sdk.Down, `assertion failed: message != "bad" (message = "bad")`)
	refusal := errors.New("plugin redis is disabled")
	put(nil, refusal)
	expect(sdk.Unknown, "monitor cannot be checked: kind: plugin redis is disabled")
	put(says("two"), nil)
	expect(sdk.Up, "two")
	if err := r.Put(DefineRaw("redis", "", "", json.RawMessage(`{"type":"object","required":["user"]}`), nil)); err != nil {
		t.Fatal(err)
	}
	expect(sdk.Unknown, "monitor cannot be checked: config.user: is required")
	r.Remove("redis")
	expect(sdk.Unknown, gone)
	put(says("three"), nil)
	expect(sdk.Up, "three")

	// A build that refuses for a while is asked again, even when the kind stays the same.
	soon := errors.New("not yet")
	if err := r.Put(DefineRaw("redis", "", "", nil, func(string, json.RawMessage) (Checker, error) { return says("four"), soon })); err != nil {
		t.Fatal(err)
	}
	expect(sdk.Unknown, "monitor cannot be checked: config.token: is unknown; there are no settings here")
	if err := r.Put(DefineRaw("redis", "", "", json.RawMessage(rawSchema), func(string, json.RawMessage) (Checker, error) { return says("four"), soon })); err != nil {
		t.Fatal(err)
	}
	expect(sdk.Unknown, "monitor cannot be checked: kind: not yet")
	soon = nil
	expect(sdk.Up, "four")

	// Built-in kinds are made by the registry, at once.
	if _, err := NewLate(r).New(Spec{Kind: "http", Target: "no address"}); err == nil {
		t.Error("a built-in kind takes any target")
	}
	tcp, err := NewLate(r).New(Spec{Kind: "tcp", Target: "192.0.2.1:1"})
	if _, ok := tcp.(*probing); !ok || err != nil {
		t.Errorf("a built-in kind's checker is %T, %v", tcp, err)
	}
}

// TestLateKeepsTime sees that only a kind that does not keep its own time gets a deadline.
func TestLateKeepsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t)
		hang := checkFunc(func(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
			<-ctx.Done()
			return sdk.Result{}, ctx.Err()
		})
		if err := r.Put(Define("plain", "", "", struct{}{}, func(string, struct{}) (Checker, error) { return hang, nil })); err != nil {
			t.Fatal(err)
		}
		if err := r.Put(DefineRaw("raw", "", "", nil, func(string, json.RawMessage) (Checker, error) { return hang, nil })); err != nil {
			t.Fatal(err)
		}
		for kind, want := range map[string]error{"plain": context.DeadlineExceeded, "raw": context.Canceled} {
			c, err := NewLate(r).New(Spec{Kind: kind})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Minute, cancel)
			if _, err := c.Check(ctx, sdk.CheckRequest{Timeout: time.Second}); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", kind, err, want)
			}
			cancel()
		}
	})
}

// TestRegistryConcurrently puts, removes, lists, makes and checks at the same time.
func TestRegistryConcurrently(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	c, err := NewLate(r).New(Spec{Kind: "k1", Config: json.RawMessage(`{"token":"abcd"}`)})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("k%d", i%2)
		group.Go(func() {
			for range 50 {
				if err := r.Put(rawKind(name, says(name))); err != nil {
					t.Error(err)
				}
				if got, err := c.Check(t.Context(), sdk.CheckRequest{}); err == nil && got.Message != "k1" {
					t.Errorf("a check of k1 says %+v", got)
				}
				for _, k := range r.Kinds() {
					if _, err := k.Shape(); err != nil {
						t.Error(err)
					}
				}
				if _, err := r.New(Spec{Kind: "tcp", Target: "192.0.2.1:1"}); err != nil {
					t.Error(err)
				}
				r.Remove(name)
			}
		})
	}
	group.Wait()
	if got := len(r.Kinds()); got != 6 {
		t.Errorf("%d kinds are left", got)
	}
}
