package gossip

import (
	"cmp"
	"slices"
	"time"
)

// own is this agent's record and what was published of it. Cluster.mu guards it.
type own struct {
	set    bool // SetNodes was called
	nodes  []NodePower
	names  []string
	digest uint64
	at     time.Time // of the ages in nodes
	since  uint64    // sequence from which on names hold
	epoch  uint64
	seq    uint64

	codes   []byte    // of the cells as published last
	renamed bool      // names are to be published with the next record
	allAt   time.Time // when everything was published last
	paidTo  time.Time // each publication pays for one gap; at most one gap ahead
}

const (
	// pace times the number of members is the gap between two publications that an
	// agent may keep up for ever: 2 s among 100. After some rest two may go at once.
	pace    = 20 * time.Millisecond
	minPace = 200 * time.Millisecond
	// restPace is the same for what is published without a change.
	restPace = 600 * time.Millisecond
	// maxLoudParts and maxLoudNames are how many messages of a record go out as
	// events; of longer ones nothing does, exchanges carry them.
	maxLoudParts = 4
	maxLoudNames = 2
)

// SetNodes publishes the power of all nodes of this agent. It does not block: what
// changes faster than the cluster can be told is coalesced, the newest is valid.
// Nodes with an empty, overlong or unreadable name are left out, as are those beyond 5,000.
func (c *Cluster) SetNodes(nodes []NodePower) {
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b NodePower) int { return cmp.Compare(a.Name, b.Name) })
	nodes = slices.CompactFunc(nodes, func(a, b NodePower) bool { return a.Name == b.Name })
	given := len(nodes)
	nodes = slices.DeleteFunc(nodes, func(n NodePower) bool { return len(n.Name) > maxName || !readable(n.Name) })
	if len(nodes) > maxNodes {
		nodes = nodes[:maxNodes]
	}
	if len(nodes) != given {
		c.log.Warn("nodes are left out of gossip", "given", given, "kept", len(nodes))
	}
	c.mu.Lock()
	c.own.take(nodes, time.Now())
	c.mu.Unlock()
	signal(c.kick)
}

// take makes the nodes the record, to be published.
func (o *own) take(nodes []NodePower, now time.Time) {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	if !o.set || !slices.Equal(names, o.names) {
		o.names, o.digest, o.renamed, o.codes = names, digestOf(names), true, nil
		o.since = o.seq + 1
	}
	o.set, o.nodes, o.at = true, nodes, now
}

// outdo takes a message about this agent itself and says whether it came from
// another run that looks newer; then the epoch is raised above it.
func (o *own) outdo(m message) bool {
	if m.kind != kindPower {
		return false
	}
	newer := m.epoch > o.epoch || m.epoch == o.epoch && (m.seq > o.seq || m.since == o.since && m.digest != o.digest)
	if !newer {
		return false
	}
	o.epoch = m.epoch + 1
	o.since, o.renamed, o.codes = o.seq+1, true, nil
	return true
}

// cells makes the cells of all nodes with their ages at the time now.
func (o *own) cells(now time.Time) []cell {
	cells := make([]cell, len(o.nodes))
	for i, n := range o.nodes {
		if n.Age >= 0 {
			n.Age += now.Sub(o.at)
		}
		cells[i] = seal(n)
	}
	return cells
}

// batch is what to publish.
type batch struct {
	messages []message
	loud     bool // by events; else exchanges carry it
	changed  bool // it says more than ages
}

// plan takes what is due at the time now, and says when to look again.
func (o *own) plan(now time.Time, agent string, rest, gap time.Duration) (batch, time.Time) {
	if !o.set {
		return batch{}, now.Add(rest)
	}
	cells := o.cells(now)
	changed := o.changed(cells)
	due := o.allAt.Add(rest)
	if len(changed) == 0 {
		if now.Before(due) {
			return batch{}, due
		}
		o.allAt = now
		return batch{messages: o.seal(agent, cells, o.parts())}, now.Add(rest)
	}
	if paid := o.paidTo.Add(-gap); now.Before(paid) {
		return batch{}, paid
	}
	o.paidTo = later(o.paidTo, now).Add(gap)
	if len(changed) == partsOf(len(o.nodes)) {
		o.allAt = now
	}
	b := batch{loud: len(changed) <= maxLoudParts, changed: true}
	if o.renamed {
		b.messages, o.renamed = nameMessages(agent, o.names, o.digest), false
		b.loud = b.loud && len(b.messages) <= maxLoudNames
	}
	b.messages = append(b.messages, o.seal(agent, cells, changed)...)
	return b, o.allAt.Add(rest)
}

// seal makes the next record, as far as it lies in the given parts.
func (o *own) seal(agent string, cells []cell, parts []int) []message {
	o.seq++
	o.codes = codesOf(cells)
	messages := make([]message, len(parts))
	for i, p := range parts {
		messages[i] = message{
			kind: kindPower, agent: agent, total: len(cells), digest: o.digest,
			epoch: o.epoch, since: o.since, seq: o.seq, part: p,
			cells: cells[p*partSize : p*partSize+partLen(len(cells), p)],
		}
	}
	return messages
}

// parts lists all parts of the record.
func (o *own) parts() []int {
	all := make([]int, partsOf(len(o.nodes)))
	for i := range all {
		all[i] = i
	}
	return all
}

// changed lists the parts that have a cell of another state, reach or action than
// was published. Ages alone are no change: they grow by themselves.
func (o *own) changed(cells []cell) []int {
	if o.codes == nil {
		return o.parts()
	}
	var changed []int
	for i, c := range cells {
		if c.code != o.codes[i] && !slices.Contains(changed, i/partSize) {
			changed = append(changed, i/partSize)
		}
	}
	return changed
}

func codesOf(cells []cell) []byte {
	codes := make([]byte, len(cells)) // not nil: nil is "nothing published"
	for i, c := range cells {
		codes[i] = c.code
	}
	return codes
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// publish sends what is due until the cluster is closed.
func (c *Cluster) publish() {
	for {
		wait := c.announce(time.Now())
		timer := time.NewTimer(wait)
		select {
		case <-c.ctx.Done():
			timer.Stop()
			return
		case <-c.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// announce publishes what is due and returns how long nothing else will be.
func (c *Cluster) announce(now time.Time) time.Duration {
	n := time.Duration(c.serf.NumNodes())
	rest, gap := max(c.cfg.Announce, n*restPace), max(minPace, n*pace)
	c.mu.Lock()
	b, next := c.own.plan(now, c.cfg.Name, rest, gap)
	for _, m := range b.messages {
		c.table.merge(m, now)
	}
	c.mu.Unlock()
	c.announced.Add(uint64(len(b.messages)))
	if b.changed && !b.loud {
		c.nudge()
	}
	for _, m := range b.messages {
		if !b.loud {
			break
		}
		if err := c.serf.UserEvent(eventName, m.encode(), false); err != nil {
			c.log.Warn("cannot publish the record", "err", err)
		}
	}
	return max(next.Sub(now), 10*time.Millisecond)
}
