package central

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// A model of who commands what: central, and processes that follow the protocol, under
// partitions, restarts, clones, moves, removals and words of force. It judges by what the
// processes would do, and shares no code with central:
//
//   - a process commands the BMCs of the nodes that it was told of and acts by, and those
//     on which something of it still runs;
//   - no BMC is commanded by two, unless a person said force, or the first one was cut off
//     when central let another process of its name in;
//   - an operation is carried out on its own node only, and each has an end at last.

// host is one process of an agent, with what is on its disk.
type host struct {
	*rack
	id       string
	alive    bool
	cut      bool // from central
	has      bool // it has the name, as far as it knows
	excused  bool // central let another one in while it was cut off
	nodes    map[string]string
	open     map[string]power.Op // in its journal
	running  map[string]string   // id: BMC
	untold   []api.OpReport      // ends that central has not acknowledged
	forced   map[string]bool     // BMCs that a person took from it by force
	heldBack map[string]bool     // nodes that it lost while something ran there
}

// commands are the BMCs that the process may send to.
func (h *host) commands() map[string]bool {
	all := map[string]bool{}
	if !h.alive || !h.has || h.excused {
		return all
	}
	for _, bmc := range h.nodes {
		all[bmc] = true
	}
	for _, bmc := range h.running {
		all[bmc] = true
	}
	maps.DeleteFunc(h.forced, func(bmc string, _ bool) bool { return !all[bmc] })
	maps.DeleteFunc(all, func(bmc string, _ bool) bool { return h.forced[bmc] })
	return all
}

// fleet is the world of one history.
type fleet struct {
	*site
	rt    *rapid.T
	hosts []*host
	bmcs  map[string]string // of the nodes, as a person gave them
	racks map[string]string
	asked map[string]power.Op
	local map[string]power.Op // asked for at the rack's own socket
	done  map[string][]string // by id: node that it was carried out on
	log   []string
	first *string // what the first history that broke a rule says: rapid does not, where it cannot repeat it
}

var (
	fleetNodes, fleetRacks = []string{"a", "b", "c"}, []string{"r1", "r2"}
	fleetBMCs              = []string{
		"ipmi://admin@192.0.2.1", "ipmi://admin@192.0.2.2", "ipmi://admin@192.0.2.3", "ipmi://admin@192.0.2.4",
	}
)

func (f *fleet) note(format string, args ...any) { f.log = append(f.log, fmt.Sprintf(format, args...)) }

func (f *fleet) broken(format string, args ...any) {
	text := fmt.Sprintf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(f.log, "\n"))
	if *f.first == "" {
		*f.first = text
	}
	f.rt.Fatalf("%s", text)
}

func (f *fleet) add(name, journal string) *host {
	h := &host{
		rack: &rack{s: f.site, name: name, journal: journal, epoch: 1, lsn: 10}, id: fmt.Sprintf("%s#%d", name, len(f.hosts)),
		alive: true,
	}
	h.run = "run-" + h.id
	h.wipe()
	f.hosts = append(f.hosts, h)
	return h
}

func (h *host) wipe() {
	h.nodes, h.open, h.running = map[string]string{}, map[string]power.Op{}, map[string]string{}
	h.forced, h.heldBack = map[string]bool{}, map[string]bool{}
}

// clone is a copy of the disk in another machine.
func (f *fleet) clone(of *host) {
	h := f.add(of.name, of.journal)
	r := *of.rack
	r.run, r.epoch, r.w = h.run, of.epoch+1, api.Welcome{}
	h.rack = &r
	h.nodes, h.open, h.untold = maps.Clone(of.nodes), maps.Clone(of.open), slices.Clone(of.untold)
}

// restart is a kill and a start: what ran is begun anew or given up.
func (f *fleet) restart(h *host) {
	h.epoch++
	h.run = fmt.Sprintf("run-%s-%d", h.id, h.epoch)
	h.alive, h.has, h.excused, h.w = true, false, false, api.Welcome{}
	h.running, h.forced = map[string]string{}, map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(h.open)) {
		if h.heldBack[h.open[id].Node] {
			h.end(f, id, power.Indeterminate)
		}
	}
	h.heldBack = map[string]bool{}
}

func (h *host) end(f *fleet, id string, outcome power.Outcome) {
	op := h.open[id]
	delete(h.open, id)
	delete(h.running, id)
	if outcome == power.Succeeded {
		f.done[id] = append(f.done[id], op.Node)
	}
	h.untold = append(h.untold, h.ended(op, outcome))
}

// greet says hello while the others of its name, as far as they live, give signs of life.
func (f *fleet) greet(h *host) error {
	f.c.knockWait = time.Millisecond
	var holder *host
	for _, o := range f.hosts {
		if o != h && o.name == h.name && o.alive && !o.cut && o.has && !o.excused && o.w.Session != "" {
			holder = o
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	if holder == nil {
		close(ended)
	} else {
		f.c.knockWait = 10 * time.Second
		go func() { // none is broken off: its end could be seen after the next one's begin
			defer close(ended)
			for ctx.Err() == nil {
				if _, err := f.Poll(context.Background(), holder.name, holder.request(10*time.Millisecond)); err != nil {
					return
				}
			}
		}()
	}
	var outstanding []api.OpRef
	for _, id := range slices.Sorted(maps.Keys(h.open)) {
		outstanding = append(outstanding, api.OpRef{ID: id, Node: h.open[id].Node, Action: h.open[id].Action})
	}
	w, err := f.Hello(context.Background(), h.name, api.Hello{
		Version: "v1", JournalID: h.journal, Epoch: h.epoch, LSN: h.lsn, Outstanding: outstanding, SentAt: f.clock(), ReportedTo: h.told,
		ReportedAll: h.w.ReportAll, Rev: h.acked, Run: h.run, Host: h.run,
	})
	cancel()
	<-ended
	f.note("hello of %s (%s, epoch %d): %v", h.id, h.run, h.epoch, err)
	if holder != nil && err == nil {
		f.broken("%s has the name of %s, which lives and is in touch", h.id, holder.id)
	}
	if holder != nil {
		_, _ = f.Poll(context.Background(), holder.name, holder.request(0)) // it comes again; what it gets comes once more
	}
	if err != nil {
		return err
	}
	h.w, h.told, h.excused = w, w.Database, false
	for _, e := range w.Ended {
		delete(h.open, e.ID)
		delete(h.running, e.ID)
	}
	for _, o := range f.hosts {
		if o != h && o.name == h.name && o.alive && o.has {
			o.excused = true // it was cut off
		}
	}
	return nil
}

// contact is what a process does when it reaches central: hello, what it has to tell, poll.
func (f *fleet) contact(h *host) {
	if !h.alive || h.cut {
		return
	}
	if h.w.Session == "" {
		if err := f.greet(h); err != nil {
			wantCode(f.t, err, api.CodeTwoAgents)
			h.has = false
			f.note("%s was refused", h.id)
			return
		}
		h.has = true
	}
	held := slices.Sorted(maps.Keys(h.heldBack))
	p := h.request(0)
	p.AppliedRev, p.Unreleased = h.rev, held
	out, err := f.Report(context.Background(), h.name, api.Report{
		Session: h.w.Session, JournalID: h.journal, Epoch: h.epoch, LSN: h.lsn, Ops: h.untold, SentAt: f.clock(), Rev: h.rev, Unreleased: held,
	})
	if err == nil {
		h.untold, h.acked = nil, out.Rev
		var a api.Assignment
		if a, err = f.Poll(context.Background(), h.name, p); err == nil {
			h.apply(a)
			return
		}
	}
	if api.CodeOf(err) != api.CodeHello {
		f.broken("%s: %v", h.id, err)
	}
	h.w.Session = "" // it says hello the next time
}

// apply takes an answer: it acts by it from now on.
func (h *host) apply(a api.Assignment) {
	h.took(a)
	before := maps.Clone(h.nodes)
	if a.Full {
		h.nodes = map[string]string{}
	}
	for _, n := range a.Removed {
		delete(h.nodes, n)
	}
	for _, n := range a.Nodes {
		h.nodes[n.Name] = n.BMC
		delete(h.forced, n.BMC) // it is its own again
	}
	for _, op := range a.Ops {
		if _, ok := h.nodes[op.Node]; ok {
			h.open[op.ID] = op
		}
	}
	for id, op := range h.open {
		if bmc, ok := h.nodes[op.Node]; (!ok || bmc != before[op.Node]) && h.running[id] != "" {
			h.heldBack[op.Node] = true
		}
	}
}

// work begins, or ends, something on a node.
func (f *fleet) work(h *host) {
	if !h.alive || !h.has {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(h.open)) {
		op := h.open[id]
		bmc, its := h.nodes[op.Node]
		switch {
		case h.running[id] != "":
			h.end(f, id, power.Succeeded)
			delete(h.heldBack, op.Node)
			f.note("%s ends %.13s on %s", h.id, id, op.Node)
		case !its:
			h.end(f, id, power.Cancelled)
		case !h.excused && !h.forced[bmc] && !h.busy(op.Node):
			h.running[id] = bmc
			f.note("%s begins %.13s on %s at %s", h.id, id, op.Node, bmc)
		default:
			continue
		}
		return
	}
}

// busy reports whether something runs on the node: an agent runs one operation at a time on it.
func (h *host) busy(node string) bool { return h.runs(node, "") }

// runs reports whether something runs on the node, at the BMC if one is named.
func (h *host) runs(node, bmc string) bool {
	for id, at := range h.running {
		if h.open[id].Node == node && (bmc == "" || at == bmc) {
			return true
		}
	}
	return false
}

// atRack has a person ask at the rack's own socket: central hears of it when it has ended.
func (f *fleet) atRack(h *host, node string) {
	bmc, its := h.nodes[node]
	if !its || !h.alive || !h.has || h.excused || h.forced[bmc] || h.busy(node) {
		return
	}
	op := power.Op{
		ID: newID(), Node: node, Action: power.ActOn, AskedBy: "rack", Origin: power.FromLocal, AskedAt: f.clock(),
		Deadline: f.clock().Add(time.Hour),
		Seq:      f.c.store.Seq(f.clock()), Options: power.Options{IfBusy: power.Queue},
	}
	f.local[op.ID], h.open[op.ID], h.running[op.ID] = op, op, bmc
	f.note("%s begins %.13s at the rack on %s at %s", h.id, op.ID, node, bmc)
}

// judge holds the rules against this moment.
func (f *fleet) judge() {
	by := map[string]string{}
	for _, h := range f.hosts {
		for bmc := range h.commands() {
			if by[bmc] != "" {
				f.broken("two command %s: %s and %s", bmc, by[bmc], h.id)
			}
			by[bmc] = h.id
		}
	}
	for id, nodes := range f.done {
		for _, n := range nodes {
			if n != f.asked[id].Node && n != f.local[id].Node {
				f.broken("%s of node %s was carried out on %s", id, f.asked[id].Node, n)
			}
		}
	}
}

// put moves, removes or adds a node as a person does.
func (f *fleet) put(node, rack, bmc string, force bool) {
	if force {
		for _, h := range f.hosts {
			if h.name != rack { // it is declared dead: whatever it had for the node is free
				for b := range h.commands() {
					if b == f.bmcs[node] || h.nodes[node] == b || h.runs(node, b) {
						h.forced[b] = true
					}
				}
			}
		}
	}
	_, err := f.AddNodes(context.Background(), api.AddNodes{
		Nodes: []api.NodeSpec{{Name: node, Rack: rack, BMC: bmc}}, Update: true,
		Force: force, Confirmed: true, AskedBy: "boss",
	})
	f.note("%s to %s at %s, force %t: %v", node, rack, bmc, force, err)
	if err == nil {
		f.bmcs[node], f.racks[node] = bmc, rack
	}
}

func (f *fleet) remove(node string) {
	_, err := f.RemoveNodes(context.Background(), api.RemoveNodes{Names: []string{node}, Confirmed: true, AskedBy: "boss"})
	f.note("%s removed: %v", node, err)
	if err == nil {
		delete(f.bmcs, node)
	}
}

func (f *fleet) request(node, id string) {
	before, known := f.asked[id]
	ops, err := f.AskOps(context.Background(),
		api.AskOps{Ops: []api.OpRequest{{
			ID: id, Node: node, Action: power.ActOn, AskedBy: "ann", Deadline: time.Hour,
			Options: power.Options{IfBusy: power.Queue},
		}}})
	f.note("asked %s for %s: %v", node, id, err)
	switch {
	case err != nil:
	case known && before.Node != node:
		f.broken("the id %s of node %s was taken for %s", id, before.Node, node)
	case ops[0].Outcome == "":
		f.asked[id] = power.Op{ID: id, Node: node, Action: power.ActOn}
	}
}

// forge has a process tell that it did what was asked for, on another node.
func (f *fleet) forge(h *host, id, node string) {
	if !h.alive || h.cut || h.w.Session == "" || f.asked[id].Node == "" || f.asked[id].Node == node {
		return
	}
	report := h.ended(power.Op{
		ID: id, Node: node, Action: power.ActOn, AskedBy: "x", Origin: power.FromLocal, AskedAt: f.clock(),
		Deadline: f.clock().Add(time.Hour), Seq: 5, Options: power.Options{IfBusy: power.Queue},
	}, power.Failed)
	before := f.op(id)
	if err := h.report(report); err != nil && api.CodeOf(err) != api.CodeHello {
		f.broken("%v", err)
	}
	if after := f.op(id); after.Node != before.Node || after.Outcome != before.Outcome {
		f.broken("%s was forged: %+v", id, after)
	}
}

// passes moves the clock; who is in touch polls meanwhile.
func (f *fleet) passes(d time.Duration) {
	f.note("%s later", d)
	for ; d > 0; d -= 10 * time.Second {
		f.later(min(d, 10*time.Second))
		for _, h := range f.hosts {
			if h.has {
				f.contact(h)
			}
		}
		f.judge()
	}
}

// step does one thing.
func (f *fleet) step() {
	h := rapid.SampledFrom(f.hosts).Draw(f.rt, "host")
	node := rapid.SampledFrom(fleetNodes).Draw(f.rt, "node")
	rack := rapid.SampledFrom(fleetRacks).Draw(f.rt, "rack")
	ids := append(slices.Sorted(maps.Keys(f.asked)), newID())
	switch what := f.evenly("what"); {
	case what < 7:
		f.contact(h)
	case what < 10:
		f.work(h)
	case what == 10:
		f.atRack(h, node)
	case what < 14:
		f.request(node, ids[len(ids)-1])
	case what < 16 && f.bmcs[node] != "":
		f.put(node, rack, f.bmcs[node], rapid.IntRange(0, 5).Draw(f.rt, "force") == 0)
	case what < 17:
		f.remove(node)
	case what < 19: // at a BMC that nobody has now
		bmc := rapid.SampledFrom(fleetBMCs).Draw(f.rt, "bmc")
		if !slices.Contains(slices.Collect(maps.Values(f.bmcs)), bmc) {
			f.put(node, rack, bmc, false)
		}
	case what == 19:
		h.cut = !h.cut
		f.note("%s cut off: %t", h.id, h.cut)
	case what == 20:
		f.note("%s starts anew", h.id)
		f.restart(h)
	case what == 21:
		f.request(node, rapid.SampledFrom(ids).Draw(f.rt, "id"))
		f.forge(h, ids[0], node)
	case what == 22:
		f.passes(time.Duration(rapid.IntRange(1, 80).Draw(f.rt, "seconds")) * time.Second)
	case what == 23 && len(f.hosts) < 5:
		f.note("a clone of %s", h.id)
		f.clone(h)
	case what == 24:
		f.note("central starts anew")
		f.site.restart()
	case what < 28 && f.bmcs[node] != "": // another node gets its BMC, before its agent has heard of that
		f.trade(node, rapid.SampledFrom(fleetNodes).Draw(f.rt, "next"), rack)
	case what >= 28:
		f.contact(h)
	}
}

// evenly draws one of 0 to 31. The integers of rapid are mostly small: with them, what is last
// in a switch hardly happens, and half of the histories end after a few steps.
func (f *fleet) evenly(label string) int {
	n := 0
	for range 5 {
		n *= 2
		if rapid.Bool().Draw(f.rt, label) {
			n++
		}
	}
	return n
}

// trade gives a node a BMC that nobody has, and its old one to another node.
func (f *fleet) trade(node, next, rack string) {
	old, used := f.bmcs[node], slices.Collect(maps.Values(f.bmcs))
	for _, bmc := range fleetBMCs {
		if !slices.Contains(used, bmc) {
			f.put(node, f.racks[node], bmc, false)
			if next != node {
				f.put(next, rack, old, false)
			}
			return
		}
	}
}

// settle has everybody in touch again, one process of each name, and all brought to its end.
func (f *fleet) settle() {
	f.note("all is well again")
	for _, name := range fleetRacks {
		var one *host
		for _, h := range f.hosts { // who has the name goes on
			if h.name == name && (one == nil || h.has && h.alive && !h.excused) {
				one = h
			}
		}
		for _, h := range f.hosts {
			if h.name == name {
				h.alive, h.cut = h == one, false
			}
		}
	}
	f.passes(2 * time.Minute)
	open := ""
	for range 40 {
		for _, h := range f.hosts {
			f.contact(h)
			f.work(h)
			f.judge()
		}
		open = ""
		for id := range f.asked {
			if o := f.op(id); o.Outcome == "" {
				open += fmt.Sprintf(" %s of node %s (%s)", id, o.Node, o.Phase)
			} else if o.Outcome == power.Succeeded && len(f.done[id]) == 0 {
				f.broken("%s succeeded, and nobody did it", id)
			}
		}
		if open == "" {
			return
		}
	}
	f.broken("without an end:%s", open)
}

// historiesFor bounds the time that histories take whose number was not asked for with
// -rapid.checks.
const historiesFor = 10 * time.Second

// TestNoBMCIsCommandedByTwo plays random histories.
func TestNoBMCIsCommandedByTwo(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	bounded, began, played, broke := checks.Value.String() == checks.DefValue, time.Now(), 0, false
	first := ""
	defer func() {
		t.Logf("%d histories", played)
		if first != "" {
			t.Logf("the first that broke a rule: %s", first)
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		// One that broke a rule is played again, to see whether it does so each time, and to
		// shorten it: that takes what time it takes.
		if bounded && time.Since(began) > historiesFor && !broke {
			rt.Log("out of time")
			return
		}
		defer func() { broke = broke || rt.Failed() || t.Failed() }()
		played++
		f := &fleet{
			site: newSite(t), rt: rt, bmcs: map[string]string{}, racks: map[string]string{}, asked: map[string]power.Op{},
			local: map[string]power.Op{},
			done:  map[string][]string{}, first: &first,
		}
		for i, rack := range fleetRacks {
			f.add(rack, fmt.Sprintf("journal-%d", i))
		}
		for i, node := range fleetNodes {
			f.put(node, fleetRacks[i%2], fleetBMCs[i], false)
		}
		for _, h := range f.hosts {
			f.contact(h)
		}
		for range 5 + f.evenly("steps") {
			f.step()
			f.judge()
		}
		f.settle()
	})
}
