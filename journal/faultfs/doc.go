// Package faultfs is a disk in memory that fails on demand, for the tests of
// package journal and of its users.
//
// A file has two faces: what reads see (the page cache) and what would survive a
// loss of power (the disk). Write changes the first, Sync carries the sectors
// written since to the second. So do names: Rename and Remove are seen at once
// and survive only after SyncDir.
//
//   - [FS.Restart] is a killed process: locks go, all that was written stays.
//   - [FS.PowerLoss] keeps of what was not flushed an arbitrary subset: single
//     sectors of each write, single directory changes.
//   - [FS.OnCall] puts a fault before each call: an error, an error after part
//     of the bytes, or the end of the machine.
//   - [FS.SetCapacity] is a disk of a certain size.
//
// After a failed Sync the data is what Linux leaves: readable, clean, and not on
// the disk; the next Sync succeeds and carries nothing.
package faultfs
