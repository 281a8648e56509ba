package central

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Bounds of the attention list.
const (
	holdEndsSoon   = time.Hour
	certEndsSoon   = 7 * 24 * time.Hour // agents renew theirs at half their life, which is earlier
	maxOfKind      = 50                 // racks that have an item each of one kind; the others share one
	maxFolded      = 200                // bytes of the folded nodes
	driftsLookedUp = 20                 // of an item: since when they drift
)

// attention gathers what wants a person. What it knows of nodes and of racks is all of one
// moment, and as far as the scope of who asks goes.
type attention struct {
	tx    *store.Tx
	now   time.Time
	in    map[string]bool // names within the scope; nil: all
	racks map[string]bool // agents of those; nil: all

	away  map[string]bool
	brake map[string]bool // nodes that a brake has an item of
	items []api.Attention
	of    map[attentionKey]*attentionNodes
	order []attentionKey
}

type attentionKey struct{ kind, rack string }

// attentionNodes is an item that many nodes share.
type attentionNodes struct {
	api.Attention
	names []string
	// expected is the power that all of them should have and nobody enforces, "" where they differ.
	expected power.State
}

// listAttention answers with everything that wants a person. It reads only the nodes that have
// something, since it is polled.
func (c *Central) listAttention(r *http.Request) ([]api.Attention, error) {
	a := &attention{
		now: c.cfg.Now(), away: map[string]bool{}, brake: map[string]bool{}, of: map[attentionKey]*attentionNodes{},
		items: []api.Attention{},
	}
	err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		a.tx = tx
		if err := a.scope(); err != nil {
			return err
		}
		for _, look := range []func() error{
			func() error { return a.ofAgents(c.presence) }, a.ofNodes, a.approvals,
			func() error { return a.certificates(httpserver.Principal(r)) },
		} {
			if err := look(); err != nil {
				return err
			}
		}
		if item, waits, err := c.restoredAttention(tx, a.now); err != nil {
			return err
		} else if waits && a.in == nil {
			a.add(item)
		}
		if item, hangs := diskAttention(c.DiskWait(), a.now); hangs && a.in == nil {
			a.add(item)
		}
		if item, failing := c.backups.attention(); failing && a.in == nil {
			a.add(item)
		}
		return a.fold()
	})
	if err != nil {
		return nil, err
	}
	return a.items, nil
}

// attentionName is where an item is in the list: the most pressing come first, and among them what
// began first; what began at an unknown time comes last.
func attentionName(x api.Attention) string {
	rank := map[api.Severity]int{api.SeverityCritical: 0, api.SeverityWarning: 1, api.SeverityNotice: 2}
	since := x.Since
	if since.IsZero() {
		since = time.Unix(1<<40, 0)
	}
	h := fnv.New32()
	_, _ = h.Write([]byte(x.Message))
	return fmt.Sprintf("%d %s %s %s %s %d", rank[x.Severity], timeName(since), x.Rack, x.Kind, x.ID, h.Sum32())
}

// timeName is a time as a part of a name by which a list is ordered.
func timeName(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func (a *attention) scope() (err error) {
	if a.in, err = within(a.tx); a.in == nil || err != nil {
		return err
	}
	nodes, err := a.tx.Nodes()
	a.racks = map[string]bool{}
	for _, n := range nodes {
		if a.in[n.Name] {
			a.racks[n.Agent] = true
		}
	}
	return err
}

func (a *attention) add(x api.Attention) { a.items = append(a.items, x) }

// ofAgents is what concerns racks as a whole: their agents, brakes, pauses and alarms.
func (a *attention) ofAgents(presence func(string) api.AgentPresence) error {
	agents, err := a.tx.Agents()
	if err != nil {
		return err
	}
	counts, err := a.tx.Counts()
	if err != nil {
		return err
	}
	raised, err := a.tx.AllAlarms()
	if err != nil {
		return err
	}
	site, err := a.tx.SitePause()
	if err != nil {
		return err
	}
	if site.Active(a.now) {
		a.paused("", site)
	}
	for _, g := range agents {
		if a.racks != nil && !a.racks[g.Name] {
			continue
		}
		state, err := g.State()
		if err != nil {
			return err
		}
		set, err := g.Settings()
		if err != nil {
			return err
		}
		nodes := counts[g.Name].Nodes
		if p := presence(g.Name); p.Absent() {
			a.away[g.Name] = true
			if nodes > 0 {
				a.agentAway(g.Name, p, nodes)
			}
		}
		for _, alarm := range alarmsOf(raised[g.Name], state) {
			a.alarm(g.Name, alarm)
		}
		if set.Pause.Active(a.now) {
			a.paused(g.Name, set.Pause)
		}
		if state != nil && nodes > 0 {
			a.rack(g, *state, set, nodes)
		}
	}
	return nil
}

// diskHangs is from when on a disk that does not answer is told of.
const diskHangs = 2 * time.Second

func diskAttention(wait time.Duration, now time.Time) (x api.Attention, hangs bool) {
	return api.Attention{
		Severity: api.SeverityCritical, Kind: api.AttentionDisk, Since: now.Add(-wait).UTC().Truncate(time.Second),
		Message: "the disk of central's database does not answer: nothing new is taken, and readings are not stored, until it does",
		Do:      "look at the disk of the data directory; central goes on by itself", Run: []string{"dmesg | tail", "df -h"},
	}, wait > diskHangs
}

func (a *attention) agentAway(name string, p api.AgentPresence, nodes int) {
	x := api.Attention{
		Severity: api.SeverityCritical, Kind: api.AttentionAgent, Rack: name, Agent: name, Count: nodes, Since: p.Since,
		Message: fmt.Sprintf("agent %s %s: its %s are neither read nor switched from here", name, p.Predicate(a.now), power.Count(nodes, "node")),
		Do:      "on its machine, look whether it runs and reaches central",
		Run:     []string{"systemctl status rackpower-agent", "rackpower agents"},
	}
	if p.State == api.AgentNever {
		x.Severity, x.Do, x.Run = api.SeverityWarning, "start the agent of the rack", []string{"rackpower agents token " + name}
	}
	a.add(x)
}

func (a *attention) alarm(agent string, alarm api.Alarm) {
	x := api.Attention{
		Severity: api.SeverityCritical, Kind: api.AttentionAlarm, Rack: agent, Agent: agent, Since: alarm.Since,
		Message: fmt.Sprintf("agent %s, %s: %s", agent, alarm.Kind, alarm.Message), Do: "mend the cause; the alarm ends with it",
	}
	if alarm.NeedsAck {
		x.Do = "look into it, then acknowledge the alarm"
	}
	if alarm.Remedy != "" {
		x.Run = []string{alarm.Remedy}
	}
	a.add(x)
}

// paused is of one rack, "" for all.
func (a *attention) paused(rack string, p *api.Pause) {
	x := api.Attention{
		Severity: api.SeverityNotice, Kind: string(power.ReasonPaused), Rack: rack, Agent: rack, Since: p.Since, Next: p.Until,
		Message: fmt.Sprintf("the monitor of rack %s is paused by %s", rack, p.By), Do: "resume it when the work is done",
		Run: power.ReasonPaused.Help("", rack),
	}
	if rack == "" {
		x.Message, x.Run = "the monitors of all racks are paused by "+p.By, []string{"rackpower resume all"}
	}
	if p.Reason != "" {
		x.Message += ": " + p.Reason
	}
	a.add(x)
}

// rack is what the monitor of a rack says of itself.
func (a *attention) rack(g store.Agent, state api.RackState, set api.RackSettings, nodes int) {
	if b := state.Brake; b != nil {
		x := api.Attention{
			Severity: api.SeverityCritical, Kind: string(power.ReasonBrake), Rack: g.Name, Agent: g.Name,
			Nodes: a.folded(b.Nodes), Count: len(b.Nodes), Since: b.Since,
			Message: "the fleet brake holds: " + b.Message, Do: "undo the change that led to it, or release it if all of it is meant",
			Run: power.ReasonBrake.Help("", g.Name),
		}
		if set.ReleaseBrake == b.ID && len(b.Nodes) <= set.ReleaseNodes {
			x.Severity, x.Do, x.Run = api.SeverityNotice, "it was released by "+set.ReleasedBy+", and its agent is told", nil
		}
		a.add(x)
		for _, n := range b.Nodes {
			a.brake[n] = true
		}
	}
	if set.Monitor == api.MonitorOff || set.Monitor == "" && state.Monitor == api.MonitorOff {
		a.add(api.Attention{
			Severity: api.SeverityNotice, Kind: string(power.ReasonRack), Rack: g.Name, Agent: g.Name, Count: nodes,
			Message: fmt.Sprintf("the monitor of rack %s is off: nothing is read or corrected", g.Name), Do: "give it a schedule",
			Run: power.ReasonRack.Help("", g.Name),
		})
	}
}

// ofNodes is what concerns single nodes, of the agents that can be counted on: of the
// others nothing newer is known than that they are away.
func (a *attention) ofNodes() error {
	nodes, err := a.tx.Troubled(a.now.Add(holdEndsSoon))
	if err != nil {
		return err
	}
	open, err := a.tx.AllOpenOps()
	if err != nil {
		return err
	}
	busy := map[string]bool{}
	for _, o := range open {
		busy[o.Node] = true
	}
	for _, n := range nodes {
		if a.in == nil || a.in[n.Name] {
			a.node(n, busy[n.Name])
		}
	}
	return nil
}

// node notes the most pressing of what a node has, and a hold that ends.
func (a *attention) node(n store.Node, busy bool) {
	away := a.away[n.Agent]
	silent := n.BreakerOpen
	since := cmp.Or(n.ObservedAt, n.TriedAt)
	switch {
	case n.Damaged() != "":
		a.note(n, power.ReasonDamaged, time.Time{}, damagedNote(n))
	case n.Shared != "":
		a.note(n, power.ReasonShared, time.Time{}, power.SharedBMC(n.Name, n.Shared))
	case away:
	case n.Monitor.Waits == power.ReasonNoCredentials:
		a.note(n, power.ReasonNoCredentials, since, n.Monitor.WaitsMessage)
	case n.Reach == power.ReachAuthFailed:
		a.note(n, power.ReasonAuth, since, "")
	case n.Reach == power.ReachPrivilege:
		a.note(n, power.ReasonPrivilege, since, "")
	case silent && n.Reach == power.ReachBusy:
		a.note(n, power.ReasonBMCBusy, since, "")
	case silent:
		a.note(n, power.ReasonUnreachable, since, "")
	case n.Monitor.Fault != "":
		a.note(n, power.ReasonFault, n.Monitor.FaultSince, n.Monitor.Fault)
	case n.Drifting && !busy && !a.brake[n.Name] && !a.corrected(n):
		a.note(n, power.ReasonDrift, time.Time{}, describeDrift(n, standing(n), a.now))
		if x := a.of[attentionKey{string(power.ReasonDrift), n.Agent}]; len(x.names) == 1 {
			x.expected = standing(n).Expected
		} else if x.expected != standing(n).Expected {
			x.expected = ""
		}
	}
	if h := n.Hold; h.Active(a.now) && h.Schedule == "" && !h.Until.IsZero() && !h.Until.After(a.now.Add(holdEndsSoon)) {
		a.holdEnds(n)
	}
}

// corrected reports whether the monitor is about to correct a node that drifts, or something
// keeps it that has an item of its own.
func (a *attention) corrected(n store.Node) bool {
	if !power.Effective(n.Status, n.Hold, a.now).Enforces() {
		return false
	}
	switch n.Monitor.Waits {
	case power.ReasonNoCut, power.ReasonProtected, power.ReasonHandsOff:
		return false
	}
	return true
}

// what to do about what a node has.
var attentionDo = map[power.Reason]struct {
	severity api.Severity
	do       string
}{
	power.ReasonDamaged:       {api.SeverityWarning, "set it anew"},
	power.ReasonShared:        {api.SeverityWarning, "correct the address of one, name the parts of a chassis, or remove one"},
	power.ReasonNoCredentials: {api.SeverityWarning, "set them, or put them into the credentials file of the rack's agent"},
	power.ReasonAuth:          {api.SeverityWarning, "correct user or password here or at the BMC, then retry"},
	power.ReasonPrivilege: {
		api.SeverityWarning,
		"at the BMC, allow the user IPMI over LAN, or Redfish, as operator or higher, then retry",
	},
	power.ReasonBMCBusy: {api.SeverityWarning, "look which clients hold the sessions of the BMC, then retry"},
	power.ReasonUnreachable: {
		api.SeverityWarning, "check cable, address and power of the BMC, and that IPMI over LAN or Redfish is enabled; it is probed by itself",
	},
	power.ReasonFault: {api.SeverityWarning, "mend the cause, then retry"},
	power.ReasonDrift: {api.SeverityWarning, "ask for the state that is meant, or change the status"},
}

// note has a node share the item of its rack.
func (a *attention) note(n store.Node, why power.Reason, since time.Time, message string) {
	x := a.item(string(why), n, since, n.Monitor.WaitsUntil)
	x.Severity, x.Do = attentionDo[why].severity, attentionDo[why].do
	if message == "" || x.Message != "" && message != x.Message {
		message = why.Text()
	}
	x.Message = message
}

func (a *attention) holdEnds(n store.Node) {
	x := a.item(api.AttentionHold, n, n.Hold.Since, n.Hold.Until)
	x.Severity = api.SeverityNotice
	x.Message = fmt.Sprintf("the hold of %s ends; then the status %s says %s", n.Hold.By, cmp.Or(string(n.Status), "none"),
		n.Status.Desired().Want)
	x.Do = "nothing, if that is meant; otherwise hold on"
}

// item is the one that a node shares with others of its rack.
func (a *attention) item(kind string, n store.Node, since, next time.Time) *attentionNodes {
	key := attentionKey{kind, n.Agent}
	x := a.of[key]
	if x == nil {
		x = &attentionNodes{Attention: api.Attention{Kind: kind, Rack: n.Agent, Agent: n.Agent}}
		a.of[key], a.order = x, append(a.order, key)
	}
	x.names = append(x.names, n.Name)
	if !since.IsZero() && (x.Since.IsZero() || since.Before(x.Since)) {
		x.Since = since
	}
	if next.After(a.now) && (x.Next.IsZero() || next.Before(x.Next)) {
		x.Next = next
	}
	return x
}

// fold makes items of what nodes share: one for each rack and kind, and beyond a bound one
// for the other racks together.
func (a *attention) fold() error {
	count, rest := map[string]int{}, map[string]*attentionNodes{}
	var all []*attentionNodes
	for _, key := range a.order {
		x := a.of[key]
		if count[x.Kind]++; count[x.Kind] <= maxOfKind {
			all = append(all, x)
			continue
		}
		r := rest[x.Kind]
		if r == nil {
			more := *x
			more.Rack, more.Agent, more.names = "", "", nil
			r = &more
			r.expected = ""
			rest[x.Kind], all = r, append(all, r)
		}
		r.names = append(r.names, x.names...)
		if !x.Since.IsZero() && (r.Since.IsZero() || x.Since.Before(r.Since)) {
			r.Since = x.Since
		}
		if x.Message != r.Message {
			r.Message = power.Reason(x.Kind).Text()
		}
	}
	for _, x := range all {
		if x.Kind == string(power.ReasonDrift) {
			since, err := a.tx.AuditedSince(auditDrift, x.names[:min(len(x.names), driftsLookedUp)])
			if err != nil {
				return err
			}
			x.Since = since
		}
		x.Count, x.Nodes = len(x.names), a.folded(x.names)
		x.Run = a.commands(x)
		a.add(x.Attention)
	}
	return nil
}

// commands are those of the reason, for the nodes of an item; for one node where the
// command takes one.
func (a *attention) commands(x *attentionNodes) []string {
	nodes := quoted(noderange.Fold(x.names))
	if len(nodes) > maxFolded {
		nodes = "@" + x.Rack
		if x.Rack == "" {
			nodes = "all"
		}
	}
	switch x.Kind {
	case string(power.ReasonDrift):
		commands := []string{"rackpower explain " + x.names[0], "rackpower status " + nodes}
		if x.expected == power.On { // off would be a command that takes power: a person finds it by himself
			commands = append(commands, "rackpower on "+nodes)
		}
		return commands
	case api.AttentionHold:
		return []string{"rackpower status " + nodes, "rackpower hold " + nodes + " on|off --for 4h --reason TEXT"}
	case string(power.ReasonFault):
		return append([]string{"rackpower explain " + x.names[0]}, power.ReasonFault.Help(nodes, x.Rack)...)
	case string(power.ReasonUnreachable), string(power.ReasonBMCBusy), string(power.ReasonPrivilege):
		return power.Reason(x.Kind).Help(nodes, x.Rack)
	}
	commands := power.Reason(x.Kind).Help(x.names[0], cmp.Or(x.Rack, "RACK"))
	if x.Kind == string(power.ReasonAuth) && len(x.names) > 1 { // passwords are set node by node, the retry is one
		commands[len(commands)-1] = "rackpower node retry " + nodes
	}
	return commands
}

// quoted is a NODES expression as a shell takes it.
func quoted(expr string) string {
	if strings.ContainsAny(expr, "[]!&()") {
		return "'" + expr + "'"
	}
	return expr
}

// folded are names as far as the scope goes, cut where the list is long.
func (a *attention) folded(names []string) string {
	if a.in != nil {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !a.in[name] })
	}
	text := noderange.Fold(names)
	if len(text) <= maxFolded {
		return text
	}
	cut := strings.LastIndexByte(text[:maxFolded], ',')
	return text[:max(cut, 0)] + ",..."
}

func (a *attention) approvals() error {
	all, err := a.tx.Awaiting()
	for _, p := range all {
		names := p.NodeNames()
		if !a.now.Before(p.ExpiresAt) || a.in != nil && slices.ContainsFunc(names, func(name string) bool { return !a.in[name] }) {
			continue
		}
		a.add(api.Attention{
			Severity: api.SeverityWarning, Kind: api.AttentionApproval, ID: p.ID, Nodes: a.folded(names), Count: len(names), Since: p.AskedAt,
			Next: p.ExpiresAt, Message: fmt.Sprintf("%s asks for %s, and %s", p.AskedBy, p.What, p.Needs),
			Do:  "another person than who asked looks at it, and approves or denies it",
			Run: []string{"rackpower plan show " + p.ID, "rackpower approve " + p.ID, "rackpower deny " + p.ID + " --reason TEXT"},
		})
	}
	return err
}

// certificates are those of agents, and of who asks, that end soon or did lately.
func (a *attention) certificates(who auth.Principal) error {
	enrolled, err := a.tx.Enrolments()
	if err != nil {
		return err
	}
	for _, e := range enrolled {
		if e.Serial == "" || a.racks != nil && !a.racks[e.Agent] || !e.NotAfter.Before(a.now.Add(certEndsSoon)) ||
			!e.RevokedAt.Before(e.NotAfter.Add(-auth.AgentLife)) {
			continue
		}
		a.certificate(e.Agent, "agent "+e.Agent, e.NotAfter, "look why its agent does not renew it, or enrol it again",
			"rackpower agents token "+e.Agent)
	}
	own, err := a.tx.Certificates()
	for _, o := range own {
		if o.User == who.Name && o.NotAfter.Before(a.now.Add(certEndsSoon)) && a.now.Before(o.NotAfter) {
			a.certificate("", o.User, o.NotAfter, "make another", "rackpower user cert "+o.User)
		}
	}
	return err
}

func (a *attention) certificate(rack, whose string, end time.Time, do, run string) {
	x := api.Attention{
		Severity: api.SeverityNotice, Kind: api.AttentionCertificate, Rack: rack, Agent: rack, Next: end,
		Message: fmt.Sprintf("the certificate of %s ends at %s", whose, power.At(end)), Do: do, Run: []string{run},
	}
	if !a.now.Before(end) {
		x.Severity, x.Since, x.Next = api.SeverityWarning, end, time.Time{}
		x.Message = fmt.Sprintf("the certificate of %s ended at %s", whose, power.At(end))
	}
	a.add(x)
}
