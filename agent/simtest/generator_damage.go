package simtest

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// DrawDamage draws a history of a few operations, deaths and damages.
func DrawDamage(seed, n uint64) Script {
	d := rand.New(rand.NewPCG(seed, n))
	s := Script{{Verb: "damage", Args: []string{"3"}}}
	add := func(after time.Duration, verb string, args ...string) {
		s = append(s, Step{After: after, Verb: verb, Args: args})
	}
	soon := func() time.Duration { return time.Duration(d.IntN(4000)) * time.Millisecond }
	actions := []string{"reset", "diag", "bmc-reset", "cycle"}
	for i := 1; i <= 3; i++ {
		node := fmt.Sprintf("n%d", i)
		if d.IntN(2) == 0 {
			add(0, "slow", node, fmt.Sprint(100*d.IntN(40)))
		}
	}
	asked := 0
	ask := func() {
		if asked < 3 {
			asked++
			add(soon(), "ask", fmt.Sprintf("a%d", asked), fmt.Sprintf("n%d", asked), actions[d.IntN(len(actions))])
		}
	}
	for step := range 4 + d.IntN(8) {
		switch d.IntN(11) {
		case 0, 1, 2, 3:
			ask()
		case 10: // a copy is made while it waits for its BMC, and put back once it went on
			if asked < 3 {
				add(soon(), "mute", fmt.Sprintf("n%d", asked+1))
				ask()
				add(soon(), "copy")
				add(soon(), "harm", "kind="+[]string{"old", "volume"}[d.IntN(2)], "log=0")
			}
		case 4:
			add(soon(), "lose", fmt.Sprintf("n%d", 1+d.IntN(3)))
		case 5:
			add(soon(), "copy")
		case 6:
			add(soon(), "report")
		case 7:
			add(soon(), "kill")
		case 8:
			add(soon(), "mute", fmt.Sprintf("n%d", 1+d.IntN(3)))
		default:
			kind := []string{"flip", "flip", "flip", "cut", "zero", "remove", "old", "volume"}[d.IntN(8)]
			add(soon(), "harm", "kind="+kind, fmt.Sprintf("at=%d", d.IntN(1000)), fmt.Sprintf("log=%d", max(0, d.IntN(4)-2)))
		}
		if step%4 == 3 {
			add(soon(), []string{"compare", "ack"}[d.IntN(2)])
		}
	}
	add(soon(), "harm", "kind=flip", fmt.Sprintf("at=%d", d.IntN(1000)), "log=0")
	return s
}
