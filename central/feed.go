package central

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// feed knows which nodes changed, in order, for those who watch: a node that changes again
// moves to the end, so that it holds each node once and a slow reader gets what is new by then.
// It is kept in memory: run tells one process from the next.
type feed struct {
	run  string
	most int // nodes that are remembered

	mu      sync.Mutex
	last    int64            // number of the latest change
	floor   int64            // changes up to it are forgotten
	at      map[string]int64 // the latest change of each node
	changes []nodeChange     // in order, some of them overtaken
	news    chan struct{}    // closed and replaced when something is added

	// What views depend on beside the database, as it was last looked at.
	agents map[string]api.AgentState
	aged   time.Time
}

type nodeChange struct {
	n    int64
	node string
}

// maxFeed is more than the nodes that a central may have.
const maxFeed = 1 << 17

func newFeed() *feed {
	return &feed{run: rand.Text()[:10], most: maxFeed, at: map[string]int64{}, news: make(chan struct{})}
}

// changed adds nodes.
func (f *feed) changed(nodes []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, node := range nodes {
		f.last++
		f.at[node] = f.last
		f.changes = append(f.changes, nodeChange{f.last, node})
	}
	if len(f.changes) > 2*len(f.at)+1000 {
		f.changes = slices.DeleteFunc(f.changes, func(c nodeChange) bool { return f.at[c.node] != c.n })
	}
	if len(f.at) > f.most {
		f.forget(len(f.changes) / 2)
	}
	close(f.news)
	f.news = make(chan struct{})
}

// forget drops the oldest changes: there were names of many nodes that are no more.
func (f *feed) forget(n int) {
	f.floor = f.changes[n-1].n
	for _, c := range f.changes[:n] {
		if f.at[c.node] == c.n {
			delete(f.at, c.node)
		}
	}
	f.changes = slices.Clone(f.changes[n:])
}

// now is the number of the latest change, and what closes when there is another.
func (f *feed) now() (last int64, news <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.news
}

// since lists nodes that changed behind a number, the first ones, with the number up to which
// they are all. known is false where some of them are forgotten.
func (f *feed) since(after int64, most int) (nodes []nodeChange, upTo int64, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if after < f.floor || after > f.last {
		return nil, f.last, false
	}
	i, _ := slices.BinarySearchFunc(f.changes, after+1, func(c nodeChange, n int64) int { return cmp.Compare(c.n, n) })
	for _, c := range f.changes[i:] {
		if len(nodes) == most {
			return nodes, nodes[most-1].n, true
		}
		if f.at[c.node] == c.n {
			nodes = append(nodes, c)
		}
	}
	return nodes, f.last, true
}

// What changes by time alone is looked for this often.
const lookEvery = time.Second

// agedEvery is how often readings that became stale are looked for, which takes a look at every
// node.
const agedEvery = 10 * time.Second

// byTime notes the nodes that are shown otherwise now although nothing was written: their
// agent came or went, or their reading became stale.
func (c *Central) byTime(ctx context.Context) error {
	now := c.cfg.Now()
	var moved []string
	states := map[string]api.AgentState{}
	for _, d := range c.sessions.all() {
		states[d.name] = d.presence(now, c.cfg.Away).State
		if before, known := c.feed.agents[d.name]; known && before != states[d.name] {
			moved = append(moved, d.name)
		}
	}
	cutoff := now.Add(-power.DefaultStale)
	var nodes []string
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		if len(moved) > 0 {
			if nodes, err = tx.NamesOf(moved); err != nil {
				return err
			}
		}
		switch {
		case c.feed.aged.IsZero():
			return nil
		case cutoff.Sub(c.feed.aged).Abs() < agedEvery:
			cutoff = c.feed.aged
			return nil
		}
		aged, err := tx.NamesAged(c.feed.aged, cutoff)
		nodes = append(nodes, aged...)
		return err
	})
	if err != nil {
		return err
	}
	c.feed.agents, c.feed.aged = states, cutoff
	if len(nodes) > 0 {
		c.feed.changed(nodes)
	}
	return nil
}
