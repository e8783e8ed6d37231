package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/uptrace/bun"

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

// newestFirst is a page that is asked for of a table with a time: from the newest row to the oldest, those of one time by id.
type newestFirst[Row, Item any] struct {
	op     string // for errors
	order  string // of its cursors
	column string // the one with the time
	limit  int    // 1 to 1000; 0 is 100
	cursor string // of the page before; empty for the first
	filter func(*bun.SelectQuery)
	place  func(*Row) (at int64, id string)
	item   func(*Row) (Item, error)
}

func (n newestFirst[Row, Item]) page(ctx context.Context, s *Store) (monitor.Page[Item], error) {
	var page monitor.Page[Item]
	limit, err := limitOf(n.limit, 100, 1000)
	if err != nil {
		return page, err
	}
	after, err := parseCursor(n.cursor, n.order)
	if err != nil {
		return page, err
	}
	var rows []Row
	column := bun.Ident(n.column)
	sel := s.read.NewSelect().Model(&rows).OrderExpr("? DESC, id DESC", column).Limit(int64(limit) + 1)
	n.filter(sel)
	if after != nil {
		sel.Where("(?, id) < (?, ?)", column, after.Key, after.Name)
	}
	if err := sel.Scan(ctx); err != nil {
		return page, wrap(n.op, err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		at, id := n.place(&rows[limit-1])
		page.Next = cursor{Order: n.order, Key: at, Name: id}.String()
	}
	page.Items = make([]Item, len(rows))
	for i := range rows {
		if page.Items[i], err = n.item(&rows[i]); err != nil {
			return page, wrap(n.op, err)
		}
	}
	return page, nil
}
