package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// webhook posts the notification as JSON.
type webhook struct {
	post   *poster
	now    func() time.Time
	method string
	url    string
	header map[string]string
	secret string
}

var _ Notifier = (*webhook)(nil)

func webhookProvider(post *poster, now func() time.Time) Provider {
	return Provider{
		Name: "webhook",
		Doc: "Sends the notification as a JSON object to any address. Every answer from 200 to 299 means that it arrived. " +
			"The header Idempotency-Key holds the event's id: it is the same in every retry, so the receiver can drop repeats.",
		Fields: []Field{
			{
				Name: "url", Type: TypeURL, Required: true, Secret: true, Example: "https://example.com/hooks/tocsin",
				Doc: "The address that the notification is sent to. It counts as a secret, since it often holds a token.",
			},
			{
				Name: "method", Type: TypeChoice, Choices: []string{"POST", "PUT", "PATCH"}, Default: "POST",
				Doc: "The HTTP method.",
			},
			{
				Name: "headers", Type: TypeHeaders, Secret: true,
				Example: map[string]string{"Authorization": "Bearer 0123456789"},
				Doc:     "More header fields to send, by name. Their values count as secrets.",
			},
			{
				Name: "signing_secret", Type: TypeText, Secret: true, Example: "a long random text",
				Doc: "When set, the header X-Tocsin-Signature is t=TIME,v1=HEX: TIME is the Unix time in seconds, HEX the " +
					"HMAC-SHA256 under this secret of TIME, a full stop and the body. A receiver should refuse old times.",
			},
		},
		Build: func(v Values) (Notifier, error) {
			if problem := post.literal(v.Text("url")); problem != "" {
				return nil, monitor.Faults{{Field: "url", Message: problem}}
			}
			return &webhook{
				post: post, now: now, method: v.Text("method"), url: v.Text("url"),
				header: v.Headers("headers"), secret: v.Text("signing_secret"),
			}, nil
		},
	}
}

// Notify sends one request.
func (w *webhook) Notify(ctx context.Context, n sdk.Notification) error {
	body, err := json.Marshal(n)
	if err != nil {
		return sdk.Permanent(fmt.Errorf("write the notification as JSON: %w", err))
	}
	header := make(http.Header, len(w.header)+3)
	for name, value := range w.header {
		header.Set(name, value)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Idempotency-Key", n.ID)
	if w.secret != "" {
		header.Set("X-Tocsin-Signature", sign(w.secret, body, w.now()))
	}
	return w.post.do(ctx, call{method: w.method, url: w.url, header: header, body: body, success: any2xx()})
}

// sign returns the value of X-Tocsin-Signature. The time is signed as well, so that an old request cannot be replayed.
func sign(secret string, body []byte, at time.Time) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
