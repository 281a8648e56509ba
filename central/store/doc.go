// Package store keeps what central knows in one SQLite database: nodes and
// agents, operations, the audit log. It has the SQL and the durability, and none of the
// rules: those are in package central.
//
// # Writing
//
//	callers        queue         writer goroutine               disk
//	Write(fn) ──▶ ┌─────┐   BEGIN IMMEDIATE
//	Write(fn) ──▶ │ job │──▶  SAVEPOINT  fn(tx)  RELEASE
//	Write(fn) ──▶ │ job │     SAVEPOINT  fn(tx)  ROLLBACK TO   (its own error)
//	              └─────┘     COMMIT ─────────────────────────▶ one fsync
//	      ◀── nil or error ── only now
//
// One goroutine owns the only writing connection. Jobs that wait are put into one
// transaction, so that they share a flush; each job has a savepoint, so that one
// that fails leaves the others alone. A caller has its answer after COMMIT. An
// error of the commit itself is an error of every job in it, and then it is not
// known whether the transaction will be seen after a crash: callers must be
// able to repeat what they asked.
//
// # Reading
//
// View runs on one of four read-only connections, each in its own snapshot.
//
// # Settings
//
// WAL, synchronous=FULL (the driver's default for WAL may lose the last
// commits in a power cut), foreign keys, STRICT tables; all of it set by the
// data source name, so that it holds for every connection. An flock beside the
// database keeps a second process from opening it for writing.
//
// # Migrations
//
// They are the embedded files migrations/NNNN.sql; PRAGMA user_version counts
// those that were applied. The number is also in the file's header, at
// offset 60, which is why this is not left to a migration library that keeps
// its count in a table: a database of a newer version is recognised and
// refused before SQLite has opened it, and so without a byte being changed.
package store
