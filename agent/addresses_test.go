package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// zone is a name server of the test's own.
type zone struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	asked int
}

func (z *zone) set(name string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.names == nil {
		z.names = map[string][]netip.Addr{}
	}
	z.names[name] = nil
	for _, a := range addrs {
		z.names[name] = append(z.names[name], netip.MustParseAddr(a))
	}
}

func (z *zone) lookUp(_ context.Context, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if len(z.names[host]) == 0 {
		return nil, errors.New("no such host")
	}
	return z.names[host], nil
}

// TestNothingActsOnABMCWithTwoNames: n1 and n2 are one machine by two names; it is found
// before anything is sent, told, and over once the names stand for two.
func TestNothingActsOnABMCWithTwoNames(t *testing.T) {
	z := &zone{}
	z.set("n1", "192.0.2.1")
	z.set("n2", "192.0.2.9", "::ffff:192.0.2.1")
	z.set("n3", "192.0.2.3")
	inBubble(t, 3, func(r *harness) {
		r.crash()
		r.cfg.LookUp = z.lookUp
		r.start()
		for _, node := range []string{"n1", "n2"} {
			r.bmc(node).SetPower(power.On)
			if end := r.asked(node, power.ActOff); end.Reason != power.ReasonShared || !strings.Contains(end.Detail, "same BMC as n") {
				t.Errorf("%s: %+v", node, end)
			}
			r.wantCommands(node)
			if e, _ := r.a.view.explain(node, time.Now()); !strings.Contains(e.Message, "same BMC as") || e.BMC.SharedWith == "" {
				t.Errorf("%s is explained: %s", node, e.Message)
			}
		}
		if alarms := r.a.alarms.list(); len(alarms) != 1 || alarms[0].Kind != api.AlarmBMCShared ||
			!strings.Contains(alarms[0].Message, "nothing acts on n[1-2]") {
			t.Errorf("alarms %+v", alarms)
		}
		r.wantEnd(r.ask("n3", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		z.set("n2", "192.0.2.2")
		time.Sleep(2 * lookUpEvery)
		if alarms := r.a.alarms.list(); len(alarms) > 0 {
			t.Errorf("alarms %+v", alarms)
		}
		r.wantEnd(r.ask("n2", power.ActOff).Op.ID, power.Succeeded, power.ReasonVerified)
		z.set("n2") // a name server that is away changes nothing
		time.Sleep(2 * lookUpEvery)
		r.wantEnd(r.ask("n2", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		z.set("n1", "192.0.2.2") // moved since
		time.Sleep(2 * lookUpEvery)
		if end := r.asked("n1", power.ActOff); end.Reason != power.ReasonShared {
			t.Errorf("n1: %+v", end)
		}
	})
}

// asked submits a request and returns its end, refused or not.
func (r *harness) asked(node string, action power.Action) power.End {
	r.t.Helper()
	rep := r.ask(node, action)
	if rep.End != nil {
		return *rep.End
	}
	return r.end(rep.Op.ID)
}

// TestTheSameBMCByOneNameOrByCentralsWord: no name has to be looked up for that.
func TestTheSameBMCByOneNameOrByCentralsWord(t *testing.T) {
	inBubble(t, 4, func(r *harness) {
		r.nodes[1].BMC = "ipmi://root@N1.:623"
		r.nodes[2].SharedWith = "r2n1"
		r.assign(r.nodes...)
		for _, node := range []string{"n1", "n2", "n3"} {
			if end := r.asked(node, power.ActOff); end.Outcome != power.Refused || end.Reason != power.ReasonShared {
				t.Errorf("%s: %+v", node, end)
			}
		}
		r.wantEnd(r.ask("n4", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		r.nodes[1].BMC, r.nodes[2].SharedWith = "ipmi://root@n2", ""
		r.assign(r.nodes...)
		for _, node := range []string{"n1", "n2", "n3"} {
			r.wantEnd(r.ask(node, power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		}
	})
}

// TestAnOperationUnderWayStops when it turns out that its BMC is another node's too.
func TestAnOperationUnderWayStops(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.bmc("n1").SetStuck(true)
		id := r.ask("n1", power.ActOn).Op.ID
		time.Sleep(5 * time.Second)
		r.wantCommands("n1", power.PowerOn)
		r.nodes[0].SharedWith = "r2n1"
		r.assign(r.nodes...)
		r.wantEnd(id, power.Failed, power.ReasonShared)
		r.wantCommands("n1", power.PowerOn)
	})
}

// TestOneTurnForAllNamesOfABMC holds the turns against a count of who has an address in
// common with whom, directly or by others.
func TestOneTurnForAllNamesOfABMC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newAddresses(func(context.Context, string) ([]netip.Addr, error) { return nil, nil })
		nodes := map[string]placed{}
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			host := rapid.SampledFrom([]string{"a", "b", "c", "d", "192.0.2.1", "192.0.2.2"}).Draw(t, "host")
			ep := power.Endpoint{Scheme: "ipmi", Host: host, Port: power.DefaultIPMIPort, Target: rapid.SampledFrom([]uint8{0, 0x30}).Draw(t,
				"target")}
			nodes[fmt.Sprintf("n%d", i)] = placed{Endpoint: ep}
			if !ep.IsAddr() && s.hosts[host].addrs == nil {
				for _, a := range rapid.SliceOfN(rapid.IntRange(1, 4), 0, 2).Draw(t, "addrs") {
					was := s.hosts[host]
					was.addrs = append(was.addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(a)}))
					s.hosts[host] = was
				}
			}
		}
		s.compare(nodes)
		at := func(n string) map[string]bool {
			all := map[string]bool{nodes[n].Host: true}
			for _, a := range s.hosts[nodes[n].Host].addrs {
				all[a.String()] = true
			}
			return all
		}
		meet := func(a, b string) bool {
			for h := range at(a) {
				if at(b)[h] {
					return true
				}
			}
			return false
		}
		for a := range nodes {
			others := []string{}
			for b := range nodes {
				if a != b && nodes[a].Target == nodes[b].Target && meet(a, b) {
					others = append(others, b)
				}
				if ka, kb := nodes[a].Key(), nodes[b].Key(); ka != kb && meet(a, b) && (s.turn(ka) == nil || s.turn(ka) != s.turn(kb)) {
					t.Fatalf("%s and %s may be talked to at once", ka, kb)
				}
			}
			if (len(others) > 0) != (s.sharedWith(a) != "") {
				t.Fatalf("%s shares with %v, found %q", a, others, s.sharedWith(a))
			}
		}
		before := map[string]chan struct{}{}
		for _, n := range nodes {
			before[n.Key()] = s.turn(n.Key())
		}
		s.compare(nodes)
		for k, turn := range before {
			if s.turn(k) != turn {
				t.Fatalf("%s has another turn although nothing changed", k)
			}
		}
	})
}

// TestAllNamesForOneAddress: a name server that answers everything alike costs no more
// than so many nodes do.
func TestAllNamesForOneAddress(t *testing.T) {
	s := newAddresses(nil)
	nodes := map[string]placed{}
	for i := range 20_000 {
		host := fmt.Sprintf("bmc%d", i)
		nodes[fmt.Sprintf("n%d", i)] = placed{Endpoint: power.Endpoint{Scheme: "ipmi", Host: host}}
		s.hosts[host] = lookedUp{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	}
	s.compare(nodes)
	for name := range nodes {
		if text := s.sharedWith(name); !strings.HasSuffix(text, " and more") || len(text) > 100 {
			t.Fatalf("%s shares with %q", name, text)
		}
	}
}

// TestABMCInTwoProtocols: whoever has a BMC without System has all of its Systems.
func TestABMCInTwoProtocols(t *testing.T) {
	nodes := map[string]placed{}
	for name, bmc := range map[string]string{
		"n1": "redfish://192.0.2.1", "n2": "redfish://192.0.2.1/1", "n3": "redfish://192.0.2.1/2", "n4": "ipmi://192.0.2.4",
		"n5": "redfish://192.0.2.4/1", "n6": "redfish://192.0.2.6/1", "n7": "redfish://192.0.2.6/2",
	} {
		ep, err := power.ParseEndpoint(bmc)
		if err != nil {
			t.Fatal(err)
		}
		nodes[name] = placed{Endpoint: ep}
	}
	s := newAddresses(nil)
	s.compare(nodes)
	for name, want := range map[string]string{"n1": "n[2-3]", "n2": "n1", "n3": "n1", "n4": "n5", "n5": "n4", "n6": "", "n7": ""} {
		if got := s.sharedWith(name); got != want {
			t.Errorf("%s shares its BMC with %q, want %q", name, got, want)
		}
	}
}
