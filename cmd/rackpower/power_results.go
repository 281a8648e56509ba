package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
	"rackpower/power/noderange"
)

// result is what a power command prints for one node. The first seven fields are
// what programs may count on.
type result struct {
	Node     string        `json:"node"`
	ID       string        `json:"id"` // of the operation that was joined, if one was
	Verdict  power.Verdict `json:"verdict"`
	Outcome  power.Outcome `json:"outcome"` // empty: pending
	State    power.State   `json:"state"`
	Detail   string        `json:"detail"`
	WaitedMS int64         `json:"waited_ms"`

	Request   string       `json:"request"` // this request's own id
	Phase     string       `json:"phase"`
	Why       power.Reason `json:"why,omitempty"`
	Message   string       `json:"message,omitempty"`
	Already   bool         `json:"already,omitempty"`
	AgentNote string       `json:"agent_note,omitempty"`
	Hold      power.Want   `json:"hold,omitempty"` // that was set with the request
}

func (f *following) result(row *followed) result {
	op := row.op
	waited := row.waited
	if !row.met {
		waited = f.s.Now().Sub(f.began)
	}
	var hold power.Want
	if f.order.holds(op) {
		hold = power.Want(op.Action.Final())
	}
	return result{
		Hold: hold, Node: op.Node, ID: cmp.Or(op.Joined, op.ID), Verdict: op.Verdict, Outcome: op.Outcome, State: cmp.Or(op.State, power.Unknown),
		Detail:   op.Detail,
		WaitedMS: max(waited, 0).Round(time.Millisecond).Milliseconds(), Request: op.ID, Phase: op.Phase, Why: op.Why, Message: op.Message,
		Already: op.Already, AgentNote: op.AgentNote,
	}
}

// print writes the results: one object a node for programs, folded lines for
// people.
func (f *following) print() error {
	if f.s.Quiet {
		return nil
	}
	if f.s.Format == "table" {
		f.groups(func(nodes []string, text string) {
			fmt.Fprintf(f.s.Out, "%s %s\n", noderange.Fold(nodes), f.s.Paint(f.s.Readable(text)))
		})
		return nil
	}
	l := printer.Listing[result]{Name: func(r result) string { return r.Node }}
	for _, row := range f.rows {
		l.Rows = append(l.Rows, f.result(row))
	}
	l.Head = []string{"NODE", "ID", "VERDICT", "OUTCOME", "STATE", "WAITED", "DETAIL"}
	l.Cells = func(r result) []string {
		waited := settings.Duration((time.Duration(r.WaitedMS) * time.Millisecond).Round(100 * time.Millisecond))
		return []string{
			r.Node, r.ID, string(r.Verdict), cmp.Or(string(r.Outcome), "pending"), string(r.State), waited,
			cmp.Or(r.Detail, r.Message),
		}
	}
	return printer.Show(f.s.Printer, l)
}

// groups hands out the nodes whose results read the same, in the order of the
// first of each.
func (f *following) groups(each func(nodes []string, text string)) {
	groups := map[string][]string{}
	var order []string
	for _, row := range f.rows {
		text := f.order.words(row.op)
		if f.order.holds(row.op) {
			text += ", " + f.order.held
		}
		if groups[text] == nil {
			order = append(order, text)
		}
		groups[text] = append(groups[text], row.op.Node)
	}
	for _, text := range order {
		each(groups[text], text)
	}
}

// holds reports whether a request set a hold: one that was refused did not.
func (o order) holds(op api.Op) bool { return o.held != "" && op.Outcome != power.Refused }

// words says in a few words the state of a request.
func (o order) words(op api.Op) string {
	switch op.Outcome {
	case power.Succeeded:
		text := string(op.Outcome)
		switch {
		case op.Action == power.ActCap:
			text = "limit " + power.LimitText(op.Limit)
		case op.Action.Final() != power.Unknown:
			text = string(cmp.Or(op.State, op.Action.Final()))
		}
		if op.Already {
			text += " (already)"
		}
		return text
	case "":
		return o.standing(op)
	}
	text := string(op.Outcome)
	if op.SupersededBy != "" {
		text += " by " + op.SupersededBy
	}
	return text + ": " + cmp.Or(op.Detail, op.Message, string(op.Why), "no reason given")
}

// standing says where an operation without an outcome is.
func (o order) standing(op api.Op) string {
	phase := phaseOf(op.Phase, op.AgentNote)
	switch {
	case !o.meets(op):
		return "pending: " + phase
	case phase == api.PhaseTaken:
		return "taken"
	default:
		return "accepted, " + phase
	}
}

// tellDryRun prints what would happen.
func (f *following) tellDryRun() error {
	if f.s.People() && !f.s.Quiet {
		groups := map[string][]string{}
		var order []string
		for _, row := range f.rows {
			text := strings.TrimPrefix(cmp.Or(row.op.Message, row.op.Detail, string(row.op.Verdict)), "dry run: ")
			if f.s.server == atAgent && f.order.holds(row.op) {
				text += "; " + f.order.held // central says so itself
			}
			if row.op.AgentNote != "" {
				text += "; " + row.op.AgentNote
			}
			if groups[text] == nil {
				order = append(order, text)
			}
			groups[text] = append(groups[text], row.op.Node)
		}
		for _, text := range order {
			f.s.Say("%s would %s: %s", noderange.Fold(groups[text]), f.order.action, term.Clean(text))
		}
	} else if err := f.print(); err != nil {
		return err
	}
	for _, row := range f.rows {
		row.met = true
	}
	return f.verdict()
}
