package bmcsim

import (
	"testing"
	"time"

	"rackpower/power"
)

// Chassis control actions.
const (
	down, up, cycle, reset, diag, soft = 0, 1, 2, 3, 4, 5
)

// wantCounts checks what really happened to the node.
func wantCounts(t *testing.T, b *BMC, cuts, powerOns, resets, diags int) {
	t.Helper()
	if b.Cuts() != cuts || b.PowerOns() != powerOns || b.Resets() != resets || b.Diags() != diags {
		t.Fatalf("cuts %d, power-ons %d, resets %d, diags %d; want %d, %d, %d, %d",
			b.Cuts(), b.PowerOns(), b.Resets(), b.Diags(), cuts, powerOns, resets, diags)
	}
}

// wantLog checks all entries, events included, as "word before after".
func wantLog(t *testing.T, b *BMC, want ...string) {
	t.Helper()
	var got []string
	for _, e := range b.Log() {
		got = append(got, e.Command+" "+string(e.Before)+" "+string(e.After))
	}
	if len(got) != len(want) {
		t.Fatalf("log %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("log entry %d is %q, want %q; all: %q", i, got[i], want[i], got)
		}
	}
}

func TestEveryCommand(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	for _, step := range []struct {
		action, code byte
		after        power.State
	}{
		{reset, codeWrongState, power.Off},
		{diag, codeWrongState, power.Off},
		{cycle, codeWrongState, power.Off},
		{down, 0, power.Off},
		{soft, 0, power.Off},
		{up, 0, power.On},
		{up, 0, power.On},
		{reset, 0, power.On},
		{diag, 0, power.On},
		{cycle, 0, power.On},
		{soft, 0, power.Off},
		{up, 0, power.On},
		{down, 0, power.Off},
		{9, codeRange, power.Off},
	} {
		if code := c.control(step.action); code != step.code {
			t.Fatalf("chassis control %d: code %#02x, want %#02x", step.action, code, step.code)
		}
		if b.Power() != step.after || c.on() != (step.after == power.On) {
			t.Fatalf("chassis control %d leaves the node %s, reported on: %v", step.action, b.Power(), c.on())
		}
	}
	wantCounts(t, b, 3, 3, 1, 1)
	last := b.Commands()
	if e := last[len(last)-2]; e.Command != "power-off" || e.Before != power.On || e.After != power.Off || e.Code != 0 || e.Source == "" ||
		e.Time.IsZero() {
		t.Errorf("entry %+v", e)
	}
	if e := last[len(last)-1]; e.Command != "chassis-control-unknown" || e.Code != codeRange {
		t.Errorf("entry %+v", e)
	}
}

func TestCommandsTakeEffectLateAndInOrder(t *testing.T) {
	t.Parallel()
	b := one(t, Config{OnAfter: 200 * time.Millisecond, OffAfter: 100 * time.Millisecond})
	c := login(t, b)
	c.control(up)
	if b.Power() != power.Off || c.on() {
		t.Fatal("on at once")
	}
	c.control(up) // again: nothing more to do
	soon(t, "the node is on", c.on)
	c.control(down)
	c.control(down)
	if !c.on() {
		t.Fatal("off at once")
	}
	soon(t, "the node is off", func() bool { return !c.on() })
	wantCounts(t, b, 1, 1, 0, 0)

	c.control(up) // still to come
	c.control(down)
	soon(t, "a short moment of power", func() bool { return b.Cuts() == 2 })
	if b.PowerOns() != 2 || b.Power() != power.Off {
		t.Errorf("power-ons %d, power %s", b.PowerOns(), b.Power())
	}

	b.Late(0, 0)
	c.control(up)
	b.Late(100*time.Millisecond, 100*time.Millisecond)
	c.control(cycle)
	soon(t, "cycled: off", func() bool { return b.Power() == power.Off })
	soon(t, "cycled: on", func() bool { return b.Power() == power.On })
	wantCounts(t, b, 3, 4, 0, 0)
}

func TestLogTellsTheStory(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	c.control(up)
	c.control(cycle)
	b.SetPower(power.Off)
	wantLog(t, b,
		"power-on off on", "went-on off on",
		"power-cycle on on", "went-off on on", "went-on off on",
		"button on off", "went-off on off")
	wantCounts(t, b, 1, 2, 0, 0) // the button counts as neither
}

func TestStuck(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	b.Stuck(true)
	c := login(t, b)
	for _, a := range []byte{down, cycle, reset, diag, soft} {
		if code := c.control(a); code != 0 {
			t.Fatalf("action %d: code %#02x", a, code)
		}
	}
	wantWords(t, b, "power-off", "power-cycle", "hard-reset", "pulse-diag", "soft-off")
	wantCounts(t, b, 0, 0, 0, 0)
	if b.Power() != power.On {
		t.Error("it had an effect")
	}
	b.Stuck(false)
	c.control(down)
	wantCounts(t, b, 1, 0, 0, 0)
}

func TestDeafAndSlowToShutDown(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	c := login(t, b)
	b.Deaf(true)
	if c.control(soft) != 0 || b.Power() != power.On {
		t.Fatal("not ignored, or not acknowledged")
	}
	b.Deaf(false)
	b.SoftOffTakes(200 * time.Millisecond)
	c.control(soft)
	if b.Power() != power.On {
		t.Fatal("off at once")
	}
	soon(t, "the system has shut down", func() bool { return b.Power() == power.Off })
	wantCounts(t, b, 1, 0, 0, 0)
}

func TestShutDownUnderWay(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	c := login(t, b)
	b.SoftOffTakes(time.Hour)
	c.control(soft)
	c.control(soft)
	c.control(up) // it is on: nothing to do, and nothing changes what is to come
	if e := b.Commands()[2]; e.Before != power.On || e.After != power.Off {
		t.Fatalf("on, while it shuts down: %+v", e)
	}
	c.control(reset) // starts the system anew: no shut-down any more
	if e := b.Commands()[3]; e.After != power.On {
		t.Fatalf("reset, while it shuts down: %+v", e)
	}
	c.control(soft)
	c.control(down) // does not wait for the system
	if b.Power() != power.Off {
		t.Fatal("a hard off waits for the shut-down of the system")
	}
	c.control(up)
	if b.Power() != power.On {
		t.Fatal("the shut-down of before is still waited for")
	}
	b.SoftOffTakes(0)
	c.control(soft)
	wantCounts(t, b, 2, 1, 1, 0)

	b.SetPower(power.On)
	b.SoftOffTakes(150 * time.Millisecond)
	c.control(soft)
	c.control(cycle)
	time.Sleep(200 * time.Millisecond) // beyond the shut-down that was under way
	if b.Power() != power.On {
		t.Error("the shut-down outlived a power cycle")
	}
	c.control(down)
	b.Late(150*time.Millisecond, 0)
	c.control(up)
	c.control(soft) // there is no system yet that could hear it
	soon(t, "the node is on", c.on)
	time.Sleep(200 * time.Millisecond)
	if !c.on() {
		t.Error("a node that was off heard a soft-off")
	}
}

func TestComesBack(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	b.ComesBack(150 * time.Millisecond)
	c := login(t, b)
	c.control(down)
	if b.Power() != power.Off {
		t.Fatal("never off")
	}
	soon(t, "it comes back", func() bool { return b.Power() == power.On })
	wantCounts(t, b, 1, 0, 0, 0) // no command turned it on

	c.control(down)
	c.control(up)
	b.ComesBack(0)
	c.control(down)
	time.Sleep(200 * time.Millisecond) // beyond the return of before
	if b.Power() != power.Off {
		t.Error("still on")
	}
	wantCounts(t, b, 3, 1, 0, 0)

	b.SetPower(power.On)
	b.ComesBack(10 * time.Millisecond)
	b.Late(50*time.Millisecond, 0)
	c.control(cycle) // goes on by command, not by itself
	soon(t, "cycled", func() bool { return b.Power() == power.On })
	wantCounts(t, b, 4, 2, 0, 0)
}

func TestSetPowerForgetsWhatWasPlanned(t *testing.T) {
	t.Parallel()
	b := one(t, Config{OnAfter: 100 * time.Millisecond})
	c := login(t, b)
	c.control(up)
	b.SetPower(power.Off)
	b.SetPower("sideways")
	time.Sleep(150 * time.Millisecond) // beyond what was planned
	if b.Power() != power.Off || b.PowerOns() != 0 {
		t.Errorf("power %s, power-ons %d", b.Power(), b.PowerOns())
	}
}

func setBoot(c *console, flags, device byte) byte {
	code, _ := c.ask(netFnChassis, 8, 5, flags, device<<2, 0, 0, 0)
	return code
}

func TestBootDevice(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	for device, want := range map[byte]power.BootDevice{
		1: power.BootPXE, 2: power.BootDisk, 5: power.BootCDROM, 6: power.BootBIOS,
		0: power.BootNone,
	} {
		if setBoot(c, 0x80, device) != 0 || b.Boot() != want {
			t.Fatalf("device %d is %q, want %q", device, b.Boot(), want)
		}
	}
	b = one(t, Config{})
	c = login(t, b)
	setBoot(c, 0x80, 1)
	if code, data := c.ask(netFnChassis, 9, 5, 0, 0); code != 0 || len(data) != 7 || data[2] != 0x80 || data[3] != 1<<2 {
		t.Fatalf("get: %#02x % x", code, data)
	}
	c.control(up)
	if b.Boot() != power.BootNone || b.LastBoot() != power.BootPXE {
		t.Fatalf("next %q, last %q", b.Boot(), b.LastBoot())
	}
	c.control(reset) // used up
	if b.LastBoot() != power.BootNone {
		t.Fatalf("used twice: %q", b.LastBoot())
	}
	setBoot(c, 0xc0, 2) // for good
	c.control(reset)
	c.control(cycle)
	if b.Boot() != power.BootDisk || b.LastBoot() != power.BootDisk {
		t.Fatalf("next %q, last %q", b.Boot(), b.LastBoot())
	}
	wantLog(t, b,
		"set-boot pxe off off", "power-on off on", "went-on off on", "booted pxe on on",
		"hard-reset on on",
		"set-boot disk on on", "booted disk on on", "hard-reset on on",
		"power-cycle on on", "went-off on on", "went-on off on", "booted disk on on")
}

func TestBootDeviceExpires(t *testing.T) {
	t.Parallel()
	age := func(b *BMC) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.node.flagsAt = b.node.flagsAt.Add(-2 * bootFlagsLast)
	}
	b := one(t, Config{})
	c := login(t, b)
	setBoot(c, 0x80, 1)
	age(b)
	c.control(up)
	if b.LastBoot() != power.BootNone {
		t.Error("a boot device lasts for ever")
	}
	setBoot(c, 0x80, 1)
	c.control(diag) // a chassis command in time
	age(b)
	c.control(reset)
	if b.LastBoot() != power.BootPXE {
		t.Error("the boot device was dropped though a command followed in time")
	}
	c.control(down)
	if code, _ := c.ask(netFnChassis, 8, 3, 0x08); code != 0 {
		t.Fatalf("valid bit clearing: %#02x", code)
	}
	setBoot(c, 0x80, 1)
	age(b)
	c.control(up)
	if b.LastBoot() != power.BootPXE {
		t.Error("the request to keep it was ignored")
	}
}

func TestBootOptionsAreChecked(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	for _, tc := range []struct {
		code byte
		data []byte
	}{
		{codeTruncated, nil}, {codeLength, []byte{5, 1}}, {codeParam, []byte{42, 1}}, {0, []byte{0, 1}}, {0, []byte{4, 1, 1}}, {0, []byte{0x85}},
	} {
		if code, _ := c.ask(netFnChassis, 8, tc.data...); code != tc.code {
			t.Errorf("set % x: code %#02x, want %#02x", tc.data, code, tc.code)
		}
	}
	if code, _ := c.ask(netFnChassis, 9, 42, 0, 0); code != codeParam {
		t.Errorf("get parameter 42: code %#02x", code)
	}
}
