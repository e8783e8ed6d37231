package host

import (
	"encoding/json"
	"strings"
	"sync"

	"github.com/tocsinhq/tocsin/engine/schema"
)

// mask hides the secrets of one configuration in texts. What is secret is found out when the first text comes: most calls have
// none.
type mask struct {
	schema *schema.Schema
	config json.RawMessage
	once   sync.Once
	hide   *strings.Replacer
}

// Replace returns the text without secrets.
func (m *mask) Replace(text string) string {
	m.once.Do(func() {
		var pairs []string
		for _, secret := range m.schema.Secrets(m.config) {
			pairs = append(pairs, secret, "••••")
		}
		m.hide = strings.NewReplacer(pairs...)
	})
	return m.hide.Replace(text)
}
