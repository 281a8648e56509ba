package store

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Node is a row of nodes.
type Node struct {
	Name, Rack, Agent string
	BMC               string // as power.ParseEndpoint reads it; "" for none
	Password          power.Secret
	// DamagedPassword and DamagedKG are what is stored in place of a password, or of a K_g, that
	// does not open: it stays until it is set anew, and the node is not acted on.
	DamagedPassword, DamagedKG string
	Domain                     string
	Status                     power.Status
	Confirmed                  bool  // the latest change of status was confirmed by a person
	Rev                        int64 // the agent's revision of the row's latest change
	// Hold is the newest hold, or release, that central knows of.
	Hold  power.Hold
	Retry power.Seq // of the latest wish to try again
	power.Reading
	// Monitor is what the agent's monitor said last.
	Monitor api.NodeMonitor
	// Matched is Monitor.Matched, if the agent spoke of what is desired now.
	Matched bool
	// Drifting and BreakerOpen are what the audit log says: the node drifts, its BMC
	// is left alone.
	Drifting, BreakerOpen bool
	// Unsettled means that a report may be news although it says the same as before.
	Unsettled bool
	// WaitsFor names the agents that have to let go of the node, or of its BMC, before
	// its own is told of it; "": none.
	WaitsFor string
	// Protected says who keeps the node's power from being taken away.
	Protected power.Protection
	BMCIdentity
	// Labels are what expressions select by, as @label:KEY.
	Labels noderange.Labels
	Tenure
}

const nodeColumns = `name, rack, agent, bmc, password, domain, status, confirmed, rev,
	hold_want, hold_by, hold_reason, hold_schedule, hold_since, hold_until, hold_seq, hold_heard, hold_confirmed, retry,
	state, reach, observed_at, tried_at, monitor, matched, drifting, breaker_open, unsettled, waits_for, protected, labels, agents, epoch, tenure, ` + bmcColumns

const (
	sqlNode      = `SELECT ` + nodeColumns + ` FROM nodes WHERE name = $1`
	sqlNodes     = `SELECT ` + nodeColumns + ` FROM nodes ORDER BY name`
	sqlNodesOf   = `SELECT ` + nodeColumns + ` FROM nodes WHERE agent = $1 AND rev > $2 AND waits_for = '' ORDER BY name`
	sqlNodesIn   = `SELECT ` + nodeColumns + ` FROM nodes WHERE name IN (SELECT value FROM json_each($1)) ORDER BY name`
	sqlAgentsOf  = `SELECT DISTINCT agent FROM nodes WHERE name IN (SELECT value FROM json_each($1)) ORDER BY agent`
	sqlNodeCount = `SELECT count(*) FROM nodes`
	sqlDelNode   = `DELETE FROM nodes WHERE name = $1`
	sqlEntomb    = `INSERT INTO removed (agent, name, rev, at, confirmed) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (agent, name) DO UPDATE SET rev = excluded.rev, at = excluded.at, confirmed = excluded.confirmed`
	sqlExhume    = `DELETE FROM removed WHERE agent = $1 AND name = $2`
	sqlRemovedOf = `SELECT name, MAX(confirmed) FROM (SELECT name, confirmed FROM removed WHERE agent = $1 AND rev > $2
		UNION ALL SELECT name, 1 FROM nodes WHERE agent = $3 AND rev > $4 AND waits_for <> '') AS gone GROUP BY name ORDER BY name`
	sqlHad     = `SELECT EXISTS (SELECT 1 FROM removed WHERE agent = $1 AND name = $2)`
	sqlRefresh = `UPDATE nodes SET observed_at = $1, tried_at = $2
		WHERE name = $3 AND agent = $4 AND tried_at < $2 AND state = $5 AND reach = $6 AND monitor = $7 AND unsettled = 0
		AND $1 - observed_at < $8`
	sqlObserve = `UPDATE nodes SET state = $1, reach = $2, observed_at = $3, tried_at = $4, monitor = $5, fault = $6, matched = $7, drifting = $8,
		breaker_open = $9, unsettled = $10 WHERE name = $11`
	// A node whose password does not open is reported as one without a BMC.
	sqlTroubled = `SELECT ` + nodeColumns + ` FROM nodes WHERE fault <> '' OR drifting = 1 OR breaker_open = 1 OR bmc_shared <> ''
		OR reach IN ('auth-failed', 'privilege') OR (reach = 'unconfigured' AND bmc <> '')
		OR (hold_want <> '' AND hold_until > 0 AND hold_until <= $1) ORDER BY name`
	sqlNodesAt = `SELECT name FROM nodes WHERE agent IN (SELECT value FROM json_each($1))`
	sqlAged    = `SELECT name FROM nodes WHERE observed_at > $1 AND observed_at <= $2`

	sqlHeldUntil = `SELECT ` + nodeColumns + ` FROM nodes WHERE hold_want <> '' AND hold_until > 0 AND hold_until <= $1 ORDER BY name`
)

// putColumns are what PutNode stores, in the order of its parameters.
var putColumns = []string{
	"name", "rack", "agent", "bmc", "password", "domain", "status", "confirmed", "rev", "hold_want", "hold_by", "hold_reason", "hold_schedule",
	"hold_since", "hold_until", "hold_seq", "hold_heard", "hold_confirmed", "retry", "monitor", "fault", "matched", "drifting", "breaker_open",
	"kg", "bmc_part", "bmc_addr", "bmc_at", "bmc_shared", "credentials", "waits_for", "protected", "labels",
	"agents", "epoch", "tenure",
}

// sqlPutNode leaves the reading of a node that is there as it is.
var sqlPutNode = func() string {
	var set []string
	for _, c := range putColumns[1:] {
		set = append(set, c+" = excluded."+c)
	}
	return fmt.Sprintf("INSERT INTO nodes (%s, unsettled) VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET %s, unsettled = 1",
		strings.Join(putColumns, ", "), parameters(len(putColumns)), strings.Join(set, ", "))
}()

// scanNode reads a row. Passwords are plain in memory and sealed in the database.
func (t *Tx) scanNode(scan func(...any) error) (n Node, err error) {
	var observed, tried, since, until, seq, heard, retry int64
	var monitor, protected, tenure string
	fields := []any{
		&n.Name, &n.Rack, &n.Agent, &n.BMC, (*string)(&n.Password), &n.Domain, &n.Status, &n.Confirmed, &n.Rev,
		&n.Hold.Want, &n.Hold.By, &n.Hold.Reason, &n.Hold.Schedule, &since, &until, &seq, &heard, &n.Hold.Confirmed, &retry,
		&n.State, &n.Reach, &observed, &tried, &monitor, &n.Matched, &n.Drifting, &n.BreakerOpen, &n.Unsettled, &n.WaitsFor, &protected,
		(*string)(&n.Labels), &n.Agents, &n.Epoch, &tenure,
	}
	err = scan(append(fields, n.bmcFields()...)...)
	if err != nil {
		return n, err
	}
	n.Hold.Since, n.Hold.Until, n.Hold.Seq, n.Hold.Heard, n.Retry = timeAt(since), timeAt(until), power.Seq(seq), power.Seq(heard),
		power.Seq(retry)
	n.ObservedAt, n.TriedAt = timeAt(observed), timeAt(tried)
	if n.Monitor, err = monitorOf(monitor); err == nil && protected != "" {
		err = json.Unmarshal([]byte(protected), &n.Protected)
	}
	if err == nil && tenure != "" {
		err = json.Unmarshal([]byte(tenure), &n.Had)
	}
	if err != nil {
		return n, err
	}
	n.DamagedPassword = t.open(&n.Password, sealedPassword, n.Name)
	n.DamagedKG = t.open(&n.KG, sealedKG, n.Name)
	return n, nil
}

// Damaged names what of the node does not open, "" for nothing.
func (n Node) Damaged() string {
	switch {
	case n.DamagedPassword != "" && n.DamagedKG != "":
		return "password and K_g"
	case n.DamagedKG != "":
		return "K_g"
	case n.DamagedPassword != "":
		return "password"
	}
	return ""
}

// matchedOnly is the text of the monitor's report on a node as it should be: nearly
// all nodes, nearly always.
const matchedOnly = `{"matched":true}`

func textOf(m api.NodeMonitor) string {
	switch m {
	case api.NodeMonitor{}:
		return ""
	case api.NodeMonitor{Matched: true}:
		return matchedOnly
	}
	return encode(m)
}

func monitorOf(text string) (m api.NodeMonitor, err error) {
	switch text {
	case "":
		return m, nil
	case matchedOnly:
		return api.NodeMonitor{Matched: true}, nil
	}
	err = json.Unmarshal([]byte(text), &m)
	return m, err
}

func (t *Tx) nodes(query string, args ...any) ([]Node, error) {
	var all []Node
	err := t.each(func(r *sql.Rows) error {
		n, err := t.scanNode(r.Scan)
		all = append(all, n)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read nodes: %w", err)
	}
	return all, nil
}

// Node finds a node; ok is false when there is none of that name.
func (t *Tx) Node(name string) (n Node, ok bool, err error) {
	n, err = t.scanNode(t.row(sqlNode, name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Node{}, false, nil
	}
	if err != nil {
		return Node{}, false, fmt.Errorf("cannot read node %s: %w", name, disk(err))
	}
	return n, true, nil
}

// Nodes returns all nodes by name.
func (t *Tx) Nodes() ([]Node, error) { return t.nodes(sqlNodes) }

// NodesNamed returns those of the names that exist, by name.
func (t *Tx) NodesNamed(names []string) ([]Node, error) {
	return t.nodes(sqlNodesIn, list(names))
}

// AgentsOf returns the agents of the nodes.
func (t *Tx) AgentsOf(names []string) ([]string, error) { return t.names(sqlAgentsOf, list(names)) }

// EachNode calls f for those of the names that exist, by name.
func (t *Tx) EachNode(names []string, f func(Node)) error {
	err := t.each(func(r *sql.Rows) error {
		n, err := t.scanNode(r.Scan)
		f(n)
		return err
	}, sqlNodesIn, list(names))
	if err != nil {
		return fmt.Errorf("cannot read nodes: %w", err)
	}
	return nil
}

// NodesSince returns the agent's nodes that changed after rev; 0: all of them.
func (t *Tx) NodesSince(agent string, rev int64) ([]Node, error) {
	return t.nodes(sqlNodesOf, agent, rev)
}

// RemovedSince returns the names of nodes that ceased to be the agent's after rev, and
// of those among them whose removal a person confirmed. A node that waits until another
// agent lets go of it is not the agent's yet: one that has it from before lets go too.
func (t *Tx) RemovedSince(agent string, rev int64) (names, confirmed []string, err error) {
	err = t.each(func(r *sql.Rows) error {
		var name string
		var said bool
		err := r.Scan(&name, &said)
		names = append(names, name)
		if said {
			confirmed = append(confirmed, name)
		}
		return err
	}, sqlRemovedOf, agent, rev, agent, rev)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read removed nodes: %w", err)
	}
	return names, confirmed, nil
}

// NamesOf returns the nodes of the agents.
func (t *Tx) NamesOf(agents []string) ([]string, error) { return t.names(sqlNodesAt, list(agents)) }

// NamesAged returns the nodes that were observed behind one time and not behind the other.
func (t *Tx) NamesAged(behind, until time.Time) ([]string, error) {
	return t.names(sqlAged, nanos(behind), nanos(until))
}

// CountNodes returns how many nodes there are.
func (t *Tx) CountNodes() (n int, err error) {
	if err := t.row(sqlNodeCount).Scan(&n); err != nil {
		return 0, fmt.Errorf("cannot count nodes: %w", disk(err))
	}
	return n, nil
}

// PutNode adds a node or replaces what people, and central, said of it; its
// reading stays.
func (t *Tx) PutNode(n Node) error {
	t.touched(n.Name)
	_, err := t.exec(sqlPutNode, n.Name, n.Rack, n.Agent, n.BMC, cmp.Or(t.seal(n.Password, sealedPassword, n.Name), n.DamagedPassword),
		n.Domain, string(n.Status), n.Confirmed, n.Rev, string(n.Hold.Want), n.Hold.By, n.Hold.Reason, n.Hold.Schedule,
		nanos(n.Hold.Since), nanos(n.Hold.Until), int64(n.Hold.Seq), int64(n.Hold.Heard), n.Hold.Confirmed, int64(n.Retry),
		textOf(n.Monitor), n.Monitor.Fault, n.Matched, n.Drifting, n.BreakerOpen,
		cmp.Or(t.seal(n.KG, sealedKG, n.Name), n.DamagedKG), n.Part, n.Addr, n.At, n.Shared, n.Credentials, n.WaitsFor,
		protectedText(n.Protected), string(n.Labels), n.Agents, n.Epoch, n.Had.text())
	if err == nil {
		_, err = t.exec(sqlExhume, n.Agent, n.Name)
	}
	if err != nil {
		return fmt.Errorf("cannot save node %s: %w", n.Name, err)
	}
	return nil
}

func protectedText(p power.Protection) string {
	if !p.On() {
		return ""
	}
	return encode(p)
}

// HeldUntil returns the nodes whose hold ended by itself at or before the time.
func (t *Tx) HeldUntil(at time.Time) ([]Node, error) { return t.nodes(sqlHeldUntil, nanos(at)) }

// Troubled returns the nodes that may want a person: in fault, drifting, with a BMC that is
// left alone, refuses the log-in or is another node's too, and those whose hold ends by the
// time.
func (t *Tx) Troubled(by time.Time) ([]Node, error) { return t.nodes(sqlTroubled, nanos(by)) }

// Entomb notes that the agent must forget the node, as of rev, and whether a person
// confirmed that.
func (t *Tx) Entomb(agent, node string, rev int64, at time.Time, confirmed bool) error {
	if _, err := t.exec(sqlEntomb, agent, node, rev, nanos(at), confirmed); err != nil {
		return fmt.Errorf("cannot note removal of node %s: %w", node, err)
	}
	return nil
}

// Had reports whether the node was the agent's until it was moved or removed.
func (t *Tx) Had(agent, node string) (had bool, err error) {
	if err := t.row(sqlHad, agent, node).Scan(&had); err != nil {
		return false, fmt.Errorf("cannot read removed nodes: %w", disk(err))
	}
	return had, nil
}

// DeleteNode removes a node. Its operations and its audit log stay.
func (t *Tx) DeleteNode(name string) error {
	t.touched(name)
	if _, err := t.exec(sqlDelNode, name); err != nil {
		return fmt.Errorf("cannot remove node %s: %w", name, err)
	}
	return nil
}

// Refresh stores when a node of the agent was read, if nothing else is new: the
// same state, reach and report of the monitor as before, at a later time, before the
// reading before it was stale. Otherwise it does nothing, and says so.
func (t *Tx) Refresh(agent string, r api.NodeReading) (done bool, err error) {
	n, err := t.exec(sqlRefresh, nanos(r.ObservedAt), nanos(r.TriedAt), r.Node, agent, string(r.State), string(r.Reach), textOf(r.Monitor),
		int64(power.DefaultStale))
	if err != nil {
		return false, fmt.Errorf("cannot save reading of node %s: %w", r.Node, err)
	}
	return n > 0, nil
}

// Observe stores a node's reading, and what monitor and audit log say of it.
func (t *Tx) Observe(n Node) error {
	t.touched(n.Name)
	_, err := t.exec(sqlObserve, string(n.State), string(n.Reach), nanos(n.ObservedAt), nanos(n.TriedAt), textOf(n.Monitor), n.Monitor.Fault,
		n.Matched, n.Drifting, n.BreakerOpen, n.Unsettled, n.Name)
	if err != nil {
		return fmt.Errorf("cannot save reading of node %s: %w", n.Name, err)
	}
	return nil
}

// encode is JSON of what can be encoded for certain.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain fields, no cycles
	}
	return string(text)
}

// list is a parameter for json_each.
func list(names []string) string {
	if names == nil {
		return "[]"
	}
	return encode(names)
}
