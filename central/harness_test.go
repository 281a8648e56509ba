package central

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
	"rackpower/power"
)

// site is a central behind a real HTTP server, with a clock that stands still
// until it is moved.
type site struct {
	machine string // host name of central
	t       testing.TB
	dir     string
	url     string // of the database on PostgreSQL; "": SQLite in dir
	c       *Central
	http    *httptest.Server
	*api.Client

	bmcs int // given to nodes so far

	mu  sync.Mutex
	now time.Time
}

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), now: time.Now().Truncate(time.Second)}
	if pgtest.Wanted() {
		s.url = pgtest.URL(t)
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// later moves the clock.
func (s *site) later(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *site) start() {
	s.t.Helper()
	c, err := New(Config{
		Data: s.dir, Database: s.url, Now: s.clock, Log: slog.New(slog.DiscardHandler), Machine: cmp.Or(s.machine, "head.example.org"),
		Monotonic: func() time.Duration { return s.clock().Sub(time.Unix(0, 0)) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	socket := filepath.Join(s.t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.c, s.http = c, &httptest.Server{Listener: listener, Config: c.server()}
	s.http.Start()
	if s.Client, err = api.NewClient("unix://" + socket); err != nil {
		s.t.Fatal(err)
	}
}

// onFiles leaves a test out that is about SQLite's files.
func onFiles(t testing.TB) {
	t.Helper()
	if pgtest.Wanted() {
		t.Skip("about SQLite's files")
	}
}

func (s *site) stop() {
	s.c.stopLongPolls()
	s.Client.Close()
	s.http.Close()
	if err := s.c.Close(); err != nil {
		s.t.Error(err)
	}
}

// restart is a clean stop and a start on the same data.
func (s *site) restart() {
	s.t.Helper()
	s.c.noteSeen()
	s.stop()
	s.start()
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// nodes adds nodes of rack r1 named by the operands.
func (s *site) nodes(names ...string) {
	s.t.Helper()
	var specs []api.NodeSpec
	for _, name := range names {
		s.bmcs++
		bmc := fmt.Sprintf("ipmi://admin@192.0.%d.%d", 2+s.bmcs/250, s.bmcs%250)
		specs = append(specs, api.NodeSpec{Name: name, Rack: "r1", BMC: bmc, Password: "pw-" + name})
	}
	if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: specs, AskedBy: "admin"}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) status(status power.Status, names ...string) {
	s.t.Helper()
	if _, err := s.SetStatus(context.Background(), api.SetStatus{Names: names, Status: status, AskedBy: "admin", Reason: "why"}); err != nil {
		s.t.Fatal(err)
	}
}

// ask asks for one operation.
func (s *site) ask(node string, action power.Action, change ...func(*api.OpRequest)) api.Op {
	s.t.Helper()
	req := api.OpRequest{ID: newID(), Node: node, Action: action, AskedBy: "admin", Reason: "test"}
	for _, f := range change {
		f(&req)
	}
	ops, err := s.AskOps(context.Background(), api.AskOps{Ops: []api.OpRequest{req}})
	if err != nil {
		s.t.Fatal(err)
	}
	return ops[0]
}

func (s *site) op(id string) api.Op {
	s.t.Helper()
	found, err := s.QueryOps(context.Background(), api.QueryOps{IDs: []string{id}})
	if err != nil || len(found.Ops) != 1 {
		s.t.Fatalf("operation %s: %v, %v", id, found, err)
	}
	return found.Ops[0]
}

func (s *site) node(name string) api.Node {
	s.t.Helper()
	nodes, err := s.Nodes(context.Background(), name)
	if err != nil || len(nodes) != 1 {
		s.t.Fatalf("node %s: %v, %v", name, nodes, err)
	}
	return nodes[0]
}

func (s *site) agent(name string) api.Agent {
	s.t.Helper()
	agents, err := s.Agents(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range agents {
		if a.Name == name {
			return a
		}
	}
	s.t.Fatalf("no agent %s in %+v", name, agents)
	return api.Agent{}
}

// auditLog is the audit log of an operation, one word an entry.
func (s *site) auditLog(op string) (words []string) {
	s.t.Helper()
	entries, err := s.Audit(context.Background(), "", 10000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Op == op {
			words = append(words, e.What)
		}
	}
	return words
}

// wantCode fails unless err is a problem of the code whose text has the parts.
func wantCode(t testing.TB, err error, code api.Code) {
	t.Helper()
	if api.CodeOf(err) != code {
		t.Fatalf("got %v (code %q), want code %q", err, api.CodeOf(err), code)
	}
}

// rack is a scripted agent.
type rack struct {
	machine string // host name
	s       *site
	name    string
	run     string // of its process
	journal string
	epoch   uint64
	lsn     uint64
	w       api.Welcome
	rev     int64
	central api.Database
	told    api.Database // that was told all ends
	acked   int64        // revision of the latest acknowledgement
	cursor  int64
	gossip  string // address that it names; "": one of this machine
}

func (s *site) rack(name string) *rack {
	s.t.Helper()
	r := &rack{s: s, name: name, run: "run-" + name, journal: "journal-" + name, epoch: 1, lsn: 10}
	r.mustHello()
	return r
}

func (r *rack) hello(outstanding ...string) error {
	refs := []api.OpRef{}
	for _, id := range outstanding {
		ref := api.OpRef{ID: id}
		if found, err := r.s.QueryOps(context.Background(), api.QueryOps{IDs: []string{id}}); err == nil && len(found.Ops) == 1 {
			ref.Node, ref.Action = found.Ops[0].Node, found.Ops[0].Action
		}
		refs = append(refs, ref)
	}
	w, err := r.s.Hello(context.Background(), r.name, api.Hello{
		Version: "v1", JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn, Outstanding: refs, Gossip: cmp.Or(r.gossip, "127.0.0.1:7946"),
		SentAt:     r.s.clock(),
		ReportedTo: r.told, ReportedAll: r.w.ReportAll, Rev: r.acked, Run: r.run, Host: r.run,
		Machine: r.machine,
	})
	if err == nil {
		r.w, r.told = w, w.Database
	}
	return err
}

func (r *rack) mustHello(outstanding ...string) {
	r.s.t.Helper()
	if err := r.hello(outstanding...); err != nil {
		r.s.t.Fatal(err)
	}
}

func (r *rack) request(wait time.Duration) api.Poll {
	return api.Poll{Session: r.w.Session, Database: r.central, Rev: r.rev, Ops: r.cursor, Wait: wait}
}

// took notes that the answer to a poll arrived and is durable.
func (r *rack) took(a api.Assignment) {
	r.rev, r.central, r.cursor = a.Rev, r.w.Database, a.OpsCursor
}

func (r *rack) poll() api.Assignment {
	r.s.t.Helper()
	a, err := r.s.Poll(context.Background(), r.name, r.request(0))
	if err != nil {
		r.s.t.Fatal(err)
	}
	r.took(a)
	return a
}

// pollBehind polls for long, in the background, and returns when central has it.
func (r *rack) pollBehind(wait time.Duration) <-chan polled {
	r.s.t.Helper()
	d := r.s.c.sessions.of(r.name)
	count := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.polls
	}
	before := count()
	got := make(chan polled, 1)
	go func() {
		a, err := r.s.Poll(context.Background(), r.name, r.request(wait))
		got <- polled{a, err}
	}()
	until(r.s.t, "the poll is in flight", func() bool { return count() > before || len(got) > 0 })
	return got
}

type polled struct {
	api.Assignment
	err error
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (r *rack) report(reports ...api.OpReport) error {
	out, err := r.s.Report(context.Background(), r.name, api.Report{
		Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn,
		Ops: reports, SentAt: r.s.clock(),
	})
	if err == nil {
		r.acked = out.Rev
	}
	return err
}

func (r *rack) mustReport(reports ...api.OpReport) {
	r.s.t.Helper()
	if err := r.report(reports...); err != nil {
		r.s.t.Fatal(err)
	}
}

func (r *rack) read(readings ...api.NodeReading) {
	r.s.t.Helper()
	r.tell(api.Report{Readings: readings})
}

// tell sends a report of what is in it.
func (r *rack) tell(in api.Report) {
	r.s.t.Helper()
	in.Session, in.JournalID, in.Epoch, in.LSN, in.SentAt = r.w.Session, r.journal, r.epoch, r.lsn, r.s.clock()
	if _, err := r.s.Report(context.Background(), r.name, in); err != nil {
		r.s.t.Fatal(err)
	}
}

func (r *rack) next() uint64 {
	r.lsn++
	return r.lsn
}

// waiting, running and ended are what an agent reports of an operation.
func (r *rack) waiting(op power.Op) api.OpReport {
	return api.OpReport{
		Op: op, LSN: r.next(), Verdict: power.VerdictFollow, Reason: power.ReasonMore, Message: "waits",
		Phase: api.PhaseWaiting,
	}
}

func (r *rack) running(op power.Op) api.OpReport {
	return api.OpReport{
		Op: op, LSN: r.next(), Verdict: power.VerdictStart, Reason: power.ReasonIdle, Message: "starts",
		Phase: api.PhaseRunning +
			": reading", StartedAt: r.s.clock(),
	}
}

func (r *rack) ended(op power.Op, outcome power.Outcome) api.OpReport {
	return api.OpReport{
		Op: op, LSN: r.next(), Verdict: power.VerdictStart, Reason: power.ReasonIdle, Message: "starts", Phase: api.PhaseEnded,
		StartedAt: r.s.clock(),
		End:       &power.End{Outcome: outcome, Reason: power.ReasonVerified, Detail: "as it was", At: r.s.clock(), State: power.On, Attempts: 1},
	}
}

func (r *rack) joined(op power.Op, to string) api.OpReport {
	return api.OpReport{
		Op: op, LSN: r.next(), Verdict: power.VerdictJoin, Reason: power.ReasonEqual, Message: "joined", Joined: to,
		Phase: api.PhaseWaiting,
	}
}

// deliver asks for an operation and returns it as the agent gets it.
func (r *rack) deliver(node string, action power.Action) power.Op {
	r.s.t.Helper()
	id := r.s.ask(node, action).ID
	for _, op := range r.poll().Ops {
		if op.ID == id {
			return op
		}
	}
	r.s.t.Fatalf("%s of %s was not delivered", action, node)
	return power.Op{}
}

func ids(ops []power.Op) string {
	text := ""
	for _, op := range ops {
		text += " " + op.ID
	}
	return text
}

// meFor is the name that the audit log has for a request of this process in another's name.
func meFor(who string) string {
	me, err := user.Current()
	if err != nil {
		panic(err)
	}
	return me.Username + " for " + who
}
