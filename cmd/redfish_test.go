package cmd_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// overRedfish is the BMC by Redfish, its key trusted at first sight.
func overRedfish(b *bmcsim.BMC) power.Endpoint {
	ep := b.RedfishEndpoint()
	ep.Pin = power.PinFirst
	return ep
}

// TestRedfishFromCLIToBMC has every shape of BMC controlled, and no session left behind.
func TestRedfishFromCLIToBMC(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: len(bmcsim.Profiles), Redfish: &bmcsim.Redfish{Profiles: bmcsim.Profiles}})
	s := newSite(t)
	s.startAgent("r1")
	var specs []api.NodeSpec
	for i := range farm.Len() {
		specs = append(specs, specOf(farm.BMC(i).Name(), overRedfish(farm.BMC(i))))
	}
	s.addNodes(specs...)
	for _, step := range []struct{ action, state string }{{"on", "on"}, {"on", "on"}, {"reset", "on"}, {"cycle", "on"}, {"soft-off", "off"}} {
		args := []string{step.action, "all", "-o", "json", "--yes"}
		if step.action == "soft-off" {
			args = append(args, "--grace", "1s")
		}
		for _, r := range decodeJSON[[]result](t, s.mustRun(args...)) {
			if r.Outcome != "succeeded" || r.State != step.state {
				t.Errorf("%s: %+v", step.action, r)
			}
		}
	}
	s.mustRun("on", "all", "--boot", "pxe", "--yes")
	for i := range farm.Len() {
		b := farm.BMC(i)
		if b.Power() != power.On || b.Resets() != 1 || b.Cuts() != 2 || b.PowerOns() != 3 || b.LastBoot() != power.BootPXE {
			t.Errorf("%s (%s): %s, %d resets, %d cuts, %d times on, booted %q", b.Name(), bmcsim.Profiles[i].Name, b.Power(), b.Resets(), b.Cuts(),
				b.PowerOns(), b.LastBoot())
		}
		if n := b.RedfishSessions(); n != 1 {
			t.Errorf("%s: %d sessions are open", b.Name(), n)
		}
	}
	for i := range farm.Len() { // "not now", in several ways
		second := bmcsim.Duration(time.Second)
		refusal := []bmcsim.Refusal{
			{Status: 409, Times: 2},
			{Status: 503, Times: 2, RetryAfter: &second},
			{Status: 400, Times: 1},
			{Status: 429, Times: 2},
			{Status: 503, Times: 2, ID: "Base.1.8.ServiceTemporarilyUnavailable", Text: "Retry in 1 seconds."},
		}[i%5]
		refusal.Method, refusal.Path = "POST", "Reset"
		farm.BMC(i).Set(bmcsim.Fault{Redfish: &bmcsim.RedfishFault{Refuse: &refusal}})
	}
	s.mustRun("reset", "all", "--yes")
	for i := range farm.Len() {
		if n := farm.BMC(i).Resets(); n != 2 {
			t.Errorf("%s: %d resets", farm.BMC(i).Name(), n)
		}
	}
	for i, r := range decodeJSON[[]api.NodeTest](t, s.mustRun("node", "test", "all", "-o", "json")) {
		if r.Reach != power.ReachOK || r.State != power.On || !strings.HasPrefix(r.Protocol, "Redfish 1.") ||
			!strings.HasPrefix(r.Security, "TLS 1.3, pinned key sha256:") ||
			r.Model != bmcsim.Profiles[i].Model {
			t.Errorf("%+v", r)
		}
	}
	s.mustRun("status", "all")
	s.terminate("r1")
	for i := range farm.Len() {
		if n := farm.BMC(i).RedfishSessions(); n != 0 {
			t.Errorf("%s: %d sessions are left by an agent that was stopped", farm.BMC(i).Name(), n)
		}
	}
}

// TestAgentKilledOverRedfish kills the agent of a site with both kinds of BMC under cycles
// and resets, while connections are reset after what acts was taken. BMCs of Redfish have
// room for four sessions.
func TestAgentKilledOverRedfish(t *testing.T) {
	shapes := []bmcsim.Profile{}
	for _, p := range bmcsim.Profiles {
		p.Sessions, p.SessionTimeout = 4, time.Hour
		shapes = append(shapes, p)
	}
	farm := startFarm(t, bmcsim.Config{
		Count: len(shapes), OnAfter: 200 * time.Millisecond, OffAfter: 200 * time.Millisecond, Initial: power.On,
		Redfish: &bmcsim.Redfish{Profiles: shapes},
	})
	s := newSite(t)
	s.startAgent("r1")
	var specs []api.NodeSpec
	var nodes []string
	for i := range farm.Len() {
		b, ep := farm.BMC(i), overRedfish(farm.BMC(i))
		if i == 0 { // one of IPMI
			ep = b.Endpoint()
			b.SessionLimit(1000)
		}
		b.Delay(25 * time.Millisecond) // so that some die between a command and its answer
		specs, nodes = append(specs, specOf(b.Name(), ep)), append(nodes, b.Name())
	}
	s.addNodes(specs...)
	resets := s.crowd(nodes[:4], []power.Action{power.ActReset}, 700*time.Millisecond) // they join no cycle
	cycles := s.crowd(nodes[4:], []power.Action{power.ActCycle, power.ActReset, power.ActOn}, 700*time.Millisecond)
	rng := rand.New(rand.NewPCG(8, 9))
	for range rounds(10) {
		farm.BMC(rng.IntN(farm.Len())).LoseAnswers(1)
		time.Sleep(time.Duration(50+rng.IntN(1500)) * time.Millisecond)
		s.kill("r1")
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		s.startAgent("r1")
	}
	taken := resets.stop()
	maps.Copy(taken, cycles.stop())
	ops := s.allEnded(2 * time.Minute)
	judge(t, taken, ops, farm)
	for _, op := range ops {
		if strings.Contains(op.Detail, "sessions") || power.Reason(op.Why) == power.ReasonBMCBusy {
			t.Errorf("%s of %s: %s (%s)", op.Action, op.Node, op.Outcome, op.Detail)
		}
	}
	for i := 1; i < farm.Len(); i++ {
		if n := farm.BMC(i).RedfishSessions(); n > 2 { // one that is in use, one that a kill left
			t.Errorf("%s: %d sessions", farm.BMC(i).Name(), n)
		}
		if n := farm.BMC(i).MaxInFlight(); n > 1 {
			t.Errorf("%s: %d requests at once", farm.BMC(i).Name(), n)
		}
	}
}

// TestAutoFromCLIToBMC adds BMCs without saying which protocol they speak. It needs the usual ports.
func TestAutoFromCLIToBMC(t *testing.T) {
	at := netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(250)), 1}) // others may run this test, too
	both := bmcsim.Config{Count: 1, Listen: at, Port: 623, Redfish: &bmcsim.Redfish{Port: 443, Profiles: bmcsim.Profiles[:1]}}
	farm, err := bmcsim.Start(t.Context(), both)
	if err != nil {
		t.Skipf("LEFT OUT: the ports 443 and 623 cannot be used (run as root): %v", err)
	}
	t.Cleanup(func() { _ = farm.Close() })
	old := startFarm(t, bmcsim.Config{Count: 1, Listen: at.Next(), Port: 623})
	late := at.Next().Next()
	s := newSite(t)
	s.startAgent("r1")
	for name, addr := range map[string]netip.Addr{"n1": at, "n2": at.Next(), "n3": late} {
		s.addNodes(specOf(name, power.Endpoint{
			Scheme: power.SchemeAuto, Host: addr.String(), User: bmcsim.DefaultUser, Password: bmcsim.DefaultPassword, Pin: power.PinFirst,
		}))
	}
	s.mustRun("on", "n1,n2", "--yes")
	if farm.BMC(0).Power() != power.On || old.BMC(0).Power() != power.On {
		t.Error("they are not on")
	}
	bmcOf := func(node string) string {
		return decodeJSON[[]api.Node](t, s.mustRun("node", "show", node, "-o", "json"))[0].BMC
	}
	for node, want := range map[string]string{
		"n1": "redfish://admin@" + at.String() + "?pin=first", "n2": "ipmi://admin@" + at.Next().String(),
		"n3": "auto://admin@" + late.String() + "?pin=first",
	} {
		if is := bmcOf(node); is != want {
			t.Errorf("%s: %s, want %s", node, is, want)
		}
	}
	if n := decodeJSON[[]api.Node](t, s.mustRun("node", "show", "n3", "-o", "json"))[0]; n.Reach != power.ReachUnreachable {
		t.Errorf("n3, whose BMC is dead: %s", n.Reach)
	}
	both.Listen = late
	there, err := bmcsim.Start(t.Context(), both)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = there.Close() })
	s.mustRun("on", "n3", "--yes")
	if is := bmcOf("n3"); is != "redfish://admin@"+late.String()+"?pin=first" || there.BMC(0).Power() != power.On {
		t.Errorf("n3, once its BMC is there: %s, %s", is, there.BMC(0).Power())
	}
}
