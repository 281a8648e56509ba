package noderange

import (
	"slices"
	"strings"
)

// Source is the nodes that expressions select from: it finds names without looking at all of
// them, where it can. None of its answers names a node twice; their order does not matter.
type Source interface {
	// All are the names of all nodes.
	All() ([]string, error)
	// Named are those of the names that exist.
	Named(names []string) ([]string, error)
	// Prefixed are the names that begin so.
	Prefixed(prefix string) ([]string, error)
	// Group are the names of a group: key is rack, status, state or label, and value is compared as
	// Node.In does. With among only those need to be looked at; nil: all.
	Group(key, value string, among []string) ([]string, error)
}

// In reports whether the node is in a group, which case does not matter for but in labels.
func (n Node) In(key, value string) bool {
	switch key {
	case "label":
		return n.Labels.Has(value)
	case "status":
		return strings.EqualFold(n.Status, value)
	case "state":
		return strings.EqualFold(n.State, value)
	}
	return strings.EqualFold(n.Rack, value)
}

// List is a Source of nodes that are all known.
type List []Node

func (l List) where(is func(Node) bool) ([]string, error) {
	var names []string
	for _, n := range l {
		if is(n) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// All is of Source.
func (l List) All() ([]string, error) { return l.where(func(Node) bool { return true }) }

// Named is of Source.
func (l List) Named(names []string) ([]string, error) {
	wanted := setOf(names)
	return l.where(func(n Node) bool { return wanted[n.Name] })
}

// Prefixed is of Source.
func (l List) Prefixed(prefix string) ([]string, error) {
	return l.where(func(n Node) bool { return strings.HasPrefix(n.Name, prefix) })
}

// Group is of Source.
func (l List) Group(key, value string, _ []string) ([]string, error) {
	return l.where(func(n Node) bool { return n.In(key, value) })
}

// Within is the nodes of a source that are among the names, as if there were no others.
func Within(s Source, names map[string]bool) Source { return within{s, names} }

type within struct {
	Source
	names map[string]bool
}

func (w within) only(names []string, err error) ([]string, error) {
	return slices.DeleteFunc(names, func(name string) bool { return !w.names[name] }), err
}

func (w within) All() ([]string, error) { return w.only(w.Source.All()) }

func (w within) Named(names []string) ([]string, error) { return w.only(w.Source.Named(names)) }

func (w within) Prefixed(prefix string) ([]string, error) { return w.only(w.Source.Prefixed(prefix)) }

func (w within) Group(key, value string, among []string) ([]string, error) {
	return w.only(w.Source.Group(key, value, among))
}

// Also is the nodes of a source and others, which have a name and nothing else.
func Also(s Source, names []string) Source { return also{s, names} }

type also struct {
	Source
	names []string
}

func (a also) add(found []string, err error, is func(string) bool) ([]string, error) {
	if err != nil {
		return nil, err
	}
	have := setOf(found)
	for _, name := range a.names {
		if !have[name] && is(name) {
			have[name] = true
			found = append(found, name)
		}
	}
	return found, nil
}

func (a also) All() ([]string, error) {
	found, err := a.Source.All()
	return a.add(found, err, func(string) bool { return true })
}

func (a also) Named(names []string) ([]string, error) {
	wanted := setOf(names)
	found, err := a.Source.Named(names)
	return a.add(found, err, func(name string) bool { return wanted[name] })
}

func (a also) Prefixed(prefix string) ([]string, error) {
	found, err := a.Source.Prefixed(prefix)
	return a.add(found, err, func(name string) bool { return strings.HasPrefix(name, prefix) })
}

func setOf(names []string) set {
	s := make(set, len(names))
	for _, name := range names {
		s[name] = true
	}
	return s
}
