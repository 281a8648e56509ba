package gossip

import (
	"bytes"
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// table holds the newest record of each agent. Merging is commutative,
// associative and idempotent: members that have the same messages, in any order and
// any number of times, holds the same records. It has no lock and no clock.
type table struct {
	agents map[string]*entry
}

// maxAgents bounds the table against a member gone mad.
const maxAgents = 4096

// keepLists is how many lists of names are kept for an agent: the current one, the
// one before, and some that came ahead of their power messages.
const keepLists = 4

// entry is what is known of one agent. The two newest versions are kept, since the
// names of the newest may be late.
type entry struct {
	newest, before *record
	lists          []*nameList // most recently used last
}

// record is what came of one version. Invariant: parts[i].seq >= version.since.
type record struct {
	version
	total int
	parts map[int]part
}

type part struct {
	seq   uint64
	cells []cell
	bytes []byte    // as encoded: decides between two of one sequence
	mark  uint64    // digest of bytes
	at    time.Time // when the agent sent it, as far as known: never before that
}

// nameList is a list of names under way. Invariant: missing is the number of
// empty names.
type nameList struct {
	digest  uint64
	names   []string
	missing int
}

func newTable() *table { return &table{agents: map[string]*entry{}} }

// effect is what a message did to the table.
type effect int

const (
	noNews  effect = iota // known, or older than what is known
	noRoom                // of one agent more than the table takes
	agesNew               // newer, but only its ages say something new
	news                  // something else is shown now, or can be sooner
)

// merge takes a message that its agent sent at the time at or before. Of two equal
// messages the earlier time is valid.
func (t *table) merge(m message, at time.Time) effect {
	e := t.agents[m.agent]
	if e == nil {
		if len(t.agents) >= maxAgents {
			return noRoom
		}
		e = &entry{}
		t.agents[m.agent] = e
	}
	if m.kind == kindNames {
		if e.list(m.digest, m.total).merge(m) {
			return news
		}
		return noNews
	}
	if r := e.record(m); r != nil {
		return r.merge(m, at)
	}
	return noNews
}

// date takes from another table's brief that a record which both have is older
// than it looks here.
func (t *table) date(b brief, now time.Time) {
	e := t.agents[b.agent]
	if e == nil || e.newest == nil {
		return
	}
	mine := e.brief(b.agent, now)
	if mine.epoch != b.epoch || mine.mark != b.mark || len(mine.seqs) != 1 || mine.held >= b.held {
		return
	}
	if p, ok := e.newest.parts[0]; ok {
		p.at = now.Add(-b.held)
		e.newest.parts[0] = p
	}
}

// expire drops the agents whose records are older than keep and of whom kept does
// not say that they are here.
func (t *table) expire(now time.Time, keep time.Duration, kept func(agent string) bool) {
	for name, e := range t.agents {
		if (e.newest == nil || now.Sub(e.newest.latest()) > keep) && !kept(name) {
			delete(t.agents, name)
		}
	}
}

// forget drops an agent.
func (t *table) forget(agent string) { delete(t.agents, agent) }

// record returns the record that m belongs to, nil when two newer ones are known.
func (e *entry) record(m message) *record {
	v := m.version()
	fresh := func() *record { return &record{version: v, total: m.total, parts: map[int]part{}} }
	switch {
	case e.newest == nil:
		e.newest = fresh()
		return e.newest
	case e.newest.version == v:
		return e.newest
	case e.newest.less(v):
		e.newest, e.before = fresh(), e.newest
		return e.newest
	case e.before != nil && e.before.version == v:
		return e.before
	case e.before == nil || e.before.less(v):
		e.before = fresh()
		return e.before
	default:
		return nil
	}
}

func (r *record) merge(m message, at time.Time) effect {
	if m.total != r.total {
		return noNews // digests of two lists met; the first stays
	}
	old, had := r.parts[m.part]
	if had && m.seq < old.seq {
		return noNews
	}
	p := part{seq: m.seq, cells: m.cells, bytes: m.encode(), at: at}
	if had && m.seq == old.seq {
		switch bytes.Compare(p.bytes, old.bytes) {
		case -1:
			return noNews
		case 0:
			if at.Before(old.at) {
				old.at = at
				r.parts[m.part] = old
			}
			return noNews
		}
	}
	p.mark = markOf(p.bytes)
	r.parts[m.part] = p
	if had && slices.EqualFunc(p.cells, old.cells, func(a, b cell) bool { return a.code == b.code }) {
		return agesNew
	}
	return news
}

func markOf(data []byte) uint64 {
	h := fnv.New64a()
	h.Write(data)
	return h.Sum64()
}

// latest is when the newest part was sent.
func (r *record) latest() time.Time {
	var latest time.Time
	for _, p := range r.parts {
		latest = later(latest, p.at)
	}
	return latest
}

// list returns the list of the digest and makes it the most recently used one.
func (e *entry) list(digest uint64, total int) *nameList {
	i := slices.IndexFunc(e.lists, func(l *nameList) bool { return l.digest == digest && len(l.names) == total })
	if i >= 0 {
		l := e.lists[i]
		e.lists = append(slices.Delete(e.lists, i, i+1), l)
		return l
	}
	l := &nameList{digest: digest, names: make([]string, total), missing: total}
	if len(e.lists) >= keepLists {
		e.lists = slices.Delete(e.lists, 0, 1)
	}
	e.lists = append(e.lists, l)
	return l
}

// merge puts names in. A list that is whole and does not have its digest starts
// again: names are never put to the wrong node's power.
func (l *nameList) merge(m message) bool {
	if l.missing == 0 {
		return false
	}
	news := false
	for i, name := range m.names {
		at := &l.names[m.first+i]
		if *at == "" {
			l.missing--
			news = true
			*at = name
		}
	}
	if l.missing == 0 && digestOf(l.names) != l.digest {
		clear(l.names)
		l.missing = len(l.names)
		return false
	}
	if l.missing == 0 {
		l.pack()
	}
	return news
}

// pack puts all names into one piece of memory.
func (l *nameList) pack() {
	all, at := strings.Join(l.names, ""), 0
	for i, name := range l.names {
		l.names[i] = all[at : at+len(name)]
		at += len(name)
	}
}

// named returns the names of a record, nil while they are not whole.
func (e *entry) named(r *record) []string {
	for _, l := range e.lists {
		if l.digest == r.digest && len(l.names) == r.total && l.missing == 0 {
			return l.names
		}
	}
	if r.total == 0 {
		return []string{}
	}
	return nil
}

// peers shows the table at the time now, sorted by name.
func (t *table) peers(now time.Time) []Peer {
	var all []Peer
	for name, e := range t.agents {
		if e.newest != nil {
			p := e.peer(now)
			p.Name = name
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// peer shows the newest version, or the one before for as long as the names of the
// newest are not here.
func (e *entry) peer(now time.Time) Peer {
	r := e.newest
	names := e.named(r)
	if names == nil && e.before != nil {
		if older := e.named(e.before); older != nil {
			r, names = e.before, older
		}
	}
	p := r.peer(names, now)
	return p
}

func (r *record) peer(names []string, now time.Time) Peer {
	p := Peer{Epoch: r.epoch, Unnamed: r.total}
	for i, part := range r.parts {
		p.Seq = max(p.Seq, part.seq)
		if names == nil {
			continue
		}
		since := max(now.Sub(part.at), 0)
		for j, c := range part.cells {
			n, _ := c.open()
			n.Name = names[i*partSize+j]
			if n.Age >= 0 {
				n.Age += since
			}
			p.Nodes = append(p.Nodes, n)
		}
	}
	p.Age = max(now.Sub(r.latest()), 0)
	p.Unnamed -= len(p.Nodes)
	slices.SortFunc(p.Nodes, func(a, b NodePower) int { return cmp.Compare(a.Name, b.Name) })
	return p
}
