package api

import (
	"testing"
	"time"

	"rackpower/power"
)

// TestExplanationSaysIt: the first sentence, which a person reads at night.
func TestExplanationSaysIt(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	clock := now.Add
	seen := func(s power.State) power.Reading { return power.Seen(s, clock(-3*time.Second)) }
	waits := func(r power.Reason, says string, d time.Duration) NodeMonitor {
		m := NodeMonitor{Waits: r, WaitsMessage: says}
		if d != 0 {
			m.WaitsUntil = clock(d)
		}
		return m
	}
	fault := waits(power.ReasonFault, "3 corrections in a row failed; the last: off: still on", time.Minute)
	fault.Fault, fault.FaultSince = fault.WaitsMessage, clock(-time.Hour)
	over := NodeMonitor{Fault: "3 corrections in a row failed", FaultSince: clock(-time.Hour)}
	op := Op{
		ID: "a", Action: power.ActCycle, AskedBy: "ann", AskedAt: clock(-4 * time.Second), Phase: "running: waiting for off",
		Reason: "repair",
	}
	running := op
	running.StartedAt = &now
	for _, c := range []struct {
		status  power.Status
		reading power.Reading
		e       Explanation
		want    string
	}{
		{power.StatusReady, seen(power.Off), Explanation{}, "n1 is off, as status READY wants it."},
		{power.StatusDeployed, seen(power.On), Explanation{}, "n1 is on, as status DEPLOYED expects it."},
		{power.StatusMissing, seen(power.On), Explanation{}, "n1 is on; status MISSING leaves it alone."},
		{power.StatusNone, seen(power.Off), Explanation{}, "n1 is off; without a status or a hold it is left alone."},
		{
			power.StatusDeployed, seen(power.Off),
			Explanation{Monitor: waits(power.ReasonHandsOff, "x", 0)},
			"n1 is off; status DEPLOYED expects it on since 2026-01-01T11:59:00Z. The monitor shows that and does not act on it.",
		},
		{
			power.StatusReady,
			power.Reading{State: power.Unknown, Reach: power.ReachNever},
			Explanation{},
			"n1 has not been read since this agent started; status READY wants it off since 2026-01-01T11:59:00Z.",
		},
		{
			power.StatusReady,
			power.Reading{State: power.Unknown, Reach: power.ReachUnconfigured},
			Explanation{},
			"No BMC is known for n1, so nothing can be read or done.",
		},
		{
			power.StatusReady, power.Reading{}.Failed(power.ReachUnreachable, now),
			Explanation{},
			"n1 could not be read since this agent started; status READY wants it off since 2026-01-01T11:59:00Z. It cannot be read: the BMC does " +
				"not answer (rackpower node retry n1). Nothing is done about its power until it is read.",
		},
		{
			power.StatusReady, power.Seen(power.On, clock(-3*time.Minute)).Failed(power.ReachUnreachable, now),
			Explanation{BMC: &BMCState{BreakerOpen: "5 attempts brought no answer", NextProbe: clock(time.Minute)}},
			"n1 was last read on, 3 min ago; status READY wants it off since 2026-01-01T11:59:00Z. It cannot be read: the BMC does not answer " +
				"(rackpower node retry n1). It is left alone: 5 attempts brought no answer, tried again at 2026-01-01T12:01:00Z. Nothing is done " +
				"about its power until it is read.",
		},
		{
			power.StatusDeployed, power.Seen(power.On, clock(-3*time.Minute)).Failed(power.ReachAuthFailed, now),
			Explanation{},
			"n1 was last read on, 3 min ago; status DEPLOYED expects it on since 2026-01-01T11:59:00Z. It cannot be read: the BMC refuses the " +
				"log-in; correct its user, password or K_g (rackpower node add n1 --rack r1 --password-file FILE --update; rackpower node retry n1).",
		},
		{
			power.StatusDeployed, power.Seen(power.On, clock(-3*time.Hour)),
			Explanation{},
			"n1 was last read on, 3 h ago; status DEPLOYED expects it on since 2026-01-01T11:59:00Z.",
		},
		{
			power.StatusMissing, power.Seen(power.On, clock(-3*time.Hour)),
			Explanation{},
			"n1 was last read on, 3 h ago; status MISSING leaves it alone.",
		},
		{
			power.StatusReady, power.Seen(power.On, clock(-3*time.Hour)),
			Explanation{Next: clock(time.Hour)},
			"n1 was last read on, 3 h ago; status READY wants it off since 2026-01-01T11:59:00Z. " +
				"The monitor checks it next at 2026-01-01T13:00:00Z.",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Next: clock(30 * time.Second)},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. The monitor checks it next at 2026-01-01T12:00:30Z.",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Monitor: waits(power.ReasonGather, "more such changes may follow", 3*time.Second)},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. The monitor waits: more such changes may follow, until " +
				"2026-01-01T12:00:03Z.",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Monitor: waits(power.ReasonBrake, "the fleet brake holds since 2026-01-01T11:59:30Z: too many", 0)},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. The monitor does nothing: the fleet brake holds since " +
				"2026-01-01T11:59:30Z: too many (rackpower brake show; rackpower brake release r1 --reason TEXT).",
		},
		{power.StatusReady, seen(power.On), Explanation{Monitor: waits(power.ReasonPaused, "ann paused the monitor (cabling)",
			time.Hour)}, "n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. The monitor waits: ann paused the monitor (cabling), " +
			"until 2026-01-01T13:00:00Z (rackpower resume r1)."},
		{
			power.StatusReady, seen(power.On),
			Explanation{Monitor: waits(power.ReasonRack, "the monitor of the rack is off", 0)},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. The monitor does nothing: the monitor of the rack is off (rackpower " +
				"rack set r1 --monitor '@every 60s').",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Monitor: waits(power.ReasonNoCut, "its status forbids it", 0)},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. The monitor does nothing: its status forbids it.",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Monitor: fault},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. It is in fault since 2026-01-01T11:00:00Z: 3 corrections in a row " +
				"failed; the last: off: still on; tried again at 2026-01-01T12:01:00Z (rackpower node retry n1).",
		},
		{
			power.StatusReady, seen(power.Off),
			Explanation{Monitor: over},
			"n1 is off, as status READY wants it. It is in fault since 2026-01-01T11:00:00Z: 3 corrections in a row failed.",
		},
		{
			power.StatusDeployed, seen(power.On),
			Explanation{Ops: []Op{{ID: "z", EndedAt: &now}, op, {ID: "b"}}},
			"n1 is on, as status DEPLOYED expects it. cycle (asked by ann, 4 s ago: repair) is running: waiting for off, and 1 more behind it.",
		},
		{
			power.StatusDeployed, seen(power.On),
			Explanation{Ops: []Op{op, {ID: "b", Joined: "a"}}},
			"n1 is on, as status DEPLOYED expects it. cycle (asked by ann, 4 s ago: repair) is running: waiting for off.",
		},
		{
			power.StatusDeployed, seen(power.On),
			Explanation{Ops: []Op{{ID: "b"}, running}},
			"n1 is on, as status DEPLOYED expects it. cycle (asked by ann, 4 s ago: repair) is running: waiting for off, and 1 more behind it.",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Ops: []Op{op}, Monitor: waits(power.ReasonGather, "x", 0)},
			"n1 is on; status READY wants it off since 2026-01-01T11:59:00Z. cycle (asked by ann, 4 s ago: repair) is running: waiting for off.",
		},
		{
			power.StatusReady, seen(power.On),
			Explanation{Away: "agent r1 is away", Monitor: waits(power.ReasonGather, "more may follow", time.Second)},
			"n1 was last read on, 3 s ago; status READY wants it off since 2026-01-01T11:59:00Z. The monitor waits: more may follow, until " +
				"2026-01-01T12:00:01Z. Only central answers: agent r1 is away.",
		},
	} {
		c.e.Node, c.e.Agent, c.e.At, c.e.Reading, c.e.Desired, c.e.DesiredFrom = "n1", "r1", now, c.reading, c.status.Desired(),
			power.DesiredFrom(c.status,
				power.Hold{},
				now)
		if got := c.e.Summary(clock(-time.Minute)); got != c.want {
			t.Errorf("%s, %s:\ngot  %s\nwant %s", c.status, c.reading.State, got, c.want)
		}
	}
}
