package store

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// limitOf returns how many items a page has: standard for 0, else what was asked for, from 1 to most.
func limitOf(asked, standard, most int) (int, error) {
	switch {
	case asked == 0:
		return standard, nil
	case asked < 1 || asked > most:
		return 0, monitor.Faults{{Field: "limit", Value: asked, Message: "must be between 1 and " + itoa(most)}}
	}
	return asked, nil
}

// cursor is where a page ended: what its last item was sorted by. Callers see it as text without a meaning.
type cursor struct {
	Order string `json:"o"` // what the list was sorted by
	Key   int64  `json:"k,omitempty"`
	Text  string `json:"t,omitempty"`
	Name  string `json:"n"`
}

func (c cursor) String() string {
	data, err := json.Marshal(c)
	if err != nil {
		panic("store: a cursor of texts and numbers does not marshal: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// parseCursor reads what String wrote for a list with the same order; nil is the first page.
func parseCursor(text, order string) (*cursor, error) {
	if text == "" {
		return nil, nil
	}
	bad := monitor.Faults{{Field: "cursor", Message: "is not one that this list gave"}}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > 4096 {
		return nil, bad
	}
	var c cursor
	if err := json.Unmarshal(data, &c); err != nil || c.Order != order {
		return nil, bad
	}
	return &c, nil
}

// joinClose closes rows and joins the error of that with err.
func joinClose(err error, rows *sql.Rows) error { return errors.Join(err, rows.Close()) }
