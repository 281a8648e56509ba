package agent

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power"
)

// damageHistories is how many histories with damage are played where nobody says.
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
	simRun{name: "damage", histories: damageHistories, draw: drawDamage, meets: damageMeets, meetsFrom: 2000}.play(t)
}

// drawDamage draws a history of a few operations, deaths and damages.
func drawDamage(seed, n uint64) simScript {
	d := rand.New(rand.NewPCG(seed, n))
	s := simScript{{verb: "damage", args: []string{"3"}}}
	add := func(after time.Duration, verb string, args ...string) {
		s = append(s, simStep{after: after, verb: verb, args: args})
	}
	soon := func() time.Duration { return time.Duration(d.IntN(4000)) * time.Millisecond }
	actions := []string{"reset", "diag", "bmc-reset", "cycle"}
	for i := 1; i <= 3; i++ {
		node := fmt.Sprintf("n%d", i)
		if d.IntN(2) == 0 {
			add(0, "slow", node, fmt.Sprint(100*d.IntN(40)))
		}
	}
	asked := 0
	ask := func() {
		if asked < 3 {
			asked++
			add(soon(), "ask", fmt.Sprintf("a%d", asked), fmt.Sprintf("n%d", asked), actions[d.IntN(len(actions))])
		}
	}
	for step := range 4 + d.IntN(8) {
		switch d.IntN(11) {
		case 0, 1, 2, 3:
			ask()
		case 10: // a copy is made while it waits for its BMC, and put back once it went on
			if asked < 3 {
				add(soon(), "mute", fmt.Sprintf("n%d", asked+1))
				ask()
				add(soon(), "copy")
				add(soon(), "harm", "kind="+[]string{"old", "volume"}[d.IntN(2)], "log=0")
			}
		case 4:
			add(soon(), "lose", fmt.Sprintf("n%d", 1+d.IntN(3)))
		case 5:
			add(soon(), "copy")
		case 6:
			add(soon(), "report")
		case 7:
			add(soon(), "kill")
		case 8:
			add(soon(), "mute", fmt.Sprintf("n%d", 1+d.IntN(3)))
		default:
			kind := []string{"flip", "flip", "flip", "cut", "zero", "remove", "old", "volume"}[d.IntN(8)]
			add(soon(), "harm", "kind="+kind, fmt.Sprintf("at=%d", d.IntN(1000)), fmt.Sprintf("log=%d", max(0, d.IntN(4)-2)))
		}
		if step%4 == 3 {
			add(soon(), []string{"compare", "ack"}[d.IntN(2)])
		}
	}
	add(soon(), "harm", "kind=flip", fmt.Sprintf("at=%d", d.IntN(1000)), "log=0")
	return s
}

// damageWorld is everything around the agent in such a history, and the model.
type damageWorld struct {
	simHarness
	simTrace
	nodes []api.AssignedNode
	ops   map[string]power.Op
	ends  map[string]power.End // that central got
	told  uint64               // LSN that central has heard of
	copy  [2]map[string][]byte // of the two disks

	// Under mu.
	unread map[string]bool // nodes not read in this process, where that has to come first
	sent   map[string][]power.Command
	alarms map[string]string // that nobody has acknowledged, by kind
	before []string          // what the journal held when it was harmed
	harmed bool
}

func playDamage(t *testing.T, s simScript, trace bool) (p played) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := &damageWorld{
			simTrace: newSimTrace(trace), ops: map[string]power.Op{}, ends: map[string]power.End{},
			sent: map[string][]power.Command{}, alarms: map[string]string{},
		}
		w.create(w)
		w.whole = true
		w.configure, w.born, w.excused = w.config, w.wasBorn, func() bool { return false }
		w.simHarness.trouble = func(bool, faultfs.Call) faultfs.Fault { return faultfs.Fault{} }
		w.run(s)
		p.broken, p.trace = w.verdict()
		p.met = w.met
	})
	return p
}

func (w *damageWorld) config(*simProcess) Config {
	return Config{Monitor: MonitorOff, Timing: opsTiming, Central: awayCentral{}}
}

func (w *damageWorld) run(s simScript) {
	for i := range s[0].number2() {
		name := fmt.Sprintf("n%d", i+1)
		w.fake.BMC(name).SetPower(power.On)
		w.nodes = append(w.nodes, api.AssignedNode{
			Name: name, BMC: "ipmi://admin@" + name, Password: "secret",
			Desired: power.Desired{Want: power.HandsOff},
		})
	}
	w.start()
	for _, step := range s[1:] {
		if w.broken() {
			break
		}
		w.sleep(step.after)
		w.tracef("-- %s", step)
		w.play(step)
		synctest.Wait()
	}
	if !w.broken() {
		w.settle()
	}
	w.stop()
	w.races.Wait()
}

func (s simStep) number2() (n int) {
	_, _ = fmt.Sscan(s.operand(0), &n)
	return n
}

func (w *damageWorld) play(s simStep) {
	switch s.verb {
	case "slow":
		n := 0
		_, _ = fmt.Sscan(s.operand(1), &n)
		b := w.fake.BMC(s.operand(0))
		b.SetOffAfter(time.Duration(n) * time.Millisecond)
		b.SetOnAfter(time.Duration(n) * time.Millisecond)
	case "lose":
		w.fake.BMC(s.operand(0)).LoseNextAnswers(1)
	case "mute":
		b := w.fake.BMC(s.operand(0))
		b.SetMute(true)
		time.AfterFunc(3*time.Second, func() { b.SetMute(false) })
	case "ask":
		op := power.Op{ID: s.operand(0), Node: s.operand(1), Action: power.Action(s.operand(2)), AskedBy: "admin", Origin: power.FromCentral}
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
		w.saw("harm " + s.get("kind"))
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
			w.tracef("   %s: %v", op.ID, err)
		}
	})
}

// report takes the ends to central, as the sync does.
func (w *damageWorld) report() {
	words := w.proc.a.outbox.take(100)
	for _, r := range words {
		if r.End != nil {
			w.ends[r.Op.ID] = *r.End
			w.saw(fmt.Sprintf("end %s %s", r.End.Outcome, r.End.Reason))
		}
	}
	w.told = max(w.told, w.proc.a.log.LSN())
	if !w.proc.a.acknowledged(words, ack{theCentral, 1}) {
		w.tracef("   report: the journal did not take it")
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
			w.saw("central's word")
			op := w.ops[id]
			ended = append(ended, api.EndedOp{OpRef: api.OpRef{ID: id, Node: op.Node, Action: op.Action}, End: end})
		}
	}
	back := a.foundLSN < w.told
	if err := a.compared(api.Welcome{WentBack: back, Ended: ended}); err != nil {
		w.tracef("   compare: %v", err)
		return
	}
	w.told = max(w.told, a.log.LSN())
	w.simTrace.mu.Lock()
	if back {
		w.alarms[api.AlarmJournalWentBack] = "central says so"
	}
	delete(w.alarms, api.AlarmJournalCopied)
	w.simTrace.mu.Unlock()
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
		w.saw("acknowledged")
	}
	w.simTrace.mu.Lock()
	defer w.simTrace.mu.Unlock()
	clear(w.alarms)
}

// die kills the agent, has harm done to what it leaves, and starts it again.
func (w *damageWorld) die(harm func()) {
	w.reap()
	w.bury()
	w.harmed = false
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
func (w *damageWorld) harm(s simStep) {
	log := s.number("log")
	disk, dir := w.disks[log], w.dir(log)
	live, rep, err := journal.Read(dir, disk)
	if err != nil || len(rep.Segments) == 0 {
		return
	}
	w.before, w.harmed = nil, log == 0
	for _, r := range live {
		if r.Kind != kindDoubt {
			w.before = append(w.before, fmt.Sprint(KindName(uint8(r.Kind)), " ", r.Key))
		}
	}
	newest := rep.Segments[0]
	path := filepath.Join(dir, newest.File)
	data, _ := disk.Data(path)
	at := 8192 + (newest.Used-8192)*int64(s.number("at"))/1000
	switch s.get("kind") {
	case "flip":
		disk.Flip(path, at*8+int64(s.number("at")%8))
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
			if mark := dir + journal.MarkSuffix; strings.HasPrefix(path, dir+"/") || path == mark && len(data) > 0 && s.get("kind") == "volume" {
				disk.SetData(path, data)
			}
		}
	}
}

// wasBorn holds what a start has found against what was done to the logs.
func (w *damageWorld) wasBorn(proc *simProcess) {
	a := proc.a
	if proc.n == 0 || len(a.assigned.all()) < len(w.nodes) {
		if _, _, err := a.assigned.apply(api.Assignment{Nodes: w.nodes, Rev: 1}, theCentral); err != nil {
			w.fail("start", "apply: %v", err)
		}
	}
	w.simTrace.mu.Lock()
	defer w.simTrace.mu.Unlock()
	w.unread = nil
	if a.gate.doubts().Read {
		w.unread = map[string]bool{}
		for _, n := range w.nodes {
			w.unread[n.Name] = true
		}
	}
	raised := map[string]string{}
	for _, al := range a.alarms.list() {
		raised[al.Kind] = al.Message
		switch al.Kind {
		case api.AlarmJournalDamaged:
			w.met["damage told"]++
		case api.AlarmJournalWentBack, api.AlarmJournalCopied:
			w.met["journal told to be old"]++
		}
	}
	for kind, text := range w.alarms {
		if raised[kind] == "" && raised[api.AlarmAssignmentDamaged] == "" {
			w.breach("alarms stand", "%s is gone, and nobody has seen it: %s", kind, text)
		}
	}
	w.alarms = raised
	if w.harmed {
		w.nothingSilent(a, raised)
	}
}

// nothingSilent: what the journal does not hold any more is told.
func (w *damageWorld) nothingSilent(a *Agent, raised map[string]string) {
	have := map[string]int{}
	for _, r := range a.log.Live() {
		have[fmt.Sprint(KindName(uint8(r.Kind)), " ", r.Key)]++
	}
	for _, what := range w.before {
		if have[what]--; have[what] < 0 && raised[api.AlarmJournalDamaged]+raised[api.AlarmJournalWentBack]+raised[api.AlarmJournalCopied] == "" {
			w.breach("no silent loss", "%s is lost, and nobody is told", what)
		}
	}
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
			w.fail("progress", "%s of %s is still outstanding: %s", out[0].Op.ID, l.node, out[0].Phase)
		}
	}
	w.report()
	w.die(nil)
	w.sleep(10 * time.Minute)
	for id, end := range w.ends {
		// Of an operation whose acceptance is lost nobody knows that the power is to come back.
		if s := w.fake.BMC(w.ops[id].Node).Power(); end.Outcome == power.Succeeded && s != power.On {
			w.fail("power", "%s is %s in the end, and its %s succeeded", w.ops[id].Node, s, w.ops[id].Action)
		}
	}
}

// What the harness tells.

func (w *damageWorld) begin(proc int) { w.tracef("process %d starts", proc) }
func (w *damageWorld) died()          { w.tracef("the process is gone") }

func (w *damageWorld) dialled(_ int, node string, err error) {
	if err != nil {
		w.looked(node)
	}
}

func (w *damageWorld) read(_ int, node string, _ time.Time, s power.State, err error, _ bool) {
	w.tracef("   read %s: %s %v", node, s, err)
	w.looked(node)
}

func (w *damageWorld) looked(node string) {
	w.simTrace.mu.Lock()
	defer w.simTrace.mu.Unlock()
	if w.unread[node] {
		delete(w.unread, node)
		w.met["read first"]++
	}
}

func (w *damageWorld) leaves(_ int, node string, cmd power.Command) {
	w.simTrace.mu.Lock()
	defer w.simTrace.mu.Unlock()
	w.note("   %s leaves for %s", cmd, node)
	if len(w.unread) > 0 {
		w.breach("read first", "%s leaves for %s before %v were read", cmd, node, w.unread)
	}
	before := w.sent[node]
	w.sent[node] = append(before, cmd)
	switch cmd {
	case power.HardReset, power.PulseDiag, power.ResetBMC:
		if slices.Contains(before, cmd) {
			w.breach("once", "%s is sent to %s twice", cmd, node)
		}
	case power.PowerOff:
		if slices.Contains(before, power.PowerOn) {
			w.breach("once", "%s is cut again after it was turned on", node)
		}
	}
}

func (w *damageWorld) came(int, string, power.Command, error)      {}
func (w *damageWorld) boots(int, string, power.BootDevice)         {}
func (w *damageWorld) booted(int, string, power.BootDevice, error) {}
