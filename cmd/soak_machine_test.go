package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// machine is a server with its simulated BMC, which is where the truth is.
type machine struct {
	spec   api.NodeSpec
	sim    string // which simulator
	faults []bmcFault
	lift   func() // whatever is left of them

	power    func() power.State
	commands func() []power.Command // that reached the BMC and were not refused
	// counted is how often the power was cut, the node reset and interrupted; nil: the
	// simulator does not count.
	counted func() (cuts, resets, diags int)
	// overlaps are the exchanges that came in hand beside another one; nil: not known.
	overlaps func() []bmcsim.Overlap

	broken sync.Mutex // held by the fault that it has
}

// bmcFault is a way for a BMC to misbehave: begin begins it, end ends it.
type bmcFault struct {
	kind  string
	begin func(rng *rand.Rand)
	end   func()
}

// answerTime is how long a healthy simulated BMC takes, so that exchanges that
// overlap are seen.
const answerTime = 20 * time.Millisecond

// farmMachines makes machines of a farm. The last of each rack may be slow; what is
// in flight there is not judged, since who asks gives up before it answers.
func farmMachines(farm *bmcsim.Farm, racks []string) []*machine {
	var all []*machine
	for i := range farm.Len() {
		b := farm.BMC(i)
		m := &machine{sim: "bmcsim", spec: specOf(b.Name(), b.Endpoint()), power: b.Power, overlaps: b.Overlaps}
		byRedfish := i/len(racks)%2 == 1 // every second of each rack
		if byRedfish {
			m.sim, m.spec = "bmcsim by Redfish", specOf(b.Name(), overRedfish(b))
		}
		m.spec.Rack = racks[i%len(racks)]
		m.commands = func() []power.Command { return executed(b.Commands()) }
		m.counted = func() (int, int, int) { return b.Cuts(), b.Resets(), b.Diags() }
		m.faults = farmFaults(b, byRedfish)
		m.lift = func() { settle(b) }
		if i >= farm.Len()-len(racks) {
			m.overlaps = nil
			m.faults = append(m.faults, bmcFault{
				"BMC slow to answer", func(rng *rand.Rand) { b.Delay(time.Duration(1+rng.IntN(3)) * time.Second) },
				m.lift,
			})
		}
		m.lift()
		all = append(all, m)
	}
	return all
}

func executed(log []bmcsim.Entry) []power.Command {
	var all []power.Command
	for _, e := range log {
		if c := power.Command(e.Command); e.Code == 0 && isCommand(c) {
			all = append(all, c)
		}
	}
	return all
}

// settle makes a BMC well.
func settle(b *bmcsim.BMC) {
	b.Mute(false)
	b.Stuck(false)
	b.Deaf(false)
	b.Duplicate(false)
	b.Loss(0, 0)
	b.LoseAnswers(0)
	b.FailCode(0xc0, 0)
	b.SessionLimit(bmcsim.DefaultSessions)
	b.Late(200*time.Millisecond, 150*time.Millisecond)
	b.SoftOffTakes(400 * time.Millisecond)
	sessions, state := bmcsim.DefaultSessions, ""
	b.Set(bmcsim.Fault{Redfish: &bmcsim.RedfishFault{SessionLimit: &sessions, State: &state, Refuse: &bmcsim.Refusal{}}})
	b.Delay(answerTime)
}

// farmFaults are those of a BMC by the protocol that it is spoken to; settle ends them.
func farmFaults(b *bmcsim.BMC, byRedfish bool) []bmcFault {
	all := []bmcFault{
		{"BMC hung", func(*rand.Rand) { b.Mute(true) }, nil},
		{"BMC restarted mid-command", func(rng *rand.Rand) {
			awaitCommand(b, 2*time.Second)
			b.Restart(time.Duration(200+rng.IntN(1500)) * time.Millisecond)
		}, nil},
		{"BMC late", func(rng *rand.Rand) {
			b.Late(time.Duration(1000+rng.IntN(4000))*time.Millisecond, time.Duration(1000+rng.IntN(4000))*time.Millisecond)
		}, nil},
		{"BMC stuck", func(*rand.Rand) { b.Stuck(true) }, nil},
		{"BMC losing answers", func(rng *rand.Rand) { b.LoseAnswers(1 + rng.IntN(3)) }, nil},
		{"BMC deaf to soft-off", func(*rand.Rand) { b.Deaf(true) }, nil},
	}
	if byRedfish {
		all = append(all, redfishFaults(b)...)
	} else {
		all = append(all, []bmcFault{
			{"BMC out of sessions", func(*rand.Rand) { b.SessionLimit(0); b.Restart(0) }, nil},
			{"BMC refusing", func(rng *rand.Rand) { b.FailCode(0xc0, 1+rng.IntN(3)) }, nil},
			{"network losing packets", func(*rand.Rand) { b.Loss(0.2, 0.2) }, nil},
			{"network duplicating packets", func(*rand.Rand) { b.Duplicate(true) }, nil},
		}...)
	}
	for i := range all {
		all[i].end = func() { settle(b) }
	}
	return all
}

// redfishFaults are those that IPMI has not.
func redfishFaults(b *bmcsim.BMC) []bmcFault {
	set := func(f bmcsim.RedfishFault) func(*rand.Rand) {
		return func(*rand.Rand) { b.Set(bmcsim.Fault{Redfish: &f}) }
	}
	refuse := func(r bmcsim.Refusal) func(*rand.Rand) {
		return func(rng *rand.Rand) {
			r.Method, r.Path, r.Times = "POST", ".Reset", 1+rng.IntN(3)
			b.Set(bmcsim.Fault{Redfish: &bmcsim.RedfishFault{Refuse: &r}})
		}
	}
	none, yes, null := 0, true, "null"
	later := bmcsim.Refusal{Status: 503, ID: "Base.1.8.ServiceTemporarilyUnavailable", Text: "Retry in 1 seconds."}
	return []bmcFault{
		{"BMC out of sessions", set(bmcsim.RedfishFault{SessionLimit: &none, DropSessions: &yes}), nil},
		{"BMC that forgets sessions", set(bmcsim.RedfishFault{DropSessions: &yes}), nil},
		{"BMC that says not now", refuse(later), nil},
		{"BMC that says conflict", refuse(bmcsim.Refusal{Status: 409}), nil},
		{"BMC that breaks with a page", refuse(bmcsim.Refusal{Status: 500, HTML: true}), nil},
		{"BMC without a power state", set(bmcsim.RedfishFault{State: &null}), nil},
	}
}

// awaitCommand returns right after a command came in, for as long as one does.
func awaitCommand(b *bmcsim.BMC, within time.Duration) {
	before := len(b.Commands())
	for end := time.Now().Add(within); len(b.Commands()) == before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// ipmiSimMachines makes machines of OpenIPMI's simulator, as many as there are racks;
// the error says that it is not installed.
func ipmiSimMachines(t *testing.T, dir string, racks []string) ([]*machine, error) {
	var all []*machine
	for i, rack := range racks {
		sim, err := powertest.NewIPMISim(filepath.Join(dir, "sim"+strconv.Itoa(i)))
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { sim.Close() })
		if err := sim.WaitReady(10 * time.Second); err != nil {
			return nil, err
		}
		m := &machine{sim: "ipmi_sim", spec: specOf(fmt.Sprintf("s%02d", i+1), sim.Endpoint()), power: sim.Power, faults: ipmiSimFaults(t, sim)}
		m.spec.Rack = rack
		m.lift = func() {}
		m.commands = func() []power.Command {
			var all []power.Command
			for _, e := range sim.Log() {
				if e.Command != "" {
					all = append(all, e.Command)
				}
			}
			return all
		}
		all = append(all, m)
	}
	return all, nil
}

func ipmiSimFaults(t *testing.T, sim *powertest.IPMISim) []bmcFault {
	chassis := func(kind string, k powertest.ChassisFault, value string) bmcFault {
		return bmcFault{kind, func(*rand.Rand) { _ = sim.Set(k, value) }, func() { sim.Unset(k) }}
	}
	return []bmcFault{
		{"BMC hung", func(*rand.Rand) { sim.Hang() }, sim.Wake},
		{"BMC process killed", func(*rand.Rand) { sim.Kill() }, func() {
			if err := sim.Revive(); err != nil {
				t.Errorf("ipmi_sim: %v", err)
			}
		}},
		chassis("BMC late", powertest.FaultLate, "2.5"),
		chassis("BMC stuck", powertest.FaultStuck, ""),
		chassis("BMC deaf to soft-off", powertest.FaultDeaf, ""),
		chassis("BMC refusing", powertest.FaultFail, ""),
	}
}
