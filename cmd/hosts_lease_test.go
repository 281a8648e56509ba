package cmd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// takeOverWithin is how long a node may be without an agent that acts on it.
const takeOverWithin = 30 * time.Second

// twoAgents is a network in which r1 and r2 can reach the same BMCs.
type twoAgents struct {
	*network
	addr map[string]string
}

func newTwoAgents(t *testing.T) *twoAgents {
	t.Helper()
	n := newNetwork(t)
	x := &twoAgents{network: n, addr: map[string]string{"r1": netAgent, "r2": netTwin}}
	n.add("r2", netTwin)
	n.add("sim", netSim)
	n.serveTLS()
	for _, rack := range []string{"r1", "r2"} {
		n.must("central", "root", "rackpower agents token "+rack+" > "+rack+".token")
		n.config(rack+".yaml", "name: "+rack, "data: "+filepath.Join(n.dir, rack), "socket: "+n.agentSocket(rack), "monitor: \"@every 1s\"",
			"central: https://"+netCentral+netPort, "token-file: "+filepath.Join(n.dir, rack+".token"))
		x.start(rack)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "pw"), []byte("made-up\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.spawn("sim", "ip", n.in("sim", n.cli, "sim", "--count", "2", "--listen", netSim, "--on-after", "100ms", "--off-after", "100ms",
		"--same-address", "--password-file", filepath.Join(n.dir, "pw"), "--log", n.commands())...)
	for i := range 2 {
		n.must("central", "root", fmt.Sprintf("rackpower node add n%d --rack r1 --agents r1,r2 --bmc ipmi://admin@%s:%d --password-file pw",
			i+1, netSim, power.DefaultIPMIPort+i))
	}
	return x
}

func (x *twoAgents) start(rack string) {
	x.site.t.Helper()
	x.spawn(rack, "ip", x.in(rack, x.cli, "agent", "--config", filepath.Join(x.dir, rack+".yaml"))...)
}

// sent lists the commands that came to the BMCs, but for the first ones: who sent each to which
// node, and when.
func (x *twoAgents) sent(from int) (all []bmcsim.Entry) {
	x.site.t.Helper()
	text, err := os.ReadFile(x.commands())
	if err != nil {
		x.site.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e bmcsim.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			x.site.t.Fatalf("%v: %s", err, line)
		}
		if !e.Event {
			all = append(all, e)
		}
	}
	return all[from:]
}

func (x *twoAgents) ask(node string, action power.Action) api.Op {
	x.site.t.Helper()
	ops, err := x.client.AskOps(context.Background(), api.AskOps{Ops: []api.OpRequest{{
		ID: uuid.Must(uuid.NewV7()).String(), Node: node, Action: action, AskedBy: "test", Reason: "take-over",
	}}})
	if err != nil {
		x.site.t.Fatal(err)
	}
	return ops[0]
}

func (x *twoAgents) op(id string) api.Op {
	x.site.t.Helper()
	found, err := x.client.QueryOps(context.Background(), api.QueryOps{IDs: []string{id}})
	if err != nil || len(found.Ops) != 1 {
		x.site.t.Fatalf("%v, %v", found, err)
	}
	return found.Ops[0]
}

func other(rack string) string { return map[string]string{"r1": "r2", "r2": "r1"}[rack] }

// TestAnotherAgentTakesOver: within 30 s after the agent that has a node was killed, or cut off from
// central, the other one carries out what is asked; the one that is cut off sends nothing once the other
// may, and each operation has one end. RACKPOWER_TEST_ROUNDS=100 does it so often.
func TestAnotherAgentTakesOver(t *testing.T) {
	x := newTwoAgents(t)
	acts := func(rack string) func() bool {
		return func() bool {
			n := x.node("n1")
			return n.Agent == rack && n.Lease != nil && !n.Lease.Until.IsZero() && n.State != power.Unknown
		}
	}
	x.until(60*time.Second, "r1 acts on the nodes", acts("r1"))
	has, want := "r1", power.ActOn
	epoch := x.node("n1").Lease.Epoch
	for round := range max(2, rounds(2)) {
		next := other(has)
		from := len(x.sent(0))
		cut := round%2 == 1
		began := time.Now()
		if cut {
			x.part(has, []string{netCentral})
		} else {
			x.kill(has)
		}
		op := x.ask("n1", want)
		x.until(takeOverWithin, fmt.Sprintf("round %d: %s carries out what %s had (cut: %t)", round, next, has, cut), func() bool {
			return x.op(op.ID).Outcome == power.Succeeded
		})
		took := time.Since(began)
		if took > takeOverWithin {
			t.Fatalf("round %d: %s took over after %s", round, next, took)
		}
		t.Logf("round %d: %s took over in %s (cut: %t)", round, next, took.Round(100*time.Millisecond), cut)
		n := x.node("n1")
		if n.Agent != next || n.Lease.Epoch <= epoch {
			t.Fatalf("round %d: %s, %+v", round, n.Agent, n.Lease)
		}
		epoch = n.Lease.Epoch
		if cut {
			x.heal(has)
		} else {
			x.start(has)
		}
		x.until(60*time.Second, has+" is back", func() bool {
			for _, a := range x.agentRows() {
				if a.Name == has {
					return a.State == api.AgentAlive && a.RevSeen == a.Rev
				}
			}
			return false
		})
		for _, e := range x.sent(from) {
			if !strings.HasPrefix(e.Source, x.addr[next]) && !strings.Contains(e.Source, x.addr[next]+":") {
				t.Errorf("round %d: %s came from %s, want %s alone", round, e.Command, e.Source, next)
			}
		}
		if o := x.op(op.ID); o.Outcome != power.Succeeded || o.Rack != next {
			t.Errorf("round %d: %+v", round, o)
		}
		has = next
		want = map[power.Action]power.Action{power.ActOn: power.ActOff, power.ActOff: power.ActOn}[want]
	}
}

func (x *twoAgents) agentRows() []api.Agent {
	x.site.t.Helper()
	all, err := x.client.Agents(context.Background())
	if err != nil {
		x.site.t.Fatal(err)
	}
	return all
}
