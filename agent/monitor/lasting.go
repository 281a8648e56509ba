package monitor

import (
	"encoding/json"
	"fmt"
	"time"

	"rackpower/power"
)

// left is what the newest verified operation left a node in, while that has still to last:
// some nodes fall back, seconds or minutes later, and nobody asked for it.
type left struct {
	Left   power.State `json:"left,omitempty"` // "": nothing has to last
	LeftAt time.Time   `json:"left_at,omitzero"`
	// LeftMine says that the operation was the monitor's. LeftOp, LeftAction and LeftBy say
	// which it was and who asked.
	LeftMine   bool         `json:"left_mine,omitempty"`
	LeftOp     string       `json:"left_op,omitempty"`
	LeftAction power.Action `json:"left_action,omitempty"`
	LeftBy     string       `json:"left_by,omitempty"`
	// still is the newest reading that showed it so, gone the first one after it that did
	// not. They are not kept over a restart: only the words for it are less exact then.
	still, gone time.Time
}

// ended takes the end of an operation. One that may have changed the power, or was to lead
// elsewhere, is what counts from here on.
func (l *left) ended(op power.Op, end power.End) {
	final := op.Action.Final()
	switch {
	case final == power.Unknown:
	case l.Left == final && l.LeftAt.Equal(end.At): // it joined the one that counts
	case end.Outcome == power.Succeeded && end.Attempts > 0:
		*l = left{Left: final, LeftAt: end.At, LeftMine: op.Origin == power.FromMonitor, LeftOp: op.ID, LeftAction: op.Action, LeftBy: op.AskedBy}
	case end.Attempts > 0 || end.Outcome == power.Succeeded && final != l.Left:
		*l = left{}
	}
}

// saw takes a reading made while nothing was under way. It returns what became of it, ""
// while it lasts or is not sure yet: a reading soon after the operation may be an old one.
func (l *left) saw(r power.Reading, t Timing) string {
	at := r.ObservedAt
	age := at.Sub(l.LeftAt)
	switch {
	case l.Left == "" || r.State != power.On && r.State != power.Off || age < 0:
		return ""
	case r.State == l.Left:
		l.still, l.gone = at, time.Time{}
		if age >= t.Lasting {
			*l = left{}
		}
		return ""
	case l.gone.IsZero():
		l.gone = at
	}
	if age < t.SecondLook {
		return ""
	}
	was := *l
	*l = left{}
	if was.gone.Sub(was.LeftAt) >= t.Lasting {
		return ""
	}
	return was.words()
}

// words say when the node fell back, as far as the readings tell.
func (l left) words() string {
	other := power.On
	if l.Left == power.On {
		other = power.Off
	}
	when := "within " + atMost(l.gone.Sub(l.LeftAt))
	if from := l.still.Sub(l.LeftAt); !l.still.IsZero() && from >= time.Second {
		when = fmt.Sprintf("between %s and %s", power.Ago(from), atMost(l.gone.Sub(l.LeftAt)))
	}
	return fmt.Sprintf("it went %s again %s after it had been turned %s", other, when, l.Left)
}

// atMost is power.Ago rounded up: the bound of what happened before a reading.
func atMost(d time.Duration) string {
	unit := time.Second
	switch {
	case d >= 2*time.Hour:
		unit = time.Hour
	case d >= 2*time.Minute:
		unit = time.Minute
	}
	return power.Ago((d + unit - 1).Truncate(unit))
}

// looked reports whether what was left had its second look by the time at.
func (l left) looked(at time.Time, t Timing) bool {
	return l.Left == "" || at.Sub(l.LeftAt) >= t.SecondLook
}

// UnmarshalJSON reads records of before, too: some fields had other names, and of what has
// to last power-offs only were kept.
func (m *Memory) UnmarshalJSON(data []byte) error {
	type plain Memory
	rec := struct {
		*plain
		Fell    string    `json:"fell"`
		FellOp  string    `json:"fell_op"`
		FellAt  time.Time `json:"fell_at"`
		OffAt   time.Time `json:"off_at"`
		OffMine bool      `json:"off_mine"`
	}{plain: (*plain)(m)}
	if err := json.Unmarshal(data, &rec); err != nil {
		return err
	}
	if rec.Fell != "" {
		m.Reverted, m.RevertedOp, m.RevertedAt = rec.Fell, rec.FellOp, rec.FellAt
	}
	if m.Left == "" && !rec.OffAt.IsZero() {
		m.left = left{Left: power.Off, LeftAt: rec.OffAt, LeftMine: rec.OffMine, LeftAction: power.ActOff}
	}
	return nil
}
