package bmcpool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"rackpower/power"
)

// bounded is a driver whose calls end within a time. Their contexts may end for that
// reason only, so that to people it is the BMC that gave no answer.
type bounded struct {
	power.Driver
	within time.Duration
}

// State implements power.Driver.
func (d bounded) State(ctx context.Context) (power.State, error) {
	state, err := d.Driver.State(ctx)
	return state, unanswered(err, d.within)
}

// Do implements power.Driver.
func (d bounded) Do(ctx context.Context, cmd power.Command) error {
	return unanswered(d.Driver.Do(ctx, cmd), d.within)
}

// SetBoot implements power.Driver.
func (d bounded) SetBoot(ctx context.Context, dev power.BootDevice) error {
	return unanswered(d.Driver.SetBoot(ctx, dev), d.within)
}

// as is what the driver can do besides, if it can.
func as[A any](d power.Driver) (a A, ok bool) {
	if b, is := d.(bounded); is {
		d = b.Driver
	}
	a, ok = d.(A)
	return a, ok
}

// tester is what of the driver tells more of its BMC, if it can.
func tester(d power.Driver) (t power.Tester, ok bool) {
	if b, is := d.(bounded); is {
		d = b.Driver
	}
	t, ok = d.(power.Tester)
	return t, ok
}

// MeterOf is what of the driver reads and limits what a node takes; one that says
// "unsupported" if it has none.
func MeterOf(d power.Driver) power.Meter {
	m, ok := as[power.Meter](d)
	if !ok {
		return noMeter{}
	}
	if b, is := d.(bounded); is {
		return boundedMeter{m, b.within}
	}
	return m
}

type boundedMeter struct {
	power.Meter
	within time.Duration
}

// Consumption implements power.Meter.
func (m boundedMeter) Consumption(ctx context.Context) (power.Consumption, error) {
	c, err := m.Meter.Consumption(ctx)
	return c, unanswered(err, m.within)
}

// SetLimit implements power.Meter.
func (m boundedMeter) SetLimit(ctx context.Context, watts int) error {
	return unanswered(m.Meter.SetLimit(ctx, watts), m.within)
}

// noMeter is that of a driver that has none.
type noMeter struct{}

var errNoMeter = &power.Error{
	Kind: power.KindUnsupported, Op: "power reading and limit",
	Err: errors.New("the driver of the BMC has none"),
}

// Consumption implements power.Meter.
func (noMeter) Consumption(context.Context) (power.Consumption, error) {
	return power.Consumption{}, errNoMeter
}

// SetLimit implements power.Meter.
func (noMeter) SetLimit(context.Context, int) error { return errNoMeter }

// unanswered makes "no answer" of an exchange that the bound on it has ended.
func unanswered(err error, within time.Duration) error {
	var e *power.Error
	if !errors.As(err, &e) || e.Kind != power.KindCanceled || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	none := *e
	none.Kind, none.Lost = power.KindUnreachable, true
	none.Err = fmt.Errorf("no answer within %s s", strconv.FormatFloat(within.Seconds(), 'g', 3, 64))
	return &none
}
