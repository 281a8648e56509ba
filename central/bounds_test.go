package central

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power"
)

// TestASequenceFarAheadIsNotFollowed has sequences near 2^63 come in by every door, of
// senders that are known and of others: what is asked for afterwards is in order.
func TestASequenceFarAheadIsNotFollowed(t *testing.T) {
	const far = power.Seq(1<<63 - 1<<40)
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	ctx := context.Background()
	alarmed := func() bool {
		for _, al := range s.agent("r1").Alarms {
			if al.Kind == api.AlarmSequenceAhead {
				return true
			}
		}
		return false
	}
	send := func(rep api.Report) error {
		rep.JournalID, rep.Epoch, rep.LSN, rep.SentAt = r.journal, r.epoch, r.next(), s.clock()
		_, err := s.Report(ctx, "r1", rep)
		return err
	}
	op := power.Op{
		ID: newID(), Node: "a", Action: power.ActOn, Seq: far, AskedBy: "eve", Origin: power.FromLocal, AskedAt: s.clock(),
		Deadline: s.clock().Add(time.Minute),
	}
	near := s.c.store.Seq(s.clock()).Next(s.clock()) + power.Seq(30*time.Minute/time.Millisecond)<<16
	for what, rep := range map[string]api.Report{
		"a session that is over": {Session: "none", Seq: near},
		"its operations":         {Session: "none", Ops: []api.OpReport{{Op: power.Op{ID: newID(), Node: "a", Action: power.ActOn, Seq: near}}}},
		"its holds":              {Session: "none", Holds: []api.NodeHold{{Node: "a", Hold: power.Hold{Want: power.WantOn, Seq: near}}}},
	} {
		if err := send(rep); api.CodeOf(err) != api.CodeHello {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if got := s.c.store.Seq(s.clock()); got >= near {
		t.Fatalf("the sequence of a report that was refused is followed: %d", got)
	}
	for what, rep := range map[string]api.Report{
		"a report": {Seq: far},
		"an operation": {Ops: []api.OpReport{{
			Op: op, LSN: 5, Verdict: power.VerdictStart, Phase: api.PhaseEnded,
			End: &power.End{Outcome: power.Succeeded, At: s.clock()},
		}}},
		"a hold": {Holds: []api.NodeHold{{Node: "a", Hold: power.Hold{Want: power.WantOn, By: "eve", Seq: far}}}},
	} {
		rep.Session = r.w.Session
		if err := send(rep); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := s.c.store.Seq(s.clock()); got.Ahead(s.clock()) {
			t.Fatalf("%s: followed %d", what, got)
		}
	}
	if got := s.op(op.ID); got.Seq.Ahead(s.clock()) || got.Outcome != power.Succeeded {
		t.Errorf("what happened at the rack: %+v", got)
	}
	if n := s.node("a"); n.Hold != nil {
		t.Errorf("held: %+v", n.Hold)
	}
	_, _ = s.Poll(ctx, "r1", api.Poll{Session: r.w.Session, Seq: far})
	_, _ = s.Hello(ctx, "r1", api.Hello{JournalID: r.journal, Epoch: r.epoch, LSN: r.next(), Seq: far, SentAt: s.clock()})
	if got := s.ask("a", power.ActOff); got.Seq.Ahead(s.clock()) || got.Outcome != "" {
		t.Fatalf("asked after it: %+v", got)
	}
	if !alarmed() {
		t.Error("no alarm")
	}
	r.mustHello()
	rep := api.Report{Session: r.w.Session, Seq: s.c.store.Seq(s.clock())}
	if err := send(rep); err != nil || alarmed() {
		t.Errorf("after a right sequence: %v, alarmed %v", err, alarmed())
	}

	// A database that followed one already goes on by the clock.
	s.stop()
	db, err := store.Open(store.Config{Path: DatabasePath(s.dir), Database: s.url})
	if err != nil {
		t.Fatal(err)
	}
	db.MergeSeq(far, far.Time())
	if err := db.Write(ctx, func(tx *store.Tx) error { _, err := tx.RaiseRev("r1"); return err }); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s.start()
	if got := s.ask("a", power.ActDiag); got.Seq.Ahead(s.clock()) || got.Seq < power.Seq(0).Next(s.clock()) {
		t.Errorf("asked of a database that followed %d: %d", far, got.Seq)
	}
}

// TestOutstandingIsBounded asks for more than an agent that is away may find: by node, and
// by agent. It gets it in pages, in order, each once.
func TestOutstandingIsBounded(t *testing.T) {
	s := newSite(t)
	var names []string
	for i := range 64 {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	s.nodes(names...)
	r := s.rack("r1")
	ask := func(n int) (taken int, refused []api.Op) {
		var in api.AskOps
		for i := range n {
			in.Ops = append(in.Ops, api.OpRequest{ID: newID(), Node: names[i%len(names)], Action: power.ActOn, AskedBy: "x"})
		}
		ops, err := s.AskOps(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range ops {
			if o.Outcome == power.Refused {
				refused = append(refused, o)
			} else {
				taken++
			}
		}
		return taken, refused
	}
	taken, refused := ask(maxOpenOf)
	if want := min(maxOpenOf, maxOpenOn*len(names)); taken != want {
		t.Fatalf("%d taken, want %d", taken, want)
	}
	again, more := ask(len(names))
	refused = append(refused, more...)
	if again != 0 && taken+again > maxOpenOf {
		t.Fatalf("%d taken above the bound", again)
	}
	for _, o := range refused {
		if o.Why != power.ReasonQueueFull || !strings.Contains(o.Message, "limit") {
			t.Fatalf("refused as %s: %s", o.Why, o.Message)
		}
	}
	var last power.Seq
	got := map[string]bool{}
	for pages := 0; len(got) < taken+again; pages++ {
		a := r.poll()
		if len(a.Ops) == 0 || len(a.Ops) > deliverAtOnce {
			t.Fatalf("page %d has %d of %d, after %d", pages, len(a.Ops), taken+again, len(got))
		}
		for _, op := range a.Ops {
			if op.Seq <= last || got[op.ID] {
				t.Fatalf("%s comes out of order, or twice", op.ID)
			}
			last, got[op.ID] = op.Seq, true
		}
	}
	if a := r.poll(); len(a.Ops) > 0 {
		t.Errorf("%d more than were taken", len(a.Ops))
	}
}

// TestAReportIsBoundedAndTakenItemByItem sends more than an agent does at once, and one
// item that cannot be stored among others.
func TestAReportIsBoundedAndTakenItemByItem(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	many := make([]api.NodeReading, maxReportReadings+1)
	for i := range many {
		many[i] = api.NodeReading{Node: fmt.Sprintf("x%d", i), Reading: power.Seen(power.On, s.clock())}
	}
	send := func(readings []api.NodeReading) error {
		_, err := s.Report(context.Background(), "r1", api.Report{
			Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn,
			Readings: readings, SentAt: s.clock(),
		})
		return err
	}
	if err := send(many); api.CodeOf(err) != api.CodeQueueFull || !strings.Contains(err.Error(), "at most") {
		t.Errorf("%d readings: %v", len(many), err)
	}
	if err := send(append(many[:100:100], api.NodeReading{Node: "a", Reading: power.Seen(power.On, s.clock())})); err != nil ||
		s.node("a").State != power.On {
		t.Errorf("a reading among unknown ones: %v, %s", err, s.node("a").State)
	}
	for what, in := range map[string]api.Report{"epoch": {Epoch: 1 << 63}, "lsn": {LSN: 1<<63 - 1}} {
		in.Session, in.JournalID = r.w.Session, r.journal
		if _, err := s.Report(context.Background(), "r1", in); api.CodeOf(err) != api.CodeBadRequest {
			t.Errorf("%s near 2^63: %v", what, err)
		}
	}
}

// TestAnItemThatFailsRaisesNoRevision: what follows it in the job gets one that is stored.
func TestAnItemThatFailsRaisesNoRevision(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	err := s.c.write(t.Context(), s.clock(), "x", func(u *unitOfWork) error {
		wrong := errors.New("wrong")
		err := u.items(func() error {
			return u.each("r1", "a", func() error {
				_, err := u.rev("r1")
				return errors.Join(err, wrong)
			})
		})
		if err != nil {
			return err
		}
		rev, err := u.rev("r1")
		if err != nil {
			return err
		}
		if a, _, err := u.tx.Agent("r1"); err != nil || a.Rev != rev {
			t.Errorf("revision %d is given, %d is stored: %v", rev, a.Rev, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnItemThatFailsUndoesOnlyItself has a job go on after one of its parts failed.
func TestAnItemThatFailsUndoesOnlyItself(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	take := func(tx *store.Tx, name string) error {
		if err := tx.AddAudit(api.AuditEntry{At: s.clock(), Who: "x", What: "tried", Node: name}); err != nil {
			return err
		}
		n, found, err := tx.Node(name)
		if err != nil || !found {
			return errors.Join(err, fmt.Errorf("no node %s", name))
		}
		n.Domain = "d"
		return tx.PutNode(n)
	}
	err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
		u := s.c.unitOfWork(tx, s.clock(), "agent r1")
		return u.items(func() error {
			for _, name := range []string{"a", "none", "b"} {
				if err := u.each("r1", name, func() error { return take(tx, name) }); err != nil {
					return err
				}
			}
			return nil
		})
	})
	auditLog, _ := s.Audit(context.Background(), "", 100)
	tried := 0
	for _, e := range auditLog {
		if e.What == "tried" {
			tried++
		}
	}
	if err != nil || s.node("a").Domain != "d" || s.node("b").Domain != "d" || tried != 2 || s.c.skipped.Load() != 1 {
		t.Errorf("%v; a in %q, b in %q, %d tried, %d skipped", err, s.node("a").Domain, s.node("b").Domain, tried, s.c.skipped.Load())
	}
}

// TestConnectionsAreBounded opens more of them than there may be, on a server with a
// small bound.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httpserver.New(http.NotFoundHandler(), 2)
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	ask := func(c net.Conn) (string, error) {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return "", err
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.Status + " " + string(body), nil
	}
	dial := func(from int) (net.Conn, error) { // an address may have a part of the connections only
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(from))}} //nolint:gosec // a few
		return d.Dial("tcp", l.Addr().String())
	}
	var conns []net.Conn
	for i := range 3 {
		c, err := dial(i + 1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		got, err := ask(c)
		if i < 2 && !strings.HasPrefix(got, "404") || i == 2 && err == nil &&
			(!strings.HasPrefix(got, "429") || !strings.Contains(got, "2 connections")) {
			t.Errorf("connection %d: %q, %v", i, got, err)
		}
	}
	conns[0].Close()
	until(t, "there is a place again", func() bool {
		c, err := dial(1)
		if err != nil {
			return false
		}
		defer c.Close()
		got, err := ask(c)
		return err == nil && strings.HasPrefix(got, "404")
	})
}

// TestAgentsNeverSeenAreBounded has more names say hello than there may be agents without
// nodes: nothing is kept of those beyond, which are told why, and agents with nodes, and
// those that are known, come in all the same.
func TestAgentsNeverSeenAreBounded(t *testing.T) {
	s := newSite(t)
	s.nodes("a") // of r1, which was not seen yet
	err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
		for i := range maxIdleAgents {
			if err := tx.EnsureAgent(fmt.Sprintf("x%d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	hello := func(name string) error {
		_, err := s.Hello(context.Background(), name, api.Hello{JournalID: "j-" + name, Epoch: 1, SentAt: s.clock()})
		return err
	}
	if err := hello("y"); api.CodeOf(err) != api.CodeQueueFull || !strings.Contains(err.Error(), "rackpower agents forget") {
		t.Fatalf("one more: %v", err)
	}
	if s.c.sessions.known("y") != nil {
		t.Error("a session is kept for a name that was refused")
	}
	for _, name := range []string{"r1", "x5"} {
		if err := hello(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.ForgetAgent(context.Background(), "x7", api.ForgetAgent{Reason: "typing mistake"}); err != nil {
		t.Fatal(err)
	}
	if err := hello("y"); err != nil {
		t.Errorf("after another was forgotten: %v", err)
	}
	if err := hello("x7"); api.CodeOf(err) != api.CodeQueueFull {
		t.Errorf("the forgotten one: %v", err)
	}
}

// TestAStoredHoldFarAheadGetsANewSequence starts on a database whose hold has a sequence of
// the year 6429: the hold stands, and one that is set at the rack later stands over it.
func TestAStoredHoldFarAheadGetsANewSequence(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	set := func(node string, seq power.Seq) {
		err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
			n, _, err := tx.Node(node)
			n.Hold = power.Hold{Want: power.WantOff, By: "eve", Since: s.clock(), Seq: seq}
			return errors.Join(err, tx.PutNode(n))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	near := s.c.store.Seq(s.clock()).Next(s.clock())
	set("a", 1<<63-1<<40)
	set("b", near)
	s.restart()
	seqs := map[string]power.Hold{}
	r := s.rack("r1")
	for _, n := range r.poll().Nodes {
		seqs[n.Name] = n.Hold
	}
	if h := seqs["a"]; h.Seq.Ahead(s.clock()) || h.Seq == 0 || h.Want != power.WantOff || h.By != "eve" {
		t.Errorf("hold of a: %+v", h)
	}
	if h := seqs["b"]; h.Seq != near {
		t.Errorf("hold of b: %+v", h)
	}
	s.later(time.Minute)
	local := power.Hold{Want: power.WantOn, By: "ann", Since: s.clock(), Seq: power.Seq(0).Next(s.clock())}
	_, err := s.Report(context.Background(), "r1", api.Report{
		Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.next(), SentAt: s.clock(),
		Holds: []api.NodeHold{{Node: "a", Hold: local}},
	})
	if n := s.node("a"); err != nil || n.Hold == nil || n.Hold.By != "ann" {
		t.Errorf("%v; the hold set at the rack: %+v", err, n.Hold)
	}
}

// TestTimesCenturiesAwayAreNotBelieved sends reports whose clock is centuries off: the
// reading counts as of now at the latest, and the next report is read as ever.
func TestTimesCenturiesAwayAreNotBelieved(t *testing.T) {
	for _, sent := range []time.Time{
		time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC),
		time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		s := newSite(t)
		s.nodes("a")
		r := s.rack("r1")
		send := func(sent, tried time.Time, state power.State) {
			t.Helper()
			_, err := s.Report(context.Background(), "r1", api.Report{
				Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.next(), SentAt: sent,
				Readings: []api.NodeReading{{Node: "a", Reading: power.Reading{State: state, Reach: power.ReachOK, TriedAt: tried, ObservedAt: tried}}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		send(sent, s.clock(), power.On)
		n := s.node("a")
		if n.State != power.On || n.ObservedAt == nil || s.clock().Sub(*n.ObservedAt).Abs() > time.Minute {
			t.Errorf("sent in %d: %s at %v", sent.Year(), n.State, n.ObservedAt)
		}
		s.later(time.Second)
		send(s.clock(), sent, power.Off) // dropped, or of now
		s.later(time.Second)
		send(s.clock(), s.clock(), power.On)
		if n := s.node("a"); n.State != power.On || s.clock().Sub(*n.ObservedAt).Abs() > time.Minute {
			t.Errorf("after %d: %s at %v", sent.Year(), n.State, n.ObservedAt)
		}
	}
}

// TestSchedulesAreBounded refuses one more by the bound's name, and changes one all the same.
func TestSchedulesAreBounded(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	in := api.PutSchedule{Schedule: api.Schedule{Name: "night", Cron: "0 19 * * *", Nodes: "a", Want: power.WantOff, For: time.Hour}}
	if _, err := s.PutSchedule(context.Background(), in); err != nil {
		t.Fatal(err)
	}
	err := s.c.store.Write(context.Background(), func(tx *store.Tx) error {
		one, _, err := tx.Schedule("night")
		for i := range maxSchedules - 1 {
			one.Name = fmt.Sprintf("s%d", i)
			err = errors.Join(err, tx.PutSchedule(one))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	in.Update = true
	if _, err := s.PutSchedule(context.Background(), in); err != nil {
		t.Errorf("a change: %v", err)
	}
	in.Name, in.Update = "more", false
	if _, err := s.PutSchedule(context.Background(), in); api.CodeOf(err) != api.CodeQueueFull ||
		!strings.Contains(err.Error(), "1000 schedules") {
		t.Errorf("one more: %v", err)
	}
}
