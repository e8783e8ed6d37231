package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// ChannelSpec is what a person writes of a channel.
type ChannelSpec struct {
	Name     string     `json:"name" minLength:"1" maxLength:"200" doc:"Unique among channels; one line; not of the form of an id (ULID)." example:"ops"`
	Provider string     `json:"provider" doc:"What delivers; see /providers." example:"webhook"`
	Config   object     `json:"config,omitempty" doc:"What the provider's schema describes. Secrets are shown as ••••, and ••••, sent back, keeps the one that is stored, as long as the provider and the rest of config stay as they are."`
	Filter   FilterSpec `json:"filter,omitempty" doc:"What the channel takes. Left out: down and up of every monitor that names it."`
	Disabled bool       `json:"disabled,omitempty" doc:"A disabled channel gets nothing."`
}

// FilterSpec says what a channel takes.
type FilterSpec struct {
	Transitions []string          `json:"transitions,omitempty" nullable:"false" enum:"down,up,degraded,unknown,test" doc:"Left out: down, up."`
	Labels      map[string]string `json:"labels,omitempty" doc:"Labels that a monitor must have; all of them."`
}

// input reads no texts: what may be wrong with a channel is for its shape and for the service.
func (c *ChannelSpec) input(*[]Fault) service.ChannelInput {
	in := service.ChannelInput{
		Name: c.Name, Provider: c.Provider, Config: json.RawMessage(c.Config), Disabled: c.Disabled,
		Filter: monitor.Filter{Labels: c.Filter.Labels},
	}
	for _, t := range c.Filter.Transitions {
		in.Filter.Transitions = append(in.Filter.Transitions, sdk.Transition(t))
	}
	return in
}

// Channel is a channel as answers have it.
type Channel struct {
	ID        string    `json:"id" doc:"A ULID."`
	Name      string    `json:"name"`
	Provider  string    `json:"provider"`
	Config    object    `json:"config" doc:"Secrets are shown as ••••."`
	Filter    Filter    `json:"filter"`
	Disabled  bool      `json:"disabled"`
	Revision  int64     `json:"revision" doc:"1 when created, one more at each change; the ETag."`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Health    Health    `json:"health"`
}

// Filter is what a channel takes.
type Filter struct {
	Transitions []string          `json:"transitions" nullable:"false" doc:"Empty: down, up."`
	Labels      map[string]string `json:"labels"`
}

// Health is how a channel has fared.
type Health struct {
	LastSuccessAt *time.Time `json:"last_success_at" doc:"null: never."`
	LastErrorAt   *time.Time `json:"last_error_at" doc:"null: never."`
	LastError     *string    `json:"last_error"`
	Streak        int        `json:"streak" doc:"Failures in a row; 0 after a success."`
}

func channelOf(v *service.ChannelView) Channel {
	c := Channel{
		ID: v.ID, Name: v.Name, Provider: v.Provider, Config: object(v.Config), Disabled: v.Disabled, Revision: v.Revision,
		CreatedAt: v.CreatedAt.UTC(), UpdatedAt: v.UpdatedAt.UTC(),
		Filter: Filter{Transitions: make([]string, 0, len(v.Filter.Transitions)), Labels: v.Filter.Labels},
		Health: Health{
			LastSuccessAt: when(v.Health.LastSuccessAt), LastErrorAt: when(v.Health.LastErrorAt),
			LastError: textOrNil(v.Health.LastError), Streak: v.Health.Streak,
		},
	}
	for _, t := range v.Filter.Transitions {
		c.Filter.Transitions = append(c.Filter.Transitions, string(t))
	}
	if c.Filter.Labels == nil {
		c.Filter.Labels = map[string]string{}
	}
	return c
}

func (c *Channel) spec() ChannelSpec {
	return ChannelSpec{
		Name: c.Name, Provider: c.Provider, Config: c.Config, Disabled: c.Disabled,
		Filter: FilterSpec{Transitions: c.Filter.Transitions, Labels: c.Filter.Labels},
	}
}

type (
	channelsOut struct{ Body page[Channel] }
	testOut     struct{ Body TestResult }
)

// TestResult is what came of a test notification.
type TestResult struct {
	OK    bool    `json:"ok" doc:"Whether the receiver took it."`
	Error *string `json:"error" doc:"What the receiver, or the way to it, said; null when it took it."`
}

func (a *API) channelRoutes() {
	spec := reflect.TypeFor[ChannelSpec]()
	r := resource[ChannelSpec, service.ChannelInput, service.ChannelView, Channel]{
		api: a, path: "/channels/", find: a.svc.Channel, check: a.svc.CheckChannel, create: a.svc.CreateChannel, replace: a.svc.ReplaceChannel,
		remove: a.svc.DeleteChannel, input: (*ChannelSpec).input, body: channelOf, spec: (*Channel).spec,
		identity: func(b *Channel) (string, int64) { return b.ID, b.Revision },
	}
	handle(a, route{
		id: "list-channels", method: http.MethodGet, path: "/channels", tag: "channels", role: monitor.Viewer,
		summary: "List channels with their health",
	}, a.listChannels)
	handle(a, route{
		id: "create-channel", method: http.MethodPost, path: "/channels", tag: "channels", role: monitor.Editor, status: http.StatusCreated,
		summary: "Add a place where notifications go", body: spec,
	}, r.post)
	handle(a, route{
		id: "get-channel", method: http.MethodGet, path: "/channels/{id}", tag: "channels", role: monitor.Viewer,
		summary: "Show one channel",
	}, r.get)
	handle(a, route{
		id: "replace-channel", method: http.MethodPut, path: "/channels/{id}", tag: "channels", role: monitor.Editor,
		summary: "Replace a channel", body: spec, description: "What is left out takes its default.",
	}, r.put)
	handle(a, route{
		id: "patch-channel", method: http.MethodPatch, path: "/channels/{id}", tag: "channels", role: monitor.Editor,
		summary: "Change a part of a channel", body: spec, types: []string{patchType},
		description: "A merge patch (RFC 7396): null takes a field back to its default. Nothing is required here.",
	}, r.patch)
	handle(a, route{
		id: "delete-channel", method: http.MethodDelete, path: "/channels/{id}", tag: "channels", role: monitor.Editor,
		summary: "Remove a channel", description: "409 while monitors name it.",
	}, r.delete)
	handle(a, route{
		id: "test-channel", method: http.MethodPost, path: "/channels/{id}/test", tag: "channels", role: monitor.Editor,
		summary: "Send a test notification now", description: "Waits for what comes of it, at most 30 s.",
	}, a.testChannel)
}

func (a *API) listChannels(ctx context.Context, _ *anything) (*channelsOut, error) {
	found, err := a.svc.Channels(ctx)
	if err != nil {
		return nil, err
	}
	return &channelsOut{pageOf(found, "", channelOf)}, nil
}

func (a *API) testChannel(ctx context.Context, in *ByID) (*testOut, error) {
	refused, err := a.svc.TestChannel(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &testOut{TestResult{OK: refused == nil}}
	if refused != nil {
		text := sdk.CleanText(refused.Error(), 1000)
		out.Body.Error = &text
	}
	return out, nil
}
