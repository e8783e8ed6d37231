package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"sort"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
)

// documents describe the API. They are made once: nothing changes them later.
type documents struct {
	json, yaml, page []byte
	csp              string
}

// document makes the documents, when every route is there.
func (a *API) document() error {
	doc := a.huma.OpenAPI()
	doc.Tags = []*huma.Tag{
		{Name: "monitors", Description: "What is watched, how and how often."},
		{Name: "history", Description: "What was seen, and what it amounts to."},
		{Name: "channels", Description: "Where notifications go."},
		{Name: "catalogue", Description: "What can be checked, and what can deliver."},
		{Name: "plugins", Description: "What others wrote, and what it may."},
		{Name: "tokens", Description: "Who may ask."},
		{Name: "server", Description: "How the server itself fares."},
	}
	var err error
	if a.docs.json, err = doc.MarshalJSON(); err != nil {
		return fmt.Errorf("write OpenAPI document: %w", err)
	}
	if a.docs.yaml, err = doc.YAML(); err != nil {
		return fmt.Errorf("write OpenAPI document as YAML: %w", err)
	}
	if a.docs.page, err = docsHTML(doc); err != nil {
		return fmt.Errorf("write documentation page: %w", err)
	}
	// The page has one style and no script: the policy names the style by its hash and allows nothing else.
	sum := sha256.Sum256([]byte(docsStyle))
	a.docs.csp = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return nil
}

func (a *API) openAPI(c *gin.Context) {
	body, media := a.docs.json, "application/openapi+json"
	if strings.HasSuffix(c.FullPath(), ".yaml") {
		body, media = a.docs.yaml, "application/openapi+yaml"
	}
	a.send(c, media, body)
}

func (a *API) docsPage(c *gin.Context) {
	c.Header("Content-Security-Policy", a.docs.csp)
	a.send(c, "text/html; charset=utf-8", a.docs.page)
}

func (a *API) send(c *gin.Context, media string, body []byte) {
	c.Header("Content-Type", media)
	c.Status(http.StatusOK)
	if _, err := c.Writer.Write(body); err != nil {
		a.log.Debug("answer was not read", "error", err)
	}
}

const docsStyle = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #bbb}h3{margin-bottom:.2rem}code{font-family:ui-monospace,monospace}
table{border-collapse:collapse;margin:.5rem 0}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
p{margin:.3rem 0}.note{color:#555}
@media (prefers-color-scheme:dark){body{color:#eee;background:#16181c}.note{color:#aaa}h2{border-color:#555}a{color:#8ab4f8}}`

const docsTemplate = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} API {{.Version}}</title><style>{{.Style}}</style></head><body>
<h1>{{.Title}} API {{.Version}}</h1>
<p>{{.Description}}</p>
<p>The same as <a href="/openapi.json">OpenAPI 3.1 in JSON</a> and <a href="/openapi.yaml">in YAML</a>.</p>
{{range .Groups}}<h2 id="{{.Name}}">{{.Name}}</h2><p>{{.Doc}}</p>
{{range .Operations}}<h3 id="{{.ID}}"><code>{{.Method}} {{.Path}}</code></h3><p>{{.Summary}}.</p>
{{range .Notes}}<p class="note">{{.}}</p>{{end}}
{{if .Fields}}<table><tr><th>where</th><th>name</th><th>type</th><th></th></tr>
{{range .Fields}}<tr><td>{{.In}}</td><td><code>{{.Name}}</code>{{if .Required}} *{{end}}</td><td>{{.Type}}</td><td>{{.Doc}}</td></tr>
{{end}}</table>{{end}}{{end}}{{end}}</body></html>
`

type (
	docsGroup struct {
		Name, Doc  string
		Operations []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary string
		Notes                     []string
		Fields                    []docsField
	}
	docsField struct {
		In, Name, Type, Doc string
		Required            bool
	}
)

func docsHTML(doc *huma.OpenAPI) ([]byte, error) {
	page, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, err
	}
	groups := make([]docsGroup, len(doc.Tags))
	for i, tag := range doc.Tags {
		groups[i] = docsGroup{Name: tag.Name, Doc: tag.Description}
		for _, path := range sortedKeys(doc.Paths) {
			item := doc.Paths[path]
			for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
				if op != nil && len(op.Tags) > 0 && op.Tags[0] == tag.Name {
					groups[i].Operations = append(groups[i].Operations, docsOf(doc, op))
				}
			}
		}
	}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{
		"Title": doc.Info.Title, "Version": doc.Info.Version, "Description": doc.Info.Description,
		"Style": template.CSS(docsStyle), "Groups": groups, //nolint:gosec // a constant
	})
	return b.Bytes(), err
}

func docsOf(doc *huma.OpenAPI, op *huma.Operation) docsOperation {
	d := docsOperation{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Notes: strings.Split(op.Description, "\n\n")}
	for _, p := range op.Parameters {
		d.Fields = append(d.Fields, docsField{In: p.In, Name: p.Name, Type: typeName(p.Schema), Doc: p.Description, Required: p.Required})
	}
	if op.RequestBody == nil {
		return d
	}
	content := op.RequestBody.Content[jsonType]
	if content == nil {
		d.Fields = append(d.Fields, docsField{In: "body", Type: "bytes", Doc: strings.Join(sortedKeys(op.RequestBody.Content), ", "), Required: true})
		return d
	}
	schema := content.Schema
	for schema.Ref != "" {
		schema = doc.Components.Schemas.SchemaFromRef(schema.Ref)
	}
	required := map[string]bool{}
	for _, name := range schema.Required {
		required[name] = op.Method != http.MethodPatch
	}
	for _, name := range sortedKeys(schema.Properties) {
		p := schema.Properties[name]
		d.Fields = append(d.Fields, docsField{In: "body", Name: name, Type: typeName(p), Doc: p.Description, Required: required[name]})
	}
	return d
}

func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Type == huma.TypeArray:
		return "list"
	case s.Pattern == durationPattern:
		return "duration"
	case s.Pattern == sizePattern:
		return "size"
	case s.Type == "":
		return "object"
	default:
		return s.Type
	}
}

func sortedKeys[V any](m map[string]V) []string {
	found := make([]string, 0, len(m))
	for k := range m {
		found = append(found, k)
	}
	sort.Strings(found)
	return found
}
