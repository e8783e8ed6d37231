package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

const (
	defaultURL     = "http://127.0.0.1:8080"
	requestTimeout = 2 * time.Minute // a check on request may take as long as its monitor allows
	maxAnswer      = 64 << 20
)

// client talks to one server's API.
type client struct {
	base    string // http://host:port, without a slash at the end
	token   string
	version string
	http    *http.Client
}

// client makes a client from TOCSIN_URL and TOCSIN_TOKEN.
func (a *app) client() (*client, error) {
	if err := a.mistyped(); err != nil {
		return nil, err
	}
	base := a.env("TOCSIN_URL")
	if base == "" {
		base = defaultURL
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usage("TOCSIN_URL must begin with http:// or https://, name a host, and have no user or query")
	}
	token := a.env("TOCSIN_TOKEN")
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usage("TOCSIN_TOKEN must be visible ASCII without spaces")
	}
	return &client{base: strings.TrimRight(base, "/"), token: token, version: a.Version, http: &http.Client{
		Timeout: requestTimeout,
		// The token goes to the address that was given and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

const envPrefix = "TOCSIN_"

// mistyped refuses variables that look like a slip in TOCSIN_URL or TOCSIN_TOKEN: without them another server would be
// asked, or none. The server's settings may stand there as well.
func (a *app) mistyped() error {
	own := []string{envPrefix + "URL", envPrefix + "TOKEN"}
	known := append([]string{envPrefix + "CONFIG"}, own...)
	for _, s := range a.Server.Settings() {
		known = append(known, s.Env)
	}
	for _, pair := range slices.Sorted(slices.Values(a.Environ)) {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) {
			continue
		}
		if near := monitor.Nearest(name, own); near != "" {
			return usage("%s: no setting has this name; did you mean %s?", name, near)
		}
	}
	return nil
}

// problem is an error answer as RFC 9457 has it, with one entry for each fault.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
		Value    any    `json:"value"`
	} `json:"errors"`
}

// clean leaves out what a terminal would obey: a server may quote what a stranger wrote.
func (p *problem) clean() {
	p.Title, p.Detail = sdk.CleanText(p.Title, 1000), sdk.CleanText(p.Detail, 1000)
	for i := range p.Errors {
		f := &p.Errors[i]
		f.Message, f.Location = sdk.CleanText(f.Message, 1000), sdk.CleanText(f.Location, 300)
		if text, ok := f.Value.(string); ok {
			f.Value = sdk.CleanText(text, 300)
		}
	}
}

// apiError is an answer that is no success.
type apiError struct {
	status  int
	problem problem
}

// Error writes what the server said, every fault on a line of its own.
func (e *apiError) Error() string {
	text := e.problem.Detail
	if text == "" {
		text = e.problem.Title
	}
	if text == "" {
		text = http.StatusText(e.status)
	}
	text = fmt.Sprintf("%s (%d)", text, e.status)
	for _, f := range e.problem.Errors {
		text += "\n  "
		if at := strings.TrimPrefix(f.Location, "body."); at != "" && at != "body" {
			text += at + ": "
		}
		text += f.Message
		if f.Value != nil {
			text += fmt.Sprintf(" (got %v)", f.Value)
		}
	}
	return text
}

// call sends a request and decodes the answer into out, a pointer, or nil when the answer does not matter. A body is sent
// as JSON. The error is a CodedError with ExitAuth when the server refused the token.
func (c *client) call(ctx context.Context, method, path string, body, out any) error {
	if body == nil {
		return c.send(ctx, method, path, payload{}, out)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	p := payload{media: "application/json", body: bytes.NewReader(data)}
	if method == http.MethodPatch {
		p.media = "application/merge-patch+json"
	}
	return c.send(ctx, method, path, p, out)
}

// payload is a request's body; the zero value is none.
type payload struct {
	media string
	body  io.Reader
}

// send is call with a body of any media type.
func (c *client) send(ctx context.Context, method, path string, p payload, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, p.body)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("User-Agent", "tocsin-cli/"+c.version)
	req.Header.Set("Accept", "application/json, application/problem+json")
	if p.media != "" {
		req.Header.Set("Content-Type", p.media)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the server's answer: %w", err)
	case len(data) > maxAnswer:
		return fmt.Errorf("read the server's answer: it is larger than %d MiB", maxAnswer>>20)
	}
	if resp.StatusCode/100 == 2 {
		if out == nil || len(data) == 0 {
			return nil
		}
		if err := json.Unmarshal(data, out); err != nil {
			return fmt.Errorf("read the server's answer: %w (is %s a Tocsin server?)", err, c.base)
		}
		return nil
	}
	return refusal(resp, data, c.token)
}

// unreachable says why no server was reached, without the request's address, which net/http repeats.
func (c *client) unreachable(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	var name *net.DNSError
	why := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "connection refused"
	case errors.As(err, &name) && name.IsNotFound:
		why = "no such host"
	case errors.As(err, &name):
		why = "the name could not be resolved"
	case at != nil && at.Timeout():
		why = "it took too long"
	default:
		return fmt.Errorf("reach the server at %s: %w", c.base, err)
	}
	return &CodedError{Code: ExitError, Err: fmt.Errorf("no server answers at %s (%s); is TOCSIN_URL right?", c.base, why)}
}

func refusal(resp *http.Response, data []byte, token string) error {
	e := &apiError{status: resp.StatusCode}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(data, &e.problem); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		e.problem.clean()
	} else if location := resp.Header.Get("Location"); location != "" {
		e.problem.Detail = "the server sends on to " + sdk.CleanText(location, 200) + "; set TOCSIN_URL to where it is"
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if token == "" {
			return &CodedError{Code: ExitAuth, Err: fmt.Errorf("the server wants a token: set TOCSIN_TOKEN (%w)", e)}
		}
		return &CodedError{Code: ExitAuth, Err: e}
	case http.StatusForbidden:
		return &CodedError{Code: ExitAuth, Err: e}
	}
	return e
}

func isNotFound(err error) bool {
	var e *apiError
	return errors.As(err, &e) && e.status == http.StatusNotFound
}

// page is one part of a list, its items left as the server wrote them.
type page struct {
	Items      []json.RawMessage `json:"items"`
	NextCursor *string           `json:"next_cursor"`
}

// list returns every item of a list, whatever the number of pages.
func (c *client) list(ctx context.Context, path string, query url.Values) ([]json.RawMessage, error) {
	all := []json.RawMessage{}
	for {
		var p page
		at := path
		if len(query) > 0 {
			at += "?" + query.Encode()
		}
		if err := c.call(ctx, http.MethodGet, at, nil, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.NextCursor == nil || *p.NextCursor == "" {
			return all, nil
		}
		if query == nil {
			query = url.Values{}
		}
		query.Set("cursor", *p.NextCursor)
	}
}

// named is what everything that has a name has.
type named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// find returns the object below path, /monitors or /channels, with an id or a name.
func (c *client) find(ctx context.Context, path, idOrName string) (json.RawMessage, named, error) {
	query := url.Values{}
	if path == monitorsPath {
		query.Set("q", idOrName)
		query.Set("limit", "1000")
	}
	items, err := c.list(ctx, path, query)
	if err != nil {
		return nil, named{}, err
	}
	for _, item := range items {
		var n named
		if err := json.Unmarshal(item, &n); err != nil {
			return nil, named{}, fmt.Errorf("read the server's answer: %w", err)
		}
		if n.Name == idOrName {
			return item, n, nil
		}
	}
	// A name goes before an id: an id can be looked up, a name that looks like one could not be reached otherwise.
	if isULID(idOrName) {
		var item json.RawMessage
		err := c.call(ctx, http.MethodGet, path+"/"+url.PathEscape(idOrName), nil, &item)
		if err == nil {
			var n named
			if err := json.Unmarshal(item, &n); err != nil {
				return nil, named{}, fmt.Errorf("read the server's answer: %w", err)
			}
			return item, n, nil
		}
		if !isNotFound(err) {
			return nil, named{}, err
		}
	}
	return nil, named{}, &missingError{path, []string{idOrName}}
}

// missingError says that the server has nothing with these names.
type missingError struct {
	path  string // monitorsPath, channelsPath or pluginsPath
	names []string
}

// Error lists the names.
func (m *missingError) Error() string {
	quoted := make([]string, len(m.names))
	for i, name := range m.names {
		quoted[i] = strconv.Quote(name)
	}
	return "there is no " + strings.TrimSuffix(strings.TrimPrefix(m.path, "/"), "s") + " named " + strings.Join(quoted, " or ")
}

// findAll returns the objects with these ids or names, each once. When some are not there the error lists them all.
func (c *client) findAll(ctx context.Context, path string, idsOrNames []string) ([]named, error) {
	var found []named
	missing := &missingError{path: path}
	for _, idOrName := range idsOrNames {
		_, n, err := c.find(ctx, path, idOrName)
		var none *missingError
		switch {
		case errors.As(err, &none):
			missing.names = append(missing.names, none.names...)
		case err != nil:
			return nil, err
		case !slices.Contains(found, n):
			found = append(found, n)
		}
	}
	if len(missing.names) > 0 {
		return nil, fmt.Errorf("%w; nothing was changed", missing)
	}
	return found, nil
}

// isULID reports whether a text has the form of an id: 26 characters of Crockford's base 32.
func isULID(text string) bool {
	return len(text) == 26 && strings.Trim(strings.ToUpper(text), "0123456789ABCDEFGHJKMNPQRSTVWXYZ") == ""
}

const (
	monitorsPath = "/monitors"
	channelsPath = "/channels"
	pluginsPath  = "/plugins"
)
