package central

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// life is what an agent's journal holds of one operation, a report for each record.
type life struct {
	op      power.Op
	reports []api.OpReport
}

// lives draws the histories of a few operations on one node, some of which join
// the one before, with records numbered as one journal would.
func lives(t *rapid.T, now time.Time) []life {
	lsn := uint64(100)
	next := func() uint64 { lsn++; return lsn }
	var all []life
	for i := range rapid.IntRange(1, 4).Draw(t, "ops") {
		op := power.Op{
			ID: fmt.Sprintf("00000000-0000-7000-8000-%012d", i), Node: "n", Action: power.ActOn, Seq: power.Seq(1000 + i), AskedBy: "x",
			Origin: power.FromLocal, AskedAt: now, Deadline: now.Add(time.Minute), Options: power.Options{IfBusy: power.Supersede},
		}
		report := api.OpReport{Op: op, Verdict: power.VerdictStart, Reason: power.ReasonIdle, Message: "says"}
		add := func(l *life, phase string) {
			report.LSN, report.Phase = next(), phase
			l.reports = append(l.reports, report)
		}
		l := life{op: op}
		joins := i > 0 && rapid.Bool().Draw(t, "joins")
		if joins {
			report.Verdict, report.Joined = power.VerdictJoin, all[0].op.ID
		}
		add(&l, api.PhaseWaiting)
		if !joins && rapid.Bool().Draw(t, "starts") {
			report.StartedAt = now.Add(time.Second)
			add(&l, api.PhaseRunning)
			add(&l, api.PhaseRunning+": cutting")
		}
		end := power.End{
			Outcome: rapid.SampledFrom([]power.Outcome{power.Succeeded, power.Failed, power.Expired}).Draw(t, "outcome"),
			At:      now.Add(time.Minute), Detail: op.ID,
		}
		if joins {
			end = *all[0].reports[len(all[0].reports)-1].End
		}
		report.End = &end
		add(&l, api.PhaseEnded)
		all = append(all, l)
	}
	return all
}

// TestReportsInAnyOrderLeadToTheSameEnd sends the same reports in order, and in
// another order with repetitions, split into other reports.
func TestReportsInAnyOrderLeadToTheSameEnd(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	s := newSite(t)
	s.nodes("n")
	r := s.rack("r1")
	rapid.Check(t, func(rt *rapid.T) {
		all := lives(rt, now)
		var inOrder []api.OpReport
		for _, l := range all {
			inOrder = append(inOrder, l.reports...)
		}
		straight := endsOf(rt, s, r, [][]api.OpReport{inOrder}, all)
		mixed := rapid.Permutation(slices.Concat(inOrder, rapid.SliceOfN(rapid.SampledFrom(inOrder), 0, 10).Draw(rt, "again"))).Draw(rt, "order")
		var reports [][]api.OpReport
		for len(mixed) > 0 {
			n := rapid.IntRange(1, len(mixed)).Draw(rt, "together")
			reports, mixed = append(reports, mixed[:n]), mixed[n:]
		}
		if got := endsOf(rt, s, r, reports, all); !slices.Equal(got, straight) {
			rt.Fatalf("in order:\n%q\nmixed:\n%q", straight, got)
		}
		if n := s.c.Contradictions(); n != 0 {
			rt.Fatalf("%d contradictions", n)
		}
	})
}

// endsOf applies reports and says what is known afterwards, audit log included;
// then everything is undone.
func endsOf(t *rapid.T, s *site, r *rack, reports [][]api.OpReport, all []life) (lines []string) {
	err := s.c.write(context.Background(), s.clock(), "agent "+r.name, func(u *unitOfWork) error {
		for _, reports := range reports {
			if _, err := u.applyReport(r.name, api.Report{JournalID: r.journal, Ops: reports}); err != nil {
				return err
			}
		}
		auditLog, err := u.tx.Audit(store.AuditFilter{Nodes: []string{"n"}}, 1000)
		if err != nil {
			return err
		}
		for _, l := range all {
			o, _, err := u.tx.Op(l.op.ID)
			if err != nil {
				return err
			}
			started := ""
			if o.StartedAt != nil {
				started = o.StartedAt.String()
			}
			lines = append(lines, fmt.Sprint(o.ID, o.Phase, o.Outcome, o.Detail, o.EndedAt, started, o.Joined, o.Verdict, o.Why, o.Message))
			for _, e := range auditLog {
				if e.Op == o.ID {
					lines = append(lines, e.Op+" "+e.What)
				}
			}
		}
		return errDryRun
	})
	if !errors.Is(err, errDryRun) {
		t.Fatal(err)
	}
	return lines
}

// TestAdvanceNeverTakesAnEndBack holds single reports against single states.
func TestAdvanceNeverTakesAnEndBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		phases := []string{api.PhaseTaken, api.PhaseWaiting, api.PhaseRunning + ": x", api.PhaseEnded, "", "nonsense"}
		o := store.Op{Op: api.Op{Phase: api.PhaseTaken}}
		outcome := power.Outcome("")
		for range rapid.IntRange(1, 12).Draw(rt, "reports") {
			w := api.OpReport{
				Phase: rapid.SampledFrom(phases).Draw(rt, "phase"), LSN: rapid.Uint64Range(0, 5).Draw(rt, "lsn"),
				Verdict: power.VerdictStart,
			}
			if rapid.Bool().Draw(rt, "end") {
				w.End = &power.End{
					Outcome: rapid.SampledFrom([]power.Outcome{"", power.Succeeded, power.Failed}).Draw(rt, "outcome"),
					At:      time.Unix(1, 0),
				}
			}
			before := o
			news, how := advanceOp(&o, w, rapid.SampledFrom([]string{"j", "k"}).Draw(rt, "journal"))
			switch {
			case how != taken && (fmt.Sprint(o) != fmt.Sprint(before) || len(news) > 0):
				rt.Fatalf("not taken (%d), and changed by %+v: %+v, was %+v", how, w, o, before)
			case outcome != "" && o.Outcome != outcome:
				rt.Fatalf("%s became %s", outcome, o.Outcome)
			case (o.Stage() == store.StageEnded) != (o.Outcome != "" && o.EndedAt != nil):
				rt.Fatalf("half an end: %+v", o)
			case o.Stage() == store.StageTaken && before.Stage() != store.StageTaken:
				rt.Fatalf("back to central: %+v", o)
			}
			outcome = o.Outcome
		}
	})
}
