package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestRunsOfEqualReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReadings(func() {})
		if got := r.run("n1"); got.Times != 0 || got.Reach != power.ReachNever {
			t.Fatalf("never read: %+v", got)
		}
		saw := func(s power.State) {
			r.saw("n1", power.Seen(s, time.Now()))
			time.Sleep(time.Minute)
		}
		began := time.Now()
		saw(power.On)
		saw(power.On)
		saw(power.On)
		want := api.ReadingRun{State: power.On, Reach: power.ReachOK, First: began, Last: began.Add(2 * time.Minute), Times: 3}
		if got := r.run("n1"); got != want {
			t.Fatalf("run %+v, want %+v", got, want)
		}
		r.failed("n1", power.ReachUnreachable, "no answer")
		if got := r.run("n1"); got.State != power.On || got.Reach != power.ReachUnreachable || got.Times != 1 || got.Message != "no answer" {
			t.Fatalf("failed: %+v", got)
		}
		saw(power.On)
		if got := r.run("n1"); got.Times != 1 {
			t.Fatalf("a failed reading between two does not break the run: %+v", got)
		}
		for range 30 {
			saw(power.Off)
			saw(power.On)
		}
		list := r.history("n1")
		if len(list) != keepRuns || list[keepRuns-1] != r.run("n1") || list[0].First.After(list[1].First) {
			t.Fatalf("history: %+v", list)
		}
		list[0].Times = 99
		if r.history("n1")[0].Times == 99 {
			t.Fatal("the history is not a copy")
		}
	})
}

func TestMonitorsWordTravelsWithTheReading(t *testing.T) {
	r := newReadings(func() {})
	word := api.NodeMonitor{Failures: 2, Waits: power.ReasonFault}
	r.setMonitor("n1", word)
	if got := r.take(10); len(got) != 1 || got[0].Monitor != word || got[0].Reach != power.ReachNever {
		t.Fatalf("took %+v", got)
	}
	r.setMonitor("n1", word)
	if r.untoldCount() > 0 {
		t.Fatal("told again although nothing changed")
	}
	r.saw("n1", power.Seen(power.On, time.Now()))
	if got := r.take(10); len(got) != 1 || got[0].Monitor != word || got[0].State != power.On {
		t.Fatalf("took %+v", got)
	}
	r.forget("n1")
	r.saw("n1", power.Seen(power.On, time.Now()))
	if got := r.take(10); got[0].Monitor != (api.NodeMonitor{}) {
		t.Fatalf("took %+v", got)
	}
}
