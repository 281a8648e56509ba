package agentd

import (
	"context"
	"errors"
	"fmt"

	"rackpower/power"
	"rackpower/power/redfish"
)

// opFind names the search for a protocol in errors.
const opFind = "find the protocol"

// find opens a session to a BMC whose address does not name the protocol: Redfish where it has a
// System that can be reset, else IPMI.
//
// A certificate that is not trusted and a log-in that is refused decide nothing: whoever is in
// between must not have a BMC taken for one without Redfish, and a password that is wrong is not
// tried a second time. Nor does a BMC that says "later", or one with several Systems.
func (d *drivers) find(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	web, lan := d.as(ep, power.SchemeRedfish), d.as(ep, power.SchemeIPMI)
	probed := make(chan error, 1)
	go func() { probed <- d.ipmi.Probe(ctx, lan) }()
	driver, noRedfish := d.findRedfish(ctx, web)
	noIPMI := <-probed
	if noRedfish == nil {
		return &finding{Driver: driver, ep: web, why: "it has a Redfish System that can be reset"}, nil
	}
	kind := power.KindOf(noRedfish)
	switch {
	case kind == power.KindCanceled, kind == power.KindAuth, kind == power.KindPrivilege, kind == power.KindBusy:
		return nil, noRedfish
	case kind == power.KindUnsupported && (driver != nil || lost(noRedfish)) &&
		!errors.Is(noRedfish, redfish.ErrNoReset) && !errors.Is(noRedfish, redfish.ErrUseIPMI):
		return nil, noRedfish // several Systems, or TLS 1.2 alone
	case noIPMI != nil:
		return nil, &power.Error{Kind: kind, Op: opFind, Lost: true, Err: fmt.Errorf("it speaks neither Redfish (%w) nor IPMI (%w)",
			cause(noRedfish), cause(noIPMI))}
	}
	driver, err := d.ipmi.Dial(ctx, lan)
	if err != nil {
		return nil, err
	}
	return &finding{Driver: driver, ep: lan, why: fmt.Sprintf("IPMI answers, and Redfish is of no use: %v", cause(noRedfish))}, nil
}

// findRedfish opens a session where the BMC has a System that can be reset. With a driver beside
// the error, which is closed, the log-in had passed.
func (d *drivers) findRedfish(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	if err := d.redfish.Speaks(ctx, ep); err != nil {
		return nil, err
	}
	driver, err := d.redfish.Dial(ctx, ep)
	if err != nil {
		return nil, err
	}
	if r, ok := driver.(redfish.Resetter); ok {
		err = r.CanReset(ctx)
	}
	if err != nil {
		_ = driver.Close()
	}
	return driver, err
}

// lost reports whether there was no answer to read.
func lost(err error) bool {
	var e *power.Error
	return errors.As(err, &e) && e.Lost
}

// cause is what of an error is for people who know what was tried.
func cause(err error) error {
	var e *power.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}

// probeBoth asks by both protocols: one that answers is enough.
func (d *drivers) probeBoth(ctx context.Context, ep power.Endpoint) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, 2)
	for _, scheme := range []string{power.SchemeRedfish, power.SchemeIPMI} {
		go func() { answers <- d.Probe(ctx, d.as(ep, scheme)) }()
	}
	first := <-answers
	if first == nil {
		return nil
	}
	if second := <-answers; second != nil {
		return first
	}
	return nil
}

// finding is a session by the protocol that a BMC was found to speak. It serves readings and
// tests: what acts waits until the node's address names the protocol.
type finding struct {
	power.Driver
	ep  power.Endpoint
	why string
}

// Found implements power.Finder.
func (f *finding) Found() (power.Endpoint, string) { return f.ep, f.why }

var errNotNoted = errors.New("its protocol is not noted at central yet")

// Do implements power.Driver.
func (f *finding) Do(_ context.Context, cmd power.Command) error {
	return &power.Error{Kind: power.KindBusy, Op: string(cmd), Err: errNotNoted}
}

// SetBoot implements power.Driver.
func (f *finding) SetBoot(context.Context, power.BootDevice) error {
	return &power.Error{Kind: power.KindBusy, Op: "set boot device", Err: errNotNoted}
}

// Consumption implements power.Meter.
func (f *finding) Consumption(ctx context.Context) (power.Consumption, error) {
	if m, ok := f.Driver.(power.Meter); ok {
		return m.Consumption(ctx)
	}
	return power.Consumption{}, &power.Error{Kind: power.KindUnsupported, Op: "read consumption", Err: errors.New("the driver has none")}
}

// SetLimit implements power.Meter.
func (f *finding) SetLimit(context.Context, int) error {
	return &power.Error{Kind: power.KindBusy, Op: string(power.SetLimit), Err: errNotNoted}
}

// Test implements power.Tester.
func (f *finding) Test(ctx context.Context) (r power.TestResult, err error) {
	if t, ok := f.Driver.(power.Tester); ok {
		r, err = t.Test(ctx)
	} else {
		r.State, err = f.State(ctx)
	}
	f.ep.User = ""
	r.Remarks = append(r.Remarks, fmt.Sprintf("it is taken for %s: %s", f.ep, f.why))
	return r, err
}
