package central

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// forgetAgent ends what was with an agent that is gone for good, or was never there, and
// lets its nodes go: they stay known and are assigned to nobody. An agent that comes back
// all the same is told that it has none of them.
func (c *Central) forgetAgent(r *http.Request, in api.ForgetAgent) (api.ForgottenAgent, error) {
	name, who, now := r.PathValue("name"), askedBy(r, in.AskedBy), c.cfg.Now()
	var out api.ForgottenAgent
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		out = api.ForgottenAgent{Name: name}
		a, found, err := u.tx.Agent(name)
		switch {
		case err != nil:
			return err
		case !found || name == "":
			return api.Problemf(api.CodeNotFound, "no such agent: %s", name)
		case !c.sessions.of(name).presence(now, c.cfg.Away).Absent():
			return api.Problemf(api.CodeRefused, "agent %s is alive: stop it on its machine first (systemctl disable --now rackpower)", name)
		}
		if out.Nodes, out.Given, err = u.free(name, in.Reason); err != nil {
			return err
		}
		if out.Ended, err = u.endForgotten(name, in.Reason, out.Given); err != nil {
			return err
		}
		a.Session = "" // what it still says counts only after another hello
		if err := errors.Join(u.tx.SaveAgent(a), u.tx.ForgetAgent(name)); err != nil {
			return err
		}
		detail := fmt.Sprintf("%s ended, %s freed", power.Count(out.Ended, "operation"), power.Count(len(out.Nodes), "node"))
		if len(out.Given) > 0 {
			detail += fmt.Sprintf(", %d given to others", len(out.Given))
		}
		if err := u.audit("agent-forget", "", in.Reason, "agent "+name+": "+detail); err != nil {
			return err
		}
		u.tx.OnCommit(func() { c.sessions.forget(name) })
		if err := u.forceAgent(name); err != nil {
			return err
		}
		return nil
	})
	return out, err
}

// endForgotten ends what is outstanding with an agent that is forgotten. What never left
// central cannot have happened; of the rest nobody knows. What is outstanding on nodes that were
// given to others goes with them.
func (u *unitOfWork) endForgotten(agent, why string, given []string) (int, error) {
	open, err := u.tx.OpenOps(agent)
	if err != nil {
		return 0, err
	}
	open = slices.DeleteFunc(open, func(o store.Op) bool { return slices.Contains(given, o.Node) })
	for i := range open {
		o := &open[i]
		end := power.End{
			Outcome: power.Indeterminate, Reason: power.ReasonLost, At: u.now,
			Detail: fmt.Sprintf("%s forgot agent %s, which had it (%s): what became of it is not known", u.who, agent, why),
		}
		if o.Stage() == store.StageTaken && !o.Delivered {
			end.Outcome, end.Reason = power.Cancelled, power.ReasonAsked
			end.Detail = fmt.Sprintf("%s forgot agent %s, which never had it (%s)", u.who, agent, why)
		}
		if err := u.endAlone(o, end); err != nil {
			return 0, err
		}
	}
	return len(open), nil
}

// free takes all nodes from an agent. They are given to others that can reach them, once its lease has
// run out, and else assigned to nobody.
func (u *unitOfWork) free(agent, why string) (names, given []string, err error) {
	nodes, err := u.tx.NodesSince(agent, 0)
	if err != nil {
		return nil, nil, err
	}
	names = []string{}
	for _, n := range nodes {
		next := n
		if to, err := u.instead(n, agent); err != nil {
			return nil, nil, err
		} else if to != "" {
			if err := u.give(n, to, "agent "+agent+" was forgotten"); err != nil {
				return nil, nil, err
			}
			given = append(given, n.Name)
			continue
		}
		next.Agent = ""
		if err := errors.Join(u.joins(n.Domain), u.forget(agent, n.Name, true), u.leaves(n), u.save(n, next)); err != nil {
			return nil, nil, err
		}
		if err := u.audit("node-free", n.Name, why, "agent "+agent+" was forgotten"); err != nil {
			return nil, nil, err
		}
		names = append(names, n.Name)
	}
	return names, given, nil
}
