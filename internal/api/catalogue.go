package api

import (
	"context"
	"net/http"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// Kind is a sort of check.
type Kind struct {
	Name      string     `json:"name"`
	Doc       string     `json:"doc"`
	Target    string     `json:"target" doc:"An example."`
	Schema    object     `json:"schema" doc:"JSON Schema (2020-12) of a monitor's config. writeOnly marks secrets, x-generated what the server makes up."`
	Variables []Variable `json:"variables" nullable:"false" doc:"What assert and degrade can use."`
}

// Variable is a value that expressions can use.
type Variable struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Doc     string `json:"doc"`
	Example string `json:"example"`
}

// Provider is a way to deliver notifications.
type Provider struct {
	Name   string `json:"name"`
	Doc    string `json:"doc"`
	Link   string `json:"link,omitempty" doc:"Where the receiving service documents itself."`
	Schema object `json:"schema" doc:"JSON Schema (2020-12) of a channel's config. writeOnly marks secrets."`
}

type (
	byName struct {
		StrictQuery
		Name string `path:"name"`
	}
	kindsOut     struct{ Body page[Kind] }
	kindOut      struct{ Body Kind }
	providersOut struct{ Body page[Provider] }
	providerOut  struct{ Body Provider }
)

func (a *API) catalogueRoutes() {
	handle(a, route{
		id: "list-kinds", method: http.MethodGet, path: "/kinds", tag: "catalogue", role: monitor.Viewer,
		summary: "What can be checked",
	}, a.listKinds)
	handle(a, route{
		id: "get-kind", method: http.MethodGet, path: "/kinds/{name}", tag: "catalogue", role: monitor.Viewer,
		summary: "One sort of check",
	}, func(ctx context.Context, in *byName) (*kindOut, error) {
		all, err := a.kinds(ctx)
		if err != nil {
			return nil, err
		}
		for i := range all {
			if all[i].Name == in.Name {
				return &kindOut{all[i]}, nil
			}
		}
		return nil, monitor.ErrNotFound
	})
	handle(a, route{
		id: "list-providers", method: http.MethodGet, path: "/providers", tag: "catalogue", role: monitor.Viewer,
		summary: "What can deliver notifications",
	}, func(ctx context.Context, _ *anything) (*providersOut, error) {
		all, err := a.providers(ctx)
		return &providersOut{page[Provider]{Items: all}}, err
	})
	handle(a, route{
		id: "get-provider", method: http.MethodGet, path: "/providers/{name}", tag: "catalogue", role: monitor.Viewer,
		summary: "One way to deliver notifications",
	}, func(ctx context.Context, in *byName) (*providerOut, error) {
		all, err := a.providers(ctx)
		if err != nil {
			return nil, err
		}
		for i := range all {
			if all[i].Name == in.Name {
				return &providerOut{all[i]}, nil
			}
		}
		return nil, monitor.ErrNotFound
	})
}

func (a *API) listKinds(ctx context.Context, _ *anything) (*kindsOut, error) {
	all, err := a.kinds(ctx)
	return &kindsOut{page[Kind]{Items: all}}, err
}

func (a *API) kinds(ctx context.Context) ([]Kind, error) {
	found, err := a.svc.Kinds(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Kind, len(found))
	for i, k := range found {
		all[i] = Kind{Name: k.Name, Doc: k.Doc, Target: k.Target, Schema: object(k.Schema()), Variables: []Variable{}}
		for _, v := range k.Variables() {
			all[i].Variables = append(all[i].Variables, Variable{Name: v.Name, Type: v.Type, Doc: v.Doc, Example: v.Example})
		}
	}
	return all, nil
}

func (a *API) providers(ctx context.Context) ([]Provider, error) {
	found, err := a.svc.Providers(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Provider, len(found))
	for i, p := range found {
		all[i] = Provider{Name: p.Name, Doc: p.Doc, Link: p.Link, Schema: object(p.Schema())}
	}
	return all, nil
}
