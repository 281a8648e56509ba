package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rackpower/power"
)

// Credentials are a user and a password that nodes name instead of having their own.
type Credentials struct {
	Name     string
	User     string
	Password power.Secret
	KG       power.Secret // as power.ParseKG reads it; "" for none
	SetAt    time.Time
	SetBy    string
	// Next take the place of these, since NextAt, on each node whose BMC takes them; "": none do.
	NextUser     string
	NextPassword power.Secret
	NextKG       power.Secret
	NextAt       time.Time
	Damaged      bool // what is stored does not open: nobody logs in with it
}

const (
	credentialsColumns = `name, "user", own_password, own_kg, set_at, set_by, next_user, next_password, next_kg, next_at`

	sqlAllCredentials = `SELECT ` + credentialsColumns + ` FROM credentials ORDER BY name`
	sqlCredentials    = `SELECT ` + credentialsColumns + ` FROM credentials WHERE name = $1`
	sqlPutCredentials = `INSERT INTO credentials (` + credentialsColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (name) DO UPDATE SET "user" = excluded."user", own_password = excluded.own_password, own_kg = excluded.own_kg,
		set_at = excluded.set_at, set_by = excluded.set_by, next_user = excluded.next_user, next_password = excluded.next_password,
		next_kg = excluded.next_kg, next_at = excluded.next_at`
	sqlDelCredentials = `DELETE FROM credentials WHERE name = $1`

	// The name that counts for a node: a password of its own stands over all names.
	sqlCredentialsUsed = `SELECT used, name, agent FROM (
		SELECT coalesce(nullif(n.credentials, ''), json_extract(nullif(a.settings, ''), '$.credentials'), '') AS used, n.name, n.agent
		FROM nodes n LEFT JOIN agents a ON a.name = n.rack WHERE n.bmc <> '' AND n.password = '') AS u WHERE used <> '' ORDER BY name`
	sqlNodesNaming  = `SELECT name FROM nodes WHERE credentials = $1 ORDER BY name`
	sqlRacksNaming  = `SELECT name FROM agents WHERE json_extract(nullif(settings, ''), '$.credentials') = $1 ORDER BY name`
	sqlHasNameless  = `SELECT DISTINCT agent FROM nodes WHERE rack = $1 AND bmc <> '' AND password = '' AND credentials = '' ORDER BY agent`
	sqlTellNameless = `UPDATE nodes SET rev = $1 WHERE rack = $2 AND agent = $3 AND bmc <> '' AND password = '' AND credentials = ''`
	sqlTellNode     = `UPDATE nodes SET rev = $1 WHERE name = $2`
)

// The purposes of what is sealed; they are the names of the columns.
const (
	sealedOwnPassword  = "own_password"
	sealedOwnKG        = "own_kg"
	sealedNextPassword = "next_password"
	sealedNextKG       = "next_kg"
)

func (t *Tx) scanCredentials(r scanner) (c Credentials, err error) {
	var at, next int64
	err = r.Scan(&c.Name, &c.User, (*string)(&c.Password), (*string)(&c.KG), &at, &c.SetBy, &c.NextUser, (*string)(&c.NextPassword),
		(*string)(&c.NextKG), &next)
	if err != nil {
		return c, err
	}
	c.SetAt, c.NextAt = timeAt(at), timeAt(next)
	if t.open(&c.NextPassword, sealedNextPassword, c.Name)+t.open(&c.NextKG, sealedNextKG, c.Name) != "" {
		c.NextUser = "" // they cannot be tried
	}
	c.Damaged = t.open(&c.Password, sealedOwnPassword, c.Name)+t.open(&c.KG, sealedOwnKG, c.Name) != ""
	return c, nil
}

// AllCredentials lists the credentials by name.
func (t *Tx) AllCredentials() (all []Credentials, err error) {
	err = t.each(func(r *sql.Rows) error {
		c, err := t.scanCredentials(r)
		all = append(all, c)
		return err
	}, sqlAllCredentials)
	if err != nil {
		return nil, fmt.Errorf("cannot read credentials: %w", err)
	}
	return all, nil
}

// Credentials returns those of a name.
func (t *Tx) Credentials(name string) (c Credentials, found bool, err error) {
	c, err = t.scanCredentials(t.row(sqlCredentials, name))
	if errors.Is(err, sql.ErrNoRows) {
		return Credentials{}, false, nil
	}
	if err != nil {
		return Credentials{}, false, fmt.Errorf("cannot read credentials %s: %w", name, disk(err))
	}
	return c, true, nil
}

// PutCredentials adds or replaces credentials.
func (t *Tx) PutCredentials(c Credentials) error {
	_, err := t.exec(sqlPutCredentials, c.Name, c.User, t.seal(c.Password, sealedOwnPassword, c.Name), t.seal(c.KG, sealedOwnKG, c.Name),
		nanos(c.SetAt), c.SetBy, c.NextUser, t.seal(c.NextPassword, sealedNextPassword, c.Name), t.seal(c.NextKG, sealedNextKG, c.Name),
		nanos(c.NextAt))
	if err != nil {
		return fmt.Errorf("cannot save credentials %s: %w", c.Name, err)
	}
	return nil
}

// DeleteCredentials removes credentials.
func (t *Tx) DeleteCredentials(name string) error {
	if _, err := t.exec(sqlDelCredentials, name); err != nil {
		return fmt.Errorf("cannot remove credentials %s: %w", name, err)
	}
	return nil
}

// CredentialsUsed returns, for each name of credentials that counts for nodes, these nodes
// with their agents.
func (t *Tx) CredentialsUsed() (map[string]map[string]string, error) {
	used := map[string]map[string]string{}
	err := t.each(func(r *sql.Rows) error {
		var name, node, agent string
		err := r.Scan(&name, &node, &agent)
		if used[name] == nil {
			used[name] = map[string]string{}
		}
		used[name][node] = agent
		return err
	}, sqlCredentialsUsed)
	if err != nil {
		return nil, fmt.Errorf("cannot read who uses credentials: %w", err)
	}
	return used, nil
}

// CredentialsNamed returns the nodes and the racks that name credentials, whether they count
// for them or not.
func (t *Tx) CredentialsNamed(name string) (nodes, racks []string, err error) {
	for _, q := range []struct {
		query string
		into  *[]string
	}{{sqlNodesNaming, &nodes}, {sqlRacksNaming, &racks}} {
		err := t.each(func(r *sql.Rows) error {
			var one string
			err := r.Scan(&one)
			*q.into = append(*q.into, one)
			return err
		}, q.query, name)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read who names credentials: %w", err)
		}
	}
	return nodes, racks, nil
}

// TellNamelessNodes has agents told anew of the nodes of a rack that have neither a password nor
// a name of credentials: what their rack names counts for them, whoever has them. rev gives the
// revision of an agent's assignment as of which it is told.
func (t *Tx) TellNamelessNodes(rack string, rev func(agent string) (int64, error)) error {
	var agents []string
	err := t.each(func(r *sql.Rows) error {
		var agent string
		err := r.Scan(&agent)
		agents = append(agents, agent)
		return err
	}, sqlHasNameless, rack)
	for _, agent := range agents {
		if err != nil {
			break
		}
		var at int64
		if at, err = rev(agent); err == nil {
			_, err = t.exec(sqlTellNameless, at, rack, agent)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot save nodes of rack %s: %w", rack, err)
	}
	return nil
}

// Took notes which new credentials the node's BMC took: those since at, zero for none.
func (t *Tx) Took(node string, at time.Time) error {
	if _, err := t.exec(`UPDATE nodes SET took = $1 WHERE name = $2`, nanos(at), node); err != nil {
		return fmt.Errorf("cannot save node %s: %w", node, err)
	}
	return nil
}

// TellNode has the node's agent told of it anew, as of rev.
func (t *Tx) TellNode(name string, rev int64) error {
	if _, err := t.exec(sqlTellNode, rev, name); err != nil {
		return fmt.Errorf("cannot save node %s: %w", name, err)
	}
	return nil
}
