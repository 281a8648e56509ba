package power

import (
	"fmt"
	"slices"
	"strings"
)

// carryOut does to a lane what a decision says, as an agent would.
func carryOut(lane Lane, req Op, d Decision) Lane {
	if !d.Verdict.Accepted() {
		return lane
	}
	var out []Held
	for _, h := range lane.Outstanding {
		if slices.Contains(d.Supersedes, h.Op.ID) {
			continue
		}
		h.Cancelling = h.Cancelling || h.Op.ID == d.Cancels
		h.Hastened = h.Hastened || d.Verdict == VerdictHasten && h.Op.ID == d.With
		out = append(out, h)
	}
	if !d.Verdict.Joined() {
		out = append(out, Held{Op: req})
	}
	return Lane{Outstanding: out, LastSeq: max(lane.LastSeq, req.Seq)}
}

// begin starts the first operation of a lane.
func begin(lane Lane) Lane {
	lane.Outstanding = slices.Clone(lane.Outstanding)
	if len(lane.Outstanding) > 0 {
		lane.Outstanding[0].Running = true
	}
	return lane
}

// finish ends the first operation of a lane.
func finish(lane Lane) Lane {
	if len(lane.Outstanding) > 0 {
		lane.Outstanding = slices.Clone(lane.Outstanding[1:])
	}
	return lane
}

// stop tells the running operation to end at its next safe point, as somebody asked.
func stop(lane Lane) Lane {
	lane.Outstanding = slices.Clone(lane.Outstanding)
	if len(lane.Outstanding) > 0 && lane.Outstanding[0].Running {
		lane.Outstanding[0].Cancelling = true
	}
	return lane
}

func drawLane(lane Lane) string {
	if len(lane.Outstanding) == 0 {
		return "lane: empty"
	}
	var texts []string
	for _, h := range lane.Outstanding {
		text := fmt.Sprintf("%s %s", h.Op.ID, h.Op.Action)
		if h.Op.Boot != BootNone {
			text += " boot=" + string(h.Op.Boot)
		}
		if h.Op.Limit != 0 {
			text += " " + Watts(h.Op.Limit)
		}
		text += " " + map[bool]string{true: "running", false: "waiting"}[h.Running]
		if h.Cancelling {
			text += " cancelling"
		}
		if h.Hastened {
			text += " hastened"
		}
		texts = append(texts, text)
	}
	return "lane: " + strings.Join(texts, " | ")
}

func drawDecision(d Decision) string {
	text := fmt.Sprintf("%s (%s)", d.Verdict, d.Reason)
	if d.With != "" {
		text += " with " + d.With
	}
	if d.Cancels != "" {
		text += ", cancels " + d.Cancels
	}
	if len(d.Supersedes) > 0 {
		text += ", ends " + strings.Join(d.Supersedes, " ")
	}
	return text
}
