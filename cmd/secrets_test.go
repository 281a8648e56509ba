package cmd_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// secrets are what a run used and nobody may find, by what they are.
type secrets map[string]string

// in names the secrets that a text has, as they are or as JSON, Base64 and hexadecimal
// digits write them.
func (s secrets) in(text []byte) (found []string) {
	for what, secret := range s {
		for _, form := range []string{
			secret, base64.RawStdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)),
		} {
			if bytes.Contains(text, []byte(form)) {
				found = append(found, what)
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

func randomText() string {
	var raw [9]byte
	_, _ = rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// TestSecretsAreNowhere greps all that a run wrote, answered and printed, and what others
// may read of its processes.
func TestSecretsAreNowhere(t *testing.T) {
	password, kg := power.Secret("p-"+randomText()), power.Secret("k-"+randomText())
	shared, ofRack := "s-"+randomText(), "r-"+randomText()
	farm := startFarm(t, bmcsim.Config{Count: 3, Password: password, KG: kg})
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	keyFile, kgFile := filepath.Join(t.TempDir(), "gossip-key"), filepath.Join(t.TempDir(), "kg")
	key := strings.TrimSpace(s.mustRun("gossip", "keygen"))
	next, nextFile := "n-"+randomText(), filepath.Join(t.TempDir(), "next")
	sharedFile, ofRackFile := filepath.Join(t.TempDir(), "shared"), filepath.Join(t.TempDir(), "of-rack.yaml")
	for path, text := range map[string]string{
		keyFile: key, kgFile: string(kg), sharedFile: shared, nextFile: next,
		ofRackFile: "- {name: own, user: admin, password: " + ofRack + "}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := secrets{
		"password": string(password), "K_g": string(kg), "gossip key": key, "shared password": shared, "next password": next,
		"password of the rack": ofRack,
	}
	var said bytes.Buffer // all that commands printed
	run := func(args ...string) string {
		t.Helper()
		out, errs, exit := s.run(args...)
		said.WriteString(out + errs)
		if exit != 0 {
			t.Fatalf("rackpower %s: exit status %d\n%s%s", strings.Join(args, " "), exit, out, errs)
		}
		return out
	}
	s.spawn("central", s.serve, append(s.centralArgs(), "--gossip", "127.0.0.1:0", "--gossip-key-file", keyFile, "--log-level", "debug",
		"--listen", "127.0.0.1:0", "--tls-name", "127.0.0.1")...)
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	s.spawn("r1", s.cli, append(s.agentArgs("r1", "@every 1s"), "--credentials-file", ofRackFile, "--gossip-key-file", keyFile, "--log-level",
		"debug")...)
	var specs []api.NodeSpec
	for i := range farm.Len() {
		spec := specOf(farm.BMC(i).Name(), farm.BMC(i).Endpoint())
		spec.KG = string(kg)
		specs = append(specs, spec)
	}
	s.addNodes(specs...)
	user, err := s.client.AddUser(t.Context(), api.AddUser{Name: "ann", Role: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	enrol, err := s.client.AgentToken(t.Context(), "r2", api.MakeAgentToken{})
	if err != nil {
		t.Fatal(err)
	}
	all["token of a user"], all["token of an agent"] = user.Token, enrol.Token

	run("on", "n[01-03]")
	// A wrong password on the way: errors of the BMC name it as little.
	wrong := "w-" + randomText()
	all["wrong password"] = wrong
	s.addNodes(api.NodeSpec{Name: "n03", Password: wrong})
	_, _, _ = s.run("read", "n03")
	s.addNodes(api.NodeSpec{Name: "n03", Password: string(password)})
	run("credentials", "set", "lab", "--user", "admin", "--password-file", sharedFile, "--kg-file", kgFile)
	run("rack", "set", "r1", "--credentials", "lab")
	_, _, _ = s.run("credentials", "rotate", "lab", "--user", "admin", "--password-file", nextFile, "--on", "n99")
	run("node", "add", "n98", "--rack", "r1", "--bmc", "ipmi://127.0.0.1:1")
	run("node", "add", "n99", "--rack", "r1", "--bmc", "ipmi://127.0.0.1:2", "--credentials", "own")
	_, _, _ = s.run("status", "n[98-99]", "--fresh")
	for _, args := range [][]string{
		{"status"},
		{"credentials", "list"},
		{"credentials", "test", "n01", "-o", "json"},
		{"node", "test", "n01"},
		{"credentials", "list", "-o", "json"},
		{"node", "show", "n[98-99]"},
		{"explain", "n99"},
		{"status", "-o", "json"},
		{"node", "export"},
		{"node", "export", "-o", "json"},
		{"explain", "n01"},
		{"audit", "-o", "json"},
		{"ops", "-o", "json"},
		{"agents", "-o", "json"},
		{"user", "list", "-o", "json"},
		{"members", "-o", "json"},
		{"rack", "list"},
	} {
		run(args...)
	}
	for _, path := range []string{
		"nodes", "nodes/export", "agents", "audit", "info", "users", "credentials", "members", "peers", "racks",
		"gossip/keys",
	} {
		var raw any
		if err := s.client.Do(t.Context(), "GET", "/v1/"+path, nil, &raw); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		fmt.Fprintf(&said, "%v", raw)
	}
	backup := func(name string) {
		t.Helper()
		s.program(s.serve, &said, "backup", "--data", filepath.Join(s.dir, "central"), filepath.Join(s.dir, name))
	}
	backup("backup-1")
	s.program(s.serve, &said, "seal", "rotate", "--data", filepath.Join(s.dir, "central"), "--socket", s.socket())
	backup("backup-2")
	run("off", "n[01-03]", "--yes")

	for _, name := range s.names() {
		pid := s.procs[name].Process.Pid
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if found := all.in(text); err != nil || len(found) > 0 {
				t.Errorf("%s of %s: %v, %v", file, name, found, err)
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join(s.dir, "r1", "gossip.keyring")); err != nil || len(all.in(text)) == 0 {
		t.Errorf("the gossip key is not found where it is: %v", err)
	}
	s.grep(all) // as it is while all runs
	for _, name := range s.names() {
		s.kill(name)
	}
	run("journal", "dump", filepath.Join(s.dir, "r1", "assigned"))
	s.grep(all)
	if found := all.in(said.Bytes()); len(found) > 0 {
		t.Errorf("answers and output: %v", found)
	}
}

// program runs another program than the command line, for what must succeed.
func (s *site) program(bin string, said *bytes.Buffer, args ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), bin, args...)
	out, err := cmd.CombinedOutput()
	said.Write(out)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", filepath.Base(bin), strings.Join(args, " "), err, out)
	}
}

// keyFiles are the files that hold keys: the gossip keyring has gossip keys.
var keyFiles = []string{"gossip.keyring", "gossip.keyring.copy", "seal.key", "seal.key.old"}

// grep looks for secrets in all files of the site.
func (s *site) grep(all secrets) {
	s.t.Helper()
	read := 0
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) || err == nil && (!d.Type().IsRegular() || slices.Contains(keyFiles, d.Name())) {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		read++
		if found := all.in(text); len(found) > 0 {
			s.t.Errorf("%s: %v", strings.TrimPrefix(path, s.dir), found)
		}
		return err
	})
	if err != nil || read < 6 {
		s.t.Errorf("%d files, %v", read, err)
	}
}
