// Command sms-gateway is a plugin of Tocsin that sends notifications as text messages, through any gateway that takes a form
// over HTTP. It is written with the package sdk and runs in the sandbox.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	sdk.Register(sdk.Plugin{Notify: notify})
	if err := warm(); err != nil {
		fmt.Fprintln(os.Stderr, "E! "+err.Error())
	}
}

func main() { sdk.Main() }

// config is what a channel's configuration may say; the manifest has its schema.
type config struct {
	URL       string            `json:"url"`
	Username  string            `json:"username"`
	Password  string            `json:"password"`
	To        string            `json:"to"`
	From      string            `json:"from"`
	ToField   string            `json:"to_field"`
	FromField string            `json:"from_field"`
	TextField string            `json:"text_field"`
	Extra     map[string]string `json:"extra"`
	Parts     int               `json:"parts"`
	Expect    string            `json:"expect"`
}

// warm makes one message and does not send it. Every call begins with the memory as it was after init, so what the packages that
// a call uses work out once, such as how to read a config, they need not work out again.
func warm() error {
	c := defaults()
	if err := sdk.Config([]byte(`{"url":"http://0","to":"0","password":"0","extra":{"0":"0"}}`), &c); err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	c.request(sdk.Notification{Text: "0"})
	return c.judge(sdk.HTTPResponse{Status: 200}, time.Now())
}

func defaults() config {
	return config{ToField: "to", FromField: "from", TextField: "text", Parts: 1}
}

// The most parts that one message may have. Phones join them again, and every part is paid for.
const maxParts = 10

func (c config) validate() error {
	if c.URL == "" || c.To == "" {
		return errors.New("config: url and to must be set")
	}
	if c.Parts < 1 || c.Parts > maxParts {
		return fmt.Errorf("config: parts: must be from 1 to %d, is %d", maxParts, c.Parts)
	}
	names := []string{c.ToField, c.TextField}
	if c.From != "" {
		names = append(names, c.FromField)
	}
	for name := range c.Extra {
		names = append(names, name)
	}
	slices.Sort(names)
	if count := len(names); names[0] == "" || len(slices.Compact(names)) < count {
		return errors.New("config: to_field, text_field, from_field and the names in extra must all be set and differ")
	}
	return nil
}

// notify implements the call.
func notify(_ context.Context, req sdk.NotifyRequest) error {
	c := defaults()
	if err := sdk.Config(req.Config, &c); err != nil {
		return sdk.Permanent(err)
	}
	if err := c.validate(); err != nil {
		return sdk.Permanent(err)
	}
	answer, err := sdk.Do(c.request(req.Notification))
	if err != nil {
		var failure *sdk.NetError
		if errors.As(err, &failure) && failure.Kind == sdk.NetInvalid {
			return sdk.Permanent(err) // the address is none
		}
		return err
	}
	return c.judge(answer, time.Now())
}

// request makes the form of a message.
func (c config) request(n sdk.Notification) sdk.HTTPRequest {
	form := url.Values{c.ToField: {c.To}, c.TextField: {fit(n.Text, c.Parts)}}
	if c.From != "" {
		form.Set(c.FromField, c.From)
	}
	for name, value := range c.Extra {
		form.Set(name, value)
	}
	headers := map[string][]string{
		"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"},
		// The same in every retry, for gateways that know it.
		"Idempotency-Key": {n.ID},
	}
	if c.Username != "" || c.Password != "" {
		headers["Authorization"] = []string{"Basic " + c.credentials()}
	}
	return sdk.HTTPRequest{Method: "POST", URL: c.URL, Headers: headers, Body: []byte(form.Encode())}
}

// credentials are those of RFC 7617.
func (c config) credentials() string {
	return base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password))
}

// judge decides what an answer means: 408, 425, 429 and 5xx may pass, any other 4xx is final.
func (c config) judge(answer sdk.HTTPResponse, now time.Time) error {
	code := answer.Status
	switch {
	case code >= 200 && code <= 299 && strings.Contains(string(answer.Body), c.Expect):
		return nil
	case code >= 200 && code <= 299:
		return fmt.Errorf("the gateway answered %d, but without the text that is expected%s", code, c.words(answer))
	case code >= 300 && code <= 399:
		return fmt.Errorf("the gateway answered %d: a redirect is not followed, enter the final address", code)
	}
	err := fmt.Errorf("the gateway answered %d%s", code, c.words(answer))
	if code == 408 || code == 425 || code == 429 || code >= 500 {
		if delay := retryAfter(answer.Header("Retry-After"), now); delay > 0 {
			return sdk.RetryAfter(err, delay)
		}
		return err
	}
	return sdk.Permanent(err)
}

// words are what the gateway says, when that is text for people, without what was sent to it in secret.
func (c config) words(answer sdk.HTTPResponse) string {
	kind, _, _ := strings.Cut(answer.Header("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if kind != "" && kind != "text/plain" && kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return ""
	}
	text := string(answer.Body)
	// Before the cut, which could leave half of a secret. JSON writes some characters in other ways than they were sent in.
	for _, secret := range []string{c.Password, url.QueryEscape(c.Password), strings.Trim(strconv.Quote(c.Password), `"`), c.credentials()} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "••••")
		}
	}
	text = sdk.CleanText(strings.TrimSpace(text), 200)
	if text == "" {
		return ""
	}
	return ": " + text
}

// maxDelay is what a longer Retry-After counts as.
const maxDelay = time.Hour

// retryAfter reads the header Retry-After: seconds, or a date (RFC 9110, section 10.2.3). It is 0 when there is none that can
// be read.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if strings.Trim(header, "0123456789") == "" {
		seconds, err := strconv.ParseInt(header, 10, 64)
		if err != nil || seconds > int64(maxDelay/time.Second) { // more digits than a number has
			return maxDelay
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxDelay)
}
