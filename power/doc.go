// Package power has the types and the rules of power control as pure functions: no
// clock, no goroutine, no I/O. docs/rules.md states the rules; docs/glossary.md defines
// the words.
//
//   - State, Reach and Reading are what is known of a node's power, and how well.
//   - Action, Op and Outcome are what was asked and what became of it.
//   - Status is where a node is in its life cycle; Status.Desired what its power should be.
//   - Decide determines what happens to a request while others are outstanding.
//   - Seq orders requests wherever they entered (a hybrid logical clock).
//   - Driver, Command and Error are what a power driver must offer.
//
// Agent, central, the drivers and the command line use these words; the strings are the
// ones that journal, API and terminal show.
//
// # Power operations in one page
//
// One operation at a time runs on a node. A request that meets an outstanding
// one either joins it (it asks for nothing more than what is under way), follows
// it (same final state, but more is asked), or supersedes it (the final state
// differs): see [Decide]. Cancelling happens only between BMC commands; whatever
// runs next reads the power first, so it never matters where the cancelled one
// stood. Each operation has a deadline and exactly one [Outcome].
package power
