package gossip

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/serf/serf"
)

// standing is what a member is, and since when in the eyes of this one.
type standing struct {
	status string
	since  time.Time
	member Member // as last heard of; not of hearsay
}

// maxWaiting bounds the changes that wait for a watcher; of a member of which one
// waits already, the newer replaces it.
const maxWaiting = 4096

// watcher holds the changes that one reader did not take yet.
type watcher struct {
	waiting []Member
	came    chan struct{}
	lost    uint64
}

func newWatcher() *watcher { return &watcher{came: make(chan struct{}, 1)} }

// put adds a change. The caller holds Cluster.mu.
func (w *watcher) put(m Member) {
	if len(w.waiting) >= maxWaiting {
		w.waiting = w.waiting[1:]
		w.lost++
	}
	w.waiting = append(w.waiting, m)
	signal(w.came)
}

// Watch calls f with each member as it is now, then with each change in its order,
// until f fails, ctx ends or the cluster is closed, and returns why. f may take its
// time: changes wait meanwhile, the oldest of more than 4,096 are dropped. Of a
// member that Serf forgets (24 h after it failed or left) the status is unknown.
func (c *Cluster) Watch(ctx context.Context, f func(Member) error) error {
	w := newWatcher()
	c.mu.Lock()
	c.watchers[w] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watchers, w)
		c.mu.Unlock()
	}()
	for _, m := range c.Members() {
		if err := f(m); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.ctx.Done():
			return errors.New("gossip has ended")
		case <-w.came:
		}
		for _, m := range c.taken(w) {
			if err := f(m); err != nil {
				return err
			}
		}
	}
}

func (c *Cluster) taken(w *watcher) []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := w.waiting
	w.waiting = nil
	return batch
}

// tell calls OnMember.
func (c *Cluster) tell() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.told.came:
		}
		for _, m := range c.taken(c.told) {
			c.cfg.OnMember(m)
		}
	}
}

// changed notes a member's change. The caller holds mu.
func (c *Cluster) changed(what serf.EventType, m Member, now time.Time) {
	if what == serf.EventMemberReap {
		c.table.forget(m.Name)
		delete(c.standing, m.Name)
		m.Status = StatusUnknown
	} else {
		s := c.standing[m.Name]
		if s.member = m; s.status != m.Status {
			s.status, s.since = m.Status, now
		}
		c.standing[m.Name] = s
	}
	delete(c.hearsay, m.Name)
	m.StatusAge = c.ageOf(m.Name, m.Status, now)
	c.log.Debug("member", "name", m.Name, "status", m.Status, "what", what.String())
	c.tellOf(m)
}

// tellOf gives a change to all who watch. The caller holds mu.
func (c *Cluster) tellOf(m Member) {
	if c.cfg.OnMember != nil {
		c.told.put(m)
	}
	for w := range c.watchers {
		w.put(m)
	}
}

// ageOf is since when a member has a status, 0 when that is not known yet. The
// caller holds mu.
func (c *Cluster) ageOf(name, status string, now time.Time) time.Duration {
	if s := c.standing[name]; s.status == status {
		return max(now.Sub(s.since), 0)
	}
	return 0
}

// heard is an agent of which only hearsay is known: no address, and of its tags the
// role alone.
func (s standing) heard(name string, now time.Time) Member {
	return Member{Name: name, Status: s.status, StatusAge: max(now.Sub(s.since), 0), Tags: map[string]string{"role": RoleAgent}}
}

// Members lists the cluster as seen from here, this member among it, sorted by name.
// Agents that were gone before this member came are among them, without an address,
// once others have told of them.
func (c *Cluster) Members() []Member {
	found := c.serf.Members()
	all := make([]Member, len(found))
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range found {
		all[i] = memberOf(m)
		all[i].StatusAge = c.ageOf(m.Name, all[i].Status, now)
	}
	for name, s := range c.hearsay {
		if !slices.ContainsFunc(found, func(m serf.Member) bool { return m.Name == name }) {
			all = append(all, s.heard(name, now))
		}
	}
	sortMembers(all)
	return all
}

func (c *Cluster) member(name string) (Member, bool) {
	for _, m := range c.Members() {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Peers lists the newest record of each agent that was ever heard of, the own one
// included, sorted by name. Agents that failed or left are among them, with what
// they said last and its age, until Serf forgets them after 24 h. Of an agent that
// was gone before this member came, the status and its age are what the others say.
func (c *Cluster) Peers() []Peer {
	members := map[string]string{}
	for _, m := range c.serf.Members() {
		members[m.Name] = memberOf(m).Status
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.table.peers(now)
	for i := range all {
		p := &all[i]
		if status, ok := members[p.Name]; ok {
			p.Status, p.StatusAge = status, c.ageOf(p.Name, status, now)
		} else if s, ok := c.hearsay[p.Name]; ok {
			p.Status, p.StatusAge = s.status, max(now.Sub(s.since), 0)
		} else {
			p.Status = StatusUnknown
		}
	}
	return all
}
