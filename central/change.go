package central

import (
	"cmp"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
)

// made is what came of a change.
type made struct {
	ops      []api.Op
	changed  api.Changed
	schedule api.Schedule
}

// change makes a change that somebody asks for, or keeps it until a second person approves.
func (c *Central) change(r *http.Request, ch api.Change) (out made, err error) {
	nameAskers(r, &ch)
	err = c.write(r.Context(), c.cfg.Now(), changer(ch), func(u *unitOfWork) (err error) {
		out, err = u.make(ch)
		return err
	})
	var needs *needsApproval
	if errors.As(err, &needs) {
		id := uuid.Must(uuid.NewV7()).String()
		err = c.await(r, store.Plan{Change: ch, Plan: api.Plan{ID: id}}, needs.why)
	}
	return out, err
}

// nameAskers writes who was authenticated where a change says who asks.
func nameAskers(r *http.Request, ch *api.Change) {
	switch {
	case ch.Ops != nil:
		for i := range ch.Ops.Ops {
			ch.Ops.Ops[i].AskedBy = askedBy(r, ch.Ops.Ops[i].AskedBy)
		}
	case ch.Status != nil:
		ch.Status.AskedBy = askedBy(r, ch.Status.AskedBy)
	case ch.Hold != nil:
		ch.Hold.AskedBy = askedBy(r, ch.Hold.AskedBy)
	case ch.Protect != nil:
		ch.Protect.AskedBy = askedBy(r, ch.Protect.AskedBy)
	case ch.Schedule != nil:
		ch.Schedule.AskedBy = askedBy(r, cmp.Or(ch.Schedule.AskedBy, ch.Schedule.By))
	}
}

// changer is who the audit log says does what a change brings about beside what it asks for.
func changer(ch api.Change) string {
	if ch.Ops != nil {
		return "central"
	}
	who, _ := ch.Asker()
	return who
}

// make makes a change, or finds out what it would do: there is no other way. Who asks is
// named already.
func (u *unitOfWork) make(ch api.Change) (out made, err error) {
	switch {
	case ch.Ops != nil:
		out.ops, err = u.askAll(*ch.Ops)
	case ch.Status != nil:
		out.changed, err = u.setStatuses(*ch.Status)
	case ch.Hold != nil:
		out.changed, err = u.setHolds(*ch.Hold)
	case ch.Protect != nil:
		out.changed, err = u.protectAll(*ch.Protect)
	case ch.Schedule != nil:
		out.schedule, err = u.putSchedule(*ch.Schedule)
	}
	return out, err
}

func (c *Central) askOps(r *http.Request, in api.AskOps) ([]api.Op, error) {
	if !in.DryRun {
		out, err := c.change(r, api.Change{Ops: &in})
		return out.ops, err
	}
	nameAskers(r, &api.Change{Ops: &in})
	now := c.cfg.Now()
	all := readRequests(in, now)
	var out []api.Op
	err := c.store.View(r.Context(), func(tx *store.Tx) (err error) {
		if err := mayTouch(tx, nodesOf(all)...); err != nil {
			return err
		}
		out, err = c.wouldTake(tx, all, now)
		return err
	})
	return out, err
}

func (c *Central) setStatus(r *http.Request, in api.SetStatus) (api.Changed, error) {
	out, err := c.change(r, api.Change{Status: &in})
	return out.changed, err
}

func (c *Central) setHold(r *http.Request, in api.SetHold) (api.Changed, error) {
	out, err := c.change(r, api.Change{Hold: &in})
	return out.changed, err
}

func (c *Central) protectNodes(r *http.Request, in api.ProtectNodes) (api.Changed, error) {
	out, err := c.change(r, api.Change{Protect: &in})
	return out.changed, err
}

func (c *Central) putSchedule(r *http.Request, in api.PutSchedule) (api.Schedule, error) {
	out, err := c.change(r, api.Change{Schedule: &in})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return out.schedule, err
}

// mayPlan refuses a plan that its asker may not make: as for any other body, in the names
// within it.
func mayPlan(r *http.Request, in api.MakePlan) error {
	advice := "rackpower user add --speaks-for-others"
	p := httpserver.Principal(r)
	switch {
	case in.Ops != nil:
		return httpserver.MaySpeak(p, *in.Ops, advice)
	case in.Status != nil:
		return httpserver.MaySpeak(p, *in.Status, advice)
	case in.Hold != nil:
		return httpserver.MaySpeak(p, *in.Hold, advice)
	}
	return nil
}
