package store

import (
	"database/sql"
	"fmt"
	"strings"

	"rackpower/power/noderange"
)

const (
	sqlNames    = `SELECT name FROM nodes`
	sqlNamed    = `SELECT name FROM nodes WHERE name IN (SELECT value FROM json_each($1))`
	sqlPrefixed = `SELECT name FROM nodes WHERE name >= $1 AND name < $2`
	sqlInRack   = `SELECT name FROM nodes WHERE lower(rack) = $1`
	sqlInStatus = `SELECT name FROM nodes WHERE status = $1`
	sqlInState  = `SELECT name FROM nodes WHERE state = $1`
	// More may come than has the label: they are looked at one by one.
	sqlLabelled = `SELECT name, labels FROM nodes WHERE labels <> '' AND labels LIKE $1`
	sqlAmong    = ` AND name IN (SELECT value FROM json_each($2))`
)

// fewNames is up to how many names are looked at one by one rather than by the index of what is
// asked for.
const fewNames = 1000

// Selection is the nodes for expressions to select from. It finds what they ask for by indexes.
func (t *Tx) Selection() noderange.Source { return selection{t} }

type selection struct{ t *Tx }

// All is of noderange.Source.
func (s selection) All() ([]string, error) { return s.t.names(sqlNames) }

// Named is of noderange.Source.
func (s selection) Named(names []string) ([]string, error) { return s.t.names(sqlNamed, list(names)) }

// Prefixed is of noderange.Source.
func (s selection) Prefixed(prefix string) ([]string, error) {
	if prefix == "" {
		return s.All()
	}
	return s.t.names(sqlPrefixed, prefix, prefix+"\x7f") // behind all that a name may have
}

// Group is of noderange.Source. Racks are compared in lower case, statuses and states have one
// spelling in the database.
func (s selection) Group(key, value string, among []string) ([]string, error) {
	query, want := sqlInRack, strings.ToLower(value)
	switch key {
	case "label":
		return s.labelled(value)
	case "status":
		query, want = sqlInStatus, strings.ToUpper(value)
	case "state":
		query = sqlInState
	}
	if among != nil && len(among) <= fewNames {
		return s.t.names(query+sqlAmong, want, list(among))
	}
	return s.t.names(query, want)
}

func (s selection) labelled(label string) (names []string, err error) {
	key, _, _ := strings.Cut(label, "=")
	err = s.t.each(func(r *sql.Rows) error {
		var n noderange.Node
		err := r.Scan(&n.Name, (*string)(&n.Labels))
		if n.In("label", label) {
			names = append(names, n.Name)
		}
		return err
	}, sqlLabelled, "%"+key+"%")
	if err != nil {
		return nil, fmt.Errorf("cannot read labels: %w", err)
	}
	return names, nil
}
