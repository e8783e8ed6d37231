package schema

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// shortest is the length of the shortest secret that is hidden, in bytes: hiding shorter ones would tell more than it hides.
const shortest = 4

// Secrets returns the texts of a configuration that must not appear in a message, longest first: every secret text and number,
// and the forms in which they are sent or quoted: inside JSON, inside an address, as the credentials of HTTP's Basic scheme,
// and the telling parts of a secret address. A configuration that cannot be read has none.
func (s *Schema) Secrets(config json.RawMessage) []string {
	value, faults := read(config)
	if faults != nil {
		return nil
	}
	var found []string
	collect(s.Root(), value, false, &found)
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(found)
}

func collect(p Part, value any, secret bool, found *[]string) {
	secret = secret || !p.Described() || p.Secret()
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			collect(p.Field(name), inner, secret, found)
		}
		password, _ := v["password"].(string)
		for _, name := range []string{"username", "user"} {
			if user, ok := v[name].(string); ok && user != "" && password != "" && (secret || p.Field("password").HoldsSecret()) {
				*found = append(*found, base64.StdEncoding.EncodeToString([]byte(user+":"+password))) // RFC 7617
			}
		}
	case []any:
		for i, inner := range v {
			collect(p.Item(i), inner, secret, found)
		}
	case string:
		if secret {
			*found = append(*found, forms(v)...)
		}
	case json.Number:
		if secret && len(v) >= shortest {
			*found = append(*found, v.String())
		}
	}
}

// forms lists how a secret text may look.
func forms(text string) []string {
	if len(text) < shortest {
		return nil
	}
	quoted := strconv.Quote(text)
	all := []string{text, quoted[1 : len(quoted)-1], url.PathEscape(text), url.QueryEscape(text)}
	if quoted, err := json.Marshal(text); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	if strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://") {
		all = append(all, addressParts(text)...)
	}
	return all
}

// addressParts lists the parts of an address that may be secret by themselves: tokens are often in paths.
func addressParts(address string) []string {
	const long = 8 // "services", "api" and the like are no secrets; tokens are longer
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	var parts []string
	if len(u.Path) > long {
		parts = append(parts, u.Path, u.EscapedPath())
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if len(segment) > long {
			parts = append(parts, segment)
		}
	}
	for _, values := range u.Query() {
		for _, v := range values {
			if len(v) >= shortest {
				parts = append(parts, v, url.QueryEscape(v))
			}
		}
	}
	if password, ok := u.User.Password(); ok && len(password) >= shortest {
		parts = append(parts, password)
	}
	return parts
}
