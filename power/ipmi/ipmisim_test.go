package ipmi

import (
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/powertest"
)

// The faults of the chassis behind ipmi_sim, seen through the driver.
func TestChassisFaults(t *testing.T) {
	t.Parallel()
	sim := powertest.StartIPMISim(t, 1)[0]
	ep := sim.Endpoint()
	ep.Suite = 3
	d := mustDial(t, Config{}, ep)
	do := func(cmd power.Command) {
		t.Helper()
		if err := d.Do(t.Context(), cmd); err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
	}
	set := func(k powertest.ChassisFault, value string) {
		t.Helper()
		if err := sim.Set(k, value); err != nil {
			t.Fatal(err)
		}
	}

	set(powertest.FaultLate, "0.4")
	start := time.Now()
	do(power.PowerOn)
	wantState(t, d, power.Off)
	for s := power.Off; s == power.Off && time.Since(start) < 5*time.Second; s, _ = d.State(t.Context()) {
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(start); took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("the power was shown after %v, want 0.4 s", took)
	}
	sim.Unset(powertest.FaultLate)

	set(powertest.FaultStuck, "1")
	do(power.PowerOff)
	wantState(t, d, power.On)
	sim.Unset(powertest.FaultStuck)

	set(powertest.FaultDeaf, "1")
	do(power.PressSoftOff)
	wantState(t, d, power.On)
	sim.Unset(powertest.FaultDeaf)

	set(powertest.FaultFail, "1")
	wantKind(t, d.Do(t.Context(), power.PowerOff), power.KindUncertain, true)
	sim.Unset(powertest.FaultFail)
	wantState(t, d, power.On)

	set(powertest.FaultDelay, "0.2")
	start = time.Now()
	do(power.PowerOff)
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("a slow chassis took %v, want 0.2 s", took)
	}
	sim.Unset(powertest.FaultDelay)
	wantState(t, d, power.Off)

	if err := sim.SetPower(power.On); err != nil {
		t.Fatal(err)
	}
	if err := sim.Restart(); err != nil { // the chassis outlives its BMC
		t.Fatal(err)
	}
	wantState(t, mustDial(t, Config{}, ep), power.On)
	want := []power.Command{power.PowerOn, power.PowerOff, power.PressSoftOff, power.PowerOff, power.PowerOff}
	for i, e := range sim.Log() {
		if i >= len(want) || e.Command != want[i] {
			t.Errorf("log entry %d is %v, want %v", i, e, want)
		}
	}
}

// A hung BMC that wakes up reads what was sent meanwhile: a command that was
// given up as sent may well arrive, and that is why it counts as sent.
func TestCommandArrivesAfterItWasGivenUp(t *testing.T) {
	t.Parallel()
	sim := powertest.StartIPMISim(t, 1)[0]
	ep := sim.Endpoint()
	ep.Suite = 3
	d := mustDial(t, impatient, ep)
	if err := d.Do(t.Context(), power.PowerOn); err != nil {
		t.Fatal(err)
	}
	sim.Hang()
	wantKind(t, d.Do(t.Context(), power.HardReset), power.KindUnreachable, true)
	sim.Wake()
	for end := time.Now().Add(5 * time.Second); len(sim.Log()) < 2 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if log := sim.Log(); len(log) != 2 || log[1].Command != power.HardReset {
		t.Errorf("the BMC got %v, want the reset, late and once", log)
	}
}
