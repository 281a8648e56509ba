package gossip

import (
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

const (
	testRest = 10 * time.Second
	testGap  = time.Second
)

// kinds tells a batch in short: n for names, p for a part, + for by events.
func kinds(b batch) string {
	s := ""
	for _, m := range b.messages {
		s += map[byte]string{kindPower: "p", kindNames: "n"}[m.kind]
	}
	if b.loud {
		s += "+"
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
	step(0, "np+", 10)
	flip(0.1, power.Off)
	step(0.1, "p+", 10.1) // the second at once is free
	flip(0.2, power.On)
	step(0.2, "", 1) // the third waits
	flip(0.3, power.Off)
	step(0.3, "", 10.1) // and is not needed: it is what was said last
	flip(0.4, power.On)
	step(1, "p+", 11)
	flip(2, power.On) // read again, the same
	step(2, "", 11)
	step(11, "p", 21) // the ages, by exchanges
	step(21, "p", 31)
	o.take(rack("r1", 4, power.On), at(22))
	step(22, "np+", 32)
	o.take(rack("r1", 2000, power.On), at(25))
	if b, _ := o.plan(at(25), "r1", testRest, testGap); b.loud || !b.changed || len(b.messages) < 12 {
		t.Errorf("a long record: loud %v, %d messages", b.loud, len(b.messages))
	}
	if o.seq != 7 {
		t.Errorf("sequence %d", o.seq)
	}
}

func TestOnlyChangedPartsAreSent(t *testing.T) {
	o := &own{epoch: 1}
	nodes := rack("r1", 1000, power.On)
	o.take(nodes, now)
	if got, _ := o.plan(now, "r1", testRest, testGap); !strings.HasSuffix(kinds(got), "nppppp") {
		t.Errorf("%q", kinds(got))
	}
	nodes[450].State = power.Off
	o.take(nodes, now)
	got, _ := o.plan(now, "r1", testRest, testGap)
	if kinds(got) != "p+" || got.messages[0].part != 2 || got.messages[0].seq != 2 {
		t.Errorf("%q, %+v", kinds(got), got.messages)
	}
}

func TestAgesAreThoseOfTheMomentOfSending(t *testing.T) {
	o := &own{epoch: 1}
	o.take([]NodePower{{Name: "a", Age: 5 * time.Second}, {Name: "b", Age: -1}}, now)
	got, _ := o.plan(now.Add(20*time.Second), "r1", testRest, testGap)
	cells := got.messages[len(got.messages)-1].cells
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
