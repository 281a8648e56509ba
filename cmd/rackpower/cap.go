package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
)

// powerVerbs are the actions whose commands take nodes alone.
var powerVerbs = slices.DeleteFunc(slices.Clone(power.Actions), func(a power.Action) bool { return a == power.ActCap })

// capCommand is rackpower cap.
func capCommand(d server) *cli.Command {
	flags := append(waitFlags(waitDefault(power.ActCap)), requestFlags(power.ActCap)...)
	flags = append(flags, &cli.BoolFlag{Name: "dry-run", Usage: "show what would happen, do nothing"}, yesFlag())
	name := d.command + " cap"
	return &cli.Command{
		Name: "cap", ArgsUsage: "NODES... WATTS|none", Category: "power", Usage: "limit how much power nodes may take",
		Flags: d.flags(flags...),
		Description: "Each node gets one operation, which reads the limit, sets it where it is another one, and reads it back.\n" +
			"It joins one for the same limit and takes the place of one for another limit. Power operations on the node\n" +
			"go on: a cap waits for them and they for it. What the BMC does at the limit stays as it is set there\n" +
			"(rackpower power shows it). Where it turns nodes off (HardPowerOff), the command asks first; without a\n" +
			"terminal it needs --yes, and a protected node gets no such limit." + nodesHelp +
			examples(name+" r1n[01-40] 800W", name+" @rack1 1.2kW --reason \"feed B\" --yes", name+" all none") + exitHelp,
		Action: d.with(capNodes),
	}
}

// parseWatts reads a limit: "800W", "800", "1.2kW" or "none".
func parseWatts(s string) (int, error) {
	number, factor := strings.ToLower(s), 1.0
	if number == "none" {
		return 0, nil
	}
	number = strings.TrimSuffix(number, "w")
	if kilo, is := strings.CutSuffix(number, "k"); is {
		number, factor = kilo, 1000
	}
	watts, err := strconv.ParseFloat(number, 64)
	watts *= factor
	if err != nil || !(watts >= 1 && watts <= power.MaxLimit) || watts != float64(int(watts)) {
		return 0, settings.Usage("%q is no limit: want WATTS such as 800W, from 1 W to %s, or none", s, power.Watts(power.MaxLimit))
	}
	return int(watts), nil
}

// capNodes carries out rackpower cap.
func capNodes(s *session) error {
	operands := s.c.Args().Slice()
	limit, err := parseWatts(operands[len(operands)-1])
	if err != nil {
		return err
	}
	o, err := orderOf(s, power.ActCap)
	if err != nil {
		return err
	}
	o.request.Limit = limit
	nodes, err := s.nodes(operands[:len(operands)-1])
	if err != nil {
		return err
	}
	if !o.dryRun && !o.confirmed && limit > 0 {
		if o.confirmed, err = s.confirmCuts(nodes, limit); err != nil {
			return err
		}
	}
	return carryOut(s, o, nodes)
}

// lookBeforeCap is how long BMCs may take to say what they do at the limit. A node whose BMC
// does not say is not confirmed, and its agent refuses what would have to be.
const lookBeforeCap = 10 * time.Second

// confirmCuts asks where nodes would be turned off at the limit.
func (s *session) confirmCuts(nodes []api.Node, limit int) (bool, error) {
	if s.server == atAgent {
		return false, nil // it reads no consumption for others
	}
	got, err := s.client.Consumption(s.ctx, api.ReadConsumption{Names: namesOf(nodes), Wait: lookBeforeCap})
	if err != nil {
		return false, err
	}
	var cut []string
	for _, n := range got.Nodes {
		if n.Limit != nil && n.Limit.Exception.CutsPower() {
			cut = append(cut, n.Node)
		}
	}
	if len(cut) == 0 {
		return false, nil
	}
	return s.question(fmt.Sprintf("the BMC turns the node off that takes more than %s for too long (%s): %s", power.Watts(limit),
		power.LimitHardPowerOff, noderange.Fold(cut)))
}
