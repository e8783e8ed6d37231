package api

import (
	"errors"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
)

// authenticate finds out who asks and puts it into the request's context.
func (a *API) authenticate(c *gin.Context) error {
	given := c.GetHeader("Authorization")
	scheme, token, _ := strings.Cut(given, " ")
	token = strings.TrimSpace(token)
	if given == "" || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return unauthenticated("a bearer token is needed: Authorization: Bearer tcs_…")
	}
	ctx, from := c.Request.Context(), c.ClientIP()
	wait := a.wrongTokens.wait(from)
	if wait > 0 && !a.svc.Remembers(token) {
		// Tokens that were good a moment ago still are: else one forgotten script behind a proxy would lock out everybody.
		return tooManyRequests("too many wrong tokens from this address", wait)
	}
	p, err := a.svc.Authenticate(ctx, token)
	if errors.Is(err, service.ErrUnauthenticated) {
		a.wrongTokens.count(from)
		a.log.Info("wrong token", "from", from, "path", c.FullPath())
		return unauthenticated("the token is not valid, or no longer").
			with("WWW-Authenticate", `Bearer realm="tocsin", error="invalid_token"`)
	}
	if err != nil {
		return err
	}
	p.From = from
	c.Request = c.Request.WithContext(service.WithPrincipal(ctx, p))
	return nil
}

// needs is for routes that huma does not know.
func (a *API) needs(role monitor.Role) gin.HandlerFunc {
	return func(c *gin.Context) {
		err := a.authenticate(c)
		if err == nil {
			err = service.Allow(c.Request.Context(), role)
		}
		if err != nil {
			a.fail(c, err)
		}
	}
}

// authorize lets those with the role in, before anything of the request is read. The service asks again.
func (a *API) authorize(role monitor.Role) func(huma.Context, func(huma.Context)) {
	check := a.needs(role)
	return func(ctx huma.Context, next func(huma.Context)) {
		c := humagin.Unwrap(ctx)
		if check(c); !c.IsAborted() {
			next(huma.WithContext(ctx, c.Request.Context()))
		}
	}
}
