package noderange

import (
	"fmt"
	"slices"
	"strings"
)

// Node is what groups go by.
type Node struct {
	Name, Rack, Status, State string
	Labels                    Labels
}

// UnknownError names nodes that an expression asks for and that do not exist.
type UnknownError struct {
	Names []string
	// Similar is an existing name that is nearly the first of them, or "".
	Similar string
}

// Error names them, folded.
func (e *UnknownError) Error() string {
	text := "no such node: " + Fold(e.Names)
	if e.Similar != "" {
		text += fmt.Sprintf(" (did you mean %s?)", e.Similar)
	}
	return text
}

// EmptyError says that nothing is selected.
type EmptyError struct{ Expr string }

// Error says so.
func (e *EmptyError) Error() string { return fmt.Sprintf("no node matches %q", e.Expr) }

// Select returns the names that the expression selects from the nodes, sorted
// naturally. Its errors are *SyntaxError, *UnknownError and *EmptyError.
func Select(expr string, nodes []Node) ([]string, error) {
	e, err := Parse(expr)
	if err != nil {
		return nil, err
	}
	list, err := e.Select(nodes)
	if err == nil && len(list) == 0 {
		return nil, &EmptyError{Expr: expr}
	}
	return list, err
}

// Select returns the names that the expression selects, sorted naturally; none
// is not an error here.
func (e *Expr) Select(nodes []Node) ([]string, error) { return e.From(List(nodes)) }

// From is Select of the nodes of a source, whose errors it returns as well. It takes as long as
// finding what the parts of the expression select.
func (e *Expr) From(s Source) ([]string, error) {
	if isAll(e.root) {
		all, err := s.All()
		Sort(all)
		return all, err
	}
	picked, err := e.root.pick(s)
	if err != nil {
		return nil, err
	}
	list := picked.names()
	Sort(list)
	return list, nil
}

// isAll reports whether an expression is "all" and nothing else.
func isAll(n node) bool {
	switch n := n.(type) {
	case everyone:
		return true
	case union:
		return len(n) == 1 && isAll(n[0])
	case intersect:
		return len(n) == 1 && isAll(n[0])
	}
	return false
}

type set map[string]bool

func (s set) names() []string {
	list := make([]string, 0, len(s))
	for name := range s {
		list = append(list, name)
	}
	return list
}

func (n union) pick(s Source) (set, error) {
	var out set
	for i, part := range n {
		ex, excludes := part.(exclude)
		if excludes {
			part = ex.node
		}
		picked, err := part.pick(s)
		switch {
		case err != nil:
			return nil, err
		case excludes && i == 0:
			all, err := s.All()
			if err != nil {
				return nil, err
			}
			out = setOf(all).without(picked)
		case excludes:
			out = out.without(picked)
		case i == 0:
			out = picked
		default:
			for name := range picked {
				out[name] = true
			}
		}
	}
	return out, nil
}

func (s set) without(others set) set {
	for name := range others {
		delete(s, name)
	}
	return s
}

// pick looks for what a status or a state selects when it knows what the other parts do: where
// that is little, nothing else is looked at. What is taken away comes last.
func (n intersect) pick(s Source) (set, error) {
	if len(n) == 1 {
		return n[0].pick(s)
	}
	var out set // nil: not begun
	and := func(picked set, err error) error {
		if err == nil && out == nil {
			out = picked
		} else if err == nil {
			out = out.both(picked)
		}
		return err
	}
	var wide []group
	var negated []node
	for _, part := range n {
		if g, ok := part.(group); ok && g.wide() {
			wide = append(wide, g)
		} else if what, ok := negation(part); ok {
			negated = append(negated, what)
		} else if err := and(part.pick(s)); err != nil {
			return nil, err
		}
	}
	for _, g := range wide {
		var among []string
		if out != nil {
			among = out.names()
		}
		found, err := g.find(s, among)
		if err := and(setOf(found), err); err != nil {
			return nil, err
		}
	}
	if out == nil {
		return union{exclude{union(negated)}}.pick(s)
	}
	for _, what := range negated {
		picked, err := what.pick(s)
		if err != nil {
			return nil, err
		}
		out = out.without(picked)
	}
	return out, nil
}

// negation is what a part of an intersection takes away, such as !x in a&!x.
func negation(part node) (what node, ok bool) {
	u, ok := part.(union)
	if !ok || len(u) != 1 {
		return nil, false
	}
	ex, ok := u[0].(exclude)
	return ex.node, ok
}

func (s set) both(others set) set {
	for name := range s {
		if !others[name] {
			delete(s, name)
		}
	}
	return s
}

func (everyone) pick(s Source) (set, error) {
	all, err := s.All()
	return setOf(all), err
}

// wide reports whether the group may have a large part of all nodes, and may have none.
func (n group) wide() bool { return n.key == "status" || n.key == "state" }

// find returns the names of the group; among what is worth looking at, nil: all.
func (n group) find(s Source, among []string) ([]string, error) {
	if among != nil && len(among) == 0 {
		return nil, nil
	}
	found, err := s.Group(n.key, n.value, among)
	if err == nil && len(found) == 0 && !n.wide() {
		return nil, &EmptyError{Expr: n.text}
	}
	return found, err
}

func (n group) pick(s Source) (set, error) {
	found, err := n.find(s, nil)
	return setOf(found), err
}

func (n names) pick(s Source) (set, error) {
	out := make(set, len(n.list))
	plain := make([]string, 0, len(n.list))
	for _, name := range n.list {
		if !strings.ContainsAny(name, wildcards) {
			plain = append(plain, name)
		} else if found, err := match(s, name, out); err != nil {
			return nil, err
		} else if !found {
			return nil, &EmptyError{Expr: name}
		}
	}
	if len(plain) == 0 {
		return out, nil
	}
	found, err := s.Named(plain)
	if err != nil {
		return nil, err
	}
	for _, name := range found {
		out[name] = true
	}
	if missing := slices.DeleteFunc(plain, func(name string) bool { return out[name] }); len(missing) > 0 {
		all, err := s.All()
		if err != nil {
			return nil, err
		}
		return nil, &UnknownError{Names: missing, Similar: similar(missing[0], all)}
	}
	return out, nil
}

// similar finds a name that is one edit away.
func similar(name string, all []string) string {
	for _, other := range all {
		if oneEdit(name, other) {
			return other
		}
	}
	return ""
}

func oneEdit(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) == len(b) {
		return i < len(a) && (a[i+1:] == b[i+1:] || i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:])
	}
	return a[i:] == b[i+1:]
}
