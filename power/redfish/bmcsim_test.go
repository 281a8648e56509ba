package redfish

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// simTarget is a BMC of bmcsim.
type simTarget struct {
	*bmcsim.BMC
	*Dialer
	farm    *bmcsim.Farm
	profile bmcsim.Profile
}

// startSim starts one simulated BMC of a shape in this process.
func startSim(t testing.TB, profile bmcsim.Profile, cfg Config) simTarget {
	t.Helper()
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{
		Count: 1, BootTime: 50 * time.Millisecond, Redfish: &bmcsim.Redfish{Profiles: []bmcsim.Profile{profile}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = farm.Close() })
	return simTarget{farm.BMC(0), NewDialer(cfg), farm, profile}
}

func (simTarget) Patience() time.Duration { return impatient.Timeout }

func (s simTarget) Endpoint() power.Endpoint {
	ep := s.RedfishEndpoint()
	ep.Pin = power.PinFirst
	return ep
}

func (s simTarget) SetPower(p power.State) error { s.BMC.SetPower(p); return nil }
func (s simTarget) Hang()                        { s.Mute(true) }
func (s simTarget) Wake()                        { s.Mute(false) }
func (s simTarget) Kill()                        { _ = s.farm.Close() }
func (s simTarget) Restart() error               { s.BMC.Restart(0); return nil }
func (s simTarget) LoseNextAnswers(n int)        { s.LoseAnswers(n) }
func (s simTarget) Sessions() int                { return s.RedfishSessions() }

// fault has the BMC's Redfish service behave so.
func (s simTarget) fault(f bmcsim.RedfishFault) { s.Set(bmcsim.Fault{Redfish: &f}) }

func (s simTarget) SetNoSession(full bool) {
	limit := s.profile.Sessions
	if full {
		limit = 0
	}
	s.fault(bmcsim.RedfishFault{SessionLimit: &limit})
}

func (s simTarget) FailNext(n int, kind power.ErrorKind) {
	r := map[power.ErrorKind]bmcsim.Refusal{
		power.KindBusy:        {Status: 503, ID: "Base.1.8.ServiceTemporarilyUnavailable"},
		power.KindUnsupported: {Status: 400, ID: "Base.1.8.ActionParameterNotSupported"},
		power.KindPrivilege:   {Status: 403, ID: "Base.1.8.InsufficientPrivilege"},
		power.KindRefused:     {Status: 500, HTML: true},
	}[kind]
	r.Method, r.Path, r.Times = "POST", ".Reset", n
	s.fault(bmcsim.RedfishFault{Refuse: &r})
}

// Lacks are the commands that the shape has no type of reset for.
func (s simTarget) Lacks() (all []power.Command) {
	for cmd, types := range map[power.Command]string{power.PressSoftOff: "GracefulShutdown", power.PulseDiag: "Nmi"} {
		if !strings.Contains(strings.Join(s.profile.Resets, " "), types) {
			all = append(all, cmd)
		}
	}
	if s.profile.Limit == "" {
		all = append(all, power.SetLimit)
	}
	return all
}

// Log translates what reached the BMC and was executed.
func (s simTarget) Log() []powertest.Entry {
	var log []powertest.Entry
	for _, e := range s.Commands() {
		if e.Code != 0 {
			continue
		}
		entry := powertest.Entry{BMC: e.BMC, At: e.Time, Command: power.Command(e.Command)}
		if dev, is := strings.CutPrefix(e.Command, "set-boot"); is {
			entry.Command, entry.Boot = "", power.BootDevice(strings.TrimPrefix(strings.TrimSpace(dev), "none"))
		}
		log = append(log, entry)
	}
	return log
}

// TestSuiteOnBMCSim runs all of the suite on the three shapes that differ most, and what depends
// on the shape on all.
func TestSuiteOnBMCSim(t *testing.T) {
	t.Parallel()
	for _, profile := range bmcsim.Profiles {
		t.Run(profile.Name, func(t *testing.T) {
			t.Parallel()
			suite := powertest.Basics
			if slices.Contains([]string{"inline", "settings", "two-systems"}, profile.Name) {
				suite = powertest.Suite
			}
			suite(t, func(t *testing.T) powertest.Target { return startSim(t, profile, impatient) })
		})
	}
}

func TestTester(t *testing.T) {
	t.Parallel()
	for _, profile := range bmcsim.Profiles {
		s := startSim(t, profile, impatient)
		skew := -3600
		s.fault(bmcsim.RedfishFault{ClockSkew: &skew})
		d, err := s.Dial(t.Context(), s.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.(power.Tester).Test(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key := power.PinOf(s.Certificate().RawSubjectPublicKeyInfo)
		if r.Vendor != profile.Manufacturer || r.Model != profile.Model || r.Firmware != profile.Firmware || r.State != power.Off ||
			r.Sessions != 1 || r.Security != "TLS 1.3, pinned key "+key || !strings.HasPrefix(r.Protocol, "Redfish 1.") ||
			r.ClockSkew > -59*time.Minute || !strings.Contains(strings.Join(r.Systems, " "), profile.SystemID) {
			t.Errorf("%s: %+v", profile.Name, r)
		}
		says := strings.Join(r.Remarks, "; ")
		for what, want := range map[string]bool{
			"its clock is 1h0m0s behind":              true,
			"does not say which types":                !profile.Inline && !profile.ActionInfo,
			"these cannot be reset: " + profile.Aside: profile.Aside != "",
			"it has no GracefulShutdown": (profile.Inline || profile.ActionInfo) &&
				!slices.Contains(profile.Resets, "GracefulShutdown"),
			"it has no Nmi":   false,
			"several Systems": false,
		} {
			if strings.Contains(says, what) != want {
				t.Errorf("%s: remarks %s", profile.Name, says)
			}
		}
		_ = d.Close()
		if log := s.Log(); len(log) != 0 {
			t.Errorf("%s: a test sent %v", profile.Name, log)
		}
	}
}
