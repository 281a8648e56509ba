package main

import (
	"fmt"
	"strings"
	"time"

	"rackpower/power"
)

// clock writes a local time as short as it can be understood: of today without the
// day. The zone is there because what agents and central say themselves is UTC.
func (p printer) clock(t time.Time) string { return p.zoneless(t) + t.Local().Format("Z07:00") }

// zoneless is clock where the zone follows.
func (p printer) zoneless(t time.Time) string {
	t, now := t.Local(), p.now().Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// since writes a time that is over with its age: "14:01:02+02:00 (3 min ago)".
func (p printer) since(t time.Time) string {
	return fmt.Sprintf("%s (%s ago)", p.clock(t), power.Ago(p.now().Sub(t)))
}

// until writes a time to come with how long that is: "14:30:00Z (in 21 s)". One that
// is over is due.
func (p printer) until(t time.Time) string {
	left := t.Sub(p.now())
	if left <= 0 {
		return p.clock(t) + " (due)"
	}
	return fmt.Sprintf("%s (in %s)", p.clock(t), power.Ago(left.Round(time.Second)))
}

// untilOr is until after the word, or what ends it when there is no time.
func (p printer) untilOr(t time.Time, otherwise string) string {
	if t.IsZero() {
		return "until " + otherwise
	}
	return "until " + p.until(t)
}

// after is the time a duration from now, none for 0.
func (p printer) after(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return p.now().Add(d)
}

// shortly writes a duration without parts that are nought: "11h", "1h30m".
func shortly(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
