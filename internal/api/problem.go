package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

const problemType = "application/problem+json"

// Problem is every answer that is not what was asked for (RFC 9457).
type Problem struct {
	Type   string  `json:"type" doc:"What sort of problem it is: about:blank says no more than the status does, urn:tocsin:problem:… is one of its own."`
	Title  string  `json:"title" doc:"The sort of problem in words."`
	Status int     `json:"status" doc:"The HTTP status."`
	Detail string  `json:"detail" doc:"What went wrong this time."`
	ID     string  `json:"id" doc:"Names this one answer. The server's log has it where there is more to know."`
	Errors []Fault `json:"errors,omitempty" nullable:"false" doc:"One entry for each thing that is wrong with the request."`

	headers http.Header
}

// Fault is one thing that is wrong with a request.
type Fault struct {
	Location string `json:"location" doc:"Where: body.config.method, query.limit, path.id, header.If-Match."`
	Message  string `json:"message" doc:"What is wrong, and what would be right."`
	Value    any    `json:"value,omitempty" doc:"What was sent, when it is a short scalar and cannot be a secret."`
}

var (
	_ huma.StatusError       = (*Problem)(nil)
	_ huma.HeadersError      = (*Problem)(nil)
	_ huma.ContentTypeFilter = (*Problem)(nil)
)

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns headers that the answer needs beside the usual ones.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType makes an answer application/problem+json.
func (p *Problem) ContentType(string) string { return problemType }

func newProblem(status int, sort, detail string) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, ID: newID()}
	if sort != "" {
		p.Type = "urn:tocsin:problem:" + sort
	}
	return p
}

func (p *Problem) with(key, value string) *Problem {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(key, value)
	return p
}

// invalid is the answer to a request that can be read and makes no sense.
func invalid(faults []Fault) *Problem {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "the request has a fault")
	if len(faults) != 1 {
		p.Detail = fmt.Sprintf("the request has %d faults", len(faults))
	}
	p.Errors = tidy(faults)
	return p
}

// tidy sorts faults by location, leaves out what was said already, and cuts their values.
func tidy(faults []Fault) []Fault {
	slices.SortStableFunc(faults, func(a, b Fault) int { return strings.Compare(a.Location, b.Location) })
	faults = slices.CompactFunc(faults, func(a, b Fault) bool { return a.Location == b.Location && a.Message == b.Message })
	const most = 200
	if len(faults) > most {
		faults = faults[:most]
	}
	for i := range faults {
		faults[i].Location = sdk.CleanText(faults[i].Location, 300)
		faults[i].Message = sdk.CleanText(faults[i].Message, 1000)
		faults[i].Value = scalar(faults[i].Value)
	}
	return faults
}

// scalar returns what of a value may be shown: a number, a bool, or the first 100 characters of a text.
func scalar(v any) any {
	switch v := v.(type) {
	case string:
		v = sdk.CleanText(v, max(len(v), 1))
		if utf8.RuneCountInString(v) > 100 {
			v = string([]rune(v)[:100]) + "…"
		}
		if v == "" {
			return nil
		}
		return v
	case json.Number:
		if len(v) > 100 {
			return nil
		}
		return v
	case bool, int, int64, uint64, float64:
		return v
	default:
		return nil
	}
}

// located says where the faults that err may be lie: in the body or the query. Other errors pass.
func located(where string, err error) error {
	var faults monitor.Faults
	if !errors.As(err, &faults) {
		return err
	}
	return invalid(faultsIn(where, faults))
}

func faultsIn(where string, faults monitor.Faults) []Fault {
	found := make([]Fault, len(faults))
	for i, f := range faults {
		found[i] = Fault{Location: where, Message: f.Message, Value: f.Value}
		if f.Field != "" {
			found[i].Location = where + "." + f.Field
		}
	}
	return found
}

// problem maps an error to the answer. What is not the client's doing is logged under the answer's id, and the client is
// told that id only.
func (a *API) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	var faults monitor.Faults
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &faults):
		return invalid(faultsIn("body", faults))
	case errors.Is(err, service.ErrUnauthenticated):
		return unauthenticated("a bearer token is needed")
	case errors.Is(err, service.ErrForbidden):
		return newProblem(http.StatusForbidden, "", strings.TrimSuffix(err.Error(), ": "+service.ErrForbidden.Error()))
	case errors.Is(err, monitor.ErrNotFound):
		return newProblem(http.StatusNotFound, "", "there is nothing with this name or id")
	case errors.Is(err, monitor.ErrStale):
		return newProblem(http.StatusPreconditionFailed, "stale", "it has changed since; read it again and repeat the change")
	case errors.Is(err, monitor.ErrConflict):
		return newProblem(http.StatusConflict, "conflict", conflictText(err))
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		p = newProblem(http.StatusServiceUnavailable, "", "the request was given up")
		return p // nobody reads it, and nothing is wrong with the server
	}
	switch {
	case errors.Is(err, monitor.ErrClosed):
		p = newProblem(http.StatusServiceUnavailable, "", "the server is shutting down").with("Retry-After", "5")
	case errors.Is(err, monitor.ErrUncertain):
		p = newProblem(http.StatusInternalServerError, "uncertain", "the change may or may not have been made; read it again")
	case errors.Is(err, context.DeadlineExceeded):
		p = newProblem(http.StatusServiceUnavailable, "", "it took too long").with("Retry-After", "5")
	default:
		p = newProblem(http.StatusInternalServerError, "", "the server could not do this; its log says why under the id")
	}
	a.log.LogAttrs(ctx, slog.LevelError, "request failed", slog.String("problem_id", p.ID), slog.Int("status", p.Status),
		slog.String("error", err.Error()))
	return p
}

// conflictText is what the error says beside "conflict" and what was tried: which monitors use a channel, that a monitor is
// paused.
func conflictText(err error) string {
	text := strings.ReplaceAll(": "+err.Error()+": ", ": "+monitor.ErrConflict.Error()+": ", ": ")
	text = strings.Trim(text, ": ")
	for {
		tried, rest, ok := strings.Cut(text, ": ")
		verb, _, _ := strings.Cut(tried, " ")
		if !ok || !slices.Contains([]string{"delete", "check", "store", "update", "create", "test", "install", "grant", "enable", "limit", "disable", "remove"}, verb) {
			break
		}
		text = rest
	}
	if text == "" {
		return "it cannot be done as things are"
	}
	return sdk.CleanText(text, 500)
}

func unauthenticated(detail string) *Problem {
	return newProblem(http.StatusUnauthorized, "", detail).with("WWW-Authenticate", `Bearer realm="tocsin"`)
}

func tooManyRequests(detail string, retry int) *Problem {
	return newProblem(http.StatusTooManyRequests, "", detail).with("Retry-After", strconv.Itoa(retry))
}

func tooLargeProblem(limit int64) *Problem {
	return newProblem(http.StatusRequestEntityTooLarge, "", fmt.Sprintf("a body may have at most %d bytes here", limit))
}

// fail answers with the problem that an error is.
func (a *API) fail(c *gin.Context, err error) {
	p := a.problem(c.Request.Context(), err)
	h := c.Writer.Header()
	for key, values := range p.headers {
		h[key] = values
	}
	h.Set("Content-Type", problemType)
	body, merr := json.Marshal(p)
	if merr != nil { // cannot be: it is text and numbers
		a.log.Error("problem cannot be written", "error", merr)
		body = []byte(`{}`)
	}
	c.Abort()
	c.Status(p.Status)
	if _, werr := c.Writer.Write(append(body, '\n')); werr != nil {
		a.log.Debug("answer was not read", "error", werr)
	}
}

// reshape turns huma's own errors, which are about parameters, into problems: huma's repeat what was sent at any length.
func (a *API) reshape(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	if model.Status != http.StatusUnprocessableEntity {
		return newProblem(model.Status, "", strings.ToLower(model.Title)), nil
	}
	faults := make([]Fault, 0, len(model.Errors))
	for _, e := range model.Errors {
		faults = append(faults, Fault{Location: e.Location, Message: reword(e.Message), Value: e.Value})
	}
	return invalid(faults), nil
}

// reword says what is wrong with a parameter as the rest of the API does.
func reword(message string) string {
	message = strings.Replace(message, "expected number >= ", "must be at least ", 1)
	message = strings.Replace(message, "expected number <= ", "must be at most ", 1)
	message = strings.Replace(message, "expected value to be one of ", "must be one of ", 1)
	message = strings.Replace(message, "invalid integer", "must be a whole number", 1)
	message = strings.Replace(message, "invalid boolean", "must be true or false", 1)
	if strings.HasPrefix(message, "invalid date/time") {
		message = "must be a time such as 2026-01-31T15:04:05Z"
	}
	return message
}
