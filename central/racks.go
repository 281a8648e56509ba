package central

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// What an audit entry says happened to a rack's monitor.
const (
	auditRack         = "rack"
	auditPause        = "pause"
	auditResume       = "resume"
	auditPauseOver    = "pause-over"
	auditBrake        = "brake"
	auditBrakeOver    = "brake-over"
	auditBrakeRelease = "brake-release"
)

// settings are those that an agent is told: what people set for its rack, and its
// share of the limits of its power domains.
func settings(tx *store.Tx, a store.Agent) (api.RackSettings, error) {
	domains, err := tx.DomainsOf(a.Name)
	if err != nil {
		return api.RackSettings{}, err
	}
	return settingsIn(tx, a, domains)
}

// domainsByAgent is DomainsOf of all agents, read at once.
func domainsByAgent(tx *store.Tx) (func(agent string) ([]store.Domain, error), error) {
	all, err := tx.Domains()
	if err != nil {
		return nil, err
	}
	of := map[string][]store.Domain{}
	for _, d := range all {
		agents, err := tx.AgentsIn(d.Name)
		if err != nil {
			return nil, err
		}
		for _, agent := range agents {
			of[agent] = append(of[agent], d)
		}
	}
	return func(agent string) ([]store.Domain, error) { return of[agent], nil }, nil
}

// settingsIn is settings of an agent whose nodes are in the power domains.
func settingsIn(tx *store.Tx, a store.Agent, domains []store.Domain) (api.RackSettings, error) {
	s, err := a.Settings()
	if err != nil {
		return s, fmt.Errorf("cannot read settings of rack %s: %w", a.Name, err)
	}
	site, err := tx.SitePause()
	if err != nil {
		return s, err
	}
	if site != nil && (s.Pause == nil || site.Outlasts(s.Pause)) {
		s.Pause = site
	}
	if a.Restored != store.RestoreOver {
		at, _, err := tx.Restored()
		if err != nil {
			return s, err
		}
		s.Pause = restorePause(at)
	}
	for _, d := range domains {
		s.Domains = append(s.Domains, share(limitsOf(d), d.Agents))
	}
	return s, err
}

// saveSettings stores settings that changed and has the agent told.
func (u *unitOfWork) saveSettings(agent string, s api.RackSettings) error {
	rev, err := u.rev(agent)
	if err != nil {
		return err
	}
	return u.tx.SaveSettings(agent, s, rev)
}

// knownRack finds a rack's agent.
func knownRack(tx *store.Tx, name string) (store.Agent, error) {
	a, found, err := tx.Agent(name)
	if err == nil && !found {
		err = api.Problemf(api.CodeNotFound, "no such rack: %s", name)
	}
	return a, err
}

func (c *Central) listRacks(r *http.Request) ([]api.Rack, error) {
	out := []api.Rack{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		agents, err := chosenAgents(tx, r.URL.Query().Get("select"))
		if err != nil {
			return err
		}
		counts, err := tx.NodeCounts(namesOfAgents(agents))
		if err != nil {
			return err
		}
		domains := tx.DomainsOf
		if len(agents) > fewNames {
			if domains, err = domainsByAgent(tx); err != nil {
				return err
			}
		}
		for _, a := range agents {
			in, err := domains(a.Name)
			if err != nil {
				return err
			}
			rack, err := c.showRack(tx, a, in, counts[a.Name])
			if err != nil {
				return err
			}
			out = append(out, rack)
		}
		return nil
	})
	return out, err
}

// chosenAgents are those of the nodes that an expression selects; "": all.
func chosenAgents(tx *store.Tx, expr string) ([]store.Agent, error) {
	if expr == "" || expr == "all" {
		return tx.Agents()
	}
	nodes, err := selectWithin(tx, expr, tx.Selection())
	if err != nil {
		return nil, err
	}
	names, err := tx.AgentsOf(nodes)
	if err != nil {
		return nil, err
	}
	var agents []store.Agent
	for _, name := range names {
		a, found, err := tx.Agent(name)
		if err != nil {
			return nil, err
		}
		if found && name != "" {
			agents = append(agents, a)
		}
	}
	return agents, nil
}

func namesOfAgents(agents []store.Agent) []string {
	names := make([]string, len(agents))
	for i, a := range agents {
		names[i] = a.Name
	}
	return names
}

func (c *Central) showRack(tx *store.Tx, a store.Agent, domains []store.Domain, nodes int) (api.Rack, error) {
	out := api.Rack{Name: a.Name, Agent: a.Name, AgentState: c.presence(a.Name), Nodes: nodes}
	var err error
	if out.Settings, err = settingsIn(tx, a, domains); err != nil {
		return out, err
	}
	state, err := a.State()
	if state != nil {
		out.State = *state
	}
	return out, err
}

// presence says whether an agent can be counted on now.
func (c *Central) presence(agent string) api.AgentPresence {
	return c.sessions.of(agent).presence(c.cfg.Now(), c.cfg.Away).AgentPresence
}

// changeRack has f change the settings of a rack, and answers with its state.
func (c *Central) changeRack(r *http.Request, who string, f func(u *unitOfWork, a store.Agent) error) (out api.Rack, err error) {
	name, now := r.PathValue("name"), c.cfg.Now()
	err = c.write(r.Context(), now, who, func(u *unitOfWork) error {
		a, err := knownRack(u.tx, name)
		if err != nil {
			return err
		}
		if err := f(u, a); err != nil {
			return err
		}
		if a, err = knownRack(u.tx, name); err != nil {
			return err
		}
		counts, err := u.tx.NodeCounts([]string{name})
		if err != nil {
			return err
		}
		domains, err := u.tx.DomainsOf(name)
		if err != nil {
			return err
		}
		out, err = c.showRack(u.tx, a, domains, counts[name])
		return err
	})
	return out, err
}

func (c *Central) setRack(r *http.Request, in api.SetRack) (api.Rack, error) {
	var notes []string
	out, err := c.changeRack(r, askedBy(r, in.AskedBy), func(u *unitOfWork, a store.Agent) error {
		s, err := a.Settings()
		if err != nil {
			return err
		}
		if name := in.Credentials; name != nil && *name != "" {
			if _, known, err := u.tx.Credentials(*name); err != nil {
				return err
			} else if !known {
				notes = []string{noCredentials(*name)}
			}
		}
		var all []string
		if in.Monitor != nil && *in.Monitor != s.Monitor {
			all = append(all, fmt.Sprintf("monitor %s, was %s", cmp.Or(*in.Monitor, "the agent's own"), cmp.Or(s.Monitor, "the agent's own")))
			s.Monitor = *in.Monitor
		}
		number := func(what string, at *int, to *int, usual int) {
			if to != nil && *to != *at {
				all = append(all, fmt.Sprintf("%s %d, was %d", what, cmp.Or(*to, usual), cmp.Or(*at, usual)))
				*at = *to
			}
		}
		number("brake percent", &s.BrakePercent, in.BrakePercent, power.DefaultBrakePercent)
		number("brake above", &s.BrakeAbove, in.BrakeAbove, power.DefaultBrakeAbove)
		if in.Credentials != nil && *in.Credentials != s.Credentials {
			all = append(all, fmt.Sprintf("credentials %s, was %s", cmp.Or(*in.Credentials, "none"), cmp.Or(s.Credentials, "none")))
			s.Credentials = *in.Credentials
			if err := u.tx.TellNamelessNodes(a.Name, u.rev); err != nil {
				return err
			}
		}
		others := in.Agents != nil && !slices.Equal(*in.Agents, s.Agents)
		if others {
			all = append(all, fmt.Sprintf("agents %s, was %s", cmp.Or(strings.Join(*in.Agents, ","), "its own"),
				cmp.Or(strings.Join(s.Agents, ","), "its own")))
			s.Agents = *in.Agents
		}
		if len(all) == 0 {
			return nil
		}
		if err := u.saveSettings(a.Name, s); err != nil {
			return err
		}
		if others {
			if err := u.leasesOfRack(a.Name); err != nil {
				return err
			}
		}
		return u.audit(auditRack, "", in.Reason, fmt.Sprintf("rack %s: %s", a.Name, strings.Join(all, "; ")))
	})
	out.Notes = notes
	return out, err
}

func (c *Central) setPause(r *http.Request, in api.SetPause) (api.Rack, error) {
	who, now := askedBy(r, in.AskedBy), c.cfg.Now()
	return c.changeRack(r, who, func(u *unitOfWork, a store.Agent) error {
		s, err := a.Settings()
		if err != nil {
			return err
		}
		if in.Resume {
			if s.Pause.Active(now) {
				return u.endPause(a, auditResume, in.Reason)
			}
			site, err := u.tx.SitePause()
			if err == nil && site.Active(now) {
				err = api.Problemf(api.CodeRefused, "rack %s is paused with all the others, by %s: rackpower resume all", a.Name, site.By)
			}
			return err
		}
		s.Pause = pausedBy(who, in, now)
		if err := u.saveSettings(a.Name, s); err != nil {
			return err
		}
		return u.audit(auditPause, "", in.Reason, fmt.Sprintf("rack %s: its monitor corrects nothing until %s", a.Name, pausedUntil(s.Pause)))
	})
}

func pausedBy(who string, in api.SetPause, now time.Time) *api.Pause {
	p := &api.Pause{By: who, Reason: in.Reason, Since: now.UTC()}
	if in.For > 0 {
		p.Until = p.Since.Add(in.For)
	}
	return p
}

func pausedUntil(p *api.Pause) string {
	if p.Until.IsZero() {
		return "resumed"
	}
	return power.At(p.Until)
}

// setSitePause pauses all racks, those that come later too, or ends that. What racks are
// paused beside it stays.
func (c *Central) setSitePause(r *http.Request, in api.SetPause) ([]api.Rack, error) {
	who, now := askedBy(r, in.AskedBy), c.cfg.Now()
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		old, err := u.tx.SitePause()
		switch {
		case err != nil:
			return err
		case in.Resume && !old.Active(now):
			return nil
		case in.Resume:
			return u.endSitePause(old, auditResume, in.Reason)
		}
		p := pausedBy(who, in, now)
		p.Site = true
		if err := u.saveSitePause(p); err != nil {
			return err
		}
		return u.audit(auditPause, "", in.Reason, "all racks: their monitors correct nothing until "+pausedUntil(p))
	})
	if err != nil {
		return nil, err
	}
	return c.listRacks(r)
}

func (u *unitOfWork) saveSitePause(p *api.Pause) error {
	if err := u.tx.SaveSitePause(p); err != nil {
		return err
	}
	agents, err := u.tx.Agents()
	for _, a := range agents {
		if err := u.tellRack(a.Name); err != nil {
			return err
		}
	}
	return err
}

// endSitePause has all monitors go on whose racks are not paused by themselves.
func (u *unitOfWork) endSitePause(p *api.Pause, what, why string) error {
	if err := u.saveSitePause(nil); err != nil {
		return err
	}
	return u.audit(what, "", why, "all racks: "+pauseWas(p))
}

func pauseWas(p *api.Pause) string {
	text := "it was paused by " + p.By
	if p.Site {
		text = "they were paused by " + p.By
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// endPause has a rack's monitor go on.
func (u *unitOfWork) endPause(a store.Agent, what, why string) error {
	s, err := a.Settings()
	if err != nil || s.Pause == nil {
		return err
	}
	detail := fmt.Sprintf("rack %s: %s", a.Name, pauseWas(s.Pause))
	s.Pause = nil
	if err := u.saveSettings(a.Name, s); err != nil {
		return err
	}
	return u.audit(what, "", why, detail)
}

// applyRackState takes the state of an agent's monitor, and notes brakes that hold or let go and
// alarms that began or ended.
func (u *unitOfWork) applyRackState(name string, next api.RackState) error {
	a, found, err := u.tx.Agent(name)
	if err != nil || !found || a.Said(next) {
		return err
	}
	old, err := a.State()
	if err != nil {
		return err
	}
	if old == nil {
		old = new(api.RackState)
	}
	if next.Brake, err = u.ownBrake(name, next.Brake); err != nil {
		return err
	}
	if err := u.tx.SaveRackState(name, next); err != nil {
		return err
	}
	set, err := a.Settings()
	if err != nil {
		return err
	}
	news := alarmEvents(old.Alarms, next.Alarms)
	otherBrake := brakeID(*old) != brakeID(next)
	if otherBrake {
		news = append(news, brakeEvents(name, old.Brake, next.Brake, set)...)
	}
	for _, e := range news {
		e.At, e.Who = u.now, "agent "+name
		if err := u.tx.AddAudit(e); err != nil {
			return err
		}
	}
	acks := standingAcks(set.Acks, next.Alarms)
	if !(otherBrake && set.ReleaseBrake != "") && len(acks) == len(set.Acks) {
		return nil
	}
	// What was released is the old one: it has let go. That the release, or an
	// acknowledgement, is no longer sent is nothing to send.
	if otherBrake {
		set.ReleaseBrake, set.ReleaseNodes, set.ReleasedBy = "", 0, ""
	}
	set.Acks = acks
	return u.tx.SaveSettings(name, set, a.SettingsRev)
}

func brakeID(s api.RackState) string {
	if s.Brake == nil {
		return ""
	}
	return s.Brake.ID
}

func brakeEvents(rack string, old, next *api.Brake, set api.RackSettings) (news []api.AuditEntry) {
	if old != nil {
		detail := "its nodes match their desired state, or need no correction any more"
		if set.ReleaseBrake == old.ID {
			detail = "released by " + set.ReleasedBy
		}
		news = append(news, api.AuditEntry{What: auditBrakeOver, Why: old.Kind, Detail: fmt.Sprintf("rack %s: %s", rack, detail)})
	}
	if next != nil {
		news = append(news, api.AuditEntry{
			What: auditBrake, HappenedAt: next.Since, Why: next.Kind, Detail: fmt.Sprintf("rack %s: %s (nodes %s, of %d)", rack, next.Message,
				noderange.Fold(next.Nodes), next.Total),
		})
	}
	return news
}

// alarmOf is all that an administrator has to know of an agent.
func alarmOf(journal string, s *api.RackState) string {
	if s == nil || s.Brake == nil {
		return journal
	}
	brake := "fleet brake: " + s.Brake.Message
	if journal == "" {
		return brake
	}
	return journal + "; " + brake
}

// holding is the brake that holds on a rack, if one does.
func holding(a store.Agent) (b api.RackBrake, set api.RackSettings, ok bool, err error) {
	state, err := a.State()
	if err != nil || state == nil || state.Brake == nil {
		return b, set, false, err
	}
	set, err = a.Settings()
	released := set.ReleaseBrake == state.Brake.ID && len(state.Brake.Nodes) <= set.ReleaseNodes
	return api.RackBrake{Rack: a.Name, Brake: *state.Brake, Released: released}, set, true, err
}

func (c *Central) listBrakes(r *http.Request) ([]api.RackBrake, error) {
	out := []api.RackBrake{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		agents, err := tx.Agents()
		if err != nil {
			return err
		}
		for _, a := range agents {
			b, _, ok, err := holding(a)
			if err != nil {
				return err
			}
			if ok {
				out = append(out, b)
			}
		}
		return nil
	})
	return out, err
}

// releaseBrakes releases the brakes of the racks that are named, all or none;
// without a name every one that holds.
func (c *Central) releaseBrakes(r *http.Request, in api.ReleaseBrake) ([]api.RackBrake, error) {
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	var out []api.RackBrake
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		out = []api.RackBrake{}
		agents, err := racksNamed(u.tx, in.Racks)
		if err != nil {
			return err
		}
		var none []string
		for _, a := range agents {
			b, set, ok, err := holding(a)
			switch {
			case err != nil:
				return err
			case !ok:
				none = append(none, a.Name)
				continue
			}
			if err := in.Grown(a.Name, b.Brake); err != nil {
				return err
			}
			if err := u.releaseBrake(&b, set, in.Reason); err != nil {
				return err
			}
			out = append(out, b)
		}
		if len(none) > 0 && len(in.Racks) > 0 {
			return api.Problemf(api.CodeNotFound, "nothing was released: no brake holds on rack %s", brief(none))
		}
		return nil
	})
	return out, err
}

// releaseBrake has the agent told, until it shows that it has let go.
func (u *unitOfWork) releaseBrake(b *api.RackBrake, set api.RackSettings, why string) error {
	if b.Released {
		return nil // once is enough
	}
	b.Released = true
	set.ReleaseBrake, set.ReleaseNodes, set.ReleasedBy = b.ID, len(b.Nodes), u.who
	if err := u.saveSettings(b.Rack, set); err != nil {
		return err
	}
	return u.audit(auditBrakeRelease, "", why, fmt.Sprintf("rack %s: %s (nodes %s)", b.Rack, b.Message, noderange.Fold(b.Nodes)))
}

// racksNamed finds racks, all if none is named.
func racksNamed(tx *store.Tx, names []string) ([]store.Agent, error) {
	all, err := tx.Agents()
	if err != nil || len(names) == 0 {
		return all, err
	}
	known := map[string]bool{}
	for _, a := range all {
		known[a.Name] = true
	}
	if unknown := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return known[name] }); len(unknown) > 0 {
		return nil, api.Problemf(api.CodeNotFound, "no such rack: %s", brief(unknown))
	}
	return slices.DeleteFunc(all, func(a store.Agent) bool { return !slices.Contains(names, a.Name) }), nil
}
