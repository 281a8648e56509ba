package cmd_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// hardship counts the faults by kind, and says which could not be had.
type hardship struct {
	mu      sync.Mutex
	counts  map[string]int
	leftOut map[string]string // kind: why
}

func newHardship() *hardship {
	return &hardship{counts: map[string]int{}, leftOut: map[string]string{}}
}

func (h *hardship) count(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[kind]++
}

func (h *hardship) leave(kind, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leftOut[kind] = why
}

// blow is a fault of a process or its surroundings: strike begins it, lets it last
// and ends it.
type blow struct {
	kind   string
	strike func(p *tormentor)
}

// tormentor has faults happen to one thing, one after the other, until it is told
// to stop. Every kind has its turn before chance decides.
type tormentor struct {
	ctx  context.Context
	rng  *rand.Rand
	pace float64 // by which all times are multiplied
	h    *hardship
	t    interface{ Errorf(string, ...any) }
	// round is called when every kind has had its turn.
	round func()
}

// lasts waits for a time between the bounds, less when the soak is over.
func (p *tormentor) lasts(least, most time.Duration) {
	d := least + time.Duration(p.rng.Int64N(int64(most-least)+1))
	pauseFor(p.ctx, time.Duration(float64(d)*p.pace))
}

// must says what went wrong with a fault itself.
func (p *tormentor) must(what string, err error) bool {
	if err != nil {
		p.t.Errorf("the soak cannot %s: %v", what, err)
	}
	return err == nil
}

// torment strikes with the blows; between two of them it waits for up to rest.
func (p *tormentor) torment(blows []blow, rest time.Duration) {
	first := slices.Clone(blows)
	p.rng.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	defer p.round()
	for len(blows) > 0 {
		p.lasts(rest/8, rest)
		if p.ctx.Err() != nil {
			return
		}
		b := blows[p.rng.IntN(len(blows))]
		if len(first) > 0 {
			b, first = first[0], first[1:]
		} else {
			p.round()
		}
		p.h.count(b.kind)
		b.strike(p)
	}
}

// hurtMachines has BMCs misbehave, any of them and several at a time.
func (p *tormentor) hurtMachines(machines []*machine) {
	type pair struct {
		m *machine
		f bmcFault
	}
	var first []pair // every kind of each simulator once
	seen := map[string]bool{}
	for _, i := range p.rng.Perm(len(machines)) {
		for _, f := range machines[i].faults {
			if kind := machines[i].sim + f.kind; !seen[kind] {
				seen[kind] = true
				first = append(first, pair{machines[p.rng.IntN(len(machines))], f})
				first[len(first)-1].m = machines[i]
			}
		}
	}
	p.rng.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	var wg sync.WaitGroup
	defer p.round()
	defer wg.Wait()
	for p.lasts(50*time.Millisecond, 1500*time.Millisecond); p.ctx.Err() == nil; p.lasts(50*time.Millisecond, 1500*time.Millisecond) {
		m := machines[p.rng.IntN(len(machines))]
		x := pair{m, m.faults[p.rng.IntN(len(m.faults))]}
		if len(first) > 0 {
			x, first = first[0], first[1:]
		} else {
			p.round()
		}
		own := &tormentor{ctx: p.ctx, rng: rand.New(rand.NewPCG(p.rng.Uint64(), 1)), pace: p.pace, h: p.h, t: p.t, round: p.round}
		wg.Go(func() {
			x.m.broken.Lock()
			defer x.m.broken.Unlock()
			if p.ctx.Err() != nil {
				return
			}
			p.h.count(x.m.sim + ": " + x.f.kind)
			x.f.begin(own.rng)
			own.lasts(time.Second, 8*time.Second)
			x.f.end()
		})
	}
}

// blowsAt lists what can happen to a daemon. Its volume may be nil, its clock "".
func blowsAt(d *daemon, v *volume, clock string, h *hardship) []blow {
	who := "agent"
	if d.name == "central" {
		who = "central"
	}
	blows := []blow{
		{who + " SIGKILL, restarted at once", func(*tormentor) { d.kill() }},
		{who + " SIGKILL, restarted later", func(p *tormentor) {
			d.hold()
			defer d.release()
			p.lasts(time.Second, 5*time.Second)
		}},
		{who + " SIGKILL, several in a row", func(p *tormentor) {
			for range 2 + p.rng.IntN(4) {
				d.kill()
				p.lasts(50*time.Millisecond, 900*time.Millisecond)
			}
		}},
		{who + " SIGSTOP, SIGCONT", func(p *tormentor) {
			d.signal(syscall.SIGSTOP)
			defer d.signal(syscall.SIGCONT)
			p.lasts(time.Second, 6*time.Second)
		}},
	}
	if who == "central" {
		blows = append(blows, blow{"central gone for long", func(p *tormentor) {
			d.hold()
			defer d.release()
			p.lasts(10*time.Second, 20*time.Second)
		}})
	}
	if v != nil {
		blows = append(blows, blow{who + " disk full", func(p *tormentor) { fillDisk(p, d, v) }},
			blow{who + " disk read-only", func(p *tormentor) { breakDisk(p, d, v) }})
	}
	if clock != "" {
		blows = append(blows, blow{who + " clock stepped", func(p *tormentor) { stepClocks(p, clock) }})
	}
	return blows
}

// fillDisk fills the disk of a daemon, which sometimes has to start on it.
func fillDisk(p *tormentor, d *daemon, v *volume) {
	defer func() { p.must("free the disk", v.free()) }()
	p.must("fill the disk", v.fill())
	for range p.rng.IntN(3) {
		p.lasts(300*time.Millisecond, 2*time.Second)
		d.kill()
	}
	p.lasts(time.Second, 5*time.Second)
}

// breakDisk has the file system turn read-only under a daemon, which sometimes has
// to start on it; then somebody comes and repairs it.
func breakDisk(p *tormentor, d *daemon, v *volume) {
	// Nothing is being flushed at that moment: the kernel reports a flush of a growing file
	// as done that the error in its middle undoes (27 of 150, by fdatasync alone), and no
	// program can know.
	resume := d.halt()
	broken := p.must("make the disk read-only", v.breakDown())
	resume()
	if !broken {
		return
	}
	p.lasts(time.Second, 4*time.Second)
	if p.rng.IntN(2) == 0 {
		d.kill()
		p.lasts(time.Second, 2*time.Second)
	}
	d.hold()
	defer d.release()
	p.must("repair the disk", v.repair())
}

// stepClocks has a wall clock go wrong, by a little or by much, and then right again.
func stepClocks(p *tormentor, clock string) {
	steps := []int{-1500, -90, -15, -4, 4, 15, 90, 1500} // two of them stay within power.MaxAhead
	if p.pace < 1 {
		steps = []int{-90, -4, 4}
	}
	defer func() { p.must("set the clock", stepClock(clock, 0)) }()
	for range 1 + p.rng.IntN(2) {
		p.must("set the clock", stepClock(clock, steps[p.rng.IntN(len(steps))]))
		p.lasts(time.Second, 6*time.Second)
	}
}

// kinds lists the faults that happened, and those that were left out.
func (h *hardship) kinds() (happened, leftOut []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for kind := range h.counts {
		happened = append(happened, kind)
	}
	for kind := range h.leftOut {
		leftOut = append(leftOut, kind)
	}
	slices.SortFunc(happened, strings.Compare)
	slices.SortFunc(leftOut, strings.Compare)
	return happened, leftOut
}
