// Package api is the HTTP API: gin routes, huma describes and decodes, the service decides. Beside /api/v1 it answers
// heartbeats, health and readiness, metrics, and the documents that describe it.
package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/oklog/ulid/v2"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
)

const prefix = "/api/v1"

// Options is what New needs. Service must be set.
type Options struct {
	Service *service.Service
	Log     *slog.Logger // nil discards
	// TrustedProxies are addresses and networks (192.0.2.0/24) of proxies whose X-Forwarded-For is believed; empty: none,
	// and the address of a client is the one that the connection comes from.
	TrustedProxies []string
	// MaxStreams is how many clients may read /events at once; 0 is 256.
	MaxStreams int
	// FailuresPerMinute is how many wrong tokens an address may send in a minute; 0 is 20.
	FailuresPerMinute int
	// Heartbeat is how often an idle stream says that it is alive; 0 is 15 s.
	Heartbeat time.Duration
}

// API answers HTTP requests. It starts no goroutine of its own.
type API struct {
	svc     *service.Service
	log     *slog.Logger
	opts    Options
	engine  *gin.Engine
	huma    huma.API
	metrics *metrics

	wrongTokens *limiter
	wrongPushes *limiter
	streams     chan struct{} // a place for each stream
	uploads     chan struct{} // a place for each archive that is being sent or installed
	closing     chan struct{}
	closeOnce   sync.Once
	recheck     time.Duration

	docs documents
}

// New returns an API.
func New(o Options) (*API, error) {
	if o.Service == nil {
		return nil, errors.New("make api: service must be set")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = 256
	}
	if o.FailuresPerMinute <= 0 {
		o.FailuresPerMinute = 20
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 15 * time.Second
	}
	gin.SetMode(gin.ReleaseMode) // else gin prints every route; the mode is atomic and the same for every API
	a := &API{
		svc: o.Service, log: o.Log, opts: o, engine: gin.New(),
		wrongTokens: newLimiter(o.FailuresPerMinute, time.Minute),
		wrongPushes: newLimiter(3*o.FailuresPerMinute, time.Minute),
		streams:     make(chan struct{}, o.MaxStreams),
		uploads:     make(chan struct{}, maxUploads),
		closing:     make(chan struct{}),
		recheck:     recheckEvery,
	}
	a.metrics = newMetrics(a)
	if err := a.engine.SetTrustedProxies(o.TrustedProxies); err != nil {
		return nil, fmt.Errorf("make api: trusted proxies: %w", err)
	}
	a.engine.HandleMethodNotAllowed = true
	a.engine.RedirectTrailingSlash = false
	a.engine.RedirectFixedPath = false
	a.engine.NoRoute(func(c *gin.Context) { a.fail(c, newProblem(http.StatusNotFound, "", "there is nothing at this path")) })
	a.engine.NoMethod(func(c *gin.Context) {
		a.fail(c, newProblem(http.StatusMethodNotAllowed, "", "this path does not take the method; see the Allow header"))
	})
	a.engine.Use(a.observe, a.recover, secure)
	a.huma = humagin.New(a.engine, a.config())
	a.routes()
	if err := a.document(); err != nil {
		return nil, fmt.Errorf("make api: %w", err)
	}
	return a, nil
}

// config is huma's, without what it does by default beyond describing and decoding: no $schema in answers, no documents
// that load code from elsewhere.
func (a *API) config() huma.Config {
	c := huma.DefaultConfig("Tocsin", a.svc.Version())
	c.Info.Description = "Tocsin watches hosts and services and raises the alarm. Times are RFC 3339 in UTC, durations are text " +
		`such as "30s", and every error is application/problem+json.`
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.CreateHooks = nil
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.RejectUnknownQueryParameters = false // unknownParameters does, together with everything else that is wrong
	c.Transformers = []huma.Transformer{a.reshape}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token, made with POST /api/v1/tokens."},
	}
	return c
}

// Handler returns what answers requests.
func (a *API) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.URL.Path != prefix+"/events" {
			// The server's writer knows that it was HEAD, and leaves the body out.
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		a.engine.ServeHTTP(w, r)
	})
}

// Close ends the streams, which http.Server.Shutdown would wait for. Calling it twice is fine.
func (a *API) Close() { a.closeOnce.Do(func() { close(a.closing) }) }

// route is one operation.
type route struct {
	id, method, path string // the path below /api/v1
	tag, summary     string
	description      string
	role             monitor.Role // the lowest that may
	status           int          // of success; 0 is 200, or 204 without a body
	body             reflect.Type // of the request's body; nil: it has none
	optional         bool         // the body may be left out
	types            []string     // media types of the body beside application/json
	archive          bool         // the body is the archive of a plugin
	responses        map[string]*huma.Response
}

const roleKey = "role"

// handle registers an operation. Errors that fn returns become problems.
func handle[I, O any](a *API, r route, fn func(context.Context, *I) (*O, error)) {
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: prefix + r.path, Tags: []string{r.tag}, DefaultStatus: r.status,
		Summary: r.summary, Description: strings.TrimSpace(r.description + "\n\nNeeds the role " + string(r.role) + "."),
		Security:    []map[string][]string{{"token": {}}},
		Metadata:    map[string]any{roleKey: r.role},
		Middlewares: huma.Middlewares{a.authorize(r.role)},
		Responses:   map[string]*huma.Response{"default": a.problemResponse()},
	}
	for status, response := range r.responses {
		op.Responses[status] = response
	}
	if strings.Contains(r.path, "{id}") {
		op.Middlewares = append(op.Middlewares, a.knownID)
	}
	switch {
	case r.archive:
		op.Middlewares = append(op.Middlewares, a.readArchive)
	case r.body != nil:
		op.Middlewares = append(op.Middlewares, a.readBody(r.optional))
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
	if r.body == nil && !r.archive {
		return
	}
	// huma would read the body itself if it knew of it before.
	made := a.operation(r.method, prefix+r.path)
	made.RequestBody = &huma.RequestBody{Required: !r.optional, Content: map[string]*huma.MediaType{}}
	if r.archive {
		for _, media := range archiveTypes() {
			made.RequestBody.Content[media] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
		}
		return
	}
	for _, media := range append([]string{jsonType}, r.types...) {
		made.RequestBody.Content[media] = &huma.MediaType{Schema: a.schema(r.body)}
	}
}

func (a *API) operation(method, path string) *huma.Operation {
	item := a.huma.OpenAPI().Paths[path]
	if item == nil {
		return nil
	}
	switch method {
	case http.MethodGet:
		return item.Get
	case http.MethodPost:
		return item.Post
	case http.MethodPut:
		return item.Put
	case http.MethodPatch:
		return item.Patch
	case http.MethodDelete:
		return item.Delete
	default:
		return nil
	}
}

func (a *API) problemResponse() *huma.Response {
	return &huma.Response{
		Description: "Something is wrong.",
		Content:     map[string]*huma.MediaType{problemType: {Schema: a.schema(reflect.TypeFor[Problem]())}},
	}
}

func (a *API) routes() {
	a.monitorRoutes()
	a.historyRoutes()
	a.channelRoutes()
	a.catalogueRoutes()
	a.pluginRoutes()
	a.tokenRoutes()
	a.eventRoutes()
	a.statusRoutes()

	a.engine.GET("/healthz", a.healthz)
	a.engine.GET("/readyz", a.readyz)
	for _, path := range []string{"/push/:token", "/api/push/:token"} {
		a.engine.GET(path, a.push)
		a.engine.POST(path, a.push)
	}
	a.engine.GET("/metrics", a.needs(monitor.Viewer), a.metrics.serve)
	a.engine.GET("/openapi.json", a.needs(monitor.Viewer), a.openAPI)
	a.engine.GET("/openapi.yaml", a.needs(monitor.Viewer), a.openAPI)
	a.engine.GET("/docs", a.needs(monitor.Viewer), a.docsPage)
}

func newID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }
