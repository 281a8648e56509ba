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
package central
