package central

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

func TestAskingAgainIsHarmless(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	req := api.OpRequest{ID: newID(), Node: "a", Action: power.ActOn, AskedBy: "admin"}
	ask := func(r api.OpRequest) (api.Op, error) {
		ops, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{r}})
		if err != nil {
			return api.Op{}, err
		}
		return ops[0], nil
	}
	first, err := ask(req)
	if err != nil || first.Phase != api.PhaseTaken || first.Seq == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	s.later(time.Second)
	s.restart()
	again, err := ask(req)
	if err != nil || again.Seq != first.Seq || again.Rev != first.Rev || !again.AskedAt.Equal(first.AskedAt) {
		t.Errorf("again: %+v, %v; first %+v", again, err, first)
	}
	if auditLog := s.auditLog(req.ID); !slices.Equal(auditLog, []string{"asked"}) {
		t.Errorf("audit log %v", auditLog)
	}
	for what, change := range map[string]func(*api.OpRequest){
		"node":        func(r *api.OpRequest) { r.Node = "b" },
		"action":      func(r *api.OpRequest) { r.Action = power.ActOff },
		"if_busy":     func(r *api.OpRequest) { r.IfBusy = power.Queue },
		"boot":        func(r *api.OpRequest) { r.Boot = power.BootPXE },
		"deadline":    func(r *api.OpRequest) { r.Deadline = time.Hour },
		"grace":       func(r *api.OpRequest) { r.Action, r.Grace = power.ActSoftOff, time.Minute },
		"no_escalate": func(r *api.OpRequest) { r.Action, r.NoEscalate = power.ActSoftOff, true },
	} {
		other := req
		change(&other)
		if _, err := ask(other); api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), req.ID) {
			t.Errorf("the same id with another %s: %v", what, err)
		}
	}
}

func TestEachRequestIsAnsweredForItself(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "d")
	if _, err := s.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "nobmc", Rack: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	s.status(power.StatusDeploying, "d")
	ask := api.AskOps{}
	for _, node := range []string{"a", "ghost", "nobmc", "d"} {
		ask.Ops = append(ask.Ops, api.OpRequest{ID: newID(), Node: node, Action: power.ActOff, AskedBy: "admin"})
	}
	for range 2 { // the second time tells the same
		ops, err := s.AskOps(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		want := []struct {
			outcome power.Outcome
			why     power.Reason
			says    string
		}{
			{"", "", "taken by central"},
			{power.Refused, power.ReasonNoNode, "ghost"},
			{power.Refused, power.ReasonConfigless, "nobmc"},
			{power.Refused, power.ReasonDesired, "DEPLOYING"},
		}
		for i, w := range want {
			if o := ops[i]; o.Node != ask.Ops[i].Node || o.Outcome != w.outcome || o.Why != w.why || !strings.Contains(o.Message, w.says) {
				t.Errorf("%s: %+v", ask.Ops[i].Node, o)
			}
		}
	}
	for i, want := range [][]string{{"asked"}, nil, {"asked", "refused"}, {"asked", "refused"}} {
		if auditLog := s.auditLog(ask.Ops[i].ID); !slices.Equal(auditLog, want) {
			t.Errorf("%s: audit log %v, want %v", ask.Ops[i].Node, auditLog, want)
		}
	}
	if o := s.op(ask.Ops[3].ID); o.Outcome != power.Refused || o.EndedAt == nil {
		t.Errorf("a refused request is kept as %+v", o)
	}
}

func TestRequestsThatMakeNoSenseChangeNothing(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	good := api.OpRequest{ID: newID(), Node: "a", Action: power.ActOn}
	for what, change := range map[string]func(*api.OpRequest){
		"id":       func(r *api.OpRequest) { r.ID = "x" },
		"action":   func(r *api.OpRequest) { r.Action = "explode" },
		"boot":     func(r *api.OpRequest) { r.Action, r.Boot = power.ActOff, power.BootPXE },
		"deadline": func(r *api.OpRequest) { r.Deadline = -1 },
		"node":     func(r *api.OpRequest) { r.Node = "" },
		"reason":   func(r *api.OpRequest) { r.Reason = strings.Repeat("x", 2000) },
	} {
		bad := api.OpRequest{ID: newID(), Node: "a", Action: power.ActOn}
		change(&bad)
		_, err := s.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{good, bad}})
		if api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), "request 2") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if found, _ := s.QueryOps(t.Context(), api.QueryOps{}); len(found.Ops) != 0 {
		t.Errorf("stored: %+v", found.Ops)
	}
}

func TestADryRunStoresNothing(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	cycle := r.deliver("a", power.ActCycle)
	r.mustReport(r.running(cycle))
	ops, err := s.AskOps(t.Context(), api.AskOps{DryRun: true, Ops: []api.OpRequest{
		{ID: newID(), Node: "a", Action: power.ActOff}, {ID: newID(), Node: "a", Action: power.ActOn}, {
			ID: newID(), Node: "x",
			Action: power.ActOn,
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if ops[0].Verdict != power.VerdictSupersede || ops[1].Verdict != power.VerdictJoin || ops[2].Outcome != power.Refused ||
		!strings.Contains(ops[0].Message, "cycle (asked by "+meFor("admin")) {
		t.Errorf("%+v", ops)
	}
	if found, _ := s.QueryOps(t.Context(), api.QueryOps{}); len(found.Ops) != 1 {
		t.Errorf("stored: %+v", found.Ops)
	}
}

func TestTheAskerIsToldThatTheAgentIsAway(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	if o := s.ask("a", power.ActOn); !strings.Contains(o.AgentNote, "never said hello") || !strings.Contains(o.Message, "kept until") {
		t.Errorf("%q, %q", o.Message, o.AgentNote)
	}
	r := s.rack("r1")
	r.poll()
	if o := s.ask("a", power.ActOn); o.AgentNote != "" || o.Message != "taken by central" {
		t.Errorf("%q, %q", o.Message, o.AgentNote)
	}
	s.later(40 * time.Second)
	o := s.ask("a", power.ActOn)
	if !strings.Contains(o.Message, "agent r1 is away since") || !strings.Contains(o.Message, "Z (last seen 40 s ago)") {
		t.Errorf("%q", o.Message)
	}
	if a := s.agent("r1"); a.State != "away" || a.Taken != 3 || a.SeenAt == nil {
		t.Errorf("%+v", a)
	}
	s.restart()
	if a := s.agent("r1"); a.State != "away" || a.SeenAt == nil {
		t.Errorf("after a restart: %+v", a)
	}
	got := r.pollBehind(time.Minute) // the two that were not delivered come at once
	if g := <-got; len(g.Ops) != 2 {
		t.Errorf("%+v", g)
	}
	if a := s.agent("r1"); a.State != "alive" {
		t.Errorf("%+v", a)
	}
}

func TestWhatNeverLeftExpires(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	delivered := r.deliver("a", power.ActOn)
	kept := s.ask("a", power.ActOff)
	s.c.expire(context.Background())
	if o := s.op(kept.ID); o.Phase != api.PhaseTaken {
		t.Fatalf("before its time: %+v", o)
	}
	s.later(6 * time.Minute)
	s.c.expire(context.Background())
	if o := s.op(kept.ID); o.Outcome != power.Expired || o.Why != power.ReasonDeadline {
		t.Errorf("%+v", o)
	}
	if o := s.op(delivered.ID); o.Phase != api.PhaseTaken {
		t.Errorf("central ended what it had delivered: %+v", o)
	}
	if got := r.poll(); len(got.Ops) != 0 {
		t.Errorf("an expired request left: %v", ids(got.Ops))
	}
	r.cursor = 0 // the agent starts anew: only it can know
	if got := r.poll(); len(got.Ops) != 1 || got.Ops[0].ID != delivered.ID {
		t.Errorf("%v", ids(got.Ops))
	}
}

func TestCancel(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	cancel := func(id string) (api.Op, error) {
		return s.CancelOp(t.Context(), id, api.CancelOp{AskedBy: "boss", Reason: "no"})
	}
	_, err := cancel(newID())
	wantCode(t, err, api.CodeNotFound)

	early := s.ask("a", power.ActOn)
	o, err := cancel(early.ID)
	if err != nil || o.Outcome != power.Cancelled || o.CancelBy != meFor("boss") || o.Why != power.ReasonAsked {
		t.Fatalf("before it left: %+v, %v", o, err)
	}
	if got := r.poll(); len(got.Ops)+len(got.Cancels) != 0 {
		t.Errorf("the agent is told: %+v", got)
	}
	_, err = cancel(early.ID)
	wantCode(t, err, api.CodeRefused)
	if !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("%v", err)
	}

	late := r.deliver("b", power.ActCycle)
	got := r.pollBehind(time.Minute)
	if o, err = cancel(late.ID); err != nil || o.Phase != api.PhaseTaken || o.CancelBy != meFor("boss") {
		t.Fatalf("%+v, %v", o, err)
	}
	g := <-got
	if len(g.Cancels) != 1 || g.Cancels[0] != (api.Cancel{ID: late.ID, Node: "b", Action: power.ActCycle, By: meFor("boss"), Reason: "no"}) {
		t.Fatalf("%+v", g)
	}
	// The answer was lost: it comes again, as long as the operation has not ended.
	if again := r.poll(); len(again.Cancels) != 1 {
		t.Errorf("%+v", again)
	}
	if again := r.poll(); len(again.Cancels) != 0 {
		t.Errorf("with the cursor moved: %+v", again)
	}
	r.cursor = 0
	if again := r.poll(); len(again.Cancels) != 1 {
		t.Errorf("at a new start: %+v", again)
	}
	if _, err := cancel(late.ID); err != nil {
		t.Errorf("cancelling twice: %v", err)
	}
	r.mustReport(r.running(late))
	joiner := r.deliver("b", power.ActCycle)
	r.mustReport(r.joined(joiner, late.ID))
	_, err = cancel(joiner.ID)
	wantCode(t, err, api.CodeRefused)
	if !strings.Contains(err.Error(), late.ID) {
		t.Errorf("%v", err)
	}
	r.mustReport(r.ended(late, power.Cancelled))
	r.cursor = 0
	if again := r.poll(); len(again.Cancels)+len(again.Ops) != 0 {
		t.Errorf("after its end: %+v", again)
	}
	if auditLog := s.auditLog(late.ID); !slices.Equal(auditLog, []string{"asked", "cancel", "accepted", "started", "ended"}) {
		t.Errorf("audit log %v", auditLog)
	}
}

// TestExpiryAndDeliveryNeverBoth runs the two against each other.
func TestExpiryAndDeliveryNeverBoth(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	for range 40 {
		id := s.ask("a", power.ActOn).ID
		s.later(5 * time.Minute)
		done := make(chan struct{})
		go func() { s.c.expire(context.Background()); close(done) }()
		got := r.poll()
		<-done
		s.c.expire(context.Background())
		left, o := len(got.Ops) == 1, s.op(id)
		if left == (o.Outcome == power.Expired) {
			t.Fatalf("delivered: %v, and it is %q", left, o.Outcome)
		}
		if left {
			r.mustReport(r.ended(got.Ops[0], power.Expired))
		}
	}
}

func TestQueryWaitsForNews(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	one, two := s.ask("a", power.ActOn), s.ask("b", power.ActOn)
	all, err := s.QueryOps(t.Context(), api.QueryOps{})
	if err != nil || len(all.Ops) != 2 || all.Ops[0].ID != one.ID {
		t.Fatalf("%+v, %v", all, err)
	}
	began := time.Now()
	if none, err := s.QueryOps(t.Context(), api.QueryOps{AfterRev: all.Rev, Wait: 50 * time.Millisecond}); err != nil || len(none.Ops) != 0 ||
		time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v, %v", none, err)
	}
	got := make(chan api.FoundOps, 1)
	go func() {
		found, _ := s.QueryOps(context.Background(), api.QueryOps{IDs: []string{two.ID}, AfterRev: all.Rev, Wait: time.Minute})
		got <- found
	}()
	if _, err := s.CancelOp(t.Context(), one.ID, api.CancelOp{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CancelOp(t.Context(), two.ID, api.CancelOp{}); err != nil {
		t.Fatal(err)
	}
	if found := <-got; len(found.Ops) != 1 || found.Ops[0].Outcome != power.Cancelled || found.Rev <= all.Rev {
		t.Errorf("%+v", found)
	}
	for what, q := range map[string]api.QueryOps{
		"outstanding": {Outstanding: true}, "nodes": {Nodes: []string{"x"}}, "since": {Since: s.clock().Add(time.Second)},
	} {
		if found, err := s.QueryOps(t.Context(), q); err != nil || len(found.Ops) != 0 {
			t.Errorf("%s: %+v, %v", what, found.Ops, err)
		}
	}
	if found, _ := s.QueryOps(t.Context(), api.QueryOps{Limit: 1}); len(found.Ops) != 1 || found.Ops[0].ID != two.ID {
		t.Errorf("the newest is kept: %+v", found.Ops)
	}
	if found, _ := s.QueryOps(t.Context(), api.QueryOps{AfterRev: 1 << 50, Wait: time.Minute}); len(found.Ops) != 2 {
		t.Errorf("a revision of another database: %+v", found)
	}
}

func TestUnknownFieldsAndBigBodiesAreRefused(t *testing.T) {
	s := newSite(t)
	err := s.Do(t.Context(), "POST", "/v1/nodes/status", map[string]any{"names": []string{"a"}, "status": "READY", "confirmd": true}, nil)
	wantCode(t, err, api.CodeBadRequest)
	if !strings.Contains(err.Error(), "confirmd") {
		t.Errorf("%v", err)
	}
	err = s.Do(t.Context(), "POST", "/v1/ops", map[string]any{"ops": []any{}, "x": strings.Repeat("y", maxAdminBody)}, nil)
	wantCode(t, err, api.CodeTooLarge)
	err = s.Do(t.Context(), "POST", "/v1/agents/r1/hello", map[string]any{"journal_id": "j", "of_a_later_version": 1}, nil)
	if err != nil {
		t.Errorf("a newer agent: %v", err)
	}
	wantCode(t, s.Do(t.Context(), "GET", "/v2/x", nil, nil), api.CodeNotFound)
	for _, name := range []string{"a%20b", "-x", "x-", "all", "central", strings.Repeat("x", 64)} {
		err := s.Do(t.Context(), "POST", "/v1/agents/"+name+"/hello", map[string]any{"journal_id": "j"}, nil)
		if api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("an agent named %s: %v", name, err)
		}
	}
}

func TestAFullDiskIsToldAsSuch(t *testing.T) {
	s := newSite(t)
	for want, err := range map[api.Code]error{
		api.CodeUnavailable: fmt.Errorf("cannot save: %w", store.ErrDisk),
		api.CodeInternal:    fmt.Errorf("cannot save: %w", store.ErrCorrupt),
		api.CodeBusy:        fmt.Errorf("wrapped: %w", api.Problemf(api.CodeBusy, "x")),
	} {
		if got := s.c.problem(err); got.Code != want {
			t.Errorf("%v is told as %s", err, got.Code)
		}
	}
}

// TestBodiesAreCheckedAtTheDoor sends each body that people send with a text that is too long:
// it is refused for that, whether or not what it names is there.
func TestBodiesAreCheckedAtTheDoor(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	for path, more := range map[string]map[string]any{
		"nodes/remove":      {"names": []string{"n1"}},
		"nodes/status":      {"names": []string{"n1"}, "status": "READY"},
		"nodes/hold":        {"names": []string{"n1"}, "want": "on"},
		"nodes/retry":       {"names": []string{"n1"}},
		"ops/x/cancel":      {},
		"racks/r1":          {},
		"racks/r1/pause":    {},
		"brakes/release":    {"racks": []string{"r1"}},
		"domains":           {"name": "d", "rate": 1},
		"schedules":         {"name": "x", "cron": "0 2 * * *", "nodes": "n1", "want": "on"},
		"schedules/remove":  {"name": "x"},
		"agents/r1/ack":     {},
		"agents/r1/forget":  {},
		"nodes":             {"nodes": []map[string]any{{"name": "n2", "rack": "r1", "bmc": "ipmi://u@10.0.0.9"}}},
		"agents/none/ack":   {},
		"racks/none/pause":  {},
		"ops/none/cancel":   {},
		"schedules/remove?": {"name": "none"},
	} {
		in := map[string]any{"asked_by": strings.Repeat("x", api.MaxText+1)}
		if path != "nodes" {
			in["reason"] = "test"
		}
		maps.Copy(in, more)
		err := s.Do(t.Context(), "POST", "/v1/"+path, in, nil)
		if api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := s.node("n1"); n.Hold != nil || n.Status != "" {
		t.Errorf("%+v", n)
	}
}

// A request for thousands of nodes changes so much of a large database that what would undo it is
// more than is kept of most jobs.
func TestThousandsAreTakenAtOnce(t *testing.T) {
	s := newSite(t)
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("n%04d", i))
	}
	s.nodes(names...)
	err := s.c.store.Write(t.Context(), func(tx *store.Tx) error {
		var all error
		for i := range 40_000 {
			name := names[i%len(names)]
			all = errors.Join(all, endedOp(tx, fmt.Sprintf("old-%06d", i), name, s.clock()))
		}
		return all
	})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		var in api.AskOps
		for _, name := range names {
			in.Ops = append(in.Ops, api.OpRequest{ID: newID(), Node: name, Action: power.ActOn, Reason: "test"})
		}
		if ops, err := s.AskOps(t.Context(), in); err != nil || len(ops) != len(names) {
			t.Fatalf("round %d: %d taken, %v", round, len(ops), err)
		}
	}
}
