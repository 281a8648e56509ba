package powertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rackpower/power"
)

// fakeDriver is a session to a BMC of a Fake.
type fakeDriver struct {
	bmc    *BMC
	boot   int // the start of the BMC in which the session was opened
	closed bool
	lost   bool // an answer did not come: to be dialled again
}

// gone says why nothing that is sent now would be answered; nil: it would be.
func (d *fakeDriver) gone(sent bool) *power.Error {
	switch {
	case d.closed:
		return &power.Error{Kind: power.KindUnreachable, Lost: true, Err: errors.New("the session is closed")}
	case d.lost:
		return &power.Error{Kind: power.KindUnreachable, Lost: true, Err: errors.New("the session was lost before")}
	case d.bmc.deadLocked(), d.boot != d.bmc.boots:
		return silent(sent)
	}
	return nil
}

// exchange is the BMC's, and notes that the session is lost.
func (d *fakeDriver) exchange(ctx context.Context, op string, act func() *power.Error) error {
	err := d.bmc.exchange(ctx, op, act)
	var e *power.Error
	if errors.As(err, &e) && e.Lost {
		d.bmc.set(func() { d.lost = true })
	}
	return err
}

// State implements power.Driver.
func (d *fakeDriver) State(ctx context.Context) (power.State, error) {
	state := power.Unknown
	err := d.exchange(ctx, "state", func() *power.Error {
		b := d.bmc
		b.counts.Reads++
		if e := d.gone(false); e != nil {
			return e
		}
		if kind, failed := b.failReads.take(); failed {
			return &power.Error{Kind: kind, Lost: kind == power.KindUnreachable}
		}
		state = b.reported(time.Now())
		return nil
	})
	if err != nil {
		return power.Unknown, err
	}
	return state, nil
}

// commands lists what Do takes.
var commands = []power.Command{power.PowerOn, power.PowerOff, power.PressSoftOff, power.HardReset, power.PulseDiag, power.ResetBMC}

// Consumption implements power.Meter.
func (d *fakeDriver) Consumption(ctx context.Context) (c power.Consumption, _ error) {
	err := d.exchange(ctx, "consumption", func() *power.Error {
		b := d.bmc
		b.counts.Reads++
		if e := d.gone(false); e != nil {
			return e
		}
		if kind, failed := b.failReads.take(); failed {
			return &power.Error{Kind: kind, Lost: kind == power.KindUnreachable}
		}
		if b.noMeter {
			return &power.Error{Kind: power.KindUnsupported, Err: errors.New("there is no meter")}
		}
		b.settle(time.Now())
		c = b.consumption()
		return nil
	})
	return c, err
}

// SetLimit implements power.Meter.
func (d *fakeDriver) SetLimit(ctx context.Context, watts int) error {
	return d.command(ctx, Entry{Command: power.SetLimit, Limit: watts})
}

// Do implements power.Driver.
func (d *fakeDriver) Do(ctx context.Context, cmd power.Command) error {
	if !slices.Contains(commands, cmd) {
		return &power.Error{Kind: power.KindUnsupported, Op: "command", Err: fmt.Errorf("there is no command %q", cmd)}
	}
	return d.command(ctx, Entry{Command: cmd})
}

// command has a command arrive, and its effect if it has one.
func (d *fakeDriver) command(ctx context.Context, e Entry) error {
	cmd := e.Command
	return d.exchange(ctx, string(cmd), func() *power.Error {
		b := d.bmc
		if kind, failed := b.failSends.take(); failed {
			return &power.Error{Kind: kind, Lost: true, Err: errors.New("as the test asked, it did not leave")}
		}
		if e := d.gone(true); e != nil {
			return e
		}
		if cmd == power.SetLimit && b.noMeter {
			return &power.Error{Kind: power.KindUnsupported, Err: errors.New("there is no meter")}
		}
		if kind, failed := b.failNext.take(); failed {
			b.arrive(e)
			return refusal(kind)
		}
		e.Executed = !b.stuck && (!b.deaf || cmd != power.PressSoftOff)
		b.arrive(e)
		switch {
		case !e.Executed:
		case cmd == power.SetLimit:
			b.limit = e.Limit
			b.counts.Limits++
		default:
			b.execute(cmd)
		}
		if b.loseAnswers > 0 {
			b.loseAnswers--
			return silent(true)
		}
		return nil
	})
}

// SetBoot implements power.Driver.
func (d *fakeDriver) SetBoot(ctx context.Context, dev power.BootDevice) error {
	if dev != power.BootNone && !slices.Contains(power.BootDevices, dev) {
		return &power.Error{Kind: power.KindUnsupported, Op: "boot", Err: fmt.Errorf("there is no boot device %q", dev)}
	}
	return d.exchange(ctx, "boot", func() *power.Error {
		b := d.bmc
		if e := d.gone(false); e != nil {
			return e
		}
		if kind, failed := b.failNext.take(); failed {
			b.arrive(Entry{Boot: dev})
			e := refusal(kind)
			e.Sent = false
			return e
		}
		b.arrive(Entry{Boot: dev, Executed: !b.stuck})
		if !b.stuck {
			b.bootDev = dev
		}
		return nil
	})
}

// Close implements power.Driver.
func (d *fakeDriver) Close() error {
	return d.bmc.exchange(context.Background(), "close", func() *power.Error {
		if !d.closed && d.boot == d.bmc.boots && d.bmc.sessions > 0 {
			d.bmc.sessions--
		}
		d.closed = true
		return nil
	})
}

// refusal is the error of a command that was answered with kind.
func refusal(kind power.ErrorKind) *power.Error {
	return &power.Error{
		Kind: kind,
		Sent: kind != power.KindCanceled && kind != power.KindAuth,
		Lost: kind == power.KindUnreachable,
		Err:  errors.New("as the test asked"),
	}
}
