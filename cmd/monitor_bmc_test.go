package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestHungBMCsDelayNobody has 5 % of the BMCs answer nothing.
func TestHungBMCsDelayNobody(t *testing.T) {
	count, rounds := 200, 1
	if figures() {
		count, rounds = 1000, 3
	}
	if !figures() {
		t.Parallel() // else it is alone on the machine: it measures
	}
	s := newSite(t)
	s.startWatchful()
	farm := startFarm(t, bmcsim.Config{Count: count, Names: func(i int) string { return fmt.Sprintf("n%04d", i+1) }})
	s.addFarm(farm)
	hung := count / 20
	sick, healthy := fmt.Sprintf("n[0001-%04d]", hung), fmt.Sprintf("n[%04d-%04d]", hung+1, count)
	s.read("all", power.Off)
	took := func(args ...string) time.Duration {
		t.Helper()
		began := time.Now()
		s.mustRun(append(args, "-o", "name")...)
		return time.Since(began)
	}
	fresh := func() (best time.Duration) {
		best = time.Hour
		for range rounds {
			best = min(best, took("status", healthy, "--fresh"))
		}
		return best
	}
	switchAll := func() (best time.Duration) {
		best = time.Hour
		for range rounds {
			took("off", healthy, "--yes")
			best = min(best, took("on", healthy))
		}
		return best
	}
	readBefore, onBefore := fresh(), switchAll()
	for i := range hung {
		farm.BMC(i).Mute(true)
	}
	began := time.Now()
	readFirst := took("status", healthy, "--fresh") // while the hung ones are found out
	for i := range hung {
		name := farm.BMC(i).Name()
		s.until(60*time.Second, name+" is unreachable", func() bool { return s.node(name).Reach == power.ReachUnreachable })
	}
	s.until(60*time.Second, "the hung are left alone", func() bool {
		agents, err := s.client.Racks(t.Context())
		return err == nil && len(agents) == 1 && agents[0].State.OpenBreakers == hung
	})
	found := time.Since(began)
	readAfter, onAfter := fresh(), switchAll()
	t.Logf("%d of %d BMCs hung: a reading of the healthy took %s without and %s with (ratio %.2f), %s while they were found out; turning "+
		"the healthy on %s and %s (ratio %.2f); all were found out after %s",
		hung, count, readBefore.Round(time.Millisecond), readAfter.Round(time.Millisecond), float64(readAfter)/float64(readBefore),
		readFirst.Round(time.Millisecond),
		onBefore.Round(time.Millisecond), onAfter.Round(time.Millisecond), float64(onAfter)/float64(onBefore), found.Round(100*time.Millisecond))
	if bound := 4*readBefore + 3*time.Second; readFirst > bound || readAfter > bound {
		t.Errorf("a reading of the healthy took %s and %s beside the hung ones, %s without", readFirst, readAfter, readBefore)
	}
	s.saysAll("status "+sick, "unreachable")
	s.saysAll("explain n0001", "the BMC does not answer", "left alone", "next probe", "next reading when its BMC answers a probe",
		"rackpower node retry n0001")
	s.saysAll("agents -o wide", fmt.Sprintf("%d", hung))
	for i := range hung {
		farm.BMC(i).Mute(false)
	}
	s.mustRun("node", "retry", sick)
	s.all(sick, "answer again", func(n api.Node) bool { return n.Reach == power.ReachOK })
}

// TestWrongPasswordIsTriedTwice counts log-ins at the BMC.
func TestWrongPasswordIsTriedTwice(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 3})
	b := farm.BMC(0)
	b.SetPassword("changed")
	farm.BMC(1).SetPassword("changed")
	s.addAs(farm, "DEPLOYING")
	s.until(20*time.Second, "the wrong password was refused", func() bool { return b.AuthFailures() == 2 && farm.BMC(1).AuthFailures() == 2 })
	s.stays(2500*time.Millisecond, "there is no third log-in", func() bool { return b.AuthFailures() == 2 })
	s.saysAll("explain n01", "refuses the log-in", "rackpower node add n01 --rack r1 --password-file FILE --update",
		"rackpower node retry n01", "2 logins refused", "next reading none until its BMC is corrected")
	s.saysAll("status n01", "auth-failed")
	s.kill("r1")
	s.startWatchful()
	s.stays(3*time.Second, "there is none after a start either", func() bool { return b.AuthFailures() == 2 })
	s.saysAll("explain n01", "refuses the log-in")

	b.SetPassword(bmcsim.DefaultPassword) // corrected at the BMC
	s.mustRun("node", "retry", "n01", "--reason", "corrected at the BMC")
	s.until(10*time.Second, "n01 is on", func() bool { return b.Power() == power.On })

	file := filepath.Join(s.dir, "password") // corrected here
	if err := os.WriteFile(file, []byte("changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustRun("node", "add", "n02", "--rack", "r1", "--password-file", file, "--update")
	s.until(10*time.Second, "n02 is on", func() bool { return farm.BMC(1).Power() == power.On })
	if n := farm.BMC(1).AuthFailures() + b.AuthFailures(); n != 4 {
		t.Errorf("%d log-ins were refused in all", n)
	}
}

// TestFailedCorrectionsAreCounted has a BMC refuse commands and another ignore them.
// The fault after three takes minutes by the timings of the binary.
func TestFailedCorrectionsAreCounted(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 2})
	refuses, ignores := farm.BMC(0), farm.BMC(1)
	refuses.FailCode(0xcc, 1000)
	ignores.Stuck(true)
	s.addAs(farm, "DEPLOYING")
	s.until(20*time.Second, "a failure is counted", func() bool { return s.explain("n01").Monitor.Failures == 1 })
	s.saysAll("explain n01", "1 correction failed in a row", "not yet")
	s.until(20*time.Second, "n02 was sent a command", func() bool { return commanded([]*bmcsim.BMC{ignores}, power.PowerOn) == 1 })
	s.saysAll("status n02", "on (asked by monitor")
	_, _, exit := s.run("on", "n02", "--if-busy", "queue", "--deadline", "2s")
	if exit != 0 && exit != 1 && exit != 4 {
		t.Errorf("exit status %d", exit)
	}
	if !figures() {
		return
	}
	s.until(5*time.Minute, "n01 is in fault", func() bool { return s.node("n01").Fault != "" })
	s.saysAll("status n01", "fault: ")
	s.saysAll("explain n01", "It is in fault since", "rackpower node retry n01", "3 corrections failed in a row")
	if !s.audited("fault", "n01") {
		t.Error("the audit log does not tell of the fault")
	}
	s.kill("r1")
	s.startWatchful()
	s.stays(5*time.Second, "the fault is kept over a death", func() bool {
		return s.node("n01").Fault != "" &&
			!s.audited("fault-over", "n01")
	})
	refuses.FailCode(0, 0)
	s.mustRun("node", "retry", "n01", "--reason", "mended")
	s.until(30*time.Second, "n01 is on and well", func() bool { return refuses.Power() == power.On && s.node("n01").Fault == "" })
}

// TestBMCIsAskedAnew: what a BMC said once does not stand for ever, and whoever looks is
// sent to where the fault is.
func TestBMCIsAskedAnew(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 4})
	rights, full, off20, locked := farm.BMC(0), farm.BMC(1), farm.BMC(2), farm.BMC(3)
	rights.Privilege(2)
	full.SessionLimit(0)
	off20.NoIPMI20(true)
	locked.RAKPStatus(0, 0x0D) // after the password was proved
	s.addAs(farm, "DEPLOYED")  // the monitor reads, and does nothing

	s.until(30*time.Second, "all is known", func() bool {
		return s.node("n02").Reach == power.ReachBusy && s.node("n03").Reach == power.ReachBusy && s.node("n04").Reach == power.ReachPrivilege
	})
	s.saysAll("explain n02", "the BMC answers", "hold its sessions")
	s.saysAll("explain n03", "the BMC answers", "IPMI over LAN")
	s.saysAll("explain n04", "lacks the privilege", "rackpower node retry n04")
	s.saysAll("status n02", "busy")
	s.stays(2*time.Second, "no third log-in is tried", func() bool { return locked.AuthFailures() <= 4 }) // two, each as two roles

	if out, errs, code := s.run("on", "n01"); code != 1 || !strings.Contains(out+errs, "right") {
		t.Errorf("on without the right to it: %d %s%s", code, out, errs)
	}
	rights.Privilege(3)
	s.mustRun("on", "n01")
	if rights.Power() != power.On {
		t.Error("n01 is not on")
	}
	full.SessionLimit(bmcsim.DefaultSessions)
	off20.NoIPMI20(false)
	locked.RAKPStatus(0, 0)
	for _, name := range []string{"n02", "n03", "n04"} {
		s.mustRun("node", "retry", name)
		s.all(name, "can be read", func(n api.Node) bool { return n.Reach == power.ReachOK })
	}
}
