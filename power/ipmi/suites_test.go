package ipmi

import (
	"strings"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
	"rackpower/power/powertest"
)

// dialedSuite dials and returns the cipher suite in use and how long it took.
func dialedSuite(t *testing.T, d *Dialer, ep power.Endpoint) (types.CipherSuiteID, time.Duration) {
	t.Helper()
	start := time.Now()
	s, err := d.Dial(t.Context(), ep)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	s.Close()
	return d.recall(ep).suite, took
}

func TestSuitePreferred(t *testing.T) {
	t.Parallel()
	sim := startSim(t, Config{})
	if got, _ := dialedSuite(t, sim.Dialer, sim.Endpoint()); got != 17 {
		t.Errorf("suite %d, want 17", got)
	}
	sim.Suites(3) // new firmware without it: the BMC says so, nothing is waited for
	if got, took := dialedSuite(t, sim.Dialer, sim.Endpoint()); got != 3 || took > time.Second {
		t.Errorf("suite %d after %v, want 3 within 1s", got, took)
	}
	if s := mustDial(t, Config{}, sim.Endpoint()); s.codec.macLen != 12 {
		t.Errorf("MAC of %d bytes, want 12", s.codec.macLen)
	}
	sim.Suites(17)
	if got, took := dialedSuite(t, sim.Dialer, sim.Endpoint()); got != 17 || took > time.Second {
		t.Errorf("suite %d after %v, want 17 within 1s", got, took)
	}
}

func TestSuiteInsistedOn(t *testing.T) {
	t.Parallel()
	sim := startSim(t, Config{})
	ep := sim.Endpoint()
	ep.Suite = 3
	if got, _ := dialedSuite(t, sim.Dialer, ep); got != 3 {
		t.Errorf("suite %d, want 3", got)
	}
	sim.Suites(17)
	_, err := sim.Dial(t.Context(), ep)
	wantKind(t, err, power.KindUnsupported, false)
	ep.Suite = 5
	_, err = sim.Dial(t.Context(), ep)
	wantKind(t, err, power.KindUnsupported, false)
}

// ipmi_sim does not answer offers of suite 17. That is found out once.
func TestSuiteLearntFromSilence(t *testing.T) {
	t.Parallel()
	sim := powertest.StartIPMISim(t, 1)[0]
	d := NewDialer(impatient)
	if got, took := dialedSuite(t, d, sim.Endpoint()); got != 3 || took < impatient.FirstAnswer {
		t.Errorf("suite %d after %v, want 3 after %v", got, took, impatient.FirstAnswer)
	}
	if got, took := dialedSuite(t, d, sim.Endpoint()); got != 3 || took > impatient.FirstAnswer {
		t.Errorf("suite %d after %v the second time, want 3 at once", got, took)
	}
	other := sim.Endpoint()
	other.User, other.Password = powertest.SimOperator, powertest.SimOperatorPass
	if _, took := dialedSuite(t, d, other); took > impatient.FirstAnswer {
		t.Errorf("another user's first session took %v, want it at once", took)
	}
	ep := sim.Endpoint()
	ep.Suite = 17
	_, err := d.Dial(t.Context(), ep)
	wantKind(t, err, power.KindBusy, false) // it answers a probe
	if err == nil || !strings.Contains(err.Error(), "cipher suite 17") {
		t.Error(err)
	}
}

// One lost packet does not make a BMC that serves suite 17 get suite 3.
func TestSuiteNotDowngradedByOneLostPacket(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	proxy := powertest.StartProxy(t, sim.Endpoint())
	proxy.FromBMC(nth(0, powertest.Lose))
	if got, _ := dialedSuite(t, sim.Dialer, proxy.Endpoint()); got != 17 {
		t.Errorf("suite %d, want 17", got)
	}
}

func TestWrongPasswordTriesNoOtherSuite(t *testing.T) {
	t.Parallel()
	sim := startSim(t, Config{})
	ep := sim.Endpoint()
	ep.Password = "wrong"
	_, err := sim.Dial(t.Context(), ep)
	wantKind(t, err, power.KindAuth, false)
	for end := time.Now().Add(time.Second); sim.AuthFailures() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // until it has read the refusal
	}
	if got := sim.AuthFailures(); got != 1 {
		t.Errorf("the BMC counts %d failed logins, want 1", got)
	}
}

func TestKG(t *testing.T) {
	t.Parallel()
	const kg = "19-bytes-of-one-key"
	sim := powertest.StartIPMISim(t, 1, powertest.WithKG(kg))[0]
	ep := sim.Endpoint()
	ep.Suite = 3
	for _, right := range []power.Secret{kg, "0x31392d62797465732d6f662d6f6e652d6b6579"} {
		ep.KG = right
		wantState(t, mustDial(t, impatient, ep), power.Off)
	}
	for wrong, says := range map[power.Secret]string{"": "has a key K_g besides", "another": "the key K_g is not"} {
		ep.KG = wrong
		start := time.Now()
		_, err := NewDialer(impatient).Dial(t.Context(), ep)
		wantKind(t, err, power.KindAuth, false)
		if !strings.Contains(err.Error(), says) {
			t.Errorf("K_g %q: %v, want it to say %q", string(wrong), err, says)
		}
		within(t, start, 2*time.Second)
	}
}

func TestRoleRemembered(t *testing.T) {
	t.Parallel()
	sim := startSim(t, Config{})
	ep := sim.Operator()
	if _, took := dialedSuite(t, sim.Dialer, ep); took > time.Second {
		t.Errorf("an operator's first session took %v", took)
	}
	if got := sim.recall(ep).role; got != types.PrivilegeLevelOperator {
		t.Errorf("role %v, want operator", got)
	}
	before := sim.AuthFailures()
	if _, took := dialedSuite(t, sim.Dialer, ep); took > doubt {
		t.Errorf("an operator's second session took %v, want it at once", took)
	}
	if got := sim.AuthFailures(); got != before {
		t.Errorf("the second session cost %d failed logins", got-before)
	}
}

func TestEndpointsThatCannotWork(t *testing.T) {
	for _, tc := range []struct {
		ep   power.Endpoint
		kind power.ErrorKind
	}{
		{power.Endpoint{Scheme: "redfish", Host: "h"}, power.KindUnsupported},
		{power.Endpoint{}, power.KindUnsupported},
		{power.Endpoint{Host: "h", Suite: 1}, power.KindUnsupported},
		{power.Endpoint{Host: "h", User: "seventeen letters"}, power.KindAuth},
		{power.Endpoint{Host: "h", Password: "a password that is too long"}, power.KindAuth},
		{power.Endpoint{Host: "h", KG: "0x123"}, power.KindAuth},
	} {
		_, err := Dial(t.Context(), tc.ep)
		wantKind(t, err, tc.kind, false)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
	for _, bad := range []Config{{Timeout: -1}, {RAKPAnswer: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is taken for valid", bad)
		}
	}
}
