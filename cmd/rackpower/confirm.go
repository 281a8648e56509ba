package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
)

// confirmAbove is how many nodes may lose power at once without a question.
const confirmAbove = 20

// asksFirst is what the help of a command that may take power says.
var asksFirst = fmt.Sprintf("\nIf more than %d nodes would lose power it asks first; without a terminal it wants --yes.", confirmAbove)

// asks reports whether there is somebody to ask. Tests put themselves here.
var asks = func(c *cli.Context) bool {
	in, ok := c.App.Reader.(interface{ Fd() uintptr })
	return ok && isTerminal(in.Fd()) && settings.IsTerminal(c.App.ErrWriter)
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

// losing lists the nodes that lose power when they are turned off: all that are not
// known to be off and to stay so.
func losing(nodes []api.Node) []string {
	var names []string
	for _, n := range nodes {
		comesOn := n.Op != nil && n.Op.Action.Final() == power.On
		if n.State != power.Off || n.Stale || comesOn {
			names = append(names, n.Name)
		}
	}
	return names
}

// confirm makes sure that somebody has seen how many nodes lose power. It reports
// whether somebody said yes, by flag or by word.
func (s *session) confirm(losing []string, yes bool) (bool, error) {
	return s.confirmThat(fmt.Sprintf("%d nodes will lose power: %s", len(losing), noderange.Fold(losing)), len(losing), yes)
}

// confirmThat is confirm with a statement of what happens to the count of nodes.
func (s *session) confirmThat(question string, count int, yes bool) (bool, error) {
	if yes || count <= confirmAbove {
		return yes, nil
	}
	if !asks(s.c) {
		return false, settings.Exit(settings.ExitUsage, "%s; nothing was done: say --yes if that is meant", question)
	}
	fmt.Fprintf(s.err, "%s. Continue? [y/N] ", question)
	answer, err := typed(s.ctx, func() (string, error) {
		line, err := bufio.NewReader(s.c.App.Reader).ReadString('\n')
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(s.err) // what was typed did not end the line
			err = nil
		}
		return line, err
	})
	if err != nil {
		fmt.Fprintln(s.err)
		return false, settings.Exit(settings.ExitUsage, "not confirmed; nothing was done")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	default:
		return false, settings.Exit(settings.ExitUsage, "not confirmed; nothing was done")
	}
}
