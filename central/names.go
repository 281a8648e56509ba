package central

import (
	"fmt"
	"strings"

	"rackpower/central/store"
)

// namebook is the names that there are, of one kind, to find those that differ from
// another by case alone: who types one of two such names may mean the other.
type namebook struct {
	kind string
	read func() ([]string, error)
	all  map[string]string // by the name in lower case; nil: not read yet
}

// names are those of nodes, racks and power domains.
type names struct{ nodes, racks, domains namebook }

func readNames(tx *store.Tx) *names {
	return &names{
		namebook{kind: "node", read: tx.NodeNames},
		namebook{kind: "rack", read: tx.AgentNames},
		namebook{kind: "power domain", read: tx.DomainNames},
	}
}

// take notes the names of a node that was old, if there was one, and is next.
func (n *names) take(old, next store.Node) (wrong, err error) {
	for _, t := range []struct {
		book    *namebook
		was, is string
	}{{&n.nodes, old.Name, next.Name}, {&n.racks, old.Rack, next.Rack}, {&n.domains, old.Domain, next.Domain}} {
		if t.is == "" || t.is == t.was {
			continue
		}
		if wrong, err := t.book.take(t.is); wrong != nil || err != nil {
			return wrong, err
		}
	}
	return nil, nil
}

// take notes a name that is to exist from now on. wrong says which one of before it
// differs from by case alone.
func (b *namebook) take(name string) (wrong, err error) {
	if b.all == nil {
		names, err := b.read()
		if err != nil {
			return nil, err
		}
		b.all = make(map[string]string, len(names))
		for _, n := range names {
			b.all[strings.ToLower(n)] = n
		}
	}
	low := strings.ToLower(name)
	if other, ok := b.all[low]; ok && other != name {
		return fmt.Errorf("there is a %s %s already, which differs from %s by case alone: give that name, or another one", b.kind, other,
			name), nil
	}
	b.all[low] = name
	return nil, nil
}
