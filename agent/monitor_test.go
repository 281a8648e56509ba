package agent

import (
	"fmt"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func withStatus(n api.AssignedNode, s power.Status) api.AssignedNode {
	n.Status, n.Desired = s, s.Desired()
	return n
}

func TestMonitorFollowsTheStatus(t *testing.T) {
	inBubble(t, 1, func(r *rig) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		bmc := r.bmc("n1")
		r.assign(withStatus(r.nodes[0], power.StatusDeploying))
		time.Sleep(25 * time.Second)
		r.wantPower("n1", power.Off) // debounced: one reading is not enough
		time.Sleep(10 * time.Second)
		r.wantPower("n1", power.On) // without waiting for the next round
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		time.Sleep(10 * time.Second)
		r.wantPower("n1", power.Off)
		bmc.SetPower(power.On) // somebody pressed the button
		time.Sleep(3 * time.Minute)
		r.wantPower("n1", power.Off)
		r.wantCommands("n1", power.PowerOn, power.PowerOff, power.PowerOff)
		r.assign(withStatus(r.nodes[0], power.StatusDeployed))
		bmc.SetPower(power.On)
		time.Sleep(10 * time.Minute)
		r.wantPower("n1", power.On)
	})
}

func TestMonitorWorksFromTheLastAssignmentWithoutCentral(t *testing.T) {
	inBubble(t, 3, func(r *rig) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		for i := range r.nodes {
			r.nodes[i] = withStatus(r.nodes[i], power.StatusReady)
		}
		r.assign(r.nodes...)
		time.Sleep(time.Minute)
		r.crash()
		for _, n := range r.nodes {
			r.bmc(n.Name).SetPower(power.On)
		}
		r.start()
		time.Sleep(30 * time.Second)
		for _, n := range r.nodes {
			r.wantPower(n.Name, power.Off)
		}
	})
}

func TestMonitorLeavesBusyNodesAlone(t *testing.T) {
	inBubble(t, 1, func(r *rig) {
		r.crash()
		r.cfg.Monitor = "@every 10s"
		r.start()
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		soft := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = 5 * time.Minute })
		r.assign(withStatus(r.nodes[0], power.StatusReady)) // wants it off at once
		time.Sleep(4 * time.Minute)
		r.wantCommands("n1", power.PressSoftOff)
		r.wantEnd(soft.Op.ID, power.Succeeded, power.ReasonVerified)
	})
}

func TestScheduleErrorsSayWhatToWrite(t *testing.T) {
	for _, text := range []string{"every minute", "* * *", "@every x"} {
		if _, err := parseSchedule(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	for _, text := range []string{"", "off", "@every 30s", "*/5 * * * *", "@hourly"} {
		if _, err := parseSchedule(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReadingKeepsTheLastStateWhenItFails(t *testing.T) {
	inBubble(t, 2, func(r *rig) {
		r.bmc("n1").SetPower(power.On)
		r.a.readNodes(r.a.ctx, []string{"n1"}, 0, nil)
		seen := r.a.readings.get("n1")
		r.bmc("n1").SetMute(true)
		r.a.readNodes(r.a.ctx, []string{"n1"}, 0, nil)
		got := r.a.readings.get("n1")
		if got.State != power.On || got.Reach != power.ReachUnreachable || !got.ObservedAt.Equal(seen.ObservedAt) || !got.TriedAt.After(seen.TriedAt) {
			t.Fatalf("reading: %+v", got)
		}
		n := r.nodes[1]
		n.BMC = ""
		r.assign(n)
		r.a.readNodes(r.a.ctx, []string{"n2"}, 0, nil)
		if got := r.a.readings.get("n2"); got.Reach != power.ReachUnconfigured {
			t.Fatalf("reading: %+v", got)
		}
	})
}

func TestReadingsOfAThousandNodesDoNotWaitForTheHung(t *testing.T) {
	inBubble(t, 1000, func(r *rig) {
		time.Sleep(time.Minute) // the readings that the assignment set off
		var names []string
		for i, n := range r.nodes {
			names = append(names, n.Name)
			r.bmc(n.Name).SetLatency(5 * time.Millisecond)
			if i%20 == 0 {
				r.bmc(n.Name).SetMute(true)
			}
		}
		began := time.Now()
		r.a.readNodes(r.a.ctx, names, 0, nil)
		if took := time.Since(began); took > 15*time.Second {
			t.Fatalf("a round took %s", took)
		}
		read := 0
		for _, n := range names {
			if !r.a.readings.get(n).ObservedAt.Before(began) {
				read++
			}
		}
		if read != 950 {
			t.Fatalf("%s were read, want 950", fmt.Sprint(read))
		}
	})
}
