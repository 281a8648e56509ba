// Package noderange reads and writes sets of node names: host ranges. rackpower help nodes
// says the same to those who type them.
//
//	r1n[01-40,44]   a range; the digits keep their zeros; several brackets multiply
//	r1n*, r1n?5     the nodes so named: * is any characters, ? is one
//	a,b             union
//	@rack1          the nodes of a rack
//	@status:READY   the nodes with a status
//	@state:off      the nodes last read in a state
//	@label:gpu      the nodes with a label; @label:model=h100 with a label of that value
//	!x              everything before it, without x
//	a&b             only what is in both
//	(a,b)&c         parentheses group
//	all             every node
//
// An exclusion with nothing before it takes from all: "!r1n01" is every node
// but one. & binds before the comma; "!" takes from everything to its left within
// its parentheses. A node that does not exist is an error: a typing
// mistake must not silently do less than was meant.
package noderange
