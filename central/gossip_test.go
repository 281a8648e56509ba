package central

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// keyedGossip is a cluster with a key, that notes what it is asked.
type keyedGossip struct {
	fakeGossip
	asked []string
	fails error
}

func (*keyedGossip) Members() []api.Member {
	return []api.Member{{Name: "r1", Status: "failed", Addr: "192.0.2.7", Port: 7946}}
}

func (*keyedGossip) Ring() []string { return []string{"bmV3", "b2xk"} }

func (g *keyedGossip) Who(_ context.Context, node, bmc, _ string) (api.Who, error) {
	g.asked = append(g.asked, node+" "+bmc)
	return api.Who{Node: node, Tried: bmc}, g.fails
}

func (g *keyedGossip) Ping(_ context.Context, name string) (time.Duration, error) {
	return 1500 * time.Microsecond, g.fails
}

func (g *keyedGossip) Keys(context.Context) (api.GossipKeys, error) {
	return api.GossipKeys{Members: 3, Answered: 3, Keys: []api.GossipKey{{ID: "0badcafe", Members: 3}}}, nil
}

func (g *keyedGossip) ChangeKeys(_ context.Context, in api.ChangeKeys) error {
	g.asked = append(g.asked, in.Action+" "+in.ID)
	return g.fails
}

func gossiping(t *testing.T) (*site, *keyedGossip) {
	t.Helper()
	s, g := newSite(t), new(keyedGossip)
	if err := s.c.UseGossip(g); err != nil {
		t.Fatal(err)
	}
	return s, g
}

// TestWhatGossipLostIsStale has an agent fail, be asked for something, and return.
func TestWhatGossipLostIsStale(t *testing.T) {
	s, _ := gossiping(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	r.read(api.NodeReading{Node: "a", Reading: power.Seen(power.On, s.clock())})
	if n := s.node("a"); n.Stale || n.AgentState.Absent() {
		t.Fatalf("%+v", n)
	}
	s.later(2 * time.Second)
	s.c.MemberChanged("r1", "failed", time.Second)
	s.later(40 * time.Second)
	if n := s.node("a"); !n.Stale || n.State != power.On || n.AgentState.Text(s.clock()) != "failed 41 s ago, as gossip says" {
		t.Errorf("%+v", n)
	}
	if a := s.agent("r1"); a.State != "failed" || a.Address != "192.0.2.7:7946" {
		t.Errorf("%+v", a)
	}
	op := s.ask("a", power.ActOff)
	if want := "agent r1 failed 41 s ago, as gossip says, and no other agent has the node; kept until "; !strings.HasPrefix(op.AgentNote,
		want) || !strings.HasSuffix(op.AgentNote, "Z") {
		t.Errorf("%q", op.AgentNote)
	}
	e, err := s.Explain(t.Context(), "a")
	if err != nil || !strings.Contains(e.Message, "agent r1 failed 41 s ago") {
		t.Errorf("%+v, %v", e, err)
	}
	s.c.MemberChanged("r1", "left", 0)
	if n := s.node("a"); n.AgentState.State != api.AgentLeft {
		t.Errorf("%+v", n)
	}
	s.later(time.Second)
	r.poll() // before gossip has seen it again
	if n := s.node("a"); n.AgentState.Absent() || n.Stale {
		t.Errorf("it polls: %+v", n)
	}
	s.c.MemberChanged("r1", "alive", 0)
	if o := s.op(op.ID); o.AgentNote != "" {
		t.Errorf("%q", o.AgentNote)
	}
}

// TestAPollThatWaitsIsNoSignOfLife has an agent vanish without the connection's end
// being seen: neither the poll that waits nor its end tell that it lives.
func TestAPollThatWaitsIsNoSignOfLife(t *testing.T) {
	s, _ := gossiping(t)
	s.nodes("a")
	r := s.rack("r1")
	r.poll()
	got := r.pollBehind(30 * time.Second)
	s.later(5 * time.Second)
	s.c.MemberChanged("r1", "failed", 0)
	s.later(time.Second)
	if a := s.agent("r1"); a.State != "failed" {
		t.Errorf("%+v", a)
	}
	s.ask("a", power.ActOn) // ends the poll
	<-got
	until(t, "the poll has ended", func() bool {
		d := s.c.sessions.of("r1")
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.polls == 0
	})
	if a := s.agent("r1"); a.State != "failed" {
		t.Errorf("the end of a poll from before was taken for life: %+v", a)
	}
}

func TestMembersThatAreNoAgents(t *testing.T) {
	s, _ := gossiping(t)
	s.c.MemberChanged("central", "alive", 0)
	s.c.MemberChanged("stock-serf", "failed", 0)
	if all, err := s.Agents(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestEnrolHandsOutTheKeys(t *testing.T) {
	s, g := gossiping(t)
	got, err := s.Enrol(t.Context(), "r9")
	if err != nil || len(got.Keys) != 2 || got.Keys[0] != "bmV3" || got.Join != g.Addr() {
		t.Errorf("%+v, %v", got, err)
	}
	auditLog, err := s.Audit(t.Context(), "", 10)
	if err != nil || len(auditLog) != 1 || auditLog[0].Who != "agent r9" || auditLog[0].What != "enrol" ||
		strings.Contains(auditLog[0].Detail, "bmV3") {
		t.Errorf("%+v, %v", auditLog, err)
	}
	_, err = s.Enrol(t.Context(), "no name")
	wantCode(t, err, api.CodeBadRequest)
	_, err = newSite(t).Enrol(t.Context(), "r9")
	wantCode(t, err, api.CodeUnavailable)
}

func TestWhoIsAskedWithTheAddress(t *testing.T) {
	s, g := gossiping(t)
	s.nodes("a")
	if w, err := s.Who(t.Context(), "a"); err != nil || w.Tried != "192.0.2.1:623" {
		t.Errorf("%+v, %v", w, err)
	}
	if w, err := s.Who(t.Context(), "unheard-of"); err != nil || w.Tried != "" {
		t.Errorf("%+v, %v", w, err)
	}
	_, err := s.Who(t.Context(), "")
	wantCode(t, err, api.CodeBadRequest)
	g.fails = errors.New("gossip has ended")
	_, err = s.Who(t.Context(), "a")
	wantCode(t, err, api.CodeUnavailable)
	_, err = s.Ping(t.Context(), "r1")
	wantCode(t, err, api.CodeRefused)
	_, err = s.Ping(t.Context(), "")
	wantCode(t, err, api.CodeBadRequest)
	g.fails = nil
	if p, err := s.Ping(t.Context(), "r1"); err != nil || p.RTTMS != 1.5 || p.Name != "r1" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestAChangeOfKeysIsOnTheTrail(t *testing.T) {
	s, g := gossiping(t)
	if keys, err := s.ChangeKeys(t.Context(), api.ChangeKeys{Action: api.KeyUse, ID: "0badcafe"}); err != nil || len(keys.Keys) != 1 ||
		g.asked[0] != "use 0badcafe" {
		t.Errorf("%+v, %v, %v", keys, err, g.asked)
	}
	_, err := s.ChangeKeys(t.Context(), api.ChangeKeys{Action: "eat", ID: "0badcafe"})
	wantCode(t, err, api.CodeBadRequest)
	g.fails = errors.New("2 of 3 members do not have it")
	_, err = s.ChangeKeys(t.Context(), api.ChangeKeys{Action: api.KeyUse, ID: "0badcafe"})
	wantCode(t, err, api.CodeRefused)
	auditLog, err := s.Audit(t.Context(), "", 10)
	if err != nil || len(auditLog) != 1 || auditLog[0].What != "gossip-key" || auditLog[0].Detail != "use" {
		t.Errorf("%+v, %v", auditLog, err)
	}
}

// TestWithoutGossip asks a central that gossips with nobody.
func TestWithoutGossip(t *testing.T) {
	s := newSite(t)
	if members, err := s.Members(t.Context()); err != nil || len(members) != 0 {
		t.Errorf("%+v, %v", members, err)
	}
	for what, ask := range map[string]func() error{
		"peers": func() error { _, err := s.Peers(t.Context()); return err },
		"ping":  func() error { _, err := s.Ping(t.Context(), "r1"); return err },
		"who":   func() error { _, err := s.Who(t.Context(), "a"); return err },
		"keys":  func() error { _, err := s.GossipKeys(t.Context()); return err },
		"use":   func() error { _, err := s.ChangeKeys(t.Context(), api.ChangeKeys{Action: api.KeyUse}); return err },
	} {
		if err := ask(); api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "without gossip") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// deafGossip does as it is asked with keys, and hears no answer to a question for them.
type deafGossip struct{ keyedGossip }

func (*deafGossip) Keys(context.Context) (api.GossipKeys, error) {
	return api.GossipKeys{Members: 3}, errors.New("nobody answered")
}

// TestAChangeOfKeysThatCannotBeListedIsNoRefusal has the change be done, and what the
// members have by then not be heard.
func TestAChangeOfKeysThatCannotBeListedIsNoRefusal(t *testing.T) {
	s := newSite(t)
	if err := s.c.UseGossip(new(deafGossip)); err != nil {
		t.Fatal(err)
	}
	keys, err := s.ChangeKeys(t.Context(), api.ChangeKeys{Action: api.KeyUse, ID: "0badcafe"})
	if err != nil || keys.Members != 3 || keys.Answered != 0 {
		t.Errorf("%+v, %v", keys, err)
	}
	if auditLog, err := s.Audit(t.Context(), "", 10); err != nil || len(auditLog) != 1 || auditLog[0].Detail != "use" {
		t.Errorf("%+v, %v", auditLog, err)
	}
	_, err = s.GossipKeys(t.Context())
	wantCode(t, err, api.CodeRefused)
}
