package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/journal"
	"rackpower/power"
)

// The centrals of these tests.
var (
	c1, c2     = api.Database{CentralID: "c1"}, api.Database{CentralID: "c2"}
	theCentral = api.Database{CentralID: "central"}
)

// notes is a log in memory that notes what was appended, one line an append.
type notes struct {
	lines []string
	live  map[string]journal.Record
	lsn   uint64
	err   error
	fails int // at that append, once
}

func (n *notes) Append(entries ...journal.Entry) (uint64, error) {
	if n.err != nil {
		return 0, n.err
	}
	if n.fails--; n.fails == 0 {
		return 0, errors.New("no space left")
	}
	if n.live == nil {
		n.live = map[string]journal.Record{}
	}
	var line []string
	for _, e := range entries {
		n.lsn++
		line = append(line, fmt.Sprintf("%s %s", e.Op, e.Key))
		if e.Op == journal.Drop {
			delete(n.live, e.Key)
		} else {
			n.live[e.Key] = journal.Record{LSN: n.lsn, Entry: e}
		}
	}
	n.lines = append(n.lines, strings.Join(line, ", "))
	return n.lsn, nil
}

func (n *notes) records() []journal.Record {
	var list []journal.Record
	for _, r := range n.live {
		list = append(list, r)
	}
	return list
}

func (n *notes) want(t *testing.T, lines ...string) {
	t.Helper()
	if !slices.Equal(n.lines, lines) {
		t.Fatalf("written: %q, want %q", n.lines, lines)
	}
	n.lines = nil
}

var (
	testRing = seal.NewRing(seal.NewKey())
	testKeys = &sealKeys{ring: testRing, written: true}
)

func loaded(t *testing.T, n *notes) *assigned {
	t.Helper()
	s, _, err := loadAssigned("r1", n, testKeys, n.records())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func handsOff(name string) api.AssignedNode {
	return api.AssignedNode{Name: name, BMC: "ipmi://admin@" + name, Password: "secret", Desired: power.Desired{Want: power.HandsOff}}
}

func (s *assigned) must(t *testing.T, a api.Assignment, central api.Database) (changed, gone []string) {
	t.Helper()
	changed, gone, err := s.apply(a, central)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(gone)
	return changed, gone
}

// TestWhichCredentialsTheAgentTakes: the rack's own of the name, else what central gave; one
// must have them.
func TestWhichCredentialsTheAgentTakes(t *testing.T) {
	own := map[string]power.Login{"lab": {User: "local", Password: "of-the-rack"}, "keyed": {User: "k", Password: "p", KG: "kg"}}
	for name, c := range map[string]struct {
		node api.AssignedNode
		want string // user, password and K_g; "": refused
	}{
		"its own password": {api.AssignedNode{Password: "mine", KG: "g"}, "admin mine g"},
		"central's":        {api.AssignedNode{Password: "central", Credentials: "far"}, "admin central "},
		"the rack's":       {api.AssignedNode{Credentials: "lab", KG: "g"}, "local of-the-rack g"},
		"both have them":   {api.AssignedNode{Password: "central", Credentials: "lab"}, "local of-the-rack "},
		"with K_g":         {api.AssignedNode{Credentials: "keyed", KG: "g"}, "k p kg"},
		"nobody has them":  {api.AssignedNode{Credentials: "far"}, ""},
	} {
		s := loaded(t, &notes{})
		s.own = func(name string) (power.Login, bool) { l, found := own[name]; return l, found }
		c.node.Name, c.node.BMC = "n1", "ipmi://admin@192.0.2.1"
		s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{c.node}, Rev: 1}, c1)
		ep, err := s.endpoint("n1")
		if got := ep.User + " " + string(ep.Password) + " " + string(ep.KG); err == nil && got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if (err != nil) != (c.want == "") || (s.lacks("n1") != "") != (c.want == "") {
			t.Errorf("%s: %v, lacks %q", name, err, s.lacks("n1"))
		}
		var refused endError
		if c.want == "" && (!errors.As(err, &refused) || refused.end.Reason != power.ReasonNoCredentials || s.lacks("n1") != "far") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAssignmentInPartsAndInFull(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	changed, gone := s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n2"), handsOff("n1")}, Rev: 3}, c1)
	wantIDs(t, "changed", changed, "n2", "n1")
	wantIDs(t, "gone", gone)
	log.want(t, "put node/n2, put node/n1, put sync, put trust")

	n1 := handsOff("n1")
	n1.Password = "other"
	changed, gone = s.must(t, api.Assignment{Nodes: []api.AssignedNode{n1, handsOff("n2"), handsOff("n3")}, Removed: []string{"n9"}, Rev: 4},
		c1)
	wantIDs(t, "changed", changed, "n1", "n3")
	wantIDs(t, "gone", gone)
	log.want(t, "put node/n1, put node/n3, put sync")

	_, gone = s.must(t, api.Assignment{Removed: []string{"n2", "n3"}, Nodes: []api.AssignedNode{handsOff("n3")}, Rev: 5}, c1)
	wantIDs(t, "gone, unless it is named too", gone, "n2")
	log.want(t, "drop node/n2, put sync, put trust")
	wantIDs(t, "nodes", s.names(), "n1", "n3")

	_, gone = s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n4")}, Confirmed: []string{"n1", "n3"}, Rev: 6}, c1)
	wantIDs(t, "gone", gone, "n1", "n3")
	wantIDs(t, "nodes", s.names(), "n4")

	again := loaded(t, log)
	wantIDs(t, "nodes after a restart", again.names(), "n4")
	if got := again.position(); got != (syncRecord{Database: c1, Rev: 6}) {
		t.Fatalf("position after a restart: %+v", got)
	}
	if n, ok := again.get("n4"); !ok || n.AssignedNode != handsOff("n4") {
		t.Fatalf("node after a restart: %+v", n)
	}
}

func TestUnchangedAssignmentWritesNothing(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	full := api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n1")}, Rev: 3}
	s.must(t, full, c1)
	log.lines = nil
	for _, a := range []api.Assignment{{Rev: 3}, full, {Nodes: full.Nodes, Rev: 3}, {Removed: []string{"n9"}, Rev: 3}} {
		if changed, gone := s.must(t, a, c1); len(changed)+len(gone) != 0 {
			t.Errorf("%+v changed %v, gone %v", a, changed, gone)
		}
	}
	log.want(t)
	s.must(t, api.Assignment{Rev: 4}, c1)
	log.want(t, "put sync")
	if _, _, err := s.apply(api.Assignment{Rev: 4}, c2); err == nil {
		t.Error("an assignment of a central that is not trusted was taken")
	}
	log.want(t)
}

func TestAssignmentThatIsNotDurableIsNotApplied(t *testing.T) {
	log := &notes{}
	s := loaded(t, log)
	s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n1")}, Rev: 3}, c1)
	log.err = errors.New("no space left")
	if _, _, err := s.apply(api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n2")}, Rev: 4}, c1); err == nil {
		t.Fatal("no error")
	}
	wantIDs(t, "nodes", s.names(), "n1")
	if got := s.position(); got.Rev != 3 {
		t.Fatalf("position %+v moved past what is durable", got)
	}
}

func TestDamagedAssignmentRecordIsAnError(t *testing.T) {
	for _, kind := range []journal.Kind{kindNode, kindSync, kindMemory, kindRack, kindBrake, kindHold} {
		_, _, err := loadAssigned("r1", &notes{}, testKeys, []journal.Record{{LSN: 7, Entry: journal.Entry{Kind: kind, Payload: []byte("{")}}})
		if err == nil || !strings.Contains(err.Error(), "record 7") {
			t.Errorf("%s: %v", KindName(uint8(kind)), err)
		}
	}
}

func TestEndpointOfANode(t *testing.T) {
	s := loaded(t, &notes{})
	bare, bad := handsOff("bare"), handsOff("bad")
	bare.BMC, bad.BMC = "", "telnet://x"
	s.must(t, api.Assignment{Nodes: []api.AssignedNode{handsOff("n1"), bare, bad}, Rev: 1}, c1)
	a := &Agent{assigned: s, cfg: Config{Name: "r1"}}
	ep, err := a.assigned.endpoint("n1")
	if err != nil || ep.Host != "n1" || ep.User != "admin" || string(ep.Password) != "secret" {
		t.Fatalf("endpoint %v of %q, %v", ep, ep.Host, err)
	}
	for node, want := range map[string]power.Reason{
		"bare": power.ReasonConfigless, "bad": power.ReasonConfigless,
		"gone": power.ReasonNoNode,
	} {
		var end endError
		if _, err := a.assigned.endpoint(node); !errors.As(err, &end) || end.end.Reason != want || end.end.Outcome != power.Failed {
			t.Errorf("%s: %v, want %s", node, err, want)
		}
	}
}

// TestALargeAssignmentIsWrittenInGroups takes nodes for three appends, with holds set here that
// another database had confirmed. Whichever append fails, with a restart behind it or
// without, no hold is lost, the revision is not passed, and the next time does it.
func TestALargeAssignmentIsWrittenInGroups(t *testing.T) {
	const nodes = 40
	assignment := func(rev int64, holds bool) api.Assignment {
		a := api.Assignment{Full: true, Rev: rev}
		for i := range nodes {
			n := handsOff(fmt.Sprintf("n%02d", i))
			n.Password = strings.Repeat("x", 3_750)
			if holds && i%2 == 0 {
				n.Hold = power.Hold{Want: power.WantOff, By: "ann", Seq: 40}
			}
			a.Nodes = append(a.Nodes, n)
		}
		return a
	}
	open := func(log *notes) *assigned {
		s := loaded(t, log)
		s.together = 80 << 10
		return s
	}
	for fails := range 5 {
		for _, restart := range []bool{false, true} {
			log := &notes{}
			s := open(log)
			s.must(t, assignment(3, true), c1)
			log.lines = nil
			s.sync.Database, s.sync.Rev = c2, 9 // of another database, which had confirmed the holds
			log.fails = fails
			next := assignment(4, false)
			for i := range next.Nodes {
				next.Nodes[i].Password = strings.Repeat("y", 3_750)
			}
			if _, _, err := s.apply(next, c1); (err != nil) != (fails > 0 && fails < 4) {
				t.Fatalf("append %d fails: %v after %d groups", fails, err, len(log.lines))
			} else if err == nil && len(log.lines) != 3 {
				t.Fatalf("%d groups", len(log.lines))
			} else if err != nil {
				if s.position().Rev == next.Rev {
					t.Fatal("the revision was passed")
				}
				if restart {
					s = open(log)
					s.sync.Database = c2
				}
				s.must(t, next, c1)
			}
			for _, s := range []*assigned{s, open(log)} {
				for i, n := range s.all() {
					want := map[bool]power.Want{true: power.WantOff}[i%2 == 0]
					if n.hold.Want != want || n.Password != next.Nodes[i].Password {
						t.Fatalf("append %d fails, restart %v: node %s is held %q, want %q", fails, restart, n.Name, n.hold.Want, want)
					}
				}
				if s.position() != (syncRecord{Database: c1, Rev: 4}) || len(s.all()) != nodes {
					t.Fatalf("%d nodes at %+v", len(s.all()), s.position())
				}
			}
		}
	}
}

// stuckLog is a log whose disk does not come back until it is told to.
type stuckLog struct {
	*notes
	entered, free chan struct{}
}

func (l *stuckLog) Append(entries ...journal.Entry) (uint64, error) {
	close(l.entered)
	<-l.free
	return l.notes.Append(entries...)
}

// TestReadersOfTheAssignmentWaitForNoDisk: they see what is durable until more is.
func TestReadersOfTheAssignmentWaitForNoDisk(t *testing.T) {
	s := loaded(t, &notes{})
	s.must(t, api.Assignment{Full: true, Nodes: []api.AssignedNode{handsOff("n1")}, Rev: 1}, c1)
	log := &stuckLog{notes: &notes{}, entered: make(chan struct{}), free: make(chan struct{})}
	s.log = log
	done := make(chan error, 1)
	go func() {
		_, _, err := s.apply(api.Assignment{Nodes: []api.AssignedNode{handsOff("n2")}, Rev: 2}, c1)
		done <- err
	}()
	<-log.entered
	_, known := s.get("n2")
	if known || s.position().Rev != 1 || s.trusts().Database != c1 || s.newest() != 0 || len(s.unconfirmed()) != 0 {
		t.Error("readers see what is not durable")
	}
	_ = s.settings()
	wantIDs(t, "nodes while the disk hangs", s.names(), "n1")
	close(log.free)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "nodes", s.names(), "n1", "n2")
}

// The settings of the rack, and with them a pause, are durable before the nodes that they are
// about, of which there may be several groups.
func TestAPauseIsKeptBeforeTheNodes(t *testing.T) {
	n := new(notes)
	s := loaded(t, n)
	pause := &api.RackSettings{Pause: &api.Pause{By: "central", Restored: true}}
	s.must(t, api.Assignment{Rev: 1, Nodes: []api.AssignedNode{handsOff("n1")}, Rack: pause}, theCentral)
	if line := n.lines[0]; !strings.HasPrefix(line, "put rack, put node/n1, ") {
		t.Errorf("written: %s", line)
	}
}
