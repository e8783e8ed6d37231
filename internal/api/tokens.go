package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
)

// TokenSpec is what a person writes to have a token.
type TokenSpec struct {
	Name      string     `json:"name" minLength:"1" maxLength:"100" doc:"Unique among tokens; one line; not of the form of an id (ULID)." example:"ci"`
	Role      string     `json:"role" enum:"admin,editor,viewer" doc:"An admin may do everything, an editor writes monitors and channels, a viewer reads."`
	ExpiresAt *timestamp `json:"expires_at,omitempty" doc:"Left out: never."`
}

// Token is a token as answers have it.
type Token struct {
	ID         string     `json:"id" doc:"A ULID."`
	Name       string     `json:"name"`
	Role       string     `json:"role" enum:"admin,editor,viewer"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at" doc:"null: never."`
	LastUsedAt *time.Time `json:"last_used_at" doc:"At most a minute late; null: never."`
}

// NewToken is a token that was just made.
type NewToken struct {
	Token
	Secret string `json:"token" doc:"What to send as Authorization: Bearer …. It is shown this once."`
}

// Me is who asks.
type Me struct {
	Name    string `json:"name" doc:"Of the token."`
	Role    string `json:"role" enum:"admin,editor,viewer"`
	TokenID string `json:"token_id"`
}

func tokenOf(t *monitor.Token) Token {
	return Token{
		ID: t.ID, Name: t.Name, Role: string(t.Role), CreatedAt: t.CreatedAt.UTC(), ExpiresAt: when(t.ExpiresAt), LastUsedAt: when(t.LastUsedAt),
	}
}

type (
	tokensOut   struct{ Body page[Token] }
	newTokenOut struct{ Body NewToken }
	meOut       struct{ Body Me }
)

func (a *API) tokenRoutes() {
	handle(a, route{
		id: "list-tokens", method: http.MethodGet, path: "/tokens", tag: "tokens", role: monitor.Admin,
		summary: "List API tokens, without what they are",
	}, func(ctx context.Context, _ *anything) (*tokensOut, error) {
		found, err := a.svc.Tokens(ctx)
		if err != nil {
			return nil, err
		}
		return &tokensOut{pageOf(found, "", tokenOf)}, nil
	})
	handle(a, route{
		id: "create-token", method: http.MethodPost, path: "/tokens", tag: "tokens", role: monitor.Admin, status: http.StatusCreated,
		summary: "Make an API token", description: "The token is shown this once: only its hash is kept.",
		body: reflect.TypeFor[TokenSpec](),
	}, a.createToken)
	handle(a, route{
		id: "delete-token", method: http.MethodDelete, path: "/tokens/{id}", tag: "tokens", role: monitor.Admin,
		summary: "End an API token at once",
	}, func(ctx context.Context, in *ByID) (*nothing, error) {
		return nil, a.svc.DeleteToken(ctx, in.ID)
	})
	handle(a, route{
		id: "get-me", method: http.MethodGet, path: "/me", tag: "tokens", role: monitor.Viewer,
		summary: "Who asks",
	}, func(ctx context.Context, _ *anything) (*meOut, error) {
		p, ok := service.PrincipalOf(ctx)
		if !ok {
			return nil, service.ErrUnauthenticated
		}
		return &meOut{Me{Name: p.Name, Role: string(p.Role), TokenID: p.TokenID}}, nil
	})
}

func (a *API) createToken(ctx context.Context, _ *anything) (*newTokenOut, error) {
	d, err := decode[TokenSpec](ctx, a)
	if err != nil {
		return nil, err
	}
	in := service.TokenInput{Name: d.Value.Name, Role: monitor.Role(d.Value.Role), ExpiresAt: d.Value.ExpiresAt.read("body.expires_at", &d.Faults)}
	if len(d.Faults) > 0 {
		d.also(faultsIn("body", a.svc.CheckToken(ctx, in)))
		return nil, invalid(d.Faults)
	}
	t, secret, err := a.svc.CreateToken(ctx, in)
	if err != nil {
		return nil, err
	}
	return &newTokenOut{NewToken{Token: tokenOf(&t), Secret: secret}}, nil
}
