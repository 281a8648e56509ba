package central

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rackpower/central/api"
	"rackpower/power"
)

// What agents ended after the backup comes back as it was: what was open in it, and
// what it does not know at all.
func TestARestoredCentralLearnsWhatItsAgentsEnded(t *testing.T) {
	onFiles(t)
	restore := func(t *testing.T, s *site, f func()) {
		restoreOnto(t, s.dir, func() {
			s.start()
			f()
			s.stop()
		})
	}
	putBack := func(t *testing.T, s *site, f func()) { // by hand
		copyOf := filepath.Join(t.TempDir(), "copy")
		move := func(from, to string) {
			raw, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		move(DatabasePath(s.dir), copyOf)
		s.start()
		f()
		s.stop()
		for _, sidecar := range []string{"-wal", "-shm"} {
			_ = os.Remove(DatabasePath(s.dir) + sidecar)
		}
		move(copyOf, DatabasePath(s.dir))
	}
	for name, goBack := range map[string]func(*testing.T, *site, func()){"by a restore": restore, "by hand": putBack} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.nodes("a", "b", "c", "d")
			r := s.rack("r1")
			reset, lost := r.deliver("a", power.ActReset), r.deliver("d", power.ActOn)
			r.mustReport(r.running(reset))
			r.mustReport(r.running(lost))
			taken := power.Op{ID: s.ask("b", power.ActReset).ID}
			s.stop()
			var kept []api.OpReport
			goBack(t, s, func() {
				for _, op := range r.poll().Ops {
					if op.ID == taken.ID {
						taken = op
					}
				}
				later := r.deliver("c", power.ActOn)
				kept = []api.OpReport{r.ended(reset, power.Succeeded), r.ended(taken, power.Failed), r.ended(later, power.Succeeded)}
				r.mustReport(kept...)
			})
			s.start()
			before := r.w
			r.mustHello() // none of them is outstanding any more
			if r.w.CentralID != before.CentralID || r.w.Incarnation <= before.Incarnation || !r.w.ReportAll {
				t.Fatalf("%+v after %+v", r.w, before)
			}
			if o := s.op(reset.ID); o.Outcome != "" {
				t.Errorf("before it was told: %+v", o)
			}
			r.mustReport(kept...)
			r.mustHello()
			for _, w := range kept {
				if o := s.op(w.Op.ID); o.Outcome != w.End.Outcome || !o.EndedAt.Equal(w.End.At) {
					t.Errorf("%s of %s: %+v, want %+v", w.Op.Action, w.Op.Node, o, w.End)
				}
			}
			// What even the agent does not know is lost, and said to be.
			if o := s.op(lost.ID); o.Outcome != power.Indeterminate || r.w.ReportAll || len(r.w.Alarms) == 0 {
				t.Errorf("%+v, %+v", o, r.w)
			}
			if g := r.poll(); len(g.Ops) != 0 {
				t.Errorf("delivered once more: %+v", g.Ops)
			}
		})
	}
}

// What central made of an agent's silence gives way to the agent's report.
func TestAnEndThatTurnsUpTakesThePlaceOfLost(t *testing.T) {
	s := newSite(t)
	s.nodes("a")
	r := s.rack("r1")
	op := r.deliver("a", power.ActReset)
	r.mustReport(r.running(op))
	r.mustHello()
	if o := s.op(op.ID); o.Outcome != power.Indeterminate {
		t.Fatalf("%+v", o)
	}
	r.mustReport(r.ended(op, power.Succeeded))
	if o := s.op(op.ID); o.Outcome != power.Succeeded {
		t.Errorf("%+v", o)
	}
	if auditLog := s.auditLog(op.ID); !slices.Equal(auditLog, []string{"asked", "accepted", "started", "ended", "ended"}) {
		t.Errorf("audit log %v", auditLog)
	}
	r.mustReport(r.ended(op, power.Failed))
	if o := s.op(op.ID); o.Outcome != power.Succeeded {
		t.Errorf("a known end was replaced: %+v", o)
	}
}
