package gossip

import (
	"testing"
	"time"

	"rackpower/power"
)

const (
	testRest = 10 * time.Second
	testGap  = time.Second
)

// kinds tells the messages in short: n for names, p for a part.
func kinds(messages []message) string {
	s := ""
	for _, m := range messages {
		s += map[byte]string{kindPower: "p", kindNames: "n"}[m.kind]
	}
	return s
}

// TestPlan is a story of one agent: what it publishes, and when.
func TestPlan(t *testing.T) {
	o := &own{epoch: 1}
	at := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	flip := func(s float64, state power.State) { o.take(rack("r1", 3, state), at(s)) }
	step := func(s float64, want string, wantNext float64) {
		t.Helper()
		got, next := o.plan(at(s), "r1", testRest, testGap)
		if kinds(got) != want || !next.Equal(at(wantNext)) {
			t.Errorf("at %v s: %q and then at %v s, want %q and then %v s", s, kinds(got), next.Sub(now).Seconds(), want, wantNext)
		}
	}
	step(0, "", 10) // nothing was set
	flip(0, power.On)
	step(0, "np", 10)
	flip(0.1, power.Off)
	step(0.1, "p", 10) // the second at once is free
	flip(0.2, power.On)
	step(0.2, "", 1) // the third waits
	flip(0.3, power.Off)
	step(0.3, "", 10) // and is not needed: it is what was said last
	flip(0.4, power.On)
	step(1, "p", 10)
	flip(2, power.On) // read again, the same
	step(2, "", 10)
	step(10, "p", 20) // to heal what was missed
	step(20, "p", 30)
	step(30, "p", 40)
	step(40, "np", 50)
	o.take(rack("r1", 4, power.On), at(41))
	step(41, "np", 50)
	o.greet = true
	got, next := o.plan(at(45), "r1", testRest, testGap)
	if kinds(got) != "" || next.Before(at(46)) || next.After(at(47)) {
		t.Errorf("%q, then %v", kinds(got), next)
	}
	step(47.5, "np", 57.5) // the newcomer is told everything
	if o.seq != 9 {
		t.Errorf("sequence %d", o.seq)
	}
}

func TestOnlyChangedPartsAreSent(t *testing.T) {
	o := &own{epoch: 1}
	nodes := rack("r1", 1000, power.On)
	o.take(nodes, now)
	if got, _ := o.plan(now, "r1", testRest, testGap); kinds(got[len(got)-5:]) != "ppppp" || got[0].kind != kindNames {
		t.Errorf("%q", kinds(got))
	}
	nodes[450].State = power.Off
	o.take(nodes, now)
	got, _ := o.plan(now, "r1", testRest, testGap)
	if kinds(got) != "p" || got[0].part != 2 || got[0].seq != 2 {
		t.Errorf("%q, part %d", kinds(got), got[0].part)
	}
}

func TestAgesAreThoseOfTheMomentOfSending(t *testing.T) {
	o := &own{epoch: 1}
	o.take([]NodePower{{Name: "a", Age: 5 * time.Second}, {Name: "b", Age: -1}}, now)
	got, _ := o.plan(now.Add(20*time.Second), "r1", testRest, testGap)
	cells := got[len(got)-1].cells
	if a, _ := cells[0].open(); a.Age != 25*time.Second {
		t.Errorf("%v", a.Age)
	}
	if b, _ := cells[1].open(); b.Age >= 0 {
		t.Errorf("%v", b.Age)
	}
}

func TestOutdo(t *testing.T) {
	mine := powerOf("r1", 4, 2, 9, rack("r1", 2, power.On)...)
	other := mine
	other.digest++
	for what, c := range map[string]struct {
		m    message
		want uint64
	}{
		"own record":          {mine, 4},
		"an older one":        {powerOf("r1", 3, 1, 99), 4},
		"a later sequence":    {powerOf("r1", 4, 2, 10, rack("r1", 2, power.On)...), 5},
		"another list":        {other, 5},
		"a later epoch":       {powerOf("r1", 7, 1, 1), 8},
		"names are no record": {message{kind: kindNames, epoch: 9}, 4},
	} {
		o := &own{epoch: 4, seq: 9, since: 2, digest: mine.digest}
		if got := o.outdo(c.m); got != (c.want != 4) || o.epoch != c.want {
			t.Errorf("%s: %v, epoch %d", what, got, o.epoch)
		}
	}
}
