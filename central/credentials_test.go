package central

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// The routes of credentials in the table of who may what.
func init() {
	for _, route := range []string{
		"GET /v1/credentials", "POST /v1/credentials/{name}", "POST /v1/credentials/{name}/rotate",
		"POST /v1/credentials/{name}/remove",
	} {
		least := leastOf["POST /v1/users"]
		leastOf[route] = least
	}
	leastOf["POST /v1/tests"], leastOf["POST /v1/power"] = leastOf["POST /v1/ops"], leastOf["POST /v1/reads"]
}

// withNodes adds nodes as they are given, each with a BMC of its own.
func (s *site) withNodes(specs ...api.NodeSpec) api.AddedNodes {
	s.t.Helper()
	for i := range specs {
		s.bmcs++
		specs[i].BMC = "ipmi://own@192.0.2." + string(rune('0'+s.bmcs))
	}
	out, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: specs})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) credentials(name, user, password string) api.Changed {
	s.t.Helper()
	out, err := s.SetCredentials(context.Background(), name, api.SetCredentials{User: user, Password: password})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// logIns are user, password and name of credentials of the nodes in an assignment.
func logIns(a api.Assignment) map[string]string {
	all := map[string]string{}
	for _, n := range a.Nodes {
		ep, _ := power.ParseEndpoint(n.BMC)
		all[n.Name] = ep.User + " " + n.Password + " " + n.Credentials
	}
	return all
}

func wantLogIns(t *testing.T, what string, a api.Assignment, want map[string]string) {
	t.Helper()
	got := logIns(a)
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s has %q, want %q", what, name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestWhichCredentialsANodeHas: its own password, else those that it names, else those of
// its rack; a change reaches the agents whose nodes use them, and no other.
func TestWhichCredentialsANodeHas(t *testing.T) {
	s := newSite(t)
	s.credentials("lab", "admin", "lab-1")
	s.credentials("spare", "root", "spare-1")
	out := s.withNodes(
		api.NodeSpec{Name: "a-own", Rack: "r1", Password: "mine", Credentials: "lab"}, api.NodeSpec{
			Name: "a-named", Rack: "r1",
			Credentials: "lab",
		},
		api.NodeSpec{Name: "a-plain", Rack: "r1"}, api.NodeSpec{Name: "a-gone", Rack: "r1", Credentials: "elsewhere"},
		api.NodeSpec{Name: "b-plain", Rack: "r2"},
	)
	if notes := strings.Join(out.Notes, "\n"); !strings.Contains(notes, "a-own: the node's own password stands over") ||
		!strings.Contains(notes, "central has no credentials elsewhere") || len(out.Notes) != 2 {
		t.Errorf("notes: %q", out.Notes)
	}
	r1, r2 := s.rack("r1"), s.rack("r2")
	wantLogIns(t, "at first", r1.poll(), map[string]string{
		"a-own": "own mine ", "a-named": "admin lab-1 lab", "a-plain": "own  ", "a-gone": "own  elsewhere",
	})
	wantLogIns(t, "at first", r2.poll(), map[string]string{"b-plain": "own  "})

	spare := "spare"
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Credentials: &spare}); err != nil {
		t.Fatal(err)
	}
	wantLogIns(t, "the rack names some", r1.poll(), map[string]string{"a-plain": "root spare-1 spare"})
	wantLogIns(t, "the rack names some", r2.poll(), map[string]string{})

	if out := s.credentials("lab", "admin", "lab-2"); out.Changed != 1 {
		t.Errorf("%+v", out)
	}
	wantLogIns(t, "changed", r1.poll(), map[string]string{"a-named": "admin lab-2 lab"})
	if out := s.credentials("lab", "admin", "lab-2"); out.Changed != 0 {
		t.Errorf("%+v", out)
	}
	s.credentials("elsewhere", "admin", "here")
	wantLogIns(t, "central has them now", r1.poll(), map[string]string{"a-gone": "admin here elsewhere"})
	wantLogIns(t, "of others", r2.poll(), map[string]string{})

	s.restart()
	r1.mustHello()
	r1.rev = 0
	wantLogIns(t, "all anew", r1.poll(), map[string]string{
		"a-own": "own mine ", "a-named": "admin lab-2 lab", "a-plain": "root spare-1 spare", "a-gone": "admin here elsewhere",
	})
}

func TestCredentialsAreListedAndRemoved(t *testing.T) {
	s := newSite(t)
	s.credentials("lab", "admin", "lab-1")
	s.credentials("spare", "root", "spare-1")
	s.withNodes(api.NodeSpec{Name: "n1", Rack: "r1", Credentials: "lab"}, api.NodeSpec{Name: "n2", Rack: "r1"},
		api.NodeSpec{Name: "n3", Rack: "r1", Credentials: "elsewhere"})
	spare := "spare"
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Credentials: &spare}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Credentials(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []api.Credentials{
		{Name: "elsewhere", AtRacks: true, Nodes: 1}, {Name: "lab", User: "admin", Nodes: 1}, {Name: "spare", User: "root", Nodes: 1},
	} {
		got := all[i]
		if got.Name != want.Name || got.User != want.User || got.Nodes != want.Nodes || got.AtRacks != want.AtRacks ||
			got.SetAt.IsZero() != want.AtRacks {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if !slices.Equal(all[2].Racks, []string{"r1"}) {
		t.Errorf("%+v", all[2])
	}
	remove := func(name string, code api.Code, parts ...string) {
		t.Helper()
		_, err := s.RemoveCredentials(t.Context(), name, api.RemoveCredentials{})
		wantCode(t, err, code)
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: want %q", err, part)
			}
		}
	}
	remove("lab", api.CodeRefused, "named by n1")
	remove("spare", api.CodeRefused, "rack r1")
	remove("nothing", api.CodeNotFound)
	for name, notes := range map[string]int{"nowhere": 1, "lab": 0, "spare": 0} {
		rack, err := s.SetRack(t.Context(), "r1", api.SetRack{Credentials: &name})
		if err != nil || len(rack.Notes) != notes || notes > 0 && !strings.Contains(rack.Notes[0], "central has no credentials "+name) {
			t.Errorf("credentials %s of a rack: %+v, %v", name, rack.Notes, err)
		}
	}
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Credentials: &spare}); err != nil {
		t.Fatal(err)
	}
	none := ""
	if _, err := s.SetRack(t.Context(), "r1", api.SetRack{Credentials: &none}); err != nil {
		t.Fatal(err)
	}
	remove("spare", "")
	if _, err := s.AddNodes(t.Context(), api.AddNodes{
		Update: true, Nodes: []api.NodeSpec{{Name: "n1", Rack: "r1", Clear: []string{"credentials"}}},
	}); err != nil {
		t.Fatal(err)
	}
	remove("lab", "")
	entries, err := s.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, e := range entries {
		said += e.What + ": " + e.Detail + "\n"
	}
	for _, part := range []string{
		"credentials: lab: user admin; no node uses them", "credentials-remove: lab", "rack: rack r1: credentials spare, was none",
		"node-change: credentials none, was lab",
	} {
		if !strings.Contains(said, part) {
			t.Errorf("the audit log lacks %q:\n%s", part, said)
		}
	}
	if strings.Contains(said, "lab-1") || strings.Contains(said, "spare-1") {
		t.Errorf("a password is in the audit log:\n%s", said)
	}
	for _, bad := range []api.SetCredentials{
		{User: "admin"},
		{Password: "p"},
		{User: "a b", Password: "p"},
		{User: "admin", Password: strings.Repeat("p", 256)},
		{User: "admin", Password: "p", KG: strings.Repeat("k", 21)},
	} {
		_, err := s.SetCredentials(t.Context(), "lab", bad)
		wantCode(t, err, api.CodeBadRequest)
	}
	_, err = s.SetCredentials(t.Context(), "all", api.SetCredentials{User: "admin", Password: "p"})
	wantCode(t, err, api.CodeBadRequest)
}

// TestLoginsByPrecedence holds the choice to a plain statement of it.
func TestLoginsByPrecedence(t *testing.T) {
	s := newSite(t)
	s.credentials("one", "user-one", "password-one")
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SampledFrom([]string{"", "one", "unknown"})
		named, rack := some.Draw(t, "named"), some.Draw(t, "rack")
		own, kg := rapid.SampledFrom([]string{"", "mine"}).Draw(t, "own"), rapid.SampledFrom([]string{"", "kg"}).Draw(t, "kg")
		a := api.AssignedNode{Name: "n", BMC: "ipmi://u@192.0.2.1", Password: own, KG: kg}
		want := a
		if name := map[bool]string{true: named, false: rack}[named != ""]; own == "" && name != "" {
			want.Credentials = name
			if name == "one" {
				want.BMC, want.Password = "ipmi://user-one@192.0.2.1", "password-one"
			}
		}
		err := s.c.store.View(context.Background(), func(tx *store.Tx) error {
			use := logins{tx: tx, agent: "r1", rack: rack}
			return use.fill(&a, store.Node{Rack: "r1", BMCIdentity: store.BMCIdentity{Credentials: named, KG: power.Secret(kg)}})
		})
		if err != nil || a != want {
			t.Fatalf("%+v, %v; want %+v", a, err, want)
		}
	})
}

// TestCredentialsAreReplaced node by node: what an agent says that a BMC took counts for its own
// nodes and for this replacement; both are kept until the last node has the new ones.
func TestCredentialsAreReplaced(t *testing.T) {
	s := newSite(t)
	s.credentials("lab", "admin", "lab-1")
	s.withNodes(api.NodeSpec{Name: "a", Rack: "r1", Credentials: "lab"}, api.NodeSpec{Name: "b", Rack: "r1", Credentials: "lab"},
		api.NodeSpec{Name: "c", Rack: "r2", Credentials: "lab"})
	r1, r2 := s.rack("r1"), s.rack("r2")
	r1.poll()
	r2.poll()
	rotate := func(in api.RotateCredentials) error {
		_, err := s.RotateCredentials(t.Context(), "lab", in)
		return err
	}
	next := api.RotateCredentials{SetCredentials: api.SetCredentials{User: "root", Password: "lab-2"}}
	if err := rotate(next); err != nil {
		t.Fatal(err)
	}
	wantCode(t, rotate(next), api.CodeRefused)
	wantCode(t, rotate(api.RotateCredentials{}), api.CodeBadRequest)
	a := r1.poll()
	wantLogIns(t, "begun", a, map[string]string{"a": "admin lab-1 lab", "b": "admin lab-1 lab"})
	other := a.Nodes[0].Other
	if n := a.Nodes[0]; n.OtherUser != "root" || n.OtherPassword != "lab-2" || !strings.HasSuffix(other, " new") {
		t.Errorf("%+v", n)
	}
	r2.poll()
	took := func(r *rack, node, other string, reach power.Reach) {
		r.tested(api.NodeTest{Node: node, Other: other, Reach: reach, Tried: true})
	}
	took(r1, "c", other, power.ReachOK) // another's
	took(r1, "a", "1 new", power.ReachOK)
	took(r1, "a", other, power.ReachAuthFailed)
	shown := func() api.Credentials {
		t.Helper()
		all, err := s.Credentials(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	if got := shown(); len(got.Took) != 0 || !slices.Equal(got.Keep, []string{"a", "b", "c"}) || got.NextUser != "root" {
		t.Errorf("%+v", got)
	}
	took(r1, "a", other, power.ReachOK)
	wantLogIns(t, "a took them", r1.poll(), map[string]string{"a": "root lab-2 lab"})
	wantLogIns(t, "of others", r2.poll(), map[string]string{})
	wantCode(t, rotate(api.RotateCredentials{Cancel: true}), api.CodeRefused)
	s.restart()
	r1.mustHello()
	r2.mustHello()
	took(r1, "a", strings.Replace(other, "new", "old", 1), power.ReachOK)
	wantLogIns(t, "a went back", r1.poll(), map[string]string{"a": "admin lab-1 lab"})
	took(r1, "a", other, power.ReachOK)
	took(r1, "b", other, power.ReachOK)
	r1.poll()
	if got := shown(); !slices.Equal(got.Took, []string{"a", "b"}) || !slices.Equal(got.Keep, []string{"c"}) {
		t.Errorf("%+v", got)
	}
	took(r2, "c", other, power.ReachOK)
	a = r1.poll()
	wantLogIns(t, "over", a, map[string]string{"a": "root lab-2 lab", "b": "root lab-2 lab"})
	if a.Nodes[0].Other != "" || a.Nodes[0].OtherPassword != "" || shown().NextUser != "" || shown().User != "root" {
		t.Errorf("%+v, %+v", a.Nodes[0], shown())
	}

	s.later(time.Second)
	if err := rotate(next); err != nil { // and back again
		t.Fatal(err)
	}
	r1.poll()
	if err := rotate(api.RotateCredentials{Cancel: true}); err != nil {
		t.Fatal(err)
	}
	if a = r1.poll(); a.Nodes[0].Other != "" || shown().NextUser != "" {
		t.Errorf("%+v", a.Nodes[0])
	}
	s.later(time.Second)
	if err := rotate(next); err != nil {
		t.Fatal(err)
	}
	s.credentials("lab", "admin", "lab-3") // ends it
	if a = r1.poll(); a.Nodes[0].Other != "" || shown().NextUser != "" {
		t.Errorf("%+v", a.Nodes[0])
	}
	_, err := s.RotateCredentials(t.Context(), "none", next)
	wantCode(t, err, api.CodeNotFound)
}
