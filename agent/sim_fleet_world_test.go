package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/agent/simtest"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
)

// fleetWorld is what is around an agent with its monitor on: many nodes, central, people
// and hands, over the harness that opsWorld has too. It runs with the timing of the
// defaults, since that is what the rules are about; only a BMC that does not follow is
// given up sooner, so that there are more faults.
type fleetWorld struct {
	simHarness
	m *simtest.FleetModel

	names    []string
	nodes    map[string]api.AssignedNode // as central has them
	untold   map[string]bool             // of which the agent has not been told
	settings api.RackSettings
	unset    bool // the agent has not been told of the settings
	rev      int64
	away     atomic.Bool // central is
	db       api.Database
	met      api.Database                // the newest state of it that the agent has met
	backup   map[string]api.AssignedNode // of central's nodes; nil: there is none
	lacks    map[string]bool             // nodes that central does not have since it was restored
	returns  map[string]bool             // nodes that it has again, and has not assigned yet
	trying   map[string]bool             // nodes of an assignment that the agent may have
	central  power.Clock
	asked    map[string]bool
}

// playFleet plays a history whose first line is "fleet N".
func playFleet(t *testing.T, s simtest.Script, verbose bool) (p simtest.Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := &fleetWorld{
			db: theCentral, lacks: map[string]bool{}, returns: map[string]bool{},
			nodes: map[string]api.AssignedNode{}, untold: map[string]bool{}, asked: map[string]bool{},
		}
		w.fake = newSimFake()
		w.m = simtest.NewFleetModel(verbose, w.fake, w)
		w.create(w.m)
		w.configure, w.born, w.excused = w.config, func(proc *simProcess) { w.resolve(proc.a) }, func() bool { return false }
		w.trouble = func(bool, faultfs.Call) faultfs.Fault { return faultfs.Fault{} }
		w.started = func() {
			go w.acknowledge(w.proc)
			w.tell()
			w.m.Poll()
		}
		w.run(s)
		p = w.m.Result(w.fatal)
	})
	return p
}

func (w *fleetWorld) config(proc *simProcess) Config {
	return Config{
		Monitor: "@every 60s", Probe: w.probe(proc),
		Timing: Timing{Verify: []time.Duration{15 * time.Second, 20 * time.Second, 25 * time.Second}},
		wrapLog: func(_ *Agent, log opLog) opLog {
			w.m.Reopened(log.Live())
			return &fleetLog{opLog: log, m: w.m}
		},
		Central: awayCentral{},
	}
}

// acknowledge is central taking what ended, until the process is gone.
func (w *fleetWorld) acknowledge(proc *simProcess) {
	for {
		select {
		case <-proc.ended:
			return
		case <-time.After(3 * time.Second):
		}
		if !w.away.Load() {
			_ = proc.a.acknowledged(proc.a.outbox.take(500), ack{w.db, 0})
		}
	}
}

// fleetLog shows the model what the journal of operations took.
type fleetLog struct {
	opLog
	m *simtest.FleetModel
}

func (p *fleetLog) Append(entries ...journal.Entry) (uint64, error) {
	lsn, err := p.opLog.Append(entries...)
	if err == nil {
		for _, e := range entries {
			p.m.Record(e.Kind, e.Key, e.Payload, true)
		}
	}
	return lsn, err
}

func (w *fleetWorld) run(s simtest.Script) {
	n := 0
	_, _ = fmt.Sscan(s[0].Operand(0), &n)
	n = min(max(n, 1), 60)
	if rate := s[0].Get("feed"); rate != "" {
		f := 0.0
		_, _ = fmt.Sscan(rate, &f)
		w.settings.Domains, w.unset = []api.DomainLimit{{Name: "feed", Rate: f, Concurrent: 4}}, true
	}
	for i := 1; i <= n; i++ {
		name := simtest.FleetName(i)
		shares := false
		node := api.AssignedNode{Name: name, BMC: "ipmi://admin@" + name, Password: "secret", Desired: power.Desired{Want: power.HandsOff}}
		if n >= 12 && i > n-4 { // blades in one chassis
			node.BMC = simtest.PartOf(name, i)
			shares = true
		}
		if w.settings.Domains != nil && i%3 > 0 {
			node.Domain = "feed"
		}
		w.names = append(w.names, name)
		w.nodes[name], w.untold[name] = node, true
		w.m.AddNode(name, shares)
		w.fake.BMC(name).SetLatency(fleetLatency)
	}
	s = s[1:]
	for len(s) > 0 && s[0].Verb == "initial" { // as it is when the agent starts first
		w.m.Tracef("-- %s", s[0])
		w.setInitial(s[0])
		s = s[1:]
	}
	w.start()
	for _, step := range s {
		if w.m.Broken() {
			break
		}
		w.sleep(step.After)
		w.m.Tracef("-- %s", step)
		w.m.Saw("step " + step.Verb)
		w.play(step)
		if step.Get("race") == "" && !w.proc.Dead() {
			synctest.Wait()
		}
		w.m.Poll()
	}
	if !w.m.Broken() {
		w.settle()
	}
	w.stop()
}

// probe is the agent's: every second BMC ignores it.
func (w *fleetWorld) probe(proc *simProcess) func(context.Context, power.Endpoint) error {
	return func(ctx context.Context, ep power.Endpoint) error {
		if proc.Dead() {
			return &power.Error{Kind: power.KindCanceled, Op: "probe", Err: simtest.ErrGone}
		}
		if ep.Host[len(ep.Host)-1]%2 == 0 {
			return &power.Error{Kind: power.KindUnreachable, Op: "probe", Err: errors.New("ignored")}
		}
		return w.fake.Probe(ctx, ep)
	}
}

func (w *fleetWorld) named(s simtest.Step) []string {
	return simtest.FleetNames(s.Operand(0), len(w.names))
}

func (w *fleetWorld) setInitial(s simtest.Step) {
	for _, name := range w.named(s) {
		status := statusOf(s.Operand(1))
		n := w.nodes[name]
		n.Status, n.Desired = status, status.Desired()
		w.nodes[name] = n
		state := power.State(s.Operand(2))
		if state == "as-desired" {
			state = n.Desired.State()
		}
		if state == power.On {
			w.fake.BMC(name).SetPower(power.On)
		}
	}
}

func statusOf(text string) power.Status {
	if text == "-" {
		return power.StatusNone
	}
	return power.Status(text)
}

// tell is central telling the agent what changed, if it is there.
func (w *fleetWorld) tell() {
	a := w.proc.a
	if w.away.Load() || w.proc.Dead() || w.m.Broken() {
		return
	}
	if met, err := a.link.welcome(w.db); err != nil || !met.trusted() {
		if err == nil {
			w.m.Fail("trust", "the right central is not followed")
		}
		return
	}
	w.met = w.db
	at := a.assigned.position()
	full := at.Database != w.db || at.Rev == 0 // it may have lost something
	if !full && at.Rev == w.rev {              // what it was told when it died is durable
		for name := range w.trying {
			delete(w.untold, name)
		}
	}
	w.trying = map[string]bool{}
	for _, h := range a.assigned.unconfirmed() { // what was held at the rack comes first
		if full || w.lacks[h.Node] {
			continue // it is told when central has it
		}
		w.central.Merge(h.Hold.Seq, time.Now())
		if n := w.nodes[h.Node]; h.Hold.Over(n.Hold) {
			n.Hold = h.Hold
			w.nodes[h.Node] = n
		}
		w.untold[h.Node] = true
	}
	for _, name := range w.names { // it says that a hold is over when its time is
		n := w.nodes[name]
		if h := n.Hold; h.Want != "" && !h.Until.IsZero() && time.Now().After(h.Until) {
			n.Hold = power.Hold{Seq: h.Seq, Confirmed: h.Confirmed, Schedule: h.Schedule, Since: h.Since}
			w.nodes[name], w.untold[name] = n, true
		}
	}
	if len(w.untold) == 0 && !w.unset && !full {
		return
	}
	w.rev++
	got := api.Assignment{Rev: w.rev, Seq: w.central.Now(time.Now()), Full: full}
	for _, name := range w.names {
		if (w.untold[name] || full) && !w.lacks[name] {
			got.Nodes = append(got.Nodes, w.nodes[name])
			w.trying[name] = true
			if full || w.returns[name] {
				w.m.KeepsHold(name)
			}
		}
	}
	if w.unset {
		settings := w.settings
		got.Rack = &settings
	}
	w.m.Assigning(got)
	if err := a.apply(got, w.db); err != nil {
		if !w.proc.Dead() {
			w.m.Fail("assignment", "apply: %v", err)
		}
		return
	}
	clear(w.untold)
	clear(w.trying)
	clear(w.returns)
	w.unset = false
	w.m.Assigned(got)
	if n := len(a.assigned.all()); n != len(w.names) {
		w.m.Fail("trust", "of %d nodes %d are left, and nobody removed one", len(w.names), n)
	}
	if len(a.assigned.unconfirmed()) > 0 && full {
		w.tell() // it is told the holds that it lacks
	}
}

// otherCentral is another central that answers once: one with nothing in it, or one with an
// older state of the right one's database than the agent has met. Of a restore that it has
// not met it cannot know.
func (w *fleetWorld) otherCentral(older bool) {
	a, db := w.proc.a, api.Database{CentralID: "other-central"}
	if older {
		db = api.Database{CentralID: w.met.CentralID, Incarnation: w.met.Incarnation - 1}
	}
	met, err := a.link.welcome(db)
	if err != nil {
		return
	}
	_, _, err = a.assigned.apply(api.Assignment{Full: true, Rev: 1}, db)
	if (met.trusted() || err == nil) && !w.proc.Dead() {
		w.m.Fail("trust", "another central is followed, or its assignment was taken")
	}
}

// restore puts the backup in the place of central's nodes, and takes those away that were
// added after it.
func (w *fleetWorld) restore(added []string) {
	if w.backup == nil {
		return
	}
	w.nodes, w.lacks, w.returns = maps.Clone(w.backup), map[string]bool{}, map[string]bool{}
	for name, n := range w.nodes {
		n.Confirmed, n.Retry = false, 0
		w.nodes[name], w.untold[name] = n, true
	}
	for _, name := range added {
		w.lacks[name] = true
	}
	w.db.Incarnation++
	w.tell()
}

// change is central changing nodes.
func (w *fleetWorld) change(names []string, fn func(n *api.AssignedNode)) {
	for _, name := range names {
		n := w.nodes[name]
		fn(&n)
		w.nodes[name] = n
		w.untold[name] = true
		if w.lacks[name] { // somebody added it again
			delete(w.lacks, name)
			w.returns[name] = true
		}
		delete(w.trying, name)
	}
	w.tell()
}

func (w *fleetWorld) set(fn func(s *api.RackSettings)) {
	fn(&w.settings)
	w.unset = true
	w.tell()
}

// local is somebody at the rack's own socket.
func (w *fleetWorld) local(fn func(a *Agent) error) {
	if err := fn(w.proc.a); err != nil && !w.proc.Dead() && api.CodeOf(err) == "" {
		w.m.Fail("local", "%v", err)
	}
}

func (w *fleetWorld) play(s simtest.Step) {
	names := w.named(s)
	now := time.Now()
	w.m.Disturbed(s.Verb, names)
	each := func(fn func(name string)) {
		for _, name := range names {
			fn(name)
		}
	}
	switch s.Verb {
	case "status":
		status, every := statusOf(s.Operand(1)), s.Duration("every")
		if every > 0 {
			w.m.Saw("step trickle")
		}
		for len(names) > 0 && !w.m.Broken() {
			some := names
			if every > 0 {
				some = names[:1]
			}
			names = names[len(some):]
			w.change(some, func(n *api.AssignedNode) {
				if n.Status == status && (n.Confirmed || s.Get("confirmed") == "") {
					return // that is no change
				}
				n.Status, n.Desired, n.Confirmed = status, status.Desired(), s.Get("confirmed") != ""
			})
			if len(names) > 0 {
				w.sleep(every)
			}
		}
	case "hold", "release":
		want, by, schedule := power.Want(s.Operand(1)), "ann", ""
		if s.Verb == "release" {
			want = ""
		}
		if _, err := power.ParseWant(string(want)); err != nil && want != "" || len(names) == 0 {
			return // what the shrinker made of it
		}
		if s.Get("local") != "" {
			w.local(func(a *Agent) error {
				in := api.SetHold{Names: names, Want: want, For: s.Duration("for"), AskedBy: by, Confirmed: s.Get("confirmed") != ""}
				w.m.Holding(in, now)
				_, err := a.control.hold(in, now)
				if err == nil {
					w.resolve(a)
				}
				return err
			})
			w.tell()
			return
		}
		if s.Get("schedule") != "" {
			schedule = "night"
		}
		w.change(names, func(n *api.AssignedNode) {
			if want == "" && !n.Hold.Active(now) || schedule != "" && n.Hold.Schedule == "" && n.Hold.Active(now) {
				return // nothing to release; a schedule lets people's holds be
			}
			n.Hold = power.Hold{Want: want, By: by, Schedule: schedule, Since: now, Seq: w.central.Next(now), Confirmed: s.Get("confirmed") != ""}
			if d := s.Duration("for"); d > 0 && want != "" {
				n.Hold.Until = now.Add(d)
			}
		})
	case "other-central":
		w.otherCentral(s.Get("older") != "")
	case "backup":
		w.backup = maps.Clone(w.nodes)
	case "restore":
		w.restore(names)
	case "ask":
		w.ask(s)
	case "pause":
		p := &api.Pause{By: "ann", Since: now}
		if d := s.Duration("for"); d > 0 {
			p.Until = now.Add(d)
		}
		w.set(func(s *api.RackSettings) { s.Pause = p })
	case "resume":
		w.set(func(s *api.RackSettings) { s.Pause = nil })
	case "monitor":
		text := ""
		if s.Operand(0) == "off" {
			text = MonitorOff
		}
		w.set(func(s *api.RackSettings) { s.Monitor = text })
	case "bounds":
		w.set(func(r *api.RackSettings) { r.BrakePercent, r.BrakeAbove = s.Number("percent"), s.Number("above") })
	case "release-brake":
		w.releaseBrake(s.Get("local") != "")
	case "retry":
		if s.Get("local") != "" {
			w.proc.a.monitor.RetryAll(names)
			w.proc.a.poller.readSoon(names)
			w.m.Retried(names)
			return
		}
		w.change(names, func(n *api.AssignedNode) { n.Retry = w.central.Next(now) })
	case "kill":
		w.proc.Kill(simtest.CrashPointOf(s))
		w.again()
	case "crash":
		w.proc.CrashAt(simtest.CrashPointOf(s))
	case "stop":
		w.stop()
		w.start()
	case "away":
		w.away.Store(true)
	case "back":
		w.away.Store(false)
		w.tell()
	case "manual":
		state := power.State(s.Operand(1))
		if state != power.On && state != power.Off {
			return
		}
		w.m.SetByHand(names, state)
		each(func(name string) { w.fake.BMC(name).SetPower(state) })
	default:
		each(func(name string) { w.fault(s, name) })
	}
}

// fault sets what is wrong with a BMC.
func (w *fleetWorld) fault(s simtest.Step, name string) {
	b := w.fake.BMC(name)
	switch s.Verb {
	case "late":
		b.SetOnAfter(s.Duration("on"))
		b.SetOffAfter(s.Duration("off"))
	case "latency":
		d, _ := time.ParseDuration(s.Operand(1))
		b.SetLatency(max(d, fleetLatency))
	case "stuck", "unstuck":
		b.SetStuck(s.Verb == "stuck")
	case "mute", "wake":
		b.SetMute(s.Verb == "mute")
	case "password":
		b.SetWrongPassword(s.Operand(1) == "wrong")
		b.SetRebootTime(0)
		b.Restart()
	case "restart-bmc":
		b.SetRebootTime(s.Duration("reboot"))
		b.Restart()
	case "comeback":
		w.m.ComesBack(name, s.Duration("after"))
	case "fallback":
		w.m.FallsBack(name, s.Duration("after"))
	case "stay":
		w.m.ComesBack(name, -1)
		w.m.FallsBack(name, -1)
	case "lose":
		b.LoseNextAnswers(s.Number("n"))
	}
}

// releaseBrake is somebody releasing the brake, as he sees it.
func (w *fleetWorld) releaseBrake(local bool) {
	w.m.Poll()
	b := w.Brake()
	if b == nil {
		return
	}
	w.m.BrakeReleased(b, local)
	if local {
		w.local(func(a *Agent) error {
			_, err := a.monitor.Release(api.ReleaseBrake{AskedBy: "bob", MaxNodes: map[string]int{"r1": len(b.Nodes)}})
			return err
		})
		return
	}
	w.set(func(s *api.RackSettings) { s.ReleaseBrake, s.ReleaseNodes, s.ReleasedBy = b.ID, len(b.Nodes), "ann" })
}

// Brake is the one that holds, as the agent of now says.
func (w *fleetWorld) Brake() *api.Brake {
	if w.proc == nil || w.proc.a == nil || w.proc.Dead() {
		return nil
	}
	return w.proc.a.monitor.State().Brake
}

func (w *fleetWorld) ask(s simtest.Step) {
	label, name := s.Operand(0), ""
	if names := simtest.FleetNames(s.Operand(1), len(w.names)); len(names) > 0 {
		name = names[0]
	}
	op := power.Op{
		ID: label, Node: name, Action: power.Action(s.Operand(2)), AskedBy: "carl", Origin: power.FromCentral,
		Options: power.Options{Grace: s.Duration("grace")},
	}
	now := time.Now()
	if d := s.Duration("deadline"); d > 0 {
		op.Deadline = now.Add(d)
	}
	op = op.WithDefaults(now)
	if w.asked[label] || op.Validate() != nil {
		return
	}
	w.asked[label] = true
	if s.Get("local") != "" {
		op.Origin = power.FromLocal
	} else {
		if n := w.nodes[name]; w.away.Load() || w.lacks[name] || power.Effective(n.Status, n.Hold, now).Conflicts(op.Action) {
			return // central refuses it
		}
		op.Seq = w.central.Next(now)
	}
	_, _ = w.proc.a.Submit(op)
}

// settle lifts the disturbances, and looks whether the monitor does what is left to do.
func (w *fleetWorld) settle() {
	w.m.Tracef("-- the disturbances end")
	w.m.Disturbed("end", w.names)
	w.proc.CrashAt(nil)
	w.startCrashes = nil
	for _, name := range w.names {
		b := w.fake.BMC(name)
		b.SetMute(false)
		b.SetStuck(false)
		b.SetWrongPassword(false)
		b.SetOnAfter(0)
		b.SetOffAfter(0)
		b.LoseNextAnswers(0)
		w.m.ComesBack(name, -1)
		w.m.FallsBack(name, -1)
	}
	w.away.Store(false)
	w.sleep(time.Second)
	for name := range w.lacks {
		w.untold[name], w.returns[name] = true, true
	}
	clear(w.lacks)
	w.tell()
	w.sleep(fleetPatience)
	w.m.Poll()
	if w.m.Broken() {
		return
	}
	for _, name := range w.names {
		if want, pending := w.m.Pending(name, w.fake.BMC(name).Power()); pending {
			w.explained(name, want)
		}
	}
	w.m.Tracef("-- people do what was left to them")
	w.change(w.names, func(n *api.AssignedNode) { n.Retry = w.central.Next(time.Now()) })
	w.set(func(s *api.RackSettings) { s.Pause, s.Monitor = nil, "" })
	left := ""
	for range 8 {
		w.releaseBrake(false)
		w.sleep(4 * time.Minute)
		w.m.Poll()
		if w.m.Broken() {
			return
		}
		left = ""
		for _, name := range w.names {
			if want, pending := w.m.Pending(name, w.fake.BMC(name).Power()); pending && !w.m.Forbidden(name) {
				e, _ := w.proc.a.view.explain(name, time.Now())
				left += fmt.Sprintf("%s is to be %s: %s\n", name, want, e.Message)
			}
		}
		if left == "" {
			break
		}
	}
	if left != "" {
		w.m.Fail("progress", "in the end %s", left)
		return
	}
	w.m.Quiet()
	w.sleep(5 * time.Minute)
}

// fleetLatency is the least that an exchange takes: no two readings of a node are made at
// the same instant.
const fleetLatency = time.Millisecond

// fleetPatience is the longest that the monitor may take for what it can do: a probe of a
// BMC that was silent for long comes after 10 min at most, a person's soft-off and an
// operation that a stuck BMC makes fail have ended before.
const fleetPatience = 21 * time.Minute

// explained looks whether the agent names a reason for which nothing is done about a
// node, and whether that is so.
func (w *fleetWorld) explained(name string, want power.State) {
	now := time.Now()
	e, ok := w.proc.a.view.explain(name, now)
	reason := e.Monitor.Waits
	if reason == "" && strings.Contains(e.Message, power.ReasonRack.Text()) {
		reason = power.ReasonRack
	}
	if reason != power.ReasonRack && e.Reading.Reach == power.ReachAuthFailed {
		reason = power.ReasonAuth
	}
	so := false
	switch reason {
	case power.ReasonBrake:
		so = e.Rack.Brake != nil
	case power.ReasonPaused:
		so = w.settings.Pause.Active(now)
	case power.ReasonRack:
		so = w.settings.Monitor == MonitorOff
	case power.ReasonFault:
		so = e.Monitor.Fault != "" && e.Monitor.WaitsUntil.After(now) && w.m.MayBeInFault(name)
	case power.ReasonNoCut:
		so = w.m.Forbidden(name)
	case power.ReasonAuth: // a log-in that was refused is not tried again
		so = e.BMC != nil && e.BMC.BreakerOpen != "" && strings.Contains(e.Message, e.BMC.BreakerOpen) && w.m.WasRefused(name)
	}
	w.m.Saw("left for " + string(reason))
	if !ok || !so {
		w.m.Fail("progress", "%s is to be %s for long, and for no good reason is not (%s): %s", name, want, reason, e.Message)
	}
}

// Dead reports whether the process of now is dead.
func (w *fleetWorld) Dead() bool { return w.proc.Dead() }

// resolve shows the model what the agent keeps of what it was assigned.
func (w *fleetWorld) resolve(a *Agent) {
	kept := map[string]api.AssignedNode{}
	for _, n := range a.assigned.all() {
		is := n.AssignedNode
		is.Hold = n.hold
		kept[n.Name] = is
	}
	w.m.Resolve(a.assigned.settings(), kept)
}
