package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

var errTestFull = errors.New("disk full")

// hookLog lets a test fail or delay chosen appends.
type hookLog struct {
	opLog
	mu   sync.Mutex
	hook func([]journal.Entry) error
	err  error
	n    int
}

func (h *hookLog) Append(e ...journal.Entry) (uint64, error) {
	h.mu.Lock()
	hook := h.hook
	h.mu.Unlock()
	if hook != nil {
		if err := hook(e); err != nil {
			h.mu.Lock()
			h.n++
			h.mu.Unlock()
			return 0, err
		}
	}
	return h.opLog.Append(e...)
}

func (h *hookLog) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	return h.opLog.Err()
}
func (h *hookLog) set(fn func([]journal.Entry) error) { h.mu.Lock(); h.hook = fn; h.mu.Unlock() }

func hooked(r *harness) *hookLog {
	h := &hookLog{}
	r.crash()
	r.cfg.wrapLog = func(a *Agent, l opLog) opLog { h.opLog = l; return h }
	r.start()
	r.assign(r.nodes...)
	return h
}

func TestCycleOfAnOffNodeIsNotCutAfterACrash(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.Off)
		r.bmc("n1").SetOnAfter(5 * time.Second)
		id := r.ask("n1", power.ActCycle, func(o *power.Op) { o.Boot = power.BootPXE }).Op.ID
		time.Sleep(2 * time.Second) // PowerOn is sent
		r.crash()
		time.Sleep(10 * time.Second)
		r.start()
		end := r.end(id)
		t.Logf("end %+v cuts=%d log=%+v", end, r.bmc("n1").Counts().Cuts, r.fake.Log())
		if r.bmc("n1").Counts().Cuts > 0 {
			t.Errorf("node that was off was cut by its cycle after restart")
		}
	})
}

func TestBMCResetKeepsWhatIsUnsettled(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		b.SetSoftOffAfter(60 * time.Second)
		a := r.ask("n1", power.ActSoftOff).Op.ID
		time.Sleep(2 * time.Second)
		r.a.Cancel(cancelBy(a, "bob"))
		r.end(a)
		r.end(r.ask("n1", power.ActBMCReset).Op.ID)
		e := r.end(r.ask("n1", power.ActOn).Op.ID)
		time.Sleep(5 * time.Minute)
		t.Logf("on: %+v power %s", e, b.Power())
		if b.Power() != power.On {
			t.Errorf("newest accepted on 'succeeded' but node is off")
		}
	})
}

func TestBreakerCountsEachCredential(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		r.fake.BMC("chassis").SetAccount("admin", "secret")
		for i := range r.nodes {
			r.nodes[i].BMC = fmt.Sprintf("ipmi://admin@chassis?target=%#02x", 0x30+2*i)
		}
		r.nodes[1].Password = "wrong"
		r.assign(r.nodes...)
		for range 20 {
			r.a.poller.readNodes(context.Background(), []string{"n1"}, 0, nil)
			r.a.poller.readNodes(context.Background(), []string{"n2"}, 0, nil)
			time.Sleep(time.Minute)
		}
		if got := r.fake.BMC("chassis").Counts().AuthFailures; got > 2 {
			t.Errorf("%d log-ins refused, want <=2", got)
		}
	})
}

func TestBMCResetPassesTheBreakerOnce(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetWrongPassword(true)
		time.Sleep(time.Second) // the look at a new node is over
		for range 5 {
			r.a.poller.readNodes(context.Background(), []string{"n1"}, 0, nil)
		}
		before := r.bmc("n1").Counts().AuthFailures
		r.end(r.ask("n1", power.ActBMCReset).Op.ID)
		if got := r.bmc("n1").Counts().AuthFailures - before; got > 1 {
			t.Errorf("one request let %d log-ins through an open breaker", got)
		}
	})
}

func TestCancelThatTheJournalRefusesComesAgain(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		h := hooked(r)
		r.bmc("n1").SetOnAfter(time.Minute)
		id := r.ask("n1", power.ActOn).Op.ID
		time.Sleep(time.Second)
		h.set(func(e []journal.Entry) error {
			if e[0].Kind == kindCancel {
				return errTestFull
			}
			return nil
		})
		err := r.a.apply(api.Assignment{Rev: 1, Cancels: []api.Cancel{cancelBy(id, "bob")}, OpsCursor: 7}, theCentral)
		h.set(nil)
		end := r.end(id)
		t.Logf("apply err=%v cursor=%d end=%+v", err, r.a.link.ops, end)
		if err == nil && r.a.link.ops == 7 && end.Outcome != power.Cancelled {
			t.Errorf("cancel was dropped while the cursor moved past it")
		}
	})
}

func TestExpiryOnAFullDiskDoesNotSpin(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		h := hooked(r)
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = 10 * time.Minute })
		r.ask("n1", power.ActDiag, func(o *power.Op) { o.Deadline = time.Now().Add(time.Minute) })
		var tries atomic.Int64
		h.set(func(e []journal.Entry) error {
			if e[0].Kind == kindEnded && tries.Load() < 100000 {
				tries.Add(1)
				return errTestFull
			}
			return nil
		})
		time.Sleep(62 * time.Second)
		if n := tries.Load(); n > 100 {
			t.Errorf("%d appends tried within 2 s of a full disk", n)
		}
	})
}

func TestStoppedJournalEndsAnIdleAgent(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		h := hooked(r)
		h.mu.Lock()
		h.err = errTestFull
		h.mu.Unlock()
		h.set(func([]journal.Entry) error { return errTestFull })
		_, err := r.a.Submit(power.Op{ID: "x", Node: "n1", Action: power.ActOn, Origin: power.FromCentral})
		t.Logf("submit: %v", err)
		time.Sleep(10 * time.Minute)
		select {
		case e := <-r.ended:
			r.ended <- e
		default:
			t.Errorf("journal failed for good 10 min ago and Run has not returned")
		}
		h.set(nil)
	})
}

func TestBootDeviceOfARunningNodeIsLeftAlone(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		end := r.end(r.ask("n1", power.ActOn, func(o *power.Op) { o.Boot = power.BootPXE }).Op.ID)
		if r.bmc("n1").Boot() == power.BootPXE {
			t.Errorf("%+v, yet the next reboot of the running node goes to pxe", end)
		}
	})
}

func TestOffDoesNotWaitForASofterOne(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetDeaf(true)
		a := r.ask("n1", power.ActSoftOff, func(o *power.Op) { o.Grace = 10 * time.Minute }).Op.ID
		time.Sleep(2 * time.Second)
		r.a.Cancel(cancelBy(a, "bob"))
		r.end(a)
		began := time.Now()
		e := r.end(r.ask("n1", power.ActOff).Op.ID)
		t.Logf("took %s %+v", time.Since(began), e)
		if time.Since(began) > 40*time.Second {
			t.Errorf("hard off waited %s for a cancelled soft-off", time.Since(began))
		}
	})
}

func TestMonitorsOperationEndsWithItsDesire(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.crash()
		r.cfg.Monitor = "@every 60s"
		r.start()
		b := r.bmc("n1")
		b.SetPower(power.On)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		// just as the monitor's op is accepted the BMC goes silent
		for range 1000 {
			time.Sleep(time.Millisecond)
			if len(r.a.lane("n1").outstanding()) > 0 || len(b.Commands()) > 0 {
				break
			}
		}
		t.Logf("out %+v cmds %v", r.a.lane("n1").outstanding(), b.Commands())
	})
	inBubble(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		b.SetMute(true)
		r.assign(withStatus(r.nodes[0], power.StatusReady))
		r.a.Submit(power.Op{
			ID: "m", Node: "n1", Action: power.ActOff, Origin: power.FromMonitor, AskedBy: "monitor",
			Options: power.Options{IfBusy: power.Refuse},
		})
		time.Sleep(5 * time.Second)
		r.assign(withStatus(r.nodes[0], power.StatusDeployed))
		r.restart()
		b.SetMute(false)
		e := r.end("m")
		t.Logf("%+v", e)
		if b.Power() == power.Off {
			t.Errorf("the monitor cut a node that is DEPLOYED by now")
		}
	})
}

func TestCursorIsNotNamedToAnotherCentral(t *testing.T) {
	var mu sync.Mutex
	var polls []api.Poll
	id := "central-1"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var out any
		switch {
		case strings.HasSuffix(q.URL.Path, "/hello"):
			out = api.Welcome{Database: api.Database{CentralID: id}, Session: "s" + id}
		case strings.HasSuffix(q.URL.Path, "/poll"):
			var p api.Poll
			json.NewDecoder(q.Body).Decode(&p)
			if p.Session != "s"+id {
				api.Problemf(api.CodeHello, "hello").Write(w)
				return
			}
			polls = append(polls, p)
			cur := int64(1000)
			if id == "central-2" {
				cur = 5
			}
			out = api.Assignment{Full: true, Rev: 3, OpsCursor: cur}
			time.Sleep(50 * time.Millisecond)
		default:
			out = api.Reported{}
		}
		json.NewEncoder(w).Encode(out)
	}))
	defer srv.Close()
	c, _ := api.NewClient(srv.URL)
	fake := powertest.NewFake()
	a, err := New(Config{
		Name: "r1", Dir: t.TempDir(), Dial: fake.Dial, Monitor: MonitorOff, Central: c,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, nil) }()
	time.Sleep(500 * time.Millisecond)
	mu.Lock()
	id = "central-2"
	polls = nil
	mu.Unlock()
	time.Sleep(2 * time.Second)
	mu.Lock()
	got := append([]api.Poll(nil), polls...)
	mu.Unlock()
	cancel()
	<-done
	a.Close()
	for i, p := range got[:min(3, len(got))] {
		t.Logf("poll %d: central %s ops %d", i, p.CentralID, p.Ops)
	}
	if len(got) > 1 && got[1].CentralID == "central-2" && got[1].Ops > 5 {
		t.Errorf("cursor of the old central (%d) is named to the new one", got[1].Ops)
	}
}

// TestABusyNodeStillKnowsWhatItDid has an asker whose answer was lost ask again, after
// much else was done on the node and the agent was started anew.
func TestABusyNodeStillKnowsWhatItDid(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		first := r.ask("n1", power.ActReset)
		r.wantEnd(first.Op.ID, power.Succeeded, power.ReasonVerified)
		for range 20 {
			r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonAlready)
		}
		if !r.a.acknowledged(r.a.outbox.take(1000), ack{}) {
			t.Fatal("what ended stays in the journal")
		}
		r.restart()
		again, err := r.a.Submit(power.Op{ID: first.Op.ID, Node: "n1", Action: power.ActReset, AskedBy: "admin", Origin: power.FromLocal})
		if err != nil || again.End == nil || again.End.Outcome != power.Succeeded {
			t.Errorf("%+v, %v", again, err)
		}
		time.Sleep(time.Minute)
		r.wantCommands("n1", power.HardReset)
	})
}

// TestAShortDeadlineIsNoReasonToTrustAReading has an on take the place of a soft-off
// that takes effect after the on's time is over: it must not say that it succeeded.
func TestAShortDeadlineIsNoReasonToTrustAReading(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetPower(power.On)
		r.bmc("n1").SetSoftOffAfter(12 * time.Second)
		r.ask("n1", power.ActSoftOff, func(op *power.Op) { op.Grace = time.Minute })
		time.Sleep(2 * time.Second)
		short := r.ask("n1", power.ActOn, func(op *power.Op) { op.Deadline = time.Now().Add(8 * time.Second) })
		if end := r.wantEnd(short.Op.ID, power.Expired, power.ReasonDeadline); !strings.Contains(end.Detail,
			"an earlier soft-off may still take effect") {
			t.Errorf("detail %q", end.Detail)
		}
		r.wantEnd(r.ask("n1", power.ActOn).Op.ID, power.Succeeded, power.ReasonVerified)
		r.wantPower("n1", power.On)
	})
}

// TestOldEndsAreForgotten keeps few of those that nobody asks for any more.
func TestOldEndsAreForgotten(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var done []doneRecord
	for i := range 100 {
		done = append(done, doneRecord{ID: strconv.Itoa(i), End: power.End{At: now.Add(time.Duration(i-99) * time.Minute)}})
	}
	for _, c := range []struct {
		later time.Duration
		kept  int
	}{{0, 16}, {time.Hour, keepDone}, {-time.Hour, keepRecent}} {
		kept := keptOf(done, now.Add(c.later))
		if len(kept) != c.kept || kept[len(kept)-1].ID != "99" {
			t.Errorf("%s later: %d kept, want %d", c.later, len(kept), c.kept)
		}
	}
}

func TestKnownFromTheJournalIsReportedAgain(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		got := r.ask("n1", power.ActOn)
		r.end(got.Op.ID)
		r.a.acknowledged(r.a.outbox.take(10), ack{})
		r.restart()
		// a central restored from a backup sends the request once more
		if err := r.a.takeNodeOps([]power.Op{got.Op}); err != nil {
			t.Fatal(err)
		}
		if len(r.a.outbox.take(10)) == 0 {
			t.Errorf("central asked again and will never be told the end")
		}
	})
}

func TestBatchWithABadRequestAcceptsNone(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		body := `{"ops":[{"id":"a","node":"n1","action":"on"},{"id":"b","node":"n2","action":"fly"}]}`
		rec := httptest.NewRecorder()
		r.a.control.routes().ServeHTTP(rec, httptest.NewRequest("POST", "/v1/ops", strings.NewReader(body)))
		time.Sleep(time.Minute)
		if rec.Code >= 300 && r.bmc("n1").Power() == power.On {
			t.Errorf("answered %d %s, yet n1 was powered on", rec.Code, rec.Body)
		}
	})
}

func TestUnsettledIsNotLostToAnOlderRecord(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		h := hooked(r)
		b := r.bmc("n1")
		b.SetPower(power.On)
		first := r.ask("n1", power.ActDiag)
		r.end(first.Op.ID)
		hold := make(chan struct{})
		h.set(func(e []journal.Entry) error {
			if e[0].Kind == kindLastSeq {
				<-hold
			}
			return nil
		})
		go r.a.acknowledged(r.a.outbox.take(10), ack{})
		synctest.Wait()
		b.SetSoftOffAfter(60 * time.Second)
		soft := r.ask("n1", power.ActSoftOff).Op.ID
		time.Sleep(2 * time.Second)
		on := r.ask("n1", power.ActOn).Op.ID
		for range 20000 {
			if got, _ := r.a.outbox.find(soft); got.End != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		close(hold)
		synctest.Wait()
		r.cfg.wrapLog = nil
		r.restart()
		e := r.end(on)
		time.Sleep(3 * time.Minute)
		t.Logf("%+v power=%s", e, b.Power())
		if b.Power() != power.On {
			t.Errorf("on succeeded, node off: unsettled was lost over the restart")
		}
	})
}

func TestCommandThatDidNotLeaveKeepsTheOneBefore(t *testing.T) {
	h := history{sendings: map[power.Command]int{}}
	h.sending(power.PressSoftOff, time.Now())
	h.sent(commandRecord{Command: power.PressSoftOff})
	h.sending(power.PowerOff, time.Now())
	h.sent(commandRecord{Command: power.PowerOff, NotLeft: true})
	if h.unsettled != power.PressSoftOff {
		t.Errorf("unsettled %q: the soft-off may still take effect", h.unsettled)
	}
}

func TestRequestsAtTheSameMomentAreNotStale(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		stale := 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				act := []power.Action{power.ActOn, power.ActOff}[i%2]
				got, err := r.a.Submit(power.Op{ID: fmt.Sprintf("c%d", i), Node: "n1", Action: act, Origin: power.FromLocal})
				mu.Lock()
				defer mu.Unlock()
				if err == nil && got.Reason == power.ReasonStale {
					stale++
				}
			})
		}
		wg.Wait()
		if stale > 0 {
			t.Errorf("%d of 60 simultaneous requests without a sequence were refused as stale", stale)
		}
	})
}

// The monitor's own request makes a person's, taken at central a moment earlier, stale.
func TestMonitorDoesNotMakeAPersonStale(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		seq := r.a.clock.Next(time.Now()) // central takes the admin's request
		time.Sleep(10 * time.Millisecond)
		m, _ := r.a.Submit(power.Op{
			ID: "m", Node: "n1", Action: power.ActOn, Origin: power.FromMonitor,
			Options: power.Options{IfBusy: power.Refuse},
		})
		got := r.ask("n1", power.ActCycle, func(o *power.Op) { o.Seq = seq })
		t.Logf("monitor %s, admin %s %s", m.Verdict, got.Verdict, got.Reason)
		if got.Verdict == power.VerdictRefuse {
			t.Errorf("refused: %s", got.Message)
		}
	})
}

func TestSameIDIsNotCarriedOutTwice(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		b := r.bmc("n1")
		b.SetPower(power.On)
		req := power.Op{ID: "x", Node: "n1", Action: power.ActReset, Origin: power.FromLocal, AskedBy: "bob"}
		r.a.Submit(req)
		r.end("x")
		r.end(r.ask("n1", power.ActOn).Op.ID)
		r.a.acknowledged(r.a.outbox.take(10), ack{})
		r.restart()
		got, _ := r.a.Submit(req) // the CLI did not get its answer and asks again with the same id
		if got.End == nil || got.End.Outcome != power.Succeeded {
			t.Errorf("asked again: %+v", got)
		}
		if n := b.Counts().Resets; n > 1 {
			t.Errorf("one request, %d resets", n)
		}
	})
}

// TestWhatAPersonJoinedGoesOn: a request that shares an operation of the monitor is a
// person's all the same, and no business of the monitor's.
func TestWhatAPersonJoinedGoesOn(t *testing.T) {
	for name, unwanted := range map[string]func(r *harness, d []api.DomainLimit){
		"the monitor rests": func(r *harness, d []api.DomainLimit) {
			r.settings(api.RackSettings{Domains: d, Pause: &api.Pause{By: "ann", Since: time.Now()}})
		},
		"nobody desires it any more": func(r *harness, _ []api.DomainLimit) {
			n := withStatus(r.nodes[5], power.StatusMissing)
			r.assign(n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			monitored(t, 6, func(r *harness) {
				r.inDomains("feed")
				limits := []api.DomainLimit{{Name: "feed", Rate: 0.05}}
				r.settings(api.RackSettings{Domains: limits})
				for i := range r.nodes {
					r.nodes[i] = withStatus(r.nodes[i], power.StatusTesting)
				}
				r.assign(r.nodes...)
				r.waitFor("all are asked for", 3*time.Minute, func() bool { return len(r.a.lane("n6").outstanding()) > 0 })
				got := r.ask("n6", power.ActOn)
				if got.Verdict != power.VerdictJoin {
					t.Fatalf("%+v", got)
				}
				unwanted(r, limits)
				r.wantEnd(got.Op.ID, power.Succeeded, power.ReasonVerified)
			})
		})
	}
}
