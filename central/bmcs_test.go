package central

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

func (s *site) tryAdd(update bool, specs ...api.NodeSpec) error {
	_, err := s.AddNodes(s.t.Context(), api.AddNodes{Nodes: specs, Update: update})
	return err
}

func bmcNode(name, rack, bmc string) api.NodeSpec {
	return api.NodeSpec{Name: name, Rack: rack, BMC: bmc, Password: "secret"}
}

// sharedOf is whom each node shares its BMC with, for those that do.
func (s *site) sharedOf() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	err := s.c.store.View(s.t.Context(), func(tx *store.Tx) error {
		nodes, err := tx.Nodes()
		for _, n := range nodes {
			if n.Shared != "" {
				all[n.Name] = n.Shared
			}
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func TestASecondNodeAtOneBMCIsRefused(t *testing.T) {
	s := newSite(t)
	for _, n := range []api.NodeSpec{
		bmcNode("n1", "r1", "ipmi://admin@192.0.2.1"), bmcNode("n3", "r1", "ipmi://admin@bmc3.example"), bmcNode("n4", "r1",
			"ipmi://admin@192.0.2.4?target=0x30"),
		bmcNode("n5", "r1", "ipmi://admin@[fe80::5%25eth0]"),
	} {
		if err := s.tryAdd(false, n); err != nil {
			t.Fatal(err)
		}
	}
	for bmc, other := range map[string]string{
		"ipmi://root@192.0.2.1:623": "n1", "ipmi://[::ffff:192.0.2.1]": "n1", "ipmi://192.0.2.1.?suite=3": "n1",
		"ipmi://192.0.2.1?target=0x20": "n1",
		"ipmi://BMC3.example.":         "n3", "ipmi://192.0.2.4?target=48": "n4", "ipmi://[FE80::5%25eth0]": "n5",
	} {
		for _, rack := range []string{"r1", "r2"} {
			if rack == "r2" && other == "n5" {
				continue // another link
			}
			err := s.tryAdd(false, bmcNode("n2", rack, bmc))
			wantCode(t, err, api.CodeRefused)
			if err != nil && (!strings.Contains(err.Error(), "that of node "+other) || !strings.Contains(err.Error(), "rackpower node rm "+other)) {
				t.Errorf("%s: %v", bmc, err)
			}
		}
	}
	for _, good := range []api.NodeSpec{
		bmcNode("p1", "r1", "ipmi://192.0.2.1:6230"), bmcNode("p2", "r2", "ipmi://192.0.2.1?target=0x32"), bmcNode("p3", "r1",
			"ipmi://192.0.2.4?target=0x30&channel=1"),
		bmcNode("p4", "r2", "ipmi://[fe80::5%25eth0]"),
		{Name: "p5", Rack: "r1"},
		{Name: "p6", Rack: "r1"},
	} {
		if err := s.tryAdd(false, good); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	wantCode(t, s.tryAdd(true, bmcNode("p1", "r1", "ipmi://admin@192.0.2.1")), api.CodeRefused)
	wantCode(t, s.tryAdd(true, bmcNode("p4", "r1", "")), api.CodeRefused) // onto the link of n5
	if shared := s.sharedOf(); len(shared) > 0 {
		t.Errorf("shared: %v", shared)
	}
}

func TestAnImportHoldsEachBMCOnce(t *testing.T) {
	s := newSite(t)
	err := s.tryAdd(false, bmcNode("a", "r1", "ipmi://192.0.2.1"), bmcNode("b", "r2", "ipmi://[::ffff:192.0.2.1]"))
	wantCode(t, err, api.CodeRefused)
	if err == nil || !strings.Contains(err.Error(), "node 2 (b)") || !strings.Contains(err.Error(), "that of node a") {
		t.Errorf("%v", err)
	}
	if err := s.tryAdd(false, bmcNode("a", "r1", "ipmi://192.0.2.1"), bmcNode("b", "r1", "ipmi://192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	// Two that change places hold one each in the end.
	if err := s.tryAdd(true, bmcNode("a", "r1", "ipmi://192.0.2.2"), bmcNode("b", "r1", "ipmi://192.0.2.1")); err != nil {
		t.Error(err)
	}
	wantCode(t, s.tryAdd(true, bmcNode("a", "r1", "ipmi://192.0.2.1")), api.CodeRefused)
	if shared := s.sharedOf(); len(shared) > 0 {
		t.Errorf("shared: %v", shared)
	}
}

// TestADatabaseWithOneBMCTwiceOpens: nothing acts on the two until they are told apart.
func TestADatabaseWithOneBMCTwiceOpens(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b", "c")
	r := s.rack("r1")
	r.poll()
	err := s.c.store.Write(t.Context(), func(tx *store.Tx) error { // as an earlier version left it
		for name, bmc := range map[string]string{
			"a": "ipmi://admin@192.0.2.9", "b": "ipmi://admin@[::ffff:192.0.2.9]:623",
			"c": "ipmi://admin@10.0.0.999",
		} {
			n, _, err := tx.Node(name)
			n.BMC, n.BMCIdentity = bmc, store.BMCIdentity{}
			if err != nil || tx.PutNode(n) != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.restart()
	if got := fmt.Sprint(s.sharedOf()); got != "map[a:b b:a]" {
		t.Fatalf("shared: %s", got)
	}
	if op := s.ask("a", power.ActOff); op.Outcome != power.Refused || op.Why != power.ReasonShared ||
		!strings.Contains(op.Message, "same BMC as b") {
		t.Errorf("%+v", op)
	}
	if a := s.agent("r1").Alarms; len(a) != 1 || a[0].Kind != api.AlarmBMCShared || !strings.Contains(a[0].Message, "nothing acts on a, b") {
		t.Errorf("alarms %+v", a)
	}
	r = s.rack("r1")
	told := map[string]string{}
	for _, n := range r.poll().Nodes {
		told[n.Name] = n.SharedWith
	}
	if told["a"] != "b" || told["b"] != "a" || told["c"] != "" {
		t.Errorf("the agent was told %v", told)
	}
	if err := s.tryAdd(true, api.NodeSpec{Name: "a", Rack: "r1", Domain: "d"}); err != nil {
		t.Errorf("another change of one that shares: %v", err)
	}
	if err := s.tryAdd(true, bmcNode("b", "r1", "ipmi://admin@192.0.2.10")); err != nil {
		t.Fatal(err)
	}
	if shared, alarms := s.sharedOf(), s.agent("r1").Alarms; len(shared)+len(alarms) > 0 {
		t.Errorf("shared: %v, alarms %+v", shared, alarms)
	}
	if op := s.ask("a", power.ActOff); op.Outcome == power.Refused {
		t.Errorf("%+v", op)
	}
}

// TestNamesOfOneAddressAreFound: agents say what the names stand for.
func TestNamesOfOneAddressAreFound(t *testing.T) {
	s := newSite(t)
	for _, n := range []api.NodeSpec{
		bmcNode("a", "r1", "ipmi://bmc-a.example"), bmcNode("b", "r2", "ipmi://bmc-b.example"), bmcNode("c", "r2", "ipmi://192.0.2.3"),
		bmcNode("d", "r2", "ipmi://192.0.2.1:6230"),
	} {
		if err := s.tryAdd(false, n); err != nil {
			t.Fatal(err)
		}
	}
	r1, r2 := s.rack("r1"), s.rack("r2")
	r1.poll()
	r2.poll()
	tell := func(r *rack, node, addr string) {
		t.Helper()
		r.read(api.NodeReading{Node: node, Reading: power.Seen(power.On, s.now), Address: addr})
	}
	tell(r1, "a", "192.0.2.1")
	tell(r2, "b", "192.0.2.2")
	if shared := s.sharedOf(); len(shared) > 0 {
		t.Fatalf("shared: %v", shared)
	}
	tell(r2, "b", "::ffff:192.0.2.1")
	if got := fmt.Sprint(s.sharedOf()); got != "map[a:b b:a]" {
		t.Errorf("shared: %s", got)
	}
	tell(r1, "b", "192.0.2.7") // not its own
	tell(r2, "b", "no address")
	if got := fmt.Sprint(s.sharedOf()); got != "map[a:b b:a]" {
		t.Errorf("shared: %s", got)
	}
	tell(r2, "b", "192.0.2.3")
	if got := fmt.Sprint(s.sharedOf()); got != "map[b:c c:b]" {
		t.Errorf("shared: %s", got)
	}
	if err := s.tryAdd(true, bmcNode("b", "r2", "ipmi://bmc-b2.example")); err != nil { // not looked up yet
		t.Fatal(err)
	}
	if shared := s.sharedOf(); len(shared) > 0 {
		t.Errorf("shared: %v", shared)
	}
}

// TestSharingIsAsCounted draws changes of BMCs and addresses, and holds what is noted
// against a count over all pairs.
func TestSharingIsAsCounted(t *testing.T) {
	bmcs := []string{
		"", "ipmi://192.0.2.1", "ipmi://a@[::ffff:192.0.2.1]", "ipmi://192.0.2.2", "ipmi://h1", "ipmi://H2.",
		"ipmi://192.0.2.1?target=0x30", "ipmi://h1?target=48",
	}
	addrs := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
	rapid.Check(t, func(rt *rapid.T) {
		s := newSite(t)
		names := []string{"a", "b", "c", "d"}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "node")
			if rapid.Bool().Draw(rt, "moves") {
				bmc := rapid.SampledFrom(bmcs).Draw(rt, "bmc")
				spec := api.NodeSpec{Name: name, Rack: "r1", BMC: bmc}
				if bmc == "" {
					spec.Clear = []string{"bmc"}
				}
				if err := s.tryAdd(true, spec); err != nil && api.CodeOf(err) != api.CodeRefused {
					rt.Fatal(err)
				}
				continue
			}
			_ = s.c.write(t.Context(), s.now, "agent r1", func(u *unitOfWork) error {
				r := api.NodeReading{Node: name, Address: rapid.SampledFrom(addrs).Draw(rt, "addr"), Reading: power.Seen(power.On, time.Now())}
				if err := u.located("r1", r); err != nil {
					rt.Error(err)
				}
				return nil
			})
		}
		var nodes []store.Node
		_ = s.c.store.View(t.Context(), func(tx *store.Tx) (err error) { nodes, err = tx.Nodes(); return err })
		for _, n := range nodes {
			var others []string
			for _, o := range nodes {
				p, err := power.ParseEndpoint(n.BMC)
				q, err2 := power.ParseEndpoint(o.BMC)
				at := func(ep power.Endpoint, addr string) string {
					if addr != "" {
						ep.Host = addr
					}
					return ep.Part()
				}
				if n.Name != o.Name && err == nil && err2 == nil && (p.Part() == q.Part() || at(p, n.Addr) == at(q, o.Addr)) {
					others = append(others, o.Name)
				}
			}
			want := ""
			if len(others) > 0 {
				want = strings.Join(others, ",")
			}
			if got := n.Shared; got != want && len(others) < 2 || (got == "") != (want == "") {
				rt.Fatalf("%s (%s, at %s) is noted to share with %q, want %q", n.Name, n.BMC, n.At, got, want)
			}
		}
	})
}

// TestAllNamesForOneAddress: a name server that answers everything alike. It ends as it
// began, and takes no longer than so many nodes do.
func TestAllNamesForOneAddress(t *testing.T) {
	s := newSite(t)
	const many = 300
	var specs []api.NodeSpec
	for i := range many {
		specs = append(specs, bmcNode(fmt.Sprintf("n%03d", i), "r1", fmt.Sprintf("ipmi://bmc%d", i)))
	}
	if err := s.tryAdd(false, specs...); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	r.poll()
	tell := func(addr func(i int) string) {
		t.Helper()
		var all []api.NodeReading
		for i := range many {
			s.later(time.Millisecond)
			all = append(all, api.NodeReading{Node: specs[i].Name, Reading: power.Seen(power.On, s.clock()), Address: addr(i)})
		}
		r.read(all...)
	}
	tell(func(int) string { return "192.0.2.1" })
	shared := s.sharedOf()
	for name, text := range shared {
		if len(text) > 100 || !strings.HasSuffix(text, " and more") && len(shared) == many {
			t.Errorf("%s shares with %s", name, text)
			break
		}
	}
	if len(shared) != many {
		t.Errorf("%d of %d are known to share", len(shared), many)
	}
	if a := s.agent("r1").Alarms; len(a) != 1 || len(a[0].Message) > 1000 {
		t.Errorf("alarms %+v", a)
	}
	tell(func(i int) string { return fmt.Sprintf("192.0.%d.%d", 3+i/200, 1+i%200) })
	if shared := s.sharedOf(); len(shared) > 0 || len(s.agent("r1").Alarms) > 0 {
		t.Errorf("%d still share: %v", len(shared), shared)
	}
}

func TestAnUpdateTakesFieldsAway(t *testing.T) {
	s := newSite(t)
	full := bmcNode("a", "r1", "ipmi://admin@192.0.2.1?level=operator&boot=legacy")
	full.KG, full.Domain, full.Status = "0x0102", "d1", "READY"
	if err := s.tryAdd(false, full); err != nil {
		t.Fatal(err)
	}
	r := s.rack("r1")
	if n := r.poll().Nodes[0]; n.KG != "0x0102" || n.BMC != full.BMC {
		t.Errorf("assigned %+v", n)
	}
	specs, err := s.ExportNodes(t.Context())
	if err != nil || len(specs) != 1 || specs[0].BMC != full.BMC || specs[0].KG != "" || specs[0].Password != "" {
		t.Errorf("exported %+v, %v", specs, err)
	}
	for _, bad := range []api.NodeSpec{
		{Name: "a", Rack: "r1", Clear: []string{"name"}},
		{Name: "a", Rack: "r1", Domain: "d2", Clear: []string{"domain"}},
		{Name: "a", Rack: "r1", KG: "0xz"},
		{Name: "a", Rack: "r1", Password: strings.Repeat("x", 21)},
		{Name: "a", Rack: "r1", Password: "pw\n"},
		{Name: "a", Rack: "r1", BMC: "ipmi:admin:S3cret@h"},
		{Name: "a", Rack: "r1", BMC: "ipmi://10.0.0.999"},
		{Name: "a", Rack: "r1", BMC: "ipmi://h?kg-file=/etc/passwd"},
	} {
		err := s.tryAdd(true, bad)
		wantCode(t, err, api.CodeBadRequest)
		if err != nil && strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%v", err)
		}
	}
	if err := s.tryAdd(true, api.NodeSpec{Name: "a", Rack: "r1", Clear: []string{"domain", "kg", "status"}}); err != nil {
		t.Fatal(err)
	}
	if n := r.poll().Nodes[0]; n.KG != "" || n.Domain != "" || n.Status != "" || n.Password != "secret" || n.BMC == "" {
		t.Errorf("assigned %+v", n)
	}
	if err := s.tryAdd(true, api.NodeSpec{Name: "a", Rack: "r1", Clear: []string{"bmc"}}); err != nil {
		t.Fatal(err)
	}
	if n := r.poll().Nodes[0]; n.Password != "" || n.BMC != "" {
		t.Errorf("assigned %+v", n)
	}
	auditLog, err := s.Audit(t.Context(), "a", 100)
	if err != nil || len(auditLog) == 0 {
		t.Errorf("audit log %v, %v", auditLog, err)
	}
	for _, e := range auditLog {
		if strings.Contains(e.Detail, "0102") || strings.Contains(e.Detail, "secret") {
			t.Errorf("the audit log tells a secret: %+v", e)
		}
	}
}

// TestABMCInTwoProtocols: a BMC of Redfish without a System is all of its Systems, and one at
// the usual ports is the same by IPMI.
func TestABMCInTwoProtocols(t *testing.T) {
	s := newSite(t)
	for _, n := range []api.NodeSpec{
		bmcNode("n1", "r1", "redfish://admin@192.0.2.1?pin=first"), bmcNode("n2", "r1", "redfish://admin@192.0.2.2/System_0"),
		bmcNode("n3", "r1", "redfish://admin@192.0.2.2/System_1"), bmcNode("n4", "r1", "ipmi://admin@192.0.2.4"),
		bmcNode("n5", "r1", "redfish+http://192.0.2.5:8000/1"),
	} {
		if err := s.tryAdd(false, n); err != nil {
			t.Fatal(err)
		}
	}
	for bmc, other := range map[string]string{
		"redfish://192.0.2.1": "n1", "redfish://192.0.2.1/1": "n1", "ipmi://192.0.2.1": "n1", "redfish+http://192.0.2.1/1": "n1",
		"redfish://192.0.2.2": "n3", "redfish://192.0.2.2/System_1": "n3", "ipmi://192.0.2.2": "n3", "redfish://192.0.2.4/x": "n4",
		"redfish://192.0.2.4": "n4", "redfish+http://192.0.2.5:8000": "n5",
	} {
		err := s.tryAdd(false, bmcNode("n9", "r1", bmc))
		wantCode(t, err, api.CodeRefused)
		if err != nil && !strings.Contains(err.Error(), "that of node "+other) {
			t.Errorf("%s: %v", bmc, err)
		}
	}
	for _, pair := range [][2]string{
		{"redfish://192.0.2.9", "redfish://192.0.2.9/1"}, {"redfish://192.0.2.9/1", "redfish://192.0.2.9"}, {
			"ipmi://192.0.2.9",
			"redfish://192.0.2.9/1",
		},
	} {
		if err := s.tryAdd(false, bmcNode("a1", "r1", pair[0]), bmcNode("a2", "r1", pair[1])); err == nil {
			t.Errorf("%v in one import", pair)
		}
	}
	for _, good := range []api.NodeSpec{
		bmcNode("p1", "r1", "redfish://192.0.2.2/System_2"), bmcNode("p2", "r1", "redfish://192.0.2.1:8443"),
		bmcNode("p3", "r1", "ipmi://192.0.2.2?target=0x30"), bmcNode("p4", "r1", "redfish+http://192.0.2.5:8000/2"),
	} {
		if err := s.tryAdd(false, good); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}

// TestTheProtocolThatWasFoundIsNoted, once, for the BMC that the node has.
func TestTheProtocolThatWasFoundIsNoted(t *testing.T) {
	s := newSite(t)
	for name, bmc := range map[string]string{
		"n1": "auto://admin@192.0.2.1?pin=first", "n2": "auto://admin@192.0.2.2?pin=first",
		"n3": "auto://192.0.2.3",
	} {
		if err := s.tryAdd(false, bmcNode(name, "r1", bmc)); err != nil {
			t.Fatal(err)
		}
	}
	// Until it is known the BMC is taken for one of either protocol.
	for _, bmc := range []string{"ipmi://192.0.2.1", "redfish://192.0.2.1/1", "auto://192.0.2.1"} {
		wantCode(t, s.tryAdd(false, bmcNode("n4", "r2", bmc)), api.CodeRefused)
	}
	r := s.rack("r1")
	r.mustHello()
	r.took(r.poll())
	found := func(node, bmc string) {
		r.read(api.NodeReading{Node: node, Reading: power.Seen(power.On, s.now), Found: &api.FoundBMC{BMC: bmc, Why: "it answers"}})
	}
	found("n1", "redfish://192.0.2.1?pin=first")
	found("n2", "ipmi://192.0.2.2")
	for _, wrong := range []string{"ipmi://192.0.2.9", "auto://192.0.2.3", "ssh://192.0.2.3", ""} {
		found("n3", wrong)
	}
	found("n1", "ipmi://192.0.2.1") // it is decided
	for name, want := range map[string]string{
		"n1": "redfish://admin@192.0.2.1?pin=first", "n2": "ipmi://admin@192.0.2.2",
		"n3": "auto://192.0.2.3",
	} {
		if n := s.node(name); n.BMC != want {
			t.Errorf("%s: %s, want %s", name, n.BMC, want)
		}
	}
	got := map[string]string{}
	for _, n := range r.poll().Nodes {
		got[n.Name] = n.BMC
	}
	if len(got) != 2 || got["n1"] != "redfish://admin@192.0.2.1?pin=first" || got["n2"] != "ipmi://admin@192.0.2.2" {
		t.Errorf("the agent is told %v", got)
	}
	all, err := s.Audit(t.Context(), "n2", 100)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(all)
	if !strings.Contains(text, "bmc-found") ||
		!strings.Contains(text, "bmc ipmi://admin@192.0.2.2, was auto://admin@192.0.2.2?pin=first: it answers") {
		t.Errorf("audit log: %s", text)
	}
	// A password that fits one protocol is not refused for the other.
	long := bmcNode("n5", "r1", "auto://admin@192.0.2.5")
	long.Password = strings.Repeat("p", 40)
	if err := s.tryAdd(false, long); err != nil {
		t.Error(err)
	}
	for name := range s.sharedOf() {
		t.Errorf("%s shares its BMC", name)
	}
}
