package cmd_test

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestAnInstallationOfBeforeIsUpgraded starts what there is on the data of commit 4616239, see
// testdata/README.md: schema 2, no certificates, passwords in plain. Nothing is lost, what was
// outstanding goes on, and the agent of this machine needs nothing but the socket.
func TestAnInstallationOfBeforeIsUpgraded(t *testing.T) {
	const password = "made-up-3kd9"
	farm := startFarm(t, bmcsim.Config{
		Listen: netip.MustParseAddr("127.0.41.1"), Port: 6623, Count: 3, Password: password,
		OnAfter: 50 * time.Millisecond, OffAfter: 50 * time.Millisecond,
	})
	farm.BMC(0).SetPower(power.On)
	farm.BMC(2).SetPower(power.On)
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	if out, err := exec.Command("tar", "-xzf", "testdata/schema2.tar.gz", "-C", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(filepath.Join(s.dir, "agent"), filepath.Join(s.dir, "r1")); err != nil {
		t.Fatal(err)
	}
	s.startCentral()
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	for _, line := range []string{"no copy of the database is kept", "the database was migrated", `"from":2`, "seal.key", "--listen", "rackpower agents token"} {
		if s.logLines("central", line) == 0 {
			t.Errorf("the log does not say %q", line)
		}
	}
	s.startMonitor("r1", "@every 1s")
	var ops []api.Op
	s.until(30*time.Second, "all operations have ended, that of the rack too", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
		ops = found.Ops
		if err != nil || len(ops) < 6 {
			return false
		}
		for _, o := range ops {
			if o.Outcome == "" {
				return false
			}
		}
		return true
	})
	by := map[string]power.Outcome{}
	for _, o := range ops {
		by[o.Node+" "+string(o.Action)+" "+o.AskedBy] = o.Outcome
	}
	resets := 0
	for _, e := range farm.BMC(0).Log() {
		if !e.Event && strings.HasSuffix(e.Command, "reset") {
			resets++
		}
	}
	// The reset was taken and not handed out. It has a deadline of a week, since the data were made.
	if reset := by["n01 reset bob"]; reset != power.Succeeded && reset != power.Expired || (resets == 1) != (reset == power.Succeeded) {
		t.Errorf("the reset ended as %s, the BMC had %d", reset, resets)
	}
	delete(by, "n01 reset bob")
	for _, want := range []string{"n01 on bob", "n02 on bob", "n03 on bob", "n02 off monitor", "n03 cycle bob"} {
		if by[want] != power.Succeeded {
			t.Errorf("%s: %q", want, by[want])
		}
		delete(by, want)
	}
	if len(by) > 0 {
		t.Errorf("more operations: %v", by)
	}
	nodes, err := s.client.Nodes(t.Context(), "all")
	if err != nil || len(nodes) != 3 {
		t.Fatalf("%+v, %v", nodes, err)
	}
	for i, want := range []struct {
		status power.Status
		hold   bool
		state  power.State
	}{{"DEPLOYED", false, power.On}, {power.StatusReady, false, power.Off}, {"", true, power.On}} {
		n := nodes[i]
		if n.Status != want.status || (n.Hold != nil) != want.hold || n.State != want.state || n.Domain != "pdu1" || n.Drift {
			t.Errorf("%+v", n)
		}
	}
	if h := nodes[2].Hold; h == nil || h.Want != power.WantOn || h.By != "bob" || h.Reason != "a long test" {
		t.Errorf("%+v", h)
	}
	s.auditOfBefore(t)
	for _, dir := range []string{"central", "r1"} {
		s.until(20*time.Second, "no password is in plain in "+dir, func() bool { return !holdsText(t, filepath.Join(s.dir, dir), password) })
	}
	// It goes on: the passwords that were sealed open.
	s.mustRun("off", "n01", "--reason", "test")
}

// auditOfBefore checks that what the audit log had is there, and that the chain begins.
func (s *site) auditOfBefore(t *testing.T) {
	t.Helper()
	all, err := s.client.AuditAfter(t.Context(), "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]int{}
	for i, e := range all {
		if e.What == "audit-chain" {
			if i != 23 {
				t.Errorf("%d entries of before, there were 23", i)
			}
			break
		}
		before[e.Who+" "+e.What]++
	}
	for what, n := range map[string]int{
		"bob node-add": 3, "bob asked": 4, "bob status": 2, "bob hold": 1, "monitor asked": 1, "agent r1 accepted": 4, "agent r1 started": 4,
		"agent r1 ended": 4,
	} {
		if before[what] != n {
			t.Errorf("%d entries %q, there were %d", before[what], what, n)
		}
	}
	if out := s.mustRun("audit", "verify"); !strings.Contains(out, "23 of before there were hashes cannot be checked") {
		t.Errorf("%s", out)
	}
}

func holdsText(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	for _, name := range append(names, deeper...) {
		if raw, err := os.ReadFile(name); err == nil && bytes.Contains(raw, []byte(text)) {
			found = true
		}
	}
	return found
}
