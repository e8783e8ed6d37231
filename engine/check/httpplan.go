package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// credentials are a user and a password.
type credentials struct {
	Username string `json:"username" doc:"User name, without a colon." maxlen:"200"`
	Password string `json:"password" doc:"Password." secret:"true"`
}

type httpConfig struct {
	Method       string            `json:"method" doc:"Method of the request, in capital letters." maxlen:"20" example:"POST"`
	Headers      map[string]string `json:"headers,omitempty" doc:"Headers of the request. Their values are kept secret." secret:"true" maxlen:"100"`
	Body         string            `json:"body,omitempty" doc:"Body of the request as it is. At most one of body, json and form can be given." text:"any" maxlen:"250000"`
	JSON         json.RawMessage   `json:"json,omitempty" doc:"Body of the request as a JSON value; sets Content-Type to application/json."`
	Form         map[string]string `json:"form,omitempty" doc:"Body of the request as a form; sets Content-Type to application/x-www-form-urlencoded. The values are kept secret." secret:"true" maxlen:"100" text:"any"`
	ExpectStatus string            `json:"expect_status" doc:"Status codes that are up: codes and ranges separated by commas, or any." example:"200-299,301"`
	Basic        *credentials      `json:"basic,omitempty" doc:"User and password for basic authentication (RFC 7617)."`
	Bearer       string            `json:"bearer,omitempty" doc:"Token sent as Authorization: Bearer." secret:"true" maxlen:"8000"`
	Redirects    int               `json:"redirects" doc:"How many redirects are followed; one more is down. With 0 a redirect is an answer like any other. Headers, credentials and client certificate go to the target's own host only." min:"0" max:"20"`
	HTTPVersion  string            `json:"http_version" doc:"Version of HTTP: auto takes HTTP/2 where an HTTPS server offers it; 2 on an http:// target needs no upgrade (prior knowledge)." enum:"auto,1.1,2"`
	MaxBodyBytes int               `json:"max_body_bytes" doc:"How much of the body is read. What comes after it is not looked at." min:"0" max:"4194304"`
	Reuse        bool              `json:"reuse" doc:"Keep the connection for the next check. By default every check makes a fresh one, since connecting is part of what is watched."`
	Proxy        string            `json:"proxy,omitempty" doc:"Proxy to go through: http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT. The environment's proxy settings are not used." example:"http://proxy.example.org:3128"`
	ProxyAuth    *credentials      `json:"proxy_auth,omitempty" doc:"User and password for the proxy."`
	family
	tlsOptions
}

func defaultHTTP() httpConfig {
	return httpConfig{
		Method: http.MethodGet, ExpectStatus: "200-299", Redirects: 10, HTTPVersion: "auto", MaxBodyBytes: 1 << 20,
		family: family{IPFamily: "any"}, tlsOptions: defaultTLS(),
	}
}

// httpPlan is a parsed httpConfig: everything but the target. Monitors with equal settings share one. It never changes.
type httpPlan struct {
	method, network, version, expect string
	host                             string // Host header that the user chose; empty: the target's
	codes                            []codeRange
	redirects, maxBody               int
	body                             []byte
	header                           http.Header // with content, for HTTP/2 and kept connections
	head, content, bare              []byte      // lines of the same for HTTP/1.1: without content, of the content, for other hosts
	tls                              *tlsSettings
	userAgent                        string
	// transports carry requests through a proxy or over kept connections: to the first host, and without client
	// certificate to others. Nil when every check makes its own connection.
	transports [2]*http.Transport
	proxy      *proxyPlan // nil: none
}

// proxyPlan is what there is to know of a proxy.
type proxyPlan struct {
	address       string // host:port
	socks, secure bool   // spoken to in SOCKS, over TLS
}

// plan parses the settings, or finds the plan of another monitor with the same ones. It returns nil when there are faults.
func (c httpConfig) plan(e *env, faults *monitor.Faults) *httpPlan {
	key, err := json.Marshal(c)
	if err != nil {
		faults.Add("", nil, "cannot be read: %v", err)
		return nil
	}
	var found monitor.Faults
	plan, err := e.plans.get(sha256.Sum256(key), func() (*httpPlan, error) {
		plan := c.parse(e, &found)
		return plan, found.Err()
	})
	if err != nil {
		*faults = append(*faults, found...)
		return nil
	}
	return plan
}

func (c httpConfig) parse(e *env, faults *monitor.Faults) *httpPlan {
	p := &httpPlan{
		method: c.Method, network: c.network("tcp"), version: c.HTTPVersion, expect: c.ExpectStatus, redirects: c.Redirects,
		maxBody: c.MaxBodyBytes, userAgent: e.userAgent,
	}
	if !httpguts.ValidHeaderFieldName(c.Method) || strings.ToUpper(c.Method) != c.Method || c.Method == http.MethodConnect {
		faults.Add("method", sdk.CleanText(c.Method, 100), "must be a method in capital letters, such as GET, HEAD or POST")
	}
	codes, err := parseCodes(c.ExpectStatus)
	if err != nil {
		faults.Add("expect_status", sdk.CleanText(c.ExpectStatus, 100), "%v", err)
	}
	p.codes = codes
	contentType := c.content(p, faults)
	p.header = c.header(p, contentType, faults)
	p.lines()
	p.tls = c.settings(e, map[string][]string{"1.1": {"http/1.1"}, "2": {"h2"}}[c.HTTPVersion], faults)
	if c.HTTPVersion == "auto" {
		p.tls = c.settings(e, []string{"h2", "http/1.1"}, faults)
	}
	proxy := c.proxy(faults)
	if len(*faults) == 0 && (c.Reuse || proxy != nil) {
		if proxy != nil {
			p.proxy = planProxy(proxy)
		}
		for i, settings := range [...]*tls.Config{p.tls.config, p.tls.anonymous().config} {
			p.transports[i] = transport(e, c, settings, proxy)
		}
		runtime.AddCleanup(p, closeIdle, p.transports)
	}
	return p
}

func closeIdle(transports [2]*http.Transport) {
	for _, t := range transports {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}

func (p *httpPlan) close() { closeIdle(p.transports) }

// anonymous returns the settings for a host that is not the monitor's own: without its certificate and its name.
func (t *tlsSettings) anonymous() *tlsSettings {
	if len(t.config.Certificates) == 0 && t.config.ServerName == "" {
		return t
	}
	config := t.config.Clone()
	config.Certificates, config.ServerName = nil, ""
	return &tlsSettings{config: config}
}

// content sets the body and returns its type.
func (c httpConfig) content(p *httpPlan, faults *monitor.Faults) string {
	given := 0
	contentType := ""
	if c.Body != "" {
		given++
		p.body = []byte(c.Body)
	}
	if len(c.JSON) > 0 {
		given++
		p.body, contentType = c.JSON, "application/json"
	}
	if len(c.Form) > 0 {
		given++
		form := make(url.Values, len(c.Form))
		for name, value := range c.Form {
			form.Set(name, value)
		}
		p.body, contentType = []byte(form.Encode()), "application/x-www-form-urlencoded"
	}
	if given > 1 {
		faults.Add("body", nil, "at most one of body, json and form can be given")
	}
	return contentType
}

// header builds the header of the request. Faults never quote a value.
func (c httpConfig) header(p *httpPlan, contentType string, faults *monitor.Faults) http.Header {
	header := http.Header{"User-Agent": {p.userAgent}, "Accept": {"*/*"}}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	if c.Basic != nil {
		if strings.Contains(c.Basic.Username, ":") {
			faults.Add("basic.username", nil, "must not contain a colon")
		}
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(c.Basic.Username+":"+c.Basic.Password)))
	}
	if c.Bearer != "" {
		if c.Basic != nil {
			faults.Add("bearer", nil, "cannot be given together with basic")
		}
		header.Set("Authorization", "Bearer "+c.Bearer)
	}
	for name, value := range c.Headers {
		field := "headers." + sdk.CleanText(name, 100)
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			faults.Add(field, nil, "is not the name of a header")
		case !httpguts.ValidHeaderFieldValue(value):
			faults.Add(field, nil, "has a value that no header can have")
		case slices.Contains([]string{"Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Te", "Trailer", "Keep-Alive", "Proxy-Connection", "Expect"}, canonical):
			faults.Add(field, nil, "is set by the check itself")
		case canonical == "Authorization" && (c.Basic != nil || c.Bearer != ""):
			faults.Add(field, nil, "cannot be given together with basic or bearer")
		case canonical == "Host":
			if !httpguts.ValidHostHeader(value) || value == "" {
				faults.Add(field, nil, "is no host")
			}
			p.host = value
		default:
			header[canonical] = []string{value}
		}
	}
	return header
}

// lines writes the header as HTTP/1.1 does, in three parts.
func (p *httpPlan) lines() {
	names := make([]string, 0, len(p.header))
	for name := range p.header {
		names = append(names, name)
	}
	slices.Sort(names)
	var head, content bytes.Buffer
	for _, name := range names {
		out := &head
		if strings.HasPrefix(name, "Content-") {
			out = &content
		}
		out.WriteString(name + ": " + p.header.Get(name) + "\r\n")
	}
	if len(p.body) > 0 || slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch}, p.method) {
		content.WriteString("Content-Length: " + strconv.Itoa(len(p.body)) + "\r\n")
	}
	p.head, p.content = head.Bytes(), content.Bytes()
	p.bare = []byte("Accept: */*\r\nUser-Agent: " + p.userAgent + "\r\n")
}

// write writes a request in the form of HTTP/1.1.
func (p *httpPlan) write(buf *bytes.Buffer, h *hop) {
	buf.WriteString(h.method)
	buf.WriteByte(' ')
	buf.WriteString(h.uri)
	buf.WriteString(" HTTP/1.1\r\nHost: ")
	buf.WriteString(h.host)
	buf.WriteString("\r\nConnection: close\r\n")
	if h.bare {
		buf.Write(p.bare)
	} else {
		buf.Write(p.head)
	}
	if !h.body {
		buf.WriteString("\r\n")
		return
	}
	if !h.bare {
		buf.Write(p.content)
	}
	buf.WriteString("\r\n")
	buf.Write(p.body)
}

// request makes the same request for net/http.
func (p *httpPlan) request(ctx context.Context, h *hop) (*http.Request, error) {
	var body *bytes.Reader
	req, err := http.NewRequestWithContext(ctx, h.method, h.url, http.NoBody)
	if err != nil {
		return nil, &ownFault{err: err}
	}
	req.Host = h.host
	req.Header = p.header.Clone()
	if h.bare {
		req.Header = http.Header{"User-Agent": {p.userAgent}, "Accept": {"*/*"}}
	}
	if h.body && len(p.body) > 0 && !h.bare {
		body = bytes.NewReader(p.body)
		req, err = http.NewRequestWithContext(ctx, h.method, h.url, body)
		if err != nil {
			return nil, &ownFault{err: err}
		}
		req.Host, req.Header = h.host, p.header.Clone()
	}
	if !h.body {
		req.Header.Del("Content-Type")
	}
	return req, nil
}

// proxy parses the proxy's address.
func (c httpConfig) proxy(faults *monitor.Faults) *url.URL {
	if c.Proxy == "" {
		if c.ProxyAuth != nil {
			faults.Add("proxy_auth", nil, "needs proxy")
		}
		return nil
	}
	u, err := url.Parse(c.Proxy)
	switch {
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		faults.Add("proxy", nil, "must be http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
		return nil
	case u.User != nil:
		faults.Add("proxy", nil, "must not contain a user or password; use proxy_auth")
		return nil
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		faults.Add("proxy", nil, "must not have a path")
		return nil
	}
	if _, _, err := parseHost(u.Hostname()); err != nil {
		faults.Add("proxy", nil, "%v", err)
		return nil
	}
	if port := u.Port(); port != "" {
		if _, err := parsePort(port); err != nil {
			faults.Add("proxy", nil, "%v", err)
			return nil
		}
	}
	if c.ProxyAuth != nil {
		u.User = url.UserPassword(c.ProxyAuth.Username, c.ProxyAuth.Password)
	}
	return u
}

func planProxy(u *url.URL) *proxyPlan {
	p := &proxyPlan{socks: strings.HasPrefix(u.Scheme, "socks5"), secure: u.Scheme == "https"}
	port := u.Port()
	switch {
	case port != "":
	case p.socks:
		port = "1080"
	case p.secure:
		port = "443"
	default:
		port = "80"
	}
	p.address = net.JoinHostPort(u.Hostname(), port)
	return p
}

// keptFor is how long a connection is kept that no check uses.
const keptFor = 5 * time.Minute

func transport(e *env, c httpConfig, settings *tls.Config, proxy *url.URL) *http.Transport {
	network := c.network("tcp")
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			p, err := parseEndpoint(address, 0)
			if err != nil {
				return nil, &failure{phase: "connecting", peer: address, err: err}
			}
			var timing sdk.Timing // the request's trace measures instead: this may outlive the request
			return e.dial(ctx, network, p, &timing)
		},
		TLSClientConfig: settings.Clone(), DisableKeepAlives: !c.Reuse, DisableCompression: true,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: keptFor, MaxResponseHeaderBytes: maxHeaderBytes, Protocols: new(http.Protocols),
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
		t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			return &refusedByProxy{"it answered " + sdk.CleanText(resp.Status, 100)}
		}
	}
	if c.HTTPVersion != "2" {
		t.Protocols.SetHTTP1(true)
	}
	if c.HTTPVersion != "1.1" {
		t.Protocols.SetHTTP2(true)
	}
	if c.HTTPVersion == "2" {
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}
