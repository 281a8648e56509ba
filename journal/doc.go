// Package journal is an append-only log on disk that survives crashes, losses of
// power, full disks and failing ones. It holds keyed records whose payload is
// the caller's affair, and knows which of them are live.
//
//   - [Open] takes a directory, reads it, and begins a fresh segment.
//   - [Journal.Append] returns when its entries are durable; all or none of them.
//   - [Journal.Live] is what the records so far have left alive: [Add] adds to a
//     key, [Put] replaces, [Drop] ends.
//   - [Scan], [Read] and [Verify] look into a directory without taking it.
//   - [FS] is what the journal asks of a disk; package faultfs is one that fails.
//
// # Promises
//
// A record whose Append returned without error is found by the next Open, after
// a kill at any moment and after a loss of power at any moment. Entries of one
// Append are found together or not at all. Records come back with the LSN and
// time they were given. Bytes that were durable and went bad are noticed,
// reported and kept for inspection; they are never taken for the end of the log.
//
// # Who does what
//
// An Append that finds nobody writing becomes the leader: it writes all waiting entries
// with one write and one flush, applies them to the live set in LSN order, answers all
// callers, and passes the lead to the first that came meanwhile. One goroutine in the
// background makes the spare segment, removes compacted ones and writes marks; Close
// waits for it.
//
// README.md in this folder draws the format and lists the steps of recovery, the
// assumptions and the limits.
package journal
