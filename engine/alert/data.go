package alert

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// whenEnded is what a request's "on" says, beside the transitions, for every notification that tells of an incident's end.
const whenEnded = "ended"

// dataProvider is an HTTP provider read from a file: which requests it makes is data, and no code is its own.
type dataProvider struct {
	name, doc, link string
	fields          []Field
	tables          map[string]table
	escape          *strings.Replacer
	cut             int
	requests        []dataRequest
	success         *success
}

// dataRequest is one request of a provider. It is made for the notifications that match on.
type dataRequest struct {
	on      []string // transitions, or whenEnded; empty: every notification
	method  string
	url     template
	headers []headerTemplate // in the order of their names
	user    template         // of basic authentication; nil: none
	pass    template
	body    tree
}

type headerTemplate struct {
	name  string
	value template
}

// matches reports whether the request is made for n.
func (r *dataRequest) matches(n sdk.Notification) bool {
	if len(r.on) == 0 || slices.Contains(r.on, string(n.Transition)) {
		return true
	}
	return ended(n) && slices.Contains(r.on, whenEnded)
}

// provider returns the provider that the data describe.
func (d *dataProvider) provider(post *poster) Provider {
	return Provider{
		Name: d.name, Doc: d.doc, Link: d.link, Fields: d.fields,
		Build: func(v Values) (Notifier, error) {
			for i := range d.fields {
				f := &d.fields[i]
				if f.Type != TypeURL && f.Type != TypeBaseURL {
					continue
				}
				if problem := post.literal(v.Text(f.Name)); problem != "" {
					return nil, monitor.Faults{{Field: f.Name, Message: problem}}
				}
			}
			return &dataNotifier{post: post, data: d, config: v}, nil
		},
	}
}

// dataNotifier sends what a dataProvider describes with one channel's configuration.
type dataNotifier struct {
	post   *poster
	data   *dataProvider
	config Values
}

var _ Notifier = (*dataNotifier)(nil)

// Notify makes every request that matches, in order, and stops at the first error. A retry makes all of them again.
func (d *dataNotifier) Notify(ctx context.Context, n sdk.Notification) error {
	m := &message{n: n, config: d.config, tables: d.data.tables, escape: d.data.escape, cut: d.data.cut}
	made := 0
	for i := range d.data.requests {
		r := &d.data.requests[i]
		if !r.matches(n) {
			continue
		}
		if err := d.post.do(ctx, r.call(m, d.data.success)); err != nil {
			return err
		}
		made++
	}
	if made == 0 {
		return sdk.Permanent(fmt.Errorf("provider %s has no request for %q", d.data.name, n.Transition))
	}
	return nil
}

// call puts the values into the request. A header with an absent value is left out.
func (r *dataRequest) call(m *message, rule *success) call {
	header := make(http.Header, len(r.headers)+2)
	header.Set("Content-Type", "application/json")
	for _, h := range r.headers {
		if value, ok := h.value.text(m); ok {
			header.Set(h.name, value)
		}
	}
	if r.user != nil {
		user, okUser := r.user.text(m)
		pass, okPass := r.pass.text(m)
		if okUser && okPass {
			header.Set("Authorization", basicAuth(user, pass))
		}
	}
	body, _ := r.body.expand(m)
	return call{method: r.method, url: r.url.url(m), header: header, body: encode(body), success: rule}
}

// basicAuth returns the header value for HTTP basic authentication (RFC 7617).
func basicAuth(user, pass string) string {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, pass)
	return req.Header.Get("Authorization")
}
