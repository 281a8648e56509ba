// Package slurm has what slurmctld starts to save power: SuspendProgram, ResumeProgram and
// ResumeFailProgram. Each is given a hostlist, hands it over to central and returns: slurmctld does not
// look at what becomes of it, and asks again for what did not come up. The same request again joins
// the one that is outstanding.
package slurm

import (
	"context"
	"fmt"
	"strings"

	"rackpower/cmd/rackpower/front"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Program is one of the three.
type Program struct {
	Name   string // as a subcommand
	Action power.Action
	Reason string // for the audit log
}

// The programs. A node that did not come up is turned off hard: slurmctld takes it for down from
// then on, and there may be no system on it that would shut down.
var (
	Suspend    = Program{"suspend", power.ActSoftOff, "Slurm SuspendProgram"}
	SuspendNow = Program{"suspend", power.ActOff, "Slurm SuspendProgram"}
	Resume     = Program{"resume", power.ActOn, "Slurm ResumeProgram"}
	ResumeFail = Program{"resume-fail", power.ActOff, "Slurm ResumeFailProgram"}
)

// Run hands the nodes of a hostlist over. It returns nil when central has taken the request for
// each; an error names those that it did not take, or none was.
func (p Program) Run(ctx context.Context, fleet front.Fleet, hostlist string) error {
	names, err := noderange.Expand(hostlist)
	if err != nil {
		return fmt.Errorf("cannot read the hostlist: %w", err)
	}
	results, err := fleet.Operate(ctx, front.Request{Action: p.Action, Names: names, Reason: p.Reason, Hand: true})
	if err != nil {
		return fmt.Errorf("%s of %s: %w", p.Action, noderange.Fold(names), err)
	}
	var lines []string
	for _, g := range front.Failures(results) {
		lines = append(lines, g.Line())
	}
	if len(lines) > 0 {
		return fmt.Errorf("%s: %s", p.Action, strings.Join(lines, "; "))
	}
	return nil
}
