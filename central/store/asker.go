package store

import (
	"context"
	"strings"
)

// Asker is who has a job or a view done. It travels in the context.
type Asker struct {
	Name    string // "" for central itself
	Via     string // how that is known
	Address string // where from
	Person  bool   // or a program; not central itself, nor an agent
	Scope   string // a NODES expression: the nodes that Name may see and act on; "": all
}

// is reports whether an entry of the audit log is by the asker, perhaps in another's name.
func (a Asker) is(who string) bool {
	return a.Name != "" && (who == a.Name || strings.HasPrefix(who, a.Name+" for "))
}

type askerKey struct{}

// WithAsker has the jobs and views of a context done by a.
func WithAsker(ctx context.Context, a Asker) context.Context {
	return context.WithValue(ctx, askerKey{}, a)
}

// AskerOf is who has the jobs and views of a context done.
func AskerOf(ctx context.Context) Asker {
	a, _ := ctx.Value(askerKey{}).(Asker)
	return a
}

// Asker is who has the job or view done.
func (t *Tx) Asker() Asker { return t.asker }

// As has the rest of the job done by a, such as who asked for what another one approves.
func (t *Tx) As(a Asker) { t.asker = a }
