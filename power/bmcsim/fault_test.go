package bmcsim

import (
	"errors"
	"testing"
	"time"

	"rackpower/power"
)

func TestMute(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	b.Mute(true)
	c.tell(netFnChassis, 2, up)
	c.silent()
	if b.Power() != power.Off || len(b.Commands()) != 0 {
		t.Fatal("a mute BMC has executed something")
	}
	if err := dialQuick(t, b).open(); !errors.Is(err, errNoAnswer) {
		t.Fatalf("open: %v", err)
	}
	b.Mute(false)
	if c.control(up) != 0 { // the session has survived
		t.Fatal("not itself again")
	}
}

func dialQuick(t *testing.T, b *BMC) *console {
	c := dial(t, b)
	c.wait = 50 * time.Millisecond
	return c
}

func TestHungBMCsDoNotSlowOthers(t *testing.T) {
	t.Parallel()
	f := farm(t, Config{Count: 20})
	for i := range 10 {
		login(t, f.BMC(i)).tell(netFnChassis, 1)
		f.BMC(i).Delay(time.Hour)
		f.BMC(i).Mute(i%2 == 0)
	}
	for i := 10; i < 20; i++ {
		if login(t, f.BMC(i)).control(up) != 0 {
			t.Fatalf("BMC %d", i)
		}
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Seed: 7})
	c := login(t, b)
	b.Loss(1, 0)
	c.tell(netFnChassis, 2, up)
	c.silent()
	if b.Power() != power.Off {
		t.Fatal("a lost request was executed")
	}
	b.Loss(0, 1)
	c.tell(netFnChassis, 2, up)
	c.silent()
	if b.Power() != power.On {
		t.Fatal("a request whose answer was lost was not executed")
	}
	if got := answered(b, c, 0.5, 0); got < 60 || got > 140 {
		t.Errorf("%d of 200 requests answered with half of the requests lost", got)
	}
	if got := answered(b, c, 0, 0.5); got < 60 || got > 140 {
		t.Errorf("%d of 200 requests answered with half of the answers lost", got)
	}
	if got := answered(b, c, 0, 0); got != 200 {
		t.Errorf("%d of 200 requests answered without loss", got)
	}
}

// answered counts how many of 200 requests outside of a session c's BMC answers,
// when b loses datagrams.
func answered(b *BMC, c *console, rx, tx float64) (n int) {
	b.Loss(rx, tx)
	defer b.Loss(0, 0)
	before := c.wait
	defer func() { c.wait = before }()
	for range 200 {
		c.write(buildV15(message(netFnApp, 0x38, 1, 0x8e, 4)))
	}
	c.wait = 50 * time.Millisecond
	for {
		if _, err := c.read(); err != nil {
			return n
		}
		n++
	}
}

func TestDelayHoldsAnswersOnly(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	b.Delay(400 * time.Millisecond)
	c.tell(netFnChassis, 2, up)
	soon(t, "executed at once", func() bool { return b.Power() == power.On })
	c.silent()
	if code, _, err := c.hear(); err != nil || code != 0 {
		t.Fatalf("the answer never came: %v %#02x", err, code)
	}
}

func TestDuplicate(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	b.Duplicate(true)
	c.control(up)
	if code, _, err := c.hear(); err != nil || code != 0 {
		t.Fatalf("no second answer: %v", err)
	}
	c.silent()
	wantCounts(t, b, 0, 1, 0, 0)
}

func TestFailCode(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	b.FailCode(0xc3, 2)
	for range 2 {
		if code := c.control(up); code != 0xc3 {
			t.Fatalf("code %#02x", code)
		}
	}
	if b.Power() != power.Off || b.Commands()[1].Code != 0xc3 {
		t.Fatal("executed, or not in the log")
	}
	if !c.on() && c.control(up) != 0 {
		t.Fatal("reads failed, or a third command")
	}
}

func TestLoseAnswers(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	c := login(t, b)
	b.LoseAnswers(1)
	c.tell(netFnChassis, 2, reset)
	c.silent()
	wantCounts(t, b, 0, 0, 1, 0)
	if c.control(reset) != 0 { // sent again: executed again
		t.Fatal("refused")
	}
	wantCounts(t, b, 0, 0, 2, 0)
}

func TestSessionLimit(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	b.SessionLimit(2)
	first, second := login(t, b), login(t, b)
	if err := dial(t, b).open(); !errors.Is(err, statusError(statusNoResources)) {
		t.Fatalf("a third session: %v", err)
	}
	if code, _ := second.ask(netFnApp, cmdCloseSession, le(second.bmcID)...); code != 0 {
		t.Fatalf("close: %#02x", code)
	}
	for range 5 { // half-open sessions make room for each other
		if err := dial(t, b).openRequest(); err != nil {
			t.Fatal(err)
		}
	}
	if b.Sessions() != 2 || !okay(first) {
		t.Fatalf("%d sessions", b.Sessions())
	}
	b.SessionLimit(0)
	if err := dial(t, b).open(); err != nil && !errors.Is(err, statusError(statusNoResources)) {
		t.Fatal(err)
	}
}

func le(id uint32) []byte { return []byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)} }

// okay says whether the session still works.
func okay(c *console) bool {
	_, _, err := c.try(netFnChassis, 1)
	return err == nil
}

func TestIdleSessionsEnd(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	b.SessionIdle(30 * time.Millisecond)
	soon(t, "the session is dropped", func() bool { return b.Sessions() == 0 })
	c.wait = 50 * time.Millisecond
	if okay(c) {
		t.Error("it still answers")
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On})
	c := login(t, b)
	b.Restart(400 * time.Millisecond)
	if b.Sessions() != 0 {
		t.Fatal("sessions survive")
	}
	quick := dialQuick(t, b)
	if err := quick.open(); !errors.Is(err, errNoAnswer) {
		t.Fatalf("it answers while it restarts: %v", err)
	}
	soon(t, "it is back", func() bool { return quick.open() == nil })
	c.wait = 50 * time.Millisecond
	if okay(c) {
		t.Error("the old session still works")
	}
	if b.Power() != power.On {
		t.Error("the node noticed")
	}
	c = login(t, b)
	b.Delay(100 * time.Millisecond)
	c.tell(netFnChassis, 1)
	soon(t, "the request is in hand", func() bool { return b.Reads() > 0 })
	b.Restart(0)
	for range 3 {
		c.silent() // the answer that was held back is gone
	}
}

func TestColdReset(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: power.On, BootTime: 50 * time.Millisecond})
	c := login(t, b)
	if code, _ := c.ask(netFnApp, cmdColdReset); code != 0 {
		t.Fatalf("cold reset: %#02x", code)
	}
	if b.Sessions() != 0 || b.Power() != power.On {
		t.Fatal("sessions survive, or the node did not")
	}
	soon(t, "it is back", func() bool { return dialQuick(t, b).open() == nil })
	wantLog(t, b, "reset-bmc on on", "bmc-restart on on")
	b.Delay(60 * time.Millisecond) // the answer leaves before the BMC goes down
	c = login(t, b)
	if code, _ := c.ask(netFnApp, cmdColdReset); code != 0 {
		t.Fatalf("cold reset: %#02x", code)
	}
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	a, c := login(t, b), login(t, b)
	a.control(up)
	c.control(down)
	if b.MaxInFlight() != 1 {
		t.Fatalf("one after the other: %d", b.MaxInFlight())
	}
	b.Delay(150 * time.Millisecond)
	a.tell(netFnChassis, 1)
	a.tell(netFnChassis, 1) // the same exchange, tried again
	for range 2 {
		if _, _, err := a.hear(); err != nil {
			t.Fatal(err)
		}
	}
	if b.MaxInFlight() != 1 {
		t.Fatalf("a repeated request: %d", b.MaxInFlight())
	}
	a.tell(netFnChassis, 2, up)
	c.tell(netFnChassis, 1)
	for _, x := range []*console{a, c} {
		if _, _, err := x.hear(); err != nil {
			t.Fatal(err)
		}
	}
	if b.MaxInFlight() != 2 {
		t.Fatalf("two at once: %d", b.MaxInFlight())
	}
	if at := b.Overlaps(); len(at) != 1 || time.Since(at[0].At) > time.Minute {
		t.Fatalf("overlaps at %v", at)
	}
}

func TestSuites(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	for _, only := range []int{3, 17} {
		b.Suites(only)
		for _, suite := range []int{3, 17} {
			c := dial(t, b)
			c.suite = suiteID(suite)
			if err := c.open(); (err == nil) != (suite == only) {
				t.Errorf("suite %d where only %d is offered: %v", suite, only, err)
			}
		}
	}
}

func TestSetPassword(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	old := dial(t, b)
	open := login(t, b)
	b.SetPassword("renewed")
	if err := old.open(); !errors.Is(err, statusError(statusBadIntegrity)) {
		t.Errorf("with the old password: %v", err)
	}
	if !okay(open) || !okay(login(t, b)) { // login uses Endpoint
		t.Error("the open session or the new password is refused")
	}
}
