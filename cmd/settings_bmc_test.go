package cmd_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// TestSettingsReachTheBMC: K_g, target and level, from the command line through central
// and agent as processes to a chassis of simulated BMCs.
func TestSettingsReachTheBMC(t *testing.T) {
	const key = "0x000102030405060708090a0b0c0d0e0f10111213"
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{
		Count: 3, Listen: netip.MustParseAddr("127.0.45.1"), KG: key,
		Initial: power.On,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { farm.Close() })
	farm.BMC(0).Behind(0x30, farm.BMC(1))
	farm.BMC(0).Behind(0x32, farm.BMC(2))
	s := newSite(t)
	s.startAgent("r1")
	for name, text := range map[string]string{
		"pw": string(bmcsim.DefaultPassword), "kg": key + "\n", "wrong": "another key",
		"long": strings.Repeat("x", 21),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(s.dir, name) }
	addr := farm.BMC(0).Addr()
	bmc := func(options string) string { return fmt.Sprintf("ipmi://admin@%s%s", addr, options) }
	nodes := fmt.Sprintf("- {name: b1, rack: r1, bmc: '%s', password_file: pw, kg_file: kg}\n- {name: b2, rack: r1, bmc: '%s', "+
		"password_file: pw}\n", bmc("?target=0x30"), bmc("?target=0x32&boot=legacy&kg-file=kg"))
	if err := os.WriteFile(file("nodes.yaml"), []byte(nodes), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustRun("node", "import", file("nodes.yaml"))
	s.mustRun("off", "b1")
	s.mustRun("reset", "b2")
	for i, cuts := range []int{0, 1, 0} {
		if got := farm.BMC(i).Cuts(); got != cuts {
			t.Errorf("BMC %d was cut %d times, want %d", i, got, cuts)
		}
	}
	if farm.BMC(2).Resets() != 1 {
		t.Errorf("%d resets of b2", farm.BMC(2).Resets())
	}
	out := s.mustRun("node", "export")
	if !strings.Contains(out, "target=0x32&boot=legacy") || strings.Contains(out, "000102") || strings.Contains(out, "kg") {
		t.Errorf("exported:\n%s", out)
	}
	s.mustRun("node", "add", "m", "--rack", "r1", "--bmc", bmc("?level=user"), "--password-file", file("pw"), "--kg-file", file("kg"))
	if out, errs, exit := s.run("off", "m"); exit != 1 || !strings.Contains(out+errs, "level=user") {
		t.Errorf("off as user: exit status %d, %s%s", exit, out, errs)
	}
	s.mustRun("node", "add", "m", "--rack", "r1", "--bmc", bmc(""), "--kg-file", file("wrong"), "--update")
	if out, errs, exit := s.run("off", "m"); exit != 1 || !strings.Contains(out+errs, "K_g is not") {
		t.Errorf("off with a wrong K_g: exit status %d, %s%s", exit, out, errs)
	}
	if out := s.mustRun("explain", "m"); !strings.Contains(out, "K_g") {
		t.Errorf("explain with a wrong K_g: %s", out)
	}
	s.mustRun("node", "add", "m", "--rack", "r1", "--kg-file", "", "--update")
	if out, errs, exit := s.run("off", "m"); exit != 1 || !strings.Contains(out+errs, "has a key K_g besides") {
		t.Errorf("off without K_g: exit status %d, %s%s", exit, out, errs)
	}
	if _, errs, exit := s.run("node", "add", "m", "--rack", "r1", "--password-file", file("long"), "--update"); exit != 2 ||
		!strings.Contains(errs, "21 bytes long") {
		t.Errorf("a password of 21 bytes: exit status %d, %s", exit, errs)
	}
	s.mustRun("node", "add", "m", "--rack", "r1", "--kg-file", file("kg"), "--update")
	s.mustRun("off", "m")
	if out := s.mustRun("journal", "dump", filepath.Join(s.dir, "r1", "assigned")); strings.Contains(out, "00010203") ||
		strings.Contains(out, "another key") {
		t.Errorf("the journal tells K_g:\n%s", out)
	}
}
