package central

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// identify fills in which BMC a node has. A link-local address is another machine's on
// each network segment, so that it is one with its agent.
func identify(n *store.Node) {
	n.Part, n.At = "", ""
	ep, err := power.ParseEndpoint(n.BMC)
	if err != nil {
		n.Addr = ""
		return // none, or one that an earlier version took and the agent refuses
	}
	n.Part = ep.Part()
	n.At = n.Part
	if addr, err := netip.ParseAddr(n.Addr); err == nil {
		ep = ep.At(addr)
		n.At = ep.Part()
	}
	if ep.LinkLocal() {
		n.At = n.Agent + " " + n.At
		if n.Addr == "" {
			n.Part = n.At
		}
	}
}

// sameBMC reports whether two nodes have, or may have, the same part of one BMC.
func sameBMC(a, b store.Node) bool {
	return a.Name != b.Name && a.Part != "" && b.Part != "" && (power.SamePart(a.Part, b.Part) || power.SamePart(a.At, b.At))
}

// clashes finds the rows of an import that would give a node the BMC of another one,
// of the database or of the import. What they say of other things does not matter.
func (u *unitOfWork) clashes(specs []api.NodeSpec, old map[string]store.Node) (map[string]error, error) {
	next := make(map[string]store.Node, len(specs))
	for _, s := range specs {
		next[s.Name] = merged(old[s.Name], s, false)
	}
	found, first := map[string]error{}, new(power.Parts)
	for _, s := range specs {
		n := next[s.Name]
		if n.Part == "" {
			continue
		}
		if other := first.Take(n.Part, s.Name); other != "" {
			found[s.Name] = errShared(n, other)
			continue
		}
		if n.Part == old[s.Name].Part {
			continue // as it was
		}
		there, err := u.tx.NodesAtBMC(n.Part, n.At, fewNames+2)
		if err != nil {
			return nil, err
		}
		for _, other := range there {
			if changed, ok := next[other.Name]; ok {
				other = changed
			}
			if sameBMC(n, other) {
				found[s.Name] = u.errShared(n, other.Name)
			}
		}
	}
	return found, nil
}

// errShared is errShared of a node of the database. One beyond the scope of who asks is not
// named.
func (u *unitOfWork) errShared(n store.Node, other string) error {
	if scope := u.tx.Asker().Scope; scope != "" && mayTouch(u.tx, other) != nil {
		return fmt.Errorf("its BMC, %s, is that of a node beyond %s: what cuts the power of one would cut the other's", n.BMC, scope)
	}
	return errShared(n, other)
}

func errShared(n store.Node, other string) error {
	return fmt.Errorf("its BMC, %s, is that of node %s: what cuts the power of one would cut the other's. "+
		"If they are parts of one chassis, say which (?target=0x30 of IPMI, /SYSTEM of Redfish); if %s is gone, remove it first (rackpower "+
		"node rm %s)", n.BMC, other, other,
		other)
}

// reshare notes, after the BMC of a node was changed from old to next, who shares one
// with whom, and has the agents of those told for whom that is news.
func (u *unitOfWork) reshare(old, next store.Node) error {
	if old.Part == next.Part && old.At == next.At {
		return nil
	}
	seen, alone := map[string]bool{}, false // alone: next is, as it comes last
	for _, of := range []store.Node{old, next} {
		if of.Part == "" {
			continue
		}
		if of.Shared != "" {
			u.shared[of.Agent] = true // it may be gone
		}
		there, err := u.tx.NodesAtBMC(of.Part, of.At, fewNames+2)
		if err != nil {
			return err
		}
		alone = len(there) == 1 && there[0].Shared == ""
		if alone {
			continue // as nearly always
		}
		for _, n := range there {
			if seen[n.Name] {
				continue
			}
			seen[n.Name] = true
			if err := u.share(n); err != nil {
				return err
			}
		}
	}
	if next.Part == "" || seen[next.Name] || alone {
		return nil
	}
	n, found, err := u.tx.Node(next.Name) // it may be none of the first
	if err != nil || !found {
		return err
	}
	return u.share(n)
}

// fewNames bounds how many nodes are named, and brought up to date at once, of those that
// share a BMC: a name server that is wrong may have all names stand for one address. Of
// more than that, each is known to share, and some of the names may be of before.
const fewNames = 8

// share brings up to date whom a node shares its BMC with.
func (u *unitOfWork) share(n store.Node) error {
	there, err := u.tx.NodesAtBMC(n.Part, n.At, fewNames+2)
	if err != nil {
		return err
	}
	var others []string
	for _, other := range there {
		if sameBMC(n, other) {
			others = append(others, other.Name)
		}
	}
	next := n
	if len(others) > fewNames {
		next.Shared = noderange.Fold(others[:fewNames]) + " and more"
	} else {
		next.Shared = noderange.Fold(others)
	}
	if next.Shared == n.Shared {
		return nil
	}
	u.shared[n.Agent] = true
	if err := u.save(n, next); err != nil {
		return err
	}
	if next.Shared == "" {
		return u.audit("bmc-shared-over", n.Name, "", "has its BMC for itself again, was shared with "+n.Shared)
	}
	return u.audit("bmc-shared", n.Name, string(power.ReasonShared), power.SharedBMC(n.Name, next.Shared))
}

// bmcAlarm raises or ends the alarm of an agent some of whose nodes have a BMC that
// another node has as well.
func (u *unitOfWork) bmcAlarm(agent string) error {
	nodes, err := u.tx.NodesSharing(agent)
	if err != nil || len(nodes) == 0 {
		return errors.Join(err, u.clear(agent, api.AlarmBMCShared))
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	message := power.SharedBMC(nodes[0].Name, nodes[0].Shared) + ". Until then nothing acts on " + brief(names)
	return u.raise(agent, api.Alarm{Kind: api.AlarmBMCShared, Message: message, Remedy: "rackpower explain " + nodes[0].Name})
}

// located takes an agent's report on the address that the name of a node's BMC stands
// for.
func (u *unitOfWork) located(agent string, r api.NodeReading) error {
	if r.Address == "" {
		return nil
	}
	if known, err := u.tx.KnowsAddr(r.Node, r.Address); known || err != nil {
		return err
	}
	n, found, err := u.tx.Node(r.Node)
	if err != nil || !found || n.Agent != agent {
		return err
	}
	addr, err := netip.ParseAddr(r.Address)
	if err != nil {
		u.c.log.Warn("an agent reports an address that is none", "agent", agent, "node", r.Node)
		return nil
	}
	ep, err := power.ParseEndpoint(n.BMC)
	if err != nil || ep.IsAddr() {
		return nil // it was changed meanwhile
	}
	next := n
	next.Addr = addr.Unmap().String()
	identify(&next)
	if next.BMCIdentity == n.BMCIdentity {
		return nil
	}
	if err := u.tx.PutNode(next); err != nil {
		return err
	}
	return u.reshare(n, next)
}

// found takes an agent's report on the protocol that a node's BMC speaks, where its address
// leaves that open: it is the node's address from then on.
func (u *unitOfWork) found(agent string, r api.NodeReading) error {
	if r.Found == nil {
		return nil
	}
	n, found, err := u.tx.Node(r.Node)
	if err != nil || !found || n.Agent != agent {
		return err
	}
	ep, err := power.ParseEndpoint(n.BMC)
	if err != nil || ep.Scheme != power.SchemeAuto {
		return nil // it was noted already, or changed
	}
	is, err := power.ParseEndpoint(r.Found.BMC)
	if err != nil || is.Scheme != power.SchemeIPMI && is.Scheme != power.SchemeRedfish || is.Host != ep.Host {
		return nil // it is of another BMC, which the node had before
	}
	next := n
	ep = ep.As(is.Scheme)
	ep.Port = is.Port
	next.BMC = ep.String()
	identify(&next)
	if err := u.save(n, next); err != nil {
		return err
	}
	if next.Part != n.Part || next.At != n.At {
		if err := errors.Join(u.leaves(n), u.reshare(n, next)); err != nil {
			return err
		}
	}
	return u.audit("bmc-found", n.Name, "", differences(n, next)+": "+strings.ToValidUTF8(r.Found.Why[:min(len(r.Found.Why), 400)], ""))
}

// nameBMCs fills in which BMCs the nodes of a database of before have. Those that share
// one are told of, and left alone until a person settles it.
func (c *Central) nameBMCs() error {
	return c.write(context.Background(), c.cfg.Now(), "central", func(u *unitOfWork) error {
		nodes, err := u.tx.NodesWithoutIdentity()
		if err != nil || len(nodes) == 0 {
			return err
		}
		for i := range nodes {
			identify(&nodes[i])
			if err := u.tx.PutNode(nodes[i]); err != nil {
				return err
			}
		}
		for _, n := range nodes {
			now, found, err := u.tx.Node(n.Name)
			if err == nil && found && now.Part != "" {
				err = u.share(now)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// clearable are the fields of a node that an update may take away.
var clearable = []string{"bmc", "password", "kg", "credentials", "domain", "labels", "status", "agents"}

// readClear checks what an update is to take away.
func readClear(s api.NodeSpec) error {
	for _, field := range s.Clear {
		given := map[string]string{
			"bmc": s.BMC, "password": s.Password, "kg": s.KG, "credentials": s.Credentials, "domain": s.Domain, "status": string(s.Status),
			"labels": "", // what is set then is all
			"agents": strings.Join(s.Agents, ","),
		}
		switch value, known := given[field]; {
		case !known:
			return fmt.Errorf("clear: want some of %v", clearable)
		case value != "":
			return fmt.Errorf("%s is both set and cleared", field)
		}
	}
	return nil
}

// checkBMC checks what a row of an import says of its BMC, and brings it into its usual
// form. No error repeats a secret.
func checkBMC(s *api.NodeSpec) error {
	if s.BMC != "" {
		ep, err := power.ParseEndpoint(s.BMC)
		if err != nil {
			return err
		}
		s.BMC = ep.String()
	}
	_, wrongKG := power.ParseKG(power.Secret(s.KG))
	return errors.Join(power.CheckPassword(power.Secret(s.Password), s.BMC), wrongKG)
}

// clearFields takes away what the row says. Without a BMC there is nothing to log in to.
func clearFields(n *store.Node, fields []string) {
	for _, field := range fields {
		switch field {
		case "bmc":
			n.BMC, n.Password, n.KG, n.DamagedPassword, n.DamagedKG, n.Credentials = "", "", "", "", "", ""
		case "password":
			n.Password, n.DamagedPassword = "", ""
		case "kg":
			n.KG, n.DamagedKG = "", ""
		case "credentials":
			n.Credentials = ""
		case "domain":
			n.Domain = ""
		case "labels":
			n.Labels = ""
		case "status":
			n.Status, n.Confirmed = "", false
		case "agents":
			n.Agents = ""
		}
	}
}
