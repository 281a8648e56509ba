package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// test has nodes tested, and returns what central would be told.
func (r *harness) test(ids ...string) map[string]api.NodeTest {
	r.t.Helper()
	var asked []api.AskedTest
	for _, id := range ids {
		node, _, _ := strings.Cut(id, "/")
		asked = append(asked, api.AskedTest{ID: id, Node: node})
	}
	synctest.Wait() // until the agent runs
	r.a.tester.take(asked)
	time.Sleep(time.Minute)
	r.a.link.toTell.mu.Lock()
	defer r.a.link.toTell.mu.Unlock()
	all := map[string]api.NodeTest{}
	for _, result := range r.a.link.toTell.tested {
		all[result.ID] = result
	}
	r.a.link.toTell.tested = nil
	return all
}

// TestATestTriesEachBMCOnce: however often central asks, and however many nodes are behind a
// BMC, a wrong password is tried once for each request; after two that were refused, not at all.
func TestATestTriesEachBMCOnce(t *testing.T) {
	inBubble(t, 3, func(r *harness) {
		n2 := r.nodes[1]
		n2.BMC = "ipmi://admin@n1?target=0x30" // another part of the BMC of n1
		r.assign(r.nodes[0], n2, r.nodes[2])
		got := r.test("n1/1", "n2/1", "n3/1")
		for _, id := range []string{"n1/1", "n2/1", "n3/1"} {
			if g := got[id]; g.Reach != power.ReachOK || !g.Tried || g.User != "admin" || g.State != power.Off || g.Agent != "r1" {
				t.Errorf("%s: %+v", id, g)
			}
		}
		if again := r.test("n1/1"); len(again) != 0 {
			t.Errorf("tested twice: %+v", again)
		}
		b := r.bmc("n1")
		b.SetAccount("admin", "another")
		before := b.Counts()
		got = r.test("n1/2", "n2/2")
		if b.Counts().AuthFailures != before.AuthFailures+1 || b.Counts().Dials != before.Dials+1 {
			t.Errorf("%+v, before %+v", b.Counts(), before)
		}
		if got["n1/2"].Reach != power.ReachAuthFailed || !got["n1/2"].Tried || got["n2/2"].Reach != power.ReachAuthFailed || got["n2/2"].Tried ||
			!strings.Contains(got["n2/2"].Message, "node n1") {
			t.Errorf("%+v", got)
		}
		if again := r.test("n1/2"); len(again) != 0 || b.Counts().Dials != before.Dials+1 {
			t.Errorf("tested twice: %+v", again)
		}
		for i := 3; i < 9; i++ {
			got = r.test(fmt.Sprintf("n1/%d", i))
		}
		if b.Counts().AuthFailures != before.AuthFailures+2 || got["n1/8"].Tried || got["n1/8"].Reach != power.ReachAuthFailed ||
			!strings.Contains(got["n1/8"].Message, "not tried") {
			t.Errorf("%d refused; %+v", b.Counts().AuthFailures-before.AuthFailures, got["n1/8"])
		}
		r.bmc("n3").SetMute(true)
		if got = r.test("n3/2", "n9/2"); got["n3/2"].Reach != power.ReachUnreachable || got["n9/2"].Reach != power.ReachUnconfigured {
			t.Errorf("%+v", got)
		}
		r.wantCommands("n1")
	})
}

// TestATestLogsIn: a session that is open says nothing of a password that was changed since.
func TestATestLogsIn(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.test("n1/1")
		r.reads("n1") // leaves a session open
		r.bmc("n1").SetAccount("admin", "another")
		if got := r.test("n1/2"); got["n1/2"].Reach != power.ReachAuthFailed {
			t.Errorf("%+v", got)
		}
	})
}
