package central

import (
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/internal/metrics"
	"rackpower/power"
)

func TestOnlyThoseAreWokenWhoWaitForTheNode(t *testing.T) {
	w := newWaiting()
	ab, c := w.await([]string{"a", "b", "b"}), w.await([]string{"c"})
	woken := func(x *wait) bool {
		select {
		case <-x.token:
			return true
		default:
			return false
		}
	}
	w.tell([]string{"b", "a", "d"})
	if !woken(ab) || woken(ab) || woken(c) {
		t.Error("news of a and b: want who waits for them woken, once")
	}
	w.read([]api.NodeReading{{Node: "c"}})
	if woken(ab) || !woken(c) {
		t.Error("a reading of c: want who waits for it woken")
	}
	ab.leave()
	w.tell([]string{"a", "b"})
	if woken(ab) || len(w.by) != 1 {
		t.Errorf("who has left is woken, or still known: %v", w.by)
	}
	if c.pause >= time.Millisecond {
		t.Errorf("who waits for one node looks after %s", c.pause)
	}
}

// transactions counts them, as a sink of the store's histogram.
type transactions struct{ n uint64 }

func (c *transactions) Value(*metrics.Metric, float64, ...string) {}

func (c *transactions) Distribution(_ *metrics.Metric, d metrics.Distribution, _ ...string) {
	for _, n := range d.Counts {
		c.n += n
	}
}

func (s *site) transactions() uint64 {
	var c transactions
	s.c.numbers.commits.Collect(&c, new(metrics.Metric))
	return c.n
}

func TestARequestLeavesForAPollThatWaitsWithoutATransactionMore(t *testing.T) {
	s := newSite(t)
	s.nodes("a", "b")
	r := s.rack("r1")
	r.poll()
	got, before := r.pollBehind(time.Minute), s.transactions()
	one := s.ask("a", power.ActOn)
	if g := <-got; ids(g.Ops) != " "+one.ID || s.transactions() != before+1 {
		t.Errorf("delivered%s in %d transactions, want one", ids(g.Ops), s.transactions()-before)
	}
	// It has left: only the agent ends it, though it never said that it has it.
	two := s.ask("b", power.ActOn)
	s.later(time.Hour)
	s.c.expire(t.Context())
	if o := s.op(one.ID); o.Outcome != "" {
		t.Errorf("what has left was ended by central: %+v", o)
	}
	if o := s.op(two.ID); o.Outcome != power.Expired {
		t.Errorf("what was asked while no poll waited has not left, and its time is over: %+v", o)
	}
}
