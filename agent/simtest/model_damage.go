package simtest

import (
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// DamageModel holds an agent whose logs are damaged against rules that hold whatever was
// lost: what may not happen twice does not, nothing is sent before every BMC was read, what
// is lost is told, and an alarm stays until it is acknowledged. All methods may be called
// concurrently.
type DamageModel struct {
	Trace
	unread map[string]bool // nodes not read in this process, where that has to come first
	sent   map[string][]power.Command
	alarms map[string]string // that nobody has acknowledged, by kind
	before []string          // what the journal held when it was harmed
	harmed bool              // the journal of operations was, before this process
}

// NewDamageModel makes a model of an agent that was not damaged yet.
func NewDamageModel(verbose bool) *DamageModel {
	return &DamageModel{Trace: newTrace(verbose), sent: map[string][]power.Command{}, alarms: map[string]string{}}
}

// Harmed takes what the journal of operations held when it was harmed; nil: it was not.
func (m *DamageModel) Harmed(live []journal.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before, m.harmed = nil, live != nil
	for _, r := range live {
		if r.Kind != kindDoubt {
			m.before = append(m.before, recordName(r))
		}
	}
}

func recordName(r journal.Record) string { return fmt.Sprint(kindName(r.Kind), " ", r.Key) }

// Started holds what a start has found against what was done to the logs. nodes are those
// that have to be read before anything is sent.
func (m *DamageModel) Started(nodes []string, alarms []api.Alarm, live []journal.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unread = map[string]bool{}
	for _, name := range nodes {
		m.unread[name] = true
	}
	raised := map[string]string{}
	for _, al := range alarms {
		raised[al.Kind] = al.Message
		switch al.Kind {
		case api.AlarmJournalDamaged:
			m.met["damage told"]++
		case api.AlarmJournalWentBack, api.AlarmJournalCopied:
			m.met["journal told to be old"]++
		}
	}
	for kind, text := range m.alarms {
		if raised[kind] == "" && raised[api.AlarmAssignmentDamaged] == "" {
			m.breach("alarms stand", "%s is gone, and nobody has seen it: %s", kind, text)
		}
	}
	m.alarms = raised
	if m.harmed {
		m.nothingSilent(live, raised)
	}
}

// nothingSilent: what the journal does not hold any more is told.
func (m *DamageModel) nothingSilent(live []journal.Record, raised map[string]string) {
	have := map[string]int{}
	for _, r := range live {
		have[recordName(r)]++
	}
	for _, what := range m.before {
		if have[what]--; have[what] < 0 && raised[api.AlarmJournalDamaged]+raised[api.AlarmJournalWentBack]+raised[api.AlarmJournalCopied] == "" {
			m.breach("no silent loss", "%s is lost, and nobody is told", what)
		}
	}
}

// Compared takes that central and the agent compared what they know. wentBack: central says
// that the journal is an older one.
func (m *DamageModel) Compared(wentBack bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wentBack {
		m.alarms[api.AlarmJournalWentBack] = "central says so"
	}
	delete(m.alarms, api.AlarmJournalCopied)
}

// Acknowledged takes that a person acknowledged all alarms.
func (m *DamageModel) Acknowledged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.alarms)
}

// RestsAt compares the power of a node that is at rest with the end of its operation.
func (m *DamageModel) RestsAt(op power.Op, end power.End, s power.State) {
	// Of an operation whose acceptance is lost nobody knows that the power is to come back.
	if end.Outcome == power.Succeeded && s != power.On {
		m.Fail("power", "%s is %s in the end, and its %s succeeded", op.Node, s, op.Action)
	}
}

// Begin takes the start of a process.
func (m *DamageModel) Begin(proc int) { m.Tracef("process %d starts", proc) }

// Died takes the end of a process.
func (m *DamageModel) Died() { m.Tracef("the process is gone") }

// Dialled takes a log-in at a BMC.
func (m *DamageModel) Dialled(_ int, node string, err error) {
	if err != nil {
		m.looked(node)
	}
}

// Read takes a reading of a node's power.
func (m *DamageModel) Read(_ int, node string, _ time.Time, s power.State, err error, _ bool) {
	m.Tracef("   read %s: %s %v", node, s, err)
	m.looked(node)
}

func (m *DamageModel) looked(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unread[node] {
		delete(m.unread, node)
		m.met["read first"]++
	}
}

// Leaves takes a command that goes to a BMC now.
func (m *DamageModel) Leaves(_ int, node string, cmd power.Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("   %s leaves for %s", cmd, node)
	if len(m.unread) > 0 {
		m.breach("read first", "%s leaves for %s before %v were read", cmd, node, m.unread)
	}
	before := m.sent[node]
	m.sent[node] = append(before, cmd)
	switch cmd {
	case power.HardReset, power.PulseDiag, power.ResetBMC:
		if slices.Contains(before, cmd) {
			m.breach("once", "%s is sent to %s twice", cmd, node)
		}
	case power.PowerOff:
		if slices.Contains(before, power.PowerOn) {
			m.breach("once", "%s is cut again after it was turned on", node)
		}
	}
}

// Came takes the answer to a command.
func (m *DamageModel) Came(int, string, power.Command, error) {}

// Boots takes a boot device that is about to be set.
func (m *DamageModel) Boots(int, string, power.BootDevice) {}

// Booted takes the answer to that.
func (m *DamageModel) Booted(int, string, power.BootDevice, error) {}

// ReadLimit implements Observer: no cap is asked for.
func (m *DamageModel) ReadLimit(int, string, int, error) {}
