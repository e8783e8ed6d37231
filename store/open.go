package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite"
)

// Open opens the database, brings its schema up to date and starts the writer. The DSN is a path, "file:" and a path, or
// ":memory:" for a database that ends with the Store. A file that is not there is made; its folder must be there.
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	opts.defaults()
	if opts.Sealer == nil && !opts.Plain {
		return nil, errors.New("open store: a sealer is needed, because configurations hold secrets")
	}
	path, err := parseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		opts: opts, log: opts.Log, now: opts.Now, scale: newScale(), path: path,
		queue: newQueue(opts.SampleLane), heads: newHeads(),
		ready: make(chan struct{}), rebuildDone: make(chan error, 1), writerDone: make(chan struct{}),
		complained: make(map[string]time.Time),
	}
	fresh := path == "" || fileSize(path) == 0
	if err := s.connectAll(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.start(ctx, fresh); err != nil {
		return nil, errors.Join(wrap("open store "+path, err), s.closeDatabases())
	}
	return s, nil
}

// parseDSN returns the path of the database file, empty for one in memory.
func parseDSN(dsn string) (string, error) {
	scheme, _, found := strings.Cut(dsn, "://")
	if found && scheme != "file" {
		return "", fmt.Errorf("no database for a DSN that begins with %q; known are a path, file:PATH and the word :memory: alone", scheme+"://")
	}
	path := strings.TrimPrefix(strings.TrimPrefix(dsn, "file:"), "//")
	path, query, _ := strings.Cut(path, "?")
	switch {
	case path == ":memory:":
		return "", nil
	case path == "":
		return "", errors.New("the DSN names no file")
	case query != "":
		return "", errors.New("the DSN takes no parameters after the path")
	}
	return path, nil
}

// fileDSN returns the driver's DSN of a file. Pragmas go through it, so that every pooled connection has them.
func fileDSN(path string, extra ...string) string {
	u := url.URL{Path: path}
	pragmas := append([]string{
		"busy_timeout(5000)", "auto_vacuum(2)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(1)",
		"wal_autocheckpoint(0)", "journal_size_limit(67108864)",
	}, extra...)
	query := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	return "file:" + u.EscapedPath() + "?" + query.Encode()
}

func openDB(dsn string, connections int) *bun.DB {
	pool := sql.OpenDB(connector{dsn: dsn, driver: &sqlite.Driver{}})
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	return bun.NewDB(pool, sqlitedialect.New())
}

// connector opens connections with a driver of its own instead of the one that is registered for the whole process.
type connector struct {
	dsn    string
	driver driver.Driver
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

func (s *Store) connectAll() error {
	statements := make(map[string]driver.StmtExecContext)
	if s.path == "" {
		s.writeDB = openDB("file::memory:?_pragma=foreign_keys(1)&_txlock=immediate", 1)
		s.read = s.writeDB
		s.conn = conn{db: s.writeDB, shared: true, statements: statements}
		return nil
	}
	if f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	} else if err := f.Close(); err != nil {
		return err
	}
	s.writeDB = openDB(fileDSN(s.path), 1)
	s.read = openDB(fileDSN(s.path, "query_only(1)"), max(4, runtime.GOMAXPROCS(0)))
	s.conn = conn{db: s.writeDB, statements: statements}
	return nil
}

// start migrates, reads what the writer must know, and starts it.
func (s *Store) start(ctx context.Context, fresh bool) error {
	if err := s.migrate(ctx, fresh); err != nil {
		return err
	}
	if err := s.checkSeal(ctx); err != nil {
		return err
	}
	clean, err := s.metaValue(ctx, "clean")
	if err != nil {
		return err
	}
	if _, err := s.writeDB.ExecContext(ctx, "UPDATE meta SET value = 0 WHERE name = 'clean'"); err != nil {
		return err
	}
	sealed, err := s.metaValue(ctx, "sealed_until")
	if err != nil {
		return err
	}
	s.sealed.Store(uint32(sealed))
	if err := s.loadSeries(ctx); err != nil {
		return err
	}
	s.upkeepPlan.begin(s.now())
	halted, halt := context.WithCancel(context.Background())
	stopped, stop := context.WithCancel(context.Background())
	s.halt, s.stop = halt, stop
	s.helpers.Go(func() { s.rebuildDone <- s.rebuild(stopped) })
	s.helpers.Go(func() { s.checkpoints(stopped) })
	if clean == 0 && !fresh {
		s.checking.Store(true)
		s.helpers.Go(func() { s.checkFile(stopped) })
	}
	go s.write(halted)
	return nil
}

// checkSeal makes sure that the sealer is the one that the database was made with, before anything is written or read with
// it: a mark that only it can open is in the file.
func (s *Store) checkSeal(ctx context.Context) error {
	if s.opts.Sealer == nil {
		return nil
	}
	const mark = "tocsin"
	var sealed []byte
	err := s.writeDB.NewSelect().Table("seal").Column("mark").Scan(ctx, &sealed)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if sealed, err = s.opts.Sealer.Seal([]byte(mark)); err != nil {
			return fmt.Errorf("seal the mark of the key: %w", err)
		}
		_, err = s.writeDB.ExecContext(ctx, "INSERT INTO seal (mark) VALUES (?)", sealed)
		return err
	case err != nil:
		return err
	}
	if got, err := s.opts.Sealer.Open(sealed); err != nil {
		return fmt.Errorf("the database was made with another secret key: %w", err)
	} else if string(got) != mark {
		return errors.New("the mark of the secret key is damaged")
	}
	return nil
}

func (s *Store) metaValue(ctx context.Context, name string) (int64, error) {
	var v int64
	err := s.writeDB.NewSelect().Table("meta").Column("value").Where("name = ?", name).Scan(ctx, &v)
	return v, err
}

// shutFile writes the mark of a clean stop and closes all connections.
func (s *Store) shutFile(clean bool) error {
	err := s.conn.close()
	if clean {
		_, mark := s.writeDB.ExecContext(context.Background(), "UPDATE meta SET value = 1 WHERE name = 'clean'")
		err = errors.Join(err, wrap("mark the clean stop", mark))
	}
	if s.path != "" && clean {
		_, cut := s.writeDB.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
		err = errors.Join(err, wrap("last checkpoint", cut))
	}
	return errors.Join(err, s.closeDatabases())
}

func (s *Store) closeDatabases() error {
	err := s.writeDB.Close()
	if s.read != s.writeDB {
		err = errors.Join(err, s.read.Close())
	}
	return err
}
