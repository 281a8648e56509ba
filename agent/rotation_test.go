package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// rotating is a node whose credentials are being replaced.
func rotating(n api.AssignedNode, user string) api.AssignedNode {
	n.Credentials, n.Other, n.OtherUser, n.OtherPassword = "lab", "1 new", user, "new"
	return n
}

func (r *harness) told() (all []api.NodeTest) {
	r.a.link.toTell.mu.Lock()
	defer r.a.link.toTell.mu.Unlock()
	all, r.a.link.toTell.tested = r.a.link.toTell.tested, nil
	return all
}

func (r *harness) reads(node string) power.Reach {
	r.a.poller.readNow(r.a.ctx, []string{node})
	return r.a.readings.get(node).Reach
}

// TestOtherCredentialsAreTriedOnce: where the BMC refuses the node's, by the first reading and by
// an operation; what works is remembered and told; over a restart it costs one refusal more.
func TestOtherCredentialsAreTriedOnce(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.assign(rotating(r.nodes[0], "admin"), rotating(r.nodes[1], "root"))
		b := r.bmc("n1")
		b.SetAccount("admin", "secret")
		if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures != 0 || len(r.told()) != 0 {
			t.Errorf("%s, %+v", got, b.Counts())
		}
		b.SetAccount("admin", "new")
		time.Sleep(10 * time.Minute) // the session is over
		if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures != 1 {
			t.Errorf("%s, %+v", got, b.Counts())
		}
		if told := r.told(); len(told) != 1 || told[0].Node != "n1" || told[0].Other != "1 new" || told[0].Reach != power.ReachOK {
			t.Errorf("%+v", told)
		}
		time.Sleep(10 * time.Minute)
		if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures != 1 || len(r.told()) != 0 {
			t.Errorf("%s, %+v", got, b.Counts())
		}
		r.restart()
		if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures > 2 {
			t.Errorf("%s, %+v", got, b.Counts())
		}
		for range 5 {
			r.restart()
			if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures > 2 {
				t.Errorf("%s, %+v", got, b.Counts())
			}
		}
		r.bmc("n2").SetAccount("root", "new")
		r.wantEnd(r.ask("n2", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		if n := r.bmc("n2").Counts().AuthFailures; n != 1 {
			t.Errorf("%d refused", n)
		}
	})
}

// TestABMCThatRefusesBothIsLeftAlone after one try of each, however often it is read.
func TestABMCThatRefusesBothIsLeftAlone(t *testing.T) {
	for _, user := range []string{"admin", "root"} {
		inBubble(t, 1, func(r *harness) {
			r.assign(rotating(r.nodes[0], user))
			b := r.bmc("n1")
			b.SetAccount("admin", "a third one")
			time.Sleep(10 * time.Minute) // no session is left
			for range 9 {
				if got := r.reads("n1"); got != power.ReachAuthFailed {
					t.Errorf("%s", got)
				}
				time.Sleep(time.Minute)
			}
			most := map[string]int{"admin": 2, "root": 4}[user] // two of each account
			if n := b.Counts().AuthFailures; n > most {
				t.Errorf("%s: %d refused", user, n)
			}
			b.SetAccount("admin", "secret")
			before := b.Counts().AuthFailures
			r.a.prober.retryBMC("n1")
			time.Sleep(time.Minute)
			if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures > before+1 {
				t.Errorf("%s: %s, %d refused", user, got, b.Counts().AuthFailures-before)
			}
		})
	}
}

// TestTheOthersAreTested without a change of what is used; a refusal keeps nothing from being
// tried when the BMC refuses the node's own later.
func TestTheOthersAreTested(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.assign(rotating(r.nodes[0], "admin"))
		b := r.bmc("n1")
		b.SetAccount("admin", "secret")
		test := func(id, other string) api.NodeTest {
			synctest.Wait() // until the agent runs
			r.a.tester.take([]api.AskedTest{{ID: id, Node: "n1", Other: other}})
			time.Sleep(time.Second)
			for _, got := range r.told() {
				if got.ID == id {
					return got
				}
			}
			return api.NodeTest{}
		}
		if got := test("1", "1 new"); got.Reach != power.ReachAuthFailed || got.Other != "1 new" || b.Counts().AuthFailures != 1 {
			t.Errorf("%+v", got)
		}
		if got := test("2", "2 new"); got.Tried || got.Reach != power.ReachUnconfigured {
			t.Errorf("%+v", got)
		}
		if got := r.reads("n1"); got != power.ReachOK || b.Counts().AuthFailures != 1 {
			t.Errorf("%s, %+v", got, b.Counts())
		}
		b.SetAccount("admin", "new")
		if got := test("3", "1 new"); got.Reach != power.ReachOK || got.Other != "1 new" {
			t.Errorf("%+v", got)
		}
		time.Sleep(10 * time.Minute)
		if got := r.reads("n1"); got != power.ReachOK {
			t.Errorf("%s, %+v", got, b.Counts())
		}
	})
	inBubble(t, 1, func(r *harness) {
		r.assign(rotating(r.nodes[0], "admin"))
		b := r.bmc("n1")
		b.SetAccount("admin", "secret")
		synctest.Wait()                              // until the agent runs
		for _, id := range []string{"1", "2", "3"} { // two that are refused, and one that is not tried
			r.a.tester.take([]api.AskedTest{{ID: id, Node: "n1", Other: "1 new"}})
			time.Sleep(time.Second)
		}
		if got := r.reads("n1"); got != power.ReachOK { // by its own
			t.Errorf("%s, %+v", got, b.Counts())
		}
		b.SetAccount("admin", "new")
		time.Sleep(10 * time.Minute)
		if got := r.reads("n1"); got != power.ReachOK {
			t.Errorf("the others are not tried after tests that were refused: %s, %+v", got, b.Counts())
		}
	})
}
