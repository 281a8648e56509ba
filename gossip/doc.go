// Package gossip lets every agent, and central, know which members are alive and what
// the power of the whole fleet is, without asking central.
//
// It joins a Serf cluster for membership and failure detection, and spreads one
// small versioned record per agent that holds the power of all its nodes. It is only
// shown: no operation is decided by it.
//
// The README beside this file draws the messages and says why they travel as
// Serf's user events.
package gossip
