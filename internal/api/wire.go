package api

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// duration is a length of time on the wire: "30s".
type duration string

// durationPattern is what time.ParseDuration reads, with a sign so that the bounds can say what is wrong with it.
const durationPattern = `^[-+]?(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

// Schema describes a duration.
func (duration) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: durationPattern, PatternDescription: "a duration such as 30s, 5m or 1h30m", Examples: []any{"30s"},
	}
}

func durationOf(d time.Duration) duration { return duration(monitor.Duration(d).String()) }

// read adds a fault when the duration is longer than can be counted.
func (d *duration) read(field string, faults *[]Fault) *time.Duration {
	if d == nil || *d == "" {
		return nil
	}
	parsed, err := time.ParseDuration(string(*d))
	if err != nil {
		*faults = append(*faults, Fault{Location: field, Message: "must be a duration such as 30s, 5m or 1h30m", Value: string(*d)})
		return nil
	}
	return &parsed
}

// object is JSON of a form that another schema describes.
type object json.RawMessage

// Schema describes an object with any members.
func (object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// MarshalJSON writes the object; nil is {}.
func (o object) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("{}"), nil
	}
	return o, nil
}

// UnmarshalJSON keeps the text.
func (o *object) UnmarshalJSON(text []byte) error {
	*o = append((*o)[:0], text...)
	return nil
}

// orNull is an object on the wire, or null. Its zero value is null.
type orNull[T any] struct{ is *T }

// Schema describes the object, or null.
func (orNull[T]) Schema(r huma.Registry) *huma.Schema {
	t := reflect.TypeFor[T]()
	return &huma.Schema{OneOf: []*huma.Schema{r.Schema(t, true, t.Name()), {Type: "null"}}}
}

// MarshalJSON writes the object or null.
func (o orNull[T]) MarshalJSON() ([]byte, error) { return json.Marshal(o.is) }

// page is a part of a list.
type page[T any] struct {
	Items      []T     `json:"items" nullable:"false"`
	NextCursor *string `json:"next_cursor" doc:"Send it as cursor to get what follows; null at the end."`
}

func pageOf[T, U any](items []T, next string, convert func(*T) U) page[U] {
	p := page[U]{Items: make([]U, len(items))}
	for i := range items {
		p.Items[i] = convert(&items[i])
	}
	if next != "" {
		p.NextCursor = &next
	}
	return p
}

// when is a time on the wire, and nil when there is none.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func textOrNil(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// etag is a revision as a header.
func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// ifMatch reads the header of the same name: a revision, or 0 when any will do (RFC 9110, section 13.1.1).
func ifMatch(header string) (int64, error) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return 0, nil
	}
	// A weak tag never matches, and one that we did not make matches nothing that is there.
	if len(header) < 3 || header[0] != '"' || header[len(header)-1] != '"' {
		return 0, invalid([]Fault{{Location: "header.If-Match", Message: `must be an ETag that an answer had, with its quotes: "3"`, Value: header}})
	}
	n, err := strconv.ParseInt(header[1:len(header)-1], 10, 64)
	if err != nil || n <= 0 {
		return 0, newProblem(412, "stale", "the ETag is not one of this object")
	}
	return n, nil
}

// labelPairs reads label=key:value parameters.
func labelPairs(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	labels := make(map[string]string, len(pairs))
	var faults []Fault
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, ":")
		if other, twice := labels[key]; !ok || key == "" || twice && other != value {
			faults = append(faults, Fault{Location: "query.label", Message: "must be key:value, each key once", Value: pair})
			continue
		}
		labels[key] = value
	}
	if len(faults) > 0 {
		return nil, invalid(faults)
	}
	return labels, nil
}

// timestamp is a time in a request: RFC 3339.
type timestamp string

// Schema describes a time.
func (timestamp) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2030-01-31T15:04:05Z"}}
}

func (t *timestamp) read(field string, faults *[]Fault) time.Time {
	if t == nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, string(*t))
	if err != nil || at.Year() < 1970 || at.Year() > 2190 {
		*faults = append(*faults, Fault{Location: field, Message: "must be a time such as 2030-01-31T15:04:05Z", Value: string(*t)})
		return time.Time{}
	}
	return at
}
