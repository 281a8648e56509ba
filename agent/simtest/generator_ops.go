package simtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"rackpower/power"
)

// generator draws a script from a seed.
type generator struct {
	*rand.Rand
	nodes  int
	calm   bool // nothing fails, BMCs are late at most: more is seen of order and waits
	labels []string
	asks   int
}

// DrawOps draws history number n of a seed.
func DrawOps(seed, n uint64) Script {
	d := &generator{Rand: rand.New(rand.NewPCG(seed, n))}
	d.nodes = pick(d, 1, 1, 1, 2, 2, 4)
	d.calm = d.IntN(5) == 0
	s := Script{{Verb: "nodes", Args: []string{fmt.Sprint(d.nodes)}}}
	for i := range d.nodes { // nodes are not all off, prompt and near
		node := fmt.Sprintf("n%d", i+1)
		if d.IntN(3) > 0 {
			s = append(s, Step{Verb: "latency", Args: []string{node, d.span(0, 80*time.Millisecond).String()}})
		}
		if d.IntN(2) == 0 {
			s = append(s, Step{Verb: "manual", Args: []string{node, "on"}})
		}
		if d.IntN(3) > 0 {
			s = append(s, d.fault(0, "late", node))
		}
		if d.IntN(3) == 0 {
			s = append(s, d.fault(0, "soft", node))
		}
	}
	if !d.calm && d.IntN(8) == 0 {
		s = append(s, d.step(0, "start-crash", d.crashArgs(30)...))
	}
	if !d.calm && d.IntN(2) == 0 {
		s = append(s, d.step(0, "crash", d.crashArgs(25)...))
	}
	for range 3 + d.IntN(18) {
		s = append(s, d.draw())
	}
	for range d.IntN(4) { // drawn last: the rest of a history is what it was
		at := 1 + d.IntN(len(s))
		s = slices.Insert(s, at, d.step(d.pause(), pick(d, "other-central", "restored")))
	}
	return s
}

func pick[T any](d *generator, of ...T) T { return of[d.IntN(len(of))] }

// span draws a duration, odd enough not to meet another by chance.
func (d *generator) span(from, to time.Duration) time.Duration {
	return from + time.Duration(d.Int64N(int64(to-from)/1000+1))*1000
}

func (d *generator) pause() time.Duration {
	switch d.IntN(11) {
	case 10: // when an agent with a prompt BMC looks, too
		return pick(d, 300*time.Millisecond, 450*time.Millisecond, 5*time.Second, 5300*time.Millisecond)
	case 0, 1:
		return 0
	case 2, 3, 4:
		return d.span(0, time.Second)
	case 5, 6, 7:
		return d.span(time.Second, 8*time.Second)
	case 8:
		return d.span(8*time.Second, 30*time.Second)
	default:
		return d.span(0, 90*time.Millisecond)
	}
}

func (d *generator) node() string { return fmt.Sprintf("n%d", 1+d.IntN(d.nodes)) }

func (d *generator) step(after time.Duration, verb string, args ...string) Step {
	return Step{After: after, Verb: verb, Args: args}
}

func (d *generator) draw() Step {
	p := d.pause()
	switch n := d.IntN(100); {
	case n < 48:
		return d.step(p, "ask", d.askArgs()...)
	case n < 52 && len(d.labels) > 0:
		return d.step(p, "again", d.recent())
	case n < 58 && len(d.labels) > 0:
		return d.step(p, "cancel", d.recent())
	case n >= 58 && d.calm:
		if n < 90 {
			return d.step(p, "ask", d.askArgs()...)
		}
		return d.fault(p, pick(d, "late", "soft"), d.node())
	case n < 65:
		args := []string{fmt.Sprintf("n=%d", 1+d.IntN(5))}
		if d.IntN(4) == 0 {
			args = append(args, "lose")
		}
		return d.step(p, "report", args...)
	case n < 72:
		return d.step(p, "crash", d.crashArgs(25)...)
	case n < 74:
		return d.step(p, "start-crash", d.crashArgs(30)...)
	case n < 77:
		return d.step(p, "kill", d.lossArgs()...)
	case n < 79:
		return d.step(p, "stop")
	case n < 80:
		return d.step(p, pick(d, "full", "room", "eio"))
	case n < 83:
		return d.step(p, "deny", fmt.Sprintf("skip=%d", d.IntN(7)), fmt.Sprintf("n=%d", 1+d.IntN(3)))
	default:
		return d.fault(p, "", d.node())
	}
}

func (d *generator) recent() string {
	return d.labels[max(0, len(d.labels)-1-d.IntN(4))]
}

func (d *generator) askArgs() []string {
	d.asks++
	label := fmt.Sprintf("a%d", d.asks)
	d.labels = append(d.labels, label)
	action := pick(d, power.ActOn, power.ActOn, power.ActOff, power.ActOff, power.ActCycle, power.ActCycle,
		power.ActSoftOff, power.ActSoftOff, power.ActReset, power.ActDiag, power.ActBMCReset, power.ActCap, power.ActCap)
	args := []string{label, d.node(), string(action)}
	switch d.IntN(8) {
	case 0, 1:
		args = append(args, "if_busy=queue")
	case 2:
		args = append(args, "if_busy=refuse")
	}
	if action.Boots() && d.IntN(6) == 0 {
		args = append(args, "boot="+string(pick(d, power.BootPXE, power.BootDisk)))
	}
	if action == power.ActCap && d.IntN(3) > 0 {
		args = append(args, fmt.Sprintf("limit=%d", pick(d, 300, 500, 800)))
	}
	if action == power.ActSoftOff {
		if d.IntN(3) > 0 {
			args = append(args, "grace="+pick(d, "5s", "20s", "1m30s"))
		}
		if d.IntN(4) == 0 {
			args = append(args, "no-escalate")
		}
	}
	switch d.IntN(8) {
	case 0:
		args = append(args, "deadline="+d.span(time.Second, 15*time.Second).String())
	case 1:
		args = append(args, "deadline="+d.span(15*time.Second, time.Minute).String())
	}
	switch d.IntN(10) {
	case 0, 1, 2:
		args = append(args, "from=local")
	case 3:
		args = append(args, "from=monitor")
		if d.nodes > 1 && d.IntN(3) > 0 { // what it wants, where anything is wanted
			args = []string{label, "n2", "on", "from=monitor"}
		}
	case 4:
		args = append(args, "seq=-"+d.span(0, 10*time.Second).String())
	}
	if d.IntN(8) == 0 {
		args = append(args, "race")
	}
	return args
}

// crashArgs is a death within the n-th call that changes the disk.
func (d *generator) crashArgs(within int) []string {
	args := []string{fmt.Sprintf("n=%d", 1+d.IntN(within)), fmt.Sprintf("keep=%d", pick(d, 0, 1000, d.IntN(1001), d.IntN(1001)))}
	if d.IntN(6) == 0 {
		args = append(args, "any") // calls on the spare and of the assignment's log count too
	}
	return append(args, d.lossArgs()...)
}

// lossArgs is what is left of unflushed data, and for how long the agent is away.
func (d *generator) lossArgs() []string {
	args := []string{"down=" + pick(d, 0, 0, d.span(0, time.Second), d.span(time.Second, 40*time.Second)).String()}
	if d.IntN(2) == 0 {
		args = append(args, fmt.Sprintf("power=%d", 1+d.IntN(1000)))
	}
	return args
}

// fault is a misbehaviour of a BMC, or the end of one.
func (d *generator) fault(p time.Duration, verb, node string) Step {
	if verb == "" {
		verb = pick(d, "late", "late", "late", "prompt", "latency", "timeout", "soft", "soft", "deaf", "stuck", "mute", "mute", "wake", "wake",
			"lie", "lose", "lose", "lose",
			"refuse", "refuse", "refuse-reads", "refuse-dials", "refuse-sends", "restart-bmc", "restart-bmc", "password", "manual")
	}
	args := []string{node}
	switch verb {
	case "late": // shorter than the first window, so that the agent can know
		args = append(args, "on="+d.span(0, 5*time.Second).String(), "off="+d.span(0, 5*time.Second).String())
	case "latency":
		args = append(args, d.span(0, 2*time.Second).String())
	case "timeout":
		args = append(args, d.span(500*time.Millisecond, 9*time.Second).String())
	case "soft":
		args = append(args, d.span(0, 60*time.Second).String())
	case "deaf", "stuck":
		args = append(args, pick(d, "true", "true", "false"))
	case "password":
		args = append(args, pick(d, "wrong", "wrong", "right"))
	case "lie":
		args = append(args, pick(d, "on", "off"), d.span(0, 20*time.Second).String())
	case "lose":
		args = append(args, fmt.Sprintf("n=%d", 1+d.IntN(2)))
	case "refuse":
		args = append(args, fmt.Sprintf("n=%d", 1+d.IntN(4)), "kind="+
			string(pick(d, power.KindRefused, power.KindBusy, power.KindUnreachable, power.KindUnsupported, power.KindPrivilege, power.KindAuth,
				power.KindUncertain)))
	case "refuse-reads", "refuse-dials":
		args = append(args, fmt.Sprintf("n=%d", 1+d.IntN(4)), "kind="+
			string(pick(d, power.KindRefused, power.KindBusy, power.KindUnreachable, power.KindUnreachable, power.KindAuth, power.KindPrivilege)))
	case "refuse-sends":
		args = append(args, fmt.Sprintf("n=%d", 1+d.IntN(4)), "kind="+string(pick(d, power.KindUnreachable, power.KindBusy)))
	case "restart-bmc":
		args = append(args, "reboot="+d.span(0, 15*time.Second).String())
	case "manual":
		args = append(args, pick(d, "on", "off"))
	}
	return Step{After: p, Verb: verb, Args: args}
}
