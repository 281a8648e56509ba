package agent

import (
	"fmt"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// follow has the clock that orders requests follow a sequence that came from elsewhere.
// It reports false, and raises an alarm, for one too far ahead of this machine's clock:
// one of the two clocks is wrong, and what is followed cannot be taken back.
func (a *Agent) follow(seq power.Seq, from string, now time.Time) bool {
	if a.clock.Merge(seq, now) {
		return true
	}
	if !a.alarms.active(api.AlarmSequenceAhead) {
		a.alarms.raise(api.Alarm{
			Kind: api.AlarmSequenceAhead, Message: "the sequence of " + from + " is not followed: " + aheadText(seq, now),
			Remedy: "compare the clocks of both machines (timedatectl)",
		})
	}
	return false
}

// followCentral is follow for central's own clock; the alarm ends when it is right again.
func (a *Agent) followCentral(seq power.Seq) {
	ends := func(al api.Alarm) bool { return al.Kind == api.AlarmSequenceAhead && !al.NeedsAck }
	if a.follow(seq, "central", time.Now()) && slices.ContainsFunc(a.alarms.list(), ends) {
		a.alarms.clear(api.AlarmSequenceAhead)
	}
}

// checkClock says that this machine's clock was set back by more than sequences may be
// ahead, or that an earlier version followed what nobody had drawn: what was drawn since
// the right time does not count any more. A hold set at the rack meanwhile, which central
// would refuse for its sequence, gets a new one.
func (a *Agent) checkClock(now time.Time) {
	aside := a.clock.Aside(now)
	for _, l := range a.allLanes() {
		aside = max(aside, l.seqs.Aside(now))
	}
	if aside != 0 {
		a.alarms.raise(api.Alarm{
			Kind: api.AlarmSequenceAhead, NeedsAck: true,
			Message: fmt.Sprintf("the journal holds a sequence of %s, more than %s ahead of this machine's clock: is the clock right now? Until "+
				"then it does not count, and requests are ordered by the clock",
				aside.Time().UTC().Format(time.RFC3339), power.MaxAhead),
		})
	}
	if err := a.assigned.restamp(&a.clock, now); err != nil {
		a.logger.Error("cannot give holds new sequences", "err", err)
	}
}

// aheadText says what is wrong with a sequence that is too far ahead.
func aheadText(seq power.Seq, now time.Time) string {
	return fmt.Sprintf("it is of %s, %s ahead of this machine's clock (%s), which is more than %s: "+
		"set the clock that is wrong, then ask again",
		seq.Time().UTC().Format(time.RFC3339), power.Ago(seq.Time().Sub(now)), now.UTC().Format(time.RFC3339), power.MaxAhead)
}
