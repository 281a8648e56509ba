package main

import (
	"cmp"
	"errors"
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

func opsCommand(d server) *cli.Command {
	name := d.command + " ops"
	return &cli.Command{
		Name: "ops", Category: "look", Usage: "list operations", ArgsUsage: "[NODES...]",
		Description: "The newest operations of the nodes (none named: of all), oldest first." + nodesHelp +
			examples(name+" r1n01", name+" --outstanding", name+" @rack1 --since 1h -o json") + exitHelp,
		Flags: d.flags(
			&cli.BoolFlag{Name: "outstanding", Usage: "only operations that have not ended"},
			sinceFlag("only operations requested since `TIME`"),
			&cli.IntFlag{Name: "limit", Value: 1000, Usage: "show at most the newest `N` operations"},
		),
		Action: d.looking(listOps),
	}
}

func listOps(s *session) error {
	limit := s.c.Int("limit")
	if limit < 1 {
		return settings.Usage("--limit: %d is not at least 1", limit)
	}
	since, err := s.when("since")
	if err != nil {
		return err
	}
	in := api.QueryOps{Outstanding: s.c.Bool("outstanding"), Limit: limit, Since: since}
	var unknown error
	if s.c.NArg() > 0 {
		nodes, err := s.nodes(s.c.Args().Slice())
		in.Nodes = namesOf(nodes)
		if err != nil { // nodes that were removed have a history too
			var p *api.Problem
			var bad error
			in.Nodes, bad = noderange.Expand(strings.Join(s.c.Args().Slice(), ","))
			if !errors.As(err, &p) || p.Code != api.CodeNotFound || bad != nil {
				return err
			}
			unknown = err
		}
	}
	found, err := s.client.FindOps(s.ctx, in)
	switch {
	case err != nil:
		return err
	case unknown != nil && len(found.Ops) == 0:
		return unknown
	}
	if len(found.Ops) >= limit && !s.Quiet {
		s.Warn("the newest %d are shown; --limit shows more", limit)
	}
	if len(found.Ops) == 0 {
		s.Say("no operations")
	}
	return printer.Show(s.Printer, s.opListing(found.Ops))
}

func (v view) opListing(ops []api.Op) printer.Listing[api.Op] {
	return printer.Listing[api.Op]{
		Rows: ops, Name: func(o api.Op) string { return o.ID },
		Head: []string{"ID", "NODE", "ACTION", "ASKED", "BY", "RESULT", "DETAIL"},
		Cells: func(o api.Op) []string {
			id := o.ID
			if v.Format == "table" {
				id = shortID(id)
			}
			return []string{id, o.Node, o.Action.With(o.Options), v.Age(&o.AskedAt) + " ago", o.AskedBy, opResult(o), opDetail(o)}
		},
		WideHead: []string{"RACK", "ORIGIN", "VERDICT", "REASON", "TOOK", "JOINED"},
		WideCells: func(o api.Op) []string {
			return []string{o.Rack, string(o.Origin), string(o.Verdict), o.Reason, took(o), o.Joined}
		},
	}
}

// opResult is the outcome, or where the operation is.
func opResult(o api.Op) string {
	switch {
	case o.Outcome == "":
		return phaseWord(o)
	case o.Already:
		return string(o.Outcome) + " (already)"
	default:
		return string(o.Outcome)
	}
}

// phaseWord is where an operation is, as far as that is known.
func phaseWord(o api.Op) string {
	if o.AgentNote != "" && o.Phase != "" && o.Phase != api.PhaseTaken {
		return "not known"
	}
	return cmp.Or(o.Phase, api.PhaseTaken)
}

func opDetail(o api.Op) string {
	switch {
	case o.SupersededBy != "":
		return "by " + o.SupersededBy
	case o.Outcome == "" && o.Phase != api.PhaseTaken && o.AgentNote != "":
		return fmt.Sprintf("%s; it said last: %s", o.AgentNote, o.Phase)
	case o.Outcome == "":
		return o.AgentNote
	case o.Outcome == power.Succeeded:
		return o.Detail // the result says the rest
	default:
		return cmp.Or(o.Detail, string(o.Why))
	}
}

func took(o api.Op) string {
	if o.StartedAt == nil || o.EndedAt == nil {
		return ""
	}
	return settings.Duration(o.EndedAt.Sub(*o.StartedAt).Round(10 * time.Millisecond))
}

func opCommand(d server) *cli.Command {
	name := d.command + " op"
	return &cli.Command{
		Name: "op", Category: "look", Usage: "show or cancel operations",
		Description: "The power commands and rackpower ops print the ids. The beginning or the end of one is enough\n" +
			"where no other is like it." + examples(name+" show ID", name+" cancel ID") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "show the details of operations", ArgsUsage: "ID...", Flags: d.flags(), Action: d.with(showOp),
				Description: "An ended operation is shown with its outcome, even if its asker stopped waiting." +
					examples(name+" show 0d7cbb9ab0b1", name+" show ID -o json") + exitHelp,
			},
			{
				Name: "cancel", Usage: "cancel operations: they end at their next safe point", ArgsUsage: "ID...", Action: d.with(cancelOps),
				Flags: d.flags(reasonFlag(false)),
				Description: "A command that was sent to a BMC is awaited; the operation ends before the next one. Ended operations do not change." +
					examples(name+" cancel ID", d.command+" ops @rack1 --outstanding -o name | xargs "+name+" cancel") + exitHelp,
			},
		},
	}
}

func showOp(s *session) error {
	ids, err := s.opIDs(s.c.Args().Slice())
	if err != nil {
		return err
	}
	found, err := s.client.FindOps(s.ctx, api.QueryOps{IDs: ids})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, op := range found.Ops {
		known[op.ID] = true
	}
	for _, id := range ids {
		if !known[id] {
			return settings.Exit(settings.ExitUsage, "no operation %s is known", term.Clean(id))
		}
	}
	return s.showOps(found.Ops)
}

// showOps prints each operation in full.
func (v view) showOps(ops []api.Op) error {
	if !v.People() {
		return printer.Show(v.Printer, v.opListing(ops))
	}
	for i, o := range ops {
		if i > 0 {
			v.Say("")
		}
		v.Details(
			"id", o.ID, "node", o.Node, "action", o.Action.With(o.Options), "asked by", o.AskedBy, "asked at", v.Time(o.AskedAt), "origin",
			string(o.Origin),
			"reason", o.Reason, "boot", string(o.Boot), "grace", positive(o.Grace), "deadline", v.OptionalTime(&o.Deadline),
			"verdict",
			string(o.Verdict),
			"found", o.Message, "joined", o.Joined, "phase", phaseOf(o.Phase, o.AgentNote), "note", o.AgentNote, "started at",
			v.OptionalTime(o.StartedAt),
			"ended at", v.OptionalTime(o.EndedAt), "took", took(o),
			"outcome", opResultFull(o), "why", string(o.Why), "detail", o.Detail, "superseded by", o.SupersededBy, "cancelled by", o.CancelBy,
			"state", string(o.State), "commands sent", fmt.Sprint(o.Attempts),
		)
	}
	return nil
}

func opResultFull(o api.Op) string {
	if o.Outcome == "" {
		return "pending"
	}
	return opResult(o)
}

func positive(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return settings.Duration(d)
}

func cancelCommand(d server) *cli.Command {
	name := d.command + " cancel"
	return &cli.Command{
		Name: "cancel", Category: "power", Usage: "cancel what is outstanding for nodes", ArgsUsage: "NODES...",
		Flags: d.flags(reasonFlag(false)), Action: d.with(cancelNodes),
		Description: "Each operation ends at its next safe point: a command that was sent to a BMC is awaited, and none follows.\n" +
			"The power stays as it is then. Where nothing is outstanding nothing is done, and that is no failure." + nodesHelp +
			examples(name+" @rack1 --reason \"wrong rack\"", name+" all --exclude r1n[01-04]") + exitHelp,
	}
}

func cancelNodes(s *session) error {
	nodes, err := s.nodes(s.c.Args().Slice())
	if err != nil {
		return err
	}
	found, err := s.client.FindOps(s.ctx, api.QueryOps{Nodes: namesOf(nodes), Outstanding: true})
	if err != nil {
		return err
	}
	if len(found.Ops) == 0 {
		s.Say("nothing is outstanding")
		return printer.Show(s.Printer, s.opListing(nil))
	}
	var ids []string
	for _, op := range found.Ops {
		if op.Joined == "" { // which ends with the one that it joined
			ids = append(ids, op.ID)
		}
	}
	return s.cancel(ids)
}

func cancelOps(s *session) error {
	ids, err := s.opIDs(s.c.Args().Slice())
	if err != nil {
		return err
	}
	return s.cancel(ids)
}

// cancel cancels what it can: an operation that has ended by now does not keep the others
// going.
func (s *session) cancel(ids []string) error {
	var ops []api.Op
	var wrong []error
	for _, id := range ids {
		op, err := s.client.CancelOp(s.ctx, id, api.CancelOp{AskedBy: s.askedBy(), Reason: s.c.String("reason")})
		if err != nil {
			wrong = append(wrong, s.explain(err))
			var p *api.Problem
			if !errors.As(err, &p) || lost(err) {
				break // nobody is there to take the others
			}
			continue
		}
		ops = append(ops, op)
	}
	if len(ops) > 0 {
		if err := s.showCancelled(ops); err != nil {
			return err
		}
	}
	if len(wrong) > 0 && len(ids) > 1 {
		for _, err := range wrong {
			s.Warn("%v", err)
		}
		code := settings.CodeOf(slices.MinFunc(wrong, func(a, b error) int { return cmp.Compare(settings.CodeOf(a), settings.CodeOf(b)) }))
		if code == settings.ExitUsage && len(ops) > 0 {
			code = settings.ExitFailed // something was done
		}
		return settings.Exit(code, "%d of %s not cancelled", len(ids)-len(ops), power.Count(len(ids), "operation"))
	}
	return errors.Join(wrong...)
}

// showCancelled prints what was cancelled.
func (v view) showCancelled(ops []api.Op) error {
	if !v.People() {
		return printer.Show(v.Printer, v.opListing(ops))
	}
	nodes := map[string][]string{}
	var order []string
	for _, o := range ops {
		text := fmt.Sprintf("%s ends at its next safe point (%s)", o.Action, cmp.Or(o.Phase, api.PhaseTaken))
		if o.Outcome != "" {
			text = fmt.Sprintf("%s has ended: %s", o.Action, opResult(o))
		}
		if nodes[text] == nil {
			order = append(order, text)
		}
		nodes[text] = append(nodes[text], o.Node)
	}
	for _, text := range order {
		v.Say("%s %s", noderange.Fold(nodes[text]), term.Clean(text))
	}
	return nil
}
