package store

import (
	"context"
	"log/slog"
	"time"
)

// Standby looks at a database on PostgreSQL that another process serves. One goroutine at a time.
type Standby struct{ e *postgres }

// OpenStandby connects to nothing yet.
func OpenStandby(database string, log *slog.Logger) (*Standby, error) {
	e, err := newPostgres(database, standbyName, "", log)
	if err != nil {
		return nil, err
	}
	return &Standby{e}, nil
}

// Serving is what the process that serves the database said of itself (Config.Serves). The connection
// stays, so that those who stand by can be counted.
func (s *Standby) Serving(ctx context.Context) (text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	err = s.e.db.QueryRowContext(ctx, "SELECT serves FROM rackpower_schema").Scan(&text)
	return text, disk(err)
}

// Close ends the connection.
func (s *Standby) Close() { s.e.close() }

// Standbys is how many processes stand by to take the database over; -1: none can, it is a file.
func (s *Store) Standbys(ctx context.Context) (n int, err error) {
	e, ok := s.engine.(*postgres)
	if !ok {
		return -1, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // metrics and the watchdog's loop ask
	defer cancel()
	err = e.db.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
		standbyName).Scan(&n)
	return n, disk(err)
}
