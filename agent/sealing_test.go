package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/power"
	"rackpower/power/powertest"
)

// oldSecrets are the password and K_g of every node in the files of November 2026.
var oldSecrets = [2]string{"secret", "key"}

// plainFiles names the files beneath a directory that hold one of the old passwords in plain.
func plainFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a segment that is removed meanwhile
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(`"password":"secret"`)) || bytes.Contains(raw, []byte(`"kg":"key"`)) {
			files = append(files, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func startOn(t *testing.T, dir, keyFile string) *Agent {
	t.Helper()
	a, err := New(Config{
		Name: "r1", Dir: dir, SealKeyFile: keyFile, Dial: powertest.NewFake().Dial, Central: unreachable(t), Monitor: MonitorOff,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// secretsOf are the passwords and keys of an agent's nodes, by node.
func secretsOf(a *Agent) map[string][2]string {
	all := map[string][2]string{}
	for _, n := range a.assigned.all() {
		all[n.Name] = [2]string{n.Password, n.KG}
	}
	return all
}

func wantSecrets(t *testing.T, a *Agent) {
	t.Helper()
	if got := secretsOf(a)["n1"]; got != oldSecrets {
		t.Errorf("%q", got)
	}
}

func TestPasswordsOfOldFilesAreSealed(t *testing.T) {
	dir := oldFiles(t)
	if len(plainFiles(t, dir)) == 0 {
		t.Fatal("there is nothing to seal")
	}
	a := startOn(t, dir, "")
	wantSecrets(t, a)
	// Segments are removed in the background.
	eventually(t, "no password is in plain", func() bool { return len(plainFiles(t, dir)) == 0 })
	a.Close()
	a = startOn(t, dir, "")
	wantSecrets(t, a)
	if info, err := os.Stat(filepath.Join(dir, seal.FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAKeyOfAnAgentFromOutside(t *testing.T) {
	dir, file := oldFiles(t), filepath.Join(t.TempDir(), "key")
	ring := seal.NewRing(seal.NewKey())
	write := func(r *seal.Ring) {
		t.Helper()
		if err := r.WriteFile(file); err != nil {
			t.Fatal(err)
		}
	}
	write(ring)
	startOn(t, dir, file).Close()
	second := seal.NewKey()
	write(ring.With(second))
	startOn(t, dir, file).Close()
	write(seal.NewRing(second))
	wantSecrets(t, startOn(t, dir, file))
	if _, err := os.Stat(filepath.Join(dir, seal.FileName)); err == nil {
		t.Error("a key was made beside the one from outside")
	}
}

func reasonIn(err error) power.Reason {
	var e endError
	if !errors.As(err, &e) {
		return ""
	}
	return e.end.Reason
}

// Without the key nothing is sent to a BMC that it might take for a guess, and central is
// asked for all.
func TestAnAgentThatLostItsKey(t *testing.T) {
	dir := oldFiles(t)
	a := startOn(t, dir, "")
	at, all := a.assigned.position(), a.assigned.all()
	a.Close()
	if err := os.Remove(filepath.Join(dir, seal.FileName)); err != nil {
		t.Fatal(err)
	}
	a = startOn(t, dir, "")
	if _, err := a.assigned.endpoint("n1"); reasonIn(err) != power.ReasonConfigless {
		t.Errorf("%v", err)
	}
	if got := a.assigned.position(); got.Rev != 0 || got.Database != at.Database {
		t.Errorf("%+v", got)
	}
	again := api.Assignment{Full: true, Rev: at.Rev}
	for _, n := range all {
		again.Nodes = append(again.Nodes, n.AssignedNode)
	}
	if _, _, err := a.assigned.apply(again, at.Database); err != nil {
		t.Fatal(err)
	}
	a.Close()
	wantSecrets(t, startOn(t, dir, ""))
}
