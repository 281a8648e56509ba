// Package facts is what people are told of a node, in the same words on the page and by the
// command line: how things stand, and what to do. Times within the texts are in UTC, as power.At
// writes them; who shows a text puts them into the zone of its reader.
package facts

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Fact is a line of how things stand with a node. A Name of "" goes on with the line before.
type Fact struct{ Name, Text string }

// Lead is what a person needs to know first.
func Lead(e api.Explanation) string {
	return cmp.Or(e.Message, fmt.Sprintf("%s is %s and should be %s.", e.Node, e.Reading.State, e.Desired.Want))
}

// Of is how things stand; n is the node's row in status.
func Of(e api.Explanation, n api.Node, now time.Time) (all []Fact) {
	add := func(name, text string) {
		if text != "" {
			all = append(all, Fact{name, text})
		}
	}
	add("node", nodeWords(e, n, now))
	if e.Away != "" {
		add("missing", "what only its agent knows: "+e.Away)
	}
	add("power", readingWords(e, now))
	add("desired", desiredWords(e))
	add("hold", Hold(e.Hold, now))
	add("protected", Protection(e.Protected))
	add("lease", Lease(n.Lease))
	add("monitor", waitsWords(e.Monitor, now))
	add("fault", faultWords(e.Monitor, now))
	for _, a := range e.Rack.Alarms {
		add("alarm", Alarm(a))
	}
	add("brake", Brake(e.Rack.Brake, now))
	add("pause", Pause(e.Rack.Pause, now))
	if e.Domain != nil {
		add("power domain", Domain(*e.Domain))
	}
	add("BMC", bmcWords(e, n, now))
	if e.BMC != nil {
		add("", e.BMC.LastError)
	}
	switch alone := e.BMC != nil && e.BMC.BreakerOpen != ""; {
	case alone && e.BMC.NextProbe.IsZero():
		add("next reading", "none until its BMC is corrected")
	case alone:
		add("next reading", "when its BMC answers a probe")
	case e.Next.IsZero():
		add("readings", e.Rack.Monitor)
	default:
		add("next reading", until(now, e.Next)+note(e.Rack.Monitor))
	}
	return all
}

// since writes a time that is over with its age: "2026-03-01T12:01:02Z (3 min ago)".
func since(now, t time.Time) string {
	return fmt.Sprintf("%s (%s ago)", power.At(t), power.Ago(now.Sub(t)))
}

// until writes a time to come with how long that is: "2026-03-01T12:30:00Z (in 21 s)". One
// that is over is due.
func until(now, t time.Time) string {
	left := t.Sub(now)
	if left <= 0 {
		return power.At(t) + " (due)"
	}
	return fmt.Sprintf("%s (in %s)", power.At(t), power.Ago(left.Round(time.Second)))
}

// untilOr is until after the word, or what ends it when there is no time.
func untilOr(now, t time.Time, otherwise string) string {
	if t.IsZero() {
		return "until " + otherwise
	}
	return "until " + until(now, t)
}

func sinceOr(now, t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return "since " + since(now, t)
}

// because is the end of a line that has a reason.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// note is text in brackets, if there is any.
func note(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// Hold says who holds a node and how long, "" when nobody does.
func Hold(h *api.Hold, now time.Time) string {
	if h == nil {
		return ""
	}
	var end time.Time
	if h.Expires != nil {
		end = *h.Expires
	}
	return fmt.Sprintf("%s, %s %s, %s%s", h.Want, Holder(h), sinceOr(now, h.Since), untilOr(now, end, "released"), because(h.Reason))
}

// Holder is who holds a node.
func Holder(h *api.Hold) string {
	if h.Schedule != "" {
		return "schedule " + h.Schedule
	}
	return "by " + h.By
}

// Brake is what a brake holds, "" for none.
func Brake(b *api.Brake, now time.Time) string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf("holds %d of %s (%s) since %s: %s", len(b.Nodes), power.Count(b.Total, "node"), b.Kind, since(now, b.Since),
		noderange.Fold(b.Nodes))
}

// Pause is who paused a monitor and how long, "" where nobody did.
func Pause(pause *api.Pause, now time.Time) string {
	if !pause.Active(now) {
		return ""
	}
	with := ""
	if pause.Site {
		with = "with all racks "
	}
	return fmt.Sprintf("%sby %s since %s, %s%s", with, pause.By, since(now, pause.Since), untilOr(now, pause.Until, "resumed"),
		because(pause.Reason))
}

// Domain is the queue of a power domain.
func Domain(d api.DomainState) string {
	return fmt.Sprintf("%s: %s, %d on the way, %d waiting", d.Name, Limits(d.DomainLimit), d.InFlight, d.Waiting)
}

// Limits writes what bounds a power domain.
func Limits(d api.DomainLimit) string {
	rate, concurrent := "any rate", "any number at once"
	if d.Rate > 0 {
		rate = fmt.Sprintf("%g a second", d.Rate)
	}
	if d.Concurrent > 0 {
		concurrent = fmt.Sprintf("%d at once", d.Concurrent)
	}
	return rate + ", " + concurrent
}

// Alarm is an alarm with what to do about it.
func Alarm(a api.Alarm) string {
	text := fmt.Sprintf("alarm %s: %s", a.Kind, a.Message)
	if a.Remedy != "" {
		text += ": " + a.Remedy
	}
	return text
}

// Lease is how a node's agent has it that others can reach as well; "" where it needs no lease.
func Lease(l *api.NodeLease) string {
	if l == nil {
		return ""
	}
	text := fmt.Sprintf("epoch %d since %s", l.Epoch, power.At(l.Since))
	if l.From != "" {
		text += ", before it agent " + l.From
	}
	if l.Why != "" {
		text += " (" + l.Why + ")"
	}
	if l.Until.IsZero() {
		return text + "; its agent has no lease now"
	}
	return text + "; until " + power.At(l.Until) + " unless it is renewed"
}

// Protection is who protects a node since when, and why.
func Protection(p *power.Protection) string {
	if p == nil {
		return ""
	}
	return strings.TrimPrefix(p.Text(), "protected ")
}

func nodeWords(e api.Explanation, n api.Node, now time.Time) string {
	agent := "agent " + cmp.Or(e.Agent, n.Agent, "none")
	if text := n.AgentState.Text(now); text != "" {
		agent += " " + text
	}
	words := []string{e.Node, agent}
	if n.Rack != "" && n.Rack != e.Agent {
		words = []string{e.Node, "rack " + n.Rack, agent}
	}
	return strings.Join(append(words, "status "+cmp.Or(string(e.Status), "none")), ", ")
}

// readingWords is the power with its age, and the reach where that is not ok.
func readingWords(e api.Explanation, now time.Time) string {
	r := e.Reading
	text := string(cmp.Or(r.State, power.Unknown))
	if !r.ObservedAt.IsZero() {
		text += ", read " + since(now, r.ObservedAt)
	}
	switch r.Reach {
	case power.ReachOK, "":
		return text
	case power.ReachNever:
		return text + ", never read"
	}
	text += "; now " + string(r.Reach)
	if !r.TriedAt.IsZero() {
		text += ", tried " + since(now, r.TriedAt)
	}
	return text
}

// desiredWords is the desired state with its conditions and where it comes from.
func desiredWords(e api.Explanation) string {
	text := string(e.Desired.Want)
	switch {
	case e.Desired.Want == power.HandsOff && e.Desired.Expected != "":
		text += fmt.Sprintf(", expected %s", e.Desired.Expected)
	case e.Desired.Debounced:
		text += " (after two equal readings)"
	}
	if e.Desired.NoCut {
		text += ", power is never taken away"
	}
	if e.DesiredFrom != "" {
		text += ", from " + e.DesiredFrom
	}
	return text
}

func waitsWords(m api.NodeMonitor, now time.Time) string {
	if m.Waits == "" {
		return ""
	}
	text := "waits: " + string(m.Waits)
	if !m.WaitsUntil.IsZero() {
		text += " until " + until(now, m.WaitsUntil)
	}
	if m.WaitsMessage == m.Fault {
		return text // the next line says it
	}
	return text + because(m.WaitsMessage)
}

func faultWords(m api.NodeMonitor, now time.Time) string {
	text := m.Fault
	switch {
	case text != "" && !m.FaultSince.IsZero():
		text += ", since " + since(now, m.FaultSince)
	case text == "" && m.Failures == 0:
		return ""
	case text == "":
		text = "not yet"
	}
	if m.Failures > 0 && m.Fault == "" { // a fault says it itself
		text += ", " + power.Count(m.Failures, "correction") + " failed in a row"
	}
	if m.Waits == power.ReasonFault && !m.WaitsUntil.IsZero() {
		text += ", next try " + until(now, m.WaitsUntil)
	}
	if m.Faults > 1 {
		text += fmt.Sprintf(", %d faults so far", m.Faults)
	}
	return text
}

func bmcWords(e api.Explanation, n api.Node, now time.Time) string {
	b := e.BMC
	if b == nil {
		return n.BMC
	}
	words := []string{cmp.Or(b.Address, n.BMC, "none known")}
	switch {
	case b.SharedWith != "":
		words = append(words, "that of "+b.SharedWith+" too")
	case b.BreakerOpen != "":
		words = append(words, "left alone: "+b.BreakerOpen)
	case b.Failures == 0 && b.AuthFailures == 0:
		words = append(words, "answers")
	}
	if b.Failures > 0 {
		words = append(words, power.Count(b.Failures, "attempt")+" without an answer")
	}
	if b.AuthFailures > 0 {
		words = append(words, power.Count(b.AuthFailures, "login")+" refused")
	}
	if !b.NextProbe.IsZero() {
		words = append(words, "next probe "+until(now, b.NextProbe))
	}
	return strings.Join(words, ", ")
}
