package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// databaseError is an error of the database without anything that could quote a value: SQLite's messages name tables and
// columns, but those of syntax errors name what they stumbled over.
type databaseError struct {
	code int
	text string
}

func (e *databaseError) Error() string { return e.text }

// resultCode returns SQLite's extended result code of an error, and false when it is none of SQLite's.
func resultCode(err error) (int, bool) {
	var own *databaseError
	if errors.As(err, &own) {
		return own.code, true
	}
	var lib *sqlite.Error
	if errors.As(err, &lib) {
		return lib.Code(), true
	}
	return 0, false
}

// isTransient reports whether an error can pass by itself: a lock, a full disk, a failed read or write, no memory.
func isTransient(err error) bool {
	code, ok := resultCode(err)
	if !ok {
		return errors.Is(err, sql.ErrConnDone)
	}
	switch code & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY:
		return true
	}
	return false
}

// isDamage reports whether an error says that the database itself is broken.
func isDamage(err error) bool {
	code, _ := resultCode(err)
	return code&0xff == sqlite3.SQLITE_CORRUPT || code&0xff == sqlite3.SQLITE_NOTADB
}

func isUnique(err error) bool {
	code, _ := resultCode(err)
	return code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

func isForeignKey(err error) bool {
	code, _ := resultCode(err)
	return code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
}

// wrap says what was tried. What callers test for stays testable, and no message quotes a value.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", op, monitor.ErrNotFound)
	}
	var faults monitor.Faults
	if errors.As(err, &faults) {
		return err
	}
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w", op, known)
		}
	}
	var lib *sqlite.Error
	if errors.As(err, &lib) {
		text := lib.Error()
		switch lib.Code() & 0xff {
		case sqlite3.SQLITE_ERROR:
			text = "the database refused the statement"
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			text = "the database file is damaged (" + text + "): stop the server, keep a copy of the file, and restore a backup"
		}
		return fmt.Errorf("%s: %w", op, &databaseError{code: lib.Code(), text: text})
	}
	return fmt.Errorf("%s: %w", op, err)
}
