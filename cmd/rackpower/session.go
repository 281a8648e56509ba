package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power/noderange"
)

// session is one command at work. The commands are functions of it.
type session struct {
	connection
	confirmer
	view
}

// connection is whom a command asks, and what its command line says. It prints nothing.
type connection struct {
	c      *cli.Context
	ctx    context.Context
	server server
	client *api.Client
}

// patience is how long a command waits for a sign of life. Tests are more impatient.
var patience = api.DefaultPatience()

// tellSilence has a client tell of silence, and of requests that have to wait.
func tellSilence(p printer.Printer, client *api.Client, who string, in api.Patience) {
	in.Silent = func() { p.Warn("%s at %s has not answered for %s, still waiting", who, client.Target(), in.Say) }
	in.Refused = func(why *api.Problem, pause time.Duration) {
		p.Warn("%s; trying again in %s", term.Clean(why.Detail), pause.Round(time.Second))
	}
	client.SetPatience(in)
}

// showNone prints an empty list.
func (v view) showNone() error {
	return printer.Show(v.Printer, printer.Listing[api.Node]{
		Name:  func(n api.Node) string { return n.Name },
		Cells: func(api.Node) []string { return nil },
	})
}

// interrupted reports whether an error is the end of a command's context. With a
// signal its cause names the signal and is no context.Canceled.
func interrupted(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) || ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
}

// explain gives the errors of the API the exit statuses that they have for people.
func (s *session) explain(err error) error {
	return explainAt(s.ctx, s.server, s.client.Target(), s.Printer, err)
}

// explainAt is explain of what was asked at a server.
func explainAt(ctx context.Context, d server, target string, p printer.Printer, err error) error {
	var problem *api.Problem
	switch {
	case err == nil:
		return nil
	case errors.Is(err, api.ErrSilent):
		return settings.Exit(settings.ExitUnreachable, "%s at %v; see systemctl status %s, journalctl -u %s", d.who, err, d.unit, d.unit)
	case errors.Is(err, api.ErrUnreachable):
		return settings.Exit(settings.ExitUnreachable, "%s at %v; %s", d.who, err, d.wayOut(target))
	case errors.As(err, new(nothing)):
		return settings.Exit(settings.ExitUsage, "%v", err)
	case interrupted(ctx, err):
		return settings.Exit(settings.ExitFailed, "interrupted")
	case !errors.As(err, &problem):
		return err
	}
	code := settings.ExitFailed
	switch problem.Code {
	case api.CodeChanged: // a line for each that has
		lines := strings.Split(problem.Detail, "\n")
		for i := range lines {
			lines[i] = p.Readable(lines[i])
		}
		return settings.Exit(settings.ExitRefused, "%s", strings.Join(lines, "\n"))
	case api.CodeBadRequest, api.CodeNotFound, api.CodeExists, api.CodeTooLarge:
		code = settings.ExitUsage
	case api.CodeAwaiting:
		code = settings.ExitPending
	case api.CodeBusy, api.CodeRefused, api.CodeTooMany, api.CodeLogin, api.CodeForbidden:
		code = settings.ExitRefused
	case api.CodeUnavailable:
		code = settings.ExitUnreachable
	}
	return settings.Exit(code, "%s", p.Readable(problem.Detail))
}

// selection is the expression that the operands and --exclude are together; "" when there
// are none. An operand that is empty is an error: it may be a variable that was not set,
// and would mean every node.
func (k connection) selection(operands []string) (string, error) {
	blank := func(s string) bool { return strings.TrimSpace(s) == "" }
	if slices.ContainsFunc(operands, blank) {
		return "", settings.Usage("NODES is empty; use all for every node")
	}
	operands = slices.Clone(operands)
	if i := slices.Index(operands, "-"); i >= 0 {
		if slices.Contains(operands[i+1:], "-") {
			return "", settings.Usage("- is given twice: stdin is read once")
		}
		listed, err := k.listed()
		if err != nil {
			return "", err
		}
		operands[i] = listed
	}
	expr := strings.Join(operands, ",")
	if !k.c.IsSet(excludeName) {
		return expr, nil
	}
	without := strings.Join(k.c.StringSlice(excludeName), ",") // which the library parts at its commas
	switch {
	case slices.ContainsFunc(k.c.StringSlice(excludeName), blank):
		return "", settings.Usage("--%s is empty", excludeName)
	case expr == "":
		return "!(" + without + ")", nil
	default:
		return "(" + expr + ")!(" + without + ")", nil
	}
}

// listed is what stdin names, folded where it is plain names.
func (k connection) listed() (string, error) {
	text, err := typed(k.ctx, func() (string, error) {
		data, err := io.ReadAll(k.c.App.Reader)
		return string(data), err
	})
	if err != nil {
		return "", err
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == 0 })
	if len(words) == 0 {
		return "", settings.Usage("NODES: stdin names no node")
	}
	expr := strings.Join(words, ",")
	if names, err := noderange.Expand(expr); err == nil && !slices.Contains(names, "all") {
		return noderange.Fold(names), nil
	}
	return "(" + expr + ")", nil
}

// nothing is that no node is as an expression says: @state:unknown of a fleet all of
// which is read.
type nothing struct{ expr string }

func (n nothing) Error() string { return fmt.Sprintf("no node matches %q", n.expr) }

// nodes has the expression evaluated where the nodes are known.
func (k connection) nodes(operands []string) ([]api.Node, error) {
	expr, err := k.selection(operands)
	if err != nil {
		return nil, err
	}
	return k.selected(expr)
}

// longest bounds an expression that is asked for at once: it travels in an address, where
// its commas take three bytes.
const longest = 16 << 10

// inParts are expressions that together select what a long one does: a list of names, such
// as stdin may have, is as long as it is. Others stay whole.
func inParts(expr string) []string {
	if len(expr) <= longest {
		return []string{expr}
	}
	names, err := noderange.Expand(expr)
	if err != nil || slices.Contains(names, "all") {
		return []string{expr}
	}
	noderange.Sort(names)
	names = slices.Compact(names)
	var parts []string
	for len(names) > 0 {
		n := len(names)
		for n > 1 && len(noderange.Fold(names[:n])) > longest {
			n = (n + 1) / 2
		}
		parts, names = append(parts, noderange.Fold(names[:n])), names[n:]
	}
	return parts
}

// selected are the nodes that an expression selects, "" being all.
func (k connection) selected(expr string) ([]api.Node, error) {
	var nodes []api.Node
	for _, part := range inParts(cmp.Or(expr, "all")) {
		found, err := k.client.Nodes(k.ctx, part)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, found...)
	}
	if len(nodes) == 0 && expr != "" {
		return nil, nothing{expr}
	}
	slices.SortFunc(nodes, func(a, b api.Node) int { return noderange.Compare(a.Name, b.Name) })
	return nodes, nil
}

func namesOf(nodes []api.Node) []string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return names
}

// askedBy is whom the command asks for, where that is another than who is authenticated:
// the user behind sudo, or the one that a front end names.
func (s *session) askedBy() string {
	named := os.Getenv("RACKPOWER_ASKED_BY")
	if named == "" && !s.client.Remote() {
		named = os.Getenv("SUDO_USER")
	}
	return named
}
