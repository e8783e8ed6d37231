package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/migrate"

	"github.com/tocsinhq/tocsin/store/migrations"
)

// migrate brings the schema up to date. Each migration and the mark that it has run are one transaction. Before an existing
// file is changed, a copy of it is made beside it. A database that a newer program has changed is refused.
func (s *Store) migrate(ctx context.Context, fresh bool) error {
	all, err := migrations.All()
	if err != nil {
		return err
	}
	m := migrate.NewMigrator(s.writeDB, all, migrate.WithUpsert(true), migrate.WithMarkAppliedOnSuccess(true),
		migrate.AfterMigration(markApplied))
	if err := m.Init(ctx); err != nil {
		return wrap("prepare migrations", err)
	}
	// Nothing but the names is read: the list of what is applied is never long.
	var applied []string
	if err := s.writeDB.NewSelect().Table("bun_migrations").Column("name").Order("name").Scan(ctx, &applied); err != nil {
		return wrap("read applied migrations", err)
	}
	known := make(map[string]bool)
	var missing []string
	for _, one := range all.Sorted() {
		known[one.Name] = true
	}
	newest := "0"
	for _, name := range applied {
		newest = strings.TrimLeft(name, "0")
		if !known[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the database is newer than this program: it has migration %s, which this program does not know; "+
			"use a newer tocsin or the copy made before the upgrade", strings.Join(missing, ", "))
	}
	if len(applied) == len(known) {
		return nil
	}
	if !fresh && len(applied) > 0 {
		if err := s.copyBefore(ctx, newest); err != nil {
			return err
		}
	}
	if _, err := m.Migrate(ctx); err != nil {
		return wrap("migrate", err)
	}
	return nil
}

// markApplied marks a migration inside its own transaction.
func markApplied(ctx context.Context, db bun.IConn, one *migrate.Migration) error {
	_, err := db.ExecContext(ctx, "INSERT INTO bun_migrations (name, group_id) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
		one.Name, one.GroupID)
	return err
}

// copyBefore makes a copy of the file beside it, named after the schema version that it has. A copy that is there already was
// made by a migration that did not come to its end, and is the older one: it stays.
func (s *Store) copyBefore(ctx context.Context, version string) error {
	target := s.path + ".pre-" + version
	if _, err := os.Stat(target); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("copy the database before migrating: %w", err)
	}
	if _, err := s.writeDB.ExecContext(ctx, "VACUUM INTO ?", target); err != nil {
		return wrap("copy the database before migrating", err)
	}
	s.log.Info("store: a copy was made before migrating", "file", target)
	return nil
}
