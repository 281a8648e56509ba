package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// What asks first: more than so many nodes at once, all of a rack that has power, or
// more than a share of all nodes.
const (
	confirmAbove = 20
	shareAbove   = 5  // a share of fewer nodes than these is no reason to ask
	defaultShare = 50 // percent
)

// asksFirst is what the help of a command that may take power says.
var asksFirst = fmt.Sprintf("\nIt asks first if more than %d nodes would lose power, or all of a rack, or more than --confirm-share\n"+
	"of all nodes; without a terminal it needs --yes.", confirmAbove)

// confirmFlags are those of commands that may ask.
func confirmFlags() []cli.Flag {
	return []cli.Flag{
		yesFlag(),
		&cli.IntFlag{
			Name: "confirm-share", Value: defaultShare,
			Usage: "ask for confirmation if more than `PERCENT` of all nodes would lose power; 100: never for this reason",
		},
	}
}

// asks reports whether there is somebody to ask. Tests put themselves here.
var asks = func(c *cli.Context) bool {
	return term.Interactive(c.App.Reader, c.App.ErrWriter)
}

// typed waits for what a person types, until the context ends. What reads the
// terminal cannot be called back; it ends with the process, which is about to.
func typed(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	came := make(chan answer, 1)
	go func() {
		text, err := read()
		came <- answer{text, err}
	}()
	select {
	case a := <-came:
		return a.text, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// losing are the nodes that lose power when they are turned off: all that are not
// known to be off and to stay so.
func losing(nodes []api.Node) []api.Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n api.Node) bool {
		comesOn := n.Op != nil && n.Op.Action.Final() == power.On
		return n.State == power.Off && !n.Stale && !comesOn
	})
}

// impact is what a command does to nodes.
type impact struct {
	nodes []api.Node
	// what ends the sentence that the count begins: "20 " + "nodes will lose power".
	what string
	// counts are those of a rack's nodes that make it whole: all that could suffer.
	counts func([]api.Node) []api.Node
}

// cut is the impact of nodes that lose power.
func cut(nodes []api.Node) impact {
	return impact{nodes: losing(nodes), what: "nodes will lose power", counts: losing}
}

// impactOf is what an action does to those nodes.
func impactOf(action power.Action, nodes []api.Node) impact {
	im := cut(nodes)
	switch {
	case action == power.ActReset:
		im.what = "nodes will be reset"
	case action == power.ActDiag:
		im.what = "nodes will get an NMI, which stops most systems"
	case action == power.ActBMCReset:
		all := func(nodes []api.Node) []api.Node { return nodes }
		im = impact{nodes: nodes, what: "BMCs will restart", counts: all}
	case !action.CutsPower():
		im.nodes = nil
	}
	return im
}

// confirmer has a person confirm what a command is about to do to many nodes.
type confirmer struct {
	connection
	err io.Writer // where the question goes
}

// confirm makes sure that somebody has seen what happens to many nodes. It reports
// whether somebody said yes, by flag or by word.
func (k confirmer) confirm(im impact) (bool, error) {
	yes := k.c.Bool("yes")
	if yes {
		return true, nil
	}
	share, ask, err := k.many(im)
	if err != nil || !ask {
		return false, err
	}
	return k.question(fmt.Sprintf("%d %s%s: %s", len(im.nodes), im.what, share, noderange.Fold(namesOf(im.nodes))))
}

// many reports whether an impact is so large that somebody has to confirm it, and which
// part of the whole it is, if that is the reason.
func (k confirmer) many(im impact) (part string, ask bool, err error) {
	share := k.c.Int("confirm-share")
	if share < 1 || share > 100 {
		return "", false, settings.Usage("--confirm-share: %d is not between 1 and 100", share)
	}
	if len(im.nodes) < 2 {
		return "", false, nil
	}
	racks, err := k.wholeRacks(im)
	switch {
	case err != nil:
		return "", false, err
	case racks != "":
		return ", all of " + racks, true, nil
	case len(im.nodes) > confirmAbove:
		return "", true, nil
	case len(im.nodes) <= shareAbove || share == 100:
		return "", false, nil
	}
	total, err := k.countNodes()
	if err != nil || len(im.nodes)*100 <= share*total {
		return "", false, err
	}
	return fmt.Sprintf(", %d %% of all %d", len(im.nodes)*100/total, total), true, nil
}

// wholeRacks names, folded, the racks of two nodes or more of which no node is left
// out; "" when there are none.
func (k confirmer) wholeRacks(im impact) (string, error) {
	hit := map[string]int{}
	for _, n := range im.nodes {
		hit[n.Rack]++
	}
	maps.DeleteFunc(hit, func(rack string, n int) bool { return rack == "" || n < 2 })
	if len(hit) == 0 {
		return "", nil
	}
	expr := "all" // the agent's own
	if k.server == atCentral {
		expr = "@" + strings.Join(slices.Sorted(maps.Keys(hit)), ",@")
	}
	nodes, err := k.client.Nodes(k.ctx, expr)
	if err != nil {
		return "", err
	}
	for _, n := range im.counts(nodes) {
		if _, ok := hit[n.Rack]; ok {
			hit[n.Rack]--
		}
	}
	maps.DeleteFunc(hit, func(_ string, left int) bool { return left < 0 })
	return noderange.Fold(slices.Collect(maps.Keys(hit))), nil
}

// countNodes is how many nodes there are.
func (k confirmer) countNodes() (int, error) {
	if k.server != atCentral {
		nodes, err := k.client.Nodes(k.ctx, "all")
		return len(nodes), err
	}
	racks, err := k.client.Racks(k.ctx)
	total := 0
	for _, r := range racks {
		total += r.Nodes
	}
	return total, err
}

// question asks whether to go on; the statement says what will happen. Without a
// terminal it is an error: nobody can answer.
func (k confirmer) question(statement string) (bool, error) {
	if !asks(k.c) {
		return false, settings.Exit(settings.ExitUsage, "%s; nothing was done: confirm with --yes", statement)
	}
	fmt.Fprintf(k.err, "%s. Continue? [y/N] ", statement)
	answer, err := typed(k.ctx, func() (string, error) {
		line, err := bufio.NewReader(k.c.App.Reader).ReadString('\n')
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(k.err) // what was typed did not end the line
			err = nil
		}
		return line, err
	})
	if err != nil {
		fmt.Fprintln(k.err)
		return false, settings.Exit(settings.ExitUsage, "not confirmed; nothing was done")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	default:
		return false, settings.Exit(settings.ExitUsage, "not confirmed; nothing was done")
	}
}
