package power

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// referenceTable says, for "outstanding>asked" with plain parameters, what they are to
// each other: what is not listed differs in its final state.
var referenceTable = map[string]string{
	"on>on": "enough", "on>cycle": "more", "on>reset": "more",
	"cycle>on": "enough", "cycle>cycle": "enough", "cycle>reset": "enough",
	"reset>on": "enough", "reset>reset": "enough", "reset>cycle": "more",
	"off>off": "enough", "off>soft-off": "enough",
	"soft-off>soft-off": "enough", "soft-off>off": "hurry",
}

func referencePlain(o Op) string {
	return fmt.Sprint(o.Action, "/", o.Boot, "/", o.Grace, "/", o.NoEscalate, "/", o.Limit)
}

func referenceFinal(a Action) string {
	return map[Action]string{"on": "on", "cycle": "on", "reset": "on", "off": "off", "soft-off": "off"}[a]
}

func referenceWord(h Held, req Op) string {
	if h.Cancelling {
		return "ending"
	}
	if referencePlain(h.Op) == referencePlain(req) {
		return "equal"
	}
	if h.Op.Action == "cap" && req.Action == "cap" {
		return "differs"
	}
	if referenceFinal(h.Op.Action) == "" || referenceFinal(req.Action) == "" {
		return "apart"
	}
	word, listed := referenceTable[string(h.Op.Action)+">"+string(req.Action)]
	if !listed {
		return "differs"
	}
	if word == "enough" {
		otherBoot := req.Boot != "" && h.Op.Boot != req.Boot
		gentle := h.Op.Action == "soft-off" && h.Op.NoEscalate && !req.NoEscalate
		if otherBoot || gentle {
			return "more"
		}
	}
	return word
}

// referenceDecide is Decide, written a second time in another way.
func referenceDecide(lane Lane, req Op) Decision {
	n := len(lane.Outstanding)
	last := ""
	for _, h := range lane.Outstanding {
		last = h.Op.ID
		if last == req.ID {
			return Decision{Verdict: "join", Reason: "repeat", With: last}
		}
	}
	if lane.LastSeq > req.Seq {
		return Decision{Verdict: "refuse", Reason: "stale", With: last}
	}
	if n == 0 {
		return Decision{Verdict: "start", Reason: "idle"}
	}
	full := Decision{Verdict: "refuse", Reason: "queue-full", With: last}
	equal := referenceWord(lane.Outstanding[n-1], req) == "equal"
	if req.IfBusy == "refuse" && !equal {
		return Decision{Verdict: "refuse", Reason: "busy", With: last}
	}
	if req.IfBusy == "queue" && !equal {
		if n > 63 {
			return full
		}
		return Decision{Verdict: "queue", Reason: "queued", With: last}
	}
	var stack []Held
	for _, h := range lane.Outstanding { // power and limits have nothing to do with each other
		if (h.Op.Action == "cap") == (req.Action == "cap") {
			stack = append(stack, h)
		}
	}
	if len(stack) == 0 {
		if n > 63 {
			return full
		}
		return Decision{Verdict: "follow", Reason: "unrelated", With: last}
	}
	var gone []string
	for {
		top := stack[len(stack)-1]
		d := Decision{With: top.Op.ID, Supersedes: gone}
		word := referenceWord(top, req)
		switch word {
		case "equal":
			d.Verdict, d.Reason = "join", "equal"
			return d
		case "enough":
			d.Verdict, d.Reason = "join", "satisfied"
			return d
		case "hurry":
			d.Verdict, d.Reason = "hasten", "grace-over"
			return d
		case "more", "differs":
			if len(stack) > 1 {
				gone = append(gone, top.Op.ID)
				stack = stack[:len(stack)-1]
				continue
			}
			switch {
			case word == "more" && gone == nil:
				d.Verdict, d.Reason = "follow", "asks-more"
			case word == "differs" && top.Running:
				d.Verdict, d.Reason, d.Cancels = "supersede", "conflict", top.Op.ID
			case word == "differs":
				d.Verdict, d.Reason = "supersede", "conflict"
				d.Supersedes = append(d.Supersedes, top.Op.ID)
			default:
				d.Verdict, d.Reason = "supersede", "conflict"
			}
		case "apart":
			d.Verdict, d.Reason = "follow", "no-final"
		case "ending":
			d.Verdict, d.Reason = "follow", "cancelling"
			if gone != nil {
				d.Verdict, d.Reason = "supersede", "conflict"
			}
		}
		if n-len(d.Supersedes) > 63 {
			return full
		}
		return d
	}
}

func drawRequest(t *rapid.T, n int, lane Lane) Op {
	req := Op{ID: fmt.Sprint("op", n), Node: "n1", Action: rapid.SampledFrom(Actions).Draw(t, "action")}
	req.IfBusy = rapid.SampledFrom([]IfBusy{Supersede, Supersede, Supersede, Queue, Queue, Refuse}).Draw(t, "if-busy")
	req.Seq = lane.LastSeq + Seq(rapid.IntRange(0, 9).Draw(t, "seq"))
	if req.Seq == lane.LastSeq && req.Seq > 0 && rapid.Bool().Draw(t, "older") {
		req.Seq--
	}
	if req.Action.Boots() {
		req.Boot = rapid.SampledFrom([]BootDevice{BootNone, BootNone, BootPXE, BootDisk}).Draw(t, "boot")
	}
	if req.Action == ActSoftOff {
		req.NoEscalate = rapid.Bool().Draw(t, "no-escalate")
	}
	if req.Action == ActCap {
		req.Limit = rapid.SampledFrom([]int{0, 500, 800}).Draw(t, "limit")
	}
	if k := len(lane.Outstanding); k > 0 && rapid.IntRange(0, 19).Draw(t, "again") == 0 {
		req.ID = lane.Outstanding[rapid.IntRange(0, k-1).Draw(t, "which")].Op.ID
	}
	return req
}

// TestDecideAgainstReference walks reachable lanes, each made by Decide's own
// decisions, and holds every decision against the reference and the invariants.
func TestDecideAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lane Lane
		wanted, pure := "", true //nolint:ineffassign // final state last asked for; no queue so far
		for n := range rapid.IntRange(1, 120).Draw(t, "steps") {
			step := rapid.IntRange(0, 9).Draw(t, "step")
			switch {
			case step == 0:
				lane = begin(lane)
			case step == 1 && len(lane.Outstanding) > 0 && lane.Outstanding[0].Running:
				lane = finish(lane)
			case step == 2:
				lane = stop(lane)
			default:
				req := drawRequest(t, n, lane)
				before := Lane{Outstanding: slices.Clone(lane.Outstanding), LastSeq: lane.LastSeq}
				d, want := Decide(lane, req), referenceDecide(lane, req)
				if !reflect.DeepEqual(before, lane) {
					t.Fatalf("Decide changed its input")
				}
				if !reflect.DeepEqual(d, want) {
					t.Fatalf("%s asks %s (%s)\nDecide: %+v\nwant:   %+v", drawLane(lane), referencePlain(req), req.IfBusy, d, want)
				}
				next := carryOut(lane, req, d)
				checkDecision(t, lane, req, d, next)
				repeat := d.Reason == ReasonRepeat
				if f := referenceFinal(req.Action); f != "" && d.Verdict.Accepted() && !repeat {
					wanted = f
				}
				pure = len(next.Outstanding) > 0
				if pure && wanted != "" && !repeat && req.IfBusy == Supersede && referenceFinal(req.Action) != "" && d.Verdict.Accepted() {
					if got := lastFinal(next); got != wanted {
						t.Fatalf("%s asks %s, %+v: ends %q, want %q", drawLane(lane), req.Action, d, got, wanted)
					}
				}
				lane = next
			}
		}
	})
}

func lastFinal(lane Lane) string {
	got := ""
	for _, h := range lane.Outstanding {
		if f := referenceFinal(h.Op.Action); f != "" {
			got = f
		}
	}
	return got
}

func checkDecision(t *rapid.T, lane Lane, req Op, d Decision, next Lane) {
	verdicts := []Verdict{VerdictStart, VerdictJoin, VerdictHasten, VerdictFollow, VerdictSupersede, VerdictQueue, VerdictRefuse}
	if !slices.Contains(verdicts, d.Verdict) || d.Reason == "" {
		t.Fatalf("no verdict: %+v", d)
	}
	if next.LastSeq < lane.LastSeq || len(next.Outstanding) > MaxOutstanding {
		t.Fatalf("lane went wrong: %d outstanding, seq %d after %d", len(next.Outstanding), next.LastSeq, lane.LastSeq)
	}
	differs := false
	for _, h := range lane.Outstanding {
		gone := slices.Contains(d.Supersedes, h.Op.ID)
		if gone && (h.Running || referenceFinal(h.Op.Action) == "" && h.Op.Action != ActCap) {
			t.Fatalf("%s: %+v ends one that ran or has no final state", drawLane(lane), d)
		}
		if (gone || h.Op.ID == d.Cancels) && (h.Op.Action == ActCap) != (req.Action == ActCap) {
			t.Fatalf("%s asks %s: %+v ends %s", drawLane(lane), req.Action, d, h.Op.ID)
		}
		if h.Op.ID == d.Cancels && req.Action == ActCap {
			differs = true
			if !h.Running || h.Cancelling || h.Op.Limit == req.Limit {
				t.Fatalf("%s asks for a limit of %d: cancels %s", drawLane(lane), req.Limit, h.Op.ID)
			}
		} else if h.Op.ID == d.Cancels {
			differs = true
			if !h.Running || h.Cancelling || referenceFinal(h.Op.Action) == referenceFinal(req.Action) {
				t.Fatalf("%s asks %s: cancels %s", drawLane(lane), req.Action, h.Op.ID)
			}
		}
	}
	if d.Verdict == VerdictSupersede && !differs && len(d.Supersedes) == 0 {
		t.Fatalf("supersedes nothing: %+v", d)
	}
	if d.Verdict == VerdictRefuse && (d.Cancels != "" || len(d.Supersedes) > 0) {
		t.Fatalf("a refusal touches others: %+v", d)
	}
}
