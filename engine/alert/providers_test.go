package alert

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/sdk"
)

// dialogue is how a provider's receiver is set up and what it says.
type dialogue struct {
	provider string
	config   string // URL stands for the server's address
	status   int
	answer   string
	secrets  []string // none of these may be in an error
}

func dialogues() []dialogue {
	return []dialogue{
		{
			provider: "webhook",
			config:   `{"url":"URL/hook/SECRET-PATH?token=SECRET-QUERY","headers":{"X-Team":"SECRET-HEADER"},"signing_secret":"SECRET-SIGN"}`,
			status:   http.StatusNoContent,
			secrets:  []string{"SECRET-PATH", "SECRET-QUERY", "SECRET-HEADER", "SECRET-SIGN"},
		},
		{
			provider: "ntfy", config: `{"url":"URL/","topic":"alerts","token":"tk_SECRET"}`,
			status: http.StatusOK, answer: `{"id":"x","event":"message"}`, secrets: []string{"tk_SECRET"},
		},
		{
			provider: "slack", config: `{"url":"URL/services/T0/B0/SECRETSECRET"}`,
			status: http.StatusOK, answer: "ok", secrets: []string{"SECRETSECRET"},
		},
		{
			provider: "discord", config: `{"url":"URL/api/webhooks/1/SECRETSECRET","username":"Tocsin"}`,
			status: http.StatusNoContent, secrets: []string{"SECRETSECRET"},
		},
		{
			provider: "telegram", config: `{"url":"URL","token":"123456:SECRET-SECRET","chat_id":"-1001","thread_id":7}`,
			status: http.StatusOK, answer: `{"ok":true,"result":{}}`, secrets: []string{"SECRET-SECRET"},
		},
		{
			provider: "pagerduty", config: `{"url":"URL","routing_key":"SECRETSECRETSECRETSECRETSECRETSE"}`,
			status: http.StatusAccepted, answer: `{"status":"success","message":"Event processed","dedup_key":"x"}`,
			secrets: []string{"SECRETSECRET"},
		},
		{
			provider: "gotify", config: `{"url":"URL/sub","token":"SECRETSECRET"}`,
			status: http.StatusOK, answer: `{"id":1}`, secrets: []string{"SECRETSECRET"},
		},
	}
}

// notifier returns the dialogue's notifier with the receiver at address.
func (d dialogue) notifier(t *testing.T, r *Registry, address string) Notifier {
	t.Helper()
	n, err := r.New(d.provider, json.RawMessage(strings.ReplaceAll(d.config, "URL", address)))
	if err != nil {
		t.Fatalf("New(%s): %v", d.provider, err)
	}
	return n
}

// TestRequests holds every HTTP provider to the exact requests in testdata/requests.
func TestRequests(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{"email": true} // email_test.go
	for _, d := range dialogues() {
		covered[d.provider] = true
		for _, transition := range sdk.Transitions() {
			t.Run(d.provider+"/"+string(transition), func(t *testing.T) {
				t.Parallel()
				server := record(t, d.status, d.answer)
				n := d.notifier(t, registry(t, Options{}), server.URL)
				if err := n.Notify(t.Context(), sample(transition)); err != nil {
					t.Fatalf("Notify: %v", err)
				}
				golden(t, "requests/"+d.provider+"."+string(transition)+".txt", strings.Join(server.requests, "\n---\n\n"))
			})
		}
	}
	for _, p := range registry(t, Options{}).Providers() {
		if !covered[p.Name] {
			t.Errorf("provider %s has no golden requests", p.Name)
		}
	}
}

// TestLeftOut sees to it that what has no value is not sent.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, provider, config string
		status                 int
		answer                 string
		without                []string
	}{
		{"ntfy", "ntfy", `{"url":"URL","topic":"a"}`, 200, "{}", []string{"Authorization", "click"}},
		{"telegram", "telegram", `{"url":"URL","token":"1:a","chat_id":"@abcd"}`, 200, `{"ok":true}`, []string{"message_thread_id"}},
		{"gotify", "gotify", `{"url":"URL","token":"abc"}`, 200, "{}", []string{"extras", "click"}},
		{"discord", "discord", `{"url":"URL/x"}`, 200, "{}", []string{"username"}},
		{"pagerduty", "pagerduty", `{"url":"URL","routing_key":"0123456789abcdef0123456789abcdef"}`, 202, `{"status":"success"}`, []string{"client_url", "labels", "class"}},
		{"webhook", "webhook", `{"url":"URL/x"}`, 200, "", []string{"X-Tocsin-Signature"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := record(t, tt.status, tt.answer)
			d := dialogue{provider: tt.provider, config: tt.config}
			n := sample(sdk.Test)
			n.URL = ""
			if err := d.notifier(t, registry(t, Options{}), server.URL).Notify(t.Context(), n); err != nil {
				t.Fatalf("Notify: %v", err)
			}
			got := strings.Join(server.requests, "")
			for _, word := range tt.without {
				if strings.Contains(got, word) {
					t.Errorf("request contains %s:\n%s", word, got)
				}
			}
		})
	}
}

// TestPagerDutyClosesWhatItOpened follows an outage and a warning through their keys.
func TestPagerDutyClosesWhatItOpened(t *testing.T) {
	t.Parallel()
	server := record(t, http.StatusAccepted, `{"status":"success"}`)
	d := dialogue{provider: "pagerduty", config: `{"url":"URL","routing_key":"0123456789abcdef0123456789abcdef"}`}
	pager := d.notifier(t, registry(t, Options{}), server.URL)

	warning := sample(sdk.WentDegraded)
	recovering := sample(sdk.WentDegraded) // down to degraded: the outage is over, the warning is not
	recovering.Incident = sample(sdk.WentUp).Incident
	fine := sample(sdk.WentUp)
	fine.Incident = nil
	for _, n := range []sdk.Notification{warning, sample(sdk.WentDown), recovering, fine, sample(sdk.Test)} {
		if err := pager.Notify(context.Background(), n); err != nil {
			t.Fatalf("Notify(%s): %v", n.Transition, err)
		}
	}
	open := map[string]bool{}
	for _, body := range server.bodies {
		var event struct {
			Action string `json:"event_action"`
			Key    string `json:"dedup_key"`
		}
		if err := json.Unmarshal(body, &event); err != nil {
			t.Fatal(err)
		}
		switch {
		case event.Key == "":
			t.Errorf("event without dedup_key: %s", body)
		case event.Action == "trigger":
			open[event.Key] = true
		case event.Action == "resolve":
			delete(open, event.Key)
		}
	}
	if len(open) != 0 {
		t.Errorf("still open at the end: %v", open)
	}
	if len(server.bodies) != 7 {
		t.Errorf("%d requests, want 7", len(server.bodies))
	}
}

// TestWebhookBody sees to it that the webhook posts the notification itself.
func TestWebhookBody(t *testing.T) {
	t.Parallel()
	server := record(t, 200, "")
	d := dialogue{provider: "webhook", config: `{"url":"URL/x","method":"PUT","signing_secret":"s3cret"}`}
	want := sample(sdk.WentUp)
	if err := d.notifier(t, registry(t, Options{}), server.URL).Notify(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	var got sdk.Notification
	if err := json.Unmarshal(server.bodies[0], &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != want.ID || got.Text != want.Text || got.Incident.Duration != want.Incident.Duration {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if sig, want := server.headers[0].Get("X-Tocsin-Signature"), sign("s3cret", server.bodies[0], base); sig != want {
		t.Errorf("signature %q, want %q", sig, want)
	}
	if key := server.headers[0].Get("Idempotency-Key"); key != want.ID {
		t.Errorf("Idempotency-Key %q, want the event's id", key)
	}
}
