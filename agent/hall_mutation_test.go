package agent

// hallMutations break the rules of the monitor one by one, for TestHall to find.
var hallMutations = []mutation{
	{"whoever answers is followed", []edit{{"agent/trust.go", "return m != meetOlder && m != meetUnknown", "return true"}}},
	{
		"a database that a restore had replaced is followed",
		[]edit{{"agent/trust.go", "case answers.Incarnation < trusted.Incarnation:", "case false:"}},
	},
	{"an assignment of another central is taken", []edit{{"agent/assignment.go", "\tif s.trust.Database != db {", "\tif false {"}}},
	{
		"holds go with the database that confirmed them",
		[]edit{{"agent/assignment.go", "case !ok && (first || slices.Contains(s.trust.Kept, n.Name)) &&", "case false &&"}},
	},
	{
		"a restored central takes nodes away",
		[]edit{{"agent/trust.go", "if first || len(fresh) < len(kept) ||", "if len(fresh) < len(kept) ||"}},
	},
	{"no debounce", []edit{{"agent/plan.go", "case m.Desired.Debounced && n.Run.lasts() < r.Debounce:", "case false:"}}},
	{
		"a debounced status is followed after two readings, however near",
		[]edit{{"agent/plan.go", "n.Run.lasts() < r.Debounce:", "n.Run.lasts() == 0:"}},
	},
	{"the brake is forgotten at a start", []edit{{"agent/monitor.go", "\tm.setBrake(m.a.assigned.brake)\n", ""}}},
	{"the brake lets go below its bounds", []edit{{
		"agent/brake.go", "\tif len(names) == 0 {\n\t\treturn nil\n\t}\n\treturn t.brake(*held",
		"\tif !t.over(len(names)) {\n\t\treturn nil\n\t}\n\treturn t.brake(*held",
	}}},
	{"the brake counts idle nodes only", []edit{{"agent/brake.go", "(!n.Busy || n.Elsewhere)", "!n.Busy"}}},
	{"the brake counts the nodes of one pass only", []edit{{"agent/brake.go", "\t\t\tt.Recent++\n", ""}}},
	{
		"the brake counts from when a power-off was decided on",
		[]edit{{"agent/brake.go", "(n.Cutting || now.Sub(n.Memory.CutAt) < b.Window)", "now.Sub(n.Memory.CutAt) < b.Window"}},
	},
	{
		"what was cut is forgotten at a start",
		[]edit{{"agent/monitor.go", "\t\tw.mem, w.kept = mem, mem\n", "\t\tw.mem, w.kept = mem, mem\n\t\tw.mem.CutAt = time.Time{}\n"}},
	},
	{
		"the brake does not count what is out of sight",
		[]edit{{"agent/brake.go", "\ton := n.Reading.State == power.On ||", "\ton := false && n.Reading.State == power.On ||"}},
	},
	{
		"the brake does not count what was not read since the start",
		[]edit{
			{"agent/brake.go", "|| n.Reading.ObservedAt.IsZero() && n.Memory.LastOn\n", "\n"},
			{"agent/brake.go", "\t\tcase cut && n.Reading.TriedAt.IsZero():\n\t\t\tt.Blind++\n", ""},
		},
	},
	{
		"a power-off does not wait for readings of the others",
		[]edit{{"agent/plan.go", "case !r.Tally.sure(r.Now, n) && (", "case false && ("}},
	},
	{"no brake for drift", []edit{{"agent/brake.go", "\tcase t.over(len(t.Drift)):\n", "\tcase false:\n"}}},
	{"the brake counts what was confirmed", []edit{{"agent/brake.go", "return m.Confirmed || m.Released ||", "return m.Released ||"}}},
	{"a confirmation is used up by a cycle", []edit{{"agent/node_state.go", "\tif elsewhere || r.Reach", "\tif r.Reach"}}},
	{
		"a confirmation is never used up",
		[]edit{{
			"agent/node_state.go", "m.Matched, m.Confirmed, m.Released, m.Differs = true, false, false, time.Time{}",
			"m.Matched, m.Released, m.Differs = true, false, time.Time{}",
		}},
	},
	{
		"a release holds for what comes after it",
		[]edit{{"agent/monitor.go", "\tm.letGoAs(nil) // at once: it was decided for what is desired now\n", ""}},
	},
	{"a release is never used up", []edit{{
		"agent/node_state.go",
		"m.Matched, m.Confirmed, m.Released, m.Differs = true, false, false, time.Time{}",
		"m.Matched, m.Confirmed, m.Differs = true, false, time.Time{}",
	}}},
	{"disks that are erased are cut", []edit{
		{"agent/plan.go", "case d.NoCut && d.Want == power.WantOff:", "case false:"},
		{"agent/assignment.go", " && !(d.NoCut && op.Action.CutsPower())", ""},
	}},
	{"what is expected is enforced", []edit{
		{"agent/plan.go", "case !d.Enforces() && d.Expected != \"\" && n.differs(r.Now):", "case false:"},
		{"agent/plan.go", "\tcase !d.Enforces():", "\tcase !d.Enforces() && d.Expected == \"\":"},
		{
			"agent/assignment.go",
			"return d.Enforces() && d.State()", "return d.State()",
		},
	}},
	{
		"a hold that is over is followed",
		[]edit{{
			"agent/assignment.go", "return power.Effective(n.Status, n.hold, now)",
			"return power.Effective(n.Status, n.hold, n.hold.Since)",
		}},
	},
	{"holds are not looked at", []edit{{
		"power/hold.go", "\tif !h.Active(now) {\n\t\treturn d\n\t}\n\treturn Desired{",
		"\tif h.Want != WantOn {\n\t\treturn d\n\t}\n\treturn Desired{",
	}}},
	{"the monitor acts while it is paused", []edit{
		{"agent/plan.go", "\tcase r.Pause.Active(r.Now):", "\tcase false:"},
		{"agent/monitor.go", "m.off.Load() || m.pause.Load().Active(now)", "m.off.Load()"},
	}},
	{"the monitor acts on old readings", []edit{{"agent/plan.go", "case r.Now.Sub(n.Reading.ObservedAt) > r.Fresh:", "case false:"}}},
	{
		"the monitor acts on readings from before the change",
		[]edit{
			{"agent/plan.go", "case n.Reading.ObservedAt.Before(m.Since):", "case false:"},
			{
				"agent/monitor.go", "\t\t\tw.run, w.othersSince, w.cameBack = run{}, time.Time{}, false\n",
				"\t\t\tw.run, w.othersSince, w.cameBack, w.due = run{}, time.Time{}, false, true\n",
			},
		},
	},
	{"no settle time", []edit{{"agent/plan.go", "case r.Now.Before(settled) && m.Since.Before(n.Changed) && !n.CameBack:", "case false:"}}},
	{"the settle time is forgotten at a start", []edit{{"agent/replay.go", "\t\t\t\tl.ended = later(l.ended, d.End.At)\n", ""}}},
	{"a fault after four", []edit{{"agent/node_state.go", "if m.Failures < t.FaultAfter {", "if m.Failures <= t.FaultAfter {"}}},
	{
		"the pauses of a fault do not grow",
		[]edit{{"agent/node_state.go", "pause = min(pause*2, t.FaultPauseMax)", "pause = min(pause, t.FaultPauseMax)"}},
	},
	{
		"a fault is forgotten at a start",
		[]edit{{"agent/monitor.go", "\t\tw.mem, w.kept = mem, mem\n", "\t\tw.mem, w.kept = mem, mem\n\t\tw.mem.mended()\n"}},
	},
	{"who comes back is no failure", []edit{{
		"agent/node_state.go", "\tif was.LeftMine {\n",
		"\tif was.LeftMine && was.Left == power.On {\n",
	}}},
	{"who falls back is no failure", []edit{{
		"agent/node_state.go", "\tif was.LeftMine {\n",
		"\tif was.LeftMine && was.Left == power.Off {\n",
	}}},
	{"a retry is not followed", []edit{{"agent/monitor.go", "\t\tif n.Retry != w.mem.Retry {\n", "\t\tif false {\n"}}},
	{
		"a BMC that ignores probes is never read again",
		[]edit{{"agent/breaker.go", "\tfull := b.breaker.full(time.Now(), b.of.backoff)\n", "\tfull := false\n"}},
	},
	{
		"the monitor does not look again at what it left alone",
		[]edit{{
			"agent/monitor.go", "\t\tif !n.Reading.TriedAt.Equal(w.tried) {\n\t\t\tw.tried, w.due = n.Reading.TriedAt, true\n",
			"\t\tif !n.Reading.TriedAt.Equal(w.tried) {\n\t\t\tw.tried, w.due = n.Reading.TriedAt, w.due || w.tried.IsZero()\n",
		}},
	},
}
