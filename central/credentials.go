package central

import (
	"cmp"
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

// What an audit entry says happened to credentials.
const (
	auditCredentials       = "credentials"
	auditCredentialsRemove = "credentials-remove"
)

// maxCredentials bounds the table of credentials.
const maxCredentials = 10_000

func (c *Central) listCredentials(r *http.Request) ([]api.Credentials, error) {
	byName := map[string]*api.Credentials{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		all, err := tx.AllCredentials()
		if err != nil {
			return err
		}
		for _, cred := range all {
			byName[cred.Name] = &api.Credentials{
				Name: cred.Name, User: cred.User, KG: cred.KG != "", Damaged: cred.Damaged, SetAt: cred.SetAt.UTC(), SetBy: cred.SetBy,
			}
			if cred.NextUser == "" {
				continue
			}
			show := byName[cred.Name]
			show.NextUser, show.NextAt = cred.NextUser, cred.NextAt.UTC()
			if show.Took, show.Keep, err = rotated(tx, cred); err != nil {
				return err
			}
		}
		named := func(name string) *api.Credentials {
			if byName[name] == nil {
				byName[name] = &api.Credentials{Name: name, AtRacks: true}
			}
			return byName[name]
		}
		used, err := tx.CredentialsUsed()
		if err != nil {
			return err
		}
		for name, nodes := range used {
			named(name).Nodes = len(nodes)
		}
		agents, err := tx.Agents()
		if err != nil {
			return err
		}
		for _, a := range agents {
			s, err := a.Settings()
			if err != nil {
				return err
			}
			if s.Credentials != "" {
				cred := named(s.Credentials)
				cred.Racks = append(cred.Racks, a.Name)
			}
		}
		return nil
	})
	out := []api.Credentials{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, *byName[name])
	}
	return out, err
}

// setCredentials adds or replaces credentials, and has the agents told whose nodes use them.
func (c *Central) setCredentials(r *http.Request, in api.SetCredentials) (api.Changed, error) {
	name := r.PathValue("name")
	if err := api.CheckName(name); err != nil {
		return api.Changed{}, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	var out api.Changed
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err := c.write(r.Context(), now, who, func(u *unitOfWork) error {
		out = api.Changed{}
		old, found, err := u.tx.Credentials(name)
		if err != nil {
			return err
		}
		next := store.Credentials{
			Name: name, User: in.User, Password: power.Secret(in.Password), KG: power.Secret(in.KG), SetAt: now, SetBy: who,
		}
		if found && old.User == next.User && old.Password == next.Password && old.KG == next.KG {
			out.Unchanged = 1
			return nil
		}
		if err := u.roomForCredentials(found); err != nil {
			return err
		}
		out.Changed = 1
		if err := u.tx.PutCredentials(next); err != nil {
			return err
		}
		n, err := u.tellUsers(name)
		if err != nil {
			return err
		}
		return u.audit(auditCredentials, "", in.Reason, fmt.Sprintf("%s: user %s%s; %s", name, next.User, changedSecrets(old, next, found),
			usedBy(n)))
	})
	return out, err
}

func (u *unitOfWork) roomForCredentials(known bool) error {
	if known {
		return nil
	}
	all, err := u.tx.AllCredentials()
	if err == nil && len(all) >= maxCredentials {
		err = api.Problemf(api.CodeQueueFull, "there are %d credentials, which is the limit: remove some", maxCredentials)
	}
	return err
}

// changedSecrets names what is new, without a secret.
func changedSecrets(old, next store.Credentials, found bool) string {
	switch {
	case !found:
		return ""
	case old.User != next.User:
		return ", was " + old.User
	case old.Password != next.Password && old.KG != next.KG:
		return ", another password and K_g"
	case old.KG != next.KG:
		return ", another K_g"
	}
	return ", another password"
}

func usedBy(n int) string {
	if n == 0 {
		return "no node uses them"
	}
	return power.Count(n, "node") + " use them"
}

// tellUsers has the agents told anew of the nodes that credentials count for, and says how
// many these are.
func (u *unitOfWork) tellUsers(name string) (int, error) {
	used, err := u.tx.CredentialsUsed()
	if err != nil {
		return 0, err
	}
	for node, agent := range used[name] {
		rev, err := u.rev(agent)
		if err != nil {
			return 0, err
		}
		if err := u.tx.TellNode(node, rev); err != nil {
			return 0, err
		}
	}
	return len(used[name]), nil
}

// removeCredentials removes credentials that neither a node nor a rack names.
func (c *Central) removeCredentials(r *http.Request, in api.RemoveCredentials) (api.Changed, error) {
	name := r.PathValue("name")
	err := c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		_, found, err := u.tx.Credentials(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such credentials: %s", name)
		}
		if err != nil {
			return err
		}
		nodes, racks, err := u.tx.CredentialsNamed(name)
		if err != nil {
			return err
		}
		if len(nodes)+len(racks) > 0 {
			return api.Problemf(api.CodeRefused, "nothing was changed: credentials %s are named by %s: name others first "+
				"(rackpower node add NAME --update --credentials OTHER, rackpower rack set RACK --credentials OTHER)", name, namers(nodes, racks))
		}
		if err := u.tx.DeleteCredentials(name); err != nil {
			return err
		}
		return u.audit(auditCredentialsRemove, "", in.Reason, name)
	})
	if err != nil {
		return api.Changed{}, err
	}
	return api.Changed{Changed: 1}, nil
}

func namers(nodes, racks []string) string {
	var parts []string
	if len(nodes) > 0 {
		parts = append(parts, noderange.Fold(nodes))
	}
	if len(racks) > 0 {
		parts = append(parts, "rack "+strings.Join(racks, ", "))
	}
	return strings.Join(parts, " and ")
}

// logins gives assigned nodes the credentials that they are to log in with.
type logins struct {
	tx    *store.Tx
	agent string            // whose nodes they are
	rack  string            // credentials that its rack names
	racks map[string]string // those that other racks name, of nodes that it has
	known map[string]*store.Credentials
}

// fill fills in the credentials of a node without a password of its own: those that it names,
// else those of its rack. The name goes with them: the agent may have others of that name,
// that stay on the rack. Where central has none of the name, only these can be meant.
func (l *logins) fill(a *api.AssignedNode, n store.Node) error {
	rack, err := l.ofRack(n.Rack)
	if err != nil {
		return err
	}
	name := cmp.Or(n.Credentials, rack)
	if a.Password != "" || a.BMC == "" || name == "" {
		return nil
	}
	cred, err := l.find(name)
	if err != nil {
		return err
	}
	a.Credentials = name
	if cred == nil {
		return nil
	}
	ep, err := power.ParseEndpoint(a.BMC)
	if err != nil {
		return nil // the agent refuses it
	}
	ep.User = cred.User
	a.BMC, a.Password, a.KG = ep.String(), string(cred.Password), cmp.Or(a.KG, string(cred.KG))
	l.rotate(a, n, *cred)
	return nil
}

// ofRack is which credentials a rack names.
func (l *logins) ofRack(rack string) (string, error) {
	if rack == l.agent {
		return l.rack, nil
	}
	if name, known := l.racks[rack]; known {
		return name, nil
	}
	a, _, err := l.tx.Agent(rack)
	if err != nil {
		return "", err
	}
	s, err := a.Settings()
	if l.racks == nil {
		l.racks = map[string]string{}
	}
	l.racks[rack] = s.Credentials
	return s.Credentials, err
}

func (l *logins) find(name string) (*store.Credentials, error) {
	if cred, looked := l.known[name]; looked {
		return cred, nil
	}
	if l.known == nil {
		l.known = map[string]*store.Credentials{}
	}
	cred, found, err := l.tx.Credentials(name)
	if err != nil {
		return nil, err
	}
	l.known[name] = nil
	if found && !cred.Damaged {
		l.known[name] = &cred
	}
	return l.known[name], nil
}

// credentialNotes say what people may not expect of the credentials that nodes of an import
// name.
func (u *unitOfWork) credentialNotes(specs []api.NodeSpec) (notes []string, err error) {
	unknown, own := map[string][]string{}, []string{}
	for _, s := range specs {
		if s.Credentials == "" {
			continue
		}
		n, found, err := u.tx.Node(s.Name)
		if err != nil || !found {
			return nil, err
		}
		if n.Password != "" {
			own = append(own, s.Name)
		}
		if _, known, err := u.tx.Credentials(s.Credentials); err != nil {
			return nil, err
		} else if !known {
			unknown[s.Credentials] = append(unknown[s.Credentials], s.Name)
		}
	}
	if len(own) > 0 {
		notes = append(notes, fmt.Sprintf("%s: the node's own password stands over the credentials that it names; take it away with "+
			"--password-file \"\"", noderange.Fold(own)))
	}
	for _, name := range slices.Sorted(maps.Keys(unknown)) {
		notes = append(notes, noCredentials(name)+": "+noderange.Fold(unknown[name])+" cannot be reached without")
	}
	return notes, nil
}

// noCredentials says what to do where central has no credentials of a name.
func noCredentials(name string) string {
	return fmt.Sprintf("central has no credentials %s: set them (rackpower credentials set %s --user USER --password-file FILE), or have "+
		"them in the file of the rack's agent (rackpower agent --credentials-file)", name, name)
}
