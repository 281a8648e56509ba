package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

func TestAnIDIsCompletedFromItsBeginningOrEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfDistinct(rapid.StringMatching(`[ab]{3,6}`), func(s string) string { return s }).Draw(t, "ids")
		part := rapid.StringMatching(`[ab]{1,6}`).Draw(t, "part")
		var like []string
		for _, id := range ids {
			if strings.HasPrefix(id, part) || strings.HasSuffix(id, part) {
				like = append(like, id)
			}
		}
		want := part
		if len(like) == 1 && !slices.Contains(ids, part) {
			want = like[0]
		}
		got, candidates := complete(part, ids)
		if got != want {
			t.Fatalf("%q of %q is %q, want %q", part, ids, got, want)
		}
		if ambiguous := len(like) > 1 && !slices.Contains(ids, part); ambiguous != (len(candidates) > 1) {
			t.Fatalf("%q of %q: candidates %q", part, ids, candidates)
		}
	})
}

func TestOperationsByPartOfTheirID(t *testing.T) {
	f := newFake(t)
	one, two := "01935f6e-58a1-7cc3-9d40-0d7cbb9ab0b1", "01935f6e-58a1-7cc3-9d40-1d7cbb9ab0b2"
	f.know(ended(one, "r1n01"))
	running := ended(two, "r1n02")
	running.Outcome, running.Phase = "", api.PhaseRunning
	f.know(running)
	expect(t, "the table", f.run("ops"), 0, "0d7cbb9ab0b1  r1n01", "")
	expect(t, "for programs", f.run("ops -o name"), 0, one+"\n"+two+"\n", "")
	expect(t, "by what the table has", f.run("op show 0d7cbb9ab0b1"), 0, "id:            "+one+"\n", "")
	f.run("op cancel 2")
	if !slices.Equal(f.cancels, []string{two}) {
		t.Errorf("%q", f.cancels)
	}
	got := f.run("op cancel 0193")
	expect(t, "ambiguous", got, 2, "", "0193 is the beginning or the end of 2 ids:\n  "+two+"  r1n02 off, 5 min ago, running\n  "+one)
	expect(t, "unknown", f.run("op show 77"), 2, "", "no operation 77 is known")
	queries := len(f.queries)
	f.run("op show " + one)
	if n := len(f.queries) - queries; n != 1 {
		t.Errorf("%d queries for a whole id", n)
	}
	f.planned = api.Plan{ID: one, What: "off", State: api.PlanAwaiting, ExpiresAt: time.Now().Add(time.Hour)}
	expect(t, "approvals", f.run("approvals"), 0, "0d7cbb9ab0b1  off", "")
	expect(t, "approve", f.run("approve 0d7c --reason x"), 0, "approved, and carried out\n", "")
	if !slices.Contains(f.paths, "/v1/approvals/"+one) {
		t.Errorf("asked for %q", f.paths)
	}
}

func TestAliasesAreTheCommands(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	f.becomes = ends(0, power.Succeeded)
	for word, action := range map[string]power.Action{
		"reboot": power.ActReset, "poweron": power.ActOn, "poweroff": power.ActOff, "shutdown": power.ActSoftOff, "powercycle": power.ActCycle,
	} {
		f.asked = nil
		if got := f.run(word + " r1n01"); got.exit != 0 || len(f.requests()) != 1 || f.requests()[0].Action != action {
			t.Errorf("%s: %+v, %+v", word, got, f.requests())
		}
	}
	expect(t, "delete", f.run("node delete r1n01"), 0, "r1n01 removed", "")
	expect(t, "ls", f.run("node ls -o name"), 0, "r1n01\nr1n02\n", "")
	expect(t, "help", f.run("--help"), 0, "reset, reboot ", "")
}
