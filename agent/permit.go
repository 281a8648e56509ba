package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// Nodes are moved to another agent when this one has let go of them, or when a person
// says that it is dead. An agent that was out of touch may have been declared dead, or
// replaced by another process of its name, and does not know. So it asks first (rules 9):
//
//	it starts, or was asleep,    it sends no command before it has synchronised with
//	after more than lease        central, or for rejoinFor
//	it starts sooner than that   likewise, for startFor or until central cannot be reached
//	the link is back after more  likewise, until the first assignment is there
//	than lease
//	central says that another    it sends no command until central takes it back, or a
//	agent has its name           person at the rack acknowledges the alarm
//
// One that runs on while central is away goes on as ever. What a person asks for at the
// rack's own socket is always carried out.
const (
	// lease is how long an agent that central does not hear keeps its name.
	lease     = time.Minute
	rejoinFor = 5 * time.Minute
	startFor  = 5 * time.Second
	// beatEvery is how often it is noted that the process runs.
	beatEvery = 10 * time.Second
)

// permit says whether the agent may send commands of its own accord. The zero value
// permits.
type permit struct {
	mu      lock.Mutex[lock.Permit]
	rival   string    // central's word on another agent of this name; "": there is none
	until   time.Time // nothing is sent before, unless the agent has synchronised
	start   bool      // until is startFor
	beat    time.Time // when the process was last known to run; zero: nobody looks
	contact time.Time // when it last synchronised, this process or one before
	kept    time.Time // contact, as it is in the log
	changed chan struct{}
}

// errNotNow ends what the agent may not do now; it is carried out again when it may.
var errNotNow = errors.New("the agent may not act now")

// begin is called at the start, with when an earlier process last synchronised (zero:
// not known).
func (p *permit) begin(contact, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.contact, p.kept, p.beat = contact, contact, now
	if age := now.Sub(contact); !contact.IsZero() && age > lease {
		p.until = now.Add(rejoinFor)
		return
	}
	p.until, p.start = now.Add(startFor), true
}

// why says why no command may be sent, "" if one may.
func (p *permit) why(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.beat.IsZero() && now.Sub(p.beat) > lease+beatEvery {
		p.until, p.start, p.beat = now.Add(rejoinFor), false, now // it was asleep
	}
	switch {
	case p.rival != "":
		return "another agent of this name has its nodes, as central says"
	case now.Before(p.until):
		return "waiting to hear from central which nodes it still has, until " + p.until.UTC().Format("15:04:05Z")
	}
	return ""
}

// beats notes that the process runs, until ctx ends.
func (p *permit) beats(ctx context.Context) {
	for backoff.Sleep(ctx, beatEvery) == nil {
		p.why(time.Now()) // sees that it did not
		p.mu.Lock()
		p.beat = time.Now()
		p.mu.Unlock()
	}
}

// set changes something and wakes who waits.
func (p *permit) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// synced notes that the newest assignment is in force.
func (p *permit) synced(now time.Time) {
	p.set(func() { p.rival, p.until, p.start, p.contact = "", time.Time{}, false, now })
}

// away notes that central cannot be reached, or is not to be followed: an agent that was
// not out of touch for long goes on.
func (p *permit) away() {
	p.set(func() {
		if p.start {
			p.until, p.start = time.Time{}, false
		}
	})
}

// back notes that central answers again: what it assigns comes within a moment.
func (p *permit) back(now time.Time) {
	p.set(func() {
		if now.Sub(p.contact) > lease && now.After(p.until) {
			p.until, p.start = now.Add(startFor), true
		}
	})
}

func (p *permit) standDown(rival string) { p.set(func() { p.rival = rival }) }

// news returns a channel that closes when something changes, and when to look again at
// the latest.
func (p *permit) news(now time.Time) (<-chan struct{}, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	if left := p.until.Sub(now); left > 0 && p.rival == "" {
		return p.changed, left
	}
	return p.changed, lease
}

const contactKey = "contact"

// contactRecord is when the agent last synchronised with central.
type contactRecord struct {
	At time.Time `json:"at"`
}

// beginPermit looks how long the agent was out of touch. Without a central, nobody else
// can be given its nodes.
func (a *Agent) beginPermit(live []journal.Record) error {
	if a.cfg.Central == nil {
		return nil
	}
	var last contactRecord
	for _, r := range live {
		if r.Kind == kindContact {
			if err := json.Unmarshal(r.Payload, &last); err != nil {
				return fmt.Errorf("cannot read record %d: %w", r.LSN, err)
			}
		}
	}
	a.permit.begin(last.At, time.Now())
	for _, al := range a.alarms.list() {
		if al.Kind == api.AlarmTwoAgents {
			a.permit.standDown(al.Message)
		}
	}
	return nil
}

// inTouch notes that the assignment is the newest one.
func (l *link) inTouch() {
	now := time.Now()
	l.permit.synced(now)
	p := l.permit
	p.mu.Lock()
	due := now.Sub(p.kept) >= lease/2 || now.Before(p.kept)
	if due {
		p.kept = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	if _, err := l.kept.Append(entry(journal.Put, kindContact, contactKey, contactRecord{At: now.UTC()})); err != nil {
		l.logger.Warn("cannot keep when central was last heard", "err", err)
	}
}

// refusedName takes central's word that another agent has the name.
func (l *link) refusedName(err error) {
	l.permit.standDown(err.Error())
	l.alarms.raise(api.Alarm{
		Kind:    api.AlarmTwoAgents,
		Message: fmt.Sprintf("central gives the name %s to another agent: this one sends no command of its own accord", l.name),
		Remedy:  "stop the agent that is not this rack's (rackpower agents at central says where both are)",
	})
}

// awaitPermit waits until commands may be sent.
func (x *execution) awaitPermit(ctx context.Context) error {
	for {
		now := time.Now()
		news, look := x.a.permit.news(now)
		var leased <-chan struct{}
		why := x.a.permit.why(now)
		if why == "" {
			leased = x.a.lease.news()
			if why = x.a.mayNot(x.l.node); why == "" {
				return nil
			}
			look = leasePoll // the node may need no lease any more
		}
		x.l.setPhase(x.t, why)
		timer := time.NewTimer(look)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-news:
		case <-leased:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// permitted returns errNotNow when the operation may send nothing now. What a person
// asked for at the rack's own socket always may, but to a node that another agent may have.
func (x *execution) permitted() error {
	if x.a.mayNot(x.l.node) != "" {
		return errNotNow
	}
	if x.a.permit.why(time.Now()) == "" {
		return nil
	}
	x.l.mu.Lock()
	defer x.l.mu.Unlock()
	local := func(t *task) bool { return t.op.Origin == power.FromLocal }
	if local(x.t) || slices.ContainsFunc(x.t.joiners, local) {
		return nil
	}
	return errNotNow
}

// goodbye tells central that nothing is done any more, so that the next process under
// this name need not wait.
func (l *link) goodbye() {
	l.mu.Lock()
	session, up := l.sessionID, l.up
	l.mu.Unlock()
	if l.central == nil || session == "" || !up {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.central.Goodbye(ctx, l.name, api.Goodbye{Session: session}); err != nil {
		l.logger.Debug("central was not told of the end", "err", err)
	}
}

// hostName names this machine and process, for people.
func hostName() string {
	return fmt.Sprintf("%s, process %d", cmp.Or(machineName(), "unnamed host"), os.Getpid())
}

// machineName is the host name of this machine, "" when it has none.
func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
