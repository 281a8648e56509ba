package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sys/unix"
)

// postgres is the engine of a PostgreSQL server. The tables are in the schema that the
// connection creates tables in.
//
// Whoever has the database holds a lock of its connection for writing. The server lets go of
// it when that connection ends, so that nobody writes who has lost it.
type postgres struct {
	log    *slog.Logger
	config *pgx.ConnConfig
	db     *sql.DB
	owner  string // names this process in the database
	serves string // Config.Serves
	at     string // for messages, without the password
}

//go:embed postgres/*.sql
var postgresMigrations embed.FS

// postgresBase is the schema that a database on PostgreSQL begins with.
const postgresBase = 30

const (
	// connectWithin bounds an attempt to connect, and a request that nobody may wait long for.
	connectWithin = 5 * time.Second
	// lostAfter is how long either side waits for a sign of life of the other one.
	lostAfter = 10 * time.Second
	// lockClass is half of the number of the lock of whoever writes; the other half is the schema's.
	lockClass = applicationID
	// appName and standbyName are what connections are called at the server, where others may look.
	appName, standbyName = "rackpower-central", "rackpower-central standby"
)

// newPostgres reads the URL, or the key=value text, of a database. Its connections have the name called there.
func newPostgres(text, called, serves string, log *slog.Logger) (*postgres, error) {
	c, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read the name of the database: %w", err) // without the password
	}
	for _, setting := range []struct{ name, value string }{
		{"application_name", called},
		{"tcp_keepalives_idle", "5"},
		{"tcp_keepalives_interval", "2"},
		{"tcp_keepalives_count", "3"},
		{"tcp_user_timeout", fmt.Sprint(lostAfter.Milliseconds())},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"jit", "off"},
	} {
		c.RuntimeParams[setting.name] = setting.value
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectWithin
	}
	dialer := net.Dialer{
		Timeout: c.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
		Control: func(network, _ string, raw syscall.RawConn) (err error) {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			wrong := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(lostAfter.Milliseconds()))
			})
			return errors.Join(wrong, err)
		},
	}
	c.DialFunc = dialer.DialContext
	e := &postgres{log: log, config: c, owner: newID(), serves: serves}
	e.at = fmt.Sprintf("%s on PostgreSQL at %s", c.Database, c.Host)
	e.db = stdlib.OpenDB(*c)
	e.db.SetMaxIdleConns(1)
	return e, nil
}

func (e *postgres) name() string  { return e.at }
func (e *postgres) stay() error   { return nil }
func (e *postgres) begin() string { return "BEGIN" }
func (e *postgres) view() string  { return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" }

var indexedBy = regexp.MustCompile(`\s+INDEXED BY \w+`)

// text leaves out which index to use.
func (e *postgres) text(query string) string { return indexedBy.ReplaceAllLiteralString(query, "") }

// bind makes numbers of truth values, as they are in columns, and texts such as PostgreSQL has them.
func (e *postgres) bind(args []any) ([]any, error) {
	for i, arg := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, fmt.Errorf("cannot store %T: %w", arg, err)
		}
		switch is := v.(type) {
		case bool:
			v = int64(0)
			if is {
				v = int64(1)
			}
		case string:
			v = plainText(is)
		}
		args[i] = v
	}
	return args, nil
}

// plainText is a text without what PostgreSQL keeps in none.
func plainText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// raw is the driver's connection within a connection, nil when that is gone.
func raw(c *sql.Conn) (pg *pgx.Conn) {
	_ = c.Raw(func(conn any) error {
		if sc, ok := conn.(*stdlib.Conn); ok && !sc.Conn().IsClosed() {
			pg = sc.Conn()
		}
		return nil
	})
	return pg
}

// lost also counts what a server says last before it ends the connection: only the next use finds it gone.
func (e *postgres) lost(c *sql.Conn, last error) bool {
	var pg *pgconn.PgError
	return raw(c) == nil || errors.As(last, &pg) && pg.Severity == "FATAL"
}

func (e *postgres) idle(c *sql.Conn) bool {
	pg := raw(c)
	return pg == nil || pg.PgConn().TxStatus() == 'I'
}

func (e *postgres) connect(ctx context.Context) (*sql.Conn, error) {
	c, err := e.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot connect to %s: %w", ErrDisk, e.at, err)
	}
	return c, nil
}

func (e *postgres) read(ctx context.Context) (*sql.Conn, error) { return e.connect(ctx) }

// write connects, takes the lock and migrates the database.
func (e *postgres) write(ctx context.Context) (*sql.Conn, error) {
	c, err := e.alone(ctx)
	if err != nil {
		return nil, err
	}
	if err = e.migrate(ctx, c); err == nil {
		_, err = c.ExecContext(ctx, "UPDATE rackpower_schema SET owner = $1, serves = $2", e.owner, e.serves)
	}
	if err != nil {
		c.Close()
		return nil, disk(err)
	}
	e.adviseStandby(ctx, c)
	return c, nil
}

// writeAgain connects and takes the lock, unless another one has it, or has had it, meanwhile.
func (e *postgres) writeAgain(ctx context.Context) (*sql.Conn, error) {
	c, err := e.alone(ctx, e.mine)
	if err != nil {
		return nil, err
	}
	if err := e.mine(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// mine fails where another one has opened the database later.
func (e *postgres) mine(ctx context.Context, c *sql.Conn) error {
	var owner string
	err := c.QueryRowContext(ctx, "SELECT owner FROM rackpower_schema").Scan(&owner)
	if err == nil && owner != e.owner {
		return ErrTakenOver
	}
	return disk(err)
}

// alone connects to a server that keeps what it commits, and takes the lock after the checks.
func (e *postgres) alone(ctx context.Context, checks ...func(context.Context, *sql.Conn) error) (*sql.Conn, error) {
	c, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, check := range append([]func(context.Context, *sql.Conn) error{e.durable}, append(checks, e.take)...) {
		if err := check(ctx, c); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// take takes the lock of whoever writes.
func (e *postgres) take(ctx context.Context, c *sql.Conn) error {
	var schema string
	var got bool
	err := c.QueryRowContext(ctx, `SELECT coalesce(current_schema(), '')`).Scan(&schema)
	if err == nil && schema == "" {
		return fmt.Errorf("cannot use %s: it has no schema to make tables in: see search_path", e.at)
	}
	if err == nil {
		err = c.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1, hashtext(current_schema()))`, lockClass).Scan(&got)
	}
	if err != nil {
		return fmt.Errorf("cannot lock %s: %w", e.at, disk(err))
	}
	if !got {
		return fmt.Errorf("%s: %w: another rackpower-central serves it", e.at, ErrInUse)
	}
	return nil
}

// durable fails where the server would lose what it said was committed.
func (e *postgres) durable(ctx context.Context, c *sql.Conn) error {
	var fsync, pages, commit, encoding, readOnly string
	var standby bool
	err := c.QueryRowContext(ctx, `SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
		current_setting('server_encoding'), current_setting('transaction_read_only'), pg_is_in_recovery()`).
		Scan(&fsync, &pages, &commit, &encoding, &readOnly, &standby)
	if err != nil {
		return fmt.Errorf("cannot read the settings of %s: %w", e.at, disk(err))
	}
	for _, s := range []struct{ name, value string }{{"fsync", fsync}, {"full_page_writes", pages}, {"synchronous_commit", commit}} {
		if s.value == "off" {
			return fmt.Errorf("%w: %s is off: set it to on there", ErrNotDurable, s.name)
		}
	}
	switch {
	case standby || readOnly == "on":
		return fmt.Errorf("%w: %s cannot be written to: it is a standby, or set to read only; name several servers and add "+
			"target_session_attrs=read-write to have the one found that can", ErrDisk, e.at)
	case encoding != "UTF8":
		return fmt.Errorf("cannot use %s: its encoding is %s: create the database with encoding UTF8", e.at, encoding)
	}
	return nil
}

// adviseStandby says how what is taken survives the loss of the server's machine.
func (e *postgres) adviseStandby(ctx context.Context, c *sql.Conn) {
	var standbys int
	var names string
	err := c.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM pg_stat_replication), current_setting('synchronous_standby_names')`).
		Scan(&standbys, &names)
	if err == nil && standbys > 0 && names == "" {
		e.log.Warn("the database has standbys, but does not wait for them: what was taken last is lost with the machine of the server; "+
			"set synchronous_standby_names there", "database", e.at, "standbys", standbys)
	}
}

// migrate brings the database to Schema in one transaction.
func (e *postgres) migrate(ctx context.Context, c *sql.Conn) error {
	version, err := e.version(ctx, c)
	if err != nil {
		return err
	}
	if version > Schema {
		return fmt.Errorf("%w: %s has schema %d, this program knows %d: run the newer rackpower-central", ErrNewer, e.at, version, Schema)
	}
	if version > 0 { // databases of before have no such column
		if _, err := c.ExecContext(ctx, "ALTER TABLE rackpower_schema ADD COLUMN IF NOT EXISTS serves TEXT NOT NULL DEFAULT ''"); err != nil {
			return disk(err)
		}
	}
	if version == Schema {
		return nil
	}
	if version == 0 {
		e.log.Warn("a new database is made; if there should be one, stop central and see whether --database is right", "database", e.at)
	}
	if err := e.steps(ctx, c, version); err != nil {
		return fmt.Errorf("cannot migrate %s from schema %d, which it stays at: %w", e.at, version, err)
	}
	if version > 0 {
		e.log.Info("the database was migrated: an older rackpower-central does not read it", "from", version, "to", Schema)
	}
	return nil
}

// version is the schema that the database has, 0 for none.
func (e *postgres) version(ctx context.Context, c *sql.Conn) (version int64, err error) {
	var tables int
	var ours bool
	err = c.QueryRowContext(ctx, `SELECT count(*), coalesce(bool_or(relname = 'rackpower_schema'), false) FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v')`).Scan(&tables, &ours)
	switch {
	case err != nil:
		return 0, fmt.Errorf("cannot read schema version: %w", disk(err))
	case tables == 0:
		return 0, nil
	case !ours:
		return 0, fmt.Errorf("%s: %w: it has tables of another program: create a database of its own for central", e.at, ErrForeign)
	}
	if err = c.QueryRowContext(ctx, "SELECT version FROM rackpower_schema").Scan(&version); err != nil {
		return 0, fmt.Errorf("cannot read schema version: %w", disk(err))
	}
	return version, nil
}

func (e *postgres) steps(ctx context.Context, c *sql.Conn, version int64) (err error) {
	script := []string{"BEGIN"}
	if version == 0 {
		script = append(script, `CREATE TABLE rackpower_schema (one BIGINT PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL, owner TEXT NOT NULL,
			serves TEXT NOT NULL DEFAULT '');
			INSERT INTO rackpower_schema VALUES (1, 0, '')`)
	}
	for at := max(version+1, postgresBase); at <= Schema; at++ {
		text, err := postgresStep(at)
		if err != nil {
			return err
		}
		script = append(script, text)
	}
	if version == 0 {
		script = append(script, fmt.Sprintf(`INSERT INTO meta (one, id, generation, created_at, seq, rev, plain) VALUES (1, '%s', 1, %d, 0, 0, 0)`,
			newID(), time.Now().UnixNano()))
	}
	script = append(script, fmt.Sprintf("UPDATE rackpower_schema SET version = %d; COMMIT", Schema))
	pg := raw(c)
	if pg == nil {
		return errLost
	}
	_, err = pg.PgConn().Exec(ctx, strings.Join(script, ";\n")).ReadAll()
	if err != nil && !e.lost(c, err) {
		_, _ = c.ExecContext(ctx, "ROLLBACK")
	}
	return disk(err)
}

// postgresStep is what leads to a schema: a file for PostgreSQL where one for both does not fit.
func postgresStep(to int64) (string, error) {
	name := fmt.Sprintf("%04d.sql", to)
	text, err := postgresMigrations.ReadFile("postgres/" + name)
	if err != nil {
		text, err = migrations.ReadFile("migrations/" + name)
	}
	return ddl(string(text)), err
}

var (
	ddlOptions = regexp.MustCompile(`\)\s*STRICT(, WITHOUT ROWID)?;`)
	ddlTypes   = regexp.MustCompile(`\b(INTEGER|TEXT|REAL|BLOB)\b`)
)

// ddl has tables as PostgreSQL makes them. Texts are compared byte by byte, as SQLite does.
func ddl(text string) string {
	return ddlTypes.ReplaceAllStringFunc(ddlOptions.ReplaceAllString(text, ");"), func(word string) string {
		return map[string]string{"INTEGER": "BIGINT", "TEXT": `TEXT COLLATE "C"`, "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA"}[word]
	})
}

func (e *postgres) has(ctx context.Context, c *sql.Conn, table, column string) (here bool, err error) {
	err = c.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped)`,
		table, column).Scan(&here)
	return here, err
}

// wipe and flush leave to the server what it keeps, and for how long: all values in it were sealed from the first on.
func (e *postgres) wipe(context.Context, *sql.Conn) error { return nil }
func (e *postgres) flush(context.Context) error           { return nil }

// figures asks how large the tables are. What is free on the server's disk is not known.
func (e *postgres) figures() (DiskFigures, error) {
	ctx, cancel := context.WithTimeout(context.Background(), connectWithin)
	defer cancel()
	f := DiskFigures{Free: -1}
	err := e.db.QueryRowContext(ctx, `SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'`).Scan(&f.Database)
	return f, disk(err)
}

func (e *postgres) close() { e.db.Close() }
