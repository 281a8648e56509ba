package cmd_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// person runs commands as a user who is logged in over TLS.
type person struct {
	s      *site
	config string
}

func (s *site) person(name, role, hash string) person {
	s.t.Helper()
	out, err := s.client.AddUser(s.t.Context(), api.AddUser{Name: name, Role: role})
	if err != nil {
		s.t.Fatal(err)
	}
	p := person{s, filepath.Join(s.dir, "config-"+name)}
	token := filepath.Join(s.dir, name+".token")
	if err := os.WriteFile(token, []byte(out.Token+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	p.run(0, "login", "https://"+s.tls, "--ca-hash", hash, "--token-file", token)
	return p
}

func (p person) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd, said := exec.CommandContext(p.s.t.Context(), p.s.cli, args...), new(bytes.Buffer)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+p.config)
	cmd.Stdout, cmd.Stderr = said, said
	return cmd, said
}

// run returns all that a command says, which has to end with a status.
func (p person) run(status int, args ...string) string {
	p.s.t.Helper()
	cmd, said := p.command(args...)
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		p.s.t.Fatalf("rackpower %s: exit status %d, want %d\n%s", strings.Join(args, " "), got, status, said)
	}
	return said.String()
}

// TestTwoPersonsTurnNodesOff: one asks, over the command line, and waits; the other one
// approves, after a death of central.
func TestTwoPersonsTurnNodesOff(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.On})
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.overTLS()
	s.startCentral()
	answers := func() bool { _, err := s.client.Info(t.Context()); return err == nil }
	s.until(20*time.Second, "central answers", answers)
	s.startAgent("r1")
	s.addFarm(farm)
	s.read("all", power.On)
	ca, err := s.client.SiteCA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	alice, carol := s.person("alice", "operator", ca.Hash), s.person("carol", "operator", ca.Hash)
	s.mustRun("policy", "set", "approve-above", "2", "--reason", "as agreed")

	off, said := alice.command("off", "n[01-03]", "--yes", "--timeout", "90s")
	if err := off.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = off.Process.Kill(); _ = off.Wait() })
	id := ""
	s.until(20*time.Second, "an approval is awaited", func() bool {
		all, err := s.client.Approvals(t.Context())
		if err != nil || len(all) != 1 {
			return false
		}
		id = all[0].ID
		return true
	})
	if text := alice.run(5, "approve", id); !strings.Contains(text, "another person has to approve it") {
		t.Errorf("alice approves: %s", text)
	}
	if text := carol.run(0, "approvals"); !strings.Contains(text, id[len(id)-12:]) || !strings.Contains(text, "alice") {
		t.Errorf("approvals: %s", text)
	}
	s.kill("central")
	s.startCentral()
	s.until(20*time.Second, "central is back", answers)
	if n := commanded(bmcs(farm), power.PowerOff); n != 0 {
		t.Fatalf("%d nodes were turned off before anybody approved that", n)
	}
	for range 2 { // the second time nothing comes of it
		if text := carol.run(0, "approve", id, "--reason", "seen"); !strings.Contains(text, "off of 3 nodes, asked by alice: approved") {
			t.Errorf("carol approves: %s", text)
		}
	}
	if err := off.Wait(); err != nil || !strings.Contains(said.String(), "rackpower approve "+id) ||
		!strings.Contains(said.String(), "approved by carol") || !strings.Contains(said.String(), "n[01-03] off") {
		t.Errorf("off: %v\n%s", err, said)
	}
	if n := commanded(bmcs(farm), power.PowerOff); n != 3 {
		t.Errorf("%d nodes were turned off", n)
	}

	text := alice.run(0, "plan", "on", "n[01-03]")
	id = regexp.MustCompile(`rackpower apply (\S+)`).FindStringSubmatch(text)[1]
	if !strings.Contains(text, "n[01-03] are turned on") {
		t.Errorf("plan: %s", text)
	}
	if text := carol.run(5, "apply", id); !strings.Contains(text, "made by alice") {
		t.Errorf("carol applies: %s", text)
	}
	if text := alice.run(0, "apply", id); !strings.Contains(text, "n[01-03] on") {
		t.Errorf("apply: %s", text)
	}
	for _, words := range []string{"approval-asked", "approved", "plan-apply", "policy"} {
		if text := s.mustRun("audit"); !strings.Contains(text, words) {
			t.Errorf("the audit log has no %s:\n%s", words, text)
		}
	}
}
