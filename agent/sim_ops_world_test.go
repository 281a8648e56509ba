package agent

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/agent/monitor"
	"rackpower/agent/simtest"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
)

// opsTiming is short, so that a history is; the ratios are those of the defaults.
var opsTiming = Timing{
	Timing:    monitor.Timing{Moment: 1000 * time.Hour}, // the monitor itself is tested elsewhere: its requests take the same way
	Verify:    []time.Duration{8 * time.Second, 10 * time.Second, 12 * time.Second},
	FirstLook: 300 * time.Millisecond, LongLook: 2 * time.Second,
	Unreachable: 12 * time.Second, Retry: 500 * time.Millisecond, LongRetry: 4 * time.Second,
	MinOff: 5 * time.Second, Exchange: 6 * time.Second, KeepSession: 20 * time.Second, BMCReset: 20 * time.Second,
}

var opsRules = simtest.OpsRules{
	Verify: opsTiming.Verify, MinOff: opsTiming.MinOff, Exchange: opsTiming.Exchange, Keeps: keepDone / 2,
}

// opsWorld is everything around the agent in one history: its harness, askers, central. It
// runs in a bubble of simulated time, and tells the model what it sees.
type opsWorld struct {
	simHarness
	m     *simtest.OpsModel
	nodes []api.AssignedNode

	requests map[string]power.Op
	central  power.Clock // central's sequences
	db       api.Database
	full     atomic.Bool
	eio      atomic.Int64 // writes to the journal until one fails
	skip     atomic.Int64 // appends until
	deny     atomic.Int64 // so many are not taken
}

func newOpsWorld(verbose bool) *opsWorld {
	w := &opsWorld{requests: map[string]power.Op{}, m: simtest.NewOpsModel(verbose, opsRules), db: theCentral}
	w.fake = newSimFake()
	w.create(w.m)
	w.configure, w.born, w.trouble, w.excused = w.config, w.wasBorn, w.diskTrouble, w.m.DiskFailed
	return w
}

func (w *opsWorld) config(proc *simProcess) Config {
	w.full.Store(false)
	w.deny.Store(0)
	return Config{
		Monitor: MonitorOff, Timing: opsTiming,
		wrapLog: func(_ *Agent, log opLog) opLog {
			w.m.Reopened(log.Live())
			return &opsLog{opLog: log, proc: proc, w: w}
		},
		Central: awayCentral{},
	}
}

// wasBorn has the first process know its nodes, and looks whether each later one does.
func (w *opsWorld) wasBorn(proc *simProcess) {
	if proc.N == 0 {
		if _, _, err := proc.a.assigned.apply(api.Assignment{Nodes: w.nodes, Rev: 1}, theCentral); err != nil {
			w.m.Fail("start", "apply: %v", err)
		}
	} else if n := len(proc.a.assigned.all()); n != len(w.nodes) {
		w.m.Fail("start", "of %d assigned nodes %d are left", len(w.nodes), n)
	}
}

// diskTrouble decides about a call on a disk.
func (w *opsWorld) diskTrouble(segment bool, c faultfs.Call) faultfs.Fault {
	switch {
	case segment && c.Op == faultfs.OpWrite && w.eio.Load() > 0 && w.eio.Add(-1) == 0:
		return faultfs.Fault{Err: faultfs.ErrIO, Bytes: c.Size / 2}
	case w.full.Load() && c.Name == "spare" && (c.Op == faultfs.OpWrite || c.Op == faultfs.OpCreate):
		return faultfs.Fault{Err: faultfs.ErrFull}
	}
	return faultfs.Fault{}
}

// playSim plays a history.
func playSim(t *testing.T, s simtest.Script, verbose bool) (p simtest.Result) {
	t.Helper()
	if len(s) > 0 && s[0].Verb == "fleet" {
		return playFleet(t, s, verbose)
	}
	if len(s) > 0 && s[0].Verb == "damage" {
		return playDamage(t, s, verbose)
	}
	synctest.Test(t, func(*testing.T) {
		w := newOpsWorld(verbose)
		w.run(s)
		p = w.m.Result(w.fatal)
		for _, c := range w.fatal {
			p.Met["death in "+string(c.Op)]++
		}
	})
	return p
}

func (w *opsWorld) run(s simtest.Script) {
	n := 1
	if len(s) > 0 && s[0].Verb == "nodes" {
		_, _ = fmt.Sscan(s[0].Operand(0), &n)
	}
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		bmc := "ipmi://admin@" + name
		if i >= 2 {
			bmc = simtest.PartOf(name, i)
		}
		status := power.StatusNone
		if i == 1 {
			status = power.StatusDeploying
		}
		w.nodes = append(w.nodes, api.AssignedNode{Name: name, BMC: bmc, Password: "secret", Status: status, Desired: status.Desired()})
		w.m.AddNode(name, status.Desired())
	}
	w.start()
	for _, step := range s {
		if w.m.Broken() {
			break
		}
		w.sleep(step.After)
		w.m.Tracef("-- %s", step)
		w.play(step)
		if step.Get("race") == "" {
			synctest.Wait()
		}
	}
	if !w.m.Broken() {
		w.settleDown()
	}
	w.stop()
	w.races.Wait()
}

// settleDown lifts all faults, waits for every end, and looks what is left: in the
// power, in the outbox, in the journal, over two more starts.
func (w *opsWorld) settleDown() {
	w.m.Tracef("-- all faults are lifted")
	w.startCrashes = nil
	w.proc.CrashAt(nil)
	w.full.Store(false)
	w.eio.Store(0)
	w.deny.Store(0)
	w.m.FaultsLifted()
	for _, n := range w.nodes {
		b := w.fake.BMC(n.Name)
		b.SetMute(false)
		b.SetStuck(false)
		b.SetWrongPassword(false)
		b.SetLie(power.Off, 0)
		b.FailNext(0, "")
		b.FailNextReads(0, "")
		b.FailNextDials(0, "")
		b.FailNextSends(0, "")
		b.SetTimeout(2 * time.Second)
	}
	for range 60 * 4 {
		w.sleep(15 * time.Second) // the process of before may have died of the last step
		if w.m.Broken() || w.m.Idle() {
			break
		}
	}
	w.sleep(2 * time.Minute) // what is under way at the nodes comes to its end
	w.m.AllEnded()
	for _, n := range w.nodes {
		w.m.RestsAt(n.Name, w.fake.BMC(n.Name).Power())
		w.m.LimitRests(n.Name, w.fake.BMC(n.Name).Limit())
	}
	w.stop()
	w.start()
	if w.m.Broken() {
		return
	}
	w.m.Unreported(w.proc.a.outbox.unacknowledged())
	w.report(1000, false)
	w.m.Left(w.proc.a.log.Live())
	w.stop()
	w.start()
	if w.m.Broken() {
		return
	}
	for _, probe := range w.m.StaleProbes() {
		w.submit(probe)
	}
	if ids := w.proc.a.outbox.unacknowledged(); len(ids) > 0 {
		w.m.Fail("reported", "%v came back", ids)
	}
	w.m.Left(w.proc.a.log.Live())
}

func (w *opsWorld) play(s simtest.Step) {
	b := w.fake.BMC(s.Operand(0))
	value, _ := time.ParseDuration(s.Operand(1))
	kind := power.ErrorKind(cmp.Or(s.Get("kind"), string(power.KindRefused)))
	state := power.State(cmp.Or(s.Operand(1), string(power.On)))
	switch s.Verb {
	case "ask":
		w.ask(s)
	case "again":
		if op, ok := w.requests[s.Operand(0)]; ok {
			w.submit(op)
		}
	case "cancel":
		w.cancel(s.Operand(0))
	case "other-central":
		w.otherCentral()
	case "restored":
		w.restored()
	case "report":
		w.report(max(1, s.Number("n")), s.Get("lose") != "")
	case "crash":
		w.proc.CrashAt(simtest.CrashPointOf(s))
	case "start-crash":
		w.startCrashes = append(w.startCrashes, simtest.CrashPointOf(s))
	case "kill":
		w.proc.Kill(simtest.CrashPointOf(s))
		w.again()
	case "stop":
		w.stop()
		w.start()
	case "full", "room":
		w.full.Store(s.Verb == "full")
		w.m.DiskTrouble()
	case "deny":
		w.skip.Store(int64(s.Number("skip")))
		w.deny.Store(int64(max(1, s.Number("n"))))
	case "eio":
		w.eio.Store(2)
		w.m.DiskTrouble()
	case "late":
		b.SetOnAfter(s.Duration("on"))
		b.SetOffAfter(s.Duration("off"))
	case "prompt":
		b.SetOnAfter(0)
		b.SetOffAfter(0)
	case "latency":
		b.SetLatency(value)
	case "timeout":
		b.SetTimeout(value)
	case "soft":
		b.SetSoftOffAfter(value)
	case "deaf":
		b.SetDeaf(s.Operand(1) == "true")
	case "stuck":
		b.SetStuck(s.Operand(1) == "true")
	case "password": // somebody changes it at the BMC, and back
		b.SetWrongPassword(s.Operand(1) == "wrong")
		b.SetRebootTime(0)
		b.Restart()
	case "mute", "wake":
		b.SetMute(s.Verb == "mute")
	case "lie":
		d, _ := time.ParseDuration(s.Operand(2))
		b.SetLie(state, d)
	case "lose":
		b.LoseNextAnswers(s.Number("n"))
	case "refuse":
		b.FailNext(s.Number("n"), kind)
	case "refuse-reads":
		b.FailNextReads(s.Number("n"), kind)
	case "refuse-dials":
		b.FailNextDials(s.Number("n"), kind)
	case "refuse-sends":
		b.FailNextSends(s.Number("n"), kind)
	case "restart-bmc":
		b.SetRebootTime(s.Duration("reboot"))
		b.Restart()
	case "manual":
		w.m.SetByHand(b.Name())
		b.SetPower(state)
	}
}

func (w *opsWorld) ask(s simtest.Step) {
	label := s.Operand(0)
	if _, twice := w.requests[label]; twice {
		return
	}
	op := power.Op{
		ID: label, Node: s.Operand(1), Action: power.Action(s.Operand(2)), AskedBy: "admin", Origin: power.FromCentral,
		Options: power.Options{
			IfBusy: power.IfBusy(s.Get("if_busy")), Boot: power.BootDevice(s.Get("boot")), Grace: s.Duration("grace"),
			Limit: s.Number("limit"),
		},
		NoEscalate: s.Get("no-escalate") != "",
	}
	now := time.Now()
	if d := s.Duration("deadline"); d != 0 {
		op.Deadline = now.Add(d)
	}
	switch s.Get("from") {
	case "local":
		op.Origin = power.FromLocal
	case "monitor":
		op.Origin = power.FromMonitor
	default:
		op.Seq = w.central.Next(now.Add(s.Duration("seq")))
		if s.Get("seq") != "" { // one that was on its way for long
			op.Seq = power.Seq(now.Add(s.Duration("seq")).UnixMilli()) << 16
		}
	}
	op = op.WithDefaults(now)
	if op.Validate() != nil {
		return // what the shrinker made of it
	}
	w.requests[label] = op
	if s.Get("race") != "" {
		w.races.Go(func() { w.submit(op) })
		return
	}
	w.submit(op)
}

func (w *opsWorld) submit(op power.Op) {
	proc := w.proc
	before := w.m.Asks(op)
	r, err := proc.a.Submit(op)
	w.m.Answered(op, before, r, err)
}

func (w *opsWorld) cancel(label string) {
	w.m.CancelAsked(label)
	_, err := w.proc.a.Cancel(api.Cancel{ID: label, By: "bob"})
	w.m.CancelAnswered(label, err)
}

// report is central taking up to n words from the outbox. With lose, its
// acknowledgement gets lost.
func (w *opsWorld) report(n int, lose bool) {
	list := w.proc.a.outbox.take(n)
	w.m.Delivered(list)
	if lose {
		return
	}
	if !w.proc.a.acknowledged(list, ack{w.db, 0}) && !w.proc.Dead() && !w.m.DiskFailed() {
		w.m.Fail("reported", "what central has stays in the journal")
	}
}

// otherCentral is another central, with nothing in it, that answers once and takes what it
// can get. The model is not told.
func (w *opsWorld) otherCentral() {
	a, db := w.proc.a, api.Database{CentralID: "other-central"}
	met, err := a.link.welcome(db)
	if err != nil || !met.trusted() {
		return
	}
	_, _, _ = a.assigned.apply(api.Assignment{Full: true, Rev: 1}, db)
	_ = a.acknowledged(a.outbox.take(1000), ack{db, 1})
	_, _ = a.link.welcome(w.db)
}

// restored is central that was restored from a backup of the beginning: it knows of no
// operation, and is told all ends that are kept.
func (w *opsWorld) restored() {
	w.db.Incarnation++
	a := w.proc.a
	if met, err := a.link.welcome(w.db); err != nil {
		return
	} else if !met.trusted() {
		w.m.Fail("restored", "a restored central is not followed")
		return
	}
	w.m.Retold(a.keptEnds())
	_ = a.assigned.toldAll(w.db)
}

// opsLog sees what the journal is given and what it took.
type opsLog struct {
	opLog
	proc *simProcess
	w    *opsWorld
}

func (p *opsLog) Append(entries ...journal.Entry) (uint64, error) {
	if w := p.w; w.skip.Add(-1) < 0 && w.deny.Load() > 0 && w.deny.Add(-1) >= 0 && !p.proc.Dead() {
		w.m.Denied(p.proc.N, entries)
		return 0, journal.ErrFull
	}
	lsn, err := p.opLog.Append(entries...)
	switch {
	case err == nil:
		p.w.m.Durable(p.proc.N, entries, lsn)
	case p.proc.Dead() || errors.Is(err, journal.ErrStopped):
		p.w.m.Unsure(p.proc.N, entries)
	default:
		p.w.m.Denied(p.proc.N, entries)
	}
	return lsn, err
}
