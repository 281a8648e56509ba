package central

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Credentials are replaced node by node: both are kept, agents have both, and a node uses the new
// ones from when its BMC took them, in a test or because it refused the old. When all do, the
// old ones go.

// rotateCredentials begins the replacement of credentials, or takes it back.
func (c *Central) rotateCredentials(r *http.Request, in api.RotateCredentials) (api.Changed, error) {
	name := r.PathValue("name")
	var out api.Changed
	now := c.cfg.Now()
	err := c.write(r.Context(), now, askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		out = api.Changed{}
		cred, found, err := u.tx.Credentials(name)
		switch {
		case err != nil:
			return err
		case !found:
			return api.Problemf(api.CodeNotFound, "no such credentials: %s", name)
		case in.Cancel:
			out.Changed, err = u.cancelRotation(cred, in)
			return err
		case cred.NextUser != "":
			return api.Problemf(api.CodeRefused, "nothing was changed: credentials %s are being replaced since %s: continue with "+
				"rackpower credentials rotate %s, or take it back with --cancel", name, power.At(cred.NextAt), name)
		}
		cred.NextUser, cred.NextPassword, cred.NextKG, cred.NextAt = in.User, power.Secret(in.Password), power.Secret(in.KG), now
		if err := u.tx.PutCredentials(cred); err != nil {
			return err
		}
		n, err := u.tellUsers(name)
		if err != nil {
			return err
		}
		out.Changed = 1
		if err := u.audit(auditCredentials, "", in.Reason, fmt.Sprintf("%s: user %s, another password, takes the place of user %s; %s", name,
			in.User, cred.User, usedBy(n))); err != nil {
			return err
		}
		return u.endRotation(cred)
	})
	return out, err
}

// cancelRotation drops the new credentials. Nodes whose BMCs took them may be locked out by that.
func (u *unitOfWork) cancelRotation(cred store.Credentials, in api.RotateCredentials) (int, error) {
	if cred.NextUser == "" {
		return 0, nil
	}
	took, _, err := u.rotated(cred)
	if err != nil {
		return 0, err
	}
	if len(took) > 0 && !in.Confirmed {
		return 0, api.Problemf(api.CodeRefused, "nothing was changed: the BMCs of %s took the new credentials, and may refuse the old ones: "+
			"set the old ones there and confirm with --yes, or continue", noderange.Fold(took))
	}
	cred.NextUser, cred.NextPassword, cred.NextKG, cred.NextAt = "", "", "", time.Time{}
	if err := u.tx.PutCredentials(cred); err != nil {
		return 0, err
	}
	if _, err := u.tellUsers(cred.Name); err != nil {
		return 0, err
	}
	return 1, u.audit(auditCredentials, "", in.Reason, fmt.Sprintf("%s: the new ones are dropped; user %s stays", cred.Name, cred.User))
}

// rotated are the nodes that use the new credentials of a name, and those that keep the old.
func (u *unitOfWork) rotated(cred store.Credentials) (took, keep []string, err error) {
	return rotated(u.tx, cred)
}

func rotated(tx *store.Tx, cred store.Credentials) (took, keep []string, err error) {
	used, err := tx.CredentialsUsed()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(used[cred.Name])) {
		n, _, err := tx.Node(name)
		if err != nil {
			return nil, nil, err
		}
		if n.Took.Equal(cred.NextAt) {
			took = append(took, name)
		} else {
			keep = append(keep, name)
		}
	}
	return took, keep, nil
}

// endRotation has the new credentials be the only ones when no node keeps the old.
func (u *unitOfWork) endRotation(cred store.Credentials) error {
	_, keep, err := u.rotated(cred)
	if err != nil || len(keep) > 0 {
		return err
	}
	cred.User, cred.Password, cred.KG, cred.SetAt, cred.SetBy = cred.NextUser, cred.NextPassword, cred.NextKG, u.now, u.who
	cred.NextUser, cred.NextPassword, cred.NextKG, cred.NextAt = "", "", "", time.Time{}
	if err := u.tx.PutCredentials(cred); err != nil {
		return err
	}
	n, err := u.tellUsers(cred.Name)
	if err != nil {
		return err
	}
	return u.audit(auditCredentials, "", "",
		fmt.Sprintf("%s: user %s has taken the place of the old ones; %s", cred.Name, cred.User, usedBy(n)))
}

// otherID names the credentials that a node does not use: new, or old where it took the new.
func otherID(cred store.Credentials, took bool) string {
	word := "new"
	if took {
		word = "old"
	}
	return strconv.FormatInt(cred.NextAt.UnixNano(), 10) + " " + word
}

// rotate gives an assigned node both credentials.
func (l *logins) rotate(a *api.AssignedNode, n store.Node, cred store.Credentials) {
	if cred.NextUser == "" {
		return
	}
	now := power.Login{User: cred.User, Password: cred.Password, KG: cred.KG}
	other := power.Login{User: cred.NextUser, Password: cred.NextPassword, KG: cred.NextKG}
	took := n.Took.Equal(cred.NextAt)
	if took {
		now, other = other, now
	}
	ep, err := power.ParseEndpoint(a.BMC)
	if err != nil {
		return
	}
	ep.User = now.User
	a.BMC, a.Password, a.KG = ep.String(), string(now.Password), cmp.Or(string(n.KG), string(now.KG))
	a.Other, a.OtherUser, a.OtherPassword, a.OtherKG = otherID(cred, took), other.User, string(other.Password), string(other.KG)
}

// taken notes what agents say of credentials that BMCs took.
func (u *unitOfWork) taken(agent string, all []api.NodeTest) error {
	for _, t := range all {
		if t.Other == "" || t.Reach != power.ReachOK {
			continue
		}
		n, found, err := u.tx.Node(t.Node)
		if err != nil {
			return err
		}
		if !found || n.Agent != agent {
			continue
		}
		cred, err := u.rotationOf(n)
		if err != nil || cred.NextUser == "" {
			if err != nil {
				return err
			}
			continue
		}
		took := n.Took.Equal(cred.NextAt)
		if t.Other != otherID(cred, took) {
			continue // of before
		}
		next, what := cred.NextAt, "took the new credentials"
		if took {
			next, what = time.Time{}, "took the old credentials again"
		}
		rev, err := u.rev(agent)
		if err != nil {
			return err
		}
		err = errors.Join(u.tx.Took(n.Name, next), u.tx.TellNode(n.Name, rev), u.audit("credentials-taken", n.Name, "",
			fmt.Sprintf("its BMC %s %s", what, cred.Name)))
		if err != nil {
			return err
		}
		if err := u.endRotation(cred); err != nil {
			return err
		}
	}
	return nil
}

// rotationOf is the credentials that count for a node.
func (u *unitOfWork) rotationOf(n store.Node) (store.Credentials, error) {
	a, _, err := u.tx.Agent(n.Agent)
	if err != nil {
		return store.Credentials{}, err
	}
	s, err := a.Settings()
	if err != nil {
		return store.Credentials{}, err
	}
	name := cmp.Or(n.Credentials, s.Credentials)
	if n.Password != "" || name == "" {
		return store.Credentials{}, nil
	}
	cred, _, err := u.tx.Credentials(name)
	return cred, err
}
