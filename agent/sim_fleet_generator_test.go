package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"rackpower/power"
)

// A history of a hall begins with the line "hall N"; its verbs are the cases of
// hall.play. Nodes are named by ranges: 3, 1-12, 2,5,9.

// hallNames are the nodes of a range, in its order.
func hallNames(text string, of int) (names []string) {
	for part := range strings.SplitSeq(text, ",") {
		from, to, many := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if many && err == nil {
			last, err = strconv.Atoi(to)
		}
		for i := first; err == nil && i <= min(last, of); i++ {
			if i > 0 {
				names = append(names, hallName(i))
			}
		}
	}
	return names
}

func hallName(i int) string { return fmt.Sprintf("n%02d", i) }

// some draws so many nodes: neighbours, or here and there.
func (d *drawer) some(n int) string {
	n = min(n, d.nodes)
	first := 1 + d.IntN(d.nodes-n+1)
	switch {
	case n == 1:
		return fmt.Sprint(first)
	case n > 6 || d.IntN(2) == 0:
		return fmt.Sprintf("%d-%d", first, first+n-1)
	}
	list := d.Perm(d.nodes)[:n]
	slices.Sort(list)
	var parts []string
	for _, i := range list {
		parts = append(parts, fmt.Sprint(i+1))
	}
	return strings.Join(parts, ",")
}

// many is a number of nodes about which the brake has something to say, or just not.
func (d *drawer) many() int {
	return pick(d, d.nodes, d.nodes/2, 6, 7+d.IntN(d.nodes), d.nodes/5+1, max(5, d.nodes/5))
}

var (
	hallOffs  = []power.Status{power.StatusReady, power.StatusReady, power.StatusBroken, power.StatusFailedDeployment, power.StatusNew}
	hallOns   = []power.Status{power.StatusDeploying, power.StatusTesting, power.StatusDiskErasing, power.StatusDiskErasing}
	hallHands = []power.Status{power.StatusDeployed, power.StatusDeployed, power.StatusMissing}
)

func (d *drawer) status() string {
	switch d.IntN(8) {
	case 0, 1, 2:
		return string(pick(d, hallOffs...))
	case 3, 4:
		return string(pick(d, hallOns...))
	case 5:
		return "-"
	default:
		return string(pick(d, hallHands...))
	}
}

func (d *drawer) hallPause() time.Duration {
	switch n := d.IntN(100); {
	case n < 10:
		return 0
	case n < 30:
		return d.span(0, time.Second)
	case n < 55:
		return d.span(time.Second, 10*time.Second)
	case n < 83:
		return d.span(10*time.Second, 65*time.Second)
	case n < 97:
		return d.span(time.Minute, 5*time.Minute)
	default:
		return d.span(9*time.Minute, 14*time.Minute)
	}
}

// drawHallScript draws history number n of a seed.
func drawHallScript(seed, n uint64) proofScript {
	d := &drawer{Rand: rand.New(rand.NewPCG(seed, n))}
	d.nodes = pick(d, 8, 9, 12, 20, 20, 30, 40)
	s := proofScript{{verb: "hall", args: []string{fmt.Sprint(d.nodes)}}}
	if d.IntN(3) == 0 {
		s[0].args = append(s[0].args, "feed="+pick(d, "0.2", "1", "4"))
	}
	give := func(nodes string) {
		status, state := d.status(), pick(d, "on", "off")
		s = append(s, d.step(0, "give", nodes, status, state))
	}
	s = append(s, d.step(0, "give", fmt.Sprintf("1-%d", d.nodes),
		string(pick(d, power.StatusDeployed, power.StatusDeployed, power.StatusDiskErasing, power.StatusReady, power.StatusTesting)), "fits"))
	for range d.IntN(3) {
		give(d.some(1 + d.IntN(4)))
	}
	for range d.IntN(3) {
		s = append(s, d.hallKnob(0, pick(d, "latency", "late")))
	}
	s = append(s, d.step(pick(d, 0, 2*time.Minute, 2*time.Minute, 3*time.Minute), "wait"))
	switch d.IntN(12) {
	case 0, 1:
		s = append(s, d.faults()...)
	case 2:
		s[0].args = []string{fmt.Sprint(d.nodes), "feed=0.05"}
		s = append(s, d.ramp()...)
	case 3:
		s = append(s, d.blind()...)
	}
	begin := len(s)
	for range 4 + d.IntN(16) {
		s = append(s, d.hallSteps()...)
	}
	return d.centrals(s, begin)
}

// centrals puts other centrals into a history, and a restore of the right one. It is
// drawn last: the rest of a history is what it was.
func (d *drawer) centrals(s proofScript, begin int) proofScript {
	at := func(from int) int { return from + d.IntN(len(s)-from+1) }
	if d.IntN(3) == 0 {
		from := at(begin)
		s = slices.Insert(s, from, d.step(0, "backup"))
		step := d.step(d.hallPause(), "restore")
		if d.IntN(2) == 0 {
			step.args = append(step.args, d.some(1+d.IntN(d.nodes)))
		}
		s = slices.Insert(s, at(from+1), step)
	}
	for range d.IntN(3) {
		s = slices.Insert(s, at(begin), d.step(d.hallPause(), "stranger", d.flags(nil, "older")...))
	}
	return s
}

// ramp draws cycles that wait for their turn for long, and a change of status meanwhile.
func (d *drawer) ramp() (s proofScript) {
	for i := range d.nodes {
		d.asks++
		s = append(s, d.step(0, "ask", fmt.Sprintf("a%d", d.asks), fmt.Sprint(i+1), "cycle", "local", "deadline=30m"))
	}
	args := d.bulkArgs()
	if d.IntN(2) == 0 {
		args = append(args, "confirmed")
	}
	s = append(s, d.step(d.span(0, 20*time.Second), "status", args...))
	return append(s, d.step(d.span(time.Minute, 12*time.Minute), "wait"))
}

// blind draws BMCs that are silent for long, a change of status meanwhile, and how they
// come back one after the other.
func (d *drawer) blind() proofScript {
	mute := d.some(d.nodes/2 + d.IntN(d.nodes/2+1))
	s := proofScript{d.step(0, "mute", mute)}
	if d.IntN(3) == 0 {
		s = append(s, d.death(d.span(0, time.Minute)))
	}
	s = append(s, d.step(d.span(8*time.Minute, 20*time.Minute), "status", d.bulkArgs()...))
	if d.IntN(3) == 0 {
		s = append(s, d.death(d.span(0, time.Minute)))
	}
	pause := d.span(time.Minute, 3*time.Minute)
	for _, name := range hallNames(mute, d.nodes) {
		s = append(s, d.step(pause, "wake", strings.TrimLeft(name[1:], "0")))
		pause = d.span(5*time.Second, 30*time.Second)
	}
	return append(s, d.step(d.span(0, 10*time.Minute), "wait"))
}

// faults draws nodes that do not follow, or come back by themselves, for long.
func (d *drawer) faults() proofScript {
	nodes := d.some(1 + d.IntN(3))
	s := proofScript{
		d.step(0, pick(d, "stuck", "comeback", "fallback"), nodes, "after="+d.span(0, 20*time.Second).String()),
		d.step(0, "status", nodes, string(pick(d, append(hallOffs, power.StatusDiskErasing)...)), "confirmed"),
	}
	for range 1 + d.IntN(4) {
		s = append(s, d.step(d.span(time.Minute, 6*time.Minute), "wait"))
		if d.IntN(2) == 0 {
			s = append(s, d.death(d.span(0, time.Minute)))
		}
	}
	if d.IntN(4) == 0 {
		s = append(s, d.step(d.span(30*time.Minute, 50*time.Minute), "wait"))
	}
	return s
}

// hallSteps draws what happens next: mostly one thing, sometimes several at once.
func (d *drawer) hallSteps() proofScript {
	p := d.hallPause()
	switch n := d.IntN(120); {
	case n < 12:
		return proofScript{d.step(p, "status", d.statusArgs(1+d.IntN(3))...)}
	case n < 30:
		return d.underFire(d.step(p, "status", d.bulkArgs()...))
	case n < 34:
		return proofScript{d.step(p, "status",
			append(d.bulkArgs(), "every="+d.span(100*time.Millisecond, 12*time.Second).Truncate(100*time.Millisecond).String())...)}
	case n < 43:
		return d.underFire(d.step(p, "hold", d.holdArgs()...))
	case n < 47:
		return proofScript{d.step(p, "release", d.flags([]string{d.some(pick(d, 1, 2, d.many()))}, "confirmed", "local")...)}
	case n < 60:
		return d.requests(p)
	case n < 63:
		return proofScript{d.step(p, "pause", pick(d, "", "for="+d.span(time.Minute, 8*time.Minute).Truncate(time.Second).String()))}
	case n < 66:
		return proofScript{d.step(p, "resume")}
	case n < 68:
		return proofScript{d.step(p, "monitor", pick(d, "off", "on"))}
	case n < 70:
		return proofScript{d.step(p, "bounds", fmt.Sprintf("percent=%d", pick(d, 0, 10, 30)), fmt.Sprintf("above=%d", pick(d, 0, 2, 8)))}
	case n < 76:
		return proofScript{d.step(p, "let-go", d.flags(nil, "local")...)}
	case n < 79:
		return proofScript{d.step(p, "retry", d.flags([]string{d.some(1 + d.IntN(d.nodes))}, "local")...)}
	case n < 85:
		return proofScript{d.death(p)}
	case n < 87:
		return proofScript{d.step(p, "stop")}
	case n < 89:
		return proofScript{d.step(p, "away")}
	case n < 92:
		return proofScript{d.step(p, "back")}
	case n < 97:
		return proofScript{d.step(p, "hand", d.some(1+d.IntN(2)), pick(d, "on", "off"))}
	case n < 101:
		return d.underFire(d.step(p, "hand", d.some(d.many()), pick(d, "on", "off")))
	default:
		return proofScript{d.hallKnob(p, "")}
	}
}

func (d *drawer) flags(args []string, flags ...string) []string {
	for _, f := range flags {
		if d.IntN(3) == 0 {
			args = append(args, f)
		}
	}
	return args
}

func (d *drawer) statusArgs(n int) []string {
	return d.flags([]string{d.some(n), d.status()}, "confirmed")
}

func (d *drawer) bulkArgs() []string {
	args := []string{d.some(d.many()), string(pick(d, hallOffs...))}
	if d.IntN(4) == 0 {
		args[1] = d.status()
	}
	return d.flags(args, "confirmed")
}

func (d *drawer) holdArgs() []string {
	args := []string{d.some(pick(d, 1, 1, 2, d.many())), pick(d, "on", "off", "off", "hands-off")}
	if d.IntN(3) > 0 {
		args = append(args, "for="+d.span(20*time.Second, 6*time.Minute).Truncate(time.Second).String())
	}
	return d.flags(args, "confirmed", "local", "schedule")
}

// death is the end of the process at once, or within a call on a disk that is to come.
func (d *drawer) death(p time.Duration) proofStep {
	down := "down=" + pick(d, 0, d.span(0, time.Second), d.span(time.Second, 40*time.Second), d.span(time.Minute, 5*time.Minute)).String()
	args := []string{down}
	if d.IntN(3) == 0 {
		args = append(args, fmt.Sprintf("power=%d", 1+d.IntN(1000)))
	}
	if d.IntN(2) == 0 {
		return d.step(p, "kill", args...)
	}
	return d.step(p, "crash", append(args, "any", fmt.Sprintf("n=%d", 1+d.IntN(12)),
		fmt.Sprintf("keep=%d", pick(d, 0, 1000, d.IntN(1001))))...)
}

// underFire lets the process die around something, now and then: within what it writes
// of it, or a moment later.
func (d *drawer) underFire(s proofStep) proofScript {
	switch d.IntN(5) {
	case 0:
		death := d.death(s.after)
		for death.verb != "crash" {
			death = d.death(s.after)
		}
		s.after = 0
		return proofScript{death, s}
	case 1:
		return proofScript{s, d.death(pick(d, 0, d.span(0, 100*time.Millisecond), d.span(0, 8*time.Second), d.span(0, 40*time.Second)))}
	}
	return proofScript{s}
}

// requests are people's; now and then for many nodes at once.
func (d *drawer) requests(p time.Duration) (s proofScript) {
	action := pick(d, power.ActOn, power.ActOff, power.ActCycle, power.ActCycle, power.ActSoftOff, power.ActReset)
	n := pick(d, 1, 1, 2, d.many())
	for _, name := range hallNames(d.some(n), d.nodes) {
		d.asks++
		args := []string{fmt.Sprintf("a%d", d.asks), strings.TrimLeft(name[1:], "0"), string(action)}
		if action == power.ActSoftOff {
			args = append(args, "grace="+pick(d, "10s", "1m"))
		}
		s = append(s, d.step(p, "ask", d.flags(args, "local")...))
		p = 0
	}
	return s
}

// hallKnob is a misbehaviour of BMCs, or the end of one.
func (d *drawer) hallKnob(p time.Duration, verb string) proofStep {
	if verb == "" {
		verb = pick(d, "late", "latency", "stuck", "stuck", "unstuck", "mute", "mute", "wake", "wake", "password", "restart-bmc", "comeback",
			"fallback", "fallback", "stay", "lose")
	}
	args := []string{d.some(pick(d, 1, 1, 1, 2, d.many()))}
	switch verb {
	case "wake", "unstuck", "stay":
		args = []string{fmt.Sprintf("1-%d", d.nodes)}
	case "late":
		args = append(args, "on="+d.span(0, 20*time.Second).String(), "off="+d.span(0, 20*time.Second).String())
	case "latency":
		args = append(args, d.span(0, pick(d, 300*time.Millisecond, 300*time.Millisecond, 3*time.Second)).String())
	case "password":
		args = append(args, pick(d, "wrong", "right"))
	case "restart-bmc":
		args = append(args, "reboot="+d.span(0, 40*time.Second).String())
	case "comeback":
		args = append(args, "after="+d.span(0, 25*time.Second).String())
	case "fallback":
		args = append(args, "after="+d.span(0, pick(d, 10*time.Second, 25*time.Second, 10*time.Minute)).String())
	case "lose":
		args = append(args, fmt.Sprintf("n=%d", 1+d.IntN(2)))
	}
	return d.step(p, verb, args...)
}
