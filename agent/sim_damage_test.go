package agent

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/agent/simtest"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
)

// damageHistories is how many histories with damage are simtest.Result where nobody says.
const damageHistories = 150

// damageMeets is what two thousand of them must have met.
var damageMeets = []string{
	"harm flip", "harm cut", "harm zero", "harm remove", "harm old", "harm volume", "damage told", "journal told to be old",
	"end indeterminate journal-lost",
	"read first", "central's word", "acknowledged",
}

// TestSimDamage plays random histories in which the logs of a killed agent are damaged, cut
// short, removed or put back from a copy, and holds what reaches the BMCs against rules
// that hold whatever was lost: what may not happen twice does not, nothing is sent before
// every BMC was read, and an alarm stands until it is acknowledged.
func TestSimDamage(t *testing.T) {
	simtest.Run{
		Name: "damage", Histories: damageHistories, Draw: simtest.DrawDamage, Play: playSim, Meets: damageMeets, MeetsFrom: 2000,
	}.Test(t)
}

// damageWorld is everything around the agent in such a history.
type damageWorld struct {
	simHarness
	m     *simtest.DamageModel
	nodes []api.AssignedNode
	ops   map[string]power.Op
	ends  map[string]power.End // that central got
	told  uint64               // LSN that central has heard of
	copy  [2]map[string][]byte // of the two disks
}

func playDamage(t *testing.T, s simtest.Script, verbose bool) (p simtest.Result) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := &damageWorld{m: simtest.NewDamageModel(verbose), ops: map[string]power.Op{}, ends: map[string]power.End{}}
		w.fake = newSimFake()
		w.create(w.m)
		w.whole = true
		w.configure, w.born, w.excused = w.config, w.wasBorn, func() bool { return false }
		w.simHarness.trouble = func(bool, faultfs.Call) faultfs.Fault { return faultfs.Fault{} }
		w.run(s)
		p = w.m.Result(w.fatal)
	})
	return p
}

func (w *damageWorld) config(*simProcess) Config {
	return Config{Monitor: MonitorOff, Timing: opsTiming, Central: awayCentral{}}
}

func (w *damageWorld) run(s simtest.Script) {
	n := 0
	_, _ = fmt.Sscan(s[0].Operand(0), &n)
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		w.fake.BMC(name).SetPower(power.On)
		w.nodes = append(w.nodes, api.AssignedNode{
			Name: name, BMC: "ipmi://admin@" + name, Password: "secret",
			Desired: power.Desired{Want: power.HandsOff},
		})
	}
	w.start()
	for _, step := range s[1:] {
		if w.m.Broken() {
			break
		}
		w.sleep(step.After)
		w.m.Tracef("-- %s", step)
		w.play(step)
		synctest.Wait()
	}
	if !w.m.Broken() {
		w.settle()
	}
	w.stop()
	w.races.Wait()
}

func (w *damageWorld) play(s simtest.Step) {
	switch s.Verb {
	case "slow":
		n := 0
		_, _ = fmt.Sscan(s.Operand(1), &n)
		b := w.fake.BMC(s.Operand(0))
		b.SetOffAfter(time.Duration(n) * time.Millisecond)
		b.SetOnAfter(time.Duration(n) * time.Millisecond)
	case "lose":
		w.fake.BMC(s.Operand(0)).LoseNextAnswers(1)
	case "mute":
		b := w.fake.BMC(s.Operand(0))
		b.SetMute(true)
		time.AfterFunc(3*time.Second, func() { b.SetMute(false) })
	case "ask":
		op := power.Op{ID: s.Operand(0), Node: s.Operand(1), Action: power.Action(s.Operand(2)), AskedBy: "admin", Origin: power.FromCentral}
		w.ops[op.ID] = op
		w.submit(op)
	case "report":
		w.report()
	case "copy":
		for i, disk := range w.disks {
			w.copy[i] = w.files(disk)
		}
	case "kill":
		w.die(nil)
	case "harm":
		w.m.Saw("harm " + s.Get("kind"))
		w.die(func() { w.harm(s) })
	case "compare":
		w.compare()
	case "ack":
		w.ack()
	}
}

func (w *damageWorld) submit(op power.Op) {
	w.races.Go(func() {
		if _, err := w.proc.a.Submit(op); err != nil {
			w.m.Tracef("   %s: %v", op.ID, err)
		}
	})
}

// report takes the ends to central, as the sync does.
func (w *damageWorld) report() {
	words := w.proc.a.outbox.take(100)
	for _, r := range words {
		if r.End != nil {
			w.ends[r.Op.ID] = *r.End
			w.m.Saw(fmt.Sprintf("end %s %s", r.End.Outcome, r.End.Reason))
		}
	}
	w.told = max(w.told, w.proc.a.log.LSN())
	if !w.proc.a.acknowledged(words, ack{theCentral, 1}) {
		w.m.Tracef("   report: the journal did not take it")
	}
}

// compare has central say what it knows, and ask again for what the agent does not know,
// as far as that is harmless: see settle and takeBack there.
func (w *damageWorld) compare() {
	a := w.proc.a
	doubt := a.gate.doubts()
	var ended []api.EndedOp
	outstanding := a.outbox.unacknowledged()
	for _, id := range outstanding {
		if end, ok := w.ends[id]; ok {
			w.m.Saw("central's word")
			op := w.ops[id]
			ended = append(ended, api.EndedOp{OpRef: api.OpRef{ID: id, Node: op.Node, Action: op.Action}, End: end})
		}
	}
	back := a.link.foundLSN < w.told
	if err := a.compared(api.Welcome{WentBack: back, Ended: ended}); err != nil {
		w.m.Tracef("   compare: %v", err)
		return
	}
	w.told = max(w.told, a.log.LSN())
	w.m.Compared(back)
	for id, op := range w.ops {
		switch _, over := w.ends[id]; {
		case over, slices.Contains(outstanding, id):
		case doubt.Tell, back: // it may have been carried out, and its records be lost
			w.ends[id] = lostEnd(op.Action)
		default: // it never arrived
			w.submit(op)
		}
	}
}

func (w *damageWorld) ack() {
	if acked, err := w.proc.a.ackAlarms(api.AckAlarm{}); err == nil && len(acked) > 0 {
		w.m.Saw("acknowledged")
	}
	w.m.Acknowledged()
}

// die kills the agent, has harm done to what it leaves, and starts it again.
func (w *damageWorld) die(harm func()) {
	w.reap()
	w.bury()
	w.m.Harmed(nil)
	if harm != nil {
		harm()
	}
	w.start()
}

func (w *damageWorld) dir(log int) string {
	return filepath.Join("/agent", []string{journalDir, assignedDir}[log])
}

// files are what a disk holds.
func (w *damageWorld) files(disk *faultfs.FS) map[string][]byte {
	all := map[string][]byte{}
	for i := range 2 {
		names, _ := disk.ReadDir(w.dir(i))
		for _, name := range names {
			path := filepath.Join(w.dir(i), name)
			all[path], _ = disk.Data(path)
		}
		all[w.dir(i)+journal.MarkSuffix], _ = disk.Data(w.dir(i) + journal.MarkSuffix)
	}
	return all
}

// harm damages a log.
func (w *damageWorld) harm(s simtest.Step) {
	log := s.Number("log")
	disk, dir := w.disks[log], w.dir(log)
	live, rep, err := journal.Read(dir, disk)
	if err != nil || len(rep.Segments) == 0 {
		return
	}
	w.m.Harmed(nil)
	if log == 0 {
		w.m.Harmed(append([]journal.Record{}, live...))
	}
	newest := rep.Segments[0]
	path := filepath.Join(dir, newest.File)
	data, _ := disk.Data(path)
	at := 8192 + (newest.Used-8192)*int64(s.Number("at"))/1000
	switch s.Get("kind") {
	case "flip":
		disk.Flip(path, at*8+int64(s.Number("at")%8))
	case "cut":
		disk.Rewrite(path, data[:at])
		if _, rep, err := journal.Read(dir, disk); err == nil && at%2 == 0 && rep.Segments[0].Used <= at { // whole records are missing
			disk.Rewrite(path, data[:rep.Segments[0].Used])
		}
	case "zero":
		clear(data[at:])
		disk.SetData(path, data)
	case "remove":
		_ = disk.Remove(path)
		_ = disk.SyncDir(dir)
	case "old", "volume": // the log alone, or all that is on its volume
		if w.copy[log] == nil {
			return
		}
		names, _ := disk.ReadDir(dir)
		for _, name := range names {
			_ = disk.Remove(filepath.Join(dir, name))
		}
		_ = disk.SyncDir(dir)
		for path, data := range w.copy[log] {
			if mark := dir + journal.MarkSuffix; strings.HasPrefix(path, dir+"/") || path == mark && len(data) > 0 && s.Get("kind") == "volume" {
				disk.SetData(path, data)
			}
		}
	}
}

// wasBorn holds what a start has found against what was done to the logs.
func (w *damageWorld) wasBorn(proc *simProcess) {
	a := proc.a
	if proc.N == 0 || len(a.assigned.all()) < len(w.nodes) {
		if _, _, err := a.assigned.apply(api.Assignment{Nodes: w.nodes, Rev: 1}, theCentral); err != nil {
			w.m.Fail("start", "apply: %v", err)
		}
	}
	var unread []string
	if a.gate.doubts().Read {
		for _, n := range w.nodes {
			unread = append(unread, n.Name)
		}
	}
	w.m.Started(unread, a.alarms.list(), a.log.Live())
}

// settle has a person see to all alarms, and waits for what is outstanding.
func (w *damageWorld) settle() {
	for _, n := range w.nodes {
		w.fake.BMC(n.Name).SetMute(false)
		w.fake.BMC(n.Name).LoseNextAnswers(0)
	}
	w.compare()
	w.ack()
	w.sleep(20 * time.Minute)
	for _, l := range w.proc.a.allLanes() {
		if out := l.outstanding(); len(out) > 0 {
			w.m.Fail("progress", "%s of %s is still outstanding: %s", out[0].Op.ID, l.node, out[0].Phase)
		}
	}
	w.report()
	w.die(nil)
	w.sleep(10 * time.Minute)
	for id, end := range w.ends {
		w.m.RestsAt(w.ops[id], end, w.fake.BMC(w.ops[id].Node).Power())
	}
}
