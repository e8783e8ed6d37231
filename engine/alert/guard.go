package alert

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

const (
	maxError       = 500 // bytes of an error of a provider
	maxQuote       = 200 // characters of a receiver's answer in it
	shortestSecret = 4   // shorter values would blot out ordinary words
	masked         = "••••"
)

// guarded wraps a provider's notifier: a panic becomes an error, and secrets of the configuration are masked in errors
// even when the receiver's answer repeats them.
type guarded struct {
	provider string
	next     Notifier
	secrets  []string // longest first
}

// Notify calls the provider. Marks by sdk.Permanent and sdk.RetryAfter survive the masking.
func (g *guarded) Notify(ctx context.Context, n sdk.Notification) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{
				provider: g.provider,
				cause:    mask(fmt.Sprint(p), g.secrets),
				stack:    mask(string(debug.Stack()), g.secrets),
			}
		}
	}()
	err = g.next.Notify(ctx, n)
	if err == nil {
		return nil
	}
	// Masked first and cut afterwards: half a secret would not be recognised.
	text := err.Error()
	var quoted *quoting
	if errors.As(err, &quoted) {
		words := cutRunes(sdk.CleanText(mask(quoted.words, g.secrets), maxAnswer), maxQuote)
		return remark(errors.New(sdk.CleanText(mask(text, g.secrets)+": "+words, maxError)), err)
	}
	if clean := sdk.CleanText(mask(text, g.secrets), maxError); clean != text {
		return remark(errors.New(clean), err)
	}
	return err
}

// remark puts the marks of from on err.
func remark(err, from error) error {
	if d := sdk.RetryDelay(from); d > 0 {
		err = sdk.RetryAfter(err, d)
	}
	if sdk.IsPermanent(from) {
		err = sdk.Permanent(err)
	}
	return err
}

// panicError is a panic in a provider. Its text leaves the cause to the log.
type panicError struct{ provider, cause, stack string }

// Error names the provider.
func (p *panicError) Error() string {
	return fmt.Sprintf("provider %s panicked; the log has the details", p.provider)
}

// mask replaces every occurrence of the secrets in text.
func mask(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, masked)
	}
	return text
}

// secretTexts returns every text that must not appear in an error: the values of secret fields, as they are and as they
// look inside an address, and of a secret address also its path, its longer segments and its query's values.
func secretTexts(fields []Field, values Values) []string {
	var found []string
	add := func(s string) {
		if len(s) >= shortestSecret {
			inJSON := string(encode(s))
			found = append(found, s, url.PathEscape(s), url.QueryEscape(s), inJSON[1:len(inJSON)-1])
		}
	}
	for i := range fields {
		f := &fields[i]
		if !f.Secret {
			continue
		}
		switch v := values[f.Name].(type) {
		case string:
			add(v)
			if f.Type == TypeURL || f.Type == TypeBaseURL {
				addURLParts(v, add)
			}
		case []string:
			for _, s := range v {
				add(s)
			}
		case map[string]string:
			for _, s := range v {
				add(s)
			}
		}
	}
	if user, pass := values.Text("username"), values.Text("password"); user != "" && pass != "" {
		add(strings.TrimPrefix(basicAuth(user, pass), "Basic ")) // as it is sent (RFC 7617)
	}
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(found)
}

// addURLParts adds the parts of an address that may be secret by themselves.
func addURLParts(address string, add func(string)) {
	u, err := url.Parse(address)
	if err != nil {
		return // decode has refused it
	}
	const longSegment = 8 // "services", "api" and the like are no secrets; tokens are longer
	if len(u.Path) > longSegment {
		add(u.Path)
		add(u.EscapedPath())
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if len(segment) > longSegment {
			add(segment)
		}
	}
	for _, vs := range u.Query() {
		for _, v := range vs {
			add(v)
		}
	}
}
