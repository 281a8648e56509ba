package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
)

// TestAReportThatIsRefusedIsSifted: central refuses an end for good. Everything else gets
// through, the alarm names what does not, it is not sent without end, and the end stays in
// the journal until a central takes it.
func TestAReportThatIsRefusedIsSifted(t *testing.T) {
	r, c := withCentral(t, 4)
	refused := 0
	bad := c.ask("n2", power.ActOn)
	c.do(func() {
		c.judge = func(in api.Report) error {
			if slices.ContainsFunc(in.Ops, func(o api.OpReport) bool { return o.Op.ID == bad }) {
				refused++
				return api.Problemf(api.CodeBadRequest, "a text is longer than 1000 bytes")
			}
			return nil
		}
	})
	ids := []string{c.ask("n1", power.ActOn), c.ask("n3", power.ActOn), c.ask("n4", power.ActOff)}
	for _, id := range ids {
		c.ends(id, 1)
	}
	eventually(t, "the alarm", func() bool {
		return slices.ContainsFunc(r.a.alarms.list(), func(a api.Alarm) bool {
			return a.Kind == api.AlarmReportRefused && strings.Contains(a.Message, bad) && strings.Contains(a.Message, "longer than 1000 bytes")
		})
	})
	r.allReported()
	if n := get(c, func() int { return refused }); n > 60 {
		t.Errorf("%d refused reports", n)
	}
	if hellos := get(c, func() int { return len(c.hellos) }); hellos != 1 {
		t.Errorf("%d sessions", hellos)
	}
	if !slices.Contains(r.liveKeys(), bad) {
		t.Error("the journal let go of an end that central does not have")
	}
	// The next session, with a central that takes it.
	c.do(func() { c.judge = nil; c.refuse["poll"] = api.Problemf(api.CodeHello, "say hello first") })
	c.wantEnd(bad, power.Succeeded, power.ReasonVerified)
	eventually(t, "the alarm is over", func() bool { return !r.a.alarms.active(api.AlarmReportRefused) })
	eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
}

// TestNothingIsLostWhereCentralHasTooMuch: reports that are refused because the agent asks
// too often are sent again, all of them, and none is set aside.
func TestNothingIsLostWhereCentralHasTooMuch(t *testing.T) {
	r, c := withCentral(t, 4)
	refused := 0
	ids := []string{c.ask("n1", power.ActOn), c.ask("n2", power.ActOn), c.ask("n3", power.ActOn), c.ask("n4", power.ActOff)}
	c.do(func() {
		c.judge = func(in api.Report) error {
			if ended := slices.ContainsFunc(in.Ops, func(o api.OpReport) bool { return o.End != nil }); ended && refused < 3 {
				refused++
				return api.TooMany(0, "too many requests of agent r1")
			}
			return nil
		}
	})
	for _, id := range ids {
		c.ends(id, 1)
	}
	r.allReported()
	eventually(t, "the journal lets go", func() bool { return len(r.liveKeys()) == 0 })
	if n := get(c, func() int { return refused }); n == 0 {
		t.Error("nothing was refused")
	}
	if r.a.alarms.active(api.AlarmReportRefused) {
		t.Error("something was set aside")
	}
}

// TestDeliverSendsAllThatIsTaken: against any central, an item that it takes is sent once,
// one that it refuses is set aside, and errors that pass end it.
func TestDeliverSendsAllThatIsTaken(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	l := &link{logger: log, outbox: newOutbox(0), alarms: newAlarms(log, func() {})}
	rapid.Check(t, func(rt *rapid.T) {
		l.undelivered.begin()
		var all news
		bad := map[string]bool{}
		for i := range rapid.IntRange(0, 20).Draw(rt, "items") {
			name := fmt.Sprint("i", i)
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0, 1:
				all.ops = append(all.ops, api.OpReport{Op: power.Op{ID: name}})
			case 2:
				all.readings = append(all.readings, api.NodeReading{Node: name})
			case 3:
				all.rack.holds = append(all.rack.holds, api.NodeHold{Node: name})
			case 4:
				all.rack.explained = append(all.rack.explained, api.Explanation{Node: name})
			}
			bad[name] = rapid.IntRange(0, 3).Draw(rt, "bad") == 0
		}
		most := rapid.SampledFrom([]int{1, 3, 100}).Draw(rt, "most at once")
		deaf := rapid.IntRange(0, 9).Draw(rt, "takes nothing") == 0
		away := rapid.IntRange(1, 200).Draw(rt, "away at")
		got, asked := map[string]int{}, 0
		errAway := errors.New("away")
		err := l.deliver(all, func(n news) error {
			names := namesOf(n)
			asked++
			switch {
			case asked == away:
				return errAway
			case deaf || slices.ContainsFunc(names, func(s string) bool { return bad[s] }):
				return fmt.Errorf("report: %w", api.Problemf(api.CodeBadRequest, "no"))
			case len(names) > most:
				return api.Problemf(api.CodeQueueFull, "too many")
			}
			for _, name := range names {
				got[name]++
			}
			return nil
		})
		switch {
		case asked >= away && !errors.Is(err, errAway):
			rt.Fatalf("central was away: %v", err)
		case asked < away && deaf && (api.CodeOf(err) != api.CodeBadRequest || asked > 2 || len(l.undelivered.items) > 0):
			rt.Fatalf("a central that takes nothing: %v after %d reports, %v", err, asked, l.undelivered.items)
		case asked >= away || deaf:
			return
		case err != nil:
			rt.Fatal(err)
		}
		aside := 0
		for _, name := range namesOf(all) {
			if bad[name] {
				aside++
			}
			if want := map[bool]int{false: 1}[bad[name]]; got[name] != want {
				rt.Fatalf("%s arrived %d times, want %d", name, got[name], want)
			}
		}
		if len(l.undelivered.items) != aside {
			rt.Fatalf("%d set aside, want %d", len(l.undelivered.items), aside)
		}
	})
}

func namesOf(n news) (names []string) {
	for _, o := range n.ops {
		names = append(names, o.Op.ID)
	}
	for _, v := range n.readings {
		names = append(names, v.Node)
	}
	for _, h := range n.rack.holds {
		names = append(names, h.Node)
	}
	for _, e := range n.rack.explained {
		names = append(names, e.Node)
	}
	return names
}

// TestWhatTheJournalDoesNotTakeStopsOnlyItself: a request too large for the journal is
// refused, one for which there is no room now is taken later, in the same session.
func TestWhatTheJournalDoesNotTakeStopsOnlyItself(t *testing.T) {
	r, c := withCentral(t, 3)
	var room atomic.Bool
	h := &hookLog{}
	r.crash()
	r.cfg.wrapLog = func(_ *Agent, l opLog) opLog { h.opLog = l; return h }
	h.set(func(e []journal.Entry) error {
		switch {
		case strings.Contains(string(e[0].Payload), "too-large"):
			return fmt.Errorf("cannot append: %w", journal.ErrTooLarge)
		case strings.Contains(string(e[0].Payload), "no-room") && !room.Load():
			return fmt.Errorf("cannot append: %w", journal.ErrFull)
		}
		return nil
	})
	r.start()
	why := func(reason string) opOption { return func(op *power.Op) { op.Reason = reason } }
	large := c.ask("n1", power.ActOn, why("too-large"))
	later := c.ask("n2", power.ActOn, why("no-room"))
	other := c.ask("n3", power.ActOn)
	if end := c.wantEnd(large, power.Refused, power.ReasonUnsupported); !strings.Contains(end.Detail, journal.ErrTooLarge.Error()) {
		t.Errorf("end %+v", end)
	}
	c.wantEnd(other, power.Succeeded, power.ReasonVerified)
	if get(c, func() int { return len(c.words[later]) }) > 0 {
		t.Error("central was told of a request that is not durable")
	}
	sessions := get(c, func() int { return c.sessions })
	room.Store(true)
	c.wantEnd(later, power.Succeeded, power.ReasonVerified)
	if got := get(c, func() int { return c.sessions }); got != sessions || got != 2 {
		t.Errorf("%d sessions, then %d; want the two starts", sessions, got)
	}
	r.wantCommands("n1")
	r.wantCommands("n2", power.PowerOn)
}
