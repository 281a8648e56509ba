package central

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// watcher reads a watch into memory.
type watcher struct {
	mu     sync.Mutex
	events []api.Event
	ended  chan error
	cancel context.CancelFunc
}

var errEnough = errors.New("enough")

// watching starts a watch that ends by itself after most events, 0: not.
func watching(t testing.TB, c *api.Client, in api.Watch, most int) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{ended: make(chan error, 1), cancel: cancel}
	go func() {
		w.ended <- c.Watch(ctx, in, func(ev api.Event) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.events = append(w.events, ev); len(w.events) == most {
				return errEnough
			}
			return nil
		})
	}()
	t.Cleanup(cancel)
	return w
}

func (w *watcher) all() []api.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]api.Event(nil), w.events...)
}

// has reports whether one of the events is as wanted.
func (w *watcher) has(ok func(api.Event) bool) bool {
	for _, ev := range w.all() {
		if ok(ev) {
			return true
		}
	}
	return false
}

func isKind(kind string) func(api.Event) bool {
	return func(ev api.Event) bool { return ev.Kind == kind }
}

func aboutNode(name string, state power.State) func(api.Event) bool {
	return func(ev api.Event) bool {
		return ev.Kind == api.EventNode && ev.Node.Name == name && ev.Node.State == state
	}
}

func reading(s *site, node string, state power.State) api.NodeReading {
	return api.NodeReading{Node: node, Reading: power.Reading{
		State: state, Reach: power.ReachOK, ObservedAt: s.clock(), TriedAt: s.clock(),
	}}
}

// TestAWatchTellsOfEntriesAndNodes: what is asked, what comes of it, and what is read, and
// nothing when it is read again as it was.
func TestAWatchTellsOfEntriesAndNodes(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2")
	r := s.rack("r1")
	r.poll()
	w := watching(t, s.Client, api.Watch{}, 0)
	until(t, "it is ready", func() bool { return w.has(isKind(api.EventReady)) })
	op := r.deliver("n1", power.ActOn)
	r.mustReport(r.running(op))
	until(t, "the phase is told", func() bool {
		return w.has(func(ev api.Event) bool {
			return ev.Node.Name == "n1" && ev.Node.Op != nil && strings.HasPrefix(ev.Node.Op.Phase, api.PhaseRunning)
		})
	})
	r.mustReport(r.ended(op, power.Succeeded))
	s.later(time.Second)
	r.read(reading(s, "n1", power.On))
	until(t, "the reading is told", func() bool { return w.has(aboutNode("n1", power.On)) })
	until(t, "the entry is told", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Entry.What == auditEnded && ev.Entry.Op == op.ID })
	})
	before := len(w.all())
	s.later(time.Second)
	r.read(reading(s, "n1", power.On))
	s.status("READY", "n2")
	until(t, "the status is told", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Node.Name == "n2" && ev.Node.Status == "READY" })
	})
	for _, ev := range w.all()[before:] {
		if ev.Node.Name == "n1" {
			t.Errorf("nothing of n1 is new: %+v", ev)
		}
	}
	if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{"n2"}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the removal is told", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Kind == api.EventRemoved && ev.Gone == "n2" })
	})
	s.c.stopLongPolls()
	if err := <-w.ended; err != nil {
		t.Errorf("central stops: %v", err)
	}
}

// TestWhatIsWatchedIsWhole cuts a watch again and again, while all kinds of things happen: each
// entry comes once and in order, and a copy of the nodes that the events keep is the list.
func TestWhatIsWatchedIsWhole(t *testing.T) {
	for _, expr := range []string{"", "@r1", "@status:READY,n0"} {
		t.Run("nodes "+expr, func(t *testing.T) {
			t.Parallel()
			watchedIsWhole(t, expr)
		})
	}
}

func watchedIsWhole(t *testing.T, expr string) {
	s := newSite(t)
	names := []string{"n0", "n1", "n2", "n3", "n4"}
	s.nodes(names...)
	r := s.rack("r1")
	r.poll()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	begun := make(chan struct{})
	over := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(over)
		<-begun
		for range 60 {
			if err := s.disturb(rnd, r, names); err != nil {
				failed <- err
				return
			}
		}
	}()
	copied := map[string]api.Node{}
	load := func() {
		nodes, err := s.Nodes(t.Context(), expr)
		if err != nil && api.CodeOf(err) != api.CodeNotFound {
			t.Fatal(err)
		}
		clear(copied)
		for _, n := range nodes {
			copied[n.Name] = n
		}
	}
	var entries []int64
	after, finished := "", false
	most := rand.New(rand.NewPCG(seed, 2))
	for round := 0; !finished; round++ {
		w := watching(t, s.Client, api.Watch{Nodes: expr, After: after}, 1+min(round, 1)*most.IntN(9))
		var err error
		select {
		case err = <-w.ended:
		case <-over: // what is left comes at once; then there is nothing to wait for
			last := w.all
			n := -1
			until(t, "nothing more comes", func() bool {
				if now := len(last()); now > n {
					n = now
					time.Sleep(400 * time.Millisecond)
					return false
				}
				return true
			})
			w.cancel()
			err = <-w.ended
			finished = !errors.Is(err, errEnough)
		}
		if err != nil && !errors.Is(err, errEnough) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		for _, ev := range w.all() {
			after = ev.ID
			switch ev.Kind {
			case api.EventReady:
				if round == 0 {
					load()
					close(begun)
				}
			case api.EventAudit:
				entries = append(entries, ev.Entry.ID)
			case api.EventNode:
				copied[ev.Node.Name] = ev.Node
			case api.EventRemoved:
				delete(copied, ev.Gone)
			case api.EventResync:
				load()
			default:
				t.Errorf("event %+v", ev)
			}
		}
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	for i := range entries {
		if i > 0 && entries[i] <= entries[i-1] || expr == "" && i > 0 && entries[i] != entries[i-1]+1 {
			t.Fatalf("entries %v", entries)
		}
	}
	if len(entries) < 5 {
		t.Errorf("only %d entries", len(entries))
	}
	kept := map[string]api.Node{}
	for name, n := range copied {
		kept[name] = n
	}
	load()
	if len(kept) != len(copied) {
		t.Fatalf("copy of %d nodes, there are %d", len(kept), len(copied))
	}
	for name, is := range copied {
		was := kept[name]
		was.ObservedAt, was.TriedAt, is.ObservedAt, is.TriedAt = nil, nil, nil, nil // that it was read again is no event
		was.AgentState, is.AgentState = api.AgentPresence{}, api.AgentPresence{}
		if !reflect.DeepEqual(was, is) {
			t.Errorf("copy %+v\nnode %+v", was, is)
		}
	}
}

// disturb does one thing of many.
func (s *site) disturb(rnd *rand.Rand, r *rack, names []string) error {
	node := names[rnd.IntN(len(names))]
	ctx := context.Background()
	s.later(100 * time.Millisecond) // the agent does not go away meanwhile
	var err error
	switch rnd.IntN(6) {
	case 0, 1:
		state := []power.State{power.On, power.Off}[rnd.IntN(2)]
		_, err = s.Report(ctx, r.name, api.Report{
			Session: r.w.Session, JournalID: r.journal, Epoch: r.epoch, LSN: r.lsn, SentAt: s.clock(),
			Readings: []api.NodeReading{reading(s, node, state)},
		})
	case 2:
		_, err = s.SetStatus(ctx, api.SetStatus{Names: []string{node}, Status: []power.Status{"READY", "BROKEN"}[rnd.IntN(2)], Confirmed: true})
	case 3:
		_, err = s.AskOps(ctx, api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: node, Action: power.ActOn, Reason: "test"}}})
	case 4:
		_, err = s.ProtectNodes(ctx, api.ProtectNodes{Names: []string{node}, Unprotect: rnd.IntN(2) == 0, Reason: "test"})
	case 5: // a node goes to another rack and comes back, or goes and comes back
		rack := []string{"r1", "r2"}[rnd.IntN(2)]
		_, err = s.AddNodes(ctx, api.AddNodes{Nodes: []api.NodeSpec{{Name: node, Rack: rack}}, Update: true, Force: true, Confirmed: true})
	}
	if code := api.CodeOf(err); code == api.CodeNotFound || code == api.CodeBusy || code == api.CodeBadRequest || code == api.CodeRefused {
		err = nil
	}
	return err
}

// TestASlowReaderGetsTheLatest: what changes many times while nobody reads comes once, and
// takes no more room than the nodes.
func TestASlowReaderGetsTheLatest(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3")
	w, err := readWatch(s.c, httptest.NewRequest("GET", "/v1/watch?kinds=node", nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.out.Reset()
	for range 20_000 {
		s.c.feed.changed([]string{"n1", "n2"})
	}
	if n := len(s.c.feed.changes); n > 2000 {
		t.Errorf("%d changes of 3 nodes are kept", n)
	}
	if more, err := w.round(t.Context()); err != nil || more {
		t.Fatal(more, err)
	}
	if n := strings.Count(w.out.String(), "event: node\n"); n != 2 {
		t.Errorf("%d events:\n%s", n, w.out.String())
	}
	s.c.feed.most = 1000
	w.out.Reset()
	for i := range 5000 {
		s.c.feed.changed([]string{fmt.Sprint("gone", i)})
	}
	if len(s.c.feed.at) > 1000 || len(s.c.feed.changes) > 4000 {
		t.Errorf("%d nodes, %d changes", len(s.c.feed.at), len(s.c.feed.changes))
	}
	if _, err := w.round(t.Context()); err != nil || !strings.Contains(w.out.String(), "event: resync\n") {
		t.Errorf("%v:\n%s", err, w.out.String())
	}
}

// TestAWatchThatCannotGoOnSaysSo: after a start of central the nodes are read again and no
// entry is missed; with another database, or when entries were deleted, all is void.
func TestAWatchThatCannotGoOnSaysSo(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	w := watching(t, s.Client, api.Watch{}, 1)
	<-w.ended
	id := w.all()[0].ID
	s.status("READY", "n1")
	s.restart()
	w = watching(t, s.Client, api.Watch{After: id}, 3)
	<-w.ended
	all := w.all()
	if all[0].Kind != api.EventReady || all[1].Kind != api.EventResync || all[2].Kind != api.EventAudit || all[2].Entry.What != "status" {
		t.Errorf("after a start: %+v", all)
	}
	other := newSite(t)
	other.nodes("x")
	w = watching(t, other.Client, api.Watch{After: id}, 2)
	<-w.ended
	if all := w.all(); all[1].Kind != api.EventReset || !strings.Contains(all[1].Why, "another") {
		t.Errorf("another central: %+v", all)
	}
	s.later(time.Hour)
	s.status("BROKEN", "n1")
	s.later(time.Hour)
	s.status("READY", "n1")
	err := s.c.store.Write(t.Context(), func(tx *store.Tx) error {
		_, _, err := tx.Prune(s.clock().Add(-time.Minute), 1000, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w = watching(t, s.Client, api.Watch{After: id}, 2)
	<-w.ended
	if all := w.all(); all[1].Kind != api.EventReset || !strings.Contains(all[1].Why, "deleted") {
		t.Errorf("deleted entries: %+v", all)
	}
	for _, after := range []string{"x", "a.b.c.d", "a.b.-1.2"} {
		wantCode(t, s.Watch(t.Context(), api.Watch{After: after}, nil), api.CodeBadRequest)
	}
	wantCode(t, s.Watch(t.Context(), api.Watch{Nodes: "none"}, nil), api.CodeNotFound)
	wantCode(t, s.Watch(t.Context(), api.Watch{Kinds: []string{"all"}}, nil), api.CodeBadRequest)
}

// TestAWatchKeepsToTheScope: who may see some nodes is told of no other, not even its name, and
// of one that leaves the scope the last time that it does.
func TestAWatchKeepsToTheScope(t *testing.T) {
	r, _ := onTLS(t)
	var specs []api.NodeSpec
	for i, rack := range []string{"r1", "r1", "r2"} {
		specs = append(specs, api.NodeSpec{Name: fmt.Sprint("n", i+1), Rack: rack, BMC: fmt.Sprintf("ipmi://admin@192.0.2.%d", i+1)})
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	bounded := r.as(t, "vera", api.AddUser{Role: "viewer", Nodes: "@r1"})
	wantCode(t, bounded.Watch(t.Context(), api.Watch{Nodes: "n3"}, nil), api.CodeForbidden)
	w, whole := watching(t, bounded, api.Watch{}, 0), watching(t, r.Client, api.Watch{}, 0)
	until(t, "both are ready", func() bool { return w.has(isKind(api.EventReady)) && whole.has(isKind(api.EventReady)) })
	status := func(name string, status power.Status) {
		t.Helper()
		if _, err := r.SetStatus(t.Context(), api.SetStatus{Names: []string{name}, Status: status, Confirmed: true}); err != nil {
			t.Fatal(err)
		}
	}
	status("n3", "READY")
	status("n2", "READY")
	if _, err := r.AddNodes(t.Context(), api.AddNodes{
		Nodes: []api.NodeSpec{{Name: "n2", Rack: "r2"}}, Update: true,
		Force: true,
	}); err != nil {
		t.Fatal(err)
	}
	until(t, "it has left", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Kind == api.EventRemoved && ev.Gone == "n2" })
	})
	left := len(w.all())
	status("n2", "BROKEN")
	status("n1", "READY")
	until(t, "what is in the scope is told", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Node.Name == "n1" && ev.Node.Status == "READY" })
	})
	for i, ev := range w.all() {
		about := ev.Entry.Node + ev.Node.Name + ev.Gone
		if about == "n3" || about == "n2" && i >= left || ev.Kind == api.EventAudit && about == "" {
			t.Errorf("told beyond the scope: %+v", ev)
		}
	}
	until(t, "who may see all is told of all", func() bool {
		return whole.has(func(ev api.Event) bool { return ev.Entry.Node == "n2" && strings.HasPrefix(ev.Entry.Detail, "BROKEN") })
	})
	if _, err := r.RotateToken(t.Context(), "vera", api.RotateToken{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.ended:
	case <-time.After(10 * time.Second):
		t.Error("who lost the token goes on to watch")
	}
}

// TestAWatchCountsAmongThoseThatWait: a user has so many at most.
func TestAWatchCountsAmongThoseThatWait(t *testing.T) {
	r := run(t, Config{TLS: TLSConfig{Listen: "127.0.0.1:0", Names: []string{"127.0.0.1"}, Site: "lab"}, Limits: Limits{Waiting: 1}})
	user := r.as(t, "vera", api.AddUser{Role: "viewer"})
	first := watching(t, user, api.Watch{}, 0)
	until(t, "it is ready", func() bool { return first.has(isKind(api.EventReady)) })
	wantCode(t, user.Watch(t.Context(), api.Watch{}, nil), api.CodeTooMany)
	first.cancel()
	<-first.ended
	until(t, "there is room again", func() bool {
		err := user.Watch(t.Context(), api.Watch{}, func(api.Event) error { return errEnough })
		return errors.Is(err, errEnough)
	})
}

// TestWhatChangesByTimeIsWatched: an agent that is gone, a reading that became old, and the
// one that is fresh again.
func TestWhatChangesByTimeIsWatched(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	r := s.rack("r1")
	r.poll()
	r.read(reading(s, "n1", power.On))
	look := func() {
		t.Helper()
		if err := s.c.byTime(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	w := watching(t, s.Client, api.Watch{Kinds: []string{api.EventNode}}, 0)
	until(t, "it is ready", func() bool { return w.has(isKind(api.EventReady)) })
	s.later(s.c.cfg.Away + time.Second)
	look()
	until(t, "the absence is told", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Node.AgentState.State == api.AgentAway && ev.Node.Stale })
	})
	before := len(w.all())
	s.later(power.DefaultStale)
	r.poll()
	look()
	until(t, "that the agent is back is told, and the reading old", func() bool {
		all := w.all()
		return len(all) > before && all[len(all)-1].Node.AgentState.State == api.AgentAlive && all[len(all)-1].Node.Stale
	})
	r.read(reading(s, "n1", power.On))
	until(t, "the fresh reading is told", func() bool {
		return w.has(func(ev api.Event) bool { return ev.Node.AgentState.State == api.AgentAlive && !ev.Node.Stale })
	})
}
