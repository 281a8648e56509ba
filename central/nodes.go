package central

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

const maxNodesAtOnce = 100_000

// readStatus reads a status; "none" takes it away.
func readStatus(s power.Status) (power.Status, error) {
	if strings.EqualFold(string(s), "none") {
		return power.StatusNone, nil
	}
	return power.ParseStatus(string(s))
}

// readSpec checks a row of an import by itself and brings it into its usual form.
func readSpec(s api.NodeSpec) (api.NodeSpec, error) {
	if err := api.CheckName(s.Name); err != nil {
		return s, err
	}
	if s.Rack != "" {
		if err := api.CheckName(s.Rack); err != nil {
			return s, fmt.Errorf("rack: %w", err)
		}
	}
	if s.Credentials != "" {
		if err := api.CheckName(s.Credentials); err != nil {
			return s, fmt.Errorf("credentials: %w", err)
		}
	}
	if err := errors.Join(checkBMC(&s), readClear(s), api.CheckAgents(s.Agents)); err != nil {
		return s, err
	}
	if s.Status != "" {
		status, err := power.ParseStatus(string(s.Status))
		if err != nil {
			return s, err
		}
		s.Status = status
	}
	if err := errors.Join(api.CheckDomain(s.Domain), api.CheckTexts(s.Protected)); err != nil {
		return s, err
	}
	for _, label := range s.Labels {
		if err := noderange.CheckLabel(label); err != nil {
			return s, err
		}
	}
	return s, nil
}

// rows collects what is wrong with the rows of an import.
type rows struct {
	errs  []string
	exist []string // names of those that are only there already
	clash int      // how many would have the BMC of another node
}

func (r *rows) add(i int, name string, err error) {
	r.errs = append(r.errs, fmt.Sprintf("node %d (%s): %v", i+1, cmp.Or(name, "without name"), err))
}

// problem is one error that names every bad row. Where all are good but for being there
// already their names are folded: a file of a whole hall may be imported twice.
func (r *rows) problem() error {
	if len(r.errs) == 0 {
		return nil
	}
	switch n := len(r.exist); {
	case r.clash == len(r.errs):
		return api.Problemf(api.CodeRefused, "nothing was changed: %s", strings.Join(r.errs, "; "))
	case n < len(r.errs):
		return api.Problemf(api.CodeBadRequest, "nothing was changed: %s", strings.Join(r.errs, "; "))
	case n == 1:
		return api.Problemf(api.CodeExists, "nothing was changed: node %s exists already", r.exist[0])
	default:
		return api.Problemf(api.CodeExists, "nothing was changed: %d nodes exist already: %s", n, noderange.Fold(r.exist))
	}
}

// errDryRun undoes a job that has shown what it would do.
var errDryRun = errors.New("dry run")

func (c *Central) addNodes(r *http.Request, in api.AddNodes) (api.AddedNodes, error) {
	if len(in.Nodes) > maxNodesAtOnce {
		return api.AddedNodes{}, api.Problemf(api.CodeBadRequest, "%d nodes: at most %d at once", len(in.Nodes), maxNodesAtOnce)
	}
	var bad rows
	seen := map[string]bool{}
	specs := make([]api.NodeSpec, len(in.Nodes))
	for i, s := range in.Nodes {
		spec, err := readSpec(s)
		if err == nil && seen[spec.Name] {
			err = errors.New("named twice")
		}
		if err != nil {
			bad.add(i, s.Name, err)
		}
		seen[spec.Name], specs[i] = true, spec
	}
	if err := bad.problem(); err != nil {
		return api.AddedNodes{}, err
	}
	var out api.AddedNodes
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		var err error
		if err := mayPut(u.tx, specs); err != nil {
			return err
		}
		u.forced, u.agreed = in.Force, in.Confirmed || in.MovesConfirmed
		if out, err = u.addAll(specs, in.Update, in.Confirmed); err != nil {
			return err
		}
		notes, err := u.handOver(specs, &out)
		if err != nil {
			return err
		}
		out.Notes = append(out.Notes, notes...)
		if in.DryRun {
			return errDryRun
		}
		return nil
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return out, err
}

func (u *unitOfWork) addAll(specs []api.NodeSpec, update, confirmed bool) (out api.AddedNodes, err error) {
	var bad rows
	names := readNames(u.tx)
	there, err := u.there(specs)
	if err != nil {
		return out, err
	}
	clashes, err := u.clashes(specs, there)
	if err != nil {
		return out, err
	}
	for i, s := range specs {
		old, exists := there[s.Name]
		if exists { // a row before may have changed with whom it shares its BMC
			if old, exists, err = u.tx.Node(s.Name); err != nil {
				return out, err
			}
		}
		next := merged(old, s, confirmed)
		if next.Agent, err = u.firstAgent(next); err != nil {
			return out, err
		}
		identify(&next)
		if s.Protected != "" && s.Protected != shownReason(old.Protected) {
			next.Protected = power.Protection{By: u.who, Reason: s.Protected, Since: u.now.UTC()}
		}
		switch {
		case exists && !update:
			bad.exist = append(bad.exist, s.Name)
			bad.add(i, s.Name, errors.New("exists already"))
			continue
		case next.Rack == "":
			bad.add(i, s.Name, errors.New("the rack is missing"))
			continue
		case len(next.Labels.List()) > noderange.MaxLabels:
			bad.add(i, s.Name, fmt.Errorf("more than %d labels", noderange.MaxLabels))
			continue
		case s.Password != "" || s.BMC != "": // the other one of the two may be of before
			if wrong := power.CheckPassword(next.Password, next.BMC); wrong != nil {
				bad.add(i, s.Name, wrong)
				continue
			}
		}
		if wrong, err := names.take(old, next); err != nil {
			return out, err
		} else if wrong != nil {
			bad.add(i, s.Name, wrong)
			continue
		}
		switch {
		case clashes[s.Name] != nil:
			bad.clash++
			bad.add(i, s.Name, clashes[s.Name])
			continue
		case exists && next == old:
			out.Unchanged++
			continue
		case exists && next.Agent != old.Agent:
			open, err := u.tx.OpenOpsOn([]string{s.Name})
			if err != nil {
				return out, err
			}
			if len(open) > 0 && u.forced {
				if err := u.moveOps(old, next.Agent); err != nil {
					return out, err
				}
			} else if len(open) > 0 {
				bad.add(i, s.Name, fmt.Errorf("cannot move from agent %s to %s while %s is outstanding (operation %s)", old.Agent, next.Agent,
					open[0].Action, open[0].ID))
				continue
			}
		}
		if !exists {
			note, err := u.protectNew(&next)
			if err != nil {
				return out, err
			}
			if note != "" {
				out.Notes = append(out.Notes, note)
			}
		}
		if exists {
			out.Changed++
		} else {
			out.Added++
		}
		if len(bad.errs) > 0 {
			continue // nothing will come of it; find the other bad rows
		}
		if err := u.put(old, next, exists); err != nil {
			return out, err
		}
		if exists {
			note, err := u.underWay(old, next)
			if err != nil {
				return out, err
			}
			if note != "" {
				out.Notes = append(out.Notes, note)
			}
		}
	}
	out.Notes = append(out.Notes, u.strangers()...)
	if err := bad.problem(); err != nil {
		return out, err
	}
	notes, err := u.credentialNotes(specs)
	out.Notes = append(out.Notes, notes...)
	return out, err
}

// there are the nodes of the rows that exist.
func (u *unitOfWork) there(specs []api.NodeSpec) (map[string]store.Node, error) {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	nodes, err := u.tx.NodesNamed(names)
	there := make(map[string]store.Node, len(nodes))
	for _, n := range nodes {
		there[n.Name] = n
	}
	return there, err
}

// strangers warns of agents that are given nodes in this job and were never heard of,
// while others of the site were.
func (u *unitOfWork) strangers() (notes []string) {
	if !u.c.sessions.anySeen() {
		return nil // the site is being set up
	}
	for _, agent := range slices.Sorted(maps.Keys(u.revs)) {
		if agent == "" {
			continue // nodes of an agent that was forgotten
		}
		if p := u.c.sessions.of(agent).presence(u.now, u.c.cfg.Away); p.State == api.AgentNever {
			notes = append(notes, fmt.Sprintf("no agent of rack %s was ever seen: is the name right? (rackpower agents; rackpower agents forget %s)",
				agent, agent))
		}
	}
	return notes
}

// underWay says what becomes of an operation whose node is given another BMC or other
// credentials meanwhile; "" where there is none.
func (u *unitOfWork) underWay(old, next store.Node) (string, error) {
	if old.BMC == next.BMC && old.Password == next.Password && old.KG == next.KG && old.Credentials == next.Credentials &&
		old.Domain == next.Domain {
		return "", nil
	}
	open, err := u.tx.OpenOpsOn([]string{next.Name})
	if err != nil || len(open) == 0 {
		return "", err
	}
	o := foremostOf(open)
	note := fmt.Sprintf("node %s has an operation under way: %s (asked by %s, %s): it goes on with what was set now", next.Name, o.Action,
		o.AskedBy, o.Phase)
	if old.BMC != next.BMC {
		note += fmt.Sprintf("; if a command of it went to the old BMC %s, it ends as failed and sends nothing to %s", old.BMC, next.BMC)
	}
	return note, nil
}

func foremostOf(open []store.Op) *store.Op {
	all := make([]*store.Op, len(open))
	for i := range open {
		all[i] = &open[i]
	}
	return foremost(all)
}

// merged is what a node becomes: what is given replaces what was. A person may have
// confirmed what a status that is changed brings about.
func merged(old store.Node, s api.NodeSpec, confirmed bool) store.Node {
	n := old
	n.Name = s.Name
	n.Rack = cmp.Or(s.Rack, old.Rack)
	if n.Epoch == 0 {
		n.Agent = n.Rack
	}
	n.BMC = cmp.Or(s.BMC, old.BMC)
	n.Password = cmp.Or(power.Secret(s.Password), old.Password)
	n.KG = cmp.Or(power.Secret(s.KG), old.KG)
	if s.Password != "" {
		n.DamagedPassword = ""
	}
	if s.KG != "" {
		n.DamagedKG = ""
	}
	n.Credentials = cmp.Or(s.Credentials, old.Credentials)
	n.Domain = cmp.Or(s.Domain, old.Domain)
	clearFields(&n, s.Clear)
	n.Agents = cmp.Or(strings.Join(s.Agents, ","), n.Agents)
	n.Labels = n.Labels.With(s.Labels)
	if n.BMC != old.BMC {
		n.Addr = ""
	}
	identify(&n)
	if n.Part != old.Part || n.At != old.At {
		n.Shared = ""
	}
	if s.Status != "" && s.Status != old.Status {
		n.Status, n.Confirmed = s.Status, confirmed
	}
	return n
}

func (u *unitOfWork) put(old, next store.Node, exists bool) error {
	if !u.ensured[next.Agent] {
		if err := u.tx.EnsureAgent(next.Agent); err != nil {
			return err
		}
		u.ensured[next.Agent] = true
	}
	if old.Domain != next.Domain || old.Agent != next.Agent {
		if err := errors.Join(u.joins(old.Domain), u.joins(next.Domain)); err != nil {
			return err
		}
	}
	if exists && old.Agent != next.Agent {
		if err := errors.Join(u.forget(old.Agent, old.Name, u.forced || u.agreed), u.leaves(old)); err != nil {
			return err
		}
	} else if exists && old.Part != "" && (old.Part != next.Part || old.At != next.At) {
		if err := u.leaves(old); err != nil {
			return err
		}
	}
	if err := u.leased(old, &next, "a person said so"); err != nil {
		return err
	}
	if err := u.save(old, next); err != nil {
		return err
	}
	if old.Shared != "" && next.Shared == "" { // with next nobody does: see clashes
		if err := u.reshare(old, store.Node{}); err != nil {
			return err
		}
	}
	if !exists {
		return u.audit("node-add", next.Name, "", describe(next))
	}
	return u.audit("node-change", next.Name, "", differences(old, next))
}

// forget has an agent told that a node is no longer its own, and whether a person
// confirmed that.
func (u *unitOfWork) forget(agent, node string, confirmed bool) error {
	rev, err := u.rev(agent)
	if err != nil {
		return err
	}
	return u.tx.Entomb(agent, node, rev, u.now, confirmed)
}

func describe(n store.Node) string {
	text := "rack " + n.Rack
	if n.BMC != "" {
		text += ", bmc " + n.BMC
	}
	if n.Agents != "" {
		text += ", agents " + n.Agents
	}
	if n.Credentials != "" {
		text += ", credentials " + n.Credentials
	}
	if n.Labels != "" {
		text += ", labels " + string(n.Labels)
	}
	if n.Status != "" {
		text += ", status " + string(n.Status)
	}
	return text
}

// differences names what changed, without a password.
func differences(old, next store.Node) string {
	var all []string
	add := func(what, was, is string) {
		if was != is {
			all = append(all, fmt.Sprintf("%s %s, was %s", what, cmp.Or(is, "none"), cmp.Or(was, "none")))
		}
	}
	add("rack", old.Rack, next.Rack)
	add("agents", old.Agents, next.Agents)
	add("bmc", old.BMC, next.BMC)
	add("credentials", old.Credentials, next.Credentials)
	add("domain", old.Domain, next.Domain)
	add("labels", string(old.Labels), string(next.Labels))
	add("status", string(old.Status), string(next.Status))
	add("protection", old.Protected.Text(), next.Protected.Text())
	if old.Password != next.Password || old.DamagedPassword != next.DamagedPassword {
		all = append(all, "password")
	}
	if old.KG != next.KG || old.DamagedKG != next.DamagedKG {
		all = append(all, "K_g")
	}
	return strings.Join(all, "; ")
}

// find returns the named nodes, or one error for all names that are not known.
func find(tx *store.Tx, names []string) ([]store.Node, error) {
	if len(names) == 0 {
		return nil, api.Problemf(api.CodeBadRequest, "no node is named")
	}
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	nodes, err := tx.NodesNamed(names)
	if err != nil {
		return nodes, err
	}
	if err := mayTouch(tx, names...); err != nil {
		return nil, err
	}
	if len(nodes) == len(names) {
		return nodes, nil
	}
	known := map[string]bool{}
	for _, n := range nodes {
		known[n.Name] = true
	}
	unknown := slices.DeleteFunc(names, func(name string) bool { return known[name] })
	return nil, api.Problemf(api.CodeNotFound, "no such node: %s", brief(unknown))
}

func (c *Central) removeNodes(r *http.Request, in api.RemoveNodes) (api.Changed, error) {
	var out api.Changed
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		nodes, err := find(u.tx, in.Names)
		if err != nil {
			return err
		}
		if err := noneBusy(u.tx, nodes); err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Protected.On() { // removed and added again it would be without
				return api.Problemf(api.CodeRefused,
					"nothing was changed: node %s is %s; unprotect it first (rackpower node unprotect %s --reason TEXT)",
					n.Name, n.Protected.Text(), n.Name)
			}
		}
		for _, n := range nodes {
			if err := errors.Join(u.joins(n.Domain), u.forget(n.Agent, n.Name, in.Confirmed), u.leaves(n)); err != nil {
				return err
			}
			if err := u.tx.DeleteNode(n.Name); err != nil {
				return err
			}
			if err := u.reshare(n, store.Node{}); err != nil {
				return err
			}
			u.tx.OnCommit(func() { c.moving.set(n.Name, "") })
			if note := c.leaveNote(n.Name, n.Agent, now); note != "" {
				out.Notes = append(out.Notes, note)
			}
			if err := u.audit("node-remove", n.Name, in.Reason, describe(n)); err != nil {
				return err
			}
		}
		out.Changed = len(nodes)
		return nil
	})
	return out, err
}

// noneBusy refuses when something is outstanding on one of the nodes.
func noneBusy(tx *store.Tx, nodes []store.Node) error {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	open, err := tx.OpenOpsOn(names)
	if err != nil || len(open) == 0 {
		return err
	}
	var busy []string
	for _, o := range open {
		busy = append(busy, fmt.Sprintf("%s (%s, operation %s)", o.Node, o.Action, o.ID))
	}
	return api.Problemf(api.CodeBusy, "nothing was changed: operations are outstanding: %s", brief(busy))
}

// setStatuses sets the status of nodes.
func (u *unitOfWork) setStatuses(in api.SetStatus) (out api.Changed, err error) {
	status, err := readStatus(in.Status)
	if err != nil {
		return out, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	nodes, err := find(u.tx, in.Names)
	if err != nil {
		return out, err
	}
	var changed []store.Node
	for _, n := range nodes {
		if n.Status == status && (n.Confirmed || !in.Confirmed) {
			out.Unchanged++
			continue
		}
		out.Changed++
		if err := u.setStatus(n, status, in); err != nil {
			return out, err
		}
		n.Status = status
		changed = append(changed, n)
	}
	out.Notes, err = u.idleNotes(nil, changed)
	return out, err
}

func (u *unitOfWork) setStatus(n store.Node, status power.Status, in api.SetStatus) error {
	next := n
	next.Status, next.Confirmed = status, in.Confirmed
	if err := u.save(n, next); err != nil {
		return err
	}
	detail := fmt.Sprintf("%s, was %s; desired %s", cmp.Or(string(status), "none"), cmp.Or(string(n.Status), "none"), status.Desired().Want)
	if n.Hold.Active(u.now) {
		detail += fmt.Sprintf(", but %s wants %s", by(n.Hold), n.Hold.Want)
	}
	if in.Confirmed {
		detail += "; confirmed"
	}
	return u.audit("status", n.Name, in.Reason, detail)
}

// shownReason is why a node is protected, in an export; "" where it is not.
func shownReason(p power.Protection) string {
	if !p.On() {
		return ""
	}
	return cmp.Or(p.Reason, "protected")
}

// protectAll protects nodes, or takes that back.
func (u *unitOfWork) protectAll(in api.ProtectNodes) (out api.Changed, err error) {
	nodes, err := find(u.tx, in.Names)
	if err != nil {
		return out, err
	}
	for _, n := range nodes {
		if n.Protected.On() != in.Unprotect {
			out.Unchanged++
			continue
		}
		out.Changed++
		if err := u.protect(n, in); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (u *unitOfWork) protect(n store.Node, in api.ProtectNodes) error {
	next, what, detail := n, "protect", "nothing takes its power away"
	next.Protected = power.Protection{By: u.who, Reason: in.Reason, Since: u.now.UTC()}
	if in.Unprotect {
		next.Protected, what, detail = power.Protection{}, "unprotect", "was "+n.Protected.Text()
	}
	if err := u.save(n, next); err != nil {
		return err
	}
	return u.audit(what, n.Name, in.Reason, detail)
}

func (c *Central) exportNodes(r *http.Request) ([]api.NodeSpec, error) {
	out := []api.NodeSpec{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		nodes, err := tx.Nodes()
		if err != nil {
			return err
		}
		in, err := within(tx)
		for _, n := range nodes {
			if in != nil && !in[n.Name] {
				continue
			}
			out = append(out, api.NodeSpec{
				Name: n.Name, Rack: n.Rack, Agents: agentList(n.Agents), BMC: n.BMC, Credentials: n.Credentials, Domain: n.Domain, Status: n.Status,
				Protected: shownReason(n.Protected), Labels: n.Labels.List(),
			})
		}
		return err
	})
	return out, err
}
