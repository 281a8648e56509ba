package cmd_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestPauseAndScheduleOfARack changes how a rack's monitor works while it works.
func TestPauseAndScheduleOfARack(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 2, Initial: power.On})
	s.addAs(farm, "DEPLOYED")
	s.read("all", power.On)
	b := farm.BMC(0)

	s.mustRun("pause", "r1", "--for", "2h", "--reason", "moving cables")
	s.until(10*time.Second, "the agent knows of the pause", func() bool { return s.explain("n01").Rack.Pause.Active(time.Now()) })
	s.mustRun("node", "set-status", "n01", "READY")
	s.stays(1500*time.Millisecond, "nothing is corrected", func() bool { return b.Power() == power.On })
	s.saysAll("status n01", "pending: paused", "rack r1: the monitor is paused by "+testerName, "moving cables")
	s.saysAll("explain n01", testerName+" paused the monitor (moving cables)", "rackpower resume r1")
	s.mustRun("off", "n02", "--reason", "requests are carried out")
	s.saysAll("rack list", "r1", "paused")
	s.saysAll("resume r1", "r1")
	s.until(20*time.Second, "what waited is done", func() bool { return b.Power() == power.Off })
	if farm.BMC(1).Power() != power.Off {
		t.Error("n02 is DEPLOYED and was asked to be off")
	}

	reads := func() int { return b.Reads() }
	s.mustRun("rack", "set", "r1", "--monitor", "@every 1h")
	s.until(10*time.Second, "the agent knows of the schedule", func() bool { return s.explain("n01").Rack.Monitor == "@every 1h" })
	time.Sleep(300 * time.Millisecond)
	before := reads()
	s.stays(2500*time.Millisecond, "nothing is read", func() bool { return reads() == before })
	s.saysAll("explain n01", "@every 1h")
	s.mustRun("rack", "set", "r1", "--monitor", "")
	s.until(10*time.Second, "it reads as before", func() bool { return reads() > before+1 })
	if out, errs, exit := s.run("rack", "set", "r1", "--monitor", "every minute"); exit != 2 {
		t.Errorf("exit status %d: %s%s", exit, out, errs)
	}
}

// TestDriftIsFlagged has somebody at the machine. DEPLOYED is expected and never
// enforced; DISK_ERASING is never cut.
func TestDriftIsFlagged(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.On})
	s.addAs(farm, "DEPLOYED")
	s.mustRun("node", "set-status", "n03", "DISK_ERASING")
	s.read("all", power.On)
	s.matched("n01", "n03")
	w := s.watch()

	farm.BMC(0).SetPower(power.Off)
	w.says("n01 drift agent r1 drift: off, expected on (status DEPLOYED); nothing is done about it")
	s.saysAll("status n01", "drift: hands-off")
	s.saysAll("explain n01", "The monitor shows that and does not act on it", "rackpower on n01")
	farm.BMC(0).SetPower(power.On)
	w.says("n01 drift-over")
	farm.BMC(0).SetPower(power.Off)

	s.mustRun("hold", "n03", "off", "--reason", "by mistake", "--yes")
	s.until(10*time.Second, "the hold has reached the rack", func() bool { return s.explain("n03").Hold != nil })
	s.stays(2500*time.Millisecond, "nothing acts on n01, and n03 goes on erasing", func() bool {
		return len(farm.BMC(0).Commands()) == 0 && farm.BMC(2).Power() == power.On
	})
	s.saysAll("status n03", "pending: no-cut")
	s.saysAll("explain n03", "the status forbids the monitor to turn the node off")
	out, errs, exit := s.run("off", "n03")
	t.Logf("off of a node that erases its disks: exit status %d: %s%s", exit, out, errs)
	if n := farm.BMC(2).Cuts(); exit == 0 && n != 1 || exit != 0 && n != 0 {
		t.Errorf("%d cuts", n)
	}
}

// TestSchedules lists, rehearses and, given a minute, sees one fire.
func TestSchedules(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.On})
	s.addAs(farm, "DEPLOYING")
	s.read("all", power.On)
	s.mustRun("hold", "n03", "on", "--reason", "a person wants it")
	s.saysAll("schedule add night --cron @daily --nodes all --want off --for 8h --reason night --dry-run", "night")
	if list, err := s.client.Schedules(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a dry run left %+v, %v", list, err)
	}
	s.mustRun("schedule", "add", "night", "--cron", "0 2 * * *", "--nodes", "all", "--want", "off", "--for", "8h", "--reason", "night",
		"--yes")
	runs := decodeJSON[[]api.ScheduledRun](t, s.mustRun("schedule", "next", "night", "--count", "3", "-o", "json"))
	if len(runs) != 3 || fmt.Sprint(runs[0].LosingPower) != "[n01 n02]" || fmt.Sprint(runs[0].Held) != "[n03]" ||
		runs[0].At.Local().Hour() != 2 ||
		runs[1].At.Sub(runs[0].At) < 23*time.Hour {
		t.Errorf("%+v", runs)
	}
	s.saysAll("schedule next", "night", "n[01-02]", "n03")
	s.saysAll("schedule list", "night", "0 2 * * *")
	if out, errs, exit := s.run("schedule", "add", "x", "--cron", "61 * * * *", "--nodes", "all", "--want", "off", "--reason",
		"x"); exit != 2 {
		t.Errorf("exit status %d: %s%s", exit, out, errs)
	}
	if n := commanded(bmcs(farm), power.PowerOff); n != 0 {
		t.Errorf("%d power-offs", n)
	}
	if !figures() {
		return
	}
	w := s.watch()
	s.mustRun("schedule", "add", "soon", "--cron", "* * * * *", "--nodes", "all", "--want", "off", "--for", "20s", "--reason", "soon", "--yes")
	s.until(75*time.Second, "it fires", func() bool { return farm.BMC(0).Power() == power.Off && farm.BMC(1).Power() == power.Off })
	s.mustRun("schedule", "rm", "soon", "--reason", "seen")
	w.says("schedule soon")
	s.saysAll("explain n01", "schedule soon wants it")
	s.until(60*time.Second, "the hold ends", func() bool { return farm.BMC(0).Power() == power.On })
	if n := farm.BMC(2).Cuts(); n != 0 {
		t.Errorf("a node that a person holds lost power %d times", n)
	}
}

// TestWatchShowsWhatHappens follows one node from request to outcome, over a death of
// central.
func TestWatchShowsWhatHappens(t *testing.T) {
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{Count: 2})
	s.addAs(farm, "")
	s.read("all", power.Off)
	w := s.watch("n01")
	s.mustRun("on", "n01", "--reason", "order 4711")
	w.says("n01 asked "+testerName+" order 4711: on", "n01 ended agent r1 succeeded: verified")
	s.kill("central")
	w.says("trying again")
	s.startCentral()
	w.says("is back")
	s.mustRun("hold", "n01", "on", "--for", "1h", "--reason", "burn-in")
	w.says("burn-in")
	s.mustRun("on", "n02")
	if strings.Contains(w.text(), "n02") {
		t.Errorf("another node is shown:\n%s", w.text())
	}
}
