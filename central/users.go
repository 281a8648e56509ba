package central

import (
	"errors"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power/noderange"
)

// maxUsers bounds the table of users.
const maxUsers = 10_000

func (c *Central) listUsers(r *http.Request) ([]api.User, error) {
	out := []api.User{}
	err := c.store.View(r.Context(), func(tx *store.Tx) error {
		users, err := tx.Users()
		for _, u := range users {
			out = append(out, showUser(u))
		}
		return err
	})
	return out, err
}

func showUser(u store.User) api.User {
	out := api.User{
		Name: u.Name, Role: u.Role, Nodes: u.Scope, SpeaksForOthers: u.Speaks, CreatedAt: u.CreatedAt, CreatedBy: u.CreatedBy,
		HasToken: u.Tokens > 0,
	}
	if !u.ExpiresAt.IsZero() {
		out.ExpiresAt = &u.ExpiresAt
	}
	if !u.UsedAt.IsZero() {
		out.UsedAt = &u.UsedAt
	}
	return out
}

// whoAmI says who asks, as it is known here.
func (c *Central) whoAmI(r *http.Request) (api.User, error) {
	p := httpserver.Principal(r)
	return api.User{Name: p.Name, Role: string(p.Role), Nodes: p.Scope, SpeaksForOthers: p.Speaks, Via: string(p.Method)}, nil
}

// addUser adds a user with a first token, or changes the role of one.
func (c *Central) addUser(r *http.Request, in api.AddUser) (api.NewToken, error) {
	role, err := auth.ParseRole(in.Role)
	if err != nil {
		return api.NewToken{}, api.Problemf(api.CodeBadRequest, "%v", err)
	}
	if in.Nodes != "" {
		if _, err := noderange.Parse(in.Nodes); err != nil {
			return api.NewToken{}, api.Problemf(api.CodeBadRequest, "nodes: %v", err)
		}
	}
	var out api.NewToken
	now, who := c.cfg.Now(), askedBy(r, in.AskedBy)
	err = c.write(r.Context(), now, who, func(u *unitOfWork) error {
		_, found, err := u.tx.User(in.Name)
		switch {
		case err != nil:
			return err
		case found && !in.Update:
			return api.Problemf(api.CodeExists, "user %s exists: --update changes the role and the nodes, rackpower user rotate makes a new token",
				in.Name)
		case !found && in.Update:
			return api.Problemf(api.CodeNotFound, "no such user: %s", in.Name)
		}
		user := store.User{Name: in.Name, Role: string(role), Scope: in.Nodes, Speaks: in.SpeaksForOthers, CreatedAt: now, CreatedBy: who}
		if err := errors.Join(u.roomForUser(found), u.tx.PutUser(user)); err != nil {
			return err
		}
		detail := in.Name + ": " + in.Role
		if in.Nodes != "" {
			detail += " of " + in.Nodes
		}
		out = api.NewToken{Name: in.Name}
		if !found && !in.NoToken {
			if out, err = u.newToken(in.Name, in.TTL); err != nil {
				return err
			}
		}
		return u.audit("user", "", in.Reason, detail)
	})
	return out, err
}

func (u *unitOfWork) roomForUser(known bool) error {
	if known {
		return nil
	}
	users, err := u.tx.Users()
	if err == nil && len(users) >= maxUsers {
		err = api.Problemf(api.CodeQueueFull, "there are %d users, which is the limit: remove some", maxUsers)
	}
	return err
}

func (u *unitOfWork) newToken(user string, ttl time.Duration) (api.NewToken, error) {
	out := api.NewToken{Name: user, Token: auth.NewToken()}
	var expires time.Time
	if ttl > 0 {
		expires = u.now.Add(ttl)
		out.ExpiresAt = &expires
	}
	return out, u.tx.AddToken(auth.HashToken(out.Token), user, u.now, expires)
}

// rotateToken revokes the tokens of a user and makes a new one.
func (c *Central) rotateToken(r *http.Request, in api.RotateToken) (api.NewToken, error) {
	name := r.PathValue("name")
	var out api.NewToken
	err := c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		_, found, err := u.tx.User(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such user: %s", name)
		}
		if err != nil {
			return err
		}
		if err := u.tx.DropTokens(name); err != nil {
			return err
		}
		what := name + ": tokens revoked"
		if !in.RevokeOnly {
			what = name + ": new token, the ones before are revoked"
			if out, err = u.newToken(name, in.TTL); err != nil {
				return err
			}
		}
		out.Name = name
		return u.audit("user-token", "", in.Reason, what)
	})
	return out, err
}

func (c *Central) removeUser(r *http.Request, in api.RemoveUser) (api.Changed, error) {
	name := r.PathValue("name")
	err := c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		_, found, err := u.tx.User(name)
		if err == nil && !found {
			err = api.Problemf(api.CodeNotFound, "no such user: %s", name)
		}
		if err != nil {
			return err
		}
		return errors.Join(u.tx.DropUser(name), u.audit("user-remove", "", in.Reason, name))
	})
	if err != nil {
		return api.Changed{}, err
	}
	return api.Changed{Changed: 1}, nil
}
