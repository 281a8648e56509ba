package identity

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// site is a central that signs what it is asked to.
type site struct {
	t      *testing.T
	ca     *auth.CA
	secret string // that enrols, once
	fails  int    // so many requests get no answer
	names  string // whom certificates are made for; "": who asks

	joined, renewed int
}

func newSite(t *testing.T) *site {
	t.Helper()
	ca, err := auth.OpenCA(t.TempDir(), "lab", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, ca: ca}
}

func (s *site) sign(name, request string) (api.SiteCertificate, error) {
	if s.fails > 0 {
		s.fails--
		return api.SiteCertificate{}, api.ErrUnreachable
	}
	if s.names != "" {
		name = s.names
	}
	cert, _, err := s.ca.SignAgent(name, []byte(request), time.Now().Truncate(time.Second))
	return api.SiteCertificate{Certificate: string(cert), CA: string(s.ca.Cert())}, err
}

func (s *site) JoinSite(_ context.Context, in api.JoinSite) (api.SiteCertificate, error) {
	if in.Secret != s.secret {
		return api.SiteCertificate{}, api.Problemf(api.CodeLogin, "the enrolment token is not known")
	}
	out, err := s.sign(in.Agent, in.Request)
	if err == nil {
		s.joined++
	}
	return out, err
}

func (s *site) RenewCertificate(_ context.Context, name string, in api.RenewCertificate) (api.SiteCertificate, error) {
	out, err := s.sign(name, in.Request)
	if err == nil {
		s.renewed++
	}
	return out, err
}

// line is a token for the agent.
func (s *site) line(agent string) string {
	e := auth.NewEnrolment(agent, s.ca.Hash())
	s.secret = e.Secret
	return e.String()
}

func open(t *testing.T, dir, token string) *Identity {
	t.Helper()
	id, err := Open(dir, "r1", func() (string, error) { return token, nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestAnAgentEnrolsAndRenews lives for four months: it enrols when central answers at last,
// renews at half the life of each certificate, and is still the same agent after a restart.
func TestAnAgentEnrolsAndRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := newSite(t), t.TempDir()
		s.fails = 3
		id := open(t, dir, s.line("r1"))
		ctx, cancel := context.WithCancel(t.Context())
		changed := 0
		ended := make(chan struct{})
		go func() { id.Keep(ctx, s, func() { changed++ }); close(ended) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if !id.Enrolled() || s.joined != 1 || s.renewed != 0 || changed != 1 {
			t.Fatalf("after an hour: %d joined, %d renewed, %d changes", s.joined, s.renewed, changed)
		}
		info, err := os.Stat(filepath.Join(dir, FileName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		s.fails = 50 // central is away for a while when the first is due
		for day := range 120 {
			time.Sleep(24 * time.Hour)
			if leaf := id.leaf(); time.Now().After(leaf.NotAfter) {
				t.Fatalf("on day %d the certificate has expired", day)
			}
		}
		cancel()
		<-ended
		if s.joined != 1 || s.renewed < 7 || s.renewed > 8 || changed != 1+s.renewed {
			t.Errorf("%d joined, %d renewed, %d changes", s.joined, s.renewed, changed)
		}
		if again := open(t, dir, ""); auth.Serial(again.leaf()) != auth.Serial(id.leaf()) {
			t.Error("another certificate after a restart")
		}
	})
}

func TestWhatKeepsAnAgentFromEnrolling(t *testing.T) {
	s, other := newSite(t), newSite(t)
	good := s.line("r1")
	for name, c := range map[string]struct {
		token, names string
		says         string
		central      *site
	}{
		"no token":         {"", "", "there is no certificate and no token", s},
		"another's token":  {s.line("r2"), "", "the token is agent r2's", s},
		"no token at all":  {"hello", "", "no enrolment token", s},
		"used":             {good, "", "not known", s},
		"another CA":       {func() string { l := s.line("r1"); other.secret = s.secret; return l }(), "", "another CA", other},
		"another's answer": {s.line("r1"), "r2", "of another agent", s},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if e, err := auth.ParseEnrolment(c.token); err == nil && name != "used" {
				c.central.secret = e.Secret
			}
			c.central.names = c.names
			_, err := open(t, dir, c.token).step(t.Context(), c.central, time.Now())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if _, err := os.Stat(filepath.Join(dir, FileName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file was left: %v", err)
			}
		})
	}
}

func TestAnExpiredCertificateNeedsANewToken(t *testing.T) {
	s, dir := newSite(t), t.TempDir()
	id := open(t, dir, s.line("r1"))
	if _, err := id.step(t.Context(), s, time.Now()); err != nil {
		t.Fatal(err)
	}
	late := time.Now().Add(auth.AgentLife + time.Hour)
	s.secret = "used"
	if _, err := open(t, dir, "").step(t.Context(), s, late); err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("%v", err)
	}
	if _, err := open(t, dir, s.line("r1")).step(t.Context(), s, late); err != nil || s.joined != 2 {
		t.Errorf("%d joined, %v", s.joined, err)
	}
}

func TestADamagedFileIsSaid(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "hello", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, "r1", nil, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "rackpower agents token r1") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestACertificateThatCannotBeSaved is used from memory, and not asked for again: the token
// holds once. It is saved as soon as that is possible.
func TestACertificateThatCannotBeSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir := newSite(t), filepath.Join(t.TempDir(), "data")
		id := open(t, dir, s.line("r1")) // a directory that is not there
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		changed := 0
		go func() { id.Keep(ctx, s, func() { changed++ }); close(ended) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if !id.Enrolled() || s.joined != 1 || s.renewed != 0 || changed != 1 {
			t.Errorf("after an hour: %d joined, %d renewed, %d changes", s.joined, s.renewed, changed)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * mostPause)
		synctest.Wait()
		cancel()
		<-ended
		if again := open(t, dir, ""); !again.Enrolled() || again.leaf().SerialNumber.Cmp(id.leaf().SerialNumber) != 0 {
			t.Error("it was not saved")
		}
	})
}
