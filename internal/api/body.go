package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

const (
	maxBody     = 1 << 20 // bytes
	bodyTimeout = 10 * time.Second
	jsonType    = "application/json"
	patchType   = "application/merge-patch+json"
)

type bodyKey struct{}

// readBody reads the body of an operation that takes one, before huma looks at the request: what is not strict JSON goes no
// further, and no answer repeats any of it. An optional body that is empty is {}.
func (a *API) readBody(optional bool) func(ctx huma.Context, next func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		c := humagin.Unwrap(ctx)
		tree, err := a.strictBody(c.Writer, c.Request, optional)
		if err != nil {
			a.fail(c, err)
			return
		}
		next(huma.WithValue(ctx, bodyKey{}, tree))
	}
}

func (a *API) strictBody(w http.ResponseWriter, r *http.Request, optional bool) (any, error) {
	if given := r.Header.Get("Content-Type"); given != "" {
		media, params, err := mime.ParseMediaType(given)
		charset := strings.ToLower(params["charset"])
		if err != nil || media != jsonType && media != patchType || charset != "" && charset != "utf-8" {
			return nil, newProblem(http.StatusUnsupportedMediaType, "", "a body must be application/json in UTF-8").with("Accept", jsonType)
		}
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, newProblem(http.StatusUnsupportedMediaType, "", "a body must not be compressed").with("Accept-Encoding", "identity")
	}
	text, err := readAll(w, r, maxBody, bodyTimeout)
	if err != nil {
		return nil, err
	}
	if optional && len(text) == 0 {
		return map[string]any{}, nil
	}
	tree, err := parseStrict(text)
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		p := newProblem(http.StatusBadRequest, "syntax", "the body is not JSON as it must be: "+syntax.Error())
		p.Errors = []Fault{{
			Location: "body",
			Message:  fmt.Sprintf("%s: byte %d, line %d, column %d", syntax.message, syntax.offset, syntax.line, syntax.column),
		}}
		return nil, p
	}
	if err != nil {
		return nil, err
	}
	return tree, nil
}

// readAll reads a body of at most limit bytes.
func readAll(w http.ResponseWriter, r *http.Request, limit int64, timeout time.Duration) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLargeProblem(limit)
	}
	// A deadline is not to be had from every writer; then the server's own holds.
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(timeout)); err == nil {
		defer deadline.SetReadDeadline(time.Time{}) //nolint:errcheck // it worked a moment ago; a broken connection shows itself
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, tooLargeProblem(limit)
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, "", "the body could not be read to its end")
	}
	return text, nil
}

// decoded is a body: what could be made of it, and what is wrong with its shape.
type decoded[T any] struct {
	Value  T
	Faults []Fault
}

// decode reads the request's body as a T.
func decode[T any](ctx context.Context, a *API) (decoded[T], error) {
	return decodeTree[T](a, ctx.Value(bodyKey{}))
}

func decodeTree[T any](a *API, tree any) (decoded[T], error) {
	var d decoded[T]
	s := shape{registry: a.registry()}
	s.check(a.schema(reflect.TypeFor[T]()), "body", tree)
	d.Faults = s.faults
	object, ok := tree.(map[string]any)
	if !ok {
		return d, nil
	}
	text, err := json.Marshal(object)
	if err != nil {
		return d, fmt.Errorf("write the body again: %w", err)
	}
	if err := json.Unmarshal(text, &d.Value); err != nil {
		return d, fmt.Errorf("decode the body, which has the right shape: %w", err)
	}
	return d, nil
}

// patched applies the request's body to what is there as a merge patch (RFC 7396) and reads the outcome as a T.
func patched[T any](ctx context.Context, a *API, there T) (decoded[T], error) {
	patch := ctx.Value(bodyKey{})
	s := shape{registry: a.registry(), partial: true}
	s.check(a.schema(reflect.TypeFor[T]()), "body", patch)
	text, err := json.Marshal(there)
	if err != nil {
		return decoded[T]{}, fmt.Errorf("write what is there: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return decoded[T]{}, fmt.Errorf("read what is there: %w", err)
	}
	if _, ok := patch.(map[string]any); ok {
		tree = merge(tree, patch)
	}
	out, err := decodeTree[T](a, tree)
	out.Faults = append(out.Faults, s.faults...)
	return out, err
}

// merge is MergePatch of RFC 7396, section 2.
func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, v := range changes {
		if v == nil {
			delete(object, name)
			continue
		}
		object[name] = merge(object[name], v)
	}
	return object
}

// also adds faults that were found in what could be decoded, but for those in places that are at fault already.
func (d *decoded[T]) also(more []Fault) {
	s := shape{faults: d.Faults}
	for _, f := range more {
		if !s.faultAt(f.Location) {
			d.Faults = append(d.Faults, f)
		}
	}
}

func (a *API) registry() huma.Registry { return a.huma.OpenAPI().Components.Schemas }

func (a *API) schema(t reflect.Type) *huma.Schema { return a.registry().Schema(t, true, t.Name()) }
