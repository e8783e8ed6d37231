package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// secure sets what every answer has: nothing is kept, guessed at, or framed.
func secure(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// observe counts requests and notes them at debug level: by the route's pattern, never by the path or the query, which may
// hold tokens.
func (a *API) observe(c *gin.Context) {
	start := time.Now()
	c.Next()
	route, took := c.FullPath(), time.Since(start)
	if route == "" {
		route = "none"
	}
	a.metrics.request(route, c.Request.Method, c.Writer.Status(), took)
	ctx := c.Request.Context()
	if !a.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	who := ""
	if p, ok := service.PrincipalOf(ctx); ok {
		who = p.Name
	}
	a.log.LogAttrs(ctx, slog.LevelDebug, "request", slog.String("method", c.Request.Method), slog.String("route", route),
		slog.Int("status", c.Writer.Status()), slog.Int("bytes", max(c.Writer.Size(), 0)), slog.Duration("took", took),
		slog.String("from", c.ClientIP()), slog.String("who", who))
}

// recover turns a panic into a 500 whose id is in the log with the stack.
func (a *API) recover(c *gin.Context) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if err, ok := cause.(error); ok && err == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			panic(cause)
		}
		p := newProblem(http.StatusInternalServerError, "", "the server could not do this; its log says why under the id")
		a.log.Error("panic while answering a request", "problem_id", p.ID, "route", c.FullPath(), "method", c.Request.Method,
			"panic", sdk.CleanText(fmt.Sprint(cause), 1024), "stack", string(debug.Stack()))
		if c.Writer.Written() {
			// Half an answer is out. The client must not take it for a whole one.
			panic(http.ErrAbortHandler)
		}
		for key := range c.Writer.Header() {
			if strings.HasPrefix(key, "Content-") && key != "Content-Security-Policy" || key == "Etag" || key == "Location" {
				c.Writer.Header().Del(key)
			}
		}
		a.fail(c, p)
	}()
	c.Next()
}
