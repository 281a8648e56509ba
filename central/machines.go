package central

import (
	"context"
	"os"
	"strings"

	"rackpower/central/store"
	"rackpower/power"
)

// A node that is the machine which central or its own agent runs on is protected: turning
// it off would end what turns it on again. Machines are known by their host names, and a
// node is taken for one when it has that name, with or without the domain. It is protected
// when that becomes known, once: who unprotects it is not overruled.

// isMachine reports whether a node of that name is taken for the machine.
func isMachine(node, host string) bool {
	short, _, _ := strings.Cut(host, ".")
	return host != "" && (strings.EqualFold(node, host) || strings.EqualFold(node, short))
}

// protectOwn notes the machine of central.
func (c *Central) protectOwn() error {
	host := c.cfg.Machine
	if host == "" {
		host, _ = os.Hostname() // without a name nothing is protected
	}
	return c.write(context.Background(), c.cfg.Now(), "central", func(u *unitOfWork) error { return u.runsOn("", host) })
}

// runsOn notes the machine of an agent, or of central with agent "", and protects its node.
// An agent says so of its own nodes only.
func (u *unitOfWork) runsOn(agent, host string) error {
	was, err := u.tx.Machine(agent)
	if err != nil || host == "" || was == host {
		return err
	}
	if err := u.tx.SaveMachine(agent, host); err != nil {
		return err
	}
	short, _, _ := strings.Cut(host, ".")
	for _, name := range []string{host, short} {
		n, found, err := u.tx.Node(strings.ToLower(name))
		if err == nil && !found {
			n, found, err = u.tx.Node(name)
		}
		if err != nil {
			return err
		}
		if !found || n.Protected.On() || agent != "" && n.Agent != agent {
			continue
		}
		next := n
		next.Protected = u.machineProtection(agent)
		if err := u.save(n, next); err != nil {
			return err
		}
		u.c.log.Info("a node is protected, since it is the machine of a daemon", "node", n.Name, "reason", next.Protected.Reason)
		return u.audit("protect", n.Name, next.Protected.Reason, "nothing takes its power away")
	}
	return nil
}

func (u *unitOfWork) machineProtection(agent string) power.Protection {
	reason := "central runs on it"
	if agent != "" {
		reason = "agent " + agent + " runs on it"
	}
	return power.Protection{By: "central", Reason: reason, Since: u.now.UTC()}
}

// machine is the host name of an agent's machine, or of central's with agent ""; "": not known.
func (u *unitOfWork) machine(agent string) (host string, err error) {
	host, known := u.machines[agent]
	if !known {
		if host, err = u.tx.Machine(agent); err == nil {
			u.machines[agent] = host
		}
	}
	return host, err
}

// protectNew protects a node that is being added if it is the machine of central or of its
// agent.
func (u *unitOfWork) protectNew(n *store.Node) (note string, err error) {
	for _, agent := range []string{"", n.Agent} {
		host, err := u.machine(agent)
		if err != nil {
			return "", err
		}
		if !n.Protected.On() && isMachine(n.Name, host) {
			n.Protected = u.machineProtection(agent)
			return n.Name + " is protected: " + n.Protected.Reason + " (rackpower node unprotect " + n.Name + " --reason TEXT)", nil
		}
	}
	return "", nil
}
