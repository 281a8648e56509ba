package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// listener is a central that gives what is put into its channel and notes when it is told.
type listener struct {
	give chan api.Assignment
	told chan told
}

type told struct {
	at time.Time
	api.Report
}

func (c *listener) Target() string { return "listener" }

func (c *listener) Hello(context.Context, string, api.Hello) (api.Welcome, error) {
	return api.Welcome{Database: theCentral, Session: "s"}, nil
}

func (c *listener) Poll(ctx context.Context, _ string, in api.Poll) (api.Assignment, error) {
	out := api.Assignment{Rev: in.Rev, OpsCursor: in.Ops}
	select {
	case given := <-c.give:
		out.Reads = given.Reads
		return out, nil
	case <-time.After(in.Wait):
		return out, nil
	case <-ctx.Done():
		return api.Assignment{}, ctx.Err()
	}
}

func (c *listener) Report(_ context.Context, _ string, in api.Report) (api.Reported, error) {
	c.told <- told{time.Now(), in}
	return api.Reported{}, nil
}

func (c *listener) Goodbye(context.Context, string, api.Goodbye) error { return nil }

// settled waits until all has been told, and for the time that news gather.
func (c *listener) settled() {
	for {
		select {
		case <-c.told:
		case <-time.After(time.Minute):
			return
		}
	}
}

// withListener runs fn with an agent whose central is a listener that was told everything.
func withListener(t *testing.T, nodes int, fn func(*harness, *listener)) {
	inBubble(t, nodes, func(r *harness) {
		c := &listener{give: make(chan api.Assignment), told: make(chan told, 100)}
		r.cfg.Central = c
		r.restart()
		c.settled()
		fn(r, c)
	})
}

func TestReadingThatCentralWaitsForIsToldAtOnce(t *testing.T) {
	withListener(t, 2, func(r *harness, c *listener) {
		began := time.Now()
		r.a.readings.saw("n2", power.Seen(power.On, time.Now())) // nobody waits for this one
		synctest.Wait()
		c.give <- api.Assignment{Reads: []string{"n1"}}
		got := <-c.told
		if took := got.at.Sub(began); took != 0 || len(got.Readings) != 2 {
			t.Errorf("after %s %+v, want both readings at once", took, got.Readings)
		}
		for _, next := range []struct {
			state power.State
			after time.Duration
		}{{power.On, gatherFor}, {power.On, gatherCalm}, {power.Off, gatherFor}} {
			c.settled()
			began = time.Now()
			r.a.readings.saw("n1", power.Seen(next.state, time.Now()))
			if got := <-c.told; got.at.Sub(began) != next.after {
				t.Errorf("that n1 is %s, which nobody waits for any more, was told after %s, want %s", next.state, got.at.Sub(began), next.after)
			}
		}
	})
}

func TestAcceptanceAndEndAreToldAtOnceAndPhasesGather(t *testing.T) {
	withListener(t, 1, func(r *harness, c *listener) {
		r.bmc("n1").SetOnAfter(2 * time.Second)
		began := time.Now()
		id := r.ask("n1", power.ActOn).Op.ID
		var at []time.Duration
		var phases []string
		for {
			got := <-c.told
			if len(got.Ops) == 0 {
				continue
			}
			at, phases = append(at, got.at.Sub(began)), append(phases, got.Ops[0].Phase)
			if end := got.Ops[0].End; end != nil {
				if ended := end.At.Sub(began); at[len(at)-1] != ended {
					t.Errorf("the end of %s came after %s, told after %s", id, ended, at[len(at)-1])
				}
				break
			}
		}
		if at[0] != 0 {
			t.Errorf("accepted was told after %s", at[0])
		}
		if len(at) != 3 || at[1] != gatherFor {
			t.Errorf("told at %v: %q, want the phases together after %s", at, phases, gatherFor)
		}
	})
}
