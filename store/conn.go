package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
)

// conn is the writer's connection. Statements that run for every batch are prepared once and run on the driver's own
// connection: database/sql would convert every argument of a bulk insert twice.
type conn struct {
	db         *bun.DB
	bun        bun.Conn
	held       bool
	shared     bool // the only connection of a database in memory: given back after each use
	statements map[string]driver.StmtExecContext
	args       []driver.NamedValue
	full       bool // PRAGMA synchronous is FULL
	known      bool // and that is certain
}

// connect takes the writer's connection, and opens it where there is none.
func (s *Store) connect(ctx context.Context) (*conn, error) {
	c := &s.conn
	if c.held {
		return c, nil
	}
	bc, err := c.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	c.bun, c.held = bc, true
	return c, nil
}

// release gives the connection back where readers need it as well.
func (c *conn) release() {
	if !c.shared || !c.held {
		return
	}
	c.held = false
	// A pooled connection that is given back is not closed, and nothing can fail.
	_ = c.bun.Close()
}

// discard closes a connection that is in an unknown state, so that the next write opens a fresh one.
func (s *Store) discard(cause error) {
	c := &s.conn
	s.log.Error("store: the write connection is opened anew", "error", wrap("roll back", cause))
	c.closeStatements()
	c.known = false
	if !c.held {
		return
	}
	// driver.ErrBadConn has database/sql close the connection instead of keeping it.
	err := c.bun.Raw(func(any) error { return driver.ErrBadConn })
	if err != nil && !errors.Is(err, driver.ErrBadConn) && !errors.Is(err, sql.ErrConnDone) {
		s.log.Error("store: the write connection did not close", "error", wrap("close", err))
	}
	c.held = false
}

func (c *conn) closeStatements() {
	for text, st := range c.statements {
		if closer, ok := st.(driver.Stmt); ok {
			// The statement's own last error, reported when it ran.
			_ = closer.Close()
		}
		delete(c.statements, text)
	}
}

// close gives the connection up for good.
func (c *conn) close() error {
	if !c.held {
		return nil
	}
	err := c.bun.Raw(func(any) error { c.closeStatements(); return nil })
	c.held = false
	return errors.Join(err, c.bun.Close())
}

// prepared runs f with a statement that stays prepared.
func (c *conn) prepared(text string, f func(driver.StmtExecContext) error) error {
	return c.bun.Raw(func(raw any) error {
		st := c.statements[text]
		if st == nil {
			dc, ok := raw.(driver.Conn)
			if !ok {
				return fmt.Errorf("%T is no driver connection", raw)
			}
			made, err := dc.Prepare(text)
			if err != nil {
				return err
			}
			if st, ok = made.(driver.StmtExecContext); !ok {
				return errors.Join(fmt.Errorf("%T takes no context", made), made.Close())
			}
			c.statements[text] = st
		}
		return f(st)
	})
}

// exec runs a prepared statement and forgets how many rows it changed.
func (c *conn) exec(ctx context.Context, text string, args ...int64) error {
	_, err := c.change(ctx, text, args...)
	return err
}

// change runs a prepared statement and returns how many rows it changed.
func (c *conn) change(ctx context.Context, text string, args ...int64) (int64, error) {
	c.args = c.args[:0]
	for _, a := range args {
		c.bind(a)
	}
	return c.run(ctx, text)
}

// bind adds an argument for run.
func (c *conn) bind(v driver.Value) {
	c.args = append(c.args, driver.NamedValue{Ordinal: len(c.args) + 1, Value: v})
}

// run runs a prepared statement with the arguments that were bound, and returns how many rows it changed.
func (c *conn) run(ctx context.Context, text string) (int64, error) {
	var n int64
	err := c.prepared(text, func(st driver.StmtExecContext) error {
		res, err := st.ExecContext(ctx, c.args)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	clear(c.args)
	c.args = c.args[:0]
	return n, err
}

// begin begins a transaction that is synced at its commit when full is set.
func (c *conn) begin(ctx context.Context, full bool) error {
	if !c.known || c.full != full {
		mode := "PRAGMA synchronous=NORMAL"
		if full {
			mode = "PRAGMA synchronous=FULL"
		}
		c.known = false
		if err := c.exec(ctx, mode); err != nil {
			return err
		}
		c.full, c.known = full, true
	}
	return c.exec(ctx, "BEGIN IMMEDIATE")
}

// rollback undoes the transaction, if the database has not done so itself. It needs no context: it waits for nothing.
func (c *conn) rollback() error {
	err := c.exec(context.Background(), "ROLLBACK")
	if code, ok := resultCode(err); ok && code == 1 { // SQLITE_ERROR: no transaction is active
		return nil
	}
	return err
}
