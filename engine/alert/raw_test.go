package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const pagerSchema = `{"type":"object","additionalProperties":false,"required":["token"],"properties":{
  "token":{"type":"string","writeOnly":true,"minLength":4},"name":{"type":"string","default":"x"}}}`

// pager is a provider that a plugin would give.
func pager(answer answerWithFunc, refusal error) Provider {
	return DefineRaw("pager", "Is somebody else's.", json.RawMessage(pagerSchema), func(json.RawMessage) (Notifier, error) { return answer, refusal })
}

type answerWithFunc func(ctx context.Context, n sdk.Notification) error

func (f answerWithFunc) Notify(ctx context.Context, n sdk.Notification) error { return f(ctx, n) }

func TestRawProvider(t *testing.T) {
	t.Parallel()
	var built []string
	var refusal, failure error
	p := DefineRaw("pager", "Pages.", json.RawMessage(pagerSchema), func(config json.RawMessage) (Notifier, error) {
		built = append(built, string(config))
		return answerWithFunc(func(context.Context, sdk.Notification) error { return failure }), refusal
	})
	if string(p.Schema()) != pagerSchema || p.Doc != "Pages." {
		t.Errorf("the provider is %+v", p)
	}
	r := registry(t, Options{})
	if err := r.Put(p); err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		``:                               "config.token: is required",
		`{"token":"abc","name":7}`:       "config.name: must be text, not a number (got 7)\nconfig.token: must have at least 4 characters, and has 3",
		`{"token":"abcd","tokn":"SECR"}`: "config.tokn: is unknown; did you mean token?",
		`[]`:                             "config: must be an object, not a list",
	} {
		n, err := r.New("pager", json.RawMessage(config))
		if n != nil || err == nil {
			t.Fatalf("%s: got %v, %v", config, n, err)
		}
		if got := faultsOf(t, err); got != want {
			t.Errorf("%s: got %s, want %s", config, got, want)
		}
	}
	config := json.RawMessage(`{"token":"s3cr\"t"}`)
	n, err := r.New("pager", config)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{string(config)}, built); diff != "" {
		t.Errorf("the configuration must be handed on as it was entered:\n%s", diff)
	}
	failure = sdk.RetryAfter(errors.New(`refused s3cr"t and s3cr\"t and s3cr%22t`), time.Minute)
	if err := n.Notify(t.Context(), sdk.Notification{}); err == nil || err.Error() != "refused •••• and •••• and ••••" || sdk.RetryDelay(err) != time.Minute {
		t.Errorf("got %v", err)
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New(`plugin pager is disabled: s3cr"t`), "provider: plugin pager is disabled: ••••"},
		{fmt.Errorf("wrapped: %w", monitor.Faults{{Field: "config.name", Value: `s3cr"t`, Message: `is s3cr"t`}}), "config.name: is •••• (got ••••)"},
	} {
		refusal = tt.err
		if _, err := r.New("pager", config); err == nil || faultsOf(t, err) != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestPutAndRemoveProviders(t *testing.T) {
	t.Parallel()
	r := registry(t, Options{Extra: []Provider{{Name: "own"}}})
	for _, tt := range []struct {
		p    Provider
		want string
	}{
		{DefineRaw("slack", "", nil, nil), "add provider slack: a built-in provider has that name"},
		{DefineRaw("own", "", nil, nil), "add provider own: a built-in provider has that name"},
		{DefineRaw("A", "", nil, nil), `add provider "A": its name must be`},
		{Provider{Name: "idle"}, "add provider idle: it cannot make notifiers"},
		{DefineRaw("odd", "", json.RawMessage(`[]`), nil), "add provider odd: the schema of its configuration must be a JSON Schema"},
	} {
		if err := r.Put(tt.p); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	if !r.Builtin("own") || !r.Builtin("webhook") || r.Builtin("pager") {
		t.Error("what is built in has changed")
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				if err := r.Put(pager(nil, nil)); err != nil {
					t.Error(err)
				}
				if _, err := r.New("pager", json.RawMessage(`{}`)); err == nil {
					t.Error("a configuration without its token is taken")
				}
				for _, p := range r.Providers() {
					if _, err := p.Shape(); err != nil {
						t.Error(err)
					}
				}
				r.Remove("pager")
			}
		})
	}
	group.Wait()
	r.Remove("slack")
	if _, ok := r.Provider("pager"); ok || len(r.Providers()) != 9 {
		t.Errorf("%d providers are left", len(r.Providers()))
	}
	if _, err := DefineRaw("odd", "", json.RawMessage(`[]`), nil).New(nil); err == nil || !strings.HasPrefix(err.Error(), "provider: cannot be used") {
		t.Errorf("got %v", err)
	}
}

// TestProvidersComeAndGo has a channel that is put in before its provider is there, and sees it through everything that can
// happen to the provider. Nothing is lost, and nothing has to be done to the channel.
func TestProvidersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := deliver(t, DeliveryOptions{}, "other")
		r := b.Delivery.registry
		var mu sync.Mutex
		var took []string
		by := func(name string) answerWithFunc {
			return func(_ context.Context, n sdk.Notification) error {
				mu.Lock()
				defer mu.Unlock()
				took = append(took, name+" "+n.ID)
				return nil
			}
		}
		put := func(p Provider) {
			t.Helper()
			if err := r.Put(p); err != nil {
				t.Fatal(err)
			}
		}
		c := monitor.Channel{ID: "c", Name: "c", Provider: "pager", Config: json.RawMessage(`{"token":"s3cret"}`)}
		if err := b.Put(c); err == nil {
			t.Fatal("a channel without a provider is no fault")
		}
		next := 0
		send := func(want string, lastError string) {
			t.Helper()
			id := b.box.add("c", fmt.Sprint("m", next), time.Now())
			next++
			b.Wake()
			time.Sleep(time.Minute)
			synctest.Wait()
			a, n := b.box.outcome(id)
			h := b.Health("c")
			if lastError != "" {
				if a.Outcome != monitor.Retry || a.Error != lastError || n == 0 || h.LastError != lastError || h.Streak == 0 {
					t.Errorf("got %+v after %d attempts, health %+v, want %q", a, n, h, lastError)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if a.Outcome != monitor.Sent || h.Streak != 0 || took[len(took)-1] != want+fmt.Sprint(" event", id) {
				t.Errorf("got %+v, health %+v, taken %v, want it sent by %s", a, h, took, want)
			}
		}
		const gone = "there is no provider pager; install the plugin of that name, or give the channel another provider"
		send("", gone)
		put(pager(by("one"), nil))
		time.Sleep(faultyRetry * 2)
		synctest.Wait()
		if a, _ := b.box.outcome(1); a.Outcome != monitor.Sent {
			t.Errorf("what was pending is %+v", a)
		}
		send("one", "")
		put(pager(by("two"), nil))
		send("two", "")
		put(pager(nil, errors.New("plugin pager is disabled, with s3cret")))
		send("", "the channel is set up wrong: provider: plugin pager is disabled, with ••••")
		put(DefineRaw("pager", "", json.RawMessage(`{"type":"object","required":["user"],"properties":{"token":{}}}`), nil))
		send("", "the channel is set up wrong: config.user: is required")
		r.Remove("pager")
		send("", gone)
		if err := b.Test(t.Context(), "c", sdk.Notification{}); err == nil || err.Error() != gone {
			t.Errorf("a test says %v", err)
		}
		put(pager(by("three"), nil))
		if err := b.Test(t.Context(), "c", sdk.Notification{ID: "test"}); err != nil {
			t.Errorf("a test says %v", err)
		}
		time.Sleep(faultyRetry * 2)
		synctest.Wait()
		send("three", "")
		if len(took) != next+1 || b.Stats().GivenUp != 0 {
			t.Errorf("%d notifications, and a test, were taken as %v", next, took)
		}
		b.end(t)
	})
}
