package cmd_test

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/agent/simtest"
	"rackpower/central/api"
	"rackpower/power"
)

// evidence is all that the verdict goes by.
type evidence struct {
	told     map[string]*told
	outcomes map[string]map[power.Outcome]string
	ops      []api.Op       // all that central knows, in the order of their sequences
	ends     map[string]int // how often each is ended in central's audit log
	servers  []server
}

// server is what the simulator says of one of them.
type server struct {
	name                string
	commands            []power.Command
	cuts, resets, diags int      // -1: not counted
	overlaps            []string // exchanges at its BMC that came beside another one
	power               power.State
	seen                power.State // by central, at the end
}

// verdict is what the evidence shows. What has complaints is named in them.
type verdict struct {
	asked, answered, ended            int
	lost, doubled, reordered          []string
	overlapping, disagreeing          []string
	outcomes                          map[power.Outcome]int
	joined, commands, judgedFinals    int
	commandsOf                        map[power.Command]int
	unanswered, unansweredButKnown    int
	disobedient, unexpected, unsound  []string
	growing                           []string // only where daemons are spared
	usage                             *usage
	crashed, gaveUp                   []string
	starts, tries, repeats, cancelled int
	quietAfter                        time.Duration // until all had ended
}

// judgeSoak holds what the askers remember and what central knows against what
// happened at the servers.
func judgeSoak(e evidence) *verdict {
	v := &verdict{outcomes: map[power.Outcome]int{}, commandsOf: map[power.Command]int{}}
	known := map[string]api.Op{}
	byNode := map[string][]api.Op{}
	for _, op := range e.ops {
		known[op.ID] = op
		byNode[op.Node] = append(byNode[op.Node], op)
		v.countOp(op)
		v.judgeEnds(op, e)
	}
	for id, x := range e.told {
		v.judgeTold(id, x, known)
	}
	v.judgeDoors(e.told)
	for _, s := range e.servers {
		slices.SortStableFunc(byNode[s.name], inOrder)
		v.judgeServer(s, byNode[s.name], known)
	}
	return v
}

// inOrder compares operations by their sequences, and those that two doors gave the
// same one by their starts: the one that came first is first.
func inOrder(a, b api.Op) int {
	if a.Seq != b.Seq || a.StartedAt == nil || b.StartedAt == nil {
		return cmp.Compare(a.Seq, b.Seq)
	}
	return a.StartedAt.Compare(*b.StartedAt)
}

func (v *verdict) countOp(op api.Op) {
	v.outcomes[op.Outcome]++
	if op.Joined != "" {
		v.joined++
	}
}

// judgeTold: what was taken or accepted is there to the end, and as it was asked.
func (v *verdict) judgeTold(id string, x *told, known map[string]api.Op) {
	v.asked++
	op, there := known[id]
	switch {
	case x.answered.IsZero():
		v.unanswered++
		if there {
			v.unansweredButKnown++
		}
		return
	case x.refused:
		v.answered++
		return // a refusal is an answer, not a promise
	}
	v.answered++
	switch {
	case !there:
		v.lost = append(v.lost, fmt.Sprintf("%s of %s (%s), which %s had taken", x.req.Action, x.req.Node, id, x.door))
	case op.Outcome == "":
		v.lost = append(v.lost, fmt.Sprintf("%s of %s (%s) has no end", x.req.Action, x.req.Node, id))
	case op.Why == power.ReasonLost:
		v.lost = append(v.lost, fmt.Sprintf("%s of %s (%s): %s", x.req.Action, x.req.Node, id, op.Detail))
	case op.Action != x.req.Action || op.Node != x.req.Node || op.Seq != x.seq:
		v.lost = append(v.lost, fmt.Sprintf("%s of %s (%s, sequence %d) became %s of %s (sequence %d)", x.req.Action, x.req.Node, id, x.seq,
			op.Action, op.Node, op.Seq))
	default:
		v.ended++
	}
}

// judgeEnds: an operation ends once, and everybody is shown the same end.
func (v *verdict) judgeEnds(op api.Op, e evidence) {
	shown := maps.Clone(e.outcomes[op.ID])
	if op.Outcome != power.Refused {
		delete(shown, power.Refused) // it was not accepted, was asked for again, and then was
	}
	if len(shown) > 1 || len(shown) == 1 && op.Outcome != "" && shown[op.Outcome] == "" {
		v.doubled = append(v.doubled, fmt.Sprintf("%s of %s (%s) has ended %s, and was shown as %v", op.Action, op.Node, op.ID, op.Outcome,
			shown))
	}
	if n := e.ends[op.ID]; n > 1 {
		v.doubled = append(v.doubled, fmt.Sprintf("%s of %s (%s) ended %d times in the audit log", op.Action, op.Node, op.ID, n))
	}
}

// judgeDoors: of two requests for a node at one door, the one that was sent when the
// other had been answered has the higher sequence.
func (v *verdict) judgeDoors(all map[string]*told) {
	lines := map[string][]*told{}
	for _, x := range all {
		if !x.answered.IsZero() && !x.refused {
			lines[x.door+" "+x.req.Node] = append(lines[x.door+" "+x.req.Node], x)
		}
	}
	for where, line := range lines {
		byAnswer := slices.Clone(line)
		slices.SortFunc(byAnswer, func(a, b *told) int { return a.answered.Compare(b.answered) })
		slices.SortFunc(line, func(a, b *told) int { return a.asked.Compare(b.asked) })
		highest, next := (*told)(nil), 0
		for _, x := range line {
			for ; next < len(byAnswer) && byAnswer[next].answered.Before(x.asked); next++ {
				if highest == nil || byAnswer[next].seq > highest.seq {
					highest = byAnswer[next]
				}
			}
			if highest != nil && x.seq <= highest.seq {
				v.reordered = append(v.reordered, fmt.Sprintf("at %s %s was asked after %s was answered, and comes before it", where, x.req.ID,
					highest.req.ID))
			}
		}
	}
}

// judgeServer holds a server's own account against the operations of its node.
func (v *verdict) judgeServer(s server, ops []api.Op, known map[string]api.Op) {
	v.commands += len(s.commands)
	for _, c := range s.commands {
		v.commandsOf[c]++
	}
	v.judgeCommands(s, ops)
	v.judgeEffects(s, ops)
	v.judgeFinal(s, ops, known)
	if n := len(s.overlaps); n > 0 {
		v.overlapping = append(v.overlapping, fmt.Sprintf("%d times two exchanges at once at the BMC of %s: %s", n, s.name,
			strings.Join(s.overlaps[:min(n, 3)], "; ")))
	}
	if s.seen != s.power {
		v.disagreeing = append(v.disagreeing, fmt.Sprintf("%s is %s, central shows %s", s.name, s.power, s.seen))
	}
}

// judgeCommands: the commands that reached a server are those of its operations, in
// the order of the operations.
func (v *verdict) judgeCommands(s server, ops []api.Op) {
	explained := explainTied(ops, s.commands)
	if explained == len(s.commands) {
		return
	}
	from := max(0, explained-8)
	text := fmt.Sprintf("%s: no operation in its place accounts for command %d of %d, %s (after %v)",
		s.name, explained+1, len(s.commands), s.commands[explained], s.commands[from:explained])
	allowed := map[power.Command]int{}
	for _, op := range ops {
		for _, c := range simtest.Commands(op.Action) {
			allowed[c] += own(op)
		}
	}
	for c, n := range allowed {
		if got := count(s.commands, c); got > n {
			v.doubled = append(v.doubled, fmt.Sprintf("%s; %s came %d times for %d", text, c, got, n))
			return
		}
	}
	v.reordered = append(v.reordered, text)
}

func count(all []power.Command, c power.Command) (n int) {
	for _, x := range all {
		if x == c {
			n++
		}
	}
	return n
}

// judgeEffects: the power was not cut, nor the server reset or interrupted, more
// often than was asked for.
func (v *verdict) judgeEffects(s server, ops []api.Op) {
	if s.cuts < 0 {
		return
	}
	var cuts, resets, diags int
	for _, op := range ops {
		if own(op) == 0 {
			continue
		}
		switch op.Action {
		case power.ActOff, power.ActSoftOff, power.ActCycle:
			cuts++
		case power.ActReset:
			resets++
		case power.ActDiag:
			diags++
		}
	}
	if s.cuts > cuts || s.resets > resets || s.diags > diags {
		v.doubled = append(v.doubled, fmt.Sprintf("%s: %d cuts for %d operations, %d resets for %d, %d diags for %d", s.name, s.cuts, cuts,
			s.resets, resets, s.diags, diags))
	}
}

// judgeFinal: where the newest request with a final state succeeded, the server is in
// that state.
func (v *verdict) judgeFinal(s server, ops []api.Op, known map[string]api.Op) {
	for _, op := range slices.Backward(ops) {
		if op.Action.Final() == power.Unknown || op.Outcome == power.Refused {
			continue
		}
		if op.Outcome != power.Succeeded {
			return
		}
		v.judgedFinals++
		if s.power != op.Action.Final() {
			v.reordered = append(v.reordered, fmt.Sprintf("%s is %s, and its newest operation, %s (%s), has succeeded", s.name, s.power, op.Action,
				op.ID))
		}
		return
	}
}

// own is how many commands an operation itself may have sent.
func own(op api.Op) int {
	if op.Joined != "" {
		return 0
	}
	return op.Attempts
}

// isCommand reports whether a word of a simulator's log is a command of an action.
func isCommand(c power.Command) bool {
	return slices.Contains([]power.Command{
		power.PowerOn, power.PowerOff, power.PressSoftOff, power.HardReset, power.PulseDiag,
		power.ResetBMC,
	}, c)
}

// explainTied is explain, where those that inOrder cannot tell apart may have come either way:
// two doors gave them one sequence, and central, whose clock was set back, one start.
func explainTied(ops []api.Op, log []power.Command) int {
	ops = slices.Clone(ops)
	best := explain(ops, log)
	for i := 1; i < len(ops) && best < len(log); i++ {
		if inOrder(ops[i-1], ops[i]) != 0 {
			continue
		}
		ops[i-1], ops[i] = ops[i], ops[i-1]
		if n := explain(ops, log); n > best {
			best = n
		} else {
			ops[i-1], ops[i] = ops[i], ops[i-1]
		}
	}
	return best
}

// explain reports how many commands, from the first on, can be told to be those of
// the operations: each operation accounts for some that follow one another, of the
// kinds and in the order of its action and no more than it says it sent, and the
// operations do so in the order of their sequences. A reset, diag or bmc-reset that
// says that it succeeded accounts for one.
func explain(ops []api.Op, log []power.Command) int {
	reached := map[int]bool{0: true} // after how many commands the next operation may begin
	furthest := 0
	for _, op := range ops {
		n := own(op)
		if n == 0 {
			continue
		}
		next := map[int]bool{}
		for at := range reached {
			least := 0
			if op.Action.Once() {
				n = 1
				if op.Outcome == power.Succeeded {
					least = 1
				}
			}
			for took := 0; took <= n; took++ {
				if at+took > len(log) || !sends(op.Action, log[at:at+took]) {
					break
				}
				furthest = max(furthest, at+took)
				if took >= least {
					next[at+took] = true
				}
			}
		}
		reached = next
	}
	if reached[len(log)] {
		return len(log)
	}
	return min(furthest, len(log)-1)
}

// sends reports whether an action may send these commands.
func sends(a power.Action, log []power.Command) bool {
	word := simtest.Commands(a)
	for _, c := range log {
		i := slices.Index(word, c)
		if i < 0 {
			return false
		}
		word = word[i:]
	}
	return true
}

// bad lists everything that must not be.
func (v *verdict) bad() []string {
	var all []string
	for _, list := range []struct {
		name string
		list []string
	}{
		{"lost", v.lost},
		{"doubled", v.doubled},
		{"reordered", v.reordered},
		{"two in flight", v.overlapping},
		{"central's view", v.disagreeing},
		{"disobedient", v.disobedient},
		{"answer", v.unexpected},
		{"crash", v.crashed},
		{"data", v.unsound},
		{"growing", v.growing},
	} {
		for _, text := range list.list {
			all = append(all, list.name+": "+text)
		}
	}
	return all
}

// print writes the table.
func (v *verdict) print(w io.Writer, seed uint64, took time.Duration, h *hardship) {
	row := func(name string, n any, note string) { fmt.Fprintf(w, "  %-44s %8v  %s\n", name, n, note) }
	fmt.Fprintf(w, "\nverdict of a soak of %s, seed %d\n", took.Round(time.Second), seed)
	row("operations asked", v.asked, fmt.Sprintf("in %d tries, %d of them repeats of an id", v.tries, v.repeats))
	row("  answered", v.answered, "the others' askers gave up")
	row("  never answered", v.unanswered, fmt.Sprintf("%d of them were taken all the same", v.unansweredButKnown))
	row("ended, of those taken or accepted", v.ended, "")
	row("  all that central knows", total(v.outcomes), fmt.Sprintf("%d of them joined another", v.joined))
	for _, outcome := range slices.Sorted(maps.Keys(v.outcomes)) {
		row("  "+cmp.Or(string(outcome), "no outcome"), v.outcomes[outcome], "")
	}
	row("cancels accepted", v.cancelled, "")
	row("commands at the servers", v.commands, commandCounts(v.commandsOf))
	row("lost", len(v.lost), "must be 0")
	row("doubled", len(v.doubled), "must be 0")
	row("reordered", len(v.reordered), fmt.Sprintf("must be 0; %d final states compared", v.judgedFinals))
	row("BMCs with two exchanges in flight", len(v.overlapping), "must be 0")
	row("nodes that central shows otherwise", len(v.disagreeing), "must be 0, at the end")
	row("nodes that do not obey at the end", len(v.disobedient), "must be 0")
	row("unexpected answers", len(v.unexpected), "must be 0")
	row("crashes", len(v.crashed), "must be 0: panics, and signals that the soak did not send")
	row("damaged journals and databases", len(v.unsound), "must be 0, at the end")
	row("quiet after", v.quietAfter.Round(time.Second), "the end of all faults")
	row("starts of daemons", v.starts, fmt.Sprintf("after %d of them it ended by itself", len(v.gaveUp)))
	fmt.Fprintln(w, "at most")
	keys, most := v.usage.most()
	for _, key := range keys {
		second, last, all := most(key)
		row(key, all, fmt.Sprintf("%d in the second quarter, %d in the last", second, last))
	}
	happened, leftOut := h.kinds()
	fmt.Fprintln(w, "faults")
	for _, kind := range happened {
		row(kind, h.counts[kind], "")
	}
	for _, kind := range leftOut {
		fmt.Fprintf(w, "  LEFT OUT: %s: %s\n", kind, h.leftOut[kind])
	}
	for i, text := range v.bad() {
		if i == 40 {
			fmt.Fprintf(w, "  ... and %d more\n", len(v.bad())-i)
			break
		}
		fmt.Fprintf(w, "  WRONG: %s\n", text)
	}
}

func total[K comparable](counts map[K]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func commandCounts(of map[power.Command]int) string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%d %s", of[c], c))
	}
	return strings.Join(parts, ", ")
}

// TestSoakJudge has the judge find what is wrong in evidence that was tampered with.
func TestSoakJudge(t *testing.T) {
	at := time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)
	op := func(id string, seq int, action power.Action, attempts int) api.Op {
		return api.Op{ID: id, Node: "n1", Action: action, Seq: power.Seq(seq), Outcome: power.Succeeded, Attempts: attempts}
	}
	honest := func() evidence {
		e := evidence{
			told: map[string]*told{}, outcomes: map[string]map[power.Outcome]string{}, ends: map[string]int{},
			ops: []api.Op{
				op("a", 1, power.ActOn, 1), op("b", 2, power.ActReset, 1), op("c", 3, power.ActCycle, 3), op("d", 4, power.ActOn, 0),
				op("e", 5, power.ActSoftOff, 2),
			},
			servers: []server{{
				name: "n1", cuts: 2, resets: 1, power: power.Off, seen: power.Off,
				commands: []power.Command{
					power.PowerOn, power.HardReset, power.PowerOff, power.PowerOff, power.PowerOn, power.PressSoftOff,
					power.PowerOff,
				},
			}},
		}
		for i, op := range e.ops {
			asked := at.Add(time.Duration(i) * time.Second)
			e.told[op.ID] = &told{
				req: api.OpRequest{ID: op.ID, Node: "n1", Action: op.Action}, door: "central", asked: asked,
				answered: asked.Add(time.Millisecond), seq: op.Seq,
			}
			e.outcomes[op.ID] = map[power.Outcome]string{power.Succeeded: "central"}
			e.ends[op.ID] = 1
		}
		return e
	}
	for _, c := range []struct {
		name   string
		tamper func(*evidence)
		bad    string // how the complaint begins; empty: there is none
	}{
		{"honest", func(*evidence) {}, ""},
		{"a command that was lost on its way", func(e *evidence) { e.servers[0].commands = slices.Delete(e.servers[0].commands, 2, 3) }, ""},
		{"one sequence given at two doors", func(e *evidence) {
			e.ops[1], e.ops[2] = e.ops[2], e.ops[1]
			e.ops[1].Seq, e.told["c"].seq, e.told["c"].door = 2, 2, "r1"
		}, ""},
		{"an operation gone", func(e *evidence) { e.ops = slices.Delete(e.ops, 3, 4) }, "lost"},
		{"an operation without an end", func(e *evidence) { e.ops[3].Outcome = ""; delete(e.outcomes, "d") }, "lost"},
		{"another sequence", func(e *evidence) { e.told["d"].seq = 3 }, "lost"},
		{"a journal lost", func(e *evidence) { e.ops[3].Why = power.ReasonLost }, "lost"},
		{"a second reset", func(e *evidence) { e.servers[0].commands = slices.Insert(e.servers[0].commands, 2, power.HardReset) }, "doubled"},
		{"a power-on too many", func(e *evidence) {
			e.servers[0].commands = append(e.servers[0].commands, power.PowerOn, power.PowerOn, power.PowerOn)
		}, "doubled"},
		{"a reset that never came", func(e *evidence) { e.servers[0].commands[1] = power.PowerOn }, "reordered"},
		{"an older command last", func(e *evidence) {
			e.servers[0].commands = append(e.servers[0].commands[1:], power.PowerOn)
		}, "reordered"},
		{"one cut too many", func(e *evidence) { e.servers[0].cuts = 3 }, "doubled"},
		{"two ends shown", func(e *evidence) { e.outcomes["a"][power.Failed] = "r1" }, "doubled"},
		{"two ends written", func(e *evidence) { e.ends["a"] = 2 }, "doubled"},
		{"the older request won", func(e *evidence) { e.servers[0].power, e.servers[0].seen = power.On, power.On }, "reordered"},
		{"a later request with a lower sequence", func(e *evidence) {
			e.told["a"].asked, e.told["a"].answered = at.Add(time.Hour), at.Add(time.Hour)
		}, "reordered"},
		{"two at a BMC", func(e *evidence) { e.servers[0].overlaps = []string{"status beside status"} }, "two in flight"},
		{"central sees another power", func(e *evidence) { e.servers[0].seen = power.On }, "central's view"},
	} {
		e := honest()
		c.tamper(&e)
		bad := judgeSoak(e).bad()
		if c.bad == "" && len(bad) > 0 || c.bad != "" && (len(bad) == 0 || !strings.HasPrefix(bad[0], c.bad)) {
			t.Errorf("%s: want %q, got %q", c.name, c.bad, bad)
		}
	}
}
