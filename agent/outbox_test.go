package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// word is the lsn-th word on an operation; an outcome makes it the last.
func word(id string, seq power.Seq, lsn uint64, phase string, outcome ...power.Outcome) api.OpReport {
	r := api.OpReport{Op: power.Op{ID: id, Node: "n1", Action: power.ActOn, Seq: seq}, LSN: lsn, Phase: phase, Verdict: power.VerdictStart}
	if len(outcome) > 0 {
		r.End = &power.End{Outcome: outcome[0]}
	}
	return r
}

func ended(id string, seq power.Seq, lsn uint64) api.OpReport {
	return word(id, seq, lsn, api.PhaseEnded, power.Succeeded)
}

func idsOf(list []api.OpReport) []string {
	ids := []string{}
	for _, r := range list {
		ids = append(ids, r.Op.ID)
	}
	return ids
}

func wantIDs(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func TestOutboxTakesInOrderOfSequenceAndUpToItsLimit(t *testing.T) {
	o := newOutbox(time.Hour)
	for _, r := range []api.OpReport{word("c", 3, 1, api.PhaseWaiting), word("a", 1, 2, api.PhaseWaiting), word("b", 2, 3, api.PhaseWaiting)} {
		o.put(r)
	}
	wantIDs(t, "all", idsOf(o.take(10)), "a", "b", "c")
	wantIDs(t, "two", idsOf(o.take(2)), "a", "b")
	o.acked(o.take(2), time.Now())
	wantIDs(t, "after the first two", idsOf(o.take(2)), "c")
	wantIDs(t, "unacknowledged", o.unacknowledged(), "a", "b", "c")
	if n := o.waiting(); n != 3 {
		t.Fatalf("%d to report, want 3", n)
	}
}

// TestOutboxTellsFirstWhatSomebodyWaitsFor: where there is more than a report takes, phases give
// way to ends, and both to what central has not heard of.
func TestOutboxTellsFirstWhatSomebodyWaitsFor(t *testing.T) {
	o := newOutbox(time.Hour)
	for i, id := range []string{"a", "b", "c"} {
		o.put(word(id, power.Seq(i+1), 1, api.PhaseWaiting))
	}
	o.acked(o.take(10), time.Now())
	o.put(word("a", 1, 2, api.PhaseRunning))
	o.put(ended("b", 2, 2))
	o.put(ended("c", 3, 2))
	o.put(word("d", 4, 1, api.PhaseWaiting))
	wantIDs(t, "one", idsOf(o.take(1)), "d")
	wantIDs(t, "three", idsOf(o.take(3)), "b", "c", "d")
	o.acked(o.take(3), time.Now())
	wantIDs(t, "the rest", idsOf(o.take(3)), "a")
	o.allAgain()
	wantIDs(t, "in another session", idsOf(o.take(1)), "a")
}

// TestOutboxNewerWordStaysUnsent: what is put while an older word is on its way is
// not covered by the older one's acknowledgement.
func TestOutboxNewerWordStaysUnsent(t *testing.T) {
	for _, c := range []struct {
		name  string
		newer api.OpReport
	}{
		{"another record", word("a", 1, 2, api.PhaseWaiting)},
		{"another phase", word("a", 1, 1, api.PhaseRunning)},
		{"the end", ended("a", 1, 2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOutbox(time.Hour)
			o.put(word("a", 1, 1, api.PhaseWaiting))
			sent := o.take(10)
			o.put(c.newer)
			if got := o.acked(sent, time.Now()); len(got) != 0 {
				t.Fatalf("ended by the older word: %v", got)
			}
			wantIDs(t, "unacknowledged", o.unacknowledged(), "a")
			again := o.take(10)
			if len(again) != 1 || again[0].LSN != c.newer.LSN || again[0].Phase != c.newer.Phase {
				t.Fatalf("still to send: %+v, want %+v", again, c.newer)
			}
			o.acked(again, time.Now())
			wantIDs(t, "to send", idsOf(o.take(10)))
		})
	}
}

func TestOutboxEndIsTheLastWord(t *testing.T) {
	o := newOutbox(time.Hour)
	o.put(ended("a", 1, 5))
	o.put(word("a", 1, 6, api.PhaseRunning))
	if got, ok := o.find("a"); !ok || got.End == nil || got.LSN != 5 {
		t.Fatalf("the word is %+v, want the end", got)
	}
	if got := o.acked(o.take(10), time.Now()); len(got) != 1 {
		t.Fatalf("acknowledged ends: %v, want one", got)
	}
	o.put(word("a", 1, 7, api.PhaseRunning))
	wantIDs(t, "to send", idsOf(o.take(10)))
	wantIDs(t, "unacknowledged", o.unacknowledged())
}

func TestOutboxGivesEachEndOnce(t *testing.T) {
	o := newOutbox(time.Hour)
	o.put(ended("a", 1, 1))
	sent := o.take(10)
	wantIDs(t, "first answer", idsOf(o.acked(sent, time.Now())), "a")
	wantIDs(t, "second answer", idsOf(o.acked(sent, time.Now())))
	wantIDs(t, "of something unknown", idsOf(o.acked([]api.OpReport{ended("z", 9, 9)}, time.Now())))
}

// TestOutboxUnack: an end that the journal would not let go is reported once more.
func TestOutboxUnack(t *testing.T) {
	o := newOutbox(time.Hour)
	o.put(ended("a", 1, 1))
	o.unack(o.acked(o.take(10), time.Now()))
	wantIDs(t, "unacknowledged", o.unacknowledged(), "a")
	wantIDs(t, "to send", idsOf(o.take(10)), "a")
	wantIDs(t, "acknowledged", idsOf(o.acked(o.take(10), time.Now())), "a")
}

func TestOutboxNewSession(t *testing.T) {
	o := newOutbox(time.Hour)
	o.put(word("a", 1, 1, api.PhaseRunning))
	o.put(ended("b", 2, 2))
	o.acked(o.take(10), time.Now())
	wantIDs(t, "to send", idsOf(o.take(10)))
	o.allAgain()
	wantIDs(t, "to send in a new session", idsOf(o.take(10)), "a")
	o.acked(o.take(10), time.Now())
	if !o.again("b") {
		t.Fatal("an ended operation that central asks for is not known")
	}
	wantIDs(t, "to send when asked for", idsOf(o.take(10)), "b")
	if o.again("z") {
		t.Fatal("an operation that never was is known")
	}
}

func TestOutboxForgetsEndsAfterAWhile(t *testing.T) {
	o := newOutbox(time.Minute)
	now := time.Now()
	o.put(ended("a", 1, 1))
	o.put(ended("b", 2, 2))
	o.put(word("c", 3, 3, api.PhaseRunning))
	o.acked(o.take(10), now)
	o.again("b")
	o.acked(nil, now.Add(59*time.Second))
	if _, ok := o.find("a"); !ok {
		t.Fatal("forgotten before its time")
	}
	o.acked(nil, now.Add(61*time.Second))
	for id, want := range map[string]bool{"a": false, "b": true, "c": true} {
		if _, ok := o.find(id); ok != want {
			t.Errorf("%s is known: %v, want %v", id, ok, want)
		}
	}
}

func TestOutboxAfterTellsWhatChangedSince(t *testing.T) {
	o := newOutbox(time.Hour)
	o.put(word("a", 1, 1, api.PhaseWaiting))
	list, rev, news := o.after(0)
	wantIDs(t, "all", idsOf(list), "a")
	select {
	case <-news:
		t.Fatal("news before anything changed")
	default:
	}
	o.put(word("b", 2, 2, api.PhaseWaiting))
	select {
	case <-news:
	default:
		t.Fatal("no news of a change")
	}
	list, _, _ = o.after(rev)
	wantIDs(t, "since", idsOf(list), "b")
	o.put(word("a", 1, 3, api.PhaseRunning))
	list, _, _ = o.after(rev)
	wantIDs(t, "since", idsOf(list), "a", "b")
	changed := o.changed()
	o.again("a")
	select {
	case <-changed:
	default:
		t.Fatal("the reporter is not woken when central asks again")
	}
}

// TestOutboxOfAnotherStart: revisions begin anew with each start; whoever asks with
// one of before is told everything.
func TestOutboxOfAnotherStart(t *testing.T) {
	o := newOutbox(time.Hour)
	o.put(ended("a", 1, 1))
	list, rev, _ := o.after(1000)
	if wantIDs(t, "after a revision of before", idsOf(list), "a"); rev >= 1000 {
		t.Fatalf("revision %d", rev)
	}
}

func TestSortReportsBySequence(t *testing.T) {
	list := []api.OpReport{word("b", 1<<40, 1, ""), word("a", 2, 2, "")}
	sortReports(list)
	if !slices.IsSortedFunc(list, func(a, b api.OpReport) int { return int(int64(a.Op.Seq) - int64(b.Op.Seq)) }) {
		t.Fatalf("not sorted: %v", idsOf(list))
	}
}

// TestRefusalsAreBounded has more requests refused than are kept while central is away,
// beside operations: the oldest refusals go and are counted, nothing else does.
func TestRefusalsAreBounded(t *testing.T) {
	o := newOutbox(time.Minute)
	o.put(ended("first", 1, 1))
	for i := range maxRefused + 50 {
		r := refusal(power.Op{ID: fmt.Sprint("r", i), Node: "n1", Action: power.ActOn, Seq: power.Seq(i + 2)}, power.ReasonQueueFull, "full")
		o.put(r)
		o.put(r) // asked for again
	}
	o.put(ended("last", 1<<40, 2))
	if len(o.items) > maxRefused+2 || len(o.refused) > maxRefused {
		t.Errorf("%d words and %d refusals are kept", len(o.items), len(o.refused))
	}
	all := idsOf(o.take(1 << 30))
	if all[0] != "first" || all[len(all)-1] != "last" || !slices.Contains(all, fmt.Sprint("r", maxRefused+49)) {
		t.Errorf("from %s to %s", all[0], all[len(all)-1])
	}
	if n := o.lost(); n != maxRefused+50-(len(all)-2) || o.lost() != 0 {
		t.Errorf("%d counted as dropped, %d kept", n, len(all)-2)
	}
}
