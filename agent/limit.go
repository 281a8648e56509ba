package agent

import (
	"context"
	"errors"
	"time"

	"rackpower/power"
)

// limit carries a cap out: the limit is read, set where it is another one, and read back. As
// the power, it is set again only after readings that show another one.
func (x *execution) limit(ctx context.Context) (power.Reason, error) {
	for {
		there, err := x.limited(ctx)
		if err != nil {
			return "", err
		}
		if there {
			return x.there(), nil
		}
		n := x.h.sendings[power.SetLimit]
		if n > 0 {
			window := x.time.Verify[min(n, len(x.time.Verify))-1]
			x.l.setPhase(x.t, "waiting for the limit of "+power.LimitText(x.op.Limit))
			there, err := x.awaitSeen(ctx, min(window, time.Until(x.h.lastSent.Add(window))), &looks{}, func() (bool, error) {
				return x.limited(ctx)
			})
			if err != nil || there {
				return power.ReasonVerified, err
			}
		}
		if n >= len(x.time.Verify) {
			return "", fail(power.ReasonNotReached, "the limit is still %s after %s was sent %d times", x.seenLimit.Text(), power.SetLimit, n)
		}
		if err := x.send(ctx, power.SetLimit); errors.Is(err, errThere) {
			return x.there(), nil
		} else if err != nil {
			return "", err
		}
	}
}

// limited reads the limit, and reports whether it is as asked. A limit at which the BMC turns
// the node off is set where that was confirmed, and never on a protected node.
func (x *execution) limited(ctx context.Context) (bool, error) {
	if x.h.sendings[power.SetLimit] == 0 {
		x.l.setPhase(x.t, "reading the limit")
	}
	var c power.Consumption
	err := x.persist(ctx, func() (err error) {
		c, err = x.consumptionNow(ctx)
		return err
	})
	if err != nil {
		return false, err
	}
	x.force = false // the log-in passed
	if c.Limit == nil {
		return false, fail(power.ReasonUnsupported, "the BMC reads the power and cannot limit it")
	}
	x.seenLimit = *c.Limit
	if c.Limit.Now() == x.op.Limit {
		return true, nil
	}
	if x.op.Limit == 0 || !c.Limit.Exception.CutsPower() {
		return false, nil
	}
	if n, _ := x.a.assigned.get(x.l.node); n.Protected.On() {
		return false, protected(n)
	}
	if !x.op.Confirmed {
		return false, fail(power.ReasonLimitCuts, "the BMC turns the node off when it takes more than its limit for too long (%s), which was "+
			"not confirmed", c.Limit.Exception)
	}
	return false, nil
}

// consumptionNow is stateNow for what the node takes.
func (x *execution) consumptionNow(ctx context.Context) (power.Consumption, error) {
	for {
		if err := x.locate(); err != nil {
			return power.Consumption{}, err
		}
		c, err := x.bmc.Consumption(ctx, x.ep, x.force)
		if now, gone := x.a.assigned.endpoint(x.l.node); gone != nil || now == x.ep || stops(ctx, err) {
			return c, err
		}
	}
}
