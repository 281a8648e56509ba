package ipmi

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/powertest"
)

func testBy(t *testing.T, d power.Driver) power.TestResult {
	t.Helper()
	result, err := d.(power.Tester).Test(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func hasRemark(r power.TestResult, part string) bool {
	return slices.ContainsFunc(r.Remarks, func(s string) bool { return strings.Contains(s, part) })
}

// TestATestShowsTheBMC: what it is, how it stands, what is odd; and it changes nothing.
func TestATestShowsTheBMC(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	d := mustDialBy(t, sim.Dialer, sim.Endpoint())
	defer d.Close()
	r := testBy(t, d)
	if r.Protocol != "IPMI 2.0" || r.Security != "cipher suite 17" || r.Role != "administrator" || r.State != power.Off || r.Vendor == "" ||
		r.Model == "" || r.Firmware == "" || r.Sessions != 1 || r.MaxSessions < 1 || r.ClockSkew.Abs() > 2*time.Second || r.Clock.IsZero() {
		t.Errorf("%+v", r)
	}
	if len(r.Remarks) != 0 {
		t.Errorf("remarks: %q", r.Remarks)
	}
	sim.Clock(-time.Hour, false)
	if r = testBy(t, d); !hasRemark(r, "1h0m") || !hasRemark(r, "behind") || (r.ClockSkew+time.Hour).Abs() > 2*time.Second {
		t.Errorf("%+v", r)
	}
	sim.Clock(-45*365*24*time.Hour, false)
	if r = testBy(t, d); !hasRemark(r, "not set") || !r.Clock.IsZero() {
		t.Errorf("%+v", r)
	}
	sim.Clock(0, true)
	if r = testBy(t, d); len(r.Remarks) != 0 || !r.Clock.IsZero() || r.Vendor == "" {
		t.Errorf("%+v", r)
	}
	if n := len(sim.Commands()); n != 0 {
		t.Errorf("%d commands", n)
	}
	sim.Privilege(2)
	user := mustDialBy(t, NewDialer(impatient), sim.Endpoint())
	defer user.Close()
	if r = testBy(t, user); r.Role != "user" || !hasRemark(r, "may not switch the power") {
		t.Errorf("%+v", r)
	}
	sim.Mute(true)
	if _, err := d.(power.Tester).Test(t.Context()); power.KindOf(err) != power.KindUnreachable {
		t.Errorf("%v", err)
	}
}

func TestATestOfAnotherBMC(t *testing.T) {
	sim := powertest.StartIPMISim(t, 1)[0]
	ep := sim.Endpoint()
	ep.Suite = 3
	r := testBy(t, mustDial(t, Config{}, ep))
	if r.Security != "cipher suite 3" || !hasRemark(r, "SHA-1") || r.State == "" || r.Vendor == "" || r.Firmware == "" {
		t.Errorf("%+v", r)
	}
}
