package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/power"
	"rackpower/power/powertest"
)

// serveControl serves the socket of an agent until the end of the test.
func serveControl(t *testing.T, c *control) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "agent.sock")
	l, err := httpserver.ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); c.serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-ended; _ = os.RemoveAll(dir) })
	return path
}

// me is the user who runs the tests, as the agent knows him.
var me = func() string {
	if account, err := user.Current(); err == nil {
		return account.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}()

// withControl starts an agent without a central and a client of its socket.
func withControl(t *testing.T, nodes int, opts ...func(*Config)) (*harness, *api.Client) {
	t.Helper()
	r := &harness{t: t, fake: powertest.NewFake()}
	r.cfg = Config{
		Name: "r1", Dir: t.TempDir(), Version: "test", Dial: r.fake.Dial, Monitor: MonitorOff, Timing: quick(),
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, o := range opts {
		o(&r.cfg)
	}
	r.start()
	t.Cleanup(r.crash)
	for i := range nodes {
		r.nodes = append(r.nodes, handsOff(fmt.Sprintf("n%d", i+1)))
	}
	r.assign(r.nodes...)
	eventually(t, "the agent runs", func() bool {
		r.a.mu.Lock()
		defer r.a.mu.Unlock()
		return r.a.running
	})
	client, err := api.NewClient("unix://" + serveControl(t, r.a.control))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return r, client
}

func ok[T any](t *testing.T) func(T, error) T {
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func wantCode(t *testing.T, err error, code api.Code, text string) {
	t.Helper()
	if api.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v (%s), want %s with %q", err, api.CodeOf(err), code, text)
	}
}

// askAt asks for one operation at the socket.
func askAt(t *testing.T, c *api.Client, req api.OpRequest) api.Op {
	t.Helper()
	ops := ok[[]api.Op](t)(c.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{req}}))
	if len(ops) != 1 || ops[0].ID != req.ID {
		t.Fatalf("answer to %s: %+v", req.ID, ops)
	}
	return ops[0]
}

// waitsForOn waits until an operation has sent its command and looks for its effect.
func (r *harness) waitsForOn(id string) {
	r.t.Helper()
	eventually(r.t, id+" waits for on", func() bool {
		got, _ := r.a.outbox.find(id)
		return got.Phase == api.PhaseRunning+": waiting for on"
	})
}

// endAt follows an operation by long polls until it has ended.
func endAt(t *testing.T, c *api.Client, id string) api.Op {
	t.Helper()
	rev := int64(0)
	for range 100 {
		found := ok[api.FoundOps](t)(c.QueryOps(t.Context(), api.QueryOps{IDs: []string{id}, AfterRev: rev, Wait: 5 * time.Second}))
		if len(found.Ops) == 1 && found.Ops[0].EndedAt != nil {
			return found.Ops[0]
		}
		rev = found.Rev
	}
	t.Fatalf("%s does not end", id)
	return api.Op{}
}

func TestControlAskAndFollow(t *testing.T) {
	r, c := withControl(t, 1)
	before := time.Now()
	op := askAt(t, c, api.OpRequest{
		ID: id("a"), Node: "n1", Action: power.ActOn, Options: power.Options{Boot: power.BootPXE}, AskedBy: "ann", Reason: "repair",
		Deadline: time.Hour,
	})
	if op.Verdict != power.VerdictStart || op.Rack != "r1" || op.Origin != power.FromLocal || op.AskedBy != me+" for ann" ||
		op.Reason != "repair" ||
		op.Seq == 0 ||
		op.Message == "" || op.Boot != power.BootPXE || op.Deadline.Before(before.Add(time.Hour)) || op.AskedAt.Before(before) {
		t.Fatalf("answer %+v", op)
	}
	end := endAt(t, c, id("a"))
	if end.Outcome != power.Succeeded || end.Why != power.ReasonVerified || end.Attempts != 1 || end.State != power.On || end.Already ||
		end.StartedAt == nil {
		t.Fatalf("end %+v", end)
	}
	if again := askAt(t, c, api.OpRequest{
		ID: id("a"), Node: "n1", Action: power.ActOn,
		Options: power.Options{Boot: power.BootPXE},
	}); again.Outcome != power.Succeeded || again.AskedBy != me+" for ann" {
		t.Fatalf("asked again: %+v", again)
	}
	if local := askAt(t, c, api.OpRequest{ID: id("b"), Node: "n1", Action: power.ActOn}); local.AskedBy != me {
		t.Fatalf("nameless asker: %+v", local)
	}
	if end := endAt(t, c, id("b")); !end.Already {
		t.Fatalf("end %+v", end)
	}
	r.wantCommands("n1", power.PowerOn)
	if err := r.a.apply(api.Assignment{Full: true, Rev: 2}, theCentral); err != nil {
		t.Fatal(err)
	}
	if again := askAt(t, c, api.OpRequest{
		ID: id("a"), Node: "n1", Action: power.ActOn,
		Options: power.Options{Boot: power.BootPXE},
	}); again.Outcome != power.Succeeded {
		t.Fatalf("asked again when the node is gone: %+v", again)
	}
}

// TestControlTellsRefusalsOneByOne: each request of a body stands for itself.
func TestControlTellsRefusalsOneByOne(t *testing.T) {
	r, c := withControl(t, 2)
	deploying := handsOff("n2")
	deploying.Status, deploying.Desired = power.StatusDeploying, power.StatusDeploying.Desired()
	r.assign(deploying)
	ops := ok[[]api.Op](t)(c.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{
		{ID: id("a"), Node: "nowhere", Action: power.ActOff}, {ID: id("b"), Node: "n2", Action: power.ActOff}, {
			ID: id("c"), Node: "n1",
			Action: power.ActOff,
		},
	}}))
	for i, want := range []struct {
		verdict power.Verdict
		why     power.Reason
		outcome power.Outcome
	}{
		{power.VerdictRefuse, power.ReasonNoNode, power.Refused},
		{power.VerdictRefuse, power.ReasonDesired, power.Refused},
		{power.VerdictStart, power.ReasonIdle, ""},
	} {
		got := ops[i]
		if got.Verdict != want.verdict || got.Why != want.why || got.Outcome != want.outcome {
			t.Errorf("%s: %+v, want %+v", got.ID, got, want)
		}
	}
	if !strings.Contains(ops[1].Message, "set-status") {
		t.Errorf("refused without a way out: %q", ops[1].Message)
	}
	for _, id := range []string{id("a"), id("b")} {
		if got, known := r.a.outbox.find(id); !known || got.End == nil || got.End.Outcome != power.Refused {
			t.Errorf("central would not hear of the refused %s: %+v", id, got)
		}
	}
	endAt(t, c, id("c"))
	r.wantCommands("n2")
}

func TestControlBadRequestAcceptsNothing(t *testing.T) {
	r, c := withControl(t, 1)
	for _, bad := range []api.OpRequest{
		{ID: id("b"), Node: "n1", Action: "explode"},
		{Node: "n1", Action: power.ActOn},
		{ID: id("b"), Action: power.ActOn},
		{ID: id("b"), Node: "n1", Action: power.ActOff, Options: power.Options{Boot: power.BootPXE}},
		{ID: id("b"), Node: "n1", Action: power.ActOn, Options: power.Options{Grace: time.Second}},
		{ID: id("b"), Node: "n1", Action: power.ActOn, Options: power.Options{IfBusy: "perhaps"}},
	} {
		for _, dry := range []bool{false, true} {
			_, err := c.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{ID: id("a"), Node: "n1", Action: power.ActOn}, bad}, DryRun: dry})
			wantCode(t, err, api.CodeBadRequest, "")
		}
	}
	if ids := r.a.outbox.unacknowledged(); len(ids) != 0 || len(r.a.log.Live()) != 0 {
		t.Fatalf("accepted: %v", ids)
	}
	r.wantCommands("n1")
}

func TestControlMalformedBodies(t *testing.T) {
	r, _ := withControl(t, 1)
	srv := httptest.NewServer(r.a.control.routes())
	defer srv.Close()
	for _, c := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"POST", "/v1/ops", `{"ops":[],"dryrun":true}`, 400, "dryrun"},
		{"POST", "/v1/ops", `{"ops":[{"id":"` + id("a") + `","node":"n1","action":"on","bootdev":"pxe"}]}`, 400, "bootdev"},
		{"POST", "/v1/ops", `{"ops":`, 400, "cannot read the body"},
		{"POST", "/v1/ops", ``, 400, "the body is missing"},
		{"POST", "/v1/ops/query", `{"id":"a"}`, 400, "unknown field"},
		{"POST", "/v1/ops/a/cancel", `{"who":"x"}`, 400, "unknown field"},
		{"POST", "/v1/reads", `{"nodes":["n1"]}`, 400, "unknown field"},
		{"GET", "/v1/nodes?select=n%5B1-", "", 400, ""},
		{"GET", "/v1/ops", "", 405, ""},
		{"GET", "/v1/agents", "", 404, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, srv.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(data), c.text) {
			t.Errorf("%s %s %s: %d %s, want %d with %q", c.method, c.path, c.body, resp.StatusCode, data, c.status, c.text)
		}
		if c.status == 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %s", c.method, c.path, resp.Header.Get("Content-Type"))
		}
	}
	r.wantCommands("n1")
}

func TestControlDryRunChangesNothing(t *testing.T) {
	r, c := withControl(t, 2)
	r.slow("n1")
	askAt(t, c, api.OpRequest{ID: id("on"), Node: "n1", Action: power.ActOn})
	r.waitsForOn(id("on"))
	ready := handsOff("n2")
	ready.Status, ready.Desired = power.StatusReady, power.StatusReady.Desired()
	r.assign(ready)
	lsn, clock, revs := r.a.log.LSN(), r.a.clock.Now(time.Now()), r.a.outbox.waiting()
	ops := ok[[]api.Op](t)(c.AskOps(t.Context(), api.AskOps{DryRun: true, Ops: []api.OpRequest{
		{ID: id("a"), Node: "n1", Action: power.ActOff},
		{ID: id("b"), Node: "n1", Action: power.ActOn},
		{ID: id("c"), Node: "n1", Action: power.ActCycle},
		{ID: id("d"), Node: "n2", Action: power.ActOn},
		{ID: id("e"), Node: "n2", Action: power.ActOff},
		{ID: id("f"), Node: "nowhere", Action: power.ActOff},
	}}))
	for i, want := range []struct {
		verdict power.Verdict
		why     power.Reason
	}{
		{power.VerdictSupersede, power.ReasonConflict},
		{power.VerdictJoin, power.ReasonEqual},
		{power.VerdictFollow, power.ReasonMore},
		{power.VerdictRefuse, power.ReasonDesired},
		{power.VerdictStart, power.ReasonIdle},
		{power.VerdictRefuse, power.ReasonNoNode},
	} {
		got := ops[i]
		if got.Verdict != want.verdict || got.Why != want.why || got.Phase != phaseDryRun || got.Message == "" || got.EndedAt != nil {
			t.Errorf("%s: %+v, want %+v", got.ID, got, want)
		}
	}
	if r.a.log.LSN() != lsn || r.a.clock.Now(time.Now()) != clock || r.a.outbox.waiting() != revs {
		t.Errorf("a dry run wrote %d records, moved the clock by %d, left %d words", r.a.log.LSN()-lsn, r.a.clock.Now(time.Now())-clock,
			r.a.outbox.waiting()-revs)
	}
	if out := r.a.lane("n1").outstanding(); len(out) != 1 || out[0].Op.ID != id("on") {
		t.Errorf("outstanding: %+v", out)
	}
	r.wantCommands("n1", power.PowerOn)
	r.wantCommands("n2")
	if op := askAt(t, c, api.OpRequest{ID: id("a"), Node: "n1", Action: power.ActOff}); op.Verdict != power.VerdictSupersede {
		t.Errorf("asked in earnest with the id of the dry run: %+v", op)
	}
}

func TestControlQuery(t *testing.T) {
	r, c := withControl(t, 2)
	r.slow("n1")
	askAt(t, c, api.OpRequest{ID: id("a"), Node: "n1", Action: power.ActOn})
	askAt(t, c, api.OpRequest{ID: id("b"), Node: "n2", Action: power.ActOff})
	endAt(t, c, id("b"))
	between := time.Now()
	askAt(t, c, api.OpRequest{ID: id("c"), Node: "n1", Action: power.ActCycle})
	first := ok[api.FoundOps](t)(c.QueryOps(t.Context(), api.QueryOps{}))
	page := ok[api.FoundOps](t)(c.QueryOps(t.Context(), api.QueryOps{Limit: 2}))
	if page.Next != api.OpPlace(first.Ops[1]) || first.Next != "" {
		t.Errorf("the page behind %+v is %q", page.Ops, page.Next)
	}
	for _, q := range []struct {
		query api.QueryOps
		want  []string
	}{
		{api.QueryOps{}, []string{id("a"), id("b"), id("c")}},
		{api.QueryOps{IDs: []string{id("c"), id("b"), id("z")}}, []string{id("b"), id("c")}},
		{api.QueryOps{Nodes: []string{"n1"}}, []string{id("a"), id("c")}},
		{api.QueryOps{Outstanding: true}, []string{id("a"), id("c")}},
		{api.QueryOps{Since: between}, []string{id("c")}},
		{api.QueryOps{Limit: 2}, []string{id("b"), id("c")}},
		{api.QueryOps{Limit: 2, Before: api.OpPlace(first.Ops[2])}, []string{id("a"), id("b")}},
		{api.QueryOps{Before: api.OpPlace(first.Ops[1])}, []string{id("a")}},
		{api.QueryOps{Nodes: []string{"n9"}}, nil},
		{api.QueryOps{AfterRev: 1 << 40, Nodes: []string{"n2"}}, []string{id("b")}},
	} {
		found := ok[api.FoundOps](t)(c.QueryOps(t.Context(), q.query))
		var got []string
		for _, op := range found.Ops {
			got = append(got, op.ID)
		}
		if wantIDs(t, fmt.Sprintf("%+v", q.query), got, q.want...); found.Rev == 0 || found.Ops == nil {
			t.Errorf("%+v: %+v", q.query, found)
		}
	}
}

// TestControlQueryWaitsForNews: a long poll sleeps through what does not match it
// and wakes by what does.
func TestControlQueryWaitsForNews(t *testing.T) {
	r, c := withControl(t, 2)
	r.slow("n1")
	askAt(t, c, api.OpRequest{ID: id("a"), Node: "n1", Action: power.ActOn})
	r.waitsForOn(id("a"))
	_, rev, _ := r.a.outbox.after(0)
	type answer struct {
		found api.FoundOps
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		found, err := c.QueryOps(t.Context(), api.QueryOps{IDs: []string{id("a")}, AfterRev: rev, Wait: 20 * time.Second})
		answered <- answer{found, err}
	}()
	askAt(t, c, api.OpRequest{ID: id("b"), Node: "n2", Action: power.ActOff})
	endAt(t, c, id("b"))
	select {
	case got := <-answered:
		t.Fatalf("woken by another operation: %+v", got)
	default:
	}
	if _, err := c.CancelOp(t.Context(), id("a"), api.CancelOp{}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-answered:
		if got.err != nil || len(got.found.Ops) != 1 || got.found.Ops[0].ID != id("a") || got.found.Rev <= rev {
			t.Fatalf("answer %+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a change does not wake the poll")
	}
	began := time.Now()
	found := ok[api.FoundOps](t)(c.QueryOps(t.Context(), api.QueryOps{IDs: []string{id("z")}, Wait: 50 * time.Millisecond}))
	if took := time.Since(began); len(found.Ops) != 0 || took < 50*time.Millisecond {
		t.Errorf("answer %+v after %s", found, took)
	}
}

func TestControlCancel(t *testing.T) {
	r, c := withControl(t, 2)
	r.slow("n1")
	for _, x := range []struct {
		id     string
		action power.Action
	}{{id("running"), power.ActOn}, {id("waiting"), power.ActCycle}, {id("joined"), power.ActCycle}} {
		askAt(t, c, api.OpRequest{ID: x.id, Node: "n1", Action: x.action})
	}
	_, err := c.CancelOp(t.Context(), "nobody", api.CancelOp{})
	wantCode(t, err, api.CodeNotFound, "nobody")
	_, err = c.CancelOp(t.Context(), id("joined"), api.CancelOp{})
	wantCode(t, err, api.CodeRefused, "joined operation "+id("waiting"))
	op := ok[api.Op](t)(c.CancelOp(t.Context(), id("waiting"), api.CancelOp{AskedBy: "ann", Reason: "typo"}))
	if op.Outcome != power.Cancelled || op.CancelBy != me+" for ann" || !strings.Contains(op.Detail, "ann (typo)") {
		t.Fatalf("answer %+v", op)
	}
	if end := endAt(t, c, id("joined")); end.Outcome != power.Cancelled {
		t.Fatalf("what joined it: %+v", end)
	}
	eventually(t, "the command is sent", func() bool { return len(r.bmc("n1").Commands()) == 1 })
	if op := ok[api.Op](t)(c.CancelOp(t.Context(), id("running"), api.CancelOp{})); op.CancelBy != me {
		t.Fatalf("answer %+v", op)
	}
	if end := endAt(t, c, id("running")); end.Outcome != power.Cancelled || end.Attempts != 1 {
		t.Fatalf("end %+v", end)
	}
	_, err = c.CancelOp(t.Context(), id("running"), api.CancelOp{})
	wantCode(t, err, api.CodeRefused, "has ended already: cancelled")
}

func TestControlNodes(t *testing.T) {
	r, c := withControl(t, 2)
	r.bmc("n2").SetPower(power.On)
	ready := handsOff("n2")
	ready.Status, ready.Desired = power.StatusReady, power.StatusReady.Desired()
	bare := handsOff("n3")
	bare.BMC = ""
	r.assign(ready, bare)
	r.slow("n1")
	askAt(t, c, api.OpRequest{ID: id("a"), Node: "n1", Action: power.ActOn, AskedBy: "ann"})
	askAt(t, c, api.OpRequest{ID: id("b"), Node: "n1", Action: power.ActCycle})
	if _, err := c.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"n2", "n3"}}); err != nil {
		t.Fatal(err)
	}
	nodes := ok[[]api.Node](t)(c.Nodes(t.Context(), ""))
	if len(nodes) != 3 {
		t.Fatalf("nodes %+v", nodes)
	}
	n1, n2, n3 := nodes[0], nodes[1], nodes[2]
	if n1.Name != "n1" || n1.Rack != "r1" || n1.Op == nil || n1.Op.ID != id("a") || n1.Op.AskedBy != me+" for ann" ||
		n1.Waiting != 1 || n1.Drift {
		t.Errorf("n1 %+v", n1)
	}
	if n2.State != power.On || n2.Reach != power.ReachOK || n2.Stale || !n2.Drift || n2.Desired != power.WantOff || n2.ObservedAt == nil ||
		n2.Op != nil {
		t.Errorf("n2 %+v", n2)
	}
	if n3.State != power.Unknown || n3.Reach != power.ReachUnconfigured || n3.ObservedAt != nil || n3.TriedAt == nil {
		t.Errorf("n3 %+v", n3)
	}
	for expr, want := range map[string][]string{
		"all": {"n1", "n2", "n3"}, "n[2-3]": {"n2", "n3"}, "@status:READY": {"n2"},
		"all,!n2": {"n1", "n3"}, "@r1&n1": {"n1"},
	} {
		var got []string
		for _, n := range ok[[]api.Node](t)(c.Nodes(t.Context(), expr)) {
			got = append(got, n.Name)
		}
		wantIDs(t, expr, got, want...)
	}
	_, err := c.Nodes(t.Context(), "n[1-")
	wantCode(t, err, api.CodeBadRequest, "")
	_, err = c.Nodes(t.Context(), "@label:gpu")
	if api.CodeOf(err) != api.CodeNotFound || !strings.Contains(err.Error(), "an agent knows no labels") {
		t.Errorf("a label: %v", err)
	}
	_, err = c.Nodes(t.Context(), "n1,n77")
	wantCode(t, err, api.CodeNotFound, "n77")
}

func TestControlReads(t *testing.T) {
	r, c := withControl(t, 2)
	r.bmc("n1").SetPower(power.On)
	nodes := ok[[]api.Node](t)(c.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"n1"}}))
	if len(nodes) != 1 || nodes[0].Name != "n1" || nodes[0].State != power.On {
		t.Fatalf("read %+v", nodes)
	}
	r.bmc("n1").SetPower(power.Off)
	nodes = ok[[]api.Node](t)(c.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"n1"}}))
	if nodes[0].State != power.Off {
		t.Fatalf("read again %+v", nodes)
	}
	nodes = ok[[]api.Node](t)(c.ReadNodes(t.Context(), api.ReadNodes{Select: "@r1!n2"}))
	if len(nodes) != 1 || nodes[0].Name != "n1" || nodes[0].Unread {
		t.Fatalf("selected %+v", nodes)
	}
	if nodes = ok[[]api.Node](t)(c.ReadNodes(t.Context(), api.ReadNodes{Select: "@status:READY"})); len(nodes) != 0 {
		t.Fatalf("selected %+v", nodes)
	}
	_, err := c.ReadNodes(t.Context(), api.ReadNodes{Select: "n1", Names: []string{"n1"}})
	wantCode(t, err, api.CodeBadRequest, "exclude each other")
	_, err = c.ReadNodes(t.Context(), api.ReadNodes{Select: "n77"})
	wantCode(t, err, api.CodeNotFound, "n77")
	_, err = c.ReadNodes(t.Context(), api.ReadNodes{Names: []string{"n1", "n77"}})
	wantCode(t, err, api.CodeNotFound, "n77")
	if got := r.a.readings.get("n77"); got.Reach != power.ReachNever {
		t.Fatalf("a reading of a node that is not there: %+v", got)
	}
}

// TestControlReadsAnswersAfterItsWait: a BMC that does not answer costs its asker
// no more than the time that was named.
func TestControlReadsAnswersAfterItsWait(t *testing.T) {
	r, c := withControl(t, 2)
	eventually(t, "both were read once", func() bool {
		return r.a.readings.get("n1").Reach == power.ReachOK && r.a.readings.get("n2").Reach == power.ReachOK
	})
	leave := make(chan struct{})
	r.fake.Hook(func(e powertest.Event) {
		if e.Phase == powertest.Before && e.Op == "state" && e.BMC.Name() == "n1" {
			<-leave
		}
	})
	t.Cleanup(func() { close(leave) })
	r.bmc("n1").SetPower(power.On)
	r.bmc("n2").SetPower(power.On)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	nodes := ok[[]api.Node](t)(c.ReadNodes(ctx, api.ReadNodes{Names: []string{"n1", "n2"}, Wait: 300 * time.Millisecond}))
	if len(nodes) != 2 || nodes[0].State != power.Off || nodes[1].State != power.On || !nodes[0].Unread || nodes[1].Unread {
		t.Fatalf("read %+v", nodes)
	}
}

func TestControlInfoAndGossip(t *testing.T) {
	r, c := withControl(t, 2)
	info := ok[api.Info](t)(c.Info(t.Context()))
	if info.ID != r.a.log.ID() || info.Version != "test" || info.Nodes != 2 {
		t.Errorf("info %+v", info)
	}
	_, err := c.Members(t.Context())
	wantCode(t, err, api.CodeUnavailable, "without gossip")
	wantCode(t, c.Do(t.Context(), "GET", "/v1/peers", nil, nil), api.CodeUnavailable, "without gossip")

	r, c = withControl(t, 1)
	r.a.SetGossip(toldGossip{})
	if members := ok[[]api.Member](t)(c.Members(t.Context())); len(members) != 1 || members[0].Name != "r9" {
		t.Errorf("members %+v", members)
	}
	var peers []api.PeerNode
	if err := c.Do(t.Context(), "GET", "/v1/peers", nil, &peers); err != nil || len(peers) != 2 || peers[0].Node != "a1" ||
		peers[1].Node != "b1" {
		t.Errorf("peers %+v, %v", peers, err)
	}
}

type toldGossip struct{ Gossip }

func (toldGossip) SetNodes([]NodeView)   {}
func (toldGossip) Members() []api.Member { return []api.Member{{Name: "r9"}} }
func (toldGossip) Peers() []api.PeerNode { return []api.PeerNode{{Node: "b1"}, {Node: "a1"}} }

// TestControlSocketOfARunningAgent goes through the socket itself, and sees a long
// poll end with the agent.
func TestControlSocketOfARunningAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := httpserver.ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Name: "r1", Dir: t.TempDir(), Dial: powertest.NewFake().Dial, Monitor: MonitorOff, Timing: quick()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, l) }()
	c := ok[*api.Client](t)(api.NewClient("unix://" + path))
	defer c.Close()
	ok[api.Info](t)(c.Info(t.Context()))
	polled := make(chan error, 1)
	go func() {
		_, err := c.QueryOps(t.Context(), api.QueryOps{IDs: []string{"z"}, Wait: time.Minute})
		polled <- err
	}()
	began := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := <-polled; err != nil && !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("the poll ended with %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %s", took)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is left behind: %v", err)
	}
	if _, err := c.Info(t.Context()); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("after the end: %v", err)
	}
}

// id is the UUID that stands for a short name.
func id(name string) string { return uuid.NewSHA1(uuid.Nil, []byte(name)).String() }

// TestControlKnowsWhoAsks: the name is that of the user at the other end of the socket.
// Who may not speak for others may not name another, and who is not in the group is
// refused, whatever it asks.
func TestControlKnowsWhoAsks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("LEFT OUT: only root can connect as another user")
	}
	r, _ := withControl(t, 1)
	path := serveControl(t, r.a.control)
	if err := errors.Join(os.Chmod(path, 0o666), os.Chmod(filepath.Dir(path), 0o711)); err != nil { //nolint:gosec // others have to reach it
		t.Fatal(err)
	}
	const stranger = 54321 // who has no account
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		runtime.LockOSThread() // the user of this thread alone changes; it ends with the goroutine
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), stranger, ^uintptr(0)); e != 0 {
			return nil, e
		}
		return net.Dial("unix", path)
	}}
	defer transport.CloseIdleConnections()
	asked := `{"ops":[{"id":"` + id("a") + `","node":"n1","action":"on","asked_by":"ann"}]}`
	for target, body := range map[string]string{"/v1/nodes": "", "/debug/pprof/heap": "", "/v1/ops": asked} {
		method := http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(said), "uid 54321 is not in the group rackpower-admin") {
			t.Errorf("%s: %d %s", target, resp.StatusCode, said)
		}
	}
	member := auth.Principal{Kind: auth.User, Name: "bob", Role: auth.Admin, Method: auth.BySocket}
	for body, want := range map[string]int{asked: http.StatusForbidden, strings.ReplaceAll(asked, "ann", "bob"): http.StatusOK} {
		req := httptest.NewRequest(http.MethodPost, "/v1/ops", strings.NewReader(body))
		w := httptest.NewRecorder()
		r.a.control.routes().ServeHTTP(w, req.WithContext(httpserver.WithPrincipal(t.Context(), member)))
		if w.Code != want || want != http.StatusOK && !strings.Contains(w.Body.String(), "bob may not ask in the name of ann") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if o, found := r.a.outbox.find(id("a")); !found || o.Op.AskedBy != "bob" {
		t.Errorf("%+v", o.Op)
	}
}

// TestRefusalsAtTheSocketAreLoggedOnceAMinute: whoever may not ask must not fill the log.
func TestRefusalsAtTheSocketAreLoggedOnceAMinute(t *testing.T) {
	var log strings.Builder
	c := &control{name: "r1", logger: slog.New(slog.NewTextHandler(&log, nil))}
	for range 100 { // not by a socket: who asks is not known
		rec := httptest.NewRecorder()
		c.handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v1/nodes", nil))
		if rec.Code != http.StatusUnauthorized {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	if n := strings.Count(log.String(), "request refused"); n != 1 {
		t.Errorf("%d lines for 100 refusals:\n%.500s", n, log.String())
	}
}
