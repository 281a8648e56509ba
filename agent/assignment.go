package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// assigned is what central assigned to this agent, kept in a log of its own so
// that a restart enforces it at once, central or not. It holds BMC passwords,
// which is why it is not in the journal of operations that people dump.
type assigned struct {
	agent string // its name
	log   appender
	keys  *sealKeys                             // passwords are sealed in the log and plain in memory
	own   func(name string) (power.Login, bool) // credentials that the rack keeps by itself; nil: none

	switched switched
	together int // bytes of nodes that are made durable in one append

	now atomic.Pointer[snapshot] // for readers, which wait for no disk

	// mu is the writers': it is held while the log flushes.
	mu     lock.Mutex[lock.Assigned]
	nodes  map[string]*assignedNode // none is changed: put replaces it
	sorted []string                 // names of nodes; nil: to be made again
	holds  map[string]power.Hold    // set here, by node, until central has them
	sync   syncRecord
	trust  trustRecord
	rack   api.RackSettings
	epoch  int64 // the latest of a lease
	// memories and brake are what the monitor last made durable.
	memories map[string]monitor.Memory
	brake    *api.Brake
}

// snapshot is the assignment as readers see it. It is never changed: each change makes
// another one.
type snapshot struct {
	nodes  map[string]*assignedNode
	sorted []string // names of nodes
	holds  map[string]power.Hold
	// domains are the power domains that nodes are in.
	domains map[string]bool
	sync    syncRecord
	trust   trustRecord
	rack    api.RackSettings
	epoch   int64
	leased  int // nodes that need a lease
}

// publish gives readers what is current; mu is held.
func (s *assigned) publish() {
	if s.sorted == nil {
		s.sorted = slices.SortedFunc(maps.Keys(s.nodes), compareNames)
	}
	leased, domains := 0, map[string]bool{}
	for _, n := range s.nodes {
		if n.Epoch > 0 {
			leased++
		}
		if n.Domain != "" {
			domains[n.Domain] = true
		}
	}
	s.now.Store(&snapshot{
		nodes: maps.Clone(s.nodes), sorted: s.sorted, holds: maps.Clone(s.holds), domains: domains, sync: s.sync, trust: s.trust, rack: s.rack,
		epoch: s.epoch, leased: leased,
	})
}

// assignedNode is a node with the newest hold that is known of it, central's or one
// set at the rack's own socket.
type assignedNode struct {
	api.AssignedNode
	hold power.Hold
	at   located // what BMC says
}

// noNode is a node that is not assigned.
var noNode assignedNode

// located is an address of a BMC that was read, once for all that ask for it.
type located struct {
	power.Endpoint
	err error
}

func newAssignedNode(n api.AssignedNode, hold power.Hold) *assignedNode {
	ep, err := power.ParseEndpoint(n.BMC)
	return &assignedNode{AssignedNode: n, hold: hold, at: located{ep, err}}
}

// desired is what the node's power should be at the time now.
func (n *assignedNode) desired(now time.Time) power.Desired {
	d := power.Effective(n.Status, n.hold, now)
	d.NoCut = d.NoCut || n.Protected.On()
	return d
}

// unheard reports whether central may not have known the hold when it took a request.
func (n *assignedNode) unheard() bool { return n.hold.Over(n.AssignedNode.Hold) }

// from says where that comes from.
func (n *assignedNode) from(now time.Time) string { return power.DesiredFrom(n.Status, n.hold, now) }

// source names that for comparison, and whether a person confirmed the change that
// led to it from the source before. What a hold's end brings about is confirmed by
// the hold, if the status is still that of when it was set.
func (n *assignedNode) source(now time.Time, before string) (name string, confirmed bool) {
	status := "status " + string(n.Status) + " " + strconv.FormatBool(n.Confirmed)
	held := sourceHold + strconv.FormatUint(uint64(n.hold.Seq), 10) + " "
	switch same := strings.HasPrefix(before, held); {
	case n.hold.Active(now) && same:
		return before, n.hold.Confirmed
	case n.hold.Active(now):
		return held + status, n.hold.Confirmed
	case same && before != held+status:
		return status, n.Confirmed
	case strings.HasPrefix(before, sourceHold):
		return status, n.hold.Confirmed
	default:
		return status, n.Confirmed
	}
}

const sourceHold = "hold "

const (
	nodePrefix   = "node/"
	memoryPrefix = "monitor/"
	holdPrefix   = "hold/"
	syncKey      = "sync"
	trustKey     = "trust"
	rackKey      = "rack"
	brakeKey     = "brake"
	epochKey     = "epoch"
)

// loadAssigned reads the records. A node whose password does not open (the key was lost) is
// without BMC until central gives all anew, which it is asked for: sealErr says which.
func loadAssigned(agent string, log appender, keys *sealKeys, live []journal.Record) (s *assigned, sealErr, err error) {
	s = &assigned{
		agent: agent, log: log, keys: keys, together: maxAssigned,
		nodes: make(map[string]*assignedNode, len(live)/2), holds: map[string]power.Hold{},
		memories: make(map[string]monitor.Memory, len(live)/2), // a node has one of each
	}
	for _, r := range live {
		switch r.Kind {
		case kindEpoch:
			err = json.Unmarshal(r.Payload, &s.epoch)
		case kindNode, kindLeased:
			var n api.AssignedNode
			if err = json.Unmarshal(r.Payload, &n); err == nil {
				if shut := openNode(keys.ring, &n); shut != nil {
					n.BMC, n.Password, n.KG, sealErr = "", "", "", shut
				}
			}
			s.nodes[n.Name] = &assignedNode{AssignedNode: n} // read below, when its hold is known
		case kindSync:
			err = json.Unmarshal(r.Payload, &s.sync)
		case kindTrust:
			err = json.Unmarshal(r.Payload, &s.trust)
		case kindMemory:
			var m monitor.Memory
			err = json.Unmarshal(r.Payload, &m)
			s.memories[strings.TrimPrefix(r.Key, memoryPrefix)] = m
		case kindRack:
			err = json.Unmarshal(r.Payload, &s.rack)
		case kindBrake:
			s.brake = new(api.Brake)
			err = json.Unmarshal(r.Payload, (*brakeRecord)(s.brake))
		case kindHold:
			var h power.Hold
			err = json.Unmarshal(r.Payload, &h)
			s.holds[strings.TrimPrefix(r.Key, holdPrefix)] = h
		}
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read assignment record %d: %w", r.LSN, err)
		}
	}
	if sealErr != nil {
		s.sync.Rev = 0
	}
	for name, n := range s.nodes {
		s.put(n.AssignedNode, s.holds[name])
	}
	if s.trust.CentralID == "" { // of an agent that did not keep it by itself
		s.trust.Database = s.sync.Database
	}
	s.publish()
	return s, sealErr, nil
}

// apply makes an assignment durable and current. It returns the names of the
// nodes whose desired state or BMC changed, and of those that are gone.
func (s *assigned) apply(a api.Assignment, db api.Database) (changed, gone []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.publish()
	if s.trust.CentralID == "" {
		s.trust.Database = db
	}
	if s.trust.Database != db {
		return nil, nil, api.Problemf(api.CodeRefused, "the assignment is from central %s, and %s is the one that is trusted now", db.CentralID,
			s.trust.CentralID)
	}
	first := s.sync.Database != db
	keep := map[string]bool{}
	var nodes, entries []journal.Entry
	holds := maps.Clone(s.holds) // local ones that central does not have
	for _, n := range a.Nodes {
		keep[n.Name] = true
		old := s.node(n.Name)
		local, ok := holds[n.Name]
		switch {
		case ok && !local.Over(n.Hold):
			entries = append(entries, entry(journal.Drop, kindHold, holdPrefix+n.Name, nil))
			delete(holds, n.Name)
		case !ok && (first || slices.Contains(s.trust.Kept, n.Name)) && old.hold.Over(n.Hold): // another database had confirmed it
			nodes = append(nodes, entry(journal.Put, kindHold, holdPrefix+n.Name, old.hold)) // before the node, which has what it would be made of
			holds[n.Name] = old.hold
		}
		if !sameNode(old.AssignedNode, n) {
			e, err := s.keys.sealedNode(n)
			if err != nil {
				return nil, nil, fmt.Errorf("cannot keep the assignment: %w", err)
			}
			nodes = append(nodes, e)
			changed = append(changed, n.Name)
		}
	}
	epoch := s.epoch
	for _, n := range a.Nodes {
		epoch = max(epoch, n.Epoch)
	}
	if epoch > s.epoch {
		entries = append(entries, entry(journal.Put, kindEpoch, epochKey, epoch))
	}
	trust, now := s.trust, time.Now().UTC().Round(0)
	goes := s.gone(a, keep)
	confirmed := slices.Clone(a.Confirmed)
	for _, name := range goes {
		if s.nodes[name].Epoch > 0 { // another agent may have it: it is not kept until somebody confirms
			confirmed = append(confirmed, name)
		}
	}
	gone, kept := trust.part(goes, confirmed, first, len(s.nodes), now)
	trust.keep(kept, keep, gone, now)
	trust.MayGo = nil
	for _, name := range gone {
		entries = append(entries, s.dropAll(name)...)
		delete(holds, name)
	}
	if a.Rack != nil && !sameSettings(*a.Rack, s.rack) {
		// Before the nodes, which may be many: a pause holds before what it is about.
		nodes = append([]journal.Entry{entry(journal.Put, kindRack, rackKey, *a.Rack)}, nodes...)
	}
	at := syncRecord{Database: db, Rev: a.Rev}
	if len(nodes)+len(entries) == 0 && at == s.sync && reflect.DeepEqual(trust, s.trust) {
		return nil, nil, nil
	}
	entries = append(entries, entry(journal.Put, kindSync, syncKey, at))
	if !reflect.DeepEqual(trust, s.trust) || first {
		entries = append(entries, entry(journal.Put, kindTrust, trustKey, trust))
	}
	if err := s.appendNodes(nodes, entries); err != nil {
		return nil, nil, fmt.Errorf("cannot keep the assignment: %w", err)
	}
	s.holds, s.trust, s.sync, s.epoch = holds, trust, at, epoch
	s.take(a, gone)
	return changed, gone, nil
}

// take makes current what is durable.
func (s *assigned) take(a api.Assignment, gone []string) {
	for _, n := range a.Nodes {
		s.put(n, s.holds[n.Name])
	}
	s.forget(gone)
	if a.Rack != nil {
		s.rack = *a.Rack
	}
}

// maxAssigned is how many bytes of nodes are made durable together, but in tests.
const maxAssigned = 8 << 20

// appendNodes makes nodes durable, in groups where they are many, and the rest together
// with the last of them: central gives all again that has come without its revision.
func (s *assigned) appendNodes(nodes, rest []journal.Entry) error {
	size, from := 0, 0
	for i, e := range nodes {
		if size += len(e.Key) + len(e.Payload); size > s.together && i > from {
			if _, err := s.log.Append(nodes[from:i]...); err != nil {
				return err
			}
			size, from = len(e.Key)+len(e.Payload), i
		}
	}
	_, err := s.log.Append(append(nodes[from:], rest...)...)
	return err
}

// dropAll takes all that is kept of a node out of the log.
func (s *assigned) dropAll(name string) []journal.Entry {
	entries := []journal.Entry{entry(journal.Drop, kindNode, nodePrefix+name, nil)}
	if _, ok := s.memories[name]; ok {
		entries = append(entries, entry(journal.Drop, kindMemory, memoryPrefix+name, nil))
	}
	if _, ok := s.holds[name]; ok {
		entries = append(entries, entry(journal.Drop, kindHold, holdPrefix+name, nil))
	}
	return entries
}

// sameNode compares what JSON makes of the two: times come with other locations from
// the log than from the net.
func sameNode(a, b api.AssignedNode) bool {
	for _, n := range []*api.AssignedNode{&a, &b} {
		n.Hold.Since, n.Hold.Until = n.Hold.Since.UTC().Round(0), n.Hold.Until.UTC().Round(0)
		n.Protected.Since = n.Protected.Since.UTC().Round(0)
	}
	return a == b
}

func sameSettings(a, b api.RackSettings) bool {
	return bytes.Equal(entry(journal.Put, kindRack, rackKey, a).Payload, entry(journal.Put, kindRack, rackKey, b).Payload)
}

// remember makes durable what the monitor remembers, all or nothing: the memories
// that differ from those it kept before, and the brake. Nodes that are gone are left
// out.
func (s *assigned) remember(memories map[string]monitor.Memory, brake *api.Brake) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []journal.Entry
	for name, m := range memories {
		if _, ok := s.nodes[name]; ok && s.memories[name] != m {
			entries = append(entries, entry(journal.Put, kindMemory, memoryPrefix+name, m))
		}
	}
	switch {
	case monitor.SameBrake(brake, s.brake):
	case brake == nil:
		entries = append(entries, entry(journal.Drop, kindBrake, brakeKey, nil))
	default:
		entries = append(entries, entry(journal.Put, kindBrake, brakeKey, brake))
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := s.log.Append(entries...); err != nil {
		return fmt.Errorf("cannot keep what the monitor remembers: %w", err)
	}
	for name, m := range memories {
		if _, ok := s.nodes[name]; ok {
			s.memories[name] = m
		}
	}
	s.brake = brake
	return nil
}

// setHolds makes holds durable and current that were set at the rack's own socket. One
// that does not stand over what there is by now changes nothing.
func (s *assigned) setHolds(holds map[string]power.Hold) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.publish()
	holds = maps.Clone(holds)
	maps.DeleteFunc(holds, func(name string, h power.Hold) bool { return s.node(name).hold.Over(h) })
	var entries []journal.Entry
	for name, h := range holds {
		entries = append(entries, entry(journal.Put, kindHold, holdPrefix+name, h))
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := s.log.Append(entries...); err != nil {
		return fmt.Errorf("cannot keep the hold: %w", err)
	}
	for name, h := range holds {
		s.holds[name] = h
		if n, ok := s.nodes[name]; ok {
			s.put(n.AssignedNode, h)
		}
	}
	return nil
}

// restamp gives holds that were set here a new sequence where theirs is too far ahead of
// the clock, which was set back since. They stand where they stood.
func (s *assigned) restamp(clock *power.Clock, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.publish()
	holds := map[string]power.Hold{}
	var entries []journal.Entry
	for name, h := range s.holds {
		if h.Seq.Ahead(now) {
			h.Seq = max(clock.Next(now), s.node(name).Hold.Seq+1)
			holds[name] = h
			entries = append(entries, entry(journal.Put, kindHold, holdPrefix+name, h))
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := s.log.Append(entries...); err != nil {
		return fmt.Errorf("cannot keep holds: %w", err)
	}
	for name, h := range holds {
		s.holds[name] = h
		if n, ok := s.nodes[name]; ok {
			s.put(n.AssignedNode, h)
		}
	}
	return nil
}

// unconfirmed lists the holds that were set here and that central has not confirmed.
func (s *assigned) unconfirmed() []api.NodeHold {
	var list []api.NodeHold
	for name, h := range s.now.Load().holds {
		list = append(list, api.NodeHold{Node: name, Hold: h})
	}
	slices.SortFunc(list, func(a, b api.NodeHold) int { return compareNames(a.Node, b.Node) })
	return list
}

// latestEpoch is the latest epoch that the agent was given a node with; 0: never.
func (s *assigned) latestEpoch() int64 { return s.now.Load().epoch }

// anyLeased reports whether the agent has nodes that others can reach as well.
func (s *assigned) anyLeased() bool { return s.now.Load().leased > 0 }

// leasedOf names those of the nodes that need a lease.
func (s *assigned) leasedOf(names []string) (leased []string) {
	now := s.now.Load()
	for _, name := range names {
		if now.nodes[name].Epoch > 0 {
			leased = append(leased, name)
		}
	}
	return leased
}

// settings are those of the rack as a whole.
func (s *assigned) settings() api.RackSettings {
	return s.now.Load().rack
}

// newest is the highest sequence among the holds.
func (s *assigned) newest() power.Seq {
	var seq power.Seq
	for _, n := range s.now.Load().nodes {
		seq = max(seq, n.hold.Seq)
	}
	return seq
}

func (s *assigned) gone(a api.Assignment, keep map[string]bool) []string {
	var gone []string
	for _, name := range a.Removed {
		if _, ok := s.nodes[name]; ok && !keep[name] {
			gone = append(gone, name)
		}
	}
	if a.Full {
		for name := range s.nodes {
			if !keep[name] && !slices.Contains(gone, name) {
				gone = append(gone, name)
			}
		}
	}
	return gone
}

// put makes a node current, under that of central's hold and the local one that is valid.
func (s *assigned) put(n api.AssignedNode, local power.Hold) {
	hold := n.Hold
	if local.Over(hold) {
		hold = local
	}
	if _, known := s.nodes[n.Name]; !known {
		s.sorted = nil
	}
	s.nodes[n.Name] = newAssignedNode(n, hold)
}

// node is the node of that name, noNode where there is none. mu is held.
func (s *assigned) node(name string) *assignedNode { return cmp.Or(s.nodes[name], &noNode) }

// get is the node of that name, which is not to be changed; noNode and false where there is none.
func (s *assigned) get(name string) (*assignedNode, bool) {
	n, ok := s.now.Load().nodes[name]
	return cmp.Or(n, &noNode), ok
}

func (s *assigned) all() []*assignedNode {
	now := s.now.Load()
	list := make([]*assignedNode, len(now.sorted))
	for i, name := range now.sorted {
		list[i] = now.nodes[name]
	}
	return list
}

func (s *assigned) names() []string { return slices.Clone(s.now.Load().sorted) }

// domains are the power domains that nodes are in; they are not to be changed.
func (s *assigned) domains() map[string]bool { return s.now.Load().domains }

func (s *assigned) position() syncRecord {
	return s.now.Load().sync
}

// wants reports whether the monitor would still ask for the operation: it leads to
// the desired state of now, takes no power away where that is forbidden, and the
// monitor does not rest.
func (a *Agent) wants(op power.Op) bool {
	n, ok := a.assigned.get(op.Node)
	if !ok || a.monitor.Rests(time.Now()) {
		return false
	}
	d := n.desired(time.Now())
	return d.Enforces() && d.State() == op.Action.Final() && !(d.NoCut && op.Action.CutsPower())
}

// endpoint is where a node's BMC is, with the credentials of now.
func (s *assigned) endpoint(node string) (power.Endpoint, error) {
	n, ok := s.get(node)
	if !ok {
		return power.Endpoint{}, fail(power.ReasonNoNode, "node %s is not assigned to agent %s any more", node, s.agent)
	}
	if n.BMC == "" {
		return power.Endpoint{}, fail(power.ReasonConfigless, "no BMC is known for node %s", node)
	}
	ep, err := n.at.Endpoint, n.at.err
	if err != nil {
		return power.Endpoint{}, fail(power.ReasonConfigless, "%v", err)
	}
	ep.Password, ep.KG = power.Secret(n.Password), power.Secret(n.KG)
	ep, _, _, err = s.logins(n.AssignedNode, ep)
	return ep, err
}

// ownLogin has the node log in with the rack's own credentials, where it has those that the
// node names. They must come from somewhere.
func (s *assigned) ownLogin(n api.AssignedNode, ep *power.Endpoint) (own bool, err error) {
	if n.Credentials == "" {
		return false, nil
	}
	if s.own != nil {
		if own, found := s.own(n.Credentials); found {
			ep.User, ep.Password, ep.KG = own.User, own.Password, cmp.Or(own.KG, ep.KG)
			return true, nil
		}
	}
	if n.Password != "" {
		return false, nil
	}
	return false, fail(power.ReasonNoCredentials, "node %s names the credentials %s, which neither central nor the file of agent %s has "+
		"(rackpower credentials set; rackpower agent --credentials-file)", n.Name, n.Credentials, s.agent)
}

// lacks names the credentials that the node lacks; "" where it lacks none.
func (s *assigned) lacks(node string) string {
	var none endError
	if _, err := s.endpoint(node); errors.As(err, &none) && none.end.Reason == power.ReasonNoCredentials {
		n, _ := s.get(node)
		return n.Credentials
	}
	return ""
}
