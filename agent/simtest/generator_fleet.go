package simtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"rackpower/power"
)

// A history of a fleet begins with the line "fleet N"; its verbs are the cases of
// fleetWorld.play. Nodes are named by ranges: 3, 1-12, 2,5,9.

// FleetNames are the nodes of a range, in its order.
func FleetNames(text string, of int) (names []string) {
	for part := range strings.SplitSeq(text, ",") {
		from, to, many := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if many && err == nil {
			last, err = strconv.Atoi(to)
		}
		for i := first; err == nil && i <= min(last, of); i++ {
			if i > 0 {
				names = append(names, FleetName(i))
			}
		}
	}
	return names
}

// FleetName is the name of node i, from 1.
func FleetName(i int) string { return fmt.Sprintf("n%02d", i) }

// some draws so many nodes: neighbours, or here and there.
func (d *generator) some(n int) string {
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
func (d *generator) many() int {
	return pick(d, d.nodes, d.nodes/2, 6, 7+d.IntN(d.nodes), d.nodes/5+1, max(5, d.nodes/5))
}

var (
	fleetOffs  = []power.Status{power.StatusReady, power.StatusReady, power.StatusBroken, power.StatusFailedDeployment, power.StatusNew}
	fleetOns   = []power.Status{power.StatusDeploying, power.StatusTesting, power.StatusDiskErasing, power.StatusDiskErasing}
	fleetHands = []power.Status{power.StatusDeployed, power.StatusDeployed, power.StatusMissing}
)

func (d *generator) status() string {
	switch d.IntN(8) {
	case 0, 1, 2:
		return string(pick(d, fleetOffs...))
	case 3, 4:
		return string(pick(d, fleetOns...))
	case 5:
		return "-"
	default:
		return string(pick(d, fleetHands...))
	}
}

func (d *generator) fleetPause() time.Duration {
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

// DrawFleet draws history number n of a seed.
func DrawFleet(seed, n uint64) Script {
	d := &generator{Rand: rand.New(rand.NewPCG(seed, n))}
	d.nodes = pick(d, 8, 9, 12, 20, 20, 30, 40)
	s := Script{{Verb: "fleet", Args: []string{fmt.Sprint(d.nodes)}}}
	if d.IntN(3) == 0 {
		s[0].Args = append(s[0].Args, "feed="+pick(d, "0.2", "1", "4"))
	}
	initial := func(nodes string) {
		status, state := d.status(), pick(d, "on", "off")
		s = append(s, d.step(0, "initial", nodes, status, state))
	}
	s = append(s, d.step(0, "initial", fmt.Sprintf("1-%d", d.nodes),
		string(pick(d, power.StatusDeployed, power.StatusDeployed, power.StatusDiskErasing, power.StatusReady, power.StatusTesting)),
		"as-desired"))
	for range d.IntN(3) {
		initial(d.some(1 + d.IntN(4)))
	}
	for range d.IntN(3) {
		s = append(s, d.fleetFault(0, pick(d, "latency", "late")))
	}
	s = append(s, d.step(pick(d, 0, 2*time.Minute, 2*time.Minute, 3*time.Minute), "wait"))
	switch d.IntN(12) {
	case 0, 1:
		s = append(s, d.faults()...)
	case 2:
		s[0].Args = []string{fmt.Sprint(d.nodes), "feed=0.05"}
		s = append(s, d.ramp()...)
	case 3:
		s = append(s, d.blind()...)
	}
	begin := len(s)
	for range 4 + d.IntN(16) {
		s = append(s, d.fleetSteps()...)
	}
	return d.centrals(s, begin)
}

// centrals puts other centrals into a history, and a restore of the right one. It is
// drawn last: the rest of a history is what it was.
func (d *generator) centrals(s Script, begin int) Script {
	at := func(from int) int { return from + d.IntN(len(s)-from+1) }
	if d.IntN(3) == 0 {
		from := at(begin)
		s = slices.Insert(s, from, d.step(0, "backup"))
		step := d.step(d.fleetPause(), "restore")
		if d.IntN(2) == 0 {
			step.Args = append(step.Args, d.some(1+d.IntN(d.nodes)))
		}
		s = slices.Insert(s, at(from+1), step)
	}
	for range d.IntN(3) {
		s = slices.Insert(s, at(begin), d.step(d.fleetPause(), "other-central", d.flags(nil, "older")...))
	}
	return s
}

// ramp draws cycles that wait for their turn for long, and a change of status meanwhile.
func (d *generator) ramp() (s Script) {
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
func (d *generator) blind() Script {
	mute := d.some(d.nodes/2 + d.IntN(d.nodes/2+1))
	s := Script{d.step(0, "mute", mute)}
	if d.IntN(3) == 0 {
		s = append(s, d.death(d.span(0, time.Minute)))
	}
	s = append(s, d.step(d.span(8*time.Minute, 20*time.Minute), "status", d.bulkArgs()...))
	if d.IntN(3) == 0 {
		s = append(s, d.death(d.span(0, time.Minute)))
	}
	pause := d.span(time.Minute, 3*time.Minute)
	for _, name := range FleetNames(mute, d.nodes) {
		s = append(s, d.step(pause, "wake", strings.TrimLeft(name[1:], "0")))
		pause = d.span(5*time.Second, 30*time.Second)
	}
	return append(s, d.step(d.span(0, 10*time.Minute), "wait"))
}

// faults draws nodes that do not follow, or come back by themselves, for long.
func (d *generator) faults() Script {
	nodes := d.some(1 + d.IntN(3))
	s := Script{
		d.step(0, pick(d, "stuck", "comeback", "fallback"), nodes, "after="+d.span(0, 20*time.Second).String()),
		d.step(0, "status", nodes, string(pick(d, append(fleetOffs, power.StatusDiskErasing)...)), "confirmed"),
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

// fleetSteps draws what happens next: mostly one thing, sometimes several at once.
func (d *generator) fleetSteps() Script {
	p := d.fleetPause()
	switch n := d.IntN(120); {
	case n < 12:
		return Script{d.step(p, "status", d.statusArgs(1+d.IntN(3))...)}
	case n < 30:
		return d.underFire(d.step(p, "status", d.bulkArgs()...))
	case n < 34:
		return Script{d.step(p, "status",
			append(d.bulkArgs(), "every="+d.span(100*time.Millisecond, 12*time.Second).Truncate(100*time.Millisecond).String())...)}
	case n < 43:
		return d.underFire(d.step(p, "hold", d.holdArgs()...))
	case n < 47:
		return Script{d.step(p, "release", d.flags([]string{d.some(pick(d, 1, 2, d.many()))}, "confirmed", "local")...)}
	case n < 60:
		return d.requests(p)
	case n < 63:
		return Script{d.step(p, "pause", pick(d, "", "for="+d.span(time.Minute, 8*time.Minute).Truncate(time.Second).String()))}
	case n < 66:
		return Script{d.step(p, "resume")}
	case n < 68:
		return Script{d.step(p, "monitor", pick(d, "off", "on"))}
	case n < 70:
		return Script{d.step(p, "bounds", fmt.Sprintf("percent=%d", pick(d, 0, 10, 30)), fmt.Sprintf("above=%d", pick(d, 0, 2, 8)))}
	case n < 76:
		return Script{d.step(p, "release-brake", d.flags(nil, "local")...)}
	case n < 79:
		return Script{d.step(p, "retry", d.flags([]string{d.some(1 + d.IntN(d.nodes))}, "local")...)}
	case n < 85:
		return Script{d.death(p)}
	case n < 87:
		return Script{d.step(p, "stop")}
	case n < 89:
		return Script{d.step(p, "away")}
	case n < 92:
		return Script{d.step(p, "back")}
	case n < 97:
		return Script{d.step(p, "manual", d.some(1+d.IntN(2)), pick(d, "on", "off"))}
	case n < 101:
		return d.underFire(d.step(p, "manual", d.some(d.many()), pick(d, "on", "off")))
	default:
		return Script{d.fleetFault(p, "")}
	}
}

func (d *generator) flags(args []string, flags ...string) []string {
	for _, f := range flags {
		if d.IntN(3) == 0 {
			args = append(args, f)
		}
	}
	return args
}

func (d *generator) statusArgs(n int) []string {
	return d.flags([]string{d.some(n), d.status()}, "confirmed")
}

func (d *generator) bulkArgs() []string {
	args := []string{d.some(d.many()), string(pick(d, fleetOffs...))}
	if d.IntN(4) == 0 {
		args[1] = d.status()
	}
	return d.flags(args, "confirmed")
}

func (d *generator) holdArgs() []string {
	args := []string{d.some(pick(d, 1, 1, 2, d.many())), pick(d, "on", "off", "off", "hands-off")}
	if d.IntN(3) > 0 {
		args = append(args, "for="+d.span(20*time.Second, 6*time.Minute).Truncate(time.Second).String())
	}
	return d.flags(args, "confirmed", "local", "schedule")
}

// death is the end of the process at once, or within a call on a disk that is to come.
func (d *generator) death(p time.Duration) Step {
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
func (d *generator) underFire(s Step) Script {
	switch d.IntN(5) {
	case 0:
		death := d.death(s.After)
		for death.Verb != "crash" {
			death = d.death(s.After)
		}
		s.After = 0
		return Script{death, s}
	case 1:
		return Script{s, d.death(pick(d, 0, d.span(0, 100*time.Millisecond), d.span(0, 8*time.Second), d.span(0, 40*time.Second)))}
	}
	return Script{s}
}

// requests are people's; now and then for many nodes at once.
func (d *generator) requests(p time.Duration) (s Script) {
	action := pick(d, power.ActOn, power.ActOff, power.ActCycle, power.ActCycle, power.ActSoftOff, power.ActReset)
	n := pick(d, 1, 1, 2, d.many())
	for _, name := range FleetNames(d.some(n), d.nodes) {
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

// fleetFault is a misbehaviour of BMCs, or the end of one.
func (d *generator) fleetFault(p time.Duration, verb string) Step {
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
