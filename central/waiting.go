package central

import (
	"context"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
)

// waiting knows who waits for news of which nodes, so that nobody else is woken by them.
type waiting struct {
	mu sync.Mutex
	by map[string]map[chan struct{}]bool
}

func newWaiting() *waiting { return &waiting{by: map[string]map[chan struct{}]bool{}} }

// wait is one who waits.
type wait struct {
	token chan struct{} // holds a token when there is news; nil: of everything, which changes tells of
	pause time.Duration // before the news is looked at: more of it may come
	leave func()
}

// await has one wait for news of the nodes until it leaves.
func (w *waiting) await(nodes []string) *wait {
	token := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range nodes {
		if w.by[node] == nil {
			w.by[node] = map[chan struct{}]bool{}
		}
		w.by[node][token] = true
	}
	leave := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, node := range nodes {
			if delete(w.by[node], token); len(w.by[node]) == 0 {
				delete(w.by, node)
			}
		}
	}
	return &wait{token: token, pause: time.Duration(len(nodes)) * onePause, leave: leave}
}

// tell wakes those who wait for the nodes.
func (w *waiting) tell(nodes []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range nodes {
		w.wake(node)
	}
}

// read wakes those who wait for the nodes that were read, though nothing is new.
func (w *waiting) read(all []api.NodeReading) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range all {
		w.wake(r.Node)
	}
}

func (w *waiting) wake(node string) {
	for token := range w.by[node] {
		select {
		case token <- struct{}{}:
		default:
		}
	}
}

// touched tells of nodes that changed, or whose operations did.
func (c *Central) touched(nodes []string) {
	c.feed.changed(nodes)
	c.waiting.tell(nodes)
}

// awaitOps has one wait for news of operations, of all where none is named or one is not known.
func (c *Central) awaitOps(ctx context.Context, ids []string) (*wait, error) {
	var nodes []string
	known := 0
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		nodes, known, err = tx.NodesOfOps(ids)
		return err
	})
	if err != nil || len(ids) == 0 || known < len(ids) {
		return &wait{pause: queryPause, leave: func() {}}, err
	}
	w := c.waiting.await(nodes)
	w.pause = time.Duration(len(ids)) * onePause
	return w, nil
}
