package redfish

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// named returns a profile of bmcsim.
func named(t testing.TB, name string) bmcsim.Profile {
	t.Helper()
	p, err := bmcsim.ProfileNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestEveryShape: on, boot device, off and reset of the BMC in every profile.
func TestEveryShape(t *testing.T) {
	t.Parallel()
	for _, p := range bmcsim.Profiles {
		t.Run(p.Name, func(t *testing.T) {
			s := startSim(t, p, impatient)
			d, err := s.Dial(t.Context(), s.Endpoint())
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []error{
				d.Do(t.Context(), power.PowerOn), d.SetBoot(t.Context(), power.BootPXE), d.Do(t.Context(), power.HardReset),
				d.Do(t.Context(), power.PowerOn), d.Do(t.Context(), power.PowerOff), d.Do(t.Context(), power.PowerOff),
			} {
				if step != nil {
					t.Error(step)
				}
			}
			if s.PowerOns() != 1 || s.Resets() != 1 || s.Cuts() != 1 || s.LastBoot() != power.BootPXE {
				t.Errorf("%d on, %d resets, %d off, booted %q: %+v", s.PowerOns(), s.Resets(), s.Cuts(), s.LastBoot(), s.Commands())
			}
			if err := d.Close(); err != nil || s.RedfishSessions() != 0 || s.AuthFailures() != 0 || s.MaxInFlight() != 1 {
				t.Errorf("%v, %d sessions, %d failures, %d in flight", err, s.RedfishSessions(), s.AuthFailures(), s.MaxInFlight())
			}
		})
	}
}

// TestFaultsOfBMCSim: what the driver makes of each fault.
func TestFaultsOfBMCSim(t *testing.T) {
	t.Parallel()
	type fault = bmcsim.RedfishFault
	minute := new(bmcsim.Duration(time.Minute))
	state := func(d power.Driver) error {
		got, err := d.State(context.Background())
		if err == nil && got != power.Off {
			return errors.New(string(got))
		}
		return err
	}
	on := func(d power.Driver) error { return d.Do(context.Background(), power.PowerOn) }
	boot := func(d power.Driver) error { return d.SetBoot(context.Background(), power.BootPXE) }
	refuse := func(r bmcsim.Refusal) bmcsim.Fault {
		r.Method, r.Times = "POST", 1
		return bmcsim.Fault{Redfish: &fault{Refuse: &r}}
	}
	for name, c := range map[string]struct {
		profile string // "": inline
		fault   bmcsim.Fault
		do      func(power.Driver) error
		want    power.ErrorKind // "": it works
		sent    bool
		after   power.State // of the node
	}{
		"answer lost":          {fault: bmcsim.Fault{LoseAnswers: new(1)}, do: on, want: power.KindUnreachable, sent: true, after: power.On},
		"command lost":         {fault: bmcsim.Fault{LoseRequests: new(1)}, do: on, want: power.KindUnreachable, sent: true, after: power.Off},
		"503 with Retry-After": {fault: refuse(bmcsim.Refusal{Status: 503, RetryAfter: minute}), do: on, want: power.KindBusy, after: power.Off},
		"503 with a text": {
			fault: refuse(bmcsim.Refusal{Status: 503, Text: "Busy, retry in 60 seconds."}), do: on, want: power.KindBusy, after: power.Off,
		},
		"429": {fault: refuse(bmcsim.Refusal{Status: 429, RetryAfter: minute}), do: on, want: power.KindBusy, after: power.Off},
		"409": {fault: refuse(bmcsim.Refusal{Status: 409}), do: on, want: power.KindBusy, after: power.Off},
		"500, HTML": {
			fault: refuse(bmcsim.Refusal{Status: 500, HTML: true}), do: on, want: power.KindRefused, sent: true,
			after: power.Off,
		},
		"500, carried out": {
			fault: refuse(bmcsim.Refusal{Status: 500, Executed: true}), do: on, want: power.KindRefused, sent: true,
			after: power.On,
		},
		"a task":        {fault: bmcsim.Fault{Redfish: &fault{Task: new(true)}}, do: on, after: power.On},
		"on already":    {profile: "both", fault: bmcsim.Fault{Power: new(power.On)}, do: on, after: power.On},
		"sessions gone": {fault: bmcsim.Fault{Redfish: &fault{DropSessions: new(true)}}, do: state, want: power.KindUnreachable},
		"sessions gone, on": {
			fault: bmcsim.Fault{Redfish: &fault{DropSessions: new(true)}}, do: on, want: power.KindUnreachable,
			after: power.Off,
		},
		"connection cut":  {fault: bmcsim.Fault{Redfish: &fault{CutReused: new(1)}}, do: state},
		"no keep-alive":   {fault: bmcsim.Fault{Redfish: &fault{NoKeepAlive: new(true)}}, do: on, after: power.On},
		"moved":           {fault: bmcsim.Fault{Redfish: &fault{Redirect: new("/moved")}}, do: state},
		"moved elsewhere": {fault: bmcsim.Fault{Redfish: &fault{Redirect: new("https://192.0.2.9")}}, do: state, want: power.KindRefused},
		"moved for ever":  {fault: bmcsim.Fault{Redfish: &fault{Redirect: new("/")}}, do: state, want: power.KindRefused},
		"no end":          {fault: bmcsim.Fault{Redfish: &fault{Endless: new(true)}}, do: state, want: power.KindRefused},
		"deep":            {fault: bmcsim.Fault{Redfish: &fault{Nested: new(50_000)}}, do: state, want: power.KindRefused},
		"boot not taken":  {fault: bmcsim.Fault{Redfish: &fault{IgnoreBoot: new(true)}}, do: boot, want: power.KindRefused},
		"weak tags":       {fault: bmcsim.Fault{Redfish: &fault{ETag: new("weak")}}, do: boot},
		"tags required":   {fault: bmcsim.Fault{Redfish: &fault{ETag: new("required")}}, do: boot},
		"tags by * alone": {fault: bmcsim.Fault{Redfish: &fault{ETag: new("star")}}, do: boot},
		"tags refused":    {fault: bmcsim.Fault{Redfish: &fault{ETag: new("refused")}}, do: boot},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSim(t, named(t, cmp.Or(c.profile, "inline")), impatient)
			d, err := s.Dial(t.Context(), s.Endpoint())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close() })
			if err := state(d); err != nil {
				t.Fatal(err)
			}
			s.Set(c.fault)
			err = c.do(d)
			if power.KindOf(err) != c.want || err != nil && power.WasSent(err) != c.sent {
				t.Errorf("%v (sent %v), want %q (sent %v)", err, err != nil && power.WasSent(err), c.want, c.sent)
			}
			if c.after != "" && s.Power() != c.after || len(s.Log()) > 1 {
				t.Errorf("power %s, want %s; it got %+v", s.Power(), c.after, s.Commands())
			}
		})
	}
}

// TestDialOfBMCSim: what the driver makes of a BMC that it finds changed.
func TestDialOfBMCSim(t *testing.T) {
	t.Parallel()
	s := startSim(t, named(t, "inline"), impatient)
	ep := s.RedfishEndpoint()
	read := func(want power.ErrorKind) {
		t.Helper()
		d, err := s.Dial(t.Context(), ep)
		if err == nil {
			_, err = d.State(t.Context())
			_ = d.Close()
		}
		if power.KindOf(err) != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	set := func(f bmcsim.RedfishFault) { s.Set(bmcsim.Fault{Redfish: &f}) }
	read("")
	set(bmcsim.RedfishFault{TLS12: new(true)})
	read(power.KindUnsupported)
	ep.OldTLS = true
	read("")
	set(bmcsim.RedfishFault{SessionLimit: new(0)}) // refused with 503 and RAC0218
	read(power.KindBusy)
	set(bmcsim.RedfishFault{SessionLimit: new(4), SystemsEmpty: new(bmcsim.Duration(time.Hour))})
	s.BMC.Restart(0)
	read(power.KindBusy) // it knows where the System was
	s.Dialer = NewDialer(impatient)
	read(power.KindBusy)
	set(bmcsim.RedfishFault{NewCertificate: new(true)})
	read(power.KindAuth)
	set(bmcsim.RedfishFault{Closed: new(true)})
	read(power.KindUnreachable)
	if s.AuthFailures() != 0 || s.RedfishSessions() != 0 {
		t.Errorf("%d failures, %d sessions", s.AuthFailures(), s.RedfishSessions())
	}
}
