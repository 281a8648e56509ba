package powertest

import (
	"context"
	"testing"
	"time"

	"rackpower/power"
)

// fakeTarget is one BMC of a Fake. The Fake's own settings are most abilities.
type fakeTarget struct {
	*BMC
	fake *Fake
}

func (f fakeTarget) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	return f.fake.Dial(ctx, ep)
}

func (f fakeTarget) Probe(ctx context.Context, ep power.Endpoint) error {
	return f.fake.Probe(ctx, ep)
}

func (f fakeTarget) Endpoint() power.Endpoint {
	return power.Endpoint{Scheme: "ipmi", Host: "n1", User: "admin", Password: "secret"}
}

func (f fakeTarget) SetPower(s power.State) error { f.BMC.SetPower(s); return nil }
func (f fakeTarget) Patience() time.Duration      { return fakePatience }
func (f fakeTarget) Hang()                        { f.SetMute(true) }
func (f fakeTarget) Wake()                        { f.SetMute(false) }
func (f fakeTarget) Restart() error               { f.BMC.Restart(); return nil }
func (f fakeTarget) Sessions() int                { return f.Counts().Sessions }
func (f fakeTarget) AuthFailures() int            { return f.Counts().AuthFailures }

// Log leaves out what was refused, which other servers never log.
func (f fakeTarget) Log() []Entry {
	var log []Entry
	for _, e := range f.BMC.Log() {
		if e.Executed {
			log = append(log, e)
		}
	}
	return log
}

const fakePatience = 200 * time.Millisecond

func TestFakePassesSuite(t *testing.T) {
	Suite(t, func(t *testing.T) Target {
		f := NewFake()
		b := f.BMC("n1")
		b.SetAccount("admin", "secret")
		b.SetTimeout(fakePatience)
		return fakeTarget{b, f}
	})
}
