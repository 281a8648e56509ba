package agent

import (
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func protectedBy(n api.AssignedNode, by string) api.AssignedNode {
	n.Protected = power.Protection{By: by, Reason: "database", Since: time.Now()}
	return n
}

// TestProtectedIsNotCut: neither the monitor nor anybody at either door takes power from
// a protected node, restarts of the agent or not, until it is unprotected.
func TestProtectedIsNotCut(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		r.bmc("n1").SetPower(power.On)
		n1 := withStatus(r.nodes[0], power.StatusReady)
		r.assign(protectedBy(n1, "alice"))
		time.Sleep(5 * time.Minute)
		r.restart()
		for _, origin := range []power.Origin{power.FromCentral, power.FromLocal, power.FromMonitor} {
			for _, action := range []power.Action{power.ActOff, power.ActSoftOff, power.ActCycle, power.ActReset, power.ActDiag} {
				got := r.ask("n1", action, func(op *power.Op) { op.Origin = origin })
				if got.Verdict != power.VerdictRefuse || got.Reason != power.ReasonProtected || !strings.Contains(got.Message, "alice") {
					t.Errorf("%s from %s: %+v", action, origin, got)
				}
			}
		}
		if dry := r.a.weigh(power.Op{ID: "dry", Node: "n1", Action: power.ActOff, Origin: power.FromLocal},
			true); dry.Reason != power.ReasonProtected {
			t.Errorf("dry run: %+v", dry)
		}
		time.Sleep(5 * time.Minute)
		r.wantCommands("n1")
		row := r.a.view.nodes(time.Now())[0]
		if row.Waits != power.ReasonProtected || row.Protected == nil || row.Protected.By != "alice" {
			t.Errorf("row %+v", row)
		}
		if e, _ := r.a.view.explain("n1", time.Now()); e.Protected == nil || !strings.Contains(e.Message, "rackpower node unprotect n1") {
			t.Errorf("explanation %+v", e)
		}
		r.assign(n1)
		time.Sleep(5 * time.Minute)
		r.wantCommands("n1", power.PowerOff)
	})
}

// TestProtectedMeanwhile: what has not begun when its node becomes protected ends, and a
// cycle that has cut power gives it back.
func TestProtectedMeanwhile(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		for _, node := range []string{"n1", "n2"} {
			r.bmc(node).SetPower(power.On)
		}
		r.bmc("n1").SetOffAfter(20 * time.Second)
		cycle := r.ask("n1", power.ActCycle)
		r.bmc("n2").SetMute(true)
		off := r.ask("n2", power.ActOff)
		time.Sleep(2 * time.Second)
		r.assign(protectedBy(r.nodes[0], "alice"), protectedBy(r.nodes[1], "alice"))
		r.bmc("n2").SetMute(false)
		if end := r.wantEnd(off.Op.ID, power.Cancelled, power.ReasonProtected); !strings.Contains(end.Detail, "alice") {
			t.Errorf("end %+v", end)
		}
		r.wantCommands("n2")
		r.wantEnd(cycle.Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantPower("n1", power.On)
		r.wantEnd(r.ask("n2", power.ActBMCReset).Op.ID, power.Succeeded, power.ReasonVerified)
	})
}
