package api

import (
	"net/url"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/oklog/ulid/v2"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// StrictQuery is embedded in every input: parameters that are unknown, repeated, or not text are faults. It runs after huma
// has read the known ones, so that all faults are told at once.
type StrictQuery struct{}

// Resolve returns the faults.
func (StrictQuery) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	values, err := url.ParseQuery(u.RawQuery)
	var faults []error
	if err != nil {
		faults = append(faults, &huma.ErrorDetail{Location: "query", Message: "cannot be read: its escapes are wrong, or it has a semicolon"})
	}
	known := map[string]*huma.Param{}
	var names []string
	for _, p := range ctx.Operation().Parameters {
		if p.In == "query" {
			known[p.Name] = p
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	given := make([]string, 0, len(values))
	for name := range values {
		given = append(given, name)
	}
	sort.Strings(given)
	for _, name := range given {
		location := "query." + sdk.CleanText(name, 100)
		p := known[name]
		if p == nil {
			message := "is unknown; there are no parameters here"
			if len(names) > 0 {
				message = "is unknown; known are " + strings.Join(names, ", ")
			}
			faults = append(faults, &huma.ErrorDetail{Location: location, Message: message})
			continue
		}
		if len(values[name]) > 1 && p.Schema != nil && p.Schema.Type != huma.TypeArray {
			faults = append(faults, &huma.ErrorDetail{Location: location, Message: "is given more than once"})
		}
		for _, v := range values[name] {
			switch {
			case v == "" && name == "cursor": // the first page: clients pass on what they have
			case v == "":
				faults = append(faults, &huma.ErrorDetail{Location: location, Message: "is empty; leave it out"})
			case !utf8.ValidString(v) || sdk.CleanText(v, len(v)) != v:
				faults = append(faults, &huma.ErrorDetail{Location: location, Message: "must be one line of UTF-8 without control characters"})
			}
		}
	}
	return faults
}

// ByID is the input of what is about one object.
type ByID struct {
	StrictQuery
	ID string `path:"id" doc:"A ULID."`
}

// knownID answers 404 to an id in the path that is none, before anything else is looked at: nothing can have it, and a
// database refuses some of what a path can hold.
func (a *API) knownID(ctx huma.Context, next func(huma.Context)) {
	if _, err := ulid.ParseStrict(ctx.Param("id")); err != nil {
		a.fail(humagin.Unwrap(ctx), monitor.ErrNotFound)
		return
	}
	next(ctx)
}

// changing is the input of what replaces one object.
type changing struct {
	ByID
	IfMatch string `header:"If-Match" doc:"The ETag of the revision that is to be changed: 412 when there is a newer one. Left out: whatever is there."`
}
