package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// testCommand is rackpower node test, which shows what a BMC says of itself, and rackpower
// credentials test, which shows what came of the log-ins. Both do the same.
func testCommand(title string) *cli.Command {
	c := &cli.Command{
		Name: "test", ArgsUsage: "NODES...", Usage: "log in to BMCs once, and show what they answer", Action: atCentral.with(testLogins),
		Flags: atCentral.flags(&cli.DurationFlag{Name: "timeout", Value: api.DefaultTestWait, Usage: "wait for `DURATION` at most"}),
		Description: "Changes nothing. Each BMC gets one log-in, which counts like any other: one that was refused twice is not tried\n" +
			"again until its credentials change, or by rackpower node retry." + nodesHelp +
			examples("rackpower "+title+" r1n07", "rackpower "+title+" @rack1 -o json") + exitHelp,
	}
	if title == "node test" {
		c.Usage, c.Action = "show what BMCs say of themselves, and what is odd", atCentral.with(testNodes)
	}
	return c
}

func (s *session) tests() ([]api.NodeTest, error) {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return nil, err
	}
	wait := s.c.Duration("timeout")
	if wait <= 0 || wait > time.Minute {
		return nil, settings.Usage("--timeout: %s is not between 1ms and 1m", wait)
	}
	return s.client.TestNodes(s.ctx, api.TestNodes{Names: namesOf(nodes), Wait: wait, AskedBy: s.askedBy()})
}

// failedTests is the error of tests some of which failed, nil where none did.
func failedTests(all []api.NodeTest) error {
	bad := 0
	for _, t := range all {
		if t.Reach != power.ReachOK {
			bad++
		}
	}
	if bad == 0 {
		return nil
	}
	return settings.Exit(settings.ExitFailed, "%d of %s failed", bad, power.Count(len(all), "test"))
}

// loginWord is what came of a log-in.
func loginWord(t api.NodeTest) string {
	switch {
	case t.Reach == power.ReachNever:
		return "not tested"
	case !t.Tried && t.Reach != power.ReachUnconfigured:
		return string(t.Reach) + ", not tried"
	}
	return string(t.Reach)
}

// usedCredentials is where the credentials of a node are from.
func usedCredentials(t api.NodeTest) string {
	return cmp.Or(t.Credentials, map[bool]string{true: "its own"}[t.User != ""])
}

func testLogins(s *session) error {
	all, err := s.tests()
	if err != nil {
		return err
	}
	err = printer.Show(s.Printer, printer.Listing[api.NodeTest]{
		Rows: all, Name: func(t api.NodeTest) string { return t.Node },
		Head: []string{"NODE", "LOG-IN", "USER", "CREDENTIALS", "ROLE", "SECURITY"},
		Cells: func(t api.NodeTest) []string {
			return []string{t.Node, loginWord(t), t.User, usedCredentials(t), t.Role, t.Security}
		},
	})
	if err != nil {
		return err
	}
	s.tellTests(all, func(t api.NodeTest) []string { return nil })
	return failedTests(all)
}

// tellTests tells people what does not fit into a table.
func (v view) tellTests(all []api.NodeTest, more func(api.NodeTest) []string) {
	var said []saidOf
	for _, t := range all {
		if t.Message != "" {
			said = append(said, saidOf{t.Node, t.Message})
		}
		for _, text := range more(t) {
			said = append(said, saidOf{t.Node, text})
		}
	}
	v.tell(said)
}

// saidOf is a text that is about a node.
type saidOf struct{ node, text string }

// tell tells people texts: the same once for all nodes that it is about.
func (v view) tell(said []saidOf) {
	if !v.People() || v.Quiet {
		return
	}
	about, texts := map[string][]string{}, []string{}
	for _, s := range said {
		if about[s.text] == nil {
			texts = append(texts, s.text)
		}
		about[s.text] = append(about[s.text], s.node)
	}
	for _, text := range texts {
		v.Say("%s: %s", noderange.Fold(about[text]), term.Clean(text))
	}
}

func testNodes(s *session) error {
	all, err := s.tests()
	if err != nil {
		return err
	}
	remarks := func(t api.NodeTest) []string { return t.Remarks }
	if len(all) == 1 && s.People() {
		t := all[0]
		s.Details("node", t.Node, "log-in", loginWord(t), "user", t.User, "credentials", usedCredentials(t), "role", t.Role,
			"protocol", strings.Trim(t.Protocol+", "+t.Security, ", "), "vendor", t.Vendor, "model", t.Model, "firmware", t.Firmware,
			"systems", strings.Join(t.Systems, ", "), "state", string(t.State), "allowed", strings.Join(t.Allowed, ", "),
			"sessions", sessionsCell(t.TestResult), "clock", clockCell(t.TestResult))
		for _, text := range slices.Concat([]string{t.Message}, remarks(t)) {
			if text != "" {
				s.Details("odd", term.Clean(text))
			}
		}
		return failedTests(all)
	}
	err = printer.Show(s.Printer, printer.Listing[api.NodeTest]{
		Rows: all, Name: func(t api.NodeTest) string { return t.Node },
		Head: []string{"NODE", "LOG-IN", "STATE", "VENDOR", "MODEL", "FIRMWARE"},
		Cells: func(t api.NodeTest) []string {
			return []string{t.Node, loginWord(t), string(t.State), t.Vendor, t.Model, t.Firmware}
		},
		WideHead: []string{"PROTOCOL", "SESSIONS", "CLOCK"},
		WideCells: func(t api.NodeTest) []string {
			return []string{t.Protocol, sessionsCell(t.TestResult), clockCell(t.TestResult)}
		},
	})
	if err != nil {
		return err
	}
	s.tellTests(all, remarks)
	return failedTests(all)
}

func sessionsCell(r power.TestResult) string {
	switch {
	case r.MaxSessions > 0:
		return fmt.Sprintf("%d of %d", r.Sessions, r.MaxSessions)
	case r.Sessions > 0:
		return fmt.Sprint(r.Sessions)
	}
	return ""
}

func clockCell(r power.TestResult) string {
	switch {
	case r.Clock.IsZero():
		return ""
	case r.ClockSkew.Abs() < 2*time.Second:
		return "right"
	case r.ClockSkew < 0:
		return r.ClockSkew.Abs().String() + " behind"
	}
	return r.ClockSkew.String() + " ahead"
}
