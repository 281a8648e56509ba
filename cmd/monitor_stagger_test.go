package cmd_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestRampOverACrash turns two power domains on, five nodes a second each, and kills
// the agent in the middle of it. What counts is what the BMCs noted.
func TestRampOverACrash(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  func(*site)
	}{
		{"held on", func(s *site) { s.mustRun("hold", "all", "on", "--reason", "after the outage") }},
		{"DEPLOYING", func(s *site) { s.mustRun("node", "set-status", "all", "DEPLOYING") }},
		{"asked", func(s *site) { s.mustRun("on", "all", "--wait", "accepted") }},
	} {
		t.Run(c.name, func(t *testing.T) { ramp(t, c.ask) })
		if !figures() {
			break
		}
	}
}

func ramp(t *testing.T, ask func(*site)) {
	const rate = 5
	count := 60
	if figures() {
		count = 400
	}
	s := watchful(t)
	farm := startFarm(t, bmcsim.Config{
		Count: count, OnAfter: 200 * time.Millisecond,
		Names: func(i int) string { return fmt.Sprintf("n%03d", i+1) },
	})
	var specs []api.NodeSpec
	for i, b := range bmcs(farm) {
		spec := specOf(b.Name(), b.Endpoint())
		spec.Domain = []string{"feedA", "feedB"}[i%2]
		specs = append(specs, spec)
	}
	s.mustRun("domain", "set", "feedA", "--rate", "5", "--concurrent", "30")
	s.mustRun("domain", "set", "feedB", "--rate", "5", "--concurrent", "30")
	s.addNodes(specs...)
	s.read("all", power.Off)
	ons := func() int { return commanded(bmcs(farm), power.PowerOn) }
	late := lateness(t)
	ask(s)
	s.until(30*time.Second, "a third of the ramp is over", func() bool { return ons() >= count/3 })
	s.saysAll("ops --outstanding -o wide", "waiting for power domain feedA", "waiting for power domain feedB", "ahead, about")
	s.saysAll("status", "waiting for power domain feedA")
	s.saysAll("domain list", "feedA", "feedB")
	s.kill("r1")
	before := ons()
	s.startWatchful()
	s.until(5*time.Minute, "all are on", func() bool { return ons() >= count })
	s.read("all", power.On)
	// What the machine was late by, once at the agent and once at the BMCs, lies between
	// the moments that the agent spaces and those that the BMCs note.
	delay := 2 * late()
	for d, feed := range []string{"feedA", "feedB"} {
		var times []time.Time
		for i := d; i < count; i += 2 {
			got := 0
			for _, e := range farm.BMC(i).Commands() {
				if e.Command == string(power.PowerOn) {
					times, got = append(times, e.Time), got+1
				}
			}
			if got != 1 {
				t.Errorf("%s got %d power-ons", farm.BMC(i).Name(), got)
			}
		}
		slices.SortFunc(times, time.Time.Compare)
		var most []string
		for _, window := range []time.Duration{time.Second, 5 * time.Second} {
			bound, n := int(rate*window.Seconds())+1, busiest(times, window-delay)
			if n > bound {
				t.Errorf("%s: %d power-ons within %s less %s, the bound is %d", feed, n, window, delay, bound)
			}
			most = append(most, fmt.Sprintf("%d within %s", n, window))
		}
		t.Logf("%s: %d power-ons in %s, at most %s", feed, len(times), times[len(times)-1].Sub(times[0]).Round(time.Millisecond),
			strings.Join(most, " and "))
	}
	t.Logf("the agent died after %d of %d", before, count)
}

// lateness measures by how much a loaded machine runs a timer late, from now on until it is
// asked, at most.
func lateness(t *testing.T) func() time.Duration {
	const every = 5 * time.Millisecond
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() {
		worst, last := time.Duration(0), time.Now()
		for tick := time.NewTicker(every); ; {
			select {
			case <-stop:
				tick.Stop()
				most <- worst
				return
			case <-tick.C:
				worst, last = max(worst, time.Since(last)-every), time.Now()
			}
		}
	}()
	ask := sync.OnceValue(func() time.Duration { close(stop); return <-most })
	t.Cleanup(func() { ask() })
	return ask
}

// busiest is how many of the times, in order, lie within a window at most.
func busiest(times []time.Time, window time.Duration) (most int) {
	from := 0
	for i := range times {
		for times[i].Sub(times[from]) >= window {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
