// Package central is the coordinator: it takes requests from people, keeps them
// until the agent of their rack has them in its journal, assigns nodes and their
// desired state, collects what became of everything, and shows it.
//
//	people ──HTTP──▶ rules (this package) ──jobs──▶ store ──▶ SQLite
//	                      │      ▲
//	                 wake │      │ hello, report
//	                      ▼      │
//	agents ──long poll─▶ session of the agent
//
// Every rule that decides by what is stored runs inside a job of the store's one
// writer, so that no two requests are decided on the same state. Such a job is a
// unitOfWork: what it changes are its methods, Central has the handlers. What is in memory
// (who polls, who waits for what) only serves to wake pollers; it follows the commits
// in their order and is built again at a start.
//
// # The way of an operation
//
//	asked ─▶ taken ──poll──▶ (delivered) ──report──▶ waiting ─▶ running ─▶ ended
//	           │                  │
//	           │ deadline,        │ from here on only the agent's report ends it,
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
// A report is a state, so it may come again or out of order: an end is final; before
// it, the report that is based on the later record of the same journal counts. The
// answer 200 comes after the commit.
//
// # What is desired of a node
//
// Its status decides, or a hold that overrides it (power.Effective). Holds come from
// people's requests, from schedules and from the sockets of racks. Their sequences
// order them, so the newest one counts, whichever way and however often it is reported.
// A hold that has an end is over at that time for everybody; a sweep then removes it
// from the assignment. A schedule does not replace a person's hold.
//
// A schedule's run, what it did to the nodes and that it is over are one transaction.
// Of runs that were missed the latest is carried out late, if what it sets would still
// last; a clock that goes back repeats none. When the clocks of its zone are changed, a
// schedule that names hours runs once for each of its times nevertheless.
//
// # What is assigned
//
// Everything that an agent is sent is state with a revision of that agent: nodes with
// hold and retry, and the settings of the rack with its share of each power domain's
// limits. A job that changes some of it raises the revision of each agent once and
// wakes it after the commit. When a power domain gets its nodes from other agents than
// before, the shares of all of them change.
//
// # What agents notice
//
// With each reading comes what the monitor decided about the node, and with reports the
// state of the rack. Central keeps the newest, and writes to the audit log what began or
// ended between two of them: drift, faults, BMCs left alone, fleet brakes. The node's
// row records what was written, so that it is written once, however often reports come;
// a report that a later one has overtaken does not count. A reading that brings nothing
// new costs a single statement.
//
// An agent is asked to explain a node through its poll, and answers in a report. When
// it is away or silent, central explains what it knows itself.
package central
