package central

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// Two processes may call themselves by one agent's name: a machine was cloned, or a
// second one was set up with the name of the first. The one that has the name keeps it
// for as long as it lives; the other is told who has it, and gets nothing.
//
// A restart looks much like it, and must not wait:
//
//	what says hello                     is let in when the one before
//	the same process                    (at once)
//	the same journal, opened since      has ended, or does not poll again when it is asked to
//	any other                           has ended, or was silent for silentFor
//
// It has ended when it said goodbye. When its connection was closed and it did not come
// again for closedFor it has ended too, as far as can be told.
const (
	silentFor = time.Minute
	closedFor = 10 * time.Second
	// knockWait is how long a process that has the name has for a new poll after its
	// waiting one was answered. It is less than a hello is waited for.
	knockWait = 5 * time.Second
	// twinsLogged is how often the refusal of a second agent is logged.
	twinsLogged = time.Minute
)

// holder is the process that has an agent's name.
type holder struct {
	run     string // "": it said goodbye, or is not known
	journal string
	epoch   uint64
	peer    string
	since   time.Time

	heard  time.Time // the latest request that came from it
	signs  uint64    // requests that came from it
	knocks uint64    // how often its waiting poll was to be answered
	closed bool      // its latest poll was broken off, and nothing came since
}

func holderOf(a store.Agent) holder {
	return holder{run: a.Run, journal: a.JournalID, epoch: a.Epoch, peer: a.Peer, since: a.HelloAt, heard: a.SeenAt}
}

// rival is another process of the same name, which was refused.
type rival struct {
	run    string
	asked  time.Time // when it last did
	signs  uint64    // of the holder, when it first did
	logged time.Time
	alarm  bool
}

// runOf names the process that says hello.
func runOf(in api.Hello) string { return cmp.Or(in.Run, fmt.Sprintf("%s/%d", in.JournalID, in.Epoch)) }

// admits reports whether a process may have the name now. Where it may not but is likely
// a restart, knock says that the holder must be asked for a sign of life: without one
// since signs it is let in.
func (h *holder) admits(in api.Hello, now time.Time, knocked bool, signs uint64) (ok, knock bool) {
	silent := now.Sub(h.heard)
	if silent < 0 {
		silent = 0 // the clock was set back
	}
	switch {
	case h.run == "" || h.run == runOf(in) || silent >= silentFor:
		return true, false
	case in.JournalID == h.journal && in.Epoch > h.epoch: // its lock is held by one process at a time
		ok = h.closed || knocked && h.signs == signs
		return ok, !ok && !knocked
	default:
		return h.closed && silent >= closedFor, false
	}
}

// admit reports, for a hello, whether its process may have the name, waiting for a sign
// of life of the one that has it where it must. It is asked again within the job.
func (c *Central) admit(ctx context.Context, d *agentSession, in api.Hello) (knocked bool, signs uint64) {
	d.mu.Lock()
	ok, knock := d.holder.admits(in, c.cfg.Now(), false, 0)
	signs = d.holder.signs
	first := !ok && (d.rival == nil || d.rival.run != runOf(in) || !d.rival.alarm)
	d.mu.Unlock()
	if knock || first { // for the alarm it must be known that both live
		d.update(func() { d.holder.knocks++ })
	}
	if !knock {
		return false, signs
	}
	timer := time.NewTimer(c.knockWait)
	defer timer.Stop()
	for {
		d.mu.Lock()
		lives, came := d.holder.signs != signs, d.came
		d.mu.Unlock()
		if lives {
			return true, signs
		}
		select {
		case <-came:
		case <-timer.C:
			return true, signs
		case <-ctx.Done():
			return false, signs
		}
	}
}

// signed notes a request that came from the process that has the name. The lock is held.
func (d *agentSession) signed(now time.Time) {
	d.holder.heard, d.holder.closed = now, false
	d.holder.signs++
	close(d.came)
	d.came = make(chan struct{})
}

// refuseTwin notes a process that was refused, raises the alarm once it is certain that
// both live, and words the answer.
func (u *unitOfWork) refuseTwin(d *agentSession, in api.Hello, peer string) (error, error) {
	d.mu.Lock()
	h := d.holder
	if d.rival == nil || d.rival.run != runOf(in) {
		d.rival = &rival{run: runOf(in), signs: h.signs}
	}
	r := d.rival
	r.asked = u.now
	both := h.signs > r.signs
	log := u.now.Sub(r.logged) >= twinsLogged
	if log {
		r.logged = u.now
	}
	r.alarm = r.alarm || both
	d.mu.Unlock()
	which := fmt.Sprintf("journal %s, epoch %d, at %s", h.journal, h.epoch, cmp.Or(h.peer, "an unknown address"))
	if log {
		u.c.log.Error("another agent of this name was refused", "agent", d.name, "holder", which, "since", h.since, "refused", in.JournalID,
			"epoch", in.Epoch, "address", peer)
	}
	refusal := api.Problemf(api.CodeTwoAgents,
		"the name %s is taken: an agent (%s) has it since %s and was heard %s ago. Stop that one (systemctl stop rackpower-agent), or give "+
			"this one another name and an empty data directory; it is let in when the other has been silent for %s",
		d.name, which, h.since.UTC().Format(time.RFC3339), power.Ago(u.now.Sub(h.heard)), silentFor)
	if !both {
		return refusal, nil
	}
	cause := fmt.Sprintf("two agents call themselves %s: one with journal %s at %s, which keeps the name, and one with journal %s at %s, "+
		"which is refused", d.name, h.journal, h.peer, in.JournalID, peer)
	if in.JournalID == h.journal {
		cause = fmt.Sprintf("two agents run as %s with copies of one journal (%s), of a cloned machine or a copied directory: the one at %s "+
			"keeps the name, the one at %s is refused", d.name, h.journal, h.peer, peer)
	}
	return refusal, u.raise(d.name, api.Alarm{
		Kind: api.AlarmTwoAgents, Message: cause, Remedy: "systemctl stop rackpower-agent (on the machine that is not rack " + d.name + "'s)",
	})
}

// endTwins ends the alarms about second agents that were silent for long enough.
func (c *Central) endTwins(ctx context.Context) {
	now := c.cfg.Now()
	for _, d := range c.sessions.all() {
		d.mu.Lock()
		r := d.rival
		over := r != nil && now.Sub(r.asked) >= silentFor
		if over {
			d.rival = nil
		}
		alarm := over && r.alarm
		d.mu.Unlock()
		if !alarm {
			continue
		}
		err := c.write(ctx, now, "central", func(u *unitOfWork) error { return u.clear(d.name, api.AlarmTwoAgents) })
		if err != nil && ctx.Err() == nil {
			c.log.Error("cannot end the alarm about a second agent", "agent", d.name, "err", err)
		}
	}
}

// goodbye ends a session: its process stops, and the next one need not wait.
func (c *Central) goodbye(r *http.Request, in api.Goodbye) (struct{}, error) {
	name := r.PathValue("name")
	err := c.store.Write(r.Context(), func(tx *store.Tx) error {
		if _, err := checkSession(tx, name, in.Session); err != nil {
			return err
		}
		d := c.sessions.of(name)
		tx.OnCommit(func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.holder.run = ""
		})
		return tx.AgentLeft(name)
	})
	return struct{}{}, err
}

// peerOf is where an agent is, as far as its host's name and the connection tell.
func peerOf(r *http.Request, in api.Hello) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || host == "" {
		host = "this machine"
	}
	if name := cut(in.Host); name != "" {
		return fmt.Sprintf("%s (%s)", name, host)
	}
	return host
}
