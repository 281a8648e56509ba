package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// exitHelp ends the help of every command; exitHelpOf takes its place.
const exitHelp = "\n\nEXIT STATUS\n"

// exitHelpOf is the section of the exit statuses that a command has: one that asks nobody is
// not refused, and one that waits for nothing is not pending.
func exitHelpOf(c *cli.Command) string {
	has := func(flags ...string) bool {
		return slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(flags, f.Names()[0]) })
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
   --exclude x does what !x does.`

// examples makes the section of that name.
func examples(lines ...string) string {
	text := "\n\nEXAMPLES"
	for _, line := range lines {
		text += "\n   " + line
	}
	return text
}
