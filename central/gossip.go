package central

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// MemberChanged takes a change of a member of the gossip cluster: an agent that
// failed is known to be gone long before its silence towards central would tell. It
// may be called at any time, in the order of the changes; since is how long ago it was.
func (c *Central) MemberChanged(name, status string, since time.Duration) {
	d := c.sessions.known(name)
	if d == nil {
		return // no agent, or one without a node yet
	}
	if d.member(status, c.cfg.Now().Add(-since)) {
		c.log.Info("gossip", "agent", name, "status", status)
		c.changes.raise(0)
	}
}

// member notes what gossip says of the agent since a time, and reports whether that is news.
func (d *agentSession) member(status string, at time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var gone api.AgentState
	switch state := api.AgentState(status); state {
	case api.AgentFailed, api.AgentLeft:
		gone = state
	}
	if gone == d.gone {
		return false
	}
	d.gone, d.goneAt = gone, at
	return true
}

func (c *Central) listMembers(*http.Request) ([]api.Member, error) {
	if c.gossip == nil {
		return []api.Member{}, nil
	}
	return api.AnswerMembers(c.gossip)
}

// gossipAddress is where an agent gossips, as the cluster has it: it may have begun
// after its hello. "" when it is not known.
func gossipAddress(agent string, members []api.Member) string {
	for _, m := range members {
		if m.Name == agent && m.Addr != "" {
			return net.JoinHostPort(m.Addr, strconv.Itoa(m.Port))
		}
	}
	return ""
}

// listPeers shows of each node what its own agent tells by gossip.
func (c *Central) listPeers(r *http.Request) ([]api.PeerNode, error) {
	owners := map[string]string{}
	var in map[string]bool
	err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		if in, err = within(tx); err != nil {
			return err
		}
		nodes, err := tx.Nodes()
		for _, n := range nodes {
			owners[n.Name] = n.Agent
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	peers, err := api.AnswerPeers(c.gossip, func(node string) string { return owners[node] })
	if in != nil {
		peers = slices.DeleteFunc(peers, func(p api.PeerNode) bool { return !in[p.Node] })
	}
	return peers, err
}

func (c *Central) ping(r *http.Request, in api.Ping) (api.Pong, error) {
	return api.AnswerPing(r.Context(), c.gossip, in)
}

// who asks the agents who can reach a node's BMC, whose address central knows.
func (c *Central) who(r *http.Request) (api.Who, error) {
	name := r.URL.Query().Get("node")
	var node store.Node
	err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		if name != "" {
			if err := mayTouch(tx, name); err != nil {
				return err
			}
		}
		node, _, err = tx.Node(name)
		return err
	})
	if err != nil {
		return api.Who{}, err
	}
	bmc := ""
	if ep, err := power.ParseEndpoint(node.BMC); err == nil {
		bmc = net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port))
		switch {
		case ep.IsRedfish():
			bmc = ep.Key()
		case ep.Scheme == power.SchemeAuto:
			bmc = power.Endpoint{Scheme: ep.Scheme, Host: ep.Host, Pin: ep.Pin}.String()
		case ep.Scheme == power.SchemeExec: // nobody can ask without the password
			bmc = ""
		}
	}
	return api.AnswerWho(r.Context(), c.gossip, name, bmc, node.Agent)
}

func (c *Central) listKeys(r *http.Request) (api.GossipKeys, error) {
	return api.AnswerKeys(r.Context(), c.gossip)
}

// changeKeys changes the gossip keys of all members; the audit log says who did.
func (c *Central) changeKeys(r *http.Request, in api.ChangeKeys) (api.GossipKeys, error) {
	out, err := api.AnswerChangeKeys(r.Context(), c.gossip, in)
	if err != nil {
		return out, err
	}
	e := api.AuditEntry{At: c.cfg.Now(), Who: askedBy(r, ""), What: "gossip-key", Detail: in.Action}
	return out, c.store.Write(r.Context(), func(tx *store.Tx) error { return tx.AddAudit(e) })
}

// enrol hands an agent what it needs to gossip.
func (c *Central) enrol(r *http.Request, _ struct{}) (api.Enrolled, error) {
	name := r.PathValue("name")
	if err := api.CheckName(name); err != nil {
		return api.Enrolled{}, api.Problemf(api.CodeBadRequest, "agent: %v", err)
	}
	if c.gossip == nil {
		return api.Enrolled{}, api.Problemf(api.CodeUnavailable, "central runs without gossip (--gossip)")
	}
	e := api.AuditEntry{At: c.cfg.Now(), Who: "agent " + name, What: "enrol", Detail: "was handed the gossip keys"}
	err := c.store.Write(r.Context(), func(tx *store.Tx) error { return tx.AddAudit(e) })
	return api.Enrolled{Database: c.store.Database(), Keys: c.gossip.Ring(), Join: c.gossip.Addr()}, err
}
