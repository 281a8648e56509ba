package main

// exitHelp ends the help of every command.
const exitHelp = `

EXIT STATUS
   0  everything asked for is verified (or accepted, taken: as --wait says)
   1  something failed; each node is named, with the reason
   2  usage: the request makes no sense as it stands, nothing was done
   3  central or agent not reachable
   4  still pending when --timeout ended; the operations go on
   5  refused: busy, stale, against the desired state, not permitted
   When nodes differ: 1 before 5 before 4.
   A signal (Ctrl-C) ends the command only, not what was asked for; a shell sees 128 and
   its number, 130, and ends its loop.`

// nodesHelp explains NODES.
const nodesHelp = `

NODES
   r1n[01-40,44]  a range      @rack1           the nodes of a rack
   a,b            both         @status:READY    the nodes with a status
   !x             without x    @state:off       the nodes last read in a state
   a&b            in both      all              every node
   Several operands are joined by commas.`

// examples makes the section of that name.
func examples(lines ...string) string {
	text := "\n\nEXAMPLES"
	for _, line := range lines {
		text += "\n   " + line
	}
	return text
}
