package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/power"
	"rackpower/power/noderange"
)

const (
	lookUpEvery   = time.Minute     // how old an address may be when a command leaves
	lookUpWithin  = 3 * time.Second // of one name, and of all before a command
	lookUpsAtOnce = 16
	forever       = time.Duration(1<<63 - 1) // an age that nothing has: what was looked up is known
)

// addresses is what the names of the BMCs stand for, and with it which nodes have one
// BMC by two names: nothing acts on those.
type addresses struct {
	lookUp  func(ctx context.Context, host string) ([]netip.Addr, error) // nil: names are not looked up
	changed chan struct{}                                                // a token: the assignment has
	looking chan struct{}                                                // holds one token: its holder looks up

	mu       lock.Mutex[lock.Addresses]
	compared map[string]placed // the nodes as they were when they were compared
	unknown  bool              // one of their names was never looked up
	hosts    map[string]lookedUp
	nodes    map[string]string        // by node: the others that have its BMC
	turns    map[string]chan struct{} // by key of BMC, for those that have one address with others
}

// lookedUp is what a name stood for. A lookup that fails changes nothing but when.
type lookedUp struct {
	addrs []netip.Addr
	tried time.Time
}

func newAddresses(lookUp func(context.Context, string) ([]netip.Addr, error)) *addresses {
	s := &addresses{lookUp: lookUp, changed: make(chan struct{}, 1), looking: make(chan struct{}, 1), hosts: map[string]lookedUp{}}
	s.looking <- struct{}{}
	return s
}

// placed is where a node's BMC is, and whom it has it in common with by central's word.
type placed struct {
	power.Endpoint
	shared string
}

// of is a BMC by the name that it was given, and by the addresses that this stands for.
func (s *addresses) of(ep power.Endpoint) []power.Endpoint {
	all := []power.Endpoint{ep}
	if !ep.IsAddr() {
		for _, addr := range s.hosts[ep.Host].addrs {
			all = append(all, ep.At(addr))
		}
	}
	return all
}

// turn is a lock beside that of a BMC which is another one as well, by
// another name; nil: it is not.
func (s *addresses) turn(key string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns[key]
}

// addr is what is told to central: where the BMC of a node is, "" unless that is a name.
func (s *addresses) addr(ep power.Endpoint) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if addrs := s.hosts[ep.Host].addrs; len(addrs) > 0 {
		return addrs[0].String() // the same one each time, in whatever order they come
	}
	return ""
}

// nodeAt is a node with that BMC, whatever part of it is its own, and by whatever name;
// "" for none.
func (s *addresses) nodeAt(ep power.Endpoint) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]bool{}
	for _, at := range s.of(ep) {
		keys[at.Key()] = true
	}
	found := ""
	for name, p := range s.compared {
		if found != "" && compareNames(found, name) < 0 {
			continue
		}
		if slices.ContainsFunc(s.of(p.Endpoint), func(at power.Endpoint) bool { return keys[at.Key()] }) {
			found = name
		}
	}
	return found
}

func (s *addresses) sharedWith(node string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[node]
}

// look looks a name up that was not for an age, within lookUpWithin, and reports whether
// it stands for something else than before. A lookup that fails changes nothing.
func (s *addresses) look(ctx context.Context, host string, age time.Duration) (changed bool) {
	now := time.Now()
	s.mu.Lock()
	was, known := s.hosts[host]
	s.mu.Unlock()
	if s.lookUp == nil || known && now.Sub(was.tried) < age {
		return false
	}
	within, cancel := context.WithTimeout(ctx, lookUpWithin)
	defer cancel()
	addrs, err := s.lookUp(within, host)
	if ctx.Err() != nil {
		return false
	}
	is := lookedUp{addrs: was.addrs, tried: now}
	if err == nil && len(addrs) > 0 {
		is.addrs = nil
		for _, addr := range addrs {
			is.addrs = append(is.addrs, addr.Unmap())
		}
		slices.SortFunc(is.addrs, netip.Addr.Compare)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[host] = is
	return !slices.Equal(was.addrs, is.addrs)
}

// lookAll looks up the names of all BMCs that were not for an age. Callers beside each
// other wait for the first and find its work done.
func (s *addresses) lookAll(ctx context.Context, age time.Duration) (changed bool) {
	select {
	case <-s.looking:
		defer func() { s.looking <- struct{}{} }()
	case <-ctx.Done():
		return false
	}
	s.mu.Lock()
	hosts := map[string]bool{}
	for _, p := range s.compared {
		if !p.IsAddr() {
			hosts[p.Host] = true
		}
	}
	s.mu.Unlock()
	var all sync.WaitGroup
	var news atomic.Bool
	slots := make(chan struct{}, lookUpsAtOnce)
	for _, h := range slices.Sorted(maps.Keys(hosts)) {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if s.look(ctx, h, age) {
				news.Store(true)
			}
		})
	}
	all.Wait()
	return news.Load()
}

// pending reports whether a name was never looked up.
func (s *addresses) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookUp != nil && s.unknown
}

// compare finds the nodes that have one BMC, whose keys then take turns. It reports
// which nodes that is new for, or over.
func (s *addresses) compare(nodes map[string]placed) (news []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts, keys := map[string][]string{}, map[string][]string{}
	hosts := map[string]lookedUp{}
	s.unknown = false
	for _, name := range slices.SortedFunc(maps.Keys(nodes), compareNames) {
		ep := nodes[name].Endpoint
		was, known := s.hosts[ep.Host]
		if known {
			hosts[ep.Host] = was
		}
		s.unknown = s.unknown || !known && !ep.IsAddr()
		for _, at := range s.of(ep) {
			parts[at.Part()] = append(parts[at.Part()], name)
			keys[at.Key()] = append(keys[at.Key()], ep.Key())
		}
	}
	overlapping(parts)
	before := s.nodes
	s.hosts, s.compared, s.nodes = hosts, nodes, sharers(parts) // names that are gone are forgotten
	for name := range nodes {
		if before[name] != s.nodes[name] {
			news = append(news, name)
		}
	}
	s.turns = takeTurns(keys, s.turns)
	return news
}

// fewNames bounds how many nodes are named of those that share a BMC: a name server that
// is wrong may have all names stand for one address.
const fewNames = 8

// overlapping adds the parts that may be one, with the nodes of both.
func overlapping(parts map[string][]string) {
	for part, names := range maps.Clone(parts) {
		exact, _ := power.Overlap(part)
		for _, other := range exact {
			if len(parts[other]) > 0 {
				parts[part+" "+other] = slices.Concat(names, parts[other])
			}
		}
	}
}

// sharers says of each node that has a part in common with others which these are.
func sharers(parts map[string][]string) map[string]string {
	others, more := map[string][]string{}, map[string]bool{}
	for _, names := range parts {
		if len(names) < 2 {
			continue
		}
		for _, name := range names {
			for _, other := range names {
				if len(others[name]) == fewNames {
					more[name] = true
					break
				}
				if other != name && !slices.Contains(others[name], other) {
					others[name] = append(others[name], other)
				}
			}
		}
	}
	text := map[string]string{}
	for name, list := range others {
		slices.SortFunc(list, compareNames)
		if text[name] = noderange.Fold(list); more[name] {
			text[name] += " and more"
		}
	}
	return text
}

// takeTurns gives each set of keys that have an address in common one turn, the one that
// a key of it had before.
func takeTurns(keys map[string][]string, before map[string]chan struct{}) map[string]chan struct{} {
	turns := map[string]chan struct{}{}
	for _, at := range slices.Sorted(maps.Keys(keys)) {
		if len(keys[at]) < 2 {
			continue
		}
		same := slices.Compact(slices.Sorted(slices.Values(keys[at])))
		if len(same) < 2 {
			continue
		}
		var turn chan struct{}
		for _, from := range []map[string]chan struct{}{turns, before} {
			for _, key := range same {
				if turn == nil {
					turn = from[key]
				}
			}
		}
		if turn == nil {
			turn = make(chan struct{}, 1)
			turn <- struct{}{}
		}
		for _, key := range same {
			if old := turns[key]; old != nil && old != turn { // it ties two sets together
				for k, t := range turns {
					if t == old {
						turns[k] = turn
					}
				}
			}
			turns[key] = turn
		}
	}
	return turns
}

// places are where the BMCs of all nodes are that have one.
func (a *Agent) places() map[string]placed {
	all := map[string]placed{}
	for _, n := range a.assigned.all() {
		if ep, err := a.assigned.endpoint(n.Name); err == nil {
			all[n.Name] = placed{ep, n.SharedWith}
		}
	}
	return all
}

// bmcsChanged takes in an assignment that concerns these nodes. Names that are new are
// looked up beside, and before anything acts by them.
func (a *Agent) bmcsChanged(nodes []string) {
	moved := slices.ContainsFunc(nodes, func(name string) bool {
		var is placed
		if n, ok := a.assigned.get(name); ok {
			is.shared = n.SharedWith
			is.Endpoint, _ = a.assigned.endpoint(name)
		}
		a.addresses.mu.Lock()
		defer a.addresses.mu.Unlock()
		return a.addresses.compared[name] != is
	})
	if moved {
		a.addresses.compare(a.places())
		poke(a.addresses.changed)
	}
}

// locate adds to readings where the BMCs are whose names were looked up.
func (a *Agent) locate(readings []api.NodeReading) {
	for i := range readings {
		if ep, err := a.assigned.endpoint(readings[i].Node); err == nil && !ep.IsAddr() {
			readings[i].Address = a.addresses.addr(ep)
		}
	}
}

// compareBMCs finds out which nodes have one BMC.
func (a *Agent) compareBMCs() {
	if news := a.addresses.compare(a.places()); len(news) > 0 {
		a.poller.readSoon(news)
	}
	a.alarmShared()
}

// lookBeforeActing looks the name of a BMC up before a command leaves for it, and those
// that never were: there may be one among them that stands for the same.
func (a *Agent) lookBeforeActing(ctx context.Context, ep power.Endpoint) {
	if ep.IsAddr() {
		return
	}
	within, cancel := context.WithTimeout(ctx, lookUpWithin)
	defer cancel()
	changed := a.addresses.look(within, ep.Host, lookUpEvery)
	if a.addresses.pending() {
		changed = a.addresses.lookAll(within, forever) || changed
	}
	if changed {
		a.compareBMCs()
	}
}

// alarmShared raises or ends the alarm about nodes that have one BMC, where central has
// not named them itself.
func (a *Agent) alarmShared() {
	var names []string
	for _, n := range a.assigned.all() {
		if n.SharedWith == "" && a.addresses.sharedWith(n.Name) != "" {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		a.alarms.clear(api.AlarmBMCShared)
		return
	}
	first, of := names[0], ""
	if len(names) > fewNames {
		of, names = fmt.Sprintf(" and %d more", len(names)-fewNames), names[:fewNames]
	}
	message := power.SharedBMC(first, a.addresses.sharedWith(first)) + ". Until then nothing acts on " + noderange.Fold(names) + of
	a.alarms.raise(api.Alarm{Kind: api.AlarmBMCShared, Message: message, Remedy: "rackpower explain " + first})
}

// watchAddresses keeps what the names of BMCs stand for up to date until ctx ends.
func (a *Agent) watchAddresses(ctx context.Context) {
	var tick <-chan time.Time
	if a.addresses.lookUp != nil {
		t := time.NewTicker(lookUpEvery)
		defer t.Stop()
		tick = t.C
	}
	for age, first := forever, true; ; first = false {
		if changed := a.addresses.lookAll(ctx, age); !first || changed || a.addresses.pending() {
			a.compareBMCs()
		} else {
			a.alarmShared() // they were compared when the agent was made
		}
		select {
		case <-ctx.Done():
			return
		case <-a.addresses.changed:
			age = forever
		case <-tick:
			age = lookUpEvery / 2
		}
	}
}

// sharedWith names the other nodes that have the BMC of this one, by central's word or
// by what its name stands for; "" for none.
func (a *Agent) sharedWith(node string) string {
	if n, ok := a.assigned.get(node); ok && n.SharedWith != "" {
		return n.SharedWith
	}
	return a.addresses.sharedWith(node)
}

// alone ends an operation on a node that has its BMC in common with another one: what
// cuts the power of one would cut the other's.
func (x *execution) alone() error {
	if others := x.a.sharedWith(x.l.node); others != "" {
		return fail(power.ReasonShared, "%s", power.SharedBMC(x.l.node, others))
	}
	return nil
}
