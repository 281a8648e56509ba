package cmd_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/store/pgtest"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestACentralStandsBy has two centrals on one database, on a PostgreSQL server with a synchronous standby.
// The central that serves is killed again and again, then the server is, and its standby promoted: nothing
// that was acknowledged is lost, and nothing is done twice.
func TestACentralStandsBy(t *testing.T) { twoCentrals(t, false) }

// TestACentralPassesOn is the same where the agent knows the first central alone, and people the second one: the
// one that does not serve passes on to the other.
func TestACentralPassesOn(t *testing.T) { twoCentrals(t, true) }

func twoCentrals(t *testing.T, passOn bool) {
	primary, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Remove)
	standby, err := primary.Standby("b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Remove)
	primary.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'b'")
	primary.Exec(t, "SELECT pg_reload_conf()")

	farm := startFarm(t, bmcsim.Config{Count: 6, OnAfter: 200 * time.Millisecond, OffAfter: 200 * time.Millisecond, Initial: power.On})
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.overTLS()
	s.serves = []string{"--database", pgtest.URLOf(primary, standby)}
	peers := func() []string {
		if !passOn {
			return nil
		}
		return []string{"--peer-listen", freeAddress(t)}
	}
	forSecond := append(slices.Clone(s.serves), peers()...)
	s.serves = append(s.serves, peers()...)
	answers := func() bool { _, err := s.client.Info(t.Context()); return err == nil }
	s.startCentral()
	s.until(20*time.Second, "central answers", answers)
	second := s.standbyArgs(forSecond)
	s.spawn("central2", s.serve, second...)
	args := s.agentArgs("r1", "off")
	forAgents, forPeople := "https://"+s.tls, "https://"+second[len(second)-1]
	if !passOn {
		forAgents += "," + forPeople
		forPeople = forAgents
	}
	for i := range args {
		if args[i] == "https://"+s.tls {
			args[i] = forAgents
		}
	}
	s.spawn("r1", s.cli, args...)
	s.addFarm(farm)
	s.client = s.remote(forPeople)
	var nodes []string
	for i := range farm.Len() {
		farm.BMC(i).Delay(25 * time.Millisecond)
		farm.BMC(i).SessionLimit(1000)
		nodes = append(nodes, farm.BMC(i).Name())
	}
	c := s.crowd(nodes, []power.Action{power.ActOn, power.ActOff, power.ActCycle, power.ActReset, power.ActDiag}, 600*time.Millisecond)
	rng := rand.New(rand.NewPCG(7, 5))
	changeover := func(what string) {
		t.Helper()
		began := time.Now()
		s.until(time.Minute, "a central serves after "+what, answers)
		t.Logf("%s: served again after %s", what, time.Since(began).Round(10*time.Millisecond))
		time.Sleep(time.Duration(500+rng.IntN(700)) * time.Millisecond) // of work
	}
	standsBy := func() {
		t.Helper()
		s.until(time.Minute, "one serves and one stands by", func() bool {
			for _, socket := range []string{s.socket(), filepath.Join(s.dir, "c2.sock")} {
				if conn, err := net.Dial("unix", socket); err == nil {
					conn.Close()
					return strings.Contains(scrape(t, socket), "\nrackpower_central_standbys 1\n")
				}
			}
			return false
		})
	}
	standsBy()
	for range rounds(2) {
		s.kill("central")
		changeover("the first central was killed")
		s.startCentral()
		standsBy()
		s.kill("central2")
		if passOn { // people know no other one
			s.spawn("central2", s.serve, second...)
		}
		changeover("the second central was killed")
		if !passOn {
			s.spawn("central2", s.serve, second...)
		}
		standsBy()
	}
	// The one that served ends where the other one was faster, and is started again by its service manager.
	managed, end := context.WithCancel(t.Context())
	var manager sync.WaitGroup
	manager.Go(func() {
		for ; managed.Err() == nil; time.Sleep(100 * time.Millisecond) {
			for name, args := range map[string][]string{"central": s.centralArgs(), "central2": second} {
				if s.isGone(name) {
					s.kill(name)
					s.spawn(name, s.serve, args...)
				}
			}
		}
	})
	defer manager.Wait()
	defer end()
	primary.Kill()
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	changeover("the database server was killed")
	taken := c.stop()
	judge(t, taken, s.allEnded(2*time.Minute), farm)
}

// standbyArgs are those of a second central on the same database, with the keys of the first one. The last
// one is where it listens.
func (s *site) standbyArgs(serves []string) []string {
	s.t.Helper()
	data := filepath.Join(s.dir, "central2")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(s.dir, "central"))); err != nil {
		s.t.Fatal(err)
	}
	args := []string{"serve", "--data", data, "--socket", filepath.Join(s.dir, "c2.sock"), "--tls-name", "127.0.0.1"}
	return append(append(args, serves...), "--listen", freeAddress(s.t))
}

// remote is a client of an administrator who asks over TLS.
func (s *site) remote(target string) *api.Client {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "central", auth.CACertFile))
	if err != nil {
		s.t.Fatal(err)
	}
	ca, err := auth.ParseCert(text)
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := s.client.AddUser(s.t.Context(), api.AddUser{Name: "tester", Role: "admin"})
	if err != nil {
		s.t.Fatal(err)
	}
	client, err := api.NewClient(target)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	client.Secure(auth.Pinned(auth.Hash(ca), nil), out.Token)
	return client
}
