package web

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/noderange"
)

// functions are those that templates may call.
func (p *Page) functions() template.FuncMap {
	return template.FuncMap{
		"age":   func(t any) string { return strings.TrimSuffix(since(p.cfg.Now(), t), " ago") },
		"ago":   func(t any) string { return since(p.cfg.Now(), t) },
		"until": func(t any) string { return until(p.cfg.Now(), t) },
		"time":  timeTag, "text": textTags,
		"path": url.PathEscape, "cells": cells, "state": stateWord, "desired": desiredWord, "differs": func(n api.Node) string {
			return differsWord(n, p.cfg.Now())
		},
		"op":       func(n api.Node) string { return opWord(n, p.cfg.Now()) },
		"mark":     func(n api.Node) cellView { return cellOf(n).public() },
		"presence": func(a api.AgentPresence) string { return a.Text(p.cfg.Now()) },
		"absent":   api.AgentPresence.Absent, "paused": func(x *api.Pause) bool { return x.Active(p.cfg.Now()) },
		"fold": noderange.Fold, "bound": bound, "result": resultWord, "count": power.Count, "lower": strings.ToLower,
		"effect":  func(e api.Effect) string { return effectWords[e] },
		"effects": effects, "verdict": verdict,
		"float": func(n int) float64 { return float64(n) }, "span": power.Ago, "dict": dict,
		"pending": func(o api.Op) bool { return o.EndedAt == nil },
		"statuses": func() []power.Status {
			all := power.Statuses()
			slices.Sort(all)
			return all
		},
	}
}

// cellView is a cell as templates take it.
type cellView struct{ Class, Mark, Words string }

func (c cell) public() cellView { return cellView{c.class, c.mark, c.words} }

func moment(t any) time.Time {
	switch at := t.(type) {
	case time.Time:
		return at
	case *time.Time:
		if at != nil {
			return *at
		}
	}
	return time.Time{}
}

func since(now time.Time, t any) string {
	if at := moment(t); !at.IsZero() {
		return power.Ago(now.Sub(at)) + " ago"
	}
	return ""
}

func until(now time.Time, t any) string {
	at := moment(t)
	if at.IsZero() || !at.After(now) {
		return ""
	}
	return "in " + power.Ago(at.Sub(now))
}

// timeTag is a time that the script shows in the zone of the browser.
func timeTag(t any) template.HTML {
	at := moment(t)
	if at.IsZero() {
		return ""
	}
	utc := at.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s UTC</time>`, utc.Format(time.RFC3339), //nolint:gosec // digits
		utc.Format(time.DateTime)))
}

// written finds the times that agents and central write in their sentences (power.At).
var written = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// textTags is a text of an agent or of central, its times as those of timeTag.
func textTags(text any) template.HTML {
	plain := fmt.Sprint(text)
	var out strings.Builder
	from := 0
	for _, at := range written.FindAllStringIndex(plain, -1) {
		t, err := time.Parse(time.RFC3339, plain[at[0]:at[1]])
		if err != nil { // the 32nd of a month
			continue
		}
		out.WriteString(html.EscapeString(plain[from:at[0]]))
		out.WriteString(string(timeTag(t)))
		from = at[1]
	}
	out.WriteString(html.EscapeString(plain[from:]))
	return template.HTML(out.String()) //nolint:gosec // all but the tags of times is escaped
}

func desiredWord(n api.Node) string {
	switch {
	case n.Hold == nil:
		return string(n.Desired)
	case n.Hold.Schedule != "":
		return fmt.Sprintf("%s (schedule %s)", n.Desired, n.Hold.Schedule)
	}
	return fmt.Sprintf("%s (held by %s)", n.Desired, n.Hold.By)
}

// differsWord is what rackpower status shows as DRIFT.
func differsWord(n api.Node, now time.Time) string {
	word := ""
	switch {
	case n.Fault != "":
		return "fault: " + n.Fault
	case n.Pending:
		word = "pending"
	case n.Drift:
		word = "drift"
	}
	if word == "" || n.Waits == "" || n.Op != nil {
		return word
	}
	word += ": " + string(n.Waits)
	if left := n.WaitsUntil.Sub(now); !n.WaitsUntil.IsZero() && left > 0 {
		word += ", " + power.Ago(left)
	}
	return word
}

func opWord(n api.Node, now time.Time) string {
	if n.Op == nil {
		return ""
	}
	phase := cmp.Or(n.Op.Phase, api.PhaseTaken)
	if n.Op.AgentNote != "" && phase != api.PhaseTaken {
		phase = fmt.Sprintf("not known: %s; it said last: %s", n.Op.AgentNote, phase)
	}
	text := fmt.Sprintf("%s (asked by %s, %s ago) %s", n.Op.Action, n.Op.AskedBy, power.Ago(now.Sub(n.Op.AskedAt)), phase)
	if n.Waiting > 0 {
		text += fmt.Sprintf(", %d more", n.Waiting)
	}
	return text
}

// resultWord is how an operation is, or ended.
func resultWord(o api.Op) string {
	text := string(o.Outcome)
	switch {
	case o.EndedAt == nil && o.CancelBy != "":
		text = cmp.Or(o.Phase, api.PhaseTaken) + ", being cancelled by " + o.CancelBy
	case o.EndedAt == nil:
		text = cmp.Or(o.Phase, api.PhaseTaken)
	case o.Already:
		text += ", was so already"
	}
	if o.EndedAt == nil && o.AgentNote != "" {
		text += "; " + o.AgentNote
	}
	if detail := cmp.Or(o.Detail, o.Message); detail != "" {
		text += ": " + detail
	}
	return text
}

func bound(n float64, unit string) string {
	if n <= 0 {
		return "no bound"
	}
	return fmt.Sprintf("%g%s", n, unit)
}

var effectWords = map[api.Effect]string{
	api.EffectLosesPower: "loses power", api.EffectTurnsOn: "turns on", api.EffectNone: "its power stays", api.EffectRefused: "refused",
}

// effects says what happens to so many nodes.
func effects(e api.Effect, n int) string {
	text := power.Count(n, "node")
	switch {
	case e == api.EffectNone:
		return text + " without a change of power"
	case e == api.EffectRefused:
		return text + " refused"
	case n == 1:
		return text + " " + effectWords[e]
	case e == api.EffectTurnsOn:
		return text + " turn on"
	default:
		return text + " lose power"
	}
}

// verdict is what a plan says of an operation beyond its effect, "" for nothing.
func verdict(v power.Verdict) power.Verdict {
	if v == power.VerdictStart || v == power.VerdictRefuse {
		return ""
	}
	return v
}

// dict gives a template several things under names.
func dict(pairs ...any) map[string]any {
	out := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return out
}
