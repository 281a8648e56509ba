package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/settings"
)

// exitHelp ends the help of every command; exitHelpOf takes its place.
const exitHelp = "\n\nEXIT STATUS\n"

// exitHelpOf is the section of the exit statuses that a command has: one that asks nobody is
// not refused, and one that waits for nothing is not pending.
func exitHelpOf(c *cli.Command) string {
	has := func(flags ...string) bool {
		return slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(flags, settings.NameOf(f)) })
	}
	if c.Name == "fence" { // whose statuses are those of all fence agents
		return exitHelp + "   0  done and verified; of status: the node is on\n" +
			"   1  anything else, which is said on stderr, also usage errors\n   2  of status: the node is off"
	}
	waits := has("wait") || len(c.Subcommands) > 0 // which tells of all
	text := exitHelp
	switch {
	case waits:
		text += "   0  everything is verified (or accepted, or taken, as --wait says)\n"
	default:
		text += "   0  done, or shown\n"
	}
	text += "   1  something failed; it is named, with the reason\n   2  usage error; nothing was done\n"
	asks := waits || has("central", "socket") || c.Name == "login"
	if asks {
		text += "   3  central or the agent cannot be reached\n"
	}
	switch {
	case waits:
		text += "   4  still pending when --timeout ended; the operations continue, and what\n      awaits an approval still does\n"
	case c.Name == "wait":
		text += "   4  not so yet when --timeout ended\n"
	case has("confirm-share"):
		text += "   4  it awaits an approval\n"
	}
	switch {
	case waits:
		text += "   5  refused: busy, stale, against the desired state, not permitted, or a plan\n      whose nodes have changed since\n" +
			"   If nodes differ: 1 before 5 before 4.\n" +
			"   Ctrl-C and other signals end the command, not the operations; the shell then\n   sees 128 plus the signal's number."
	case has("reason", "yes"):
		text += "   5  refused: busy, against the desired state, or not permitted"
	case asks:
		text += "   5  not permitted"
	}
	return strings.TrimRight(text, "\n")
}

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
   --exclude x does what !x does. rackpower help nodes tells all of it.`

// nodesTopic is all that there is to say of NODES.
const nodesTopic = `Commands act on the nodes that an expression selects, evaluated once by central
(by the agent, for rackpower local). So do scopes of users, the policy of
approvals and schedules, which evaluate it anew each time.

NAMES
   r1n07            the node of that name
   r1n[01-40,44]    numbers in brackets keep their zeros; several brackets
                    multiply: r[1-2]n[01-40]
   r1n*, r1n?5      all nodes so named: * is any characters, ? is one
   all              every node
   -                as an operand: the words on stdin, each such an expression

GROUPS
   @r1, @rack:r1    the nodes of a rack
   @status:READY    those with a status, in any case, with - or _
   @state:off       those last read on, off or unknown
   @label:gpu       those with a label (rackpower node set --label gpu)
   @label:dc=west   those with a label of that value; @label:dc= of none
                    (an agent knows no labels: not in rackpower local)

TOGETHER
   a,b              a and b
   a&b              what is in both; binds before the comma
   !x, a!x          all but x, and a without x: it takes from everything to its
                    left within its parentheses
   (a,b)&c          parentheses group
   --exclude x      the same as (...)!(x), where a shell makes something of !

ERRORS
   A node, a rack or a label that nothing has is an error, and nothing is done:
   a typing mistake must not do less than was meant, or leave out nothing.
   Commands that act need a node; those that look may find none.`

// nodesCommand is a topic: its help is what it prints.
func nodesCommand() *cli.Command {
	c := &cli.Command{
		Name: "nodes", Category: "help", Usage: "how NODES are written",
		Description: nodesTopic + examples("rackpower status '@r1&@state:on'", "rackpower off all --exclude 'db*' --dry-run",
			"grep -l broken r1n*.log | cut -d. -f1 | rackpower status -") + exitHelp,
	}
	c.Action = func(c *cli.Context) error {
		_, err := fmt.Fprintln(c.App.Writer, nodesTopic)
		return err
	}
	return c
}

// examples makes the section of that name.
func examples(lines ...string) string {
	text := "\n\nEXAMPLES"
	for _, line := range lines {
		text += "\n   " + line
	}
	return text
}
