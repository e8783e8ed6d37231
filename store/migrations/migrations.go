// Package migrations holds the schema as a row of forward-only steps, one SQL file each. A file is never edited once it has
// landed: what is wrong with it is put right by the next one. Every step runs in one transaction, together with the mark
// that says it has run.
package migrations

import (
	"embed"
	"fmt"

	"github.com/uptrace/bun/migrate"
)

//go:embed *.sql
var files embed.FS

// All returns every migration in order.
func All() (*migrate.Migrations, error) {
	all := migrate.NewMigrations()
	if err := all.Discover(files); err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return all, nil
}
