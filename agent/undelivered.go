package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"rackpower/central/api"
)

// news is what one report tells.
type news struct {
	ops      []api.OpReport
	readings []api.NodeReading
	rack     rackWord
}

func (n news) none() bool { return len(n.ops)+len(n.readings) == 0 && n.rack.none() }

// halves splits what a report tells. One item has an empty second half.
func (n news) halves() (first, second news) {
	first, second = n, n
	cut := func(n int) int { return (n + 1) / 2 }
	switch w := n.rack; {
	case len(n.ops) > 0 && (len(n.readings) > 0 || !w.none()):
		first, second.ops = news{ops: n.ops}, nil
	case len(n.ops) > 0:
		first.ops, second.ops = n.ops[:cut(len(n.ops))], n.ops[cut(len(n.ops)):]
	case len(n.readings) > 0 && !w.none():
		first, second.readings = news{readings: n.readings}, nil
	case len(n.readings) > 0:
		first.readings, second.readings = n.readings[:cut(len(n.readings))], n.readings[cut(len(n.readings)):]
	case w.state != nil:
		first.rack, second.rack.state = rackWord{state: w.state}, nil
	case len(w.holds) > 0 && len(w.explained)+len(w.tested) > 0:
		first.rack, second.rack.holds = rackWord{holds: w.holds}, nil
	case len(w.holds) > 0:
		first.rack.holds, second.rack.holds = w.holds[:cut(len(w.holds))], w.holds[cut(len(w.holds)):]
	case len(w.explained) > 0 && len(w.tested) > 0:
		first.rack, second.rack.explained = rackWord{explained: w.explained}, nil
	case len(w.tested) > 0:
		first.rack.tested, second.rack.tested = w.tested[:cut(len(w.tested))], w.tested[cut(len(w.tested)):]
	default:
		first.rack.explained, second.rack.explained = w.explained[:cut(len(w.explained))], w.explained[cut(len(w.explained)):]
	}
	return first, second
}

// what names the one item that is left.
func (n news) what() string {
	switch {
	case len(n.ops) > 0:
		r := n.ops[0]
		text := fmt.Sprintf("%s %s of node %s", r.Op.Action, r.Op.ID, r.Op.Node)
		if r.End != nil {
			return fmt.Sprintf("the end of %s (%s)", text, r.End.Outcome)
		}
		return text
	case len(n.readings) > 0:
		return "the reading of node " + n.readings[0].Node
	case n.rack.state != nil:
		return "the state of the rack"
	case len(n.rack.holds) > 0:
		return "the hold of node " + n.rack.holds[0].Node
	case len(n.rack.tested) > 0:
		return "the test of node " + n.rack.tested[0].Node
	default:
		return "the explanation of node " + n.rack.explained[0].Node
	}
}

// deliver sends news. What central refuses for good would be refused for ever: it is
// halved until the item is found, which is set aside for this session, and the rest is
// sent. Where central takes not even a report of nothing, no item is the cause.
func (l *link) deliver(n news, send func(news) error) error {
	err := send(n)
	if !refusedForGood(err) || n.none() {
		return err
	}
	if bare := send(news{}); bare != nil {
		return bare
	}
	return l.sift(n, send, err)
}

// sift delivers what was refused with the error, in halves.
func (l *link) sift(n news, send func(news) error, refused error) error {
	first, second := n.halves()
	if second.none() {
		if api.CodeOf(refused) != api.CodeBadRequest {
			return refused // a bound that is reached now
		}
		l.setAside(n, refused)
		return nil
	}
	for _, half := range []news{first, second} {
		err := send(half)
		if refusedForGood(err) {
			err = l.sift(half, send, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refusedForGood: central will say the same of the same report. One that is too large
// may do in parts.
func refusedForGood(err error) bool {
	code := api.CodeOf(err)
	return code == api.CodeBadRequest || code == api.CodeQueueFull
}

// undelivered is what central refused in this session, by name.
type undelivered struct {
	mu    sync.Mutex
	items map[string]string
}

// maxUndelivered is how many names are kept. More are counted as one.
const maxUndelivered = 100

// setAside keeps an item from being sent again in this session. Ends stay in the journal,
// and the next session tries once more: another central may take them.
func (l *link) setAside(n news, cause error) {
	what := n.what()
	l.logger.Error("central refuses what is reported; it is set aside until the next session", "what", what, "err", cause)
	for _, r := range n.ops {
		l.outbox.setAside(r)
	}
	u := &l.undelivered
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.items == nil {
		u.items = map[string]string{}
	}
	if len(u.items) < maxUndelivered {
		said := strings.TrimPrefix(cause.Error(), "report: ")
		u.items[what] = strings.ToValidUTF8(said[:min(len(said), api.MaxText/2)], "")
	}
	first := slices.Min(slices.Collect(maps.Keys(u.items)))
	text := fmt.Sprintf("central refuses what the agent reports and does not know of it: %s: %s", first, u.items[first])
	if more := len(u.items) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	l.alarms.raise(api.Alarm{Kind: api.AlarmReportRefused, Message: text, Remedy: "journalctl -u rackpower-agent"})
}

// allDelivered ends the alarm when nothing is aside.
func (l *link) allDelivered() {
	l.undelivered.mu.Lock()
	defer l.undelivered.mu.Unlock()
	if len(l.undelivered.items) == 0 {
		l.alarms.clear(api.AlarmReportRefused)
	}
}

// begin starts a session: all is sent once more.
func (u *undelivered) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.items = nil
}
