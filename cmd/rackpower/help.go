package main

// exitHelp ends the help of every command.
const exitHelp = `

EXIT STATUS
   0  everything is verified (or accepted, or taken, as --wait says)
   1  something failed; each node is named, with the reason
   2  usage error; nothing was done
   3  central or the agent cannot be reached
   4  still pending when --timeout ended; the operations continue, and what
      awaits an approval still does
   5  refused: busy, stale, against the desired state, not permitted, or a plan
      whose nodes have changed since
   If nodes differ: 1 before 5 before 4.
   Ctrl-C and other signals end the command, not the operations; the shell then
   sees 128 plus the signal's number.`

// nodesHelp explains NODES.
const nodesHelp = `

NODES
   r1n[01-40,44]  a range      @rack1           the nodes of a rack
   r1n*, r1n?5    so named     @status:READY    the nodes with a status
   a,b            both         @state:off       the nodes last read in a state
   a&b            in both      @label:gpu       the nodes with a label, or with
   !x             without x    @label:dc=west   a label of that value
   all            every node   -                those that stdin names
   Several operands are joined by commas. Shells want !, * and & in quotes;
   --exclude x does what !x does.`

// examples makes the section of that name.
func examples(lines ...string) string {
	text := "\n\nEXAMPLES"
	for _, line := range lines {
		text += "\n   " + line
	}
	return text
}
