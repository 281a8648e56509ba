package central

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power/noderange"
)

// within is the names that the scope of who asks has, of the nodes that there are; nil: all of
// them. An expression that names nodes which are gone has the rest.
func within(tx *store.Tx) (map[string]bool, error) {
	scope := tx.Asker().Scope
	if scope == "" {
		return nil, nil
	}
	return scopeOf(scope, tx.Selection())
}

// scopeOf is the names that a scope has; it may have none for now.
func scopeOf(scope string, from noderange.Source) (map[string]bool, error) {
	names, _, err := selectThere(scope, from)
	var none *noderange.EmptyError
	if err != nil && !errors.As(err, &none) {
		return nil, fmt.Errorf("scope %q: %w", scope, err)
	}
	in := make(map[string]bool, len(names))
	for _, name := range names {
		in[name] = true
	}
	return in, nil
}

// mayTouch refuses all when one of the names is beyond the scope of who asks.
func mayTouch(tx *store.Tx, names ...string) error {
	in, err := within(tx)
	if in == nil || err != nil {
		return err
	}
	beyond := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return in[name] })
	if len(beyond) == 0 {
		return nil
	}
	return beyondScope(tx, beyond)
}

// mayPut refuses nodes that are beyond the scope of who asks, as they are or as they would
// be.
func mayPut(tx *store.Tx, specs []api.NodeSpec) error {
	if tx.Asker().Scope == "" {
		return nil
	}
	nodes, err := tx.Nodes()
	if err != nil {
		return err
	}
	at := make(map[string]int, len(nodes))
	for i, n := range nodes {
		at[n.Name] = i
	}
	all, names, old := rangesOf(nodes), make([]string, len(specs)), []string{}
	for i, s := range specs {
		next := noderange.Node{Name: s.Name, Rack: s.Rack, Status: string(s.Status)}
		if k, found := at[s.Name]; found {
			old = append(old, s.Name)
			if !slices.Contains(s.Clear, "labels") {
				next.Labels = all[k].Labels
			}
			next.State, next.Rack, next.Status = all[k].State, cmp.Or(next.Rack, all[k].Rack), cmp.Or(next.Status, all[k].Status)
			next.Labels = next.Labels.With(s.Labels)
			all[k] = next
		} else {
			next.Labels = next.Labels.With(s.Labels)
			all = append(all, next)
		}
		names[i] = s.Name
	}
	if err := mayTouch(tx, old...); err != nil {
		return err
	}
	in, err := scopeOf(tx.Asker().Scope, noderange.List(all))
	if err != nil {
		return err
	}
	if beyond := slices.DeleteFunc(names, func(name string) bool { return in[name] }); len(beyond) > 0 {
		return beyondScope(tx, beyond)
	}
	return nil
}

func beyondScope(tx *store.Tx, names []string) error {
	return api.Problemf(api.CodeForbidden, "not permitted: %s may see and act on %s only, and not on %s", tx.Asker().Name, tx.Asker().Scope,
		brief(names))
}

// selectWithin is selectNodes among the nodes that the scope of who asks has. What lies
// beyond is answered as what is not there.
func selectWithin(tx *store.Tx, expr string, from noderange.Source) ([]string, error) {
	in, err := within(tx)
	if err != nil {
		return nil, err
	}
	if in == nil {
		return selectNodes(expr, from)
	}
	names, err := selectNodes(expr, noderange.Within(from, in))
	var unknown *noderange.UnknownError
	if errors.As(err, &unknown) {
		return nil, beyondScope(tx, unknown.Names)
	}
	return names, err
}
