package ipmi

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// chassisTarget is a node of a chassis: a BMC of bmcsim behind another one, over whose
// network it is reached.
type chassisTarget struct {
	simTarget // of the node
	chassis   simTarget
}

const nodeAddr = 0x30

func startChassis(t *testing.T, embed bool, kg power.Secret) chassisTarget {
	t.Helper()
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{
		Count: 3, Listen: netip.MustParseAddr("127.0.0.1"), SameAddress: true, BootTime: 50 * time.Millisecond, KG: kg,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		farm.Close()
		for i := range 3 {
			if n := farm.BMC(i).Panics(); n != 0 {
				t.Errorf("%d datagrams led to a bug in the simulator", n)
			}
		}
	})
	chassis := farm.BMC(0)
	chassis.Behind(nodeAddr, farm.BMC(1))
	chassis.Behind(nodeAddr+2, farm.BMC(2))
	chassis.EmbedAnswers(embed)
	d := NewDialer(impatient)
	return chassisTarget{simTarget{farm.BMC(1), d, farm}, simTarget{chassis, d, farm}}
}

func (c chassisTarget) Endpoint() power.Endpoint {
	ep := c.chassis.Endpoint()
	ep.Target = nodeAddr
	return ep
}

func (c chassisTarget) Hang()                    { c.chassis.Hang() }
func (c chassisTarget) Wake()                    { c.chassis.Wake() }
func (c chassisTarget) Restart() error           { return c.chassis.Restart() }
func (c chassisTarget) Lose(p float64)           { c.chassis.Lose(p) }
func (c chassisTarget) Duplicate(on bool)        { c.chassis.Duplicate(on) }
func (c chassisTarget) SetNoSession(full bool)   { c.chassis.SetNoSession(full) }
func (c chassisTarget) Operator() power.Endpoint { c.chassis.Privilege(3); return c.Endpoint() }
func (c chassisTarget) Reader() power.Endpoint   { c.chassis.Privilege(2); return c.Endpoint() }
func (c chassisTarget) Sessions() int            { return c.chassis.Sessions() }
func (c chassisTarget) AuthFailures() int        { return c.chassis.AuthFailures() }

// TestSuiteOnATarget runs all that a driver must do over a bridge.
func TestSuiteOnATarget(t *testing.T) {
	t.Parallel()
	for name, embed := range map[string]bool{"answers of their own": false, "answers embedded": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			powertest.Suite(t, func(t *testing.T) powertest.Target { return startChassis(t, embed, "") })
		})
	}
}

// TestSuiteWithKG runs it where log-ins take two keys.
func TestSuiteWithKG(t *testing.T) {
	t.Parallel()
	powertest.Suite(t, func(t *testing.T) powertest.Target { return startChassis(t, false, "0x00010203").chassis })
}

func TestATargetIsTheOnlyOneActedOn(t *testing.T) {
	t.Parallel()
	c := startChassis(t, false, "two keys")
	ep := c.Endpoint()
	for _, target := range []uint8{nodeAddr, 0, nodeAddr + 2} {
		ep.Target = target
		d := mustDial(t, impatient, ep)
		if err := d.Do(t.Context(), power.PowerOn); err != nil {
			t.Fatalf("target %#x: %v", target, err)
		}
		if err := d.SetBoot(t.Context(), power.BootPXE); err != nil {
			t.Fatalf("target %#x: %v", target, err)
		}
		wantState(t, d, power.On)
		d.Close()
	}
	for i := range 3 {
		b := c.farm.BMC(i)
		if got := b.Commands(); len(got) != 2 || b.PowerOns() != 1 || b.Boot() != power.BootPXE {
			t.Errorf("BMC %d: %v, boot %s", i, got, b.Boot())
		}
	}
}

// TestOneSessionServesAllParts of a chassis: they take turns in it.
func TestOneSessionServesAllParts(t *testing.T) {
	t.Parallel()
	c := startChassis(t, false, "")
	d := mustDial(t, impatient, c.Endpoint())
	c.farm.BMC(2).SetPower(power.On)
	for range 3 {
		wantState(t, d, power.Off)
		d.SetTarget(power.Endpoint{Target: nodeAddr + 2})
		wantState(t, d, power.On)
		d.SetTarget(power.Endpoint{Target: nodeAddr})
	}
	if err := d.Do(t.Context(), power.PowerOn); err != nil {
		t.Error(err)
	}
	wantState(t, d, power.On)
	if n := c.chassis.Logins(); n != 1 || c.farm.BMC(1).PowerOns() != 1 || c.farm.BMC(2).PowerOns() != 0 {
		t.Errorf("%d log-ins, %d and %d power-ons", n, c.farm.BMC(1).PowerOns(), c.farm.BMC(2).PowerOns())
	}
}

// TestATargetThatDoesNotAnswer is told from a BMC that does not, and costs only itself.
func TestATargetThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	c := startChassis(t, false, "")
	d := mustDial(t, impatient, c.Endpoint())
	c.farm.BMC(1).Mute(true)
	_, err := d.State(t.Context())
	wantKind(t, err, power.KindRefused, false)
	if err == nil || !strings.Contains(err.Error(), "target 0x30") {
		t.Errorf("%v", err)
	}
	wantKind(t, d.Do(t.Context(), power.HardReset), power.KindUnreachable, true) // whether it acted, nobody knows
	ep := c.Endpoint()
	ep.Target = 0x44
	d = mustDial(t, impatient, ep)
	_, err = d.State(t.Context())
	wantKind(t, err, power.KindRefused, false)
	if err == nil || !strings.Contains(err.Error(), "target 0x44 on channel 0") {
		t.Errorf("%v", err)
	}
}

// TestBridgedMessage holds the bytes against those of ipmitool -t 0x30 -b 6 chassis power
// status.
func TestBridgedMessage(t *testing.T) {
	got := appendBridged(nil, 0x30, 6, types.CommandGetChassisStatus, 1, nil)
	if want := "2018c88104344630" + "00d020" + "0401db" + "5a"; hex.EncodeToString(got[:len(got)-1]) != want[:len(want)-2] {
		t.Errorf("%x, want %s", got, want)
	}
	if checksum(got[:3]) != 0 || checksum(got[3:]) != 0 || checksum(got[7:10]) != 0 || checksum(got[10:len(got)-1]) != 0 {
		t.Errorf("checksums of %x", got)
	}
}

// TestLevel: a session asks for no more than its endpoint says, and errors name that.
func TestLevel(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	ep := sim.Endpoint()
	for _, tc := range []struct {
		level power.Level
		may   []power.Command
	}{
		{power.LevelUser, nil},
		{power.LevelOperator, []power.Command{power.PowerOn}},
		{power.LevelAdministrator, []power.Command{power.PowerOn, power.ResetBMC}},
		{"", []power.Command{power.PowerOn, power.ResetBMC}},
	} {
		ep.Level = tc.level
		for _, cmd := range []power.Command{power.PowerOn, power.ResetBMC} {
			d, err := sim.Dial(t.Context(), ep)
			for end := time.Now().Add(5 * time.Second); power.KindOf(err) == power.KindUnreachable && time.Now().Before(end); {
				d, err = sim.Dial(t.Context(), ep) // it restarts
			}
			if err != nil {
				t.Fatal(err)
			}
			wantState(t, d, power.Off)
			sim.SetPower(power.Off)
			err = d.Do(t.Context(), cmd)
			sim.SetPower(power.Off)
			if slices.Contains(tc.may, cmd) {
				if err != nil {
					t.Errorf("%s as %q: %v", cmd, tc.level, err)
				}
			} else {
				wantKind(t, err, power.KindPrivilege, false)
				if err == nil || !strings.Contains(err.Error(), "level="+string(tc.level)) {
					t.Errorf("%s as %q: %v", cmd, tc.level, err)
				}
			}
			d.Close()
		}
	}
}
