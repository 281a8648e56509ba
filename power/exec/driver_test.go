package exec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/power"
)

// programs is a directory of programs, each of one shell script.
func programs(t *testing.T, scripts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range scripts {
		script(t, filepath.Join(dir, name), text)
	}
	return dir
}

// script writes a program while no process is forked that would have the file open for writing.
func script(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, cfg Config, ep string, pw power.Secret) power.Driver {
	t.Helper()
	d, err := NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	at, err := power.ParseEndpoint(ep)
	if err != nil {
		t.Fatal(err)
	}
	at.Password = pw
	driver, err := d.Dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	return driver
}

// wantErr checks what an error says, and that it shows no password.
func wantErr(t *testing.T, err error, kind power.ErrorKind, sent bool, says string) {
	t.Helper()
	var e *power.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Sent != sent || !strings.Contains(err.Error(), says) ||
		strings.Contains(err.Error(), "S3cret") {
		t.Errorf("%v (%+v); want %s, sent %t, %q", err, e, kind, sent, says)
	}
}

const secret = power.Secret("S3cret = \"x' $y")

// TestTold compares what a program is told, by which way, with the contract.
func TestTold(t *testing.T) {
	t.Setenv("RACKPOWER_TEST_LEAK", "1")
	dir := programs(t, map[string]string{"p": `d=$(dirname "$0"); cat >>"$d/in"; echo "$#" >>"$d/argc"; env >>"$d/env"; pwd >>"$d/pwd"; exit 0`})
	d := dial(t, Config{Dir: dir}, "exec:p?plug=3&ip=PDU1&username=root", secret)
	if s, err := d.State(t.Context()); s != power.On || err != nil {
		t.Fatal(s, err)
	}
	for _, cmd := range []power.Command{power.PowerOn, power.PowerOff} {
		if err := d.Do(t.Context(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := ""
	for _, action := range []string{"status", "on", "off"} {
		want += "action=" + action + "\nip=pdu1\nplug=3\nusername=root\npassword=" + string(secret) + "\n"
	}
	if got := read("in"); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if got := read("argc"); got != "0\n0\n0\n" {
		t.Errorf("arguments: %q", got)
	}
	if got := read("pwd"); got != "/\n/\n/\n" {
		t.Errorf("started in %q", got)
	}
	if got := read("env"); strings.Contains(got, "S3cret") || strings.Contains(got, "RACKPOWER") || !strings.Contains(got, "LC_ALL=C\n") {
		t.Errorf("environment: %q", got)
	}
}

func TestStatus(t *testing.T) {
	for script, want := range map[string]struct {
		state power.State
		kind  power.ErrorKind
		says  string
	}{
		"exit 0":                       {state: power.On},
		"echo 'Status: ON'; exit 0":    {state: power.On},
		"echo 'Status: OFF'; exit 2":   {state: power.Off},
		"echo off; exit 2":             {state: power.Off},
		"exit 2":                       {kind: power.KindRefused, says: "exit code 2"}, // so does a program that cannot be read
		"echo 'Status: ON'; exit 2":    {kind: power.KindRefused, says: "exit code 2"},
		"echo 'Status: OFF'; exit 0":   {kind: power.KindRefused, says: "exit code 0"},
		"echo on; echo off; exit 2":    {kind: power.KindRefused, says: "exit code 2"},
		"if then":                      {kind: power.KindRefused, says: "exit code 2"},
		"cat; cat >&2; exit 1":         {kind: power.KindUnreachable, says: "exit code 1, and why is not shown"},
		"cat >&2; exit 3":              {kind: power.KindUnreachable, says: "exit code 3"},
		"kill -9 $$":                   {kind: power.KindUnreachable, says: "was killed"},
		"yes S3cret | head -c 3000000": {state: power.On}, // what is printed is read, and forgotten

		"echo 'Unable to connect/login to fencing device S3cret' >&2; exit 1": {
			kind: power.KindUnreachable, says: "exit code 1: Unable to connect/login to fencing device",
		},
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			d := dial(t, Config{Dir: programs(t, map[string]string{"p": script})}, "exec:p", secret)
			state, err := d.State(t.Context())
			if want.kind != "" {
				wantErr(t, err, want.kind, false, want.says)
				if state != power.Unknown {
					t.Errorf("%s beside an error", state)
				}
			} else if state != want.state || err != nil {
				t.Errorf("%s, %v; want %s", state, err, want.state)
			}
		})
	}
}

// TestActs: once the program was started the command counts as sent; before, it does not.
func TestActs(t *testing.T) {
	dir := programs(t, map[string]string{"p": `echo x >>"$0.ran"; exit 1`, "noexec": ""})
	d := dial(t, Config{Dir: dir}, "exec:p", secret)
	ran := func() int {
		text, _ := os.ReadFile(filepath.Join(dir, "p.ran"))
		return len(text) / 2
	}
	wantErr(t, d.Do(t.Context(), power.PowerOff), power.KindUncertain, true, "exit code 1")
	if ran() != 1 {
		t.Errorf("it ran %d times", ran())
	}
	for _, cmd := range []power.Command{power.PressSoftOff, power.HardReset, power.PulseDiag, power.ResetBMC, power.SetLimit, "", "status"} {
		wantErr(t, d.Do(t.Context(), cmd), power.KindUnsupported, false, "on and off")
	}
	wantErr(t, d.SetBoot(t.Context(), power.BootPXE), power.KindUnsupported, false, "boot")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, d.Do(gone, power.PowerOn), power.KindCanceled, false, "")
	_, err := d.State(gone)
	wantErr(t, err, power.KindCanceled, false, "")
	for _, pw := range []power.Secret{"S3cret ", " S3cret", `"S3cret"`, "S3cret\naction=off"} {
		wantErr(t, dial(t, Config{Dir: dir}, "exec:p", pw).Do(t.Context(), power.PowerOff), power.KindUnsupported, false, "password")
	}
	if err := os.Remove(filepath.Join(dir, "p")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.Do(t.Context(), power.PowerOff), power.KindUnsupported, false, "no program p")
	if err := os.WriteFile(filepath.Join(dir, "p"), []byte("#!/nowhere\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.Do(t.Context(), power.PowerOff), power.KindUnsupported, false, "cannot be started")
	if ran() != 1 {
		t.Errorf("it ran %d times", ran())
	}
}

// TestHangs: the whole group is killed, whoever ends the wait, and what holds the pipes does
// not hold us.
func TestHangs(t *testing.T) {
	dir := programs(t, map[string]string{
		"hangs":  `echo x >>"$0.ran"; sleep 1000 & echo $! >"$0.child"; trap '' TERM; sleep 1000; sleep 1000`,
		"leaves": `sleep 1000 & echo $! >"$0.child"; exit 0`,
		"flees":  `setsid sleep 4 & exit 0`,
	})
	dead := func(name string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name+".child"))
		if err != nil {
			t.Fatal(err)
		}
		pid := strings.TrimSpace(string(text))
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil || strings.Contains(string(stat), ") Z ") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the child of %s lives: %s", name, stat)
			}
		}
	}
	begun := func(name string) {
		for {
			if text, err := os.ReadFile(filepath.Join(dir, name+".child")); err == nil && len(text) > 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	hangs := dial(t, Config{Dir: dir, Timeout: 5 * time.Second}, "exec:hangs", secret)
	_, err := hangs.State(t.Context())
	wantErr(t, err, power.KindUnreachable, false, "did not end within 5s and was killed")
	dead("hangs")
	os.Remove(filepath.Join(dir, "hangs.child"))
	wantErr(t, hangs.Do(t.Context(), power.PowerOff), power.KindUnreachable, true, "did not end within 5s")
	dead("hangs")
	os.Remove(filepath.Join(dir, "hangs.child"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { begun("hangs"); cancel() }()
	wantErr(t, dial(t, Config{Dir: dir}, "exec:hangs", secret).Do(ctx, power.PowerOff), power.KindCanceled, true, "")
	dead("hangs")
	if text, _ := os.ReadFile(filepath.Join(dir, "hangs.ran")); len(text) != 6 {
		t.Errorf("three times run, %d times it ran", len(text)/2)
	}
	if s, err := dial(t, Config{Dir: dir}, "exec:leaves", secret).State(t.Context()); s != power.On || err != nil {
		t.Error(s, err)
	}
	dead("leaves")
	if s, err := dial(t, Config{Dir: dir}, "exec:flees", secret).State(t.Context()); s != power.On || err != nil {
		t.Error(s, err)
	}
}

// TestOnlyTrustedPrograms refuses what others than the agent's user and root could change.
func TestOnlyTrustedPrograms(t *testing.T) {
	ep := power.Endpoint{Scheme: power.SchemeExec, Program: "p"}
	wantDial := func(cfg Config, ep power.Endpoint, says string) {
		t.Helper()
		d, err := NewDialer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Dial(t.Context(), ep)
		wantErr(t, err, power.KindUnsupported, false, says)
		wantErr(t, d.Probe(t.Context(), ep), power.KindUnsupported, false, says)
	}
	mode := func(path string, m os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	wantDial(Config{}, ep, "--exec-dir DIR")
	dir := programs(t, map[string]string{"p": "exit 0"})
	wantDial(Config{Dir: dir}, power.Endpoint{Scheme: power.SchemeIPMI, Host: "h"}, "no program")
	for _, name := range []string{"", "../p", "/bin/sh", ".p", ".."} {
		wantDial(Config{Dir: dir}, power.Endpoint{Scheme: power.SchemeExec, Program: name}, "names no program")
	}
	mode(filepath.Join(dir, "p"), 0o720)
	wantDial(Config{Dir: dir}, ep, "chmod go-w")
	mode(filepath.Join(dir, "p"), 0o600)
	wantDial(Config{Dir: dir}, ep, "chmod +x")
	other := programs(t, map[string]string{"q": "exit 0"})
	if err := os.Symlink(filepath.Join(other, "q"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	dial(t, Config{Dir: dir}, "exec:link", "")
	mode(other, 0o777)
	wantDial(Config{Dir: dir}, power.Endpoint{Scheme: power.SchemeExec, Program: "link"}, "chmod go-w")
	mode(other, 0o700)
	mode(dir, 0o702)
	if _, err := NewDialer(Config{Dir: dir}); err == nil {
		t.Error("a directory that everybody can change")
	}
	for _, bad := range []string{filepath.Join(dir, "nowhere"), filepath.Join(other, "q")} {
		if _, err := NewDialer(Config{Dir: bad}); err == nil {
			t.Errorf("%s is taken for a directory", bad)
		}
	}
}
