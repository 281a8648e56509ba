// Package central is the coordinator: it takes requests from people, keeps them
// until the agent of their rack has them in its journal, assigns nodes and their
// desired state, collects what became of everything, and shows it.
//
//	people ──HTTP──▶ rules (this package) ──jobs──▶ store ──▶ SQLite
//	                      │      ▲
//	                 wake │      │ hello, report
//	                      ▼      │
//	agents ──long poll─▶ desk of the agent
//
// Every rule that decides by what is stored runs inside a job of the store's one
// writer, so that two requests are never weighed against the same past. What is
// in memory (who polls, who waits for what) is a hint for waking; it follows the
// commits in their order and is built again at a start.
//
// # The way of an operation
//
//	asked ─▶ taken ──poll──▶ (delivered) ──report──▶ waiting ─▶ running ─▶ ended
//	           │                  │
//	           │ deadline,        │ from here on only the agent's word ends it,
//	           │ cancel           │ or the loss of its journal (indeterminate)
//	           ▼                  ▼
//	         ended              ended
//
// "Delivered" is durable before the request leaves, so central ends only what
// cannot be in any journal. An agent that lost its journal is found by its hello:
// what it had accepted and does not know any more ends indeterminate; what it
// was sent but had not confirmed is sent again if doing it twice is harmless
// (on, off, soft-off) and ends indeterminate otherwise.
//
// # Reports
//
// A report says how things stand, so it may come again or out of order: an end is
// the last word; before it, the word that stands on the later record of the
// same journal counts. The answer 200 comes after the commit.
//
// # What is desired of a node
//
// Its status says, or a hold that overrides it (power.Effective). Holds come in at
// three doors: people's requests, schedules, and the sockets of racks. Their sequences
// order them, so whichever way and however often they are told, the newest stands. A
// hold that has an end is over at that time for everybody; the sweep then takes it out
// of the assignment. What people hold no schedule touches.
//
// A schedule's run, what it did to the nodes and that it is over are one transaction.
// Of runs that were missed the latest is carried out late, if what it sets would still
// last; a clock that goes back repeats none. When the clocks of its zone are changed, a
// schedule that names hours runs once for each of its times nevertheless.
//
// # What is assigned
//
// Everything that an agent is told is state with a revision of that agent's: nodes
// with hold and retry, and the settings of the rack with its share of each power
// domain's limits. A job that changes some of it (type change) raises the revision of
// each agent once and wakes it after the commit. When a power domain gets its nodes
// from other agents than before, the shares of all of them change.
//
// # What agents notice
//
// With each reading comes what the monitor makes of the node, and with reports how the
// rack stands. Both are state too. Central keeps the newest, and writes into the audit
// trail what began or ended between two of them: drift, faults, BMCs left alone, fleet
// brakes. Whether something was written stands in the node's row, so that it is written
// once, however often reports come; a report that was overtaken by a later one does not
// count. A reading that says nothing new costs a single statement.
//
// An agent is asked to explain a node through its poll, and answers in a report. When
// it is away or silent, central says what it knows.
package central
