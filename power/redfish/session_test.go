package redfish

import (
	"crypto/x509"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// testNotes are notes that a crash loses from a moment on.
type testNotes struct {
	mu   sync.Mutex
	of   map[string][]byte
	left int // so many are kept yet; below 0: all
}

func (n *testNotes) Note(bmc string) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.of[bmc]
}

func (n *testNotes) Keep(bmc string, note []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left == 0 {
		return nil
	}
	n.left--
	n.of[bmc] = note
	if note == nil {
		delete(n.of, bmc)
	}
	return nil
}

// after is what a process finds that starts after a crash.
func (n *testNotes) after(left int) *testNotes {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &testNotes{of: maps.Clone(n.of), left: left}
}

func profileNamed(t *testing.T, name string) bmcsim.Profile {
	t.Helper()
	p, err := bmcsim.ProfileNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCrashesLeaveNoSessions has processes die at any moment of a session, on a BMC that has
// room for four.
func TestCrashesLeaveNoSessions(t *testing.T) {
	t.Parallel()
	s := startSim(t, profileNamed(t, "neither"), impatient)
	rng := rand.New(rand.NewPCG(1, 2))
	notes := &testNotes{of: map[string][]byte{}, left: -1}
	for range 60 {
		kept := []int{-1, 1, 1, 2, 3}[rng.IntN(5)] // 1: it was asked for, and the answer not noted
		notes = notes.after(kept)
		cfg := impatient
		cfg.Notes = notes
		d, err := NewDialer(cfg).Dial(t.Context(), s.Endpoint())
		if err != nil {
			t.Fatalf("out of sessions because of us: %v", err)
		}
		if state, err := d.State(t.Context()); state != power.Off || err != nil {
			t.Fatalf("%s, %v", state, err)
		}
		if n := s.RedfishSessions(); n > 2 {
			t.Errorf("%d sessions after a log-in", n)
		}
		if rng.IntN(4) == 0 {
			_ = d.Close()
		}
		d.(*session).client.close()
	}
	notes = notes.after(-1)
	cfg := impatient
	cfg.Notes = notes
	d, err := NewDialer(cfg).Dial(t.Context(), s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	if n := s.RedfishSessions(); n != 1 {
		t.Errorf("%d sessions, of which one is in use", n)
	}
	_ = d.Close()
	var left note
	_ = json.Unmarshal(notes.Note(s.Endpoint().Key()), &left)
	if n := s.RedfishSessions(); n != 0 || len(left.Sessions)+len(left.Opening) != 0 {
		t.Errorf("%d sessions at the end, noted %+v", n, left)
	}
}

// TestAFullBMCIsFreedOfOurs finds the one slot taken by what a crash has left.
func TestAFullBMCIsFreedOfOurs(t *testing.T) {
	t.Parallel()
	for _, kept := range []int{-1, 1} {
		f := newFake(t)
		f.set(func() { f.most = 1 })
		cfg := impatient
		notes := &testNotes{of: map[string][]byte{}, left: kept}
		cfg.Notes = notes
		ep := f.Endpoint()
		ep.Pin = power.PinOf(f.srv.Certificate().RawSubjectPublicKeyInfo)
		if _, err := NewDialer(cfg).Dial(t.Context(), ep); err != nil {
			t.Fatal(err)
		}
		cfg.Notes = notes.after(-1)
		f.Dialer = NewDialer(cfg)
		if err := f.dialed(ep).Close(); err != nil || f.Sessions() != 0 {
			t.Errorf("kept %d: %v, %d sessions", kept, err, f.Sessions())
		}
	}
}

// TestWhatIsNotedOfALogIn: one that never left, or was refused, leaves nothing to look for.
func TestWhatIsNotedOfALogIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hook func(*fakeBMC, http.ResponseWriter, *http.Request, map[string]any) bool
		dead bool
		open int
	}{
		"gone":    {nil, true, 0},
		"refused": {on("POST", "/Sessions", func(w http.ResponseWriter) { w.WriteHeader(401) }), false, 0},
		"cut":     {on("POST", "/Sessions", cut), false, 1},
	} {
		f := newFake(t)
		notes := &testNotes{of: map[string][]byte{}, left: -1}
		f.hook = c.hook
		cfg := impatient
		cfg.Notes = notes
		ep := f.Endpoint()
		if c.dead {
			f.Kill()
		}
		for range 2 {
			if _, err := NewDialer(cfg).Dial(t.Context(), ep); err == nil || power.WasSent(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		var left note
		_ = json.Unmarshal(notes.Note(ep.Key()), &left)
		if (len(left.Opening) > 0) != (c.open > 0) || len(left.Sessions) > 0 {
			t.Errorf("%s: noted %+v", name, left)
		}
	}
}

// TestSessionsOfOthersStay: a BMC that was restarted gives names again, and others log in by
// the same user.
func TestSessionsOfOthersStay(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	ep := f.Endpoint()
	data, _ := json.Marshal(note{
		Sessions: []string{"/redfish/v1/SessionService/Sessions/71", "/redfish/v1/SessionService/Sessions/99"}, Opening: []time.Time{time.Now()},
	})
	cfg := impatient
	cfg.Notes = &testNotes{of: map[string][]byte{ep.Key(): data}, left: -1}
	f.Dialer = NewDialer(cfg)
	f.set(func() {
		f.sessions["71"] = &fakeSession{token: "x", user: "other", created: time.Now()}
		f.sessions["72"] = &fakeSession{token: "y", user: testUser, created: time.Now().Add(-time.Hour)}
		f.sessions["73"] = &fakeSession{token: "z", user: testUser, created: time.Now().Add(time.Second)} // it was opened for us
	})
	f.dialed(ep)
	left := get(f, func() []string { return slices.Sorted(maps.Keys(f.sessions)) })
	if strings.Join(left, " ") != "1 71 72" {
		t.Errorf("left are %v", left)
	}
}

func TestLogIns(t *testing.T) {
	t.Parallel()
	said := func(status int, id, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { complain(w, status, id, text) }
	}
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter)
		kind    power.ErrorKind
		refused bool
	}{
		"wrong":           {said(401, "Base.1.8.ResourceAtUriUnauthorized", "x"), power.KindAuth, true},
		"full":            {said(503, "IDRAC.2.4.RAC0218", "x"), power.KindBusy, false},
		"full, as 401":    {said(401, "X", "Too many sessions are open"), power.KindBusy, false},
		"full, as 400":    {said(400, "Base.1.8.SessionLimitExceeded", "x"), power.KindBusy, false},
		"starting":        {said(503, "Base.1.8.ServiceTemporarilyUnavailable", "Retry in 30 seconds"), power.KindBusy, false},
		"no right":        {said(403, "Base.1.8.InsufficientPrivilege", "x"), power.KindPrivilege, true},
		"must change":     {said(403, "Base.1.8.PasswordChangeRequired", "x"), power.KindAuth, false},
		"bad request":     {said(400, "Base.1.8.GeneralError", "x"), power.KindRefused, true},
		"no such service": {said(404, "Base.1.8.ResourceMissingAtURI", "x"), power.KindUnsupported, false},
		"no token":        {func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(201) }, power.KindRefused, false},
		"cut":             {cut, power.KindUnreachable, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.hook = on("POST", "/Sessions", c.answer)
			_, err := f.Dial(t.Context(), f.Endpoint())
			if e := failure(t, err); e.Kind != c.kind || e.Refused != c.refused || e.Sent {
				t.Errorf("%v, refused %t, sent %t; want %s, %t", e, e.Refused, e.Sent, c.kind, c.refused)
			}
			if n := len(f.requests("POST")); n != 1 {
				t.Errorf("%d log-ins", n)
			}
		})
	}
}

// TestTheFirstRefusalOfASession counts as one of the log-in, and later ones do not.
func TestTheFirstRefusalOfASession(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.dialed(f.Endpoint())
	if _, err := d.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = f.Restart()
	_, err := d.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindUnreachable || !e.Lost || e.Refused {
		t.Errorf("a session that worked: %v", e)
	}
	fresh := f.dialed(f.Endpoint())
	_ = f.Restart()
	_, err = fresh.State(t.Context())
	if e := failure(t, err); e.Kind != power.KindAuth || !e.Refused {
		t.Errorf("a session that never worked: %v", e)
	}
}

func TestBasic(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	ep := f.Endpoint()
	ep.Basic = true
	d := f.dialed(ep)
	if state, err := d.State(t.Context()); state != power.Off || err != nil {
		t.Errorf("%s, %v", state, err)
	}
	if err := d.Do(t.Context(), power.PowerOn); err != nil || f.next != 0 {
		t.Errorf("%v, %d sessions", err, f.next)
	}
	ep.Password = "wrong"
	_, err := f.Dial(t.Context(), ep)
	if e := failure(t, err); e.Kind != power.KindAuth || !e.Refused || f.AuthFailures() != 1 {
		t.Errorf("wrong password: %v, tried %d times", e, f.AuthFailures())
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	yes := true
	s := startSim(t, bmcsim.Profiles[0], impatient)
	key := func() string { return power.PinOf(s.Certificate().RawSubjectPublicKeyInfo) }
	notes := &testNotes{of: map[string][]byte{}, left: -1}
	dial := func(pin string, change func(*Config, *power.Endpoint)) error {
		cfg, ep := impatient, s.Endpoint()
		cfg.Notes, ep.Pin = notes, pin
		if change != nil {
			change(&cfg, &ep)
		}
		d, err := NewDialer(cfg).Dial(t.Context(), ep)
		if err == nil {
			_ = d.Close()
		}
		return err
	}
	roots := func(cfg *Config, _ *power.Endpoint) {
		cfg.Roots = x509.NewCertPool()
		cfg.Roots.AddCert(s.Certificate())
	}
	old := key()
	for name, err := range map[string]error{"given": dial(old, nil), "first": dial(power.PinFirst, nil), "certified": dial("", roots)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := failure(t, dial("", nil))
	if e.Kind != power.KindAuth || !e.Untrusted || !strings.Contains(e.Error(), old) ||
		!strings.Contains(e.Error(), "--update --bmc 'redfish://") {
		t.Errorf("certified by nobody: %v", e)
	}
	s.fault(bmcsim.RedfishFault{NewCertificate: &yes})
	for _, pin := range []string{old, power.PinFirst} {
		e := failure(t, dial(pin, nil))
		if e.Kind != power.KindAuth || !e.Untrusted || !strings.Contains(e.Error(), old) || !strings.Contains(e.Error(), "pin="+key()+"'") {
			t.Errorf("pin %s: %v", pin, e)
		}
	}
	if s.AuthFailures() != 0 || s.RedfishSessions() != 0 {
		t.Error("a BMC with another key was given the password")
	}
	if err := dial(key(), nil); err != nil {
		t.Errorf("accepted: %v", err)
	}
	s.fault(bmcsim.RedfishFault{TLS12: &yes})
	if e := failure(t, dial(key(), nil)); e.Kind != power.KindUnsupported || !strings.Contains(e.Error(), "?tls=1.2") {
		t.Errorf("TLS 1.2: %v", e)
	}
	if err := dial(key(), func(_ *Config, ep *power.Endpoint) { ep.OldTLS = true }); err != nil {
		t.Errorf("TLS 1.2, allowed: %v", err)
	}
}

// TestOneRequestAtATime: and nothing is asked of anybody but the BMC.
func TestRedirects(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.dialed(f.Endpoint())
	to := func(status int, location string) func(*fakeBMC, http.ResponseWriter, *http.Request, map[string]any) bool {
		return func(_ *fakeBMC, w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
			if strings.HasPrefix(r.URL.Path, "/new") {
				if r.Method == http.MethodPost {
					w.WriteHeader(204)
				} else {
					reply(w, 200, map[string]any{"PowerState": "On"})
				}
				return true
			}
			if !strings.Contains(r.URL.Path, "/Systems/1") {
				return false
			}
			w.Header().Set("Location", location)
			w.WriteHeader(status)
			return true
		}
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		f.set(func() { f.hook = to(status, "/new") })
		if state, err := d.State(t.Context()); state != power.On || err != nil {
			t.Errorf("%d: %s, %v", status, state, err)
		}
	}
	for _, location := range []string{
		"https://192.0.2.1/new", "http://" + f.Endpoint().Host + "/new", "", "/redfish/v1/Systems/1?again",
		":",
	} {
		f.set(func() { f.hook = to(308, location) })
		_, err := d.State(t.Context())
		if e := failure(t, err); e.Kind != power.KindRefused {
			t.Errorf("to %q: %v", location, e)
		}
	}
	f.set(func() { f.hook = nil })
	if _, err := d.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.hook = to(308, "/new") })
	if err := d.Do(t.Context(), power.PowerOn); err != nil {
		t.Errorf("a command that is to go elsewhere: %v", err)
	}
	f.set(func() { f.hook = to(302, "/new") })
	if e := failure(t, d.Do(t.Context(), power.PowerOn)); e.Kind != power.KindRefused {
		t.Errorf("a command that may have been carried out: %v", e)
	}
}
