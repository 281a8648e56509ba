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
func (e *Expr) Select(nodes []Node) ([]string, error) {
	u := &universe{nodes: nodes, byName: make(map[string]bool, len(nodes))}
	for _, n := range nodes {
		u.byName[n.Name] = true
	}
	picked, err := e.root.pick(u)
	if err != nil {
		return nil, err
	}
	list := make([]string, 0, len(picked))
	for name := range picked {
		list = append(list, name)
	}
	Sort(list)
	return list, nil
}

type universe struct {
	nodes  []Node
	byName map[string]bool
}

func (u *universe) all() set {
	s := make(set, len(u.nodes))
	for name := range u.byName {
		s[name] = true
	}
	return s
}

type set map[string]bool

func (n union) pick(u *universe) (set, error) {
	out := set{}
	for i, part := range n {
		ex, excludes := part.(exclude)
		if excludes {
			part = ex.node
		}
		s, err := part.pick(u)
		if err != nil {
			return nil, err
		}
		if excludes && i == 0 {
			out = u.all()
		}
		for name := range s {
			if excludes {
				delete(out, name)
			} else {
				out[name] = true
			}
		}
	}
	return out, nil
}

func (n intersect) pick(u *universe) (set, error) {
	var out set
	for i, part := range n {
		s, err := part.pick(u)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			out = s
			continue
		}
		for name := range out {
			if !s[name] {
				delete(out, name)
			}
		}
	}
	return out, nil
}

func (everyone) pick(u *universe) (set, error) { return u.all(), nil }

func (n group) pick(u *universe) (set, error) {
	out := set{}
	known := false
	for _, node := range u.nodes {
		if n.key == "label" {
			if node.Labels.Has(n.value) {
				out[node.Name], known = true, true
			}
			continue
		}
		value := node.Rack
		switch n.key {
		case "status":
			value = node.Status
		case "state":
			value = node.State
		}
		if strings.EqualFold(value, n.value) {
			out[node.Name] = true
		}
		known = known || strings.EqualFold(value, n.value)
	}
	if !known && (n.key == "rack" || n.key == "label") {
		return nil, &EmptyError{Expr: n.text}
	}
	return out, nil
}

func (n names) pick(u *universe) (set, error) {
	out := make(set, len(n.list))
	var missing []string
	for _, name := range n.list {
		if strings.ContainsAny(name, wildcards) {
			if !u.match(name, out) {
				return nil, &EmptyError{Expr: name}
			}
			continue
		}
		if !u.byName[name] {
			missing = append(missing, name)
		}
		out[name] = true
	}
	if len(missing) > 0 {
		return nil, &UnknownError{Names: missing, Similar: similar(missing[0], u.nodes)}
	}
	return out, nil
}

// similar finds a name that is one edit away.
func similar(name string, nodes []Node) string {
	i := slices.IndexFunc(nodes, func(n Node) bool { return oneEdit(name, n.Name) })
	if i < 0 {
		return ""
	}
	return nodes[i].Name
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
