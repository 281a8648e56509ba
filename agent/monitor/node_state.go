package monitor

import (
	"fmt"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// Memory is what the monitor remembers of a node, over restarts too. All of it but
// the counter of faults is about one desire: another one begins again.
type Memory struct {
	Desired power.Desired `json:"desired"`
	Since   time.Time     `json:"since"` // when that became the desire
	// Source names what the desire came from, so that a confirmation which is given
	// later is noticed; for a hold with the status that it was set over.
	Source string `json:"source,omitempty"`
	// Confirmed says that a person agreed to the change that led to the desire. It is
	// used up once the node was seen as desired.
	Confirmed bool `json:"confirmed,omitempty"`
	// Matched is true once the node was seen as desired; Differs is since when it is
	// seen otherwise after that, zero: it is not.
	Matched bool      `json:"matched,omitempty"`
	Differs time.Time `json:"differs,omitzero"`
	// Released says that the fleet brake does not count the node, until it is seen as
	// desired: an administrator released it, or asked for what it differs by.
	Released bool `json:"released,omitempty"`
	// Failures counts corrections that failed in a row, Faults how often that made a
	// fault. In fault the next try is not before NextTry.
	Failures   int       `json:"failures,omitempty"`
	Faults     int       `json:"faults,omitempty"`
	Fault      string    `json:"fault,omitempty"`
	FaultSince time.Time `json:"fault_since,omitzero"`
	NextTry    time.Time `json:"next_try,omitzero"`
	// CutAt is when the monitor last turned the node off without a confirmation: when it
	// asked for that, and then when the operation ended.
	CutAt time.Time `json:"cut_at,omitzero"`
	// left is what the newest verified operation left the node in.
	left
	// Lost counts corrections that did not last, LostAt is when the newest was found. They
	// are forgotten once one has lasted. Earlier are failures from before the node was seen
	// as desired again: should that not last either, they count on.
	Lost    int       `json:"lost,omitempty"`
	LostAt  time.Time `json:"lost_at,omitzero"`
	Earlier int       `json:"earlier,omitempty"`
	// Reverted says what became of the newest operation whose success did not last, RevertedOp
	// which that was.
	Reverted   string    `json:"reverted,omitempty"`
	RevertedOp string    `json:"reverted_op,omitempty"`
	RevertedAt time.Time `json:"reverted_at,omitzero"`
	// LastOn says that it was last read on, under whatever desire.
	LastOn bool `json:"last_on,omitempty"`
	// Retry is the highest AssignedNode.Retry that was followed.
	Retry power.Seq `json:"retry,omitempty"`
}

// want takes what is desired of the node at the time now. It reports whether that is
// news.
func (m *Memory) want(d power.Desired, source string, confirmed bool, now time.Time) bool {
	if m.Since.IsZero() || d != m.Desired {
		*m = Memory{
			Desired: d, Since: now, Source: source, Confirmed: confirmed,
			Faults: m.Faults, CutAt: m.CutAt, left: m.left, LastOn: m.LastOn, Retry: m.Retry, Reverted: m.Reverted, RevertedOp: m.RevertedOp,
			RevertedAt: m.RevertedAt,
		}
		return true
	}
	if source != m.Source {
		m.Source = source
		if confirmed && (!m.Matched || !m.Differs.IsZero()) {
			m.Confirmed = true
		}
	}
	return false
}

// notAfter brings times down that lie ahead of the clock: it was stepped back.
func (m *Memory) notAfter(now time.Time, t Timing) {
	for _, at := range []*time.Time{&m.Since, &m.Differs, &m.CutAt, &m.LeftAt, &m.LostAt} {
		if at.After(now) {
			*at = now
		}
	}
	if latest := now.Add(t.FaultPauseMax); m.NextTry.After(latest) {
		m.NextTry = latest
	}
}

// saw takes a reading. It reports whether the node came back by itself after it had been
// turned off, and is wanted off. While the node is busy a reading proves nothing for good, and nothing
// at all when it is taken elsewhere: a cycle passes through off.
func (m *Memory) saw(r power.Reading, busy, elsewhere bool, t Timing) (cameBack bool) {
	if r.Reach == power.ReachOK && r.State != power.Unknown {
		m.LastOn = r.State == power.On
	}
	want := m.Desired.State()
	if !busy && r.Reach == power.ReachOK {
		cameBack = m.lasts(r, t)
	}
	if elsewhere || r.Reach != power.ReachOK || r.ObservedAt.Before(m.Since) {
		return cameBack
	}
	switch {
	case want == power.Unknown || r.State == power.Unknown:
	case r.State == want:
		m.Matched, m.Confirmed, m.Released, m.Differs = true, false, false, time.Time{}
		if !busy && m.looked(r.ObservedAt, t) {
			m.right(r.ObservedAt, t)
		}
	case m.Matched && m.Differs.IsZero():
		m.Differs = r.ObservedAt
	}
	return cameBack
}

// lasts takes a reading made while nothing was under way: it may show that a success did
// not last. Of a correction that is a failure. It reports whether a node came back that is
// wanted off.
func (m *Memory) lasts(r power.Reading, t Timing) (cameBack bool) {
	was := m.left
	says := m.left.saw(r, t)
	if says == "" {
		return false
	}
	m.Reverted, m.RevertedOp, m.RevertedAt = says, was.LeftOp, r.ObservedAt
	if was.Left != m.Desired.State() || !m.Desired.Enforces() || r.ObservedAt.Before(m.Since) {
		return false
	}
	if was.LeftMine {
		m.Lost++
		m.LostAt = r.ObservedAt
		m.failed(says, r.ObservedAt, t)
	}
	return was.Left == power.Off
}

// right notes that the node was seen as desired and had its second look. Corrections that
// did not last are not forgotten before one has lasted.
func (m *Memory) right(at time.Time, t Timing) {
	was := *m
	m.mended()
	if was.Lost > 0 && (was.Left != "" || at.Sub(was.LostAt) < t.Lasting) {
		m.Lost, m.LostAt, m.Earlier = was.Lost, was.LostAt, was.Failures+was.Earlier
	}
}

// failed counts a correction that came to nothing.
func (m *Memory) failed(why string, now time.Time, t Timing) {
	m.Failures, m.Earlier = m.Failures+m.Earlier+1, 0
	if m.Failures < t.FaultAfter {
		return
	}
	if m.Fault == "" {
		m.Faults++
		m.FaultSince = now
	}
	m.Fault = fmt.Sprintf("%d corrections in a row failed; the last: %s", m.Failures, why)
	if m.Lost == m.Failures {
		m.Fault = fmt.Sprintf("%s, %d times in a row", why, m.Lost)
	}
	pause := t.FaultPause
	for range m.Failures - t.FaultAfter {
		pause = min(pause*2, t.FaultPauseMax)
	}
	m.NextTry = now.Add(pause)
}

// mended forgets failures: the node is as it should be, or somebody wants it tried.
func (m *Memory) mended() {
	m.Failures, m.Fault, m.FaultSince, m.NextTry = 0, "", time.Time{}, time.Time{}
	m.Lost, m.LostAt, m.Earlier = 0, time.Time{}, 0
}

// cuts notes that the monitor asks for a power-off at the time now. One that somebody
// agreed to does not count for the brake, and what counted long ago does not any more.
func (m *Memory) cuts(now time.Time, window time.Duration) {
	switch {
	case !m.Confirmed && !m.Released:
		m.CutAt = now
	case now.Sub(m.CutAt) >= window:
		m.CutAt = time.Time{}
	}
}

// resting reports whether the node is in fault and its next try not due.
func (m Memory) resting(now time.Time) bool { return m.Fault != "" && now.Before(m.NextTry) }

// ended takes the end of an operation on the node.
func (m *Memory) ended(op power.Op, end power.End, started bool, t Timing) {
	mine, final := op.Origin == power.FromMonitor, op.Action.Final()
	m.left.ended(op, end)
	if mine && final == power.Off && end.Attempts > 0 && !m.CutAt.IsZero() {
		m.CutAt = end.At // its last command left a moment ago
	}
	switch end.Outcome {
	case power.Succeeded:
		if expected := m.Desired.Expected; !mine && expected != "" && final != power.Unknown && final != expected {
			m.Released = true
		}
	case power.Failed, power.Indeterminate:
		if mine {
			m.failed(fmt.Sprintf("%s: %s", op.Action, end.Detail), end.At, t)
		}
	case power.Expired:
		if mine && started && end.Attempts > 0 { // else it only waited
			m.failed(fmt.Sprintf("%s: %s", op.Action, end.Detail), end.At, t)
		}
	}
}

// view is what others are told of it.
func (m Memory) view() api.NodeMonitor {
	return api.NodeMonitor{
		Fault: m.Fault, FaultSince: m.FaultSince, Failures: m.Failures, Faults: m.Faults, Matched: m.Matched,
		Reverted: m.Reverted, RevertedOp: m.RevertedOp, RevertedAt: m.RevertedAt, RevertedTimes: m.Lost,
	}
}

// kept is what is kept of it over a restart.
func (m Memory) kept() Memory {
	m.still, m.gone = time.Time{}, time.Time{}
	return m
}

// run is a run of equal readings since the desire changed.
type run struct {
	State       power.State
	First, Last time.Time
}

// saw takes a successful reading of at or after since.
func (r *run) saw(seen power.Reading, since time.Time) {
	switch {
	case seen.Reach != power.ReachOK || seen.ObservedAt.Before(since):
	case seen.State != r.State || r.First.Before(since):
		*r = run{State: seen.State, First: seen.ObservedAt, Last: seen.ObservedAt}
	default:
		r.Last = seen.ObservedAt
	}
}

// lasts is how long the run is.
func (r run) lasts() time.Duration { return r.Last.Sub(r.First) }
